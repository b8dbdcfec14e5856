import ArgumentParser
import BenchSupport
import Foundation
import Glibc
import MATRuntime
import Namespaces

@main
struct MatBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mat-bench", abstract: "Measures what MAT costs, beside what else could be done.", version: MATVersion.text,
        subcommands: [DataPlane.self, PathsBenchmark.self, IMSBenchmark.self, ScaleBenchmark.self, MemoryOf.self])
}

struct DataPlane: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "data-plane",
        abstract: "Packets through the kernel, changes of its tables, and the agent's memory; needs root.",
        discussion: "Builds two hosts and a router of its own, measures each variant once per round on one core, and prints medians.")

    @Option(help: "Numbers of peers in the tables.") var peers = "1,1000,100000"
    @Option(help: "Rounds; in each, every variant is measured once.") var runs = 5
    @Option(help: "Length of one measurement.") var seconds = 0.5
    @Option(help: ArgumentHelp("Only these variants: \(Catalogue.entries.map(\.name).joined(separator: ", ")).", valueName: "variant,..."))
    var only: String?
    @Option(help: "Only these figures: packets, rtt, tcp, changes, memory, agent.") var figures = "packets,rtt,tcp,changes,memory,agent"
    @Option(help: "Only this family: v4 or v6.") var family: String?
    @Option(help: "The core to measure on; the last by default.") var core: Int?
    @Option(help: ArgumentHelp("Measure by turns with this other mat-bench, such as the commit before built.", valueName: "program"))
    var before: String?
    @Option(help: "Write everything to this file as JSON.") var json: String?
    @Option(help: "Write the tables to this file as Markdown.") var markdown: String?
    @Flag(help: "One short round of plain and ours with one peer: whether it works, not how fast.") var quick = false
    @Flag(help: "Keep sending through the first variant until interrupted, for a profiler.") var hold = false

    private static let figureNames: [String: Set<Figure>] = [
        "packets": [.packets], "rtt": [.roundTrip], "tcp": [.stream], "changes": [], "memory": [], "agent": [],
    ]

    /// A sleeping agent looks about once a minute; a shorter time would see that or not.
    private static let idleSeconds = 60.0

    private var counts: [Int?] { peers.split(separator: ",").map { Int($0) } }
    private var wantedFigures: [String] { figures.split(separator: ",").map(String.init) }
    private var wantedVariants: [String]? { only.map { $0.split(separator: ",").map(String.init) } }

    mutating func validate() throws {
        if quick {
            peers = "1"
            runs = 1
            seconds = 0.05
            if only == nil { only = "plain,ours" }
            if family == nil { family = "v4" }
            figures = "packets,rtt,tcp,changes"
        }
        for count in counts {
            guard let count, (1...BenchNetwork.peersMax).contains(count) else {
                throw ValidationError("--peers wants numbers from 1 to \(BenchNetwork.peersMax), such as 1,1000")
            }
        }
        guard (1...1000).contains(runs) else { throw ValidationError("--runs wants 1 to 1000") }
        guard seconds >= 0.01, seconds <= 600 else { throw ValidationError("--seconds wants 0.01 to 600") }
        for name in wantedFigures where Self.figureNames[name] == nil { throw ValidationError("no figure is called \(name)") }
        for name in wantedVariants ?? [] where !Catalogue.entries.contains(where: { $0.name == name }) {
            throw ValidationError(
                "no variant is called \(name); there are \(Catalogue.entries.map(\.name).joined(separator: ", "))")
        }
        if let family, family != "v4", family != "v6" { throw ValidationError("--family wants v4 or v6") }
        if let before, access(before, X_OK) != 0 { throw ValidationError("--before wants a mat-bench that can be run, not \(before)") }
        if before != nil, hold { throw ValidationError("--hold never comes to --before's turn") }
    }

    func run() throws {
        guard getuid() == 0 else { throw BenchError("run as root: network namespaces need it") }
        CleanUp.shared.watchSignals()
        let cores = try Cores(measured: core)
        try cores.pinToOthers()
        defer { CleanUp.shared.run() }
        let network = try BenchNetwork()
        let (samples, earlier) = measureTraffic(network, cores)
        var changes: [ChangeFigure] = []
        let counts = counts.compactMap { $0 }
        if wantedFigures.contains("changes") {
            changes += try Changes(network: network, cores: cores).run(peers: counts, rounds: runs, seconds: seconds)
        }
        if wantedFigures.contains("memory") {
            changes += try AgentMemory(network: network, program: try ownPath()).run(peers: [10] + counts.filter { $0 > 10 })
        }
        if wantedFigures.contains("agent") {
            changes += try RunningAgent(beside: try ownPath(), seconds: Self.idleSeconds).run()
            if let before {
                changes += try RunningAgent(beside: before, seconds: Self.idleSeconds).run().map {
                    ChangeFigure(name: "\($0.name), before", unit: $0.unit, peers: $0.peers, values: $0.values)
                }
            }
        }
        let report = BenchReport(samples: samples, earlier: earlier, changes: changes, rounds: runs, seconds: seconds, cores: cores)
        for line in report.lines() { print(line) }
        if let json { try report.json().write(toFile: json, atomically: true, encoding: .utf8) }
        if let markdown { try report.markdown().write(toFile: markdown, atomically: true, encoding: .utf8) }
        if !samples.failures.isEmpty || earlier?.failures.isEmpty == false { throw ExitCode.failure }
    }

    /// What --before's program measures in one round.
    private var earlierArguments: [String] {
        let traffic = wantedFigures.filter { Self.figureNames[$0]?.isEmpty == false }
        return ["--peers", peers, "--seconds", "\(seconds)", "--figures", traffic.joined(separator: ",")]
            + (only.map { ["--only", $0] } ?? []) + (family.map { ["--family", $0] } ?? []) + (core.map { ["--core", "\($0)"] } ?? [])
    }

    /// - Returns: what was found of this program, and of the earlier one.
    private func measureTraffic(_ network: BenchNetwork, _ cores: Cores) -> (Samples, earlier: Samples?) {
        let wanted = wantedFigures.reduce(into: Set<Figure>()) { $0.formUnion(Self.figureNames[$1] ?? []) }
        guard !wanted.isEmpty else { return (Samples(cases: []), nil) }
        var runner = Runner(network: network, cores: cores, figures: wanted, seconds: seconds)
        let catalogue = Catalogue(network: network, cores: cores, peers: counts.compactMap { $0 })
        let names = wantedVariants
        let cases = catalogue.cases(families: family.map { [$0 == "v4"] } ?? [true, false])
            .filter { names?.contains($0.variant) ?? !Catalogue.isDetail($0.variant) }
        var samples = Samples(cases: cases)
        let other = before.map { EarlierProgram(path: $0, arguments: earlierArguments) }
        var earlier = Samples(cases: other == nil ? [] : cases)
        for round in 0..<runs where !cases.isEmpty {
            // Who comes first changes: a machine that is getting busier is nobody's advantage.
            if !round.isMultiple(of: 2) { other?.round(into: &earlier) }
            // Rotated, so that no variant always comes after the same one.
            let shift = round * 5 % cases.count
            for item in cases[shift...] + cases[..<shift] {
                do {
                    let installed = try catalogue.install(item)
                    defer { installed.remove() }
                    repeat { samples.add(try runner.measure(item, installed), for: item) } while hold
                } catch {
                    samples.fail(item, "\(error)")
                }
            }
            if round.isMultiple(of: 2) { other?.round(into: &earlier) }
            FileHandle.standardError.write(Data("round \(round + 1) of \(runs)\n".utf8))
        }
        return (samples, other == nil ? nil : earlier)
    }

    private func ownPath() throws -> String { try FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/exe") }
}

/// The part of the memory measurement that runs in a process of its own.
struct MemoryOf: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "memory-of", shouldDisplay: false)
    @Argument var subject: String
    @Argument var peers: Int

    func run() throws { try AgentMemory.report(subject, peers: peers) }
}
