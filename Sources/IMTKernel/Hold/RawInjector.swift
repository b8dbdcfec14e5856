import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// Sends packets that carry their own IP header through the output path, as the socket that made them would now.
final class RawInjector {
    /// What tells the sockets apart.
    private struct Kind: Hashable {
        var family: AddressFamily
        var mark: UInt32
        /// A HoA with routes of its own: the route look-up of a given header does not see the source in it.
        var source: IPAddress?
    }

    /// Made when needed: by family, for released packets and for such as are never captured, and for each further HoA.
    private var sockets: [Kind: Int32] = [:]
    /// By which our rules know released packets: they are not held again.
    private let mark: UInt32

    /// - Throws: that the process may not do this.
    init(mark: UInt32) throws(KernelError) {
        self.mark = mark
        _ = try socket(Kind(family: .ipv4, mark: mark))
    }

    deinit { for descriptor in sockets.values { close(descriptor) } }

    /// - Parameter home: the HoA with routes of its own that the source is, or is behind. At most `IMTConfiguration.homeAddressesMax`
    ///   are, and visited ones, which `forget` ends.
    func send(_ packet: HeldPacket, from home: IPAddress? = nil) throws(KernelError) {
        try send(packet, by: try socket(Kind(family: packet.destination.family, mark: mark, source: home)))
    }

    /// The node has this HoA no more.
    func forget(_ home: IPAddress) {
        for kind in sockets.keys where kind.source == home { if let descriptor = sockets.removeValue(forKey: kind) { close(descriptor) } }
    }

    /// Sends it past the capture, by the main table.
    ///
    /// - Parameters:
    ///   - mark: of the agent's own packets.
    ///   - interface: the index of the link to leave by; 0: what the main table prefers.
    func pass(_ packet: HeldPacket, mark: UInt32, interface: UInt32) throws(KernelError) {
        let socket = try socket(Kind(family: packet.destination.family, mark: mark))
        // SO_BINDTOIFINDEX is 62. If that link is gone by now, the main table decides.
        if !Self.set(62, Int32(bitPattern: interface), on: socket) { Self.set(62, 0, on: socket) }
        try send(packet, by: socket)
    }

    // MARK: Sockets

    private func socket(_ kind: Kind) throws(KernelError) -> Int32 {
        if let known = sockets[kind] { return known }
        let name = kind.source.map { "\($0)" } ?? kind.family.description
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        // IPPROTO_RAW (255) means that the header is given; such a socket receives nothing.
        let made = Glibc.socket(kind.family == .ipv4 ? AF_INET : AF_INET6, type, 255)
        guard made >= 0 else { throw .system("open a raw socket", name) }
        do throws(KernelError) {
            guard Self.set(SO_MARK, Int32(bitPattern: kind.mark), on: made) else { throw .system("mark a raw socket", "\(kind.mark)") }
            if let source = kind.source, Self.use(source, { bind(made, $0, $1) }) != 0 { throw .system("bind a raw socket", name) }
        } catch {
            close(made)
            throw error
        }
        Self.bypassPolicies(made, family: kind.family)
        sockets[kind] = made
        return made
    }

    @discardableResult
    private static func set(_ option: Int32, _ value: Int32, on descriptor: Int32) -> Bool {
        var value = value
        return setsockopt(descriptor, SOL_SOCKET, option, &value, 4) == 0
    }

    /// Gives a socket an IPsec policy of its own: everything leaves as it is. A held packet met the host's policies before it was held. A
    /// kernel without IPsec refuses, and needs none of it.
    ///
    /// struct xfrm_userpolicy_info: selector 56, of which the family is at 40; limits 64, current 32, priority 4, index 4; direction,
    /// action, flags and sharing an octet each; padded to 168.
    private static func bypassPolicies(_ descriptor: Int32, family: AddressFamily) {
        var policy = [UInt8](repeating: 0, count: 168)
        policy.replaceSubrange(40..<42, with: nativeOctets(UInt16(KernelValues.family(family))))
        policy[160] = 1  // XFRM_POLICY_OUT; the action, 0, is XFRM_POLICY_ALLOW
        // SOL_IP 0, IP_XFRM_POLICY 17; SOL_IPV6 41, IPV6_XFRM_POLICY 35.
        setsockopt(descriptor, family == .ipv4 ? 0 : 41, family == .ipv4 ? 17 : 35, policy, socklen_t(policy.count))
    }

    // MARK: Sending

    private func send(_ packet: HeldPacket, by socket: Int32) throws(KernelError) {
        var sent = Self.send(packet.bytes, to: packet.destination, by: socket)
        if sent < 0, errno == EMSGSIZE, let pieces = PacketPieces.cut(packet.bytes, identifier: .random(in: 1 ... .max)) {
            // Any that is not sent leaves the datagram incomplete, as on any way.
            let counts = pieces.map { Self.send($0, to: packet.destination, by: socket) }
            if !counts.contains(where: { $0 < 0 }) { sent = packet.bytes.count }
        }
        guard sent == packet.bytes.count else {
            throw .system("release a held packet", "\(packet.source) to \(packet.destination), \(packet.bytes.count) octets")
        }
    }

    private static func send(_ bytes: [UInt8], to destination: IPAddress, by socket: Int32) -> Int {
        use(destination) { sendto(socket, bytes, bytes.count, 0, $0, $1) }
    }

    /// The address as system calls want it for raw sockets of its family.
    private static func use<T>(_ address: IPAddress, _ body: (UnsafePointer<sockaddr>, socklen_t) -> T) -> T {
        guard let value = address.ipv4 else { return SocketName(Endpoint(address, port: 0)).use(body) }
        var name = sockaddr_in()
        name.sin_family = sa_family_t(AF_INET)
        name.sin_addr.s_addr = value.bigEndian
        return withUnsafePointer(to: name) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_in>.size)) }
        }
    }
}
