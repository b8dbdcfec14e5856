import IMTPlan
import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What a node makes of own relays that are gateways.
@Suite("A node and its gateway") struct GatewayNodeTests {
    private let relay = Endpoint(ip("192.88.9.1"), port: SignalPort.relay)
    private let plain = home("203.0.113.200")

    /// Servers and relays answer that they see the node as it is; the relay grants this role.
    private func serve(_ node: NodeHarness, _ role: ServerRole) {
        while let index = node.sent.firstIndex(where: { $0.message.type == .bind }) {
            let request = node.sent.remove(at: index)
            guard case .bind(let bind) = request.message.body else { continue }
            var ack = BindAck(
                code: .ok, cookie: node.cookie(request, request.to == relay ? 2 : 1), observed: Endpoint(request.from, port: SignalPort.node))
            switch bind.wish {
            case .ask: break
            case .bind(let hoa, _, _): ack.granted = BindAck.Grant(hoa, lifetime: 120, role: role)
            case .refresh(let hoa):
                if bind.cookie.server == nil { ack.code = .cookieRequired } else { ack.granted = BindAck.Grant(hoa, lifetime: 120, role: role) }
            }
            node.answer(request, .bindAck(ack))
        }
    }

    /// Registered in an open network, and bound at the relay.
    private func bound(_ role: ServerRole, wish: PlainPolicy.Way = .gateway) throws -> NodeHarness {
        let node = try NodeHarness {
            $0.plain.standard = wish
            $0.relays = [RelayHost([Endpoint(ip("192.88.9.1"), port: SignalPort.relay)])]
        }
        node.ignoresAsks = false
        node.links([NodeHarness.first])
        node.foundOwn()
        serve(node, role)
        node.answerProofs()
        serve(node, role)
        while node.count(.imsUpdate) > 0 { try node.answerUpdate() }
        serve(node, role)
        return node
    }

    private func pair(_ node: NodeHarness) -> HomePair { HomePair(own: node.own.hoa, peer: plain) }

    private func way(from own: IPAddress = NodeHarness.first) -> Carriage.Way { .relayed(own: Endpoint(own, port: SignalPort.node), relay: relay) }

    private func speak(_ node: NodeHarness, to hoa: HomeAddress) { node.event { $0.heldOutbound(to: hoa.address, now: $1) } }

    @Test("A destination that the DNS knows nothing of goes by the gateway, from open networks too, and waits for it when the node moves")
    func carried() throws {
        let node = try bound([.relay, .gateway])
        speak(node, to: plain)
        node.event { $0.lookedUp(plain, .absent(lifetime: .seconds(60)), now: $1) }
        #expect(node.imt.encapsulated[pair(node)] == way() && node.imt.accepted[pair(node)] == [relay])
        #expect(node.hasReleased(.releaseOutbound(to: plain.address)))
        #expect(node.core.explain(plain, now: node.now)?.problem?.contains("by the gateway \(relay) as \(node.own.hoa)") == true)
        // Without overlap: nothing goes from where the relay does not know it.
        let second = ip("198.51.100.9")
        node.links([second])
        #expect(node.imt.encapsulated[pair(node)] == nil)
        node.clear()
        speak(node, to: plain)
        #expect(node.lookUps.isEmpty && !node.hasReleased(.releaseOutbound(to: plain.address)))
        node.links([second])
        for _ in 0..<3 {
            node.advance(.milliseconds(300))
            serve(node, [.relay, .gateway])
        }
        #expect(node.imt.encapsulated[pair(node)] == way(from: second))
        #expect(node.hasReleased(.releaseOutbound(to: plain.address)))
    }

    @Test("Without a gateway, or where none is wanted, it is talked to plainly, and mat why says that it would not survive")
    func notCarried() throws {
        for (role, wish) in [(ServerRole.relay, PlainPolicy.Way.gateway), ([.relay, .gateway], .none), ([.relay, .gateway], .sourceNAT)] {
            let node = try bound(role, wish: wish)
            speak(node, to: plain)
            node.event { $0.lookedUp(plain, .absent(lifetime: .seconds(60)), now: $1) }
            #expect(node.imt.encapsulated.isEmpty && node.hasReleased(.releaseOutbound(to: plain.address)))
            #expect(node.core.explain(plain, now: node.now)?.problem?.contains("would not survive a move") == true)
        }
    }

    @Test("What comes by the gateway from nobody that is known is answered by it, and never what comes from elsewhere or in a peer's name")
    func arrives() throws {
        let node = try bound([.relay, .gateway])
        node.event { $0.arrivedFromGateway(pair(node), by: Endpoint(relay.address, port: 7000), now: $1) }
        #expect(node.imt.encapsulated.isEmpty)
        node.event { $0.arrivedFromGateway(pair(node), by: relay, now: $1) }
        #expect(node.imt.encapsulated[pair(node)] == way() && node.imt.accepted[pair(node)] == [relay])
        // Its answers wait for no look-up.
        node.clear()
        speak(node, to: plain)
        #expect(node.lookUps.isEmpty && node.hasReleased(.releaseOutbound(to: plain.address)))
    }

    @Test("One that turns out to be a MAT node leaves the gateway")
    func found() throws {
        let node = try bound([.relay, .gateway])
        node.event { $0.arrivedFromGateway(HomePair(own: node.own.hoa, peer: node.peer.hoa), by: relay, now: $1) }
        #expect(node.imt.encapsulated.count == 1)
        node.foundPeer()
        #expect(node.imt.encapsulated.isEmpty && node.imt.accepted.isEmpty)
    }
}
