import MATSignal
import Testing

@testable import IMSCore

@Suite("MA Query, HA Query, and the size rule")
struct QueryTests {
    let cn = node("198.51.100.9")
    let mn = node("198.51.100.7")

    private func registered() throws -> (TestServer, TestNode, CertifiedMapping) {
        let server = try TestServer()
        let node = try server.makeNode("192.0.2.1")
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let reply = try #require(server.update(record, from: mn))
        #expect(reply.code == .ok)
        server.clear()
        return (server, node, record)
    }

    @Test("A query gets the record as the node signed it, without the certificate if the CERT-ID matches")
    func answers() throws {
        let (server, _, record) = try registered()
        let answer = try #require(server.query("192.0.2.1", from: cn))
        #expect(answer.code == .ok && answer.mapping == record.mapping && answer.certificate == record.certificate)
        #expect(answer.hoa == home("192.0.2.1") && answer.cookie.client == 0xC0FFEE && answer.cookie.server != nil)
        let short = try #require(server.query("192.0.2.1", from: cn, certID: record.certificate.id))
        #expect(short.code == .ok && short.mapping == record.mapping && short.certificate == nil)
        let other = try #require(server.query("192.0.2.1", from: cn, certID: CertificateID(rawValue: 1)))
        #expect(other.certificate == record.certificate)
    }

    @Test("Unknown HoAs are not found with a lifetime, foreign ones are not authoritative, expired ones are not found")
    func refusals() throws {
        let (server, _, _) = try registered()
        let unknown = try #require(server.query("192.0.2.2", from: cn))
        #expect(unknown.code == .notFound && unknown.lifetime == 30)
        #expect(try #require(server.query("10.1.1.1", from: cn)).code == .notAuthoritative)
        server.advance(.seconds(601))
        #expect(try #require(server.query("192.0.2.1", from: cn)).code == .notFound)
    }

    @Test("Without a valid cookie a short query gets 36 octets with a cookie, and a padded one its answer but no subscription")
    func sizeRule() throws {
        let (server, _, record) = try registered()
        let bare = Cookie(client: 5)
        let short = try #require(server.query("192.0.2.1", from: cn, subscribe: 300, cookie: bare))
        #expect(short.code == .cookieRequired && server.raw.last?.octets.count == 36)
        let repeated = try #require(server.query("192.0.2.1", from: cn, subscribe: 300, cookie: short.cookie))
        #expect(repeated.code == .ok && repeated.subscribe == 300)
        server.clear()
        let stranger = node("198.51.100.33")
        let padded = try #require(server.query("192.0.2.1", from: stranger, subscribe: 300, cookie: bare, padding: 348))
        #expect(padded.code == .ok && padded.mapping == record.mapping && padded.subscribe == nil && padded.cookie.server != nil)
        #expect(server.core.subscribers(of: home("192.0.2.1"), now: server.now) == [cn])
    }

    @Test("No datagram without a cookie gets more octets back than it brought, whatever it packs", arguments: 1...16)
    func neverAmplifies(count: Int) throws {
        let (server, _, _) = try registered()
        for padding in [nil, 20, 60] as [Int?] {
            var octets: [UInt8] = []
            for number in 0..<count {
                let query = MAQuery(
                    cookie: Cookie(client: 5), hoa: home("192.0.2.\(number % 3)" == "192.0.2.0" ? "192.0.2.1" : "192.0.2.\(number % 3)"),
                    padding: padding)
                octets += SignalMessage(sequence: UInt32(number), .maQuery(query)).octets
            }
            guard octets.count <= SignalDatagram.octetsMax else { continue }
            server.clear()
            server.receive(octets, from: cn)
            #expect(server.raw.reduce(0) { $0 + $1.octets.count } <= octets.count)
            #expect(server.sent.count == count)
        }
    }

    @Test("A forged, foreign or hour-old cookie is no cookie")
    func cookies() throws {
        let (server, _, _) = try registered()
        let cookie = server.cookie(cn)
        #expect(try #require(server.query("192.0.2.1", from: node("198.51.100.10"), cookie: cookie)).code == .cookieRequired)
        #expect(try #require(server.query("192.0.2.1", from: Endpoint(cn.address, port: 1234), cookie: cookie)).code == .cookieRequired)
        server.advance(.seconds(3590))
        #expect(try #require(server.query("192.0.2.2", from: cn, cookie: cookie)).code == .notFound)
        server.advance(.seconds(20))
        // An answer that fits goes out without a cookie too, so a request that is never answered from memory shows it.
        #expect(server.notify("192.0.2.1", about: "192.0.2.1", nil, from: cn, cookie: cookie)?.code == .cookieRequired)
    }

    @Test("Several requests in a datagram are answered in one")
    func packing() throws {
        let (server, _, _) = try registered()
        let cookie = server.cookie(cn)
        let octets = [1, 2, 3].flatMap {
            SignalMessage(sequence: $0, .maQuery(MAQuery(cookie: cookie, hoa: home("192.0.2.\($0 + 1)")))).octets
        }
        server.receive(octets, from: cn)
        #expect(server.raw.count == 1)
        #expect(server.sent.map(\.message.sequence) == [1, 2, 3] && server.sent.allSatisfy { $0.message.code == .notFound })
    }

    @Test("HA Query is answered to registered locators only")
    func haQuery() throws {
        let (server, _, record) = try registered()
        let refused = try #require(server.whose("198.51.100.7", from: cn))
        #expect(refused.code == .refused && refused.mapping == nil)
        #expect(server.logs.contains { $0.contains("refused HA Query") && $0.contains("no registered locator") })
        let peer = try server.makeNode("192.0.2.5", seed: 5)
        #expect(try #require(server.update(try peer.record(["198.51.100.9"], sequence: server.now.wallMilliseconds), from: cn)).code == .ok)
        let found = try #require(server.whose("198.51.100.7", from: cn))
        #expect(found.code == .ok && found.mapping == record.mapping && found.certificate == record.certificate)
        let unknown = try #require(server.whose("198.51.100.77", from: cn))
        #expect(unknown.code == .notFound && unknown.lifetime == 5)
    }

    @Test("HA Queries are limited per source")
    func haQueryRate() throws {
        let (server, _, _) = try registered()
        let codes = (0..<101).compactMap { _ in server.whose("198.51.100.77", from: mn)?.code }
        #expect(codes.dropLast().allSatisfy { $0 == .notFound } && codes.last == .tryLater)
    }

    @Test("A malformed request is answered with code 3, an unknown critical option with code 10, and nothing else happens")
    func malformed() throws {
        let (server, _, _) = try registered()
        // MA Query with COOKIE and no HOA, padded so that the answer fits.
        var octets: [UInt8] = [3, 0, 1, 15, 0, 0, 0, 9, 0, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 36]
        octets += [UInt8](repeating: 0, count: 36)
        server.receive(octets, from: cn)
        #expect(server.sent.last?.message.code == .malformed && server.sent.last?.message.sequence == 9)
        #expect(server.raw.allSatisfy { $0.octets.count <= octets.count })
        var critical = SignalMessage(sequence: 10, .maQuery(MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.1")))).octets
        critical += [0x80, 0x01, 0, 0]
        critical[3] += 1
        server.receive(critical, from: cn)
        #expect(server.sent.last?.message.code == .unsupported)
        guard case .maAnswer(let answer)? = server.sent.last?.message.body else { return #expect(Bool(false)) }
        #expect(answer.text?.contains("0x8001") == true)
        // An unknown type gets nothing, and what follows it is read all the same.
        server.clear()
        server.receive(
            [63, 0, 1, 2, 0, 0, 0, 0]
                + SignalMessage(sequence: 11, .maQuery(MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.2")))).octets, from: cn)
        #expect(server.sent.map(\.message.code) == [.notFound] && server.core.counters.unknownTypes == 1)
        // But what begins like an IP packet is none of ours (section 1).
        server.clear()
        server.receive(
            [0x45, 0, 1, 2, 0, 0, 0, 0]
                + SignalMessage(sequence: 12, .maQuery(MAQuery(cookie: server.cookie(cn), hoa: home("192.0.2.2")))).octets, from: cn)
        #expect(server.sent.isEmpty)
    }

    @Test("Answers to malformed requests are limited in rate")
    func malformedRate() throws {
        let (server, _, _) = try registered()
        var octets: [UInt8] = [3, 0, 1, 15, 0, 0, 0, 9, 0, 2, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1, 0, 36]
        octets += [UInt8](repeating: 0, count: 36)
        for _ in 0..<60 { server.receive(octets, from: cn) }
        #expect(server.sent.count == 50 && server.core.counters.malformed == 60)
        // The log says how many lines it left out.
        server.advance(.seconds(1))
        server.receive(octets, from: cn)
        #expect(server.logs.contains { $0.contains("more refusals were not logged") })
    }

    @Test("Draft queries are answered to configured sources alone, and draft updates never")
    func draft() throws {
        let ask = DraftMessage(sequence: 4, body: .query(home("192.0.2.1"), timestamp: 0))
        let (closed, _, _) = try registered()
        closed.receive(ask.octets, from: cn)
        #expect(closed.raw.isEmpty && closed.core.counters.dropped == 1)

        let server = try TestServer(draftSources: [prefix("198.51.100.0/24")])
        let node = try server.makeNode("192.0.2.1")
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        server.clear()
        server.receive(ask.octets, from: cn)
        guard case .draft(let answer)? = SignalDatagram.decode(server.raw.first?.octets ?? []).first,
            case .mapping(let hoa, let moas, _, let lifetime, false) = answer.body
        else { return #expect(Bool(false), "no draft answer") }
        #expect(hoa == home("192.0.2.1") && moas == [MobileAddress(address("198.51.100.7"))] && lifetime == 600 && answer.sequence == 4)
        let forged = DraftMessage(
            sequence: 5,
            body: .mapping(home("192.0.2.1"), [MobileAddress(address("198.51.100.66"))], timestamp: 0, lifetime: 600, isUpdate: true))
        server.clear()
        server.receive(forged.octets, from: cn)
        #expect(
            server.raw.isEmpty
                && server.core.mapping(of: home("192.0.2.1"))?.record.locators.first?.moa == MobileAddress(address("198.51.100.7")))
    }
}
