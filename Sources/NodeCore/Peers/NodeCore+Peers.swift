import IMTPlan
import MATSignal

// Peers: what a record of one means to it (`Peer.offer`), what its IMS answers, when it is polled (`PollTimes`), which entries the kernel is to
// have of it (`PeerEntries`), and what an earlier run left (`Adoption`).

extension NodeCore {
    /// The IMSs of an HoA, as far as the DNS was asked; perhaps expired.
    func serverSet(of hoa: HomeAddress) -> ServerSet? { knownServers.servers(of: hoa, peers[hoa]) }

    mutating func keepServers(_ set: ServerSet, of hoa: HomeAddress) {
        if var peer = peers[hoa] {
            knownServers.keep(set, of: &peer)
            peers[hoa] = peer
        } else {
            knownServers.keep(set, of: hoa) { [destinations] in destinations.contains($0) }
        }
    }

    // MARK: Records

    /// Takes over a verified record of a peer, if it is newer than what is in force.
    ///
    /// - Parameter isConfirmed: it came from the peer's IMS; otherwise it is provisional (section 7, "MA Notify").
    /// - Returns: whether the record is in force now.
    @discardableResult
    mutating func adopt(_ offered: OfferedRecord, for hoa: HomeAddress, isConfirmed: Bool, _ now: Now) -> Bool {
        guard var peer = peers[hoa] else { return enter(offered, for: hoa, isConfirmed: isConfirmed, now) }
        let meaning = peer.offer(offered, isConfirmed: isConfirmed, now: now.monotonic)
        // Of a conflicting record nothing was taken over.
        if meaning != .conflicting { peers[hoa] = peer }
        switch meaning {
        case .conflicting, .older(contradicts: false):
            return false
        case .older(contradicts: true):
            // Its update may be on the way; asked again soon, the IMS confirms the new record or refutes it.
            peers.schedule(hoa, at: now.monotonic + .seconds(1))
            undoIfRefuted(hoa, now)
            if !(peers[hoa]?.holds(offered) ?? true) { applyPeer(hoa, now) }
            return false
        case .same(let isNewlyConfirmed):
            // A poll that finds nothing new costs the kernel's entries no look.
            if isNewlyConfirmed || installedOutbound(of: peer) == nil { applyPeer(hoa, now) }
            return true
        case .newer(let hasMoved):
            takeOverPlain(offered.record, of: hoa, now)
            if hasMoved {
                let level: NodeLogLevel = peers.count <= Self.peersLoggedMax ? .notice : .debug
                log(level, "peer \(hoa) is now at \(Self.places(offered.record.moas(of: hoa)))\(isConfirmed ? "" : " (not confirmed yet)")")
            }
            applyPeer(hoa, now)
            hearEarly(of: hoa, now)
            if hasMoved { reportScope(of: hoa, now) }
            // It moved before it heard of our move: our MA Notify went to where it was.
            if hasMoved, !knowsUs(hoa), let own = home(for: hoa), homes[own]?.announcement.isOwed == false { tellPeer(hoa, now) }
            return true
        }
    }

    /// A new peer.
    private mutating func enter(_ offered: OfferedRecord, for hoa: HomeAddress, isConfirmed: Bool, _ now: Now) -> Bool {
        guard peers.count < configuration.peersMax else {
            log(.warning, "the IMT is full (\(configuration.peersMax) peers); \(hoa) is not entered")
            return false
        }
        var peer = Peer(offered, hoa: hoa, isConfirmed: isConfirmed, now: now.monotonic)
        knownServers.enter(&peer)
        peers[hoa] = peer
        takeOverPlain(offered.record, of: hoa, now)
        busiest.entered(hoa)
        let level: NodeLogLevel = peers.count <= Self.peersLoggedMax ? .notice : .debug
        log(level, "peer \(hoa) is at \(Self.places(offered.record.moas(of: hoa)))\(isConfirmed ? "" : " (not confirmed yet)")")
        pollLater(hoa, now)
        applyPeer(hoa, now)
        hearEarly(of: hoa, now)
        reportScope(of: hoa, now)
        return true
    }

    private static func places(_ moas: [MobileAddress]) -> String {
        moas.isEmpty ? "no place (it withdrew its mapping)" : moas.map(\.description).joined(separator: ", ")
    }

    mutating func undoIfRefuted(_ hoa: HomeAddress, _ now: Now) {
        if peers[hoa]?.isRefuted(now: now.monotonic) ?? false { undo(hoa, "its IMS has an older record and its new place does not answer", now) }
    }

    /// Goes back to the earlier record, if there is one.
    mutating func undo(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        guard let earlier = peers[hoa]?.earlier else { return }
        log(.warning, "peer \(hoa): going back to \(Self.places(earlier.places(of: hoa).map(\.moa))): \(reason)")
        peers[hoa]?.undo()
        applyPeer(hoa, now)
    }

    // MARK: Answers of the peer's IMS

    mutating func peerAnswered(_ hoa: HomeAddress, _ answer: MAAnswer, _ now: Now) {
        let isWanted = peers[hoa] != nil || destinations.contains(hoa) || strangers.hasCandidate(hoa)
        guard isWanted else { return }
        switch answer.code {
        case .ok:
            let offered = answer.mapping.flatMap { mapping in
                answer.certificate.map { OfferedRecord(mapping, under: $0) } ?? peers[hoa].map { OfferedRecord(mapping, underKnownOf: $0) }
            }
            guard let offered else {
                peerRefused(hoa, "the answer of its IMS has no mapping or no certificate", now)
                return
            }
            do throws(VerificationFailure) {
                if peers[hoa]?.holds(offered) ?? false {
                    // Verified before, but it may have expired meanwhile.
                    try offered.checkTimesAndNames(asked: hoa, now: now)
                } else {
                    guard let keys = keys(for: offered, of: hoa, now) else {
                        if offered.prefix.length < 128 { lookUpKeys(of: offered.prefix, for: .answer(hoa, answer), now) }
                        return
                    }
                    try offered.verify(asked: hoa, keys: keys, now: now)
                }
            } catch {
                counters.recordsRefused += 1
                peerRefused(hoa, "the record that its IMS gave is not believed: \(error)", now)
                return
            }
            guard peers[hoa] != nil || destinations.contains(hoa) || strangers.named(hoa).contains(where: { offered.record.hoa(at: $0) == hoa })
            else {
                strangersAreNot(hoa, now)
                return
            }
            adopt(offered, for: hoa, isConfirmed: true, now)
            destinationAnswered(hoa, now)
            releaseKnownStrangers(of: hoa, now)
            settleStrangers(askedFor: hoa, now)
        case .notFound:
            strangersAreNot(hoa, now)
            if let peer = peers[hoa] {
                // Nothing removes an active peer, but what was only provisional is refuted.
                if peer.isProvisional { undo(hoa, "its IMS knows no mapping", now) }
            } else if destinations.contains(hoa) {
                destinationIsPlain(hoa, .seconds(Int64(min(300, answer.lifetime ?? 5))), now)
            }
            settleStrangers(askedFor: hoa, now)
        case .authenticationFailed:
            if let peer = peers[hoa], peer.isProvisional { undo(hoa, "its IMS refuses it", now) }
            peerRefused(hoa, "its IMS answers \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")", now)
        default:
            peerRefused(hoa, "its IMS answers \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")", now)
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
            case .absent: "there is no IMS record"
            case .found: "they have expired"
            }
        counters.recordsRefused += 1
        peerRefused(hoa, "the certificate that its IMS gave is for \(prefix), at whose name in the DNS no keys were found: \(reason)", now)
        settleStrangers(askedFor: hoa, now)
    }

    mutating func peerSilent(_ hoa: HomeAddress, _ now: Now) {
        if destinations.contains(hoa), peers[hoa] == nil {
            log(.warning, "no IMS of \(hoa) answers; packets to it are dropped")
            dropDestination(hoa, now)
        } else if peers[hoa] != nil {
            log(.info, "no IMS of peer \(hoa) answers; what is known stays in force")
            undoIfRefuted(hoa, now)
            // A record that waits for its confirmation does not wait for the next poll.
            if peers[hoa]?.isProvisional == true { peers.schedule(hoa, at: now.monotonic + min(configuration.pollInterval, .seconds(2))) }
        }
        settleStrangers(askedFor: hoa, now)
    }

    mutating func peerLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard peers[hoa] != nil, case .found(let set) = result else { return }
        start(.queryPeer(hoa), to: set.endpoints, now)
        if !knowsUs(hoa) { notifyServers(of: hoa, set, now) }
    }

    // MARK: Polling

    private mutating func pollLater(_ hoa: HomeAddress, _ now: Now) {
        if let peer = peers[hoa] { peers.schedule(hoa, at: now.monotonic + polls.interval(for: peer, among: peers.count, now)) }
    }

    /// The peer's poll is due: forget it if it is unused, otherwise ask its IMS and check its locator again.
    mutating func peerDue(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        if !peer.hasPollTurn {
            // Polls are a safety net: they also let what is more urgent go first.
            let turn = max(polls.turn(now.monotonic), exchanges.turn(now.monotonic))
            if turn > now.monotonic {
                peers[hoa]?.hasPollTurn = true
                peers.schedule(hoa, at: turn)
                return
            }
        }
        peers[hoa]?.hasPollTurn = false
        guard now.monotonic - peer.lastTraffic < configuration.peerIdleMax else {
            log(.info, "peer \(hoa) is forgotten: no packet for \(configuration.peerIdleMax.components.seconds) s")
            removePeer(hoa, now)
            return
        }
        pollLater(hoa, now)
        undoIfRefuted(hoa, now)
        if !isUnderWay(.queryPeer(hoa)) { query(hoa, now) }
        checkListed(hoa, now)
        tellIfBehind(hoa, now)
        // A peer that nobody could tell of us takes our packets for a stranger's.
        if !knowsUs(hoa), peer.duties.isEmpty, !isUnderWay(.notifyServer(hoa)), let own = home(for: hoa), homes[own]?.announcement.isOwed == false,
            let set = knownServers(of: hoa, now)
        {
            notifyServers(of: hoa, set, now)
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

    /// Brings the kernel's entries for this peer in step with its record, its locators' states and our addresses.
    mutating func applyPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let own = home(for: hoa), peers[hoa] != nil else { return }
        claimLocators(of: hoa)
        guard var peer = peers[hoa] else { return }
        let ownMoAs = desiredLocators(of: own)
        if ownMoAs.isEmpty {
            if peer.path == OwnPaths.none || peer.locators.listed.contains(where: { $0.state == .unchecked }) { pathless.insert(hoa) }
        } else if ownPaths[peer.path].map({ !ownMoAs.contains($0) }) ?? true, let first = preferredOwnMoA(for: hoa) {
            peer.path = pathNumber(of: first, own)
        }
        pruneDetour(of: peer)
        let accepted = acceptedLocators(of: peer)
        let target = outboundLocator(of: peer)
        let before = PeerEntries(
            inbound: Set(peer.locators.filter { $0.roles.contains(.accepted) }.map(\.moa)), outbound: installedOutbound(of: peer))
        let ownMoA = ownMoA(of: peer)
        var outbound = target.flatMap { target in ownMoA.map { MobilePair(own: $0, peer: target) } }
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        if destinations.contains(hoa), before.outbound == nil { outbound = nil }

        let pair = HomePair(own: own, peer: hoa)
        // What an earlier run believed of places that are being asked now stays until they have answered or not.
        let open =
            !adoption.hasEntries
            ? []
            : Set(
                peer.locators.filter { $0.roles.contains(.listed) && ($0.state.isOpen || $0.state == .unchecked) && canBeLocator($0.moa, of: hoa) }
                    .map(\.moa))
        // Whoever has proved since that it is there has an entry of the same key.
        let stale = adoption.giveUpInbound(pair, keeping: open).filter { moa in peers.holder(of: moa).map { $0 == hoa } ?? true }
        var isOutboundStale = false
        if outbound.map({ $0 != before.outbound }) ?? (target == nil && open.isEmpty && before.outbound == nil) {
            isOutboundStale = adoption.claimOutbound(pair)
        }
        let entries = PeerEntries(inbound: accepted, outbound: outbound)
        let reason: Carriage.Reason = outbound?.own == ownPaths[peer.path] ? .preferred : .detour
        for change in entries.changes(from: before, of: pair, because: reason, stale: stale, isOutboundStale: isOutboundStale) { self.change(change) }
        if let outbound, let earlier = before.outbound, outbound != earlier { peer.switches &+= 1 }
        peer.locators.assign(.accepted) { accepted.contains($0.moa) }
        peer.locators.assign(.target) { $0.moa == outbound?.peer }
        peer.locators.prune()
        let path = outbound.map { $0.own == ownPaths[peer.path] ? peer.path : pathNumber(of: $0.own, own) } ?? OwnPaths.none
        // What the number counts for all its peers counts from now on.
        peer.switches = peer.switches &+ ownPaths.moves(peer.installedPath) &- ownPaths.moves(path)
        peer.installedPath = path
        peers[hoa] = peer

        checkLearned(hoa, now)
        releaseKnownStrangers(of: hoa, now)
        if outbound != nil, before.outbound == nil {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        }
    }

    mutating func removePeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let own = home(for: hoa) else { return }
        if installedOutbound(of: peer) != nil { change(.removeOutbound(HomePair(own: own, peer: hoa))) }
        for locator in peer.locators {
            if locator.roles.contains(.accepted) { change(.removeInbound(peer: locator.moa, own: own)) }
        }
        releaseLocators(of: hoa)
        pathless.remove(hoa)
        peers[hoa] = nil
        knownServers.leave(peer) { [destinations] in destinations.contains($0) }
        forgetPaths(of: hoa)
        for purpose in [Exchange.Purpose.queryPeer(hoa), .notifyServer(hoa), .notifyPeer(hoa), .introduce(hoa)] { cancel(purpose) }
    }

    /// The places that a record lists are no longer taken for plain hosts'. With which of them an untranslated conversation is known is
    /// noted before that is forgotten: what passed may still go on, though new packets would be questioned again.
    private mutating func takeOverPlain(_ record: MappingRecord, of hoa: HomeAddress, _ now: Now) {
        for moa in record.moas(of: hoa) where strangers.hasPassed(moa) { peers[hoa]?.locators.update(moa) { $0.roles.insert(.guarded) } }
        perform(strangers.listed(by: record), now)
    }

    // MARK: Adoption after a restart

    mutating func adoptEntries(_ outbound: [HomePair: MobilePair], _ inbound: [Arrival: HomeAddress], _ now: Now) {
        guard !outbound.isEmpty || !inbound.isEmpty else { return }
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
        // As long as the DNS says nothing about a peer, what an earlier run knew of it goes on.
        let undecided = adoption.peers.filter { peers[$0] == nil && destinations.isUndecidedPeer($0) }
        guard undecided.isEmpty else {
            adoption.ask(for: undecided)
            return goOnAdopting(now)
        }
        if adoption.hasEntries {
            let counts = adoption.counts
            log(.notice, "removing \(counts.outbound) outbound and \(counts.inbound) inbound entries of an earlier run that no peer claims")
        }
        for change in adoption.end(isHeld: { [peers] in peers.holder(of: $0) != nil }) { self.change(change) }
    }
}
