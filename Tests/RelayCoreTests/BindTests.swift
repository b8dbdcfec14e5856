import MATCore
import MATSignal
import MATTesting
import RelayCore
import Testing

@Suite("Bind at a relay") struct BindTests {
    private let first = at("198.51.100.1")
    private let second = at("198.51.100.2", 4000)

    @Test("Who asks is told where it comes from, whatever its cookie, and with no more octets than it sent")
    func ask() {
        var relay = Fixture()
        let ask = SignalMessage(sequence: 9, .bind(.padded(cookie: Cookie(client: 5), .ask)))
        #expect(ask.octets.count == 64)
        let answers = relay.send(ask.octets, from: first)
        guard case .bindAck(let ack)? = answers.first?.body else {
            Issue.record("no answer")
            return
        }
        #expect(answers.count == 1 && answers[0].sequence == 9 && answers[0].octets.count <= 64)
        #expect(ack.code == .ok && ack.observed == first && ack.granted == nil && ack.cookie.client == 5 && ack.cookie.server != nil)
        // Without padding there is no room for the answer.
        #expect(relay.send(SignalMessage(sequence: 9, .bind(Bind(cookie: Cookie(client: 5), .ask))).octets, from: first).isEmpty)
    }

    @Test("A signed Bind is granted with role relay, and packets for the HoA then go to where it came from")
    func bound() {
        var relay = Fixture()
        let (a, b) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("2001:db8:5::2"), seed: 12))
        let ack = relay.bind(a, from: first)
        #expect(ack?.code == .ok && ack?.observed == first)
        #expect(ack?.granted == BindAck.Grant(a.hoa, lifetime: 120, role: .relay))
        #expect(relay.bind(b, from: at("2001:db8:9::9", 1234), to: Fixture.relayIPv6, lifetime: 300)?.granted?.lifetime == 300)
        #expect(relay.core.bindingsCount == 2 && relay.core.visitorsCount == 0 && relay.core.counters.binds == 2)
    }

    @Test("Without a valid cookie a Bind gets code 9 with a cookie and its source, and nothing is checked for it")
    func noCookie() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let stranger = relay.cookie(second)
        let bind = SignalMessage(sequence: 1, .bind(Fixture.bind(a, cookie: stranger)))
        // The cookie is another endpoint's.
        let answers = relay.send(bind.octets, from: first)
        #expect(answers.map(\.code) == [.cookieRequired] && answers[0].octets.count == 60)
        guard case .bindAck(let ack)? = answers.first?.body else { return }
        #expect(ack.observed == first && ack.cookie.server != nil)
        #expect(relay.core.counters.checks == 0 && relay.core.bindingsCount == 0)
    }

    @Test("A cookie of more than 300 s is too old for a Bind, and good for a refresh")
    func oldCookie() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let cookie = relay.cookie(first)
        #expect(relay.ack(Fixture.bind(a, cookie: cookie, lifetime: 600), from: first)?.code == .ok)
        relay.wait(301_000)
        #expect(relay.ack(Fixture.bind(a, cookie: cookie), from: first)?.code == .cookieRequired)
        #expect(relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: first)?.granted?.lifetime == 299)
    }

    @Test("A Bind that somebody else captured binds nothing elsewhere, and is refused where the node has been when it has moved")
    func replay() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let captured = SignalMessage(sequence: 1, .bind(Fixture.bind(a, cookie: relay.cookie(first)))).octets
        #expect(relay.send(captured, from: first).map(\.code) == [.ok])
        #expect(relay.send(captured, from: second).map(\.code) == [.cookieRequired])
        relay.wait(2000)
        #expect(relay.bind(a, from: second)?.code == .ok)
        #expect(relay.send(captured, from: first).map(\.code) == [.cookieRequired])
        let b = relay.authority.enrol(home("10.0.0.2"), seed: 12)
        relay.bind(b, from: at("198.51.100.3"))
        #expect(relay.forward(Fixture.packet(b.hoa, a.hoa), from: at("198.51.100.3")) == .forward(from: Fixture.relay, to: second))
    }

    @Test(
        "A signature for another server, another HoA or another type of message, or by another key, is refused",
        arguments: ["destination", "key", "type", "issuer", "hoa"])
    func badSignature(what: String) {
        var relay = Fixture()
        var a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let cookie = relay.cookie(first)
        var local = Fixture.relay
        var type = MessageType.bind
        switch what {
        case "destination": local = at("203.0.113.9", 6290)
        case "key": a.key = makeKey(99)
        case "type": type = .pathAnswer
        case "issuer": a = TestAuthority(seed: 2).enrol(a.hoa, seed: 11)
        default: a.certificate = relay.authority.enrol(home("10.0.0.7"), seed: 11).certificate
        }
        #expect(relay.ack(Fixture.bind(a, cookie: cookie, to: local, type: type), from: first)?.code == .authenticationFailed)
        #expect(relay.core.bindingsCount == 0)
    }

    @Test("A relay behind a translator is known by the addresses that are configured")
    func advertised() {
        var relay = Fixture(advertised: [ip("203.0.113.9")])
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let known = at("203.0.113.9", SignalPort.relay)
        let cookie = relay.cookie(first)
        #expect(relay.ack(Fixture.bind(a, cookie: cookie, to: known), from: first)?.code == .ok)
    }

    @Test("CERT-ID names a certificate that was believed before; of another the whole is wanted")
    func certificateID() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let id = CertificateReference.id(a.certificate.id)
        #expect(relay.ack(Fixture.bind(a, cookie: relay.cookie(first), certificate: id), from: first)?.code == .authenticationFailed)
        #expect(relay.bind(a, from: first)?.code == .ok)
        relay.wait(1000)
        #expect(relay.ack(Fixture.bind(a, cookie: relay.cookie(second), certificate: id), from: second)?.code == .ok)
    }

    @Test("A refresh keeps a binding; from elsewhere, or for what is not bound, it gets code 2")
    func refresh() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        var cookie = relay.cookie(first)
        #expect(relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: first)?.code == .notFound)
        cookie = relay.ack(Fixture.bind(a, cookie: cookie), from: first)?.cookie ?? cookie
        for _ in 0..<10 {
            relay.wait(25_000)
            let ack = relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: first)
            #expect(ack?.code == .ok && ack?.granted?.lifetime == 120 && ack?.observed == first)
            cookie = ack?.cookie ?? cookie
        }
        #expect(relay.ack(.padded(cookie: relay.cookie(second), .refresh(a.hoa)), from: second)?.code == .notFound)
        #expect(relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: second)?.code == .cookieRequired)
        relay.wait(121_000)
        #expect(relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: first)?.code == .notFound)
    }

    @Test("LIFETIME 0 ends a binding")
    func end() {
        var relay = Fixture()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        relay.bind(a, from: first)
        relay.wait(2000)
        #expect(relay.bind(a, from: first, lifetime: 0)?.granted?.lifetime == 0)
        #expect(relay.core.bindingsCount == 0)
    }

    @Test("Nobody is bound at an address of this relay, of another, or at a bound HoA")
    func forbiddenEndpoints() {
        var relay = Fixture(otherRelays: [ip("203.0.113.77")])
        relay.core.ownAddresses = [ip("203.0.113.1")]
        let (a, b) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("10.0.0.2"), seed: 12))
        relay.bind(b, from: second)
        for address in ["203.0.113.1", "203.0.113.77", "10.0.0.2", "192.0.2.1"] {
            #expect(relay.bind(a, from: at(address))?.code == .refused, "\(address)")
        }
        #expect(relay.core.bindingsCount == 1)
    }

    @Test("A source has 10 Binds in a second; an IPv4 address at which several HoAs are bound has 100")
    func rates() {
        var relay = Fixture()
        let nodes = (1...14).map { relay.authority.enrol(home("10.0.0.\($0)"), seed: UInt8($0)) }
        let codes = nodes.map { relay.bind($0, from: first)?.code }
        // With the second binding the address counts as shared.
        #expect(codes.allSatisfy { $0 == .ok })
        let mover = nodes[0]
        var moves: [ResponseCode?] = []
        for port in UInt16(1)...14 { moves.append(relay.bind(mover, from: at("198.51.100.9", port))?.code) }
        #expect(moves.prefix(10).allSatisfy { $0 == .ok } && moves.suffix(4).allSatisfy { $0 == .tryLater })
        relay.wait(1000)
        #expect(relay.bind(mover, from: at("198.51.100.9", 99))?.code == .ok)
    }

    @Test("A relay that drains tells who binds or refreshes to come later, and forwards on")
    func drain() {
        var relay = Fixture()
        let (a, b) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("10.0.0.2"), seed: 12))
        let cookie = relay.bind(a, from: first)?.cookie ?? Cookie(client: 0)
        relay.bind(b, from: second)
        relay.core.drain()
        let refreshed = relay.ack(.padded(cookie: cookie, .refresh(a.hoa)), from: first)
        #expect(refreshed?.code == .tryLater && refreshed?.lifetime == 60)
        relay.wait(1000)
        #expect(relay.bind(a, from: second)?.code == .tryLater)
        #expect(relay.forward(Fixture.packet(a.hoa, b.hoa), from: first) == .forward(from: Fixture.relay, to: second))
    }

    @Test("Before a source has shown that it receives there, it gets no more octets than it sent, whatever it sends")
    func amplification() {
        var relay = Fixture()
        var random = SystemRandomNumberGenerator()
        let a = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        let stranger = relay.cookie(second)
        let messages: [SignalMessage.Body] = [
            .bind(Bind(cookie: Cookie(client: 1), .ask)), .bind(.padded(cookie: Cookie(client: 2), .ask)),
            .bind(Fixture.bind(a, cookie: stranger)), .bind(.padded(cookie: stranger, .refresh(a.hoa))),
            .bind(Bind(cookie: stranger, .refresh(a.hoa))), .maQuery(MAQuery(cookie: Cookie(client: 3), hoa: a.hoa)),
        ]
        for _ in 0..<500 {
            let count = Int.random(in: 1...4, using: &random)
            var datagram: [UInt8] = []
            for number in 0..<count {
                datagram += SignalMessage(sequence: UInt32(number), messages[.random(in: messages.indices, using: &random)]).octets
            }
            if Bool.random(using: &random) {
                datagram[.random(in: datagram.indices, using: &random)] ^= UInt8(1) << UInt8.random(in: 0..<8, using: &random)
            }
            guard datagram.count <= SignalDatagram.octetsMax else { continue }
            let actions = relay.core.received(datagram, from: first, to: Fixture.relay, now: relay.now)
            let sent = actions.reduce(0) { sum, action in
                if case .send(let octets, _, let peer) = action, peer == first { return sum + octets.count }
                if case .send = action { Issue.record("sent to another") }
                if case .check = action { Issue.record("checked for a source without a cookie") }
                if case .lookUp = action { Issue.record("looked up for a source without a cookie") }
                return sum
            }
            #expect(sent <= datagram.count)
        }
    }
}
