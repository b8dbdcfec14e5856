import BenchSupport
import CLinux
import Glibc
import MATSignal

/// One end of a conversation as applications see it.
struct Endpoints: Hashable {
    var local: IPAddress
    var remote: IPAddress
}

/// A socket address of either family with its length, as the system calls want it.
struct SocketAddress {
    private var storage = sockaddr_storage()
    private let length: socklen_t

    init(_ address: IPAddress, port: UInt16) {
        let octets = address.packetOctets
        let isIPv4 = address.isIPv4
        length = socklen_t(isIPv4 ? MemoryLayout<sockaddr_in>.size : MemoryLayout<sockaddr_in6>.size)
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.storeBytes(of: sa_family_t(isIPv4 ? AF_INET : AF_INET6), as: sa_family_t.self)
            bytes.storeBytes(of: port.bigEndian, toByteOffset: 2, as: UInt16.self)
            // sin_addr follows the port; sin6_addr comes after the flow label.
            for (index, octet) in octets.enumerated() { bytes[(isIPv4 ? 4 : 8) + index] = octet }
        }
    }

    func use<T>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        withUnsafePointer(to: storage) { $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) } }
    }
}

/// A socket that closes itself. Opened by a thread that has entered a namespace, it belongs to that host.
final class BenchSocket {
    let descriptor: Int32

    init(_ address: IPAddress, stream: Bool) throws {
        let kind = Int32((stream ? SOCK_STREAM : SOCK_DGRAM).rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        descriptor = socket(address.isIPv4 ? AF_INET : AF_INET6, kind, 0)
        guard descriptor >= 0 else { throw BenchError("socket: errno \(errno)") }
    }

    private init(descriptor: Int32) { self.descriptor = descriptor }

    deinit { close(descriptor) }

    func set(_ level: Int32, _ option: Int32, _ value: Int32) {
        var value = value
        setsockopt(descriptor, level, option, &value, 4)
    }

    func bind(_ address: IPAddress, port: UInt16) throws {
        set(SOL_SOCKET, SO_REUSEADDR, 1)
        let result = SocketAddress(address, port: port).use { Glibc.bind(descriptor, $0, $1) }
        guard result == 0 else { throw BenchError("bind to \(address) port \(port): errno \(errno)") }
    }

    /// Streams are still connecting when this returns.
    func connect(_ address: IPAddress, port: UInt16) throws {
        let result = SocketAddress(address, port: port).use { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 || errno == EINPROGRESS else { throw BenchError("connect to \(address) port \(port): errno \(errno)") }
    }

    func listen() throws { guard Glibc.listen(descriptor, 1) == 0 else { throw BenchError("listen: errno \(errno)") } }

    func accept() -> BenchSocket? {
        let accepted = accept4Nonblocking()
        return accepted < 0 ? nil : BenchSocket(descriptor: accepted)
    }

    private func accept4Nonblocking() -> Int32 {
        let accepted = Glibc.accept(descriptor, nil, nil)
        if accepted >= 0 { mat_set_nonblocking(accepted) }
        return accepted
    }
}
