import ArgumentParser
import BenchSupport
import Foundation

/// What a number of nodes needs, from measured figures, with a simulation of one of the clusters.
struct ScaleBenchmark: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scale", abstract: "How many servers so many nodes need, and what a burst does to one cluster of them.",
        discussion: "The measured figures are options; docs/ims-benchmarks.md says where they come from and what is assumed.")

    @Option(help: "Nodes.") var nodes = 1e9
    @Option(help: "Seconds between a node's handovers.") var handover = 300.0
    @Option(help: "Active peers of a node.") var peers = 2.0
    @Option(help: "Seconds between polls of an active peer.") var poll = 30.0
    @Option(help: "Measured: queries a second of one core.") var queriesPerCore = 200_000.0
    @Option(help: "Measured: Ed25519 checks a second of one core.") var verificationsPerCore = 14_000.0
    @Option(help: "Measured: updates a second of one etcd cluster.") var etcdPuts = 28_000.0
    @Option(help: "Measured: a commit's time without records, milliseconds.") var commitMilliseconds = 2.0
    @Option(help: "Seconds that are simulated.") var seconds = 20.0
    @Option(help: "Write everything to this file as JSON.") var json: String?
    @Option(help: "Write the tables to this file as Markdown.") var markdown: String?

    /// Crowds that move within ten seconds: none, a full train, a stadium, a city's district whose mast fails.
    private static let bursts = [0, 1000, 20_000, 100_000, 300_000]

    mutating func validate() throws {
        guard nodes >= 1, handover >= 1, peers >= 0, poll >= 1, queriesPerCore >= 1, verificationsPerCore >= 1, etcdPuts >= 1,
            commitMilliseconds > 0, (1...600).contains(seconds)
        else { throw ValidationError("all figures are at least 1, --seconds at most 600") }
    }

    private struct Result: Codable {
        var model: ScaleModel
        var lines: [ScaleModel.Line]
        var setting: ClusterSimulation.Setting
        var bursts: [Int]
        var outcomes: [ClusterSimulation.Outcome]
    }

    func run() throws {
        var model = ScaleModel(queriesPerCore: queriesPerCore, verificationsPerCore: verificationsPerCore, etcdPutsPerSecond: etcdPuts)
        model.nodes = nodes
        model.handoverSeconds = handover
        model.activePeers = peers
        model.pollSeconds = poll
        let perInstance = 1 / (model.clusters * model.instancesPerCluster)
        var setting = ClusterSimulation.Setting(
            seconds: seconds, updatesPerSecond: model.updates / model.clusters, queriesPerSecond: model.queries / model.clusters,
            verifierCores: max(1, Int((model.verificationCores * perInstance).rounded(.up))),
            workerCores: max(1, Int((model.queryCores * perInstance).rounded(.up))),
            verificationSeconds: 1 / verificationsPerCore, querySeconds: 1 / queriesPerCore, commitSeconds: commitMilliseconds / 1000,
            // What a record adds is what is left of a second of full commits.
            commitSecondsEach: max(1e-6, 1 / etcdPuts - commitMilliseconds / 1000 / 1000))
        var outcomes: [ClusterSimulation.Outcome] = []
        for burst in Self.bursts {
            setting.burstNodes = burst
            outcomes.append(ClusterSimulation(setting: setting).run(seed: 1))
        }
        var needs = TextTable(["for \(number(nodes, 0)) nodes", "", "unit", "from"])
        needs.rows = model.lines.map { [$0.name, number($0.value, $0.value >= 100 ? 0 : 1), $0.unit, $0.how] }
        var one = TextTable(
            [
                "a crowd moves within \(number(setting.burstSeconds, 0)) s", "updates p50 ms", "p99", "p99.9", "queries p99 us", "told to come later",
                "lost", "signatures", "store", "queries",
            ])
        for (burst, outcome) in zip(Self.bursts, outcomes) {
            one.rows.append(
                [burst == 0 ? "nobody" : "\(burst) nodes"]
                    + [outcome.updates.p50, outcome.updates.p99, outcome.updates.p999].map { number($0 / 1000, 1) }
                    + [number(outcome.queries.p99, 0), "\(outcome.toldToComeLater)", "\(outcome.lost)"]
                    + [outcome.verifierUtilisation, outcome.storeUtilisation, outcome.workerUtilisation].map { number($0 * 100, 0) + " %" })
        }
        let together = 2 * (outcomes[0].updates.p99 / 1e6 + 0.1) / handover
        let remark =
            "Of a node's handovers \(number(together * 100, 2)) % fall together with one of a given peer (within the 99th percentile and 100 ms of "
            + "network, either way); then both ends find each other by asking the servers anew."
        for line in needs.lines + [""] + one.lines + ["", remark] { print(line) }
        if let markdown {
            try (needs.markdown + "\n" + one.markdown + "\n" + remark + "\n").write(toFile: markdown, atomically: true, encoding: .utf8)
        }
        if let json {
            let encoder = JSONEncoder()
            encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
            let result = Result(model: model, lines: model.lines, setting: setting, bursts: Self.bursts, outcomes: outcomes)
            try encoder.encode(result).write(to: URL(fileURLWithPath: json))
        }
    }
}
