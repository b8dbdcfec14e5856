import MATCore
import MATSignal

/// The peers that relays may carry packets to, and where this node visits for them.
struct RelayTable: Sendable {
    /// A visitor's binding of the own HoA of this family.
    struct Visit: Hashable, Comparable, Sendable {
        let family: AddressFamily
        let relay: Endpoint

        static func < (a: Visit, b: Visit) -> Bool { (a.family, a.relay) < (b.family, b.relay) }
    }

    /// Relays visited, of the whole node: each costs a datagram every 25 s. Beyond them a peer is not reached by its relays.
    static let visitsMax = 64

    private let visitsMax: Int
    private var peers: PeerMachines<PeerRelays>
    /// How many peers each is visited for.
    private var visitors: [Visit: Int] = [:]
    /// Those of them that are made.
    private var admitted: Set<Visit> = []
    /// Whose candidate each relay is.
    private var claimants: [Endpoint: Set<HomeAddress>] = [:]

    init(peersMax: Int, visitsMax: Int) {
        peers = PeerMachines(peersMax: peersMax)
        self.visitsMax = visitsMax
    }

    subscript(hoa: HomeAddress) -> PeerRelays? { peers[hoa] }

    var isEmpty: Bool { peers.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { peers.hoas }
    /// Where this node is to be a visitor, at most `visitsMax`.
    var visits: [Visit] { admitted.sorted() }

    /// The peers whose relayed path is in use: what it carries is to be read at short intervals.
    private(set) var watched: Set<HomeAddress> = []

    /// The peers whose packets may go by a relay; in order.
    func peers(of relay: Endpoint) -> [HomeAddress] { claimants[relay]?.sorted() ?? [] }

    /// Tells a peer's relays.
    ///
    /// - Returns: what follows; nothing if the peer has no relays.
    mutating func tell(_ hoa: HomeAddress, _ event: (inout PeerRelays) -> [PeerRelays.Action]) -> [PeerRelays.Action] {
        change(hoa, event) ?? []
    }

    /// Likewise, for a peer that may have had none.
    mutating func enter(_ hoa: HomeAddress, _ event: (inout PeerRelays) -> [PeerRelays.Action]) -> [PeerRelays.Action] {
        change(hoa, enters: true, event) ?? []
    }

    /// Tells a peer's relays something that nothing follows from.
    mutating func update(_ hoa: HomeAddress, _ event: (inout PeerRelays) -> Void) { _ = change(hoa, event) }

    private mutating func change<Answer>(_ hoa: HomeAddress, enters: Bool = false, _ event: (inout PeerRelays) -> Answer) -> Answer? {
        let (wanted, candidates) = (peers[hoa]?.wanted ?? [], peers[hoa]?.candidates ?? [])
        let answer = peers.tell(hoa, enters: enters, event)
        changed(hoa, wanted: wanted, candidates: candidates)
        return answer
    }

    /// - Parameters: what its relays were before.
    private mutating func changed(_ hoa: HomeAddress, wanted: [Endpoint], candidates: [PeerRelays.Candidate]) {
        let relays = peers[hoa]
        if relays?.wanted ?? [] != wanted {
            for relay in wanted { leave(Visit(family: hoa.family, relay: relay)) }
            for relay in relays?.wanted ?? [] { enter(Visit(family: hoa.family, relay: relay)) }
        }
        if relays?.candidates ?? [] != candidates {
            for candidate in candidates { unclaim(candidate.relay, by: hoa) }
            for candidate in relays?.candidates ?? [] { claimants[candidate.relay, default: []].insert(hoa) }
        }
        if relays?.isWatched ?? false { watched.insert(hoa) } else { watched.remove(hoa) }
    }

    mutating func remove(_ hoa: HomeAddress) {
        guard let relays = peers[hoa] else { return }
        peers.remove(hoa)
        changed(hoa, wanted: relays.wanted, candidates: relays.candidates)
    }

    /// One that is not admitted waits for another to end; whoever wants it asks the next relay after a while.
    private mutating func enter(_ visit: Visit) {
        visitors[visit, default: 0] += 1
        if admitted.count < visitsMax { admitted.insert(visit) }
    }

    private mutating func leave(_ visit: Visit) {
        guard let count = visitors[visit] else { return }
        visitors[visit] = count > 1 ? count - 1 : nil
        guard count == 1, admitted.remove(visit) != nil, visitors.count > admitted.count else { return }
        if let next = visitors.keys.filter({ !admitted.contains($0) }).min() { admitted.insert(next) }
    }

    private mutating func unclaim(_ relay: Endpoint, by hoa: HomeAddress) {
        claimants[relay]?.remove(hoa)
        if claimants[relay]?.isEmpty == true { claimants[relay] = nil }
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) { peers.tellAll { $0.installedMoved(from: from.address, to: to.address) } }

    var nextDue: MonotonicTime? {
        mutating get { peers.nextDue }
    }

    /// The peer whose relays have something due.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { peers.takeDue(now) }
}
