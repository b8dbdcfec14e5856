import BenchSupport

/// What floods cost the queries of others: the same closed loop with and without them, in the same round.
struct FloodMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    private static let alone = "queries alone"
    private static let floods = [
        ("20,000 HA Notifies/s of strangers with cookies", "--notifies 20000"),
        ("20,000 HA Notifies/s from unproven sources", "--notifies 20000 --unproven"),
        ("20,000 malformed datagrams/s", "--garbage 20000"),
        ("20,000 Joins/s with a wrong token", "--joins 20000"),
    ]
    private static let joins = "20,000 Joins/s of a token's holder with 2000 keys"

    func run(into figures: inout IMSFigures) throws {
        let (nodes, store) = try host.population(plan.mappings, signed: IMSPlan.signedMax)
        let ims = try RunningIMS(host, store: store, mappings: plan.mappings)
        defer { ims.end() }
        let common = "queries --population \(nodes) --seconds \(plan.seconds)"
        let token = try ims.makeToken("10.64.0.0/10")
        let floods = Self.floods + [(Self.joins, "--joins 20000 --token \(token)")]
        var all = [(Self.alone, "")] + floods
        for _ in 0..<plan.runs {
            var half = 0.0
            for (title, arguments) in all {
                guard let full = try host.load("\(common) \(arguments)")["queries"] else { throw BenchError("no figures") }
                figures.add("floods", "\(title): queries", full.perSecond, "1/s")
                if title == Self.alone { half = full.perSecond / 2 }
                guard half > 0 else { continue }
                guard let calm = try host.load("\(common) \(arguments) --rate \(half)")["queries"] else { throw BenchError("no figures") }
                figures.add("floods", "\(title): queries answered at half load", 100 * calm.ok / max(1, half * calm.seconds), "%")
                figures.add("floods", "\(title): p99 at half load", calm.microseconds.p99, "us")
            }
            all = [all[0]] + all.dropFirst(2) + [all[1]]
        }
        for (title, _) in floods {
            figures.compare("floods", "\(title): queries", to: "\(Self.alone): queries", as: "\(title): queries, of those alone")
            figures.goal("floods", "\(title): queries, of those alone", atLeast: 0.95)
        }
    }
}
