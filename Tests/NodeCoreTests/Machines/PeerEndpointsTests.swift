import IMTPlan
import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("The ways to a peer that are not rewritten") struct PeerEndpointsTests {
    private let listed = Endpoint(ip("198.51.100.7"), port: 40_000)
    private let second = Endpoint(ip("2001:db8::7"), port: 40_000)
    private let shown = Endpoint(ip("198.51.100.8"), port: 50_000)
    private let own = ip("192.0.2.10")
    private let otherOwn = ip("192.0.2.11")
    private let start = VirtualClock().time
    private let asked = PeerEndpoints.Asked(sequence: 5, challenge: Challenge(client: 7, server: ServerCookie(head: 1, hash: 2)))

    private func after(_ milliseconds: Int64) -> MonotonicTime { start + .milliseconds(milliseconds) }

    private func way(_ peer: PeerEndpoints) -> Endpoint? { peer.way { _ in true }?.endpoint }

    /// With these listed, probed and proven.
    private func proven(_ endpoints: [Endpoint]) -> PeerEndpoints {
        var peer = PeerEndpoints()
        _ = peer.list(endpoints, start)
        _ = peer.use(start)
        for endpoint in endpoints { _ = peer.proved(endpoint, from: own, start) }
        return peer
    }

    /// When probes go to an endpoint within a time, in milliseconds.
    ///
    /// - Parameter isUsed: packets go on meanwhile.
    private func probes(_ peer: inout PeerEndpoints, to endpoint: Endpoint, until end: Int64, isUsed: Bool = false) -> [Int64] {
        var times: [Int64] = []
        while let due = peer.due, due <= after(end) {
            if isUsed { _ = peer.use(due) }
            for action in peer.takeDue(due) where action.isProbe(of: endpoint) { times.append((due - start).millisecondsSaturated) }
        }
        return times
    }

    @Test("With packets for the peer it is probed at 0, 50, 100, 200, 400, 800 and 1600 ms")
    func schedule() {
        var peer = PeerEndpoints()
        peer.setOtherWay(true)
        _ = peer.list([listed], start)
        let first = peer.use(start)
        #expect(first == [.probe(listed, nil)])
        let later = probes(&peer, to: listed, until: 10_000)
        #expect(later == [50, 100, 200, 400, 800, 1600])
        #expect(way(peer) == nil)
    }

    @Test("All probes of a series ask the same, since an answer may take longer than the next probe")
    func series() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.use(start)
        peer.began(listed, asked)
        let next = peer.takeDue(after(50))
        #expect(next == [.probe(listed, asked)])
        #expect(peer.asked(at: listed) == asked && peer.sequences == [5])
    }

    @Test("What is proven from the first own address goes before what the peer showed to another, and what is in use stays until something is")
    func preferredWay() {
        var peer = proven([listed])
        _ = peer.proved(second, from: otherOwn, preferring: nil, start)
        #expect(peer.way({ _ in true }, preferring: own) == PeerEndpoints.Way(own: own, endpoint: listed))
        peer.install(PeerEndpoints.Way(own: own, endpoint: listed), start)
        #expect(peer.way({ _ in true }, preferring: ip("192.0.2.12")) == PeerEndpoints.Way(own: own, endpoint: listed))
        #expect(peer.way({ _ in true }, preferring: otherOwn) == PeerEndpoints.Way(own: otherOwn, endpoint: second))
    }

    @Test("Packets wait, and no endpoint answers for 400 ms: the peer may not have heard of us")
    func unheard() {
        var peer = PeerEndpoints()
        _ = peer.list([listed, second], start)
        _ = peer.use(start)
        var told: [Int64] = []
        while let due = peer.due, due <= after(2000) {
            for action in peer.takeDue(due) where action == .unheard { told.append((due - start).millisecondsSaturated) }
        }
        #expect(told == [400])
    }

    @Test("Packets go to an endpoint only when it is proven, from the own address that it was proven from, and without more probes")
    func provenWay() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.use(start)
        let news = peer.proved(listed, from: own, after(40))
        #expect(news == [.choose])
        #expect(peer.way { $0 == own } == PeerEndpoints.Way(own: own, endpoint: listed))
        #expect(peer.way { $0 == otherOwn } == nil)
        let again = peer.proved(listed, from: own, after(41))
        #expect(again == [])
        let more = probes(&peer, to: listed, until: 15_000)
        #expect(more == [])
    }

    @Test("What works from the first own address stays there when the peer asks at another one that we list, and comes there from elsewhere")
    func preferredOwn() {
        var peer = proven([listed])
        let other = peer.proved(listed, from: otherOwn, preferring: own, start)
        #expect(other == [] && peer.way { _ in true }?.own == own)
        let better = peer.proved(listed, from: otherOwn, preferring: otherOwn, start)
        #expect(better == [.choose] && peer.way { _ in true }?.own == otherOwn)
    }

    @Test("A proof is renewed after 60 s while there are packets, and ends 25 s after the last one")
    func renewal() {
        var peer = proven([listed])
        var early: [Int64] = []
        for second in stride(from: Int64(10), through: 50, by: 10) {
            _ = peer.use(after(second * 1000))
            early += probes(&peer, to: listed, until: second * 1000 + 9900)
        }
        let renewals = probes(&peer, to: listed, until: 60_000)
        #expect(early == [] && renewals == [60_000] && way(peer) == listed)
        let isNews = peer.proved(listed, from: own, after(60_040))
        #expect(isNews == [])
        _ = peer.takeDue(after(74_900))
        #expect(way(peer) == listed)
        _ = peer.takeDue(after(75_000))
        #expect(way(peer) == nil)
    }

    @Test("The way in use that gives no sign is probed on, left after two probes, and used again when it answers; elsewhere packets go meanwhile")
    func signs() throws {
        var peer = proven([listed, second])
        let pair = HomePair(own: home("198.51.100.1"), peer: home("203.0.113.1"))
        peer.install(peer.way { _ in true }, start)
        peer.accept(from: peer.sources)
        #expect(peer.installed?.endpoint == listed && peer.isWatched)
        var happened: [(Int64, PeerEndpoints.Action)] = []
        for now in stride(from: Int64(100), through: 1500, by: 50) {
            var actions = peer.takeDue(after(now))
            if now % 100 == 0 { actions += peer.counted(PathUse(pair, far: listed, sent: UInt64(now), heard: 7, came: 7), after(now)) }
            happened += actions.map { (now, $0) }
        }
        #expect(happened.prefix(2).map(\.0) == [700, 700] && happened.prefix(2).map(\.1) == [.suspectLoss, .probe(listed, nil)], "\(happened)")
        #expect(happened.contains { $0.0 == 900 && $0.1 == .left(listed) }, "\(happened)")
        #expect(way(peer) == second)
        #expect(peer.sources.contains(listed), "what comes from there is the peer's all the same")
        let back = peer.proved(listed, from: own, after(1600))
        #expect(back == [.choose] && way(peer) == listed)
    }

    @Test("Counts of another endpoint than the one in use say nothing")
    func otherCounts() throws {
        var peer = proven([listed, second])
        let pair = HomePair(own: home("198.51.100.1"), peer: home("203.0.113.1"))
        peer.install(peer.way { _ in true }, start)
        peer.accept(from: peer.sources)
        for now in stride(from: Int64(100), through: 3000, by: 100) {
            let actions = peer.counted(PathUse(pair, far: second, sent: UInt64(now), heard: 7, came: 7), after(now)) + peer.takeDue(after(now))
            #expect(actions == [])
        }
    }

    @Test("A second after the last packet of a peer that has sent some, a loss is suspected, once")
    func suspicion() throws {
        var peer = proven([listed])
        let pair = HomePair(own: home("198.51.100.1"), peer: home("203.0.113.1"))
        peer.install(peer.way { _ in true }, start)
        peer.accept(from: peer.sources)
        var suspected: [Int64] = []
        for now in stride(from: Int64(100), through: 6000, by: 100) {
            let came = UInt64(min(now, 2000))
            for action in peer.counted(PathUse(pair, far: listed, sent: 1, heard: came, came: came), after(now)) where action == .suspectLoss {
                suspected.append(now)
            }
        }
        #expect(suspected == [3000])
    }

    @Test("A used path whose renewal nobody answers is given up, and tried again after 60, 120 s")
    func silence() {
        var peer = proven([listed])
        peer.setOtherWay(true)
        var series: [Int64] = []
        var lost: Int64?
        var now: Int64 = 0
        while now < 400_000 {
            now += 100
            let actions = (now % 1000 == 0 ? peer.use(after(now)) : []) + peer.takeDue(after(now))
            for action in actions {
                if action == .choose, way(peer) == nil { lost = lost ?? now }
                if action.isProbe(of: listed), peer.state(of: listed)?.isFirstOfSeries == true { series.append(now) }
            }
        }
        #expect(lost == 62_600)
        #expect(series.prefix(3) == [60_000, 122_600, 245_200], "\(series)")
    }

    @Test("While no way to the peer is known, and packets wait, it is tried every few seconds, up to a minute apart")
    func alone() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        var series: [Int64] = []
        for now in stride(from: Int64(0), through: 300_000, by: 100) {
            let actions = (now % 1000 == 0 ? peer.use(after(now)) : []) + peer.takeDue(after(now))
            for action in actions where action.isProbe(of: listed) && peer.state(of: listed)?.isFirstOfSeries == true { series.append(now) }
        }
        #expect(series.prefix(4) == [0, 3600, 8200, 14_800], "\(series)")
        #expect(zip(series, series.dropFirst()).allSatisfy { $1 - $0 <= 62_600 }, "\(series)")
    }

    @Test("Who tells where it is, without packets for it, is probed at 0, 100 and 400 ms at two endpoints, and not again")
    func courtesy() {
        var peer = PeerEndpoints()
        let first = peer.list([listed, second, shown], start)
        #expect(first == [.choose, .probe(listed, nil), .probe(second, nil)])
        let later = probes(&peer, to: listed, until: 60_000)
        #expect(later == [100, 400])
        #expect(peer.state(of: shown) == .unproven && peer.due == nil)
    }

    @Test("Where the peer proves itself without having listed it goes before what it lists, and is forgotten with its proof")
    func learned() {
        var peer = proven([listed])
        let news = peer.proved(shown, from: own, start)
        #expect(news == [.choose])
        #expect(way(peer) == shown)
        #expect(peer.sources == [listed, shown])
        _ = peer.takeDue(after(25_000))
        #expect(peer.endpoints == [listed])
    }

    @Test("A record ends trust in what it no longer lists, and keeps what the peer has shown")
    func newRecord() {
        var peer = proven([listed])
        _ = peer.proved(shown, from: own, start)
        let actions = peer.list([second], start)
        #expect(actions.first == .choose && actions.contains { $0.isProbe(of: second) })
        #expect(peer.endpoints == [second, shown])
        let again = peer.list([second], start)
        #expect(again == [])
        #expect(way(peer) == shown, "nothing else is proven yet")
        _ = peer.proved(second, from: own, start)
        #expect(way(peer) == second, "what a newer record does not list goes last")
        _ = peer.proved(shown, from: own, start)
        #expect(way(peer) == shown, "until it is proven again")
    }

    @Test("After a move of ours everything is probed again, with cookies asked for anew; what went by an address that still works goes on")
    func ownMove() {
        var peer = proven([listed, second])
        _ = peer.proved(second, from: otherOwn, start)
        _ = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: nil, isWanted: false, at: listed)
        let actions = peer.moved(isUsable: { $0 == otherOwn }, start)
        #expect(actions == [.choose, .probe(listed, nil), .probe(second, nil)])
        #expect(peer.cookie(at: listed) == nil)
        #expect(way(peer) == second)
    }

    @Test("What was proven from an own address that is gone, while the first stays, is probed from another at once")
    func ownLeft() {
        var peer = proven([listed, second])
        _ = peer.proved(second, from: otherOwn, start)
        let none = peer.left(isUsable: { _ in true }, start)
        #expect(none == [])
        let actions = peer.left(isUsable: { $0 == own }, after(10))
        #expect(actions == [.choose, .probe(second, nil)])
        #expect(peer.isProven(listed) && !peer.isProven(second))
        // It is asked once.
        let again = peer.left(isUsable: { $0 == own }, after(10))
        #expect(again == [])
    }

    @Test("Without packets, what was proven from an own address that is gone is not believed any more, and not probed")
    func ownLeftIdle() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.proved(listed, from: otherOwn, start)
        let actions = peer.left(isUsable: { $0 == own }, after(26_000))
        #expect(actions == [.choose] && way(peer) == nil && peer.isUntried)
    }

    @Test("When our servers tell where others see us, the peer's answer that may be on its way is still good, and so is its cookie")
    func seenElsewhere() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.use(start)
        peer.began(listed, asked)
        let actions = peer.seenElsewhere(after(40))
        #expect(actions == [.choose, .probe(listed, asked)], "in quick succession from now on")
        let cookie = ServerCookie(head: 3, hash: 4)
        let signed = peer.gaveCookie(cookie, seenAs: shown, isWanted: true, at: listed)
        #expect(signed == [.probe(listed, asked)])
        let again = peer.seenElsewhere(after(45))
        #expect(again == [.choose, .probe(listed, peer.asked(at: listed))] && peer.cookie(at: listed) == cookie)
        #expect(peer.asked(at: listed)?.sequence == asked.sequence)
        // The answer may be to the first probe, 46 ms ago: it says nothing of how long the way is.
        _ = peer.proved(listed, from: own, after(46))
        peer.install(peer.way { _ in true }, after(46))
        #expect(way(peer) == listed)
        // What has been proven before is asked anew.
        let later = peer.seenElsewhere(after(2000))
        #expect(later == [.choose, .probe(listed, nil)] && way(peer) == listed)
    }

    @Test("The first cookie that comes is signed at once, later ones in the next series")
    func cookies() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.use(start)
        peer.began(listed, asked)
        let first = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: shown, isWanted: false, at: listed)
        #expect(first == [.probe(listed, asked)])
        #expect(peer.seenAs(at: listed) == shown)
        let same = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: nil, isWanted: false, at: listed)
        let later = peer.gaveCookie(ServerCookie(head: 4, hash: 4), seenAs: nil, isWanted: false, at: listed)
        let elsewhere = peer.gaveCookie(ServerCookie(head: 4, hash: 4), seenAs: nil, isWanted: false, at: shown)
        #expect(same == [] && later == [] && elsewhere == [])
        // One that comes because the peer has seen none for where we are now is signed at once, twice at most.
        let wanted = peer.gaveCookie(ServerCookie(head: 5, hash: 4), seenAs: nil, isWanted: true, at: listed)
        let again = peer.gaveCookie(ServerCookie(head: 6, hash: 4), seenAs: nil, isWanted: true, at: listed)
        #expect(wanted.count == 1 && again == [])
        _ = peer.gaveCookie(ServerCookie(head: 4, hash: 4), seenAs: nil, isWanted: false, at: listed)
        #expect(peer.cookie(at: listed) == ServerCookie(head: 4, hash: 4))
    }

    @Test("Who probes us from an endpoint of its record is probed back, unless it is proven; from elsewhere not")
    func probedBack() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = probes(&peer, to: listed, until: 5000)
        let unknown = peer.probed(from: shown, after(5000))
        let known = peer.probed(from: listed, after(5000))
        #expect(unknown == [] && known == [.probe(listed, nil)])
        _ = peer.proved(listed, from: own, start)
        let provenOne = peer.probed(from: listed, start)
        #expect(provenOne == [])
    }

    @Test("Something in the peer's name from elsewhere has that place asked three times; it is the peer's when it has signed, and else forgotten")
    func called() {
        var peer = proven([listed])
        let asked = peer.called(from: Callers.Place(endpoint: shown, own: otherOwn), start)
        #expect(asked == [.probe(shown, nil)] && peer.own(asking: shown) == otherOwn && peer.isBeingProbed(shown))
        #expect(!peer.sources.contains(shown) && way(peer) == listed)
        let more = (1...5).map { peer.called(from: Callers.Place(endpoint: Endpoint(shown.address, port: $0), own: own), start) }
        #expect(more.count { !$0.isEmpty } == PeerEndpoints.callersMax - 1)
        var signing = peer
        _ = signing.proved(shown, from: otherOwn, after(40))
        #expect(signing.sources.contains(shown) && way(signing) == shown)
        #expect(probes(&peer, to: shown, until: 5000) == [100, 400])
        #expect(peer.endpoints == [listed])
    }

    @Test("Endpoints that a peer shows are bounded; the one heard longest ago goes")
    func bound() {
        var peer = proven([listed])
        for port in 1...20 { _ = peer.proved(Endpoint(shown.address, port: UInt16(port)), from: own, after(Int64(port))) }
        #expect(Set(peer.endpoints.map(\.port)) == [40_000, 17, 18, 19, 20])
    }

    /// It has moved, and its packets come by a relay; what it had sent before is under way, or waits in a queue.
    @Test("Where a peer was until just now its packets are taken from for a while, if there are any")
    func lasting() throws {
        func left() -> PeerEndpoints {
            var peer = proven([listed, second])
            peer.linger(start)
            #expect(peer.lasting.isEmpty)
            _ = peer.list([second], start)
            peer.linger(start)
            #expect(peer.lasting == [listed] && peer.sources == [second])
            return peer
        }
        var peer = left()
        let end = start + OwnBindings.lingerTime
        #expect(try #require(peer.due) <= end)
        #expect(peer.takeDue(after(1000)).allSatisfy { $0 != .choose })
        peer.linger(after(1000))
        #expect(peer.lasting == [listed])
        let ended = peer.takeDue(end)
        #expect(ended.contains(.choose) && peer.lasting.isEmpty)
        peer.linger(end)
        #expect(peer.lasting.isEmpty)

        var again = left()
        _ = again.list([second, listed], after(1000))
        again.linger(after(1000))
        #expect(again.lasting.isEmpty && Set(again.sources) == [listed, second])

        // An idle node has no other deadlines than before.
        var idle = proven([listed])
        idle.linger(start)
        _ = idle.takeDue(start + PeerEndpoints.idleMax)
        _ = idle.list([], start + PeerEndpoints.idleMax)
        idle.linger(start + PeerEndpoints.idleMax)
        #expect(idle.lasting.isEmpty)
    }

    /// Packets would follow it to a network that it left long ago, as far as proofs still hold.
    @Test("Where it was by an earlier record goes last, though that is reached from the first own address and its new place is not")
    func outdatedLast() {
        var peer = proven([listed])
        _ = peer.list([second], start)
        _ = peer.proved(listed, from: own, start)
        #expect(peer.way({ _ in true }, preferring: own)?.endpoint == listed)
        _ = peer.list([shown], after(1))
        _ = peer.proved(shown, from: otherOwn, after(2))
        #expect(peer.way({ _ in true }, preferring: own) == PeerEndpoints.Way(own: otherOwn, endpoint: shown))
        #expect(peer.way({ $0 == own }, preferring: own) == PeerEndpoints.Way(own: own, endpoint: listed))
    }

    @Test("No more of those than there is room for")
    func lastingBound() {
        let many = (1...40).map { Endpoint(ip("198.18.1.\($0)"), port: 6289) }
        var peer = proven(many)
        peer.linger(start)
        _ = peer.list([listed], start)
        peer.linger(start)
        #expect(peer.lasting.count == LingeringSources.sourcesMax)
    }
}

extension PeerEndpoints.Action {
    fileprivate func isProbe(of endpoint: Endpoint) -> Bool { if case .probe(endpoint, _) = self { true } else { false } }
}
