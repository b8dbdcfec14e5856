import MATCore
import MATSignal

/// HA Notifies by the IMS that they are for. It takes ten a second from one source (section 7, "Limits") and says code 7 to more:
///
/// ```
///            as many as it takes have gone; code 7
///   open ─────────────────────────────────────────► closed: peers wait in a queue
///    ▲  └── each HA Notify counts                      │
///    └─────────── its time has come ───────────────────┘   the queue's next peers are looked at, and theirs go
/// ```
struct NotifyQueues: Sendable {
    enum Admission: Hashable, Sendable {
        /// It goes, and is counted.
        case now
        /// It waits in the queue, which is looked at again then.
        case later(MonotonicTime)
    }

    /// A little less than what an IMS takes: a retransmission counts there too.
    static let notifiesPerSecond = 8
    /// IMSs for which a queue or a rate is kept.
    static let countMax = 4096
    /// How long an IMS that says code 7 without a time is left alone.
    static let pauseDefault: Duration = .seconds(2)
    static let pauseMax: Duration = .seconds(60)

    private struct Queue: Sendable {
        var pace = Pace(perSecond: notifiesPerSecond, burst: notifiesPerSecond)
        /// Code 7 was said: nothing before this.
        var pausedUntil = MonotonicTime.zero
        private var waiting: [HomeAddress] = []
        private var first = 0

        var hasWaiting: Bool { first < waiting.count }
        func opens(_ now: MonotonicTime) -> MonotonicTime { max(pausedUntil, pace.opens(now)) }
        func isIdle(_ now: MonotonicTime) -> Bool { !hasWaiting && pausedUntil <= now && pace.isIdle(now) }

        mutating func append(_ peer: HomeAddress) { waiting.append(peer) }

        mutating func removeFirst() -> HomeAddress? {
            guard hasWaiting else { return nil }
            defer {
                first += 1
                if !hasWaiting {
                    waiting = []
                    first = 0
                }
            }
            return waiting[first]
        }
    }

    private let countMax: Int
    private var queues: [IPAddress: Queue] = [:]

    init(countMax: Int) { self.countMax = countMax }

    /// Whether an IMS takes another HA Notify now.
    mutating func admit(_ peer: HomeAddress, to server: IPAddress, now: MonotonicTime) -> Admission {
        if queues[server] == nil {
            if queues.count >= countMax { queues = queues.filter { !$0.value.isIdle(now) } }
            // So many IMSs at once: their own limits have to do.
            guard queues.count < countMax else { return .now }
            queues[server] = Queue()
        }
        let opens = queues[server]?.opens(now) ?? now
        guard opens <= now else {
            // Where it stands: a copy would take all that wait along.
            queues[server]?.append(peer)
            return .later(opens)
        }
        _ = queues[server]?.pace.turn(now)
        return .now
    }

    /// The next peer whose HA Notify may go to this IMS now. It is not counted before it is admitted.
    mutating func next(for server: IPAddress, now: MonotonicTime) -> HomeAddress? {
        guard let queue = queues[server], queue.opens(now) <= now else { return nil }
        return queues[server]?.removeFirst()
    }

    /// When the queue of this IMS is to be looked at again, if somebody waits in it.
    func due(_ server: IPAddress, now: MonotonicTime) -> MonotonicTime? {
        guard let queue = queues[server], queue.hasWaiting else { return nil }
        return queue.opens(now)
    }

    /// An IMS said code 7: it is left alone for as long as it says, and then asked again for this peer.
    ///
    /// - Parameter lifetime: seconds.
    /// - Returns: when that is; `nil` if there is no queue for it.
    mutating func pause(_ server: IPAddress, for lifetime: UInt32?, then peer: HomeAddress, now: MonotonicTime) -> MonotonicTime? {
        guard let before = queues[server]?.pausedUntil else { return nil }
        let end = now + (lifetime.map { min(Self.pauseMax, .seconds(Int64(max(1, $0)))) } ?? Self.pauseDefault)
        queues[server]?.pausedUntil = max(before, end)
        queues[server]?.append(peer)
        return end
    }
}
