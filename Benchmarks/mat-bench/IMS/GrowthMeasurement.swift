import Foundation

/// How every cost grows with the number of mappings: memory, start, queries, updates.
struct GrowthMeasurement {
    private let host: IMSHost
    private let plan: IMSPlan
    private static let reference = 1000

    init(_ host: IMSHost, _ plan: IMSPlan) {
        self.host = host
        self.plan = plan
    }

    func run(into figures: inout IMSFigures) throws {
        let least = try measure(min(Self.reference, plan.sizes.first ?? Self.reference), nil, into: &figures)
        for size in plan.sizes {
            let octets = try measure(size, size, into: &figures)
            guard size >= 10 * Self.reference else { continue }
            let name = "\(size) mappings: memory of each"
            figures.add("memory", name, (octets - least) / Double(size - Self.reference), "octets")
            figures.goal("memory", name, atMost: 512)
            if size == 1_000_000 { figures.goal("memory", "\(size) mappings: start until loaded", atMost: 5) }
        }
    }

    /// - Parameter named: the size to name figures by; `nil` if only the memory is wanted.
    /// - Returns: octets of memory that belong to no file.
    private func measure(_ size: Int, _ named: Int?, into figures: inout IMSFigures) throws -> Double {
        let (nodes, store) = try host.population(size, signed: min(size, IMSPlan.signedMax))
        defer {
            if size != plan.mappings { for file in [nodes, store, store + "-wal", store + "-shm"] { unlink(file) } }
        }
        // A start with the file in the page cache, as after a crash of the process; the first one brings it there.
        if named != nil { try RunningIMS(host, store: store, mappings: size).end() }
        let ims = try RunningIMS(host, store: store, mappings: size)
        defer { ims.end() }
        let octets = try ims.anonymousOctets()
        guard let named else { return octets }
        figures.add("memory", "\(named) mappings: resident, without file pages", octets / 1e6, "MB")
        figures.add("memory", "\(named) mappings: start until it answers", ims.secondsUntilUp, "s")
        figures.add("memory", "\(named) mappings: start until loaded", ims.secondsUntilLoaded, "s")
        for _ in 0..<min(3, plan.runs) {
            if let part = try host.load("queries --population \(nodes) --seconds \(plan.seconds)")["queries"] {
                figures.add("memory", "\(named) mappings: queries, uniform", part.perSecond, "1/s")
            }
            if let part = try host.load("updates --population \(nodes) --seconds \(plan.seconds) --window 1024", key: true)["updates"] {
                figures.add("memory", "\(named) mappings: updates", part.perSecond, "1/s")
            }
        }
        return octets
    }
}
