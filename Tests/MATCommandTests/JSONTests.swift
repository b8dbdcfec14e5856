import Foundation
import MATControl
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATCommand

/// What `--json` prints, letter by letter, as docs/json/examples shows it, and whether that is what the schemas in docs/json say. Reports come
/// from Tests/MATControlTests/Golden: a stand-in for each daemon answers with them, and the real `mat` asks.
///
/// `MAT_WRITE_EXAMPLES=1` writes the examples instead; `git diff docs/json` then shows what has changed for whoever reads them.
@Suite("JSON for programs", .serialized)
struct JSONTests {
    private static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()

    private static func example(_ name: String) -> URL { root.appending(path: "docs/json/examples/\(name).json") }

    /// A daemon's answer, on a line.
    private static func answer(_ name: String) -> ControlResponse {
        let text = (try? String(contentsOf: root.appending(path: "Tests/MATControlTests/Golden/\(name).json"), encoding: .utf8)) ?? ""
        return text.isEmpty ? .failed("there is no \(name).json") : .written(Array(text.replacing("\n", with: " ").utf8))
    }

    private func expect(_ text: String, _ name: String) throws {
        let file = Self.example(name)
        if ProcessInfo.processInfo.environment["MAT_WRITE_EXAMPLES"] != nil { try text.write(to: file, atomically: true, encoding: .utf8) }
        let expected = try String(contentsOf: file, encoding: .utf8)
        #expect(text == expected, "\(name): MAT_WRITE_EXAMPLES=1 writes it anew")
    }

    private func expect(_ report: some PrintedReport, _ name: String) throws {
        try expect(try ControlJSON.encodeIndented(Labelled(report)) + "\n", name)
    }

    /// What `mat` prints, asked while a stand-in serves at the socket.
    private func outputs(_ commands: [[String]], _ answer: @escaping (ControlRequest) -> ControlResponse) throws -> [Program.Outcome] {
        let socket = "/tmp/mat-json-\(getpid())-\(UInt32.random(in: 0 ... .max)).sock"
        let loop = try EventLoop()
        let server = try ControlServer(loop: loop, path: socket) { request, respond in respond(answer(request)) }
        defer { server.stop() }
        let outcomes = Outcomes()
        let poster = loop.poster
        outcomes.stop = { loop.stop() }
        let thread = Thread {
            for command in commands { outcomes.add(Result { try Program.run(command + ["--json", "--control", socket]) }) }
            poster.post { outcomes.stop?() }
        }
        thread.start()
        try loop.run()
        return try outcomes.results.map { try $0.get() }
    }

    @Test("What mat says of a node", .enabled(if: Program.path != nil, "mat is not beside the test bundle"))
    func node() throws {
        let examples = [
            ("status", ["status"], "node-status"), ("peers", ["peers"], "peers"), ("why", ["why", "198.51.100.20"], "why"),
            ("history", ["history"], "history"), ("ps", ["ps"], "programs"), ("attach", ["attach", "4711"], "steer"),
            ("status", ["handover", "--auto"], "node-status"),
        ]
        let names = [
            "status": "node-status", "peers": "peers", "why": "why", "history": "history", "programs": "programs", "steer": "steer",
            "handover": "node-status",
        ]
        let outputs = try outputs(examples.map(\.1)) { Self.answer(names[$0.command] ?? $0.command) }
        for (output, (name, _, _)) in zip(outputs, examples) {
            #expect(output.status == 0 && output.error.isEmpty, "\(name): \(output.error)")
            try expect(output.output, name)
        }
        let watched = try self.outputs([["history", "-n", "1"]]) { _ in Self.answer("history") }
        #expect(try JSONValue.parse(Array(watched[0].output.utf8))["handovers"]?.array?.count == 1)
    }

    @Test("What mat says of a mapping server", .enabled(if: Program.path != nil, "mat is not beside the test bundle"))
    func server() throws {
        let issuer = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        let key = try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32))).publicKey
        let home = try #require(HomeAddress("192.0.2.10"))
        let certificate = try #require(
            Certificate(issuing: home, nodeKey: key, notBefore: 1_780_000_000_000, notAfter: 1_810_000_000_000, with: issuer))
        let enrolment = EnrolmentReport(
            certificate: Base64.write(certificate.octets), hoa: "192.0.2.10", prefixLength: 32, notBeforeMilliseconds: certificate.notBefore,
            notAfterMilliseconds: certificate.notAfter, keyID: "e4bd66120dc0c864")
        let examples = [
            ("ims-status", ["ims", "status"]), ("ims-list", ["ims", "list"]), ("ims-show", ["ims", "show", "192.0.2.10"]),
            ("ims-show-unseen", ["ims", "show", "192.0.2.11"]), ("ims-revoke", ["ims", "revoke", "192.0.2.10"]),
            ("ims-enrolled", ["ims", "enrolled"]), ("ims-token-create", ["ims", "token", "create", "--hoa", "192.0.2.9"]),
            ("ims-token-list", ["ims", "token", "list"]), ("ims-token-list", ["ims", "token", "revoke", "746f6b656e2d6964"]),
            ("ims-metrics", ["ims", "metrics"]), ("enrol", ["enrol", "192.0.2.10", "--public-key", KeyFile.write(key)]),
        ]
        let names = [
            "status": "ims-status", "list": "mapping-list", "revoke": "revocation", "enrolled": "enrolled", "tokenCreate": "token",
            "tokenList": "tokens", "tokenRevoke": "tokens", "metrics": "metrics",
        ]
        let outputs = try outputs(examples.map(\.1)) { request in
            switch request.command {
            case "enrol": .result(enrolment)
            case "show": Self.answer((try? request.arguments(as: ShowRequest.self))?.hoa == "192.0.2.11" ? "mapping-unseen" : "mapping")
            default: Self.answer(names[request.command] ?? request.command)
            }
        }
        for (output, (name, _)) in zip(outputs, examples) {
            #expect(output.status == 0 && output.error.isEmpty, "\(name): \(output.error)")
            try expect(output.output, name)
        }
    }

    @Test("What mat finds out by itself, and what the pages of imsd and mat-relay show")
    func others() throws {
        let lookups = try LookupTests()
        let there = try lookups.findings(try lookups.certifiedEverywhere())
        try expect(LookupJSON(value: LookupReport.json(there)), "lookup")
        var silent = try lookups.findings(codes: [.cookieRequired])
        let server = Endpoint(try #require(IPAddress("203.0.113.132")), port: 6288)
        silent.queries[0].outcome = .answered(.tryLater, rtt: .microseconds(420), text: "busy")
        silent.queries.append(.init(server: server, sequence: 100, tries: 1, outcome: .unsendable("Network is unreachable")))
        silent.queries.append(.init(server: server, sequence: 101, tries: 3, outcome: .silent))
        silent.alias = DomainName("10.0/26.2.0.192.in-addr.arpa")
        try expect(LookupJSON(value: LookupReport.json(silent)), "lookup-silent")
        var failed = LookupFindings(hoa: lookups.hoa, resolvers: [], now: lookups.now)
        failed.dns = .failed("the DNS server failed (SERVFAIL)")
        failed.resolversDoubt = "/etc/matd/matd.yaml may name others to ask (`dns`), and was not read: Permission denied"
        try expect(LookupJSON(value: LookupReport.json(failed)), "lookup-failed")

        var trace = try TraceTests.good()
        try expect(trace.report, "trace")
        trace.echo = .silent(sent: 4)
        trace.hops = [.init(number: 1, address: "198.51.100.1", tookMilliseconds: 0.3), .init(number: 2, address: nil, tookMilliseconds: nil)]
        try expect(trace.report, "trace-stops")
        try expect(
            DoctorReport(findings: [
                DoctorFinding(.problem, "DNS", "no answer", remedy: "ask another"), DoctorFinding(.warning, "clock", "no NTP client holds the clock"),
                DoctorFinding(.note, "NAT", "translated"), DoctorFinding(.ok, "kernel", "/dev/net/tun can be opened"),
            ]), "doctor")
        let traffic = try JSONDecoder().decode(
            TrafficReports.self, from: Data(contentsOf: Self.root.appending(path: "Tests/MATControlTests/Golden/traffic.json")))
        var socket = HostSocket(
            transport: .tcp, state: "ESTAB", local: Endpoint(lookups.hoa.address, port: 22), remote: server, inode: 7)
        let connected = ExplainReport.Socket(socket)
        (socket.state, socket.remote) = ("LISTEN", nil)
        try expect(
            ExplainReport(
                process: ExplainReport.Process(id: 4711, name: "sshd"), homes: traffic.homes,
                conversations: [ExplainReport.Conversation(socket: connected, traffic: traffic.traffic[1])],
                waiting: [ExplainReport.Waiting(socket: ExplainReport.Socket(socket), reach: .homes)], note: "what else there is to know"), "explain")
        try expect(
            ImportReport(
                taken: 2, same: 1, older: 0, skippedCount: 1,
                skipped: [ImportReport.Skipped(what: "the mapping of 192.0.2.1/32", reason: "no prefix served here covers it")],
                exportedAtMilliseconds: 1_790_000_000_000), "ims-import")
        var view = ViewReport(
            program: "imsd", version: "0.2.0", title: "192.0.2.0/24", nowMilliseconds: 1_790_000_000_000, uptimeMilliseconds: 60_000)
        view.problems = ["the clock is kept right by nobody (NTP)"]
        view.figures = [.init("Memory", 4096, .level, .octets), .init("Answers", 12, .count)]
        view.nodes = [.init(home: "192.0.2.10", places: ["203.0.113.10"], state: .registered, heardAtMilliseconds: 1_790_000_000_000)]
        view.nodesCount = 1
        view.changes = [
            .init(atMilliseconds: 1_790_000_000_000, home: "192.0.2.10", what: "moved", before: ["203.0.113.74"], after: ["203.0.113.10"])
        ]
        view.conversations = [.init(from: "198.51.100.20", to: "192.0.2.10")]
        view.networks = [.init(name: "203.0.113.0/24", nodesCount: 1, awayCount: 0)]
        view.traffic = [.init(between: "198.51.100.0/24", and: "203.0.113.0/24", conversationsCount: 1)]
        (view.surveyedCount, view.networksCount, view.conversationsCount) = (1, 1, 1)
        try expect(try ControlJSON.encodeIndented(view) + "\n", "view")
    }

    @Test("Every example is what its schema says, together they show every key, and every number that is a time is in milliseconds")
    func schemas() throws {
        let outcome = try Schemas.check([])
        #expect(outcome.status == 0, "\(outcome.output)\(outcome.error)")
    }
}

/// deploy/json-check, which has a validator of JSON schemas.
enum Schemas {
    private static let program = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        .appending(path: "deploy/json-check").path

    static func check(_ files: [String]) throws -> Program.Outcome { try Program.run(files, program: program) }

    /// What a command printed.
    static func check(output: String) throws -> String {
        let file = "/tmp/mat-json-\(getpid())-\(UInt32.random(in: 0 ... .max)).json"
        try output.write(toFile: file, atomically: false, encoding: .utf8)
        defer { unlink(file) }
        let outcome = try check([file])
        return outcome.status == 0 ? "" : outcome.output + outcome.error
    }
}
