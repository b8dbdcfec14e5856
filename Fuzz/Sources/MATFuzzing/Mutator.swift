import SeededRandom

/// Changes inputs as libFuzzer does, but the same way in every run with the same seed: what CI can afford between real fuzzing.
public struct Mutator: Sendable {
    private var random: SeededGenerator

    public init(seed: UInt64) { random = SeededGenerator(seed: seed) }

    /// Lengths, counts and times that decoders get wrong.
    private static let oddNumbers: [UInt64] = [0, 1, 3, 4, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0xFFFF_FFFF, .max / 2, .max]

    /// A changed input, from one that is known and another to take pieces of.
    public mutating func mutate(_ octets: [UInt8], with other: [UInt8]) -> [UInt8] {
        var result = octets
        for _ in 0...Int(random.next() % 4) { change(&result, other) }
        return result
    }

    private mutating func below(_ count: Int) -> Int { count <= 0 ? 0 : Int(random.next() % UInt64(count)) }

    private mutating func change(_ octets: inout [UInt8], _ other: [UInt8]) {
        guard !octets.isEmpty else {
            octets = other
            return
        }
        let place = below(octets.count)
        let count = min(1 + below(16), octets.count - place)
        switch random.next() % 9 {
        case 0: octets[place] ^= 1 << UInt8(random.next() % 8)
        case 1: octets[place] = UInt8(truncatingIfNeeded: random.next())
        case 2: octets.removeSubrange(place..<place + count)
        case 3: octets.insert(contentsOf: octets[place..<place + count], at: below(octets.count))
        case 4: octets = Array(octets.prefix(place))
        case 5:
            // A number of 1, 2, 4 or 8 octets.
            let width = min(1 << below(4), octets.count - place)
            let number = Self.oddNumbers[below(Self.oddNumbers.count)]
            for index in 0..<width { octets[place + index] = UInt8(truncatingIfNeeded: number >> UInt64(8 * (width - 1 - index))) }
        case 6 where !other.isEmpty:
            let from = below(other.count)
            octets.insert(contentsOf: other[from..<min(other.count, from + 1 + below(64))], at: place)
        case 7 where !other.isEmpty:
            octets = Array(octets.prefix(place)) + other.suffix(from: below(other.count))
        default: octets.append(contentsOf: other.prefix(below(other.count + 1)))
        }
    }
}
