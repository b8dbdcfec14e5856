import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// The packets that `mat trace` sends. By raw sockets, which only root has.
enum TraceProbes {
    /// A first packet to somebody new waits in matd until DNS and its mapping server have answered.
    private static let patience: Duration = .seconds(3)
    /// When each is sent.
    private static let times: [Duration] = [.zero, .milliseconds(300), .milliseconds(1000), .milliseconds(2000)]
    /// Routers that are looked for: more than any way through the Internet that still works has behind a home's.
    static let hopsMax = 24
    private static let hopPatience: Duration = .milliseconds(1500)
    /// What traceroute(8) sends to: nobody listens there.
    private static let firstPort: UInt16 = 33434

    // MARK: As a program

    /// Sends ICMP echo requests to an address, as ping(8) does: matd maps them like any program's packets.
    static func echo(_ target: IPAddress) -> TraceFindings.Echo {
        guard let socket = ICMPSocket(target.family) else { return .unsendable(reason()) }
        let identifier = UInt16.random(in: 0 ... .max)
        let began = SystemClock.now().monotonic
        var sent: [MonotonicTime] = []
        while true {
            let elapsed = SystemClock.now().monotonic - began
            if sent.count < times.count, elapsed >= times[sent.count] {
                if let failure = socket.send(ICMPSocket.echo(target.family, identifier, UInt16(sent.count)), to: target) {
                    return .unsendable(failure)
                }
                sent.append(SystemClock.now().monotonic)
            }
            guard elapsed < patience else { return .silent(sent: sent.count) }
            let next = sent.count < times.count ? times[sent.count] : patience
            for message in socket.receive(for: next - elapsed) {
                guard let number = message.echoReply(target.family, identifier), sent.indices.contains(Int(number)) else { continue }
                return .answered(after: SystemClock.now().monotonic - sent[Int(number)])
            }
        }
    }

    // MARK: To the routers

    /// Which routers say that a packet went no further than them, of packets that leave as the agent's do.
    static func hops(to target: IPAddress, from own: IPAddress?) -> [TraceReport.Hop] {
        guard let answers = ICMPSocket(target.family) else { return [] }
        let family = target.isIPv4 ? AF_INET : AF_INET6
        let descriptor = socket(family, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return [] }
        defer { close(descriptor) }
        var mark = IMTConfiguration().mark
        setsockopt(descriptor, SOL_SOCKET, SO_MARK, &mark, 4)
        if let own { _ = SocketAddress.use(own, port: 0) { bind(descriptor, $0, $1) } }
        var hops: [Int: TraceReport.Hop] = [:]
        var sent: [Int: MonotonicTime] = [:]
        for number in 1...hopsMax {
            var limit = Int32(number)
            // IP_TTL, IPV6_UNICAST_HOPS
            setsockopt(descriptor, target.isIPv4 ? 0 : 41, target.isIPv4 ? 2 : 16, &limit, 4)
            let octet: [UInt8] = [0]
            let done = SocketAddress.use(target, port: firstPort + UInt16(number)) { sendto(descriptor, octet, 1, 0, $0, $1) }
            if done == 1 { sent[number] = SystemClock.now().monotonic }
        }
        let began = SystemClock.now().monotonic
        var reached: Int?
        while true {
            let elapsed = SystemClock.now().monotonic - began
            guard elapsed < hopPatience else { break }
            for message in answers.receive(for: hopPatience - elapsed) {
                guard let (port, isEnd) = message.quotedPort(target.family), port > firstPort, let began = sent[Int(port - firstPort)] else {
                    continue
                }
                let number = Int(port - firstPort)
                let took = SystemClock.now().monotonic - began
                hops[number] = TraceReport.Hop(
                    number: number, address: "\(message.source)", tookMilliseconds: Double(took.nanosecondsSaturated / 1000) / 1000)
                if isEnd { reached = min(reached ?? number, number) }
            }
        }
        // Behind the last that answered, or was reached, is nothing to tell.
        let last = reached ?? hops.keys.max() ?? 0
        return last == 0 ? [] : (1...last).map { hops[$0] ?? TraceReport.Hop(number: $0, address: nil, tookMilliseconds: nil) }
    }

    private static func reason() -> String {
        errno == EPERM || errno == EACCES ? "only root may send such packets" : String(cString: strerror(errno))
    }
}

/// A raw socket for ICMP or ICMPv6.
private final class ICMPSocket {
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

    static func echo(_ family: AddressFamily, _ identifier: UInt16, _ number: UInt16) -> [UInt8] {
        var octets: [UInt8] = [family == .ipv4 ? 8 : 128, 0, 0, 0]
        for word in [identifier, number] { octets += [UInt8(word >> 8), UInt8(word & 0xff)] }
        octets += Array("mat trace".utf8) + [0]
        // The kernel writes ICMPv6's sum itself.
        guard family == .ipv4 else { return octets }
        var sum: UInt32 = 0
        for index in stride(from: 0, to: octets.count, by: 2) { sum += UInt32(octets[index]) << 8 | UInt32(octets[index + 1]) }
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
