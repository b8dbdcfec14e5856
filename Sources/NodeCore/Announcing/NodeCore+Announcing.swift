import MATCore
import MATSignal

// Telling peers and their IMSs of a move, as fast as link and servers bear it. `Backlog` shows the order, `NotifyQueues` what one IMS takes.

extension NodeCore {
    /// Has all peers of an own HoA told.
    mutating func tell(_ hoa: HomeAddress, _ duties: Peer.Duties, _ now: Now) {
        backlog.add(duties, of: hoa)
        if peers.count <= Backlog.atOnceMax {
            workOff(now)
        } else {
            deadlines.set(.backlog, at: now.monotonic)
        }
    }

    /// Gives peers what they are to be told, and puts all that are still owed something in order.
    private mutating func gather() {
        guard let gathered = backlog.gather() else { return }
        var entries: [Backlog.Entry] = []
        for slot in peers.slots {
            guard let peer = peers[slot], let own = home(for: peer.hoa) else { continue }
            if gathered[own] != nil || !peer.duties.isEmpty {
                entries.append(Backlog.Entry(slot: slot, hoa: peer.hoa, lastTraffic: peer.lastTraffic))
            }
        }
        for hoa in entries.map(\.hoa) {
            guard let own = home(for: hoa), var duties = gathered[own] else { continue }
            if knowsUs(hoa) { duties.subtract([.tellPeer, .tellServer]) }
            peers[hoa]?.duties.formUnion(duties)
            peers[hoa]?.notifyFailures = 0
        }
        backlog.begin(entries)
    }

    /// Goes on telling peers, as far as the pace lets it now.
    mutating func workOff(_ now: Now) {
        gather()
        while let step = backlog.next(
            opens: exchanges.opens(now.monotonic), isFull: exchanges.count >= share(of: Backlog.underWayMax), now: now.monotonic)
        {
            switch step {
            case .tellPeer(let slot):
                guard let peer = peers[slot], peer.duties.contains(.tellPeer) else { continue }
                peers[peer.hoa]?.duties.remove(.tellPeer)
                tellPeer(peer.hoa, now)
            case .askServers(let slot):
                if let peer = peers[slot] { askServers(of: peer, now) }
            case .pause(let until):
                deadlines.set(.backlog, at: until)
                return
            }
        }
    }

    // MARK: The peer itself

    /// MA Notify to where the peer is, or was last; its ack lets its traffic switch.
    mutating func tellPeer(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        guard let target = signallingTarget(of: hoa) else {
            switchPeer(hoa, now)
            return
        }
        // A peer that only a detour reaches is told by it.
        let source = detours[hoa]?.own == nil ? nil : ownMoA(of: peer)?.address
        start(.notifyPeer(hoa), to: [target], source: source, triesMax: Retransmission.failoverTry, now)
    }

    /// Where a peer's agent is written to: signalling may go where packets may not yet.
    func signallingTarget(of hoa: HomeAddress) -> Endpoint? {
        guard let peer = peers[hoa],
            let moa = outboundLocator(of: peer) ?? peer.locators.listed.first(where: { canBeLocator($0.moa, of: hoa) })?.moa
        else { return nil }
        return Endpoint(signallingAddress(of: moa, hoa), port: SignalPort.node)
    }

    /// A peer acked our record, refused it, or stayed silent (`nil`) for the three tries of section 7: in each case its
    /// traffic follows.
    ///
    /// - Parameter began: when the first of the tries was sent.
    mutating func peerNotified(_ hoa: HomeAddress, _ ack: MANotifyAck?, since began: MonotonicTime, _ now: Now) {
        guard peers[hoa] != nil else { return }
        if let ack {
            switch ack.code {
            case .ok:
                peerKnowsUs(hoa)
            case .stale:
                // Believed only with our own signature: anyone could name a sequence that nothing can go beyond.
                if let own = home(for: hoa), let current = ack.current, current.record.hoa == own,
                    let certificate = homes[own]?.registration.certificate.current,
                    (try? CertifiedMapping(mapping: current, certificate: certificate).verifySignature()) != nil
                {
                    goBeyond(own, current.record.sequence, now)
                }
            default:
                if ack.code == .notFound, let own = home(for: hoa) { suspectLoss(of: own, now) }
                log(
                    .info,
                    "peer \(hoa) did not take our record: \(ack.code)\(ack.text.map { " (\($0.printable))" } ?? ""); it will learn it from our IMS")
            }
        } else {
            log(peers.count <= Self.peersLoggedMax ? .info : .debug, "peer \(hoa) did not ack our record; it will learn it from our IMS")
            if keepsPath(hoa, silentSince: began) { return }
        }
        switchPeer(hoa, now)
    }

    /// Whether a peer whose agent says nothing at all keeps the way that its traffic has. Its kernel goes on accepting from all places that
    /// the agent had entered, and from no other: while our old address works, staying there is the one way that surely does.
    /// An agent that lives and has only not acked may be taken to know us by now (section 7: three tries).
    private func keepsPath(_ hoa: HomeAddress, silentSince began: MonotonicTime) -> Bool {
        guard let peer = peers[hoa], isBehind(peer) else { return false }
        return !peer.locators.contains { if case .proven(let at, _) = $0.state { at >= began } else { false } }
    }

    /// Whether the peer's traffic still leaves from an own address that is not its first, and works.
    func isBehind(_ peer: Peer) -> Bool {
        guard let own = home(for: peer.hoa), let present = ownPaths[peer.path], present != preferredOwnMoA(for: peer.hoa) else { return false }
        return desiredLocators(of: own).contains(present) && !uplinks.isDead(present)
    }

    /// A peer that kept its old way is told again: its agent has just given a sign of life, or it is polled anyway.
    mutating func tellIfBehind(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], peer.duties.isEmpty, isBehind(peer), !isUnderWay(.notifyPeer(hoa)), let own = home(for: hoa),
            homes[own]?.announcement.isOwed == false
        else { return }
        tellPeer(hoa, now)
    }

    // MARK: Its IMS

    /// HA Notify to the peer's IMS, and the subscription again from the new address, which also finds a peer that moved at the
    /// same time.
    private mutating func askServers(of peer: Peer, _ now: Now) {
        let duties = peer.duties.intersection([.tellServer, .subscribe])
        guard !duties.isEmpty else { return }
        peers[peer.hoa]?.duties.subtract(duties)
        guard let servers = knownServers(of: peer.hoa, now) else {
            lookUp(peer.hoa, for: .peer, now)
            return
        }
        if duties.contains(.tellServer) { notifyServers(of: peer.hoa, servers, now) }
        if duties.contains(.subscribe) { start(.queryPeer(peer.hoa), to: servers.endpoints, now) }
    }

    /// HA Notify, from a locator that our record lists: an IMS_CN believes a notifier only at such a source (section 7 (3)). An IMS
    /// that has had as many as it takes gets this one later, unless the peer has acked by then.
    ///
    /// - Returns: whether it went at once.
    @discardableResult
    mutating func notifyServers(of peer: HomeAddress, _ servers: ServerSet, _ now: Now) -> Bool {
        guard let own = home(for: peer), let source = desiredLocators(of: own).first else { return true }
        let targets = servers.endpoints.filter { $0.family == source.family }
        guard let server = targets.first?.address else {
            serverNotified(peer, nil, "it has no \(source.family) address", now)
            return true
        }
        switch notifyQueues.admit(peer, to: server, now: now.monotonic) {
        case .now:
            start(.notifyServer(peer), to: targets, now)
            return true
        case .later(let time):
            deadlines.set(.server(server), at: time)
            return false
        }
    }

    /// An IMS may take HA Notifies again.
    mutating func serverDue(_ server: IPAddress, _ now: Now) {
        while let peer = notifyQueues.next(for: server, now: now.monotonic) {
            // Who has acked our record itself needs no IMS to bring it.
            guard peers[peer] != nil, !knowsUs(peer), !isUnderWay(.notifyServer(peer)), let servers = knownServers(of: peer, now) else { continue }
            notifyServers(of: peer, servers, now)
        }
        if let time = notifyQueues.due(server, now: now.monotonic) { deadlines.set(.server(server), at: time) }
    }

    /// The peer's IMS answered HA Notify with a code, or not at all (`nil`).
    mutating func serverNotified(_ hoa: HomeAddress, _ code: ResponseCode?, _ text: String?, lifetime: UInt32? = nil, _ now: Now) {
        switch code {
        case .ok:
            peerKnowsUs(hoa)
        case .tryLater:
            pauseServer(of: hoa, lifetime: lifetime, now)
            log(.debug, "the IMS of \(hoa) will take our HA Notify later\(text.map { " (\($0))" } ?? "")")
        default:
            let reason = code.map { "\($0)\(text.map { " (\($0))" } ?? "")" } ?? text ?? "no answer"
            log(code == .authenticationFailed || code == .refused ? .warning : .info, "the IMS of \(hoa) did not take our HA Notify: \(reason)")
            // Nothing registered, or not confirmed by our IMS: if that has lost our record, we are the ones to tell it.
            if code == .notFound || code == .upstreamFailed, let own = home(for: hoa) { suspectLoss(of: own, now) }
        }
        let isInVain = code == nil || code == .upstreamFailed
        let isAwaited = destinations.contains(hoa)
        // What is in vain is repeated when communication begins, once there is a peer to repeat it for.
        if isAwaited { perform(destinations.notified(hoa, inVain: isInVain, now: now.monotonic), now) }
        guard code != .ok, peers[hoa] != nil else { return }
        // What the peer does not learn from its IMS it can learn from us.
        if !knowsUs(hoa), !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
        if !isInVain { _ = peers[hoa]?.notifyFailed() } else if !isAwaited { notifySoonAgain(hoa, now) }
    }

    /// A server that was silent or could not confirm us yet is asked again sooner than the next poll: until it has told the peer of us, our
    /// packets are a stranger's there, and its new connections to us find nobody.
    mutating func notifySoonAgain(_ hoa: HomeAddress, _ now: Now) {
        if let pause = peers[hoa]?.notifyFailed(), pause < configuration.pollInterval { peers.schedule(hoa, at: now.monotonic + pause) }
    }

    /// An IMS said code 7.
    private mutating func pauseServer(of peer: HomeAddress, lifetime: UInt32?, _ now: Now) {
        guard let own = home(for: peer), let source = desiredLocators(of: own).first,
            let server = serverSet(of: peer)?.endpoints.first(where: { $0.family == source.family })?.address,
            let end = notifyQueues.pause(server, for: lifetime, then: peer, now: now.monotonic)
        else { return }
        deadlines.set(.server(server), at: end)
    }

    // MARK: Who knows

    /// Whether the peer, or its IMS for it, has acked our newest record.
    func knowsUs(_ hoa: HomeAddress) -> Bool {
        guard let peer = peers[hoa], let own = home(for: hoa) else { return false }
        return peer.knownMove == homes[own]?.announcement.number
    }

    /// The peer, or its IMS for it, has acked our newest record.
    mutating func peerKnowsUs(_ hoa: HomeAddress) {
        guard let own = home(for: hoa), let move = homes[own]?.announcement.number else { return }
        peers[hoa]?.knownMove = move
        peers[hoa]?.notifyFailures = 0
    }
}
