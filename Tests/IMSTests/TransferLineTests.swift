import MATRuntime
import MappingMemory
import Testing

@testable import IMS

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
