import IMTPlan
import MATSignal
import MATTesting
import NodeCore
import Testing

@Suite("Locator check") struct LocatorTests {
    typealias H = NodeHarness

    @Test(
        "A node says of its own locators that they are its own, and of nothing else",
        arguments: [
            ("198.51.100.1", "192.0.2.10", ResponseCode.ok), ("198.51.100.2", "192.0.2.10", .notAuthoritative),
            ("198.51.100.1", "192.0.2.99", .notAuthoritative),
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

    /// A node with the peer's record, whose locators have been asked and have not answered.
    private func checking(at places: [IPAddress] = [H.peerFirst], adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws -> NodeHarness {
        let node = try NodeHarness(answersChecks: false, adjust: adjust)
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord(places))
        try node.acknowledgeHANotify()
        return node
    }

    /// A second peer, of the same IMS; its record lists these places.
    private func enterOther(_ node: NodeHarness, at places: [IPAddress]) throws -> TestIdentity {
        let other = node.peerAuthority.enrol(home("203.0.113.2"), seed: 13)
        node.event { core, now in core.heldOutbound(to: other.hoa.address, now: now) }
        node.found(other.hoa, [H.peerServer], node.peerAuthority)
        let query = try node.take(.maQuery, to: H.peerServer)
        let record = other.record(places, sequence: node.wall)
        node.answer(
            query,
            .maAnswer(
                MAAnswer(
                    code: .ok, cookie: node.cookie(query), hoa: other.hoa, mapping: record.mapping, certificate: record.certificate, subscribe: 300)))
        try node.acknowledgeHANotify()
        return other
    }

    /// The check of this HoA that is out at the place.
    private func answerCheck(_ node: NodeHarness, of hoa: HomeAddress, at place: IPAddress = H.peerFirst, _ code: ResponseCode = .ok) throws {
        let index = try #require(
            node.sent.firstIndex { $0.query?.hoa == hoa && $0.to == Endpoint(place, port: SignalPort.node) }, "\(hoa) was not asked for at \(place)")
        let query = node.sent.remove(at: index)
        node.answer(query, .maAnswer(MAAnswer(code: code, cookie: Cookie(client: query.message.cookie.client), hoa: hoa)))
    }

    // MARK: Proof

    @Test("All locators are asked when they are learned, standby ones too: client cookie and HoA, 40 octets")
    func learned() throws {
        let node = try checking(at: [H.peerFirst, H.peerSecond])
        for place in [H.peerFirst, H.peerSecond] {
            let query = try node.take(.maQuery, to: place)
            #expect(
                query.octetsCount == 40 && query.to.port == SignalPort.node && query.query?.hoa == node.peer.hoa && query.message.cookie.server == nil
            )
        }
    }

    @Test("Until a locator is proven nothing goes there and nothing from there counts; what is held goes at the proof")
    func held() throws {
        let node = try checking(at: [H.peerFirst, H.peerSecond])
        #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
        #expect(!node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        try node.answerCheck()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
        try node.answerCheck(at: H.peerSecond)
        #expect(node.outbound == node.path(H.first, H.peerFirst) && node.imt.inbound.count == 2)
    }

    @Test("A silent locator is not used, until it answers after all")
    func silent() throws {
        let node = try checking()
        node.advance(.seconds(4))
        #expect(node.hasLogged("did not prove") && node.imt.inbound.isEmpty && node.imt.outbound.isEmpty)
        node.sent = []
        node.advance(.seconds(20))
        node.sent = node.sent.filter { $0.to.address == H.peerFirst }.suffix(1)
        try node.answerCheck()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    @Test("A locator that nobody vouches for is used neither within 300 s nor after")
    func refused() throws {
        let node = try checking()
        for _ in 0..<64 {
            node.advance(.seconds(5))
            #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
        }
    }

    @Test("Whoever has packets for a peer that was refused, or sends from there, is not kept waiting for its next turn")
    func askedAgain() throws {
        for isOutbound in [true, false] {
            let node = try checking()
            // Between the checks of the 61st and the 91st second.
            node.advance(.seconds(75))
            node.sent = []
            if isOutbound {
                node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
            } else {
                node.event { core, now in core.heldInbound(from: H.peerFirst, to: H.first, opensConnection: false, isSegment: true, now: now) }
            }
            try node.answerCheck()
            #expect(node.outbound == node.path(H.first, H.peerFirst))
            if !isOutbound { #expect(node.hasReleased(.releaseInbound(from: H.peerFirst, to: H.first))) }
        }
    }

    @Test("A host that says that it is not the peer counts in neither direction from then on, and the peer's IMS is asked")
    func denies() throws {
        let node = try checking()
        try node.answerCheck()
        #expect(node.outbound != nil)
        let record = node.peerRecord()
        node.advance(.milliseconds(30_100))
        try node.answerQuery(record)
        node.sent.removeAll { $0.to.address == H.peerServer }
        try node.answerCheck(.notAuthoritative)
        #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
        #expect(node.count(.maQuery, to: H.peerServer) == 1)
    }

    @Test("With a second locator traffic goes there when the first fails")
    func second() throws {
        let node = try checking(at: [H.peerFirst, H.peerSecond])
        try node.answerCheck(at: H.peerSecond)
        #expect(node.outbound == node.path(H.first, H.peerSecond))
        try node.answerCheck(.notAuthoritative)
        #expect(node.outbound == node.path(H.first, H.peerSecond) && node.imt.inbound == [node.path(H.first, H.peerSecond): node.pair])
    }

    @Test("A MA Notify from the locator under our own cookie of the last 300 s proves it, an older one does not")
    func provenByNotify() throws {
        for isFresh in [true, false] {
            let node = try checking()
            node.notify(node.peerRecord(), from: node.peerNode)
            let cookie = try node.takeAck().cookie.server
            node.advance(isFresh ? .seconds(290) : .seconds(310))
            node.notify(node.peerRecord(), from: node.peerNode, cookie: cookie)
            #expect((node.outbound == node.path(H.first, H.peerFirst)) == isFresh)
        }
    }

    @Test("All listed locators are asked again with each poll")
    func polled() throws {
        let node = try checking(at: [H.peerFirst, H.peerSecond])
        try node.answerCheck()
        try node.answerCheck(at: H.peerSecond)
        node.clear()
        node.advance(.seconds(31))
        #expect(node.count(.maQuery, to: H.peerFirst) >= 1 && node.count(.maQuery, to: H.peerSecond) >= 1)
    }

    @Test("A proof lasts for three polls without an answer, and longer only while nobody else answers either", arguments: [true, false])
    func proofEnds(isHeard: Bool) throws {
        let node = try checking()
        try node.answerCheck()
        let record = node.peerRecord()
        for second in 1...140 {
            node.advance(.seconds(1))
            if isHeard, node.count(.maQuery, to: H.peerServer) > 0 { try node.answerQuery(record) }
            // Agents may be restarted meanwhile, and paths fail: the kernels go on.
            if second < 110 { #expect(node.outbound == node.path(H.first, H.peerFirst), "\(second) s") }
        }
        #expect(node.imt.outbound.isEmpty == isHeard && node.imt.inbound.isEmpty == isHeard)
    }

    // MARK: A notice

    @Test("A peer that moved is heard from its new place at once, for 3 s; packets to it wait for its proof")
    func noticed() throws {
        for isProven in [true, false] {
            let node = try checking()
            try node.answerCheck()
            node.advance(.seconds(1))
            node.clear()
            node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
            #expect(node.imt.inbound.count == 2 && node.imt.outbound.isEmpty)
            if isProven {
                try node.answerCheck(at: H.peerSecond)
                #expect(node.outbound == node.path(H.first, H.peerSecond))
                #expect(node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)))
            }
            node.advance(.milliseconds(2900))
            #expect(node.imt.arrivals[node.arrival(H.peerSecond)] == node.peer.hoa)
            node.advance(.milliseconds(200))
            #expect(node.imt.arrivals[node.arrival(H.peerSecond)] == (isProven ? node.peer.hoa : nil))
            guard !isProven else { continue }
            // A second notice within 300 s counts for nothing, also if a record in between did not list the place.
            node.notify(node.peerRecord([H.peerFirst]), from: node.peerNode)
            node.advance(.seconds(1))
            node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
            #expect(node.imt.arrivals[node.arrival(H.peerSecond)] == nil)
        }
    }

    @Test("A notice counts for the very address that it came from, and from its port 6289")
    func noticedElsewhere() throws {
        for source in [
            Endpoint(H.peerFirst, port: SignalPort.node), Endpoint(H.peerSecond, port: 5000), Endpoint(H.peerServer, port: SignalPort.ims),
        ] {
            let node = try checking()
            try node.answerCheck()
            node.notify(node.peerRecord([H.peerSecond]), from: source)
            #expect(node.imt.arrivals[node.arrival(H.peerSecond)] == nil)
        }
    }

    @Test(
        "No notice counts where another peer is, where an untranslated conversation goes on, at a next hop or a resolver, or elsewhere on an own link"
    )
    func noticedInVain() throws {
        for place in ["198.18.0.20", "198.18.0.21", "192.0.2.1", "192.88.9.9", "192.0.2.77"].map(ip) {
            let node = try checking()
            try node.answerCheck()
            let own = OwnLocator(MobileAddress(H.first), interface: "if0", link: prefix("192.0.2.0/24"))
            node.event { core, now in core.linksChanged([own], infrastructure: [ip("192.0.2.1"), ip("192.88.9.9")], now: now) }
            _ = try enterOther(node, at: [ip("198.18.0.20")])
            try answerCheck(node, of: home("203.0.113.2"), at: ip("198.18.0.20"))
            node.event { core, now in core.heldInbound(from: ip("198.18.0.21"), to: H.first, opensConnection: true, now: now) }
            let question = try node.take(.haQuery)
            node.answer(question, .haAnswer(HAAnswer(code: .notFound, cookie: node.cookie(question), moa: moa("198.18.0.21"), lifetime: 5)))
            node.advance(.milliseconds(20))
            let before = node.imt.inbound
            node.notify(node.peerRecord([place]), from: Endpoint(place, port: SignalPort.node))
            #expect(node.imt.inbound == before, "\(place)")
            // But the check does.
            try node.answerCheck(at: place)
            #expect(node.imt.arrivals[node.arrival(place)] == node.peer.hoa && node.outbound?.peer.address == place)
        }
    }

    @Test("Who showed its place under our cookie before anybody told us of it is heard as soon as its record is believed")
    func early() throws {
        for isSame in [true, false] {
            let node = try NodeHarness(answersChecks: false)
            try node.register()
            let record = node.peerRecord()
            node.notify(record, from: node.peerNode)
            let cookie = try node.takeAck().cookie.server
            node.notify(isSame ? record : node.peerRecord(sequence: node.wall + 1), from: node.peerNode, cookie: cookie)
            #expect(try node.takeAck().code == .notFound)
            #expect(node.imt.inbound.isEmpty)
            // Step (4): the own IMS tells of it.
            node.notify(record, from: node.ownIMS)
            let own = try node.takeAck().cookie.server
            node.notify(record, from: node.ownIMS, cookie: own)
            node.foundPeer()
            #expect(node.imt.arrivals == (isSame ? [node.arrival(H.peerFirst): node.peer.hoa] : [:]))
        }
    }

    @Test("A node gets acquainted with a new peer while its IMS is told, and shows its place ahead of the first packets")
    func introduces() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        let first = try node.take(.maNotify, to: H.peerFirst)
        #expect(first.message.cookie.server == nil)
        node.answer(first, .maNotifyAck(MANotifyAck(code: .notFound, cookie: node.cookie(first), hoa: node.own.hoa)))
        try node.acknowledgeHANotify()
        let second = try node.take(.maNotify, to: H.peerFirst)
        #expect(second.message.cookie.server != nil)
        let sends = node.actions.lastIndex { if case .sendIfRoom = $0 { true } else if case .send = $0 { true } else { false } } ?? .max
        #expect(sends < node.actions.firstIndex(of: .releaseOutbound(to: node.peer.hoa.address)) ?? -1)
    }

    // MARK: Keys

    @Test(
        "A network's certificate is believed under keys at its own name, never under those at a name of one address in it", arguments: [true, false])
    func keysOfNetworks(isNamed: Bool) throws {
        let node = try NodeHarness()
        try node.register()
        let key = makeKey(31)
        let start = VirtualClock.wallAtStart - 1000
        // The IMS at the name of one address certifies a key for the whole network around it.
        let certificate = try #require(
            Certificate(
                issuing: home("203.0.113.0"), prefixLength: 120, nodeKey: key.publicKey, notBefore: start, notAfter: start + 86_400_000,
                with: node.peerAuthority.key))
        let network = MappingRecord(
            hoa: home("203.0.113.0"), prefixLength: 120, sequence: node.wall, lifetime: 600, issued: node.wall,
            locators: [Locator(moa("198.18.3.0"), prefixLength: 120)])
        let record = CertifiedMapping(mapping: try #require(network.signed(with: key)), certificate: certificate)
        node.keysOfPrefixes = nil
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(record)
        #expect(node.keyLookUps == [prefix("203.0.113.0/24")] && node.imt.outbound.isEmpty && node.core.peersCount == 0)
        node.foundKeys(prefix("203.0.113.0/24"), [isNamed ? node.peerAuthority.key.publicKey : makeKey(77).publicKey])
        try node.acknowledgeHANotify()
        #expect((node.outbound == node.path(H.first, ip("198.18.3.1"))) == isNamed)
        #expect(node.core.counters.recordsRefused == (isNamed ? 0 : 1))
    }

    @Test("Likewise for a MA Notify, and where the DNS has nothing at the prefix's name")
    func keysOfNetworksAtNotify() throws {
        let node = try NodeHarness()
        try node.meet()
        let key = makeKey(31)
        let start = node.wall
        let certificate = try #require(
            Certificate(
                issuing: home("203.0.113.0"), prefixLength: 120, nodeKey: key.publicKey, notBefore: start, notAfter: start + 86_400_000,
                with: node.peerAuthority.key))
        let network = MappingRecord(
            hoa: home("203.0.113.0"), prefixLength: 120, sequence: node.wall + 1, lifetime: 600, issued: node.wall,
            locators: [Locator(moa("198.18.3.0"), prefixLength: 120)])
        let record = CertifiedMapping(mapping: try #require(network.signed(with: key)), certificate: certificate)
        node.keysOfPrefixes = nil
        let source = Endpoint(ip("198.18.3.0"), port: SignalPort.node)
        node.notify(record, from: source)
        let ack = try node.takeAck()
        #expect(ack.code == .cookieRequired && node.keyLookUps.isEmpty)
        node.notify(record, from: source, cookie: ack.cookie.server)
        #expect(node.keyLookUps == [prefix("203.0.113.0/24")])
        node.foundKeys(prefix("203.0.113.0/24"), [])
        #expect(try node.takeAck().code == .authenticationFailed)
        #expect(node.outbound == node.path(H.first, H.peerFirst))
    }

    // MARK: Claims

    @Test("A stranger's record that lists other hosts' places gets nothing of theirs, standby ones included, and keeps nobody from them")
    func stranger() throws {
        let node = try checking()
        try node.answerCheck()
        let victim = ip("198.18.0.66")
        let stranger = try enterOther(node, at: [H.peerSecond, H.peerFirst, victim])
        try answerCheck(node, of: stranger.hoa, at: H.peerSecond)
        try answerCheck(node, of: stranger.hoa, at: H.peerFirst, .notAuthoritative)
        #expect(node.imt.arrivals == [node.arrival(H.peerFirst): node.peer.hoa, node.arrival(H.peerSecond): stranger.hoa])
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        // The third host is a node too, and a peer of ours: its own proof counts.
        node.advance(.milliseconds(10))
        node.notify(node.peerRecord([victim]), from: Endpoint(victim, port: SignalPort.node))
        try answerCheck(node, of: node.peer.hoa, at: victim)
        #expect(node.outbound == node.path(H.first, victim))
    }

    @Test("Of two HoAs at one address the newer proof counts; the other loses it in both directions, and its IMS is asked")
    func newestProof() throws {
        let node = try checking()
        try node.answerCheck()
        node.sent = []
        // DHCP gave its address to another node.
        let other = try enterOther(node, at: [H.peerFirst])
        let otherPair = HomePair(own: node.own.hoa, peer: other.hoa)
        #expect(node.imt.outbound[otherPair] == nil && node.outbound == node.path(H.first, H.peerFirst), "a claim alone changes nothing")
        // It was asked at once.
        try answerCheck(node, of: other.hoa)
        #expect(node.imt.outbound == [otherPair: node.path(H.first, H.peerFirst)])
        #expect(node.imt.arrivals == [node.arrival(H.peerFirst): other.hoa])
        #expect(node.imt.violations.isEmpty)
        #expect(node.sent.contains { $0.to.address == H.peerServer && $0.query?.hoa == node.peer.hoa })
        node.advance(.seconds(40))
        #expect(node.imt.arrivals == [node.arrival(H.peerFirst): other.hoa])
        // The first is elsewhere now.
        node.notify(node.peerRecord([H.peerSecond]), from: Endpoint(H.peerSecond, port: SignalPort.node))
        try answerCheck(node, of: node.peer.hoa, at: H.peerSecond)
        #expect(node.outbound == node.path(H.first, H.peerSecond) && node.imt.arrivals[node.arrival(H.peerFirst)] == other.hoa)
    }

    @Test("A node that starts with another HoA at the same address takes nothing for the one before")
    func otherIdentity() throws {
        let node = try checking()
        try node.answerCheck()
        node.advance(.seconds(31))
        try answerCheck(node, of: node.peer.hoa, .notAuthoritative)
        #expect(node.imt.inbound.isEmpty && node.imt.outbound.isEmpty)
        node.sent = []
        let other = try enterOther(node, at: [H.peerFirst])
        try answerCheck(node, of: other.hoa)
        #expect(node.imt.arrivals == [node.arrival(H.peerFirst): other.hoa])
    }

    @Test("However many peers list one address, whoever is there is found")
    func manyClaims() throws {
        let node = try NodeHarness(answersChecks: false)
        try node.register()
        var last: TestIdentity?
        for number in 1...20 {
            let other = node.peerAuthority.enrol(home("203.0.113.\(number)"), seed: UInt8(20 + number))
            last = other
            node.event { core, now in core.heldOutbound(to: other.hoa.address, now: now) }
            node.found(other.hoa, [H.peerServer], node.peerAuthority)
            let query = try node.take(.maQuery, to: H.peerServer)
            let record = other.record([H.peerFirst], sequence: node.wall)
            node.answer(
                query,
                .maAnswer(
                    MAAnswer(
                        code: .ok, cookie: node.cookie(query), hoa: other.hoa, mapping: record.mapping, certificate: record.certificate,
                        subscribe: 300)))
            node.advance(.milliseconds(200))
        }
        let hoa = try #require(last?.hoa)
        try answerCheck(node, of: hoa)
        #expect(node.imt.arrivals == [node.arrival(H.peerFirst): hoa])
    }

    @Test("Entries of an earlier run go on while their places are asked, and go when these say no")
    func restarted() throws {
        for code in [ResponseCode.ok, .notAuthoritative] {
            let node = try NodeHarness(answersChecks: false)
            let (pair, path) = (node.pair, node.path(H.first, H.peerFirst))
            node.event { core, now in core.adopted(outbound: [pair: path], inbound: [node.arrival(H.peerFirst): pair.peer], now: now) }
            node.links([H.first])
            node.foundOwn()
            node.foundPeer()
            try node.answerUpdate()
            try node.answerQuery(node.peerRecord())
            try node.acknowledgeHANotify()
            func isRemoved(_ change: IMTChange) -> Bool {
                node.actions.contains { if case .changeIMT(let changes) = $0 { changes.contains(change) } else { false } }
            }
            let (inbound, outbound) = (IMTChange.removeInbound(peer: MobileAddress(H.peerFirst), own: pair.own), IMTChange.removeOutbound(pair))
            #expect(!isRemoved(inbound) && !isRemoved(outbound))
            try node.answerCheck(code)
            #expect(isRemoved(inbound) == (code != .ok) && isRemoved(outbound) == (code != .ok))
        }
    }

    // MARK: Scope

    @Test(
        "Own addresses and addresses of other sites are never a peer's locator, nor asked",
        arguments: ["192.0.2.10", "10.0.0.5", "192.168.1.9", "100.64.3.4", "198.51.100.1"])
    func skipped(address: String) throws {
        let node = try checking(at: [ip(address), H.peerFirst])
        #expect(node.sent.allSatisfy { $0.to.address != ip(address) })
        try node.answerCheck()
        #expect(node.outbound == node.path(H.first, H.peerFirst))
        #expect(node.imt.inbound == [node.path(H.first, H.peerFirst): node.pair])
        #expect(node.imt.violations.isEmpty)
    }

    @Test("Gateways and resolvers get nothing before they prove themselves", arguments: ["192.0.2.1", "192.88.9.9"])
    func infrastructure(address: String) throws {
        let node = try NodeHarness(answersChecks: false)
        node.links([H.first], infrastructure: [ip("192.0.2.1"), ip("192.88.9.9")])
        node.foundOwn()
        try node.answerUpdate()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([ip(address)]))
        try node.acknowledgeHANotify()
        #expect(node.imt.outbound.isEmpty && node.imt.inbound.isEmpty)
        try node.answerCheck(at: ip(address))
        #expect(node.outbound == node.path(H.first, ip(address)))
    }

    @Test("Within one site its addresses are locators")
    func site() throws {
        let node = try NodeHarness()
        try node.register(at: [ip("10.0.0.4")])
        // Its servers, of an earlier version, never say where they see it.
        node.advance(.seconds(3))
        node.clear()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([ip("10.1.0.5")]))
        try node.acknowledgeHANotify()
        #expect(node.outbound == node.path(ip("10.0.0.4"), ip("10.1.0.5")))
    }

    @Test(
        "A private address is used where its prefix is named as routed, and otherwise refused with a sentence",
        arguments: ["10.8.0.5", "100.64.0.5"], [true, false])
    func routed(address: String, isNamed: Bool) throws {
        let node = try NodeHarness { if isNamed { $0.routedPrefixes = [prefix("10.0.0.0/8"), prefix("100.64.0.0/10")] } }
        try node.register()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        try node.answerQuery(node.peerRecord([ip(address)]))
        try node.acknowledgeHANotify()
        #expect(node.outbound == (isNamed ? node.path(H.first, ip(address)) : nil))
        let problem = node.core.status(now: node.now).peers.first?.problem
        #expect((problem?.text.contains("`routed` in matd.yaml") ?? false) == !isNamed)
        #expect(node.hasLogged("`routed` in matd.yaml") == !isNamed)
    }

    @Test("A node whose only address is private, at an IMS that is not, is told that peers elsewhere won't use it", arguments: [true, false])
    func routedOwn(isNamed: Bool) throws {
        let node = try NodeHarness { if isNamed { $0.routedPrefixes = [prefix("10.0.0.0/8")] } }
        try node.register(at: [ip("10.8.0.5")])
        #expect((node.core.status(now: node.now).registrations.first?.problem?.text.contains("not of global scope") ?? false) == !isNamed)
    }
}
