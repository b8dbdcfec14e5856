import MATSignal

/// The hash of a table's keys: SipHash-1-3 over address and prefix length, under a key drawn at the start, so that nobody can choose
/// home addresses or locators that collide.
struct TableHash: Sendable {
    private let k0, k1: UInt64

    init() {
        var generator = SystemRandomNumberGenerator()
        (k0, k1) = (generator.next(), generator.next())
    }

    /// 32 bits: the upper ones choose a segment of the index, the lower ones a place in it.
    @inline(__always)
    func tag(_ address: IPAddress, _ length: UInt8) -> UInt32 {
        var v0 = k0 ^ 0x736f_6d65_7073_6575
        var v1 = k1 ^ 0x646f_7261_6e64_6f6d
        var v2 = k0 ^ 0x6c79_6765_6e65_7261
        var v3 = k1 ^ 0x7465_6462_7974_6573

        @inline(__always)
        func round() {
            v0 = v0 &+ v1
            v1 = v1 &<< 13 | v1 &>> 51
            v1 ^= v0
            v0 = v0 &<< 32 | v0 &>> 32
            v2 = v2 &+ v3
            v3 = v3 &<< 16 | v3 &>> 48
            v3 ^= v2
            v0 = v0 &+ v3
            v3 = v3 &<< 21 | v3 &>> 43
            v3 ^= v0
            v2 = v2 &+ v1
            v1 = v1 &<< 17 | v1 &>> 47
            v1 ^= v2
            v2 = v2 &<< 32 | v2 &>> 32
        }

        v3 ^= address.high
        round()
        v0 ^= address.high
        v3 ^= address.low
        round()
        v0 ^= address.low
        // The last word has the message's length, 17 octets, above what is left of it.
        let last = 17 << 56 | UInt64(length)
        v3 ^= last
        round()
        v0 ^= last
        v2 ^= 0xFF
        round()
        round()
        round()
        let hash = v0 ^ v1 ^ v2 ^ v3
        return UInt32(truncatingIfNeeded: hash ^ hash &>> 32)
    }
}
