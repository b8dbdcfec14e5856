import MATSignal

// Which of a peer's locators may be used (section 6, "Locator check").

extension NodeCore {
    /// Whether the address can be this peer's locator at all: what is checked before use. A conflicting locator is skipped.
    private func isAcceptable(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        guard moa.isIPv4 == hoa.isIPv4, !isOwn(moa.address), !infrastructure.contains(moa.address) else { return false }
        if let owner = locatorOwners[moa], owner != hoa { return false }
        if moa.address.isSiteScope, !ownLocators.contains(where: { $0.moa.address.isSiteScope && $0.moa.isIPv4 == moa.isIPv4 }) { return false }
        return true
    }

    /// Enters the peer as owner of its listed locators and gives up those no longer listed.
    mutating func claimLocators(of hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        let listed = Set(peer.mapping.record.locators.map(\.moa)).union(peer.earlier?.record.locators.map(\.moa) ?? [])
        for moa in listed where locatorOwners[moa] == nil {
            locatorOwners[moa] = hoa
            peers[hoa]?.claimed.insert(moa)
        }
        releaseLocators(of: hoa, keeping: listed, now)
    }

    /// Gives up locators; peers that had to skip them for this one may use them now.
    mutating func releaseLocators(of hoa: HomeAddress, keeping listed: Set<MobileAddress>, _ now: Now) {
        for moa in (peers[hoa]?.claimed ?? []).subtracting(listed) {
            locatorOwners[moa] = nil
            peers[hoa]?.claimed.remove(moa)
            peers[hoa]?.locators[moa] = nil
            deadlines.cancel(.locator(hoa, moa))
            cancel(.checkLocator(hoa, moa))
            for other in peers.values where other.hoa != hoa && other.mapping.record.lists(moa) { applyPeer(other.hoa, now) }
        }
    }

    /// All locators that packets of this peer may come from: those of its record and, while that is provisional, of the one before.
    func acceptedLocators(of peer: Peer) -> Set<MobileAddress> {
        let listed = peer.mapping.record.locators.map(\.moa) + (peer.earlier?.record.locators.map(\.moa) ?? [])
        return Set(listed.filter { isAcceptable($0, of: peer.hoa) })
    }

    /// Where to send to: the first locator of the record that may be used.
    func outboundLocator(of peer: Peer) -> MobileAddress? {
        peer.mapping.record.locators.map(\.moa).first { moa in
            guard isAcceptable(moa, of: peer.hoa) else { return false }
            if case .blocked? = peer.locators[moa] { return false }
            return true
        }
    }

    /// Starts the check of a locator that is about to be used for the first time.
    mutating func checkOnFirstUse(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard peers[hoa]?.locators[moa] == nil else { return }
        let until = now.monotonic + LocatorState.unprovenUseMax
        peers[hoa]?.locators[moa] = .checking(until: until)
        deadlines.set(.locator(hoa, moa), at: until)
        checkLocator(moa, of: hoa, now)
    }

    /// MA Query to the locator's port 6289: "are you this HoA, here?".
    mutating func checkLocator(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard !isUnderWay(.checkLocator(hoa, moa)) else { return }
        start(.checkLocator(hoa, moa), .maQuery, to: [Endpoint(moa.address, port: SignalPort.node)], now)
    }

    mutating func locatorAnswered(_ hoa: HomeAddress, _ moa: MobileAddress, _ code: ResponseCode?, _ now: Now) {
        guard peers[hoa] != nil else { return }
        switch code {
        case .ok?:
            prove(moa, of: hoa, now)
        case .notAuthoritative?:
            log(.info, "\(moa) says that it is not \(hoa)")
            block(moa, of: hoa, now)
            // The peer moved, or its address went to another host: its IMS knows.
            if !isUnderWay(.queryPeer(hoa)) { query(hoa, now) }
        default:
            // Silence counts only for a locator that has never answered, when its time is up.
            break
        }
    }

    mutating func prove(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard peers[hoa] != nil, locatorOwners[moa] == hoa else { return }
        peers[hoa]?.locators[moa] = .proven(at: now.monotonic)
        deadlines.cancel(.locator(hoa, moa))
    }

    private mutating func block(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        let until = now.monotonic + LocatorState.blockedTime
        peers[hoa]?.locators[moa] = .blocked(until: until)
        deadlines.set(.locator(hoa, moa), at: until)
        undoIfRefuted(hoa, now)
        applyPeer(hoa, now)
    }

    /// The time of an unproven locator, or of a blocked one, is up.
    mutating func locatorDue(_ hoa: HomeAddress, _ moa: MobileAddress, _ now: Now) {
        switch peers[hoa]?.locators[moa] {
        case .checking?:
            log(.warning, "\(moa) did not prove within \(LocatorState.unprovenUseMax.components.seconds) s that it is \(hoa); it is not used for \(LocatorState.blockedTime.components.seconds) s")
            block(moa, of: hoa, now)
        case .blocked?:
            peers[hoa]?.locators[moa] = nil
            applyPeer(hoa, now)
        case .proven?, nil:
            break
        }
    }
}
