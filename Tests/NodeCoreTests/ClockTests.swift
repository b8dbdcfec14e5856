import MATSignal
import MATTesting
import NodeCore
import Testing

/// One wrong clock must not lock a node out (protocol.md section 4): what it signs and keeps while its clock, or its IMS's, is wrong.
@Suite("A wrong clock") struct ClockTests {
    typealias H = NodeHarness

    /// A node whose clock nobody has confirmed, and the IMS's time, which is the right one: the harness's, less `lead`.
    private func start(lead: Int64 = 0, lastSequence: UInt64 = 0) throws -> NodeHarness {
        let node = try NodeHarness {
            $0.isClockConfirmed = false
            $0.homes[0].lastSequence = lastSequence
        }
        node.links([H.first])
        node.foundOwn()
        return node
    }

    /// The IMS answers the query that is out with code 9 and a cookie of its own time.
    private func tellTime(_ node: NodeHarness, lead: Int64 = 0, to server: IPAddress = H.ownServers[0]) throws {
        let query = try node.take(.maQuery, to: server)
        let wall = UInt64(Int64(node.wall) - lead * 1000)
        let authority = try #require(CookieAuthority(secret: [UInt8](repeating: 1, count: 16)))
        let client = query.message.cookie.client
        let made = authority.make(
            for: Endpoint(query.from, port: SignalPort.node), clientCookie: client,
            now: Now(monotonic: node.now.monotonic, wallMilliseconds: wall))
        node.answer(query, .maAnswer(MAAnswer(code: .cookieRequired, cookie: Cookie(client: client, server: made), hoa: nil)))
    }

    /// Lets time go on, and the IMS answer each question about the time as it comes, until the node registers or the time is over.
    private func goOn(_ node: NodeHarness, seconds: Int = 62, lead: Int64 = 0) throws {
        for _ in 0..<seconds {
            node.advance(.seconds(1))
            while node.count(.maQuery, to: H.ownServers[0]) > 0 { try tellTime(node, lead: lead) }
            if node.count(.imsUpdate) > 0 { return }
        }
    }

    private func kept(_ node: NodeHarness) -> [UInt64] {
        node.actions.compactMap { if case .remember(_, let sequence) = $0 { sequence } else { nil } }
    }

    private func problem(_ node: NodeHarness) -> String { node.core.status(now: node.now).registrations.first?.problem?.text ?? "" }

    @Test("Before the first record is signed the IMS's clock is read off its cookie, which saves the round trip of code 9")
    func readsClock() throws {
        let node = try start()
        #expect(node.count(.imsUpdate) == 0 && kept(node).isEmpty)
        #expect(node.sent.first?.octetsCount == 40, "so small that only the cookie fits")
        try tellTime(node)
        let update = try node.take(.imsUpdate)
        #expect(update.message.cookie.server != nil)
        #expect(kept(node) == [try #require(update.update).record.mapping.record.sequence])
    }

    @Test("A silent IMS is asked again, then the next one; nothing is signed until one tells the time")
    func silentServer() throws {
        let node = try start()
        node.advance(.milliseconds(800))
        #expect(node.sent.contains { $0.to.address == H.ownServers[1] })
        try tellTime(node, to: H.ownServers[1])
        #expect(try node.take(.imsUpdate).update != nil)
        let other = try start()
        other.advance(.seconds(9))
        #expect(other.count(.imsUpdate) == 0 && problem(other).contains("no answer from"))
        other.sent = []
        other.advance(.seconds(2))
        try tellTime(other)
        #expect(try other.take(.imsUpdate).update != nil)
    }

    @Test(
        "With a clock from 10 minutes to 400 days ahead nothing is signed or kept, the reason is said, and setting the clock is enough",
        arguments: [601, 3600, 86_400, 400 * 86_400] as [Int64])
    func ahead(lead: Int64) throws {
        let node = try start()
        try tellTime(node, lead: lead)
        #expect(node.count(.imsUpdate) == 0 && kept(node).isEmpty)
        #expect(problem(node).contains("this host's clock is") && problem(node).contains("ahead of its IMS's"))
        // As long as it is wrong the IMS is asked again at each try, and nothing else happens.
        try goOn(node, seconds: 150, lead: lead)
        #expect(node.count(.imsUpdate) == 0 && kept(node).isEmpty)
        // Now it is right.
        try goOn(node, seconds: 31)
        let sequence = try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence
        #expect(sequence <= node.wall && kept(node) == [sequence])
    }

    @Test("A clock further behind than a record lives is said as well; one a little behind does no harm")
    func behind() throws {
        let node = try start()
        try tellTime(node, lead: -700)
        #expect(node.count(.imsUpdate) == 0 && problem(node).contains("behind its IMS's"))
        let other = try start()
        try tellTime(other, lead: -400)
        #expect(other.count(.imsUpdate) == 1)
    }

    @Test(
        "A sequence kept by an earlier version while its clock was wrong, or before NTP stepped back, counts no more, and the file is healed",
        arguments: [301, 600, 400 * 86_400] as [UInt64])
    func lockedOut(lead: UInt64) throws {
        for isConfirmed in [true, false] {
            let future = VirtualClock.wallAtStart + lead * 1000 + 10_000
            let node = try NodeHarness {
                $0.isClockConfirmed = isConfirmed
                $0.homes[0].lastSequence = future
            }
            node.links([H.first])
            node.foundOwn()
            if !isConfirmed { try tellTime(node) }
            let sequence = try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence
            #expect(sequence == node.wall && kept(node) == [sequence])
        }
    }

    @Test("A sequence at most 300 s ahead is gone beyond as ever")
    func littleAhead() throws {
        let node = try start(lastSequence: VirtualClock.wallAtStart + 200_000)
        try tellTime(node)
        #expect(
            try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence == VirtualClock.wallAtStart + 200_001)
    }

    @Test(
        "A clock set wrong while the agent runs signs nothing that lies ahead, neither for the IMS nor for peers, and sets nothing back"
    )
    func setWrongLater() throws {
        let node = try NodeHarness()
        try node.meet()
        let before = kept(node).last
        // Somebody sets it a day ahead, and the node moves.
        node.clockLead = .seconds(86_400)
        node.clear()
        node.links([H.second])
        #expect(node.count(.imsUpdate) == 0 && node.count(.maNotify) == 0)
        #expect(kept(node).allSatisfy { $0 <= (before ?? 0) })
        node.clockLead = .zero
        try goOn(node, seconds: 31)
        #expect(try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence <= node.wall)
    }

    @Test("A clock that NTP kept right, and that was set ahead before the IMS was ever asked, counts no more: the IMS's is read")
    func setWrongBeforeTheFirstContact() throws {
        let node = try NodeHarness()
        node.links([])
        node.event { core, now in
            core.clockIsSynchronized(now: now)
            return []
        }
        node.advance(.seconds(60))
        node.clockLead = .seconds(86_400)
        node.links([H.first])
        node.foundOwn()
        #expect(node.count(.imsUpdate) == 0 && kept(node).isEmpty)
        try tellTime(node)
        #expect(node.count(.imsUpdate) == 0 && kept(node).isEmpty && problem(node).contains("24 hours ahead of its IMS's"))
        node.clockLead = .zero
        try goOn(node, seconds: 31)
        #expect(try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence <= node.wall)
    }

    @Test("Where no IMS of the locators' family could tell the time, that is what is said, and it is tried again", arguments: [true, false])
    func noServerOfTheFamily(isConfirmed: Bool) throws {
        let node = try NodeHarness { $0.isClockConfirmed = isConfirmed }
        node.links([H.first])
        node.found(node.own.hoa, [ip("2001:db8::6288")], node.ownAuthority)
        #expect(problem(node).contains("the IMS has no IPv4 address"))
        #expect(node.core.status(now: node.now).registrations.first?.phase == "pausing")
    }

    @Test("Code 1 has the IMS's clock read anew before the next try")
    func codeOne() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        try node.answerUpdate(.authenticationFailed)
        node.sent = []
        node.advance(.seconds(2))
        #expect(node.count(.imsUpdate) == 0)
        try tellTime(node)
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("Code 5 makes it sign max(enclosed, own, now) + 1", arguments: [-5000, 0, 5000, 299_000] as [Int64])
    func codeFive(ahead: Int64) throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let enclosed = UInt64(Int64(node.wall) + ahead)
        let own = try #require(node.sent.first?.update).record.mapping.record.sequence
        try node.answerUpdate(.stale, current: node.own.record([H.second], sequence: enclosed, issued: node.wall).mapping)
        #expect(
            try #require(try node.take(.imsUpdate).update).record.mapping.record.sequence == max(enclosed, own, node.wall) + 1)
    }

    @Test("A record of another key at the own IMS is not run after: somebody else has the address now")
    func otherKey() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let other = TestIdentity(hoa: node.own.hoa, key: makeKey(77), certificate: node.own.certificate)
        try node.answerUpdate(.stale, current: other.record([H.second], sequence: node.wall + 5, issued: node.wall).mapping)
        #expect(node.count(.imsUpdate) == 0 && problem(node).contains("another key signed"))
    }

    @Test("An expired record is not believed of a peer's IMS, neither a new one nor the one in force")
    func expiredAnswer() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peer.record([H.peerFirst], sequence: node.wall - 901_000))
        #expect(node.outbound == nil && node.core.counters.recordsRefused == 1 && node.hasLogged("expired"))
        let other = try NodeHarness()
        let record = other.peer.record([H.peerFirst], sequence: other.wall - 890_000)
        try other.register()
        other.event { core, now in core.heldOutbound(to: other.peer.hoa.address, now: now) }
        other.foundPeer()
        try other.answerQuery(record)
        #expect(other.core.counters.recordsRefused == 0, "within the tolerance")
        other.event { core, now in core.traffic([other.peer.hoa: 1], now: now) }
        other.advance(.seconds(20))
        other.clear()
        for _ in 0..<20 where other.count(.maQuery, to: H.peerServer) == 0 { other.advance(.seconds(1)) }
        try other.answerQuery(record)
        #expect(other.core.counters.recordsRefused == 1, "and now no more")
    }

    @Test("A certificate of a short life has the node register when its last third begins")
    func shortCertificate() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.foundOwn()
        let short = node.ownAuthority.certify(
            node.own.hoa, node.own.key.publicKey, notBefore: node.wall, notAfter: node.wall + 120_000)
        try node.answerUpdate(certificate: short)
        node.clear()
        node.advance(.seconds(80))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.milliseconds(1100))
        #expect(node.count(.imsUpdate) > 0)
    }
}
