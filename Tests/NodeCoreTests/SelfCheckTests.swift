import MATSignal
import MATTesting
import NodeCore
import Testing

/// An IMS that lost its store tells nobody; its nodes find out by themselves, and register again.
@Suite("Whether the own IMS still knows us") struct SelfCheckTests {
    typealias H = NodeHarness

    /// Registered at home, where the record lives for an hour and is renewed after half of it.
    private func atHome() throws -> NodeHarness {
        let node = try NodeHarness()
        node.links([node.own.hoa.address])
        node.foundOwn()
        try node.answerUpdate()
        node.clear()
        return node
    }

    private func check(_ node: NodeHarness) throws -> H.Sent {
        let query = try node.take(.maQuery, to: H.ownServers[0])
        #expect(query.query?.hoa == node.own.hoa && query.query?.certID == node.own.certificate.id)
        return query
    }

    /// The next check, when it comes; within 150 s.
    private func nextCheck(_ node: NodeHarness) throws -> H.Sent {
        // In steps shorter than the tries are apart: after the last nobody waits for an answer.
        for _ in 0..<7550 where node.count(.maQuery, to: H.ownServers[0]) == 0 { node.advance(.milliseconds(20)) }
        // It may have been sent again meanwhile.
        defer { node.sent = [] }
        return try check(node)
    }

    private func answer(_ node: NodeHarness, _ query: H.Sent, _ code: ResponseCode, _ mapping: SignedMapping? = nil) {
        node.answer(
            query,
            .maAnswer(
                MAAnswer(
                    code: code, cookie: node.cookie(query), hoa: node.own.hoa, mapping: mapping,
                    lifetime: code == .notFound ? 30 : nil)))
    }

    @Test(
        "A node at home whose IMS knows nothing of it any more registers again within 150 s, not after half an hour, with its certificate whole"
    )
    func atHomeAgain() throws {
        let node = try atHome()
        node.advance(.seconds(89))
        #expect(node.sent.isEmpty)
        answer(node, try nextCheck(node), .notFound)
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.certificate == .whole(node.own.certificate))
        #expect(node.core.counters.recordsLost == 1 && node.hasLogged("registering again"))
    }

    @Test("An older record, as a restored backup has it, makes it register again; its own and a newer one do not")
    func otherRecords() throws {
        let node = try atHome()
        let home = node.own.hoa.address
        let query = try nextCheck(node)
        answer(
            node, query, .ok, node.own.record([home], sequence: VirtualClock.wallAtStart + 1_000_000, issued: node.wall).mapping)
        #expect(node.count(.imsUpdate) == 0)
        answer(
            node, try nextCheck(node), .ok,
            node.own.record([home], sequence: VirtualClock.wallAtStart - 1000, issued: node.wall).mapping)
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("Silence, code 4 and code 7 say nothing about the record, and the check comes again")
    func otherAnswers() throws {
        let node = try atHome()
        for code in [ResponseCode.notAuthoritative, .tryLater] {
            answer(node, try nextCheck(node), code)
        }
        node.advance(.seconds(152))
        // Three tries, the third at the next server too, and then the next time.
        #expect(node.count(.maQuery, to: H.ownServers[0]) == 3 && node.count(.maQuery, to: H.ownServers[1]) == 1)
        #expect(node.count(.imsUpdate) == 0 && node.core.isRegistered)
    }

    @Test("An IMS that does not answer our HA Query because we are not registered is asked at once, at most every 5 s")
    func refusedQuery() throws {
        let node = try atHome()
        func stranger(_ number: UInt8) throws {
            let source = ip("198.18.9.\(number)")
            node.event { core, now in core.heldInbound(from: source, to: node.own.hoa.address, opensConnection: true, now: now) }
            let query = try node.take(.haQuery)
            node.answer(query, .haAnswer(HAAnswer(code: .refused, cookie: node.cookie(query), moa: MobileAddress(source))))
        }
        try stranger(1)
        answer(node, try check(node), .notFound)
        try node.answerUpdate()
        try stranger(2)
        #expect(node.sent.isEmpty, "it has just been asked")
        node.advance(.seconds(6))
        try stranger(3)
        answer(node, try check(node), .ok, nil)
        #expect(node.count(.imsUpdate) == 0)
    }

    @Test(
        "A peer's IMS that can't confirm us with ours (code 8), or knows nothing (code 2), has us ask ours",
        arguments: [ResponseCode.upstreamFailed, .notFound])
    func unconfirmed(code: ResponseCode) throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify(code)
        answer(node, try check(node), .notFound)
        #expect(node.count(.imsUpdate) == 1)
    }

    // MARK: Revoked

    private func revocation(_ node: NodeHarness) -> CertifiedMapping { node.ownAuthority.revoke(node.own.hoa, at: node.wall + 1) }

    /// The IMS answers with what it holds, and with the certificate, since another was named.
    private func answer(_ node: NodeHarness, _ query: H.Sent, _ held: CertifiedMapping) {
        let answer = MAAnswer(
            code: .ok, cookie: node.cookie(query), hoa: node.own.hoa, mapping: held.mapping, certificate: held.certificate)
        node.answer(query, .maAnswer(answer))
    }

    @Test("A node whose IMS pushes that its address is another key's asks that server at once, and says that it is revoked")
    func revoked() throws {
        let node = try atHome()
        let second = Endpoint(H.ownServers[1], port: SignalPort.ims)
        node.notify(revocation(node), from: second, to: node.own.hoa.address)
        #expect(try node.takeAck().code == .notFound, "it is in no IMT")
        answer(node, try node.take(.maQuery, to: second.address), revocation(node))
        let update = try node.take(.imsUpdate)
        let text = "the certificate was revoked at 2026-11-21T10:00:00Z; the operator of this server must enrol it anew"
        let reply = IMSUpdateReply(
            code: .authenticationFailed, cookie: node.cookie(update), observed: Endpoint(update.from, port: SignalPort.node), current: nil,
            certificate: nil, text: text)
        node.answer(update, .imsUpdateReply(reply))
        let status = node.core.status(now: node.now)
        #expect(status.registrations.compactMap(\.problem).map(\.code) == [.certificateRevoked], "\(status.registrations)")
        #expect(node.core.counters.recordsLost == 0 && !node.hasLogged("though it acked one"))
    }

    @Test("What anybody else pushes of the own address, and what the IMS pushes of our own key, asks nothing")
    func pushedByOthers() throws {
        let node = try atHome()
        node.notify(revocation(node), from: node.peerIMS, to: node.own.hoa.address)
        node.notify(node.own.record([node.own.hoa.address], sequence: node.wall + 5), from: node.ownIMS, to: node.own.hoa.address)
        #expect(node.count(.maQuery) == 0)
    }

    @Test("Asked a moment ago, or being asked, it asks again a second later: that answer may be from before")
    func pushedLate() throws {
        let node = try atHome()
        let query = try nextCheck(node)
        node.notify(revocation(node), from: node.ownIMS, to: node.own.hoa.address)
        answer(node, query, .tryLater)
        #expect(node.count(.maQuery) == 0)
        for _ in 0..<60 where node.count(.maQuery, to: H.ownServers[0]) == 0 { node.advance(.milliseconds(20)) }
        answer(node, try check(node), revocation(node))
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("The checks of many nodes that registered at the same moment are spread over a minute")
    func spread() throws {
        var times: [Int64] = []
        for seed in 0..<200 as Range<UInt64> {
            let node = try NodeHarness()
            node.core = try #require(
                NodeCore(
                    NodeCoreConfiguration(
                        homes: [HomeIdentity(hoa: node.own.hoa, key: node.own.key, certificate: node.own.certificate)],
                        clientSecret: [UInt8](repeating: 1, count: 16), cookieSecret: [UInt8](repeating: 2, count: 16)),
                    random: SeededGenerator(seed: seed)))
            node.links([node.own.hoa.address])
            node.foundOwn()
            try node.answerUpdate()
            node.clear()
            node.advance(.seconds(151))
            times.append(try check(node).at)
        }
        #expect((times.min() ?? 0) >= 90_000 && (times.max() ?? 0) <= 150_001)
        for second in stride(from: 90_000, to: 150_000, by: 10_000) as StrideTo<Int64> {
            let count = times.count { $0 >= second && $0 < second + 10_000 }
            #expect((13...60).contains(count), "\(count) of 200 in the 10 s from \(second) ms on")
        }
    }
}
