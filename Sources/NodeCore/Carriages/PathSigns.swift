import MATCore
import MATSignal

/// Whether a path in datagrams, to an endpoint or through a relay, still gives signs while packets are sent on it (protocol.md section 11.4,
/// "Leaving and coming back").
///
/// ```
///           a packet is sent           500 ms without a sign,          no answer           no answer
///                on it                 and more is sent on it         to the probe        to the next
///   quiet ────────────────► waiting ─────────────────────────► probed ───────────► probed ───────────► silent
///     ▲                        │                                  │                   │                   │
///     └────────────────────────┴─── a packet came on it, or an answer to a probe ─────┴───────────────────┘
/// ```
/// Packets are known by counts that are read now and then. A stream that nobody answers keeps its path as long as probes are answered.
struct PathSigns: Hashable, Sendable {
    enum Action: Hashable, Sendable {
        /// A probe is to go on the path; an answer is to be told by `sign`.
        case probe
        /// Two stayed unanswered: another path is to be used.
        case leave
    }

    private enum State: Hashable, Sendable {
        case quiet
        /// - Parameter isRepeated: more was sent since.
        case waiting(since: MonotonicTime, isRepeated: Bool)
        case probed(count: Int, until: MonotonicTime)
        case silent
    }

    /// How long a path that is sent to may give no sign before it is probed.
    static let silenceMax: Duration = .milliseconds(500)
    /// Between two readings of the counts while packets go.
    static let readingInterval: Duration = .milliseconds(100)
    /// Probes that stay unanswered before the path is left.
    static let probesMax = 2
    /// How long an answer is waited for while the path's round trip is not known, and bounds of twice that.
    static let answerWait: Duration = .milliseconds(250)
    static let answerWaits: ClosedRange<Duration> = .milliseconds(100) ... .milliseconds(1000)
    /// After so long without a packet either way the counts need not be read at short intervals any more.
    static let useMax: Duration = .seconds(2)

    private struct Counts: Hashable, Sendable {
        let sent: UInt64
        let heard: UInt64
    }

    private var state = State.quiet
    /// As they were read last.
    private var counts: Counts?
    private var roundTrip: Duration?
    private var usedAt: MonotonicTime
    /// When it last gave a sign.
    private(set) var signAt: MonotonicTime?
    /// Packets went or came lately: its counts are to be read again soon.
    private(set) var isInUse = true

    /// - Parameter roundTrip: of this path, if it is known.
    init(roundTrip: Duration? = nil, _ now: MonotonicTime) {
        self.roundTrip = roundTrip
        usedAt = now
    }

    // MARK: Questions

    var isSilent: Bool { state == .silent }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? { if case .probed(_, let until) = state { until } else { nil } }

    private var wait: Duration { roundTrip.map { min(Self.answerWaits.upperBound, max(Self.answerWaits.lowerBound, $0 * 2)) } ?? Self.answerWait }

    // MARK: Events

    /// The counts were read: packets that were sent on the path so far, and that came on it. They may begin anew.
    mutating func counted(sent: UInt64, heard: UInt64, _ now: MonotonicTime) -> Action? {
        guard let last = counts, last.sent <= sent, last.heard <= heard else {
            counts = Counts(sent: sent, heard: heard)
            return nil
        }
        counts = Counts(sent: sent, heard: heard)
        if sent > last.sent || heard > last.heard {
            use(now)
        } else {
            isInUse = now - usedAt < Self.useMax || due != nil
        }
        guard heard == last.heard else {
            sign(now)
            return nil
        }
        switch state {
        case .quiet where sent > last.sent:
            state = .waiting(since: now, isRepeated: false)
        case .waiting(let since, let isRepeated):
            let isRepeated = isRepeated || sent > last.sent
            state = .waiting(since: since, isRepeated: isRepeated)
            // What was sent once and not again may want no answer, as the last segment of a connection does.
            guard isRepeated, now - since >= Self.silenceMax else { return nil }
            state = .probed(count: 1, until: now + wait)
            return .probe
        case .quiet, .probed, .silent:
            break
        }
        return nil
    }

    /// Packets go, or are about to.
    mutating func use(_ now: MonotonicTime) { (usedAt, isInUse) = (now, true) }

    /// The path gave a sign: a packet, or an answer to a probe.
    mutating func sign(_ now: MonotonicTime) {
        state = .quiet
        signAt = now
    }

    /// A probe was answered after this time.
    mutating func learn(roundTrip: Duration) { self.roundTrip = roundTrip }

    mutating func takeDue(_ now: MonotonicTime) -> Action? {
        guard case .probed(let count, let until) = state, until <= now else { return nil }
        guard count >= Self.probesMax else {
            state = .probed(count: count + 1, until: now + wait)
            return .probe
        }
        state = .silent
        return .leave
    }
}
