import MATSignal
import MATTesting
import Testing

@testable import IMS
@testable import IMSCore

extension TestNode {
    /// A record with endpoints, MoAs before them and relays behind.
    func record(
        _ moas: [String] = [], endpoints: [Endpoint], relays: [Endpoint] = [], sequence: UInt64, lifetime: UInt32 = 600
    ) throws -> CertifiedMapping {
        var places = moas.map { MappingRecord.Place.moa(Locator(MobileAddress(address($0)), prefixLength: prefixLength, preference: 10)) }
        places += endpoints.map { .endpoint($0, preference: 20) } + relays.map { .relay($0, preference: 30) }
        let record = MappingRecord(
            hoa: hoa, prefixLength: prefixLength, sequence: sequence, lifetime: lifetime, issued: sequence, places: places)
        return CertifiedMapping(mapping: try #require(record.signed(with: key)), certificate: certificate)
    }
}

@Suite("Records with endpoints")
struct EndpointTests {
    private let hoa = "192.0.2.1"
    private let translated = Endpoint(address("198.51.100.200"), port: 40_001)
    private let second = Endpoint(address("2001:db8:aa::9"), port: 40_002)
    private let relay = Endpoint(address("203.0.113.53"), port: 6290)

    @Test("The update's own source is proven, another endpoint by ENDPOINT-PROOF, and the record is stored and served as it was signed")
    func accepted() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record(endpoints: [translated, second], relays: [relay], sequence: server.now.wallMilliseconds)
        func update(_ proofs: [EndpointProof]) -> IMSUpdateReply? {
            let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
            let body = IMSUpdate(cookie: server.cookie(translated), record: enclosed, endpointProofs: proofs)
            guard case .imsUpdateReply(let reply)? = server.ask(.imsUpdate(body), from: translated)?.body else { return nil }
            return reply
        }
        #expect(update([])?.code == .refused && server.logs.contains { $0.contains("[2001:db8:aa::9]:40002 is neither the source nor proven") })
        let proof = server.cookie(second, client: 77)
        let wrongPort = server.cookie(Endpoint(second.address, port: 40_003), client: 77)
        #expect(update([EndpointProof(endpoint: second, client: 77, server: try #require(wrongPort.server))])?.code == .refused)
        #expect(update([EndpointProof(endpoint: second, client: 77, server: try #require(proof.server))])?.code == .ok)
        #expect(server.core.mapping(of: node.hoa)?.certified == record)
        let answer = try #require(server.query(hoa, from: IMSTests.node("203.0.113.9")))
        #expect(answer.mapping == record.mapping && answer.mapping?.record.octets == record.record.octets)
        #expect(server.core.mappings[prefix("\(hoa)/32")]?.certified == record)
    }

    @Test("The source's address alone does not prove an endpoint: its port has to be the datagram's, under a cookie of at most 300 s")
    func port() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record(endpoints: [translated], sequence: server.now.wallMilliseconds)
        let neighbour = Endpoint(translated.address, port: 40_009)
        #expect(server.update(record, from: neighbour)?.code == .refused)
        let old = server.cookie(translated)
        server.advance(.seconds(301))
        let later = try node.record(endpoints: [translated], sequence: server.now.wallMilliseconds)
        let reply = try #require(server.update(later, from: translated, cookie: old))
        #expect(reply.code == .cookieRequired && server.core.mapping(of: node.hoa) == nil)
        #expect(server.update(later, from: translated, cookie: reply.cookie)?.code == .ok)
    }

    @Test("A MoA in it is proven as ever, for port 6289")
    func moa() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let moa = IMSTests.node("198.51.100.7")
        let record = try node.record(["198.51.100.7"], endpoints: [translated], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: translated)?.code == .refused)
        let proof = LocatorProof(
            locator: MobileAddress(moa.address), client: 5, server: try #require(server.cookie(moa, client: 5).server))
        #expect(server.update(record, from: translated, proofs: [proof])?.code == .ok)
    }

    @Test("Which relays may be listed is the configuration's to say", arguments: ["any", "none", "203.0.113.0/24", "203.0.112.0/24"])
    func relays(policy: String) throws {
        let server = try TestServer()
        var configuration = server.core.configuration
        configuration.relays = policy == "any" ? .any : policy == "none" ? RelayPolicy.none : .within([prefix(policy)])
        server.core.reconfigure(configuration)
        let node = try server.makeNode(hoa)
        let record = try node.record(endpoints: [translated], relays: [relay], sequence: server.now.wallMilliseconds)
        let isAllowed = policy == "any" || policy == "203.0.113.0/24"
        #expect(server.update(record, from: translated)?.code == (isAllowed ? .ok : .refused))
    }

    @Test("A non-global address in a record with endpoints is refused", arguments: ["10.0.0.7", "100.64.1.7", "fd00::7", "64:ff9b::a00:7"])
    func scope(text: String) throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let source = Endpoint(address(text), port: 40_001)
        let record = try node.record(endpoints: [source], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: source)?.code == .refused && server.logs.contains { $0.contains("is not a global address") })
        let relayed = try node.record(endpoints: [translated], relays: [source], sequence: server.now.wallMilliseconds)
        #expect(server.update(relayed, from: translated)?.code == .refused)
    }

    @Test("Only MoAs tell whose an address is: an endpoint takes no MoA from its holder, and is found by no HA Query")
    func reverse() throws {
        let server = try TestServer()
        let holder = try server.makeNode("192.0.2.2", seed: 2)
        let moa = node("198.51.100.7")
        #expect(server.update(try holder.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: moa)?.code == .ok)
        let other = try server.makeNode(hoa)
        let neighbour = Endpoint(moa.address, port: 40_001)
        let record = try other.record(endpoints: [neighbour], relays: [relay], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: neighbour)?.code == .ok)
        #expect(server.whose("198.51.100.7", from: moa)?.mapping?.record.hoa == holder.hoa)
        #expect(server.whose("203.0.113.53", from: moa)?.code == .notFound)
        #expect(!server.bindingChanges.contains { $0.reason == .displaced })
        // And when it goes, the holder stays.
        #expect(server.update(try other.record([], sequence: server.now.wallMilliseconds + 1), from: neighbour)?.code == .ok)
        #expect(server.whose("198.51.100.7", from: moa)?.mapping?.record.hoa == holder.hoa)
    }

    @Test("Another port of the same address is a move, and the log says to which endpoint")
    func moved() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        #expect(server.update(try node.record(endpoints: [translated], sequence: server.now.wallMilliseconds), from: translated)?.code == .ok)
        let next = Endpoint(translated.address, port: 40_009)
        #expect(server.update(try node.record(endpoints: [next], sequence: server.now.wallMilliseconds + 1), from: next)?.code == .ok)
        #expect(server.bindingChanges.map(\.reason) == [.registered, .moved])
        #expect(server.bindingChanges.last?.after.map(\.description) == ["198.51.100.200:40009"])
    }

    @Test("The reachability test goes to MoAs, and not to endpoints and relays")
    func reachability() throws {
        let server = try TestServer()
        var configuration = server.core.configuration
        configuration.testsReachability = true
        server.core.reconfigure(configuration)
        let node = try server.makeNode(hoa)
        let moa = IMSTests.node("198.51.100.7")
        let source = Endpoint(moa.address, port: 40_001)
        let record = try node.record(["198.51.100.7"], endpoints: [source], relays: [relay], sequence: server.now.wallMilliseconds)
        let proof = LocatorProof(locator: MobileAddress(moa.address), client: 5, server: try #require(server.cookie(moa, client: 5).server))
        #expect(server.update(record, from: source, proofs: [proof])?.code == .ok)
        server.advance(.seconds(3))
        #expect(server.tested.map(\.to) == [moa, moa, moa])
    }
}
