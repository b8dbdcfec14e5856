import CLinux
import Glibc
import IMTPlan
import MATSignal

/// Packets that go as matd's own do: beside the translation. Only root may mark them so; others' go as any.
enum OwnTraffic {
    /// - Parameter interface: by which alone they go.
    static func mark(_ descriptor: Int32, over interface: String? = nil) {
        var mark = IMTConfiguration().mark
        setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, 4)
        if let interface { setsockopt(descriptor, SOL_SOCKET, SO_BINDTODEVICE, interface, socklen_t(interface.utf8.count)) }
    }

    /// - Returns: what the body does; `nil` also if there is no such socket.
    static func withUDP<T>(_ family: AddressFamily, over interface: String? = nil, _ body: (Int32) -> T?) -> T? {
        let descriptor = socket(family == .ipv4 ? AF_INET : AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        mark(descriptor, over: interface)
        return body(descriptor)
    }

    /// Likewise connected.
    static func withUDP<T>(to peer: Endpoint, over interface: String? = nil, _ body: (Int32) -> T?) -> T? {
        withUDP(peer.address.family, over: interface) { descriptor in
            guard SocketAddress.use(peer.address, port: peer.port, { connect(descriptor, $0, $1) }) == 0 else { return nil }
            return body(descriptor)
        }
    }
}
