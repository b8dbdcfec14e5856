import IMTPlan
import MATTesting
import Testing

@testable import MATSignal
@testable import NodeCore

@Suite("What is kept of peers") struct PeersTests {
    private let hoa: HomeAddress = home("203.0.113.1")
    private let own: HomeAddress = home("198.51.100.1")
    private let first: MobileAddress = moa("198.18.0.10")
    private let second: MobileAddress = moa("198.18.0.11")
    private var pair: HomePair { HomePair(own: own, peer: hoa) }

    // MARK: The table

    @Test("Peers come and go by HoA, and a place that is free is given to the next")
    func table() throws {
        var table = PeerTable()
        let hoas = (1...200).map { home("203.0.113.\($0)") }
        for hoa in hoas { table.enter(try Peers.peer(hoa)) }
        let v6: HomeAddress = home("2001:db8::1")
        table.enter(try Peers.peer(v6, at: [ip("2001:db8:1::1")]))
        #expect(table.count == 201 && table.count(of: .ipv4) == 200 && table.count(of: .ipv6) == 1)
        let slot = try #require(table.slot(of: hoas[99]))
        #expect(table[slot]?.hoa == hoas[99])
        table.remove(hoas[99])
        #expect(table[slot] == nil && table.slot(of: hoas[99]) == nil && table.count == 200)
        let next: HomeAddress = home("198.18.77.1")
        table.enter(try Peers.peer(next))
        #expect(table.slot(of: next) == slot && table[slot]?.hoa == next)
        #expect(Set(table.slots.compactMap { table[$0]?.hoa }) == Set(hoas).subtracting([hoas[99]]).union([next, v6]))
    }

    @Test("Many peers may say that they are at one address, at most one holds it, and who has proved it is entered even beyond the bound")
    func claims() throws {
        var table = PeerTable()
        let hoas = (1...20).map { home("203.0.113.\($0)") }
        for hoa in hoas {
            table.enter(try Peers.peer(hoa))
            table.claim(first, for: hoa)
        }
        #expect(table.claimants(of: first) == Array(hoas.prefix(PeerTable.claimantsMax)) && table.holder(of: first) == nil)
        table.claim(first, for: hoas[19], isCertain: true)
        table.update(hoas[19]) { _ = $0.hear(.proved, at: first, now: .zero) }
        #expect(table.holder(of: first) == hoas[19] && table.claimants(of: first).contains(hoas[19]))
        table.release(first, of: hoas[19])
        #expect(table.holder(of: first) == nil && table.claimants(of: first).count == PeerTable.claimantsMax)
        table.claim(second, for: hoas[0])
        #expect(table.claimants(of: second).isEmpty, "its record does not list that")
    }

    @Test("The peer that is due first comes first, whatever was set before, and one that is removed does not come")
    func schedule() throws {
        var table = PeerTable()
        let hoas = (1...50).map { home("203.0.113.\($0)") }
        for (index, hoa) in hoas.enumerated() {
            table.enter(try Peers.peer(hoa))
            table.schedule(hoa, at: time(Int64((index * 37) % 50)))
        }
        table.schedule(hoas[7], at: time(1000))
        table.schedule(hoas[9], at: .zero)
        table.remove(hoas[20])
        #expect(table.nextDue == time(0))
        var order: [HomeAddress] = []
        var times: [MonotonicTime] = []
        while let due = table.nextDue, let hoa = table.takeDue(due) {
            times.append(due)
            order.append(hoa)
        }
        #expect(Set(order) == Set(hoas).subtracting([hoas[20]]) && order.count == 49 && order.last == hoas[7])
        #expect(times == times.sorted())
        #expect(table.takeDue(time(9000)) == nil)
    }

    // MARK: Own paths and server sets

    @Test("All peers that left from an address follow it by number, and their moves are counted for all together")
    func ownPaths() {
        var paths = OwnPaths()
        let number = paths.number(of: first, own) { [] }
        #expect(number != OwnPaths.none && paths[number] == first && paths.number(of: first, own) { [] } == number)
        let other = paths.number(of: second, own) { [] }
        #expect(paths.addresses(of: own) == [first, second] && paths.addresses(of: hoa).isEmpty)
        paths.move(first, to: second, of: own)
        #expect(paths[number] == second && paths.moves(number) == 1 && paths.moves(other) == 0)
        #expect(paths.numbers(of: second, own) == [number, other], "two numbers mean the same address now")
        #expect(paths[OwnPaths.none] == nil && paths[200] == nil && paths.moves(200) == 0)
    }

    @Test("When all 255 numbers are taken, those that no peer has are given anew; and if all are in use there is none")
    func numbers() {
        var paths = OwnPaths()
        for index in 0..<255 { _ = paths.number(of: MobileAddress(IPAddress(ipv4: 0xC000_0200 + UInt32(index))), own) { [] } }
        let new = moa("192.0.9.1")
        #expect(paths.number(of: new, own) { Set(1...255) } == OwnPaths.none)
        #expect(paths.number(of: new, own) { Set(1...255).subtracting([77, 78]) } == 77)
        #expect(paths[77] == new && paths[78] == nil && paths[76] != nil)
    }

    @Test("Equal sets of IMSs stand once, for as long as somebody uses them, and their numbers are given anew")
    func serverSets() {
        var sets = ServerSets()
        let (a, b) = (content(1), content(2))
        let number = sets.enter(a)
        #expect(sets.enter(a) == number && sets.enter(b) != number && sets.count == 2)
        sets.leave(number)
        #expect(sets[number] == a)
        sets.leave(number)
        #expect(sets[number] == nil && sets.count == 1)
        sets.leave(number)
        sets.leave(ServerSets.none)
        #expect(sets.enter(content(3)) == number && sets[number] == content(3))
    }

    private func content(_ number: UInt8) -> ServerSets.Content {
        ServerSets.Content(endpoints: [Endpoint(ip("192.88.2.\(number)"), port: SignalPort.ims)], keys: [])
    }

    private func set(_ number: UInt8, expires: MonotonicTime, isValidated: Bool = false) -> ServerSet {
        ServerSet(endpoints: content(number).endpoints, keys: [], expires: expires, isValidated: isValidated)
    }

    @Test("IMSs go with an HoA when it becomes a peer and when it is one no more; what packets wait for is forgotten last")
    func knownServers() throws {
        var known = KnownServers(othersMax: 2)
        known.keep(set(1, expires: time(100_000)), of: hoa) { _ in false }
        var table = PeerTable()
        table.enter(try Peers.peer(hoa))
        known.enter(hoa, in: &table)
        var peer = try #require(table[hoa])
        #expect(known.servers(of: hoa, peer)?.endpoints == content(1).endpoints && known.servers(of: hoa, nil) == nil)
        known.keep(set(2, expires: time(200_000)), of: &peer)
        #expect(known.servers(of: hoa, peer)?.endpoints == content(2).endpoints)
        known.leave(peer) { _ in false }
        #expect(known.servers(of: hoa, nil)?.expires == time(200_000))
        // Two more, where there is room for two in all: the first would expire later, but nobody waits for it.
        let (awaited, third): (HomeAddress, HomeAddress) = (home("203.0.113.2"), home("203.0.113.3"))
        known.keep(set(3, expires: time(1000)), of: awaited) { _ in false }
        known.keep(set(4, expires: time(1000)), of: third) { $0 == awaited }
        #expect(known.servers(of: hoa, nil) == nil && known.servers(of: awaited, nil) != nil && known.servers(of: third, nil) != nil)
        known.expire(now: time(500))
        #expect(known.servers(of: third, nil)?.expires == time(500))
    }

    // MARK: Records

    @Test("A newer record is in force at once; until its IMS has confirmed it there is one to go back to")
    func provisional() throws {
        var peer = try Peers.peer(hoa, at: [first.address], sequence: 1)
        #expect(!peer.isProvisional && peer.earlier == nil)
        #expect(peer.offer(try Peers.offered(hoa, at: [second.address], sequence: 5), isConfirmed: false, now: time(0)) == .newer(hasMoved: true))
        #expect(peer.isProvisional && peer.earlier?.version.sequence == 1 && peer.lists(second) && peer.locators.has(first, .earlier))
        // A second one keeps the last that was confirmed.
        #expect(peer.offer(try Peers.offered(hoa, at: [second.address], sequence: 6), isConfirmed: false, now: time(0)) == .newer(hasMoved: false))
        #expect(peer.earlier?.version.sequence == 1)
        #expect(
            peer.offer(try Peers.offered(hoa, at: [second.address], sequence: 6), isConfirmed: true, now: time(0)) == .same(isNewlyConfirmed: true))
        #expect(!peer.isProvisional && peer.earlier == nil && !peer.lists(first))
    }

    @Test("A record that its IMS contradicts is refuted after 3 s, unless its place answers; then the newest of the older ones is in force")
    func contradicted() throws {
        var peer = try Peers.peer(hoa, at: [first.address], sequence: 1)
        _ = peer.offer(try Peers.offered(hoa, at: [second.address], sequence: 5), isConfirmed: false, now: time(0))
        let older = try Peers.offered(hoa, at: [first.address], sequence: 3)
        #expect(peer.offer(older, isConfirmed: false, now: time(1000)) == .older(contradicts: false))
        #expect(peer.offer(older, isConfirmed: true, now: time(1000)) == .older(contradicts: true))
        #expect(peer.offer(older, isConfirmed: true, now: time(2000)) == .older(contradicts: true) && peer.contradictedSince == time(1000))
        #expect(!peer.isRefuted(now: time(3999)) && peer.isRefuted(now: time(4000)))
        _ = peer.hear(.proved, at: second, now: .zero)
        #expect(!peer.isRefuted(now: time(4000)))
        peer.undo()
        #expect(!peer.isProvisional && peer.version.sequence == 3 && peer.lists(first))
    }

    @Test("Another record of the same version changes nothing")
    func conflicting() throws {
        var peer = try Peers.peer(hoa, at: [first.address], sequence: 1)
        #expect(peer.offer(try Peers.offered(hoa, at: [second.address], sequence: 1), isConfirmed: true, now: time(9000)) == .conflicting)
        #expect(peer.lists(first) && peer.refreshed == .zero)
    }

    // MARK: The kernel's entries, polls, early notices, an earlier run

    @Test("Entries are accepted first, then sent to, and taken away last; what an earlier run left goes with them")
    func entries() {
        let path = { (own: String, peer: MobileAddress) in MobilePair(own: moa(own), peer: peer) }
        let before = PeerEntries(inbound: [first], outbound: path("192.0.2.10", first))
        let after = PeerEntries(inbound: [second], outbound: path("192.0.2.10", second))
        #expect(
            after.changes(from: before, of: pair, because: .preferred, stale: [], isOutboundStale: false) == [
                .setInbound(peer: second, pair), .setOutbound(pair, .rewritten(path("192.0.2.10", second), because: .preferred)),
                .removeInbound(peer: first, own: own),
            ])
        #expect(after.changes(from: after, of: pair, because: .preferred, stale: [second], isOutboundStale: true).isEmpty)
        #expect(
            PeerEntries().changes(from: before, of: pair, because: .preferred, stale: [], isOutboundStale: false) == [
                .removeOutbound(pair), .removeInbound(peer: first, own: own),
            ])
        #expect(
            PeerEntries().changes(from: PeerEntries(), of: pair, because: .preferred, stale: [first], isOutboundStale: true) == [
                .removeInbound(peer: first, own: own), .removeOutbound(pair),
            ])
    }

    @Test("A peer is polled in the configured time, sooner if its record expires, and later if there are too many")
    func polls() throws {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        configuration.pollsPerSecond = 10
        var polls = PollTimes(configuration)
        let peer = try Peers.peer(hoa)
        // Its record of 600 s was issued at 1 ms.
        func interval(_ count: Int, at seconds: Int64) -> Duration {
            polls.interval(for: peer, among: count, Now(monotonic: .zero + .seconds(seconds), wallMilliseconds: UInt64(seconds * 1000)))
        }
        #expect(interval(1, at: 0) == .seconds(30))
        polls.isTranslated = true
        #expect(interval(1, at: 0) == .seconds(25), "so that a translator which forgets after 30 s lets pushes in")
        polls.isTranslated = false
        #expect(interval(1, at: 570) == .milliseconds(20_001) && interval(1, at: 590) == .seconds(5))
        #expect(
            interval(1000, at: 0) == .seconds(100) && interval(1000, at: 400) == .milliseconds(190_001),
            "without packets for that long, twice as long")
    }

    @Test("Of notices that came too early the newest of each source counts, for 3 s")
    func early() throws {
        var notices = EarlyNotices(countMax: 2)
        let (one, two) = (try Peers.offered(hoa, sequence: 1).mapping, try Peers.offered(hoa, sequence: 2).mapping)
        let sources = (1...3).map { Endpoint(ip("198.18.0.\($0)"), port: SignalPort.node) }
        notices.enter(one, from: sources[0], now: time(0))
        notices.enter(two, from: sources[0], now: time(10))
        #expect(notices.sources(of: one, now: time(10)).isEmpty && notices.sources(of: two, now: time(3010)) == [sources[0]])
        #expect(notices.sources(of: two, now: time(3011)).isEmpty)
        notices.enter(two, from: sources[1], now: time(20))
        notices.enter(two, from: sources[2], now: time(30))
        #expect(notices.sources(of: two, now: time(30)) == [sources[1], sources[2]] && notices.count == 2)
    }

    @Test("An earlier run's entries stay until their peer is found, or nobody claims them")
    func adoption() {
        var adoption = Adoption()
        let other = HomePair(own: own, peer: home("203.0.113.2"))
        adoption.begin(outbound: [pair, other], inbound: [Arrival(peer: first, own: own): hoa, Arrival(peer: second, own: own): hoa])
        #expect(adoption.hasEntries && adoption.peers == [hoa, other.peer] && adoption.counts.outbound == 2 && adoption.counts.inbound == 1)
        adoption.ask(for: adoption.peers)
        #expect([adoption.next(), adoption.next(), adoption.next()] == [hoa, other.peer, nil] && !adoption.isAsking)
        #expect(adoption.isOthers(first, than: other.peer) && !adoption.isOthers(first, than: hoa))
        #expect(adoption.claimOutbound(pair) && !adoption.claimOutbound(pair))
        #expect(adoption.giveUpInbound(pair, keeping: [second]) == [first])
        #expect(adoption.giveUpInbound(pair, keeping: [second]) == [])
        #expect(adoption.due(isUndecided: { $0 == other.peer }, isHeld: { _ in false }) == .goOn && adoption.next() == other.peer)
        #expect(
            adoption.due(isUndecided: { _ in false }, isHeld: { _ in false })
                == .end([.removeOutbound(other), .removeInbound(peer: second, own: own)]))
        #expect(!adoption.hasEntries && adoption.due(isUndecided: { _ in true }, isHeld: { _ in false }) == .end([]))
    }
}
