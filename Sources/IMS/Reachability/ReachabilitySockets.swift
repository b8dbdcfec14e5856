import MATRuntime
import MATSignal

/// Where the reachability test is sent from (protocol.md section 11.1): ports that no node has sent anything to, so that a filter on the way
/// takes the datagram for a stranger's. One socket for each address that the configuration names, or one for all addresses of the host. What
/// comes back is never read: the node is who wants to know.
final class ReachabilitySockets {
    private let sockets: [BoundSocket]

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

    /// Sends from another address than `avoided` if there is one of the target's family.
    func send(_ octets: [UInt8], to target: Endpoint, avoiding avoided: IPAddress) -> SystemError? {
        let usable = sockets.filter { $0.address.map { $0.family == target.family } ?? true }
        return (usable.first { $0.address != avoided } ?? usable.first)?.sendIfRoom(octets, to: target)
    }
}
