import MATSignal

/// Every variant by name, and what it takes to put it in place.
struct Catalogue {
    let network: BenchNetwork
    let cores: Cores
    let peers: [Int]

    func cases() -> [Case] {
        var all: [Case] = []
        for isIPv4 in [true, false] {
            all.append(Case(variant: "plain", isIPv4: isIPv4, peers: 0, pattern: .pair))
            for count in peers { all.append(Case(variant: "ours", isIPv4: isIPv4, peers: count, pattern: .pair)) }
            for count in peers.filter({ $0 > 1 }).prefix(1) {
                all.append(Case(variant: "plain", isIPv4: isIPv4, peers: count, pattern: .out))
            }
            for count in peers where count > 1 { all.append(Case(variant: "ours", isIPv4: isIPv4, peers: count, pattern: .out)) }
        }
        return all
    }

    func install(_ item: Case) throws -> any Installed {
        switch item.variant {
        case "plain": return Simple(.moas(item.isIPv4))
        case "ours": return try Ours(network, cores, peers: item.peers, isIPv4: item.isIPv4, onlyMN: item.pattern != .pair)
        default: throw BenchError("no variant is called \(item.variant)")
        }
    }
}
