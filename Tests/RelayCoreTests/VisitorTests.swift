import MATCore
import MATSignal
import MATTesting
import RelayCore
import Testing

@Suite("Visitors of a relay") struct VisitorTests {
    private let others = TestAuthority(seed: 2)
    private let first = at("198.51.100.1")

    private func keys(_ authority: TestAuthority, until: MonotonicTime = .distantFuture) -> IMSLookupResult {
        .found(IMSSet(servers: [], keys: [authority.key.publicKey.octets], expires: until))
    }

    /// What a Bind leads to: answers at once, and names that are looked up.
    private func send(_ relay: inout Fixture, _ node: TestIdentity, from source: Endpoint) -> (codes: [ResponseCode], asked: [IPPrefix]) {
        let bind = SignalMessage(sequence: 1, .bind(Fixture.bind(node, cookie: relay.cookie(source))))
        let actions = relay.core.received(bind.octets, from: source, to: Fixture.relay, now: relay.now)
        let asked = actions.compactMap { action -> IPPrefix? in if case .lookUp(let name) = action { name } else { nil } }
        return (relay.settle(actions).map(\.code), asked)
    }

    @Test("A visitor is bound when the DNS lists the key that certified it, and is not asked about again for as long as that holds")
    func lookedUp() {
        var relay = Fixture()
        let v = others.enrol(home("10.9.0.1"), seed: 21)
        let sent = send(&relay, v, from: first)
        #expect(sent.codes.isEmpty && sent.asked == [IPPrefix(v.hoa.address)])
        let until = relay.now.monotonic + .seconds(100)
        #expect(relay.settle(relay.core.resolved(IPPrefix(v.hoa.address), keys(others, until: until), now: relay.now)).map(\.code) == [.ok])
        #expect(relay.core.visitorsCount == 1)
        relay.wait(50_000)
        let again = send(&relay, v, from: at("198.51.100.7"))
        #expect(again.codes == [.ok] && again.asked.isEmpty)
        relay.wait(51_000)
        #expect(send(&relay, v, from: at("198.51.100.8")).asked == [IPPrefix(v.hoa.address)])
    }

    @Test("A resident's keys come from the DNS as well, unless they are configured")
    func residents() {
        var relay = Fixture(keys: false)
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        #expect(send(&relay, a, from: first).asked == [IPPrefix(a.hoa.address)])
        let result = keys(relay.authority)
        #expect(relay.settle(relay.core.resolved(IPPrefix(a.hoa.address), result, now: relay.now)).map(\.code) == [.ok])
        #expect(relay.core.visitorsCount == 0)
    }

    @Test("Another IMS's key, no IMS, or no answer of the DNS, binds nobody")
    func notFound() {
        var relay = Fixture()
        let results: [(IMSLookupResult, ResponseCode)] = [
            (keys(TestAuthority(seed: 3)), .authenticationFailed), (.absent(until: relay.now.monotonic), .authenticationFailed),
            (.failed("no answer"), .tryLater), (.unusable("bogus"), .authenticationFailed),
        ]
        for (number, (result, code)) in results.enumerated() {
            let v = others.enrol(home("10.9.0.\(number + 1)"), seed: 21)
            _ = send(&relay, v, from: first)
            let name = IPPrefix(v.hoa.address)
            #expect(relay.settle(relay.core.resolved(name, result, now: relay.now)).map(\.code) == [code])
            // It is not asked again at once.
            let again = send(&relay, v, from: first)
            #expect(again.codes == [code] && again.asked.isEmpty)
        }
        #expect(relay.core.bindingsCount == 0)
    }

    @Test("Look-ups for visitors have a budget; residents' do not count")
    func budget() {
        var limits = RelayLimits()
        limits.lookUpsPerSecond = 3
        limits.bindsPerSecond = 1000
        var relay = Fixture(limits, keys: false)
        var asked = 0
        for number in 1...10 { asked += send(&relay, others.enrol(home("10.9.0.\(number)"), seed: 21), from: first).asked.count }
        #expect(asked == 3)
        #expect(send(&relay, relay.authority.enrol(home("10.0.0.1"), seed: 11), from: first).asked.count == 1)
    }

    @Test("A relay without visitors answers others' nodes with code 4")
    func refused() {
        var relay = Fixture(visitors: false)
        let sent = send(&relay, others.enrol(home("10.9.0.1"), seed: 21), from: first)
        #expect(sent.codes == [.notAuthoritative] && sent.asked.isEmpty)
    }

    @Test("A visitor talks to residents and not to visitors, and not to residents that do not want it")
    func talks() {
        var relay = Fixture()
        let (v, w) = (others.enrol(home("10.9.0.1"), seed: 21), others.enrol(home("10.9.0.2"), seed: 22))
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        for (node, source) in [(v, "198.51.100.1"), (w, "198.51.100.2")] {
            _ = send(&relay, node, from: at(source))
            _ = relay.settle(relay.core.resolved(IPPrefix(node.hoa.address), keys(others), now: relay.now))
        }
        relay.bind(a, from: at("198.51.100.3"))
        #expect(relay.forward(Fixture.packet(v.hoa, a.hoa), from: at("198.51.100.1")) == .forward(from: Fixture.relay, to: at("198.51.100.3")))
        #expect(relay.forward(Fixture.packet(a.hoa, v.hoa), from: at("198.51.100.3")) == .forward(from: Fixture.relay, to: at("198.51.100.1")))
        #expect(relay.forward(Fixture.packet(v.hoa, w.hoa), from: at("198.51.100.1")) == .drop(.noResident))
        let shut = RelayCoreConfiguration(
            residents: [ResidentPrefix(prefix("10.0.0.0/24"), publicKeys: [relay.authority.key.publicKey], refusesVisitors: true)])
        _ = relay.core.reconfigure(shut, now: relay.now)
        #expect(relay.forward(Fixture.packet(v.hoa, a.hoa), from: at("198.51.100.1")) == .drop(.visitorRefused))
        let closed = RelayCoreConfiguration(residents: shut.residents, takesVisitors: false)
        _ = relay.core.reconfigure(closed, now: relay.now)
        #expect(relay.core.bindingsCount == 1 && relay.core.visitorsCount == 0)
    }
}
