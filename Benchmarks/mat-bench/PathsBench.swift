import ArgumentParser
import BenchSupport
import Foundation
import Glibc
import Namespaces

struct PathsBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "paths",
        abstract: "Packets in datagrams through a translator, beside plain IP through the same one; needs root.",
        discussion: "Builds two hosts and a translating router of its own, measures each path once per round on one core, and prints medians. "
            + "Without offloads hosts make packets in software, as large as a wire takes them: what a network card would be given.")

    @Option(help: "Rounds; in each, every path is measured once.") var runs = 5
    @Option(help: "Length of one measurement.") var seconds = 0.5
    @Option(help: ArgumentHelp("Only these: \(PathCatalogue.names.joined(separator: ", ")).", valueName: "path,...")) var only: String?
    @Option(help: "Only this family of the datagrams: v4 or v6.") var family: String?
    @Option(help: "Only with offloads (on) or without (off).") var offloads: String?
    @Option(help: "The core to measure on; the last by default.") var core: Int?
    @Option(help: "Write everything to files beginning so, as JSON.") var json: String?
    @Option(help: "Write the tables to this file as Markdown.") var markdown: String?
    @Flag(help: "One short round of plain and agent: whether it works, not how fast.") var quick = false

    private var names: [String] { only?.split(separator: ",").map(String.init) ?? PathCatalogue.names }

    mutating func validate() throws {
        if quick {
            (runs, seconds) = (1, 0.05)
            if only == nil { only = "plain,agent" }
        }
        guard (1...1000).contains(runs) else { throw ValidationError("--runs wants 1 to 1000") }
        guard seconds >= 0.01, seconds <= 600 else { throw ValidationError("--seconds wants 0.01 to 600") }
        for name in names where !PathCatalogue.names.contains(name) {
            throw ValidationError("no path is called \(name); there are \(PathCatalogue.names.joined(separator: ", "))")
        }
        if let family, family != "v4", family != "v6" { throw ValidationError("--family wants v4 or v6") }
        if let offloads, offloads != "on", offloads != "off" { throw ValidationError("--offloads wants on or off") }
    }

    func run() throws {
        guard getuid() == 0 else { throw BenchError("run as root: network namespaces need it") }
        CleanUp.shared.watchSignals()
        let cores = try Cores(measured: core)
        try cores.pinToOthers()
        defer { CleanUp.shared.run() }
        let network = try BenchNetwork()
        try network.translate()
        var text = ""
        var hasFailed = false
        for isOn in [true, false] where offloads.map({ ($0 == "on") == isOn }) ?? true {
            try network.setOffloads(isOn)
            let samples = measure(network, cores)
            hasFailed = hasFailed || !samples.failures.isEmpty
            let report = BenchReport(samples: samples, changes: [], rounds: runs, seconds: seconds, cores: cores)
            print("offloads \(isOn ? "on" : "off")")
            for line in report.lines() { print(line) }
            text += "Offloads \(isOn ? "on" : "off"). " + report.markdown() + "\n"
            if let json { try report.json().write(toFile: "\(json)-\(isOn ? "on" : "off").json", atomically: true, encoding: .utf8) }
        }
        if let markdown { try text.write(toFile: markdown, atomically: true, encoding: .utf8) }
        if hasFailed { throw ExitCode.failure }
    }

    private func measure(_ network: BenchNetwork, _ cores: Cores) -> Samples {
        var runner = Runner(network: network, cores: cores, figures: [.packets, .roundTrip, .stream], seconds: seconds)
        let catalogue = PathCatalogue(network: network, cores: cores)
        let cases = catalogue.cases(names, families: family.map { [$0 == "v4"] } ?? [true, false])
        var samples = Samples(cases: cases)
        for round in 0..<runs {
            // Rotated, so that no path always comes after the same one.
            let shift = round * 3 % cases.count
            for item in cases[shift...] + cases[..<shift] {
                do {
                    let installed = try catalogue.install(item)
                    defer { installed.remove() }
                    samples.add(try runner.measure(item, installed), for: item)
                } catch {
                    samples.fail(item, "\(error)")
                }
            }
            FileHandle.standardError.write(Data("round \(round + 1) of \(runs)\n".utf8))
        }
        return samples
    }
}
