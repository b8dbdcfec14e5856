import MATSignal

/// Whether what is in memory may be told, or others may have gone on without this instance.
///
/// ```
///              this process was stopped, the member's answer is late, the link was lost or made anew
///   trusted ────────────────────────────────────────────────────────────────────────────────────► in doubt: answers and what the watch brings are held back
///      ▲                                                                                             │
///      └── a sign of life of now has come back through the watch, or the time is over
/// ```
/// What was written while this instance was away has come when a sign of life of now has: etcd took it after all that anybody was told is
/// done, and the watch brings it after that. It is held back from the loss of the link on, and not from its return: nodes may be heard again
/// before etcd is, at a server that was cut off from all. The held events are looked at as a whole before any of them is done.
///
/// Without etcd the doubt ends with time, for if etcd is nowhere to be had, nobody has gone on, and an old answer is better than none.
struct Doubt: Sendable {
    /// How long it may last without a sign of life.
    struct Limit: Sendable {
        /// While no member of etcd can be reached: this server is likely to be cut off.
        var alone: Duration
        /// From when one was reached, or its machine said that etcd does not run there: it is likely that etcd has no quorum.
        var inTouch: Duration
        /// Whether the longest time that answers are ever withheld counts from now: what is known is older than it was thought to be.
        var isAnew = false
    }

    private struct Doubted: Sendable {
        var began: MonotonicTime
        var untilAlone: MonotonicTime
        var inTouch: Duration
        var inTouchSince: MonotonicTime?
        /// The sign of life that ends it.
        var awaited: UInt64
        var held: [EtcdWatchResponse.Event]

        var until: MonotonicTime {
            let until = inTouchSince.map { min($0 + inTouch, untilAlone) } ?? untilAlone
            return min(until, began + ClusterInstance.doubtMax)
        }
    }

    private enum State: Sendable {
        case trusted
        case doubted(Doubted)
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
        if case .doubted(let doubted) = state { return doubted.until <= now }
        return false
    }

    func isAwaited(_ count: UInt64) -> Bool {
        if case .doubted(let doubted) = state { return count >= doubted.awaited }
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
    mutating func begin(for limit: Limit, awaiting count: UInt64, _ now: MonotonicTime) -> UInt64 {
        number += 1
        var next = Doubted(
            began: now, untilAlone: now + limit.alone, inTouch: limit.inTouch, awaited: count, held: [])
        if case .doubted(let earlier) = state {
            state = .trusted
            if !limit.isAnew { next.began = earlier.began }
            next.untilAlone = max(next.untilAlone, earlier.untilAlone)
            next.inTouch = max(next.inTouch, earlier.inTouch)
            next.awaited = max(next.awaited, earlier.awaited)
            next.held = earlier.held
        }
        state = .doubted(next)
        return number
    }

    /// A member of etcd, or the machine that it should be on, can be reached.
    mutating func inTouch(_ now: MonotonicTime) { change { $0.inTouchSince = $0.inTouchSince ?? now } }

    /// Holds what the watch brought.
    ///
    /// - Returns: whether there is room for more.
    mutating func hold(_ events: [EtcdWatchResponse.Event]) -> Bool {
        var hasRoom = true
        change {
            $0.held += events
            hasRoom = $0.held.count <= ClusterInstance.heldEventsMax
        }
        return hasRoom
    }

    /// - Returns: what was held; it is held no longer.
    mutating func release() -> [EtcdWatchResponse.Event] {
        var held: [EtcdWatchResponse.Event] = []
        change { swap(&held, &$0.held) }
        return held
    }

    /// - Returns: the number under which answers were withheld.
    mutating func end() -> UInt64 {
        state = .trusted
        return number
    }

    /// In place, for much may be held.
    private mutating func change(_ body: (inout Doubted) -> Void) {
        guard case .doubted(var doubted) = state else { return }
        state = .trusted
        body(&doubted)
        state = .doubted(doubted)
    }
}
