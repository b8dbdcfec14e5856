import MATSignal
import MATTesting
import NodeCore
import Testing

/// MA Notify: anyone may send it, so each refusal must leave everything as it was, and say why.
@Suite("MA Notify") struct NotifyTests {
    typealias H = NodeHarness

    /// Delivers a record and expects that nothing changes.
    private func expectRefusal(
        _ code: ResponseCode, _ reason: String?, of record: (NodeHarness) throws -> CertifiedMapping,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws {
        let node = try NodeHarness()
        try node.meet()
        let before = (node.imt.outbound, node.imt.inbound)
        let refused = try record(node)
        node.notify(refused, from: node.peerNode)
        let ack = try node.takeAck()
        #expect(ack.code == code, sourceLocation: sourceLocation)
        #expect(node.imt.outbound == before.0 && node.imt.inbound == before.1, sourceLocation: sourceLocation)
        if let reason { #expect(node.hasLogged(reason), "\(node.logs)", sourceLocation: sourceLocation) }
        node.advance(.seconds(1))
        #expect(node.imt.outbound == before.0 && node.imt.inbound == before.1, sourceLocation: sourceLocation)
    }

    @Test("Refused records of one moment are told by few lines of the log, however many there are, and all are counted")
    func bounded() throws {
        let node = try NodeHarness()
        try node.meet()
        for number in 0..<200 as Range<UInt64> {
            node.notify(node.peer.record([H.peerSecond], sequence: node.wall - 901_000 + number), from: node.peerNode)
        }
        #expect(node.core.counters.recordsRefused == 200)
        #expect(node.logs.count { $0.hasPrefix("warning") && $0.contains("is refused") } == 5, "\(node.logs)")
        node.clear()
        node.advance(.seconds(2))
        for number in 0..<200 as Range<UInt64> {
            node.notify(node.peer.record([H.peerSecond], sequence: node.wall - 901_000 + number), from: node.peerNode)
        }
        #expect(node.logs.count { $0.hasPrefix("warning") && $0.contains("is refused") } == 2)
    }

    @Test("A locator of the other family in a record without endpoints is skipped, and the others are used")
    func otherFamily() throws {
        let node = try NodeHarness()
        try node.meet()
        node.notify(node.peerRecord([try #require(IPAddress("2001:db8:77::1")), H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        #expect(try node.takeAck().code == .ok)
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        #expect(node.imt.inbound.keys.allSatisfy { $0.peer.isIPv4 })
    }

    @Test("An IMS that was silent when it was to tell a new destination of us is asked again after 2, 4, 8 s, not with the poll after 30 s")
    func againSoon() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        // Its two tries are over before the mapping comes.
        node.advance(.milliseconds(800))
        #expect(node.count(.haNotify) == 2)
        try node.answerQuery(node.peerRecord())
        #expect(node.outbound != nil && node.count(.haNotify) == 2)
        node.clear()
        node.advance(.milliseconds(2100))
        #expect(node.count(.haNotify) > 0)
        node.advance(.seconds(8))
        node.clear()
        node.advance(.milliseconds(4100))
        #expect(node.count(.haNotify) > 0, "and again, since that was in vain too")
        try node.acknowledgeHANotify()
        node.clear()
        node.advance(.seconds(14))
        #expect(node.count(.haNotify) == 0)
    }

    @Test("A peer's newer record moves its traffic at once; the ack brings a cookie")
    func moves() throws {
        let node = try NodeHarness()
        try node.meet()
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        let ack = try node.takeAck()
        #expect(ack.code == .ok && ack.hoa == node.peer.hoa && ack.cookie.client == 5 && ack.cookie.server != nil)
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        // Still provisional: what comes from the old place is taken too, and its IMS is asked.
        #expect(node.imt.inbound.keys.sorted { $0.peer < $1.peer } == [node.path(H.first, H.peerFirst), node.path(H.first, H.peerSecond)])
        #expect(node.count(.maQuery, to: H.peerServer) == 1)
    }

    @Test("The peer's IMS confirms a provisional record by an answer or by a copy under a valid cookie, then the old place is given up")
    func confirms() throws {
        for byAnswer in [true, false] {
            let node = try NodeHarness()
            try node.meet()
            let record = node.peerRecord([H.peerSecond])
            node.notify(record, from: Endpoint(H.peerSecond, port: SignalPort.node))
            if byAnswer {
                try node.answerQuery(record)
            } else {
                node.sent = []
                node.notify(record, from: node.peerIMS)
                #expect(node.imt.inbound.count == 2, "without cookie anyone could be that source")
                let cookie = try node.takeAck().cookie.server
                node.notify(record, from: node.peerIMS, cookie: cookie)
            }
            #expect(node.imt.inbound == [node.path(H.first, H.peerSecond): node.pair])
        }
    }

    @Test("A provisional record is undone only when its place does not answer and the IMS has an older record for 3 s")
    func undone() throws {
        let node = try NodeHarness()
        try node.meet()
        node.answersChecks = false
        let old = node.peerRecord()
        node.advance(.seconds(1))
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        try node.answerQuery(old)
        // Held: the new place has not proved itself, and the peer says that it is not at the old one.
        #expect(node.outbound == nil)
        for _ in 0..<8 {
            node.advance(.seconds(1))
            if node.count(.maQuery, to: H.peerServer) > 0 { try node.answerQuery(old) }
        }
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.hasLogged("going back"))
    }

    @Test("It is not undone while the IMS is silent, nor while its place answers")
    func notUndone() throws {
        for isAnswering in [true, false] {
            let node = try NodeHarness()
            try node.meet()
            node.answersChecks = false
            let old = node.peerRecord()
            node.advance(.seconds(1))
            node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
            if isAnswering { try node.answerCheck(at: H.peerSecond) }
            for _ in 0..<8 {
                node.advance(.seconds(1))
                if isAnswering, node.count(.maQuery, to: H.peerServer) > 0 { try node.answerQuery(old) }
            }
            #expect(!node.hasLogged("going back"))
            if isAnswering { #expect(node.outbound == node.path(H.first, H.peerSecond)) }
        }
    }

    @Test("Code 2 of the IMS undoes a provisional record")
    func undoneByNotFound() throws {
        let node = try NodeHarness()
        try node.meet()
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        let query = try node.take(.maQuery, to: H.peerServer)
        node.answer(query, .maAnswer(MAAnswer(code: .notFound, cookie: node.cookie(query), hoa: node.peer.hoa, lifetime: 5)))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("The wrong key is refused") func wrongKey() throws {
        try expectRefusal(.authenticationFailed, "does not fit the certified key") { node in
            TestIdentity(hoa: node.peer.hoa, key: makeKey(99), certificate: node.peer.certificate).record([H.peerSecond], sequence: node.wall)
        }
    }

    @Test("A certificate of a key that the DNS does not list is refused") func wrongIssuer() throws {
        try expectRefusal(.authenticationFailed, "not signed by an IMS key") { node in
            TestAuthority(seed: 98).enrol(node.peer.hoa, seed: 99).record([H.peerSecond], sequence: node.wall)
        }
    }

    @Test("An expired certificate is refused") func expired() throws {
        try expectRefusal(.authenticationFailed, "expired") { node in
            let certificate = node.peerAuthority.certify(node.peer.hoa, node.peer.key.publicKey, notBefore: node.wall, notAfter: node.wall + 1000)
            node.advance(.seconds(400))
            node.clear()
            return TestIdentity(hoa: node.peer.hoa, key: node.peer.key, certificate: certificate).record([H.peerSecond], sequence: node.wall)
        }
    }

    @Test("An expired record is refused, however well it is signed") func expiredRecord() throws {
        try expectRefusal(.authenticationFailed, "expired") { node in
            node.peer.record([H.peerSecond], sequence: node.wall + 1, lifetime: 60, issued: node.wall - 400_000)
        }
    }

    @Test("A record from the future is refused") func future() throws {
        try expectRefusal(.authenticationFailed, "ahead of the own clock") { node in
            node.peer.record([H.peerSecond], sequence: node.wall + 301_000, issued: node.wall)
        }
    }

    @Test("A replayed record is stale") func replay() throws {
        try expectRefusal(.stale, nil) { node in node.peer.record([H.peerSecond], sequence: VirtualClock.wallAtStart - 5000) }
    }

    @Test("A record for the node's own HoA is not wanted: that is in no IMT") func own() throws {
        try expectRefusal(.notFound, nil) { node in node.own.record([H.peerSecond], sequence: node.wall + 1) }
    }

    @Test("A record of an HoA that is neither in the IMT nor being resolved is answered with code 2, whoever's certificate it has") func foreign()
        throws
    {
        try expectRefusal(.notFound, nil) { node in
            TestIdentity(hoa: home("203.0.113.9"), key: node.peer.key, certificate: node.peer.certificate).record([H.peerSecond], sequence: node.wall)
        }
    }

    @Test("The own IMS may name a new peer, at the second try, with a cookie; a stranger may not")
    func newPeer() throws {
        let node = try NodeHarness()
        try node.register()
        let record = node.peerRecord()
        node.notify(record, from: node.peerNode)
        #expect(try node.takeAck().code == .notFound)
        node.notify(record, from: node.ownIMS)
        let ack = try node.takeAck()
        #expect(ack.code == .cookieRequired && node.lookUps.isEmpty)
        node.notify(record, from: node.ownIMS, cookie: ack.cookie.server)
        #expect(node.lookUps == [node.peer.hoa] && node.imt.inbound.isEmpty)
        node.foundPeer()
        #expect(try node.takeAck().code == .ok)
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        // Paper (7): it asks the peer's IMS itself, and subscribes.
        #expect(try node.take(.maQuery, to: H.peerServer).query?.subscribe == 300)
    }

    @Test("Signatures without cookie are checked 50 times a second at most, then a cookie is wanted")
    func budget() throws {
        let node = try NodeHarness()
        try node.meet()
        var codes: [ResponseCode: Int] = [:]
        for number in 0..<60 {
            node.notify(
                TestIdentity(hoa: node.peer.hoa, key: makeKey(99), certificate: node.peer.certificate).record(
                    [H.peerSecond], sequence: node.wall + 1 + UInt64(number)),
                from: node.peerNode, sequence: UInt32(number))
            codes[try node.takeAck().code, default: 0] += 1
        }
        #expect(codes == [.authenticationFailed: 50, .cookieRequired: 10])
    }

    @Test("With a cookie 20 a second of one source are checked")
    func budgetPerSource() throws {
        let node = try NodeHarness()
        try node.meet()
        node.notify(node.peerRecord(), from: node.peerNode)
        let cookie = try node.takeAck().cookie.server
        var codes: [ResponseCode: Int] = [:]
        for number in 0..<30 {
            node.notify(
                TestIdentity(hoa: node.peer.hoa, key: makeKey(99), certificate: node.peer.certificate).record(
                    [H.peerSecond], sequence: node.wall + 1 + UInt64(number)),
                from: node.peerNode, cookie: cookie, sequence: UInt32(number))
            codes[try node.takeAck().code, default: 0] += 1
        }
        #expect(codes == [.authenticationFailed: 20, .tryLater: 10])
    }

    @Test("No answer to a request without cookie is longer than the request")
    func sizeRule() throws {
        let node = try NodeHarness()
        let places = (10..<18).map { ip("198.18.0.\($0)") }
        try node.meet(peerAt: places)
        let old = node.peer.record([H.peerFirst], sequence: VirtualClock.wallAtStart - 5000)
        let record = EnclosedRecord(mapping: old.mapping, certificate: .id(node.peer.certificate.id))
        let request = SignalMessage(sequence: 9, .maNotify(MANotify(cookie: Cookie(client: 5), record: record)))
        node.deliver(request, from: node.peerNode, to: H.first)
        let answer = try node.take(.maNotifyAck)
        #expect(answer.octetsCount <= request.octets.count)
        #expect(answer.message.code == .cookieRequired)
    }
}
