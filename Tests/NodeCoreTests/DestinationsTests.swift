import MATTesting
import Testing

@testable import MATSignal
@testable import NodeCore

@Suite("The table of unknown destinations") struct DestinationsTests {
    typealias Action = Destinations.Action
    typealias Surroundings = Destinations.Surroundings

    private let hoa: HomeAddress = home("203.0.113.1")
    private let online = Surroundings(hasAddress: true)
    private let served = Surroundings(hasServers: true, hasFreshServers: true, canAsk: true, hasAddress: true)

    private func destinations(_ adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) -> Destinations {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        adjust(&configuration)
        return Destinations(configuration)
    }

    private func isLogged(_ actions: [Action], _ text: String) -> Bool {
        actions.contains { if case .log(_, let line) = $0 { line.contains(text) } else { false } }
    }

    @Test("The first packet asks the DNS, the answer asks the IMSs, and mapping and ack together let the packets go")
    func inOrder() {
        var destinations = destinations()
        #expect(destinations.hold(hoa, online, now: time(0)) == [.wake(hoa, at: time(2000)), .lookUp(hoa)])
        #expect(destinations.hold(hoa, online, now: time(1)) == [])
        let set = ServerSet(endpoints: [], keys: [], expires: time(9999))
        #expect(
            destinations.lookedUp(hoa, .found(set), served, now: time(20)) == [.stopWakingToLookUp(hoa), .wake(hoa, at: time(10_000)), .ask(hoa)])
        #expect(destinations.answered(hoa, now: time(40)) == [.introduce(hoa)])
        #expect(
            destinations.notified(hoa, inVain: false, now: time(60)) == [
                .stopWaiting(hoa), .count(\.destinationsResolved), .begin(hoa, after: .milliseconds(60), isNotifiedInVain: false),
            ])
        #expect(!destinations.contains(hoa))
    }

    @Test("Without an own record nobody is asked until there is one, and then once")
    func noRecord() {
        var destinations = destinations()
        let known = Surroundings(hasServers: true, hasFreshServers: true, hasAddress: true)
        #expect(destinations.hold(hoa, known, now: time(0)) == [.wake(hoa, at: time(2000))])
        #expect(destinations.ask(hoa, known) == [])
        #expect(destinations.ask(hoa, served) == [.ask(hoa)])
        #expect(destinations.ask(hoa, served) == [])
    }

    @Test("A destination that no DNS answers about is plain after 2 s, asked again each second until then, and after 30 s of use")
    func silence() {
        var destinations = destinations()
        _ = destinations.hold(hoa, online, now: time(0))
        #expect(destinations.lookedUp(hoa, .failed("a time-out"), online, now: time(500)) == [.wakeToLookUp(hoa, at: time(1500))])
        #expect(destinations.lookUpDue(hoa) == [.lookUp(hoa)])
        let actions = destinations.due(hoa, online, now: time(2000))
        #expect(isLogged(actions, "a time-out"))
        #expect(actions.suffix(2) == [.change(.setPlain(hoa.address, lifetime: .seconds(30))), .pass(hoa)] && !destinations.contains(hoa))
        #expect(destinations.undecided(now: time(2000)).map(\.hoa) == [hoa])
        // The kernel's entry lapses after 30 s.
        let again = destinations.hold(hoa, online, now: time(32_000))
        #expect(again == [.change(.setPlain(hoa.address, lifetime: .seconds(30))), .pass(hoa), .wake(hoa, at: time(34_000)), .lookUp(hoa)])
        #expect(destinations.undecided(now: time(200_000)).isEmpty)
    }

    @Test("What was a peer, or is named by the configuration, is never plain", arguments: [true, false])
    func neverPlain(isNamed: Bool) {
        var destinations = destinations { if isNamed { $0.namedPrefixes = [prefix("203.0.113.0/24")] } }
        if !isNamed { destinations.remember(former: [hoa]) }
        #expect(destinations.hold(hoa, online, now: time(0)) == [.wake(hoa, at: time(10_000)), .lookUp(hoa)])
        _ = destinations.lookedUp(hoa, .failed("a time-out"), online, now: time(500))
        #expect(destinations.isUndecidedPeer(hoa) == !isNamed)
        #expect(destinations.due(hoa, online, now: time(10_000)) == [.stopWaiting(hoa), .stopAsking(hoa), .drop(hoa)])
    }

    @Test("Absence is believed for 300 s at most, and forgotten in another network")
    func absence() {
        var destinations = destinations()
        _ = destinations.hold(hoa, online, now: time(0))
        let actions = destinations.lookedUp(hoa, .absent(lifetime: .seconds(9000)), online, now: time(10))
        #expect(actions == [.stopWaiting(hoa), .count(\.destinationsPlain), .change(.setPlain(hoa.address, lifetime: .seconds(300))), .pass(hoa)])
        #expect(destinations.forgetAbsence(now: time(20)) == [.change(.removePlain(hoa.address))])
        #expect(destinations.forgetAbsence(now: time(20)) == [])
    }

    @Test("An answer that must not be taken for absence keeps the packets until somebody has mended it")
    func unusable() {
        var destinations = destinations()
        _ = destinations.hold(hoa, online, now: time(0))
        let actions = destinations.lookedUp(hoa, .unusable("bogus"), online, now: time(10))
        #expect(isLogged(actions, "bogus; packets to it wait"))
        #expect(actions.suffix(2) == [.wake(hoa, at: time(10_000)), .wakeToLookUp(hoa, at: time(1010))])
        #expect(destinations.due(hoa, online, now: time(10_000)) == [.stopWaiting(hoa), .stopAsking(hoa), .drop(hoa)])
    }

    @Test("Where names are found on this host its own questions go on at once, and at most two servers are found out about")
    func localNames() {
        var destinations = destinations()
        #expect(destinations.holdName(hoa, online, now: time(0)) == nil)
        destinations.namesChanged(isLocal: true)
        var lookUps = 0
        for index in 1...5 {
            let server = home("198.18.9.\(index)")
            let actions = destinations.holdName(server, online, now: time(0)) ?? []
            #expect(actions.first == .passNames(server))
            lookUps += actions.contains(.lookUp(server)) ? 1 : 0
        }
        #expect(lookUps == Destinations.backgroundMax)
        // A packet that waits makes it urgent.
        let first = home("198.18.9.1")
        #expect(destinations.hold(first, online, now: time(100)) == [.wake(first, at: time(2100))])
    }

    @Test("A full table drops what is new, and a mapping without ack lets packets go when the time is up")
    func bounds() {
        var destinations = destinations { $0.destinationsMax = 1 }
        _ = destinations.hold(hoa, served, now: time(0))
        let other = home("203.0.113.2")
        #expect(destinations.hold(other, served, now: time(0)) == [.drop(other)])
        _ = destinations.answered(hoa, now: time(40))
        #expect(destinations.due(hoa, served, now: time(10_000)).last == .begin(hoa, after: .seconds(10), isNotifiedInVain: false))
        #expect(destinations.hold(other, served, now: time(0)).first == .wake(other, at: time(2000)))
    }
}
