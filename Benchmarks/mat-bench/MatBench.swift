import ArgumentParser
import Foundation
import Glibc

@main
struct MatBench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "mat-bench", abstract: "Measures what MAT costs, beside what else could be done.", subcommands: [DataPlane.self])
}

struct DataPlane: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "data-plane", abstract: "Packets through the kernel. Needs root.")

    @Option(help: "Numbers of peers in the tables.") var peers = "1,1000,100000"
    @Option(help: "Rounds; in each, every variant is measured once.") var runs = 5
    @Option(help: "Length of one measurement.") var seconds = 0.5
    @Option(help: "Only these variants.") var only: String?
    @Option(help: "Only these figures: packets, rtt, tcp.") var figures = "packets,rtt,tcp"
    @Option(help: "The core to measure on; the last by default.") var core: Int?
    @Flag(help: "Keep the namespaces' variant in place and send until interrupted, for a profiler.") var hold = false

    func run() throws {
        guard getuid() == 0 else { throw BenchError("run as root: network namespaces need it") }
        Cleanup.shared.watchSignals()
        let cores = try Cores(measured: core)
        let counts = peers.split(separator: ",").compactMap { Int($0) }
        var wanted: Set<Figure> = []
        if figures.contains("packets") { wanted.insert(.packets) }
        if figures.contains("rtt") { wanted.insert(.roundTrip) }
        if figures.contains("tcp") { wanted.insert(.stream) }
        let network = try BenchNetwork()
        defer { Cleanup.shared.run() }
        let runner = Runner(network: network, cores: cores, figures: wanted, seconds: seconds, peersMax: counts.max() ?? 1)
        let catalogue = Catalogue(network: network, cores: cores, peers: counts)
        let names = only.map { $0.split(separator: ",").map(String.init) }
        let cases = catalogue.cases().filter { names?.contains($0.variant) ?? true }
        var samples = Samples(cases: cases)
        for round in 0..<runs {
            // Rotated, so that no variant always comes after the same one.
            let shift = cases.isEmpty ? 0 : round * 3 % cases.count
            for item in cases[shift...] + cases[..<shift] {
                do {
                    let installed = try catalogue.install(item)
                    defer { installed.remove() }
                    repeat { samples.add(try runner.measure(item, installed), for: item) } while hold
                } catch {
                    samples.fail(item, "\(error)")
                }
            }
            FileHandle.standardError.write(Data("round \(round + 1) of \(runs)\n".utf8))
        }
        for line in TableReport(samples: samples).lines() { print(line) }
    }
}
