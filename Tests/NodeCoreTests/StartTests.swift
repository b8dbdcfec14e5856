import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Start of communication") struct StartTests {
    typealias H = NodeHarness

    /// A registered node that an application has made send to the peer, with the peer's IMS found.
    private func asking() throws -> NodeHarness {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        #expect(node.lookUps == [node.peer.hoa])
        node.foundPeer()
        return node
    }

    @Test("MA Query and HA Notify go at once; the query asks for a subscription and is padded so that its answer fits")
    func atOnce() throws {
        let node = try asking()
        let query = try node.take(.maQuery)
        let notify = try node.take(.haNotify)
        #expect(query.to == node.peerIMS && notify.to == node.peerIMS)
        #expect(query.query?.subscribe == 300)
        #expect((380...420).contains(query.octetsCount))
        #expect(notify.haNotify?.hoa == node.own.hoa && notify.haNotify?.peerHoA == node.peer.hoa)
        #expect(notify.haNotify?.record?.mapping.record.locators.map(\.moa.address) == [H.first])
    }

    @Test("Packets go when both have been answered, and not before", arguments: [true, false])
    func both(queryFirst: Bool) throws {
        let node = try asking()
        let release = NodeAction.releaseOutbound(to: node.peer.hoa.address)
        if queryFirst { try node.answerQuery(node.peerRecord()) } else { try node.acknowledgeHANotify() }
        #expect(!node.hasReleased(release) && node.outbound == nil)
        if queryFirst { try node.acknowledgeHANotify() } else { try node.answerQuery(node.peerRecord()) }
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        // The entry is there before the packets go.
        let change = node.actions.lastIndex { if case .changeIMT = $0 { true } else { false } }
        let going = node.actions.firstIndex(of: release)
        #expect(try #require(change) < #require(going))
    }

    @Test("Ack codes 2, 4, 7 and 8 do not keep the packets back", arguments: [ResponseCode.notFound, .notAuthoritative, .tryLater, .upstreamFailed])
    func codes(code: ResponseCode) throws {
        let node = try asking()
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify(code)
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        // What the peer's IMS does not tell it, we do.
        #expect(node.count(.maNotify, to: H.peerFirst) == 2, "to get acquainted, and for what the IMS did not take")
    }

    @Test("HA Notify without success is repeated later, since the peer can't know us")
    func repeatsNotify() throws {
        let node = try asking()
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify(.tryLater)
        node.clear()
        node.advance(.milliseconds(2001))
        #expect(node.count(.haNotify) == 1)
        try node.acknowledgeHANotify()
        node.advance(.seconds(100))
        #expect(node.count(.haNotify) == 0)
    }

    @Test("An IMS that has never answered gets two HA Notifies")
    func twoTries() throws {
        let node = try asking()
        node.advance(.seconds(8))
        #expect(node.count(.haNotify) == 2)
    }

    @Test("The round trip to an IMS that answers the second try counts from the first, after a move from the first from there")
    func roundTripAcrossMove() throws {
        let node = try asking()
        node.advance(.milliseconds(200))
        node.links([H.second])
        node.clear()
        node.advance(.milliseconds(260))
        try node.answerQuery(node.peerRecord())
        #expect(node.core.servers.roundTrip(H.peerServer) == .milliseconds(260))
    }

    @Test("The subscription that an answer to a query without cookie can't grant is asked for again with the cookie")
    func subscribesWithCookie() throws {
        let node = try asking()
        try node.answerQuery(node.peerRecord(), subscribe: nil)
        let again = try node.take(.maQuery, to: H.peerServer)
        #expect(again.query?.subscribe == 300 && again.message.cookie.server != nil && again.query?.padding == nil)
        #expect(again.query?.certID == node.peer.certificate.id)
        node.answer(again, .maAnswer(MAAnswer(code: .ok, cookie: node.cookie(again), hoa: node.peer.hoa, mapping: node.peerRecord().mapping)))
        #expect(node.count(.maQuery, to: H.peerServer) == 0)
    }

    @Test("Absence in the DNS makes a destination plain, for as long as it says and at most 300 s")
    func absent() throws {
        for (lifetime, kept) in [(Duration.seconds(20), Duration.seconds(20)), (.seconds(3600), .seconds(300))] {
            let node = try NodeHarness()
            try node.register()
            node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
            node.event { core, now in core.lookedUp(node.peer.hoa, .absent(lifetime: lifetime), now: now) }
            #expect(node.actions.contains(.changeIMT([.setPlain(node.peer.hoa.address, lifetime: kept)])))
            #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        }
    }

    @Test("Code 2 makes a new destination plain")
    func notFound() throws {
        let node = try asking()
        let query = try node.take(.maQuery)
        node.answer(query, .maAnswer(MAAnswer(code: .notFound, cookie: node.cookie(query), hoa: node.peer.hoa, lifetime: 30)))
        #expect(node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic))
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
    }

    @Test("A record that does not verify never makes a destination plain and enters nothing")
    func notVerified() throws {
        let forger = TestAuthority(seed: 99)
        let records = [
            forger.enrol(home("203.0.113.1"), seed: 12).record([H.peerFirst], sequence: VirtualClock.wallAtStart),
            TestIdentity(hoa: home("203.0.113.1"), key: makeKey(99), certificate: try asking().peer.certificate).record(
                [H.peerFirst], sequence: VirtualClock.wallAtStart),
            try asking().peerAuthority.enrol(home("203.0.113.2"), seed: 12).record([H.peerFirst], sequence: VirtualClock.wallAtStart),
        ]
        for record in records {
            let node = try asking()
            try node.answerQuery(record)
            try node.acknowledgeHANotify()
            #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
            #expect(!node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic))
            #expect(node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
            #expect(node.hasLogged("is not believed"))
        }
    }

    @Test("Without an answer of the IMS packets are dropped within 10 s, not leaked")
    func silence() throws {
        let node = try asking()
        node.advance(.seconds(11))
        #expect(node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
        #expect(!node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic))
    }

    @Test("Destinations being resolved are bounded")
    func bounded() throws {
        let node = try NodeHarness { $0.destinationsMax = 2 }
        try node.register()
        for last in 1...3 { node.event { core, now in core.heldOutbound(to: ip("203.0.113.\(last)"), now: now) } }
        #expect(node.lookUps.count == 2)
        #expect(node.hasReleased(.dropOutbound(to: ip("203.0.113.3"))))
    }

    @Test("A withdrawn mapping is no plain destination: its packets wait")
    func withdrawn() throws {
        let node = try asking()
        try node.answerQuery(node.peerRecord([]))
        try node.acknowledgeHANotify()
        #expect(!node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic))
        #expect(!node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
    }
}
