import BenchSupport

/// Every variant by name, and what it takes to put it in place.
struct Catalogue {
    struct Entry {
        var name: String
        var title: String
        var families: [Bool] = [true, false]
        /// Measured with each number of peers in the tables.
        var scales = false
        /// Measured with traffic to and from many peers as well.
        var spreads = false
        /// Measured only if asked for.
        var isDetail = false
    }

    static let entries: [Entry] = wholes + details
    private static let details: [Entry] = RuleByRule.steps(Plan.mnMoA(true)).enumerated().map {
        Entry(name: "\(rule)\($0)", title: "plain traffic, rule by rule: \($1.title)", isDetail: true)
    }
    private static let wholes: [Entry] = [
        Entry(name: "plain", title: "plain IP", spreads: true),
        Entry(name: "ours", title: "ours", scales: true, spreads: true),
        Entry(name: "ours-bpf", title: "ours, `data-plane: bpf`", scales: true, spreads: true),
        Entry(name: "hooks", title: "two empty hooks"),
        Entry(name: "fixed", title: "prototype: constants, no look-up"),
        Entry(name: "bare", title: "prototype: peer from a map, own address constant"),
        Entry(name: "pairs", title: "prototype: maps of pairs"),
        Entry(name: "split", title: "prototype: source and destination maps"),
        Entry(name: "counted", title: "prototype: maps of pairs, counted"),
        Entry(name: "neutral", title: "prototype: maps of pairs, checksum-neutral", families: [false]),
        Entry(name: "netdev", title: "prototype: maps of pairs in ingress and egress"),
        Entry(name: "ebpf", title: "eBPF at the links, clsact", scales: true),
        Entry(name: "ebpf-tcx", title: "eBPF at the links, tcx"),
        Entry(name: "ebpf-hooks", title: "eBPF (clsact) and two empty hooks"),
        Entry(name: "beside", title: "plain traffic on hosts where ours runs", scales: true),
        Entry(name: "beside-bpf", title: "plain traffic, likewise with `data-plane: bpf`", scales: true),
        Entry(name: "programs", title: "ours, beside a program of `mat run`", scales: true, spreads: true),
        Entry(name: "beside-programs", title: "plain traffic, likewise", scales: true),
        Entry(name: "plain-fw", title: "plain IP, stateful firewall"),
        Entry(name: "ours-fw", title: "ours, stateful firewall"),
        Entry(name: "nat", title: "conntrack NAT"),
        Entry(name: "vxlan", title: "VXLAN"),
        Entry(name: "wireguard", title: "wireguard-go"),
    ]
    /// The name of a step of `RuleByRule`, before its number.
    static let rule = "rule"

    static func isDetail(_ name: String) -> Bool { entries.contains { $0.name == name && $0.isDetail } }

    let network: BenchNetwork
    let cores: Cores
    let peers: [Int]

    func cases(families: [Bool]) -> [Case] {
        var all: [Case] = []
        for isIPv4 in families {
            for entry in Self.entries where entry.families.contains(isIPv4) {
                for count in entry.scales ? peers : [0] {
                    all.append(Case(variant: entry.name, isIPv4: isIPv4, peers: count, pattern: .pair))
                }
            }
            for pattern in [Pattern.out, .into] {
                for entry in Self.entries where entry.spreads && entry.families.contains(isIPv4) {
                    for count in peers where count > 1 {
                        all.append(Case(variant: entry.name, isIPv4: isIPv4, peers: count, pattern: pattern))
                    }
                }
            }
        }
        return all
    }

    func install(_ item: Case) throws -> any Installed {
        let isIPv4 = item.isIPv4
        if let kind = PrototypeKind(rawValue: item.variant) { return try Prototype(network, kind, isIPv4: isIPv4) }
        if let kind = EBPFKind(rawValue: item.variant) { return try EBPF(network, kind, peers: item.peers, isIPv4: isIPv4) }
        if item.variant.hasPrefix(Self.rule), let step = Int(item.variant.dropFirst(Self.rule.count)) {
            return try RuleByRule(network, step: step, isIPv4: isIPv4)
        }
        switch item.variant {
        case "plain": return Simple(.moas(isIPv4))
        case "ours": return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, onlyMN: item.pattern != .pair)
        case "ours-bpf":
            return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, onlyMN: item.pattern != .pair, dataPlane: .bpf)
        case "beside-bpf": return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, plain: true, dataPlane: .bpf)
        case "beside": return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, plain: true)
        case "programs": return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, onlyMN: item.pattern != .pair, steers: true)
        case "beside-programs": return try Ours(network, cores, peers: item.peers, isIPv4: isIPv4, plain: true, steers: true)
        case "plain-fw": return try Others.firewall(network, around: Simple(.moas(isIPv4)))
        case "ours-fw": return try Others.firewall(network, around: try Ours(network, cores, peers: 1, isIPv4: isIPv4))
        case "nat": return try Others.nat(network, isIPv4: isIPv4)
        case "vxlan": return try Others.vxlan(network, isIPv4: isIPv4)
        case "wireguard": return try Others.wireguard(network, cores, isIPv4: isIPv4)
        default: throw BenchError("no variant is called \(item.variant)")
        }
    }
}
