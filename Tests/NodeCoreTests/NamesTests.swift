import IMTPlan
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

@Suite("When the DNS has no answer") struct NamesTests {
    typealias H = NodeHarness

    /// A registered node that an application has made send to a destination, which the DNS is being asked about.
    private func asking(_ adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws -> NodeHarness {
        let node = try NodeHarness(adjust: adjust)
        try node.register()
        packet(node)
        #expect(node.lookUps == [node.peer.hoa])
        return node
    }

    private func packet(_ node: NodeHarness, isName: Bool = false) {
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, isName: isName, now: now) }
    }

    private func answer(_ node: NodeHarness, _ result: ServerLookup) {
        node.lookUps.removeAll { $0 == node.peer.hoa }
        node.event { core, now in core.lookedUp(node.peer.hoa, result, now: now) }
    }

    private func isPlain(_ node: NodeHarness) -> Bool { node.imt.isPlain(node.peer.hoa.address, now: node.now.monotonic) }
    private func isReleased(_ node: NodeHarness) -> Bool { node.hasReleased(.releaseOutbound(to: node.peer.hoa.address)) }
    private func undecided(_ node: NodeHarness) -> [NodeStatus.UndecidedState] { node.core.status(now: node.now).undecided }

    // MARK: Plain after a while

    @Test("SERVFAIL is not absence: the packets wait 2 s, the DNS is asked again meanwhile, and then they go plainly")
    func lame() throws {
        let node = try asking()
        answer(node, .failed("SERVFAIL"))
        #expect(!isPlain(node) && !isReleased(node) && !node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
        node.advance(.milliseconds(1100))
        #expect(node.lookUps == [node.peer.hoa])
        answer(node, .failed("SERVFAIL"))
        node.advance(.milliseconds(850))
        #expect(!isPlain(node))
        node.advance(.milliseconds(100))
        #expect(isPlain(node) && isReleased(node))
        #expect(node.hasLogged("SERVFAIL"))
        let shown = try #require(undecided(node).first)
        #expect(shown.hoa == node.peer.hoa && shown.isPlain && shown.reason == "SERVFAIL")
        #expect(node.core.status(now: node.now).counters.destinationsUndecided == 1)
    }

    @Test(
        "A DNS that is silent altogether costs a new destination 2 s, once: later packets go on at once, and it is asked again every 30 s while used")
    func silent() throws {
        let node = try asking()
        node.advance(.milliseconds(2050))
        #expect(isPlain(node) && isReleased(node))
        answer(node, .failed("time-out"))
        for _ in 0..<4 {
            node.advance(.seconds(30))
            #expect(!isPlain(node))
            node.clear()
            packet(node)
            #expect(isPlain(node) && isReleased(node) && node.lookUps == [node.peer.hoa])
            packet(node)
            #expect(node.lookUps.count == 1)
            answer(node, .failed("time-out"))
        }
        // What nobody uses is not asked about, nor shown.
        node.clear()
        node.advance(.seconds(200))
        #expect(node.lookUps.isEmpty && undecided(node).isEmpty)
    }

    @Test("An answer in time settles it as ever: absent is plain, found is held for its IMS")
    func inTime() throws {
        let absent = try asking()
        answer(absent, .failed("SERVFAIL"))
        absent.advance(.milliseconds(1100))
        answer(absent, .absent(lifetime: .seconds(20)))
        #expect(isPlain(absent) && isReleased(absent) && undecided(absent).isEmpty)
        let found = try asking()
        answer(found, .failed("SERVFAIL"))
        found.advance(.milliseconds(1100))
        found.foundPeer()
        found.advance(.seconds(3))
        #expect(!isPlain(found) && !isReleased(found) && undecided(found).isEmpty)
    }

    @Test("A destination that was plain in doubt and then found is held again, and becomes a peer")
    func late() throws {
        let node = try asking()
        node.advance(.milliseconds(2050))
        #expect(isPlain(node))
        node.foundPeer()
        #expect(!isPlain(node))
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify()
        #expect(node.imt.outbound[node.pair] != nil && undecided(node).isEmpty)
    }

    @Test("A destination that was plain in doubt is so no more when it calls, whoever the DNS was asked for")
    func called() throws {
        let node = try asking()
        node.advance(.milliseconds(2050))
        answer(node, .failed("time-out"))
        #expect(isPlain(node) && undecided(node).count == 1)
        node.event { core, now in core.heldInbound(from: H.peerFirst, to: H.first, opensConnection: false, isSegment: true, now: now) }
        let question = try node.take(.haQuery)
        let record = node.peerRecord()
        node.answer(
            question,
            .haAnswer(
                HAAnswer(
                    code: .ok, cookie: node.cookie(question), moa: MobileAddress(H.peerFirst), mapping: record.mapping,
                    certificate: record.certificate)))
        #expect(node.lookUps == [node.peer.hoa])
        node.foundPeer()
        #expect(!isPlain(node) && undecided(node).isEmpty)
        try node.answerQuery(record)
        #expect(node.imt.outbound[node.pair] != nil)
    }

    @Test("Without any address it is not the DNS that is silent: nothing becomes plain")
    func offline() throws {
        let node = try asking()
        node.links([])
        answer(node, .failed("unreachable"))
        node.advance(.seconds(11))
        #expect(!isPlain(node) && node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
        #expect(undecided(node).isEmpty)
    }

    // MARK: Who waits

    @Test("A destination that the configuration names as MAT waits, however long, and is shown", arguments: ["time-out", "SERVFAIL"])
    func named(reason: String) throws {
        let node = try asking { $0.namedPrefixes = [IPPrefix("203.0.113.0/24")].compactMap { $0 } }
        answer(node, .failed(reason))
        node.advance(.seconds(1))
        #expect(node.lookUps == [node.peer.hoa])
        node.advance(.seconds(9))
        #expect(!isPlain(node) && node.hasReleased(.dropOutbound(to: node.peer.hoa.address)))
        packet(node)
        let shown = try #require(undecided(node).first)
        #expect(!shown.isPlain && shown.reason == reason)
        // And when it answers:
        node.foundPeer()
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify()
        #expect(node.imt.outbound[node.pair] != nil && undecided(node).isEmpty)
    }

    @Test("A destination that was a peer is asked for at the IMSs it had, and is never plain")
    func wasPeer() throws {
        let node = try NodeHarness { $0.peerIdleMax = .seconds(60) }
        try node.meet()
        node.advance(.seconds(200))
        #expect(node.core.peersCount == 0)
        // Another network, in which the DNS is silent.
        node.event { core, now in core.namesChanged(isLocal: false, now: now) }
        node.clear()
        packet(node)
        #expect(node.lookUps == [node.peer.hoa])
        node.advance(.milliseconds(2050))
        #expect(!isPlain(node))
        try node.answerQuery(node.peerRecord())
        try node.acknowledgeHANotify()
        #expect(node.imt.outbound[node.pair] != nil)
    }

    @Test("Bogus never makes a destination plain, nor leaves it so", arguments: [false, true])
    func bogus(isPlainBefore: Bool) throws {
        let node = try asking()
        if isPlainBefore {
            node.advance(.milliseconds(2050))
            #expect(isPlain(node))
        }
        answer(node, .unusable("the DNS answer is bogus"))
        #expect(!isPlain(node))
        packet(node)
        node.advance(.seconds(60))
        for _ in 0..<10 {
            packet(node)
            answer(node, .unusable("the DNS answer is bogus"))
            node.advance(.seconds(3))
            #expect(!isPlain(node))
        }
        let shown = try #require(undecided(node).first)
        #expect(!shown.isPlain && shown.reason.contains("bogus"))
    }

    @Test("Entries of an earlier run go on as long as the DNS says nothing about their peers")
    func adoption() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in
            core.adopted(
                outbound: [node.pair: node.path(H.first, H.peerFirst)], inbound: [node.arrival(H.peerFirst): node.peer.hoa],
                own: [MobileAddress(H.first): node.own.hoa], now: now)
        }
        node.event { core, _ in [.changeIMT([.setOutbound(node.pair, .rewritten(node.path(H.first, H.peerFirst)))])] }
        for _ in 0..<20 {
            if node.lookUps.contains(node.peer.hoa) { answer(node, .failed("time-out")) }
            node.advance(.seconds(10))
            #expect(node.imt.outbound[node.pair] != nil && !isPlain(node))
        }
        // Until it says, the next time that it is asked, that it is none.
        for _ in 0..<120 where !node.lookUps.contains(node.peer.hoa) { node.advance(.seconds(1)) }
        answer(node, .absent(lifetime: .seconds(30)))
        node.advance(.seconds(200))
        #expect(node.imt.outbound[node.pair] == nil)
    }

    @Test("Doubts are bounded, and the log does not grow with them")
    func bounded() throws {
        let node = try NodeHarness()
        try node.register()
        for number in 0..<1500 {
            let address = IPAddress(ipv4: 0xC612_0000 + UInt32(number))
            node.event { core, now in core.heldOutbound(to: address, now: now) }
            if number % 100 == 99 { node.advance(.milliseconds(2050)) }
        }
        let status = node.core.status(now: node.now)
        #expect(status.undecidedCount <= 1024 && status.undecided.count == 20)
        #expect(node.logs.count { $0.hasPrefix("warning") } < 60)
    }

    // MARK: A local resolver

    @Test("Where names are found by a process of this host, its questions go on at once; other packets to the same server wait")
    func localResolver() throws {
        let node = try NodeHarness()
        try node.register()
        let pass = NodeAction.passNames(to: node.peer.hoa.address)
        node.event { core, now in core.namesChanged(isLocal: true, now: now) }
        node.clear()
        packet(node, isName: true)
        #expect(node.actions.contains(pass) && !isPlain(node))
        // The server is looked up in passing, once; a third one's look-up would only make more questions.
        #expect(node.lookUps == [node.peer.hoa])
        for last in 1...5 { node.event { core, now in core.heldOutbound(to: ip("198.18.1.\(last)"), isName: true, now: now) } }
        #expect(node.lookUps.count == 2)
        for last in 1...5 { #expect(node.actions.contains(.passNames(to: ip("198.18.1.\(last)")))) }
        node.clear()
        packet(node)
        #expect(!node.actions.contains(pass) && !isReleased(node))
        packet(node, isName: true)
        #expect(node.actions.contains(pass))
        answer(node, .absent(lifetime: .seconds(60)))
        #expect(isPlain(node) && isReleased(node))
    }

    @Test("Questions to a server that is a peer, or that the configuration names as MAT, go as home address, and with a remote resolver all do")
    func mobileServers() throws {
        let pass = NodeAction.passNames(to: try NodeHarness().peer.hoa.address)
        let peer = try NodeHarness()
        try peer.meet()
        peer.event { core, now in core.namesChanged(isLocal: true, now: now) }
        packet(peer, isName: true)
        let named = try asking { $0.namedPrefixes = [IPPrefix("203.0.113.1/32")].compactMap { $0 } }
        named.event { core, now in core.namesChanged(isLocal: true, now: now) }
        packet(named, isName: true)
        let remote = try asking()
        packet(remote, isName: true)
        for node in [peer, named, remote] { #expect(!node.actions.contains(pass) && !isPlain(node)) }
    }

    // MARK: The own HoA

    @Test(
        "An own HoA that a captive portal denies is asked for again after 1, 2, 4, 8, 10, 10 s, whatever the answer says, and registers when it opens"
    )
    func portal() throws {
        let node = try NodeHarness()
        node.links([H.first])
        var pauses: [Int64] = []
        var last = node.now.monotonic
        for _ in 0..<6 {
            #expect(node.lookUps == [node.own.hoa])
            node.lookUps = []
            last = node.now.monotonic
            node.event { core, now in core.lookedUp(node.own.hoa, .absent(lifetime: .seconds(300)), now: now) }
            while node.lookUps.isEmpty, node.now.monotonic - last < .seconds(60) { node.advance(.milliseconds(100)) }
            pauses.append((node.now.monotonic - last).components.seconds)
        }
        #expect(pauses == [1, 2, 4, 8, 10, 10])
        #expect(node.core.status(now: node.now).registrations.first?.problem?.text.contains("no IMS record") == true)
        node.foundOwn()
        node.answerProofs()
        try node.answerUpdate()
        #expect(node.core.isRegistered)
        #expect(node.core.status(now: node.now).registrations.first?.problem == nil)
    }

    @Test("What the portal denied of others is forgotten as soon as the own IMS is found")
    func portalOpens() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.event { core, now in core.lookedUp(node.own.hoa, .absent(lifetime: .seconds(300)), now: now) }
        packet(node)
        answer(node, .absent(lifetime: .seconds(300)))
        #expect(isPlain(node))
        node.advance(.milliseconds(1100))
        node.foundOwn()
        #expect(!isPlain(node))
    }

    @Test("A problem with the DNS that is over is no longer shown, though nothing was registered anew")
    func passingProblem() throws {
        let node = try NodeHarness()
        try node.register()
        node.event { core, now in core.namesChanged(isLocal: false, now: now) }
        node.event { core, now in core.lookedUp(node.own.hoa, .failed("SERVFAIL"), now: now) }
        #expect(node.core.isRegistered && node.core.status(now: node.now).registrations.first?.problem?.text.contains("SERVFAIL") == true)
        node.advance(.milliseconds(1100))
        node.foundOwn()
        #expect(node.core.status(now: node.now).registrations.first?.problem == nil)
    }

    // MARK: Another network

    @Test("When network or resolvers change, the own HoA is asked for at once whatever pause it is in, and so is what waits")
    func changed() throws {
        let node = try NodeHarness()
        node.links([H.first])
        packet(node)
        for _ in 0..<6 {
            node.event { core, now in core.lookedUp(node.own.hoa, .failed("no DNS server is reachable"), now: now) }
            node.advance(.seconds(11))
        }
        node.event { core, now in core.lookedUp(node.own.hoa, .failed("no DNS server is reachable"), now: now) }
        packet(node)
        answer(node, .failed("no DNS server is reachable"))
        node.clear()
        node.event { core, now in core.namesChanged(isLocal: false, now: now) }
        #expect(node.lookUps.contains(node.own.hoa))
    }

    @Test("Absence that was not validated here is forgotten in another network; IMSs are used until they are known anew")
    func forgotten() throws {
        let node = try asking()
        answer(node, .absent(lifetime: .seconds(300)))
        #expect(isPlain(node))
        node.event { core, now in core.namesChanged(isLocal: false, now: now) }
        #expect(!isPlain(node))
        node.clear()
        packet(node)
        #expect(node.lookUps == [node.peer.hoa])
        // The own IMSs are asked for anew, and known meanwhile.
        #expect(node.core.status(now: node.now).registrations.first?.servers.isEmpty == false)
    }

    @Test("IMSs that were validated on this host hold in any network")
    func validated() throws {
        let node = try NodeHarness()
        node.links([H.first])
        node.lookUps = []
        let set = ServerSet(
            endpoints: H.ownServers.map { Endpoint($0, port: SignalPort.ims) }, keys: [node.ownAuthority.key.publicKey],
            expires: node.now.monotonic + .seconds(3600),
            isValidated: true)
        node.event { core, now in core.lookedUp(node.own.hoa, .found(set), now: now) }
        node.clear()
        node.event { core, now in core.namesChanged(isLocal: false, now: now) }
        #expect(node.lookUps.isEmpty)
    }
}
