import IMTPlan
import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// A node that peers reach by relays alone (`paths: relay-only`): nothing that leaves it, but to its servers and relays, says where it is.
@Suite("A node reached by relays alone") struct HiddenNodeTests {
    private let relay = Endpoint(ip("192.88.9.1"), port: SignalPort.relay)
    private let peersRelay = Endpoint(ip("192.88.9.7"), port: SignalPort.relay)

    /// In a network where others reach it as it is.
    private func hidden(relays: Bool = true) throws -> NodeHarness {
        let node = try NodeHarness(answersChecks: false) { $0.paths.isRelayOnly = true }
        node.ignoresAsks = false
        node.links([NodeHarness.first])
        node.foundOwn(relays: relays ? [RelayHost([relay])] : [])
        return node
    }

    /// Everybody who is asked where the node is, or to hold it, does so.
    private func serve(_ node: NodeHarness) {
        while let index = node.sent.firstIndex(where: { $0.message.type == .bind }) {
            let request = node.sent.remove(at: index)
            guard case .bind(let bind) = request.message.body else { continue }
            let number: UInt8 = request.to.port == SignalPort.relay ? 2 : 1
            var ack = BindAck(code: .ok, cookie: node.cookie(request, number), observed: Endpoint(request.from, port: SignalPort.node))
            switch bind.wish {
            case .ask: break
            case .bind(let hoa, _, _): ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay)
            case .refresh(let hoa):
                if bind.cookie.server == nil { ack.code = .cookieRequired } else { ack.granted = BindAck.Grant(hoa, lifetime: 120, role: .relay) }
            }
            node.answer(request, .bindAck(ack))
        }
    }

    private func registered() throws -> NodeHarness {
        let node = try hidden()
        for _ in 0..<100 where node.count(.imsUpdate) == 0 {
            serve(node)
            node.answerProofs()
            node.advance(.milliseconds(50))
        }
        let update = try #require(node.sent.first { $0.message.type == .imsUpdate }?.update)
        #expect(update.record.mapping.record.places == [.relay(relay, preference: 200)])
        try node.answerUpdate()
        #expect(node.core.isRegistered)
        serve(node)
        return node
    }

    @Test("Its record lists its relays and no address, and is signed as soon as one of them has granted a binding")
    func record() throws {
        let node = try registered()
        #expect(node.now.monotonic - .zero < .seconds(3), "\(node.now.monotonic)")
        let status = node.core.status(now: node.now)
        #expect(status.isRelayOnly && status.relays.map(\.standing) == [.bound])
        #expect(status.uplinks.first?.reason?.contains("relay-only") == true)
        // Nothing that comes to its address is taken for a peer's.
        #expect(node.imt.own.isEmpty, "\(node.imt.own)")
    }

    @Test("Without a relay it is not registered, and says why")
    func noRelay() throws {
        let node = try hidden(relays: false)
        for _ in 0..<40 {
            serve(node)
            node.answerProofs()
            node.advance(.milliseconds(50))
        }
        #expect(node.count(.imsUpdate) == 0 && node.core.status(now: node.now).registrations.first?.problem?.code == .noRelay)
    }

    @Test("It sends to a peer's servers and relays, and nothing to where the peer is; its packets go by a relay")
    func peer() throws {
        let node = try registered()
        node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        node.foundPeer()
        let places: [MappingRecord.Place] = [
            .moa(Locator(MobileAddress(NodeHarness.peerFirst), preference: 10)), .relay(peersRelay, preference: 200),
        ]
        try node.answerQuery(node.peerRecord(at: places))
        let notify = try #require(node.sent.first { $0.message.type == .haNotify }?.haNotify)
        #expect(notify.signature != nil || notify.cookie.server == nil)
        for _ in 0..<400 {
            serve(node)
            if node.count(.haNotify) > 0 { try node.acknowledgeHANotify() }
            node.advance(.milliseconds(25))
            node.event { core, now in core.heldOutbound(to: node.peer.hoa.address, now: now) }
        }
        for case .send(_, _, let target) in node.actions { #expect(target.address != NodeHarness.peerFirst) }
        for case .sendIfRoom(_, _, let target) in node.actions { #expect(target.address != NodeHarness.peerFirst) }
        #expect(node.imt.outbound[node.pair] == nil)
        guard case .relayed(_, let way)? = node.core.carriage(of: node.peer.hoa) else {
            Issue.record("\(String(describing: node.core.carriage(of: node.peer.hoa)))")
            return
        }
        #expect(way == relay || way == peersRelay)
        let why = try #require(node.core.explain(node.peer.hoa, now: node.now))
        #expect(why.candidates.first { $0.kind == .direct }?.state.contains("relay-only") == true)
        #expect(why.candidates.contains { $0.isUsed && $0.kind == .relayed })
        #expect(!why.candidates.contains { $0.kind == .encapsulated })
    }

    @Test("Whoever tries addresses hears nothing from it: locator checks, probes and notices of others than its servers stay unanswered")
    func unanswered() throws {
        let node = try registered()
        node.clear()
        let stranger = Endpoint(NodeHarness.peerSecond, port: SignalPort.node)
        let query = MAQuery(cookie: Cookie(client: 7), hoa: node.own.hoa)
        node.deliver(SignalMessage(sequence: 1, .maQuery(query)), from: stranger, to: NodeHarness.first)
        node.notify(node.peerRecord(), from: stranger)
        let challenge = try #require(Challenge(Cookie(client: 7, server: ServerCookie(head: 1, hash: 2))))
        let probe = PathProbe.padded(cookie: Cookie(client: 7), hoa: node.own.hoa, peerHoA: node.peer.hoa, challenge: challenge, proof: nil)
        node.deliver(SignalMessage(sequence: 3, .pathProbe(probe)), from: stranger, to: NodeHarness.first)
        #expect(node.sent.isEmpty, "\(node.sent)")
    }

    @Test("What an earlier run, which was not hidden, left in the kernel is taken away at once")
    func adopted() throws {
        let node = try NodeHarness { $0.paths.isRelayOnly = true }
        let path = node.path(NodeHarness.first, NodeHarness.peerFirst)
        node.event { core, now in
            core.adopted(
                outbound: [node.pair: path], inbound: [node.arrival(NodeHarness.peerFirst): node.peer.hoa],
                own: [MobileAddress(NodeHarness.first): node.own.hoa], now: now)
        }
        let changes = node.actions.flatMap { action -> [IMTChange] in if case .changeIMT(let changes) = action { changes } else { [] } }
        #expect(changes.contains(.removeOutbound(node.pair)))
        #expect(changes.contains(.removeInbound(peer: MobileAddress(NodeHarness.peerFirst), own: node.own.hoa)))
    }
}
