import MATCore
import MATDNS

extension Topology {
    /// The internet of `deploy/lab`:
    ///
    /// ```
    ///        mn ---- wlan0 --+                    +-- ns        203.0.113.130  nsd: forward and reverse zones
    ///        |               | wlan               +-- resolver  203.0.113.131  unbound
    ///        +------ wwan0 --|--+                 +-- ims1      203.0.113.132  imsd for 192.0.2.0/24, 2001:db8:10::/48
    ///        mn2 --- wlan0 --+  | cellular        +-- ims2      203.0.113.133  imsd for 198.51.100.0/24, 2001:db8:20::/64
    ///        +------ wwan0 -----+                 |
    ///                        |  |                 +-- relay      203.0.113.134  mat-relay for the nodes of ims1
    ///                        |  |                 +-- relay2     203.0.113.135  mat-relay for the nodes of both
    ///                        |  |                 | 203.0.113.128/26, 2001:db8:53::/64
    ///       203.0.113.0/26   |  | 203.0.113.64/26 |
    ///       2001:db8:a::/64  r--+-----------------+---- cn     198.51.100.20, 2001:db8:20::20   HoA and MoA at once
    ///                        |    2001:db8:b::/64 +---- plain  203.0.113.200, 2001:db8:99::200  a host without MAT
    ///                        |                    +---- plain2 198.19.250.200, 2001:db8:98::200 another one
    /// ```
    ///
    /// r routes, and gives addresses in the two access networks by DHCP and SLAAC (dnsmasq). mn and mn2 are mobile; their HoAs are
    /// 192.0.2.10 and .11, 2001:db8:10::10 and ::11, which no network routes. Nothing leaves the namespaces.
    ///
    /// The zones of ims1 name relay and relay2, that of ims2 relay2. At relay the nodes of ims2 are visitors.
    ///
    /// mr, plugged in like these, is a mobile router (home prefixes 192.0.2.64/28, 2001:db8:10:ff00::/56), and inner a host behind it
    /// without MAT: 192.0.2.70, 2001:db8:10:ff01::70. To mr, wlan routes 198.18.1.16/28 and 2001:db8:a1:100::/56, cellular
    /// 198.18.2.16/28 and 2001:db8:b1:100::/56. There mr has fixed addresses, as a router that a prefix is routed to has; elsewhere addresses
    /// by DHCP, as everybody, and its network's packets travel in datagrams.
    ///
    /// plain4 and plain6 are names of plain's in one family alone. Networks behind NATs and firewalls are in `everydayNetworks`.
    public static let smallInternet: Topology = {
        var internet = Topology(domain: DomainName("mat.example.") ?? .root)
        internet.reverseZones = [
            "2.0.192.in-addr.arpa.", "100.51.198.in-addr.arpa.", "113.0.203.in-addr.arpa.", "19.198.in-addr.arpa.", "8.b.d.0.1.0.0.2.ip6.arpa.",
        ]
        .compactMap { DomainName($0) }
        internet.networks = [
            Network(
                "wlan", router: ["203.0.113.1/26", "2001:db8:a::1/64"],
                access: Access(
                    device: "wlan0", metric: 100, pool: Pool("203.0.113.10", "203.0.113.60", mask: "255.255.255.192"),
                    advertised: "2001:db8:a::"), summary: "open, global addresses"),
            Network(
                "cellular", router: ["203.0.113.65/26", "2001:db8:b::1/64"],
                access: Access(
                    device: "wwan0", metric: 200, pool: Pool("203.0.113.74", "203.0.113.124", mask: "255.255.255.192"),
                    advertised: "2001:db8:b::"), summary: "open, global addresses"),
            Network("infra", router: ["203.0.113.129/26", "2001:db8:53::1/64"]),
        ]
        internet.networks += everydayNetworks
        internet.furtherNames = [("plain4", "203.0.113.200"), ("plain6", "2001:db8:99::200")]
        internet.routes = [
            "198.18.1.16/28 via 203.0.113.5", "2001:db8:a1:100::/56 via 2001:db8:a::5",
            "198.18.2.16/28 via 203.0.113.69", "2001:db8:b1:100::/56 via 2001:db8:b::5",
        ]
        internet.hosts = [
            Host("r", .none, [], .dnsmasq),
            Host("ns", .network("infra"), ["203.0.113.130/26", "2001:db8:53::130/64"], .nsd),
            Host("resolver", .network("infra"), ["203.0.113.131/26", "2001:db8:53::131/64"], .unbound),
            Host(
                "ims1", .network("infra"), ["203.0.113.132/26", "2001:db8:53::132/64"],
                .imsd(
                    [
                        ServedPrefix("192.0.2.0/24", mobile: ["198.18.0.0/15"]),
                        ServedPrefix("2001:db8:10::/48", mobile: ["2001:db8:a1::/48", "2001:db8:b1::/48"]),
                    ], relays: ["relay", "relay2"])),
            Host(
                "ims2", .network("infra"), ["203.0.113.133/26", "2001:db8:53::133/64"],
                .imsd([ServedPrefix("198.51.100.0/24"), ServedPrefix("2001:db8:20::/64")], relays: ["relay2"])),
            Host("relay", .network("infra"), ["203.0.113.134/26", "2001:db8:53::134/64"], .relay(["192.0.2.0/24", "2001:db8:10::/48"])),
            Host(
                "relay2", .network("infra"), ["203.0.113.135/26", "2001:db8:53::135/64"],
                .relay(["192.0.2.0/24", "2001:db8:10::/48", "198.51.100.0/24", "2001:db8:20::/64"])),
            Host(
                "cn", .point(router: ["198.51.100.1/25", "2001:db8:20::1/64"]), ["198.51.100.20/25", "2001:db8:20::20/64"],
                .matd(Node(server: "ims2", traffic: "[\"192.0.2.0/24\", \"2001:db8:10::/48\"]"))),
            Host("plain", .point(router: ["203.0.113.193/26", "2001:db8:99::1/64"]), ["203.0.113.200/26", "2001:db8:99::200/64"]),
            Host("plain2", .point(router: ["198.19.250.129/25", "2001:db8:98::1/64"]), ["198.19.250.200/25", "2001:db8:98::200/64"]),
            Host("mn", .mobile(fixed: [:]), ["192.0.2.10", "2001:db8:10::10"], .matd(Node(server: "ims1"))),
            Host("mn2", .mobile(fixed: [:]), ["192.0.2.11", "2001:db8:10::11"], .matd(Node(server: "ims1"))),
            Host(
                "mr",
                .mobile(fixed: ["wlan": ["203.0.113.5/26", "2001:db8:a::5/64"], "cellular": ["203.0.113.69/26", "2001:db8:b::5/64"]]), [],
                .matd(
                    Node(
                        server: "ims1",
                        networks: [
                            MobileNetwork(
                                "192.0.2.64/28", [("wlan0", "203.0.113.0/26", "198.18.1.16/28"), ("wwan0", "203.0.113.64/26", "198.18.2.16/28")]),
                            MobileNetwork(
                                "2001:db8:10:ff00::/56",
                                [("wlan0", "2001:db8:a::/64", "2001:db8:a1:100::/56"), ("wwan0", "2001:db8:b::/64", "2001:db8:b1:100::/56")]),
                        ]))),
            Host(
                "inner", .behind("mr", device: "lan0", gateway: ["192.0.2.65/28", "2001:db8:10:ff01::1/64"]),
                ["192.0.2.70/28", "2001:db8:10:ff01::70/64"]),
        ]
        return internet
    }()
}
