import CLinux
import Glibc
import MATRuntime
import MATSignal

/// A raw socket for ICMP or ICMPv6.
final class ICMPSocket {
    struct Message {
        var source: IPAddress
        /// From the ICMP header on.
        var octets: [UInt8]
    }

    private let descriptor: Int32
    private let family: AddressFamily

    init?(_ family: AddressFamily) {
        self.family = family
        let type = Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        // IPPROTO_ICMP, IPPROTO_ICMPV6
        descriptor = socket(family == .ipv4 ? AF_INET : AF_INET6, type, family == .ipv4 ? 1 : 58)
        guard descriptor >= 0 else { return nil }
    }

    deinit { close(descriptor) }

    /// Packets go out by this interface alone, undivided whatever is known of the path's MTU, and as matd's own, which are never translated.
    func probe(over interface: String?) {
        OwnTraffic.mark(descriptor, over: interface)
        // IP_MTU_DISCOVER, IPV6_MTU_DISCOVER: IP_PMTUDISC_PROBE
        var probe: Int32 = 3
        setsockopt(descriptor, family == .ipv4 ? 0 : 41, family == .ipv4 ? 10 : 23, &probe, 4)
    }

    /// - Parameter size: of the whole packet, if it is to be filled up.
    static func echo(_ family: AddressFamily, _ identifier: UInt16, _ number: UInt16, size: Int = 0) -> [UInt8] {
        var octets: [UInt8] = [family == .ipv4 ? 8 : 128, 0, 0, 0]
        for word in [identifier, number] { octets += [UInt8(word >> 8), UInt8(word & 0xff)] }
        octets += Array("mat trace".utf8) + [0]
        octets += [UInt8](repeating: 0, count: max(0, size - (family == .ipv4 ? 20 : 40) - octets.count))
        // The kernel writes ICMPv6's sum itself.
        guard family == .ipv4 else { return octets }
        var sum: UInt32 = 0
        for index in octets.indices { sum += UInt32(octets[index]) << (index % 2 == 0 ? 8 : 0) }
        while sum >> 16 != 0 { sum = sum & 0xffff + sum >> 16 }
        (octets[2], octets[3]) = (UInt8(~sum >> 8 & 0xff), UInt8(~sum & 0xff))
        return octets
    }

    /// - Returns: `nil`, or why the kernel refused.
    func send(_ octets: [UInt8], to target: IPAddress) -> String? {
        let sent = SocketAddress.use(target, port: 0) { sendto(descriptor, octets, octets.count, 0, $0, $1) }
        return sent == octets.count ? nil : String(cString: strerror(errno))
    }

    /// What came, after at most this time.
    func receive(for time: Duration) -> [Message] {
        var waited = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waited, 1, Int32(clamping: max(1, time.millisecondsSaturated))) > 0 else { return [] }
        var messages: [Message] = []
        var buffer = [UInt8](repeating: 0, count: 2048)
        var from = sockaddr_storage()
        while true {
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let (count, source) = withUnsafeMutablePointer(to: &from) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { name in
                    let count = recvfrom(descriptor, &buffer, buffer.count, Int32(MSG_DONTWAIT), name, &length)
                    return (count, count > 0 ? SocketAddress.address(name) : nil)
                }
            }
            guard count > 0 else { return messages }
            // A raw IPv4 socket gets the IP header too.
            let header = family == .ipv4 ? Int(buffer[0] & 0xf) * 4 : 0
            if let source, count > header { messages.append(Message(source: source, octets: Array(buffer[header..<count]))) }
        }
    }
}

extension ICMPSocket.Message {
    /// The number of an echo reply to who has this identifier.
    func echoReply(_ family: AddressFamily, _ identifier: UInt16) -> UInt16? {
        guard octets.count >= 8, octets[0] == (family == .ipv4 ? 0 : 129), word(4) == identifier else { return nil }
        return word(6)
    }

    /// The destination port of the UDP packet that an error quotes, and whether it says that the packet arrived.
    func quotedPort(_ family: AddressFamily) -> (port: UInt16, isEnd: Bool)? {
        let (exceeded, unreachable): (UInt8, UInt8) = family == .ipv4 ? (11, 3) : (3, 1)
        guard octets.count > 8, octets[0] == exceeded || octets[0] == unreachable else { return nil }
        let inner = 8
        let udp: Int
        switch family {
        case .ipv4:
            guard octets.count >= inner + 20, octets[inner + 9] == 17 else { return nil }
            udp = inner + Int(octets[inner] & 0xf) * 4
        case .ipv6:
            guard octets.count >= inner + 40, octets[inner + 6] == 17 else { return nil }
            udp = inner + 40
        }
        guard octets.count >= udp + 4 else { return nil }
        // Of the unreachable, only a port says that the packet came there (ICMP code 3, ICMPv6 code 4).
        return (word(udp + 2), octets[0] == unreachable && octets[1] == (family == .ipv4 ? 3 : 4))
    }

    private func word(_ index: Int) -> UInt16 { UInt16(octets[index]) << 8 | UInt16(octets[index + 1]) }
}
