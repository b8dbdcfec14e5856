import MATSignal

/// Who is still to be told of our last moves. With 100,000 peers that takes a minute, at a rate that leaves the link to the users:
///
/// ```
///   move ──► kernel switched, at once for all ──► gathered: peers in order of their last traffic
///                                                     │
///            first pass:  MA Notify to the peer ◄─────┤   each as `Pace` lets it; a retransmission takes its turn like the rest
///            second pass: HA Notify to its IMS, ◄─────┘
///                         MA Query with SUBSCRIBE        HA Notifies to one IMS: as many a second as it takes, see `NotifyQueues`
/// ```
/// What is to be done stands in each peer (`Peer.duties`); here is only in which order. A second move before the end gathers anew.
struct Backlog: Sendable {
    /// A peer that is to be told.
    struct Entry: Sendable {
        let slot: PeerSlot
        let hoa: HomeAddress
        let lastTraffic: MonotonicTime
    }

    enum Step: Hashable, Sendable {
        case tellPeer(PeerSlot)
        case askServers(PeerSlot)
        /// Nothing more before this time.
        case pause(until: MonotonicTime)
    }

    /// With no more peers than this the work starts in the event that caused it; with more it waits until the kernel has switched.
    static let atOnceMax = 1024
    /// How often the work goes on: the pace's turns in between are taken together.
    static let tick: Duration = .milliseconds(5)
    /// Requests under way, at which new ones wait for answers or time-outs: bounds memory where nobody answers.
    static let underWayMax = 4096

    /// Own HoAs whose peers are to be told, not gathered yet.
    private var gathering: [HomeAddress: Peer.Duties] = [:]
    private var order: [PeerSlot] = []
    private var told = 0
    private var asked = 0

    /// All peers of an own HoA have these duties.
    mutating func add(_ duties: Peer.Duties, of own: HomeAddress) { gathering[own, default: []].formUnion(duties) }

    /// What the peers of each own HoA are to be given to do before the work goes on; `nil` if nothing was added.
    mutating func gather() -> [HomeAddress: Peer.Duties]? {
        guard !gathering.isEmpty else { return nil }
        defer { gathering = [:] }
        return gathering
    }

    /// Starts over with these, those with the latest traffic first: they are the ones who miss us.
    mutating func begin(_ entries: [Entry]) {
        order = entries.sorted { ($1.lastTraffic, $0.hoa) < ($0.lastTraffic, $1.hoa) }.map(\.slot)
        (told, asked) = (0, 0)
    }

    /// What is to be done next; `nil` when all is done, and all memory of it given back.
    ///
    /// - Parameters:
    ///   - opens: when the pace lets the next message go.
    ///   - isFull: as many requests are under way as may be.
    mutating func next(opens: MonotonicTime, isFull: Bool, now: MonotonicTime) -> Step? {
        guard !order.isEmpty else { return nil }
        guard opens <= now, !isFull else { return .pause(until: max(opens, now + Self.tick)) }
        if told < order.count {
            defer { told += 1 }
            return .tellPeer(order[told])
        }
        if asked < order.count {
            defer { asked += 1 }
            return .askServers(order[asked])
        }
        begin([])
        return nil
    }
}
