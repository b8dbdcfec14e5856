import IMTPlan
import MATSignal
import MATTesting
import Testing

@Suite("Messages within a path, through a translator") struct InPathTests {
    /// What mn sends to cn inside a packet, with the endpoints that the installed path has.
    private func probe(_ world: TranslatedWorld, _ body: (HomePair) -> SignalMessage.Body) -> [[UInt8]] {
        let pair = HomePair(own: world.mn.hoa, peer: world.cn.hoa)
        guard case .encapsulated(let own, let far) = world.mn.imt.encapsulated[pair] else { return [] }
        var answers: [[UInt8]] = []
        world.network.onSend = { packet, _ in
            if case .encapsulated(let inner, _, let port) = packet.content, let message = inner.message, Self.answers(message, 77) {
                // It goes back where the probe came from: the translator's outside.
                #expect(packet.destination == world.a.address && port >= 40_000 && packet.source == far.address)
                answers.append(message)
            }
        }
        let message = SignalMessage(sequence: 77, body(pair))
        world.mn.sendInPath(InPathMessage(message.octets, between: pair, from: own, to: far))
        world.network.run(for: .milliseconds(100))
        return answers
    }

    /// Nodes ask each other within paths of their own accord as well.
    private static func answers(_ octets: [UInt8], _ sequence: UInt32) -> Bool {
        guard case .message(let message, _)? = SignalDatagram.decode(octets, isInPath: true).first else { return false }
        return message.type == .pathAnswer && message.sequence == sequence
    }

    @Test("A peer answers over the path that it was asked by, with the cookie of the question and no word of its own; nothing of it is counted")
    func answered() {
        let world = TranslatedWorld(seed: 21)
        #expect(world.start("10.1.0.10", "198.18.0.10"), "\(world.logs())")
        world.isTalking = false
        world.network.run(for: .seconds(2))
        let before = (world.cn.packetCounts(), world.mn.packetCounts())
        let answers = probe(world) { .pathProbe(PathProbe(cookie: Cookie(client: 5), hoa: $0.peer, peerHoA: $0.own)) }
        let wanted = SignalMessage(sequence: 77, .pathAnswer(PathAnswer(code: .ok, cookie: Cookie(client: 5), hoa: world.cn.hoa)))
        #expect(answers == [wanted.octets])
        #expect(world.cn.packetCounts() == before.0 && world.mn.packetCounts() == before.1)
    }

    @Test("A question for another HoA, in another's name, or with a challenge is not answered within a path")
    func refused() {
        let world = TranslatedWorld(seed: 22)
        #expect(world.start("10.1.0.10", "198.18.0.10"), "\(world.logs())")
        #expect(probe(world) { .pathProbe(PathProbe(cookie: Cookie(client: 5), hoa: $0.own, peerHoA: $0.peer)) }.isEmpty)
        #expect(probe(world) { .pathProbe(PathProbe(cookie: Cookie(client: 5), hoa: $0.peer, peerHoA: home("203.0.113.9"))) }.isEmpty)
        #expect(probe(world) { .maQuery(MAQuery(cookie: Cookie(client: 5), hoa: $0.peer)) }.isEmpty)
        let challenge = Challenge(client: 1, server: ServerCookie(head: 0, hash: 0))
        #expect(
            probe(world) { .pathProbe(PathProbe.padded(cookie: Cookie(client: 5), hoa: $0.peer, peerHoA: $0.own, challenge: challenge)) }.isEmpty)
    }

    @Test("A peer is answered 50 times a second at most")
    func bounded() {
        let world = TranslatedWorld(seed: 23)
        #expect(world.start("10.1.0.10", "198.18.0.10"), "\(world.logs())")
        let count = (0..<30).reduce(0) { count, _ in
            count + (0..<20).reduce(0) { sum, _ in sum + probeAtOnce(world) }
        }
        // 600 in 600 ms and the time of the answers: what a second's bucket holds, and what it gets meanwhile.
        #expect(count <= 90 && count >= 50, "\(count)")
    }

    private func probeAtOnce(_ world: TranslatedWorld) -> Int {
        let pair = HomePair(own: world.mn.hoa, peer: world.cn.hoa)
        guard case .encapsulated(let own, let far) = world.mn.imt.encapsulated[pair] else { return 0 }
        var count = 0
        world.network.onSend = { packet, _ in
            if case .encapsulated(let inner, _, _) = packet.content, let message = inner.message, Self.answers(message, 1) { count += 1 }
        }
        let message = SignalMessage(sequence: 1, .pathProbe(PathProbe(cookie: Cookie(client: 5), hoa: pair.peer, peerHoA: pair.own)))
        world.mn.sendInPath(InPathMessage(message.octets, between: pair, from: own, to: far))
        world.network.run(for: .milliseconds(1))
        return count
    }
}
