import MATSignal

/// Whether the member that is asked still answers at all, and whether etcd has elected another leader since it was asked.
///
/// ```
///        100 ms after the last question           no answer for `patience`: 150 ms or more       for twice that
///   idle ───────────────────────────────► asked ──────────────────────────────────────────► late ───────────────► silent: the next member
///    ▲                                      │ answered: it lives, whatever a write waits for  │
///    └──────────────────────────────────────┴─────────────────────────────────────────────────┘
///                 its term is a later one: what was asked before is asked again
/// ```
/// A write waits for other members, their disks and elections, so its silence tells little, and only after a second. What is asked here the
/// member answers from its own memory: who does not is stopped, cut off or dead, or this server is cut off itself, which it has to know before it
/// is heard again (`Doubt`). The answer tells the term: a proposal that a member had sent on to a leader that died is lost without a word
/// (Raft leaves it to the client to ask again), and etcd ends it after seven seconds.
struct MemberProbe: Sendable {
    /// From one question to the next: ten reads of one key in a second, of which the other members hear nothing.
    static let interval: Duration = .milliseconds(100)
    /// Before anything is known of how long answers take.
    static let patienceDefault: Duration = .milliseconds(300)
    static let patienceMin: Duration = .milliseconds(150)
    static let patienceMax: Duration = .milliseconds(500)
    /// Ticks before silence is believed: if this process did not run meanwhile, an answer may lie in the socket unread.
    static let ticksMin = 3

    enum OnTick: Equatable, Sendable {
        case nothing
        case ask
        /// It may be that others have gone on without it, and without this server, since it was asked.
        case late(since: MonotonicTime)
        case silent
    }

    private enum State: Sendable {
        case idle(askedAt: MonotonicTime)
        case asked(at: MonotonicTime, ticks: Int, isLate: Bool)
    }

    private var state = State.idle(askedAt: .zero)
    private var times = AnswerTimes()
    /// Silences since the last answer: each doubles what the next answer may take, so a member far away is not left again and again.
    private var silences = 0
    /// The latest that any member told.
    private var term: UInt64 = 0

    /// How long an answer may take before it is late.
    var patience: Duration {
        let usual = times.bound.map { max($0, Self.patienceMin) } ?? Self.patienceDefault
        return min(usual * (1 << min(silences, 3)), Self.patienceMax)
    }

    /// - Parameter canAsk: whether there is a connection to ask on.
    mutating func ticked(canAsk: Bool, _ now: MonotonicTime) -> OnTick {
        switch state {
        case .asked(let at, let ticks, let wasLate):
            let isLate = ticks + 1 >= Self.ticksMin && at + patience <= now
            guard isLate, wasLate, at + patience * 2 <= now else {
                state = .asked(at: at, ticks: ticks + 1, isLate: isLate || wasLate)
                return isLate && !wasLate ? .late(since: at) : .nothing
            }
            // It took so long at least, if it was slow and not silent.
            times.add(now - at)
            silences += 1
            state = .idle(askedAt: at)
            return .silent
        case .idle(let askedAt):
            guard canAsk, askedAt + Self.interval <= now else { return .nothing }
            state = .asked(at: now, ticks: 0, isLate: false)
            return .ask
        }
    }

    /// The member has answered, if only that it won't tell.
    mutating func answered(_ now: MonotonicTime) {
        guard case .asked(let at, _, _) = state else { return }
        state = .idle(askedAt: at)
        times.add(now - at)
        silences = 0
    }

    /// No answer is waited for any more: the link is lost, or this process was stopped.
    mutating func forget() { if case .asked(let at, _, _) = state { state = .idle(askedAt: at) } }

    /// - Returns: whether there was an election since the last answer, of whatever member.
    mutating func told(term: UInt64) -> Bool {
        guard term > self.term else { return false }
        defer { self.term = term }
        return self.term > 0
    }
}

/// What answers take, and what one may take before it is late: as TCP reckons it (RFC 6298).
private struct AnswerTimes: Sendable {
    private var smoothed: Duration?
    private var variation = Duration.zero

    /// Ticks are so coarse that two of them mean nothing.
    static let marginMin: Duration = .milliseconds(100)

    var bound: Duration? { smoothed.map { $0 + max(variation * 4, Self.marginMin) } }

    mutating func add(_ sample: Duration) {
        guard let smoothed else {
            self.smoothed = sample
            variation = sample / 2
            return
        }
        let difference = sample > smoothed ? sample - smoothed : smoothed - sample
        variation = variation * 3 / 4 + difference / 4
        self.smoothed = smoothed * 7 / 8 + sample / 8
    }
}
