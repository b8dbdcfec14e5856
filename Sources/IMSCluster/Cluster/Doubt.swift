import MATSignal

/// Whether what is in memory may be told, or others may have gone on without this instance.
///
/// ```
///              this process was stopped, or the link was lost for long
///   trusted ─────────────────────────────────────────────────────────► in doubt: answers and what the watch brings are held back
///      ▲                                                                  │
///      └── a sign of life of now has come back through the watch, or the time is over
/// ```
/// What was written while this instance was away has come when a sign of life of now has. The held events are looked at as a whole before
/// any of them is done.
struct Doubt: Sendable {
    private enum State: Sendable {
        case trusted
        /// `awaited`: the sign of life that ends it.
        case doubted(until: MonotonicTime, awaited: UInt64, held: [EtcdWatchResponse.Event])
    }

    private var state = State.trusted
    private var number: UInt64 = 0
    private var tickedAt: MonotonicTime

    init(_ now: MonotonicTime) { tickedAt = now }

    var isInDoubt: Bool {
        if case .doubted = state { return true }
        return false
    }

    func isOver(_ now: MonotonicTime) -> Bool {
        if case .doubted(let until, _, _) = state { return until <= now }
        return false
    }

    func isAwaited(_ count: UInt64) -> Bool {
        if case .doubted(_, let awaited, _) = state { return count >= awaited }
        return false
    }

    /// - Returns: whether this process was stopped since the last call. Whoever is called first after a stop finds out: the watch's socket may
    ///   be read before the timer is seen to.
    mutating func hasSlept(_ now: MonotonicTime) -> Bool {
        guard tickedAt + ClusterInstance.gapMax < now else { return false }
        tickedAt = now
        return true
    }

    mutating func ticked(_ now: MonotonicTime) { tickedAt = now }

    /// - Returns: the number under which answers are withheld.
    mutating func begin(for time: Duration, awaiting count: UInt64, _ now: MonotonicTime) -> UInt64 {
        number += 1
        var until = now + time
        var events: [EtcdWatchResponse.Event] = []
        if case .doubted(let earlier, _, let held) = state {
            until = max(until, earlier)
            events = held
        }
        state = .doubted(until: until, awaited: count, held: events)
        return number
    }

    /// Holds what the watch brought.
    ///
    /// - Returns: whether there is room for more.
    mutating func hold(_ events: [EtcdWatchResponse.Event]) -> Bool {
        guard case .doubted(let until, let awaited, var held) = state else { return true }
        state = .trusted
        held += events
        state = .doubted(until: until, awaited: awaited, held: held)
        return held.count <= ClusterInstance.heldEventsMax
    }

    /// - Returns: what was held; it is held no longer.
    mutating func release() -> [EtcdWatchResponse.Event] {
        guard case .doubted(let until, let awaited, let held) = state, !held.isEmpty else { return [] }
        state = .doubted(until: until, awaited: awaited, held: [])
        return held
    }

    /// - Returns: the number under which answers were withheld.
    mutating func end() -> UInt64 {
        state = .trusted
        return number
    }
}
