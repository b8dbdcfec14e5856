import MATRuntime
import MATSignal
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

@Suite("Lines of an export")
struct TransferLineTests {
    private static func line() throws -> JSONValue {
        let node = try TestNode("192.0.2.1", seed: 1, issuer: try key(50), notBefore: TestServer.start)
        let mapping = StoredMapping(
            certified: try node.record(["198.51.100.7"], sequence: TestServer.start), source: IMSTests.node("198.51.100.7"),
            local: TestServer.local, provenAt: TestServer.start)
        return TransferLine.mapping(mapping).json
    }

    @Test("A line comes back as it was written")
    func roundTrip() throws {
        let line = try Self.line()
        #expect(try TransferLine(parsing: line.write()).json == line)
    }

    @Test("Leases and tokens come back as they were, and what is damaged in one is said")
    func joining() throws {
        var lease = Lease(prefix("192.0.2.9"), key: try key(1).publicKey, .token(TokenID(rawValue: 7)), givenAt: TestServer.start)
        lease.version = 3
        let secret = try #require(TokenSecret([UInt8](repeating: 5, count: 32)))
        var token = HeldToken(id: TokenID(rawValue: 7), secret: secret, gives: [prefix("192.0.2.0/24")], createdAt: TestServer.start)
        (token.usesMax, token.version) = (3, 2)
        for line in [TransferLine.lease(lease), .token(token)] {
            #expect(try TransferLine(parsing: line.json.write()) == line)
        }
        let damaged: JSONValue = ["lease": ["hoa": "192.0.2.9", "version": 1, "value": "AQ=="]]
        #expect(throws: TransferError("the lease of 192.0.2.9/32: its \"value\" can't be read")) { try TransferLine(json: damaged) }
    }

    @Test("Imported leases and tokens are taken if they are newer than what is held, and then go on from there")
    func importing() throws {
        let server = try TestServer()
        var lease = Lease(prefix("192.0.2.9"), key: try key(1).publicKey, .hand, givenAt: TestServer.start)
        func take(_ row: StoredRow) -> String {
            let step = server.core.importing(row, server.now)
            server.perform(server.core.takeActions(server.now))
            return switch step {
            case .written: "written"
            case .same: "same"
            case .older: "older"
            case .refused(let reason): reason
            }
        }
        lease.version = 5
        #expect(take(lease.row) == "written" && server.core.leasesPage(after: nil, count: 9).map(\.version) == [1])
        #expect(take(lease.row) == "same")
        lease.key = try key(2).publicKey
        lease.version = 1
        #expect(take(lease.row) == "older")
        lease.version = 6
        #expect(take(lease.row) == "written" && server.core.leasesPage(after: nil, count: 9).map(\.key) == [lease.key])
    }

    @Test(
        "A line that can't be read says which member is at fault, why, and whose it is",
        arguments: [
            ("record", nil, "\"record\" is missing, or no string"), ("record", "?", "\"record\" is no base64"),
            ("record", "AAAA", "\"record\" can't be read: MAPPING"),
            ("signature", "AAAA", "the mapping of 192.0.2.1/32: \"signature\" has 3 octets, and not 64"),
            ("certificate", "AAAA", "the mapping of 192.0.2.1/32: \"certificate\" can't be read: CERTIFICATE"),
            ("source", "nowhere", "the mapping of 192.0.2.1/32: \"source\" is nowhere, which is no address"),
            ("sourcePort", 70_000, "the mapping of 192.0.2.1/32: \"sourcePort\" is missing, or no whole number from 0 to 65535"),
            ("provenAt", -1, "the mapping of 192.0.2.1/32: \"provenAt\" is missing"),
        ] as [(String, JSONValue?, String)])
    func reasons(member: String, value: JSONValue?, reason: String) throws {
        var members = try #require(try Self.line()["mapping"]?.object)
        members[member] = value
        let line = JSONValue.object(["mapping": .object(members)])
        #expect { try TransferLine(json: line) } throws: { "\($0)".hasPrefix(reason) }
    }

    @Test("A line that is no JSON says where it stops being so")
    func noJSON() {
        #expect(throws: TransferError("it is not valid JSON: it ends after octet 12, where a value must follow")) {
            try TransferLine(parsing: Array(#"{"mapping": "#.utf8))
        }
    }
}
