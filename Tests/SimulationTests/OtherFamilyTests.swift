import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// A node whose HoA is of one family in networks of the other, and a peer that has both, or IPv4 alone.
///
/// ```
///   MN  HoA 198.51.100.1, or 2001:db8:100::1      open: 192.0.2.x, 2001:db8:a::x      behind a NAT: 10.1.x (192.0.2.100)
///   CN  HoA 203.0.113.1, or 2001:db8:200::1       198.18.0.x, 2001:db8:b::x           behind a NAT64: 2001:db8:64::x (192.0.2.164)
///   IMSs 192.88.1.1, 192.88.2.1, and in IPv6 2001:db8:1::1, 2001:db8:2::1
/// ```
private final class TwoFamilies {
    let network: SimulatedNetwork
    let mn: SimulatedNode
    let cn: SimulatedNode
    private let imss: [SimulatedIMS]
    private let dns: SimulatedDNS
    private var sent = 0

    static let (open4, open6, inNAT, inNAT64) = ("192.0.2.10", "2001:db8:a::10", "10.1.0.10", "2001:db8:64::10")
    static let (peer4, peer6) = ("198.18.0.10", "2001:db8:b::10")

    /// - Parameters:
    ///   - hoas: the family of both HoAs.
    ///   - servers: the families that the IMSs have addresses of.
    ///   - mapping: of the NATs.
    init(
        seed: UInt64, hoas: AddressFamily, servers: [AddressFamily] = [.ipv4, .ipv6], mapping: SimulatedTranslator.Mapping = .endpointIndependent
    ) {
        network = SimulatedNetwork(seed: seed)
        dns = SimulatedDNS(network)
        func pick(_ ipv4: String, _ ipv6: String) -> String { hoas == .ipv4 ? ipv4 : ipv6 }
        func addresses(_ ipv4: String, _ ipv6: String) -> [IPAddress] { servers.map { ip($0 == .ipv4 ? ipv4 : ipv6) } }
        let (mnAuthority, cnAuthority) = (TestAuthority(seed: 201), TestAuthority(seed: 202))
        imss = [
            SimulatedIMS(
                network, dns, addresses: addresses("192.88.1.1", "2001:db8:1::1"), serving: prefix(pick("198.51.100.0/24", "2001:db8:100::/48")),
                authority: mnAuthority),
            SimulatedIMS(
                network, dns, addresses: addresses("192.88.2.1", "2001:db8:2::1"), serving: prefix(pick("203.0.113.0/24", "2001:db8:200::/48")),
                authority: cnAuthority),
        ]
        network.put(SimulatedTranslator(network, at: ip("192.0.2.100"), mapping), before: prefix("10.1.0.0/16"))
        network.put(SimulatedTranslator(network, at: ip("192.0.2.102"), mapping), before: prefix("10.2.0.0/16"))
        let nat64 = SimulatedTranslator(network, at: ip("192.0.2.164"))
        nat64.nat64 = .wellKnown
        network.put(nat64, before: prefix("2001:db8:64::/48"))
        mn = SimulatedNode(network, dns, mnAuthority.enrol(home(pick("198.51.100.1", "2001:db8:100::1")), seed: 11))
        cn = SimulatedNode(network, dns, cnAuthority.enrol(home(pick("203.0.113.1", "2001:db8:200::1")), seed: 12))
    }

    /// A relay with both families, of both HoAs.
    func relay() -> SimulatedRelay {
        let homes = [mn, cn].map { IPPrefix($0.hoa.address) }
        let relay = SimulatedRelay(network, dns, at: ip("192.88.9.1"), and: ip("2001:db8:9::1"), residents: homes)
        for zone in dns.zones.keys { dns.zones[zone]?.relays = [relay.host] }
        return relay
    }

    func move(_ places: [String], areApart: Bool = false) {
        mn.nat64 = places.contains(Self.inNAT64) ? .wellKnown : nil
        mn.move(to: places.map { ip($0) }, areApart: areApart)
    }

    /// Both are registered, and talk: 50 packets a second each way.
    func start(_ places: [String], _ peer: [String]) -> Bool {
        move(places)
        cn.move(to: peer.map { ip($0) })
        guard network.drive(max: .seconds(30), until: { self.mn.core.isRegistered && self.cn.core.isRegistered }) else { return false }
        say()
        return network.drive(max: .seconds(10)) { !self.mn.delivered.isEmpty && !self.cn.delivered.isEmpty }
    }

    private func say() {
        sent += 1
        mn.send(UserPacket(sent, mn.delivered.isEmpty ? .opening : .segment), to: cn.hoa.address)
        if !cn.delivered.isEmpty { cn.send(UserPacket(1_000_000 + sent), to: mn.hoa.address) }
        network.after(.milliseconds(20)) { [weak self] in self?.say() }
    }

    /// How long it takes until packets sent from now on arrive both ways.
    func resumption() -> Duration? {
        let (began, first) = (network.time, sent)
        func hasArrived(_ node: SimulatedNode, _ base: Int) -> Bool { node.delivered.contains { $0.packet.number > base + first } }
        guard network.drive(max: .seconds(10), until: { hasArrived(self.cn, 0) && hasArrived(self.mn, 1_000_000) }) else { return nil }
        return network.time - began
    }

    var ways: String {
        func way(_ node: SimulatedNode) -> String { !node.imt.outbound.isEmpty ? "direct" : node.imt.encapsulated.isEmpty ? "none" : "encapsulated" }
        return "\(way(mn)), \(way(cn))"
    }

    func logs() -> String {
        (mn.logs.map { "MN " + $0 } + cn.logs.map { "CN " + $0 } + imss.flatMap(\.logs).map { "IMS " + $0 }).joined(separator: "\n")
    }
}

@Suite("Networks of the other family") struct OtherFamilyTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let hoas: AddressFamily
        let servers: [AddressFamily]
        /// Where the node is, one after another, and how packets go there.
        let places: [(addresses: [String], ways: String)]
        let peer: [String]
        var testDescription: String { "\(hoas) HoAs, IMSs of \(servers), \(places.map(\.addresses)), peer \(peer)" }
    }

    private typealias World = TwoFamilies
    private static let direct = "direct, direct"
    private static let encapsulated = "encapsulated, encapsulated"
    private static let (open4, open6, inNAT, inNAT64) = (World.open4, World.open6, World.inNAT, World.inNAT64)
    private static let both = [World.peer4, World.peer6]

    static let cases = [
        Case(
            hoas: .ipv4, servers: [.ipv4, .ipv6], places: [([open4], direct), ([open6], encapsulated), ([open4], direct), ([open4, open6], direct)],
            peer: both),
        Case(hoas: .ipv4, servers: [.ipv4, .ipv6], places: [([open6], encapsulated), ([open6, open4], direct)], peer: both),
        Case(hoas: .ipv4, servers: [.ipv4, .ipv6], places: [([open4], direct), ([inNAT64], encapsulated), ([inNAT], encapsulated)], peer: both),
        Case(hoas: .ipv4, servers: [.ipv4, .ipv6], places: [([inNAT64], encapsulated), ([open4], direct)], peer: [World.peer4]),
        Case(hoas: .ipv4, servers: [.ipv4], places: [([open4], direct), ([inNAT64], encapsulated), ([open4], direct)], peer: [World.peer4]),
        Case(hoas: .ipv6, servers: [.ipv4, .ipv6], places: [([open6], direct), ([open4], encapsulated), ([open6], direct)], peer: both),
    ]

    @Test("A HoA works in networks that have the other family alone, and in both directions between", arguments: cases, [1, 2] as [UInt64])
    func movement(_ one: Case, seed: UInt64) throws {
        let world = TwoFamilies(seed: seed, hoas: one.hoas, servers: one.servers)
        let first = try #require(one.places.first)
        guard world.start(first.addresses, one.peer) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(3))
        #expect(world.ways == first.ways, "\(world.logs())")
        for place in one.places.dropFirst() {
            world.move(place.addresses)
            guard let time = world.resumption() else {
                Issue.record("nothing goes on in \(place.addresses)\n\(world.logs())")
                return
            }
            print(
                "OtherFamily: \(one.hoas) HoAs, to \(place.addresses.joined(separator: " ")): \(time.millisecondsSaturated) ms at 20 ms there and back"
            )
            #expect(time < .milliseconds(700), "\(place.addresses): \(time)\n\(world.logs())")
            world.network.run(for: .seconds(3))
            #expect(world.ways == place.ways, "\(place.addresses)\n\(world.logs())")
        }
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test("Two nodes behind translators that let nobody through meet by the family before which none stands", arguments: [1, 2] as [UInt64])
    func beside(seed: UInt64) throws {
        let world = TwoFamilies(seed: seed, hoas: .ipv4, mapping: .endpointDependent)
        guard world.start([World.open4], [World.peer4]) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(3))
        world.cn.move(to: [ip("10.2.0.10"), ip(World.peer6)])
        world.move([World.inNAT, World.open6])
        #expect(world.resumption() != nil, "\(world.logs())")
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        let way = world.mn.imt.encapsulated.values.first
        #expect(way?.own.address == ip(World.open6), "\(String(describing: way))")
    }

    @Test("Behind a NAT of IPv4 a node with an IPv6 home address reaches one that has both families without a relay, from the start and after a move")
    func behindNAT() throws {
        let fresh = TwoFamilies(seed: 3, hoas: .ipv6)
        #expect(fresh.start([World.inNAT], Self.both), "\(fresh.logs())")
        let world = TwoFamilies(seed: 4, hoas: .ipv6)
        #expect(world.start([World.open6], Self.both), "\(world.logs())")
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.direct && world.cn.core.homes[world.cn.hoa]?.mapping?.record.hasKinds == false, "\(world.logs())")
        world.move([World.inNAT])
        let time = world.resumption()
        #expect(time.map { $0 < .seconds(1) } ?? false, "\(String(describing: time))\n\(world.logs())")
        print("OtherFamily: IPv6 HoAs, from IPv6 to behind a NAT of IPv4: \(time?.millisecondsSaturated ?? -1) ms at 20 ms there and back")
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        world.move([World.open6])
        #expect(world.resumption() != nil, "\(world.logs())")
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.direct, "\(world.logs())")
    }

    @Test("From a NAT of IPv4 to IPv6 alone, with both networks there: a peer that has IPv4 alone follows by the relay, and stays there")
    func overlapByRelay() {
        let world = TwoFamilies(seed: 5, hoas: .ipv6)
        let relay = world.relay()
        guard world.start([World.inNAT], ["10.2.0.10"]) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(4))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        let before = (world.cn.delivered.count, world.mn.delivered.count)
        world.move([World.open6, World.inNAT], areApart: true)
        world.network.run(for: .seconds(3))
        let (logs, forwarded) = (world.cn.logs.count, relay.core.counters.packetsForwarded)
        world.network.run(for: .seconds(200))
        #expect(relay.core.counters.packetsForwarded - forwarded > 19_000, "\(world.logs())")
        #expect(world.cn.logs.dropFirst(logs).filter { $0.contains("go encapsulated") } == [], "\(world.logs())")
        world.move([World.open6], areApart: true)
        world.network.run(for: .seconds(2))
        #expect(world.cn.lost(after: before.0) == [] && world.mn.lost(after: before.1) == [], "\(world.logs())")
    }
}
