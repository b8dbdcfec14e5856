import MATSignal
import MATTesting
import NodeCore
import Testing

/// Translators that come between two nodes at the wrong moment: when they begin to talk, when both move at once, or one after the other
/// (TranslatorTests.swift draws the world).
@Suite("Translators at the wrong moment") struct EnteringTests {
    static let (one, two) = ("192.88.9.1", "192.88.9.2")

    @Test(
        "A node that begins to talk to one which enters a translator's network at that moment gets through within a second",
        arguments: [TranslatorTests.open, TranslatorTests.inA], [false, true])
    func firstContact(from place: String, sharesIMS: Bool) {
        for delay in stride(from: -60, through: 120, by: 10) {
            let world = TranslatedWorld(seed: UInt64(delay + 100), sharesIMS: sharesIMS)
            world.mn.move(to: [ip(place)])
            world.cn.move(to: [ip(TranslatorTests.peer)])
            world.network.run(for: .seconds(8))
            let began = world.network.time
            if delay < 0 {
                _ = world.talk(within: .milliseconds(-delay))
                world.cn.move(to: [ip(TranslatorTests.inB)])
            } else {
                world.cn.move(to: [ip(TranslatorTests.inB)])
                world.network.run(for: .milliseconds(delay))
                _ = world.talk(within: .zero)
            }
            let isThrough = world.network.drive(max: .seconds(4)) {
                [world.cn, world.mn].allSatisfy { node in node.delivered.contains { $0.at > began + .milliseconds(200) } }
            }
            let took = world.network.time - began
            #expect(isThrough && took < .milliseconds(1300), "\(delay) ms: \(took)\n\(world.logs())")
        }
    }

    @Test(
        "Translators that forget their flows one soon after the other hold packets up for two seconds at most", arguments: [true, false],
        30...41 as ClosedRange<UInt64>)
    func reboots(hasRelays: Bool, seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        if hasRelays { _ = world.relays(ofMN: [ip(Self.one)], ofCN: [ip(Self.two)]) }
        guard world.start(TranslatorTests.inA, TranslatorTests.inB) else {
            Issue.record("seed \(seed): no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .milliseconds(Int64.random(in: 2000...30000, using: &world.network.random)))
        for round in 0..<6 {
            let isA = Bool.random(using: &world.network.random)
            let other = isA ? "192.0.2.\(110 + round)" : "198.18.0.\(110 + round)"
            (isA ? world.a : world.b).reboot(at: Bool.random(using: &world.network.random) ? ip(other) : nil)
            guard let times = world.resumption(within: .seconds(40)) else {
                Issue.record("seed \(seed), \(round): nothing goes on\n\(world.logs())")
                return
            }
            #expect(max(times.toCN, times.toMN) <= .milliseconds(2500), "seed \(seed), \(round): \(times)\n\(world.logs())")
            world.network.run(for: .milliseconds(Int64.random(in: 500...4000, using: &world.network.random)))
        }
    }

    @Test("Both go behind translators at once, from wherever they were, and go on within half a second", arguments: [false, true])
    func bothEnter(sharesIMS: Bool) {
        for delay in stride(from: 0, through: 100, by: 10) {
            let world = TranslatedWorld(seed: UInt64(delay + 300), sharesIMS: sharesIMS)
            guard world.start(TranslatorTests.open, TranslatorTests.peer) else {
                Issue.record("\(delay): no packets at the start\n\(world.logs())")
                return
            }
            world.network.run(for: .seconds(8))
            world.mn.move(to: [])
            world.cn.move(to: [])
            world.network.run(for: .milliseconds(300))
            world.mn.move(to: [ip(TranslatorTests.inA)])
            world.network.run(for: .milliseconds(delay))
            world.cn.move(to: [ip(TranslatorTests.inB)])
            guard let times = world.resumption() else {
                Issue.record("\(delay): nothing goes on\n\(world.logs())")
                return
            }
            #expect(max(times.toCN, times.toMN) < .milliseconds(500), "\(delay): \(times)\n\(world.logs())")
        }
    }

    @Test(
        "A handover with both networks there takes both directions to the new one, and loses nothing",
        arguments: [
            (TranslatorTests.open, TranslatorTests.inA), (TranslatorTests.inA, TranslatorTests.open), (TranslatorTests.inA, TranslatorTests.inC),
        ], [TranslatorTests.peer, TranslatorTests.inB])
    func overlap(_ places: (from: String, to: String), cn: String) {
        let world = TranslatedWorld(seed: 50)
        guard world.start(places.from, cn) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(4))
        var (here, there) = (places.from, places.to)
        for round in 0..<6 {
            let before = (world.cn.delivered.count, world.mn.delivered.count)
            world.mn.move(to: [ip(here), ip(there)])
            world.network.run(for: .milliseconds(Int64.random(in: 20...1500, using: &world.network.random)))
            // Which comes first is the system's word.
            world.mn.move(to: [ip(there), ip(here)])
            world.network.run(for: .seconds(1))
            let own = [world.mn.imt.encapsulated.values.first?.endpoints?.own.address, world.mn.imt.outbound.values.first?.own.address]
            #expect(own.contains(ip(there)), "\(round): mn still sends from \(here)\n\(world.logs())")
            world.mn.move(to: [ip(there)])
            world.network.run(for: .seconds(2))
            #expect(world.cn.lost(after: before.0) == [] && world.mn.lost(after: before.1) == [], "\(round), \(here) to \(there)\n\(world.logs())")
            world.network.run(for: .milliseconds(Int64.random(in: 0...20_000, using: &world.network.random)))
            (here, there) = (there, here)
        }
    }

    @Test(
        "With both networks there, a node goes to one where only a relay leads to its peer, the peer follows, and nothing is lost when the old one goes",
        arguments: 60...63 as ClosedRange<UInt64>)
    func overlapByRelay(seed: UInt64) {
        let world = TranslatedWorld(seed: seed)
        // One of both, or one of each.
        _ = world.relays(ofMN: [ip(Self.one)], ofCN: [ip(seed % 2 == 0 ? Self.one : Self.two)])
        world.network.isCut = { $0.scope != .global && $1.scope != .global }
        for node in [world.mn, world.cn] { node.linkBits = 16 }
        guard world.start(TranslatorTests.inC, TranslatorTests.inA2) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(4))
        #expect(world.ways == TranslatorTests.encapsulated, "\(world.logs())")
        for (here, there, ways) in [
            (TranslatorTests.inC, TranslatorTests.inA, RelayTests.relayed), (TranslatorTests.inA, TranslatorTests.inC, TranslatorTests.encapsulated),
        ] {
            world.network.run(for: .milliseconds(Int64.random(in: 2000...4000, using: &world.network.random)))
            let before = (world.cn.delivered.count, world.mn.delivered.count)
            world.mn.move(to: [ip(there), ip(here)])
            world.network.run(for: .seconds(5))
            #expect(world.ways == ways, "\(there): \(world.ways)\n\(world.logs())")
            world.mn.move(to: [ip(there)])
            world.network.run(for: .seconds(2))
            #expect(world.cn.lost(after: before.0) == [] && world.mn.lost(after: before.1) == [], "to \(there)\n\(world.logs())")
        }
    }

    /// The first network maps by destination, so that its peer has learned where it was there, and no record says that it has left.
    @Test("A peer that follows to a relay does not try, with its packets, where the node was long before", arguments: 80...83 as ClosedRange<UInt64>)
    func overlapAfterOthers(seed: UInt64) {
        let world = TranslatedWorld(seed: seed, .endpointDependent)
        _ = world.relays(ofMN: [ip(Self.one)], ofCN: [ip(Self.two)])
        world.network.isCut = { Set([$0, $1]) == [ip("192.0.2.200"), ip(TranslatorTests.peer)] }
        guard world.start(TranslatorTests.inA, TranslatorTests.peer) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(4))
        for places in [[TranslatorTests.inB, TranslatorTests.inA], [TranslatorTests.inB]] {
            world.mn.move(to: places.map { ip($0) })
            world.network.run(for: .seconds(2))
        }
        #expect(world.ways == TranslatorTests.encapsulated, "\(world.logs())")
        let before = (world.cn.delivered.count, world.mn.delivered.count)
        world.mn.move(to: [ip(TranslatorTests.inC), ip(TranslatorTests.inB)])
        world.network.run(for: .seconds(4))
        #expect(world.ways == RelayTests.relayed, "\(world.ways)\n\(world.logs())")
        world.mn.move(to: [ip(TranslatorTests.inC)])
        world.network.run(for: .seconds(2))
        #expect(world.cn.lost(after: before.0) == [] && world.mn.lost(after: before.1) == [], "\(world.logs())")
    }

    @Test(
        "With both networks there, a node goes behind a firewall that lets answers in alone, and nothing is lost: its peer waits for what comes from there",
        arguments: [(8000, false), (0, false), (500, false), (0, true), (500, true), (1500, true), (3000, true)] as [(Int64, Bool)],
        [TranslatorTests.open, TranslatorTests.inA])
    func overlapBehindFirewall(_ one: (milliseconds: Int64, hasTwoFlows: Bool), from place: String) {
        let world = TranslatedWorld(seed: UInt64(70 + one.milliseconds))
        world.firewall.takesUpFlows = true
        // What the peer sends is no answer to what the node sends.
        if one.hasTwoFlows { world.firewall.flow = { $0.number / 1_000_000 } }
        guard world.start(place, TranslatorTests.peer) else {
            Issue.record("no packets at the start\n\(world.logs())")
            return
        }
        world.network.run(for: .seconds(4))
        // A kernel takes a moment until it sends from another address, and a node to read what came.
        world.mn.move(to: [ip(place), ip(TranslatorTests.inFirewall)])
        world.network.run(for: .milliseconds(one.milliseconds))
        let before = (world.cn.delivered.count, world.mn.delivered.count)
        world.mn.move(to: [ip(TranslatorTests.inFirewall), ip(place)])
        world.network.run(for: .seconds(8))
        world.mn.move(to: [ip(TranslatorTests.inFirewall)])
        world.network.run(for: .seconds(2))
        #expect(world.cn.lost(after: before.0) == [] && world.mn.lost(after: before.1) == [], "\(world.logs())")
        #expect(world.ways == TranslatorTests.encapsulated, "\(world.ways)\n\(world.logs())")
    }
}
