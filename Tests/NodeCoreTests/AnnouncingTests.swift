import MATTesting
import Testing

@testable import MATCore
@testable import MATSignal
@testable import NodeCore

@Suite("Telling peers of a move") struct AnnouncingTests {
    private let hoas = (1...3).map { home("203.0.113.\($0)") }
    private let moves = FamilyPair<UInt32>(ipv4: 2, ipv6: 2)

    /// Peers of one family, with their last traffic at these times.
    private func peers(_ traffic: Int64...) throws -> PeerTable {
        var table = PeerTable()
        for (hoa, last) in zip(hoas, traffic) {
            table.enter(try Peers.peer(hoa))
            table.update(hoa) { _ = $0.counted(UInt64(last) + 1, now: time(last)) }
        }
        return table
    }

    private func rest(_ backlog: inout Backlog, _ peers: inout PeerTable) -> [Backlog.Step] {
        var steps: [Backlog.Step] = []
        while let step = backlog.next(in: &peers, moves: moves, opens: .zero, isFull: false, now: time(0)) { steps.append(step) }
        return steps
    }

    @Test("Peers are told in the order of their last traffic, all of them before the first IMS is asked")
    func order() throws {
        var (peers, backlog) = (try peers(1000, 3000, 3000), Backlog())
        backlog.add([.tellPeer, .tellServer], in: .ipv4)
        backlog.add(.subscribe, in: .ipv4)
        let order = [1, 2, 0].map { hoas[$0] }
        #expect(
            rest(&backlog, &peers) == order.map { .tellPeer($0) } + order.map { .askServers($0, [.tellServer, .subscribe]) },
            "what two moves want is done once")
        #expect(rest(&backlog, &peers).isEmpty)
    }

    @Test("The work pauses while the pace is closed or too much is under way, and goes on where it was")
    func pause() throws {
        var (peers, backlog) = (try peers(0, 0), Backlog())
        backlog.add(.tellPeer, in: .ipv4)
        func next(opens: Int64, isFull: Bool = false, at now: Int64 = 0) -> Backlog.Step? {
            backlog.next(in: &peers, moves: moves, opens: time(opens), isFull: isFull, now: time(now))
        }
        #expect(next(opens: 40) == .pause(until: time(40)))
        #expect(next(opens: 0, isFull: true) == .pause(until: time(0) + Backlog.tick))
        #expect(next(opens: 0) == .tellPeer(hoas[0]) && next(opens: 40) == .pause(until: time(40)))
        #expect(next(opens: 40, at: 40) == .tellPeer(hoas[1]))
    }

    @Test("Who is gone, knows our move, or talks to another of our HoAs is passed over; what is still owed is not forgotten by a second move")
    func passedOver() throws {
        var (peers, backlog) = (try peers(0, 0, 0), Backlog())
        let v6: HomeAddress = home("2001:db8::1")
        peers.enter(try Peers.peer(v6, at: [ip("2001:db8:1::1")]))
        peers.update(hoas[0]) { $0.tell { $0.acked(2) } }
        backlog.add([.tellPeer, .subscribe], in: .ipv4)
        #expect(backlog.next(in: &peers, moves: moves, opens: .zero, isFull: false, now: time(0)) == .tellPeer(hoas[1]))
        peers.remove(hoas[2])
        backlog.add(.tellPeer, in: .ipv6)
        #expect(rest(&backlog, &peers) == [.tellPeer(v6)] + [hoas[0], hoas[1]].map { .askServers($0, .subscribe) })
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
    func failures() {
        var telling = Telling()
        #expect((0..<12).map { _ in telling.failed() } == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 1024, 1024].map { .seconds($0) })
        for _ in 0..<300 { _ = telling.failed() }
        #expect(telling.failed() == .seconds(1024))
        telling.acked(2)
        #expect(telling.failed() == .seconds(2), "who has acked starts anew")
    }

    @Test("Who has acked our last record has only its subscription to be renewed, and each duty is done once")
    func duties() {
        var telling = Telling()
        telling.owe([.tellPeer, .tellServer, .subscribe], of: 2)
        #expect(!telling.knows(2) && telling.begin(.tellPeer) == .tellPeer && telling.begin(.tellPeer) == [])
        #expect(telling.begin([.tellServer, .subscribe]) == [.tellServer, .subscribe] && telling.duties == [])
        telling.acked(2)
        telling.owe([.tellPeer, .tellServer, .subscribe], of: 2)
        #expect(telling.knows(2) && !telling.knows(3) && telling.duties == .subscribe)
        telling.owe(.tellPeer, of: 3)
        #expect(telling.duties == [.tellPeer, .subscribe], "what an earlier move owed is still owed")
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
