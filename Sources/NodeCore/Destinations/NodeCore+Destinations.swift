import MATCore
import MATSignal

// What comes of unknown destinations: what `Destinations` is told of them, and what is done about what it says.

extension NodeCore {
    // MARK: Events

    /// A packet to a destination that the kernel has no entry for is held, or should be again.
    mutating func resolve(_ hoa: HomeAddress, _ now: Now) {
        guard hoa.address.isUsableUnicast, !isOwn(hoa.address) else {
            emit(.dropOutbound(to: hoa.address))
            return
        }
        guard home(for: hoa) != nil else {
            destinationIsPlain(hoa, Destinations.absenceMax, now)
            return
        }
        if gateways.contains(hoa) {
            // Its entry is younger than the packet, or its packets wait for a binding.
            if !waitsForGateway(hoa) { emit(.releaseOutbound(to: hoa.address)) }
            return
        }
        if let peer = peers[hoa] {
            // A packet that was on its way to the TUN when its peer's entry was made, or its way in datagrams, or one that has no path at the
            // moment and stays held until there is one.
            let outbound = paths.installed(of: peer)
            if outbound != nil || carriage(of: hoa) != nil { emit(.releaseOutbound(to: hoa.address)) } else { checkRefused(hoa, now) }
            if !ownLocators.contains(where: { $0.moa == outbound?.own }) { notePeerUse(hoa, now) }
            return
        }
        perform(destinations.hold(hoa, surroundings(of: hoa, now), now: now.monotonic), now)
    }

    /// A question to a DNS server, in a packet of this host's.
    ///
    /// - Returns: whether the packet went on, so that there is nothing to hold.
    mutating func passesNames(to hoa: HomeAddress, _ now: Now) -> Bool {
        guard home(for: hoa) != nil, peers[hoa] == nil, hoa.address.isUsableUnicast, !isOwn(hoa.address),
            let actions = destinations.holdName(hoa, surroundings(of: hoa, now), now: now.monotonic)
        else { return false }
        perform(actions, now)
        return true
    }

    mutating func destinationLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        perform(destinations.lookedUp(hoa, result, surroundings(of: hoa, now), now: now.monotonic), now)
    }

    /// The DNS named IMSs, to whoever asked.
    mutating func destinationNamed(_ hoa: HomeAddress, isAwaited: Bool, _ now: Now) {
        leaveGateway(hoa, now)
        perform(destinations.named(hoa, isAwaited: isAwaited, surroundings(of: hoa, now), now: now.monotonic), now)
    }

    /// What these destinations waited for may be there: an own record, an own address.
    mutating func continueResolving(_ family: AddressFamily, _ now: Now) {
        for hoa in destinations.all where hoa.family == family { perform(destinations.ask(hoa, surroundings(of: hoa, now)), now) }
    }

    /// The mapping is in force.
    mutating func destinationAnswered(_ hoa: HomeAddress, _ now: Now) {
        if peers[hoa] != nil { perform(destinations.answered(hoa, now: now.monotonic), now) }
    }

    /// Its IMS knows no mapping, or there is no own HoA of its family.
    mutating func destinationIsPlain(_ hoa: HomeAddress, _ lifetime: Duration, _ now: Now) {
        perform(destinations.absent(hoa, for: lifetime, now: now.monotonic), now)
    }

    mutating func dropDestination(_ hoa: HomeAddress, _ now: Now) { perform(destinations.drop(hoa), now) }

    mutating func destinationDue(_ hoa: HomeAddress, _ now: Now) {
        perform(destinations.due(hoa, surroundings(of: hoa, now), now: now.monotonic), now)
    }

    mutating func destinationLookUpDue(_ hoa: HomeAddress, _ now: Now) { perform(destinations.lookUpDue(hoa), now) }

    /// The network or the resolvers changed: what was not validated on this host is asked for anew (protocol.md section 8), and who waits for
    /// an answer asks at once.
    ///
    /// - Parameter isLocal: names are found by a process of this host, whose own questions can't wait for a look-up.
    public mutating func namesChanged(isLocal: Bool, now: Now) -> [NodeAction] {
        destinations.namesChanged(isLocal: isLocal)
        forgetNames(now)
        guard !ownLocators.isEmpty else { return endEvent() }
        homeNamesChanged(now)
        for hoa in destinations.unnamed { lookUp(hoa, for: .destination, now) }
        return endEvent()
    }

    /// Known IMSs are used until they are known anew: right after a move the DNS may not be reachable yet. Absence is forgotten.
    private mutating func forgetNames(_ now: Now) {
        knownServers.expire(now: now.monotonic)
        for hoa in homes.keys { homes[hoa]?.registration.leaveNetwork(now.monotonic) }
        // Not all at the moment at which most is to be done.
        peers.expireServers(by: now.monotonic + configuration.pollInterval / 2)
        forgetAbsence(now)
    }

    mutating func forgetAbsence(_ now: Now) { perform(destinations.forgetAbsence(now: now.monotonic), now) }

    // MARK: What Destinations asks for

    private func surroundings(of hoa: HomeAddress, _ now: Now) -> Destinations.Surroundings {
        let set = serverSet(of: hoa)
        return Destinations.Surroundings(
            hasServers: set != nil, hasFreshServers: set.map { $0.expires > now.monotonic } ?? false,
            canAsk: set != nil && home(for: hoa).map { homes[$0]?.mapping != nil && !desiredLocators(of: $0).isEmpty } ?? false,
            hasAddress: !ownLocators.isEmpty)
    }

    // MARK: What Destinations wants done

    mutating func perform(_ actions: [Destinations.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .lookUp(let hoa): lookUp(hoa, for: .destination, now)
            case .ask(let hoa): askServers(ofDestination: hoa, now)
            case .introduce(let hoa): introduce(hoa, now)
            case .begin(let hoa, let duration, let isNotifiedInVain): begin(hoa, after: duration, isNotifiedInVain: isNotifiedInVain, now)
            case .pass(let hoa):
                if waitsForGateway(hoa) { continue }
                flushChanges()
                emit(.releaseOutbound(to: hoa.address))
            case .passNames(let hoa): emit(.passNames(to: hoa.address))
            case .drop(let hoa): emit(.dropOutbound(to: hoa.address))
            case .stopAsking(let hoa):
                cancel(.queryPeer(hoa))
                cancel(.notifyServer(hoa))
            case .change(let change): if !isGateways(change, now) { self.change(change) }
            case .wake(let hoa, let time): deadlines.set(.destination(hoa), at: time)
            case .wakeToLookUp(let hoa, let time): deadlines.set(.destinationLookUp(hoa), at: time)
            case .stopWakingToLookUp(let hoa): deadlines.cancel(.destinationLookUp(hoa))
            case .stopWaiting(let hoa):
                deadlines.cancel(.destination(hoa))
                deadlines.cancel(.destinationLookUp(hoa))
            case .count(let counter): counters[keyPath: counter] += 1
            case .log(let level, let text): log(level, text)
            }
        }
    }

    /// Sends (1) and (2) of paper 4.2 at once.
    private mutating func askServers(ofDestination hoa: HomeAddress, _ now: Now) {
        guard let set = serverSet(of: hoa) else { return }
        start(.queryPeer(hoa), to: set.endpoints, now)
        if !notifyServers(of: hoa, set, now) { destinations.notificationDelayed(hoa) }
    }

    /// MA Notify to a destination that has just become a peer. Its IMS may not have told it of us yet, so that it refuses; but it gives its
    /// cookie, under which the second one, ahead of the first packets, proves our place. Otherwise these would wait there for its check of us,
    /// a round trip after all else.
    private mutating func introduce(_ hoa: HomeAddress, _ now: Now) {
        guard let target = signallingTarget(of: hoa), let own = preferredSources[target.family] else { return }
        start(.introduce(hoa), to: [target], source: own, triesMax: 1, now)
    }

    /// The second one, if the first was answered.
    private mutating func showPlace(to hoa: HomeAddress, _ now: Now) {
        guard let target = signallingTarget(of: hoa), let own = preferredSources[target.family], !isUnderWay(.notifyPeer(hoa)),
            servers.proof(server: target, own: own, now: now.monotonic) != nil
        else { return }
        start(.introduce(hoa), to: [target], source: own, triesMax: 1, now)
    }

    /// Communication begins: its packets go on.
    private mutating func begin(_ hoa: HomeAddress, after duration: Duration, isNotifiedInVain: Bool, _ now: Now) {
        if isNotifiedInVain { notifySoonAgain(hoa, now) }
        log(.debug, "packets to \(hoa) go on after \(duration.millisecondsSaturated) ms")
        if !knowsUs(hoa), !isUnderWay(.notifyServer(hoa)), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) } else { showPlace(to: hoa, now) }
        // The path was kept back with them. Without one they stay held until there is one.
        if let peer = peers[hoa], paths.installed(of: peer) != nil {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        } else {
            applyPeer(hoa, now)
        }
    }
}
