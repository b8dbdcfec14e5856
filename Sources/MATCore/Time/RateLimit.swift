import MATSignal

/// A token bucket: `rate` per second on average, up to `burst` at once.
public struct RateLimit: Hashable, Sendable {
    @usableFromInline let nanosecondsPerToken: Int64
    @usableFromInline let burst: Int64
    /// The bucket's level, told as the time at which it would be full: one number to keep per source.
    @usableFromInline var fullAt: MonotonicTime

    /// - Parameter rate: per second, at least 1; `burst` is the same unless given.
    @inlinable
    public init(perSecond rate: Int, burst: Int? = nil) {
        fullAt = MonotonicTime(nanoseconds: 0)
        nanosecondsPerToken = 1_000_000_000 / Int64(max(1, rate))
        self.burst = Int64(max(1, burst ?? rate))
    }

    /// Another rate from now on, with a full bucket. If it is what it was, what was taken stays taken.
    @inlinable
    public mutating func reconfigure(perSecond rate: Int) {
        let fresh = RateLimit(perSecond: rate)
        if fresh.nanosecondsPerToken != nanosecondsPerToken || fresh.burst != burst { self = fresh }
    }

    /// Takes a token if there is one.
    @inlinable
    public mutating func take(at now: MonotonicTime) -> Bool {
        // In numbers, and saturating: the clock's type does the same by way of `Duration`, whose 128 bits cost more than all else here.
        let (next, overflow) = max(fullAt.nanoseconds, now.nanoseconds).addingReportingOverflow(nanosecondsPerToken)
        guard !overflow else { return false }
        let (ahead, isBeyond) = next.subtractingReportingOverflow(now.nanoseconds)
        guard !isBeyond, ahead <= nanosecondsPerToken * burst else { return false }
        fullAt = MonotonicTime(nanoseconds: next)
        return true
    }

    /// Whether there is a token, which stays where it is.
    @inlinable
    public func hasToken(at now: MonotonicTime) -> Bool {
        var limit = self
        return limit.take(at: now)
    }

    /// Whether the bucket is full, so that forgetting it loses nothing.
    @inlinable public func isIdle(at now: MonotonicTime) -> Bool { fullAt <= now }
}
