import MATSignal
import MATTesting
import NodeCore
import Testing

/// Two nodes behind translators, and relays between them: of MN 192.88.9.1, of CN 192.88.9.2 (TranslatorTests.swift draws the rest).
@Suite("Relays between translators") struct RelayTests {
    struct Relays: Sendable, CustomTestStringConvertible {
        let ofMN: [String]
        let ofCN: [String]
        var testDescription: String { "relays of MN: \(ofMN), of CN: \(ofCN)" }
    }

    static let (one, two, three) = ("192.88.9.1", "192.88.9.2", "192.88.9.3")
    static let each = Relays(ofMN: [one], ofCN: [two])
    static let relayed = ("relayed", "relayed")

    private func world(
        _ relays: Relays, seed: UInt64 = 1, _ mapping: SimulatedTranslator.Mapping = .endpointDependent,
        conditions: NetworkConditions = NetworkConditions()
    ) -> (TranslatedWorld, [SimulatedRelay]) {
        let world = TranslatedWorld(seed: seed, mapping, .addressAndPortDependent, conditions: conditions)
        return (world, world.relays(ofMN: relays.ofMN.map { ip($0) }, ofCN: relays.ofCN.map { ip($0) }))
    }

    private func expectFull(_ world: TranslatedWorld, _ what: String, sourceLocation: SourceLocation = #_sourceLocation) {
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(what): \(rate)\n\(world.logs())", sourceLocation: sourceLocation)
    }

    @Test(
        "Two nodes whose translators both map by destination talk by whatever relay one of them has, from the first packet on",
        arguments: [each, Relays(ofMN: [one], ofCN: []), Relays(ofMN: [], ofCN: [two]), Relays(ofMN: [one], ofCN: [one])])
    func bothDependent(_ relays: Relays) {
        let (world, _) = world(relays)
        let isThrough = world.start(TranslatorTests.inA, TranslatorTests.inB)
        #expect(isThrough, "\(world.logs())")
        // By a relay of both, packets are faster than the word of who sends them.
        let first = relays.ofMN == relays.ofCN ? 5 : 1
        #expect(
            world.cn.delivered.first.map { $0.packet.number <= first } ?? false,
            "the first packet is lost: \(world.cn.delivered.first.debugDescription)")
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.relayed, "\(world.logs())")
        expectFull(world, "\(relays)")
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test("The relays of the lower home address's record carry both directions once both are bound there")
    func order() {
        let (world, relays) = world(Self.each)
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB), "\(world.logs())")
        world.network.run(for: .seconds(5))
        let before = relays.map(\.core.counters.packetsForwarded)
        world.network.run(for: .seconds(1))
        let forwarded = zip(relays.map(\.core.counters.packetsForwarded), before).map { $0 - $1 }
        #expect(forwarded[0] >= 99 && forwarded[1] < 5, "\(forwarded)\n\(world.logs())")
    }

    @Test("Of several relays the one with the clearly shorter way carries the packets, and one that loses them does not; noise moves nothing")
    func bestRelay() {
        let (world, relays) = world(Self.each)
        func set(_ relay: String, _ latency: ClosedRange<Duration>, loss: Double = 0) {
            for address in ["192.0.2.100", "198.18.0.100"] {
                world.network.linkConditions[SimulatedNetwork.Link(ip(address), ip(relay))] = NetworkConditions(latency: latency, loss: loss)
            }
        }
        /// Packets that each relay forwards while 100 are sent.
        func shares() -> [UInt64] {
            let before = relays.map(\.core.counters.packetsForwarded)
            world.network.run(for: .seconds(5))
            return zip(relays, before).map { $0.core.counters.packetsForwarded - $1 }
        }
        world.pause = .milliseconds(100)
        // The lower home address's record names the first, which is far away.
        set(Self.one, .milliseconds(70) ... .milliseconds(80))
        set(Self.two, .milliseconds(10) ... .milliseconds(20))
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB), "\(world.logs())")
        world.network.run(for: .seconds(15))
        var now = shares()
        #expect(now[1] >= 95 && now[0] < 10, "by the shorter way: \(now)\n\(world.logs())")
        // It begins to lose every fourth packet.
        set(Self.two, .milliseconds(10) ... .milliseconds(20), loss: 0.25)
        world.network.run(for: .seconds(150))
        now = shares()
        #expect(now[0] >= 95 && now[1] < 10, "by the way without loss: \(now)\n\(world.logs())")
        // Both alike, with noise.
        for relay in [Self.one, Self.two] { set(relay, .milliseconds(5) ... .milliseconds(25)) }
        world.network.run(for: .seconds(180))
        let logs = world.mn.logs.count
        world.network.run(for: .seconds(180))
        let changes = world.mn.logs.dropFirst(logs).filter { $0.contains("go by the relay") }
        #expect(changes.isEmpty, "\(changes)")
        // Without packets nobody measures: it would be two relays, twice at least.
        world.isTalking = false
        world.network.run(for: .seconds(5))
        let probes = world.mn.core.counters.probesSent
        world.network.run(for: .seconds(40))
        #expect(world.mn.core.counters.probesSent - probes < 4)
    }

    @Test("Between translators that map by the endpoint alone, a relay carries the first packets, and then none", arguments: [1, 2, 3] as [UInt64])
    func upgrade(seed: UInt64) {
        let (world, _) = world(Self.each, seed: seed, .endpointIndependent)
        var ways: [String] = []
        world.mn.move(to: [ip(TranslatorTests.inA)])
        world.cn.move(to: [ip(TranslatorTests.inB)])
        #expect(world.network.drive(max: .seconds(60)) { world.mn.core.isRegistered && world.cn.core.isRegistered })
        world.network.run(for: .seconds(2))
        #expect(world.talk())
        for _ in 0..<300 {
            if ways.last != world.ways.mn { ways.append(world.ways.mn) }
            world.network.run(for: .milliseconds(10))
        }
        #expect(ways.last == "encapsulated", "\(ways)\n\(world.logs())")
        expectFull(world, "after the upgrade")
        // Nothing was lost on the way.
        let numbers = Set(world.cn.delivered.map(\.packet.number))
        let lost = (1...(numbers.max() ?? 0)).filter { !numbers.contains($0) }
        #expect(lost.count <= 2, "\(lost)")
    }

    @Test(
        "A move between networks that map by destination ends on a relay, and is over within a second",
        arguments: [each, Relays(ofMN: [one], ofCN: [])])
    func moves(_ relays: Relays) {
        let (world, _) = world(relays)
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB), "\(world.logs())")
        world.network.run(for: .seconds(3))
        for (mn, cn) in [(TranslatorTests.inC, TranslatorTests.inB), (TranslatorTests.inA, "10.2.0.11"), (TranslatorTests.inC, TranslatorTests.inB)] {
            world.mn.move(to: [ip(mn)])
            world.cn.move(to: [ip(cn)])
            let times = world.resumption()
            #expect(times.map { max($0.toCN, $0.toMN) < .seconds(1) } ?? false, "\(mn), \(cn): \(times.debugDescription)\n\(world.logs())")
            world.network.run(for: .seconds(3))
            #expect(world.ways == Self.relayed)
            expectFull(world, "in \(mn) and \(cn)")
        }
        // Out of it, a better path is taken within the connection, and back.
        world.mn.move(to: [ip(TranslatorTests.open)])
        world.network.run(for: .seconds(3))
        #expect(world.ways == TranslatorTests.encapsulated, "\(world.ways)\n\(world.logs())")
        world.mn.move(to: [ip(TranslatorTests.inC)])
        #expect(world.resumption() != nil)
        world.network.run(for: .seconds(3))
        #expect(world.ways == Self.relayed, "\(world.ways)\n\(world.logs())")
    }

    @Test("A relay that starts anew, with or without its state, holds packets up for two seconds at most", arguments: [true, false])
    func restart(hasState: Bool) {
        let (world, relays) = world(Relays(ofMN: [Self.one], ofCN: []))
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB), "\(world.logs())")
        world.network.run(for: .seconds(5))
        for relay in relays { relay.crash() }
        world.network.run(for: .milliseconds(200))
        for relay in relays { relay.restart(hasState: hasState) }
        let times = world.resumption()
        #expect(times.map { max($0.toCN, $0.toMN) < .seconds(2) } ?? false, "\(times.debugDescription)\n\(world.logs())")
        world.network.run(for: .seconds(3))
        expectFull(world, "after the restart")
        #expect(world.ways == Self.relayed)
    }

    @Test("When the relay in use dies, the other one takes over", arguments: [each, Relays(ofMN: [one, three], ofCN: [])])
    func dead(_ relays: Relays) {
        let (world, all) = world(relays)
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB), "\(world.logs())")
        world.network.run(for: .seconds(5))
        let busiest = all.max { $0.core.counters.packetsForwarded < $1.core.counters.packetsForwarded }
        busiest?.crash()
        let times = world.resumption()
        #expect(times.map { max($0.toCN, $0.toMN) < .seconds(4) } ?? false, "\(times.debugDescription)\n\(world.logs())")
        world.network.run(for: .seconds(5))
        expectFull(world, "by the other relay")
        busiest?.restart(hasState: false)
        world.network.run(for: .seconds(60))
        expectFull(world, "when the first is back")
    }

    @Test("In networks that lose a fifth, repeat and reorder, moves end on the relay", arguments: 20...25 as ClosedRange<UInt64>)
    func weather(seed: UInt64) {
        let weather = NetworkConditions(latency: .milliseconds(5) ... .milliseconds(60), loss: 0.2, duplication: 0.1)
        let (world, _) = world(seed % 2 == 0 ? Self.each : Relays(ofMN: [], ofCN: [Self.two]), seed: seed, conditions: weather)
        guard world.start(TranslatorTests.inA, TranslatorTests.inB) else {
            Issue.record("seed \(seed): no packets at the start\n\(world.logs())")
            return
        }
        for place in [TranslatorTests.inC, TranslatorTests.open, TranslatorTests.inA, TranslatorTests.inC] {
            world.mn.move(to: [ip(place)])
            world.network.run(for: .seconds(30))
            guard let times = world.resumption() else {
                Issue.record("seed \(seed): nothing goes on at \(place)\n\(world.logs())")
                return
            }
            #expect(max(times.toCN, times.toMN) < .seconds(5), "seed \(seed) at \(place): \(times)")
        }
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
    }

    @Test("After an hour's silence the first packet finds its way by the relay, in either direction", arguments: [true, false])
    func idle(fromMN: Bool) {
        let (world, _) = world(Relays(ofMN: [Self.one], ofCN: []))
        #expect(world.start(TranslatorTests.inA, TranslatorTests.inB))
        world.isTalking = false
        world.network.run(for: .seconds(fromMN ? 300 : 3600))
        let before = (world.cn.delivered.count, world.mn.delivered.count)
        if fromMN {
            world.mn.send(UserPacket(9_000_000), to: world.cn.hoa.address)
            #expect(world.network.drive(max: .seconds(2)) { world.cn.delivered.count > before.0 }, "\(world.logs())")
        } else {
            world.cn.send(UserPacket(9_000_000), to: world.mn.hoa.address)
            #expect(world.network.drive(max: .seconds(2)) { world.mn.delivered.count > before.1 }, "\(world.logs())")
        }
    }
}
