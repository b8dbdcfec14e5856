import MATSignal

// Which of a peer's locators may be used (section 6, "Locator check").

extension NodeCore {
    /// Whether the address can be this peer's locator at all: what is checked before use. A conflicting locator is skipped.
    private func isAcceptable(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        guard moa.isIPv4 == hoa.isIPv4, !isOwn(moa.address), !infrastructure.contains(moa.address) else { return false }
        if let owner = peers.owner(of: moa), owner != hoa { return false }
        if moa.address.isSiteScope, !ownLocators.contains(where: { $0.moa.address.isSiteScope && $0.moa.isIPv4 == moa.isIPv4 }) { return false }
        return true
    }

    /// Enters the peer as owner of its listed locators and gives up those no longer listed.
    ///
    /// - Returns: what it gave up. Peers that had to skip these may use them as soon as the kernel has been told; see `yieldLocators`.
    mutating func claimLocators(of hoa: HomeAddress) -> Set<MobileAddress> {
        guard let peer = peers[hoa] else { return [] }
        for locator in peer.locators where !locator.roles.isDisjoint(with: [.listed, .earlier]) && !locator.roles.contains(.claimed) {
            if peers.owner(of: locator.moa) == nil {
                peers.claim(locator.moa, for: hoa)
            } else if contested.count < Self.contestedMax || contested[locator.moa] != nil {
                contested[locator.moa, default: []].insert(hoa)
            }
        }
        return releaseLocators(of: hoa, keepsListed: true)
    }

    /// Locators listed by several peers that are remembered. Beyond, a peer gets a locator that its owner has given up at its next change.
    private static let contestedMax = 4096

    /// Gives up the locators that are no longer listed, or all.
    mutating func releaseLocators(of hoa: HomeAddress, keepsListed: Bool) -> Set<MobileAddress> {
        var released: Set<MobileAddress> = []
        for locator in peers[hoa]?.locators ?? PeerLocators() where locator.roles.contains(.claimed) {
            if !keepsListed || locator.roles.isDisjoint(with: [.listed, .earlier]) { released.insert(locator.moa) }
        }
        for moa in released {
            peers.release(moa, of: hoa)
            peers[hoa]?.locators.update(moa) { $0.state = nil }
            deadlines.cancel(.locator(hoa, moa))
            cancel(.checkLocator(hoa, moa))
        }
        return released
    }

    /// Lets other peers use what one has given up. Only after that one's kernel entries were removed: the new owner's entry
    /// has the same key.
    mutating func yieldLocators(_ released: Set<MobileAddress>, of hoa: HomeAddress, _ now: Now) {
        guard !released.isEmpty, !contested.isEmpty else { return }
        for moa in released.sorted() {
            for other in contested.removeValue(forKey: moa)?.sorted() ?? [] where other != hoa { applyPeer(other, now) }
        }
    }

    /// All locators that packets of this peer may come from: those of its record and, while that is provisional, of the one before.
    func acceptedLocators(of peer: Peer) -> Set<MobileAddress> {
        Set(peer.locators.filter { !$0.roles.isDisjoint(with: [.listed, .earlier]) && isAcceptable($0.moa, of: peer.hoa) }.map(\.moa))
    }

    /// Where to send to: the first locator of the record that may be used.
    func outboundLocator(of peer: Peer) -> MobileAddress? {
        if let moa = detouredLocator(of: peer), isAcceptable(moa, of: peer.hoa), !(peer.locators[moa]?.isBlocked ?? false) { return moa }
        return usualLocator(of: peer)
    }

    /// Likewise, without regard to paths that were found dead.
    func usualLocator(of peer: Peer) -> MobileAddress? {
        peer.locators.first { $0.roles.contains(.listed) && isAcceptable($0.moa, of: peer.hoa) && !$0.isBlocked }?.moa
    }

    /// Starts the check of a locator that is about to be used for the first time.
    mutating func checkOnFirstUse(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard let locator = peers[hoa]?.locators[moa], locator.state == nil else { return }
        let until = now.monotonic + LocatorState.unprovenUseMax
        peers[hoa]?.locators.update(moa) { $0.state = .checking(until: until) }
        deadlines.set(.locator(hoa, moa), at: until)
        checkLocator(moa, of: hoa, now)
    }

    /// MA Query to the locator's port 6289: "are you this HoA, here?".
    mutating func checkLocator(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard !isUnderWay(.checkLocator(hoa, moa)) else { return }
        start(.checkLocator(hoa, moa), .maQuery, to: [Endpoint(signallingAddress(of: moa, hoa), port: SignalPort.node)], now)
    }

    /// Where the node that answers for a peer's locator listens.
    func signallingAddress(of moa: MobileAddress, _ hoa: HomeAddress) -> IPAddress { peers[hoa]?.signallingAddress(of: moa) ?? moa.address }

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
        guard peers[hoa] != nil, peers.owner(of: moa) == hoa else { return }
        let wasBlocked = peers[hoa]?.locators[moa]?.isBlocked ?? false
        peers[hoa]?.locators.update(moa) { $0.state = .proven(at: now.monotonic) }
        deadlines.cancel(.locator(hoa, moa))
        tellIfBehind(hoa, now)
        guard wasBlocked else { return }
        log(.info, "\(moa) has proved that it is \(hoa) after all")
        applyPeer(hoa, now)
    }

    private mutating func block(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        if peers[hoa]?.locators[moa]?.isBlocked != true {
            peers[hoa]?.locators.update(moa) { $0.state = .blocked(until: now.monotonic + LocatorState.blockedTime, checks: 0) }
            deadlines.set(.locator(hoa, moa), at: now.monotonic + .seconds(1))
        }
        undoIfRefuted(hoa, now)
        applyPeer(hoa, now)
    }

    /// The time of an unproven locator, or of a blocked one, is up.
    mutating func locatorDue(_ hoa: HomeAddress, _ moa: MobileAddress, _ now: Now) {
        switch peers[hoa]?.locators[moa]?.state {
        case .checking?:
            guard !ownMoAs(ipv4: moa.isIPv4).isEmpty else {
                // Without an address of our own nobody could be asked; the time counts anew when there is one.
                peers[hoa]?.locators.update(moa) { $0.state = nil }
                return
            }
            log(.warning, "\(moa) did not prove within \(LocatorState.unprovenUseMax.components.seconds) s that it is \(hoa); it is not used for \(LocatorState.blockedTime.components.seconds) s")
            block(moa, of: hoa, now)
        case .blocked(let until, _)? where until <= now.monotonic:
            peers[hoa]?.locators.update(moa) { $0.state = nil }
            applyPeer(hoa, now)
        case .blocked(let until, let checks)?:
            peers[hoa]?.locators.update(moa) { $0.state = .blocked(until: until, checks: checks + 1) }
            let pause = min(LocatorState.recheckMax, .seconds(Int64(1) << Int64(min(checks + 1, 10))))
            deadlines.set(.locator(hoa, moa), at: min(until, now.monotonic + pause))
            checkLocator(moa, of: hoa, now)
        case .proven?, nil:
            break
        }
    }
}
