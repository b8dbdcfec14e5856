extension Walk {
    /// All of them, for the lab's own internet. A translator is called by letters, in the paper's way: in the walks between nodes A is `home`.
    public static let all: [Walk] = [
        server, nodes, bothMove, oneSite, endpointDependent, failures, ipv6, ipv6Nodes, families, families6, clocks, plain, instances,
    ]

    private static let mn = Ending("mn", "192.0.2.10")
    private static let mn2 = Ending("mn2", "192.0.2.11")
    private static let mn6 = Ending("mn", "2001:db8:10::10")
    private static let mn26 = Ending("mn2", "2001:db8:10::11")

    private static func at(_ network: String, over device: String? = nil) -> Pattern.Place { Pattern.Place("mn", network, over: device) }
    private static func peer(_ network: String, over device: String? = nil) -> Pattern.Place { Pattern.Place("mn2", network, over: device) }

    static let server = Walk(
        "server", "mn moves and talks to a stationary server", mn, Ending("cn", "198.51.100.20"),
        [
            Pattern("1", "G ⇒ G, G", from: [at("wlan")], .move([at("cellular")]), .direct, simulated: (80, 25), tunnel: .endToEnd),
            Pattern("3", "G ⇒ P(A), G", from: [at("cellular")], .move([at("home")]), .encapsulated, simulated: (86, 65), tunnel: .endToEnd),
            Pattern("5", "P(A) ⇒ G, G", from: [at("home")], .move([at("cellular")]), .direct, simulated: (81, 25), tunnel: .endToEnd),
            Pattern(
                "7", "P(A) ⇒ P(A), G", from: [at("home")], .move([at("home", over: "wwan0")]), .encapsulated, simulated: (82, 65), tunnel: .endToEnd),
            Pattern(
                "7b", "P(A) ⇒ P(A'), G: the same address behind another translator", from: [at("home", over: "wwan0")], .move([at("twin")]),
                .encapsulated, simulated: (82, 65)),
            Pattern("9", "P(A) ⇒ P(B), G", from: [at("twin")], .move([at("carrier")]), .encapsulated, simulated: (82, 65), tunnel: .endToEnd),
            Pattern("double", "P(B) ⇒ P(A(B)), G: a home behind the carrier", from: [at("carrier")], .move([at("double")]), .encapsulated),
            Pattern(
                "edm-g", "P(A) ⇒ P(D), G: D maps by destination", from: [at("carrier")], .move([at("symmetric")]), .encapsulated, simulated: (86, 65)),
        ])

    static let nodes = Walk(
        "nodes", "mn moves and talks to mn2 behind a translator", mn, mn2,
        [
            Pattern(
                "11", "G ⇒ G, P(A)", from: [at("wlan"), peer("home")], .move([at("cellular")]), .encapsulated, simulated: (146, 121),
                tunnel: .endToEnd),
            Pattern(
                "13", "G ⇒ P(B), P(A)", from: [at("cellular"), peer("home")], .move([at("home2")]), .encapsulated, simulated: (147, 166),
                tunnel: .relayServer),
            Pattern(
                "17", "P(B) ⇒ P(C), P(A)", from: [at("home2"), peer("home")], .move([at("carrier")]), .encapsulated, simulated: (148, 126),
                tunnel: .relayServer),
            Pattern(
                "14", "P(B) ⇒ G, P(A)", from: [at("carrier"), peer("home")], .move([at("wlan")]), .encapsulated, simulated: (147, 121),
                tunnel: .endToEnd),
            Pattern("double-p", "G ⇒ P(C(B)), P(A)", from: [at("wlan"), peer("home")], .move([at("double")]), .encapsulated, simulated: (153, 166)),
            Pattern(
                "ims-restart", "IMS restarts; P(B) ⇒ P(C), P(A)", from: [at("home2"), peer("home")],
                .sequence([.restart("ims1"), .move([at("carrier")])]), .encapsulated, simulated: (148, 126)),
        ])

    static let oneSite = Walk(
        "site", "mn and mn2 meet behind one translator", mn, mn2,
        [
            Pattern(
                "12", "G ⇒ P(A), P(A)", from: [at("cellular"), peer("home")], .move([at("home")]), .direct, simulated: (167, 131),
                tunnel: .relayServer),
            Pattern(
                "16", "P(A) ⇒ P(B), P(A)", from: [at("home"), peer("home")], .move([at("carrier")]), .encapsulated, simulated: (128, 126),
                tunnel: .relayServer),
            Pattern(
                "15", "P(B) ⇒ P(A), P(A)", from: [at("carrier"), peer("home")], .move([at("home")]), .direct, simulated: (168, 126), tunnel: .either),
            Pattern(
                "15b", "P(B) ⇒ P(A), P(A): clients isolated", from: [at("carrier"), peer("cafe")], .move([at("cafe")]), .relayed,
                simulated: (168, 126), tunnel: .relayServer),
            Pattern(
                "15c", "P(B) ⇒ P(A), P(A): isolated, hairpin", from: [at("carrier"), peer("cafe-hairpin")], .move([at("cafe-hairpin")]),
                .encapsulated,
                simulated: (89, 92)),
            Pattern(
                "both-lan", "both ⇒ P(A)", from: [at("cellular"), peer("cellular")], .move([at("home"), peer("home")]), .direct, simulated: (166, 166)
            ),
        ])

    static let bothMove = Walk(
        "both", "mn and mn2 move at once", mn, mn2,
        [
            Pattern(
                "both-gg", "both G ⇒ G", from: [at("wlan"), peer("cellular")], .move([at("cellular"), peer("wlan")]), .direct, simulated: (140, 140)),
            Pattern(
                "both-gp", "G ⇒ P(A), peer G ⇒ P(B)", from: [at("cellular"), peer("wlan")], .move([at("home"), peer("carrier")]), .encapsulated,
                simulated: (146, 146)),
            Pattern(
                "both-pp", "P(A) ⇒ P(C), peer P(B) ⇒ P(A)", from: [at("home"), peer("carrier")], .move([at("double"), peer("home2")]), .encapsulated,
                simulated: (128, 126)),
            Pattern("both-pg", "P(C) ⇒ G, peer P(A) ⇒ G", from: [at("double"), peer("home2")], .move([at("cellular"), peer("wlan")]), .direct),
            Pattern(
                "both-mixed", "G ⇒ P(A), peer G ⇒ G", from: [at("cellular"), peer("wlan")], .move([at("home"), peer("cellular")]), .encapsulated),
        ])

    /// What maps by destination (EDM) against each way to filter.
    static let endpointDependent = Walk(
        "edm", "mn comes behind translators that map by destination, and mn2 is behind others", mn, mn2,
        dependent("symmetric", "APDF", "cone", .encapsulated, (87, 106)) + dependent("symmetric-host", "ADF", "cone", .encapsulated, (87, 106))
            + dependent("symmetric-cone", "EIF", "cone", .encapsulated, nil)
            + dependent("symmetric", "APDF", "restricted", .encapsulated, (167, 166))
            + dependent("symmetric-host", "ADF", "restricted", .encapsulated, (167, 166))
            + dependent("symmetric-cone", "EIF", "restricted", .encapsulated, nil)
            + dependent("symmetric", "APDF", "home", .relayed, (167, 166)) + dependent("symmetric-host", "ADF", "home", .relayed, (167, 166))
            + dependent("symmetric-cone", "EIF", "home", .relayed, nil)
            + [
                Pattern(
                    "relay-restart", "the relay in use restarts", from: [at("symmetric"), peer("home")], .restart("relay"), .relayed,
                    simulated: (648, 646))
            ])

    private static func dependent(
        _ network: String, _ filtering: String, _ other: String, _ expected: Pattern.Path, _ simulated: (toPeer: Int, toMover: Int)?
    ) -> [Pattern] {
        let kinds = ["cone": "EIM/EIF", "restricted": "EIM/ADF", "home": "EIM/APDF"]
        return [
            Pattern(
                "\(network)-\(other)", "G ⇒ P(EDM/\(filtering)), P(\(kinds[other] ?? other))", from: [at("cellular"), peer(other)],
                .move([at(network, over: "wlan0")]), expected, simulated: simulated)
        ]
    }

    static let failures = Walk(
        "failures", "what stands between mn and mn2 fails", mn, mn2,
        [
            Pattern(
                "nat", "A forgets its flows, peer P(B)", from: [at("home"), peer("carrier")], .reboot("home", newAddress: false), .encapsulated,
                simulated: (648, 586)),
            Pattern(
                "nat-address", "A comes back with another address, peer P(B)", from: [at("home"), peer("carrier")],
                .reboot("home", newAddress: true), .encapsulated),
            Pattern(
                "nat-peer", "the peer's B forgets its flows, mover P(A)", from: [at("home"), peer("carrier")], .reboot("carrier", newAddress: false),
                .encapsulated),
            Pattern(
                "nat-g", "A forgets its flows, peer G", from: [at("home"), peer("cellular")], .reboot("home", newAddress: false), .encapsulated,
                simulated: (582, 565)),
            Pattern(
                "nat-address-g", "A comes back with another address, peer G", from: [at("home"), peer("cellular")],
                .reboot("home", newAddress: true), .encapsulated, simulated: (582, 565)),
        ])

    static let ipv6 = Walk(
        "ipv6", "the same in IPv6, to a server", mn6, Ending("cn", "2001:db8:20::20"),
        [
            Pattern("6-1", "G ⇒ G, G (IPv6)", from: [at("wlan")], .move([at("cellular")]), .direct, simulated: (80, 25)),
            Pattern("6-fw", "G ⇒ F, G (IPv6, F a firewall)", from: [at("cellular")], .move([at("firewall")]), .encapsulated, simulated: (86, 530)),
            Pattern("6-fw-g", "F ⇒ G, G (IPv6)", from: [at("firewall")], .move([at("cellular")]), .direct),
            Pattern("6-p", "G ⇒ P(A), G (IPv6, P(A) has IPv4 alone)", from: [at("cellular")], .move([at("home")]), .encapsulated),
            Pattern("6-p-g", "P(A) ⇒ G, G (IPv6)", from: [at("home")], .move([at("cellular")]), .direct),
        ])

    /// A relay that has both families is all that such two have in common.
    static let families = Walk(
        "families", "mn goes where IPv6 is all there is, and talks to mn2, where IPv4 is, by an IPv4 home address", mn, mn2,
        [
            Pattern(
                "v6-only", "G ⇒ IPv6 only, P(A)", from: [at("wlan"), peer("home")], .move([at("ipv6-bare")]), .relayed, simulated: (162, 121)),
            Pattern("v6-only-p", "IPv6 only ⇒ P(B), P(A)", from: [at("ipv6-bare"), peer("home")], .move([at("home2")]), .encapsulated),
            Pattern(
                "p-v6-only", "P(B) ⇒ IPv6 only, P(A)", from: [at("home2"), peer("home")], .move([at("ipv6-bare")]), .relayed, simulated: (162, 121)),
        ])

    static let families6 = Walk(
        "families6", "mn2 goes where IPv4 is all there is, and talks to mn, where IPv6 is, by an IPv6 home address", mn26, mn6,
        [
            Pattern("6-v4-only", "G ⇒ P(A), IPv6 only (IPv6)", from: [peer("wlan"), at("ipv6-bare")], .move([peer("home")]), .relayed),
            Pattern("6-v4-only-g", "P(A) ⇒ G, IPv6 only (IPv6)", from: [peer("home"), at("ipv6-bare")], .move([peer("wlan")]), .direct),
        ])

    /// A node's clock, by less than what protocol.md section 4 bears with.
    static let clocks = Walk(
        "clocks", "mn's clock goes wrong, and it moves", mn, mn2,
        [
            Pattern(
                "clock-ahead", "4 minutes ahead of IMS and peer; P(B) ⇒ P(C), P(A)", from: [at("home2"), peer("home")],
                .sequence([.setClock("mn", aheadBy: 240), .move([at("carrier")])]), .encapsulated, simulated: (148, 126)),
            Pattern(
                "clock-behind", "4 minutes behind them; P(C) ⇒ P(B), P(A)", from: [at("carrier"), peer("home")],
                .sequence([.setClock("mn", aheadBy: -240), .move([at("home2")])]), .encapsulated, simulated: (148, 126)),
        ])

    static let instances = Walk(
        "instances", "mn and mn2 are at a mapping server of three instances", mn, mn2, setting: .instances,
        [
            Pattern(
                "3-instances", "P(B) ⇒ P(C), P(A); three instances", from: [at("home2"), peer("home")], .move([at("carrier")]), .encapsulated,
                simulated: (148, 126)),
            Pattern(
                "3-instances-g", "P(C) ⇒ G, P(A); three instances", from: [at("carrier"), peer("home")], .move([at("cellular")]), .encapsulated),
            Pattern(
                "3-instances-both", "G ⇒ P(B), peer P(A) ⇒ P(C); three instances", from: [at("cellular"), peer("home")],
                .move([at("home2"), peer("carrier")]), .encapsulated),
        ])

    static let plain = Walk(
        "plain", "mn moves and talks to a host without MAT, by a gateway", mn, Ending("plain", "203.0.113.200"), setting: .gateway,
        [
            Pattern("2", "G ⇒ G, G (general)", from: [at("wlan")], .move([at("cellular")]), .gateway, tunnel: .relayServer),
            Pattern("4", "G ⇒ P(A), G (general)", from: [at("cellular")], .move([at("home")]), .gateway, tunnel: .relayServer),
            Pattern("8", "P(A) ⇒ P(A), G (general)", from: [at("home")], .move([at("home", over: "wwan0")]), .gateway, tunnel: .relayServer),
            Pattern("10", "P(A) ⇒ P(B), G (general)", from: [at("home", over: "wwan0")], .move([at("home2")]), .gateway, tunnel: .relayServer),
            Pattern("6", "P(A) ⇒ G, G (general)", from: [at("home2")], .move([at("cellular")]), .gateway, tunnel: .relayServer),
        ])

    static let ipv6Nodes = Walk(
        "ipv6-nodes", "the same in IPv6, to a node behind a firewall", mn6, mn26,
        [
            Pattern("6-11", "G ⇒ G, F (IPv6)", from: [at("wlan"), peer("firewall")], .move([at("cellular")]), .encapsulated, simulated: (146, 121)),
            Pattern(
                "6-17", "G ⇒ F', F (IPv6)", from: [at("cellular"), peer("firewall")], .move([at("firewall2")]), .encapsulated, simulated: (147, 126)),
            Pattern("6-14", "F' ⇒ G, F (IPv6)", from: [at("firewall2"), peer("firewall")], .move([at("cellular")]), .encapsulated),
        ])
}
