import Foundation
import Testing

/// The benchmark as deploy/bench calls it, in its quickest mode: that it works and tidies up, not how fast anything is.
@Suite("The data plane's benchmark", .enabled(if: BenchProgram.obstacle == nil, Comment(rawValue: BenchProgram.obstacle ?? "")), .serialized)
struct DataPlaneBenchTests {
    @Test("It prints a table, writes JSON and Markdown with plain and ours, and leaves no namespace")
    func quick() throws {
        let directory = "/tmp/mat-bench-test-\(getpid())"
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: false)
        defer { try? FileManager.default.removeItem(atPath: directory) }
        let outcome = try BenchProgram.run(
            ["data-plane", "--quick", "--json", directory + "/b.json", "--markdown", directory + "/b.md"])
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(outcome.output.contains("plain v4") && outcome.output.contains("ours v4 1") && outcome.output.contains("moveOutbound"))

        let data = try Data(contentsOf: URL(fileURLWithPath: directory + "/b.json"))
        let object = try #require(try JSONSerialization.jsonObject(with: data) as? [String: Any])
        let rows = try #require(object["rows"] as? [[String: Any]])
        #expect(rows.compactMap { $0["variant"] as? String } == ["plain", "ours"])
        for row in rows {
            let figures = try #require(row["figures"] as? [String: [String: Any]])
            for figure in ["packets", "processor", "roundTrip", "stream"] {
                #expect((figures[figure]?["median"] as? Double ?? 0) > 0, "\(row["variant"] ?? "") \(figure)")
            }
            #expect(figures["lost"]?["median"] as? Double == 0)
        }
        #expect(try String(contentsOfFile: directory + "/b.md", encoding: .utf8).contains("| plain IP |"))
        #expect(try namespaces(of: outcome.process).isEmpty)
    }

    @Test("Beside an earlier program each row is there twice, each compared with plain IP of its own program")
    func before() throws {
        let file = "/tmp/mat-bench-before-\(getpid()).json"
        defer { try? FileManager.default.removeItem(atPath: file) }
        let outcome = try BenchProgram.run([
            "data-plane", "--before", BenchProgram.path, "--only", "plain,hooks", "--peers", "1", "--family", "v4", "--figures", "packets",
            "--runs", "2", "--seconds", "0.02", "--json", file,
        ])
        #expect(outcome.status == 0, "\(outcome.output)")
        #expect(outcome.output.contains("hooks v4, before"))
        let object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: URL(fileURLWithPath: file))) as? [String: Any])
        let rows = try #require(object["rows"] as? [[String: Any]])
        #expect(rows.map { $0["isBefore"] as? Bool ?? false } == [false, true, false, true])
        for row in rows {
            let packets = try #require((row["figures"] as? [String: [String: Any]])?["packets"])
            #expect((packets["rounds"] as? [Double])?.count == 2)
            #expect((row["ofPlain"] as? [String: Double])?["packets"] ?? 0 > 0)
        }
        // What can't be run is wrong usage; what is no such program is no measurement.
        #expect(try BenchProgram.run(["data-plane", "--quick", "--before", "/no/such/program"]).status == 64)
        let failed = try BenchProgram.run(["data-plane", "--quick", "--only", "plain", "--before", "/bin/false"])
        #expect(failed.status == 1 && failed.output.contains("plain v4, before: "))
    }

    @Test("Interrupted, it leaves no namespace either")
    func interrupted() throws {
        let program = try BenchProgram(["data-plane", "--quick", "--only", "plain", "--seconds", "1", "--hold"])
        let process = program.process.processIdentifier
        let end = Date().addingTimeInterval(10)
        while try namespaces(of: process).count < 3, Date() < end { usleep(20_000) }
        #expect(try namespaces(of: process).count == 3)
        kill(process, SIGTERM)
        program.process.waitUntilExit()
        #expect(program.process.terminationStatus == 128 + SIGTERM)
        #expect(try namespaces(of: process).isEmpty)
    }

    @Test("An unknown variant or benchmark is wrong usage")
    func usage() throws {
        #expect(try BenchProgram.run(["data-plane", "--only", "pigeons"]).status == 64)
        #expect(try BenchProgram.run(["no-such-plane"]).status == 64)
    }

    private func namespaces(of process: pid_t) throws -> [String] {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: "/run/netns")) ?? []
        return names.filter { $0.hasPrefix("mat-bench-\(process)-") }
    }
}

/// mat-bench, beside the test bundle.
private struct BenchProgram {
    struct Outcome {
        var status: Int32
        var output: String
        var process: pid_t
    }

    static var path: String {
        URL(fileURLWithPath: CommandLine.arguments[0]).resolvingSymlinksInPath().deletingLastPathComponent().path + "/mat-bench"
    }

    /// Why the benchmark can't run here; `nil` if it can.
    static let obstacle: String? = {
        if getuid() != 0 { return "network namespaces need root" }
        if !FileManager.default.isExecutableFile(atPath: path) { return "mat-bench is not beside the test bundle; build it" }
        for program in ["ip", "nft"]
        where !["/usr/sbin/", "/usr/bin/", "/sbin/", "/bin/"].contains(where: {
            FileManager.default.isExecutableFile(atPath: $0 + program)
        }) {
            return "\(program) is not installed; deploy/install-packages installs it"
        }
        return nil
    }()

    let process = Process()
    let pipe = Pipe()

    init(_ arguments: [String]) throws {
        process.executableURL = URL(fileURLWithPath: Self.path)
        process.arguments = arguments
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = pipe
        process.standardError = pipe
        try process.run()
    }

    static func run(_ arguments: [String]) throws -> Outcome {
        let program = try BenchProgram(arguments)
        let data = program.pipe.fileHandleForReading.readDataToEndOfFile()
        program.process.waitUntilExit()
        return Outcome(
            status: program.process.terminationStatus, output: String(decoding: data, as: UTF8.self),
            process: program.process.processIdentifier)
    }
}
