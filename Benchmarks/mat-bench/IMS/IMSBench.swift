import ArgumentParser
import BenchSupport
import Foundation
import Glibc
import Namespaces

/// The mapping server, beside what else answers, and beside what the machine allows.
struct IMSBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "ims",
        abstract: "What a mapping server does; needs root.",
        discussion: """
            Servers on one core, load on another, in a network namespace. Prints medians of interleaved rounds, with the goals beside them. \
            docs/ims-benchmarks.md says what is measured.
            """)

    @Option(help: "Rounds; in each, everything of a group is measured once.") var runs = 5
    @Option(help: "Length of one measurement.") var seconds = 2.0
    @Option(help: "Mappings in the server for queries, updates and floods.") var mappings = 1_000_000
    @Option(help: "Nodes that move in the storm, within --storm-seconds.") var stormNodes = 20_000
    @Option(help: "How long the storm lasts.") var stormSeconds = 10.0
    @Option(help: "Queries a second during the storm.") var stormQueries = 50_000.0
    @Option(help: "Numbers of mappings for memory, start and growth.") var sizes = "10000,100000,1000000"
    @Option(help: ArgumentHelp("Only these: \(Group.allCases.map(\.rawValue).joined(separator: ", ")).", valueName: "group,..."))
    var only: String?
    @Option(help: "The servers' core.") var serverCore = 0
    @Option(help: "The load's core; the last by default.") var loadCore: Int?
    @Option(help: "Where stores are kept meanwhile; its disk is measured.") var directory: String?
    @Option(help: "Write everything to this file as JSON.") var json: String?
    @Option(help: "Write the table to this file as Markdown.") var markdown: String?
    @Flag(help: "One short round of everything, small: whether it works, not how fast.") var quick = false

    enum Group: String, CaseIterable {
        case queries, dns, updates, storm, breaking, floods, joins, memory, cluster
    }

    /// More mappings than a population has.
    private static let mappingsMax = 10_000_000

    private var groups: [Group?] {
        only.map { $0.split(separator: ",").map { Group(rawValue: String($0)) } } ?? Group.allCases
    }
    private var counts: [Int?] { sizes.split(separator: ",").map { Int($0) } }

    mutating func validate() throws {
        if quick {
            runs = 1
            seconds = min(seconds, 0.3)
            mappings = min(mappings, 2000)
            stormNodes = min(stormNodes, 200)
            stormSeconds = min(stormSeconds, 0.5)
            stormQueries = min(stormQueries, 1000)
            sizes = "1000,2000"
        }
        guard (1...100).contains(runs), seconds >= 0.1, seconds <= 60 else { throw ValidationError("--runs wants 1 to 100, --seconds 0.1 to 60") }
        guard (100...Self.mappingsMax).contains(mappings) else { throw ValidationError("--mappings wants 100 to \(Self.mappingsMax)") }
        guard groups.allSatisfy({ $0 != nil }) else {
            throw ValidationError("--only knows \(Group.allCases.map(\.rawValue).joined(separator: ", "))")
        }
        guard counts.allSatisfy({ ($0 ?? 0) >= 100 && ($0 ?? 0) <= Self.mappingsMax }) else {
            throw ValidationError("--sizes wants numbers from 100 to \(Self.mappingsMax), such as 10000,1000000")
        }
    }

    func run() throws {
        guard getuid() == 0 else { throw BenchError("run as root: network namespaces need it") }
        CleanUp.shared.watchSignals()
        let own = URL(fileURLWithPath: try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe"))
        let cores = try Cores(measured: loadCore)
        defer { CleanUp.shared.run() }
        let host = try IMSHost(
            programs: own.deletingLastPathComponent().path, serverCore: serverCore, loadCore: cores.measured, directory: directory)
        var figures = IMSFigures()
        let wanted = Set(groups.compactMap { $0 })
        let plan = IMSPlan(
            runs: runs, seconds: seconds, mappings: mappings, stormNodes: stormNodes, stormSeconds: stormSeconds, stormQueries: stormQueries,
            sizes: counts.compactMap { $0 }.sorted())
        if !wanted.isDisjoint(with: [.queries, .dns]) {
            attempt("queries", &figures) { try QueryMeasurement(host, plan).run(withDNS: wanted.contains(.dns), into: &$0) }
        }
        if wanted.contains(.updates) { attempt("updates", &figures) { try UpdateMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.storm) { attempt("storm", &figures) { try StormMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.breaking) { attempt("breaking", &figures) { try BreakMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.floods) { attempt("floods", &figures) { try FloodMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.joins) { attempt("joins", &figures) { try JoinMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.memory) { attempt("memory", &figures) { try GrowthMeasurement(host, plan).run(into: &$0) } }
        if wanted.contains(.cluster) { attempt("cluster", &figures) { try ClusterMeasurement(host, plan).run(into: &$0) } }
        let report = IMSReport(figures: figures, plan: plan, host: host)
        for line in report.lines { print(line) }
        if let json { try report.json().write(toFile: json, atomically: true, encoding: .utf8) }
        if let markdown { try report.markdown.write(toFile: markdown, atomically: true, encoding: .utf8) }
        if !figures.failures.isEmpty { throw ExitCode.failure }
    }

    /// What fails does not take the rest of a long run along.
    private func attempt(_ group: String, _ figures: inout IMSFigures, _ body: (inout IMSFigures) throws -> Void) {
        FileHandle.standardError.write(Data("\(group)\n".utf8))
        do { try body(&figures) } catch { figures.fail(group, "\(error)") }
    }
}

/// How much is measured.
struct IMSPlan: Codable {
    var runs: Int
    var seconds: Double
    var mappings: Int
    var stormNodes: Int
    var stormSeconds: Double
    var stormQueries: Double
    var sizes: [Int]

    /// Nodes that can update: enough for a crowd, and for a core's updates at five a second each.
    static let signedMax = 40_000
}
