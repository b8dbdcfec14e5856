import Histogram

/// Latencies in nanoseconds, in an HDR histogram whose values are right to 1 per cent, whether of microseconds or of minutes. Recording
/// costs a few instructions.
package struct LatencyHistogram: Sendable {
    /// A longer one counts as this: an hour.
    private static let nanosecondsMax: UInt64 = 3_600_000_000_000
    private var values = Histogram<UInt64>(highestTrackableValue: nanosecondsMax, numberOfSignificantValueDigits: .two)
    /// Nanoseconds; exact.
    package private(set) var max: UInt64 = 0

    package init() {}

    package var count: UInt64 { values.totalCount }

    /// - Parameter nanoseconds: from the time at which the request was due, not from when the generator came to sending it: a
    ///   generator that waits for a slow server and counts from then hides just what should be measured (coordinated omission).
    package mutating func record(_ nanoseconds: UInt64) {
        values.record(min(nanoseconds, Self.nanosecondsMax))
        if nanoseconds > max { max = nanoseconds }
    }

    package mutating func add(_ other: LatencyHistogram) {
        values.add(other.values)
        max = Swift.max(max, other.max)
    }

    package var mean: Double { count == 0 ? 0 : values.mean }

    /// The value that this fraction of all does not exceed, nanoseconds; 0 of nothing.
    package func quantile(_ fraction: Double) -> UInt64 { count == 0 ? 0 : Swift.min(max, values.valueAtPercentile(fraction * 100)) }
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
