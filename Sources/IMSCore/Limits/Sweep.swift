import MATCore
import MATSignal

/// When it is time to look for what has run out.
///
/// ```
///   nothing to sweep ── something is kept ──► due in a second ── swept ──► nothing to sweep
/// ```
struct Sweep: Sendable {
    private enum State: Sendable {
        case idle
        case due(MonotonicTime)
    }

    private var state = State.idle

    /// How often what has run out is looked for.
    static let interval: Duration = .seconds(1)
    /// Entries of a table looked at in one sweep: a part of a large table, so that nobody waits for it.
    static func steps(_ count: Int) -> Int { max(1024, count / 16) }

    var nextDeadline: MonotonicTime? {
        if case .due(let time) = state { return time }
        return nil
    }

    /// Something is kept that will run out.
    mutating func begin(_ now: MonotonicTime) {
        if case .idle = state { state = .due(now + Self.interval) }
    }

    /// - Returns: whether to sweep now.
    mutating func isDue(_ now: MonotonicTime) -> Bool {
        guard case .due(let time) = state, time <= now else { return false }
        state = .idle
        return true
    }
}

extension RateTable {
    /// Looks at some buckets and forgets those that are full.
    mutating func sweep(_ now: MonotonicTime) { forgetIdle(at: now, steps: Sweep.steps(count)) }
}
