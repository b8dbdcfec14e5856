import IMS
import MATControl
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

@Suite("What mat prints of operations")
struct OperationsRenderingTests {
    private static let status: JSONValue = [
        "version": "0.1.0", "uptimeMilliseconds": 60_000, "port": 6288, "canEnrol": true,
        "prefixes": [
            ["prefix": "192.0.2.0/25", "mobilePrefixes": [], "mappings": 2, "mappingsMax": 2],
            ["prefix": "192.0.2.128/25", "mobilePrefixes": ["198.51.100.0/24"], "mappings": 1, "mappingsMax": nil],
        ],
        "keys": [
            ["id": "e4bd66120dc0c864", "publicKey": "NEW=", "use": "signing", "certificates": 900],
            ["id": "0011223344556677", "publicKey": "OLD=", "use": "previous", "certificates": 12],
        ],
        "certificates": ["endingSoon": 3, "ended": 1, "revoked": 2],
        "store": ["path": "/var/lib/imsd/ims.db", "lastFailure": nil],
        "mappings": 3, "mappingsExpired": 1,
    ]

    @Test("A server's status shows full quotas, what each key is for, and certificates that nobody renews with what to do")
    func serverStatus() throws {
        let text = IMSText.status(try RenderingTests.report(Self.status, as: IMSStatusReport.self))
        for line in [
            "  192.0.2.0/25  2 mappings of 2  full: more are refused", "  192.0.2.128/25  1 mapping  at 198.51.100.0/24",
            "  e4bd66120dc0c864  NEW=        signing            900", "  0011223344556677  OLD=        previous            12",
            "  3 certificates end within 30 days, renewed by nobody, 1 of them have ended", "  2 home addresses revoked",
        ] { #expect(text.split(separator: "\n").contains { $0 == line }, "\(line) is not in\n\(text)") }
        #expect(text.contains("remedy: find out why these nodes do not register"))
    }

    @Test("On a narrow terminal what requests were answered with goes behind the numbers, which stay in their columns")
    func narrowMessages() throws {
        let report: JSONValue = [
            "counters": [
                "received": ["MA Query": 42, "MA Notify Ack": 13],
                "answered": ["MA Answer": ["cookie required": 29, "not found": 2, "ok": 11, "authoritative elsewhere": 1]],
                "sent": ["MA Query": 30, "MA Notify": 13],
            ]
        ]
        let text = IMSText.status(try RenderingTests.report(report, as: IMSStatusReport.self), TextStyle(isColored: false, columns: 80))
        let lines = text.split(separator: "\n").map(String.init)
        #expect(lines.allSatisfy { $0.count <= 80 })
        let head = try #require(lines.first { $0.hasPrefix("  REQUEST") })
        let query = try #require(lines.first { $0.hasPrefix("  MA Query") })
        let notify = try #require(lines.first { $0.hasPrefix("  MA Notify") })
        func end(_ word: String, _ line: String) throws -> Int {
            line.distance(from: line.startIndex, to: try #require(line.firstRange(of: word)).upperBound)
        }
        #expect(try end("SENT", head) == end(" 30", query) && end(" 13", notify) == end("SENT", head), "\(text)")
        #expect(try end("ITS ANSWERS", head) == notify.count, "\(text)")
    }

    @Test("A node's status tells of a certificate that ends soon, and what to do; and nothing of one that does not")
    func nodeStatus() throws {
        func text(_ endsSoon: Bool, isAnswered: Bool = true) throws -> String {
            StatusText.text(
                try RenderingTests.report([
                    "registered": true,
                    "homes": [
                        [
                            "address": "192.0.2.10", "state": "registered", "certificateNotAfterMilliseconds": 1_795_240_150_000,
                            "certificateEndsSoon": .bool(endsSoon), "ageMilliseconds": isAnswered ? 1000 : .null,
                        ]
                    ],
                ]))
        }
        #expect(try text(true).contains("valid until 2026-11-21 05:49:10 UTC, and its server has not renewed it"))
        #expect(try text(true).contains("`mat enrol 192.0.2.10` again") && !text(false).contains("renewed"))
        let unanswered = try text(true, isAnswered: false)
        #expect(unanswered.contains("no server has answered yet, which may renew it") && !unanswered.contains("not renewed"))
    }

    @Test("What an import skipped is said, thing by thing, and summed up")
    func transfer() {
        var outcome = TransferOutcome()
        outcome.taken = 2
        outcome.older = 1
        outcome.skip("the mapping of 192.0.2.1/32", "no prefix served here covers it")
        #expect(
            IMSText.transfer(outcome, isTrial: false) == """
                skipped the mapping of 192.0.2.1/32: no prefix served here covers it
                taken 2, held already 0, older than what is held 1, skipped 1

                """)
        #expect(IMSText.transfer(TransferOutcome(), isTrial: true) == "nothing would be skipped\n")
        #expect(TransferOutcome(outcome.report) == outcome)
    }

    @Test("A revoked mapping is shown as such, without the key that was thrown away")
    func revoked() throws {
        let mapping: JSONValue = [
            "hoa": "192.0.2.10", "locators": [], "isRevoked": true, "isWithdrawn": true, "isExpired": false, "isRegisteredHere": true,
            "certificate": ["notAfterMilliseconds": 1_795_240_150_000, "nodeKey": "THROWAWAY="],
        ]
        let text = IMSText.mapping(
            try RenderingTests.report(mapping, as: MappingReport.self), now: Now(monotonic: .zero, wallMilliseconds: 1_795_240_150_000))
        #expect(text.contains("state     revoked") || text.contains("state  revoked"), "\(text)")
        #expect(!text.contains("THROWAWAY") && !text.contains("certificate"))
        let nothing = IMSText.revocation(RevocationReport())
        #expect(nothing == "nothing to revoke\n")
    }
}
