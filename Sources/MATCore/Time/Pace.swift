import MATSignal

/// Spreads sending over time: so many a second on average, a burst at once after a pause. What finds no room is told when its turn
/// comes, so that a thousand things that become due together go one after the other instead of trying again together.
package struct Pace: Sendable {
    private let interval: Duration
    private let burst: Duration
    /// The time that all turns given out so far stand for.
    private var taken = MonotonicTime.zero

    /// - Parameter perSecond: at least 1.
    package init(perSecond: Int, burst: Int) {
        interval = .nanoseconds(1_000_000_000 / Int64(max(1, perSecond)))
        self.burst = interval * max(0, burst - 1)
    }

    /// When the next turn comes.
    package func opens(_ now: MonotonicTime) -> MonotonicTime { max(now, taken - burst) }

    package func isOpen(_ now: MonotonicTime) -> Bool { opens(now) <= now }

    /// The next turn, which is given to nobody else.
    package mutating func turn(_ now: MonotonicTime) -> MonotonicTime {
        let turn = opens(now)
        taken = max(taken, now) + interval
        return turn
    }

    /// Counts what goes at once because a person waits for it. The others wait the longer, within limits.
    package mutating func charge(_ now: MonotonicTime) {
        taken = max(taken, min(max(taken, now) + interval, now + burst + Self.debtMax))
    }

    /// How long what goes at once may keep the rest waiting.
    private static let debtMax: Duration = .seconds(10)

    /// Whether forgetting it loses nothing.
    package func isIdle(_ now: MonotonicTime) -> Bool { taken <= now }
}

extension MonotonicTime {
    fileprivate static func - (time: MonotonicTime, delay: Duration) -> MonotonicTime { time + (.zero - delay) }
}
