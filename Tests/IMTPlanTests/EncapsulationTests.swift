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

    @Test("A HoA that is a MoA, or lately was, is not away from home: what is for it is questioned")
    func homesAway() throws {
        let (home, moa) = (G.own.own, MobileAddress(G.own.own.address))
        var model = TranslationModel()
        model.homes = [home.address]
        #expect(model.homesAway == [home.address])
        try model.apply([.setOwn(moa, home)])
        #expect(model.homesAway.isEmpty)
        // Nor will it be once its address goes: until then our rules give its packets the peers' MoAs, which programs have no entry for.
        model.homes = []
        #expect(model.homesAway(among: [home.address]).isEmpty)
        model.homes = [home.address]
        try model.apply([.removeOwn(moa), .setOwn(G.wlan, home)])
        #expect(model.homesAway.isEmpty && model.retired.map(\.moa) == [moa])
        model.release([moa])
        #expect(model.homesAway == [home.address])
    }

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
                    table: 6288, destination: IPPrefix(G.other.peer.address), interfaceIndex: 9, source: G.own.own.address, mtu: 1372,
                    segment: 1432))
        plan.tables.links[2]?.flags = 0
        #expect(route() == nil)
    }

    @Test("The kernel is told the link, its next hop and the largest packet of a way, and reads them back as they were")
    func forwarding() throws {
        var plan = GoldenRoutes.plan(G.node)
        let way = try #require(plan.forwardingWay(Carriage(G.datagrams.way, largest: 1472)))
        #expect(way.link == 2 && way.next == G.address("10.1.0.1") && way.own == G.datagrams.way.endpoints?.own)
        // On the link itself the far end is the neighbour.
        let neighbour = Endpoint(G.address("10.1.0.77"), port: 6289)
        #expect(plan.forwardingWay(Carriage(.encapsulated(own: Self.own, peer: neighbour)))?.next == neighbour.address)
        #expect(plan.forwardingWay(Carriage(G.datagrams.way, largest: 1200)) == nil)
        plan.tables.links[2]?.flags = 0
        #expect(plan.forwardingWay(G.datagrams) == nil)
        var bare = way
        bare.next = nil
        let far = Endpoint(G.peer6.address, port: 1)
        let wide = ForwardingEntry.Way(own: Endpoint(G.wlan6.address, port: 6289), far: far, link: 7, largest: 1452, next: far.address)
        for way in [way, bare, wide, nil] {
            let entry = ForwardingEntry(slot: 9, way: way, accepted: [Self.from, neighbour])
            let octets = entry.encode()
            #expect(octets.count == ForwardingEntry.octets && octets.withUnsafeBytes { ForwardingEntry($0) } == entry)
        }
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
        // While its link is gone it is held, also what is remembered.
        for isThere in [false, true] {
            table.setLink(G.own, isThere)
            #expect(table.departure(from: G.own.own.address, to: G.own.peer.address) == (isThere ? slot : nil))
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

    @Test("An unknown source from an own gateway is the agent's to enter; a peer, and who sends from elsewhere, is not")
    func gateways() {
        var table = EncapsulationTable(homes: [G.own.own])
        let (gateway, other) = (Endpoint(G.address("198.18.0.1"), port: 6290), Endpoint(G.address("198.18.0.2"), port: 6290))
        let plain = HomePair(own: G.own.own, peer: G.home("198.51.100.200"))
        func verdict(_ pair: HomePair, _ endpoint: Endpoint) -> EncapsulationTable.Verdict {
            table.arrival(from: pair.peer.address, to: pair.own.address, by: endpoint)
        }
        table.apply([.acceptGateways(G.own.own, from: [gateway]), .accept(G.own, from: [other])])
        #expect(verdict(plain, gateway) == .ofGateway(plain) && verdict(plain, other) == .unknown(plain))
        #expect(verdict(G.own, gateway) == .elsewhere(G.own))
        table.apply([.accept(plain, from: [gateway])])
        guard case .accepted = verdict(plain, gateway) else { return #expect(Bool(false)) }
        table.apply([.accept(plain, from: []), .acceptGateways(G.own.own, from: [])])
        #expect(verdict(plain, gateway) == .unknown(plain))
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

    // MARK: Segments and sums

    /// A packet of TCP or UDP with right sums, or with the pseudo header's alone.
    private static func packet(
        _ family: AddressFamily, tcp: Bool, _ data: [UInt8], sequence: UInt32 = 1000, flags: UInt8 = 0x10, unfinished: Bool = false
    ) -> [UInt8] {
        let pair = family == .ipv4 ? G.own : G.own6
        func big(_ value: Int) -> [UInt8] { [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)] }
        let transport: [UInt8] =
            tcp
            ? [0x12, 0x34, 0x00, 0x50] + big(Int(sequence >> 16)) + big(Int(sequence & 0xFFFF)) + [0, 0, 0, 9, 0x80, flags, 1, 0, 0, 0, 0, 0]
                + [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]
            : [0x12, 0x34, 0x00, 0x50] + big(8 + data.count) + [0, 0]
        let addresses = pair.own.address.packetOctets + pair.peer.address.packetOctets
        var header: [UInt8] =
            family == .ipv4
            ? [0x45, 0] + big(20 + transport.count + data.count) + [0x11, 0x11, 0x40, 0, 64, tcp ? 6 : 17, 0, 0] + addresses
            : [0x60, 0, 0, 0] + big(transport.count + data.count) + [tcp ? 6 : 17, 64] + addresses
        if family == .ipv4 { header.replaceSubrange(10..<12, with: big(Int(~ChecksumCompletion.fold(ChecksumCompletion.sum(header))))) }
        let pseudo = ChecksumCompletion.sum(addresses) + (tcp ? 6 : 17) + UInt64(transport.count + data.count)
        let field = header.count + (tcp ? 16 : 6)
        var packet = header + transport + data
        packet.replaceSubrange(field..<field + 2, with: big(Int(ChecksumCompletion.fold(pseudo))))
        return unfinished ? packet : ChecksumCompletion.complete(packet)
    }

    private static func offload(_ family: AddressFamily, tcp: Bool, each: Int) -> OffloadHeader {
        var header = OffloadHeader()
        if each > 0 { header.segments = tcp ? (family == .ipv4 ? .tcpIPv4 : .tcpIPv6) : .udp }
        header.segmentOctets = UInt16(each)
        header.unfinished = (family == .ipv4 ? 20 : 40, tcp ? 16 : 6)
        return header
    }

    private static func segments(_ packet: [UInt8], _ header: OffloadHeader, room: Int = 70_000) -> [[UInt8]]? {
        var room = [UInt8](repeating: 0xEE, count: room)
        let written = packet.withUnsafeBytes { from in room.withUnsafeMutableBytes { PacketSegments.write(from, header, into: $0) } }
        return written.map { written in
            stride(from: 0, to: written.octets, by: max(1, written.each)).map { Array(room[$0..<min($0 + written.each, written.octets)]) }
        }
    }

    @Test(
        "What the stack hands over as one is cut into whole packets with right sums", arguments: [AddressFamily.ipv4, .ipv6], [true, false])
    func cut(_ family: AddressFamily, tcp: Bool) throws {
        let data = (0..<5005).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let packet = Self.packet(family, tcp: tcp, data, flags: 0x99, unfinished: true)
        let found = try #require(Self.segments(packet, Self.offload(family, tcp: tcp, each: 1200)))
        let wanted = stride(from: 0, to: data.count, by: 1200).enumerated().map { index, start in
            let isLast = start + 1200 >= data.count
            // CWR and PSH, FIN: first and last.
            let flags: UInt8 = 0x10 | (index == 0 ? 0x80 : 0) | (isLast ? 0x09 : 0)
            var one = Self.packet(
                family, tcp: tcp, Array(data[start..<min(start + 1200, data.count)]), sequence: 1000 + UInt32(start), flags: flags)
            if family == .ipv4 {
                one[5] = 0x11 + UInt8(index)
                one.replaceSubrange(10..<12, with: [0, 0])
                let sum = ~ChecksumCompletion.fold(ChecksumCompletion.sum(one.prefix(20)))
                one.replaceSubrange(10..<12, with: [UInt8(sum >> 8), UInt8(sum & 0xFF)])
            }
            return one
        }
        #expect(found == wanted)
        // One that is not cut.
        let small = Self.packet(family, tcp: tcp, [1, 2, 3], unfinished: true)
        #expect(Self.segments(small, Self.offload(family, tcp: tcp, each: 0)) == [ChecksumCompletion.complete(small)])
        #expect(Self.segments(small, Self.offload(family, tcp: tcp, each: 1200)) == [ChecksumCompletion.complete(small)])
        #expect(Self.segments(packet, Self.offload(family, tcp: tcp, each: 1200), room: 5100) == nil)
    }

    /// What a reader makes of a packet that a kernel on the same host has left uncut; `nil` if it goes as it is.
    private static func leftCut(_ packet: [UInt8]) -> [[UInt8]]? {
        var room = [UInt8](repeating: 0xEE, count: LeftSegments.roomOctets)
        let written = packet.withUnsafeBytes { from in room.withUnsafeMutableBytes { LeftSegments.cut(from, into: $0) } }
        return written.map { written in
            stride(from: 0, to: written.octets, by: written.each).map { Array(room[$0..<min($0 + written.each, written.octets)]) }
        }
    }

    @Test(
        "A packet of TCP that a kernel left uncut, with its sum, becomes packets of 1280 octets with right sums",
        arguments: [AddressFamily.ipv4, .ipv6])
    func leftUncut(_ family: AddressFamily) throws {
        let headers = family == .ipv4 ? 52 : 72
        for octets in [1501, 9000, 65_000] {
            let data = (0..<octets - headers).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            let packet = Self.packet(family, tcp: true, data, flags: 0x18, unfinished: true)
            let pieces = try #require(Self.leftCut(packet))
            #expect(pieces == Self.segments(packet, Self.offload(family, tcp: true, each: 1280 - headers)))
            #expect(pieces.allSatisfy { $0.count <= 1280 } && pieces.count <= LeftSegments.piecesMax)
            for piece in pieces { #expect(ChecksumCompletion.complete(piece) == piece) }
            #expect(pieces.flatMap { $0.dropFirst(headers) } == data)
        }
    }

    @Test(
        "What is no longer than a usual link's packets, has its sum, is of UDP, or is a fragment is not cut up",
        arguments: [AddressFamily.ipv4, .ipv6])
    func notCut(_ family: AddressFamily) {
        let data = [UInt8](repeating: 3, count: 4000)
        #expect(Self.leftCut(Self.packet(family, tcp: true, Array(data.prefix(1400)), unfinished: true)) == nil)
        #expect(Self.leftCut(Self.packet(family, tcp: true, data)) == nil)
        #expect(Self.leftCut(Self.packet(family, tcp: false, data, unfinished: true)) == nil)
        if family == .ipv4 {
            var fragment = Self.packet(family, tcp: true, data, unfinished: true)
            fragment[6] |= 0x20
            #expect(Self.leftCut(fragment) == nil)
        }
        // A header that does not end.
        var endless = Self.packet(family, tcp: true, data, unfinished: true)
        let start = family == .ipv4 ? 20 : 40
        endless[start + 12] = 0x10
        #expect(Self.leftCut(endless) == nil)
    }

    @Test("No header of the stack, however wrong, is more than refused or misread")
    func wrongOffloads() {
        let packet = Self.packet(.ipv4, tcp: true, [UInt8](repeating: 7, count: 300), unfinished: true)
        for count in [0, 1, 19, 20, 39, 51, 52, 53, packet.count] {
            for start in [UInt16(0), 20, 40, 300, 65_535] {
                for each in [UInt16(0), 1, 7, 65_535] {
                    for kind in [OffloadHeader.Segments.none, .tcpIPv4, .tcpIPv6, .udp] {
                        var header = OffloadHeader()
                        (header.segments, header.segmentOctets, header.unfinished) = (kind, each, (start, 16))
                        _ = Self.segments(Array(packet.prefix(count)), header)
                    }
                }
            }
        }
        let octets: [UInt8] = [1, 4, 0, 0, 0xB0, 4, 40, 0, 16, 0]
        let header = octets.withUnsafeBytes { OffloadHeader($0) }
        #expect(header?.segments == .tcpIPv6 && header?.segmentOctets == 1200 && header?.unfinished?.start == 40 && header?.unfinished?.field == 16)
        var written = [UInt8](repeating: 0, count: 10)
        written.withUnsafeMutableBytes { header?.encode(into: $0) }
        #expect(written == octets)
        #expect([UInt8](repeating: 3, count: 10).withUnsafeBytes { OffloadHeader($0) } == nil)
    }

    /// What becomes of packets that come one after the other: what the stack gets, and how it is told to take it.
    private static func joined(_ packets: [[UInt8]], datagrams: Bool = true) -> [(octets: [UInt8], header: OffloadHeader)] {
        var join = PacketJoin(joinsDatagrams: datagrams)
        var result: [(octets: [UInt8], header: OffloadHeader)] = []
        var first: UnsafeMutableRawBufferPointer?
        var rest: [UInt8] = []
        func end() {
            guard let done = first else { return }
            let header = join.finish()
            result.append((Array(done) + rest, header))
            done.deallocate()
            (first, rest) = (nil, [])
        }
        for packet in packets {
            if first != nil, let data = packet.withUnsafeBytes({ join.joins($0) }) {
                rest += packet[data...]
                continue
            }
            end()
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: packet.count, alignment: 8)
            copy.copyBytes(from: packet)
            join.begin(copy)
            first = copy
        }
        end()
        return result
    }

    @Test("Packets of one flow are joined, and cut again they are the same", arguments: [AddressFamily.ipv4, .ipv6], [true, false])
    func join(_ family: AddressFamily, tcp: Bool) throws {
        let data = (0..<4500).map { UInt8(truncatingIfNeeded: $0 &* 13) }
        let whole = Self.packet(family, tcp: tcp, data, flags: 0x18, unfinished: true)
        let pieces = try #require(Self.segments(whole, Self.offload(family, tcp: tcp, each: 1000)))
        let found = Self.joined(pieces)
        #expect(found.count == 1)
        let one = try #require(found.first)
        var expected = Self.offload(family, tcp: tcp, each: 1000)
        expected.headerOctets = UInt16(whole.count - data.count)
        #expect(one.header == expected && one.octets == whole)
        #expect(Self.segments(one.octets, one.header) == pieces)
        // After a shorter one, or PSH, another begins.
        #expect(Self.joined(pieces + pieces).map(\.octets) == [whole, whole])
        #expect(Self.joined(pieces, datagrams: false).count == (tcp ? 1 : pieces.count))
    }

    @Test("What does not go on where the last one ended is handed over by itself, unchanged", arguments: [AddressFamily.ipv4, .ipv6])
    func notJoined(_ family: AddressFamily) {
        let data = [UInt8](repeating: 5, count: 1000)
        func tcp(_ sequence: UInt32, flags: UInt8 = 0x10, _ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
            var packet = Self.packet(family, tcp: true, data, sequence: sequence, flags: flags)
            change(&packet)
            return packet
        }
        let start = family == .ipv4 ? 20 : 40
        let first = tcp(1000)
        #expect(Self.joined([first, tcp(2000), tcp(3000)]).count == 1)
        let others: [[UInt8]] = [
            tcp(1000), tcp(2001), tcp(2000, flags: 0x11), tcp(2000, flags: 0x12), tcp(2000, flags: 0x14), tcp(2000, flags: 0x50),
            // A wrong sum; another window, port, option, traffic class, hop limit.
            tcp(2000) { $0[start + 40] ^= 1 }, tcp(2000) { $0[start + 15] ^= 1 }, tcp(2000) { $0[start + 1] ^= 1 }, tcp(2000) { $0[start + 30] ^= 1 },
            tcp(2000) { $0[family == .ipv4 ? 1 : 0] ^= family == .ipv4 ? 2 : 1 }, tcp(2000) { $0[family == .ipv4 ? 8 : 7] ^= 1 },
            Self.packet(family, tcp: true, data + [1], sequence: 2000), Self.packet(family, tcp: true, [], sequence: 2000),
            Self.packet(family, tcp: false, data),
        ]
        for (index, other) in others.enumerated() {
            let found = Self.joined([first, other])
            #expect(found.map(\.octets) == [first, other], "\(index)")
            #expect(found.allSatisfy { $0.header == OffloadHeader() }, "\(index)")
        }
        // The first one's own sum counts too.
        var damaged = first
        damaged[start + 40] ^= 1
        #expect(Self.joined([damaged, tcp(2000)]).map(\.octets) == [damaged, tcp(2000)])
        // No more than fit.
        let many = (0..<100).map { tcp(1000 + UInt32($0) * 1000) }
        #expect(Self.joined(many).allSatisfy { $0.octets.count <= 0xFFFF } && Self.joined(many).count == 2)
    }
}
