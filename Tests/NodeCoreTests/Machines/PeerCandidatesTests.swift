import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("A peer in our network") struct PeerCandidatesTests {
    private static let place = Endpoint(ip("10.1.0.11"), port: 6289)
    private static let own = ip("10.1.0.10")
    private static let way = MobilePair(own: MobileAddress(own), peer: MobileAddress(place.address))
    private static let cookie = ServerCookie(head: 1, hash: 2)
    private static let asked = PeerEndpoints.Asked(sequence: 7, challenge: Challenge(client: 1, server: cookie))

    /// It is offered, and has been asked.
    private func offered() -> PeerCandidates {
        var peer = PeerCandidates()
        _ = peer.use(time(0))
        #expect(peer.offered([Self.place], time(0)) == [.choose, .probe(Self.place, nil)])
        peer.began(Self.place, Self.asked)
        return peer
    }

    private func proven() -> PeerCandidates {
        var peer = offered()
        #expect(peer.gaveCookie(Self.cookie, isWanted: true, at: Self.place) == [.probe(Self.place, Self.asked)])
        #expect(peer.proved(Self.place, from: Self.own, time(10)) == [.choose])
        return peer
    }

    @Test("What is offered is asked three times, and used no sooner than it has answered what we had signed")
    func offers() {
        var peer = offered()
        var count = 1
        for moment in stride(from: 0, through: 5000, by: 10) {
            count += peer.takeDue(time(Int64(moment))).filter { if case .probe = $0 { true } else { false } }.count
        }
        #expect(count == 3 && peer.way { _ in true } == nil && peer.sources.isEmpty)
        peer = offered()
        // The answer to a probe that was not signed says nothing of whether it would take our packets.
        #expect(peer.proved(Self.place, from: Self.own, time(10)) == [])
        #expect(peer.way { _ in true } == nil)
        peer = proven()
        #expect(peer.way { $0 == Self.own } == Self.way && peer.way { _ in false } == nil)
    }

    @Test("A signature from there lets its packets in, and ours go only once it has answered")
    func heard() {
        var peer = PeerCandidates()
        #expect(peer.heard(Self.place, time(0)) == [.choose, .probe(Self.place, nil)])
        #expect(peer.sources == [MobileAddress(Self.place.address)] && peer.way { _ in true } == nil)
        // For as long as a proof lasts.
        #expect(peer.takeDue(time(119_999)).contains(.choose) == false && !peer.sources.isEmpty)
        #expect(peer.takeDue(time(120_000)).contains(.choose) && peer.sources.isEmpty)
    }

    @Test("While it is used it is asked anew after 15 s, and left when it does not answer")
    func renewal() {
        var peer = proven()
        peer.install(Self.way, sources: peer.sources)
        #expect(peer.use(time(14_000)).isEmpty)
        #expect(peer.use(time(15_011)) == [.probe(Self.place, nil)])
        #expect(peer.way { _ in true } == Self.way)
        var actions: [PeerCandidates.Action] = []
        for moment in stride(from: 15_011, through: 18_000, by: 10) { actions += peer.takeDue(time(Int64(moment))) }
        #expect(actions.contains(.choose) && peer.way { _ in true } == nil)
    }

    /// Lets time pass to a moment.
    private func pass(_ peer: inout PeerCandidates, to moment: Int64) {
        while let due = peer.due, due <= time(moment) { _ = peer.takeDue(due) }
    }

    @Test("When the peer moves, its place of before is the last way for 2 s, unless it shows itself there again")
    func peerMoves() {
        var peer = proven()
        #expect(peer.peerMoved(time(1000)) == [.choose, .probe(Self.place, nil)])
        #expect(peer.way { _ in true } == nil && peer.way(isLast: true) { _ in true } == Self.way && !peer.sources.isEmpty)
        pass(&peer, to: 2999)
        #expect(peer.way(isLast: true) { _ in true } == Self.way)
        pass(&peer, to: 3000)
        #expect(peer.way(isLast: true) { _ in true } == nil && peer.sources.isEmpty)
        peer = proven()
        _ = peer.peerMoved(time(1000))
        _ = peer.gaveCookie(ServerCookie(head: 2, hash: 2), isWanted: true, at: Self.place)
        #expect(peer.proved(Self.place, from: Self.own, time(1040)) == [.choose])
        pass(&peer, to: 20_000)
        #expect(peer.way { _ in true } == Self.way && peer.way(isLast: true) { _ in true } == nil)
    }

    @Test("A peer whose record has changed is told ours again, though it was a moment ago: it may have come into our network since")
    func comes() {
        var peer = proven()
        #expect(peer.listed([], time(0)).isEmpty && peer.offer(time(0)) && !peer.offer(time(1000)))
        _ = peer.listed([Self.place], time(1000))
        #expect(peer.offer(time(1001)) && !peer.offer(time(1002)))
    }

    @Test("When we move, what is on a link that we still have is the last way for 2 s, and taken from for 10 s; nothing else is kept")
    func ownMove() {
        var peer = proven()
        _ = peer.moved(keeping: { _ in true }, isFirst: { $0 == Self.own }, time(1000))
        #expect(peer.way { _ in true } == Self.way)
        _ = peer.moved(keeping: { _ in true }, isFirst: { _ in false }, time(1000))
        #expect(peer.way { _ in true } == nil && peer.way(isLast: true) { $0 == Self.own } == Self.way)
        // It has not heard of our move yet.
        _ = peer.heard(Self.place, time(1010))
        pass(&peer, to: 3000)
        #expect(peer.way(isLast: true) { _ in true } == nil && !peer.sources.isEmpty)
        pass(&peer, to: 11_000)
        #expect(peer.sources.isEmpty)
        peer = proven()
        _ = peer.moved(keeping: { _ in true }, isFirst: { _ in false }, time(1000))
        _ = peer.moved(keeping: { _ in false }, isFirst: { _ in false }, time(1100))
        #expect(peer.isEmpty)
    }

    @Test("A peer is told ours at once, three times without an answer, and then after 60 s, 120 s and so on of use; a returned offer waits 5 s")
    func told() {
        var offers = CandidateOffers()
        func offer(_ at: Int64) -> Bool { offers.offer(time(at)) }
        func isAskedAgain(_ isAnswered: Bool, _ at: Int64) -> Bool { offers.ended(isAnswered: isAnswered, time(at)) }
        func isReturned(_ at: Int64) -> Bool { offers.returned(time(at)) }
        #expect([offer(0), offer(1000)] == [true, false])
        #expect([isAskedAgain(false, 500), isAskedAgain(false, 1000), isAskedAgain(false, 1500)] == [true, true, false])
        #expect([offer(59_999), offer(60_000)] == [false, true])
        #expect(!isAskedAgain(true, 60_040))
        #expect([offer(179_999), offer(180_000)] == [false, true])
        #expect(!isAskedAgain(true, 180_040))
        #expect([isReturned(184_000), isReturned(185_000)] == [false, true])
    }
}
