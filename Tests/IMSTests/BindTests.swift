import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMS
@testable import IMSCore

extension TestServer {
    static let ownEndpoint = Endpoint(local, port: SignalPort.ims)

    /// What a node signs to show that it receives at the endpoint that the cookie was made for.
    func pathSignature(
        _ node: TestNode, _ cookie: Cookie, as type: MessageType = .bind, to destination: Endpoint = TestServer.ownEndpoint, key: SigningKey? = nil
    ) throws -> Signature {
        let challenge = try #require(Challenge(cookie))
        let statement = PathStatement(type, by: node.hoa, to: destination.address, at: destination, cookie: challenge)
        return try #require(statement.signed(with: key ?? node.key))
    }

    @discardableResult
    func bind(
        _ node: TestNode, from source: Endpoint, lifetime: UInt32 = Bind.lifetimeDefault, cookie: Cookie? = nil, signature: Signature? = nil,
        byID: Bool = false
    ) throws -> BindAck? {
        let cookie = cookie ?? self.cookie(source)
        // Without a server half there is nothing to sign; then the signature is whatever it is.
        let whole = cookie.server == nil ? self.cookie(source) : cookie
        let proof = PathProof(
            certificate: byID ? .id(node.certificate.id) : .whole(node.certificate), signature: try signature ?? pathSignature(node, whole))
        return bindAck(ask(.bind(Bind(cookie: cookie, .bind(node.hoa, proof, lifetime: lifetime))), from: source))
    }

    func refresh(_ hoa: String, from source: Endpoint, cookie: Cookie? = nil) -> BindAck? {
        bindAck(ask(.bind(Bind.padded(cookie: cookie ?? self.cookie(source), .refresh(home(hoa)))), from: source))
    }

    func bindAck(_ message: SignalMessage?) -> BindAck? {
        guard case .bindAck(let ack)? = message?.body else { return nil }
        return ack
    }
}

@Suite("Bind")
struct BindTests {
    private let hoa = "192.0.2.1"
    private let translated = Endpoint(address("198.51.100.200"), port: 40_001)
    private let other = Endpoint(address("198.51.100.201"), port: 40_002)

    /// A server with a node that is registered at an endpoint.
    private func registered(limits: IMSLimits = IMSLimits(), verifiesAtOnce: Bool = true) throws -> (TestServer, TestNode) {
        let server = try TestServer(limits: limits)
        let node = try server.makeNode(hoa)
        let record = try node.record(endpoints: [translated], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: translated)?.code == .ok)
        server.clear()
        return (server, node)
    }

    @Test("Who asks without HOA is told the source that was seen, in fewer octets than it asked in", arguments: ["198.51.100.200", "2001:db8:aa::7"])
    func ask(source: String) throws {
        let server = try TestServer()
        let source = Endpoint(address(source), port: 40_001)
        for cookie in [Cookie(client: 7), server.cookie(source)] {
            let ask = Bind.padded(cookie: cookie, .ask)
            #expect(SignalMessage(sequence: 1, .bind(ask)).octets.count == 64)
            let ack = try #require(server.bindAck(server.ask(.bind(ask), from: source)))
            #expect(ack.code == .ok && ack.observed == source && ack.granted == nil && ack.cookie.server != nil)
            #expect(server.raw.last?.octets.count == 60)
        }
        // What is too short for that gets nothing.
        server.clear()
        _ = server.ask(.bind(Bind(cookie: Cookie(client: 7), .ask, padding: 32)), from: source)
        #expect(server.raw.isEmpty)
    }

    @Test("Without a valid cookie a Bind gets code 9 with the source that was seen, and nothing is checked")
    func cookieRequired() throws {
        let (server, node) = try registered()
        let checks = server.core.counters.verifications
        let ack = try #require(try server.bind(node, from: translated, cookie: Cookie(client: 3)))
        #expect(ack.code == .cookieRequired && ack.observed == translated && server.raw.last?.octets.count == 60)
        #expect(server.core.counters.verifications == checks && server.core.bindingsCount == 0)
        #expect(try server.bind(node, from: translated, cookie: ack.cookie)?.code == .ok)
    }

    @Test("A signed Bind is granted 120 s, or what it asks for from 30 s to 600 s, by certificate or its name")
    func granted() throws {
        let (server, node) = try registered()
        let ack = try #require(try server.bind(node, from: translated))
        #expect(ack.code == .ok && ack.observed == translated && ack.granted == BindAck.Grant(node.hoa, lifetime: 120, role: []))
        #expect(server.core.boundEndpoint(of: node.hoa, now: server.now) == translated && server.core.bindingsCount == 1)
        for (asked, given) in [(1, 30), (45, 45), (100_000, 600)] as [(UInt32, UInt32)] {
            server.advance(.seconds(1))
            #expect(try server.bind(node, from: translated, lifetime: asked, byID: true)?.granted?.lifetime == given)
        }
        server.advance(.seconds(601))
        #expect(server.core.boundEndpoint(of: node.hoa, now: server.now) == nil && server.core.bindingsCount == 0)
    }

    @Test("A refresh prolongs the binding from the bound endpoint under the same client cookie alone, and not for longer than 600 s")
    func refresh() throws {
        let (server, node) = try registered()
        #expect(server.refresh(hoa, from: translated)?.code == .notFound)
        #expect(try server.bind(node, from: translated)?.code == .ok)
        #expect(server.refresh(hoa, from: other)?.code == .notFound)
        #expect(server.refresh(hoa, from: translated, cookie: server.cookie(translated, client: 9))?.code == .notFound)
        for _ in 0..<5 {
            server.advance(.seconds(100))
            let ack = try #require(server.refresh(hoa, from: translated))
            #expect(ack.code == .ok && ack.observed == translated && ack.granted?.lifetime ?? 0 >= 99)
        }
        server.advance(.seconds(95))
        #expect(server.refresh(hoa, from: translated)?.granted?.lifetime == 5)
        server.advance(.seconds(6))
        #expect(server.refresh(hoa, from: translated)?.code == .notFound)
        let octets = SignalMessage(sequence: 1, .bind(.padded(cookie: server.cookie(translated), .refresh(node.hoa)))).octets
        #expect(octets.count == 64)
    }

    @Test("What is not signed by the node, for this server, over this cookie, as a Bind, is code 1")
    func authentication() throws {
        let (server, node) = try registered()
        let cookie = server.cookie(translated)
        let foreign = Endpoint(address("203.0.113.77"), port: SignalPort.ims)
        let refused: [(String, Signature)] = [
            ("by another key", try server.pathSignature(node, cookie, key: try key(66))),
            ("for another server, which passes it on", try server.pathSignature(node, cookie, to: foreign)),
            ("for another port", try server.pathSignature(node, cookie, to: Endpoint(TestServer.local, port: 6290))),
            ("as a Path Answer", try server.pathSignature(node, cookie, as: .pathAnswer)),
            ("as a HA Notify", try server.pathSignature(node, cookie, as: .haNotify)),
            ("over another cookie", try server.pathSignature(node, server.cookie(translated, client: 5))),
        ]
        for (what, signature) in refused {
            #expect(try server.bind(node, from: translated, cookie: cookie, signature: signature)?.code == .authenticationFailed, "\(what)")
        }
        let stranger = try TestNode(hoa, seed: 1, issuer: try key(99), notBefore: TestServer.start - 1000)
        #expect(try server.bind(stranger, from: translated)?.code == .authenticationFailed)
        #expect(server.core.bindingsCount == 0)
        #expect(server.logs.contains { $0.contains("refused Bind of 192.0.2.1 from 198.51.100.200:40001") })
    }

    @Test("A Bind that was seen can't be sent again: not from another source, not when the node has moved on, not when the binding has ended")
    func replay() throws {
        let (server, node) = try registered()
        let first = server.cookie(translated)
        #expect(try server.bind(node, from: translated, cookie: first)?.code == .ok)
        // From elsewhere the cookie is none.
        let elsewhere = try server.bind(node, from: other, cookie: first)
        #expect(elsewhere?.code == .cookieRequired && server.core.boundEndpoint(of: node.hoa, now: server.now) == translated)
        server.advance(.seconds(2))
        #expect(try server.bind(node, from: other)?.code == .ok)
        #expect(try server.bind(node, from: translated, cookie: first)?.code == .cookieRequired)
        #expect(server.core.boundEndpoint(of: node.hoa, now: server.now) == other)
        server.advance(.seconds(2))
        let last = server.cookie(other)
        #expect(try server.bind(node, from: other, lifetime: 0, cookie: last)?.granted?.lifetime == 0)
        #expect(server.core.bindingsCount == 0)
        #expect(try server.bind(node, from: other, cookie: last)?.code == .cookieRequired && server.core.bindingsCount == 0)
        server.advance(.seconds(301))
        #expect(try server.bind(node, from: translated, cookie: first)?.code == .cookieRequired, "older than 300 s")
    }

    @Test("Nothing registered is code 2, an HoA of others code 4; an Update before it in the datagram is done first")
    func registration() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        #expect(try server.bind(node, from: translated)?.code == .notFound)
        let stranger = try server.makeNode("10.1.1.1")
        #expect(try server.bind(stranger, from: translated)?.code == .notAuthoritative)

        server.storesAtOnce = false
        let cookie = server.cookie(translated)
        let record = try node.record(endpoints: [translated], sequence: server.now.wallMilliseconds)
        let update = IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate)))
        let proof = PathProof(certificate: .id(node.certificate.id), signature: try server.pathSignature(node, cookie))
        let bind = Bind(cookie: cookie, .bind(node.hoa, proof, lifetime: 120))
        let octets = SignalMessage(sequence: 51, .imsUpdate(update)).octets + SignalMessage(sequence: 52, .bind(bind)).octets
        server.clear()
        for _ in 0..<2 { server.receive(octets, from: translated) }
        #expect(server.sent.isEmpty)
        server.finishCommits()
        let acks = server.sent.compactMap { server.bindAck($0.message) }
        #expect(acks.first?.code == .ok && server.core.boundEndpoint(of: node.hoa, now: server.now) == translated)
    }

    @Test("A withdrawal ends the binding")
    func withdrawn() throws {
        let (server, node) = try registered()
        #expect(try server.bind(node, from: translated)?.code == .ok)
        #expect(server.update(try node.record([], sequence: server.now.wallMilliseconds + 1), from: translated)?.code == .ok)
        #expect(server.core.bindingsCount == 0 && server.refresh(hoa, from: translated)?.code == .notFound)
        server.advance(.seconds(1))
        #expect(try server.bind(node, from: translated)?.code == .notFound)
    }

    @Test("A full table takes no new binding, and keeps those it has")
    func full() throws {
        var limits = IMSLimits()
        limits.bindingsMax = 1
        let (server, node) = try registered(limits: limits)
        let second = try server.makeNode("192.0.2.2", seed: 2)
        #expect(server.update(try second.record(endpoints: [other], sequence: server.now.wallMilliseconds), from: other)?.code == .ok)
        #expect(try server.bind(node, from: translated)?.code == .ok)
        #expect(try server.bind(second, from: other)?.code == .tryLater)
        #expect(server.refresh(hoa, from: translated)?.code == .ok)
        server.advance(.seconds(130))
        #expect(try server.bind(second, from: other)?.code == .ok)
    }

    @Test("A source has its share of signature checks, and ten times of it where several HoAs are bound")
    func budgets() throws {
        var limits = IMSLimits()
        limits.verificationsPerSecond = 4
        let (server, node) = try registered(limits: limits)
        server.advance(.seconds(1))
        func codes(_ count: Int) throws -> [ResponseCode] {
            try (0..<count).compactMap { _ in
                try server.bind(node, from: translated, signature: try server.pathSignature(node, server.cookie(translated, client: 1)))?.code
            }
        }
        #expect(try codes(5) == Array(repeating: .authenticationFailed, count: 4) + [.tryLater])
        server.advance(.seconds(2))
        let second = try server.makeNode("192.0.2.2", seed: 2)
        let neighbour = Endpoint(translated.address, port: 40_002)
        #expect(server.update(try second.record(endpoints: [neighbour], sequence: server.now.wallMilliseconds), from: neighbour)?.code == .ok)
        #expect(try codes(41) == Array(repeating: .authenticationFailed, count: 40) + [.tryLater], "two HoAs are registered at the address")
    }

    @Test("Bindings outlast a restart for as long as they were granted, and a Bind of before does not come back with them")
    func restart() throws {
        let (server, node) = try registered()
        #expect(try server.bind(node, from: translated)?.code == .ok)
        let saved = server.core.bindings.saved(server.now)
        let (next, _) = try registered()
        next.core.restoreBindings(saved, now: next.now)
        #expect(next.core.boundEndpoint(of: node.hoa, now: next.now) == translated)
        #expect(next.refresh(hoa, from: translated)?.code == .ok)
        next.advance(.seconds(121))
        #expect(next.core.boundEndpoint(of: node.hoa, now: next.now) == nil)
    }
}
