import MATControl
import MATSignal

/// Many nodes as a person can look at them: how many are in which network, and how many talk from one to another. Pure.
package struct ViewNetworks {
    /// Conversations looked at.
    package static let conversationsMax = 20_000

    private var nodes: [String: (all: Int, away: Int)] = [:]
    private var pairs: [Pair: Int] = [:]
    private var surveyedCount = 0
    package private(set) var conversationsCount = 0

    private struct Pair: Hashable {
        var first: String
        var second: String

        init(_ one: String, _ other: String) { (first, second) = one < other ? (one, other) : (other, one) }
    }

    package init() {}

    /// What networks are called that are in no report.
    package static let others = "others"
    /// Where those are that say that they are nowhere.
    package static let nowhere = "nowhere"

    package static func name(of address: IPAddress) -> String {
        let bits: UInt8 = address.isIPv4 ? 96 + 24 : 48
        return IPPrefix(covering: address, length: bits).description
    }

    package mutating func add(in network: String, isAway: Bool) {
        surveyedCount += 1
        let known = nodes[network] ?? (0, 0)
        nodes[network] = (known.all + 1, known.away + (isAway ? 1 : 0))
    }

    /// - Returns: whether more may be added.
    package mutating func addConversation(_ network: String, _ other: String) -> Bool {
        conversationsCount += 1
        pairs[Pair(network, other), default: 0] += 1
        return conversationsCount < Self.conversationsMax
    }

    package func write(into report: inout ViewReport) {
        // Who talks from a network where no node is registered is drawn with it all the same.
        var all = nodes
        for pair in pairs.keys { for name in [pair.first, pair.second] where all[name] == nil { all[name] = (0, 0) } }
        let sorted = all.sorted { ($1.value.all, $0.key) < ($0.value.all, $1.key) }
        let shown = sorted.prefix(sorted.count > ViewReport.networksMax ? ViewReport.networksMax - 1 : ViewReport.networksMax)
        let names = Set(shown.map(\.key))
        report.networks = shown.map { ViewReport.Network(name: $0.key, nodesCount: $0.value.all, awayCount: $0.value.away) }
        if shown.count < sorted.count {
            let rest = sorted.dropFirst(shown.count)
            report.networks.append(
                ViewReport.Network(
                    name: Self.others, nodesCount: rest.reduce(0) { $0 + $1.value.all }, awayCount: rest.reduce(0) { $0 + $1.value.away }))
        }
        report.networksCount = sorted.count
        var merged: [Pair: Int] = [:]
        for (pair, count) in pairs {
            func name(_ network: String) -> String { names.contains(network) ? network : Self.others }
            merged[Pair(name(pair.first), name(pair.second)), default: 0] += count
        }
        let busiest = merged.sorted { ($1.value, $0.key.first, $0.key.second) < ($0.value, $1.key.first, $1.key.second) }
        report.traffic = busiest.prefix(ViewReport.trafficMax).map {
            ViewReport.Traffic(between: $0.key.first, and: $0.key.second, conversationsCount: $0.value)
        }
        (report.surveyedCount, report.conversationsCount) = (surveyedCount, conversationsCount)
    }
}
