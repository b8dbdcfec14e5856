/// Counts of latencies in buckets that grow with the value, as in an HDR histogram: 64 to each power of two, so that a value read
/// from it is right to 1.6 per cent, whether it is of microseconds or of minutes. Recording is one addition.
package struct LatencyHistogram: Sendable {
    private static let bucketsPerDoubling = 64
    private static let shiftBits = 6
    private var counts = [UInt64](repeating: 0, count: bucketsPerDoubling * (64 - shiftBits + 1))
    package private(set) var count: UInt64 = 0
    /// Nanoseconds; exact.
    package private(set) var max: UInt64 = 0
    private var sum: Double = 0

    package init() {}

    /// - Parameter nanoseconds: from the time at which the request was due, not from when the generator came to sending it: a
    ///   generator that waits for a slow server and counts from then hides just what should be measured (coordinated omission).
    package mutating func record(_ nanoseconds: UInt64) {
        counts[Self.bucket(nanoseconds)] &+= 1
        count &+= 1
        sum += Double(nanoseconds)
        if nanoseconds > max { max = nanoseconds }
    }

    package mutating func add(_ other: LatencyHistogram) {
        for index in counts.indices { counts[index] &+= other.counts[index] }
        count &+= other.count
        sum += other.sum
        max = Swift.max(max, other.max)
    }

    package var mean: Double { count == 0 ? 0 : sum / Double(count) }

    /// The value that this fraction of all does not exceed, nanoseconds; 0 of nothing.
    package func quantile(_ fraction: Double) -> UInt64 {
        guard count > 0 else { return 0 }
        let wanted = Swift.max(1, UInt64((fraction * Double(count)).rounded(.up)))
        var seen: UInt64 = 0
        for (index, number) in counts.enumerated() where number > 0 {
            seen &+= number
            if seen >= wanted { return Swift.min(max, Self.highest(in: index)) }
        }
        return max
    }

    private static func bucket(_ value: UInt64) -> Int {
        guard value >= UInt64(bucketsPerDoubling) else { return Int(truncatingIfNeeded: value) }
        let shift = 63 - value.leadingZeroBitCount - shiftBits
        return (shift + 1) * bucketsPerDoubling + Int(truncatingIfNeeded: value >> UInt64(shift)) - bucketsPerDoubling
    }

    private static func highest(in bucket: Int) -> UInt64 {
        guard bucket >= bucketsPerDoubling else { return UInt64(bucket) }
        let shift = UInt64(bucket / bucketsPerDoubling - 1)
        let lowest = UInt64(bucket % bucketsPerDoubling + bucketsPerDoubling) << shift
        return lowest + (1 << shift) - 1
    }
}

/// What of a histogram goes into reports, in microseconds.
package struct LatencySummary: Codable, Sendable {
    package var count: UInt64
    package var mean: Double
    package var p50: Double
    package var p90: Double
    package var p99: Double
    package var p999: Double
    package var max: Double

    package init(_ histogram: LatencyHistogram) {
        func microseconds(_ nanoseconds: UInt64) -> Double { Double(nanoseconds) / 1000 }
        count = histogram.count
        mean = histogram.mean / 1000
        p50 = microseconds(histogram.quantile(0.5))
        p90 = microseconds(histogram.quantile(0.9))
        p99 = microseconds(histogram.quantile(0.99))
        p999 = microseconds(histogram.quantile(0.999))
        max = microseconds(histogram.max)
    }
}
