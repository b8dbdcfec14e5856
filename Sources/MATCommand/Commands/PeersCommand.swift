import ArgumentParser
import MATControl

struct PeersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peers", abstract: "Show who this node talks to, where they are, and the packets exchanged.")

    @OptionGroup var control: NodeControl
    @OptionGroup var watching: WatchOptions
    @OptionGroup var output: OutputOptions

    func run() throws {
        let control = control
        try watching.run(output, { () throws(CommandFailure) in try control.request(.peers, as: PeersReport.self) }, as: { PeersText.text($0, $1) })
    }
}
