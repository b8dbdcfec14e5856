/// SipHash-2-4 with 64-bit output (Aumasson and Bernstein, 2012), which cookies are made with (RFC 9018 section 4.1.4).
///
/// Swift's own `Hasher` is SipHash-1-3 under a key of its own, so it can't serve.
public struct SipHash: Hashable, Sendable {
    private let k0, k1: UInt64
    private var key: (UInt64, UInt64) { (k0, k1) }

    /// - Parameter key: 16 octets; `nil` for any other count.
    public init?(key: [UInt8]) {
        guard key.count == 16 else { return nil }
        (k0, k1) = (Self.littleEndian(key[0..<8]), Self.littleEndian(key[8..<16]))
    }

    /// The hash as a number; its octets in little-endian order are the reference's output.
    public func hash(_ message: [UInt8]) -> UInt64 {
        var state = State(key)
        var index = 0
        while index + 8 <= message.count {
            state.absorb(Self.littleEndian(message[index..<index + 8]))
            index += 8
        }
        // The last block holds what is left over and, in its top octet, the length.
        state.absorb(Self.littleEndian(message[index...]) | UInt64(truncatingIfNeeded: message.count & 0xFF) << 56)
        return state.finish()
    }

    /// The hash of 34 octets, which is what a server cookie is made of, given as they stand in the message: four big-endian words of
    /// eight and one of two. Allocates nothing.
    public func hash(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64, _ e: UInt16) -> UInt64 {
        var state = State(key)
        state.absorb(a.byteSwapped)
        state.absorb(b.byteSwapped)
        state.absorb(c.byteSwapped)
        state.absorb(d.byteSwapped)
        state.absorb(UInt64(e.byteSwapped) | 34 << 56)
        return state.finish()
    }

    /// Likewise of 32 octets: two addresses, which a client's cookie is made of.
    public func hash(_ a: UInt64, _ b: UInt64, _ c: UInt64, _ d: UInt64) -> UInt64 {
        var state = State(key)
        state.absorb(a.byteSwapped)
        state.absorb(b.byteSwapped)
        state.absorb(c.byteSwapped)
        state.absorb(d.byteSwapped)
        state.absorb(32 << 56)
        return state.finish()
    }

    /// SipHash-2-4.
    private struct State {
        private var state: SipState

        init(_ key: (UInt64, UInt64)) { state = SipState(key.0, key.1) }

        @inline(__always)
        mutating func absorb(_ word: UInt64) { state.absorb(word, rounds: 2) }

        @inline(__always)
        mutating func finish() -> UInt64 { state.finish(rounds: 4) }
    }

    private static func littleEndian(_ octets: ArraySlice<UInt8>) -> UInt64 {
        octets.reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
}
