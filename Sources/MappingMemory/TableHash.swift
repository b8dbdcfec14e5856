import MATSignal

// Invariants: the key is drawn once and never changes, so any thread may hash, and equal keys have equal hashes. No memory is touched here.

/// The hash of a table's keys: SipHash-1-3 over address and prefix length, under a key drawn at the start, so that nobody can choose
/// home addresses or locators that collide.
package struct TableHash: Sendable {
    @usableFromInline let k0, k1: UInt64

    package init() {
        var generator = SystemRandomNumberGenerator()
        (k0, k1) = (generator.next(), generator.next())
    }

    /// 32 bits: the upper ones choose a segment of the index, the lower ones a place in it.
    @inlinable @inline(__always)
    package func tag(_ address: IPAddress, _ length: UInt8) -> UInt32 {
        var state = SipState(k0, k1)
        state.absorb(address.high, rounds: 1)
        state.absorb(address.low, rounds: 1)
        // The last word has the message's length, 17 octets, above what is left of it.
        state.absorb(17 << 56 | UInt64(length), rounds: 1)
        let hash = state.finish(rounds: 3)
        return UInt32(truncatingIfNeeded: hash ^ hash &>> 32)
    }
}
