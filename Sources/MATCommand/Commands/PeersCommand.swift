import ArgumentParser
import MATControl

struct PeersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peers", abstract: "Show who this node talks to, where they are, and the packets exchanged.")

    @Flag(help: "Show peers' names as well, as the reverse DNS has them.")
    var names = false

    @OptionGroup var control: NodeControl
    @OptionGroup var watching: WatchOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let control = control
        let names = names ? HostNames() : nil
        try watching.run(
            output, { () throws(CommandFailure) in try control.request(.peers, as: PeersReport.self) },
            as: { PeersText.text($0, names: names?.of($0.peers.map(\.home)) ?? [:], $1) })
    }
}
