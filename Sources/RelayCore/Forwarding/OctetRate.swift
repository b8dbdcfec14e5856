import MATSignal

/// A token bucket of octets: so many a second on average, and a burst at once. The level of each bucket is one number, kept by whom it
/// belongs to: the time at which it would be full.
struct OctetRate: Hashable, Sendable {
    private let octetsPerSecond: Int64
    private var burstNanoseconds: Int64

    /// - Parameters: at least one octet each; what is more than 1 TB is held to that.
    init(octetsPerSecond: Int, burstOctets: Int) {
        self.octetsPerSecond = Int64(min(max(1, octetsPerSecond), 1_000_000_000_000))
        // Nanoseconds of a great burst have more than 64 bits on the way; at one octet a second a burst is 30 years at most.
        let seconds = Double(min(max(1, burstOctets), 1_000_000_000_000)) / Double(self.octetsPerSecond)
        burstNanoseconds = Int64(min(max(1, seconds * 1e9), 1e18))
    }

    /// Takes the octets out of the bucket if there are as many.
    ///
    /// - Parameter octets: a packet's.
    @inline(__always)
    func take(_ octets: Int, from fullAt: inout Int64, at now: Int64) -> Bool {
        let next = max(fullAt, now) &+ Int64(octets) &* 1_000_000_000 / octetsPerSecond
        guard next &- now <= burstNanoseconds else { return false }
        fullAt = next
        return true
    }

    /// Nothing is taken before then.
    func close(_ fullAt: inout Int64, until time: Int64) { fullAt = max(fullAt, time &+ burstNanoseconds) }

    /// The same with a burst of so long at most, but of a packet at least.
    func shortened(to time: Duration) -> Self {
        var rate = self
        let packet = 9216 * 1_000_000_000 / octetsPerSecond
        rate.burstNanoseconds = min(burstNanoseconds, max(time.nanosecondsSaturated, packet))
        return rate
    }

    /// The kernel's programs don't divide.
    var ofKernel: KernelRates.Rate {
        KernelRates.Rate(cost: UInt64(1_000_000_000 << 20) / UInt64(octetsPerSecond), burst: UInt64(burstNanoseconds))
    }
}
