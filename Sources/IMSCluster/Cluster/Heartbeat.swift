import MATSignal

/// This instance's signs of life: each is a write of its own key. The answer shows that etcd has a quorum and takes writes; that the write
/// comes back through the watch shows that all that was written before has come, too.
///
/// ```
///            send, while the link is up                answered                     comes back through the watch
///   due at t ─────────────────────────► sign n is sent ─────────► n is unechoed ───────────────────────────────► n is echoed
///    ▲                                     │                        └─ 2 s ─► the watch is silent
///    └────────── 500 ms later ─────────────┘ with the link all that is unechoed is forgotten
/// ```
struct Heartbeat: Sendable {
    /// Of the last sign that was sent.
    private(set) var count: UInt64 = 0
    private var next: MonotonicTime
    private var isSending = false
    private var sentAt: MonotonicTime?
    private var echoedCount: UInt64 = 0
    /// When the signs were answered that have not come back.
    private var unechoed: [(count: UInt64, at: MonotonicTime)] = []
    /// When the watch last brought one.
    private var echoedAt: MonotonicTime?

    init(_ now: MonotonicTime) { next = now }

    func isDue(_ now: MonotonicTime) -> Bool { !isSending && next <= now }

    /// - Parameter isFarewell: the same again and again, so that nobody takes it for a return.
    /// - Returns: the number of the sign that is sent now.
    mutating func send(isFarewell: Bool, _ now: MonotonicTime) -> UInt64 {
        isSending = true
        sentAt = now
        next = now + ClusterInstance.beatInterval
        if !isFarewell { count += 1 }
        return count
    }

    mutating func answered(_ count: UInt64, _ now: MonotonicTime) {
        isSending = false
        if count > echoedCount { unechoed.append((count, now)) }
    }

    mutating func failed() { isSending = false }

    /// The next one is due at this time, if not before.
    mutating func hurry(_ time: MonotonicTime) { next = min(next, time) }

    mutating func linkLost() {
        isSending = false
        sentAt = nil
        unechoed = []
        echoedAt = nil
    }

    /// What was to come back will not, or is not late: another watch begins, or this process was stopped.
    mutating func forgetUnechoed() { unechoed = [] }

    /// - Returns: whether it is news: one that was repeated, with another's death or after good-bye, counts once.
    mutating func echoed(_ count: UInt64, _ now: MonotonicTime) -> Bool {
        let isNews = count > echoedCount
        echoedCount = max(echoedCount, count)
        unechoed.removeAll { $0.count <= count }
        echoedAt = now
        return isNews
    }

    /// The first sign since then that has not come back: it is on its way, or the next one.
    func first(since time: MonotonicTime) -> UInt64 {
        if let sentAt, sentAt >= time, echoedCount < count { count } else { count + 1 }
    }

    /// Whether one was answered long ago and has not come back.
    func isWatchSilent(_ now: MonotonicTime) -> Bool { unechoed.first.map { $0.at + ClusterInstance.echoTimeMax < now } ?? false }

    /// Whether this instance hears itself, so that it may judge others.
    func hearsItself(_ now: MonotonicTime) -> Bool { echoedAt.map { $0 + ClusterInstance.echoAgeMax > now } ?? false }
}
