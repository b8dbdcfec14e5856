import IMTKernel
import MATSignal

// Starting communication (paper 4.2 (1)-(5)): packets to an unknown destination are held while its IMS is found in the
// DNS, its mapping asked for (1) and its IMS told about us (2)-(4); then they go (5).

/// A destination that packets are held for.
struct Destination: Sendable {
    let started: MonotonicTime
    var isAsked = false
    /// Its mapping is in force.
    var isKnown = false
    /// Its IMS has answered HA Notify, whatever it said, or is not going to.
    var isNotified = false
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
            if outbound != nil { emit(.releaseOutbound(to: hoa.address)) }
            if !ownLocators.contains(where: { $0.moa == outbound?.own }) { notePeerUse(hoa, now) }
            return
        }
        guard destinations[hoa] == nil else { return }
        guard destinations.count < configuration.destinationsMax else {
            emit(.dropOutbound(to: hoa.address))
            return
        }
        destinations[hoa] = Destination(started: now.monotonic)
        deadlines.set(.destination(hoa), at: now.monotonic + configuration.destinationHoldMax)
        if let set = serverSet(of: hoa), set.expires > now.monotonic {
            continueResolving(hoa, now)
        } else {
            lookUp(hoa, for: .destination, now)
        }
    }

    mutating func destinationLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard destinations[hoa] != nil else { return }
        switch result {
        case .found:
            continueResolving(hoa, now)
        case .absent(let lifetime):
            destinationIsPlain(hoa, min(lifetime, .seconds(300)), now)
        case .failed(let reason):
            // A time-out, SERVFAIL or bogus answer is not absence: treating it so would leak traffic past mobility.
            log(.warning, "whether \(hoa) is a MAT node can't be found out: \(reason); packets to it are dropped")
            dropDestination(hoa, now)
        }
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
        destinations[hoa]?.isKnown = true
        releaseIfReady(hoa, now)
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
        }
        if destinations[hoa] != nil {
            destinations[hoa]?.isNotified = true
            releaseIfReady(hoa, now)
        }
        guard code != .ok, let failures = peers[hoa]?.notifyFailures else { return }
        // What the peer does not learn from its IMS it can learn from us.
        if !knowsUs(hoa), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
        // A server that was silent or could not confirm us yet is asked again sooner than the next poll.
        peers[hoa]?.notifyFailures = failures == .max ? failures : failures + 1
        if code == nil || code == .upstreamFailed {
            let pause = Duration.seconds(Int64(1) << Int64(min(failures, 9) + 1))
            if pause < configuration.pollInterval { peers.schedule(hoa, at: now.monotonic + pause) }
        }
    }

    private mutating func releaseIfReady(_ hoa: HomeAddress, _ now: Now) {
        guard let destination = destinations[hoa], destination.isKnown, destination.isNotified else { return }
        forget(hoa)
        counters.destinationsResolved += 1
        log(.debug, "packets to \(hoa) go on after \((now.monotonic - destination.started).millisecondsSaturated) ms")
        if !knowsUs(hoa), !isUnderWay(.notifyServer(hoa)), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
        // The path was kept back with them. Without one they stay held until there is one.
        if let path = peers[hoa]?.installedPath, path != OwnPaths.none {
            flushChanges()
            emit(.releaseOutbound(to: hoa.address))
        } else {
            applyPeer(hoa, now)
        }
    }

    mutating func destinationIsPlain(_ hoa: HomeAddress, _ lifetime: Duration, _ now: Now) {
        forget(hoa)
        counters.destinationsPlain += 1
        change(.setPlain(hoa.address, lifetime: max(lifetime, .seconds(1))))
        flushChanges()
        emit(.releaseOutbound(to: hoa.address))
    }

    mutating func dropDestination(_ hoa: HomeAddress, _ now: Now) {
        guard destinations[hoa] != nil else { return }
        forget(hoa)
        cancel(.queryPeer(hoa))
        cancel(.notifyServer(hoa))
        emit(.dropOutbound(to: hoa.address))
    }

    private mutating func forget(_ hoa: HomeAddress) {
        destinations[hoa] = nil
        deadlines.cancel(.destination(hoa))
    }

    /// Packets were held for as long as is of use.
    mutating func destinationDue(_ hoa: HomeAddress, _ now: Now) {
        guard let destination = destinations[hoa] else { return }
        if destination.isKnown {
            // Only the Ack is missing: the peer may learn of us by another way.
            destinations[hoa]?.isNotified = true
            releaseIfReady(hoa, now)
        } else {
            log(.warning, "\(hoa) could not be resolved within \(configuration.destinationHoldMax.components.seconds) s; packets to it are dropped")
            dropDestination(hoa, now)
        }
    }
}
