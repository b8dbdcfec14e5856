import ArgumentParser
import MATControl
import MATSignal

struct HandoverCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "handover", abstract: "Move this node's traffic to another interface, without breaking connections.",
        discussion: """
            matd hands over by itself when addresses come and go; this is for choosing among interfaces that are up. The choice \
            holds until `mat handover --auto` or a restart of matd; while the interface has no address, or nothing answers over \
            it, the others are used. A home address whose family that interface has lacked for 2 s is reached by its other addresses, \
            in datagrams or by a relay, so that the others can go without loss. With --peer it concerns only what is sent to that \
            peer; what the peer sends follows the order that this node has registered.
            """)

    @Argument(help: "The interface to use first, such as wlan0.")
    var interface: String?

    @Flag(help: "Return to the order of preference in matd.yaml; the same as giving no interface.")
    var auto = false

    @Option(help: ArgumentHelp("Only for the traffic to this peer's home address.", valueName: "hoa"))
    var peer: String?

    @OptionGroup var control: NodeControl
    @OptionGroup var output: OutputOptions

    func validate() throws {
        if let peer, IPAddress(peer) == nil { throw ValidationError("--peer takes a home address, not \"\(peer)\"") }
        if auto, interface != nil { throw ValidationError("Give an interface or --auto, not both") }
    }

    func run() throws {
        let status = try control.request(
            .handover, HandoverRequest(interface: interface, peer: peer), as: NodeReport.self, unanswered: HandoverText.unanswered(peer: peer))
        try output.print(status) { _ in peer.map { HandoverText.text(peer: $0, interface) } ?? HandoverText.text(status) }
    }
}
