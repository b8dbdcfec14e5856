import BenchSupport
import CLinux
import Glibc
import MATSignal
import Namespaces

/// Two hosts and a router, and the addresses of as many peers as wanted behind CN:
///
///      mn  10.71.1.2/24          10.71.1.1 +--------+ 10.71.2.1          10.71.2.2/24  cn
///          2001:db8:71:1::2/64  ---------- | router | ----------  2001:db8:71:2::2/64
///                                          +--------+
///     HoAs  mn 192.0.2.1, 2001:db8:a::1        cn 198.51.100.1, 2001:db8:b::1
///     peers HoA 172.16.0.0/12, 2001:db8:c::/96         MoA 10.128.0.0/10, 2001:db8:d::/96, all of them cn's own (AnyIP)
///
/// A veth pair hands a packet to the other end in the sender's softirq: what one thread sends crosses both links, the router and
/// the receiver's stack on that thread's core, before `sendmmsg` returns.
final class BenchNetwork {
    static let peersMax = 1_000_000

    let mn: Namespace
    let cn: Namespace
    let router: Namespace

    init() throws {
        Namespace.removeStaleBenches()
        mn = try Namespace.bench("mn")
        cn = try Namespace.bench("cn")
        router = try Namespace.bench("router")
        try router.forward()
        for (host, number) in [(mn, 1), (cn, 2)] {
            try host.connect("eth0", to: router, "r\(number)")
            for (end, device, last) in [(host, "eth0", 2), (router, "r\(number)", 1)] {
                try end.add(["10.71.\(number).\(last)/24", "2001:db8:71:\(number)::\(last)/64"], dev: device)
            }
            for gateway in ["10.71.\(number).1", "2001:db8:71:\(number)::1"] { try host.addDefaultRoute(via: gateway, dev: "eth0") }
        }
        try router.ip("route add 10.128.0.0/10 via 10.71.2.2")
        try router.ip("-6 route add 2001:db8:d::/96 via 2001:db8:71:2::2")
        try cn.run("sysctl -qw net.ipv4.ip_nonlocal_bind=1 net.ipv6.ip_nonlocal_bind=1")
        try cn.ip("route add local 10.128.0.0/10 dev lo")
        try cn.ip("-6 route add local 2001:db8:d::/96 dev lo")
    }

    /// Makes the router a translator between the hosts, as a home's router is: CN sees all of MN's flows from the router's address, and
    /// nothing gets to MN that has not been asked for.
    func translate() throws {
        for table in ["ip", "ip6"] {
            try router.run(
                "nft -f -",
                input: """
                    table \(table) bench_translator {
                        chain post { type nat hook postrouting priority 100; oifname "r2" masquerade; }
                        chain forward {
                            type filter hook forward priority 0; policy drop;
                            ct state established,related accept
                            iifname "r1" accept
                            meta l4proto icmpv6 accept
                        }
                    }

                    """)
        }
    }

    /// Whether the hosts' links leave checksums and segments to the card, as a virtual link does, or packets are made in software, as large as a
    /// wire takes them.
    func setOffloads(_ isOn: Bool) throws {
        for host in [mn, cn] {
            let refused: Int32 = try host.inside {
                let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
                defer { close(descriptor) }
                // linux/ethtool.h: transmit checksums, scatter-gather, TSO, GSO. Segmentation needs scatter-gather, so that goes last or comes first.
                let commands: [UInt32] = [0x17, 0x19, 0x1F, 0x24]
                for command in isOn ? commands : commands.reversed() {
                    guard Self.ethtool(descriptor, "eth0", command, isOn ? 1 : 0) == 0 else { return errno }
                }
                return 0
            }
            guard refused == 0 else { throw BenchError("set the offloads of \(host.name): errno \(refused)") }
        }
    }

    /// SIOCETHTOOL: struct ifreq with a pointer to struct ethtool_value, a command and a number.
    private static func ethtool(_ descriptor: Int32, _ device: String, _ command: UInt32, _ value: UInt32) -> Int32 {
        var numbers = (command, value)
        return withUnsafeMutableBytes(of: &numbers) { data in
            var request = ifreq()
            withUnsafeMutableBytes(of: &request) { raw in
                for (offset, octet) in device.utf8.prefix(15).enumerated() { raw[offset] = octet }
                raw.storeBytes(of: UInt(bitPattern: data.baseAddress), toByteOffset: 16, as: UInt.self)
            }
            return mat_ioctl(descriptor, 0x8946, &request)
        }
    }

    /// As CN sees MN.
    static func translated(_ isIPv4: Bool) -> IPAddress { Plan.address(isIPv4 ? "10.71.2.1" : "2001:db8:71:2::1") }
}

/// The addresses above.
enum Plan {
    static func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv4 }

    static func mnMoA(_ isIPv4: Bool) -> IPAddress { address(isIPv4 ? "10.71.1.2" : "2001:db8:71:1::2") }
    static func cnMoA(_ isIPv4: Bool) -> IPAddress { address(isIPv4 ? "10.71.2.2" : "2001:db8:71:2::2") }
    static func mnHoA(_ isIPv4: Bool) -> IPAddress { address(isIPv4 ? "192.0.2.1" : "2001:db8:a::1") }
    static func cnHoA(_ isIPv4: Bool) -> IPAddress { address(isIPv4 ? "198.51.100.1" : "2001:db8:b::1") }

    /// Peers are numbered from 1.
    static func peerHoA(_ isIPv4: Bool, _ number: Int) -> IPAddress { offset(address(isIPv4 ? "172.16.0.0" : "2001:db8:c::"), number) }
    static func peerMoA(_ isIPv4: Bool, _ number: Int) -> IPAddress { offset(address(isIPv4 ? "10.128.0.0" : "2001:db8:d::"), number) }

    private static func offset(_ base: IPAddress, _ number: Int) -> IPAddress {
        IPAddress(high: base.high, low: base.low &+ UInt64(number))
    }
}
