import IMTPlan
import MATSignal
import MATTesting
import NodeCore
import Testing

extension Duration {
    fileprivate var text: String { "\(components.seconds * 1000 + components.attoseconds / 1_000_000_000_000_000) ms" }
}

/// Two nodes behind one translator (protocol.md section 11.4, "Same site").
@Suite("In one network") struct SameSiteTests {
    static let (inA, inA2) = ("10.1.0.10", "10.1.0.11")
    static let direct = ("direct", "direct"), encapsulated = ("encapsulated", "encapsulated")

    /// A translator that takes packets back to where they came from, so that there is a path before the nodes know of each other.
    private func world(_ seed: UInt64, conditions: NetworkConditions = NetworkConditions()) -> TranslatedWorld {
        let world = TranslatedWorld(seed: seed, conditions: conditions)
        world.a.hasHairpin = true
        for node in [world.mn, world.cn] { node.linkBits = 16 }
        return world
    }

    private static func isPrivate(_ address: IPAddress) -> Bool { address.scope != .global }

    @Test("Nodes behind one translator end with packets between their private addresses, as they are", arguments: 1...4 as ClosedRange<UInt64>)
    func sameNetwork(seed: UInt64) {
        let world = world(seed, conditions: NetworkConditions(latency: .milliseconds(5) ... .milliseconds(20), loss: seed > 2 ? 0.1 : 0))
        #expect(world.start(Self.inA, Self.inA2), "\(world.logs())")
        #expect(world.network.drive(max: .seconds(seed > 2 ? 70 : 3)) { world.ways == Self.direct }, "\(world.ways) \(world.logs())")
        let pairs = [(world.mn, world.cn, Self.inA, Self.inA2), (world.cn, world.mn, Self.inA2, Self.inA)]
        for (node, peer, own, other) in pairs {
            let path = node.imt.outbound[HomePair(own: node.hoa, peer: peer.hoa)]
            #expect(path == MobilePair(own: MobileAddress(ip(own)), peer: MobileAddress(ip(other))))
        }
        let rate = world.rate()
        #expect(rate.toCN >= (seed > 2 ? 35 : 49) && rate.toMN >= (seed > 2 ? 35 : 49), "\(rate)")
        #expect(world.mn.imt.violations.isEmpty && world.cn.imt.violations.isEmpty)
        #expect(world.mn.deliveredPlain.isEmpty && world.cn.deliveredPlain.isEmpty)
    }

    @Test("From an open network into the peer's, and out of it again, a connection goes on and ends direct each time")
    func inAndOut() {
        let world = world(5)
        #expect(world.start("192.0.2.10", Self.inA2), "\(world.logs())")
        world.network.run(for: .seconds(3))
        for place in [Self.inA, "10.3.0.10", Self.inA] {
            world.mn.move(to: [ip(place)])
            let began = world.network.time
            let times = world.resumption()
            #expect(times.map { max($0.toCN, $0.toMN) < .seconds(1) } ?? false, "\(place): \(times.debugDescription) \(world.logs())")
            let wanted = place == Self.inA ? Self.direct : Self.encapsulated
            #expect(world.network.drive(max: .seconds(5)) { world.ways == wanted }, "\(place): \(world.ways) \(world.logs())")
            let settled = world.network.time - began
            print(
                "Same site: to \(place): packets after \(times.map { max($0.toCN, $0.toMN).text } ?? "?"), their last path after \(settled.text), at 20 ms there and back"
            )
            let rate = world.rate()
            #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(place): \(rate)")
        }
    }

    @Test("Where clients do not reach one another packets stay on the path that they have")
    func isolated() {
        let world = world(6)
        world.network.isCut = { Self.isPrivate($0) && Self.isPrivate($1) }
        #expect(world.start(Self.inA, Self.inA2), "\(world.logs())")
        world.network.run(for: .seconds(20))
        #expect(world.ways == Self.encapsulated, "\(world.logs())")
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)")
    }

    @Test("A private path that falls silent is left within 20 s, though no address has changed")
    func silent() {
        let world = world(7)
        #expect(world.start(Self.inA, Self.inA2), "\(world.logs())")
        #expect(world.network.drive(max: .seconds(3)) { world.ways == Self.direct })
        world.network.isCut = { Self.isPrivate($0) && Self.isPrivate($1) }
        #expect(world.network.drive(max: .seconds(20)) { world.ways == Self.encapsulated }, "\(world.ways) \(world.logs())")
        let rate = world.rate()
        #expect(rate.toCN >= 49 && rate.toMN >= 49, "\(rate)")
    }

    @Test("Nodes behind different translators tell each other nothing of their private addresses, and send nothing there")
    func elsewhere() {
        let world = world(8)
        var strays: [String] = []
        world.network.onSend = { packet, _ in
            if Self.isPrivate(packet.destination) { strays.append("\(packet.source) to \(packet.destination)") }
            if case .encapsulated(let inner, _, _) = packet.content, let octets = inner.message,
                case .message(let message, _)? = SignalDatagram.decode(octets, isInPath: true).first, case .pathProbe(let probe) = message.body,
                !probe.candidates.isEmpty
            {
                strays.append("candidates to \(inner.destination)")
            }
        }
        #expect(world.start(Self.inA, "10.2.0.10"), "\(world.logs())")
        world.network.run(for: .seconds(70))
        #expect(world.ways == Self.encapsulated && strays.isEmpty, "\(strays.prefix(5))")
    }

    @Test("Of what a peer offers only private places on an own link are asked, and never an own address, a gateway or a resolver; 3 tries each")
    func offers() {
        let world = world(9)
        world.mn.infrastructure = [ip("10.1.0.1")]
        #expect(world.start(Self.inA, Self.inA2), "\(world.logs())")
        world.network.isCut = { Self.isPrivate($0) && Self.isPrivate($1) }
        world.network.run(for: .seconds(3))
        var asked: [IPAddress: Int] = [:]
        world.network.onSend = { packet, _ in
            if case .signal = packet.content, packet.source == ip(Self.inA), Self.isPrivate(packet.destination) {
                asked[packet.destination, default: 0] += 1
            }
        }
        let pair = HomePair(own: world.cn.hoa, peer: world.mn.hoa)
        guard case .encapsulated(let own, let far) = world.cn.imt.encapsulated[pair] else {
            Issue.record("no path: \(world.logs())")
            return
        }
        let places = ["10.1.0.1", Self.inA, "192.0.2.77", "10.9.0.1", "192.168.1.1", "10.1.0.98", "10.1.0.99"]
        var probe = PathProbe(cookie: Cookie(client: 3), hoa: pair.peer, peerHoA: pair.own)
        probe.candidates = places.map { Candidate(Endpoint(ip($0), port: $0 == "10.1.0.98" ? 80 : SignalPort.node), preference: 1) }
        world.cn.sendInPath(InPathMessage(SignalMessage(sequence: 9, .pathProbe(probe)).octets, between: pair, from: own, to: far))
        world.network.run(for: .seconds(5))
        #expect(asked == [ip("10.1.0.99"): 3], "\(asked)")
    }
}
