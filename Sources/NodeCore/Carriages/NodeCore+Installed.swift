import IMTPlan
import MATCore
import MATSignal

// What the kernel gets of paths that are not rewritten.

extension NodeCore {
    /// Brings what the kernel does for a peer's packets that are not rewritten in step with its paths.
    ///
    /// - Parameter isRewritten: there is an entry for it, which goes before.
    /// - Returns: whether its packets have a way now that had none before.
    mutating func applyCarriage(of hoa: HomeAddress, isRewritten: Bool, _ now: Now) -> Bool {
        guard let own = home(for: hoa), let peer = peers[hoa], peerEndpoints[hoa] != nil || peerRelays[hoa] != nil else { return false }
        let pair = HomePair(own: own, peer: hoa)
        let before = carriage(of: hoa)
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        let isHeld = destinations.contains(hoa) && before == nil
        let found = encapsulatedWay(to: hoa)
        let standby = isRewritten ? nil : addressMissing(for: hoa, found)
        let goesByRelay = standby.map { leavesForRelay(hoa, at: $0) } ?? false || found.map { isOutdated($0, of: hoa) } ?? false
        let proven = goesByRelay ? nil : found
        let endpoint = isRewritten || isHeld ? nil : proven
        let isFallback = needsRelay(peer)
        let followed = peerRelays.tell(hoa) {
            $0.hasBetter(isRewritten || proven != nil, isFallback: isFallback, standby: standby, now.monotonic)
        }
        // What carries the packets is looked at here.
        perform(followed.filter { $0 != .choose }, of: hoa, now)
        let held = Set((peerRelays[hoa]?.candidates ?? []).map(\.relay).filter { holder(of: $0, for: hoa) != nil })
        let probes = peerRelays.tell(hoa) { $0.hold(held, now.monotonic) }
        let relayed = isRewritten || isHeld || endpoint != nil ? nil : relayedWay(of: hoa, now)
        let after = endpoint?.carriage ?? relayed?.carriage
        let largest = after.map { self.largest(of: hoa, over: $0, now) } ?? Carriage.mtuAtFirst
        let needsSum = after.map { self.needsSum(hoa, over: $0, now) } ?? false
        let isByEndpoint = peerEndpoints[hoa]?.installed != nil
        let largestBefore = isByEndpoint ? peerEndpoints[hoa]?.installedLargest : peerRelays[hoa]?.installedLargest
        let neededSum = isByEndpoint ? peerEndpoints[hoa]?.installedNeedsSum : peerRelays[hoa]?.installedNeedsSum
        let added = accept(pair, now)
        peerEndpoints.update(hoa) { paths in
            paths.setOtherWay(isRewritten || relayed != nil)
            paths.install(endpoint, largest: largest, needsSum: needsSum, now.monotonic)
        }
        peerRelays.update(hoa) { $0.install(relayed, largest: largest, needsSum: needsSum, now.monotonic) }
        defer { perform(probes, of: hoa, now) }
        if after != before || after != nil && (largest != largestBefore || needsSum != neededSum) {
            if let after {
                change(.setOutbound(pair, Carriage(after, largest: largest, needsSum: needsSum)))
            } else if !isRewritten {
                change(.removeOutbound(pair))
            }
            if after != before || largest != largestBefore { logCarriage(of: hoa, after, largest: after == before ? largest : nil) }
        }
        if after != before { usePathMTU(of: hoa, over: after, now) }
        if let after { paths.count(after, of: hoa, in: &peers) }
        if !added.isEmpty {
            flushChanges()
            for endpoint in added { emit(.releaseEncapsulated(of: hoa, from: endpoint)) }
        }
        return after != nil && before == nil
    }

    /// The first own address for a peer, if its packets go in datagrams from another one: that network may be about to be left.
    private func addressMissing(for hoa: HomeAddress, _ way: PeerEndpoints.Way?) -> IPAddress? {
        guard let way, let first = firstOwn(for: hoa), first != way.own, isUsable(first), !isSameLink(first, way.own) else { return nil }
        return first
    }

    /// The peer answers at none of its endpoints what is sent from the first own address, and by a relay it does: whoever waits until the old network is
    /// gone loses what is on its way there.
    private func leavesForRelay(_ hoa: HomeAddress, at own: IPAddress) -> Bool {
        guard let known = peerRelays[hoa], known.hasAnswered(at: own, { holder(of: $0, for: hoa) }) else { return false }
        return peerEndpoints[hoa]?.isInVain == true || known.installed?.own == own || !canBeAsked(hoa, at: own)
    }

    /// Whether the peer has gone from there by its record, and has shown itself by a relay since.
    private func isOutdated(_ way: PeerEndpoints.Way, of hoa: HomeAddress) -> Bool {
        guard let time = peerEndpoints[hoa]?.outdatedAt(way.endpoint) else { return false }
        return peerRelays[hoa]?.hasAnswered(since: time) { holder(of: $0, for: hoa) } ?? false
    }

    /// Whether the link of an own address has one of a family of the peer's endpoints. Otherwise they answer by the old network, and that tells nothing.
    private func canBeAsked(_ hoa: HomeAddress, at own: IPAddress) -> Bool {
        peerEndpoints[hoa]?.endpoints.contains { preferredSources[$0.family].map { isSameLink($0, own) } ?? false } ?? false
    }

    /// A peer is not to find us at an own address any more, which may be about to go: a person chose another network, or packets for the peer leave over
    /// the first address's link, where it answers by a relay alone, or in datagrams while no record tells it of the other.
    func isLeft(_ own: IPAddress, of hoa: HomeAddress) -> Bool {
        guard let home = home(for: hoa) else { return false }
        if addresses.isBeingLeft(own, by: home) { return true }
        guard let way = carriage(of: hoa), let first = firstOwn(for: hoa) else { return false }
        let source = way.own.address
        guard isSameLink(source, first), isUsable(source), !isSameLink(own, source) else { return false }
        if case .relayed(_, let relay) = way { return peerRelays[hoa]?.isLeft(relay) == false }
        return !desiredLocators(of: home).contains(MobileAddress(own))
    }

    /// The own address that is the first for a peer.
    func firstOwn(for hoa: HomeAddress) -> IPAddress? {
        guard let own = home(for: hoa) else { return nil }
        let places = desiredLocators(of: own)
        return preferences.addresses(for: hoa, among: places, listedIn: homes[own]?.mapping?.record, addresses, uplinks).first?.address
    }

    private func isSameLink(_ a: IPAddress, _ b: IPAddress) -> Bool {
        addresses.interface(of: MobileAddress(a)) == addresses.interface(of: MobileAddress(b))
    }

    /// - Parameter largest: only this is news.
    private mutating func logCarriage(of hoa: HomeAddress, _ way: Carriage.Way?, largest: UInt32?) {
        let level = PeerRecords.level(peers)
        if let far = way?.endpoints?.far, let largest {
            let isNarrow = largest < Carriage.mtuAtFirst
            log(level, "packets to \(hoa) in datagrams to \(far) may have \(largest) octets\(isNarrow ? "; larger ones are cut up" : "")")
            return
        }
        switch way {
        case .encapsulated(let own, let endpoint): log(level, "packets to \(hoa) go encapsulated, from \(own.address) to \(endpoint)")
        case .relayed(let own, let relay): log(level, "packets to \(hoa) go by the relay \(relay), from \(own.address)")
        case .rewritten, nil: break
        }
    }

    /// How a peer's packets go, as the kernel was told, if they are not rewritten.
    func carriage(of hoa: HomeAddress) -> Carriage.Way? {
        peerEndpoints[hoa]?.installed?.carriage ?? peerRelays[hoa]?.installed?.carriage
    }

    /// From where a peer's encapsulated packets are taken: its endpoints, and the relays of both records (section 11.2).
    ///
    /// - Returns: what is accepted from now on.
    private mutating func accept(_ pair: HomePair, _ now: Now) -> [Endpoint] {
        let hoa = pair.peer
        peerEndpoints.update(hoa) { $0.linger(now.monotonic) }
        let (endpoints, relays) = (peerEndpoints[hoa].map { $0.sources + $0.lasting } ?? [], relaySources(of: hoa))
        let before = (peerEndpoints[hoa]?.installedSources ?? [], peerRelays[hoa]?.installedSources ?? [])
        guard before != (endpoints, relays) else { return [] }
        change(.accept(pair, from: Array((endpoints + relays.filter { !endpoints.contains($0) }).prefix(EncapsulationTable.endpointsMax))))
        peerEndpoints.update(hoa) { $0.accept(from: endpoints) }
        peerRelays.update(hoa) { $0.accept(from: relays) }
        return (endpoints + relays).filter { !before.0.contains($0) && !before.1.contains($0) }
    }

    /// A relay answers from the address that was bound to; the peer may have bound to another one of those that its record lists. What it forwards is
    /// on its way for a moment after there is a better path.
    private func relaySources(of hoa: HomeAddress) -> [Endpoint] {
        guard let known = peerRelays[hoa], let peer = peers[hoa] else { return [] }
        let listed = known.candidates.isEmpty ? [] : known.candidates.map(\.relay) + peer.record.places(at: peer.listed).compactMap(\.relay)
        return Set(listed + known.lasting).sorted()
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func carriagesMoved(from: MobileAddress, to: MobileAddress) {
        peerEndpoints.installedMoved(from: from, to: to)
        peerRelays.installedMoved(from: from, to: to)
    }

    /// A peer is forgotten.
    mutating func removeCarriage(of hoa: HomeAddress, _ now: Now) {
        guard let own = home(for: hoa) else { return }
        let pair = HomePair(own: own, peer: hoa)
        if carriage(of: hoa) != nil { change(.removeOutbound(pair)) }
        if peerEndpoints[hoa]?.installedSources.isEmpty == false || peerRelays[hoa]?.installedSources.isEmpty == false {
            change(.accept(pair, from: []))
        }
        peerEndpoints.remove(hoa)
        inPathProbes.remove(hoa)
        pathMTUs.remove(hoa)
        guard peerRelays[hoa] != nil else { return }
        peerRelays.remove(hoa)
        holdBindings(now)
    }
}
