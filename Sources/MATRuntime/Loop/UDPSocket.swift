import CLinux
import Glibc
import MATSignal

/// A UDP socket for both families at one port, which knows for each datagram the local address it came to, and can send
/// from a chosen one. An AF_INET6 socket with IPv4 in mapped form, which is also the protocol's address form.
public final class UDPSocket {
    /// Datagrams of the protocol have at most 1232 octets; a longer one is cut off and recognised by that.
    static let receiveBytesMax = 2048
    /// Datagrams handled per turn of the loop, so that a flood can't starve timers.
    static let datagramsPerTurnMax = 64

    private let descriptor: Int32
    private let loop: EventLoop

    public struct Options {
        /// Several sockets may share the port; the kernel spreads senders over them.
        public var reusePort = false
        /// SO_MARK, for routing rules that exempt the program's own traffic. Needs CAP_NET_ADMIN.
        public var mark: UInt32?
        /// Bytes asked for with SO_RCVBUF.
        public var receiveBufferBytes: Int32 = 1 << 20

        public init() {}
    }

    /// Binds to the port at all addresses, or at one.
    ///
    /// - Parameter received: the datagram (valid during the call), its source, and the local address it was sent to.
    public init(
        loop: EventLoop, port: UInt16, address: IPAddress? = nil, options: Options = Options(),
        received: @escaping (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void
    ) throws(SystemError) {
        descriptor = socket(AF_INET6, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        self.loop = loop
        guard descriptor >= 0 else { throw SystemError("socket") }
        do throws(SystemError) {
            try set(IPPROTO_IPV6.number, IPV6_V6ONLY, 0, "IPV6_V6ONLY")
            try set(IPPROTO_IPV6.number, IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
            try set(SOL_SOCKET, SO_RCVBUF, options.receiveBufferBytes, "SO_RCVBUF")
            if options.reusePort { try set(SOL_SOCKET, SO_REUSEPORT, 1, "SO_REUSEPORT") }
            if let mark = options.mark { try set(SOL_SOCKET, SO_MARK, Int32(bitPattern: mark), "SO_MARK") }
            var name = sockaddr_in6()
            name.sin6_family = sa_family_t(AF_INET6)
            name.sin6_port = port.bigEndian
            if let address { name.sin6_addr = address.in6 }
            let bound = withUnsafePointer(to: &name) {
                $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in6>.size))
                }
            }
            guard bound == 0 else { throw SystemError("bind to UDP port \(port)\(address.map { " at \($0)" } ?? "")") }
            try loop.watch(descriptor) { [unowned self] in receive(received) }
        } catch {
            close(descriptor)
            throw error
        }
    }

    deinit {
        loop.unwatch(descriptor)
        close(descriptor)
    }

    /// Leaves what arrives from now on in the socket, for good; sending goes on.
    public func stopReceiving() { loop.unwatch(descriptor) }

    /// Sends one datagram, from the given local address if there is one. UDP promises no delivery, so callers that
    /// retransmit may ignore the error; it names what the kernel refused.
    ///
    /// - Returns: `nil`, or why the kernel refused.
    @discardableResult
    public func send(_ bytes: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        var header = mat_datagram()
        header.peer = peer.address.in6
        header.peer_port = peer.port
        if let local { header.local = local.in6 }
        let sent = bytes.withUnsafeBytes { mat_send(descriptor, $0.baseAddress, $0.count, &header) }
        return sent < 0 ? SystemError("send to \(peer)\(local.map { " from \($0)" } ?? "")") : nil
    }

    private func receive(_ received: (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void) {
        withUnsafeTemporaryAllocation(byteCount: Self.receiveBytesMax, alignment: 8) { buffer in
            for _ in 0..<Self.datagramsPerTurnMax {
                var header = mat_datagram()
                let count = mat_receive(descriptor, buffer.baseAddress, buffer.count, &header)
                if count < 0 { return }
                guard count <= buffer.count else { continue }
                received(
                    UnsafeRawBufferPointer(rebasing: buffer[0..<count]),
                    Endpoint(IPAddress(header.peer), port: header.peer_port), IPAddress(header.local))
            }
        }
    }

    private func set(_ level: Int32, _ option: Int32, _ value: Int32, _ name: String) throws(SystemError) {
        var value = value
        guard setsockopt(descriptor, level, option, &value, 4) == 0 else { throw SystemError("setsockopt \(name)") }
    }
}
