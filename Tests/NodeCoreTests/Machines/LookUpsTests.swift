import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Questions to the DNS") struct LookUpsTests {
    private let hoa: HomeAddress = home("203.0.113.1")

    @Test("An HoA is asked for once, for whoever needs it; all of them are told, in order")
    func once() {
        var lookUps = LookUps(askedMax: 2)
        #expect(lookUps.ask(hoa, for: .destination) && !lookUps.ask(hoa, for: .peer) && !lookUps.ask(hoa, for: .peer))
        #expect(lookUps.ask(home("203.0.113.2"), for: .peer) && !lookUps.ask(home("203.0.113.3"), for: .peer), "two at a time")
        #expect(lookUps.end(hoa) == [.destination, .peer])
        #expect(lookUps.end(hoa) == [])
        #expect(lookUps.ask(hoa, for: .refresh) == true)
    }

    @Test("A network's keys are good for what waits for them, and as long as the DNS says; the tables are bounded")
    func networkKeys() {
        let now = VirtualClock().time
        let key = TestAuthority(seed: 1).key.publicKey
        var keys = NetworkKeys(knownMax: 1, askedMax: 1)
        let (first, second) = (prefix("203.0.113.16/28"), prefix("203.0.113.32/28"))
        let answer = NetworkKeys.Waiter.answer(hoa, MAAnswer(code: .ok, cookie: Cookie(client: 1), hoa: hoa))
        #expect(keys.ask(first, for: nil) && !keys.ask(first, for: answer) && !keys.ask(second, for: nil))
        let set = ServerSet(endpoints: [], keys: [key], expires: now)
        #expect(keys.lookedUp(first, .found(set), now) == [answer])
        #expect(keys.keys(of: first, now) == [key] && keys.keys(of: first, now + .seconds(2)) == nil)
        _ = keys.lookedUp(second, .found(set), now)
        #expect(keys.keys(of: first, now) == nil && keys.keys(of: second, now) == [key])
        #expect(keys.ask(first, for: answer) && keys.lookedUp(first, .failed("SERVFAIL"), now) == [answer])
    }
}
