import Glibc
import MATServer
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

/// The workers' way of answering beside the core's.
private final class Comparison {
    let server: TestServer
    private let probe: QueryPathProbe
    var counters: QueryCounters { probe.counters }
    private(set) var answeredCount = 0
    private(set) var passedOnCount = 0

    init(_ server: TestServer, options: OptionTable = .standard) {
        self.server = server
        probe = QueryPathProbe(server.core, options: options)
    }

    /// What a worker would send; `nil` if it passes the datagram on.
    func answers(_ datagram: [UInt8], from source: Endpoint) -> [[UInt8]]? {
        probe.takeRules(of: server.core)
        guard case .answered(let answers) = probe.take(datagram, from: source, now: server.now) else {
            passedOnCount += 1
            return nil
        }
        answeredCount += 1
        return answers
    }

    /// What a worker tells a notify for which there is no time.
    func putOff(_ datagram: [UInt8], from source: Endpoint) -> [UInt8]? {
        probe.takeRules(of: server.core)
        guard case .answered(let answers) = probe.putOff(datagram, from: source, now: server.now) else { return nil }
        return answers.first
    }

    /// Lets both answer.
    func compare(_ datagram: [UInt8], from source: Endpoint, _ comment: @autoclosure () -> String = "") {
        guard let fast = answers(datagram, from: source) else { return }
        server.clear()
        server.receive(datagram, from: source)
        #expect(fast == server.raw.map(\.octets), "\(comment()) \(datagram)")
    }
}

@Suite("The query path")
struct QueryPathTests {
    private let cn = node("198.51.100.77")
    private let unregistered = node("198.51.100.99")

    /// A server with a node of each family, a mobile network, a withdrawn and an expired mapping.
    private func populated(limits: IMSLimits = IMSLimits()) throws -> (TestServer, [CertifiedMapping]) {
        let server = try TestServer(limits: limits)
        var records: [CertifiedMapping] = []
        for (hoa, length, moas, lifetime) in [
            ("192.0.2.1", 128, ["198.51.100.77"], 600), ("192.0.2.2", 128, ["198.51.100.78", "2001:db8:aa::78"], 600),
            ("2001:db8:10::5", 128, (1...8).map { "2001:db8:bb::\($0)" }, 600), ("192.0.2.9", 128, [], 600),
            ("192.0.2.10", 128, ["198.51.100.80"], 1), ("2001:db8:10:7::", 64, ["2001:db8:aa:7::"], 600),
        ] as [(String, UInt8, [String], UInt32)] {
            let node = try server.makeNode(hoa, prefixLength: length, seed: UInt8(records.count + 1))
            let record = try node.record(moas, sequence: TestServer.start, lifetime: lifetime)
            try server.core.mappings.set(
                StoredMapping(
                    certified: record, source: Endpoint(address(moas.first ?? hoa), port: 6289), local: TestServer.local,
                    provenAt: TestServer.start))
            records.append(record)
        }
        server.advance(.seconds(10))
        return (server, records)
    }

    private static let hoas = [
        "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.9", "192.0.2.10", "10.1.2.3", "2001:db8:10::5", "2001:db8:10::6",
        "2001:db8:10:7::99", "2001:db8:ffff::1",
    ]
    private static let moas = [
        "198.51.100.77", "198.51.100.78", "2001:db8:aa::78", "2001:db8:bb::8", "198.51.100.80", "2001:db8:aa:7::5", "203.0.113.200",
    ]

    private func body(_ server: TestServer, _ records: [CertifiedMapping], _ source: Endpoint, _ random: inout SeededGenerator)
        -> SignalMessage.Body
    {
        let client = UInt64.random(in: .min ... .max, using: &random)
        let cookie: Cookie =
            switch Int.random(in: 0..<5, using: &random) {
            case 0: Cookie(client: client)
            case 1: Cookie(client: client, server: ServerCookie(head: 1 << 56 | UInt64(server.now.wallSeconds), hash: 7))
            default: server.cookie(source, client: client)
            }
        if Int.random(in: 0..<8, using: &random) == 0, let record = records.randomElement(using: &random) {
            let padding: Int? = Bool.random(using: &random) ? Int.random(in: 0...60, using: &random) : nil
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                let proof = PathProof(certificate: .whole(record.certificate), signature: record.mapping.signature)
                return .bind(Bind(cookie: cookie, .bind(record.record.hoa, proof, lifetime: 60)))
            case 1: return .bind(Bind(cookie: cookie, .refresh(record.record.hoa), padding: padding))
            default: return .bind(Bind(cookie: cookie, .ask, padding: padding))
            }
        }
        if Int.random(in: 0..<4, using: &random) == 0, let record = records.randomElement(using: &random) {
            let isWhole = Bool.random(using: &random)
            let enclosed = EnclosedRecord(
                mapping: record.mapping, certificate: isWhole ? .whole(record.certificate) : .id(record.certificate.id))
            switch Int.random(in: 0..<3, using: &random) {
            case 0:
                let proof = LocatorProof(
                    locator: MobileAddress(address("198.51.100.80")), client: client, server: ServerCookie(head: 1 << 56, hash: client))
                return .imsUpdate(IMSUpdate(cookie: cookie, record: enclosed, proofs: isWhole ? [] : [proof]))
            case 1:
                return .haNotify(
                    HANotify(cookie: cookie, hoa: record.record.hoa, peerHoA: home("192.0.2.2"), record: isWhole ? enclosed : nil))
            default: return .maNotify(MANotify(cookie: cookie, record: enclosed))
            }
        }
        if Int.random(in: 0..<3, using: &random) == 0 {
            let moa = MobileAddress(address(Self.moas.randomElement(using: &random) ?? ""))
            return .haQuery(HAQuery(cookie: cookie, moa: moa))
        }
        let hoa = home(Self.hoas.randomElement(using: &random) ?? "")
        let known = Bool.random(using: &random) ? records.randomElement(using: &random)?.certificate.id : nil
        let padding: Int? = Bool.random(using: &random) ? Int.random(in: 0...420, using: &random) : nil
        let subscribe: UInt32? = Int.random(in: 0..<6, using: &random) == 0 ? UInt32.random(in: 0...300, using: &random) : nil
        return .maQuery(MAQuery(cookie: cookie, hoa: hoa, certID: known, subscribe: subscribe, padding: padding))
    }

    @Test(
        "Thousands of random queries, one and many to a datagram, get from a worker what they get from the core, octet for octet",
        arguments: [false, true])
    func differential(isLoading: Bool) throws {
        var limits = IMSLimits()
        limits.queriesPerSecond = 1_000_000
        let (server, records) = try populated(limits: limits)
        if isLoading { server.core.loadBegins() }
        let comparison = Comparison(server)
        var random = SeededGenerator(seed: 5)
        let sources = [cn, unregistered, node("2001:db8:bb::3"), node("2001:db8:dd::1"), Endpoint(address("127.0.0.1"), port: 999)]
        for number in 0..<2000 {
            let source = sources.randomElement(using: &random) ?? cn
            var datagram: [UInt8] = []
            for _ in 0..<(number % 3 == 0 ? Int.random(in: 2...17, using: &random) : 1) {
                let octets = SignalMessage(
                    sequence: UInt32.random(in: .min ... .max, using: &random), body(server, records, source, &random)
                ).octets
                if datagram.count + octets.count <= SignalDatagram.octetsMax { datagram += octets }
            }
            comparison.compare(datagram, from: source, "number \(number)")
        }
        #expect(comparison.answeredCount > 1000 && comparison.passedOnCount > 50)
    }

    @Test("Whatever octets are changed, cut off or added, a worker answers as the core does or leaves it to the core")
    func mutated() throws {
        let (server, records) = try populated()
        let comparison = Comparison(server)
        var random = SeededGenerator(seed: 6)
        for number in 0..<4000 {
            // Its own source each time, so that no rate is met.
            let source = number % 2 == 0 ? node("2001:db8:\(String(number, radix: 16))::1") : cn
            var datagram: [UInt8] = []
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                datagram += SignalMessage(sequence: UInt32(number), body(server, records, source, &random)).octets
            }
            for _ in 0..<Int.random(in: 1...3, using: &random) {
                switch Int.random(in: 0..<8, using: &random) {
                case 0: datagram.removeLast(min(datagram.count, Int.random(in: 1...40, using: &random)))
                case 1: datagram += (0..<Int.random(in: 1...12, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
                case 2:
                    // Type, flags, length or the first options' heads, which steer the parser most.
                    let place = [0, 1, 2, 3, 8, 9, 10, 11, 36, 37, 38, 39].randomElement(using: &random) ?? 0
                    if place < datagram.count { datagram[place] = UInt8.random(in: 0...30, using: &random) }
                default:
                    if !datagram.isEmpty {
                        let place = Int.random(in: 0..<datagram.count, using: &random)
                        datagram[place] ^= 1 << UInt8.random(in: 0...7, using: &random)
                    }
                }
            }
            // A mutation may ask for a subscription or spend a rate in the core only; what counts is what is sent.
            server.advance(.milliseconds(50))
            comparison.compare(datagram, from: source, "number \(number)")
        }
        #expect(comparison.answeredCount > 300)
    }

    @Test("While nodes are bound, a worker gives a stranger's HA Query a cookie, as the core does, and leaves it to the core with one, at a rate")
    func bound() throws {
        let (server, records) = try populated()
        let comparison = Comparison(server)
        func query(_ cookie: Cookie, _ source: Endpoint) -> [[UInt8]]? {
            let octets = SignalMessage(sequence: 9, .haQuery(HAQuery(cookie: cookie, moa: MobileAddress(address("198.51.100.77"))))).octets
            comparison.compare(octets, from: source)
            return comparison.answers(octets, from: source)
        }
        let translated = Endpoint(address("198.51.100.200"), port: 40_001)
        #expect(try #require(query(Cookie(client: 1), translated)?.first)[1] == ResponseCode.refused.rawValue)
        #expect(try #require(query(server.cookie(translated), translated)?.first)[1] == ResponseCode.refused.rawValue)
        let node = try server.makeNode("192.0.2.1", seed: 1)
        #expect(node.certificate == records[0].certificate)
        #expect(try server.bind(node, from: translated)?.code == .ok)
        #expect(try #require(query(Cookie(client: 1), translated)?.first)[1] == ResponseCode.cookieRequired.rawValue)
        #expect(query(server.cookie(translated), translated) == nil && server.whose("198.51.100.77", from: translated)?.code == .ok)
        // A registered node's is answered where it arrives, as ever.
        #expect(query(server.cookie(cn), cn) != nil)
        // A flood ends at the worker: ten times of a source's rate is let in.
        let flooder = Endpoint(address("203.0.113.9"), port: 6289)
        let octets = SignalMessage(sequence: 9, .haQuery(HAQuery(cookie: server.cookie(flooder), moa: MobileAddress(address("198.51.100.77")))))
            .octets
        let passed = (0..<3000).count { _ in comparison.answers(octets, from: flooder) == nil }
        #expect(passed == 1000)
    }

    @Test("What a worker takes for odd is what the core can't read either, and no datagram that is well-formed is held up as such")
    func inspected() throws {
        let (server, records) = try populated()
        var random = SeededGenerator(seed: 11)
        var kinds: [DatagramKind: Int] = [:]
        for number in 0..<8000 {
            let source = node("2001:db8:\(String(number, radix: 16))::1")
            var datagram: [UInt8] = []
            for _ in 0..<Int.random(in: 1...2, using: &random) {
                datagram += SignalMessage(sequence: UInt32(number), body(server, records, source, &random)).octets
            }
            for _ in 0..<number % 3 where !datagram.isEmpty {
                let place = Int.random(in: 0..<datagram.count, using: &random)
                datagram[place] = Bool.random(using: &random) ? datagram[place] ^ 1 << UInt8.random(in: 0...7, using: &random) : 0
                if Int.random(in: 0..<8, using: &random) == 0 { datagram.removeLast(min(datagram.count, Int.random(in: 1...30, using: &random))) }
            }
            let kind = datagram.withUnsafeBytes { DatagramInspector(table: .standard).inspect($0).kind }
            kinds[kind, default: 0] += 1
            var expected = DatagramKind.regular
            for part in SignalDatagram.decode(datagram) {
                switch part {
                case .message(let message, _):
                    let weight: DatagramKind =
                        switch message.type {
                        case .imsUpdate, .bind: .update
                        case .haNotify, .maNotify: .notify
                        case .pathProbe, .pathAnswer: .odd
                        default: .regular
                        }
                    expected = max(expected, weight)
                case .draft: expected = max(expected, .draft)
                case .rejected(let rejection): expected = max(expected, rejection.error.code == .draftBody ? .draft : .odd)
                }
            }
            if kind != expected {
                // Drafts are not looked through to the last, TEXT in a request is never sent.
                let hasText = stride(from: 8, to: datagram.count - 3, by: 4).contains { datagram[$0] == 0 && datagram[$0 + 1] == 15 }
                #expect(
                    expected == .odd && kind == .draft || kind == .odd && hasText, "number \(number): \(kind), not \(expected): \(datagram)")
            }
        }
        // Enough mutations of each outcome were tried for the test to mean something.
        #expect([.regular, .update, .notify, .odd].allSatisfy { kinds[$0] ?? 0 > 300 }, "\(kinds)")
    }

    /// Kinds that this version does not know.
    private static let dummy = OptionKind(rawValue: 0x001E)
    private static let criticalDummy = OptionKind(rawValue: 0x8003)

    private func query(_ server: TestServer, _ options: [UInt8]) -> [UInt8] {
        var octets = SignalMessage(sequence: 7, .maQuery(MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.1")))).octets + options
        octets[3] = UInt8(octets.count / 4)
        return octets
    }

    @Test("A query with an option that nobody knows is answered by a worker as by the core; a critical one is for the core, which says code 10")
    func unknownOptions() throws {
        let (server, _) = try populated()
        let comparison = Comparison(server)
        comparison.compare(query(server, [0, 0x1E, 0, 4, 1, 2, 3, 4]), from: cn)
        #expect(comparison.answeredCount == 1)
        let critical = query(server, [0x80, 3, 0, 4, 1, 2, 3, 4])
        #expect(comparison.answers(critical, from: cn) == nil)
        #expect(critical.withUnsafeBytes { DatagramInspector(table: .standard).inspect($0).kind } == .odd)
        server.clear()
        server.receive(critical, from: cn)
        #expect(server.raw.first?.octets[1] == ResponseCode.unsupported.rawValue)
    }

    @Test("A row in the table of options teaches worker and inspector a new one: what is well-formed, what is not, and that it must be there")
    func newOption() throws {
        let (server, _) = try populated()
        let rows = [OptionDefinition(Self.dummy, "DUMMY", .exactly(4)), OptionDefinition(Self.criticalDummy, "CRITICAL-DUMMY", .exactly(4))]
        let table = OptionTable(OptionTable.standardOptions + rows, OptionTable.standardMessages)
        let inspector = DatagramInspector(table: table)
        func kind(_ datagram: [UInt8]) -> DatagramKind { datagram.withUnsafeBytes { inspector.inspect($0).kind } }
        let comparison = Comparison(server, options: table)
        let good = [query(server, [0, 0x1E, 0, 4, 1, 2, 3, 4]), query(server, [0x80, 3, 0, 4, 1, 2, 3, 4])]
        for datagram in good {
            #expect(kind(datagram) == .regular)
            // It may mean something to the core.
            #expect(comparison.answers(datagram, from: cn) == nil)
        }
        for options in [[0, 0x1E, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8], [0x80, 3, 0, 0], [0, 0x1E, 0, 4, 1, 2, 3, 4, 0, 0x1E, 0, 4, 1, 2, 3, 4]] as [[UInt8]]
        {
            #expect(kind(query(server, options)) == .odd)
            #expect(comparison.answers(query(server, options), from: cn) == nil)
        }
        let messages = OptionTable.standardMessages.map { $0.type == .maQuery ? MessageDefinition(.maQuery, $0.needs + [Self.dummy]) : $0 }
        let demanding = DatagramInspector(table: OptionTable(table.options, messages))
        #expect(good.map { datagram in datagram.withUnsafeBytes { demanding.inspect($0).kind } } == [.regular, .odd])
    }

    @Test("A notify for which there is no time is put off by a worker as by the core, with and without a record")
    func putOff() throws {
        let (server, records) = try populated()
        let comparison = Comparison(server)
        let record = try #require(records.first)
        let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
        let cookie = server.cookie(cn)
        for body in [
            .haNotify(HANotify(cookie: cookie, hoa: home("10.9.9.9"), peerHoA: home("192.0.2.1"))),
            .haNotify(HANotify(cookie: cookie, hoa: home("2001:db8:99::1"), peerHoA: home("192.0.2.1"), record: enclosed)),
            .maNotify(MANotify(cookie: cookie, record: enclosed)),
        ] as [SignalMessage.Body] {
            let datagram = SignalMessage(sequence: 77, body).octets
            server.clear()
            server.perform(server.core.putOff(datagram, from: cn, to: TestServer.local, now: server.now))
            #expect(server.raw.map(\.octets) == [comparison.putOff(datagram, from: cn)])
        }
        #expect(comparison.counters[.putOff] == 3)
        var counted = IMSCounters()
        comparison.counters.add(to: &counted)
        #expect(counted.received[.haNotify] == 2 && counted.received[.maNotify] == 1 && counted.putOff == 3)
        #expect(counted.answered[IMSCounters.Answer(type: .haNotifyAck, code: .tryLater)] == 2)
    }

    @Test("First queries, short and padded, and a HA Query without a cookie are answered by a worker as by the core")
    func first() throws {
        let (server, _) = try populated()
        let comparison = Comparison(server)
        let client: UInt64 = 0xa1a2_a3a4_a5a6_a7a8
        for body in [
            .maQuery(MAQuery(cookie: Cookie(client: client), hoa: home("192.0.2.1"))),
            .maQuery(MAQuery(cookie: Cookie(client: client), hoa: home("192.0.2.1"), subscribe: 300, padding: 348)),
            .haQuery(HAQuery(cookie: Cookie(client: client), moa: MobileAddress(address("198.51.100.78")))),
        ] as [SignalMessage.Body] {
            comparison.compare(SignalMessage(sequence: 9, body).octets, from: cn)
        }
        #expect(comparison.answeredCount == 3)
    }

    @Test("SUBSCRIBE under a valid cookie, other messages, and HA Queries that a remembered mapping may answer go to the core")
    func passedOn() throws {
        let (server, records) = try populated()
        let comparison = Comparison(server)
        func isPassedOn(_ body: SignalMessage.Body, _ source: Endpoint) -> Bool {
            comparison.answers(SignalMessage(sequence: 1, body).octets, from: source) == nil
        }
        let subscribing = MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.1"), subscribe: 300)
        #expect(isPassedOn(.maQuery(subscribing), cn))
        // The same without a valid cookie makes no state, and is answered within its size.
        #expect(!isPassedOn(.maQuery(MAQuery(cookie: Cookie(client: 1), hoa: home("192.0.2.1"), subscribe: 300)), cn))
        let record = try #require(records.first)
        let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
        #expect(isPassedOn(.imsUpdate(IMSUpdate(cookie: server.cookie(cn), record: enclosed, proofs: [])), cn))

        let stranger = HAQuery(cookie: server.cookie(cn), moa: MobileAddress(address("203.0.113.200")))
        #expect(!isPassedOn(.haQuery(stranger), cn))
        let foreign = try TestNode("10.9.9.9", seed: 77, issuer: try key(201), notBefore: TestServer.start - 1000)
        server.core.remembered.set(try foreign.record(["203.0.113.200"], sequence: TestServer.start), isConfirmed: true, now: server.now)
        #expect(isPassedOn(.haQuery(stranger), cn))
        #expect(try #require(server.whose("203.0.113.200", from: cn)).code == .ok)
        // A node that is not registered is refused in any case.
        #expect(!isPassedOn(.haQuery(HAQuery(cookie: server.cookie(unregistered), moa: stranger.moa)), unregistered))
    }

    @Test("A worker bounds HA Queries per source and tells to try later; MA Queries it answers without end")
    func rates() throws {
        let (server, _) = try populated()
        let comparison = Comparison(server)
        let limit = IMSLimits().queriesPerSecond
        func code(_ sequence: Int) throws -> UInt8 {
            let query = HAQuery(cookie: server.cookie(cn), moa: MobileAddress(address("198.51.100.78")))
            let answers = try #require(comparison.answers(SignalMessage(sequence: UInt32(sequence), .haQuery(query)).octets, from: cn))
            return try #require(answers.first)[1]
        }
        for sequence in 0..<limit { #expect(try code(sequence) == ResponseCode.ok.rawValue) }
        #expect(try code(limit) == ResponseCode.tryLater.rawValue)
        server.advance(.seconds(1))
        #expect(try code(limit + 1) == ResponseCode.ok.rawValue)
    }

    @Test("Rules that change count from the next snapshot on: prefixes, cookie secrets, loading")
    func rules() throws {
        let (server, _) = try populated()
        let comparison = Comparison(server)
        func code() throws -> ResponseCode {
            let query = MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.3"))
            let answers = try #require(comparison.answers(SignalMessage(sequence: 1, .maQuery(query)).octets, from: cn))
            return ResponseCode(rawValue: try #require(answers.first)[1])
        }
        #expect(try code() == .notFound)
        server.core.loadBegins()
        #expect(try code() == .tryLater)
        _ = server.core.store(.loadEnded, now: server.now)
        #expect(try code() == .notFound)
        server.core.reconfigure(
            IMSCoreConfiguration(served: [ServedPrefix(prefix: prefix("2001:db8:10::/48"))], signingKey: server.issuer))
        #expect(try code() == .notAuthoritative)
    }
}
