import BenchSupport
import MATSignal

/// What carries packets between two hosts with a translator between them; the first is what the others are compared with.
struct PathCatalogue {
    static let names = ["plain", "kernel", "kernel-cross", "clsact", "agent", "agent-cross", "wireguard"]

    let network: BenchNetwork
    let cores: Cores

    func cases(_ names: [String], families: [Bool]) -> [Case] {
        families.flatMap { isIPv4 in names.map { Case(variant: $0, isIPv4: isIPv4, peers: 0, pattern: .pair) } }
    }

    func install(_ item: Case) throws -> any Installed {
        let isIPv4 = item.isIPv4
        switch item.variant {
        case "plain":
            let (mn, cn) = (Plan.mnMoA(isIPv4), Plan.cnMoA(isIPv4))
            return Simple(
                Ends(mn: Endpoints(local: mn, remote: cn), cn: Endpoints(local: cn, remote: BenchNetwork.translated(isIPv4))))
        case "kernel": return try Encapsulated(network, cores, isIPv4: isIPv4, inner: isIPv4, in: .kernel)
        case "kernel-cross": return try Encapsulated(network, cores, isIPv4: isIPv4, inner: !isIPv4, in: .kernel)
        case "clsact": return try Encapsulated(network, cores, isIPv4: isIPv4, inner: isIPv4, in: .kernel, usesClassifiers: true)
        case "agent": return try Encapsulated(network, cores, isIPv4: isIPv4, inner: isIPv4)
        case "agent-cross": return try Encapsulated(network, cores, isIPv4: isIPv4, inner: !isIPv4)
        case "wireguard": return try Others.wireguard(network, cores, isIPv4: isIPv4, seen: BenchNetwork.translated(isIPv4))
        default: throw BenchError("no path is called \(item.variant); there are \(Self.names.joined(separator: ", "))")
        }
    }
}
