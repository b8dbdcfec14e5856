import IMTPlan
import MATSignal

// Peers' records: taking them over, confirming and undoing them, and keeping the kernel's entries in step.

extension NodeCore {
    static let serverSetsMax = 8192

    /// The IMSs of an HoA, as far as the DNS was asked; perhaps expired.
    func serverSet(of hoa: HomeAddress) -> ServerSet? {
        guard let peer = peers[hoa], let content = peerServers[peer.servers] else { return otherServers[hoa] }
        return ServerSet(endpoints: content.endpoints, keys: content.keys, expires: peer.serversExpire.time)
    }

    mutating func keepServers(_ set: ServerSet, of hoa: HomeAddress) {
        if let peer = peers[hoa] {
            let number = peerServers.enter(ServerSets.Content(endpoints: set.endpoints, keys: set.keys))
            peerServers.leave(peer.servers)
            peers[hoa]?.servers = number
            peers[hoa]?.serversExpire = CoarseTime(set.expires)
            return
        }
        // HoAs that nothing depends on any more go first, and what would expire first; whatever goes is only looked up again.
        otherServers.makeRoom(for: hoa, max: share(of: Self.serverSetsMax)) { [destinations] in !destinations.contains($0) ? $1.expires : .distantFuture }
        otherServers[hoa] = set
    }

    // MARK: Records

    /// Takes over a verified record of a peer, if it is newer than what is in force.
    ///
    /// - Parameter isConfirmed: it came from the peer's IMS; otherwise it is provisional (section 7, "MA Notify").
    /// - Returns: whether the record is in force now.
    @discardableResult
    mutating func adopt(_ offered: OfferedRecord, for hoa: HomeAddress, isConfirmed: Bool, _ now: Now) -> Bool {
        guard var peer = peers[hoa] else {
            guard peers.count < configuration.peersMax else {
                log(.warning, "the IMT is full (\(configuration.peersMax) peers); \(hoa) is not entered")
                return false
            }
            peers[hoa] = Peer(offered, hoa: hoa, isConfirmed: isConfirmed, now: now.monotonic)
            if let servers = otherServers.removeValue(forKey: hoa) { keepServers(servers, of: hoa) }
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
        if isConfirmed { peer.refreshed = now.monotonic }
        if offered.version < peer.version {
            if isConfirmed, peer.isProvisional {
                peer.contradict(by: offered, now: now.monotonic)
                peers[hoa] = peer
                // Its update may be on the way; asked again soon, the IMS confirms the new record or refutes it.
                peers.schedule(hoa, at: now.monotonic + .seconds(1))
                undoIfRefuted(hoa, now)
                if !(peers[hoa]?.holds(offered) ?? true) { applyPeer(hoa, now) }
            } else {
                peers[hoa] = peer
            }
            return false
        }
        if !(offered.version > peer.version) {
            guard peer.holds(offered) else { return false }
            let isNews = isConfirmed && peer.isProvisional
            if isConfirmed { peer.confirm() }
            peers[hoa] = peer
            // A poll that finds nothing new costs the kernel's entries no look.
            if isNews || installedOutbound(of: peer) == nil { applyPeer(hoa, now) }
            return true
        }
        let hasMoved = peer.locators.listed.map(\.moa) != offered.record.moas(of: hoa)
        peer.hold(offered, isConfirmed: isConfirmed)
        peers[hoa] = peer
        takeOverPlain(offered.record, of: hoa, now)
        if hasMoved {
            let level: NodeLogLevel = peers.count <= Self.peersLoggedMax ? .notice : .debug
            log(level, "peer \(hoa) is now at \(Self.places(offered.record.moas(of: hoa)))\(isConfirmed ? "" : " (not confirmed yet)")")
        }
        applyPeer(hoa, now)
        hearEarly(of: hoa, now)
        if hasMoved { reportScope(of: hoa, now) }
        // It moved before it heard of our move: our MA Notify went to where it was.
        if hasMoved, !knowsUs(hoa), let own = home(for: hoa), homes[own]?.owesPeers == false { tellPeer(hoa, now) }
        return true
    }

    private static func places(_ moas: [MobileAddress]) -> String {
        moas.isEmpty ? "no place (it withdrew its mapping)" : moas.map(\.description).joined(separator: ", ")
    }

    /// Goes back to the earlier record, only if the locator check failed and the IMS has answered with an older record for 3 s.
    mutating func undoIfRefuted(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], peer.earlier != nil, let since = peer.contradictedSince, now.monotonic - since >= .seconds(3) else { return }
        let isUnreachable = peer.locators.listed.allSatisfy { !$0.state.isProven }
        if isUnreachable { undo(hoa, "its IMS has an older record and its new place does not answer", now) }
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
            guard peers[hoa] != nil || destinations.contains(hoa) || strangers.named(hoa).contains(where: { offered.record.hoa(at: $0) == hoa }) else {
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
        let reason: String = switch result {
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
        start(.queryPeer(hoa), .maQuery, to: set.endpoints, now)
        if !knowsUs(hoa) { notifyServers(of: hoa, set, now) }
    }

    // MARK: Polling

    /// The next poll: in the configured time, or as soon as all peers can be polled in turn, and before the record expires if that is
    /// sooner. With so many peers that they must wait, one without packets lately waits twice as long.
    private mutating func pollLater(_ hoa: HomeAddress, _ now: Now) {
        var interval = configuration.pollInterval
        let turns = Duration.seconds(peers.count / max(1, configuration.pollsPerSecond))
        if turns > interval {
            let isQuiet = peers[hoa].map { now.monotonic - $0.lastTraffic > turns } ?? false
            interval = isQuiet ? turns * 2 : turns
        }
        if let record = peers[hoa]?.record, record.expires > now.wallMilliseconds {
            let left = Duration.milliseconds(Int64(clamping: record.expires - now.wallMilliseconds))
            interval = min(interval, max(left - Self.pollMargin, Self.pollMin))
        }
        if let peer = peers[hoa], peer.contradictedSince != nil { interval = min(interval, .seconds(1)) }
        peers.schedule(hoa, at: now.monotonic + interval)
    }

    /// How long before a record expires its IMS is asked for the next.
    private static let pollMargin: Duration = .seconds(10)
    private static let pollMin: Duration = .seconds(5)

    /// The peer's poll is due: forget it if it is unused, otherwise ask its IMS and check its locator again.
    mutating func peerDue(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        if !peer.hasPollTurn {
            // Polls are a safety net: they also let what is more urgent go first.
            let turn = max(pollPace.turn(now.monotonic), exchanges.turn(now.monotonic))
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
        if !knowsUs(hoa), peer.duties.isEmpty, !isUnderWay(.notifyServer(hoa)), let own = home(for: hoa), homes[own]?.owesPeers == false, let set = knownServers(of: hoa, now) {
            notifyServers(of: hoa, set, now)
        }
    }

    /// Asks the peer's IMS, looking it up first if it is not known (any more).
    mutating func query(_ hoa: HomeAddress, _ now: Now) {
        if let set = knownServers(of: hoa, now) {
            start(.queryPeer(hoa), .maQuery, to: set.endpoints, now)
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
        let before = installedOutbound(of: peer)
        let ownMoA = ownMoA(of: peer)
        var outbound = target.flatMap { target in ownMoA.map { MobilePair(own: $0, peer: target) } }
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        if destinations.contains(hoa), before == nil { outbound = nil }

        let pair = HomePair(own: own, peer: hoa)
        // Accept first, send after, take away last: within one transaction it is all one, but routes are not part of it.
        let installed = Set(peer.locators.filter { $0.roles.contains(.accepted) }.map(\.moa))
        for moa in accepted.subtracting(installed).sorted() { change(.setInbound(peer: moa, pair)) }
        if let outbound, outbound != before {
            change(.setOutbound(pair, .rewritten(outbound, because: outbound.own == ownPaths[peer.path] ? .preferred : .detour)))
            staleOutbound.remove(pair)
            if before != nil { peer.switches &+= 1 }
        } else if outbound == nil, before != nil {
            change(.removeOutbound(pair))
        }
        // What an earlier run believed of places that are being asked now stays until they have answered or not.
        let open = !hasStale ? [] : Set(peer.locators.filter { $0.roles.contains(.listed) && ($0.state.isOpen || $0.state == .unchecked) && canBeLocator($0.moa, of: hoa) }.map(\.moa))
        let gone = installed.union(giveUpStale(pair, keeping: open)).subtracting(accepted)
        for moa in gone.sorted() { change(.removeInbound(peer: moa, own: own)) }
        if target == nil, open.isEmpty, before == nil, staleOutbound.remove(pair) != nil { change(.removeOutbound(pair)) }
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
        if outbound != nil, before == nil {
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
        let servers = serverSet(of: hoa)
        peerServers.leave(peer.servers)
        pathless.remove(hoa)
        peers[hoa] = nil
        // Remembered as what it was: if the DNS is silent when it is called again, it is not plain.
        if let servers { keepServers(servers, of: hoa) }
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

    /// Some entries of an earlier run have no peer of this run behind them yet.
    var hasStale: Bool { !staleOutbound.isEmpty || !staleInbound.isEmpty }

    /// What an earlier run left of this peer, but for some places.
    private mutating func giveUpStale(_ pair: HomePair, keeping kept: Set<MobileAddress>) -> Set<MobileAddress> {
        guard let stale = staleInbound.removeValue(forKey: pair) else { return [] }
        let left = stale.intersection(kept)
        if !left.isEmpty { staleInbound[pair] = left }
        // Whoever has proved since that it is there has an entry of the same key.
        return stale.subtracting(left).filter { moa in peers.holder(of: moa).map { $0 == pair.peer } ?? true }
    }

    /// How long an entry of an earlier run may go on without a peer behind it.
    static let adoptionMax: Duration = .seconds(60)

    mutating func adoptEntries(_ outbound: [HomePair: MobilePair], _ inbound: [Arrival: HomeAddress], _ now: Now) {
        guard !outbound.isEmpty || !inbound.isEmpty else { return }
        log(.notice, "\(outbound.count) outbound and \(inbound.count) inbound entries of an earlier run go on working while their peers are asked for")
        staleOutbound = Set(outbound.keys)
        for (arrival, peer) in inbound { staleInbound[HomePair(own: arrival.own, peer: peer), default: []].insert(arrival.peer) }
        let former = Set(outbound.keys.map(\.peer)).union(inbound.values).filter { home(for: $0) != nil }
        destinations.remember(former: former)
        adopting = former.sorted(by: >)
        deadlines.set(.adoption, at: now.monotonic + Self.adoptionMax)
        goOnAdopting(now)
    }

    /// Asks for the next peers of an earlier run, as many as can be under way at a time. Their minute begins when all have been asked for.
    mutating func goOnAdopting(_ now: Now) {
        guard !adopting.isEmpty else { return }
        while destinations.count < share(of: Self.adoptingAtOnceMax), exchanges.isOpen(now.monotonic), let peer = adopting.popLast() { resolve(peer, now) }
        deadlines.set(.adoption, at: now.monotonic + Self.adoptionMax)
        if !adopting.isEmpty { deadlines.set(.adopting, at: max(exchanges.opens(now.monotonic), now.monotonic + .milliseconds(20))) }
    }

    private static let adoptingAtOnceMax = 512

    /// What nobody claimed by now belongs to no peer of ours.
    mutating func adoptionDue(_ now: Now) {
        // As long as the DNS says nothing about a peer, what an earlier run knew of it goes on.
        let undecided = Set(staleOutbound.map(\.peer)).union(staleInbound.keys.map(\.peer)).filter { peers[$0] == nil && destinations.isUndecidedPeer($0) }
        guard undecided.isEmpty else {
            adopting = undecided.sorted(by: >)
            return goOnAdopting(now)
        }
        if hasStale {
            log(.notice, "removing \(staleOutbound.count) outbound and \(staleInbound.count) inbound entries of an earlier run that no peer claims")
        }
        for pair in staleOutbound.sorted(by: { ($0.own, $0.peer) < ($1.own, $1.peer) }) { change(.removeOutbound(pair)) }
        for (pair, moas) in staleInbound.sorted(by: { ($0.key.own, $0.key.peer) < ($1.key.own, $1.key.peer) }) {
            for moa in moas.sorted() where peers.holder(of: moa) == nil { change(.removeInbound(peer: moa, own: pair.own)) }
        }
        staleOutbound = []
        staleInbound = [:]
    }
}
