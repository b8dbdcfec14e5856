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
        guard let address = IPAddress(peer) else {
            throw ValidationError("mat why takes a peer's home address, not \"\(peer)\"; `mat peers` lists them")
        }
        if let reason = Self.pathless(address) { throw ValidationError("there is no path to \(peer) to explain: it is \(reason)") }
    }

    /// Why an address can't be a home address (protocol.md section 2), so that no peer has it; `nil` if one may.
    static func pathless(_ address: IPAddress) -> String? {
        if address.isUsableUnicast { return nil }
        if address.isUnspecified { return "the unspecified address, which is no host's" }
        if address.isLoopback { return "a loopback address, and packets to it never leave this host" }
        if address.isMulticast { return "a multicast address, which stands for a group of hosts and never for a peer" }
        if address.isLinkLocal { return "a link-local address, which means a host on its own link alone, and packets to it are never mapped" }
        return "the broadcast address, which stands for all hosts on a link"
    }

    func run() throws {
        var report = try control.request(.why, WhyRequest(peer: peer), as: WhyReport.self)
        report.plain = PlainConversations.all(noted: report.plain ?? [], found: try PlainConversations.find(report, control))
        try output.print(report) { WhyText.text(report, $0) }
    }
}
