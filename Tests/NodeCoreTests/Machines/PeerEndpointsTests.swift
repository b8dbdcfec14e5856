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

    @Test("A proof is renewed every 15 s while there are packets, and ends 25 s after the last one")
    func renewal() {
        var peer = proven([listed])
        let early = probes(&peer, to: listed, until: 14_900)
        _ = peer.use(after(14_900))
        let renewals = probes(&peer, to: listed, until: 15_000)
        #expect(early == [] && renewals == [15_000] && way(peer) == listed)
        let isNews = peer.proved(listed, from: own, after(15_040))
        #expect(isNews == [])
        _ = peer.takeDue(after(39_800))
        #expect(way(peer) == listed)
        _ = peer.takeDue(after(39_900))
        #expect(way(peer) == nil)
    }

    @Test("A used path whose renewal nobody answers is given up, and tried again after 60, 120 s")
    func silence() {
        var peer = proven([listed])
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
        #expect(lost == 17_600)
        #expect(series.prefix(3) == [15_000, 77_600, 200_200], "\(series)")
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
        _ = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: nil, at: listed)
        let actions = peer.moved(isUsable: { $0 == otherOwn }, start)
        #expect(actions == [.choose, .probe(listed, nil), .probe(second, nil)])
        #expect(peer.cookie(at: listed) == nil)
        #expect(way(peer) == second)
    }

    @Test("The first cookie that comes is signed at once, later ones in the next series")
    func cookies() {
        var peer = PeerEndpoints()
        _ = peer.list([listed], start)
        _ = peer.use(start)
        peer.began(listed, asked)
        let first = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: shown, at: listed)
        #expect(first == [.probe(listed, asked)])
        #expect(peer.seenAs(at: listed) == shown)
        let same = peer.gaveCookie(ServerCookie(head: 3, hash: 4), seenAs: nil, at: listed)
        let later = peer.gaveCookie(ServerCookie(head: 4, hash: 4), seenAs: nil, at: listed)
        let elsewhere = peer.gaveCookie(ServerCookie(head: 4, hash: 4), seenAs: nil, at: shown)
        #expect(same == [] && later == [] && elsewhere == [])
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

    @Test("Endpoints that a peer shows are bounded; the one heard longest ago goes")
    func bound() {
        var peer = proven([listed])
        for port in 1...20 { _ = peer.proved(Endpoint(shown.address, port: UInt16(port)), from: own, after(Int64(port))) }
        #expect(Set(peer.endpoints.map(\.port)) == [40_000, 17, 18, 19, 20])
    }
}

extension PeerEndpoints.Action {
    fileprivate func isProbe(of endpoint: Endpoint) -> Bool { if case .probe(endpoint, _) = self { true } else { false } }
}
