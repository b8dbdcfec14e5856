import Glibc

/// The system's random numbers, of which many are drawn by one call: the core wants one or two for each registration.
struct DrawnAhead: RandomNumberGenerator, Sendable {
    /// As many as one call gives (getentropy(3)).
    private static let wordsMax = 32
    private var words: [UInt64] = []

    mutating func next() -> UInt64 {
        if words.isEmpty {
            words = [UInt64](unsafeUninitializedCapacity: Self.wordsMax) { room, count in
                count = getentropy(room.baseAddress, room.count * 8) == 0 ? room.count : 0
            }
        }
        if let word = words.popLast() { return word }
        var system = SystemRandomNumberGenerator()
        return system.next()
    }
}
