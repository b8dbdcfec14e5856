import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Which peer is at which address, without a node around it.
@Suite("Checks of locators") struct LocatorChecksTests {
    private let hoa: HomeAddress = home("203.0.113.1")
    private let other: HomeAddress = home("203.0.113.2")
    private let place: MobileAddress = moa("198.18.0.10")
    private var checks: LocatorChecks
    private var peers = PeerTable()
    private var addresses: UsableAddresses
    private var adoption = Adoption()
    private let configuration: NodeCoreConfiguration

    init() throws {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        configuration.recheckedPerSecond = 2
        self.configuration = configuration
        checks = LocatorChecks(configuration)
        addresses = UsableAddresses(configuration)
        _ = addresses.arrange(
            [OwnLocator(moa("192.0.2.10"), interface: "if0", link: prefix("192.0.2.0/24"))], Uplinks(configuration.paths), now: .zero)
        for peer in [hoa, other] {
            peers.enter(try Peers.peer(peer, at: [place.address]))
            _ = checks.claim(peer, in: &peers)
        }
    }

    private var around: LocatorChecks.Surroundings { LocatorChecks.Surroundings(addresses: addresses, adoption: adoption) }
    private var target: Endpoint { Endpoint(place.address, port: SignalPort.node) }
    private func state(_ peer: HomeAddress) -> LocatorState? { peers[peer]?.locators[place]?.state }

    /// All that a valid proof of this peer causes.
    private mutating func prove(_ peer: HomeAddress, _ now: MonotonicTime = .zero) -> [LocatorChecks.Action] {
        checks.displace(from: place, by: peer, isAsked: { _ in false }, in: &peers, around, now: now)
            + checks.proved(place, of: peer, in: &peers, around, now: now)
    }

    @Test("A record's places are asked when they are learned, once, and only while there is an own address to ask from")
    mutating func learned() {
        let none = LocatorChecks.Surroundings(addresses: UsableAddresses(configuration), adoption: adoption)
        #expect(checks.askLearned(hoa, in: &peers, none, now: .zero).isEmpty && state(hoa) == .unchecked)
        #expect(
            checks.askLearned(hoa, in: &peers, around, now: .zero) == [
                .wake(hoa, place, at: .zero + LocatorState.checkMax), .ask(hoa, place, at: target),
            ])
        #expect(checks.isBeingChecked(place, peers))
        #expect(checks.askLearned(hoa, in: &peers, around, now: .zero).isEmpty)
        #expect(checks.askListed(hoa, peers, addresses) == [.ask(hoa, place, at: target)], "each poll asks again")
    }

    @Test("An address is the last one's that proved to be there; who was there before leaves the kernel first, and its IMS is asked")
    mutating func displaced() {
        #expect(prove(hoa) == [.stopWaking(hoa, place), .arrange(hoa), .heard(hoa)])
        #expect(prove(hoa) == [.stopWaking(hoa, place), .heard(hoa)], "nothing new")
        let actions = prove(other)
        #expect(peers.holder(of: place) == other && state(hoa)?.isRefused == true)
        #expect(
            actions.filter { if case .log = $0 { false } else { true } } == [
                .wake(hoa, place, at: time(1000)), .doubt(hoa), .arrange(hoa), .settle(place), .askServers(hoa), .stopWaking(other, place),
                .arrange(other), .heard(other),
            ])
    }

    @Test("Whoever proves an address that its record does not list proves nothing")
    mutating func unlisted() {
        _ = prove(hoa)
        let elsewhere = moa("198.18.0.99")
        #expect(checks.displace(from: elsewhere, by: other, isAsked: { _ in false }, in: &peers, around, now: .zero).isEmpty)
        #expect(checks.proved(elsewhere, of: other, in: &peers, around, now: .zero).isEmpty && peers.holder(of: place) == hoa)
    }

    @Test("An address that denies the HoA leaves the kernel, and the peer's IMS is asked unless it is already, within a budget")
    mutating func denied() {
        _ = prove(hoa)
        let actions = checks.denied(place, of: hoa, isAsked: false, in: &peers, around, now: .zero)
        #expect(actions.contains(.arrange(hoa)) && actions.contains(.askServers(hoa)) && actions.last == .settle(place))
        #expect(state(hoa)?.isRefused == true && peers.holder(of: place) == nil)
        func asks(isAsked: Bool) -> Bool {
            checks.denied(place, of: hoa, isAsked: isAsked, in: &peers, around, now: .zero).contains(.askServers(hoa))
        }
        #expect(!asks(isAsked: true) && asks(isAsked: false) && !asks(isAsked: false), "two a second")
    }

    @Test("Silence counts against a proof four times, and then the peer is no longer reached there")
    mutating func silence() {
        _ = prove(hoa)
        for _ in 1..<LocatorState.unansweredMax {
            #expect(checks.unanswered(place, of: hoa, in: &peers, around, now: .zero) == [.stopWaking(hoa, place)])
        }
        #expect(checks.unanswered(place, of: hoa, in: &peers, around, now: .zero).contains(.arrange(hoa)) && state(hoa)?.isRefused == true)
        #expect(checks.unanswered(place, of: hoa, in: &peers, around, now: .zero) == [.wake(hoa, place, at: time(1000))])
    }

    @Test(
        "A notice lets packets in while the address is checked, unless it is a neighbour's, a router's, a plain host's, another peer's or was so before"
    )
    mutating func noticed() {
        func isLetIn(_ change: (inout Self) -> Void = { _ in }, from source: Endpoint? = nil) -> Bool {
            var world = self
            _ = world.checks.askLearned(hoa, in: &world.peers, world.around, now: .zero)
            change(&world)
            let actions = world.checks.noticed(hoa, from: source ?? target, in: &world.peers, world.around, now: .zero)
            return actions.contains(.arrange(hoa)) && world.peers.holder(of: place) == hoa
        }
        #expect(isLetIn())
        #expect(!isLetIn(from: Endpoint(place.address, port: 4000)) && !isLetIn(from: Endpoint(ip("198.18.0.11"), port: SignalPort.node)))
        #expect(!isLetIn { $0.peers.update($0.hoa) { $0.guardPlace(moa("198.18.0.10")) } })
        #expect(!isLetIn { _ = $0.prove($0.other) })
        #expect(!isLetIn { _ = $0.addresses.surround(infrastructure: [$0.place.address], others: []) })
        #expect(
            !isLetIn { world in
                let near = OwnLocator(moa("198.18.0.200"), interface: "if1", link: prefix("198.18.0.0/24"))
                _ = world.addresses.arrange([near], Uplinks(world.configuration.paths), now: .zero)
            })
        let (pair, arrival) = (home("198.51.100.1"), place)
        let formerly = other
        #expect(!isLetIn { $0.adoption.begin(outbound: [], inbound: [Arrival(peer: arrival, own: pair): formerly]) })
    }

    @Test("Who does not prove itself in 3 s is refused and asked again after 1, 2, 4 s; without an own address the time does not count")
    mutating func inTime() {
        _ = checks.askLearned(hoa, in: &peers, around, now: .zero)
        let none = LocatorChecks.Surroundings(addresses: UsableAddresses(configuration), adoption: adoption)
        #expect(checks.due(place, of: hoa, in: &peers, none, now: time(3000)) == [.waitForAddress(hoa), .stopWaking(hoa, place)])
        #expect(state(hoa) == .unchecked)
        _ = checks.askLearned(hoa, in: &peers, around, now: time(3000))
        let actions = checks.due(place, of: hoa, in: &peers, around, now: time(6000))
        #expect(actions.contains(.arrange(hoa)) && actions.contains(.wake(hoa, place, at: time(7000))))
        #expect(
            checks.due(place, of: hoa, in: &peers, around, now: time(7000)) == [.wake(hoa, place, at: time(9000)), .ask(hoa, place, at: target)])
        #expect(checks.due(place, of: hoa, in: &peers, around, now: time(9000)).first == .wake(hoa, place, at: time(13_000)))
    }

    @Test("A refused place is asked out of turn when packets are there for it, unless it is being asked, and no more often than the budget allows")
    mutating func outOfTurn() {
        _ = prove(hoa)
        _ = prove(other)
        func ask(at moa: MobileAddress? = nil, isBeingAsked: Bool = false) -> Int {
            checks.askRefused(hoa, at: moa, peers, addresses, isBeingAsked: { _ in isBeingAsked }, now: .zero).count
        }
        #expect(ask(isBeingAsked: true) == 0 && ask(at: moa("198.18.0.11")) == 0)
        #expect(ask() == 1 && ask(at: place) == 1 && ask() == 0)
    }

    @Test("A place that is no longer listed is given up and forgotten, but one that was refused is remembered as such")
    mutating func givenUp() throws {
        _ = prove(other)
        _ = checks.denied(place, of: hoa, isAsked: true, in: &peers, around, now: .zero)
        let next = moa("198.18.0.20")
        for peer in [hoa, other] {
            let record = try Peers.offered(peer, at: [next.address], sequence: 2)
            peers.update(peer) { _ = $0.offer(record, isConfirmed: true, now: .zero) }
        }
        _ = checks.denied(place, of: hoa, isAsked: true, in: &peers, around, now: .zero)
        #expect(checks.claim(hoa, in: &peers) == [.stopAsking(hoa, place)] || state(hoa)?.isRefused != true)
        #expect(checks.claim(other, in: &peers) == [.stopAsking(other, place), .stopWaking(other, place)])
        #expect(peers.claimants(of: next) == [hoa, other] && peers.holder(of: place) == nil)
        #expect(checks.releaseAll(of: hoa, in: &peers).contains(.stopWaking(hoa, next)) && peers.claimants(of: next) == [other])
    }
}
