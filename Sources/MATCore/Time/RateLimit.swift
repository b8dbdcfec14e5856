import MATSignal

/// A token bucket: `rate` per second on average, up to `burst` at once.
public struct RateLimit: Hashable, Sendable {
    private let nanosecondsPerToken: Int64
    private let burst: Int64
    /// The bucket's level, told as the time at which it would be full: one number to keep per source.
    private var fullAt: MonotonicTime = .zero

    /// - Parameter rate: per second, at least 1; `burst` is the same unless given.
    public init(perSecond rate: Int, burst: Int? = nil) {
        nanosecondsPerToken = 1_000_000_000 / Int64(max(1, rate))
        self.burst = Int64(max(1, burst ?? rate))
    }

    /// Another rate from now on, with a full bucket. If it is what it was, what was taken stays taken.
    package mutating func reconfigure(perSecond rate: Int) {
        let fresh = RateLimit(perSecond: rate)
        if fresh.nanosecondsPerToken != nanosecondsPerToken || fresh.burst != burst { self = fresh }
    }

    /// Takes a token if there is one.
    public mutating func take(at now: MonotonicTime) -> Bool {
        let from = max(fullAt, now)
        let next = from + .nanoseconds(nanosecondsPerToken)
        guard next - now <= .nanoseconds(nanosecondsPerToken * burst) else { return false }
        fullAt = next
        return true
    }

    /// Whether the bucket is full, so that forgetting it loses nothing.
    public func isIdle(at now: MonotonicTime) -> Bool { fullAt <= now }
}
