import MATSignal

/// How many log lines of a kind are written: what many are told at once must not fill the disk. Those left out are counted, and told before the
/// next one that is written.
package struct LimitedLog: Sendable {
    private var rate: RateLimit
    private var suppressed: UInt64 = 0

    package enum OnLine: Hashable, Sendable {
        /// Written, after a line that says how many were not, if there were such.
        case write(suppressedBefore: UInt64)
        case suppress
    }

    package init(perSecond: Int) { rate = RateLimit(perSecond: perSecond) }

    package mutating func reconfigure(perSecond: Int) { rate.reconfigure(perSecond: perSecond) }

    package mutating func line(_ now: MonotonicTime) -> OnLine {
        guard rate.take(at: now) else {
            suppressed += 1
            return .suppress
        }
        defer { suppressed = 0 }
        return .write(suppressedBefore: suppressed)
    }
}
