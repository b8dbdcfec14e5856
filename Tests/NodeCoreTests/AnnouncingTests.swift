import MATTesting
import Testing

@testable import MATCore
@testable import MATSignal
@testable import NodeCore

@Suite("Telling peers of a move") struct AnnouncingTests {
    private func time(_ milliseconds: Int64) -> MonotonicTime { .zero + .milliseconds(milliseconds) }

    /// Places in the table of peers, which only the table makes.
    private func slots(_ count: Int) throws -> [(slot: PeerSlot, hoa: HomeAddress)] {
        var table = PeerTable()
        return try (1...count).map { index in
            let hoa = home("203.0.113.\(index)")
            table[hoa] = try Peers.peer(hoa)
            return (try #require(table.slot(of: hoa)), hoa)
        }
    }

    @Test("Peers are told in the order of their last traffic, all of them before the first IMS is asked")
    func order() throws {
        let peers = try slots(3)
        var backlog = Backlog()
        backlog.begin(zip(peers, [10, 30, 30]).map { Backlog.Entry(slot: $0.slot, hoa: $0.hoa, lastTraffic: time($1)) })
        var steps: [Backlog.Step] = []
        while let step = backlog.next(opens: .zero, isFull: false, now: time(0)) { steps.append(step) }
        let order = [1, 2, 0].map { peers[$0].slot }
        #expect(steps == order.map { .tellPeer($0) } + order.map { .askServers($0) })
        #expect(backlog.next(opens: .zero, isFull: false, now: time(0)) == nil)
    }

    @Test("The work pauses while the pace is closed or too much is under way, and goes on where it was")
    func pause() throws {
        let peers = try slots(2)
        var backlog = Backlog()
        backlog.begin(peers.map { Backlog.Entry(slot: $0.slot, hoa: $0.hoa, lastTraffic: time(0)) })
        #expect(backlog.next(opens: time(40), isFull: false, now: time(0)) == .pause(until: time(40)))
        #expect(backlog.next(opens: time(0), isFull: true, now: time(0)) == .pause(until: time(0) + Backlog.tick))
        #expect(backlog.next(opens: time(0), isFull: false, now: time(0)) == .tellPeer(peers[0].slot))
        #expect(backlog.next(opens: time(40), isFull: false, now: time(0)) == .pause(until: time(40)))
        #expect(backlog.next(opens: time(40), isFull: false, now: time(40)) == .tellPeer(peers[1].slot))
    }

    @Test("What two moves want of one HoA's peers is gathered once")
    func gather() {
        var backlog = Backlog()
        #expect(backlog.gather() == nil)
        let own = home("198.51.100.1")
        backlog.add(.tellPeer, of: own)
        backlog.add([.tellServer, .subscribe], of: own)
        #expect(backlog.gather() == [own: [.tellPeer, .tellServer, .subscribe]])
        #expect(backlog.gather() == nil)
    }

    @Test("An IMS gets eight HA Notifies at once and eight a second; the others wait in order")
    func queue() {
        var queues = NotifyQueues(countMax: 10)
        let server = ip("192.88.2.1")
        let peers = (1...10).map { home("203.0.113.\($0)") }
        let admissions = peers.map { queues.admit($0, to: server, now: time(0)) }
        #expect(admissions.prefix(8).allSatisfy { $0 == .now })
        #expect(admissions.suffix(2) == [.later(time(125)), .later(time(125))])
        #expect(queues.next(for: server, now: time(124)) == nil && queues.due(server, now: time(124)) == time(125))
        #expect(queues.next(for: server, now: time(125)) == peers[8])
        #expect(queues.admit(peers[8], to: server, now: time(125)) == .now)
        #expect(queues.next(for: server, now: time(125)) == nil && queues.due(server, now: time(125)) == time(250))
        #expect(queues.next(for: server, now: time(250)) == peers[9] && queues.due(server, now: time(250)) == nil)
    }

    @Test(
        "After code 7 an IMS is left alone for as long as it says, 60 s at most, and without a time for 2 s",
        arguments: [(nil, 2), (7, 7), (9000, 60)] as [(UInt32?, Int64)])
    func pauses(_ lifetime: UInt32?, _ seconds: Int64) {
        var queues = NotifyQueues(countMax: 10)
        let (server, peer) = (ip("192.88.2.1"), home("203.0.113.1"))
        #expect(queues.pause(server, for: lifetime, then: peer, now: time(0)) == nil, "nothing was sent to it")
        _ = queues.admit(peer, to: server, now: time(0))
        #expect(queues.pause(server, for: lifetime, then: peer, now: time(0)) == time(seconds * 1000))
        #expect(queues.admit(home("203.0.113.2"), to: server, now: time(0)) == .later(time(seconds * 1000)))
        #expect(queues.next(for: server, now: time(seconds * 1000)) == peer)
    }

    @Test("Of more IMSs than there is room for, those that are idle are forgotten; beyond that no queue is kept")
    func many() {
        var queues = NotifyQueues(countMax: 1)
        let peer = home("203.0.113.1")
        for _ in 0..<8 { _ = queues.admit(peer, to: ip("192.88.2.1"), now: time(0)) }
        for _ in 0..<20 { #expect(queues.admit(peer, to: ip("192.88.2.2"), now: time(0)) == .now) }
        #expect(queues.admit(peer, to: ip("192.88.2.1"), now: time(0)) == .later(time(125)))
        #expect(queues.next(for: ip("192.88.2.1"), now: time(5000)) == peer)
        for _ in 0..<8 { #expect(queues.admit(peer, to: ip("192.88.2.2"), now: time(5000)) == .now) }
        #expect(queues.admit(peer, to: ip("192.88.2.2"), now: time(5000)) == .later(time(5125)))
    }

    @Test("A pace gives a burst at once, then one turn an interval, each to one only")
    func pace() {
        var pace = Pace(perSecond: 10, burst: 3)
        #expect((0..<5).map { _ in pace.turn(time(1000)) } == [1000, 1000, 1000, 1100, 1200].map(time))
        #expect(!pace.isOpen(time(1000)) && pace.opens(time(1000)) == time(1300) && pace.isOpen(time(1300)))
        #expect(!pace.isIdle(time(1400)) && pace.isIdle(time(1500)))
        // After a pause there is a burst again, and no more than one.
        #expect((0..<4).map { _ in pace.turn(time(9000)) } == [9000, 9000, 9000, 9100].map(time))
    }

    @Test("What goes at once keeps the rest waiting, but not for more than 10 s")
    func charge() {
        var pace = Pace(perSecond: 10, burst: 1)
        pace.charge(time(0))
        #expect(pace.opens(time(0)) == time(100))
        for _ in 0..<1000 { pace.charge(time(0)) }
        #expect(pace.opens(time(0)) == time(10_000))
    }

    @Test("HA Notify for one peer is repeated after 2, 4, 8 s and so on, never more than 1024")
    func failures() throws {
        var peer = try Peers.peer(home("203.0.113.1"))
        #expect((0..<12).map { _ in peer.notifyFailed() } == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024].map { .seconds($0) })
        for _ in 0..<300 { _ = peer.notifyFailed() }
        #expect(peer.notifyFailures == .max)
    }
}

/// Peers as their IMSs tell of them.
enum Peers {
    static func peer(_ hoa: HomeAddress, at places: [IPAddress] = [ip("198.18.0.10")], sequence: UInt64 = 1, isConfirmed: Bool = true) throws -> Peer
    {
        Peer(try offered(hoa, at: places, sequence: sequence), hoa: hoa, isConfirmed: isConfirmed, now: .zero)
    }

    static func offered(_ hoa: HomeAddress, at places: [IPAddress] = [ip("198.18.0.10")], sequence: UInt64 = 1) throws -> OfferedRecord {
        let identity = TestAuthority(seed: 202).enrol(hoa, seed: 12)
        let certified = identity.record(places, sequence: sequence)
        return OfferedRecord(certified.mapping, under: certified.certificate)
    }
}
