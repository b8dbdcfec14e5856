import MATControl
import MATSignal

/// Which of this host's sockets talk to a peer beside the mapping: at its home address from an address that is none of ours, or at where it is, as
/// connections do that are older than what is known of it.
enum PlainConversations {
    /// Whose questions matd answers at once.
    private static let socketsMax = ExplainRequest.conversationsMax

    /// The addresses that are the peer's alone: what a translator or relay has, others have too.
    static func addresses(of report: WhyReport) -> Set<IPAddress> {
        let places = report.candidates.filter { $0.path == .direct }.compactMap { IPAddress($0.to) }
        return Set(places + (IPAddress(report.peer).map { [$0] } ?? []))
    }

    /// Sockets that are connected to one of these, as far as matd can be asked about them at once.
    static func sockets(of all: [HostSocket], to addresses: Set<IPAddress>) -> [(socket: HostSocket, remote: Endpoint)] {
        let connected = all.compactMap { socket in socket.remote.map { (socket: socket, remote: $0) } }
        return Array(connected.filter { addresses.contains($0.remote.address) && $0.socket.state != "TIME-WAIT" }.prefix(socketsMax))
    }

    /// - Parameter traffic: of each, in order.
    static func judge(_ sockets: [(socket: HostSocket, remote: Endpoint)], _ traffic: [TrafficReport]) -> [WhyReport.PlainConversation] {
        zip(sockets, traffic).compactMap { found, traffic in
            guard traffic.way == .plain, traffic.survives != .yes else { return nil }
            return WhyReport.PlainConversation(
                transport: found.socket.transport.rawValue, local: "\(found.socket.local)", remote: "\(found.remote)", reason: traffic.text)
        }
    }

    /// Sockets, and flows of datagrams that no connected socket has.
    static func all(noted: [WhyReport.PlainConversation], found: [WhyReport.PlainConversation]) -> [WhyReport.PlainConversation] {
        struct Ends: Hashable {
            let (transport, local, remote): (String, String, String)

            init(_ conversation: WhyReport.PlainConversation) {
                (transport, local, remote) = (conversation.transport, conversation.local, conversation.remote)
            }
        }
        let known = Set(found.map(Ends.init))
        return found + noted.filter { !known.contains(Ends($0)) }
    }

    static func find(_ report: WhyReport, _ control: NodeControl) throws(CommandFailure) -> [WhyReport.PlainConversation] {
        let sockets = sockets(of: ProcessSockets.all(), to: addresses(of: report))
        guard !sockets.isEmpty else { return [] }
        let questions = sockets.map { ExplainRequest.Conversation(local: "\($0.socket.local.address)", remote: "\($0.remote.address)") }
        return judge(sockets, try control.request(.explain, ExplainRequest(conversations: questions), as: TrafficReports.self).traffic)
    }
}
