import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Sends packets that carry their own IP header through the output path, as the socket that made them would now.
final class RawInjector {
    private let v4: Int32
    /// -1 where IPv6 is switched off.
    private let v6: Int32
    /// Sockets whose packets are never captured, like the agent's own: by family (IPv4: true), made when needed.
    private var marked: [Bool: Int32] = [:]
    /// Sockets bound to single HoAs: the route look-up of a given header does not see the source in it.
    private var bound: [IPAddress: Int32] = [:]
    /// By which our rules know these packets: they are not held again.
    private let mark: UInt32

    init(mark: UInt32) throws(KernelError) {
        self.mark = mark
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        // IPPROTO_RAW (255) means that the header is given; such a socket receives nothing.
        v4 = socket(AF_INET, type, 255)
        guard v4 >= 0 else { throw .system("open a raw socket", "IPv4") }
        v6 = socket(AF_INET6, type, 255)
        Self.set(mark, on: v4)
        if v6 >= 0 { Self.set(mark, on: v6) }
        // A held packet met the host's IPsec policies before it was held. A kernel without IPsec refuses, and needs none of it.
        Self.bypassPolicies(v4, level: 0, option: 17, family: KernelValues.familyIPv4)  // SOL_IP, IP_XFRM_POLICY
        if v6 >= 0 { Self.bypassPolicies(v6, level: 41, option: 35, family: KernelValues.familyIPv6) }  // SOL_IPV6, IPV6_XFRM_POLICY
    }

    private static func set(_ mark: UInt32, on descriptor: Int32) {
        var mark = mark
        setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, 4)
    }

    /// Gives a socket an IPsec policy of its own: everything leaves as it is.
    ///
    /// struct xfrm_userpolicy_info: selector 56, of which the family is at 40; limits 64, current 32, priority 4, index 4; direction,
    /// action, flags and sharing an octet each; padded to 168.
    private static func bypassPolicies(_ descriptor: Int32, level: Int32, option: Int32, family: UInt8) {
        var policy = [UInt8](repeating: 0, count: 168)
        policy.replaceSubrange(40..<42, with: nativeOctets(UInt16(family)))
        policy[160] = 1  // XFRM_POLICY_OUT; the action, 0, is XFRM_POLICY_ALLOW
        setsockopt(descriptor, level, option, policy, socklen_t(policy.count))
    }

    deinit {
        close(v4)
        if v6 >= 0 { close(v6) }
        for descriptor in Array(bound.values) + Array(marked.values) { close(descriptor) }
    }

    /// - Parameter home: the HoA with routes of its own that the source is, or is behind. At most `IMTConfiguration.homeAddressesMax` are.
    func send(_ packet: HeldPacket, from home: IPAddress? = nil) throws(KernelError) {
        let socket = if let home { try boundSocket(home) } else { packet.destination.isIPv4 ? v4 : v6 }
        try send(packet, by: socket)
    }

    /// Sends it past the capture, by the main table.
    ///
    /// - Parameters:
    ///   - mark: of the agent's own packets.
    ///   - interface: the index of the link to leave by; 0: what the main table prefers.
    func pass(_ packet: HeldPacket, mark: UInt32, interface: UInt32) throws(KernelError) {
        let socket = try markedSocket(isIPv4: packet.destination.isIPv4, mark)
        var index = Int32(bitPattern: interface)
        // SO_BINDTOIFINDEX is 62. If that link is gone by now, the main table decides.
        if setsockopt(socket, SOL_SOCKET, 62, &index, 4) != 0 {
            index = 0
            setsockopt(socket, SOL_SOCKET, 62, &index, 4)
        }
        try send(packet, by: socket)
    }

    private func markedSocket(isIPv4: Bool, _ mark: UInt32) throws(KernelError) -> Int32 {
        if let known = marked[isIPv4] { return known }
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let made = socket(isIPv4 ? AF_INET : AF_INET6, type, 255)
        guard made >= 0 else { throw .system("open a raw socket", isIPv4 ? "IPv4" : "IPv6") }
        var value = mark
        guard setsockopt(made, SOL_SOCKET, SO_MARK, &value, 4) == 0 else {
            let failed = errno
            close(made)
            throw .system("mark a raw socket", "\(mark)", errno: failed)
        }
        Self.bypassPolicies(
            made, level: isIPv4 ? 0 : 41, option: isIPv4 ? 17 : 35, family: isIPv4 ? KernelValues.familyIPv4 : KernelValues.familyIPv6)
        marked[isIPv4] = made
        return made
    }

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
        if destination.isIPv4 {
            var to = sockaddr_in()
            to.sin_family = sa_family_t(AF_INET)
            to.sin_addr.s_addr = (destination.ipv4 ?? 0).bigEndian
            return send(socket, bytes, &to)
        }
        var to = sockaddr_in6()
        to.sin6_family = sa_family_t(AF_INET6)
        to.sin6_addr = destination.in6
        return send(socket, bytes, &to)
    }

    private func boundSocket(_ source: IPAddress) throws(KernelError) -> Int32 {
        if let known = bound[source] { return known }
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue) | Int32(SOCK_NONBLOCK.rawValue)
        let made = socket(source.isIPv4 ? AF_INET : AF_INET6, type, 255)
        guard made >= 0 else { throw .system("open a raw socket", "\(source)") }
        var failed: Int32
        if source.isIPv4 {
            var address = sockaddr_in()
            address.sin_family = sa_family_t(AF_INET)
            address.sin_addr.s_addr = (source.ipv4 ?? 0).bigEndian
            failed = Self.bind(made, &address)
        } else {
            var address = sockaddr_in6()
            address.sin6_family = sa_family_t(AF_INET6)
            address.sin6_addr = source.in6
            failed = Self.bind(made, &address)
        }
        guard failed == 0 else {
            failed = errno
            close(made)
            throw .system("bind a raw socket", "\(source)", errno: failed)
        }
        Self.set(mark, on: made)
        bound[source] = made
        return made
    }

    private static func bind<Address>(_ descriptor: Int32, _ address: inout Address) -> Int32 {
        withUnsafePointer(to: &address) { typed in
            typed.withMemoryRebound(to: sockaddr.self, capacity: 1) { Glibc.bind(descriptor, $0, socklen_t(MemoryLayout<Address>.size)) }
        }
    }

    private static func send<Address>(_ descriptor: Int32, _ bytes: [UInt8], _ address: inout Address) -> Int {
        withUnsafePointer(to: &address) { typed in
            typed.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
                bytes.withUnsafeBytes {
                    sendto(descriptor, $0.baseAddress, $0.count, 0, pointer, socklen_t(MemoryLayout<Address>.size))
                }
            }
        }
    }
}
