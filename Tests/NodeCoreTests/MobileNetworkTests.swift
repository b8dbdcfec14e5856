import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("Mobile networks") struct MobileNetworkTests {
    typealias H = NodeHarness

    /// A mobile router of the peer's IMS: home prefix 203.0.113.16/28.
    private struct Router {
        let key = makeKey(31)
        let certificate: Certificate
        let prefix: IPPrefix

        init(_ text: String, _ authority: TestAuthority) throws {
            prefix = MATTesting.prefix(text)
            let start = VirtualClock.wallAtStart - 1000
            certificate = try #require(
                Certificate(
                    issuing: HomeAddress(prefix.address), prefixLength: prefix.length, nodeKey: key.publicKey, notBefore: start,
                    notAfter: start + 86_400_000,
                    with: authority.key))
        }

        func record(_ places: [IPAddress], sequence: UInt64) throws -> CertifiedMapping {
            try record(at: places.map { .moa(Locator(MobileAddress($0), prefixLength: prefix.length)) }, sequence: sequence)
        }

        func record(at places: [MappingRecord.Place], sequence: UInt64) throws -> CertifiedMapping {
            let record = MappingRecord(
                hoa: HomeAddress(prefix.address), prefixLength: prefix.length, sequence: sequence, lifetime: 600, issued: sequence, places: places)
            return CertifiedMapping(mapping: try #require(record.signed(with: key)), certificate: certificate)
        }
    }

    private static let first = ip("198.18.1.32")
    private static let second = ip("198.18.2.48")

    /// Enters a host behind the router as a peer, as its first packet does.
    private func meet(_ node: NodeHarness, _ host: HomeAddress, _ record: CertifiedMapping) throws {
        node.event { core, now in core.heldOutbound(to: host.address, now: now) }
        if node.lookUps.contains(host) { node.found(host, [H.peerServer], node.peerAuthority) }
        let query = try node.take(.maQuery, to: H.peerServer)
        node.answer(
            query,
            .maAnswer(
                MAAnswer(
                    code: .ok, cookie: node.cookie(query), hoa: host, mapping: record.mapping, certificate: record.certificate, subscribe: 300)))
        try node.acknowledgeHANotify()
    }

    private func outbound(_ node: NodeHarness, _ host: HomeAddress) -> MobilePair? { node.imt.outbound[HomePair(own: node.own.hoa, peer: host)] }

    @Test("Each host behind a router is a peer at its own place in the router's prefix; the router is asked whether it is so")
    func peers() throws {
        let node = try NodeHarness()
        try node.register()
        let router = try Router("203.0.113.16/28", node.peerAuthority)
        let host = home("203.0.113.21")
        try meet(node, host, try router.record([Self.first], sequence: node.wall))
        #expect(outbound(node, host) == node.path(H.first, ip("198.18.1.37")))
        #expect(node.imt.arrivals[node.arrival(ip("198.18.1.37"))] == host)
        let check = try node.take(.maQuery, to: Self.first)
        #expect(check.to.port == SignalPort.node && check.query?.hoa == host)
    }

    @Test("One MA Notify of the router moves all its hosts, and is acked once")
    func move() throws {
        let node = try NodeHarness()
        try node.register()
        let router = try Router("203.0.113.16/28", node.peerAuthority)
        let hosts = ["203.0.113.17", "203.0.113.21", "203.0.113.30"].map(home)
        let record = try router.record([Self.first], sequence: node.wall)
        for host in hosts { try meet(node, host, record) }
        node.advance(.milliseconds(100))
        node.clear()
        node.notify(try router.record([Self.second, Self.first], sequence: node.wall), from: Endpoint(Self.second, port: SignalPort.node))
        #expect(try node.takeAck().code == .ok)
        #expect(node.count(.maNotifyAck) == 0)
        #expect(hosts.map { outbound(node, $0)?.peer } == ["198.18.2.49", "198.18.2.53", "198.18.2.62"].map(moa))
        // Both places are accepted.
        #expect(node.imt.arrivals[node.arrival(ip("198.18.1.37"))] == hosts[1] && node.imt.arrivals[node.arrival(ip("198.18.2.53"))] == hosts[1])
    }

    @Test("An unknown source in a MoPre is the host there, once that HoA's IMS says so")
    func stranger() throws {
        let node = try NodeHarness()
        try node.register()
        let router = try Router("203.0.113.16/28", node.peerAuthority)
        let record = try router.record([Self.first], sequence: node.wall)
        let source = ip("198.18.1.37")
        node.event { core, now in core.heldInbound(from: source, to: H.first, opensConnection: false, isSegment: true, now: now) }
        let query = try node.take(.haQuery)
        node.answer(
            query,
            .haAnswer(
                HAAnswer(
                    code: .ok, cookie: node.cookie(query), moa: MobileAddress(source), mapping: record.mapping, certificate: record.certificate)))
        let host = home("203.0.113.21")
        #expect(node.lookUps == [host] && node.imt.arrivals.isEmpty)
        node.found(host, [H.peerServer], node.peerAuthority)
        let confirm = try node.take(.maQuery, to: H.peerServer)
        node.answer(
            confirm,
            .maAnswer(
                MAAnswer(
                    code: .ok, cookie: node.cookie(confirm), hoa: host, mapping: record.mapping, certificate: record.certificate, subscribe: 300)))
        #expect(node.imt.arrivals[node.arrival(source)] == host)
        #expect(node.hasReleased(.releaseInbound(from: source, to: H.first)))
    }

    @Test("A router registers its MoPres and answers for its hosts at their base addresses, for nobody else")
    func router() throws {
        let (node, network) = try routing { node, base, authority in
            node.links([Self.first, Self.second], areMobilePrefixes: true)
            node.found(base, H.ownServers, authority)
        }
        let base = HomeAddress(network.prefix.address)
        let update = try node.take(.imsUpdate)
        #expect(update.from == Self.first)
        #expect(update.update?.record.mapping.record.locators.map(\.moa) == [Self.first, Self.second].map { MobileAddress($0) })
        #expect(update.update?.record.mapping.record.locators.allSatisfy { $0.prefixLength == network.prefix.length } == true)
        try #require(node.imt.own == [MobileAddress(Self.first): base, MobileAddress(Self.second): base])
        for (asked, local, code) in [
            ("198.51.100.21", Self.first, ResponseCode.ok), ("198.51.100.21", Self.second, .ok), ("198.51.100.33", Self.first, .notAuthoritative),
            ("198.51.100.21", H.first, .notAuthoritative),
        ] {
            node.deliver(SignalMessage(sequence: 9, .maQuery(MAQuery(cookie: Cookie(client: 5), hoa: home(asked)))), from: node.peerNode, to: local)
            #expect(try node.take(.maAnswer).message.code == code, "\(asked) at \(local)")
        }
        // The network's own hosts do not become peers.
        node.event { core, now in core.heldOutbound(to: ip("198.51.100.20"), now: now) }
        #expect(node.hasReleased(.dropOutbound(to: ip("198.51.100.20"))))
    }

    // MARK: Where nothing is routed to a router

    private static let inside = ip("10.1.2.3")
    private static let seen = Endpoint(ip("192.0.2.100"), port: 40_001)

    /// A router of the home prefix 198.51.100.16/28.
    private func routing(_ adjust: (NodeHarness, HomeAddress, TestAuthority) throws -> Void) throws -> (node: NodeHarness, network: Router) {
        let authority = TestAuthority(seed: 201)
        let network = try Router("198.51.100.16/28", authority)
        let base = HomeAddress(network.prefix.address)
        let node = try NodeHarness { $0.homes = [HomeIdentity(hoa: base, key: network.key, certificate: network.certificate)] }
        try adjust(node, base, authority)
        return (node, network)
    }

    @Test("Behind a translator a router registers where its IMSs see it, binds for all its hosts, and has the kernel rewrite nothing")
    func translated() throws {
        let (node, network) = try routing { node, base, authority in
            node.ignoresAsks = false
            node.links([Self.inside])
            node.found(base, H.ownServers, authority)
            node.observe(seen: Self.seen)
            node.answerProofs()
        }
        let update = try node.take(.imsUpdate)
        #expect(update.update?.record.mapping.record.places == [.endpoint(Self.seen, preference: 10)])
        #expect(update.update?.record.mapping.record.prefixLength == network.prefix.length)
        guard case .bind(let body) = try node.take(.bind).message.body, case .bind(let hoa, _, _) = body.wish else {
            Issue.record("no bind")
            return
        }
        #expect(hoa.address == network.prefix.address && node.imt.own.isEmpty)
        // Its neighbours there are not its own.
        #expect(!node.core.isOwn(ip("10.1.2.4")) && node.core.isOwn(ip("198.51.100.30")))
    }

    @Test("Back where a prefix is routed to it, it lists this as it is, and behind it where else it is", arguments: [true, false])
    func backAtPrefix(isFirst: Bool) throws {
        let (node, network) = try routing { node, base, authority in
            node.ignoresAsks = false
            let routed = OwnLocator(MobileAddress(Self.first), interface: "a", isMobilePrefix: true)
            let translated = OwnLocator(MobileAddress(Self.inside), interface: "b")
            node.event { core, now in core.linksChanged(isFirst ? [routed, translated] : [translated, routed], infrastructure: [], now: now) }
            node.found(base, H.ownServers, authority)
            node.observe(seen: Self.seen)
            node.answerProofs()
        }
        let places = try node.take(.imsUpdate).update?.record.mapping.record.places ?? []
        let routed = Locator(MobileAddress(Self.first), prefixLength: network.prefix.length, preference: isFirst ? 10 : 20)
        let wanted: [MappingRecord.Place] = [.moa(routed), .endpoint(Self.seen, preference: isFirst ? 20 : 10)]
        #expect(places == (isFirst ? wanted : wanted.reversed()))
        #expect(node.imt.own == [MobileAddress(Self.first): HomeAddress(network.prefix.address)])
    }

    @Test("A router answers Path Probes for its hosts, in the name of each, and for nobody else")
    func answersProbes() throws {
        let (node, network) = try routing { node, base, authority in
            node.links([Self.first], areMobilePrefixes: true)
            node.found(base, H.ownServers, authority)
            try node.answerUpdate()
        }
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        let place = Endpoint(H.peerFirst, port: SignalPort.node)
        let challenge = Challenge(client: 7, server: ServerCookie(head: 1, hash: 2))
        for (asked, isOurs) in [("198.51.100.16", true), ("198.51.100.21", true), ("198.51.100.33", false)] {
            let probe = PathProbe.padded(cookie: Cookie(client: 5), hoa: home(asked), peerHoA: node.peer.hoa, challenge: challenge, proof: nil)
            node.deliver(SignalMessage(sequence: 9, .pathProbe(probe)), from: place, to: Self.first)
            guard isOurs else {
                #expect(node.count(.pathAnswer) == 0)
                continue
            }
            guard case .pathAnswer(let answer) = try node.take(.pathAnswer).message.body, let signature = answer.signature else {
                Issue.record("\(asked): not signed")
                continue
            }
            let statement = PathStatement(.pathAnswer, by: home(asked), to: node.peer.hoa.address, at: place, cookie: challenge)
            #expect(answer.hoa == home(asked) && statement.isSigned(signature, by: network.key.publicKey))
        }
    }

    @Test("A host behind a router is asked for at the router's endpoints; from behind a translator at a MoPre's base address")
    func asksForHosts() throws {
        let host = home("203.0.113.21")
        func asked(_ node: NodeHarness, at address: IPAddress) throws -> Endpoint {
            let probe = try node.take(.pathProbe, to: address)
            guard case .pathProbe(let body) = probe.message.body else { return probe.to }
            #expect(body.hoa == host && body.peerHoA == node.own.hoa)
            return probe.to
        }
        let open = try NodeHarness()
        try open.register()
        let router = try Router("203.0.113.16/28", open.peerAuthority)
        try meet(open, host, try router.record(at: [.endpoint(Self.seen, preference: 10)], sequence: open.wall))
        #expect(try asked(open, at: Self.seen.address) == Self.seen)

        let translated = try NodeHarness()
        translated.ignoresAsks = false
        translated.links([Self.inside])
        translated.foundOwn()
        translated.observe(seen: Self.seen)
        translated.answerProofs()
        try translated.answerUpdate()
        try meet(translated, host, try router.record([Self.first], sequence: translated.wall))
        #expect(try asked(translated, at: Self.first) == Endpoint(Self.first, port: SignalPort.node))
        #expect(outbound(translated, host) == nil)
    }
}
