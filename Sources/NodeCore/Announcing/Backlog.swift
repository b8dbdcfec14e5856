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
/// What is to be done stands in each peer (`Telling`); here is only in which order. A second move before the end gathers anew.
struct Backlog: Sendable {
    enum Step: Hashable, Sendable {
        case tellPeer(HomeAddress)
        case askServers(HomeAddress, Telling.Duties)
        /// Nothing more before this time.
        case pause(until: MonotonicTime)
    }

    /// With no more peers than this the work starts in the event that caused it; with more it waits until the kernel has switched.
    static let atOnceMax = 1024
    /// How often the work goes on: the pace's turns in between are taken together.
    static let tick: Duration = .milliseconds(5)
    /// Requests under way, at which new ones wait for answers or time-outs: bounds memory where nobody answers.
    static let underWayMax = 4096

    /// What all peers of a family are to be told, not gathered yet.
    private var gathering = FamilyPair<Telling.Duties>(both: [])
    private var order: [PeerSlot] = []
    private var told = 0
    private var asked = 0

    /// All peers of a family, which the own HoA of that family talks to, have these duties.
    mutating func add(_ duties: Telling.Duties, in family: AddressFamily) { gathering[family].formUnion(duties) }

    /// Gives peers what they are to be told, and puts all that are still owed something in order, those with the latest traffic first: they are the
    /// ones who miss us.
    private mutating func gather(in peers: inout PeerTable, _ moves: FamilyPair<UInt32>) {
        guard gathering != FamilyPair(both: []) else { return }
        var entries: [(slot: PeerSlot, hoa: HomeAddress, lastTraffic: MonotonicTime)] = []
        for slot in peers.slots {
            guard let peer = peers[slot], !gathering[peer.hoa.family].isEmpty || !peer.telling.duties.isEmpty else { continue }
            entries.append((slot, peer.hoa, peer.lastTraffic))
        }
        for entry in entries where !gathering[entry.hoa.family].isEmpty {
            let (duties, move) = (gathering[entry.hoa.family], moves[entry.hoa.family])
            peers.update(entry.hoa) { $0.tell { $0.owe(duties, of: move) } }
        }
        gathering = FamilyPair(both: [])
        entries.sort { ($1.lastTraffic, $0.hoa) < ($0.lastTraffic, $1.hoa) }
        begin(entries.map(\.slot))
    }

    private mutating func begin(_ order: [PeerSlot]) {
        self.order = order
        (told, asked) = (0, 0)
    }

    /// What is to be done next; `nil` when all is done, and all memory of it given back.
    ///
    /// - Parameters:
    ///   - moves: the numbers of our last moves, by family; see `Announcement`.
    ///   - opens: when the pace lets the next message go.
    ///   - isFull: as many requests are under way as may be.
    mutating func next(in peers: inout PeerTable, moves: FamilyPair<UInt32>, opens: MonotonicTime, isFull: Bool, now: MonotonicTime) -> Step? {
        gather(in: &peers, moves)
        guard !order.isEmpty else { return nil }
        guard opens <= now, !isFull else { return .pause(until: max(opens, now + Self.tick)) }
        while told < order.count {
            defer { told += 1 }
            if let hoa = peers[order[told]]?.hoa, begin(.tellPeer, of: hoa, in: &peers) != [] { return .tellPeer(hoa) }
        }
        while asked < order.count {
            defer { asked += 1 }
            guard let hoa = peers[order[asked]]?.hoa else { continue }
            let duties = begin([.tellServer, .subscribe], of: hoa, in: &peers)
            if !duties.isEmpty { return .askServers(hoa, duties) }
        }
        begin([])
        return nil
    }

    private func begin(_ duties: Telling.Duties, of hoa: HomeAddress, in peers: inout PeerTable) -> Telling.Duties {
        peers.update(hoa) { $0.tell { $0.begin(duties) } } ?? []
    }
}
