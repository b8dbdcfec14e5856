import MATSignal
import Testing

/// The contract with other implementations: every vector decodes to what it means and encodes to the same octets.
@Suite("Protocol vectors")
struct VectorTests {
    let vectors = Vectors.shared
    let wall: UInt64 = 1_790_000_000_000

    @Test("There are all of them")
    func count() {
        #expect(vectors.messageNames.count == 92)
        #expect(vectors.octets.count == 105)
    }

    @Test("Each vector is run")
    func allRun() {
        #expect(Set(vectors.octets.keys).subtracting(vectors.messageNames).subtracting(Vectors.runByName).isEmpty)
    }

    @Test("Messages of types that nobody knows are counted and dropped, never answered, and what follows them is read")
    func laterTypes() throws {
        var octets = try vectors.named("path4.join")
        octets[0] = 17
        let query = try vectors.named("v4.maQuery.first")
        let parts = SignalDatagram.decode(octets + query)
        guard case .rejected(let rejection)? = parts.first, case .message? = parts.last else {
            Issue.record("\(parts)")
            return
        }
        #expect(rejection.answerCode == nil)
    }

    @Test("Every message vector decodes as one message and encodes back to the same octets", arguments: Vectors.shared.messageNames)
    func roundTrip(name: String) throws {
        let octets = try vectors.named(name)
        let parts = SignalDatagram.decode(octets)
        #expect(parts.count == 1)
        switch try #require(parts.first) {
        case .message(let message, let count):
            #expect(count == octets.count)
            #expect(message.octets == octets)
        case .draft(let draft):
            #expect(name.hasPrefix("draft."))
            #expect(draft.octets == octets)
        case .rejected(let rejection):
            Issue.record("\(name): \(rejection.error)")
        }
    }

    @Test("Every truncation of every vector is rejected", arguments: Vectors.shared.messageNames)
    func truncations(name: String) throws {
        let octets = try vectors.named(name)
        for count in 0..<octets.count {
            let parts = SignalDatagram.decode(Array(octets.prefix(count)))
            guard case .rejected? = parts.last else {
                Issue.record("\(name) cut to \(count) octets was accepted")
                continue
            }
        }
    }

    @Test(
        "Every single-octet corruption is rejected or decodes to something that encodes to the corrupt octets", arguments: Vectors.shared.messageNames
    )
    func corruptions(name: String) throws {
        let octets = try vectors.named(name)
        // Every bit flip, zero and 0xFF: what makes lengths, counts and reserved fields wrong in all their ways.
        for index in octets.indices {
            let original = octets[index]
            let values = Set((0..<8).map { original ^ (1 << $0) } + [0, 0xFF, original &+ 1, original &- 1]).subtracting([original])
            for value in values {
                var corrupt = octets
                corrupt[index] = value
                for part in SignalDatagram.decode(corrupt) {
                    switch part {
                    case .message(let message, let count) where count == octets.count:
                        // Unknown options, ignored flags and a request's code are dropped; everything else must come back.
                        let again = SignalDatagram.decode(message.octets)
                        #expect(again == [.message(message, octetsCount: message.octets.count)], "\(name)[\(index)] = \(value)")
                    case .draft(let draft):
                        #expect(SignalDatagram.decode(draft.octets) == [.draft(draft)], "\(name)[\(index)] = \(value)")
                    case .message, .rejected:
                        break
                    }
                }
            }
        }
    }

    // MARK: Meaning

    private func message(_ name: String) throws -> SignalMessage {
        guard case .message(let message, _)? = SignalDatagram.decode(try vectors.named(name)).first else {
            throw SignalError.malformed("\(name) is no message")
        }
        return message
    }

    private func keys() throws -> (node: SigningKey, ims: SigningKey, cookies: CookieAuthority) {
        let nodeSeed = try #require(vectors.keys["nodeSeed"])
        let imsSeed = try #require(vectors.keys["imsSeed"])
        let secret = try #require(vectors.keys["cookieSecret"])
        return (
            try #require(SigningKey(seed: nodeSeed)), try #require(SigningKey(seed: imsSeed)), try #require(CookieAuthority(secret: secret))
        )
    }

    @Test("The IMS Update vector's fields are the documented ones, and its proofs, certificate and signature verify", arguments: ["v4", "v6"])
    func imsUpdate(family: String) throws {
        let (node, ims, authority) = try keys()
        #expect(node.publicKey.octets == vectors.keys["nodePublic"])
        #expect(ims.publicKey.octets == vectors.keys["imsPublic"])
        let message = try message("\(family).imsUpdate")
        guard case .imsUpdate(let update) = message.body, case .whole(let certificate) = update.record.certificate else {
            Issue.record("not an IMS Update with a certificate")
            return
        }
        let hoa = try #require(HomeAddress(family == "v4" ? "192.0.2.1" : "2001:db8:1::1"))
        let first = try #require(MobileAddress(family == "v4" ? "198.51.100.7" : "2001:db8:aa::7"))
        let second = try #require(MobileAddress(family == "v4" ? "203.0.113.9" : "2001:db8:bb::9"))
        let record = update.record.mapping.record
        #expect(message.sequence == 0x0102_0304)
        #expect(record.hoa == hoa)
        #expect(record.prefixLength == 128)
        #expect(record.locators == [Locator(first, preference: 10), Locator(second, preference: 20)])
        #expect(record.lifetime == 600)
        #expect(record.issued == wall)
        #expect(record.sequence == wall + 1 || record.sequence == wall)
        #expect(!record.isAtHome)
        #expect(certificate.nodeKey == node.publicKey)

        let now = Now(monotonic: .zero, wallMilliseconds: wall)
        let certified = CertifiedMapping(mapping: update.record.mapping, certificate: certificate)
        try certified.verify(asked: hoa, keys: [ims.publicKey], now: now)
        #expect(throws: VerificationFailure.self) { try certified.verify(asked: hoa, keys: [node.publicKey], now: now) }
        #expect(throws: VerificationFailure.self) { try certified.verify(asked: HomeAddress(first.address), keys: [ims.publicKey], now: now) }

        // Signing again gives the same octets (RFC 8032 is deterministic).
        #expect(record.signed(with: node) == update.record.mapping)
        let reissued = Certificate(issuing: hoa, nodeKey: node.publicKey, notBefore: certificate.notBefore, notAfter: certificate.notAfter, with: ims)
        #expect(reissued == certificate)

        let source = Endpoint(first.address, port: SignalPort.node)
        #expect(authority.isValid(update.cookie, from: source, now: now))
        #expect(!authority.isValid(update.cookie, from: Endpoint(second.address, port: SignalPort.node), now: now))
        let proof = try #require(update.proofs.first)
        #expect(proof.locator == second)
        #expect(
            authority.isValid(
                proof.server, clientCookie: proof.client, from: Endpoint(second.address, port: SignalPort.node), now: now,
                ageMax: CookieAuthority.proofAgeMax))
        #expect(authority.make(for: source, clientCookie: update.cookie.client, now: now) == update.cookie.server)

        guard case .imsUpdate(let known) = try self.message("\(family).imsUpdate.certKnown").body else { return }
        #expect(known.record.certificate == .id(certificate.id))
    }

    @Test("A cookie ends 3600 s after it was made, 300 s as proof, and may be 300 s ahead")
    func cookieTimes() throws {
        let (_, _, authority) = try keys()
        let address = try #require(IPAddress("192.0.2.9"))
        let client = Endpoint(address, port: 6289)
        let wall = wall
        func now(_ seconds: Int64) -> Now { Now(monotonic: .zero, wallMilliseconds: UInt64(Int64(wall) + seconds * 1000)) }
        let cookie = Cookie(client: 7, server: authority.make(for: client, clientCookie: 7, now: now(0)))
        #expect(authority.isValid(cookie, from: client, now: now(3600)))
        #expect(!authority.isValid(cookie, from: client, now: now(3601)))
        #expect(authority.isValid(cookie, from: client, now: now(-300)))
        #expect(!authority.isValid(cookie, from: client, now: now(-301)))
        #expect(!authority.isValid(cookie, from: client, now: now(301), ageMax: CookieAuthority.proofAgeMax))
        var rotated = authority
        rotated.rotate(to: [UInt8](repeating: 9, count: 16))
        #expect(rotated.isValid(cookie, from: client, now: now(1)))
        rotated.rotate(to: [UInt8](repeating: 8, count: 16))
        #expect(!rotated.isValid(cookie, from: client, now: now(1)))
    }

    @Test("Each vector's type and code is what its name says", arguments: ["v4", "v6"])
    func types(family: String) throws {
        let expected: [(String, MessageType, ResponseCode)] = [
            ("imsUpdate.atHome", .imsUpdate, .ok), ("imsUpdate.withdraw", .imsUpdate, .ok), ("imsUpdateReply.ok", .imsUpdateReply, .ok),
            ("imsUpdateReply.stale", .imsUpdateReply, .stale), ("maQuery.first", .maQuery, .ok), ("maQuery.firstPadded", .maQuery, .ok),
            ("maAnswer.cookieRequired", .maAnswer, .cookieRequired), ("maQuery.repeated", .maQuery, .ok), ("maQuery.certKnown", .maQuery, .ok),
            ("maAnswer.ok", .maAnswer, .ok), ("maAnswer.certKnown", .maAnswer, .ok), ("maAnswer.notFound", .maAnswer, .notFound),
            ("locatorCheck", .maQuery, .ok), ("locatorCheck.ok", .maAnswer, .ok), ("locatorCheck.notMine", .maAnswer, .notAuthoritative),
            ("haNotify", .haNotify, .ok), ("haNotify.withRecord", .haNotify, .ok), ("haNotifyAck", .haNotifyAck, .ok), ("haQuery", .haQuery, .ok),
            ("haAnswer.ok", .haAnswer, .ok), ("haAnswer.notFound", .haAnswer, .notFound), ("maNotify", .maNotify, .ok),
            ("maNotify.noServerCookie", .maNotify, .ok), ("maNotifyAck", .maNotifyAck, .ok),
        ]
        for (name, type, code) in expected {
            let message = try message("\(family).\(name)")
            #expect(message.type == type, "\(name)")
            #expect(message.code == code, "\(name)")
        }
        guard case .imsUpdate(let home) = try message("\(family).imsUpdate.atHome").body else { return }
        #expect(home.record.mapping.record.isAtHome)
        guard case .imsUpdate(let withdrawal) = try message("\(family).imsUpdate.withdraw").body else { return }
        #expect(withdrawal.record.mapping.record.isWithdrawal)
        guard case .maQuery(let padded) = try message("\(family).maQuery.firstPadded").body else { return }
        #expect(padded.padding == 348)
        #expect(padded.subscribe == 300)
        #expect(padded.cookie == Cookie(client: 0xA1A2_A3A4_A5A6_A7A8))
        guard case .haAnswer(let absent) = try message("\(family).haAnswer.notFound").body else { return }
        #expect(absent.lifetime == 5)
    }

    @Test("A prefix mapping reads and writes")
    func prefixMapping() throws {
        let octets = try vectors.named("prefix.mapping.value")
        let record = try MappingRecord(octets: octets)
        #expect(record.prefix == IPPrefix("2001:db8:100::/56") ?? IPPrefix(covering: record.hoa.address, length: 56))
        #expect(record.prefixLength == 56)
        #expect(record.locators.count == 1)
        #expect(record.octets == octets)
        for count in 0..<octets.count {
            #expect(throws: SignalError.self) { try MappingRecord(octets: Array(octets.prefix(count))) }
        }
    }
}
