import CLinux
import Glibc
import MATSignal

/// A UDP socket for both families at one port, which knows for each datagram the local address it came to, and can send
/// from a chosen one. An AF_INET6 socket with IPv4 in mapped form, which is also the protocol's address form. Any thread may send by it.
public final class BoundSocket: Sendable {
    public struct Options: Sendable {
        /// Several sockets may share the port; the kernel spreads senders over them. Otherwise it must be free.
        public var isShared = false
        /// Whether receiving waits until something comes.
        public var waits = false
        /// SO_MARK, for routing rules that exempt the program's own traffic. Needs CAP_NET_ADMIN.
        public var mark: UInt32?
        /// Bytes asked for; the kernel gives what it allows.
        public var receiveBufferBytes: Int32 = 1 << 20
        /// Whether to exceed the system's bound (net.core.rmem_max), which takes CAP_NET_ADMIN.
        public var exceedsReceiveBound = false
        /// For what others sent, passed on (protocol.md section 11.2): received datagrams tell their traffic class, and none is sent in
        /// fragments, nor on the word of an ICMP error held back as too large.
        public var forwards = false

        public init() {}
    }

    public let descriptor: Int32
    /// The address it is bound to; `nil` for all.
    public let address: IPAddress?

    public init(port: UInt16, address: IPAddress?, options: Options) throws(SystemError) {
        self.address = address
        let kind = SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | (options.waits ? 0 : SOCK_NONBLOCK.rawValue)
        descriptor = socket(AF_INET6, Int32(kind), 0)
        guard descriptor >= 0 else { throw SystemError("socket") }
        // Whatever throws from here on: the object is whole, so its end closes the socket, once.
        try set(IPPROTO_IPV6.number, IPV6_V6ONLY, 0, "IPV6_V6ONLY")
        try set(IPPROTO_IPV6.number, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
        if options.exceedsReceiveBound {
            mat_receive_buffer(descriptor, options.receiveBufferBytes)
        } else {
            try set(SOL_SOCKET, SO_RCVBUF, options.receiveBufferBytes, "SO_RCVBUF")
        }
        if options.isShared { try set(SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT") }
        if let mark = options.mark { try set(SOL_SOCKET, SO_MARK, Int32(bitPattern: mark), "SO_MARK") }
        if options.forwards {
            try set(IPPROTO_IP.number, IP_RECVTOS, 1, "IP_RECVTOS")
            try set(IPPROTO_IPV6.number, IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS")
            try set(IPPROTO_IP.number, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE, "IP_MTU_DISCOVER")
            try set(IPPROTO_IPV6.number, IPV6_MTU_DISCOVER, IPV6_PMTUDISC_PROBE, "IPV6_MTU_DISCOVER")
            try set(IPPROTO_IPV6.number, IPV6_DONTFRAG, 1, "IPV6_DONTFRAG")
            // Kernels that encapsulate send them without a sum, over IPv6 too (protocol.md section 11.2, RFC 6935).
            try set(Int32(mat_level_udp), Int32(mat_udp_no_check6), 1, "UDP_NO_CHECK6_RX")
        }
        let bound = SocketName(Endpoint(address ?? .unspecifiedIPv6, port: port)).use { bind(descriptor, $0, $1) }
        guard bound == 0 else { throw SystemError("bind to UDP port \(port)\(address.map { " at \($0)" } ?? "")") }
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
    }

    /// Sends one datagram, from the given local address if there is one. UDP promises no delivery, so callers that
    /// retransmit may ignore the error; it names what the kernel refused.
    ///
    /// - Returns: `nil`, or why the kernel refused.
    @discardableResult
    public func send(_ octets: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        var header = mat_datagram()
        header.peer = peer.address.in6
        header.peer_port = peer.port
        if let local { header.local = local.in6 }
        let sent = octets.withUnsafeBytes { mat_send(descriptor, $0.baseAddress, $0.count, &header) }
        return sent < 0 ? SystemError("send to \(peer)\(local.map { " from \($0)" } ?? "")") : nil
    }

    /// `sendIfRoom` may fill one part in so many of the send buffer.
    public static let strangersPart = 4

    /// Sends only while little waits to leave. The kernel keeps what is for a neighbour that it is looking for (up to 3 s if there is none)
    /// in the sender's buffer, so that a few hundred made-up neighbours a second would leave no room for anybody else.
    ///
    /// - Returns: `nil`, or why it was not sent.
    @discardableResult
    public func sendIfRoom(_ octets: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        guard hasRoomForStrangers else {
            return SystemError("send to \(peer), a stranger", errno: ENOBUFS)
        }
        return send(octets, from: local, to: peer)
    }

    /// Whether little waits to leave, as `sendIfRoom` wants it.
    public var hasRoomForStrangers: Bool { Int(mat_octets_waiting(descriptor)) * Self.strangersPart < sendBufferBytes }

    /// As the kernel counts it.
    private var sendBufferBytes: Int {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        return getsockopt(descriptor, SOL_SOCKET, SO_SNDBUF, &value, &length) == 0 ? Int(value) : .max
    }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws(SystemError) {
        var value = value
        guard setsockopt(descriptor, level, option, &value, 4) == 0 else { throw SystemError("setsockopt \(name)") }
    }
}
