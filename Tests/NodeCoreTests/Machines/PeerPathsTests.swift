import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// By which path each peer is reached, without a node around it.
@Suite("Paths to peers") struct PeerPathsTests {
    private let own: HomeAddress = home("198.51.100.1")
    private let hoa: HomeAddress = home("203.0.113.1")
    private let wlan: MobileAddress = moa("192.0.2.10")
    private let lte: MobileAddress = moa("192.0.3.10")
    private let place: MobileAddress = moa("198.18.0.10")
    private let standby: MobileAddress = moa("198.18.0.11")
    private var pair: HomePair { HomePair(own: own, peer: hoa) }
    private var paths = PeerPaths(PathConfiguration())
    private var peers = PeerTable()
    private var addresses = UsableAddresses(NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: []))
    private var adoption = Adoption()

    init() throws { try enter(hoa) }

    private mutating func enter(_ peer: HomeAddress) throws {
        peers.enter(try Peers.peer(peer, at: [place.address, standby.address]))
        for moa in [place, standby] { peers.claim(moa, for: peer) }
    }

    /// What this node has: addresses of one family, the first one preferred, all of them in its record.
    private func side(_ places: MobileAddress...) -> PeerPaths.OwnSide {
        let record = places.isEmpty ? nil : TestAuthority(seed: 201).enrol(own, seed: 11).record(places.map(\.address), sequence: 1).mapping.record
        return PeerPaths.OwnSide(home: own, places: places, preferred: places, record: record)
    }

    private mutating func arrange(_ side: PeerPaths.OwnSide, of peer: HomeAddress? = nil, isKeptBack: Bool = false) -> PeerPaths.Arranged {
        paths.arrange(peer ?? hoa, in: &peers, side, addresses, &adoption, isKeptBack: isKeptBack)
    }

    private mutating func prove(_ moas: MobileAddress..., of peer: HomeAddress? = nil) {
        for moa in moas { peers.update(peer ?? hoa) { _ = $0.hear(.proved, at: moa, now: .zero) } }
    }

    private func rewritten(_ own: MobileAddress, _ peer: MobileAddress, because reason: Carriage.Reason = .preferred) -> IMTChange {
        .setOutbound(pair, .rewritten(MobilePair(own: own, peer: peer), because: reason))
    }

    @Test("Where packets are filtered to one place of a peer, they are rewritten to the others")
    mutating func filtered() throws {
        prove(place, standby)
        var side = side(wlan)
        side.filtered = [MobilePair(own: wlan, peer: standby)]
        #expect(arrange(side).changes.contains(rewritten(wlan, place)))
        let peer = try #require(peers[hoa])
        #expect(!paths.isClosed(to: peer, side, addresses))
        #expect(paths.all(to: peer, side, addresses) == [MobilePair(own: wlan, peer: place)])
    }

    @Test("Where packets are filtered to its first place, they go on to the one before until datagrams are known to arrive there")
    mutating func filteredFirst() throws {
        prove(standby)
        var side = side(wlan)
        #expect(arrange(side).changes.contains(rewritten(wlan, standby)))
        prove(place)
        side.filtered = [MobilePair(own: wlan, peer: place)]
        #expect(arrange(side).changes == [.setInbound(peer: place, pair)])
        let peer = try #require(peers[hoa])
        #expect(paths.isClosed(to: peer, side, addresses))
        side.answering = [place]
        #expect(arrange(side).changes == [.removeOutbound(pair)])
        #expect(peers[hoa].flatMap { paths.current(of: $0, side, addresses) } == nil)
    }

    @Test("The kernel has nothing of a place before it has proved itself, sends to the first that has, and takes packets from all")
    mutating func entries() {
        #expect(arrange(side(wlan)) == PeerPaths.Arranged())
        prove(standby)
        #expect(arrange(side(wlan)) == PeerPaths.Arranged(changes: [.setInbound(peer: standby, pair), rewritten(wlan, standby)], hasOpened: true))
        prove(place)
        #expect(arrange(side(wlan)) == PeerPaths.Arranged(changes: [.setInbound(peer: place, pair), rewritten(wlan, place)]))
        #expect(arrange(side(wlan)) == PeerPaths.Arranged() && peers[hoa].map { paths.switches(of: $0) } == 1)
        #expect(peers[hoa].flatMap { paths.installed(of: $0) } == MobilePair(own: wlan, peer: place))
        #expect(
            peers[hoa].map { paths.remove($0, home: own) } == [
                .removeOutbound(pair), .removeInbound(peer: place, own: own), .removeInbound(peer: standby, own: own),
            ])
    }

    @Test("While packets to a peer are kept back its path is not opened, but one that is open stays")
    mutating func keptBack() {
        prove(place)
        #expect(arrange(side(wlan), isKeptBack: true) == PeerPaths.Arranged(changes: [.setInbound(peer: place, pair)]))
        #expect(arrange(side(wlan)).hasOpened)
        #expect(arrange(side(wlan), isKeptBack: true) == PeerPaths.Arranged())
    }

    @Test("All that leave from an address that goes follow in one change, and who waited for an address is told of the first")
    mutating func moves() throws {
        let (second, waiting) = (home("203.0.113.2"), home("203.0.113.3"))
        try enter(second)
        for peer in [hoa, second] { _ = arrange(side(wlan), of: peer) }
        try enter(waiting)
        _ = arrange(side(), of: waiting)
        let moved = paths.move(own, to: [lte], gone: [wlan], isWhole: true, hasPreferences: false)
        #expect(moved.changes == [.moveOutbound(from: wlan, to: lte)] && moved.waiting == [waiting])
        #expect(paths.exceptions(from: moved, of: own, isWhole: true, hasPreferences: false, peers).isEmpty, "nobody is looked at alone")
        for peer in [hoa, second] { #expect(peers[peer].flatMap { paths.departure(of: $0, side(lte)) } == lte) }
        #expect(paths.move(own, to: [lte], gone: [], isWhole: false, hasPreferences: false) == PeerPaths.Moved())
        #expect(paths.move(own, to: [], gone: [lte], isWhole: true, hasPreferences: false) == PeerPaths.Moved(), "entries stay for the next address")
    }

    @Test("With overlap traffic stays on the old address until the peer is switched, which is behind so long as that works")
    mutating func behind() {
        prove(place)
        _ = arrange(side(wlan))
        #expect(paths.move(own, to: [lte, wlan], gone: [], isWhole: false, hasPreferences: false).changes.isEmpty)
        let uplinks = Uplinks(PathConfiguration())
        #expect(peers[hoa].map { paths.isBehind($0, side(lte, wlan), uplinks) } == true)
        #expect(peers[hoa].map { paths.isBehind($0, side(lte), uplinks) } == false, "the old address is gone")
        #expect(paths.prefer(hoa, in: &peers, side(lte, wlan)) == lte && paths.prefer(hoa, in: &peers, side(lte, wlan)) == nil)
        #expect(arrange(side(lte, wlan)).changes == [rewritten(lte, place)])
        #expect(peers[hoa].map { paths.isBehind($0, side(lte, wlan), uplinks) } == false)
    }

    @Test("A peer with a preference is looked at when its address goes, and leaves from the one that is the first for it")
    mutating func preference() throws {
        let other = home("203.0.113.2")
        try enter(other)
        prove(place)
        _ = arrange(PeerPaths.OwnSide(home: own, places: [wlan, lte], preferred: [lte, wlan], record: nil))
        _ = arrange(side(wlan, lte), of: other)
        let moved = paths.move(own, to: [wlan], gone: [lte], isWhole: false, hasPreferences: true)
        let exceptions = paths.exceptions(from: moved, of: own, isWhole: false, hasPreferences: true, peers)
        #expect(moved.changes == [.moveOutbound(from: lte, to: wlan)])
        #expect(exceptions.map(\.hoa) == [hoa] && exceptions.allSatisfy(\.isFollowing))
    }

    @Test("When the path in use is silent and another answers, this peer alone takes it, until the better one has answered for the hold-down")
    mutating func detour() {
        prove(place, standby)
        let side = side(wlan)
        _ = arrange(side)
        #expect(
            peers[hoa].map { paths.all(to: $0, side, addresses) } == [MobilePair(own: wlan, peer: place), MobilePair(own: wlan, peer: standby)])
        var monitor = PathMonitor(PathConfiguration())
        run(&monitor, until: 3000) { $0 == standby }
        let actions = paths.judge(hoa, in: &peers, side, addresses, monitor, now: .zero + .seconds(3))
        #expect(actions.contains(.count(\.detours)) && actions.suffix(2) == [.arrange(hoa), .watch(hoa)])
        #expect(paths.isOnDetour(hoa) && paths.detourSince(hoa) == .zero + .seconds(3))
        #expect(arrange(side).changes == [rewritten(wlan, standby)])
        #expect(paths.judge(hoa, in: &peers, side, addresses, monitor, now: .zero + .seconds(3)).isEmpty)
        run(&monitor, until: 60_000) { _ in true }
        #expect(paths.judge(hoa, in: &peers, side, addresses, monitor, now: .zero + .seconds(60)).contains(.arrange(hoa)))
        #expect(arrange(side).changes == [rewritten(wlan, place)] && !paths.isOnDetour(hoa))
    }

    private func run(_ monitor: inout PathMonitor, until end: Int64, answers: (MobileAddress) -> Bool) {
        for moa in [place, standby] {
            monitor.watch(PathMonitor.Path(wlan, .peer(hoa, moa)), until: .distantFuture, atOnce: true, now: monitor.next ?? .zero)
        }
        var sequence = UInt32(end)
        while let next = monitor.next, next <= .zero + .milliseconds(end) {
            let events = monitor.due(now: next) {
                sequence += 1
                return sequence
            }
            for case .probe(let path, let number) in events {
                if case .peer(_, let moa) = path.target, answers(moa) { monitor.answered(number, now: next + .milliseconds(10)) }
            }
        }
    }

    @Test("A peer with one path is not probed, one without a path on all, and a missed answer has all tried only if the path is in use")
    mutating func probes() throws {
        let uplinks = Uplinks(PathConfiguration())
        let single = home("203.0.113.9")
        peers.enter(try Peers.peer(single, at: [place.address]))
        #expect(paths.probes(of: try #require(peers[single]), side(wlan), addresses, uplinks).isEmpty)
        prove(standby, place)
        let all = [MobilePair(own: wlan, peer: place), MobilePair(own: wlan, peer: standby)]
        #expect(paths.probes(of: try #require(peers[hoa]), side(wlan), addresses, uplinks) == all.map { .path($0) })
        _ = arrange(side(wlan))
        let peer = try #require(peers[hoa])
        #expect(paths.probes(of: peer, side(wlan), addresses, uplinks) == [.path(all[0])])
        #expect(paths.probes(of: peer, side(lte, wlan), addresses, uplinks) == [.path(all[0]), .wayOut(wlan)], "it has not followed us yet")
        #expect(paths.alternatives(to: all[0], of: peer, side(wlan), addresses) == all)
        #expect(paths.alternatives(to: all[1], of: peer, side(wlan), addresses).isEmpty)
    }

    @Test("An earlier run's entry of a place that is being asked stays until it has answered; the others go")
    mutating func adopted() {
        let gone = moa("198.18.0.77")
        adoption.begin(outbound: [pair], inbound: [Arrival(peer: place, own: own): hoa, Arrival(peer: gone, own: own): hoa])
        #expect(arrange(side(wlan)) == PeerPaths.Arranged(changes: [.removeInbound(peer: gone, own: own)]) && adoption.hasEntries)
        prove(place)
        let arranged = arrange(side(wlan))
        #expect(arranged.changes == [.setInbound(peer: place, pair), rewritten(wlan, place)])
    }
}
