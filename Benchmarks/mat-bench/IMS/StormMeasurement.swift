import BenchSupport

/// The simultaneous handover of a crowd, with queries beside it and subscribers to be told.
struct StormMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    func run(into figures: inout IMSFigures) throws {
        let (nodes, store) = try host.population(max(plan.mappings, plan.stormNodes), signed: max(IMSPlan.signedMax, plan.stormNodes))
        let storm =
            "storm --population \(nodes) --nodes \(plan.stormNodes) --seconds \(plan.stormSeconds) --queries \(plan.stormQueries) --subscribers 3"
        for round in 0..<plan.runs {
            let ims = try RunningIMS(host, store: store, mappings: plan.mappings)
            defer { ims.end() }
            let parts = try host.load("\(storm) --moved \(2 * round)", key: true)
            guard let updates = parts["updates"], let queries = parts["queries"], let pushes = parts["pushes"] else { throw BenchError("no figures") }
            figures.add("storm", "updates acked", 100 * updates.ok / max(1, updates.sent), "%")
            figures.add("storm", "updates, p50", updates.microseconds.p50 / 1000, "ms")
            figures.add("storm", "updates, p99", updates.microseconds.p99 / 1000, "ms")
            figures.add("storm", "updates sent again", updates.more["resent"] ?? 0, "")
            figures.add("storm", "updates told to come later", updates.interim["try later"] ?? 0, "")
            figures.add("storm", "queries answered", 100 * queries.answered / max(1, queries.sent), "%")
            figures.add("storm", "queries, p50", queries.microseconds.p50 / 1000, "ms")
            figures.add("storm", "queries, p99", queries.microseconds.p99 / 1000, "ms")
            figures.add(
                "storm", "subscriptions granted",
                100 * (pushes.more["subscriptions granted"] ?? 0) / max(1, pushes.more["subscriptions wanted"] ?? 0), "%")
            figures.add("storm", "pushes delivered", 100 * pushes.ok / max(1, pushes.sent), "%")
            figures.add("storm", "pushes delivered within 1 s of the handover", 100 * (pushes.more["within 1 s"] ?? 0) / max(1, pushes.sent), "%")
            figures.add("storm", "pushes, p99", pushes.microseconds.p99 / 1000, "ms")
            figures.add("storm", "pushes, slowest", pushes.microseconds.max / 1000, "ms")

            // What this machine's scheduler and the load leave to any server on that core while imsd has the storm.
            let bare = try host.bareResponder(port: 7001)
            defer { bare.end() }
            let beside = try host.load("\(storm) --moved \(2 * round + 1) --query-port \(bare.port)", key: true)
            guard let queries = beside["queries"] else { throw BenchError("no figures") }
            figures.add("storm", "queries to a bare C responder beside it, p50", queries.microseconds.p50 / 1000, "ms")
            figures.add("storm", "queries to a bare C responder beside it, p99", queries.microseconds.p99 / 1000, "ms")
        }
        figures.compare(
            "storm", "queries, p99", to: "queries to a bare C responder beside it, p99", as: "imsd / bare C, p99 of the storm's queries")
        figures.goal("storm", "updates acked", atLeast: 100)
        figures.goal("storm", "updates, p99", atMost: 100)
        figures.goal("storm", "queries, p99", atMost: 2)
        figures.goal("storm", "pushes delivered within 1 s of the handover", atLeast: 100)
    }
}

/// More updates than the server takes: what it says then, and that it says something.
struct BreakMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan
    /// Steps from what the server takes in a closed loop, until it has broken and been seen broken twice more.
    private static let factors = [0.7, 1.0, 1.2, 1.5, 2, 3, 5, 8, 12, 20]
    private static let brokenMax = 3

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    func run(into figures: inout IMSFigures) throws {
        let (nodes, store) = try host.population(plan.mappings, signed: IMSPlan.signedMax)
        let ims = try RunningIMS(host, store: store, mappings: plan.mappings)
        defer { ims.end() }
        // One try each: retransmissions would hide what happened to the first.
        let common = "updates --population \(nodes) --seconds \(plan.seconds) --tries 1"
        guard let full = try host.load("\(common) --window 1024", key: true)["updates"] else { throw BenchError("no figures") }
        figures.add("breaking", "closed loop", full.perSecond, "1/s")
        var broken: [Double] = []
        var silent = 0.0
        for (step, factor) in Self.factors.enumerated() where broken.count < Self.brokenMax {
            let rate = max(50, full.perSecond * factor)
            guard let part = try host.load("\(common) --moved \(step * 8 + 4) --rate \(rate)", key: true)["updates"] else {
                throw BenchError("no figures")
            }
            let name = "offered \(number(factor, 1)) x that"
            let later = part.codes["try later"] ?? 0
            figures.add("breaking", "\(name): acked", part.perSecond, "1/s")
            figures.add("breaking", "\(name): told \"try later\" (code 7)", 100 * later / max(1, part.sent), "%")
            figures.add("breaking", "\(name): no answer", 100 * part.unanswered / max(1, part.sent), "%")
            figures.add("breaking", "\(name): p99 of answers", part.microseconds.p99 / 1000, "ms")
            silent = max(silent, 100 * part.unanswered / max(1, part.sent))
            if part.ok < part.sent * 0.99 { broken.append(rate) }
        }
        if let first = broken.first { figures.add("breaking", "more than 1 % is not acked from", first, "1/s") }
        figures.add("breaking", "most without any answer, in all these steps", silent, "%")
        figures.goal("breaking", "most without any answer, in all these steps", atMost: 0)
    }
}
