import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("A peer's relays") struct PeerRelaysTests {
    private let first = Endpoint(ip("203.0.113.134"), port: SignalPort.relay)
    private let second = Endpoint(ip("203.0.113.135"), port: SignalPort.relay)

    private func time(_ milliseconds: Int64) -> MonotonicTime { .zero + .milliseconds(milliseconds) }
    private func candidate(_ relay: Endpoint) -> PeerRelays.Candidate { PeerRelays.Candidate(relay: relay, isPeers: true, isOwn: false) }

    /// A peer that has come into an open network lists no relay any more; what it and the relay had sent before is under way.
    @Test("What came by relays is taken for a while after they are no candidates any more")
    func lasting() throws {
        var relays = PeerRelays()
        _ = relays.list([candidate(first), candidate(second)], time(0))
        relays.accept(from: [first, second])
        #expect(relays.lasting.isEmpty)
        #expect(relays.list([], time(1000)).contains(.choose))
        #expect(relays.lasting == [first, second] && !relays.isEmpty)
        let due = try #require(relays.due)
        #expect(due == time(1000) + OwnBindings.lingerTime)
        _ = relays.takeDue(time(2000))
        #expect(relays.lasting == [first, second])
        #expect(relays.takeDue(due).contains(.choose) && relays.lasting.isEmpty)
        relays.accept(from: [])
        #expect(relays.isEmpty && relays.due == nil)
    }

    @Test("Nothing lasts where one more comes, and where one of two goes both do: one may have the peer at another of its addresses")
    func oneOfTwo() {
        var relays = PeerRelays()
        _ = relays.list([candidate(first)], time(0))
        _ = relays.list([candidate(first), candidate(second)], time(1000))
        #expect(relays.lasting.isEmpty)
        relays.accept(from: [first, second])
        _ = relays.list([candidate(first)], time(2000))
        #expect(relays.lasting == [first, second])
    }
}
