import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// A node whose mobile address others see as another one.
@Suite("A node behind a translator") struct TranslatedNodeTests {
    private static let inside = ip("10.1.2.3")
    private let seen = Endpoint(ip("192.0.2.100"), port: 40_001)

    private func registered() throws -> NodeHarness {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([Self.inside])
        node.foundOwn()
        node.observe(seen: seen)
        node.answerProofs()
        return node
    }

    @Test("It asks each of its servers where it is seen, and registers at the endpoint that they see")
    func registration() throws {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([Self.inside])
        node.foundOwn()
        #expect(node.count(.imsUpdate) == 0)
        #expect(node.count(.bind) == 2)
        node.observe(seen: seen)
        node.answerProofs()
        let update = try node.take(.imsUpdate)
        guard case .imsUpdate(let body) = update.message.body else { return }
        #expect(body.record.mapping.record.places == [.endpoint(seen, preference: 10)])
    }

    @Test("It binds at two of its servers when it registers, in the same datagram, signed with its key")
    func binding() throws {
        let node = try registered()
        let update = try node.take(.imsUpdate)
        var binds = [try node.take(.bind), try node.take(.bind)]
        #expect(binds.contains { $0.to == update.to && $0.at == update.at })
        // The one that had not answered yet when the other's answer was enough gives its cookie first.
        if let index = binds.firstIndex(where: { $0.message.cookie.server == nil }) {
            let bind = binds.remove(at: index)
            node.answer(bind, .bindAck(BindAck(code: .cookieRequired, cookie: node.cookie(bind), observed: seen)))
            binds.append(try node.take(.bind))
        }
        for bind in binds {
            guard case .bind(let body) = bind.message.body, case .bind(let hoa, let proof, let lifetime) = body.wish,
                let given = Challenge(body.cookie)
            else {
                Issue.record("not signed")
                continue
            }
            #expect(hoa == node.own.hoa && lifetime == 120)
            let statement = PathStatement(.bind, by: hoa, to: bind.to.address, at: bind.to, cookie: given)
            #expect(statement.isSigned(proof.signature, by: node.own.key.publicKey))
        }
    }

    @Test("A server that does not say where it sees the node delays its registration by 400 ms at most")
    func silence() throws {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([Self.inside])
        node.foundOwn()
        node.answerProofs()
        node.advance(.milliseconds(399))
        #expect(node.count(.imsUpdate) == 0, "\(node.sent.map { ($0.message.type, $0.at) }) \(node.logs)")
        node.advance(.milliseconds(1))
        #expect(node.count(.imsUpdate) == 1)
    }

    @Test("To be seen elsewhere is a move: the record says so at once")
    func rebound() throws {
        let node = try registered()
        try node.answerUpdate()
        while node.count(.bind) > 0, let bind = try? node.take(.bind) {
            let grant = BindAck.Grant(node.own.hoa, lifetime: 120, role: [])
            node.answer(bind, .bindAck(BindAck(code: .ok, cookie: node.cookie(bind), observed: seen, granted: grant)))
        }
        node.clear()
        while node.count(.bind) == 0, node.now.monotonic.nanoseconds < 60_000_000_000 { node.advance(.milliseconds(50)) }
        let refresh = try node.take(.bind)
        guard case .bind(let body) = refresh.message.body, case .refresh(node.own.hoa) = body.wish else {
            Issue.record("not a refresh: \(refresh.message)")
            return
        }
        #expect(refresh.octetsCount == Bind.octetsMin)
        let moved = Endpoint(seen.address, port: 50_000)
        let grant = BindAck.Grant(node.own.hoa, lifetime: 120, role: [])
        node.answer(refresh, .bindAck(BindAck(code: .ok, cookie: node.cookie(refresh), observed: moved, granted: grant)))
        let update = try node.take(.imsUpdate)
        guard case .imsUpdate(let body) = update.message.body else { return }
        #expect(body.record.mapping.record.endpoints == [moved])
    }

    @Test("An open address asks too, and is listed as it is")
    func open() throws {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([NodeHarness.first])
        node.foundOwn()
        #expect(node.count(.imsUpdate) == 1)
        node.observe(seen: Endpoint(NodeHarness.first, port: SignalPort.node))
        node.answerProofs()
        try node.answerUpdate()
        #expect(node.core.isRegistered && node.count(.bind) == 0 && node.count(.imsUpdate) == 0)
    }

    /// What the own IMS sends to see whether packets from outside arrive, or a peer's node to see whether this one is there.
    private func check(_ node: NodeHarness, from source: Endpoint) {
        let query = SignalMessage(sequence: 7, .maQuery(MAQuery(cookie: Cookie(client: 9), hoa: node.own.hoa)))
        node.event { core, now in core.received(query.octets, from: source, to: NodeHarness.first, now: now) }
    }

    @Test(
        "An address at which nothing arrives from where nothing was sent to is listed by its endpoint; a check from the server's own port, or by a node, says nothing",
        arguments: [nil, Endpoint(NodeHarness.ownServers[0], port: SignalPort.ims), Endpoint(ip("192.0.2.77"), port: SignalPort.node)] as [Endpoint?])
    func filtered(_ source: Endpoint?) throws {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([NodeHarness.first])
        node.foundOwn()
        let local = Endpoint(NodeHarness.first, port: SignalPort.node)
        node.observe(seen: local)
        node.answerProofs()
        try node.answerUpdate()
        if let source { check(node, from: source) }
        node.clear()
        node.advance(.milliseconds(1900))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.milliseconds(200))
        // One that was started anew may have lost the first: it is told once more.
        try node.answerUpdate()
        node.clear()
        node.advance(.milliseconds(2800))
        #expect(node.count(.imsUpdate) == 0)
        node.advance(.milliseconds(200))
        guard case .imsUpdate(let update) = try node.take(.imsUpdate).message.body else { return }
        #expect(update.record.mapping.record.places == [.endpoint(local, preference: 10)])
        #expect(node.count(.bind) > 0)
    }

    @Test(
        "A check from another port of the server, or from an address of it that no name tells, shows that packets from outside arrive",
        arguments: [Endpoint(NodeHarness.ownServers[0], port: 40_000), Endpoint(ip("203.0.113.99"), port: 41_000)])
    func reached(_ source: Endpoint) throws {
        let node = try NodeHarness()
        node.ignoresAsks = false
        node.links([NodeHarness.first])
        node.foundOwn()
        node.observe(seen: Endpoint(NodeHarness.first, port: SignalPort.node))
        node.answerProofs()
        try node.answerUpdate()
        check(node, from: source)
        node.clear()
        node.advance(.seconds(4))
        #expect(node.count(.imsUpdate) == 0 && node.core.isRegistered)
    }

    private let elsewhere = Endpoint(ip("192.0.2.200"), port: 43_210)

    private func held(_ node: NodeHarness, from source: HomeAddress) {
        node.event { core, now in core.heldEncapsulated(from: source, by: elsewhere, at: NodeHarness.first, now: now) }
    }

    @Test("A packet in a datagram from somebody unknown: its IMS is asked who that is, and where it came from is probed then")
    func unknownSource() throws {
        let node = try NodeHarness()
        try node.register()
        node.clear()
        held(node, from: node.peer.hoa)
        held(node, from: node.peer.hoa)
        #expect(node.lookUps == [node.peer.hoa] && node.sent.isEmpty)
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        #expect(node.core.peersCount == 1)
        let probe = try node.take(.pathProbe)
        #expect(probe.to == elsewhere && probe.from == NodeHarness.first)
        // Nobody can have us look up more than that.
        for number in 2...250 { held(node, from: home("203.0.113.\(number)")) }
        #expect(node.lookUps.count <= 20)
    }

    @Test("A known peer's packet from elsewhere has that place probed, 20 a second in all, and no place that is no other's")
    func knownSource() throws {
        let node = try NodeHarness()
        try node.meet()
        node.clear()
        held(node, from: node.peer.hoa)
        let probe = try node.take(.pathProbe)
        #expect(probe.to == elsewhere)
        node.event { core, now in
            core.heldEncapsulated(from: node.peer.hoa, by: Endpoint(NodeHarness.first, port: 99), at: NodeHarness.first, now: now)
        }
        #expect(node.count(.pathProbe) == 0)
    }

    @Test(
        "A peer's datagram says that rewritten packets may not arrive where it came to, and nothing of the own address that they leave from",
        arguments: [NodeHarness.first, NodeHarness.second])
    func datagramInstead(local: IPAddress) throws {
        let node = try NodeHarness()
        try node.meet(at: [NodeHarness.first, NodeHarness.second])
        let place = Endpoint(NodeHarness.peerFirst, port: SignalPort.node)
        node.event { core, now in core.heldEncapsulated(from: node.peer.hoa, by: place, at: local, now: now) }
        // Before the check of the own IMS, which nobody sends here, is late.
        for sent in UInt64(1)...3 {
            node.event { core, now in core.rewritten([RewrittenUse(node.pair, sent: sent, came: 0)], now: now) }
            node.advance(.milliseconds(100))
        }
        #expect((node.core.trials.doubted(node.peer.hoa) != nil) == (local == NodeHarness.first))
    }

    @Test("Who probes from nowhere known is looked up if it has shown, by our cookie, where it is; and not otherwise")
    func unknownProber() throws {
        let node = try NodeHarness()
        try node.register()
        node.clear()
        let challenge = Challenge(client: 7, server: ServerCookie(head: 1, hash: 2))
        func probe(_ cookie: Cookie) {
            let probe = PathProbe.padded(cookie: cookie, hoa: node.own.hoa, peerHoA: node.peer.hoa, challenge: challenge, proof: nil)
            node.deliver(SignalMessage(sequence: 3, .pathProbe(probe)), from: elsewhere, to: NodeHarness.first)
        }
        probe(Cookie(client: 5))
        #expect(node.lookUps.isEmpty)
        let answer = try node.take(.pathAnswer)
        probe(answer.message.cookie)
        #expect(node.lookUps == [node.peer.hoa])
    }

    @Test("A packet that was on its way to the agent when its peer got a way in datagrams goes on at once")
    func heldBesideWay() throws {
        let node = try NodeHarness()
        try node.talk(toPeerAt: [elsewhere])
        let probe = try #require(node.sent.last { $0.message.type == .pathProbe })
        guard case .pathProbe(let body) = probe.message.body, let challenge = body.challenge else { return }
        let own = Endpoint(NodeHarness.first, port: SignalPort.node)
        let statement = PathStatement(.pathAnswer, by: node.peer.hoa, to: node.own.hoa.address, at: own, cookie: challenge)
        let answer = PathAnswer(
            code: .ok, cookie: Cookie(client: body.cookie.client), hoa: node.peer.hoa, observed: own, signature: statement.signed(with: node.peer.key)
        )
        node.deliver(SignalMessage(sequence: probe.message.sequence, .pathAnswer(answer)), from: elsewhere, to: NodeHarness.first)
        #expect(node.core.carriage(of: node.peer.hoa) == .encapsulated(own: own, peer: elsewhere), "\(node.logs)")
        node.clear()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
    }
}
