import CLinux
import Glibc
import MATRuntime
import MATSignal

/// A UDP socket of a worker: both families, the port shared with the other workers' (the kernel spreads senders over them). Other threads
/// may send by it.
final class QuerySocket: Sendable {
    /// Asked for; the kernel gives what it allows.
    static let receiveBufferBytes: Int32 = 8 << 20

    let descriptor: Int32
    /// The address it is bound to; `nil` for all.
    let address: IPAddress?

    /// - Parameter isShared: without it the port must be free, which tells whether another daemon has it.
    init(port: UInt16, address: IPAddress?, isShared: Bool) throws(SystemError) {
        self.address = address
        descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw SystemError("socket") }
        do throws(SystemError) {
            try set(Int32(IPPROTO_IPV6), IPV6_V6ONLY, 0, "IPV6_V6ONLY")
            try set(Int32(IPPROTO_IPV6), IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
            if isShared { try set(SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT") }
            mat_receive_buffer(descriptor, Self.receiveBufferBytes)
            var name = sockaddr_in6()
            name.sin6_family = sa_family_t(AF_INET6)
            name.sin6_port = port.bigEndian
            if let address { name.sin6_addr = address.in6 }
            let bound = withUnsafePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
            }
            guard bound == 0 else { throw SystemError("bind to UDP port \(port)\(address.map { " at \($0)" } ?? "")") }
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit { close(descriptor) }

    /// Sends one datagram, from the given local address if there is one.
    ///
    /// - Returns: `nil`, or why the kernel refused.
    func send(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) -> SystemError? {
        var header = mat_datagram()
        header.peer = peer.address.in6
        header.peer_port = peer.port
        if let local { header.local = local.in6 }
        let sent = octets.withUnsafeBytes { mat_send(descriptor, $0.baseAddress, $0.count, &header) }
        return sent < 0 ? SystemError("send to \(peer)\(local.map { " from \($0)" } ?? "")") : nil
    }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws(SystemError) {
        var value = value
        guard setsockopt(descriptor, level, option, &value, 4) == 0 else { throw SystemError("setsockopt \(name)") }
    }
}
