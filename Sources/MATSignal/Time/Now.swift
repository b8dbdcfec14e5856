/// A reading of both clocks, handed to every decision: the protocol core has no clock of its own, so that a simulated
/// network can run it in virtual time.
public struct Now: Hashable, Sendable {
    /// For intervals, time-outs and retransmission. Goes on during suspend, never jumps.
    public var monotonic: MonotonicTime
    /// Unix time in milliseconds, for records, certificates and cookies.
    public var wallMilliseconds: UInt64

    public init(monotonic: MonotonicTime, wallMilliseconds: UInt64) {
        self.monotonic = monotonic
        self.wallMilliseconds = wallMilliseconds
    }

    /// Unix time in seconds, as cookies carry it. Wraps in 2106, like the field.
    public var wallSeconds: UInt32 { UInt32(truncatingIfNeeded: wallMilliseconds / 1000) }
}

/// A point in time since an arbitrary origin, in nanoseconds.
public struct MonotonicTime: Hashable, Comparable, Sendable {
    public var nanoseconds: Int64

    @inlinable public init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }

    public static let distantFuture = MonotonicTime(nanoseconds: .max)
    public static let zero = MonotonicTime(nanoseconds: 0)

    @inlinable public static func < (a: MonotonicTime, b: MonotonicTime) -> Bool { a.nanoseconds < b.nanoseconds }

    /// Saturates: a bad lifetime from the network must not trap.
    public static func + (time: MonotonicTime, delay: Duration) -> MonotonicTime {
        let (sum, overflow) = time.nanoseconds.addingReportingOverflow(delay.nanosecondsSaturated)
        return MonotonicTime(nanoseconds: overflow ? (delay < .zero ? .min : .max) : sum)
    }

    public static func - (a: MonotonicTime, b: MonotonicTime) -> Duration {
        let (difference, overflow) = a.nanoseconds.subtractingReportingOverflow(b.nanoseconds)
        return .nanoseconds(overflow ? (a > b ? .max : .min) : difference)
    }
}

extension Duration {
    /// The duration in nanoseconds, held to what 64 bits express (292 years).
    public var nanosecondsSaturated: Int64 {
        let (seconds, attoseconds) = components
        let (product, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, overflow2) = product.addingReportingOverflow(attoseconds / 1_000_000_000)
        return overflow || overflow2 ? (seconds < 0 ? .min : .max) : sum
    }

    public var millisecondsSaturated: Int64 { nanosecondsSaturated / 1_000_000 }
}
