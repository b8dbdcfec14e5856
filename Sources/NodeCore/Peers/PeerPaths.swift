import IMTPlan
import MATSignal

/// By which path each peer's packets travel, and so what the kernel is to have of it. A path is a pair of addresses: an own one, and a place of the
/// peer that has proved itself.
///
/// ```
///   its locators ──── proven, in its record's order ───┐
///                                                      ├──► the pairs, best first ──► the first, or ──► entries ──► what differs from the kernel's
///   own addresses ─── in the order for this peer ──────┘                              the detour
///
///   pathless ◄── there is no own address ──► told of the first that comes
/// ```
/// Our side weighs more than the peer's, for ours may be a matter of cost. What leaves from one own address moves with it in one step (`OwnPaths`),
/// whatever the number of peers; those with a detour or a preference of their own are looked at one by one.
struct PeerPaths: Sendable {
    /// What a node itself has for a peer.
    struct OwnSide: Sendable {
        /// The own HoA that talks to it.
        let home: HomeAddress
        /// Where that can be reached.
        let places: [MobileAddress]
        /// The own addresses for this peer, the best first.
        let preferred: [MobileAddress]
        /// The newest record of the own HoA: from what it does not list the peer accepts nothing.
        let record: MappingRecord?
        /// Own addresses before which a translator or firewall stands: rewritten packets do not pass there.
        var closed: Set<MobileAddress> = []
        /// The peer's places that rewritten packets are known not to reach, and from where.
        var filtered: Set<MobilePair> = []
        /// Of these places those where it is known to take datagrams.
        var answering: Set<MobileAddress> = []
        /// No rewritten packet is for this HoA.
        var isInDatagramsOnly = false

        /// Whether rewritten packets pass from an own address to a place.
        func passes(_ pair: MobilePair) -> Bool { !closed.contains(pair.own) && !filtered.contains(pair) }
    }

    /// What became of a peer's entries.
    struct Arranged: Equatable, Sendable {
        var changes: [IMTChange] = []
        /// Packets can be sent to it, and could not before.
        var hasOpened = false
    }

    /// The own addresses of an HoA are others: what leaves from them moved.
    struct Moved: Equatable, Sendable {
        var changes: [IMTChange] = []
        /// Numbers of own addresses that mean another one now.
        var numbers: Set<UInt8> = []
        /// Peers that waited for an own address.
        var waiting: [HomeAddress] = []
        /// What left from an address where packets are not rewritten, or leaves from one now: each peer is looked at.
        var isOneByOne = false
    }

    enum Action: Equatable, Sendable {
        /// What the kernel is to have of this peer has changed.
        case arrange(HomeAddress)
        /// Its new path is in use.
        case watch(HomeAddress)
        case count(WritableKeyPath<NodeCounters, UInt64> & Sendable)
        case log(NodeLogLevel, String)
    }

    /// What is to be probed.
    enum Probe: Equatable, Sendable {
        case path(MobilePair)
        /// Whether anything answers over this own address.
        case wayOut(MobileAddress)
    }

    /// Paths to one peer that are tried.
    static let triedMax = 8

    private var own = OwnPaths()
    private var detours: Detours
    private(set) var newPlaces = NewPlaces()
    /// Peers that were entered, or have new places, while there was no own address.
    private var pathless: Set<HomeAddress> = []

    init(_ configuration: PathConfiguration) { detours = Detours(configuration) }

    // MARK: Questions

    /// The peer's places that packets may be sent to, in its record's order.
    private func proven(_ peer: Peer, _ addresses: UsableAddresses) -> [MobileAddress] { peer.proven { addresses.canBeLocator($0, of: peer.hoa) } }

    /// Where to send to: the first of its places that is proven, or that of a detour as long as its record lists it.
    private func target(of peer: Peer, _ addresses: UsableAddresses) -> MobileAddress? {
        let proven = proven(peer, addresses)
        if let moa = detours[peer.hoa]?.moa, peer.lists(moa), proven.contains(moa) { return moa }
        if let present = peer.target, newPlaces.awaited(peer.hoa) == proven.first, proven.contains(present) { return present }
        return proven.first
    }

    /// The own address that its traffic leaves from.
    func departure(of peer: Peer, _ side: OwnSide) -> MobileAddress? {
        guard let moa = detours[peer.hoa]?.own, side.places.contains(moa) else { return own[peer.path] }
        return moa
    }

    /// The own address of its detour: a peer that only a detour reaches is told by it.
    func detourDeparture(of peer: Peer, _ side: OwnSide) -> MobileAddress? { detours[peer.hoa]?.own == nil ? nil : departure(of: peer, side) }

    /// The path that its packets are to take.
    func current(of peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses) -> MobilePair? {
        // While there is no own address the one that was first may have been of the other family, where nothing is rewritten.
        guard let own = departure(of: peer, side), own.family == side.home.family, !StandIns.isStandIn(own.address),
            let moa = target(of: peer, addresses),
            // They go on in datagrams to where it was.
            newPlaces.awaited(peer.hoa) != moa
        else { return nil }
        let pair = MobilePair(own: own, peer: moa)
        if side.passes(pair) { return pair }
        // Until datagrams are known to arrive there, packets go on to where it was and still is.
        guard !side.answering.contains(moa), let present = peer.target, proven(peer, addresses).contains(present) else { return nil }
        let before = MobilePair(own: own, peer: present)
        return side.passes(before) ? before : nil
    }

    /// The path that the kernel has for its packets; `nil` if it has no entry.
    func installed(of peer: Peer) -> MobilePair? {
        guard let own = own[peer.installedPath], let moa = peer.target else { return nil }
        return MobilePair(own: own, peer: moa)
    }

    /// All paths to it, the best first.
    func all(to peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses) -> [MobilePair] {
        let proven = proven(peer, addresses)
        return side.preferred.filter { $0 == side.preferred.first || side.record?.lists($0) ?? false }
            .flatMap { own in proven.map { MobilePair(own: own, peer: $0) } }.filter(side.passes)
    }

    /// What is to be probed while packets are exchanged with a peer or wait for it. Without another path there is nothing to decide, so nothing.
    func probes(of peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses, _ uplinks: Uplinks) -> [Probe] {
        guard peer.locators.listed.count > 1 || side.places.count > 1 else { return [] }
        let all = all(to: peer, side, addresses)
        guard let current = current(of: peer, side, addresses) else { return all.prefix(Self.triedMax).map { .path($0) } }
        // A peer that is silent itself does not tell whether the way out that it kept still works.
        let wayOut = isBehind(peer, side, uplinks) ? [Probe.wayOut(current.own)] : []
        // On a detour the better ones are asked whether they are back.
        let better = isOnDetour(peer.hoa) ? all.prefix { $0 != current }.prefix(Self.triedMax) : []
        return [.path(current)] + wayOut + better.map { .path($0) }
    }

    /// All that are tried when an answer over the path in use is overdue.
    func alternatives(to path: MobilePair, of peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses) -> [MobilePair] {
        current(of: peer, side, addresses) == path ? Array(all(to: peer, side, addresses).prefix(Self.triedMax)) : []
    }

    /// Whether its traffic still leaves from an own address that is not its first, and works.
    func isBehind(_ peer: Peer, _ side: OwnSide, _ uplinks: Uplinks) -> Bool {
        guard let present = own[peer.path], present != side.preferred.first else { return false }
        return side.places.contains(present) && !uplinks.isDead(present)
    }

    func isOnDetour(_ hoa: HomeAddress) -> Bool { detours.isTaken(by: hoa) }

    /// Since when it has been reached by another pair than the usual.
    func detourSince(_ hoa: HomeAddress) -> MonotonicTime? { detours[hoa].flatMap { $0.isTaken ? $0.since : nil } }

    /// How often the way of its packets has changed: the addresses that they are rewritten to, where they go in datagrams, or which of these.
    func switches(of peer: Peer) -> Int { Int(peer.switches &+ own.moves(peer.installedPath)) }

    /// A peer's packets go by this way, which is none of its entries: a change of it is told to people as a move.
    func count(_ way: Carriage.Way, of hoa: HomeAddress, in peers: inout PeerTable) {
        guard peers[hoa]?.isNews(way) == true else { return }
        peers.update(hoa) { $0.carried(by: way) }
    }

    /// Where its agent is written to: signalling may go where packets may not yet.
    func signallingTarget(of peer: Peer, _ addresses: UsableAddresses) -> Endpoint? {
        place(of: peer, addresses).map { Endpoint(peer.signallingAddress(of: $0), port: SignalPort.node) }
    }

    func place(of peer: Peer, _ addresses: UsableAddresses) -> MobileAddress? {
        target(of: peer, addresses) ?? peer.locators.listed.first { addresses.canBeLocator($0.moa, of: peer.hoa) }?.moa
    }

    /// Whether no rewritten packets pass from the address that is the first for a peer to where it is.
    func isClosed(to peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses) -> Bool {
        guard let first = side.preferred.first else { return false }
        guard let place = place(of: peer, addresses) else { return side.closed.contains(first) }
        return !side.passes(MobilePair(own: first, peer: place))
    }

    // MARK: Entries

    /// It can be asked, and reached, only when there is an own address.
    mutating func waitForAddress(_ hoa: HomeAddress) { pathless.insert(hoa) }

    /// Brings the kernel's entries for a peer in step with its record, its locators' states and our addresses.
    ///
    /// - Parameters:
    ///   - adoption: what an earlier run left, of which this peer claims its part.
    ///   - isKeptBack: packets to it wait for its IMS to know of us, and must not be overtaken by later ones.
    mutating func arrange(
        _ hoa: HomeAddress, in peers: inout PeerTable, _ side: OwnSide, _ addresses: UsableAddresses, _ adoption: inout Adoption, isKeptBack: Bool
    ) -> Arranged {
        guard var peer = peers[hoa] else { return Arranged() }
        if side.places.isEmpty {
            if peer.path == OwnPaths.none || peer.locators.listed.contains(where: { $0.state == .unchecked }) { pathless.insert(hoa) }
        } else if own[peer.path].map({ !side.places.contains($0) }) ?? true, let first = side.preferred.first {
            peer.leave(by: number(of: first, side.home, peers))
        }
        pruneDetour(of: peer, side, addresses)
        let before = PeerEntries(inbound: peer.arrivals, outbound: installed(of: peer))
        let current = current(of: peer, side, addresses)
        let entries = PeerEntries(
            inbound: side.isInDatagramsOnly ? [] : peer.accepted { addresses.canBeLocator($0, of: hoa) },
            outbound: isKeptBack && before.outbound == nil ? nil : current)

        let pair = HomePair(own: side.home, peer: hoa)
        // What an earlier run believed of places that are being asked now stays until they have answered or not.
        let open =
            !adoption.hasEntries
            ? []
            : Set(
                peer.locators.filter {
                    $0.roles.contains(.listed) && ($0.state.isOpen || $0.state == .unchecked) && addresses.canBeLocator($0.moa, of: hoa)
                }.map(\.moa))
        // Whoever has proved since that it is there has an entry of the same key.
        let stale = adoption.giveUpInbound(pair, keeping: open).filter { moa in peers.holder(of: moa).map { $0 == hoa } ?? true }
        var isOutboundStale = false
        if entries.outbound.map({ $0 != before.outbound })
            ?? (target(of: peer, addresses) == nil && open.isEmpty && before.outbound == nil)
        {
            isOutboundStale = adoption.claimOutbound(pair)
        }
        let reason: Carriage.Reason = entries.outbound?.own == own[peer.path] ? .preferred : .detour
        let changes = entries.changes(from: before, of: pair, because: reason, stale: stale, isOutboundStale: isOutboundStale)
        let path = entries.outbound.map { $0.own == own[peer.path] ? peer.path : number(of: $0.own, side.home, peers) } ?? OwnPaths.none
        peer.install(
            entries, by: path, moves: own.moves, hasSwitched: entries.outbound != nil && before.outbound != nil && entries.outbound != before.outbound
        )
        peers.update(hoa) { $0 = peer }
        return Arranged(changes: changes, hasOpened: entries.outbound != nil && before.outbound == nil)
    }

    /// Ends what a detour was for: the address is gone, or has become the usual one.
    private mutating func pruneDetour(of peer: Peer, _ side: OwnSide, _ addresses: UsableAddresses) {
        guard detours.isTaken(by: peer.hoa) else { return }
        let (usualOwn, usual) = (side.preferred.first, proven(peer, addresses).first)
        detours.prune(peer.hoa, own: { side.places.contains($0) && $0 != usualOwn }, moa: { peer.lists($0) && $0 != usual })
    }

    /// The peer is one no more.
    ///
    /// - Returns: what takes its entries away.
    mutating func remove(_ peer: Peer, home: HomeAddress) -> [IMTChange] {
        detours.remove(peer.hoa)
        newPlaces.end(peer.hoa)
        pathless.remove(peer.hoa)
        let pair = HomePair(own: home, peer: peer.hoa)
        return PeerEntries().changes(
            from: PeerEntries(inbound: peer.arrivals, outbound: installed(of: peer)), of: pair, because: .preferred, stale: [], isOutboundStale: false
        )
    }

    // MARK: Our moves

    /// Lets traffic leave from the first of an HoA's addresses: all of it, or just what left from addresses that are gone or dead.
    ///
    /// - Parameters:
    ///   - isWhole: nothing works any more from the addresses of before.
    ///   - hasPreferences: people said of some peers which interfaces to use, or the first address is closed: then the peers' entries go one by one.
    ///   - isClosed: rewritten packets do not pass at the first address.
    mutating func move(
        _ home: HomeAddress, to places: [MobileAddress], gone: Set<MobileAddress>, isWhole: Bool, hasPreferences: Bool, isClosed: Bool = false
    ) -> Moved {
        guard let first = places.first else { return Moved() }
        var moved = Moved()
        for moa in own.addresses(of: home).sorted() where moa != first {
            guard gone.contains(moa) || !places.contains(moa) || isWhole && !hasExceptions(hasPreferences) else { continue }
            moved.numbers.formUnion(own.numbers(of: moa, home))
            // Nothing is rewritten between families: what went encapsulated from there is looked at one by one.
            if !isClosed, moa.family == first.family, !StandIns.isStandIn(moa.address) {
                moved.changes.append(.moveOutbound(from: moa, to: first))
            } else {
                moved.isOneByOne = true
            }
            own.move(moa, to: first, of: home)
        }
        moved.waiting = pathless.filter { $0.family == home.family }.sorted()
        pathless.subtract(moved.waiting)
        return moved
    }

    private func hasExceptions(_ hasPreferences: Bool) -> Bool { hasPreferences || !detours.isEmpty }

    /// The peers for whom something else was said, or was found to work, and that are concerned by a move.
    ///
    /// - Returns: `isFollowing`: its traffic is to leave from the address that is the first for it now.
    func exceptions(from moved: Moved, of home: HomeAddress, isWhole: Bool, hasPreferences: Bool, _ peers: PeerTable)
        -> [(hoa: HomeAddress, isFollowing: Bool)]
    {
        guard hasExceptions(hasPreferences) else { return [] }
        return peers.slots.compactMap { slot in
            guard let peer = peers[slot], peer.hoa.family == home.family else { return nil }
            let isFollowing = isWhole || moved.numbers.contains(peer.path)
            return isFollowing || detours[peer.hoa] != nil ? (peer.hoa, isFollowing) : nil
        }
    }

    /// Lets a peer's traffic leave from the own address that is the first for it.
    ///
    /// - Returns: that, if it is another than before.
    mutating func prefer(_ hoa: HomeAddress, in peers: inout PeerTable, _ side: OwnSide) -> MobileAddress? {
        guard let peer = peers[hoa], let first = side.preferred.first, own[peer.path] != first else { return nil }
        let number = number(of: first, side.home, peers)
        peers.update(hoa) { $0.leave(by: number) }
        return first
    }

    /// The number by which peers know an own address that their traffic leaves from.
    private mutating func number(of moa: MobileAddress, _ home: HomeAddress, _ peers: PeerTable) -> UInt8 {
        own.number(of: moa, home) { Set(peers.slots.flatMap { slot in peers[slot].map { [$0.path, $0.installedPath] } ?? [] }) }
    }

    // MARK: New places

    /// A peer that has come to another place while it is still at the one that its packets go to sends from there first (`NewPlaces`).
    ///
    /// - Parameters:
    ///   - isInDatagrams: they go to an endpoint.
    ///   - hasPassed: packets are known to pass between two places.
    mutating func awaitNewPlace(
        of peer: Peer, _ side: OwnSide, isInDatagrams: Bool, _ addresses: UsableAddresses, hasPassed: (MobilePair) -> Bool, _ now: MonotonicTime
    ) {
        let proven = proven(peer, addresses)
        let installed = installed(of: peer)
        guard let first = proven.first, let own = installed?.own ?? departure(of: peer, side) else { return newPlaces.end(peer.hoa) }
        let pair = MobilePair(own: own, peer: first)
        let isStillThere =
            if let installed {
                installed != pair && proven.contains(installed.peer) && peer.lists(installed.peer)
            } else {
                // While an endpoint is its first place it has not gone to this one yet.
                isInDatagrams && !peer.record.endpoints.isEmpty && side.passes(pair)
            }
        guard isStillThere, !isOnDetour(peer.hoa), !hasPassed(pair) else { return newPlaces.end(peer.hoa) }
        newPlaces.begin(peer.hoa, at: first, isNew: !peer.arrivals.contains(first), now)
    }

    /// - Returns: whether the peer's packets may go to the place that was awaited.
    mutating func counted(_ hoa: HomeAddress, came: UInt64) -> Bool { newPlaces.counted(hoa, came: came) }

    /// - Returns: the peers whose packets may.
    mutating func newPlacesDue(_ now: MonotonicTime) -> [HomeAddress] { newPlaces.takeDue(now) }

    mutating func endWait(of hoa: HomeAddress) { newPlaces.end(hoa) }

    // MARK: Detours

    /// Whether a peer is to be reached by another pair, now that one has fallen silent or answers again.
    mutating func judge(
        _ hoa: HomeAddress, in peers: inout PeerTable, _ side: OwnSide, _ addresses: UsableAddresses, _ monitor: PathMonitor, now: MonotonicTime
    ) -> [Action] {
        guard let peer = peers[hoa], let current = current(of: peer, side, addresses),
            let choice = detours.choose(for: hoa, among: all(to: peer, side, addresses), instead: current, monitor, now: now)
        else { return [] }
        let pair = choice.pair
        var actions = detours.makeRoom(for: hoa).map { [Action.arrange($0)] } ?? []
        let isUsualOwn = pair.own == side.preferred.first
        detours.take(
            own: isUsualOwn ? nil : pair.own, moa: pair.peer == proven(peer, addresses).first ? nil : pair.peer, by: hoa,
            isFailure: choice.isFailure, now: now)
        if choice.isFailure {
            actions += [
                .count(\.detours),
                .log(.warning, "\(hoa) does not answer by \(current.own) -> \(current.peer); its traffic goes by \(pair.own) -> \(pair.peer)"),
            ]
        } else {
            actions.append(.log(.notice, "\(hoa) answers by \(pair.own) -> \(pair.peer) again; its traffic goes back there"))
        }
        if isUsualOwn { _ = prefer(hoa, in: &peers, side) }
        return actions + [.arrange(hoa), .watch(hoa)]
    }

    /// A person said which interface to use: what was found before counts no more.
    mutating func endDetour(of hoa: HomeAddress) { detours.remove(hoa) }
}
