import MATCore
import MATSignal

/// Who is still to be told of our last moves. With 100,000 peers that takes a minute, at a rate that leaves the link to the users:
///
/// ```
///   move ──► kernel switched, at once for all ──► gathered: peers in order of their last traffic
///                                                     │
///            first pass:  MA Notify to the peer ◄─────┤   each as `Pace` lets it; a retransmission takes its turn like the rest
///            second pass: HA Notify to its IMS, ◄─────┘
///                         MA Query with SUBSCRIBE        HA Notifies to one IMS: as many a second as it takes, see `ServerQueue`
/// ```
/// What is to be done stands in each peer (`Peer.duties`); here is only in which order. A second move before the end gathers anew.
struct Backlog: Sendable {
    /// With no more peers than this the work starts in the event that caused it; with more it waits until the kernel has switched.
    static let atOnceMax = 1024
    /// How often the work goes on: the pace's turns in between are taken together.
    static let tick: Duration = .milliseconds(5)
    /// Requests under way, at which new ones wait for answers or time-outs: bounds memory where nobody answers.
    static let underWayMax = 4096

    /// Own HoAs whose peers are to be told, not gathered yet.
    var gathering: [HomeAddress: Peer.Duties] = [:]
    private var order: [PeerSlot] = []
    private var told = 0
    private var asked = 0

    var isEmpty: Bool { gathering.isEmpty && order.isEmpty }
    /// Peers that the first pass has not reached.
    var waiting: Int { order.count - told }

    /// Starts over with these, the first to be told first.
    mutating func begin(_ slots: [PeerSlot]) {
        order = slots
        (told, asked) = (0, 0)
    }

    /// The next of the first pass; `nil` when it is through.
    mutating func nextToTell() -> PeerSlot? {
        guard told < order.count else { return nil }
        defer { told += 1 }
        return order[told]
    }

    /// The next of the second pass. After the last one all memory of the work is given back.
    mutating func nextToAsk() -> PeerSlot? {
        guard asked < order.count else {
            begin([])
            return nil
        }
        defer { asked += 1 }
        return order[asked]
    }
}

/// HA Notifies that wait for their IMS: it takes ten a second from one source (section 7, "Limits") and says code 7 to more.
struct ServerQueue: Sendable {
    /// A little less than what an IMS takes: a retransmission counts there too.
    static let notifiesPerSecond = 8
    /// IMSs for which a queue or a rate is kept.
    static let queuesMax = 4096
    /// How long an IMS that says code 7 without a time is left alone.
    static let pauseDefault: Duration = .seconds(2)
    static let pauseMax: Duration = .seconds(60)

    private var pace = Pace(perSecond: notifiesPerSecond, burst: notifiesPerSecond)
    /// Code 7 was said: nothing before this.
    private var pausedUntil = MonotonicTime.zero
    private var waiting: [HomeAddress] = []
    private var first = 0

    var hasWaiting: Bool { first < waiting.count }
    func opens(_ now: MonotonicTime) -> MonotonicTime { max(pausedUntil, pace.opens(now)) }
    func isOpen(_ now: MonotonicTime) -> Bool { opens(now) <= now }
    func isIdle(_ now: MonotonicTime) -> Bool { !hasWaiting && pausedUntil <= now && pace.isIdle(now) }

    mutating func took(_ now: MonotonicTime) { _ = pace.turn(now) }
    mutating func pause(until time: MonotonicTime) { pausedUntil = max(pausedUntil, time) }
    mutating func wait(_ peer: HomeAddress) { waiting.append(peer) }

    mutating func next() -> HomeAddress? {
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
