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
    ///
    /// - Returns: what it gave up. Peers that had to skip these may use them as soon as the kernel has been told; see `yieldLocators`.
    mutating func claimLocators(of hoa: HomeAddress) -> Set<MobileAddress> {
        guard let peer = peers[hoa] else { return [] }
        let listed = peer.listedAtAll
        for moa in listed where locatorOwners[moa] == nil {
            locatorOwners[moa] = hoa
            peers[hoa]?.claimed.insert(moa)
        }
        return releaseLocators(of: hoa, keeping: listed)
    }

    /// Gives up locators that are not among those listed.
    mutating func releaseLocators(of hoa: HomeAddress, keeping listed: Set<MobileAddress>) -> Set<MobileAddress> {
        let released = (peers[hoa]?.claimed ?? []).subtracting(listed)
        for moa in released {
            locatorOwners[moa] = nil
            peers[hoa]?.claimed.remove(moa)
            peers[hoa]?.locators[moa] = nil
            deadlines.cancel(.locator(hoa, moa))
            cancel(.checkLocator(hoa, moa))
        }
        return released
    }

    /// Lets other peers use what one has given up. Only after that one's kernel entries were removed: the new owner's entry
    /// has the same key.
    mutating func yieldLocators(_ released: Set<MobileAddress>, of hoa: HomeAddress, _ now: Now) {
        guard !released.isEmpty else { return }
        for other in peers.values where other.hoa != hoa && other.listed.contains(where: released.contains) {
            applyPeer(other.hoa, now)
        }
    }

    /// All locators that packets of this peer may come from: those of its record and, while that is provisional, of the one before.
    func acceptedLocators(of peer: Peer) -> Set<MobileAddress> {
        peer.listedAtAll.filter { isAcceptable($0, of: peer.hoa) }
    }

    /// Where to send to: the first locator of the record that may be used.
    func outboundLocator(of peer: Peer) -> MobileAddress? {
        if let moa = detouredLocator(of: peer), isAcceptable(moa, of: peer.hoa), !(peer.locators[moa]?.isBlocked ?? false) { return moa }
        return usualLocator(of: peer)
    }

    /// Likewise, without regard to paths that were found dead.
    func usualLocator(of peer: Peer) -> MobileAddress? {
        peer.listed.first { moa in
            guard isAcceptable(moa, of: peer.hoa) else { return false }
            return !(peer.locators[moa]?.isBlocked ?? false)
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
        start(.checkLocator(hoa, moa), .maQuery, to: [Endpoint(signallingAddress(of: moa, hoa), port: SignalPort.node)], now)
    }

    /// Where the node that answers for a peer's locator listens.
    func signallingAddress(of moa: MobileAddress, _ hoa: HomeAddress) -> IPAddress {
        peers[hoa]?.mapping.record.signallingAddress(of: moa) ?? moa.address
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
        let wasBlocked = peers[hoa]?.locators[moa]?.isBlocked ?? false
        peers[hoa]?.locators[moa] = .proven(at: now.monotonic)
        deadlines.cancel(.locator(hoa, moa))
        guard wasBlocked else { return }
        log(.info, "\(moa) has proved that it is \(hoa) after all")
        applyPeer(hoa, now)
    }

    private mutating func block(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        if peers[hoa]?.locators[moa]?.isBlocked != true {
            peers[hoa]?.locators[moa] = .blocked(until: now.monotonic + LocatorState.blockedTime, checks: 0)
            deadlines.set(.locator(hoa, moa), at: now.monotonic + .seconds(1))
        }
        undoIfRefuted(hoa, now)
        applyPeer(hoa, now)
    }

    /// The time of an unproven locator, or of a blocked one, is up.
    mutating func locatorDue(_ hoa: HomeAddress, _ moa: MobileAddress, _ now: Now) {
        switch peers[hoa]?.locators[moa] {
        case .checking?:
            guard !ownMoAs(ipv4: moa.isIPv4).isEmpty else {
                // Without an address of our own nobody could be asked; the time counts anew when there is one.
                peers[hoa]?.locators[moa] = nil
                return
            }
            log(.warning, "\(moa) did not prove within \(LocatorState.unprovenUseMax.components.seconds) s that it is \(hoa); it is not used for \(LocatorState.blockedTime.components.seconds) s")
            block(moa, of: hoa, now)
        case .blocked(let until, _)? where until <= now.monotonic:
            peers[hoa]?.locators[moa] = nil
            applyPeer(hoa, now)
        case .blocked(let until, let checks)?:
            peers[hoa]?.locators[moa] = .blocked(until: until, checks: checks + 1)
            let pause = min(LocatorState.recheckMax, .seconds(Int64(1) << Int64(min(checks + 1, 10))))
            deadlines.set(.locator(hoa, moa), at: min(until, now.monotonic + pause))
            checkLocator(moa, of: hoa, now)
        case .proven?, nil:
            break
        }
    }
}
