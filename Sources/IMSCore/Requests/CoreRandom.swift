/// The one source of randomness, given from outside: a simulation with the same seed runs the same way.
struct CoreRandom: RandomNumberGenerator, Sendable {
    private var base: any RandomNumberGenerator & Sendable

    init(_ base: any RandomNumberGenerator & Sendable) { self.base = base }

    mutating func next() -> UInt64 { base.next() }

    /// Sequence numbers are random; one in use is not drawn again.
    mutating func sequence(isUsed: (UInt32) -> Bool) -> UInt32 {
        while true {
            let sequence = UInt32.random(in: .min ... .max, using: &self)
            if !isUsed(sequence) { return sequence }
        }
    }

    /// 32 octets for a key that is used once.
    mutating func seed() -> [UInt8] {
        (0..<8).flatMap { _ in
            let word = UInt32.random(in: .min ... .max, using: &self)
            return (0..<4).map { UInt8(truncatingIfNeeded: word >> ($0 * 8)) }
        }
    }
}
