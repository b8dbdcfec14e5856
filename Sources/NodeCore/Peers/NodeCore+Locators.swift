import MATSignal

// Which of a peer's locators count (section 6, "Locator check"). How far each is believed is `LocatorState`'s; here is what tells it,
// and what follows: the check, the claim of another HoA, and what the kernel gets (`applyPeer`).

extension NodeCore {
    /// Whether the address can be a peer's locator here at all; otherwise it is not even asked.
    func canBeLocator(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        moa.family == hoa.family && !isOwn(moa.address) && !addresses.isOthers(moa.address) && addresses.isInReach(moa)
    }

    /// Whether a valid MA Notify from there lets the peer's packets in while it is checked; elsewhere nothing counts before it has proved
    /// itself ("checked before use" of section 6).
    private func canBeNoticed(_ moa: MobileAddress, of hoa: HomeAddress) -> Bool {
        guard canBeLocator(moa, of: hoa), !addresses.infrastructure.contains(moa.address), !addresses.isNeighbour(moa.address),
            peers.holder(of: moa).map({ $0 == hoa }) ?? true
        else { return false }
        return !(peers[hoa]?.locators.has(moa, .guarded) ?? false)
    }

    // MARK: Claims

    /// Lets the peer be found by the places that it lists, and gives up those that it no longer lists.
    mutating func claimLocators(of hoa: HomeAddress) {
        for locator in peers[hoa]?.locators ?? PeerLocators() {
            if locator.roles.isDisjoint(with: [.listed, .earlier]) {
                if locator.roles.contains(.claimed) { release(locator, of: hoa) }
            } else if !locator.roles.contains(.claimed) {
                peers.claim(locator.moa, for: hoa)
            }
        }
    }

    /// Gives up a place. That it was refused is remembered, or the next record that lists it would make it a new one.
    private mutating func release(_ locator: PeerLocator, of hoa: HomeAddress) {
        peers.release(locator.moa, of: hoa)
        cancel(.checkLocator(hoa, locator.moa))
        guard !locator.state.isRefused else { return }
        peers[hoa]?.locators.update(locator.moa) { $0.state = .unchecked }
        deadlines.cancel(.locator(hoa, locator.moa))
    }

    mutating func releaseLocators(of hoa: HomeAddress) {
        for locator in peers[hoa]?.locators ?? PeerLocators() {
            peers.release(locator.moa, of: hoa)
            cancel(.checkLocator(hoa, locator.moa))
            deadlines.cancel(.locator(hoa, locator.moa))
        }
    }

    /// Whether some peer says that it is there and is being asked.
    func isBeingChecked(_ moa: MobileAddress) -> Bool {
        peers.claimants(of: moa).contains { peers[$0]?.locators[moa]?.state.isOpen ?? false }
    }

    // MARK: What counts

    /// All locators that packets of this peer are taken from: those of its record and, while that is provisional, of the one before.
    func acceptedLocators(of peer: Peer) -> Set<MobileAddress> {
        Set(peer.locators.filter { $0.roles.contains(.claimed) && $0.state.acceptsPackets && canBeLocator($0.moa, of: peer.hoa) }.map(\.moa))
    }

    /// Those that packets may be sent to, in the record's order.
    func provenLocators(of peer: Peer) -> [MobileAddress] {
        peer.locators.filter { $0.roles.isSuperset(of: [.listed, .claimed]) && $0.state.isProven && canBeLocator($0.moa, of: peer.hoa) }.map(\.moa)
    }

    /// Where to send to: the first locator of the record that is proven.
    func outboundLocator(of peer: Peer) -> MobileAddress? {
        let proven = provenLocators(of: peer)
        if let moa = detouredLocator(of: peer), proven.contains(moa) { return moa }
        return proven.first
    }

    /// Likewise, without regard to paths that were found dead.
    func usualLocator(of peer: Peer) -> MobileAddress? { provenLocators(of: peer).first }

    // MARK: The check

    /// Tells a locator's machine, and sets its clock.
    ///
    /// - Returns: whether packets to or from it are treated differently now.
    @discardableResult
    private mutating func tell(_ moa: MobileAddress, of hoa: HomeAddress, _ event: LocatorState.Event, _ now: Now) -> Bool {
        guard var state = peers[hoa]?.locators[moa]?.state else { return false }
        let before = state
        state.take(event, now.monotonic)
        peers[hoa]?.locators.update(moa) { $0.state = state }
        if let due = state.due { deadlines.set(.locator(hoa, moa), at: due) } else { deadlines.cancel(.locator(hoa, moa)) }
        if before.acceptsPackets != state.acceptsPackets || before.isProven != state.isProven { return true }
        // What an earlier run entered stays only while it is asked.
        return before.isOpen && !state.isOpen && adoption.hasEntries
    }

    /// Asks at all places that the record lists, standby ones too, those that have not been asked since they were learned.
    mutating func checkLearned(_ hoa: HomeAddress, _ now: Now) {
        for locator in peers[hoa]?.locators ?? PeerLocators() where locator.roles.contains(.listed) && locator.state == .unchecked {
            guard canBeLocator(locator.moa, of: hoa), !ownMoAs(locator.moa.family).isEmpty else { continue }
            tell(locator.moa, of: hoa, .listed, now)
            checkLocator(locator.moa, of: hoa, now)
        }
    }

    /// Asks at all places of the record again: with each poll.
    mutating func checkListed(_ hoa: HomeAddress, _ now: Now) {
        for locator in peers[hoa]?.locators ?? PeerLocators() where locator.roles.contains(.listed) && canBeLocator(locator.moa, of: hoa) {
            checkLocator(locator.moa, of: hoa, now)
        }
    }

    /// Asks once more at places that were refused, because somebody has packets for the peer or from there: what had failed may work
    /// again, and its own time would come too late.
    mutating func checkRefused(_ hoa: HomeAddress, at moa: MobileAddress? = nil, _ now: Now) {
        for locator in peers[hoa]?.locators ?? PeerLocators()
        where locator.roles.contains(.listed) && locator.state.isRefused && moa ?? locator.moa == locator.moa {
            guard !isUnderWay(.checkLocator(hoa, locator.moa)), canBeLocator(locator.moa, of: hoa), rechecks.take(at: now.monotonic) else { continue }
            checkLocator(locator.moa, of: hoa, now)
        }
    }

    /// MA Query to the locator's port 6289: "are you this HoA, here?".
    mutating func checkLocator(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard !isUnderWay(.checkLocator(hoa, moa)) else { return }
        start(.checkLocator(hoa, moa), to: [Endpoint(signallingAddress(of: moa, hoa), port: SignalPort.node)], now)
    }

    /// Where the node that answers for a peer's locator listens.
    func signallingAddress(of moa: MobileAddress, _ hoa: HomeAddress) -> IPAddress { peers[hoa]?.signallingAddress(of: moa) ?? moa.address }

    mutating func locatorAnswered(_ hoa: HomeAddress, _ moa: MobileAddress, _ code: ResponseCode?, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        switch code {
        case .ok?:
            prove(moa, of: hoa, now)
        case .notAuthoritative?:
            log(.info, "\(moa) says that it is not \(hoa)")
            if tell(moa, of: hoa, .denied, now) { refused(moa, of: hoa, now) }
            undoIfRefuted(hoa, now)
            // The peer moved, or its address went to another host: its IMS knows.
            if peer.lists(moa), !isUnderWay(.queryPeer(hoa)), rechecks.take(at: now.monotonic) { query(hoa, now) }
            settleClaimed(moa, now)
        case nil:
            // While nobody answers us, silence says nothing about this peer.
            guard hasHeardOthers(like: moa, now) else { break }
            if tell(moa, of: hoa, .unanswered, now) {
                log(.info, "\(moa) has not answered \(LocatorState.unansweredMax) times whether it is \(hoa)")
                refused(moa, of: hoa, now)
            }
        default:
            break
        }
    }

    /// Whether anybody answered while a check went without an answer.
    private func hasHeardOthers(like moa: MobileAddress, _ now: Now) -> Bool {
        exchanges.hasHeard(moa.family, within: .seconds(8), now.monotonic)
    }

    /// The node at this address has shown that it is this HoA, there. Who was taken to be there before is there no more.
    mutating func prove(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        guard let locator = peers[hoa]?.locators[moa], !locator.roles.isDisjoint(with: [.listed, .earlier]) else { return }
        if let holder = peers.holder(of: moa), holder != hoa {
            log(.notice, "\(hoa) has proved that it is at \(moa), where \(holder) was")
            tell(moa, of: holder, .lost, now)
            // Out of the kernel's map first: the new entry has the same key.
            refused(moa, of: holder, now)
            if !isUnderWay(.queryPeer(holder)) { query(holder, now) }
        }
        peers.claim(moa, for: hoa, isCertain: true)
        if locator.state.isRefused { log(.info, "\(moa) has proved that it is \(hoa)") }
        if tell(moa, of: hoa, .proved, now) { applyPeer(hoa, now) }
        tellIfBehind(hoa, now)
    }

    /// A valid MA Notify of this HoA came from this source: its packets count while it is checked, if nobody else is known to be there.
    mutating func notice(_ hoa: HomeAddress, from source: Endpoint, _ now: Now) {
        guard source.port == SignalPort.node, let peer = peers[hoa] else { return }
        var isNews = false
        for locator in peer.locators
        where locator.roles.isSuperset(of: [.listed, .claimed]) && peer.signallingAddress(of: locator.moa) == source.address {
            // What an earlier run took for another peer's may still be that one's.
            guard canBeNoticed(locator.moa, of: hoa), !adoption.isOthers(locator.moa, than: hoa) else { continue }
            isNews = tell(locator.moa, of: hoa, .noticed, now) || isNews
        }
        if isNews { applyPeer(hoa, now) }
    }

    /// A locator counts no more: out of the kernel with it, in both directions.
    private mutating func refused(_ moa: MobileAddress, of hoa: HomeAddress, _ now: Now) {
        undoIfRefuted(hoa, now)
        applyPeer(hoa, now)
        settleClaimed(moa, now)
    }

    /// The time of an unproven locator, or of a refused one, is up.
    mutating func locatorDue(_ hoa: HomeAddress, _ moa: MobileAddress, _ now: Now) {
        guard let locator = peers[hoa]?.locators[moa] else { return }
        if locator.state.isOpen, ownMoAs(moa.family).isEmpty {
            // Without an address of our own nobody could be asked; the time counts anew when there is one.
            pathless.insert(hoa)
            if tell(moa, of: hoa, .stranded, now) { applyPeer(hoa, now) }
            return
        }
        if locator.state.isOpen {
            log(
                .warning,
                "\(moa) did not prove within \(LocatorState.checkMax.components.seconds) s that it is \(hoa); it is not used for \(LocatorState.refusedTime.components.seconds) s unless it does"
            )
        }
        tell(moa, of: hoa, .timeUp, now)
        switch peers[hoa]?.locators[moa]?.state {
        case .refused? where locator.state.isRefused:
            if locator.roles.contains(.listed), canBeLocator(moa, of: hoa) { checkLocator(moa, of: hoa, now) }
        case .refused?:
            refused(moa, of: hoa, now)
        default:
            // Long enough ago to be new, or to be forgotten.
            applyPeer(hoa, now)
        }
    }
}
