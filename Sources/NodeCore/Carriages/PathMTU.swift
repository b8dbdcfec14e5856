import IMTPlan
import MATCore
import MATSignal

/// How large packets may be that travel in datagrams over one path: what is known, and what is tried (protocol.md section 11.2, "MTU").
///
/// ```
///             packets take the path                    all sizes pass, or one does not            10 minutes of use
///   unknown ──────────────────────► searching upwards ────────────────────────────────► settled ───────────────────► searching on
///                                     ▲   each size: three tries                           │ ▲
///                                     │                                doubt, 15 s of use  │ │ it passes; or nothing does: the path is silent,
///                                     │                                                    ▼ │ and says nothing of sizes
///                                     └────── it does not, small ones do: 1280 ──────── confirming the size in use
///                                                                                          ▲ packets again
///                                                  settled ──── no packets for 25 s ────► resting
/// ```
/// A try is two probes: one of the size, and right behind it one as small as can be. If that is answered and the large one is not, the path does not
/// carry the size, or a packet was lost. Where not even 1280 octets pass the path is narrow: datagrams are cut up by their sender.
struct PathMTU: Sendable {
    enum Action: Hashable, Sendable {
        /// A probe of that size is to go, and a small one behind it.
        case ask(UInt32)
        /// Packets of another size than before may be sent.
        case changed
    }

    /// A size that is asked for.
    private struct Trial: Sendable {
        let size: UInt32
        /// Of three.
        var tries = 1
        var sentAt: MonotonicTime
        /// A small packet came back that was sent behind a large one.
        var hasCompanion = false
        /// When the try has failed.
        var due: MonotonicTime

        /// A small packet came back. The large one of the same try, which went before it, is not far behind, or is lost.
        mutating func note(_ companionSentAt: MonotonicTime, _ now: MonotonicTime) {
            hasCompanion = true
            guard companionSentAt >= sentAt else { return }
            due = min(due, now + max(PathMTU.graceMin, (now - companionSentAt) / 2))
        }

        /// The next try; `nil` after the last.
        func again(_ now: MonotonicTime) -> Trial? {
            guard tries < PathMTU.triesMax else { return nil }
            var next = self
            next.tries += 1
            (next.sentAt, next.due) = (now, now + PathMTU.answerMax)
            return next
        }
    }

    private enum State: Sendable {
        case unknown
        case searching(Trial)
        /// - Parameter next: when the search goes on.
        case settled(next: MonotonicTime, confirm: MonotonicTime)
        case confirming(Trial, next: MonotonicTime)
        /// Nobody asks.
        case resting(next: MonotonicTime)
    }

    /// Packets of these sizes are tried, in octets of the packet inside the datagram: what Ethernet leaves over IPv4 (1472) and IPv6 (1452), with 1400
    /// octets likewise (1372), and between.
    static let sizes: [UInt32] = [Carriage.mtuAtFirst, 1372, 1400, 1424, 1452, Carriage.mtuUsual]
    static let triesMax = 3
    /// How long an answer is waited for, if a small packet does not tell earlier.
    static let answerMax: Duration = .seconds(1)
    /// How much longer than a small packet a large one may take, at least.
    static let graceMin: Duration = .milliseconds(20)
    static let searchInterval: Duration = .seconds(600)
    /// Between confirmations while packets go: a path that has become narrow says so to nobody where ICMP is filtered.
    static let confirmInterval: Duration = .seconds(15)
    /// Likewise, while many packets go: others that come back hide that the large ones are lost.
    static let busyConfirmInterval: Duration = .seconds(2)
    static let busyPackets: UInt64 = 200
    /// How long a doubt does not count after a confirmation: anybody can cause one.
    static let doubtInterval: Duration = .seconds(2)
    /// When a search in a path that was silent begins again; twice as long each time, since an agent of an earlier version never answers.
    static let silentInterval: Duration = .seconds(30)
    /// How long a path is one that is used.
    static let idleMax: Duration = .seconds(25)

    /// The largest size that has passed.
    private var size = Carriage.mtuAtFirst
    private var isNarrow = false
    private var state = State.unknown
    private var usedAt: MonotonicTime?
    private var confirmedAt: MonotonicTime?
    /// Either way, since it was last asked whether they pass.
    private var packetsUnconfirmed: UInt64 = 0
    /// Searches in a row without any answer.
    private var silences = 0
    /// Why it is not larger, for people.
    private(set) var failed: UInt32?

    init() {}

    /// - Parameter size: what packets have while an earlier run's programs send them. It is confirmed when this run's take the path.
    init(adopted size: UInt32, _ now: MonotonicTime) {
        self.size = min(max(size, Carriage.mtuAtFirst), Carriage.mtuUsual)
        state = .resting(next: now)
    }

    // MARK: Questions

    /// As `Carriage.largest`.
    var largest: UInt32 { isNarrow ? Carriage.mtuAtFirst - 1 : size }

    var isTrying: Bool {
        switch state {
        case .searching, .confirming: true
        case .unknown, .settled, .resting: false
        }
    }

    var due: MonotonicTime? {
        switch state {
        case .unknown, .resting: nil
        case .searching(let trial), .confirming(let trial, _): trial.due
        case .settled(let next, let confirm): min(next, confirm)
        }
    }

    func isUsed(_ now: MonotonicTime) -> Bool { usedAt.map { now - $0 < Self.idleMax } ?? false }

    // MARK: Events

    /// Packets take this path.
    ///
    /// - Parameter packets: how many, since this was last told.
    mutating func use(packets: UInt64 = 0, _ now: MonotonicTime) -> [Action] {
        usedAt = now
        packetsUnconfirmed &+= packets
        switch state {
        case .unknown: return search(from: Carriage.mtuAtFirst, now)
        // It may be another path under the same addresses by now.
        case .resting(let next): return confirm(next: next, now)
        case .settled(let next, _) where packetsUnconfirmed >= Self.busyPackets && isConfirmable(now): return confirm(next: next, now)
        case .settled, .searching, .confirming: return []
        }
    }

    /// Something says that packets of the size in use do not pass any more: an ICMP error that quotes the path, or silence.
    mutating func doubt(_ now: MonotonicTime) -> [Action] {
        guard !isNarrow, confirmedAt.map({ now - $0 >= Self.doubtInterval }) ?? true else { return [] }
        switch state {
        case .settled(let next, _): return confirm(next: next, now)
        // What passes is asked for before more is.
        case .searching(let trial) where trial.size > size: return confirm(next: now, now)
        case .unknown, .searching, .confirming, .resting: return []
        }
    }

    /// The answer to a probe of this size; 0: to a small one.
    mutating func answered(_ answered: UInt32, sentAt: MonotonicTime, _ now: MonotonicTime) -> [Action] {
        switch state {
        case .unknown, .settled, .resting:
            return []
        case .searching(var trial):
            if answered == trial.size { return passed(trial, now) }
            guard answered == 0 else { return [] }
            trial.note(sentAt, now)
            state = .searching(trial)
        case .confirming(var trial, let next):
            if answered == trial.size { return confirmed(next: next, now) }
            guard answered == 0 else { return [] }
            trial.note(sentAt, now)
            state = .confirming(trial, next: next)
        }
        return []
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        guard let due, due <= now else { return [] }
        switch state {
        case .unknown, .resting:
            return []
        case .settled(let next, _):
            guard isUsed(now) else {
                state = .resting(next: next)
                return []
            }
            return next <= now ? search(from: isNarrow ? Carriage.mtuAtFirst : nextSize, now) : confirm(next: next, now)
        case .searching(let trial):
            guard let again = trial.again(now) else { return trial.hasCompanion ? missed(trial, now) : settle(.silent, now) }
            state = .searching(again)
            return [.ask(trial.size)]
        case .confirming(let trial, let next):
            guard let again = trial.again(now) else { return trial.hasCompanion ? missed(trial, now) : settle(.before(next), now) }
            state = .confirming(again, next: next)
            return [.ask(trial.size)]
        }
    }

    // MARK: Steps

    private func isConfirmable(_ now: MonotonicTime) -> Bool { confirmedAt.map { now - $0 >= Self.busyConfirmInterval } ?? false }

    private var nextSize: UInt32? { Self.sizes.first { $0 > size } }

    private mutating func search(from first: UInt32?, _ now: MonotonicTime) -> [Action] {
        guard let first else { return settle(.done, now) }
        state = .searching(Trial(size: first, sentAt: now, due: now + Self.answerMax))
        return [.ask(first)]
    }

    private mutating func confirm(next: MonotonicTime, _ now: MonotonicTime) -> [Action] {
        guard !isNarrow else { return settle(.before(next), now) }
        packetsUnconfirmed = 0
        state = .confirming(Trial(size: size, sentAt: now, due: now + Self.answerMax), next: next)
        return [.ask(size)]
    }

    /// Its size passes.
    private mutating func passed(_ trial: Trial, _ now: MonotonicTime) -> [Action] {
        let isNews = isNarrow || trial.size != size
        (size, isNarrow, failed, confirmedAt, silences) = (trial.size, false, nil, now, 0)
        return (isNews ? [.changed] : []) + search(from: nextSize, now)
    }

    /// The size in use passes still.
    private mutating func confirmed(next: MonotonicTime, _ now: MonotonicTime) -> [Action] {
        confirmedAt = now
        return settle(.before(next), now)
    }

    /// Three of its size did not come back, and a small one did.
    private mutating func missed(_ trial: Trial, _ now: MonotonicTime) -> [Action] {
        failed = trial.size
        guard trial.size <= size else { return settle(.done, now) }
        // What was carried is not any more.
        guard trial.size > Carriage.mtuAtFirst else {
            let isNews = !isNarrow
            isNarrow = true
            return (isNews ? [.changed] : []) + settle(.done, now)
        }
        size = Carriage.mtuAtFirst
        return [.changed] + search(from: Carriage.mtuAtFirst, now)
    }

    private enum Outcome {
        case done
        case silent
        case before(MonotonicTime)
    }

    private mutating func settle(_ outcome: Outcome, _ now: MonotonicTime) -> [Action] {
        let next: MonotonicTime =
            switch outcome {
            case .done: now + Self.searchInterval
            case .silent: now + min(Self.searchInterval, Self.silentInterval * (1 << min(silences, 5)))
            case .before(let next): max(next, now)
            }
        if case .silent = outcome { silences += 1 }
        // What has never been answered has nothing to confirm.
        state = .settled(next: next, confirm: isNarrow || confirmedAt == nil ? next : now + Self.confirmInterval)
        return []
    }
}
