import MATSignal
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

@Suite("Revocation") struct RevocationTests {
    private let hoa = "192.0.2.1"
    private let mn = node("198.51.100.7")
    private let peer = node("198.51.100.9")

    @Test("A revoked certificate is refused at once, with the reason; the mapping is withdrawn, and subscribers get a record that they believe")
    func revoke() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        #expect(server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)?.code == .ok)
        #expect(server.query(hoa, from: peer, subscribe: 300)?.subscribe == 300)
        server.clear()

        let step = try #require(try server.core.revoke(prefix(hoa), now: server.now))
        server.perform(step.actions)

        // What a subscriber gets is a newer, valid record of no place, so it drops the mapping.
        let push = try #require(server.notified(peer).first?.notify.record)
        guard case .whole(let certificate) = push.certificate else { return #expect(Bool(false), "no certificate was pushed") }
        let pushed = CertifiedMapping(mapping: push.mapping, certificate: certificate)
        try pushed.verify(asked: home(hoa), keys: [server.issuer.publicKey], now: server.now)
        #expect(pushed.record.isWithdrawal && pushed.certificate.notBefore > node.certificate.notBefore)
        #expect(pushed.certificate.nodeKey != node.key.publicKey)

        // A query is answered with the same record.
        let answer = try #require(server.query(hoa, from: IMSTests.node("198.51.100.10")))
        #expect(answer.code == .ok && answer.mapping == pushed.mapping && answer.certificate == certificate)

        let later = try node.record(["198.51.100.7"], sequence: time + 1000)
        for byID in [false, true] {
            let reply = try #require(server.update(later, from: mn, byID: byID))
            #expect(reply.code == .authenticationFailed && reply.certificate == nil)
            if !byID { #expect(reply.text?.contains("revoked") == true, "\(reply.text ?? "")") }
        }
        #expect(server.core.counters.bindingChanges[.revoked] == 1)
        // No HoA is found by its MoA any more.
        #expect(server.core.mapping(of: home(hoa))?.isRevocation == true)
    }

    /// Who was told that the HoA is revoked.
    private func told(_ server: TestServer) -> [Endpoint] {
        server.sent.compactMap { sent in
            guard case .maNotify(let notify) = sent.1.body, case .whole(let certificate) = notify.record.certificate else { return nil }
            return CertifiedMapping(mapping: notify.record.mapping, certificate: certificate).isRevocation ? sent.0 : nil
        }
    }

    @Test("Its node is told at once: where it registered from, or over its binding, which the revocation ends; and no more when it has answered")
    func tellsNode() throws {
        for bound in [nil, Endpoint(address("198.51.100.200"), port: 40_001)] {
            let server = try TestServer()
            let node = try server.makeNode(hoa)
            let time = server.now.wallMilliseconds
            if let bound {
                #expect(server.update(try node.record(endpoints: [bound], sequence: time), from: bound)?.code == .ok)
                #expect(try server.bind(node, from: bound)?.code == .ok)
            } else {
                #expect(server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)?.code == .ok)
            }
            server.clear()
            server.perform(try #require(try server.core.revoke(prefix(hoa), now: server.now)).actions)
            #expect(told(server) == [bound ?? mn] && server.core.bindingsCount == 0)
            let (target, message) = try #require(server.sent.first { $0.0 == bound ?? mn })
            let ack = MANotifyAck(code: .notFound, cookie: Cookie(client: message.cookie.client), hoa: home(hoa), current: nil, text: nil)
            server.receive(SignalMessage(sequence: message.sequence, .maNotifyAck(ack)).octets, from: target)
            server.clear()
            server.advance(.seconds(20))
            #expect(told(server).isEmpty)
        }
    }

    @Test("Of several instances the one that revokes tells the node, and the one where it is bound; at a start nobody does")
    func instances() throws {
        let bound = Endpoint(address("198.51.100.200"), port: 40_001)
        for (isBound, isLoading) in [(false, false), (true, false), (true, true)] {
            let server = try TestServer()
            server.core.shareNews()
            let node = try server.makeNode(hoa)
            #expect(server.update(try node.record(endpoints: [bound], sequence: server.now.wallMilliseconds), from: bound)?.code == .ok)
            if isBound { #expect(try server.bind(node, from: bound)?.code == .ok) }
            server.clear()
            if isLoading { server.core.loadBegins() }
            let tombstone = try #require(
                Tombstone.make(
                    of: prefix(hoa), notBefore: server.now.wallMilliseconds, seed: [UInt8](repeating: 6, count: 32), signedBy: server.issuer))
            server.perform(server.core.store(.changed([StoreChange(mapping: .revocation(tombstone))]), now: server.now))
            #expect(told(server) == (isBound && !isLoading ? [bound] : []), "bound \(isBound), loading \(isLoading)")
        }
    }

    @Test("A node that was told nothing is refused as well: nobody can notify under the revoked certificate")
    func notify() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let other = try server.makeNode("192.0.2.2", seed: 2)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)
        _ = server.update(try other.record(["198.51.100.9"], sequence: time), from: peer)
        server.perform(try #require(try server.core.revoke(prefix(hoa), now: server.now)).actions)
        _ = server.notify(hoa, about: "192.0.2.2", try node.record(["198.51.100.7"], sequence: time + 5), from: mn)
        server.advance(.seconds(5))
        let acks = server.sent.compactMap { if case .haNotifyAck(let ack) = $0.message.body { ack } else { nil } }
        #expect(!acks.isEmpty && acks.allSatisfy { $0.code != .ok })
        #expect(server.notified(peer).isEmpty)
    }

    @Test("It outlives a restart, and can be said twice")
    func restart() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)
        server.perform(try #require(try server.core.revoke(prefix(hoa), now: server.now)).actions)
        #expect(try server.core.revoke(prefix(hoa), now: server.now) == nil)

        let restarted = try TestServer()
        try restarted.core.load(mappings: server.core.mappingsInOrder(), issued: [])
        let reply = restarted.update(try node.record(["198.51.100.7"], sequence: time + 9), from: mn)
        #expect(reply?.code == .authenticationFailed && reply?.text?.contains("revoked") == true)
        #expect(try restarted.core.revoke(prefix(hoa), now: restarted.now) == nil)
    }

    @Test("Enrolled anew, the home address is given out again, and the old certificate stays refused")
    func enrolAnew() throws {
        let server = try TestServer()
        var node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)
        server.perform(try #require(try server.core.revoke(prefix(hoa), now: server.now)).actions)
        let old = try node.record(["198.51.100.7"], sequence: time + 1)
        let enrolled = try server.core.enrol(home(hoa), key: node.key.publicKey, now: server.now)
        server.perform(enrolled.actions)
        node.certificate = enrolled.certificate
        let fresh = try node.record(["198.51.100.7"], sequence: time + 2)
        #expect(server.update(fresh, from: mn)?.code == .ok)
        #expect(server.query(hoa, from: peer)?.mapping == fresh.mapping)
        // Its sequence comes before its certificate (section 2); with a higher one only that is left to refuse.
        #expect(server.update(old, from: mn)?.code == .stale)
        let late = CertifiedMapping(mapping: try node.record(["198.51.100.7"], sequence: time + 3).mapping, certificate: old.certificate)
        #expect(server.update(late, from: mn)?.code == .authenticationFailed)
        // The new certificate can be revoked as well.
        #expect(try server.core.revoke(prefix(hoa), now: server.now) != nil)
    }

    @Test("An update that the store has not taken yet does not outlive the revocation")
    func race() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        server.storesAtOnce = false
        _ = server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)
        // Nothing durable is known of it yet, so the operator has to insist.
        let step = try #require(try server.core.revoke(prefix(hoa), isUnknownAllowed: true, now: server.now))
        server.perform(step.actions)
        // One that comes between: not ok either way.
        _ = server.update(try node.record(["198.51.100.7"], sequence: time + 1), from: mn)
        server.finishCommits()
        #expect(server.core.mapping(of: home(hoa))?.isRevocation == true)
        #expect(server.update(try node.record(["198.51.100.7"], sequence: time + 2), from: mn)?.code == .authenticationFailed)
    }

    @Test("What is unknown, foreign or part of a network is not revoked by mistake")
    func mistakes() throws {
        let server = try TestServer()
        let network = try server.makeNode("2001:db8:10:100::", prefixLength: 56)
        _ = server.update(try network.record(["2001:db8:aa:700::"], sequence: server.now.wallMilliseconds), from: node("2001:db8:aa::7"))
        for (text, part) in [("10.0.0.1", "not within"), ("192.0.2.77", "--unknown"), ("2001:db8:10:100::5", "belongs to the network")] {
            #expect { try server.core.revoke(prefix(text), now: server.now) } throws: { "\($0)".contains(part) }
        }
        #expect(try server.core.revoke(prefix("2001:db8:10:100::/56"), now: server.now) != nil)
        #expect(try server.core.revoke(prefix("192.0.2.77"), isUnknownAllowed: true, now: server.now) != nil)
    }

    @Test("Without a signing key the server takes a revocation made where the key is, and nobody else's")
    func keyElsewhere() throws {
        let server = try TestServer()
        let issuer = server.issuer
        let node = try server.makeNode(hoa)
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        server.core.reconfigure(
            IMSCoreConfiguration(served: [ServedPrefix(prefix: prefix("192.0.2.0/24"))], publicKeys: [issuer.publicKey], signingKey: nil))
        #expect { try server.core.revoke(prefix(hoa), now: server.now) } throws: { "\($0)".contains("--signing-key") }
        let forged = try #require(StoredMapping.revocation(of: prefix(hoa), signedBy: try key(99), now: server.now))
        #expect(throws: RevocationRefusal.self) { try server.core.revoke(prefix(hoa), tombstone: forged.certified, now: server.now) }
        let good = try #require(StoredMapping.revocation(of: prefix(hoa), signedBy: issuer, now: server.now))
        server.perform(try #require(try server.core.revoke(prefix(hoa), tombstone: good.certified, now: server.now)).actions)
        #expect(server.core.mapping(of: home(hoa))?.isRevocation == true)
    }

    @Test("A certificate is found by its id")
    func byID() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        #expect(server.core.prefix(certifiedBy: node.certificate.id) == prefix(hoa))
        let enrolled = try server.core.enrol(home("192.0.2.9"), key: node.key.publicKey, now: server.now)
        server.perform(enrolled.actions)
        #expect(server.core.prefix(certifiedBy: enrolled.certificate.id) == prefix("192.0.2.9"))
        #expect(server.core.prefix(certifiedBy: CertificateID(rawValue: 1)) == nil)
    }
}
