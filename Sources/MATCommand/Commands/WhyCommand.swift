import ArgumentParser
import MATControl
import MATRuntime
import MATSignal

struct WhyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "why", abstract: "Explain how packets to a peer go, and why not by a better path.",
        discussion: """
            A direct path rewrites addresses and adds nothing; it needs a network at both ends that lets packets of a connection in. Where a \
            translator (NAT) or firewall stands, packets travel encapsulated in UDP between endpoints. Each path that both ends allow is \
            listed with what was last found out about it, and what would make it work. Sockets of this host that talk to the peer beside all \
            that, and so would not survive a move, are listed too.
            """)

    @Argument(help: "The peer's home address.")
    var peer: String

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        guard IPAddress(peer) != nil else { throw ValidationError("mat why takes a peer's home address, not \"\(peer)\"; `mat peers` lists them") }
    }

    func run() throws {
        var report = try control.request(.why, WhyRequest(peer: peer), as: WhyReport.self)
        report.plain = PlainConversations.all(noted: report.plain ?? [], found: try PlainConversations.find(report, control))
        try output.print(report) { WhyText.text(report, $0) }
    }
}
