import MATSignal

@testable import IMTPlan

/// A ruleset, or a change of one, whose netlink octets are kept in `Golden/<name>.hex`.
struct GoldenScenario {
    var name: String
    var configuration: IMTConfiguration
    var needs = TranslationNeeds()
    /// What is installed.
    var contents: [IMTChange] = []
    var homes: Set<IPAddress> = []
    var addresses: Set<IPAddress> = []
    /// What is committed then; the file has the octets of this commit. `nil`: it has those of the installation.
    var changes: [IMTChange]?

    func model() throws -> TranslationModel {
        var model = TranslationModel()
        try model.apply(contents)
        model.homes = homes
        model.addresses = addresses
        return model
    }
}

extension GoldenScenario {
    // One element a set of peers: those come in no order.
    static let own = HomePair(own: home("192.0.2.1"), peer: home("198.51.100.1"))
    static let own6 = HomePair(own: home("2001:db8:a::1"), peer: home("2001:db8:b::1"))
    static let other = HomePair(own: home("192.0.2.1"), peer: home("203.0.113.7"))
    static let wlan = moa("10.1.0.2"), cell = moa("10.2.0.2"), peer = moa("10.9.0.2"), otherPeer = moa("10.8.0.2")
    static let wlan6 = moa("2001:db8:1::2"), cell6 = moa("2001:db8:2::2"), peer6 = moa("2001:db8:9::2")

    static let other6 = HomePair(own: home("2001:db8:a::1"), peer: home("2001:db8:c::7"))
    static let datagrams = Carriage(
        .encapsulated(own: Endpoint(wlan.address, port: 6289), peer: Endpoint(otherPeer.address, port: 40_001)), largest: 1372)
    static let datagrams6 = Carriage(.relayed(own: Endpoint(wlan6.address, port: 6289), relay: Endpoint(address("2001:db8:7::7"), port: 6290)))
    static let rewritten = Carriage.rewritten(MobilePair(own: wlan, peer: otherPeer))
    static let rewritten6 = Carriage.rewritten(MobilePair(own: wlan6, peer: moa("2001:db8:8::2")))

    static let node = IMTConfiguration(homeAddresses: [own.own, own6.own])
    static let nodeHomes: Set<IPAddress> = [own.own.address, own6.own.address]
    static let peers: [IMTChange] = [
        .setOwn(wlan, own.own), .setOwn(wlan6, own6.own),
        .setOutbound(own, .rewritten(MobilePair(own: wlan, peer: peer))), .setInbound(peer: peer, own),
        .setOutbound(own6, .rewritten(MobilePair(own: wlan6, peer: peer6))), .setInbound(peer: peer6, own6),
        .setPlain(address("192.88.99.9"), lifetime: .seconds(60)), .setPlain(address("2001:db8:ffff::9"), lifetime: .seconds(60)),
    ]
    static let today = TranslationNeeds(asksRouting: true)

    static var all: [GoldenScenario] { installations + changes }

    static var installations: [GoldenScenario] {
        var second = node
        second.homeAddresses = [own.own, home("192.0.2.77"), own6.own]
        var careful = node
        careful.alwaysPlain = [prefix("10.9.9.0/24"), prefix("192.168.7.1/32"), prefix("2001:db8:53::/48")]
        careful.exceptions = [prefix("172.16.0.0/12")]
        return [
            GoldenScenario(
                name: "nft-add-table.first-start", configuration: node, needs: today, homes: nodeHomes, addresses: [wlan.address, wlan6.address]),
            GoldenScenario(
                name: "nft-add-table.a-peer-of-each-family", configuration: node, needs: today, contents: peers, homes: nodeHomes,
                addresses: [wlan.address, wlan6.address]),
            GoldenScenario(
                name: "nft-add-table.source-nat-ipsec-and-no-tracking", configuration: node,
                needs: TranslationNeeds(translatesSources: true, sparesTracking: true, exemptsIPsec: true, asksRouting: true), contents: peers,
                homes: nodeHomes),
            GoldenScenario(name: "nft-add-table.a-kernel-without-fib", configuration: node, contents: peers, homes: nodeHomes),
            GoldenScenario(
                name: "nft-add-table.nobody-tracks-connections", configuration: node,
                needs: TranslationNeeds(asksRouting: true, isUntracked: true), contents: peers, homes: nodeHomes),
            GoldenScenario(
                name: "nft-add-table.two-moas-and-one-that-went-away", configuration: node, needs: today,
                contents: peers + [
                    .setOwn(cell, own.own), .setOutbound(other, .rewritten(MobilePair(own: cell, peer: otherPeer))), .removeOwn(wlan),
                ], homes: nodeHomes),
            GoldenScenario(
                name: "nft-add-table.two-hoas-of-a-family", configuration: second, needs: today,
                contents: peers + [
                    .setOwn(cell, home("192.0.2.77")),
                    .setOutbound(HomePair(own: home("192.0.2.77"), peer: home("203.0.113.7")), .rewritten(MobilePair(own: cell, peer: otherPeer))),
                ],
                homes: nodeHomes),
            GoldenScenario(
                name: "nft-add-table.a-mobile-network-away", configuration: router, needs: routing, contents: away,
                homes: [router.homeAddresses[0].address]),
            GoldenScenario(
                name: "nft-add-table.a-mobile-network-at-home", configuration: router, needs: routing,
                contents: [
                    .setOwn(moa("192.0.2.0"), home("192.0.2.0")), .setOutbound(network, .rewritten(MobilePair(own: moa("192.0.2.0"), peer: peer))),
                    .setInbound(peer: peer, network),
                ]),
            GoldenScenario(
                name: "nft-add-table.packets-in-datagrams-and-nobody-tracks", configuration: node,
                needs: TranslationNeeds(asksRouting: true, encapsulates: true, isUntracked: true),
                contents: [.setOutbound(own, datagrams), .setOutbound(own6, datagrams6)], homes: nodeHomes),
            GoldenScenario(name: "nft-add-table.always-plain", configuration: careful, needs: today, homes: nodeHomes),
            GoldenScenario(name: "nft-add-table.no-hoa", configuration: IMTConfiguration()),
        ]
    }

    // A /24 whose MoPres are 10.20.30.0/24 and 10.20.40.0/24.
    static let network = HomePair(own: home("192.0.2.0"), peer: home("198.51.100.1"))
    static let routing = TranslationNeeds(translatesSources: true, asksRouting: true)
    static var router: IMTConfiguration {
        var configuration = IMTConfiguration(homeAddresses: [network.own])
        configuration.homePrefixes = [prefix("192.0.2.0/24")]
        configuration.mobilePrefixes = [prefix("10.20.30.0/24"), prefix("10.20.40.0/24")]
        return configuration
    }
    static let away: [IMTChange] = [
        .setOwn(moa("10.20.30.0"), network.own), .setOutbound(network, .rewritten(MobilePair(own: moa("10.20.30.0"), peer: peer))),
        .setInbound(peer: peer, network),
    ]

    static var changes: [GoldenScenario] {
        func change(_ name: String, _ changes: [IMTChange]) -> GoldenScenario {
            GoldenScenario(name: name, configuration: node, needs: today, contents: peers, homes: nodeHomes, changes: changes)
        }
        return [
            change(
                "nft-add-element.a-peer",
                [.setOutbound(other, .rewritten(MobilePair(own: wlan, peer: otherPeer))), .setInbound(peer: otherPeer, other)]),
            change("nft-delete-element.a-peer", [.removeOutbound(own), .removeInbound(peer: peer, own: own.own)]),
            change(
                "nft-replace-element.a-peer-moved",
                [.setOutbound(own, .rewritten(MobilePair(own: wlan, peer: otherPeer))), .setInbound(peer: otherPeer, own)]),
            change("nft-add-chain.another-moa", [.setOwn(cell, own.own)]),
            change("nft-replace-rule.this-host-moved", [.setOwn(cell, own.own), .moveOutbound(from: wlan, to: cell), .removeOwn(wlan)]),
            change(
                "nft-add-map.a-path-of-its-own", [.setOwn(cell, own.own), .setOutbound(other, .rewritten(MobilePair(own: cell, peer: otherPeer)))]),
            change("nft-delete-map.the-last-peer-of-a-path", [.setOutbound(own, .rewritten(MobilePair(own: cell, peer: peer)))]),
            change(
                "nft-add-element.a-plain-address",
                [.setPlain(address("203.0.113.200"), lifetime: .seconds(30)), .removePlain(address("192.88.99.9"))]),
            change(
                "nft-add-element.a-peer-in-datagrams",
                [.setOutbound(other, datagrams), .setOutbound(other6, datagrams6), .accept(other, from: [Endpoint(otherPeer.address, port: 40_001)])]),
            GoldenScenario(
                name: "nft-replace-element.a-peer-is-encapsulated-from-now-on", configuration: node, needs: today,
                contents: peers + [.setOutbound(other, rewritten), .setOutbound(other6, rewritten6)], homes: nodeHomes,
                changes: [.setOutbound(other, datagrams6), .setOutbound(other6, datagrams)]),
            GoldenScenario(
                name: "nft-replace-element.a-peer-is-rewritten-from-now-on", configuration: node, needs: today,
                contents: peers + [.setOutbound(other, datagrams), .setOutbound(other6, datagrams6)], homes: nodeHomes,
                changes: [.setOutbound(other, rewritten), .removeOutbound(other6)]),
            change("nft-replace-rule.addresses-that-are-always-plain", [.setAlwaysPlain([prefix("10.9.9.9/32"), prefix("2001:db8:53::/48")])]),
            change("nft-add-element.openers-of-an-unknown-source", [.letOpen(address("203.0.113.5"), lifetime: .seconds(5))]),
            change("nft-add-element.openers-wait", [.holdOpeners(address("2001:db8:c::5"), lifetime: .milliseconds(900))]),
            change("nft-replace-rule.connections-wait-after-a-move", [.holdConnections(of: own.own, lifetime: .seconds(1))]),
            change("nft-delete-element.openers-are-asked-again", [.askAgain(address("203.0.113.5"))]),
            GoldenScenario(
                name: "nft-replace-rule.a-mobile-network-moved", configuration: router, needs: routing, contents: away,
                homes: [router.homeAddresses[0].address],
                changes: [
                    .setOwn(moa("10.20.40.0"), network.own), .moveOutbound(from: moa("10.20.30.0"), to: moa("10.20.40.0")),
                    .removeOwn(moa("10.20.30.0")),
                ]),
        ]
    }

    static func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv4 }
    static func home(_ text: String) -> HomeAddress { HomeAddress(address(text)) }
    static func moa(_ text: String) -> MobileAddress { MobileAddress(address(text)) }
    static func prefix(_ text: String) -> IPPrefix { IPPrefix(text) ?? IPPrefix(.unspecifiedIPv4) }
}

/// Routes and rules, whose octets are kept in `Golden/<name>.hex`.
struct GoldenRoutes {
    var name: String
    var changes: [RoutingChange]

    static let links: LinkTables = {
        var tables = LinkTables()
        tables.links = [
            2: LinkState(name: "wlan", flags: KernelValues.flagUp | KernelValues.flagRunning),
            3: LinkState(name: "cell", flags: KernelValues.flagUp | KernelValues.flagRunning),
            9: LinkState(name: "mat0", flags: KernelValues.flagUp | KernelValues.flagRunning),
        ]
        for (index, number) in [(UInt32(2), 1), (3, 2)] {
            tables.addresses.append(
                AddressState(address: GoldenScenario.address("10.\(number).0.2"), interfaceIndex: index, prefixLength: 24, flags: 0x80, scope: 0))
            tables.addresses.append(
                AddressState(address: GoldenScenario.address("2001:db8:\(number)::2"), interfaceIndex: index, prefixLength: 64, flags: 0x80, scope: 0)
            )
            for (everything, link, gateway) in [
                ("0.0.0.0/0", "10.\(number).0.0/24", "10.\(number).0.1"), ("::/0", "2001:db8:\(number)::/64", "2001:db8:\(number)::1"),
            ] {
                tables.main.insert(
                    KernelRoute(
                        table: KernelValues.tableMain, destination: GoldenScenario.prefix(everything), gateway: GoldenScenario.address(gateway),
                        interfaceIndex: index, priority: index * 100))
                var direct = KernelRoute(
                    table: KernelValues.tableMain, destination: GoldenScenario.prefix(link), interfaceIndex: index, priority: index * 100)
                direct.mtu = index == 3 ? 1400 : 0
                tables.main.insert(direct)
            }
        }
        return tables
    }()

    static let locators: [LocalAddress] = [
        LocalAddress(address: GoldenScenario.wlan.address, interface: "wlan", interfaceIndex: 2, prefixLength: 24),
        LocalAddress(address: GoldenScenario.wlan6.address, interface: "wlan", interfaceIndex: 2, prefixLength: 64),
        LocalAddress(address: GoldenScenario.cell.address, interface: "cell", interfaceIndex: 3, prefixLength: 24),
    ]

    static func plan(_ configuration: IMTConfiguration, homes: Set<IPAddress> = GoldenScenario.nodeHomes) -> RoutePlan {
        RoutePlan(
            configuration: configuration, tables: links, locators: locators, deviceIndex: 9, plain: [GoldenScenario.address("192.88.99.9")],
            homes: homes,
            primaries: [GoldenScenario.wlan, GoldenScenario.wlan6])
    }

    static var all: [GoldenRoutes] {
        let node = plan(GoldenScenario.node)
        func sorted(_ routes: [KernelRoute]) -> [RoutingChange] {
            routes.sorted {
                ($0.table, $0.family, $0.destination.length, $0.destination.address, $0.priority) < (
                    $1.table, $1.family, $1.destination.length, $1.destination.address, $1.priority
                )
            }
            .map { .setRoute($0) }
        }
        func sorted(_ rules: Set<KernelRule>) -> [RoutingChange] {
            rules.sorted {
                ($0.priority, $0.family, $0.source?.address ?? .unspecifiedIPv4, $0.table) < (
                    $1.priority, $1.family, $1.source?.address ?? .unspecifiedIPv4, $1.table
                )
            }.map { .addRule($0) }
        }
        let further = home77(node)
        func way(_ pair: HomePair, _ own: MobileAddress, _ peer: MobileAddress) -> [KernelRoute] {
            [node.peerRoute(to: pair.peer, own: pair.own, over: .rewritten(MobilePair(own: own, peer: peer)))].compactMap { $0 }
        }
        func way(_ pair: HomePair, _ carriage: Carriage) -> [KernelRoute] {
            [node.peerRoute(to: pair.peer, own: pair.own, over: carriage)].compactMap { $0 }
        }
        return [
            GoldenRoutes(name: "ip-rule-add.two-links", changes: sorted(node.rules())),
            GoldenRoutes(name: "ip-rule-add.two-hoas-of-a-family-one-of-them-a-moa", changes: sorted(further.rules())),
            GoldenRoutes(
                name: "ip-rule-add.a-mobile-network",
                changes: sorted(plan(GoldenScenario.router, homes: [GoldenScenario.network.own.address]).rules())),
            GoldenRoutes(name: "ip-route-replace.link-tables", changes: sorted(node.linkRoutes())),
            GoldenRoutes(name: "ip-route-replace.capture-table", changes: sorted(node.captureRoutes())),
            GoldenRoutes(name: "ip-route-replace.path-table", changes: sorted(node.pathRoutes())),
            GoldenRoutes(name: "ip-route-replace.a-further-hoas-table", changes: sorted(further.furtherRoutes())),
            GoldenRoutes(
                name: "ip-route-replace.peers",
                changes: sorted(
                    way(GoldenScenario.own, GoldenScenario.wlan, GoldenScenario.peer)
                        + way(GoldenScenario.other, GoldenScenario.cell, GoldenScenario.otherPeer)
                        + way(GoldenScenario.own6, GoldenScenario.wlan6, GoldenScenario.peer6)
                        + way(
                            HomePair(own: GoldenScenario.own.own, peer: GoldenScenario.home("203.0.113.9")), GoldenScenario.cell,
                            GoldenScenario.moa("10.2.0.77"))
                        + way(
                            HomePair(own: GoldenScenario.own6.own, peer: GoldenScenario.home("2001:db8:b::9")), GoldenScenario.wlan6,
                            GoldenScenario.moa("2001:db8:1::77")))),
            GoldenRoutes(
                name: "ip-route-replace.peers-in-datagrams",
                changes: sorted(
                    way(GoldenScenario.other, GoldenScenario.datagrams) + way(GoldenScenario.other6, GoldenScenario.datagrams6)
                        // Of the other family, and over a link whose own limit is lower.
                        + way(GoldenScenario.own, GoldenScenario.datagrams6)
                        + way(
                            GoldenScenario.own6,
                            Carriage(
                                .encapsulated(
                                    own: Endpoint(GoldenScenario.cell.address, port: 6289),
                                    peer: Endpoint(GoldenScenario.address("10.2.0.77"), port: 6289)),
                                largest: 1472)))),
            GoldenRoutes(
                name: "ip-route-del-ip-rule-del-ip-address.what-else",
                changes: [
                    .deleteRoute(KernelRoute(table: 6288, destination: GoldenScenario.prefix("198.51.100.1/32"), kind: .throwing)),
                    .deleteRule(KernelRule(family: .ipv6, priority: 6272, mark: 0x6288, table: KernelValues.tableMain)),
                    .addAddress(GoldenScenario.own.own.address, interfaceIndex: 9), .addAddress(GoldenScenario.own6.own.address, interfaceIndex: 9),
                    .deleteAddress(GoldenScenario.own6.own.address, interfaceIndex: 9),
                    .setRoute(
                        KernelRoute(
                            table: 6290, destination: GoldenScenario.prefix("0.0.0.0/0"), gateway: GoldenScenario.address("fe80::1"),
                            interfaceIndex: 2)),
                ]),
        ]
    }

    private static func home77(_ node: RoutePlan) -> RoutePlan {
        var configuration = GoldenScenario.node
        configuration.homeAddresses = [GoldenScenario.own.own, HomeAddress(GoldenScenario.cell.address), GoldenScenario.own6.own]
        configuration.alwaysPlain = [GoldenScenario.prefix("10.9.9.0/24")]
        configuration.traffic = .prefixes([GoldenScenario.prefix("198.51.100.0/24"), GoldenScenario.prefix("2001:db8:b::/48")])
        return plan(configuration, homes: GoldenScenario.nodeHomes.union([GoldenScenario.cell.address]))
    }
}
