import MATSignal
import Testing

@testable import IMSCore

@Suite("IMS Update")
struct UpdateTests {
    let mn = node("198.51.100.7")
    let hoa = "192.0.2.1"

    /// Asserts that the update was refused with the code, that nothing changed, and that the log says so.
    private func expectRefusal(
        _ server: TestServer, _ reply: IMSUpdateReply?, _ code: ResponseCode, log: String, keeps: CertifiedMapping?,
        _ location: SourceLocation = #_sourceLocation
    ) {
        #expect(reply?.code == code, sourceLocation: location)
        #expect(server.core.mapping(of: home(hoa))?.certified == keeps, sourceLocation: location)
        #expect(server.commits.isEmpty, sourceLocation: location)
        #expect(server.logs.contains { $0.contains("refused IMS Update") && $0.contains(log) }, "\(server.logs)", sourceLocation: location)
    }

    @Test("A registration is acknowledged only once it is durable, with the source that was seen")
    func durable() throws {
        let server = try TestServer()
        server.storesAtOnce = false
        let node = try server.makeNode(hoa)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: mn) == nil)
        #expect(server.commits.count == 1 && server.core.mapping(of: home(hoa)) == nil)
        server.finishCommits()
        guard case .imsUpdateReply(let reply)? = server.sent.last?.message.body else { return #expect(Bool(false)) }
        #expect(reply.code == .ok && reply.observed == mn && reply.cookie.server != nil)
        #expect(server.core.mapping(of: home(hoa))?.source == mn)
    }

    @Test("A store that fails makes code 7, and the old mapping stays")
    func storeFails() throws {
        let server = try TestServer()
        server.storesAtOnce = false
        let node = try server.makeNode(hoa)
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        server.finishCommits(failure: "the disk is full; make room")
        #expect(server.sent.last?.message.code == .tryLater)
        #expect(server.core.mapping(of: home(hoa)) == nil && server.logs.contains { $0.contains("disk is full") })
    }

    @Test("An update without a valid cookie gets code 9 and is not looked at")
    func cookie() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let reply = try #require(server.update(record, from: mn, cookie: Cookie(client: 3)))
        #expect(reply.code == .cookieRequired && server.raw.last?.octets.count == 36 && server.core.counters.verifications == 0)
        #expect(server.update(record, from: mn, cookie: reply.cookie)?.code == .ok)
    }

    @Test("The wrong key, a foreign issuer, an expired certificate: code 1")
    func authentication() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        let thief = try server.makeNode(hoa, seed: 66)
        let stolen = CertifiedMapping(mapping: try thief.record(["198.51.100.7"], sequence: time).mapping, certificate: node.certificate)
        expectRefusal(server, server.update(stolen, from: mn), .authenticationFailed, log: "does not fit the certified key", keeps: nil)
        let foreign = try TestNode(hoa, seed: 1, issuer: try key(99), notBefore: time - 1000)
        expectRefusal(
            server, server.update(try foreign.record(["198.51.100.7"], sequence: time), from: mn), .authenticationFailed,
            log: "key that is not among", keeps: nil)
        let old = try TestNode(hoa, seed: 1, issuer: server.issuer, notBefore: time - 2_000_000, notAfter: time - 400_000)
        expectRefusal(
            server, server.update(try old.record(["198.51.100.7"], sequence: time), from: mn), .authenticationFailed, log: "expired",
            keeps: nil)
        let ahead = try node.record(["198.51.100.7"], sequence: time + 301_000)
        expectRefusal(server, server.update(ahead, from: mn), .authenticationFailed, log: "ahead", keeps: nil)
        let fine = try node.record(["198.51.100.7"], sequence: time)
        expectRefusal(server, server.update(fine, from: mn, byID: true), .authenticationFailed, log: "CERT-ID is unknown", keeps: nil)
        #expect(server.update(fine, from: mn)?.code == .ok)
        #expect(server.update(try node.record(["198.51.100.7"], sequence: time + 1), from: mn, byID: true)?.code == .ok)
    }

    @Test("A replayed update is stale, gets the current record, and a duplicate of it is ok")
    func versions() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        let first = try node.record(["198.51.100.7"], sequence: time)
        let second = try node.record([], sequence: time + 1)
        #expect(server.update(first, from: mn)?.code == .ok && server.update(second, from: mn)?.code == .ok)
        let reply = server.update(first, from: mn)
        expectRefusal(server, reply, .stale, log: "replayed or late", keeps: second)
        #expect(reply?.current == second.mapping)
        #expect(server.update(second, from: mn)?.code == .ok)
        // Withdrawn is an answer, not an absence.
        let answer = try #require(server.query(hoa, from: endpoint(9)))
        #expect(answer.code == .ok && answer.mapping == second.mapping)
        // The same sequence with other content is no duplicate.
        let forked = try node.record(["198.51.100.7"], sequence: time + 1)
        expectRefusal(server, server.update(forked, from: mn), .stale, log: "replayed or late", keeps: second)
    }

    private func endpoint(_ last: Int) -> Endpoint { node("198.51.100.\(last)") }

    @Test("A duplicate from elsewhere does not move where pushes go")
    func duplicateKeepsSource() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        _ = server.update(record, from: mn)
        #expect(server.update(record, from: endpoint(66))?.code == .ok)
        #expect(server.core.mapping(of: home(hoa))?.source == mn)
    }

    @Test("A locator that the node does not hold is refused, a proven one accepted")
    func locators() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        let both = try node.record(["198.51.100.7", "203.0.113.77"], sequence: time)
        expectRefusal(server, server.update(both, from: mn), .refused, log: "does not hold it", keeps: nil)
        let second = IMSTests.node("203.0.113.77")
        let cookie = server.cookie(second, client: 44)
        let proof = LocatorProof(locator: MobileAddress(second.address), client: 44, server: try #require(cookie.server))
        // Another port than the node's proves nothing: whoever shares the address could send it.
        expectRefusal(
            server, server.update(both, from: Endpoint(mn.address, port: 40_000), proofs: [proof]), .refused, log: "port", keeps: nil)
        let forged = LocatorProof(locator: MobileAddress(second.address), client: 45, server: proof.server)
        expectRefusal(server, server.update(both, from: mn, proofs: [forged]), .refused, log: "LOCATOR-PROOF", keeps: nil)
        #expect(server.update(both, from: mn, proofs: [proof])?.code == .ok)
        server.advance(.seconds(301))
        let later = try node.record(["198.51.100.7", "203.0.113.77"], sequence: server.now.wallMilliseconds)
        expectRefusal(server, server.update(later, from: mn, proofs: [proof]), .refused, log: "300 s", keeps: both)
    }

    @Test("A cookie of more than 300 s does not prove the source; the answer brings a fresh one")
    func oldCookie() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let cookie = server.cookie(mn)
        server.advance(.seconds(301))
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let reply = try #require(server.update(record, from: mn, cookie: cookie))
        #expect(reply.code == .cookieRequired)
        #expect(server.update(record, from: mn, cookie: reply.cookie)?.code == .ok)
    }

    @Test("A foreign HoA is not authoritative, a network's prefix needs the operator's word")
    func authority() throws {
        let server = try TestServer()
        let foreign = try server.makeNode("10.9.9.9")
        let reply = server.update(try foreign.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        #expect(reply?.code == .notAuthoritative && server.core.mapping(of: home("10.9.9.9")) == nil)
        #expect(server.logs.contains { $0.contains("no prefix served here covers 10.9.9.9") })

        let network = try server.makeNode("2001:db8:10:100::", prefixLength: 56)
        let source = node("2001:db8:aa::7")
        let outside = try network.record(["2001:db8:bb::"], sequence: server.now.wallMilliseconds)
        #expect(server.update(outside, from: source)?.code == .refused)
        let inside = try network.record(["2001:db8:aa:700::"], sequence: server.now.wallMilliseconds)
        #expect(server.update(inside, from: source)?.code == .ok)
        let answer = try #require(server.query("2001:db8:10:1ff::5", from: source))
        #expect(answer.code == .ok && answer.mapping == inside.mapping)
        #expect(try #require(server.whose("2001:db8:aa:7aa::9", from: node("2001:db8:aa:700::2"))).mapping == inside.mapping)
    }

    @Test("A node at home registers its HoA as its locator")
    func atHome() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record([hoa], sequence: server.now.wallMilliseconds, lifetime: 86_400)
        #expect(server.update(record, from: IMSTests.node(hoa))?.code == .ok)
    }

    @Test("More than five updates of an HoA in a second are put off")
    func rate() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        var records: [CertifiedMapping] = []
        for number in 0..<6 { records.append(try node.record(["198.51.100.7"], sequence: time + UInt64(number))) }
        for record in records.prefix(5) { #expect(server.update(record, from: mn)?.code == .ok) }
        let reply = server.update(records[5], from: mn)
        expectRefusal(server, reply, .tryLater, log: "updates of this HoA", keeps: records[4])
        #expect(reply?.lifetime == 1)
        server.advance(.seconds(1))
        #expect(server.update(records[5], from: mn)?.code == .ok)
    }

    @Test("Signature checks per source are limited")
    func verificationBudget() throws {
        var limits = IMSLimits()
        limits.verificationsPerSecond = 3
        let server = try TestServer(limits: limits)
        let time = server.now.wallMilliseconds
        var codes: [ResponseCode?] = []
        for number in 1...4 {
            let thief = try server.makeNode("192.0.2.\(number)", seed: 9)
            let honest = try server.makeNode("192.0.2.\(number)", seed: 1)
            let forged = CertifiedMapping(
                mapping: try thief.record(["198.51.100.7"], sequence: time).mapping, certificate: honest.certificate)
            codes.append(server.update(forged, from: mn)?.code)
        }
        #expect(codes == [.authenticationFailed, .authenticationFailed, .authenticationFailed, .tryLater])
        #expect(server.core.counters.verifications == 3)
    }

    @Test("One MoA belongs to the HoA with the newest proof")
    func sharedLocator() throws {
        let server = try TestServer()
        let first = try server.makeNode("192.0.2.1", seed: 1)
        let second = try server.makeNode("192.0.2.2", seed: 2)
        let time = server.now.wallMilliseconds
        let a = try first.record(["198.51.100.7"], sequence: time)
        let b = try second.record(["198.51.100.7"], sequence: time)
        _ = server.update(a, from: mn)
        #expect(server.whose("198.51.100.7", from: mn)?.mapping == a.mapping)
        _ = server.update(b, from: mn)
        #expect(server.whose("198.51.100.7", from: mn)?.mapping == b.mapping)
        #expect(server.query("192.0.2.1", from: mn)?.mapping == a.mapping)
    }

    @Test("Enrolment gives certificates of strictly growing not-before, and the older one is no longer accepted")
    func enrolment() throws {
        let server = try TestServer()
        let nodeKey = try key(1)
        let first = try server.core.enrol(home(hoa), key: nodeKey.publicKey, now: server.now)
        server.perform(first.actions)
        let second = try server.core.enrol(home(hoa), key: nodeKey.publicKey, now: server.now)
        server.perform(second.actions)
        #expect(second.certificate.notBefore > first.certificate.notBefore && second.certificate.isIssued(by: server.issuer.publicKey))
        #expect(throws: EnrolmentRefusal.self) { try server.core.enrol(home("10.0.0.1"), key: nodeKey.publicKey, now: server.now) }

        var node = try server.makeNode(hoa)
        node.certificate = first.certificate
        let old = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let reply = server.update(old, from: mn)
        expectRefusal(server, reply, .authenticationFailed, log: "superseded", keeps: nil)
        // The same key is certified by the newer one, so the answer brings it.
        #expect(reply?.certificate == second.certificate)
        node.certificate = second.certificate
        #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)?.code == .ok)
    }

    @Test("A certificate in its last third is renewed with the reply")
    func renewal() throws {
        let server = try TestServer()
        let time = server.now.wallMilliseconds
        var node = try TestNode(hoa, seed: 1, issuer: server.issuer, notBefore: time - 900_000, notAfter: time + 100_000)
        let reply = try #require(server.update(try node.record(["198.51.100.7"], sequence: time), from: mn))
        #expect(reply.code == .ok)
        let renewed = try #require(reply.certificate)
        #expect(renewed.nodeKey == node.key.publicKey && renewed.notBefore == time)
        #expect(renewed.notAfter == time + 1_000_000, "it is good for as long as the one before, not for the configured year")
        node.certificate = renewed
        let next = try #require(server.update(try node.record(["198.51.100.7"], sequence: time + 1), from: mn))
        #expect(next.code == .ok && next.certificate == nil)
    }

    @Test("After a restart versions still do not go back, and pushes know where to go")
    func restart() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.7"], sequence: time + 5), from: mn)
        let stored = server.core.mappingsInOrder()
        let restarted = try TestServer()
        try restarted.core.load(mappings: stored, issued: [])
        #expect(restarted.update(try node.record(["198.51.100.7"], sequence: time + 4), from: mn)?.code == .stale)
        #expect(restarted.core.mapping(of: home(hoa))?.source == mn)
        #expect(restarted.query(hoa, from: mn)?.code == .ok)
    }
}
