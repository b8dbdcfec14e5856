/// The figures a case can have.
enum Figure: String, Codable, CaseIterable {
    /// Small datagrams delivered, 1/s.
    case packets
    /// Processor time per delivered datagram, everything on the way included, ns.
    case processor
    /// Datagrams that did not arrive, fraction.
    case lost
    /// TCP, bit/s.
    case stream
    /// Round trip of one small datagram, ns.
    case roundTrip
    /// Its 99th percentile, ns.
    case roundTrip99
}

/// All that was measured: per case and figure, one value per round (`nil` where a round failed).
struct Samples {
    private(set) var cases: [Case] = []
    private var values: [Case: [Figure: [Double?]]] = [:]
    private(set) var failures: [Case: String] = [:]

    init(cases: [Case]) { self.cases = cases }

    mutating func add(_ measured: [Figure: Double], for item: Case) {
        for figure in Figure.allCases { values[item, default: [:]][figure, default: []].append(measured[figure]) }
    }

    mutating func fail(_ item: Case, _ reason: String) {
        failures[item] = reason
        add([:], for: item)
    }

    func rounds(_ item: Case, _ figure: Figure) -> [Double?] { values[item]?[figure] ?? [] }
    func all(_ item: Case, _ figure: Figure) -> [Double] { rounds(item, figure).compactMap { $0 } }

    /// Median over the rounds; `nil` if there is none.
    func median(_ item: Case, _ figure: Figure) -> Double? {
        let all = all(item, figure)
        return all.isEmpty ? nil : all.median
    }

    /// Half the distance between the quartiles in relation to the median: how far rounds lie apart.
    func spread(_ item: Case, _ figure: Figure) -> Double? {
        let all = all(item, figure)
        guard all.count > 1, all.median > 0 else { return nil }
        return (all.quantile(0.75) - all.quantile(0.25)) / 2 / all.median
    }

    /// The plain case that this one is compared with: same family, same pattern, and spread over as many addresses.
    func reference(_ item: Case) -> Case? {
        let plain = cases.filter { $0.variant == "plain" && $0.isIPv4 == item.isIPv4 && $0.pattern == item.pattern }
        return plain.first { $0.peers == item.peers } ?? plain.first
    }

    /// Median over rounds of what `combine` makes of this case's value and plain's of the same round.
    func compared(_ item: Case, _ figure: Figure, _ combine: (Double, Double) -> Double) -> Double? {
        guard let plain = reference(item) else { return nil }
        let both = zip(rounds(item, figure), rounds(plain, figure)).compactMap { pair -> Double? in
            guard let mine = pair.0, let theirs = pair.1, theirs > 0 else { return nil }
            return combine(mine, theirs)
        }
        return both.isEmpty ? nil : both.median
    }
}
