import ArgumentParser
import MATControl

struct PeersCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "peers", abstract: "Show who this node talks to, where they are, and the packets exchanged.")

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func run() throws {
        let answer = try control.request(.peers, as: PeersReport.self)
        try output.print(answer) { PeersText.text(answer, $0) }
    }
}
