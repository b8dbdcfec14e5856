import IMTPlan
import MATSignal

// Starting communication (paper 4.2 (1)-(5)): packets to an unknown destination are held while its IMS is found in the
// DNS, its mapping asked for (1) and its IMS told about us (2)-(4); then they go (5).

/// A destination that packets are held for.
struct Destination: Sendable {
    let started: MonotonicTime
    /// Nobody's packets wait: it is talked to plainly, or was asked for by a name server's name.
    var isBackground = false
    /// The DNS names its IMSs.
    var isFound = false
    /// Why the DNS has not said anything yet.
    var failure: String?
    var isAsked = false
    /// Its mapping is in force.
    var isKnown = false
    /// Its IMS has answered HA Notify, whatever it said, or is not going to.
    var isNotified = false
    /// It was silent, or could not confirm us yet.
    var isNotifiedInVain = false
}

extension NodeCore {
    mutating func resolve(_ hoa: HomeAddress, _ now: Now) {
        guard hoa.address.isUsableUnicast, !isOwn(hoa.address) else {
            emit(.dropOutbound(to: hoa.address))
            return
        }
        guard home(for: hoa) != nil else {
            destinationIsPlain(hoa, .seconds(300), now)
            return
        }
        if let peer = peers[hoa] {
            // A packet that was on its way to the TUN when the entry was made, or one that has no path at the moment and
            // stays held until there is one.
            let outbound = installedOutbound(of: peer)
            if outbound != nil { emit(.releaseOutbound(to: hoa.address)) } else { checkRefused(hoa, now) }
            if !ownLocators.contains(where: { $0.moa == outbound?.own }) { notePeerUse(hoa, now) }
            return
        }
        if resolveDoubtful(hoa, now) { return }
        guard destinations[hoa] == nil else {
            holdFor(hoa, now)
            return
        }
        guard destinations.count < configuration.destinationsMax else {
            emit(.dropOutbound(to: hoa.address))
            return
        }
        begin(hoa, isBackground: false, now)
    }

    /// Begins to find out about a destination.
    mutating func begin(_ hoa: HomeAddress, isBackground: Bool, _ now: Now) {
        guard destinations[hoa] == nil, destinations.count < configuration.destinationsMax else { return }
        destinations[hoa] = Destination(started: now.monotonic, isBackground: isBackground)
        doubts[hoa]?.asked = now.monotonic
        doubts[hoa]?.used = now.monotonic
        deadlines.set(.destination(hoa), at: now.monotonic + patience(for: hoa))
        if let set = serverSet(of: hoa), set.expires > now.monotonic {
            destinations[hoa]?.isFound = true
            continueResolving(hoa, now)
        } else {
            lookUp(hoa, for: .destination, now)
        }
    }

    /// A packet waits for what was begun for nobody's.
    private mutating func holdFor(_ hoa: HomeAddress, _ now: Now) {
        guard destinations[hoa]?.isBackground == true else { return }
        destinations[hoa]?.isBackground = false
        if destinations[hoa]?.isFound == false { deadlines.set(.destination(hoa), at: now.monotonic + patience(for: hoa)) }
    }

    /// How long the DNS may take: then it is plain, or the IMSs that were known before are asked, or nothing can be done.
    private func patience(for hoa: HomeAddress) -> Duration {
        mayBePlain(hoa) || serverSet(of: hoa) != nil ? Self.silentNamesMax : configuration.destinationHoldMax
    }

    mutating func destinationLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        switch result {
        case .found:
            foundServers(hoa, now)
        case .absent(let lifetime):
            let isAwaited = destinations[hoa] != nil || doubts[hoa] != nil
            settle(hoa)
            formerPeers.remove(hoa)
            guard isAwaited else { return }
            destinationIsPlain(hoa, min(lifetime, .seconds(300)), now)
        case .failed(let reason):
            // Not absence: treating it so at once would leak traffic past mobility.
            guard destinations[hoa] != nil else {
                if doubts[hoa] != nil { doubt(hoa, reason, isPlain: doubts[hoa]?.isPlain ?? false, now) }
                return
            }
            undecided(hoa, reason, now)
        case .unusable(let reason):
            guard destinations[hoa] != nil || doubts[hoa] != nil else { return }
            if doubts[hoa]?.isPlain == true { change(.removePlain(hoa.address)) }
            doubt(hoa, reason, isPlain: false, now)
            destinations[hoa]?.failure = reason
            // Not for 2 s: until somebody has mended it.
            if let started = destinations[hoa]?.started { deadlines.set(.destination(hoa), at: started + configuration.destinationHoldMax) }
            askAgain(hoa, now)
        }
    }

    private mutating func foundServers(_ hoa: HomeAddress, _ now: Now) {
        guard let started = destinations[hoa]?.started, destinations[hoa]?.isFound == false || destinations[hoa]?.isAsked == false else { return }
        destinations[hoa]?.isFound = true
        deadlines.cancel(.askAgain(hoa))
        deadlines.set(.destination(hoa), at: started + configuration.destinationHoldMax)
        continueResolving(hoa, now)
    }

    /// The DNS has nothing to say about a destination at the moment.
    private mutating func undecided(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        destinations[hoa]?.failure = reason
        if mayBePlain(hoa) {
            // Asked in passing about what is plain meanwhile: again when it is used in 30 s.
            if let doubt = doubts[hoa], doubt.isPlain, destinations[hoa]?.isBackground == true {
                self.doubt(hoa, reason, isPlain: true, now)
                forgetDestination(hoa)
            } else {
                askAgain(hoa, now)
            }
        } else if serverSet(of: hoa) != nil {
            // Who was a MAT node is asked where it was served.
            foundServers(hoa, now)
        } else {
            doubt(hoa, reason, isPlain: false, now)
            askAgain(hoa, now)
        }
    }

    private mutating func askAgain(_ hoa: HomeAddress, _ now: Now) {
        if destinations[hoa] != nil { deadlines.set(.askAgain(hoa), at: now.monotonic + Self.askAgainAfter) }
    }

    /// Sends (1) and (2) at once, as soon as there is an own record to enclose and an address to send from.
    mutating func continueResolving(_ hoa: HomeAddress, _ now: Now) {
        guard var destination = destinations[hoa], !destination.isAsked, let set = serverSet(of: hoa), let own = home(for: hoa),
            homes[own]?.mapping != nil, !desiredLocators(of: own).isEmpty
        else { return }
        destination.isAsked = true
        destinations[hoa] = destination
        start(.queryPeer(hoa), .maQuery, to: set.endpoints, now)
        // An IMS that takes no more at present does not keep the packets back; the peer is told later, or directly.
        if !notifyServers(of: hoa, set, now) { destinations[hoa]?.isNotified = true }
    }

    /// The mapping is in force.
    mutating func destinationAnswered(_ hoa: HomeAddress, _ now: Now) {
        guard destinations[hoa] != nil, peers[hoa] != nil else { return }
        if destinations[hoa]?.isKnown == false { introduce(hoa, now) }
        destinations[hoa]?.isKnown = true
        releaseIfReady(hoa, now)
    }

    /// MA Notify to a destination that has just become a peer. Its IMS may not have told it of us yet, so that it refuses; but it gives its
    /// cookie, under which the second one, ahead of the first packets, proves our place. Otherwise these would wait there for its check of us,
    /// a round trip after all else.
    private mutating func introduce(_ hoa: HomeAddress, _ now: Now) {
        guard let target = signallingTarget(of: hoa), let own = ownMoAs(ipv4: hoa.isIPv4).first?.address else { return }
        start(.introduce(hoa), .maNotify, to: [target], source: own, triesMax: 1, now)
    }

    /// The second one, if the first was answered.
    private mutating func showPlace(to hoa: HomeAddress, _ now: Now) {
        guard let target = signallingTarget(of: hoa), let own = ownMoAs(ipv4: hoa.isIPv4).first?.address, !isUnderWay(.notifyPeer(hoa)),
            servers.proof(server: target.address, own: own, now: now.monotonic) != nil
        else { return }
        start(.introduce(hoa), .maNotify, to: [target], source: own, triesMax: 1, now)
    }

    /// The peer's IMS answered HA Notify with a code, or not at all (`nil`).
    mutating func serverNotified(_ hoa: HomeAddress, _ code: ResponseCode?, _ text: String?, lifetime: UInt32? = nil, _ now: Now) {
        if code == .ok {
            noteKnowsUs(hoa)
        } else if code == .tryLater {
            serverPauses(hoa, lifetime: lifetime, now)
            log(.debug, "the IMS of \(hoa) will take our HA Notify later\(text.map { " (\($0))" } ?? "")")
        } else {
            let reason = code.map { "\($0)\(text.map { " (\($0))" } ?? "")" } ?? text ?? "no answer"
            log(code == .authenticationFailed || code == .refused ? .warning : .info, "the IMS of \(hoa) did not take our HA Notify: \(reason)")
            // Nothing registered, or not confirmed by our IMS: if that has lost our record, we are the ones to tell it.
            if code == .notFound || code == .upstreamFailed, let own = home(for: hoa) { suspectLoss(of: own, now) }
        }
        let isInVain = code == nil || code == .upstreamFailed
        let isAwaited = destinations[hoa] != nil
        if isAwaited {
            destinations[hoa]?.isNotified = true
            destinations[hoa]?.isNotifiedInVain = isInVain
            // What is in vain is repeated there, once there is a peer to repeat it for.
            releaseIfReady(hoa, now)
        }
        guard code != .ok, let failures = peers[hoa]?.notifyFailures else { return }
        // What the peer does not learn from its IMS it can learn from us.
        if !knowsUs(hoa), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
        if !isInVain { peers[hoa]?.notifyFailures = failures == .max ? failures : failures + 1 } else if !isAwaited { notifySoonAgain(hoa, now) }
    }

    /// A server that was silent or could not confirm us yet is asked again sooner than the next poll: until it has told the peer of us, our
    /// packets are a stranger's there, and its new connections to us find nobody.
    private mutating func notifySoonAgain(_ hoa: HomeAddress, _ now: Now) {
        guard let failures = peers[hoa]?.notifyFailures else { return }
        peers[hoa]?.notifyFailures = failures == .max ? failures : failures + 1
        let pause = Duration.seconds(Int64(1) << Int64(min(failures, 9) + 1))
        if pause < configuration.pollInterval { peers.schedule(hoa, at: now.monotonic + pause) }
    }

    private mutating func releaseIfReady(_ hoa: HomeAddress, _ now: Now) {
        guard let destination = destinations[hoa], destination.isKnown, destination.isNotified else { return }
        forgetDestination(hoa)
        formerPeers.remove(hoa)
        counters.destinationsResolved += 1
        if destination.isNotifiedInVain { notifySoonAgain(hoa, now) }
        log(.debug, "packets to \(hoa) go on after \((now.monotonic - destination.started).millisecondsSaturated) ms")
        if !knowsUs(hoa), !isUnderWay(.notifyServer(hoa)), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) } else { showPlace(to: hoa, now) }
        // The path was kept back with them. Without one they stay held until there is one.
        if let path = peers[hoa]?.installedPath, path != OwnPaths.none {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        } else {
            applyPeer(hoa, now)
        }
    }

    mutating func destinationIsPlain(_ hoa: HomeAddress, _ lifetime: Duration, _ now: Now) {
        forgetDestination(hoa)
        rememberAbsence(hoa, until: now.monotonic + max(lifetime, .seconds(1)))
        counters.destinationsPlain += 1
        change(.setPlain(hoa.address, lifetime: max(lifetime, .seconds(1))))
        flushChanges()
        emit(.releaseOutbound(to: hoa.address))
    }

    mutating func dropDestination(_ hoa: HomeAddress, _ now: Now) {
        guard destinations[hoa] != nil else { return }
        forgetDestination(hoa)
        cancel(.queryPeer(hoa))
        cancel(.notifyServer(hoa))
        emit(.dropOutbound(to: hoa.address))
    }

    mutating func forgetDestination(_ hoa: HomeAddress) {
        destinations[hoa] = nil
        deadlines.cancel(.destination(hoa))
        deadlines.cancel(.askAgain(hoa))
    }

    /// Packets were held for as long as is of use.
    mutating func destinationDue(_ hoa: HomeAddress, _ now: Now) {
        guard let destination = destinations[hoa] else { return }
        if destination.isKnown {
            // Only the Ack is missing: the peer may learn of us by another way.
            destinations[hoa]?.isNotified = true
            releaseIfReady(hoa, now)
        } else if !destination.isFound, serverSet(of: hoa) != nil {
            foundServers(hoa, now)
        } else if !destination.isFound, mayBePlain(hoa), doubts[hoa]?.isPlain != false {
            // Without an address to ask from it is not the DNS that is silent.
            guard !ownLocators.isEmpty || now.monotonic - destination.started >= configuration.destinationHoldMax else {
                deadlines.set(.destination(hoa), at: destination.started + configuration.destinationHoldMax)
                return
            }
            if ownLocators.isEmpty { return dropDestination(hoa, now) }
            destinationIsDoubtful(hoa, destination.failure ?? "no answer within \(Self.silentNamesMax.components.seconds) s", now)
        } else if !destination.isFound {
            if doubts[hoa] == nil { doubt(hoa, destination.failure ?? "no answer of the DNS", isPlain: false, now) }
            doubts[hoa]?.used = now.monotonic
            dropDestination(hoa, now)
        } else {
            log(.warning, "\(hoa) could not be resolved within \(configuration.destinationHoldMax.components.seconds) s; packets to it are dropped")
            dropDestination(hoa, now)
        }
    }
}
