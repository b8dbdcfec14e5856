import Foundation
import MATSignal
import SeededRandom

/// Which nodes are asked for, in which order: drawn ahead of the run, then gone round.
struct Draw: Sendable {
    enum Distribution: Hashable, Sendable {
        case uniform
        /// The node of rank r is asked for in proportion to 1 / r^s. Ranks are spread over the numbers of the nodes, since neighbours in
        /// number are neighbours in the server's memory.
        case zipf(Double)

        init?(_ text: String) {
            if text == "uniform" {
                self = .uniform
            } else if text == "zipf" {
                self = .zipf(1)
            } else if text.hasPrefix("zipf:"), let exponent = Double(text.dropFirst(5)), exponent > 0, exponent <= 4 {
                self = .zipf(exponent)
            } else {
                return nil
            }
        }
    }

    /// Drawn numbers; a power of two.
    static let length = 1 << 20
    let nodes: [UInt32]

    init(_ distribution: Distribution, of count: Int, seed: UInt64) {
        var random = SeededGenerator(seed: seed)
        switch distribution {
        case .uniform:
            nodes = (0..<Self.length).map { _ in UInt32(truncatingIfNeeded: Int.random(in: 0..<count, using: &random)) }
        case .zipf(let exponent):
            var sums: [Double] = []
            sums.reserveCapacity(count)
            var sum = 0.0
            for rank in 1...count {
                sum += pow(Double(rank), -exponent)
                sums.append(sum)
            }
            // A multiplier without a common divisor with the count permutes the numbers.
            var multiplier = 2_654_435_761 % count | 1
            while Self.divisor(multiplier, count) != 1 { multiplier += 2 }
            nodes = (0..<Self.length).map { _ in
                let wanted = Double.random(in: 0..<sum, using: &random)
                var (low, high) = (0, count - 1)
                while low < high {
                    let middle = (low + high) / 2
                    if sums[middle] > wanted { high = middle } else { low = middle + 1 }
                }
                return UInt32(truncatingIfNeeded: low * multiplier % count)
            }
        }
    }

    private static func divisor(_ a: Int, _ b: Int) -> Int { b == 0 ? a : divisor(b, a % b) }
}

/// What queries ask for, one after the other, and again from the beginning.
struct Asked: Sendable {
    let hoas: [IPAddress]
    /// Numbers of nodes, for DNS queries; as many.
    let numbers: [UInt32]

    init(_ draw: Draw, of nodes: Nodes) {
        hoas = draw.nodes.map { nodes.hoa(Int($0)) }
        numbers = draw.nodes
    }

    init(_ recording: Recording) {
        hoas = recording.hoas
        numbers = recording.hoas.indices.map { UInt32(truncatingIfNeeded: $0) }
    }
}
