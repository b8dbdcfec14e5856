/// A few octets kept in place. An array costs a block of its own on the heap, 48 octets and a reference count beside what it
/// holds; a key and a signature for each of 100,000 peers are better without.
struct Octets32: Hashable, Sendable {
    private let a, b, c, d: UInt64

    /// - Returns: `nil` unless there are 32.
    init?(_ octets: [UInt8]) {
        guard octets.count == 32 else { return nil }
        (a, b, c, d) = (bigEndian(octets, 0), bigEndian(octets, 8), bigEndian(octets, 16), bigEndian(octets, 24))
    }

    /// - Returns: `nil` unless there are 32.
    init?(_ octets: UnsafeRawBufferPointer) {
        guard octets.count == 32 else { return nil }
        func word(_ start: Int) -> UInt64 { UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: start, as: UInt64.self)) }
        (a, b, c, d) = (word(0), word(8), word(16), word(24))
    }

    var octets: [UInt8] { bigEndian([a, b, c, d]) }

    static let zero = Octets32(zeros: ())

    private init(zeros: Void) { (a, b, c, d) = (0, 0, 0, 0) }
}

struct Octets64: Hashable, Sendable {
    private let a, b, c, d, e, f, g, h: UInt64

    /// - Returns: `nil` unless there are 64.
    init?(_ octets: [UInt8]) {
        guard octets.count == 64 else { return nil }
        (a, b, c, d) = (bigEndian(octets, 0), bigEndian(octets, 8), bigEndian(octets, 16), bigEndian(octets, 24))
        (e, f, g, h) = (bigEndian(octets, 32), bigEndian(octets, 40), bigEndian(octets, 48), bigEndian(octets, 56))
    }

    var octets: [UInt8] { bigEndian([a, b, c, d, e, f, g, h]) }
}

/// The number at `start`, of which the caller knows that eight octets follow.
private func bigEndian(_ octets: [UInt8], _ start: Int) -> UInt64 {
    var value: UInt64 = 0
    for index in start..<start + 8 { value = value << 8 | UInt64(octets[index]) }
    return value
}

private func bigEndian(_ words: [UInt64]) -> [UInt8] {
    var octets: [UInt8] = []
    octets.reserveCapacity(words.count * 8)
    for word in words {
        for shift in stride(from: 56, through: 0, by: -8) { octets.append(UInt8(truncatingIfNeeded: word >> UInt64(shift))) }
    }
    return octets
}
