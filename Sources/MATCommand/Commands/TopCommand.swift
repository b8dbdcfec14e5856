import ArgumentParser
import MATControl
import MATRuntime

struct TopCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "top", abstract: "Watch this node: peers by traffic, rates, paths, handovers. q ends.",
        discussion: """
            Peers with the most traffic come first; of more than 1000 those with the latest are shown. Rates are of the time since the line before. \
            For programs: `mat peers --watch --json`.
            """)

    @Option(help: ArgumentHelp("Seconds between two looks.", valueName: "seconds"))
    var interval = 1.0

    @OptionGroup var control: NodeControl

    func validate() throws {
        guard WatchOptions.range.contains(interval) else { throw ValidationError("--interval takes from 0.2 to 3600 seconds") }
    }

    func run() throws {
        guard Terminal.isThere else {
            throw CommandFailure("mat top draws on a terminal, and standard output is none; for programs and files: `mat peers --watch --json`")
        }
        var rates = TrafficRates()
        try LiveView.run(every: .milliseconds(Int64(interval * 1000))) { size in
            let status = try control.request(.status, as: NodeReport.self)
            let history = try control.request(.history, as: HistoryReport.self)
            let now = SystemClock.now()
            var style = TextStyle.forStandardOutput
            style.columns = size?.columns
            return TopText.lines(status, history, rates.take(status.peers, at: now.monotonic), wallMilliseconds: now.wallMilliseconds, style)
        }
    }
}
