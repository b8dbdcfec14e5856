import MATSignal
import Testing

@testable import IMTPlan

/// What is asked for each packet, and what tables and routes are made of, when packets travel in datagrams (protocol.md section 11.2).
@Suite("Encapsulated paths") struct EncapsulationTests {
    private typealias G = GoldenScenario

    private static let from = Endpoint(G.peer.address, port: 40_000)
    private static let own = Endpoint(G.wlan.address, port: 6289)
    private static let ways: [Carriage.Way] = [
        .encapsulated(own: own, peer: from), .relayed(own: own, relay: Endpoint(G.peer.address, port: 6290)),
        .encapsulated(own: Endpoint(G.wlan6.address, port: 6289), peer: Endpoint(G.peer6.address, port: 6289)),
    ]

    // MARK: The carriage

    @Test("The overhead is that of the outer family, and 1280 octets pass on every path")
    func overhead() {
        #expect(Self.ways.map(\.family) == [.ipv4, .ipv4, .ipv6] && Self.ways.map(\.overhead) == [28, 28, 48])
        let wide = Self.ways.map { Carriage($0, largest: 1472) }
        #expect(wide.map { $0.mtu(over: 0) } == [1472, 1472, 1472])
        #expect(wide.map { $0.mtu(over: 1500) } == [1472, 1472, 1452])
        #expect(wide.map { $0.mtu(over: 1400) } == [1372, 1372, 1352])
        #expect(wide.map { $0.mtu(over: 600) } == [1280, 1280, 1280])
        #expect(Self.ways.map { Carriage($0).mtu(over: 1500) } == [1280, 1280, 1280])
        #expect(Self.ways.map { Carriage($0, largest: 1200).mtu(over: 1500) } == [1280, 1280, 1280])
    }

    // MARK: Tables and routes

    @Test("An encapsulated peer has no entry in the maps; one entry replaces the other")
    func model() throws {
        var model = TranslationModel()
        let rewritten = IMTChange.setOutbound(G.own, .rewritten(MobilePair(own: G.wlan, peer: G.peer)))
        try model.apply([rewritten, .setOutbound(G.own, G.datagrams)])
        #expect(model.outbound.isEmpty && model.paths.isEmpty && model.carriage(G.own) == G.datagrams && model.hasEntry(G.own))
        #expect(model.pairs == [G.own] && model.forgotten.isEmpty)
        try model.apply([rewritten])
        #expect(model.encapsulated.isEmpty && model.outbound.count == 1 && model.pairs == [G.own])
        try model.apply([.setOutbound(G.own, G.datagrams), .removeOutbound(G.own)])
        #expect(!model.hasEntry(G.own) && model.forgotten[G.own.peer.address] != nil)
    }

    @Test("The endpoints may be of another family than the HoAs, but not of two")
    func families() throws {
        var model = TranslationModel()
        try model.apply([.setOutbound(G.own, G.datagrams6), .setOutbound(G.own6, G.datagrams)])
        #expect(model.pairs.count == 2)
        #expect(throws: PlanError.self) {
            try model.apply([.setOutbound(G.own, Carriage(.encapsulated(own: Self.own, peer: Endpoint(G.peer6.address, port: 6289))))])
        }
        #expect(throws: PlanError.self) { try model.apply([.setOutbound(HomePair(own: G.own.own, peer: G.own6.peer), G.datagrams)]) }
        #expect(throws: PlanError.self) { try model.apply([.accept(HomePair(own: G.own.own, peer: G.own6.peer), from: [])]) }
        let many = (0...UInt16(EncapsulationTable.endpointsMax)).map { Endpoint(G.peer.address, port: 1000 + $0) }
        #expect(throws: PlanError.self) { try model.apply([.accept(G.own, from: many)]) }
    }

    @Test("A refused commit leaves encapsulated peers as they were, a move of the own address included")
    func restored() throws {
        var model = TranslationModel()
        try model.apply([.setOutbound(G.own, G.datagrams), .setOutbound(G.other, G.datagrams)])
        for changes in [
            [IMTChange.removeOutbound(G.own), .setOutbound(G.own6, G.datagrams6)], [.moveOutbound(from: G.wlan, to: G.cell)],
            [.setOutbound(G.own, .rewritten(MobilePair(own: G.wlan, peer: G.peer)))],
        ] {
            let touched = TouchedKeys(changes)
            let before = model
            let excerpt = model.excerpt(touched)
            try model.apply(changes)
            #expect(model != before)
            model.restore(excerpt, touched)
            #expect(model.encapsulated == before.encapsulated && model.outbound == before.outbound && model.forgotten == before.forgotten)
        }
    }

    @Test("A move takes the own endpoint's address along, and leaves its port")
    func moved() throws {
        var model = TranslationModel()
        var table = EncapsulationTable(homes: [G.own.own, G.own6.own])
        let changes: [IMTChange] = [
            .setOutbound(G.own, G.datagrams), .setOutbound(G.own6, G.datagrams6), .moveOutbound(from: G.wlan, to: G.cell),
        ]
        try model.apply(changes)
        table.apply(changes)
        #expect(model.carriage(G.own)?.way.endpoints?.own == Endpoint(G.cell.address, port: 6289))
        #expect(table[G.own]?.endpoints?.own == Endpoint(G.cell.address, port: 6289))
        #expect(table[G.own6]?.endpoints?.own == G.datagrams6.way.endpoints?.own)
    }

    @Test("What an earlier run encapsulated is told, and held until its way is known again")
    func adopted() {
        var model = TranslationModel()
        model.insert(encapsulated: G.own, nil)
        #expect(model.hasEntry(G.own))
        #expect(model.forgetEncapsulated() == [G.own])
        #expect(!model.hasEntry(G.own) && model.forgotten[G.own.peer.address] != nil)
    }

    @Test("The route leads into our device as long as there is a way from the own endpoint's link, and no longer")
    func route() {
        var plan = GoldenRoutes.plan(G.node)
        func route() -> KernelRoute? { plan.peerRoute(to: G.other.peer, own: G.own.own, over: G.datagrams) }
        #expect(
            route()
                == KernelRoute(
                    table: 6288, destination: IPPrefix(G.other.peer.address), interfaceIndex: 9, source: G.own.own.address, mtu: 1372))
        plan.tables.links[2]?.flags = 0
        #expect(route() == nil)
    }

    @Test("Routes into our device that an earlier run left are its peers', and written anew only if they differ")
    func installedRoutes() throws {
        var model = TranslationModel()
        try model.apply([.setOutbound(G.other, G.datagrams)])
        let plan = GoldenRoutes.plan(G.node)
        let wanted = try #require(plan.peerRoute(to: G.other.peer, own: G.own.own, over: G.datagrams))
        var installed = InstalledRoutes()
        installed.found(wanted, in: plan, model)
        #expect(installed.changes(of: [G.other.peer], to: plan, model) == [] && installed.peers.isSeparate(G.other.peer))
        try model.apply([.setOutbound(G.other, Carriage(G.datagrams.way, largest: 1452))])
        var wider = wanted
        wider.mtu = 1452
        #expect(installed.changes(of: [G.other.peer], to: plan, model) == [.setRoute(wider)])
        try model.apply([.removeOutbound(G.other)])
        #expect(installed.changes(of: [G.other.peer], to: plan, model) == [.deleteRoute(wider)])
        // Of a peer that nobody knows any more.
        installed.found(wanted, in: plan, model)
        #expect(installed.changes(to: plan, further: []).contains(.deleteRoute(wanted)))
    }

    // MARK: Each packet

    private func table() -> EncapsulationTable {
        var table = EncapsulationTable(homes: [G.own.own, G.own6.own, G.home("203.0.112.0")], networks: [G.prefix("203.0.112.0/24")])
        table.apply([
            .setOutbound(G.own, Carriage(.encapsulated(own: Self.own, peer: Self.from))), .accept(G.own, from: [Self.from]),
            .setOutbound(HomePair(own: G.home("203.0.112.0"), peer: G.own.peer), G.datagrams),
        ])
        return table
    }

    @Test("A packet leaves in a datagram if its pair of HoAs has a way; a mobile network's hosts are their network's")
    func departures() throws {
        var table = table()
        let found = table.departure(from: G.own.own.address, to: G.own.peer.address)
        let slot = try #require(found)
        #expect(table[slot].endpoints?.own == Self.own && table[slot].endpoints?.far == Self.from && !table[slot].isCutUp)
        let behind = table.departure(from: G.address("203.0.112.99"), to: G.own.peer.address)
        let network = try #require(behind)
        #expect(network != slot && table[network].endpoints?.far == G.datagrams.way.endpoints?.far)
        for (source, destination) in [("192.0.2.1", "203.0.113.7"), ("192.0.2.2", "198.51.100.1"), ("10.1.0.2", "198.51.100.1")] {
            #expect(table.departure(from: G.address(source), to: G.address(destination)) == nil)
        }
        table.apply([.removeOutbound(G.own)])
        #expect(table.departure(from: G.own.own.address, to: G.own.peer.address) == nil)
    }

    @Test("A packet is taken from an accepted endpoint alone; from another one of a peer, or of nobody, it is not")
    func arrivals() {
        var table = table()
        func verdict(_ source: String, _ destination: String = "192.0.2.1", _ endpoint: Endpoint = Self.from) -> EncapsulationTable.Verdict {
            table.arrival(from: G.address(source), to: G.address(destination), by: endpoint)
        }
        #expect(verdict("198.51.100.1") == .accepted(0))
        // Once more, from what is remembered.
        #expect(verdict("198.51.100.1") == .accepted(0))
        #expect(verdict("198.51.100.1", "192.0.2.1", Endpoint(G.peer.address, port: 40_001)) == .elsewhere(G.own))
        #expect(verdict("198.51.100.1", "192.0.2.1", Endpoint(G.otherPeer.address, port: 40_000)) == .elsewhere(G.own))
        #expect(verdict("198.51.100.2") == .unknown(HomePair(own: G.own.own, peer: G.home("198.51.100.2"))))
        #expect(verdict("198.51.100.1", "192.0.2.9") == .notOurs)
        #expect(verdict("198.51.100.9", "203.0.112.77") == .unknown(HomePair(own: G.home("203.0.112.0"), peer: G.home("198.51.100.9"))))
        let other = Endpoint(G.otherPeer.address, port: 6289)
        table.apply([.accept(G.own, from: [other])])
        #expect(verdict("198.51.100.1") == .elsewhere(G.own) && verdict("198.51.100.1", "192.0.2.1", other) == .accepted(0))
        table.apply([.accept(G.own, from: []), .setOutbound(G.own, .rewritten(MobilePair(own: G.wlan, peer: G.peer)))])
        #expect(verdict("198.51.100.1", "192.0.2.1", other) == .unknown(G.own) && table.count == 1)
    }

    @Test("Who takes the place of a peer that went has none of its counts")
    func places() throws {
        var table = table()
        let found = table.departure(from: G.own.own.address, to: G.own.peer.address)
        let slot = try #require(found)
        table[slot].packetsOut = 7
        table.apply([.accept(G.own, from: []), .removeOutbound(G.own), .setOutbound(G.own6, G.datagrams6)])
        #expect(table.departure(from: G.own6.own.address, to: G.own6.peer.address) == slot && table[slot].packetsOut == 0 && table.count == 2)
        #expect(Array(table.peers.map(\.pair)).count == 2)
    }

    // MARK: Headers

    @Test("Exactly one packet fills a datagram; anything else is none", arguments: [AddressFamily.ipv4, .ipv6])
    func headers(_ family: AddressFamily) {
        func header(_ octets: [UInt8]) -> InnerHeader? { octets.withUnsafeBytes { InnerHeader($0) } }
        var packet: [UInt8] =
            family == .ipv4
            ? [0x45, 0xB9, 0, 24, 0, 0, 0, 0, 64, 17, 0, 0] + G.own.own.address.packetOctets + G.own.peer.address.packetOctets + [1, 2, 3, 4]
            : [0x6B, 0x90, 0, 0, 0, 4, 17, 64] + G.own6.own.address.packetOctets + G.own6.peer.address.packetOctets + [1, 2, 3, 4]
        let pair = family == .ipv4 ? G.own : G.own6
        let found = header(packet)
        #expect(found?.source == pair.own.address && found?.destination == pair.peer.address && found?.trafficClass == 0xB9)
        #expect(found?.family == family)
        for count in 0..<packet.count { #expect(header(Array(packet.prefix(count))) == nil, "\(count)") }
        #expect(header(packet + [0]) == nil)
        for version in UInt8(0)..<16 where version != packet[0] >> 4 {
            #expect(header([version << 4 | packet[0] & 0xF] + packet.dropFirst()) == nil)
        }
        if family == .ipv4 {
            for words in [UInt8(0), 4, 7] { #expect(header([0x40 | words] + packet.dropFirst()) == nil) }
        } else {
            packet.replaceSubrange(8..<24, with: G.own.own.address.octets)
            #expect(header(packet) == nil, "an IPv4 address in the other family's header")
        }
    }

    @Test("Congestion marks go out with the packet and come in as RFC 6040 says")
    func congestion() {
        // By inner, then outer: not-ECT, ECT(1), ECT(0), CE, as their bits count.
        let expected: [[UInt8?]] = [[0, 0, 0, nil], [1, 1, 1, 3], [2, 1, 2, 3], [3, 3, 3, 3]]
        for inner in UInt8(0)...3 {
            for outer in UInt8(0)...3 {
                let (given, around) = (inner | 0xB8, outer | 0x20)
                #expect(CongestionNotice.inner(given, within: around) == expected[Int(inner)][Int(outer)].map { $0 | 0xB8 }, "\(inner) in \(outer)")
                #expect(CongestionNotice.outer(of: given) == given)
            }
        }
    }
}
