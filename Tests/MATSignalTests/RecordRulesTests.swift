import MATSignal
import Testing

/// What protocol.md sections 2, 4 and 5 say of records and their times, to the octet and to the millisecond.
@Suite("Rules for records")
struct RecordRulesTests {
    private let wall: UInt64 = 1_790_000_000_000
    private let hoa: HomeAddress
    private let key: SigningKey
    private let issuer: SigningKey

    init() throws {
        hoa = HomeAddress(try #require(IPAddress("192.0.2.1")))
        key = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        issuer = try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32)))
    }

    private func moa(_ number: UInt8) throws -> Locator {
        Locator(MobileAddress(try #require(IPAddress("198.51.100.\(number)"))), preference: number)
    }

    private func record(
        sequence: UInt64? = nil, lifetime: UInt32 = 600, issued: UInt64? = nil, _ locators: [UInt8] = [7]
    ) throws -> MappingRecord {
        MappingRecord(
            hoa: hoa, sequence: sequence ?? wall, lifetime: lifetime, issued: issued ?? wall, locators: try locators.map(moa))
    }

    private func certificate(_ key: SigningKey? = nil, notBefore: UInt64, notAfter: UInt64? = nil) throws -> Certificate {
        try #require(
            Certificate(
                issuing: hoa, nodeKey: (key ?? self.key).publicKey, notBefore: notBefore,
                notAfter: notAfter ?? notBefore + 86_400_000,
                with: issuer))
    }

    private func decodes(_ record: MappingRecord) -> Bool { (try? MappingRecord(octets: record.octets)) == record }

    @Test("A lifetime of 0 is malformed, of a withdrawal too; the longest ones are not")
    func lifetimes() throws {
        #expect(try !decodes(record(lifetime: 0)))
        #expect(try !decodes(record(lifetime: 0, [])))
        #expect(try decodes(record(lifetime: 1)))
        #expect(try decodes(record(lifetime: 3600)) && !decodes(record(lifetime: 3601)))
        let home = MappingRecord(
            hoa: hoa, sequence: wall, lifetime: 604_800, issued: wall, locators: [Locator(MobileAddress(hoa.address))])
        #expect(decodes(home))
        #expect(try decodes(record(lifetime: 604_800, [])), "a withdrawal has no locator that is away from home")
    }

    @Test("A locator listed twice is malformed, wherever the two stand")
    func listedTwice() throws {
        #expect(try decodes(record([1, 2, 3, 4, 5, 6, 7, 8])))
        #expect(try !decodes(record([1, 1])))
        #expect(try !decodes(record([1, 2, 3, 4, 5, 6, 7, 1])))
    }

    @Test(
        "Only the addresses that section 2 lists are malformed",
        arguments: ["0.1.2.3", "240.0.0.1", "10.0.0.1", "100.64.0.1", "::7", "fc00::1", "64:ff9b::1.2.3.4"])
    func fineAddresses(text: String) throws {
        let address = try #require(IPAddress(text))
        let octets = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: HomeAddress(address)))).octets
        guard case .message? = SignalDatagram.decode(octets).first else {
            Issue.record("\(text) was refused")
            return
        }
    }

    @Test("Issued, sequence and not before may be 300 s ahead and the expiry 300 s back, and no more")
    func tolerance() throws {
        let now = Now(monotonic: .zero, wallMilliseconds: wall)
        let good = try certificate(notBefore: wall - 1000)
        func isRefused(_ record: MappingRecord, _ certificate: Certificate) -> Bool {
            guard let mapping = record.signed(with: key) else { return false }
            do throws(VerificationFailure) {
                try CertifiedMapping(mapping: mapping, certificate: certificate).verify(
                    asked: hoa, keys: [issuer.publicKey], now: now)
                return false
            } catch {
                return true
            }
        }
        #expect(try !isRefused(record(issued: wall + 300_000), good) && isRefused(record(issued: wall + 300_001), good))
        #expect(try !isRefused(record(sequence: wall + 300_000), good) && isRefused(record(sequence: wall + 300_001), good))
        #expect(try !isRefused(record(issued: wall - 900_000), good) && isRefused(record(issued: wall - 900_001), good))
        #expect(try !isRefused(record(), certificate(notBefore: wall + 300_000)))
        #expect(try isRefused(record(), certificate(notBefore: wall + 300_001)))
        #expect(try !isRefused(record(), certificate(notBefore: wall - 900_000, notAfter: wall - 300_000)))
        #expect(try isRefused(record(), certificate(notBefore: wall - 900_000, notAfter: wall - 300_001)))
    }

    @Test(
        "Records of one key compare by sequence, so a renewed certificate lifts no older record; of different keys, by the certificates' beginnings"
    )
    func versions() throws {
        let other = try #require(SigningKey(seed: [UInt8](repeating: 3, count: 32)))
        let first = try certificate(notBefore: wall)
        let renewed = try certificate(notBefore: wall + 1000)
        let successor = try certificate(other, notBefore: wall + 500)
        func version(_ sequence: UInt64, _ certificate: Certificate) throws -> RecordVersion {
            RecordVersion(try record(sequence: sequence), certificate)
        }
        let (old, replayed, next) = (try version(10, first), try version(9, renewed), try version(11, renewed))
        #expect(old > replayed && !(replayed > old), "an old record under the renewed certificate is a replay")
        #expect(next > old && old < next)
        let taken = try version(1, successor)
        #expect(
            taken > old && !(old > taken), "another key's later certificate ends the earlier key's time, whatever the sequences")
        let (same, high) = (try version(10, renewed), try version(1000, successor))
        #expect(same > high)
        #expect(!(old > same) && !(same > old))
        let twin = try certificate(other, notBefore: wall)
        let (second, one) = (try version(2, twin), try version(1, first))
        #expect(second > one && !(one > second))
    }

    @Test("A certificate speaks for an IPv4 /8 or an IPv6 /16 at most")
    func prefixLengths() throws {
        let now = Now(monotonic: .zero, wallMilliseconds: wall)
        for (text, length, isFine) in [
            ("10.0.0.0", 104, true), ("10.0.0.0", 103, false), ("2001::", 16, true), ("2000::", 15, false),
        ] as [(String, UInt8, Bool)] {
            let home = HomeAddress(try #require(IPAddress(text)))
            let certificate = try #require(
                Certificate(
                    issuing: home, prefixLength: length, nodeKey: key.publicKey, notBefore: wall, notAfter: wall + 1000,
                    with: issuer))
            let record = MappingRecord(hoa: home, prefixLength: length, sequence: wall, lifetime: 600, issued: wall, locators: [])
            let certified = CertifiedMapping(mapping: try #require(record.signed(with: key)), certificate: certificate)
            if isFine {
                try certified.verify(asked: home, keys: [issuer.publicKey], now: now)
            } else {
                #expect(throws: VerificationFailure.self) {
                    try certified.verify(asked: home, keys: [issuer.publicKey], now: now)
                }
            }
        }
    }

    @Test(
        "A datagram that begins with 0x40 or more is not signalling: nothing of it is read; such a type further back is only unknown"
    )
    func notSignalling() throws {
        let query = SignalMessage(sequence: 1, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: hoa))).octets
        for first in [0x40, 0x45, 0x60, 0x6F, 0xFF] as [UInt8] {
            let parts = SignalDatagram.decode([first, 0, 1, 2, 0, 0, 0, 0] + query)
            guard parts.count == 1, case .rejected(let rejection)? = parts.first else {
                Issue.record("0x\(String(first, radix: 16)) was read")
                continue
            }
            #expect(rejection.answerCode == nil)
            #expect(SignalDatagram.decode(query + [first, 0, 1, 2, 0, 0, 0, 0] + query).count == 3)
        }
        #expect(SignalDatagram.decode([0x3F, 0, 1, 2, 0, 0, 0, 0] + query).count == 2)
    }

    @Test("A request whose length is wrong is answered with code 3 if its COOKIE can be read")
    func wrongLength() throws {
        var query = SignalMessage(sequence: 77, .maQuery(MAQuery(cookie: Cookie(client: 0x0102), hoa: hoa))).octets
        query[3] += 1
        func rejection(_ octets: [UInt8]) throws -> SignalDatagram.Rejection {
            guard case .rejected(let rejection)? = SignalDatagram.decode(octets).last else {
                throw SignalError.malformed("it was read")
            }
            return rejection
        }
        let long = try rejection(query)
        #expect(long.answerCode == .malformed && long.sequence == 77 && long.cookie?.client == 0x0102)
        #expect(try rejection(Array(query.prefix(16))).answerCode == nil, "its COOKIE is cut off")
        query[3] = 1
        #expect(try rejection(query).answerCode == nil, "a message of 4 octets has no options")
    }

    @Test("A cookie of version 1 tells when it was made, in whole seconds; one of another version tells nothing")
    func cookieTime() throws {
        let authority = try #require(CookieAuthority(secret: [UInt8](repeating: 5, count: 16)))
        let made = authority.make(
            for: Endpoint(hoa.address, port: 6289), clientCookie: 9, now: Now(monotonic: .zero, wallMilliseconds: wall + 999))
        #expect(made.madeAt == wall)
        #expect(ServerCookie(head: made.head | 1 << 57, hash: made.hash).madeAt == nil)
        #expect(ServerCookie(head: made.head | 1 << 40, hash: made.hash).madeAt == nil)
    }
}
