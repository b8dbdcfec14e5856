import MATSignal
import Namespaces
import Testing

/// The addresses of Topology's drawing in one family, for tests that say the same of both.
struct Family: CustomTestStringConvertible, Sendable {
    let own: IPAddress, peer: IPAddress
    /// mn's MoAs on `wlan` and `cell`, cn's on `eth0`.
    let wlan: IPAddress, cell: IPAddress, far: IPAddress
    /// The router's ends of `wlan` and `eth0`.
    let nearRouter: IPAddress, farRouter: IPAddress

    var isIPv4: Bool { own.isIPv4 }
    var testDescription: String { isIPv4 ? "IPv4" : "IPv6" }
    var unspecified: IPAddress { isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6 }
    var ip: String { isIPv4 ? "ip" : "ip -6" }

    static let both: [Family] = [
        ["192.0.2.1", "198.51.100.1", "10.1.0.2", "10.2.0.2", "10.9.0.2", "10.1.0.1", "10.9.0.1"],
        [
            "2001:db8:a::1", "2001:db8:b::1", "2001:db8:1::2", "2001:db8:2::2", "2001:db8:9::2", "2001:db8:1::1",
            "2001:db8:9::1",
        ],
    ].compactMap { texts in
        let all = texts.compactMap { IPAddress($0) }
        guard all.count == 7 else { return nil }
        return Family(own: all[0], peer: all[1], wlan: all[2], cell: all[3], far: all[4], nearRouter: all[5], farRouter: all[6])
    }

    // Numbers of netinet/in.h and linux/in6.h that Glibc's Swift module hides or types otherwise.
    var level: Int32 { isIPv4 ? 0 : 41 }
    var icmp: Int32 { isIPv4 ? 1 : 58 }
    /// IP_TTL, IPV6_UNICAST_HOPS
    var hopLimitOption: Int32 { isIPv4 ? 2 : 16 }
    /// IP_MTU, IPV6_MTU
    var mtuOption: Int32 { isIPv4 ? 14 : 24 }
    /// IP_MTU_DISCOVER, IPV6_MTU_DISCOVER
    var mtuDiscoverOption: Int32 { isIPv4 ? 10 : 23 }
    /// IP_RECVERR, IPV6_RECVERR
    var receiveErrorOption: Int32 { isIPv4 ? 11 : 25 }

    var echoRequest: UInt8 { isIPv4 ? 8 : 128 }
    var echoReply: UInt8 { isIPv4 ? 0 : 129 }
    var timeExceeded: UInt8 { isIPv4 ? 11 : 3 }
    var unreachable: UInt8 { isIPv4 ? 3 : 1 }
    var portUnreachable: UInt8 { isIPv4 ? 3 : 4 }
}

extension TestSocket {
    convenience init(_ namespace: Namespace, _ type: Int32, _ family: Family, protocolNumber: Int32 = 0) throws {
        try self.init(namespace, type: type, isIPv4: family.isIPv4, protocolNumber: protocolNumber)
    }
}

extension Host {
    /// `map` with addresses.
    func map(_ own: IPAddress, _ peer: IPAddress, over ownMoA: IPAddress, _ peerMoA: IPAddress) throws {
        try map("\(own)", "\(peer)", over: "\(ownMoA)", "\(peerMoA)")
    }
}

extension Topology {
    /// Both ends send over this one of mn's MoAs from now on.
    func handOver(_ family: Family, to moa: IPAddress) throws {
        try mn.map(family.own, family.peer, over: moa, family.far)
        try cn.map(family.peer, family.own, over: family.far, moa)
    }
}

/// Octets that differ from place to place, and of which none looks like an address of the drawing.
func pattern(_ count: Int, seed: Int = 0) -> [UInt8] {
    (0..<count).map { UInt8(truncatingIfNeeded: ($0 &+ seed) &* 167 >> 3) | 0x40 }
}
