import BenchSupport
import CLinux
import Glibc
import MATRuntime
import MATSignal

/// A UDP socket of the generator, for both families (IPv4 in mapped form), closed with the object.
final class LoadSocket {
    /// Socket options by number: Glibc's Swift module hides them (linux/in.h, linux/in6.h, linux/udp.h, asm-generic/socket.h).
    private enum Option {
        static let ipv6FreeBind: Int32 = 78
        static let udp: Int32 = 17
        static let udpSegment: Int32 = 103
        static let receiveBufferForce: Int32 = 33
    }
    /// Answers that may wait while the generator does something else.
    static let receiveBufferBytes: Int32 = 16 << 20

    let descriptor: Int32

    /// One that sends from any local address and hears what comes for any of them.
    ///
    /// - Parameter port: 0 lets the kernel choose.
    init(port: UInt16) throws {
        descriptor = try Self.open()
        try set(Int32(IPPROTO_IPV6), IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
        // A source may be any address of a prefix that is routed here (`ip route add local`), on an interface or not.
        set(Int32(IPPROTO_IPV6), Option.ipv6FreeBind, 1)
        try bind(.unspecifiedIPv6, port)
    }

    /// One that talks to the server only, which spares the kernel a route look-up per datagram.
    init(connectedTo server: Endpoint, from local: IPAddress?) throws {
        descriptor = try Self.open()
        set(Int32(IPPROTO_IPV6), Option.ipv6FreeBind, 1)
        if let local { try bind(local, 0) }
        let result = SocketName(server).use { Glibc.connect(descriptor, $0, $1) }
        guard result == 0 else { throw BenchError("connect to \(server): \(String(cString: strerror(errno)))") }
    }

    deinit { close(descriptor) }

    private static func open() throws -> Int32 {
        let descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { throw BenchError("socket: \(String(cString: strerror(errno)))") }
        var off: Int32 = 0
        setsockopt(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, &off, 4)
        // Beyond the system's bound if this may (CAP_NET_ADMIN), else up to it.
        var bytes = receiveBufferBytes
        if setsockopt(descriptor, SOL_SOCKET, Option.receiveBufferForce, &bytes, 4) != 0 {
            setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &bytes, 4)
        }
        return descriptor
    }

    private func bind(_ address: IPAddress, _ port: UInt16) throws {
        let result = SocketName(Endpoint(address, port: port)).use { Glibc.bind(descriptor, $0, $1) }
        guard result == 0 else { throw BenchError("bind to \(address) port \(port): \(String(cString: strerror(errno)))") }
    }

    /// Lets one call send many datagrams of this length each (UDP_SEGMENT); what is sent is cut up by the kernel.
    ///
    /// - Returns: whether the kernel can.
    func segment(octetsEach: Int) -> Bool { set(Option.udp, Option.udpSegment, Int32(clamping: octetsEach)) }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws {
        guard set(level, option, value) else { throw BenchError("setsockopt \(name): \(String(cString: strerror(errno)))") }
    }

    @discardableResult
    private func set(_ level: Int32, _ option: Int32, _ value: Int32) -> Bool {
        var value = value
        return setsockopt(descriptor, level, option, &value, 4) == 0
    }
}
