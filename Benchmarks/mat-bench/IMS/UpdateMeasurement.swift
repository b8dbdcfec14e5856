import BenchSupport
import Foundation

/// IMS Updates, durable, beside what limits them.
struct UpdateMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    func run(into figures: inout IMSFigures) throws {
        let (nodes, store) = try host.population(plan.mappings, signed: IMSPlan.signedMax)
        let both = "imsd on both cores, the load beside it"
        let cores = Set([host.serverCore, host.loadCore]).sorted().map(String.init).joined(separator: ",")
        for round in 0..<plan.runs {
            let limits = Limits(host: host, seconds: plan.seconds / 2)
            figures.add("updates", "limit: Ed25519 checks, one core", try limits.verificationsPerSecond(), "1/s")
            figures.add("updates", "limit: fdatasync of 4 KiB", try limits.syncsPerSecond(), "1/s")
            for each in [1, 100, 1000] {
                figures.add("updates", "limit: store alone, \(each) to a transaction", try limits.storedPerSecond(each: each), "1/s")
            }
            for (title, place) in [("imsd on one core", "\(host.serverCore)"), (both, cores)] {
                // A process for each: what one leaves behind would be in the next one's figure.
                let ims = try RunningIMS(host, store: store, mappings: plan.mappings, cores: place)
                defer { ims.end() }
                let common = "updates --population \(nodes) --seconds \(plan.seconds)"
                guard let full = try host.load("\(common) --moved \(round * 8) --window 1024" + ims.processOption, key: true)["updates"] else {
                    throw BenchError("no figures")
                }
                figures.add("updates", "\(title): updates", full.perSecond, "1/s")
                if let each = full.more["processor us each"] { figures.add("updates", "\(title): processor time of each", each, "us") }
                guard let calm = try host.load("\(common) --moved \(round * 8 + 4) --rate \(max(20, full.perSecond / 2))", key: true)["updates"]
                else {
                    throw BenchError("no figures")
                }
                figures.add("updates", "\(title): p50 at half load", calm.microseconds.p50 / 1000, "ms")
                figures.add("updates", "\(title): p99 at half load", calm.microseconds.p99 / 1000, "ms")
            }
        }
        guard let checks = figures.median("updates", "limit: Ed25519 checks, one core"),
            let commits = figures.median("updates", "limit: store alone, 1000 to a transaction")
        else { return }
        figures.goal("updates", "imsd on one core: updates", atLeast: (min(checks, commits) * 0.8).rounded())
        let count = Set([host.serverCore, host.loadCore]).count
        figures.goal("updates", "\(both): updates", atLeast: (min(checks * Double(count), commits) * 0.8).rounded())
    }
}
