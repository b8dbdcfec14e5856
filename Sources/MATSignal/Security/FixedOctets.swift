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

    var octets: [UInt8] { withUnsafeOctets { Array($0) } }

    /// The octets as they go on the wire, without an array.
    @inline(__always)
    func withUnsafeOctets<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(of: (a.bigEndian, b.bigEndian, c.bigEndian, d.bigEndian), body)
    }

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

    /// - Returns: `nil` unless there are 64.
    init?(_ octets: UnsafeRawBufferPointer) {
        guard octets.count == 64 else { return nil }
        func word(_ start: Int) -> UInt64 { UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: start, as: UInt64.self)) }
        (a, b, c, d) = (word(0), word(8), word(16), word(24))
        (e, f, g, h) = (word(32), word(40), word(48), word(56))
    }

    var octets: [UInt8] { withUnsafeOctets { Array($0) } }

    /// The octets as they go on the wire, without an array.
    @inline(__always)
    func withUnsafeOctets<Result>(_ body: (UnsafeRawBufferPointer) -> Result) -> Result {
        withUnsafeBytes(
            of: (a.bigEndian, b.bigEndian, c.bigEndian, d.bigEndian, e.bigEndian, f.bigEndian, g.bigEndian, h.bigEndian), body)
    }
}

/// The number at `start`, of which the caller knows that eight octets follow.
private func bigEndian(_ octets: [UInt8], _ start: Int) -> UInt64 {
    octets.withUnsafeBytes { UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: start, as: UInt64.self)) }
}
