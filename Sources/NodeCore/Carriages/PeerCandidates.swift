import MATCore
import MATSignal

/// Places of one peer in the network that we are in: addresses that only there mean the same to both (protocol.md section 11.4, "Same site").
///
/// ```
///   CANDIDATES came, or the peer's own probe ──► offered ──► probing: 3 tries ──► proven ──► packets go there rewritten
///                                                   ▲            │ no answer        │ │ 15 s of use: probed anew; not answered, or the peer or we
///                                                   └────────────┘                  └─┴─ moved ──► outdated: probed anew, and the last way that packets take,
///                                                                                             for 2 s; then as offered
/// ```
/// Two things are shown, and one does not follow from the other: the peer's signed probe from there shows that its packets may come from there
/// (`heard`); its answer to a probe that we had signed shows that it has taken ours in likewise, and so that ours may go there (`proven`).
struct PeerCandidates: PeerMachine {
    typealias Asked = PeerEndpoints.Asked

    enum Action: Hashable, Sendable {
        /// As for `PeerEndpoints`.
        case probe(Endpoint, Asked?)
        /// What the kernel has for them may be another now.
        case choose
    }

    private struct Place: Sendable {
        let endpoint: Endpoint
        var state = EndpointState.unproven
        /// Our own address that it was proven from.
        var own: IPAddress?
        var provenAt: MonotonicTime?
        /// When the peer's signature last came from there.
        var heardAt: MonotonicTime?
        /// One of us has moved, and both networks may be there for a moment: it is the last way until then, if it was proven.
        var outdated: Outdated?
        var cookie: ServerCookie?
        var asked: Asked?
    }

    private struct Outdated: Sendable {
        let since: MonotonicTime
        /// It moved, and not we: where it was others may be.
        let isPeers: Bool

        var wayEnds: MonotonicTime { since + PeerCandidates.outdatedMax }
        /// Packets are taken from there until then.
        var ends: MonotonicTime { isPeers ? wayEnds : since + PeerCandidates.acceptedMax }
    }

    /// In the order in which the peer prefers them.
    static let placesMax = 8
    /// How long a way is the last one after a move: until the other end has followed.
    static let outdatedMax: Duration = .seconds(2)
    /// How long the peer's packets are taken where we were, as long as we are there as well.
    static let acceptedMax: Duration = .seconds(10)
    /// How long packets are taken from where the peer has shown itself, and sent there without packets from it: as long as any proof lasts.
    static let heardMax = EndpointState.proofLifetime
    static let renewalInterval: Duration = .seconds(15)
    /// After the last packet.
    static let idleMax: Duration = .seconds(25)

    private var places: [Place] = []
    private var usedAt: MonotonicTime?
    /// The places of its record.
    private var recorded: [Endpoint]?
    /// What the kernel was told.
    private(set) var installed: MobilePair?
    private(set) var installedSources: [MobileAddress] = []
    /// When the peer is told ours.
    private(set) var offers = CandidateOffers()

    // MARK: Questions

    var isEmpty: Bool { places.isEmpty && installed == nil && installedSources.isEmpty && !offers.isBegun }
    var endpoints: [Endpoint] { places.map(\.endpoint) }
    var sequences: [UInt32] { places.compactMap(\.asked?.sequence) }
    func state(of endpoint: Endpoint) -> EndpointState? { place(endpoint)?.state }
    func cookie(at endpoint: Endpoint) -> ServerCookie? { place(endpoint)?.cookie }
    func asked(at endpoint: Endpoint) -> Asked? { place(endpoint)?.asked }
    func isHeard(_ endpoint: Endpoint) -> Bool { place(endpoint)?.heardAt != nil }

    /// Where its packets may come from.
    var sources: [MobileAddress] { places.filter { $0.heardAt != nil }.map { MobileAddress($0.endpoint.address) }.sorted() }

    /// How its packets go: to the first of its places that is proven.
    ///
    /// - Parameter isLast: there is no other way: to where it was proven before one of us has moved, for a moment.
    func way(isLast: Bool = false, _ isUsable: (IPAddress) -> Bool) -> MobilePair? {
        for place in places where place.state.isProven && (place.outdated != nil) == isLast {
            if let own = place.own, isUsable(own) { return MobilePair(own: MobileAddress(own), peer: MobileAddress(place.endpoint.address)) }
        }
        return nil
    }

    var due: MonotonicTime? {
        places.reduce(nil) { due, place in
            let ends = place.outdated.map { place.state.isProven ? $0.wayEnds : $0.ends }
            return due.earlier(place.state.due).earlier(place.heardAt.map { $0 + Self.heardMax }).earlier(ends)
        }
    }

    private func place(_ endpoint: Endpoint) -> Place? { places.first { $0.endpoint == endpoint } }
    private func isUsed(_ now: MonotonicTime) -> Bool { usedAt.map { now - $0 < Self.idleMax } ?? false }

    // MARK: Events

    /// The peer says that it is there; what it said before and does not any more, and has not shown, is forgotten.
    mutating func offered(_ endpoints: [Endpoint], _ now: MonotonicTime) -> [Action] {
        let known = places
        places = endpoints.prefix(Self.placesMax).map { endpoint in known.first { $0.endpoint == endpoint } ?? Place(endpoint: endpoint) }
        let shown = known.filter { place in !endpoints.contains(place.endpoint) && place.heardAt != nil }
        places += shown.prefix(Self.placesMax - places.count)
        for index in places.indices { places[index].state.begin(isCourtesy: true, now) }
        return [.choose] + takeDue(now)
    }

    /// The peer's signature came from there: it receives there what we send from this own address.
    mutating func heard(_ endpoint: Endpoint, _ now: MonotonicTime) -> [Action] {
        if place(endpoint) == nil {
            guard places.count < Self.placesMax else { return [] }
            places.append(Place(endpoint: endpoint))
        }
        guard let index = places.firstIndex(where: { $0.endpoint == endpoint }) else { return [] }
        let isNews = places[index].heardAt == nil
        places[index].heardAt = now
        // From where we were it is taken, and no more.
        if places[index].outdated?.isPeers == false { return isNews ? [.choose] : [] }
        // It has no proof of us yet, and we have none of it.
        if !places[index].state.isProven { places[index].state.begin(isCourtesy: true, now) }
        return (isNews ? [.choose] : []) + takeDue(now)
    }

    /// It answered a challenge. Only what answers a probe that we had signed shows that it takes our packets in.
    mutating func proved(_ endpoint: Endpoint, from own: IPAddress, _ now: MonotonicTime) -> [Action] {
        guard let index = places.firstIndex(where: { $0.endpoint == endpoint }), places[index].cookie != nil else { return [] }
        let isElsewhere = places[index].own != own
        let wasOutdated = places[index].outdated != nil
        (places[index].own, places[index].provenAt, places[index].heardAt, places[index].outdated) = (own, now, now, nil)
        return places[index].state.proved(now) || isElsewhere || wasOutdated ? [.choose] : []
    }

    /// It gave its cookie for where we are.
    ///
    /// - Returns: a probe that signs it.
    mutating func gaveCookie(_ cookie: ServerCookie, isWanted: Bool, at endpoint: Endpoint) -> [Action] {
        guard let index = places.firstIndex(where: { $0.endpoint == endpoint }), places[index].cookie != cookie else { return [] }
        let isFirst = places[index].cookie == nil
        places[index].cookie = cookie
        guard isFirst || isWanted, let asked = places[index].asked else { return [] }
        return [.probe(endpoint, asked)]
    }

    mutating func began(_ endpoint: Endpoint, _ asked: Asked) {
        if let index = places.firstIndex(where: { $0.endpoint == endpoint }) { places[index].asked = asked }
    }

    /// Packets go to the peer, or come from it.
    mutating func use(_ now: MonotonicTime) -> [Action] {
        usedAt = now
        for index in places.indices where places[index].state.isProven && !places[index].state.isProbing {
            if let proven = places[index].provenAt, now - proven >= Self.renewalInterval { places[index].state.beginAnew(keepsProof: true, now) }
        }
        return takeDue(now)
    }

    /// These are the places of its record in force.
    ///
    /// - Returns: what follows if they are others than before.
    mutating func listed(_ endpoints: [Endpoint], _ now: MonotonicTime) -> [Action] {
        defer { recorded = endpoints }
        guard let recorded, recorded != endpoints else { return [] }
        // What it was told before, it did not take for its own network's.
        offers = CandidateOffers()
        return peerMoved(now)
    }

    /// The peer moved: where it was it may be no more, and others may be there.
    mutating func peerMoved(_ now: MonotonicTime) -> [Action] {
        guard !places.isEmpty else { return [] }
        for index in places.indices {
            (places[index].cookie, places[index].provenAt) = (nil, nil)
            places[index].outdated = Outdated(since: now, isPeers: true)
            if places[index].state.isProven {
                places[index].state.beginAnew(keepsProof: true, now)
            } else {
                places[index].state = .unproven
                places[index].state.begin(isCourtesy: true, now)
            }
        }
        return [.choose] + takeDue(now)
    }

    /// Our own addresses changed: what is not on a link of ours any more means another host. On one that is not the first any more, packets are taken
    /// until the peer has followed.
    ///
    /// - Parameter isFirst: an own address is on the first link.
    mutating func moved(keeping isHere: (Endpoint) -> Bool, isFirst: (IPAddress) -> Bool, _ now: MonotonicTime) -> [Action] {
        offers = CandidateOffers()
        places.removeAll { !isHere($0.endpoint) || $0.heardAt == nil }
        for index in places.indices {
            let isOurs = places[index].own.map(isFirst) ?? false
            if isOurs, places[index].outdated?.isPeers == false { places[index].outdated = nil }
            if !isOurs, places[index].outdated == nil { places[index].outdated = Outdated(since: now, isPeers: false) }
        }
        return [.choose]
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for index in places.indices {
            switch places[index].state.takeDue(isUsed: isUsed(now), now) {
            case .nothing: break
            case .probe:
                if places[index].state.isFirstOfSeries { places[index].asked = nil }
                actions.append(.probe(places[index].endpoint, places[index].asked))
            case .lost: actions.append(.choose)
            }
            if let heard = places[index].heardAt, now - heard >= Self.heardMax {
                places[index].heardAt = nil
                actions.append(.choose)
            }
            guard let outdated = places[index].outdated, outdated.wayEnds <= now else { continue }
            if outdated.ends <= now { (places[index].outdated, places[index].heardAt) = (nil, nil) }
            places[index].state.end()
            actions.append(.choose)
        }
        return actions
    }

    mutating func install(_ way: MobilePair?, sources: [MobileAddress]) { (installed, installedSources) = (way, sources) }

    mutating func installedMoved(from: MobileAddress, to: MobileAddress) {
        if let way = installed, way.own == from { installed = MobilePair(own: to, peer: way.peer) }
    }

    // MARK: Offers

    /// Whether the peer is to be told ours now, over the path in datagrams that its packets take.
    mutating func offer(_ now: MonotonicTime) -> Bool { offers.offer(now) }

    /// It told us its own.
    mutating func offerReturned(_ now: MonotonicTime) -> Bool { offers.returned(now) }

    mutating func offerEnded(isAnswered: Bool, _ now: MonotonicTime) -> Bool { offers.ended(isAnswered: isAnswered, now) }
}
