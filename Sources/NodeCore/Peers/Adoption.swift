import IMTPlan
import MATSignal

/// Entries that an earlier run of the agent left in the kernel. Traffic flows through them, so they go on working while their peers are asked
/// for anew, instead of being dropped.
///
/// ```
///   an earlier run's entry ──► its peer is found, with the same place ──► the peer's entry
///                          ├─► its peer is found, elsewhere ────────────► removed, once the places that are being asked have answered
///                          └─► nobody claims it within a minute ────────► removed, unless the DNS says nothing about its peer
/// ```
struct Adoption: Sendable {
    /// How long an entry of an earlier run may go on without a peer behind it.
    static let timeMax: Duration = .seconds(60)
    /// Destinations under way, at which no more peers of an earlier run are asked for.
    static let atOnceMax = 512
    /// How often the asking goes on.
    static let tick: Duration = .milliseconds(20)

    /// What the end of their minute brings.
    enum OnDue: Equatable, Sendable {
        /// The DNS says nothing about some of their peers, which are asked for again; what the earlier run knew of them goes on.
        case goOn
        /// What nobody has claimed is removed.
        case end([IMTChange])
    }

    /// Kernel entries that no peer of this run stands behind yet.
    private var outbound: Set<HomePair> = []
    private var inbound: [HomePair: Set<MobileAddress>] = [:]
    /// Peers that are still to be asked for, the next one last.
    private var asking: [HomeAddress] = []

    /// Some entries have no peer of this run behind them yet.
    var hasEntries: Bool { !outbound.isEmpty || !inbound.isEmpty }
    var isAsking: Bool { !asking.isEmpty }
    var counts: (outbound: Int, inbound: Int) { (outbound.count, inbound.count) }

    /// All that have such an entry.
    var peers: Set<HomeAddress> { Set(outbound.map(\.peer)).union(inbound.keys.map(\.peer)) }

    mutating func begin(outbound: some Sequence<HomePair>, inbound: some Sequence<(key: Arrival, value: HomeAddress)>) {
        self.outbound = Set(outbound)
        self.inbound = [:]
        for (arrival, peer) in inbound { self.inbound[HomePair(own: arrival.own, peer: peer), default: []].insert(arrival.peer) }
    }

    /// These are to be asked for.
    mutating func ask(for peers: Set<HomeAddress>) { asking = peers.sorted(by: >) }

    /// The next one to ask for.
    mutating func next() -> HomeAddress? { asking.popLast() }

    /// Whether the earlier run took a place for that of another peer than this one.
    func isOthers(_ moa: MobileAddress, than peer: HomeAddress) -> Bool {
        inbound.contains { $0.key.peer != peer && $0.value.contains(moa) }
    }

    /// The peer's packets leave by an entry of this run.
    ///
    /// - Returns: whether there was one of an earlier run.
    mutating func claimOutbound(_ pair: HomePair) -> Bool { outbound.remove(pair) != nil }

    /// The places at which the earlier run had this peer, but for some that are kept a little longer.
    mutating func giveUpInbound(_ pair: HomePair, keeping kept: Set<MobileAddress>) -> Set<MobileAddress> {
        guard let places = inbound.removeValue(forKey: pair) else { return [] }
        let left = places.intersection(kept)
        if !left.isEmpty { inbound[pair] = left }
        return places.subtracting(left)
    }

    /// Their time is up. What nobody has claimed by now belongs to no peer of ours.
    ///
    /// - Parameters:
    ///   - isUndecided: the DNS says nothing about this one, which is no peer of this run.
    ///   - isHeld: somebody has proved since that he is there, and has an entry of the same key.
    mutating func due(isUndecided: (HomeAddress) -> Bool, isHeld: (MobileAddress) -> Bool) -> OnDue {
        let undecided = peers.filter(isUndecided)
        guard undecided.isEmpty else {
            ask(for: undecided)
            return .goOn
        }
        var changes = outbound.sorted().map { IMTChange.removeOutbound($0) }
        for (pair, places) in inbound.sorted(by: { $0.key < $1.key }) {
            changes += places.sorted().filter { !isHeld($0) }.map { .removeInbound(peer: $0, own: pair.own) }
        }
        (outbound, inbound) = ([], [:])
        return .end(changes)
    }
}
