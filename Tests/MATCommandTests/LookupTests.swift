import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

@Suite("mat lookup: what the findings mean")
struct LookupTests {
    let hoa: HomeAddress
    let moa: MobileAddress
    let now = Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000)
    let issuer: SigningKey
    let node: SigningKey

    init() throws {
        hoa = try #require(HomeAddress("192.0.2.10"))
        moa = try #require(MobileAddress("203.0.113.10"))
        issuer = try #require(SigningKey(seed: Array(repeating: 1, count: 32)))
        node = try #require(SigningKey(seed: Array(repeating: 2, count: 32)))
    }

    /// - Parameter signer: who signs the mapping; the certified node by default.
    func certified(_ locators: [MobileAddress], signer: SigningKey? = nil, age: UInt64 = 12_000) throws -> CertifiedMapping {
        let certificate = try #require(
            Certificate(
                issuing: hoa, nodeKey: node.publicKey, notBefore: now.wallMilliseconds - 1_000_000,
                notAfter: now.wallMilliseconds + 1_000_000, with: issuer))
        let record = MappingRecord(
            hoa: hoa, sequence: 7, lifetime: 600, issued: now.wallMilliseconds - age,
            locators: locators.map { Locator($0, preference: 10) })
        return CertifiedMapping(mapping: try #require(record.signed(with: signer ?? node)), certificate: certificate)
    }

    /// Listed at an address, an endpoint and a relay.
    func certifiedEverywhere() throws -> CertifiedMapping {
        func endpoint(_ text: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(text)), port: port) }
        let plain = try certified([moa])
        var record = plain.record
        record.places += [
            .endpoint(try endpoint("198.51.100.7", 41000), preference: 20), .relay(try endpoint("203.0.113.53", 6290), preference: 250),
        ]
        return CertifiedMapping(mapping: try #require(record.signed(with: node)), certificate: plain.certificate)
    }

    func findings(_ mapping: CertifiedMapping? = nil, keys: [PublicKey]? = nil, codes: [ResponseCode] = [.cookieRequired, .ok])
        throws -> LookupFindings
    {
        let keys = keys ?? [issuer.publicKey]
        var findings = LookupFindings(hoa: hoa, resolvers: [Endpoint(IPAddress(ipv4: 0x7F00_0001), port: 53)], now: now)
        findings.resolversFrom = "/etc/resolv.conf"
        let address = try #require(IPAddress("203.0.113.132"))
        let server = IMSHost(
            priority: 10, weight: 5, addresses: [address], port: 6288, target: try #require(DomainName("ims1.example")))
        findings.dns = .found(
            .init(form: .record, ordered: [server], keys: keys, isAuthenticated: false, lifetime: .seconds(300)))
        findings.dnsTook = .microseconds(3200)
        findings.queries = codes.map {
            .init(
                server: Endpoint(address, port: 6288), sequence: 99, tries: 1,
                outcome: .answered($0, rtt: .microseconds(420), text: nil))
        }
        findings.mapping = mapping
        if let mapping { findings.checks = LookupFindings.check(mapping, asked: hoa, keys: keys, now: now) }
        return findings
    }

    @Test("A reverse name that is an alias: its end is shown, and what is wrong there names the zone that is to be mended")
    func alias() throws {
        var findings = try findings(try certified([moa]))
        findings.alias = DomainName("10.0/26.2.0.192.in-addr.arpa")
        #expect(LookupReport.text(findings).contains("  alias of   10.0/26.2.0.192.in-addr.arpa.\n"))
        func verdict(_ dns: LookupFindings.DNS, isTaken: Bool = false) -> String {
            (findings.dns, findings.isNameTaken) = (dns, isTaken)
            guard case .not(let what, let remedy) = findings.verdict else { return "" }
            return "\(what) -> \(remedy)"
        }
        let absent = verdict(.absent)
        #expect(
            absent.contains("is an alias of 10.0/26.2.0.192.in-addr.arpa., and the DNS has neither")
                && absent.contains("`mat zone --origin 0/26.2.0.192.in-addr.arpa.`"), "\(absent)")
        let taken = verdict(.absent, isTaken: true)
        #expect(taken.contains("an alias of 10.0/26.2.0.192.in-addr.arpa., which exists (a PTR") && taken.contains("`mat zone --origin"), "\(taken)")
        let alias = "10.2.0.192.in-addr.arpa. is an alias of 10.0/26.2.0.192.in-addr.arpa."
        // Said once, by whoever knows it.
        for reason in ["SERVFAIL", "\(alias), and of that SERVFAIL"] {
            let lame = verdict(.failed(reason))
            #expect(lame.contains("DNS gives no answer: \(alias)") && lame.contains("`dig NS 0/26.2.0.192.in-addr.arpa.`"), "\(lame)")
            #expect(lame.components(separatedBy: "alias of").count == 2, "\(lame)")
            let bogus = verdict(.unusable(reason))
            #expect(bogus.contains("can't be used: \(alias)") && bogus.contains("`delv TYPE65400 10.0/26.2.0.192.in-addr.arpa.`"), "\(bogus)")
        }
        findings = try self.findings(try certified([moa]))
        findings.alias = DomainName("10.0/26.2.0.192.in-addr.arpa")
        for isVouchedFor in [false, true] {
            findings.isAliasAuthenticated = isVouchedFor
            #expect(LookupReport.text(findings).contains("(its alias is, what it leads to is not)") == isVouchedFor)
        }
    }

    @Test("A record with endpoints and relays: each is shown with what it is for, and the zone's relays beside its keys")
    func endpoints() throws {
        func endpoint(_ text: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(text)), port: port) }
        let relay = try endpoint("203.0.113.53", 6290)
        var findings = try findings(try certifiedEverywhere())
        guard case .found(var servers)? = findings.dns else { return #expect(Bool(false)) }
        servers.relays = [RelayHost([relay, try endpoint("2001:db8:53::53", 6290)]), RelayHost([try endpoint("203.0.113.54", 7000)])]
        findings.dns = .found(servers)
        let lines = LookupReport.text(findings).split(separator: "\n")
        for line in [
            "  relay      203.0.113.53:6290, [2001:db8:53::53]:6290", "  relay      203.0.113.54:7000",
            "  at         203.0.113.10  preference 10",
            "  endpoint   198.51.100.7:41000  preference 20: takes encapsulated packets there",
            "  relay      203.0.113.53:6290  preference 250: passes encapsulated packets on to it",
            "192.0.2.10 is at 203.0.113.10; takes encapsulated packets at 198.51.100.7:41000; is reached through the relay 203.0.113.53:6290",
        ] { #expect(lines.contains(Substring(line)), "\(line)") }
        let json = LookupReport.json(findings)
        #expect(json["endpoints"] == ["198.51.100.7:41000"] && json["relays"] == ["203.0.113.53:6290"])
        #expect(json["mapping"]?["endpoints"] == [["endpoint": "198.51.100.7:41000", "preference": 20]])
        #expect(json["dns"]?["relays"] == [["203.0.113.53:6290", "[2001:db8:53::53]:6290"], ["203.0.113.54:7000"]])
    }

    @Test("A verified mapping: every step is shown, and where the node is")
    func reachable() throws {
        let findings = try findings(certified([moa]))
        #expect(findings.verdict == .reachable([.moa(Locator(moa, preference: 10))]))
        #expect(findings.checks.allSatisfy { $0.failure == nil } && findings.checks.count == 4)
        #expect(
            LookupReport.text(findings) == """
                DNS
                  name       10.2.0.192.in-addr.arpa.
                  asked      127.0.0.1:53 (/etc/resolv.conf), 3.20 ms
                  found      IMS, good for 5m, not validated by DNSSEC
                  key        \(KeyFile.write(issuer.publicKey))
                  SERVER         PRIORITY  WEIGHT  PORT  ADDRESSES
                  ims1.example.        10       5  6288  203.0.113.132

                MA Query
                  SERVER              SEQUENCE  SENT      RTT  ANSWER
                  203.0.113.132:6288        99    1x  0.42 ms  cookie required
                  203.0.113.132:6288        99    1x  0.42 ms  ok

                Mapping of 192.0.2.10
                  at         203.0.113.10  preference 10
                  sequence   7
                  issued     2026-11-21 05:48:58 UTC, 12s ago
                  expires    2026-11-21 05:58:58 UTC, in 9m 48s

                Certificate of 192.0.2.10
                  valid      2026-11-21 05:32:30 UTC to 2026-11-21 06:05:50 UTC
                  node key   \(KeyFile.write(node.publicKey))

                Verification
                  ok  addresses and times of certificate and mapping agree with 192.0.2.10 and this clock
                  ok  an IMS key from DNS signed the certificate
                  ok  the certified node key signed the mapping
                  ok  the mapping is still in force

                192.0.2.10 is at 203.0.113.10

                """)
        let json = LookupReport.json(findings)
        #expect(json["reachable"] == true && json["locators"] == ["203.0.113.10"])
        #expect(json["dns"]?["form"] == "ims" && json["queries"]?.array?.last?["rttMilliseconds"] == 0.42)
    }

    @Test("A key that DNS does not list, a foreign signature and an expired record each fail their own step")
    func disbelieved() throws {
        func failed(_ findings: LookupFindings) -> [Bool] { findings.checks.map { $0.failure != nil } }
        let wrongKey = try findings(certified([moa]), keys: [node.publicKey])
        #expect(failed(wrongKey) == [false, true, false, false])
        let foreign = try findings(certified([moa], signer: issuer))
        #expect(failed(foreign) == [false, false, true, false])
        let old = try findings(certified([moa], age: 700_000))
        #expect(failed(old) == [false, false, false, true])
        for findings in [wrongKey, foreign, old] {
            guard case .not(let what, let remedy) = findings.verdict else {
                Issue.record("believed")
                continue
            }
            #expect(what.hasPrefix("the mapping is not to be believed") && !remedy.isEmpty)
            #expect(LookupReport.text(findings).contains("FAILED"))
        }
    }

    @Test("Each way to find nothing is told apart, with what to do")
    func notFound() throws {
        var verdicts: Set<LookupFindings.Verdict> = []
        verdicts.insert(try findings(certified([])).verdict)
        for codes in [[], [.notFound], [.notAuthoritative], [.ok], [.refused], [.cookieRequired]] as [[ResponseCode]] {
            verdicts.insert(try findings(codes: codes).verdict)
        }
        var findings = try findings()
        findings.dns = .absent
        verdicts.insert(findings.verdict)
        findings.dns = .failed("no DNS server answered in time")
        verdicts.insert(findings.verdict)
        // A server that answers with cookies alone is shown like one that does not answer.
        #expect(verdicts.count == 8)
        for verdict in verdicts {
            guard case .not(_, let remedy) = verdict else {
                Issue.record("\(verdict)")
                continue
            }
            #expect(!remedy.isEmpty)
        }
    }

    @Test("A node at home is called so")
    func atHome() throws {
        let text = LookupReport.text(try findings(certified([MobileAddress(hoa.address)])))
        #expect(text.hasSuffix("192.0.2.10 is at home\n"))
        #expect(text.contains("which is home"))
    }
}
