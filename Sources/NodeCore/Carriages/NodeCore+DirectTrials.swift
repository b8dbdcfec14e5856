import IMTPlan
import MATSignal

// Rewritten packets that do not pass in the middle of their flows: what `DirectTrials` is told of them, and what follows.

extension NodeCore {
    /// Peers whose rewritten packets are to be counted by themselves.
    var rewrittenWatched: [RewrittenPath] {
        let awaited = paths.newPlaces.watched.compactMap { hoa, place in
            home(for: hoa).map { RewrittenPath(HomePair(own: $0, peer: hoa), from: [place]) }
        }
        return awaited
            + trials.watched.filter { paths.newPlaces.awaited($0) == nil }.compactMap { hoa in
                guard let peer = peers[hoa], let own = home(for: hoa) else { return nil }
                return RewrittenPath(HomePair(own: own, peer: hoa), from: peer.arrivals.sorted())
            }
    }

    /// What was rewritten for watched peers was read.
    mutating func rewritten(_ uses: some Sequence<RewrittenUse>, now: Now) -> [NodeAction] {
        for use in uses {
            guard paths.newPlaces.awaited(use.pair.peer) == nil else {
                if paths.counted(use.pair.peer, came: use.came) { applyPeer(use.pair.peer, now) }
                continue
            }
            let own = trials.pair(of: use.pair.peer)?.own
            // The check of the own IMS comes as soon as it knows of us, where anything comes.
            let check = own.map { ownEndpoints.check(of: $0) } ?? .none
            switch trials.counted(use, isAwaited: knowsUs(use.pair.peer), check: check, now.monotonic) {
            case .nothing: break
            case .doubt: doubtDirect(use.pair.peer, now)
            case .trust: applyPeer(use.pair.peer, now)
            }
        }
        return endEvent()
    }

    /// A peer's rewritten packets take this pair now.
    mutating func directPathTaken(by hoa: HomeAddress, _ pair: MobilePair, _ now: Now) {
        guard let peer = peers[hoa], isBetweenHosts(peer) else { return }
        trials.begin(hoa, pair, lastTraffic: peer.lastTraffic, answers: busiest.answers(of: hoa), now.monotonic)
    }

    /// Neither is a mobile network's, whose hosts have each its own place in a prefix.
    func isBetweenHosts(_ peer: Peer) -> Bool { !peer.record.isNetwork && homes[home(for: peer.hoa) ?? peer.hoa]?.isNetwork == false }

    /// With another network still there, a peer's packets leave from an own address that has just come when the check of the own IMS has arrived there, or
    /// the peer takes datagrams from there, or neither for a second.
    ///
    /// - Returns: whether they wait.
    mutating func awaitsCheck(_ hoa: HomeAddress, _ side: PeerPaths.OwnSide, _ now: Now) -> Bool {
        guard let peer = peers[hoa], isBetweenHosts(peer), let first = side.preferred.first,
            isRewritable(first, side.home), paths.isBehind(peer, side, uplinks), let place = paths.place(of: peer, addresses)
        else { return false }
        let check = ownEndpoints.check(of: first)
        guard trials.foresee(hoa, MobilePair(own: first, peer: place), check, lastTraffic: peer.lastTraffic, now.monotonic) else { return false }
        setTrialsDue()
        if check == .late, trials.doubted(hoa) == nil { checkLate(for: hoa, now) }
        return true
    }

    /// The check of the own IMS should have come there.
    mutating func checkLate(at own: MobileAddress, _ now: Now) { for hoa in trials.ahead(at: own) { checkLate(for: hoa, now) } }

    private mutating func checkLate(for hoa: HomeAddress, _ now: Now) {
        trials.late(hoa)
        doubtDirect(hoa, now)
    }

    /// It has come, or nobody waits for it any more.
    mutating func checkEnded(at own: MobileAddress, hasCome: Bool, _ now: Now) {
        for hoa in trials.ahead(at: own) {
            trials.takeUp(hoa, hasCome: hasCome, now.monotonic)
            goAhead(hoa, now)
        }
    }

    /// A peer's packets wait no longer. If they take another pair all the same, there is nothing to watch.
    private mutating func goAhead(_ hoa: HomeAddress, _ now: Now) {
        switchPeer(hoa, now)
        if peers[hoa].flatMap({ paths.installed(of: $0) }) != trials.pair(of: hoa) { trials.end(hoa) }
    }

    /// Its packets may be filtered: whether it can be reached in datagrams there is found out.
    private mutating func doubtDirect(_ hoa: HomeAddress, _ now: Now) {
        listEndpoints(of: hoa, now)
        useEndpoints(of: hoa, now)
        // It may have signed before, by a probe of its own.
        applyPeer(hoa, now)
    }

    /// A peer's packet, or its signed probe, came in a datagram from where its packets may have been rewritten instead, to where they would have come.
    ///
    /// It asks at all places that we list. What it asks at another says nothing of this one.
    mutating func cameEncapsulated(from endpoint: Endpoint, to local: IPAddress, of hoa: HomeAddress, _ now: Now) {
        guard endpoint.port == SignalPort.node else { return }
        let place = MobileAddress(endpoint.address)
        let installed = peers[hoa].flatMap { paths.installed(of: $0) }
        if paths.newPlaces.awaited(hoa) == place {
            // It asks before anything was sent there.
            guard let own = installed?.own ?? departure(of: hoa), own.address == local else { return }
            trials.ask(hoa, MobilePair(own: own, peer: place), now.monotonic)
        } else if let installed, installed.own.address == local {
            trials.cameEncapsulated(hoa, from: place, installed, now.monotonic)
        }
    }

    private func departure(of hoa: HomeAddress) -> MobileAddress? {
        guard let peer = peers[hoa], let side = ownSide(for: hoa) else { return nil }
        return paths.departure(of: peer, side)
    }

    /// An endpoint of a peer was proven, or another own address is used: before the paths of the peer are looked at.
    mutating func settleTrial(of hoa: HomeAddress, _ now: Now) {
        guard let pair = trials.doubted(hoa),
            peerEndpoints[hoa]?.isProven(Endpoint(pair.peer.address, port: SignalPort.node), from: pair.own.address) == true,
            trials.proved(hoa, now.monotonic) != nil
        else { return }
        log(
            .notice,
            "packets to \(hoa) do not pass from \(pair.own) to \(pair.peer) in the middle of connections; they go in datagrams for 10 minutes")
        setTrialsDue()
    }

    /// Between which own addresses and places of a peer rewritten packets are known not to pass.
    func filteredPairs(with hoa: HomeAddress, from places: [MobileAddress]) -> Set<MobilePair> {
        guard trials.hasFiltered, let peer = peers[hoa] else { return [] }
        return Set(
            places.flatMap { own in
                peer.locators.listed.filter { $0.moa.family == own.family }.map { MobilePair(own: own, peer: $0.moa) }.filter(trials.isFiltered)
            })
    }

    /// The places of a peer that rewritten packets do not reach from where they leave, or may not: it is reached in datagrams there.
    ///
    /// No others: a probe says of a place where rewritten packets do pass that they may not, and the peer would believe it.
    func placesInDoubt(of peer: Peer) -> Set<MobileAddress> {
        var result: Set<MobileAddress> = []
        if let pair = trials.doubted(peer.hoa) { result.insert(pair.peer) }
        guard trials.hasFiltered, let side = ownSide(for: peer.hoa) else { return result }
        let departures = [side.preferred.first, paths.departure(of: peer, side)]
        return result.union(side.filtered.filter { departures.contains($0.own) }.map(\.peer))
    }

    /// Whether nothing tells against rewritten packets from an own address to a place of a peer. A probe from there would.
    func passesRewritten(_ hoa: HomeAddress, at endpoint: Endpoint, from own: MobileAddress) -> Bool {
        let pair = MobilePair(own: own, peer: MobileAddress(endpoint.address))
        guard endpoint.port == SignalPort.node, let peer = peers[hoa], peer.lists(pair.peer), let side = ownSide(for: hoa) else { return false }
        return isRewritable(own, side.home) && isOpen(own, for: side.home) && side.passes(pair) && trials.doubted(hoa) != pair
    }

    mutating func trialsDue(_ now: Now) {
        if trials.takeDue(now.monotonic) { for hoa in peerEndpoints.hoas { applyPeer(hoa, now) } }
        for hoa in paths.newPlacesDue(now.monotonic) { applyPeer(hoa, now) }
        for hoa in trials.aheadDue(now.monotonic) { goAhead(hoa, now) }
        setTrialsDue()
    }

    private mutating func setTrialsDue() {
        if let due = trials.due.earlier(paths.newPlaces.due) { deadlines.set(.trials, at: due) }
    }

    /// A peer has come to another place, and is still where its packets go: these go on until some have come from the new one.
    mutating func awaitNewPlace(of peer: Peer, _ side: PeerPaths.OwnSide, _ now: Now) {
        guard isBetweenHosts(peer), busiest.peers.contains(peer.hoa) else { return paths.endWait(of: peer.hoa) }
        let before = paths.newPlaces.awaited(peer.hoa)
        let isInDatagrams = peerEndpoints[peer.hoa]?.installed != nil && encapsulatedWay(to: peer.hoa) != nil
        paths.awaitNewPlace(
            of: peer, side, isInDatagrams: isInDatagrams, addresses, hasPassed: { [trials] in trials.hasPassed($0) }, now.monotonic)
        if paths.newPlaces.awaited(peer.hoa) != before { setTrialsDue() }
    }
}
