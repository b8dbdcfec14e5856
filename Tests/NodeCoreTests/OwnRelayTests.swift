import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What a node behind a translator makes of the relays that its IMS record, or its configuration, names.
@Suite("Own relays") struct OwnRelayTests {
    private static let inside = ip("10.1.2.3")
    private let seen = Endpoint(ip("192.0.2.100"), port: 40_001)
    private let relay = Endpoint(ip("192.88.9.1"), port: SignalPort.relay)
    private let other = Endpoint(ip("192.88.9.2"), port: SignalPort.relay)

    /// The servers and relays answer where they see the node, and grant each Bind.
    private func serve(_ node: NodeHarness, seen: Endpoint? = nil, seenByRelays: Endpoint? = nil, code: ResponseCode = .ok) {
        let seen = seen ?? self.seen
        while let index = node.sent.firstIndex(where: { $0.message.type == .bind }) {
            let request = node.sent.remove(at: index)
            guard case .bind(let bind) = request.message.body else { continue }
            let isRelays = request.to.port == SignalPort.relay
            var ack = BindAck(code: .ok, cookie: node.cookie(request, isRelays ? 2 : 1), observed: isRelays ? seenByRelays ?? seen : seen)
            switch bind.wish {
            case .ask: break
            case .bind(let hoa, _, _):
                if code == .ok || !isRelays { ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay) } else { ack.code = code }
            case .refresh(let hoa):
                if bind.cookie.server == nil { ack.code = .cookieRequired } else { ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay) }
            }
            node.answer(request, .bindAck(ack))
        }
    }

    private func found(_ relays: [RelayHost], at places: [IPAddress] = [inside], adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) throws
        -> NodeHarness
    {
        let node = try NodeHarness(adjust: adjust)
        node.ignoresAsks = false
        node.links(places)
        node.foundOwn(relays: relays)
        return node
    }

    @Test("It asks at its relays too: a second opinion about the mapping, while its record lists what the IMS saw")
    func opinion() throws {
        let node = try found([RelayHost([relay])])
        #expect(node.sent.contains { $0.isAsk && $0.to == relay })
        // The relay answers first, and sees another port.
        let index = try #require(node.sent.firstIndex { $0.isAsk && $0.to == relay })
        let ask = node.sent.remove(at: index)
        node.answer(ask, .bindAck(BindAck(code: .ok, cookie: node.cookie(ask, 2), observed: Endpoint(seen.address, port: 50_000))))
        #expect(node.count(.imsUpdate) == 0)
        serve(node, seenByRelays: Endpoint(seen.address, port: 50_000))
        node.answerProofs()
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(update.record.mapping.record.endpoints == [seen])
        #expect(node.core.status(now: node.now).uplinks.first?.translation?.mapping == .endpointDependent)
    }

    @Test("It is bound at each of its relays, by configuration first, and its record lists them after all else")
    func bound() throws {
        let node = try found([RelayHost([relay])]) { $0.relays = [RelayHost([other])] }
        serve(node)
        node.answerProofs()
        let update = try #require(try node.take(.imsUpdate).update)
        #expect(
            update.record.mapping.record.places == [.endpoint(seen, preference: 10), .relay(other, preference: 200), .relay(relay, preference: 201)])
        let states = node.core.status(now: node.now).relays
        #expect(states.map(\.standing) == [.bound, .bound] && states.map(\.server) == [other, relay] && states.map(\.observed) == [seen, seen])
    }

    @Test("A relay that refuses is in no record, and status says why; one that is silent is left out after its last try")
    func refused() throws {
        let node = try found([RelayHost([relay])])
        serve(node, code: .notAuthoritative)
        node.answerProofs()
        serve(node, code: .notAuthoritative)
        try node.answerUpdate()
        serve(node, code: .notAuthoritative)
        #expect(node.count(.imsUpdate) == 0)
        let states = node.core.status(now: node.now).relays
        guard case .refused = states.first?.standing else {
            Issue.record("\(states)")
            return
        }
        // It has changed its mind.
        while node.count(.imsUpdate) == 0, node.now.monotonic < .zero + .seconds(60) {
            node.advance(.milliseconds(100))
            serve(node)
        }
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.relays == [relay])
        try acknowledge(node)
        // It dies.
        let began = node.now.monotonic
        while node.count(.imsUpdate) == 0, node.now.monotonic - began < .seconds(60) {
            node.advance(.milliseconds(100))
            node.sent.removeAll { $0.to == relay }
            serve(node)
        }
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.relays == [])
        #expect(node.core.status(now: node.now).relays.first?.standing == .silent)
    }

    /// The IMS takes the record that was just looked at.
    private func acknowledge(_ node: NodeHarness) throws {
        while node.count(.imsUpdate) == 0 { node.advance(.milliseconds(50)) }
        try node.answerUpdate()
    }

    @Test("Where it is reached as it is, it asks its relays and is bound at none")
    func open() throws {
        let node = try found([RelayHost([relay])], at: [NodeHarness.first])
        let own = Endpoint(NodeHarness.first, port: SignalPort.node)
        while let index = node.sent.firstIndex(where: \.isAsk) {
            let ask = node.sent.remove(at: index)
            node.answer(ask, .bindAck(BindAck(code: .ok, cookie: node.cookie(ask), observed: own)))
        }
        node.answerProofs()
        try node.answerUpdate()
        #expect(node.count(.bind) == 0 && node.count(.imsUpdate) == 0)
        #expect(node.core.status(now: node.now).relays.map(\.standing) == [.notNeeded])
    }

    @Test("An IMS that takes no record with relays gets one without, and that is said")
    func unlisted() throws {
        let node = try found([RelayHost([relay])])
        serve(node)
        node.answerProofs()
        try node.answerUpdate(.refused)
        let update = try #require(node.sent.first { $0.message.type == .imsUpdate }?.update)
        #expect(update.record.mapping.record.places == [.endpoint(seen, preference: 10)])
        #expect(node.hasLogged("does not take a record that lists the relay"))
        #expect(node.core.status(now: node.now).relays.map(\.standing) == [.unlisted])
        try node.answerUpdate()
        #expect(node.count(.imsUpdate) == 0 && node.core.status(now: node.now).relays.map(\.standing) == [.unlisted])
    }

    @Test("An IMS that refuses a record since a translator has just given another port gets the relays with the next one")
    func otherPort() throws {
        let node = try found([RelayHost([relay])])
        serve(node)
        node.answerProofs()
        let other = Endpoint(seen.address, port: 61_198)
        var listed: [[Endpoint]] = []
        // As the IMS does: what is not the source is refused. What the node asks meanwhile is answered first.
        while node.count(.imsUpdate) > 0, listed.count < 8 {
            if !listed.isEmpty { serve(node, seen: other) }
            let update = try node.take(.imsUpdate)
            let record = try #require(update.update?.record.mapping.record)
            let isReached = record.places.allSatisfy { $0.endpoint == nil || $0.endpoint == other }
            listed.append(record.relays)
            node.answer(update, .imsUpdateReply(IMSUpdateReply(code: isReached ? .ok : .refused, cookie: node.cookie(update), observed: other)))
        }
        #expect(listed.count < 8 && listed.first == [relay] && listed.last == [relay], "\(listed)")
        #expect(node.core.status(now: node.now).relays.map(\.standing) == [.bound])
    }

    @Test("A move within translators keeps the relays in the record while they are asked from the new address")
    func move() throws {
        let node = try found([RelayHost([relay])])
        serve(node)
        node.answerProofs()
        try node.answerUpdate()
        serve(node)
        node.clear()
        node.links([ip("10.9.9.9")])
        // At once, from the new address.
        #expect(node.sent.contains { $0.to == relay && $0.message.type == .bind && $0.from == ip("10.9.9.9") && !$0.isAsk })
        for _ in 0..<3 { serve(node) }
        node.answerProofs()
        #expect(try node.take(.imsUpdate).update?.record.mapping.record.relays == [relay])
    }

    /// Lifetime 0: whom it ends where, and from which address.
    private func endings(_ node: NodeHarness) -> [(server: Endpoint, from: IPAddress)] {
        node.sent.compactMap { sent in
            guard case .bind(let bind) = sent.message.body, case .bind(_, _, lifetime: 0) = bind.wish else { return nil }
            return (sent.to, sent.from)
        }
    }

    /// Grants for a while whatever is asked for.
    private func go(_ node: NodeHarness, _ duration: Duration, seen: Endpoint? = nil) {
        let end = node.now.monotonic + duration
        while node.now.monotonic < end {
            node.advance(.milliseconds(50))
            serveAll(node, seen: seen)
            node.answerProofs()
            while node.count(.imsUpdate) > 0 { try? node.answerUpdate() }
        }
    }

    /// As `serve`, but what ends a binding stays there to be looked at.
    private func serveAll(_ node: NodeHarness, seen: Endpoint?) {
        let ended = node.sent.filter { sent in
            if case .bind(let bind) = sent.message.body, case .bind(_, _, lifetime: 0) = bind.wish { return true }
            return false
        }
        node.sent.removeAll { sent in ended.contains { $0.message == sent.message } }
        while let index = node.sent.firstIndex(where: { $0.message.type == .bind }) {
            let request = node.sent.remove(at: index)
            guard case .bind(let bind) = request.message.body else { continue }
            let isRelays = request.to.port == SignalPort.relay
            var ack = BindAck(code: .ok, cookie: node.cookie(request, isRelays ? 2 : 1), observed: seen ?? self.seen)
            switch bind.wish {
            case .ask: break
            case .bind(let hoa, _, _): ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay)
            case .refresh(let hoa):
                if bind.cookie.server == nil { ack.code = .cookieRequired } else { ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay) }
            }
            node.answer(request, .bindAck(ack))
        }
        node.sent += ended
    }

    @Test("Relays and IMSs are told when a network is reached in which they are not needed, from there, and not before peers can have heard")
    func toldAfterMove() throws {
        let node = try found([RelayHost([relay])])
        serve(node)
        node.answerProofs()
        try node.answerUpdate()
        go(node, .seconds(1))
        #expect(node.core.status(now: node.now).relays.map(\.standing) == [.bound])
        node.links([NodeHarness.first])
        let own = Endpoint(NodeHarness.first, port: SignalPort.node)
        go(node, OwnBindings.lingerTime - .seconds(1), seen: own)
        #expect(endings(node).isEmpty && node.core.status(now: node.now).relays.map(\.standing) == [.notNeeded])
        go(node, .seconds(2), seen: own)
        #expect(endings(node).contains { $0.server == relay && $0.from == NodeHarness.first }, "\(node.sent)")
        #expect(endings(node).contains { NodeHarness.ownServers.contains($0.server.address) && $0.server.port == SignalPort.ims })
    }

    @Test("A relay that is still used by another of its addresses is not told that the first is not needed")
    func sameRelay() throws {
        let inSix = Endpoint(ip("2001:db8:88::1"), port: SignalPort.relay)
        let node = try found([RelayHost([relay, inSix])])
        serve(node)
        node.answerProofs()
        try node.answerUpdate()
        go(node, .seconds(1))
        // A network of IPv6 alone.
        node.links([ip("2001:db8:77::5")])
        go(node, .seconds(20), seen: Endpoint(ip("2001:db8:77::5"), port: SignalPort.node))
        #expect(!endings(node).contains { $0.server == relay }, "\(endings(node))")
    }

    @Test("A node that ends for good tells its relay")
    func toldAtTheEnd() throws {
        let node = try found([RelayHost([relay])])
        serve(node)
        node.answerProofs()
        try node.answerUpdate()
        go(node, .seconds(1))
        node.event { core, now in core.leaves(now: now) }
        #expect(endings(node).contains { $0.server == relay && $0.from == Self.inside })
    }
}
