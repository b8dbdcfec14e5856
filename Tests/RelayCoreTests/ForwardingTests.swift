import MATCore
import MATSignal
import MATTesting
import RelayCore
import Testing

@Suite("Forwarding by a relay") struct ForwardingTests {
    private let a = at("198.51.100.1")
    private let b = at("2001:db8:9::9", 1234)

    /// A relay with two residents that came over different families, of each of which the HoA is of the other family.
    private func two(_ limits: RelayLimits = RelayLimits()) -> (relay: Fixture, a: HomeAddress, b: HomeAddress) {
        var relay = Fixture(limits)
        let (first, second) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("10.0.0.2"), seed: 12))
        relay.bind(first, from: a)
        relay.bind(second, from: b, to: Fixture.relayIPv6)
        return (relay, first.hoa, second.hoa)
    }

    @Test("Packets go both ways between families, each from the address that its receiver bound at")
    func bothWays() {
        var (relay, first, second) = two()
        #expect(relay.forward(Fixture.packet(first, second), from: a) == .forward(from: Fixture.relayIPv6, to: b))
        #expect(relay.forward(Fixture.packet(second, first), from: b) == .forward(from: Fixture.relay, to: a))
        #expect(relay.core.counters.packetsForwarded == 2 && relay.core.counters.octetsForwarded == 200)
    }

    @Test("What an unbound source sends, or a bound one in another's name, or for nobody, is dropped and counted by reason")
    func dropped() {
        var (relay, first, second) = two()
        let stranger = HomeAddress(ip("10.0.0.99"))
        let cases: [([UInt8], Endpoint, DropReason)] = [
            (Fixture.packet(first, second), at("198.51.100.1", 6288), .unboundSource),
            (Fixture.packet(first, second), at("203.0.113.1"), .unboundSource),
            (Fixture.packet(second, first), a, .foreignSource),
            (Fixture.packet(stranger, first), a, .foreignSource),
            (Fixture.packet(first, stranger), a, .unknownDestination),
            (Fixture.packet(first, first), a, .ownDestination),
            (Fixture.packet(first, second) + [0], a, .malformed),
            (Fixture.packet(first, second).dropLast(), a, .malformed),
            ([0x45], a, .malformed), ([0x80, 0, 0, 0], a, .malformed), ([], a, .malformed),
        ]
        for (packet, source, reason) in cases { #expect(relay.forward(packet, from: source) == .drop(reason)) }
        for reason in DropReason.allCases {
            #expect(relay.core.counters[reason] == UInt64(cases.count { $0.2 == reason }), "\(reason)")
        }
        #expect(relay.core.counters.packetsForwarded == 0)
    }

    @Test("Packets still come from the endpoint of before for 30 s after a move, and go to the new one at once")
    func moved() {
        var (relay, first, second) = two()
        relay.wait(1500)
        relay.bind(relay.authority.enrol(first, seed: 11), from: at("198.51.100.77"))
        #expect(relay.forward(Fixture.packet(second, first), from: b) == .forward(from: Fixture.relay, to: at("198.51.100.77")))
        relay.wait(29_000)
        #expect(relay.forward(Fixture.packet(first, second), from: a) == .forward(from: Fixture.relayIPv6, to: b))
        relay.wait(1500)
        #expect(relay.forward(Fixture.packet(first, second), from: a) == .drop(.unboundSource))
    }

    @Test("Each HoA has its rate and burst, as source and as destination")
    func rates() {
        var limits = RelayLimits()
        limits.octetsPerSecond = 100_000
        limits.burstOctets = 20_000
        var (relay, first, second) = two(limits)
        var passed = 0
        for _ in 0..<40 where relay.forward(Fixture.packet(first, second, octets: 1000), from: a) != .drop(.sourceRate) { passed += 1 }
        #expect(passed == 20)
        // The other direction has not been used.
        #expect(relay.forward(Fixture.packet(second, first, octets: 1000), from: b) == .forward(from: Fixture.relay, to: a))
        relay.wait(100)
        passed = 0
        for _ in 0..<40 where relay.forward(Fixture.packet(first, second, octets: 1000), from: a) != .drop(.sourceRate) { passed += 1 }
        #expect(passed == 10)
        // Many sources together are held to the rate of the one that they send to: what is beyond it waits, in turn.
        let third = relay.authority.enrol(home("10.0.0.3"), seed: 13)
        relay.bind(third, from: at("198.51.100.3"))
        #expect(relay.forward(Fixture.packet(third.hoa, second, octets: 1000), from: at("198.51.100.3")) == .held)
        #expect(relay.core.counters.packetsHeld == 1)
    }

    @Test("Packets pass at the greatest and the smallest rates that can be configured", arguments: [125_000_000_000, 1_000_000_000_000, 8000])
    func extremeRates(octetsPerSecond: Int) {
        var limits = RelayLimits()
        limits.octetsPerSecond = octetsPerSecond
        limits.relayOctetsPerSecond = octetsPerSecond
        limits.burstOctets = 1 << 30
        var (relay, first, second) = two(limits)
        for octets in [20, 200, 1472, 9000] {
            #expect(relay.forward(Fixture.packet(first, second, octets: octets), from: a) == .forward(from: Fixture.relayIPv6, to: b))
        }
    }

    @Test("A monthly quota counts both directions, survives binding anew and a restart, and begins anew with the month")
    func quota() {
        var limits = RelayLimits()
        limits.octetsPerMonth = 10_000
        var (relay, first, second) = two(limits)
        _ = relay.core.tick(now: relay.now)
        for _ in 0..<10 { #expect(relay.forward(Fixture.packet(first, second, octets: 1000), from: a) != .drop(.quota)) }
        #expect(relay.forward(Fixture.packet(second, first, octets: 1000), from: b) == .drop(.quota))
        // It ends its binding and binds anew.
        relay.wait(2000)
        let node = relay.authority.enrol(first, seed: 11)
        relay.bind(node, from: a, lifetime: 0)
        relay.wait(2000)
        relay.bind(node, from: a)
        #expect(relay.forward(Fixture.packet(first, second, octets: 1000), from: a) == .drop(.quota))
        let saved = relay.core.saved(now: relay.now)
        var next = Fixture(limits)
        next.clock = relay.clock
        #expect(next.core.restore(saved, now: next.now) == 2)
        #expect(next.forward(Fixture.packet(first, second, octets: 1000), from: a) == .drop(.quota))
        next.wait(32 * 86_400_000)
        _ = next.core.tick(now: next.now)
        next.bind(node, from: a)
        next.bind(next.authority.enrol(second, seed: 12), from: b, to: Fixture.relayIPv6)
        #expect(next.forward(Fixture.packet(first, second, octets: 1000), from: a) == .forward(from: Fixture.relayIPv6, to: b))
    }

    @Test("All visitors together have half of the relay's rate")
    func visitorsRate() {
        var limits = RelayLimits()
        limits.relayOctetsPerSecond = 40_000
        limits.burstOctets = 20_000
        var relay = Fixture(limits)
        let others = TestAuthority(seed: 2)
        let (v, node) = (others.enrol(home("10.9.0.1"), seed: 21), relay.authority.enrol(home("10.0.0.1"), seed: 11))
        relay.bind(node, from: a)
        let visitor = at("198.51.100.2")
        relay.bind(v, from: visitor)
        let keys = IMSLookupResult.found(IMSSet(servers: [], keys: [others.key.publicKey.octets], expires: .distantFuture))
        _ = relay.settle(relay.core.resolved(IPPrefix(v.hoa.address), keys, now: relay.now))
        let packet = Fixture.packet(v.hoa, node.hoa, octets: 1000)
        for _ in 0..<20 { #expect(relay.forward(packet, from: visitor) == .forward(from: Fixture.relay, to: a)) }
        relay.wait(500)
        var passed = 0
        while passed < 100, relay.forward(packet, from: visitor) == .forward(from: Fixture.relay, to: a) { passed += 1 }
        #expect(passed == 10)
        // Some more wait, and the rest is dropped.
        for _ in 0..<100 { _ = relay.forward(packet, from: visitor) }
        #expect(relay.core.counters[.visitorsRate] > 0 && relay.core.isHolding)
    }

    @Test("Bindings survive a restart")
    func restart() {
        let (relay, first, second) = two()
        var next = Fixture()
        next.wait(3000)
        #expect(next.core.restore(relay.core.saved(now: relay.now), now: next.now) == 2)
        #expect(next.forward(Fixture.packet(first, second), from: a) == .forward(from: Fixture.relayIPv6, to: b))
        let cookie = next.cookie(a)
        #expect(next.ack(.padded(cookie: cookie, .refresh(first)), from: a)?.code == .ok)
    }
}
