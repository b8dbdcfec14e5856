import BenchSupport
import Foundation
import Glibc

/// Everything that one run found, as JSON and as the tables of docs/data-plane-benchmarks.md.
struct BenchReport: Codable {
    struct Row: Codable {
        var variant: String
        var title: String
        var family: String
        var peers: Int
        var pattern: Pattern
        /// Whether `--before`'s program found it; `nil` of this one's.
        var isBefore: Bool?
        /// Figure to its median, its spread (half the distance between the quartiles, of the median), and the rounds' values.
        var figures: [String: Value] = [:]
        /// Medians over rounds of the comparison with plain IP in the same round, family and pattern.
        var ofPlain: [String: Double] = [:]
        /// Nanoseconds more than plain: per packet one way on both hosts together, and per round trip on one host.
        var moreThanPlain: [String: Double] = [:]
        var failure: String?
    }
    struct Value: Codable {
        var median: Double
        var spread: Double?
        var rounds: [Double?]
    }

    var machine: [String: String]
    var rounds: Int
    var seconds: Double
    var isNoisy: Bool
    var rows: [Row]
    var changes: [ChangeFigure]

    /// Beyond this, plain's rounds lie so far apart that somebody else used the processor.
    static let noiseMax = 0.03

    init(samples: Samples, earlier: Samples? = nil, changes: [ChangeFigure], rounds: Int, seconds: Double, cores: Cores) {
        self.changes = changes
        self.rounds = rounds
        self.seconds = seconds
        machine = Machine.facts()
        machine["measured on core"] = "\(cores.measured)"
        isNoisy = samples.cases.contains { $0.variant == "plain" && (samples.spread($0, .packets) ?? 0) > Self.noiseMax }
        rows = samples.cases.flatMap { item in
            [Self.row(item, samples)]
                + (earlier.map { earlier in
                    var row = Self.row(item, earlier)
                    row.isBefore = true
                    return [row]
                } ?? [])
        }
    }

    private static func row(_ item: Case, _ samples: Samples) -> Row {
        var row = Row(
            variant: item.variant, title: Catalogue.entries.first { $0.name == item.variant }?.title ?? item.variant,
            family: item.isIPv4 ? "v4" : "v6", peers: item.peers, pattern: item.pattern)
        for figure in Figure.allCases {
            guard let median = samples.median(item, figure) else { continue }
            row.figures[figure.rawValue] = Value(median: median, spread: samples.spread(item, figure), rounds: samples.rounds(item, figure))
        }
        for figure in [Figure.packets, .stream] {
            row.ofPlain[figure.rawValue] = samples.compared(item, figure) { $0 / $1 }
        }
        row.ofPlain[Figure.processor.rawValue] = samples.compared(item, .processor) { $1 / $0 }
        row.moreThanPlain[Figure.processor.rawValue] = samples.compared(item, .processor) { $0 - $1 }
        row.moreThanPlain[Figure.roundTrip.rawValue] = samples.compared(item, .roundTrip) { ($0 - $1) / 2 }
        row.failure = samples.failures[item]
        return row
    }

    func json() throws -> String {
        let encoder = JSONEncoder()
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
        return String(decoding: try encoder.encode(self), as: UTF8.self) + "\n"
    }
}
