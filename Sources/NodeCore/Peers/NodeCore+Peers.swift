import IMTPlan
import MATSignal

// Peers: what `PeerRecords` and `PeerPaths` are told of them, and what is done of what they say; what an earlier run left (`Adoption`).

extension NodeCore {
    /// The IMSs of an HoA, as far as the DNS was asked; perhaps expired.
    func serverSet(of hoa: HomeAddress) -> ServerSet? { knownServers.servers(of: hoa, peers[hoa]) }

    mutating func keepServers(_ set: ServerSet, of hoa: HomeAddress) {
        knownServers.keep(set, of: hoa, in: &peers) { [destinations, callers] in
            destinations.contains($0) || callers.contains($0)
        }
    }

    // MARK: Records

    /// Takes over a verified record of a peer.
    ///
    /// - Parameter isConfirmed: it came from the peer's IMS.
    mutating func adopt(_ offered: OfferedRecord, for hoa: HomeAddress, isConfirmed: Bool, _ now: Now) {
        let hasPath = peers[hoa].flatMap { paths.installed(of: $0) } != nil
        perform(
            records.offer(
                offered, for: hoa, isConfirmed: isConfirmed, hasPath: hasPath, hasPassed: { [strangers] in strangers.hasPassed($0) }, in: &peers,
                addresses, now: now), now)
    }

    /// A place of the record in force does not answer, or time has passed.
    mutating func undoIfRefuted(_ hoa: HomeAddress, _ now: Now) { perform(records.doubt(hoa, in: &peers, now: now.monotonic), now) }

    private mutating func perform(_ actions: [PeerRecords.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .entered(let hoa):
                knownServers.enter(hoa, in: &peers)
                busiest.entered(hoa)
            case .listed(let record): perform(strangers.listed(by: record), now)
            case .arrange(let hoa): applyPeer(hoa, now)
            case .hearEarly(let hoa): hearEarly(of: hoa, now)
            case .tellAgain(let hoa): if isUntold(hoa) { tellPeer(hoa, now) }
            case .log(let level, let text): log(level, text)
            }
        }
    }

    // MARK: Answers of the peer's IMS

    mutating func peerAnswered(_ hoa: HomeAddress, _ answer: MAAnswer, _ now: Now) {
        let isKnown = peers[hoa] != nil || destinations.contains(hoa) || callers.contains(hoa)
        guard isKnown || strangers.hasCandidate(hoa) else { return }
        switch PeerRecords.judge(answer, about: hoa, peers[hoa], keys: { self.keys(for: $0, of: hoa, now) }, now: now) {
        case .believed(let offered):
            guard isKnown || strangers.named(hoa).contains(where: { offered.record.hoa(at: $0) == hoa }) else {
                strangersAreNot(hoa, now)
                return
            }
            adopt(offered, for: hoa, isConfirmed: true, now)
            callerKnown(hoa, now)
            destinationAnswered(hoa, now)
            releaseKnownStrangers(of: hoa, now)
            settleStrangers(askedFor: hoa, now)
        case .keysNeeded(let prefix):
            if prefix.length < 128 { lookUpKeys(of: prefix, for: .answer(hoa, answer), now) }
        case .unbelieved(let reason):
            counters.recordsRefused += 1
            peerRefused(hoa, reason, now)
        case .absent(let time):
            strangersAreNot(hoa, now)
            callers.end(hoa)
            // Nothing removes an active peer, but what was only provisional is refuted.
            perform(records.undo(hoa, "its IMS knows no mapping", in: &peers), now)
            if peers[hoa] == nil, destinations.contains(hoa) { destinationIsPlain(hoa, time, now) }
            settleStrangers(askedFor: hoa, now)
        case .refused(let reason, let isDenial):
            if isDenial { perform(records.undo(hoa, "its IMS refuses it", in: &peers), now) }
            peerRefused(hoa, reason, now)
        }
    }

    private mutating func peerRefused(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        log(.warning, "\(hoa): \(reason)")
        if peers[hoa] == nil { dropDestination(hoa, now) }
    }

    /// The DNS gave no keys at the name of the prefix that the answer's certificate is for.
    mutating func keysAreMissing(of prefix: IPPrefix, for hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        let reason: String =
            switch result {
            case .failed(let reason), .unusable(let reason): reason
            case .absent: "there is no IMS record\(prefix.keysNote)"
            case .found: "they have expired"
            }
        counters.recordsRefused += 1
        peerRefused(hoa, "the certificate that its IMS gave is for \(prefix), at whose name in the DNS no keys were found: \(reason)", now)
        settleStrangers(askedFor: hoa, now)
    }

    mutating func peerSilent(_ hoa: HomeAddress, _ now: Now) {
        if peers[hoa] != nil {
            perform(records.silent(hoa, in: &peers, now: now.monotonic), now)
        } else if destinations.contains(hoa) {
            log(.warning, "no IMS of \(hoa) answers; packets to it are dropped")
            dropDestination(hoa, now)
        }
        settleStrangers(askedFor: hoa, now)
    }

    mutating func peerLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard peers[hoa] != nil, case .found(let set) = result else { return }
        start(.queryPeer(hoa), to: set.endpoints, now)
        if !knowsUs(hoa) { notifyServers(of: hoa, set, now) }
    }

    // MARK: Polling

    mutating func peerDue(_ hoa: HomeAddress, _ now: Now) {
        let turn = peers[hoa]?.hasPollTurn == false ? exchanges.turn(now.monotonic) : now.monotonic
        switch records.due(hoa, in: &peers, turn: turn, now: now) {
        case .wait:
            break
        case .forget:
            log(.info, "peer \(hoa) is forgotten: no packet for \(configuration.peerIdleMax.components.seconds) s")
            removePeer(hoa, now)
        case .poll:
            undoIfRefuted(hoa, now)
            if !isUnderWay(.queryPeer(hoa)) { query(hoa, now) }
            checkListed(hoa, now)
            tellIfBehind(hoa, now)
            // A peer that nobody could tell of us takes our packets for a stranger's.
            if isUntold(hoa), peers[hoa]?.telling.duties == [], !isUnderWay(.notifyServer(hoa)), let set = knownServers(of: hoa, now) {
                notifyServers(of: hoa, set, now)
            }
        }
    }

    /// Asks the peer's IMS, looking it up first if it is not known (any more).
    mutating func query(_ hoa: HomeAddress, _ now: Now) {
        if let set = knownServers(of: hoa, now) {
            start(.queryPeer(hoa), to: set.endpoints, now)
        } else {
            lookUp(hoa, for: .peer, now)
        }
    }

    // MARK: The kernel

    /// What the node itself has for a peer.
    func ownSide(for peer: HomeAddress) -> PeerPaths.OwnSide? {
        guard let own = home(for: peer) else { return nil }
        let (places, record) = (desiredLocators(of: own), homes[own]?.mapping?.record)
        let hasChosenEndpoint = hasChosenEndpoint(peer)
        let filtered = filteredPairs(with: peer, from: places)
        let answering = filtered.map(\.peer).filter { peerEndpoints[peer]?.isProven(Endpoint($0.address, port: SignalPort.node)) == true }
        return PeerPaths.OwnSide(
            home: own, places: places, preferred: preferences.addresses(for: peer, among: places, listedIn: record, addresses, uplinks),
            record: record, closed: Set(places.filter { hasChosenEndpoint || !isOpen($0, for: own) }),
            filtered: filtered, answering: Set(answering),
            isInDatagramsOnly: configuration.sharesAddresses)
    }

    /// Brings the kernel's entries for this peer in step with its record, its locators' states and our addresses.
    mutating func applyPeer(_ hoa: HomeAddress, _ now: Now) {
        settleTrial(of: hoa, now)
        guard let before = peers[hoa], home(for: hoa) != nil else { return }
        let direct = paths.installed(of: before)
        leaveGateway(hoa, now)
        claimLocators(of: hoa, now)
        listEndpoints(of: hoa, now)
        findOtherFamily(of: before, now)
        listPeersRelays(of: hoa, now)
        // Which place the peer has put first is known by now.
        guard let side = ownSide(for: hoa) else { return }
        if let peer = peers[hoa] { awaitNewPlace(of: peer, side, now) }
        if isReachedByEndpoint(hoa, side) { _ = paths.prefer(hoa, in: &peers, side) }
        let arranged = paths.arrange(hoa, in: &peers, side, addresses, &adoption, isKeptBack: destinations.contains(hoa))
        for change in arranged.changes { self.change(change) }
        let rewritten = peers[hoa].flatMap { paths.installed(of: $0) }
        if let rewritten, rewritten != direct { directPathTaken(by: hoa, rewritten, now) }
        let (isInNetwork, isFound) = applyCandidates(of: hoa, isRewritten: rewritten != nil, now)
        let hasOpened = applyCarriage(of: hoa, isRewritten: rewritten != nil || isInNetwork, now) || isFound
        checkLearned(hoa, now)
        releaseKnownStrangers(of: hoa, now)
        if arranged.hasOpened || hasOpened {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        }
    }

    mutating func removePeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let own = home(for: hoa) else { return }
        removeCarriage(of: hoa, now)
        _ = peersOfOtherFamily.set(hoa, false)
        removeCandidates(of: hoa)
        trials.end(hoa)
        for change in paths.remove(peer, home: own) { self.change(change) }
        releaseLocators(of: hoa, now)
        peers.remove(hoa)
        knownServers.leave(peer) { [destinations] in destinations.contains($0) }
        monitor.forget { if case .peer(hoa, _) = $0.target { true } else { false } }
        for purpose in [Exchange.Purpose.queryPeer(hoa), .notifyServer(hoa), .notifyPeer(hoa), .introduce(hoa)] { cancel(purpose) }
    }

    // MARK: Adoption after a restart

    mutating func adoptEntries(_ outbound: [HomePair: MobilePair], _ inbound: [Arrival: HomeAddress], _ now: Now) {
        guard !outbound.isEmpty || !inbound.isEmpty else { return }
        guard !isHidden else {
            log(
                .notice,
                "\(outbound.count) outbound and \(inbound.count) inbound entries of an earlier run are removed: by them peers would see where we are")
            for pair in outbound.keys.sorted() { change(.removeOutbound(pair)) }
            for arrival in inbound.keys.sorted(by: { ($0.own, $0.peer) < ($1.own, $1.peer) }) {
                change(.removeInbound(peer: arrival.peer, own: arrival.own))
            }
            return
        }
        log(
            .notice, "\(outbound.count) outbound and \(inbound.count) inbound entries of an earlier run go on working while their peers are asked for"
        )
        adoption.begin(outbound: outbound.keys, inbound: inbound)
        let former = adoption.peers.filter { home(for: $0) != nil }
        destinations.remember(former: former)
        adoption.ask(for: former)
        deadlines.set(.adoption, at: now.monotonic + Adoption.timeMax)
        goOnAdopting(now)
    }

    /// Asks for the next peers of an earlier run, as many as can be under way at a time. Their minute begins when all have been asked for.
    mutating func goOnAdopting(_ now: Now) {
        guard adoption.isAsking else { return }
        while destinations.count < share(of: Adoption.atOnceMax), exchanges.isOpen(now.monotonic), let peer = adoption.next() { resolve(peer, now) }
        deadlines.set(.adoption, at: now.monotonic + Adoption.timeMax)
        if adoption.isAsking { deadlines.set(.adopting, at: max(exchanges.opens(now.monotonic), now.monotonic + Adoption.tick)) }
    }

    /// Their time is up.
    mutating func adoptionDue(_ now: Now) {
        let counts = adoption.counts
        let outcome = adoption.due(
            isUndecided: { [peers, destinations] in peers[$0] == nil && destinations.isUndecidedPeer($0) },
            isHeld: { [peers] in peers.holder(of: $0) != nil })
        switch outcome {
        case .goOn:
            goOnAdopting(now)
        case .end(let changes):
            if counts != (0, 0) {
                log(.notice, "removing \(counts.outbound) outbound and \(counts.inbound) inbound entries of an earlier run that no peer claims")
            }
            for change in changes { self.change(change) }
        }
    }
}
