import IMTPlan
import MATCore
import MATSignal

// Movement (paper 4.3): what follows when our own addresses change. `UsableAddresses` says what changed, and whether the old address goes on
// working until each peer has acked the new one; then peers' traffic, the own registration and what is under way follow, in this order.

extension NodeCore {
    /// Takes over the usable addresses, and hands over if the first of a family changed.
    mutating func arrange(_ locators: [OwnLocator], _ now: Now) {
        let news = uplinks.linksChanged(from: addresses.system, to: locators, now: now.monotonic)
        monitor.forget { news.gone.contains($0.own) }
        for (locator, pause) in news.flapping {
            log(
                .notice, "\(locator.interface) comes and goes: \(locator.moa) is preferred only after it has stayed for \(pause.components.seconds) s"
            )
        }
        let arranged = addresses.arrange(locators, uplinks, now: now.monotonic)
        if let due = addresses.due { deadlines.set(.arrangement, at: due) } else { deadlines.cancel(.arrangement) }
        switch arranged {
        case .same:
            break
        case .left(let dead):
            reconsiderCandidates(now)
            for hoa in homes.keys.sorted() { movePaths(of: hoa, gone: dead, isWhole: false, now) }
            probeAnew([], now)
            flushChanges()
        case .changed(let change):
            ownEndpoints.keep(addresses.ordered.map(\.moa), now.monotonic)
            for moa in localPorts.keep(addresses.ordered.map(\.moa)) { emit(.usePort(SignalPort.node, for: moa.address)) }
            enterOwnAddresses()
            reconsiderCandidates(now)
            for family in AddressFamily.allCases {
                guard let hoa = home(in: family) else { continue }
                let servers = homes[hoa]?.servers?.endpoints ?? []
                if let move = change.move(family, { OtherFamily.askedFirst($0, of: family, servers: servers) }) {
                    self.move(hoa, move, from: change.before, now)
                }
            }
            holdBindings(now)
            probeAnew(change.hasOtherFirst ? AddressFamily.allCases : change.reachedElsewhere, now)
            reconsider(change.addresses, now)
            if change.hasOtherScopes {
                if peers.count <= Backlog.atOnceMax { reconsiderScope(now) } else { deadlines.set(.scope, at: now.monotonic) }
            }
        }
    }

    /// The same addresses: which of them work, or what people prefer, is another matter than before.
    mutating func arrangeAgain(_ now: Now) { arrange(addresses.system, now) }

    /// A person chose this interface: what was held against its addresses counts no more.
    mutating func trust(interface: String, _ now: Now) {
        for locator in addresses.system where locator.interface == interface {
            endRecovery(of: locator.moa, now)
            uplinks.trust(locator.moa)
        }
    }

    /// Looks again at the peers that list these addresses as their locators: an own address is none.
    mutating func reconsider(_ addresses: Set<IPAddress>, _ now: Now) {
        for address in addresses.sorted() {
            for claimant in peers.claimants(of: MobileAddress(address)) { applyPeer(claimant, now) }
        }
    }

    /// Looks again at the peers with locators of other than global scope.
    mutating func reconsiderScope(_ now: Now) {
        let affected = peers.slots.compactMap { slot in
            peers[slot].flatMap { peer in peer.locators.contains { $0.moa.address.scope != .global } ? peer.hoa : nil }
        }
        for peer in affected { applyPeer(peer, now) }
    }

    /// Tells the kernel which addresses are ours to be reached at, and as whom.
    private mutating func enterOwnAddresses() {
        var wanted: [MobileAddress: HomeAddress] = [:]
        for hoa in homes.keys { for moa in desiredLocators(of: hoa) + addresses.left(by: hoa) where isRewritable(moa, hoa) { wanted[moa] = hoa } }
        for change in entered.replace(by: wanted) { self.change(change) }
    }

    private func place(_ moa: MobileAddress, _ locators: [OwnLocator]) -> HandoverHistory.Place {
        HandoverHistory.Place(moa: moa, interface: locators.first { $0.moa == moa }?.interface)
    }

    /// Why an own HoA leaves the address that was its first.
    private func cause(of move: UsableAddresses.Move) -> HandoverHistory.Cause {
        if let left = move.from.first, move.gone.contains(left) { return uplinks.isDead(left) ? .pathDead : .addressGone }
        if let first = move.first, let chosen = addresses.chosenInterface, addresses.interface(of: first) == chosen { return .chosen }
        return move.from.isEmpty ? .addressGone : .preferred
    }

    /// - Parameter before: the usable addresses until now.
    private mutating func move(_ hoa: HomeAddress, _ move: UsableAddresses.Move, from before: [OwnLocator], _ now: Now) {
        let places = move.to.map(\.description).joined(separator: ", ")
        guard let first = move.first else {
            log(.warning, "\(hoa) has no usable address now; packets are held until there is one")
            // Their entries stay: without a link to leave by, packets fall back into the agent's hands, and the next address
            // takes all entries over in one step.
            homes[hoa]?.registration.stranded()
            if homes[hoa]?.isKnown == true { history.stranded(hoa, from: move.from.first.map { place($0, before) }, cause(of: move), now) }
            return
        }
        let isHandover = move.isHandover(wasRegistered: homes[hoa]?.isKnown == true)
        if isHandover {
            counters.handovers += 1
            history.moved(
                hoa, from: move.from.first.map { place($0, before) }, to: place(first, addresses.ordered), cause(of: move),
                hasOverlap: move.hasOverlap, peers: peers.count(of: hoa.family), now)
            let overlap = move.hasOverlap ? "with overlap" : "without overlap"
            log(.notice, "handover of \(hoa): \(move.from.first?.description ?? "nowhere") -> \(first) \(overlap) (\(places))")
        } else {
            log(.info, "\(hoa) can be reached at \(places)")
        }
        // The overlap may end before our IMS or the peers have answered.
        let isOwed = homes[hoa]?.announcement.isOwed == true
        let isHeld = isOwed && leavesLiving(move) || isHandover && !move.keepsSource && (isOwed || !move.from.contains(first))
        if isHeld { holdConnections(of: hoa, now) }
        homes[hoa]?.registration.moved(isSound: !uplinks.isRefused(first))
        // Peers with a preference of their own switch when they know of an address, whether or not it is the first.
        if isHandover || !preferences.isEmpty && homes[hoa]?.isKnown == true { homes[hoa]?.announcement.moved() }
        // One step, whatever the number of peers, in one transaction with what we accept. Telling them is another matter.
        movePaths(of: hoa, gone: move.gone, isWhole: !move.hasOverlap, now)
        flushChanges()
        exchanges.cancel(from: move.gone)
        if !move.hasOverlap { resendAll(now) }
        register(hoa, now)
        // Whether anything answers there is asked at once rather than when packets were lost.
        suspect(first, now)
        let isCutShort = homes[hoa]?.announcement.isOwed == true && leavesLiving(move)
        // Nor by those that wait for peers to hear of it, as when a network's IPv6 stood in until DHCP had answered.
        if isHandover && !move.hasOverlap || isCutShort || isHeld { tellAtOnce(hoa, first, now) }
        flushChanges()
        if !peers.isEmpty { emit(.releaseRouted) }
        continueResolving(hoa.family, now)
    }

    /// Whether an address went that worked.
    private func leavesLiving(_ move: UsableAddresses.Move) -> Bool { move.gone.contains { !uplinks.isDead($0) } }

    // MARK: Connections that begin meanwhile

    /// What begins to peers waits until they have heard of the move.
    private mutating func holdConnections(of hoa: HomeAddress, _ now: Now) {
        guard peers.count(of: hoa.family) > 0 else { return }
        begun.hold(of: hoa)
        change(.holdConnections(of: hoa, lifetime: BegunConnections.holdMax))
        deadlines.set(.connections(hoa), at: now.monotonic + BegunConnections.holdMax)
    }

    mutating func letConnections(of hoa: HomeAddress) {
        begun.letGo(of: hoa)
        change(.letConnections(of: hoa))
        flushChanges()
        emit(.releaseRouted)
    }

    /// Whether what begins to this peer waits. Of those that packets reach in datagrams nothing does: they take nobody for a stranger who is not.
    package func holdsConnections(to hoa: HomeAddress) -> Bool {
        guard let own = home(for: hoa), begun.areHeld(of: own), let peer = peers[hoa], paths.installed(of: peer) != nil else { return false }
        return !knowsUs(hoa)
    }

    /// Lets peers' traffic leave from our first address: all of it, or just what left from addresses that are gone or dead.
    private mutating func movePaths(of hoa: HomeAddress, gone: Set<MobileAddress>, isWhole: Bool, _ now: Now) {
        let usable = desiredLocators(of: hoa)
        guard let first = usable.first else { return }
        let isClosed = !isOpen(first, for: hoa)
        let hasPreferences = !preferences.isEmpty || isClosed
        let moved = paths.move(hoa, to: usable, gone: gone, isWhole: isWhole, hasPreferences: hasPreferences, isClosed: isClosed)
        for change in moved.changes {
            self.change(change)
            if case .moveOutbound(let from, let to) = change {
                carriagesMoved(from: from, to: to)
                gateways.installedMoved(from: from, to: to)
            }
        }
        for peer in moved.waiting { applyPeer(peer, now) }
        for busy in busiest.peers where busy.family == hoa.family {
            guard let pair = peers[busy].flatMap({ paths.installed(of: $0) }) else { continue }
            if trials.isFiltered(pair) { applyPeer(busy, now) } else { directPathTaken(by: busy, pair, now) }
        }
        for (peer, isFollowing) in paths.exceptions(
            from: moved, of: hoa, isWhole: isWhole, hasPreferences: hasPreferences || moved.isOneByOne, peers)
        {
            if isFollowing, let side = ownSide(for: peer) { _ = paths.prefer(peer, in: &peers, side) }
            applyPeer(peer, now)
        }
    }

    /// Nothing works any more from the old address, so nothing is waited for: peers get a record from the new address at once,
    /// before the IMS has it. If further locators are still being proven, another record follows when that is done.
    mutating func tellAtOnce(_ hoa: HomeAddress, _ first: MobileAddress, _ now: Now) {
        // Before an own server has said where it is seen, there is no record to tell of.
        guard listing(of: first, for: hoa) != .awaited else { return }
        if homes[hoa]?.registration.signer.places.first != first, !signAtOnce(hoa, now) { return }
        // If further locators are still being proven, another record follows.
        let isLast = homes[hoa]?.registration.stage == .updating
        homes[hoa]?.announcement.told(again: !isLast)
        tell(hoa, [.tellPeer, .tellServer, .subscribe], now)
    }

    // MARK: Peers' own addresses

    /// Lets a peer's traffic leave from the preferred own address.
    mutating func switchPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let side = ownSide(for: hoa) else { return }
        // It is asked from there first, and follows when it has answered.
        guard !waitsForEndpoint(hoa, side) else { return applyPeer(hoa, now) }
        guard !awaitsCheck(hoa, side, now) else { return }
        guard let first = paths.prefer(hoa, in: &peers, side) else { return }
        applyPeer(hoa, now)
        log(PeerRecords.level(peers), "traffic to \(hoa) leaves from \(first)")
    }
}
