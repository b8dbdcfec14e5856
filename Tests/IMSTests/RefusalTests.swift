import MATSignal
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

private let mn = node("198.51.100.7")
private let cn = node("203.0.113.200")

/// What a server refuses and in which order (protocol.md sections 2 and 4).
@Suite("Refusals")
struct RefusalTests {
    @Test(
        "An update with everything wrong is refused in the order of section 2, one by one: cookie, limits, authority, times, sequence, locators, certificate, signature"
    )
    func order() throws {
        let server = try TestServer()
        let good = try server.makeNode("192.0.2.1")
        let time = server.now.wallMilliseconds
        #expect(server.update(try good.record(["198.51.100.7"], sequence: time), from: mn)?.code == .ok)
        // Signed by another key than the certificate says, under a certificate that another issuer signed.
        let forger = try TestNode("192.0.2.1", seed: 1, issuer: key(77), notBefore: TestServer.start - 1000)
        func record(_ hoa: String = "192.0.2.1", sequence: UInt64, issued: UInt64, at moa: String, signedBy seed: UInt8 = 9)
            throws -> CertifiedMapping
        {
            let record = MappingRecord(
                hoa: home(hoa), sequence: sequence, lifetime: 600, issued: issued,
                locators: [Locator(MobileAddress(address(moa)))])
            return CertifiedMapping(mapping: try #require(record.signed(with: key(seed))), certificate: forger.certificate)
        }
        let elsewhere = "203.0.113.77"
        let worst = try record("10.0.0.1", sequence: time - 1, issued: time - 901_000, at: elsewhere)
        #expect(server.update(worst, from: mn, cookie: Cookie(client: 7))?.code == .cookieRequired)
        #expect(server.update(worst, from: mn)?.code == .notAuthoritative)
        let expired = try record(sequence: time - 1, issued: time - 901_000, at: elsewhere)
        #expect(server.update(expired, from: mn)?.code == .authenticationFailed)
        let stale = try record(sequence: time - 1, issued: time, at: elsewhere)
        #expect(server.update(stale, from: mn)?.code == .stale)
        let unproven = try record(sequence: time + 1, issued: time, at: elsewhere)
        #expect(server.update(unproven, from: mn)?.code == .refused)
        let foreign = server.update(try record(sequence: time + 1, issued: time, at: "198.51.100.7"), from: mn)
        #expect(foreign?.code == .authenticationFailed && foreign?.text?.contains("superseded") == true)
        // Its own certificate, and only the signature is wrong.
        let wrong = CertifiedMapping(
            mapping: try record(sequence: time + 1, issued: time, at: "198.51.100.7").mapping, certificate: good.certificate)
        #expect(server.update(wrong, from: mn)?.text?.contains("signature") == true)
        // Limits come before all that: five good ones in a second, and then whatever it is.
        for number in 2...5 as ClosedRange<UInt64> {
            #expect(server.update(try good.record(["198.51.100.7"], sequence: time + number), from: mn)?.code == .ok)
        }
        for bad in [expired, stale, unproven, wrong] { #expect(server.update(bad, from: mn)?.code == .tryLater) }
    }

    @Test("An unknown CERT-ID is refused after times and locators, a duplicate never, and a record that was expired for 300 s is")
    func duplicates() throws {
        let server = try TestServer()
        let node = try server.makeNode("192.0.2.1")
        let first = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(first, from: mn, byID: true)?.text?.contains("CERT-ID") == true)
        #expect(server.update(first, from: mn)?.code == .ok)
        #expect(server.update(first, from: mn, byID: true)?.code == .ok)
        let other = try node.record(["203.0.113.77"], sequence: server.now.wallMilliseconds + 1)
        let unknown = CertifiedMapping(
            mapping: other.mapping,
            certificate: try TestNode("192.0.2.1", seed: 1, issuer: server.issuer, notBefore: TestServer.start).certificate)
        #expect(server.update(unknown, from: mn, byID: true)?.code == .refused, "its locator is looked at before its certificate")
        server.advance(.seconds(600 + 299))
        #expect(server.update(first, from: mn)?.code == .ok)
        server.advance(.seconds(2))
        let late = server.update(first, from: mn)
        #expect(late?.code == .authenticationFailed && late?.text?.contains("expired") == true)
        #expect(server.logs.contains { $0.contains("expired") }, "and the log says so")
        #expect(server.query("192.0.2.1", from: cn)?.code == .notFound)
    }

    @Test("A record that expired more than 300 s ago is code 1 in HA Notify and MA Notify as well, and up to then is not")
    func expiredElsewhere() throws {
        let (server, local) = try { () throws -> (TestServer, TestNode) in
            let server = try TestServer()
            return (server, try server.makeNode("192.0.2.2", seed: 2))
        }()
        #expect(server.update(try local.record(["203.0.113.200"], sequence: server.now.wallMilliseconds), from: cn)?.code == .ok)
        let foreign = try TestNode("10.1.0.1", seed: 1, issuer: key(99), notBefore: TestServer.start - 10_000_000)
        func record(ago seconds: UInt64) throws -> CertifiedMapping {
            let time = server.now.wallMilliseconds - (600 + seconds) * 1000
            return try foreign.record(["198.51.100.7"], sequence: time)
        }
        let refused = server.notify("10.1.0.1", about: "192.0.2.2", try record(ago: 301), from: mn)
        #expect(refused?.code == .authenticationFailed && refused?.text?.contains("expired") == true)
        #expect(server.lookUps.isEmpty)
        #expect(server.notify("10.1.0.1", about: "192.0.2.2", try record(ago: 299), from: mn) == nil, "its IMS is asked")
        #expect(server.lookUps == [prefix("10.1.0.1/32")])
    }

    @Test("An older record under a renewed certificate does not lift the newer one, in the table and in the file")
    func renewedCertificate() throws {
        let server = try TestServer()
        let time = server.now.wallMilliseconds
        var node = try TestNode("192.0.2.1", seed: 1, issuer: server.issuer, notBefore: time - 900_000, notAfter: time + 100_000)
        let old = try node.record(["198.51.100.7"], sequence: time - 1)
        let newest = try node.record(["198.51.100.8"], sequence: time)
        let renewed = try #require(server.update(newest, from: IMSTests.node("198.51.100.8"))?.certificate)
        node.certificate = renewed
        let replay = CertifiedMapping(mapping: old.mapping, certificate: renewed)
        #expect(server.update(replay, from: mn)?.code == .stale)
        #expect(server.query("192.0.2.1", from: cn)?.mapping == newest.mapping)

        let directory = try TemporaryDirectory()
        let database = try MappingDatabase(path: "\(directory.path)/ims.db")
        defer { database.close() }
        func stored(_ certified: CertifiedMapping) -> StoredMapping {
            StoredMapping(certified: certified, source: mn, local: TestServer.local, provenAt: time)
        }
        #expect(try database.write([StoreChange(mapping: stored(newest))]) == [.durable])
        #expect(try database.write([StoreChange(mapping: stored(replay))]) == [.outrun(by: stored(newest))])
        let successor = try TestNode("192.0.2.1", seed: 5, issuer: server.issuer, notBefore: time + 5)
        let other = try successor.record(["198.51.100.9"], sequence: 1)
        #expect(
            try database.write([StoreChange(mapping: stored(other))]) == [.durable],
            "another key's later certificate counts, whatever the sequence")
    }

    @Test(
        "A record taken while the server's own clock was wrong gives way to revoking and enrolling the address again, for the same key"
    )
    func recordFromTheFuture() throws {
        let server = try TestServer()
        var node = try server.makeNode("192.0.2.1")
        let right = server.now.wallMilliseconds
        server.now.wallMilliseconds += 10 * 3_600_000
        let future = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(future, from: mn)?.code == .ok)
        server.now.wallMilliseconds = right + 1000
        let stale = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        #expect(
            stale?.code == .stale && stale?.current == future.mapping,
            "the node sees that it can't go beyond, and says what helps")
        server.perform(try #require(try server.core.revoke(prefix("192.0.2.1"), now: server.now)).actions)
        let enrolled = try server.core.enrol(home("192.0.2.1"), key: node.key.publicKey, now: server.now)
        server.perform(enrolled.actions)
        node.certificate = enrolled.certificate
        server.advance(.seconds(1))
        let fresh = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(fresh, from: mn)?.code == .ok)
        #expect(server.query("192.0.2.1", from: cn)?.mapping == fresh.mapping)
    }

    @Test("A query of 56 octets or more gets a server cookie whatever the answer is; a shorter one what fits")
    func cookieWanted() throws {
        let server = try TestServer()
        for hoa in ["192.0.2.1", "10.0.0.1"] {
            for padding in [nil, 12, 20, 40, 300] as [Int?] {
                let answer = try #require(server.query(hoa, from: mn, cookie: Cookie(client: 5), padding: padding))
                #expect(
                    (answer.cookie.server != nil) == (padding != nil || hoa == "192.0.2.1"), "\(hoa) padded by \(padding ?? 0)")
            }
        }
        // What is not found is answered at once only when its LIFETIME fits beside the cookie.
        #expect(server.query("192.0.2.1", from: mn, cookie: Cookie(client: 5), padding: 12)?.code == .cookieRequired)
        #expect(server.query("192.0.2.1", from: mn, cookie: Cookie(client: 5), padding: 20)?.code == .notFound)
    }
}
