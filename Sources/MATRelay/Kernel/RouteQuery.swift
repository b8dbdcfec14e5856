import CLinux
import Glibc
import MATRuntime
import MATSignal

/// Asks the kernel which way it would send, and hears when that may have changed (rtnetlink).
final class RouteQuery {
    struct Way: Hashable {
        var interface: UInt32
        /// Of a packet, in octets.
        var octetsMax: UInt32
        /// The next router, or the other host itself.
        var next: IPAddress
    }

    private let asking: Int32
    /// Readable when links, addresses or routes have changed.
    let news: Int32
    private var sequence: UInt32 = 0
    /// By interface, as long as there are no news.
    private var links: [UInt32: Link] = [:]
    private var answer = [UInt8](repeating: 0, count: 8192)

    init() throws(SystemError) {
        asking = Self.open(groups: 0)
        guard asking >= 0 else { throw SystemError("open rtnetlink") }
        // linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE.
        news = Self.open(groups: 0x1 | 0x10 | 0x40 | 0x100 | 0x400)
        guard news >= 0 else {
            close(asking)
            throw SystemError("open rtnetlink")
        }
    }

    deinit {
        close(asking)
        close(news)
    }

    private static func open(groups: UInt32) -> Int32 {
        let descriptor = socket(AF_NETLINK, Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return -1 }
        var patience = timeval(tv_sec: 1, tv_usec: 0)
        setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        // struct sockaddr_nl: family 2, room 2, port 4, groups 4.
        var name = [UInt8](repeating: 0, count: 12)
        put(UInt16(AF_NETLINK), into: &name, 0)
        put(groups, into: &name, 8)
        let bound = name.withUnsafeBytes { raw in
            raw.withMemoryRebound(to: sockaddr.self) { bind(descriptor, $0.baseAddress, 12) }
        }
        if bound != 0 {
            close(descriptor)
            return -1
        }
        return descriptor
    }

    /// Takes what was told away: it is asked anew anyway.
    func clear() {
        links = [:]
        var buffer = [UInt8](repeating: 0, count: 8192)
        while recv(news, &buffer, buffer.count, Int32(MSG_DONTWAIT)) > 0 {}
    }

    /// The way from an own address to another host, over a link with Ethernet's addresses; `nil` if there is none.
    func way(from local: IPAddress, to peer: IPAddress) -> Way? {
        guard local.family == peer.family else { return nil }
        sequence &+= 1
        let octets = peer.packetOctets
        let attribute = 4 + octets.count
        // struct nlmsghdr 16, struct rtmsg 12, RTA_DST, RTA_SRC.
        var request = [UInt8](repeating: 0, count: 28 + 2 * attribute)
        Self.put(UInt32(request.count), into: &request, 0)
        Self.put(UInt16(26), into: &request, 4)  // RTM_GETROUTE
        Self.put(UInt16(1), into: &request, 6)  // NLM_F_REQUEST
        Self.put(sequence, into: &request, 8)
        request[16] = UInt8(local.family == .ipv4 ? AF_INET : AF_INET6)
        request[17] = UInt8(octets.count * 8)
        request[18] = UInt8(octets.count * 8)
        for (number, address) in [octets, local.packetOctets].enumerated() {
            let start = 28 + number * attribute
            Self.put(UInt16(attribute), into: &request, start)
            Self.put(UInt16(number + 1), into: &request, start + 2)
            request.replaceSubrange(start + 4..<start + attribute, with: address)
        }
        guard Glibc.send(asking, request, request.count, 0) == request.count else { return nil }
        while true {
            let count = recv(asking, &answer, answer.count, 0)
            guard count >= 28 else { return nil }
            let isOurs = answer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 8, as: UInt32.self) } == sequence
            // An answer that came too late for the one who asked.
            guard isOurs else { continue }
            return way(in: answer.prefix(count), to: peer)
        }
    }

    private func way(in answer: ArraySlice<UInt8>, to peer: IPAddress) -> Way? {
        answer.withUnsafeBytes { raw in
            // RTM_NEWROUTE, and a unicast route.
            guard raw.loadUnaligned(fromByteOffset: 4, as: UInt16.self) == 24, raw[23] == 1 else { return nil }
            var interface: UInt32 = 0
            var octetsMax: UInt32 = .max
            var next = peer
            Self.forEachAttribute(raw, 28..<raw.count) { type, value in
                switch type {
                case 4 where value.count >= 4: interface = raw.loadUnaligned(fromByteOffset: value.lowerBound, as: UInt32.self)
                // RTA_GATEWAY, and RTA_VIA, which has a family before it.
                case 5: next = IPAddress(octets: Array(raw[value])) ?? peer
                case 18: next = IPAddress(octets: Array(raw[value].dropFirst(2))) ?? peer
                case 8:
                    // RTA_METRICS: RTAX_MTU among them.
                    Self.forEachAttribute(raw, value) { metric, value in
                        if metric == 2, value.count >= 4 { octetsMax = raw.loadUnaligned(fromByteOffset: value.lowerBound, as: UInt32.self) }
                    }
                default: break
                }
            }
            guard interface != 0, let link = links[interface] ?? Link(interface) else { return nil }
            links[interface] = link
            guard link.isEthernet else { return nil }
            return Way(interface: interface, octetsMax: min(link.octetsMax, octetsMax == 0 ? .max : octetsMax), next: next)
        }
    }

    private static func forEachAttribute(_ raw: UnsafeRawBufferPointer, _ range: Range<Int>, _ body: (UInt16, Range<Int>) -> Void) {
        var start = range.lowerBound
        while start + 4 <= range.upperBound {
            let length = Int(raw.loadUnaligned(fromByteOffset: start, as: UInt16.self))
            guard length >= 4, start + length <= range.upperBound else { return }
            body(raw.loadUnaligned(fromByteOffset: start + 2, as: UInt16.self) & 0x3FFF, start + 4..<start + length)
            start += (length + 3) / 4 * 4
        }
    }

    private static func put<T: FixedWidthInteger>(_ value: T, into octets: inout [UInt8], _ place: Int) {
        octets.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: place, as: T.self) }
    }

    // MARK: Links

    struct Link {
        let octetsMax: UInt32
        let isEthernet: Bool

        init?(_ interface: UInt32) {
            var name = [CChar](repeating: 0, count: Int(IF_NAMESIZE))
            guard if_indextoname(interface, &name) != nil else { return nil }
            let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
            guard descriptor >= 0 else { return nil }
            defer { close(descriptor) }
            // struct ifreq: name 16, then what is asked for.
            var request = [UInt8](repeating: 0, count: 40)
            for (place, octet) in name.prefix(16).enumerated() { request[place] = UInt8(bitPattern: octet) }
            // SIOCGIFMTU, SIOCGIFHWADDR; ARPHRD_ETHER.
            guard mat_ioctl(descriptor, 0x8921, &request) == 0 else { return nil }
            octetsMax = request.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: UInt32.self) }
            guard mat_ioctl(descriptor, 0x8927, &request) == 0 else { return nil }
            isEthernet = request.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: 16, as: UInt16.self) } == 1
        }
    }
}
