import Glibc
import MATSignal
import Namespaces

/// A UDP socket of a host of the lab, for both families, as applications have them.
final class DatagramSocket {
    private let descriptor: Int32
    /// The one asked for, or what the kernel chose.
    private(set) var port: UInt16 = 0

    /// - Parameter port: 0 for any.
    init(in namespace: String, port: UInt16 = 0) throws {
        descriptor = try Namespace.inside(namespace) { socket(AF_INET6, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0) }
        guard descriptor >= 0 else { throw ShellError("no socket in \(namespace): \(String(cString: strerror(errno)))") }
        var no: Int32 = 0
        setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &no, 4)
        let descriptor = self.descriptor
        let bound = Self.withAddress(Endpoint(IPAddress(high: 0, low: 0), port: port)) { bind(descriptor, $0, $1) }
        guard bound == 0 else { throw ShellError("port \(port) in \(namespace): \(String(cString: strerror(errno)))") }
        var own = sockaddr_in6()
        Self.withMutableAddress(&own) { _ = getsockname(descriptor, $0, $1) }
        self.port = UInt16(bigEndian: own.sin6_port)
    }

    deinit { close(descriptor) }

    func send(_ text: String, to endpoint: Endpoint) {
        let octets = Array(text.utf8)
        let descriptor = descriptor
        // An error that came for an earlier datagram is told by the next call, and is none of this one's.
        for _ in 0..<2 where Self.withAddress(endpoint, { sendto(descriptor, octets, octets.count, 0, $0, $1) }) >= 0 { return }
    }

    /// The next datagram, and whom it is from; `nil` if none comes in time.
    func receive(within seconds: Double) -> (text: String, source: Endpoint)? {
        let deadline = monotonicSeconds() + seconds
        while true {
            var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            guard poll(&waiting, 1, Int32(max(0, deadline - monotonicSeconds()) * 1000)) > 0 else { return nil }
            var buffer = [UInt8](repeating: 0, count: 65_536)
            var from = sockaddr_in6()
            var count = 0
            Self.withMutableAddress(&from) { count = recvfrom(descriptor, &buffer, buffer.count, 0, $0, $1) }
            // What ICMP told is no datagram.
            guard count >= 0, let address = IPAddress(octets: withUnsafeBytes(of: from.sin6_addr) { Array($0) }) else { continue }
            return (String(decoding: buffer[..<count], as: UTF8.self), Endpoint(address, port: UInt16(bigEndian: from.sin6_port)))
        }
    }

    private static func withAddress<Value>(_ endpoint: Endpoint, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Value) -> Value {
        var address = sockaddr_in6()
        address.sin6_family = sa_family_t(AF_INET6)
        address.sin6_port = endpoint.port.bigEndian
        withUnsafeMutableBytes(of: &address.sin6_addr) { $0.copyBytes(from: endpoint.address.octets) }
        return withUnsafePointer(to: address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in6>.size)) }
        }
    }

    private static func withMutableAddress(
        _ address: inout sockaddr_in6, _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Void
    ) {
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        withUnsafeMutablePointer(to: &address) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, &length) } }
    }
}
