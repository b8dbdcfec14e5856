import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// protocol.md section 11.6, at a node: what a record, a probe or an answer of somebody with other intentions makes it send and believe.
@Suite("Attacks on a node's paths") struct PathAttackTests {
    private static let victim = ip("203.0.113.200")

    /// A node that wants to talk to a peer whose record says this.
    private func talking(_ endpoints: [Endpoint]) throws -> NodeHarness {
        let node = try NodeHarness()
        try node.talk(toPeerAt: endpoints)
        return node
    }

    private func probes(_ node: NodeHarness, to address: IPAddress) -> [NodeHarness.Sent] {
        node.sent.filter { $0.message.type == .pathProbe && $0.to.address == address }
    }

    @Test("A record that lists a victim eight times brings it 56 probes of 200 octets at most, then a minute with those of two, and no user data")
    func flood() throws {
        let node = try talking((0..<8).map { Endpoint(Self.victim, port: 5000 + $0) })
        for _ in 0..<59 {
            node.advance(.seconds(1))
            node.event { core, now in core.traffic([node.peer.hoa: 1], now: now) }
        }
        let sent = node.sent.filter { $0.to.address == Self.victim }
        let octets = sent.reduce(0) { $0 + $1.octetsCount }
        print(
            "Attack: a record that lists a victim 8 times: \(sent.count) datagrams, \(octets) octets, the largest \(sent.map(\.octetsCount).max() ?? 0)"
        )
        let first = probes(node, to: Self.victim).filter { $0.at < 3000 }
        #expect((20...8 * 7).contains(first.count))
        // While packets wait, two are tried a few times more.
        let later = probes(node, to: Self.victim).filter { $0.at >= 3000 }
        #expect(Set(later.map(\.to.port)).count <= 2 && later.count <= 2 * 7 * 4, "\(later.count)")
        #expect(probes(node, to: Self.victim).allSatisfy { $0.octetsCount <= 200 })
        // Beside them MA Notify is tried, at one of them.
        #expect(sent.count - first.count - later.count <= 6)
        #expect(node.imt.encapsulated.isEmpty && node.imt.outbound.isEmpty)
        let rates = Dictionary(grouping: sent, by: { $0.at / 1000 }).values.map(\.count)
        #expect(rates.max() ?? 0 <= 20 + 20, "\(rates)")
    }

    @Test("Who does not want to talk sends six probes to a record's endpoints at most")
    func courtesy() throws {
        let node = try talking([Endpoint(ip("203.0.113.77"), port: SignalPort.node)])
        node.advance(.seconds(100))
        #expect(node.core.peersCount == 1)
        node.clear()
        node.notify(node.peerRecord(at: (0..<8).map { Endpoint(Self.victim, port: 5000 + $0) }), from: node.peerIMS)
        node.advance(.seconds(20))
        let sent = node.sent.filter { $0.to.address == Self.victim }
        print("Attack: the same, told to who has no packets for it: \(sent.count) datagrams, \(sent.reduce(0) { $0 + $1.octetsCount }) octets")
        #expect((1...6).contains(probes(node, to: Self.victim).count))
    }

    @Test("A challenge that somebody passes on to the peer, who signs for him, proves nothing to who made it")
    func passedOn() throws {
        let relay = Endpoint(ip("203.0.113.66"), port: 6289)
        let node = try talking([relay])
        let probe = try #require(probes(node, to: relay.address).last)
        guard case .pathProbe(let body) = probe.message.body, let challenge = body.challenge else { return }
        func answer(_ destination: Endpoint, to asker: IPAddress, over challenge: Challenge, as type: MessageType = .pathAnswer, seen: Endpoint) {
            let statement = PathStatement(type, by: node.peer.hoa, to: asker, at: destination, cookie: challenge)
            let answer = PathAnswer(
                code: .ok, cookie: Cookie(client: body.cookie.client), hoa: node.peer.hoa, observed: seen,
                signature: statement.signed(with: node.peer.key))
            node.deliver(SignalMessage(sequence: probe.message.sequence, .pathAnswer(answer)), from: relay, to: NodeHarness.first)
        }
        let own = Endpoint(NodeHarness.first, port: SignalPort.node)
        let isProven = { node.core.peerEndpoints[node.peer.hoa]?.way { _ in true } != nil }
        // The peer signs where the probe that it got came from: the one in between.
        answer(relay, to: node.own.hoa.address, over: challenge, seen: relay)
        answer(relay, to: node.own.hoa.address, over: challenge, seen: own)
        // Or for another node that it talks to.
        answer(own, to: ip("198.51.100.9"), over: challenge, seen: own)
        // Or what it signed for something else.
        answer(own, to: node.own.hoa.address, over: challenge, as: .bind, seen: own)
        answer(own, to: node.own.hoa.address, over: challenge, as: .pathProbe, seen: own)
        #expect(!isProven())
        answer(own, to: node.own.hoa.address, over: challenge, seen: own)
        #expect(isProven(), "\(node.core.counters) \(node.logs)")
    }

    @Test("A signed probe that is sent again from elsewhere, or later, makes no place the peer's")
    func replayed() throws {
        let place = Endpoint(ip("203.0.113.66"), port: 6289)
        let node = try talking([place])
        let own = Endpoint(NodeHarness.first, port: SignalPort.node)
        let elsewhere = Endpoint(ip("203.0.113.67"), port: 6289)
        func probe(from source: Endpoint, _ cookie: Cookie, signing destination: Endpoint, as type: MessageType = .pathProbe) throws -> Sent? {
            let given = Challenge(cookie) ?? Challenge(client: 1, server: ServerCookie(head: 1, hash: 1))
            let statement = PathStatement(type, by: node.peer.hoa, to: node.own.hoa.address, at: destination, cookie: given)
            let proof = PathProof(certificate: .id(node.peer.certificate.id), signature: try #require(statement.signed(with: node.peer.key)))
            let probe = PathProbe.padded(
                cookie: cookie, hoa: node.own.hoa, peerHoA: node.peer.hoa, challenge: given, proof: cookie.server == nil ? nil : proof)
            node.sent.removeAll { $0.message.type == .pathAnswer }
            node.deliver(SignalMessage(sequence: 9, .pathProbe(probe)), from: source, to: NodeHarness.first)
            return node.sent.first { $0.message.type == .pathAnswer }
        }
        // Each asks with a probe, and gets our cookie for where it is.
        let first = try #require(try probe(from: place, Cookie(client: 3), signing: own))
        let cookie = first.message.cookie
        let sources = { node.core.peerEndpoints[node.peer.hoa]?.sources ?? [] }
        _ = try probe(from: elsewhere, cookie, signing: own)
        _ = try probe(from: elsewhere, Cookie(client: 4, server: cookie.server), signing: own)
        #expect(!sources().contains(elsewhere))
        let theirs = try #require(try probe(from: elsewhere, Cookie(client: 3), signing: own)).message.cookie
        // Over the right cookie, but for another place, or as another message.
        _ = try probe(from: elsewhere, theirs, signing: elsewhere)
        _ = try probe(from: elsewhere, theirs, signing: own, as: .bind)
        #expect(!sources().contains(elsewhere))
        node.advance(.seconds(301))
        _ = try probe(from: elsewhere, theirs, signing: own)
        #expect(!sources().contains(elsewhere))
        let fresh = try #require(try probe(from: elsewhere, Cookie(client: 3), signing: own)).message.cookie
        _ = try probe(from: elsewhere, fresh, signing: own)
        #expect(sources().contains(elsewhere))
    }

    private typealias Sent = NodeHarness.Sent

    @Test("Places of a record that are this node's own, its network's routers or resolvers, or private while it is not, get nothing")
    func insiders() throws {
        let router = ip("192.0.2.1")
        let node = try NodeHarness()
        node.links([NodeHarness.first], infrastructure: [router])
        node.foundOwn()
        node.answerProofs()
        try node.answerUpdate()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        let places = [router, NodeHarness.first, node.own.hoa.address, ip("192.168.1.1"), ip("100.64.0.1"), ip("fd00::1"), ip("2002:c0a8:101::1")]
        try node.answerQuery(node.peerRecord(at: places.map { Endpoint($0, port: 631) }))
        try node.acknowledgeHANotify()
        node.sent.removeAll { $0.message.type == .maNotify }
        node.advance(.seconds(10))
        for place in places { #expect(probes(node, to: place).isEmpty, "\(place)") }
    }
}
