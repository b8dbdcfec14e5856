import BenchSupport
import Foundation
import MATRuntime
import MATSignal

/// Nodes that join, on one core: how many a minute, what of it the signatures and the store cost, and what a fleet sees that joins within a minute.
struct JoinMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    /// The fleet of the goal: so many within a minute.
    private static let perMinute = 10_000.0
    private static let most = 20_000

    func run(into figures: inout IMSFigures) throws {
        let count = min(Self.most, max(500, plan.mappings))
        let (nodes, store) = try host.population(count, signed: 1)
        let closed = min(count, Int(2000 * plan.seconds))
        let paced = min(count, Int(Self.perMinute / 60 * plan.seconds))
        for _ in 0..<plan.runs {
            let limits = Limits(host: host, seconds: plan.seconds / 2)
            let check = try limits.verificationsPerSecond()
            let sign = try limits.signaturesPerSecond()
            let stored = try limits.leasesPerSecond(each: 30)
            figures.add("joins", "limit: an Ed25519 check", 1e6 / check, "us")
            figures.add("joins", "limit: an Ed25519 signature", 1e6 / sign, "us")
            figures.add("joins", "limit: lease and certificate in the store, 30 to a transaction", 1e6 / stored, "us")
            for (name, titled) in [("as many as go", true), ("10,000 a minute", false)] {
                let path = host.directory + "/joins.db"
                for suffix in ["", "-wal", "-shm"] { try? FileManager.default.removeItem(atPath: path + suffix) }
                try FileManager.default.copyItem(atPath: store, toPath: path)
                let ims = try RunningIMS(host, store: path, mappings: count, limits: ", joins-per-second: 1000000")
                defer { ims.end() }
                let token = try ims.makeToken("10.64.0.0/10")
                let before = ims.processorNanoseconds()
                let joined = titled ? closed : paced
                let rate = titled ? "--window 256" : "--rate \(Self.perMinute / 60)"
                guard let part = try host.load("joins --population \(nodes) --token \(token) --count \(joined) \(rate)")["joins"] else {
                    throw BenchError("no figures")
                }
                guard part.ok == Double(joined) else { throw BenchError("of \(joined) Joins \(part.ok) were granted: \(part.codes)") }
                let each = (ims.processorNanoseconds() - before) / 1000 / Double(joined)
                if titled {
                    figures.add("joins", "imsd on one core: joins a minute", part.perSecond * 60, "1/min")
                } else {
                    figures.add("joins", "\(name): p50", part.microseconds.p50 / 1000, "ms")
                    figures.add("joins", "\(name): p99", part.microseconds.p99 / 1000, "ms")
                }
                figures.add("joins", "\(name): processor time of imsd for each, with the query for its cookie", each, "us")
            }
        }
        figures.goal("joins", "imsd on one core: joins a minute", atLeast: Self.perMinute)
    }
}

extension RunningIMS {
    func makeToken(_ prefix: String) throws -> String {
        let made = try ControlClient.request(
            JSONValue.self, path: controlPath, command: "tokenCreate",
            arguments: ["gives": [.string(prefix)], "host": .string(IMSHost.server)] as JSONValue, daemon: "imsd")
        guard let token = made["token"]?.string else { throw BenchError("imsd makes no token: \(made)") }
        return token
    }
}
