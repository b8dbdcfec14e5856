import MATSignal

/// A token bucket of octets: so many a second on average, and a burst at once. The level of each bucket is one number, kept by whom it
/// belongs to: the time at which it would be full.
struct OctetRate: Hashable, Sendable {
    private let octetsPerSecond: Int64
    private let burstNanoseconds: Int64

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
}
