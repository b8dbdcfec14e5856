import IMTKernel
import MATNode
import MATSignal
import MATTesting
import Testing

@Suite("Locator check") struct LocatorTests {
    typealias H = NodeHarness

    @Test("A node says of its own locators that they are its own, and of nothing else", arguments: [
        ("198.51.100.1", "192.0.2.10", ResponseCode.ok), ("198.51.100.2", "192.0.2.10", .notAuthoritative), ("198.51.100.1", "192.0.2.99", .notAuthoritative),
    ])
    func answers(hoa: String, local: String, code: ResponseCode) throws {
        let node = try NodeHarness()
        try node.register()
        let query = SignalMessage(sequence: 3, .maQuery(MAQuery(cookie: Cookie(client: 8), hoa: home(hoa))))
        node.deliver(query, from: node.peerNode, to: ip(local))
        let answer = try node.take(.maAnswer)
        #expect(answer.message.code == code && answer.octetsCount == 40 && answer.message.cookie == Cookie(client: 8))
        #expect(answer.to == node.peerNode && answer.from == ip(local))
    }

    /// A node with the peer entered, whose locator check is out.
    private func checking() throws -> NodeHarness {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify()
        return node
    }

    @Test("A locator is asked on first use: client cookie and HoA, 40 octets")
    func firstUse() throws {
        let node = try checking()
        let query = try node.take(.maQuery, to: H.peerFirst)
        #expect(query.octetsCount == 40 && query.to.port == SignalPort.node && query.query?.hoa == node.peer.hoa && query.message.cookie.server == nil)
    }

    @Test("A silent locator is used for 3 s, then not, until it answers after all")
    func silent() throws {
        let node = try checking()
        node.advance(.milliseconds(2990))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        node.advance(.milliseconds(20))
        #expect(node.outbound == nil)
        #expect(node.hasLogged("did not prove"))
        // What comes from there is taken all the same.
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        node.sent = []
        node.advance(.seconds(20))
        #expect(node.outbound == nil)
        node.sent = node.sent.suffix(1)
        try node.answerCheck()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("A locator that nobody vouches for stays unused for 300 s")
    func blocked() throws {
        let node = try checking()
        node.advance(.seconds(290))
        #expect(node.outbound == nil)
        node.advance(.seconds(14))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("A host that is not the peer is not used from the moment it says so, and the peer's IMS is asked")
    func denies() throws {
        let node = try checking()
        node.sent.removeAll { $0.to.address == H.peerServer }
        try node.answerCheck(.notAuthoritative)
        #expect(node.outbound == nil)
        #expect(node.count(.maQuery, to: H.peerServer) == 1)
    }

    @Test("With a second locator traffic goes there when the first fails")
    func second() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([H.peerFirst, H.peerSecond]))
        try node.acknowledgeHANotify()
        #expect(node.imt.inbound.count == 2)
        try node.answerCheck(.notAuthoritative)
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        #expect(node.count(.maQuery, to: H.peerSecond) == 1)
    }

    @Test("A MA Notify from the locator under our own cookie proves it")
    func provenByNotify() throws {
        let node = try checking()
        node.notify(node.peerRecord(), from: node.peerNode)
        let cookie = try node.takeAck().cookie.server
        node.notify(node.peerRecord(), from: node.peerNode, cookie: cookie)
        node.advance(.seconds(5))
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("Own addresses, gateways, resolvers and addresses of one's own site are never a peer's locator", arguments: [
        "192.0.2.10", "192.0.2.1", "10.0.0.5", "192.168.1.9", "198.51.100.1",
    ])
    func skipped(address: String) throws {
        let node = try NodeHarness()
        node.links([H.first], infrastructure: [ip("192.0.2.1")])
        node.foundOwn()
        try node.answerUpdate()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([ip(address), H.peerFirst]))
        try node.acknowledgeHANotify()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        #expect(node.imt.violations.isEmpty)
    }

    @Test("Within one site its addresses are locators")
    func site() throws {
        let node = try NodeHarness()
        try node.meet(at: [ip("10.0.0.4")], peerAt: [ip("10.1.0.5")])
        #expect(node.outbound == node.path(ip("10.0.0.4"), ip("10.1.0.5")))
    }

    @Test("A locator of another peer is skipped, and passes to the second when the first has gone from it")
    func conflict() throws {
        let node = try NodeHarness()
        try node.meet()
        let other = node.peerAuthority.enrol(home("203.0.113.2"), seed: 13)
        let otherPair = HomePair(own: node.own.hoa, peer: other.hoa)
        node.event { core, now in core.heldOutbound(to: other.hoa.address, now: now) }
        node.found(other.hoa, [H.peerServer], node.peerAuthority)
        let query = try node.take(.maQuery, to: H.peerServer)
        let record = other.record([H.peerFirst], sequence: node.wall)
        node.answer(query, .maAnswer(MAAnswer(code: .ok, cookie: node.cookie(query), hoa: other.hoa, mapping: record.mapping, certificate: record.certificate, subscribe: 300)))
        try node.acknowledgeHANotify()
        #expect(node.imt.outbound[otherPair] == nil)
        #expect(node.imt.inbound[node.path(H.first, H.peerFirst)] == node.pair)

        let moved = node.peerRecord([H.peerSecond])
        node.notify(moved, from: Endpoint(H.peerSecond, port: SignalPort.node))
        try node.answerQuery(moved)
        #expect(node.imt.inbound[node.path(H.first, H.peerFirst)] == otherPair)
        #expect(node.imt.outbound[otherPair] == node.path(H.first, H.peerFirst))
        #expect(node.imt.inbound[node.path(H.first, H.peerSecond)] == node.pair)
    }
}
