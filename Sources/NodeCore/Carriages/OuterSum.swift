import MATSignal

/// Whether the datagrams of a path over IPv6 arrive without a UDP sum, which those of the kernel's programs lack (RFC 6935): some networks drop them
/// and let all others pass (protocol.md section 11.2). A path's packets go with a sum, by the agent, until a probe without one is answered.
///
/// ```
///              packets                    an answer, however late
///   unknown ─────────────► asking ─────────────────────────────────────► settled: not needed ── no packets for 25 s ──► resting
///   resting                 ▲ ▲ │                                            │                                        (asks again)
///                           │ └─┼───── 15 s of use, many packets, doubt ─────┘
///   30 s, 60 s ... 10 min   │   │ three unanswered, others answered
///                           └── settled: needed
/// ```
/// Where the kernel's programs send without one for an earlier run of the agent, it is not needed until probes say so, and they go at once.
/// Beside each goes one with a sum: where that stays unanswered too, nothing passes, and it is asked again after 2 s.
struct OuterSum: Sendable {
    enum Action: Hashable, Sendable {
        /// A probe without a sum is to go, and one with a sum behind it.
        case ask
        /// Sums are needed now, or no more.
        case changed
    }

    private struct Trial: Sendable {
        var tries = 1
        /// When the try has failed.
        var due: MonotonicTime
        let wait: Duration
        /// A probe with a sum came back.
        var hasCompanion = false
    }

    private enum State: Sendable {
        case unknown
        case asking(Trial)
        /// - Parameter next: when it is asked again, while packets go.
        case settled(next: MonotonicTime)
        /// Nobody uses the path.
        case resting
    }

    static let triesMax = 3
    /// How long a try waits for its answer before the next.
    static let answerWait: Duration = .seconds(1)
    /// Likewise, while packets may be lost.
    static let doubtfulWait: Duration = .milliseconds(200)
    /// How long a doubt does not count after an answer.
    static let doubtInterval: Duration = .milliseconds(500)
    /// How long an answer counts.
    static let answerMax: Duration = .seconds(3)
    /// When it is asked again without success, twice as long each time.
    static let retryMin: Duration = .seconds(30)
    static let retryMax: Duration = .seconds(600)
    /// Likewise, where nothing else came back either.
    static let silentRetry: Duration = .seconds(2)

    /// Datagrams are to have one.
    private(set) var isNeeded = true
    private var state = State.unknown
    private var usedAt: MonotonicTime?
    private var answeredAt: MonotonicTime?
    private var packetsUnconfirmed: UInt64 = 0
    /// Times in a row that ones with a sum came back and ones without did not.
    private var failures = 0

    /// - Parameter isNeeded: `false` where an earlier run has found out that those without one arrive.
    init(isNeeded: Bool = true) { self.isNeeded = isNeeded }

    // MARK: Questions

    /// Those without a sum do not arrive, and others do.
    var isMissed: Bool { failures > 0 }

    var due: MonotonicTime? {
        switch state {
        case .unknown, .resting: nil
        case .asking(let trial): trial.due
        case .settled(let next): next
        }
    }

    // MARK: Events

    /// Packets take this path.
    ///
    /// - Parameter packets: how many, since this was last told.
    mutating func use(packets: UInt64 = 0, _ now: MonotonicTime) -> [Action] {
        usedAt = now
        packetsUnconfirmed &+= packets
        switch state {
        case .asking: return []
        // What an earlier run found may have changed since.
        case .unknown where !isNeeded: return ask(Self.doubtfulWait, now)
        case .unknown, .resting: return ask(Self.answerWait, now)
        case .settled:
            let isDue = !isNeeded && packetsUnconfirmed >= PathMTU.busyPackets && isOld(PathMTU.busyConfirmInterval, now)
            return isDue ? ask(Self.answerWait, now) : []
        }
    }

    /// Something says that packets are lost.
    mutating func doubt(_ now: MonotonicTime) -> [Action] {
        guard !isNeeded, case .settled = state, isOld(Self.doubtInterval, now) else { return [] }
        return ask(Self.doubtfulWait, now)
    }

    /// A probe without a sum was answered.
    mutating func answered(_ now: MonotonicTime) -> [Action] {
        let isNews = isNeeded
        (isNeeded, answeredAt, failures, packetsUnconfirmed) = (false, now, 0, 0)
        state = .settled(next: now + PathMTU.confirmInterval)
        return isNews ? [.changed] : []
    }

    /// A probe with a sum was answered.
    mutating func answeredWithSum() {
        guard case .asking(var trial) = state else { return }
        trial.hasCompanion = true
        state = .asking(trial)
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        guard let due, due <= now else { return [] }
        switch state {
        case .unknown, .resting:
            return []
        case .settled:
            guard let usedAt, now - usedAt < PathMTU.idleMax else {
                state = .resting
                return []
            }
            return ask(Self.answerWait, now)
        case .asking(var trial):
            guard trial.tries >= Self.triesMax else {
                (trial.tries, trial.due) = (trial.tries + 1, now + trial.wait)
                state = .asking(trial)
                return [.ask]
            }
            let isNews = !isNeeded
            isNeeded = true
            state = .settled(next: now + (trial.hasCompanion ? min(Self.retryMax, Self.retryMin * (1 << min(failures, 5))) : Self.silentRetry))
            if trial.hasCompanion { failures += 1 }
            return isNews ? [.changed] : []
        }
    }

    // MARK: Steps

    private func isOld(_ age: Duration, _ now: MonotonicTime) -> Bool { answeredAt.map { now - $0 >= age } ?? true }

    private mutating func ask(_ wait: Duration, _ now: MonotonicTime) -> [Action] {
        state = .asking(Trial(due: now + wait, wait: wait))
        packetsUnconfirmed = 0
        return [.ask]
    }
}
