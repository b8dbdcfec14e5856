import MATSignal

/// A token bucket of octets: so many a second on average, and a burst at once. The level of each bucket is one number, kept by whom it
/// belongs to: the time at which it would be full.
struct OctetRate: Hashable, Sendable {
    private let octetsPerSecond: Int64
    private let burstNanoseconds: Int64

    /// - Parameters: at least one octet each; what is more than 1 TB is held to that.
    init(octetsPerSecond: Int, burstOctets: Int) {
        self.octetsPerSecond = Int64(min(max(1, octetsPerSecond), 1_000_000_000_000))
        burstNanoseconds = Self.nanoseconds(min(max(1, burstOctets), 1_000_000_000_000), at: self.octetsPerSecond)
    }

    /// Takes the octets out of the bucket if there are as many.
    @inline(__always)
    func take(_ octets: Int, from fullAt: inout Int64, at now: Int64) -> Bool {
        let next = max(fullAt, now) &+ Self.nanoseconds(octets, at: octetsPerSecond)
        guard next &- now <= burstNanoseconds else { return false }
        fullAt = next
        return true
    }

    @inline(__always)
    private static func nanoseconds(_ octets: Int, at octetsPerSecond: Int64) -> Int64 {
        // A packet's octets times a thousand million fit in 47 bits; those of a burst may not.
        let (product, overflow) = Int64(octets).multipliedReportingOverflow(by: 1_000_000_000)
        return overflow ? Int64(octets) / octetsPerSecond &* 1_000_000_000 : product / octetsPerSecond
    }
}
