import Glibc

/// Clocks in nanoseconds.
package enum Ticks {
    @inline(__always)
    package static func wall() -> UInt64 { read(CLOCK_MONOTONIC) }
    /// Processor time of this thread. The kernel counts softirqs that run in it, which is where packets are forwarded and
    /// received (unless it was built with CONFIG_IRQ_TIME_ACCOUNTING).
    @inline(__always)
    package static func thread() -> UInt64 { read(CLOCK_THREAD_CPUTIME_ID) }

    @inline(__always)
    private static func read(_ clock: clockid_t) -> UInt64 {
        var time = timespec()
        clock_gettime(clock, &time)
        return UInt64(time.tv_sec) &* 1_000_000_000 &+ UInt64(time.tv_nsec)
    }
}

extension Array where Element == Double {
    /// 0 of nothing.
    package var median: Double { quantile(0.5) }

    /// The value below which this fraction lies; between two, the weighted mean.
    package func quantile(_ fraction: Double) -> Double {
        let sorted = self.sorted()
        guard let last = sorted.last else { return 0 }
        let position = fraction * Double(sorted.count - 1)
        let index = Int(position)
        guard index + 1 < sorted.count else { return last }
        return sorted[index] + (sorted[index + 1] - sorted[index]) * (position - Double(index))
    }
}
