import Foundation
import MATControl
import MATRuntime
import Testing

/// What daemons say and `--json` prints, letter by letter: programs read it. A change here is a change of an interface, for the CHANGELOG.
@Suite("Reports in JSON")
struct GoldenTests {
    private func golden(_ name: String) throws -> String {
        let file = try #require(Bundle.module.url(forResource: name, withExtension: "json", subdirectory: "Golden"))
        return try String(contentsOf: file, encoding: .utf8)
    }

    private func check<Report: Codable & Equatable>(_ report: Report, _ name: String) throws {
        let text = try ControlJSON.encodeIndented(report)
        #expect(text + "\n" == (try golden(name)), "\(name)")
        #expect(try ControlJSON.decode(Report.self, from: text.utf8) == report, "\(name) does not come back")
    }

    @Test("Each report is written as it always was, and comes back")
    func reports() throws {
        try check(Examples.node, "node-status")
        try check(Examples.history, "history")
        try check(Examples.steer, "steer")
        try check(Examples.token, "token")
        try check(Examples.tokens, "tokens")
        try check(Examples.enrolled, "enrolled")
        try check(PeersReport(peers: [Examples.peer], peersCount: 1, peersTroubled: 1, undecided: Examples.node.undecided), "peers")
        try check(Examples.why, "why")
        try check(Examples.traffic, "traffic")
        try check(Examples.programs, "programs")
        try check(Examples.ims, "ims-status")
        try check(Examples.mapping, "mapping")
        try check(Examples.unseen, "mapping-unseen")
        try check(MappingListReport(total: 3, unseen: 1, mappings: [Examples.mapping, Examples.unseen], next: "192.0.2.11/32"), "mapping-list")
        try check(RevocationReport(revoked: ["192.0.2.10"], already: [], next: nil), "revocation")
        try check(
            EnrolmentReport(
                certificate: "CERT=", hoa: "192.0.2.10", prefixLength: 32, notBeforeMilliseconds: 1_780_000_000_000,
                notAfterMilliseconds: 1_810_000_000_000, keyID: "e4bd66120dc0c864"), "enrolment")
        try check(
            ImportReport(
                taken: 2, same: 1, older: 0, skippedCount: 1,
                skipped: [ImportReport.Skipped(what: "the mapping of 192.0.2.1/32", reason: "no prefix served here covers it")],
                exportedAtMilliseconds: 1_790_000_000_000), "import")
        try check(
            MetricsReport(
                text: "imsd_answers_total 5\n",
                families: [
                    MetricsReport.Family(
                        name: "imsd_answers_total", help: "Answers sent.", type: "counter",
                        samples: [
                            MetricsReport.Sample(name: "imsd_answers_total", labels: ["code": "ok"], value: 5),
                            MetricsReport.Sample(name: "imsd_answers_total", labels: [:], value: 0.25),
                            MetricsReport.Sample(name: "imsd_answers_total", labels: [:], value: .infinity),
                        ])
                ]), "metrics")
    }

    @Test("Requests leave out what is not given")
    func requests() throws {
        #expect(String(decoding: try ControlJSON.encode(HandoverRequest(interface: "wlan0", peer: nil)), as: UTF8.self) == #"{"interface":"wlan0"}"#)
        #expect(String(decoding: try ControlJSON.encode(NoArguments()), as: UTF8.self) == "{}")
        #expect(String(decoding: try ControlJSON.encode(SteerRequest(via: .plain)), as: UTF8.self) == #"{"via":"plain"}"#)
        let steered = SteerRequest(via: .home, homes: ["192.0.2.10"], process: 4711, network: 4_026_531_840)
        #expect(
            String(decoding: try ControlJSON.encode(steered), as: UTF8.self)
                == #"{"homes":["192.0.2.10"],"network":4026531840,"process":4711,"via":"home"}"#)
        let enrolment = EnrolRequest(hoa: "192.0.2.1", prefixLength: 32, publicKey: "K=", lifetimeSeconds: 60, force: nil)
        #expect(
            String(decoding: try ControlJSON.encode(enrolment), as: UTF8.self)
                == #"{"hoa":"192.0.2.1","lifetime":60,"prefixLength":32,"publicKey":"K="}"#)
        var revocation = RevokeRequest<String>()
        revocation.beforeMilliseconds = 1_790_000_000_000
        #expect(String(decoding: try ControlJSON.encode(revocation), as: UTF8.self) == #"{"before":1790000000000}"#)
        let part = ExportRequest(ExportPlace(part: "mappings", from: 7), secrets: true)
        #expect(String(decoding: try ControlJSON.encode(part), as: UTF8.self) == #"{"from":7,"part":"mappings","secrets":true}"#)
        let export = ExportReport(lines: ["x"], next: ExportPlace(part: "certificates", after: "192.0.2.1/32"))
        #expect(
            String(decoding: try ControlJSON.encode(export), as: UTF8.self)
                == #"{"lines":["x"],"next":{"after":"192.0.2.1/32","part":"certificates"}}"#)
    }

    @Test("What another version leaves out is read as missing, what it adds is passed over, and a value of another kind is named")
    func versions() throws {
        let report = try ControlJSON.decode(NodeReport.self, from: #"{"registered":true,"homes":[{"address":"192.0.2.1"}],"new":{"x":1}}"#.utf8)
        #expect(report.registered && report.homes.first?.address == "192.0.2.1" && report.homes.first?.problem == nil && report.dns == nil)
        let error = #expect(throws: ControlError.self) { try ControlJSON.decode(NodeReport.self, from: #"{"homes":[{"sequence":"x"}]}"#.utf8) }
        #expect(error?.description.contains("homes[0].sequence") == true, "\(error?.description ?? "")")
    }

    @Test("Each problem has a remedy of its own that names the home address where it matters")
    func remedies() {
        let codes: [Problem.Code] = [
            .noIMSRecord, .nameLookUp, .noAnswer, .clockWrong, .recordFromWrongClock, .otherKey, .clocksDisagree, .certificateSuperseded,
            .certificateRevoked,
            .authenticationFailed, .notAuthoritative, .tryLater, .refused, .serverLacksFamily, .noMobileAddressLeft, .notGlobal, .notSigned,
            .unsupported, .other,
        ]
        let remedies = codes.map { Problem($0, of: "192.0.2.10", "").remedy }
        #expect(Set(remedies).count == codes.count)
        #expect(!remedies.contains { $0.contains("HOA") })
        for (code, remedy) in [
            (.clockWrong, "registers by itself"), (.clocksDisagree, "set the wrong one"), (.recordFromWrongClock, "`mat ims revoke 192.0.2.10`"),
            (.certificateSuperseded, "`mat enrol 192.0.2.10 --force`"), (.otherKey, "`mat ims show 192.0.2.10`"),
            (.authenticationFailed, "enrol this node's key again"), (.noAnswer, "`mat lookup 192.0.2.10` tries another port"),
        ] as [(Problem.Code, String)] {
            #expect(Problem(code, of: "192.0.2.10", "").remedy.contains(remedy))
        }
    }
}
