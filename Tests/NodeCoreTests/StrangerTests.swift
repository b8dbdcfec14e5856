import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Unknown sources") struct StrangerTests {
    typealias H = NodeHarness

    private enum Packet { case opening, segment, datagram }

    private func hold(_ node: NodeHarness, _ packet: Packet, from source: IPAddress = H.peerFirst) {
        node.event { core, now in
            core.heldInbound(from: source, to: H.first, opensConnection: packet == .opening, isSegment: packet == .segment, now: now)
        }
    }

    private func answer(_ node: NodeHarness, _ code: ResponseCode, _ record: CertifiedMapping? = nil, lifetime: UInt32 = 5) throws {
        let query = try node.take(.haQuery)
        guard case .haQuery(let body) = query.message.body else { return }
        node.answer(
            query,
            .haAnswer(
                HAAnswer(
                    code: code, cookie: node.cookie(query), moa: body.moa, mapping: record?.mapping, certificate: record?.certificate,
                    lifetime: code == .notFound ? lifetime : nil)))
    }

    private let release = NodeAction.releaseInbound(from: H.peerFirst, to: H.first)
    private let drop = NodeAction.dropInbound(from: H.peerFirst, to: H.first)

    @Test("The own IMS names it, the DNS finds that HoA's IMS, and only that one's confirmation enters it")
    func identified() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .segment)
        #expect(try node.take(.haQuery).to == node.ownIMS)
        node.clear()
        let second = try NodeHarness()
        try second.register()
        hold(second, .segment)
        let record = second.peerRecord()
        try answer(second, .ok, record)
        #expect(second.lookUps == [second.peer.hoa] && second.imt.inbound.isEmpty)
        second.foundPeer()
        #expect(second.imt.inbound.isEmpty)
        try second.answerQuery(record)
        #expect(second.imt.inbound == [second.path(H.first, H.peerFirst): second.pair])
        #expect(second.hasReleased(release))
    }

    @Test("A record of its IMS that does not list the source enters nothing")
    func notConfirmed() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .segment)
        try answer(node, .ok, node.peerRecord())
        node.foundPeer()
        try node.answerQuery(node.peerRecord([H.peerSecond]))
        #expect(node.imt.inbound.isEmpty && node.imt.outbound.isEmpty)
    }

    @Test("A packet that opens a connection passes as plain on not found, and at once if nobody else is asked")
    func opener() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .opening)
        #expect(!node.hasReleased(release))
        try answer(node, .notFound)
        #expect(node.hasReleased(release))
        #expect(node.imt.isPlain(H.peerFirst, now: node.now.monotonic))
        #expect(node.actions.count { if case .changeIMT = $0 { true } else { false } } == 1)
        node.advance(.milliseconds(5001))
        #expect(!node.imt.isPlain(H.peerFirst, now: node.now.monotonic))
    }

    @Test("Without an answer it waits 100 ms and passes, while what follows waits on")
    func openerSilence() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .opening)
        node.advance(.milliseconds(99))
        #expect(!node.hasReleased(release))
        node.advance(.milliseconds(2))
        #expect(node.hasReleased(.releaseOpeners(from: H.peerFirst, to: H.first)) && !node.hasReleased(release))
        #expect(!node.imt.isPlain(H.peerFirst, now: node.now.monotonic))
        node.clear()
        hold(node, .segment)
        node.advance(.seconds(1))
        #expect(!node.hasReleased(release))
    }

    @Test(
        "A packet that opens a connection waits two round trips to the IMS, at least 100 ms and less than a SYN's repetition",
        arguments: [(10, 100), (60, 120), (200, 400), (600, 950)])
    func openerWait(_ roundTrip: Int, _ wait: Int) throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        // The longest takes more than the update's first repetition.
        node.advance(.milliseconds(roundTrip))
        try node.answerUpdate()
        #expect(node.core.isRegistered)
        node.clear()
        hold(node, .opening)
        node.advance(.milliseconds(wait - 1))
        #expect(!node.hasReleased(.releaseOpeners(from: H.peerFirst, to: H.first)))
        node.advance(.milliseconds(2))
        #expect(node.hasReleased(.releaseOpeners(from: H.peerFirst, to: H.first)))
    }

    @Test("While a record that lists its source is being confirmed it waits longer, in the kernel too, and is then the peer's")
    func openerConfirmed() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .opening)
        try answer(node, .ok, node.peerRecord())
        #expect(node.imt.holdsOpeners(H.peerFirst, now: node.now.monotonic))
        node.advance(.milliseconds(1500))
        #expect(!node.hasReleased(release) && !node.hasReleased(.releaseOpeners(from: H.peerFirst, to: H.first)))
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        #expect(node.hasReleased(release))
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
    }

    @Test(
        "Not found is remembered for its lifetime and no longer: the next connection is asked about as the first one was", arguments: [1, 3, 5, 60])
    func notFoundLapses(_ lifetime: UInt32) throws {
        let node = try NodeHarness()
        try node.meet()
        let stranger = ip("192.0.2.200")
        hold(node, .opening, from: stranger)
        try answer(node, .notFound, lifetime: lifetime)
        #expect(node.imt.letsOpen(stranger, now: node.now.monotonic))
        let remembered = Duration.seconds(Int64(min(5, lifetime)))
        node.advance(remembered - .milliseconds(1))
        #expect(node.imt.letsOpen(stranger, now: node.now.monotonic))
        node.advance(.milliseconds(2))
        #expect(!node.imt.letsOpen(stranger, now: node.now.monotonic))
        node.clear()
        hold(node, .opening, from: stranger)
        #expect(node.count(.haQuery) == 1)
        #expect(!node.hasReleased(.releaseInbound(from: stranger, to: H.first)) && !node.hasReleased(.releaseOpeners(from: stranger, to: H.first)))
    }

    @Test("Any record that lists a source clears its being not found, and a peer that was forgotten and comes back is asked about")
    func comesBack() throws {
        let node = try NodeHarness { $0.peerIdleMax = .seconds(10) }
        try node.meet()
        hold(node, .opening, from: H.peerSecond)
        try answer(node, .notFound)
        #expect(node.imt.letsOpen(H.peerSecond, now: node.now.monotonic))
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        #expect(!node.imt.letsOpen(H.peerSecond, now: node.now.monotonic))
        node.advance(.seconds(60))
        #expect(node.imt.inbound.isEmpty)
        node.clear()
        hold(node, .opening, from: H.peerSecond)
        #expect(node.count(.haQuery) == 1)
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
    }

    @Test("A packet that opens a connection does not wait longer because a segment of its source came first")
    func openerBehindSegment() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .segment, from: H.peerSecond)
        node.advance(.milliseconds(50))
        hold(node, .opening, from: H.peerSecond)
        node.advance(.milliseconds(101))
        #expect(node.hasReleased(.releaseOpeners(from: H.peerSecond, to: H.first)))
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        // Until the IMS answers, further ones pass as they come.
        node.clear()
        hold(node, .opening, from: H.peerSecond)
        #expect(node.hasReleased(.releaseOpeners(from: H.peerSecond, to: H.first)))
    }

    @Test("Any other packet waits for the answer, at most 3 s, and is dropped without one")
    func otherSilence() throws {
        let node = try NodeHarness()
        try node.register()
        hold(node, .datagram)
        node.advance(.milliseconds(2900))
        #expect(!node.hasReleased(release) && !node.hasReleased(drop))
        node.advance(.milliseconds(200))
        #expect(node.hasReleased(drop) && !node.hasReleased(release))
    }

    @Test("On not found others wait for the answers of the peers' IMSs: one of the peers may have moved")
    func waitsForPeers() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(2))
        hold(node, .datagram, from: H.peerSecond)
        #expect(node.count(.maQuery, to: H.peerServer) == 1)
        try answer(node, .notFound)
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        try node.answerQuery(node.peerRecord([H.peerSecond]))
        #expect(node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        #expect(node.imt.inbound == [node.path(H.first, H.peerSecond): node.pair])
        #expect(!node.imt.isPlain(H.peerSecond, now: node.now.monotonic))
    }

    @Test("When no peer has moved there, the datagram passes as plain, after the moment that a moved peer's MA Notify may take")
    func plainDatagram() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(2))
        hold(node, .datagram, from: ip("192.0.2.200"))
        try node.answerQuery(node.peerRecord())
        #expect(!node.hasReleased(.releaseInbound(from: ip("192.0.2.200"), to: H.first)))
        try answer(node, .notFound)
        #expect(!node.hasReleased(.releaseInbound(from: ip("192.0.2.200"), to: H.first)))
        node.advance(.milliseconds(310))
        #expect(node.hasReleased(.releaseInbound(from: ip("192.0.2.200"), to: H.first)))
    }

    @Test("While there are peers, what opens a connection passes alone on not found: a moved peer's segments and datagrams wait for its MA Notify")
    func openerPassesAlone() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .opening, from: H.peerSecond)
        hold(node, .datagram, from: H.peerSecond)
        try answer(node, .notFound)
        #expect(node.hasReleased(.releaseOpeners(from: H.peerSecond, to: H.first)))
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        // The kernel must not let segments of its established connections pass either: the stack would reset them.
        #expect(!node.imt.isPlain(H.peerSecond, now: node.now.monotonic))
        hold(node, .segment, from: H.peerSecond)
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        #expect(node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
    }

    @Test("A TCP segment of nobody known is never given to the stack while there are peers, since that would reset a moved peer's connection")
    func segmentIsDropped() throws {
        let node = try NodeHarness()
        try node.meet()
        node.advance(.seconds(2))
        hold(node, .segment, from: H.peerSecond)
        try node.answerQuery(node.peerRecord())
        try answer(node, .notFound)
        node.advance(.seconds(5))
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        #expect(node.hasReleased(.dropInbound(from: H.peerSecond, to: H.first)))
        #expect(!node.imt.isPlain(H.peerSecond, now: node.now.monotonic))
    }

    @Test("Peers that were refreshed within the last second are not asked")
    func notAskedAgain() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .datagram, from: H.peerSecond)
        #expect(node.count(.maQuery, to: H.peerServer) == 0)
    }

    @Test("A record that lists a source clears its being remembered as plain")
    func clearsPlain() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .opening, from: H.peerSecond)
        try answer(node, .notFound)
        node.advance(.milliseconds(310))
        node.clear()
        // Remembered: another protocol's packet passes at once. But never in the kernel, where a segment would pass as well.
        hold(node, .datagram, from: H.peerSecond)
        #expect(node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
    }

    @Test("However many sources were found plain, a record that lists the latest clears that")
    func clearsLatest() throws {
        let node = try NodeHarness { $0.strangersMax = 16 }
        try node.register()
        let sources = (1...17).map { ip("198.18.1.\($0)") }
        for source in sources {
            hold(node, .opening, from: source)
            try answer(node, .notFound)
            #expect(node.imt.isPlain(source, now: node.now.monotonic))
        }
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([sources[16]]))
        #expect(!node.imt.isPlain(sources[16], now: node.now.monotonic) && node.imt.isPlain(sources[15], now: node.now.monotonic))
    }

    @Test("While there are peers, a segment of a source found plain still waits: it may be a peer that moved there since")
    func plainSegment() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .opening, from: H.peerSecond)
        try answer(node, .notFound)
        node.advance(.milliseconds(310))
        node.clear()
        hold(node, .segment, from: H.peerSecond)
        #expect(!node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
        #expect(node.count(.haQuery) == 1)
    }

    @Test("A flood of sources is asked about within the budget, makes no kernel transactions, and leaves questions for segments")
    func floodOfOpeners() throws {
        let node = try NodeHarness()
        try node.register()
        node.clear()
        for number in 0..<3000 {
            hold(node, .opening, from: ip("10.1.\(number / 250).\(number % 250 + 1)"))
            hold(node, .segment, from: ip("10.2.\(number / 250).\(number % 250 + 1)"))
        }
        #expect(node.count(.haQuery) <= 90)
        #expect(!node.actions.contains { if case .changeIMT = $0 { true } else { false } })
        #expect(node.core.status(now: node.now).strangers <= 4096)
        // A second later the segments' part of the budget is there again, whatever openers come.
        node.advance(.seconds(1))
        node.clear()
        for last in 1...200 { hold(node, .opening, from: ip("10.3.0.\(last)")) }
        hold(node, .segment, from: ip("10.4.0.1"))
        #expect(node.sent.contains { if case .haQuery(let query) = $0.message.body { query.moa == MobileAddress(ip("10.4.0.1")) } else { false } })
    }

    @Test("A held packet that becomes a peer's by a MA Notify is let in")
    func releasedByNotify() throws {
        let node = try NodeHarness()
        try node.meet()
        hold(node, .segment, from: H.peerSecond)
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        #expect(node.hasReleased(.releaseInbound(from: H.peerSecond, to: H.first)))
    }

    @Test("Strangers are bounded: beyond the bound openers pass and others are dropped, and nobody is asked")
    func bounded() throws {
        let node = try NodeHarness { $0.strangersMax = 2 }
        try node.register()
        for last in 1...2 { hold(node, .segment, from: ip("198.18.1.\(last)")) }
        node.clear()
        hold(node, .segment, from: ip("198.18.1.3"))
        hold(node, .opening, from: ip("198.18.1.4"))
        #expect(node.hasReleased(.dropInbound(from: ip("198.18.1.3"), to: H.first)))
        #expect(node.hasReleased(.releaseInbound(from: ip("198.18.1.4"), to: H.first)))
        #expect(node.sent.isEmpty)
    }

    @Test("A node that is not registered has nobody to ask: openers pass at once")
    func unregistered() throws {
        let node = try NodeHarness()
        node.links([H.first])
        hold(node, .opening)
        #expect(node.hasReleased(release))
    }
}
