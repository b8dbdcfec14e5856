import IMTKernel
import MATSignal

// Peers' records: taking them over, confirming and undoing them, and keeping the kernel's entries in step.

extension NodeCore {
    static let serverSetsMax = 8192

    mutating func keepServers(_ set: ServerSet, of hoa: HomeAddress) {
        if serverSets.count >= Self.serverSetsMax, serverSets[hoa] == nil {
            // An HoA that nothing depends on any more goes first; whatever goes is only looked up again.
            let victim = serverSets.keys.first { peers[$0] == nil && destinations[$0] == nil } ?? serverSets.keys.first
            if let victim { serverSets[victim] = nil }
        }
        serverSets[hoa] = set
    }

    // MARK: Records

    /// Takes over a verified record of a peer, if it is newer than what is in force.
    ///
    /// - Parameter isConfirmed: it came from the peer's IMS; otherwise it is provisional (section 7, "MA Notify").
    /// - Returns: whether the record is in force now.
    @discardableResult
    mutating func adopt(_ mapping: CertifiedMapping, for hoa: HomeAddress, isConfirmed: Bool, _ now: Now) -> Bool {
        guard var peer = peers[hoa] else {
            guard peers.count < configuration.peersMax else {
                log(.warning, "the IMT is full (\(configuration.peersMax) peers); \(hoa) is not entered")
                return false
            }
            var peer = Peer(mapping, hoa: hoa, now: now.monotonic)
            if isConfirmed { peer.confirmed = mapping.version }
            peers[hoa] = peer
            clearPlain(mapping)
            log(.notice, "peer \(hoa) is at \(Self.places(mapping, of: hoa))\(isConfirmed ? "" : " (not confirmed yet)")")
            pollLater(hoa, now)
            applyPeer(hoa, now)
            return true
        }
        if isConfirmed { peer.refreshed = now.monotonic }
        if mapping.version < peer.mapping.version {
            if isConfirmed, peer.isProvisional {
                peer.contradictedSince = peer.contradictedSince ?? now.monotonic
                // What the IMS has is the best to go back to.
                if peer.earlier.map({ $0.version < mapping.version }) ?? true { peer.earlier = mapping }
                peers[hoa] = peer
                // Its update may be on the way; asked again soon, the IMS confirms the new record or refutes it.
                deadlines.set(.peer(hoa), at: now.monotonic + .seconds(1))
                undoIfRefuted(hoa, now)
                if peers[hoa]?.mapping != mapping { applyPeer(hoa, now) }
            } else {
                peers[hoa] = peer
            }
            return false
        }
        if mapping.version == peer.mapping.version {
            guard mapping == peer.mapping else { return false }
            if isConfirmed {
                peer.confirmed = mapping.version
                peer.earlier = nil
                peer.contradictedSince = nil
            }
            peers[hoa] = peer
            applyPeer(hoa, now)
            return true
        }
        if isConfirmed {
            peer.confirmed = mapping.version
            peer.earlier = nil
        } else if !peer.isProvisional {
            peer.earlier = peer.mapping
        }
        peer.contradictedSince = nil
        clearPlain(mapping)
        let hasMoved = peer.mapping.record.locators.map(\.moa) != mapping.record.locators.map(\.moa)
        peer.mapping = mapping
        peers[hoa] = peer
        if hasMoved { log(.notice, "peer \(hoa) is now at \(Self.places(mapping, of: hoa))\(isConfirmed ? "" : " (not confirmed yet)")") }
        applyPeer(hoa, now)
        // It moved before it heard of our move: our MA Notify went to where it was.
        if hasMoved, !peer.knowsUs, let own = home(for: hoa), homes[own]?.owesPeers == false { tellPeer(hoa, now) }
        return true
    }

    private static func places(_ mapping: CertifiedMapping, of hoa: HomeAddress) -> String {
        mapping.record.isWithdrawal ? "no place (it withdrew its mapping)" : mapping.record.moas(of: hoa).map(\.description).joined(separator: ", ")
    }

    /// Goes back to the earlier record, only if the locator check failed and the IMS has answered with an older record for 3 s.
    mutating func undoIfRefuted(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let earlier = peer.earlier, let since = peer.contradictedSince, now.monotonic - since >= .seconds(3) else { return }
        let isUnreachable = peer.listed.allSatisfy { !(peer.locators[$0]?.isProven ?? false) }
        if isUnreachable { undo(hoa, to: earlier, "its IMS has an older record and its new place does not answer", now) }
    }

    mutating func undo(_ hoa: HomeAddress, to earlier: CertifiedMapping, _ reason: String, _ now: Now) {
        guard var peer = peers[hoa] else { return }
        log(.warning, "peer \(hoa): going back to \(Self.places(earlier, of: hoa)): \(reason)")
        peer.mapping = earlier
        peer.confirmed = earlier.version
        peer.earlier = nil
        peer.contradictedSince = nil
        peers[hoa] = peer
        applyPeer(hoa, now)
    }

    // MARK: Answers of the peer's IMS

    mutating func peerAnswered(_ hoa: HomeAddress, _ answer: MAAnswer, _ now: Now) {
        let isWanted = peers[hoa] != nil || destinations[hoa] != nil || strangers.values.contains { $0.candidate == hoa }
        guard isWanted else { return }
        switch answer.code {
        case .ok:
            guard let mapping = answer.mapping, let certificate = answer.certificate ?? peers[hoa]?.mapping.certificate else {
                peerRefused(hoa, "the answer of its IMS has no mapping or no certificate", now)
                return
            }
            let certified = CertifiedMapping(mapping: mapping, certificate: certificate)
            if certified != peers[hoa]?.mapping {
                guard let set = serverSets[hoa] else { return }
                do throws(VerificationFailure) {
                    try certified.verify(asked: hoa, keys: set.keys, now: now)
                } catch {
                    counters.recordsRefused += 1
                    peerRefused(hoa, "the record that its IMS gave is not believed: \(error)", now)
                    return
                }
            }
            guard peers[hoa] != nil || destinations[hoa] != nil || strangers.contains(where: { $1.candidate == hoa && certified.record.hoa(at: $0) == hoa }) else {
                strangersAreNot(hoa, now)
                return
            }
            adopt(certified, for: hoa, isConfirmed: true, now)
            if let seconds = answer.subscribe { peers[hoa]?.subscribedUntil = now.monotonic + .seconds(Int64(min(seconds, Self.subscribeSeconds))) }
            destinationAnswered(hoa, now)
            releaseKnownStrangers(now)
            settleStrangers(now)
        case .notFound:
            strangersAreNot(hoa, now)
            if let peer = peers[hoa] {
                // Nothing removes an active peer, but what was only provisional is refuted.
                if peer.isProvisional, let earlier = peer.earlier { undo(hoa, to: earlier, "its IMS knows no mapping", now) }
            } else if destinations[hoa] != nil {
                destinationIsPlain(hoa, .seconds(Int64(min(300, answer.lifetime ?? 5))), now)
            }
            settleStrangers(now)
        case .authenticationFailed:
            if let peer = peers[hoa], peer.isProvisional, let earlier = peer.earlier { undo(hoa, to: earlier, "its IMS refuses it", now) }
            peerRefused(hoa, "its IMS answers \(answer.code)\(answer.text.map { " (\($0))" } ?? "")", now)
        default:
            peerRefused(hoa, "its IMS answers \(answer.code)\(answer.text.map { " (\($0))" } ?? "")", now)
        }
    }

    private mutating func peerRefused(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        log(.warning, "\(hoa): \(reason)")
        if peers[hoa] == nil { dropDestination(hoa, now) }
    }

    mutating func peerSilent(_ hoa: HomeAddress, _ now: Now) {
        if destinations[hoa] != nil, peers[hoa] == nil {
            log(.warning, "no IMS of \(hoa) answers; packets to it are dropped")
            dropDestination(hoa, now)
        } else if peers[hoa] != nil {
            log(.info, "no IMS of peer \(hoa) answers; what is known stays in force")
            undoIfRefuted(hoa, now)
            // A record that waits for its confirmation does not wait for the next poll.
            if peers[hoa]?.isProvisional == true { deadlines.set(.peer(hoa), at: now.monotonic + min(configuration.pollInterval, .seconds(2))) }
        }
        settleStrangers(now)
    }

    mutating func peerLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard peers[hoa] != nil, case .found(let set) = result else { return }
        start(.queryPeer(hoa), .maQuery, to: set.endpoints, now)
        if peers[hoa]?.knowsUs == false { notifyServers(of: hoa, set, now) }
    }

    // MARK: Polling

    /// The next poll: in the configured time, and before the record expires if that is sooner.
    private mutating func pollLater(_ hoa: HomeAddress, _ now: Now) {
        var interval = configuration.pollInterval
        if let record = peers[hoa]?.mapping.record, record.expires > now.wallMilliseconds {
            let left = Duration.milliseconds(Int64(clamping: record.expires - now.wallMilliseconds))
            interval = min(interval, max(left - Self.pollMargin, Self.pollMin))
        }
        if let peer = peers[hoa], peer.contradictedSince != nil { interval = min(interval, .seconds(1)) }
        deadlines.set(.peer(hoa), at: now.monotonic + interval)
    }

    /// How long before a record expires its IMS is asked for the next.
    private static let pollMargin: Duration = .seconds(10)
    private static let pollMin: Duration = .seconds(5)

    /// The peer's poll is due: forget it if it is unused, otherwise ask its IMS and check its locator again.
    mutating func peerDue(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        guard now.monotonic - peer.lastTraffic < configuration.peerIdleMax else {
            log(.info, "peer \(hoa) is forgotten: no packet for \(configuration.peerIdleMax.components.seconds) s")
            removePeer(hoa, now)
            return
        }
        pollLater(hoa, now)
        undoIfRefuted(hoa, now)
        if !isUnderWay(.queryPeer(hoa)) { query(hoa, now) }
        if let target = outboundLocator(of: peer) { checkLocator(target, of: hoa, now) }
        // A peer that nobody could tell of us takes our packets for a stranger's.
        if !peer.knowsUs, !isUnderWay(.notifyServer(hoa)), let own = home(for: hoa), homes[own]?.owesPeers == false, let set = knownServers(of: hoa, now) {
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
        let released = claimLocators(of: hoa)
        guard var peer = peers[hoa] else { return }
        let ownMoAs = desiredLocators(of: own)
        if peer.ownMoA.map({ !ownMoAs.contains($0) }) ?? true { peer.ownMoA = preferredOwnMoA(for: hoa) }
        pruneDetour(of: peer)

        let inbound = acceptedLocators(of: peer)
        let target = outboundLocator(of: peer)
        var outbound = target.flatMap { target in ownMoA(of: peer).map { MobilePair(own: $0, peer: target) } }
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        if destinations[hoa] != nil, peer.installedOutbound == nil { outbound = nil }

        let pair = HomePair(own: own, peer: hoa)
        // Accept first, send after, take away last: within one transaction it is all one, but routes are not part of it.
        for moa in inbound.subtracting(peer.installedInbound).sorted() { change(.setInbound(peer: moa, pair)) }
        if let outbound, outbound != peer.installedOutbound {
            change(.setOutbound(pair, outbound))
            staleOutbound.remove(pair)
            if peer.installedOutbound != nil { peer.switches += 1 }
        } else if outbound == nil, peer.installedOutbound != nil {
            change(.removeOutbound(pair))
        }
        // Gone with it what an earlier run left of this peer at places where it no longer is.
        let stale = staleInbound.removeValue(forKey: pair) ?? []
        for moa in peer.installedInbound.union(stale).subtracting(inbound).sorted() { change(.removeInbound(peer: moa, own: own)) }
        let hasNewPath = outbound != nil && peer.installedOutbound == nil
        peer.installedInbound = inbound
        peer.installedOutbound = outbound
        peers[hoa] = peer

        if let target, peer.ownMoA != nil { checkOnFirstUse(target, of: hoa, now) }
        yieldLocators(released, of: hoa, now)
        if hasNewPath {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        }
    }

    mutating func removePeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let own = home(for: hoa) else { return }
        if peer.installedOutbound != nil { change(.removeOutbound(HomePair(own: own, peer: hoa))) }
        for moa in peer.installedInbound { change(.removeInbound(peer: moa, own: own)) }
        for moa in peer.locators.keys {
            deadlines.cancel(.locator(hoa, moa))
            cancel(.checkLocator(hoa, moa))
        }
        let released = releaseLocators(of: hoa, keeping: [])
        peers[hoa] = nil
        forgetPaths(of: hoa)
        yieldLocators(released, of: hoa, now)
        for purpose in [Exchange.Purpose.queryPeer(hoa), .notifyServer(hoa), .notifyPeer(hoa)] { cancel(purpose) }
        deadlines.cancel(.peer(hoa))
    }

    // MARK: Adoption after a restart

    /// How long an entry of an earlier run may go on without a peer behind it.
    static let adoptionMax: Duration = .seconds(60)

    mutating func adoptEntries(_ outbound: [HomePair: MobilePair], _ inbound: [Arrival: HomeAddress], _ now: Now) {
        guard !outbound.isEmpty || !inbound.isEmpty else { return }
        log(.notice, "\(outbound.count) outbound and \(inbound.count) inbound entries of an earlier run go on working while their peers are asked for")
        staleOutbound = Set(outbound.keys)
        for (arrival, peer) in inbound { staleInbound[HomePair(own: arrival.own, peer: peer), default: []].insert(arrival.peer) }
        deadlines.set(.adoption, at: now.monotonic + Self.adoptionMax)
        for peer in Set(outbound.keys.map(\.peer)).union(inbound.values) where home(for: peer) != nil { resolve(peer, now) }
    }

    /// What nobody claimed by now belongs to no peer of ours.
    mutating func adoptionDue() {
        if !staleOutbound.isEmpty || !staleInbound.isEmpty {
            log(.notice, "removing \(staleOutbound.count) outbound and \(staleInbound.count) inbound entries of an earlier run that no peer claims")
        }
        for pair in staleOutbound { change(.removeOutbound(pair)) }
        for (pair, moas) in staleInbound { for moa in moas { change(.removeInbound(peer: moa, own: pair.own)) } }
        staleOutbound = []
        staleInbound = [:]
    }
}
