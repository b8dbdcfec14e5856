import ArgumentParser
import MATControl

struct PeersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peers", abstract: "Show who this node talks to, where they are, and the packets exchanged.")

    @Flag(help: "Show peers' names as well, as the reverse DNS has them.")
    var names = false

    @Option(help: ArgumentHelp("Show so many at most, those first that a person should look at.", valueName: "count"))
    var limit: Int?

    @OptionGroup var control: NodeControl
    @OptionGroup var watching: WatchOptions
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard limit.map({ $0 > 0 }) ?? true else { throw ValidationError("--limit takes a number above 0") }
    }

    func run() throws {
        let (control, limit) = (control, limit)
        let names = names ? HostNames() : nil
        try watching.run(
            output,
            { () throws(CommandFailure) in
                var report = try control.request(.peers, as: PeersReport.self)
                if let limit, output.json { report.peers = Array(PeersText.ordered(report.peers).prefix(limit)) }
                return report
            },
            as: { PeersText.text($0, limit: limit, names: names?.of($0.peers.map(\.home)) ?? [:], $1) })
    }
}
