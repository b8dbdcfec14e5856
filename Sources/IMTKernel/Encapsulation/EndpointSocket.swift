import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// A UDP port of the node, which signalling and encapsulated packets share, so that one binding of a translator serves both (protocol.md
/// section 11).
///
///     first octet   below 0x40   signalling: to the agent
///                   any other    a packet, or nothing: to the encapsulator
///
/// What the network says of datagrams that were sent (ICMP, also through a translator) is read as well.
public final class EndpointSocket {
    /// Datagrams of the protocol have at most 1232 octets.
    private static let signallingOctetsMax = 2048
    /// Turns of the loop with datagrams before errors are looked for.
    private static let turnsBetweenErrorsMax = 16
    /// Errors read per turn of the loop.
    private static let errorsPerTurnMax = 16
    /// So that what is to leave does not have to wait for each burst; the kernel takes room as it needs it.
    private static let sendBufferOctets: Int32 = 4 << 20
    /// RFC 8200.
    private static let ipv6OctetsMin: Int32 = 1280
    /// Of a packet that an error quotes; more is not looked at.
    private static let quoteOctetsMax = 576

    public let port: UInt16
    private let socket: BoundSocket
    private let loop: EventLoop
    private let batch = ArrivalBatch()
    /// Who may cut datagrams up where the path is narrow. The socket stays as its last datagram wanted it: most are of one kind for long.
    private enum Cutting {
        /// Nobody: full packets are lost, so that it is found out what passes.
        case never
        /// This host as far as it knows, else IPv4's routers.
        case packets
        /// IPv4's routers, and this host where its own link is narrow.
        case signalling
    }

    private var cutting: Cutting?
    private var turnsCount = 0

    var descriptor: Int32 { socket.descriptor }
    /// Whether datagrams of one sender may come as one (UDP_GRO).
    var joinsArrivals = true { didSet { if joinsArrivals != oldValue { set(mat_level_udp, mat_udp_gro, joinsArrivals ? 1 : 0) } } }

    // Set once by the encapsulator.
    var onPacket: (ArrivalBatch.Datagram) -> Void = { _ in }
    var onArrivalsEnd: () -> Void = {}
    var onError: (DatagramError) -> Void = { _ in }

    /// - Parameter received: what is signalling (valid during the call), its source, and the local address that it was sent to.
    init(loop: EventLoop, port: UInt16, options: BoundSocket.Options, received: @escaping (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void)
        throws(SystemError)
    {
        socket = try BoundSocket(port: port, address: nil, options: options)
        self.port = port
        self.loop = loop
        mat_send_buffer(socket.descriptor, Self.sendBufferOctets)
        // Each is wanted but not vital: a kernel without the one or the other goes without joined datagrams, marks, errors, or datagrams without
        // a sum over IPv6, which the kernel's programs send (RFC 6935).
        for (level, option, value) in [
            (mat_level_ip, mat_ip_ttl, Int32(64)), (mat_level_ipv6, mat_ipv6_hops, 64), (mat_level_ip, mat_ip_recvtos, 1),
            (mat_level_ipv6, mat_ipv6_recvtclass, 1), (mat_level_ip, mat_ip_recverr, 1), (mat_level_ipv6, mat_ipv6_recverr, 1),
            (mat_level_udp, mat_udp_gro, 1), (mat_level_udp, mat_udp_no_check6, 1),
        ] { set(level, option, value) }
        try loop.watch(socket.descriptor) { [unowned self] in readable(received) }
    }

    /// Leaves what arrives from now on; the socket goes with this object.
    func stop() { loop.unwatch(socket.descriptor) }

    deinit { loop.unwatch(socket.descriptor) }

    private func set(_ level: some BinaryInteger, _ option: some BinaryInteger, _ value: Int32) {
        var value = value
        setsockopt(socket.descriptor, Int32(level), Int32(option), &value, 4)
    }

    // MARK: Signalling

    /// As `BoundSocket.send`.
    @discardableResult
    public func send(_ octets: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        setCutting(.signalling)
        return Self.trying { socket.send(octets, from: local, to: peer) }
    }

    /// As `BoundSocket.sendIfRoom`.
    @discardableResult
    public func sendIfRoom(_ octets: [UInt8], from local: IPAddress? = nil, to peer: Endpoint) -> SystemError? {
        setCutting(.signalling)
        return Self.trying { socket.sendIfRoom(octets, from: local, to: peer) }
    }

    /// The first try may tell of an error that another datagram met (IP_RECVERR); it is not sent then.
    private static func trying(_ send: () -> SystemError?) -> SystemError? { send() == nil ? nil : send() }

    // MARK: Packets

    /// Sends one packet, whole or not at all.
    ///
    /// - Parameter lacksSum: over IPv6 the datagram has no sum.
    func sendWhole(_ packet: [UInt8], from local: IPAddress, to far: Endpoint, lacksSum: Bool = false) -> SystemError? {
        setCutting(.never)
        if lacksSum { set(mat_level_udp, mat_udp_no_sum6, 1) }
        defer { if lacksSum { set(mat_level_udp, mat_udp_no_sum6, 0) } }
        return Self.trying { socket.sendIfRoom(packet, from: local, to: far) }
    }

    /// Sends messages whose datagrams may, or may not, be cut up on their way out.
    /// - Returns: how many were sent; below 0 for an error about the first, of which `errno` says more.
    func send(_ messages: UnsafeMutablePointer<mat_message>, _ count: Int, cutUp: Bool) -> Int {
        setCutting(cutUp ? .packets : .never)
        let sent = Int(mat_sendmmsg(descriptor, messages, UInt32(count), Int32(MSG_DONTWAIT)))
        // As `trying`; but what a full queue has taken or dropped is not for a second try.
        return sent < 0 && errno != EAGAIN && errno != ENOBUFS ? Int(mat_sendmmsg(descriptor, messages, UInt32(count), Int32(MSG_DONTWAIT))) : sent
    }

    private func setCutting(_ wanted: Cutting) {
        guard wanted != cutting else { return }
        cutting = wanted
        switch wanted {
        case .never:
            set(mat_level_ip, mat_ip_mtu_discover, Int32(mat_pmtu_probe))
            set(mat_level_ipv6, mat_ipv6_mtu_discover, Int32(mat_pmtu_probe))
        case .packets, .signalling:
            // With IP_PMTUDISC_DONT the kernel keeps to itself that a router had no room for a datagram over IPv4 (__udp4_lib_err). What is said of
            // the datagrams that its own programs send comes to this socket, too.
            set(mat_level_ip, mat_ip_mtu_discover, Int32(wanted == .packets ? mat_pmtu_dont : mat_pmtu_omit))
            set(mat_level_ipv6, mat_ipv6_mtu_discover, Int32(mat_pmtu_dont))
        }
        // IPv6 routers cut nothing up, and where ICMP is filtered nobody says what passes: what every IPv6 path carries does.
        set(mat_level_ipv6, mat_ipv6_mtu, wanted == .never ? 0 : Self.ipv6OctetsMin)
    }

    private func readable(_ received: (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void) {
        let count = batch.receive(descriptor) { datagram in
            if let first = datagram.octets.first, first >= 0x40 {
                onPacket(datagram)
            } else if datagram.octets.count <= Self.signallingOctetsMax {
                received(UnsafeRawBufferPointer(datagram.octets), datagram.source, datagram.local)
            }
        }
        onArrivalsEnd()
        // An error wakes the loop like a datagram, for as long as it is not read; beside many datagrams it is looked for now and then.
        turnsCount += 1
        guard count <= 0 || turnsCount >= Self.turnsBetweenErrorsMax else { return }
        turnsCount = 0
        readErrors()
    }

    private func readErrors() {
        withUnsafeTemporaryAllocation(byteCount: Self.quoteOctetsMax, alignment: 8) { buffer in
            for _ in 0..<Self.errorsPerTurnMax {
                var said = mat_datagram_error()
                let count = mat_receive_error(descriptor, buffer.baseAddress, buffer.count, &said)
                guard count >= 0 else { return }
                let quote = UnsafeRawBufferPointer(rebasing: buffer[0..<min(count, buffer.count)])
                onError(DatagramError(said, quote, port: port))
            }
        }
    }
}

extension DatagramError {
    fileprivate init(_ said: mat_datagram_error, _ quote: UnsafeRawBufferPointer, port: UInt16) {
        let reason = Int32(truncatingIfNeeded: said.error)
        self.init(
            port: port, far: Endpoint(IPAddress(said.far), port: said.far_port), reason: reason,
            largest: reason == DatagramError.tooLarge ? said.information : 0, pair: DatagramError.pair(quote))
    }
}
