import ArgumentParser
import MATRuntime

/// `--watch`, of what people look at again and again.
struct WatchOptions: ParsableArguments {
    /// A daemon counts each second; more often shows nothing new. An hour is more patience than anybody has.
    static let range = 0.2...3600

    @Flag(help: "Show it again and again, in place on a terminal, until q or Ctrl-C; with --json a line each time.")
    var watch = false

    @Option(help: ArgumentHelp("With --watch: seconds between two.", valueName: "seconds"))
    var interval = 2.0

    func validate() throws {
        guard Self.range.contains(interval) else { throw ValidationError("--interval takes from 0.2 to 3600 seconds") }
    }

    /// - Parameter fetch: what is shown, asked for anew.
    func run<Report: PrintedReport>(
        _ output: OutputOptions, _ fetch: @escaping () throws(CommandFailure) -> Report, as text: @escaping (Report, TextStyle) -> String
    )
        throws
    {
        guard watch else {
            let report = try fetch()
            return try output.print(report) { text(report, $0) }
        }
        try LiveView.run(every: .milliseconds(Int64(interval * 1000))) { size in
            let report = try fetch()
            if output.json {
                let line = try ControlJSON.encode(Labelled(report))
                return [String(decoding: line, as: UTF8.self)]
            }
            var style = TextStyle.forStandardOutput
            style.columns = size?.columns
            let body = text(report, style).split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
            let time = Quantity.date(unixMilliseconds: SystemClock.now().wallMilliseconds)
            let head = size == nil ? time : "\(time), every \(Self.text(interval)) s; q ends"
            return [style.head(head)] + body.dropLast(body.last == "" && size != nil ? 1 : 0)
        }
    }

    private static func text(_ seconds: Double) -> String { seconds == seconds.rounded() ? "\(Int(seconds))" : "\(seconds)" }
}
