import MATCore
import MATSignal

// Telling peers and their IMSs of a move: what `Backlog` and `Announcing` are told for that, and what is done of what they say.

extension NodeCore {
    /// What the own HoA that talks to a peer has to tell it.
    func announcing(for peer: HomeAddress) -> Announcing.Own? {
        guard let own = home(for: peer), let announcement = homes[own]?.announcement, let certificate = homes[own]?.registration.certificate.current
        else { return nil }
        return Announcing.Own(hoa: own, announcement: announcement, certificate: certificate, places: desiredLocators(of: own))
    }

    /// Has all peers of an own HoA told.
    mutating func tell(_ hoa: HomeAddress, _ duties: Telling.Duties, _ now: Now) {
        backlog.add(duties, in: hoa.family)
        if peers.count <= Backlog.atOnceMax { workOff(now) } else { deadlines.set(.backlog, at: now.monotonic) }
    }

    /// Goes on telling peers, as far as the pace lets it now.
    mutating func workOff(_ now: Now) {
        let moves: FamilyPair<UInt32> = FamilyPair { family in home(in: family).flatMap { homes[$0]?.announcement.number } ?? 0 }
        while let step = backlog.next(
            in: &peers, moves: moves, opens: exchanges.opens(now.monotonic), isFull: exchanges.count >= share(of: Backlog.underWayMax),
            now: now.monotonic)
        {
            switch step {
            case .tellPeer(let hoa): tellPeer(hoa, now)
            case .askServers(let hoa, let duties): askServers(of: hoa, duties, now)
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
        let source = ownSide(for: hoa).flatMap { paths.detourDeparture(of: peer, $0) }?.address
        start(.notifyPeer(hoa), to: [target], source: source, triesMax: Retransmission.failoverTry, now)
    }

    /// Where a peer's agent is written to: signalling may go where packets may not yet.
    func signallingTarget(of hoa: HomeAddress) -> Endpoint? {
        let target = peers[hoa].flatMap { paths.signallingTarget(of: $0, addresses) }
        if let target, addresses.has(target.family) { return target }
        guard let endpoints = peerEndpoints[hoa] else { return target }
        return ([endpoints.installed?.endpoint].compactMap { $0 } + endpoints.endpoints).first { addresses.has($0.family) }
            ?? target ?? endpoints.endpoints.first
    }

    mutating func peerNotified(_ hoa: HomeAddress, _ ack: MANotifyAck?, of exchange: Exchange, _ now: Now) {
        guard let own = announcing(for: hoa), let peer = peers[hoa] else { return }
        let actions = announcing.acked(hoa, ack, of: exchange.move, since: exchange.began, isBehind: isBehind(peer), in: &peers, own)
        noteKnowledge(hoa, knewUs: announcing.knows(peer, own), own, now)
        perform(actions, now)
    }

    func isBehind(_ peer: Peer) -> Bool { ownSide(for: peer.hoa).map { paths.isBehind(peer, $0, uplinks) } ?? false }

    /// Its agent has just given a sign of life, or it is polled anyway.
    mutating func tellIfBehind(_ hoa: HomeAddress, _ now: Now) {
        guard let own = announcing(for: hoa), let peer = peers[hoa], announcing.isToldAgain(peer, isBehind: isBehind(peer), own) else { return }
        if !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
    }

    // MARK: Its IMS

    /// HA Notify to the peer's IMS, and the subscription again from the new address, which also finds a peer that moved at the same time.
    private mutating func askServers(of hoa: HomeAddress, _ duties: Telling.Duties, _ now: Now) {
        guard let servers = knownServers(of: hoa, now) else {
            lookUp(hoa, for: .peer, now)
            return
        }
        if duties.contains(.tellServer) { notifyServers(of: hoa, servers, now) }
        if duties.contains(.subscribe) { start(.queryPeer(hoa), to: servers.endpoints, now) }
    }

    /// HA Notify. An IMS that has had as many as it takes gets this one later, unless the peer has acked by then.
    ///
    /// - Returns: whether it went at once.
    @discardableResult
    mutating func notifyServers(of peer: HomeAddress, _ servers: ServerSet, _ now: Now) -> Bool {
        guard let source = announcing(for: peer)?.source(to: servers) else { return true }
        switch announcing.notify(peer, servers, from: source, now: now.monotonic) {
        case .go(let targets):
            start(.notifyServer(peer), to: targets, now)
        case .impossible(let reason):
            serverNotified(peer, nil, reason, of: nil, now)
        case .later(let server, let time):
            deadlines.set(.server(server), at: time)
            return false
        }
        return true
    }

    /// An IMS may take HA Notifies again.
    mutating func serverDue(_ server: IPAddress, _ now: Now) {
        while let peer = announcing.next(for: server, now: now.monotonic) {
            // Who has acked our record itself needs no IMS to bring it.
            guard peers[peer] != nil, !knowsUs(peer), !isUnderWay(.notifyServer(peer)), let servers = knownServers(of: peer, now) else { continue }
            notifyServers(of: peer, servers, now)
        }
        if let time = announcing.due(server, now: now.monotonic) { deadlines.set(.server(server), at: time) }
    }

    /// - Parameter move: as `Exchange.move`.
    mutating func serverNotified(
        _ hoa: HomeAddress, _ code: ResponseCode?, _ text: String?, of move: UInt32?, lifetime: UInt32? = nil, _ now: Now
    ) {
        guard let own = announcing(for: hoa) else { return }
        let knewUs = knowsUs(hoa)
        let actions = announcing.serverAnswered(
            hoa, code, text, of: move, lifetime: lifetime, serverSet(of: hoa), isAwaited: destinations.contains(hoa), in: &peers, own,
            now: now.monotonic)
        noteKnowledge(hoa, knewUs: knewUs, own, now)
        perform(actions, now)
    }

    // MARK: Who knows

    /// Whether the peer does not know our newest record, and nobody is about to be told of it.
    func isUntold(_ hoa: HomeAddress) -> Bool {
        guard let peer = peers[hoa], let own = announcing(for: hoa) else { return false }
        return announcing.isUntold(peer, own)
    }

    /// Whether the peer, or its IMS for it, has acked our newest record.
    func knowsUs(_ hoa: HomeAddress) -> Bool {
        guard let peer = peers[hoa], let own = announcing(for: hoa) else { return false }
        return announcing.knows(peer, own)
    }

    /// The peer, or its IMS for it, has acked our record of a move.
    mutating func peerKnowsUs(_ hoa: HomeAddress, of move: UInt32?, _ now: Now) {
        guard let own = announcing(for: hoa) else { return }
        let knewUs = knowsUs(hoa)
        announcing.knowsUs(hoa, of: move, in: &peers, own)
        noteKnowledge(hoa, knewUs: knewUs, own, now)
    }

    /// The peer knows of our move from now on: connections to it begin, and people see how long after the move that was.
    private mutating func noteKnowledge(_ hoa: HomeAddress, knewUs: Bool, _ own: Announcing.Own, _ now: Now) {
        guard !knewUs, let peer = peers[hoa], announcing.knows(peer, own) else { return }
        history.told(own.hoa, now)
        guard begun.areHeld(of: own.hoa) else { return }
        flushChanges()
        emit(.releaseOutbound(to: hoa.address))
    }

    // MARK: What Announcing wants done

    private mutating func perform(_ actions: [Announcing.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .tell(let hoa): if !isUnderWay(.notifyPeer(hoa)) { tellPeer(hoa, now) }
            case .follow(let hoa): switchPeer(hoa, now)
            case .goBeyond(let own, let sequence): goBeyond(own, sequence, now)
            case .suspectLoss(let own): suspectLoss(of: own, now)
            case .notified(let hoa, let isInVain): perform(destinations.notified(hoa, inVain: isInVain, now: now.monotonic), now)
            case .notifyAgain(let hoa): notifySoonAgain(hoa, now)
            case .wake(let server, let time): deadlines.set(.server(server), at: time)
            case .log(let level, let text): log(level, text)
            }
        }
    }

    /// HA Notify for the peer was in vain, and is repeated before its next poll.
    mutating func notifySoonAgain(_ hoa: HomeAddress, _ now: Now) { records.notifyAgain(hoa, in: &peers, now: now.monotonic) }
}
