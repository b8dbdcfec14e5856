import Foundation
import IMS
import MATRuntime
import MATSignal
import MappingMemory
import Testing

@testable import MATCommand

/// `mat ims` against a real imsd, as operators use it.
@Suite(
    "mat ims as a program", .serialized,
    .enabled(
        if: Program.path != nil && Program.imsd != nil,
        "mat and imsd are not beside the test bundle; build them with swift build --product mat, --product imsd"))
final class IMSProgramTests {
    private let directory: String
    private let port = UInt16.random(in: 20_000...32_000)
    private let issuer: SigningKey
    private let now = SystemClock.now()
    private var daemon: Process?

    init() throws {
        directory = "/tmp/mat-ims-\(getpid())-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        issuer = try #require(SigningKey(seed: [UInt8](repeating: 200, count: 32)))
        try TextFile.replace(directory + "/ims.key", with: KeyFile.write(issuer), mode: 0o600)
        try configure("imsd.yaml", store: "ims.db")
        try configure("other.yaml", store: "other.db")
    }

    deinit {
        daemon?.terminate()
        daemon?.waitUntilExit()
        try? FileManager.default.removeItem(atPath: directory)
    }

    private func configure(_ name: String, store: String) throws {
        let text = """
            control: \(directory)/control.sock
            store: \(directory)/\(store)
            signing-key: \(directory)/ims.key
            listen: {port: \(port), addresses: ["127.0.0.1"]}
            prefixes:
              - prefix: 192.0.2.0/24
              - prefix: 2001:db8:10::/64
            dns: {resolvers: ["127.0.0.1:1"]}
            """
        try TextFile.replace(directory + "/" + name, with: text, mode: 0o600)
    }

    private func start(_ configuration: String) throws {
        let process = Process()
        process.executableURL = URL(filePath: try #require(Program.imsd))
        process.arguments = ["--config", directory + "/" + configuration]
        process.standardError = FileHandle(forWritingAtPath: "/dev/null")
        try process.run()
        daemon = process
        for _ in 0..<400 {
            let status = try? ControlClient.request(JSONValue.self, path: directory + "/control.sock", command: "status", daemon: "imsd")
            if status?["store"]?["isLoading"]?.bool == false { return }
            usleep(25_000)
        }
        Issue.record("imsd did not start")
    }

    private func stop() {
        daemon?.terminate()
        daemon?.waitUntilExit()
        #expect(daemon?.terminationStatus == 0)
        daemon = nil
    }

    private func mat(_ arguments: String...) throws -> Program.Outcome {
        try Program.run(["ims"] + arguments + ["--control", directory + "/control.sock"])
    }

    /// An export as another server might have written it.
    private func writeExport(_ lines: [TransferLine], to name: String, spoilt: Bool = false) throws -> String {
        var sum = TransferSum()
        var octets: [UInt8] = []
        let all = [.header(TransferHeader(exportedAt: now.wallMilliseconds, program: "test", prefixes: []))] + lines
        for line in all {
            let text = line.json.write()
            sum.add(line, text)
            octets += text + [10]
        }
        if spoilt { octets[octets.count - 10] ^= 1 }
        octets += TransferLine.trailer(sum.result).json.write() + [10]
        try Data(octets).write(to: URL(filePath: directory + "/" + name))
        return directory + "/" + name
    }

    private func mapping(_ hoa: String, sequence: UInt64, issuer: SigningKey? = nil, signer: UInt8 = 1) throws -> TransferLine {
        let address = try #require(IPAddress(hoa))
        let key = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        let other = try #require(SigningKey(seed: [UInt8](repeating: signer, count: 32)))
        let certificate = try #require(
            Certificate(
                issuing: HomeAddress(address), nodeKey: key.publicKey, notBefore: now.wallMilliseconds - 10_000,
                notAfter: now.wallMilliseconds + 86_400_000, with: issuer ?? self.issuer))
        let record = MappingRecord(
            hoa: HomeAddress(address), sequence: sequence, lifetime: 600, issued: now.wallMilliseconds,
            locators: [Locator(MobileAddress(try #require(IPAddress("198.51.100.7"))))])
        let signed = try #require(record.signed(with: other))
        return .mapping(
            StoredMapping(
                certified: CertifiedMapping(mapping: signed, certificate: certificate),
                source: Endpoint(try #require(IPAddress("198.51.100.7")), port: 6289), local: try #require(IPAddress("203.0.113.1")),
                provenAt: now.wallMilliseconds))
    }

    @Test("Import, list by pages, export, revoke, and the same through a store without imsd")
    func wholeLife() throws {
        try start("imsd.yaml")
        var lines: [TransferLine] = []
        for number in 1...230 { lines.append(try mapping("2001:db8:10::\(String(number, radix: 16))", sequence: now.wallMilliseconds)) }
        let file = try writeExport(lines, to: "in.jsonl")
        let trial = try mat("import", file, "--check")
        #expect(trial.status == 0 && trial.output == "nothing would be skipped\n", "\(trial)")
        #expect(try mat("list").output == "no mappings\n")
        let first = try mat("import", file)
        #expect(first.status == 0 && first.output.contains("taken 230, held already 0"), "\(first)")
        #expect(try mat("import", file).output.contains("taken 0, held already 230"))

        // Pages by cursor, and all of them at once.
        let page = try mat("list", "--count", "100")
        #expect(page.output.contains("230 are held in all; more with --after 2001:db8:10::64\n"), "\(page.output.suffix(200))")
        let next = try mat("list", "--count", "100", "--after", "2001:db8:10::64", "--json")
        let answer = try JSONValue.parse(Array(next.output.utf8))
        #expect(answer["mappings"]?.array?.first?["hoa"]?.string == "2001:db8:10::65" && answer["next"]?.string == "2001:db8:10::c8/128")
        let all = try mat("list", "--all", "--json").output.split(separator: "\n")
        #expect(all.count == 230 && Set(all).count == 230)
        #expect(try all.allSatisfy { try JSONValue.parse($0.utf8)["isRegisteredHere"]?.bool == true })
        #expect(try mat("list", "--all").output.split(separator: "\n").count == 231)
        #expect(try mat("list", "--all", "--json", "--prefix", "2001:db8:10::/124").output.split(separator: "\n").count == 15)
        #expect(try mat("list", "--expired").output == "no mappings\n")

        // One is revoked, one is enrolled and has no mapping: both are in the export.
        let revoked = try mat("revoke", "2001:db8:10::7")
        #expect(revoked.status == 0 && revoked.output.contains("2001:db8:10::7 is revoked"), "\(revoked)")
        #expect(try mat("show", "2001:db8:10::7").output.contains("revoked"))
        let unknown = try mat("revoke", "192.0.2.99")
        #expect(unknown.status == 1 && unknown.error.contains("--unknown"))
        let key = KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 3, count: 32))).publicKey)
        #expect(try Program.run(["enrol", "192.0.2.5", "--public-key", key, "--control", directory + "/control.sock"]).status == 0)
        let out = directory + "/out.jsonl"
        let exported = try mat("export", "--out", out, "--secrets")
        #expect(exported.status == 0 && exported.error.contains("230 mappings and 1 further certificate"), "\(exported)")
        #expect(try TextFile.mode(of: out) == 0o600)
        // What there is to write to, if it is no file, stays what it is.
        let straight = try mat("export", "--out", "/dev/stdout", "--secrets")
        let count = try TextFile.read(out, octetsMax: 1 << 24).split(separator: "\n").count
        #expect(straight.status == 0 && straight.output.split(separator: "\n").count == count)
        let status = try mat("status").output
        #expect(status.contains("2001:db8:10::/64  230 mappings") && status.contains("signing"), "\(status)")
        #expect(try mat("metrics").output.contains("\nimsd_mappings 230\n"))
        for arguments in [["metrics"], ["status"], ["list"], ["list", "--all"], ["show", "2001:db8:10::7"], ["enrolled"], ["token", "list"]] {
            let output = try Program.run(["ims"] + arguments + ["--json", "--control", directory + "/control.sock"])
            let faults = try Schemas.check(output: output.output)
            #expect(output.status == 0 && faults.isEmpty, "\(arguments): \(faults)")
        }

        // The store can't be touched behind a running imsd.
        let behind = try mat("import", out, "--config", directory + "/other.yaml")
        #expect(behind.status == 1 && behind.error.contains("imsd is running"))
        stop()

        // Into the store of a server that does not run, and out of it again: the same lines.
        let moved = try mat("import", out, "--config", directory + "/other.yaml")
        #expect(moved.status == 0 && moved.output.contains("skipped 0"), "\(moved)")
        let again = try mat("export", "--config", directory + "/other.yaml", "--out", directory + "/again.jsonl", "--secrets")
        #expect(again.status == 0, "\(again)")
        func contents(_ path: String) throws -> Set<Substring> {
            let text = try TextFile.read(path, octetsMax: 1 << 24)
            return Set(text.split(separator: "\n").filter { !$0.hasPrefix("{\"header\"") && !$0.hasPrefix("{\"trailer\"") })
        }
        #expect(try contents(out) == contents(directory + "/again.jsonl"))

        // The server that starts there refuses what was revoked before the move.
        try start("other.yaml")
        #expect(try mat("show", "2001:db8:10::7").output.contains("revoked"))
        #expect(try mat("revoke", "2001:db8:10::7").output.contains("was revoked before"))

        // A date takes many at once: not unasked, where nobody can be asked.
        let dated = ["revoke", "--issued-before", "2100-01-01", "--within", "2001:db8:10::/124"]
        func revoke(_ options: String...) throws -> Program.Outcome {
            try Program.run(["ims"] + dated + options + ["--control", directory + "/control.sock"])
        }
        let unasked = try revoke()
        let question = "this takes 14 home addresses from their nodes at once, from 2001:db8:10::1 to"
        #expect(unasked.status == 1 && unasked.error.contains(question), "\(unasked)")
        #expect(unasked.error.contains("--yes") && unasked.output.isEmpty)
        let listed = try revoke("--dry-run")
        #expect(listed.status == 0 && listed.output.split(separator: "\n").filter { $0.hasSuffix(" would be revoked") }.count == 14, "\(listed)")
        #expect(try !mat("show", "2001:db8:10::8").output.contains("revoked"))
        #expect(try revoke("--yes").output.split(separator: "\n").count == 14)
        #expect(try mat("show", "2001:db8:10::8").output.contains("revoked"))
        #expect(try revoke("--yes").output == "nothing to revoke\n")
        stop()
    }

    @Test("enrol says whom it would throw out, --force does it, and who is enrolled but not seen yet is listed")
    func enrolment() throws {
        try start("imsd.yaml")
        defer { stop() }
        func enrol(_ home: String, _ seed: UInt8, _ more: String...) throws -> Program.Outcome {
            let key = try #require(SigningKey(seed: [UInt8](repeating: seed, count: 32))).publicKey
            return try Program.run(
                ["enrol", home, "--public-key", KeyFile.write(key), "--control", directory + "/control.sock"] + more)
        }
        #expect(try enrol("192.0.2.7", 1, "--lifetime", "2m").status == 0)
        let refused = try enrol("192.0.2.7", 2)
        #expect(refused.status == 1 && refused.error.contains("is enrolled for another key since") && refused.error.contains("--force"))
        #expect(try enrol("192.0.2.0/28", 2).status == 1)
        #expect(try enrol("192.0.2.0", 2, "--force").error.contains("network address of 192.0.2.0/24"))
        let list = try mat("list")
        #expect(list.output.contains("192.0.2.7") && list.output.contains("enrolled, not seen yet"))
        #expect(try mat("list", "--state", "registered").output == "no mappings\n")
        #expect(try mat("show", "192.0.2.7").output.contains("enrolled, not seen yet"))
        #expect(try enrol("192.0.2.7", 2, "--force").status == 0)
        #expect(
            try mat("list", "--state", "unseen", "--json").output.contains(
                KeyFile.write(try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32))).publicKey)))
        for name in ["ims.db", "ims.db-wal", "ims.db-shm"] { #expect(try TextFile.mode(of: directory + "/" + name) == 0o600, "\(name)") }
    }

    @Test("What is damaged is not touched; what is forged, foreign, older or from the future is skipped, with the reason")
    func checks() throws {
        try start("imsd.yaml")
        let time = now.wallMilliseconds
        let stranger = try #require(SigningKey(seed: [UInt8](repeating: 77, count: 32)))
        let good = try mapping("192.0.2.1", sequence: time)
        let spoilt = try writeExport([good], to: "spoilt.jsonl", spoilt: true)
        let damaged = try mat("import", spoilt)
        #expect(damaged.status == 1 && damaged.output.isEmpty, "\(damaged)")
        let whole = try TextFile.read(try writeExport([good], to: "cut.jsonl"), octetsMax: 1 << 20)
        let cut = whole.split(separator: "\n").dropLast().joined(separator: "\n") + "\n"
        try TextFile.replace(directory + "/cut.jsonl", with: cut, mode: 0o600)
        #expect(try mat("import", directory + "/cut.jsonl").error.contains("was cut off"))
        #expect(try mat("list").output == "no mappings\n")

        #expect(try mat("import", try writeExport([good], to: "good.jsonl")).status == 0)
        let bad = try writeExport(
            [
                try mapping("192.0.2.1", sequence: time - 1), try mapping("192.0.2.2", sequence: time, signer: 9),
                try mapping("192.0.2.3", sequence: time, issuer: stranger), try mapping("10.0.0.1", sequence: time),
                try mapping("192.0.2.4", sequence: time + 400_000), try mapping("192.0.2.5", sequence: time),
            ], to: "bad.jsonl")
        let outcome = try mat("import", bad)
        #expect(outcome.status == 1 && outcome.output.contains("taken 1, held already 0, older than what is held 1, skipped 4"), "\(outcome)")
        for part in [
            "192.0.2.2/32: signature of the mapping", "192.0.2.3/32: its certificate is signed with a key that is not among",
            "10.0.0.1/32: no prefix served here covers it", "192.0.2.4/32: it is dated more than 300 s ahead",
        ] { #expect(outcome.output.contains(part), "\(outcome.output)") }
        let json = try JSONValue.parse(Array(try mat("import", bad, "--json").output.utf8))
        #expect(json["skippedCount"]?.int == 4 && json["same"]?.int == 1)
        #expect(try Schemas.check(output: try mat("import", bad, "--json").output) == "")
        #expect(try mat("import", directory + "/none.jsonl").error.contains("No such file"))
        stop()
    }

    @Test("Dates are read as written, and wrong ones refused")
    func dates() throws {
        #expect(DateText.parse("2026-11-21") == 1_795_219_200_000)
        #expect(DateText.parse("2026-11-21T10:00:00Z") == 1_795_255_200_000)
        for text in ["2026-02-31", "2026-13-01", "21.11.2026", "2026-11-21T25:00:00Z", "", "2026-11-21T10:00"] {
            #expect(DateText.parse(text) == nil, "\(text)")
        }
        #expect(try mat("revoke").status == 64)
        #expect(try mat("revoke", "192.0.2.1", "--certificate", "0").status == 64)
        #expect(try mat("revoke", "--certificate", "00").status == 64)
        #expect(try mat("revoke", "192.0.2.1", "--dry-run").status == 64)
        #expect(try mat("revoke", "--issued-before", "yesterday").status == 64)
    }
}

extension Program {
    /// `imsd` beside the test bundle.
    static let imsd: String? = path.flatMap { path in
        let imsd = URL(filePath: path).deletingLastPathComponent().appending(path: "imsd").path
        return FileManager.default.isExecutableFile(atPath: imsd) ? imsd : nil
    }
}
