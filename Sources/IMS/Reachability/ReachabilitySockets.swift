import MATRuntime
import MATServer
import MATSignal

/// Where the reachability test is sent from (protocol.md section 11.1): ports that no node has sent anything to, so that a filter on the way
/// takes the datagram for a stranger's. One socket for each address that the configuration names, or one for all addresses of the host. What
/// comes back is never read: the node is who wants to know.
final class ReachabilitySockets {
    private let sockets: [BoundSocket]
    /// Few at a time: whether there is room is asked once for all of them.
    private let outbox = DatagramOutbox(max: 16, maySend: { $0.hasRoomForStrangers })

    /// Answers are left in the socket until it is full.
    private static let receiveBufferBytes: Int32 = 4096

    /// - Parameter addresses: of this host, to send from; any if empty.
    init(addresses: [IPAddress]) throws(SystemError) {
        var options = BoundSocket.Options()
        options.receiveBufferBytes = Self.receiveBufferBytes
        var sockets: [BoundSocket] = []
        for address in addresses { sockets.append(try BoundSocket(port: 0, address: address, options: options)) }
        if addresses.isEmpty { sockets.append(try BoundSocket(port: 0, address: nil, options: options)) }
        self.sockets = sockets
    }

    /// To be sent from another address than `avoided` if there is one of the target's family, with all that is added until `flush`. What the
    /// kernel refuses is lost: two more tries follow.
    func add(_ octets: [UInt8], to target: Endpoint, avoiding avoided: IPAddress) {
        var chosen: BoundSocket?
        for socket in sockets where socket.address.map({ $0.family == target.family }) ?? true {
            if chosen == nil || socket.address != avoided { chosen = socket }
            if socket.address != avoided { break }
        }
        if let chosen { outbox.add(octets, from: nil, to: target, by: chosen) }
    }

    /// Sends what was added.
    func flush() { outbox.send() }
}
