import MATSignal

// Telling peers and their IMSs of a move, as fast as link and servers bear it. `Backlog` shows the order.

extension NodeCore {
    /// Has all peers of an own HoA told.
    mutating func tell(_ hoa: HomeAddress, _ duties: Peer.Duties, _ now: Now) {
        backlog.gathering[hoa, default: []].formUnion(duties)
        if peers.count <= Backlog.atOnceMax {
            workOff(now)
        } else {
            deadlines.set(.backlog, at: now.monotonic)
        }
    }

    /// The peers that are to be told, those with the latest traffic first: they are the ones who miss us.
    private mutating func gather() {
        guard !backlog.gathering.isEmpty else { return }
        let gathering = backlog.gathering
        backlog.gathering = [:]
        var found: [(slot: PeerSlot, hoa: HomeAddress, traffic: MonotonicTime)] = []
        for slot in peers.slots {
            guard let peer = peers[slot], let own = home(for: peer.hoa) else { continue }
            if gathering[own] != nil || !peer.duties.isEmpty { found.append((slot, peer.hoa, peer.lastTraffic)) }
        }
        for (_, hoa, _) in found {
            guard let own = home(for: hoa), var duties = gathering[own] else { continue }
            if knowsUs(hoa) { duties.subtract([.tellPeer, .tellServer]) }
            peers[hoa]?.duties.formUnion(duties)
            peers[hoa]?.notifyFailures = 0
        }
        found.sort { ($1.traffic, $0.hoa) < ($0.traffic, $1.hoa) }
        backlog.begin(found.map(\.slot))
    }

    /// Goes on telling peers, as far as the pace lets it now.
    mutating func workOff(_ now: Now) {
        gather()
        while !backlog.isEmpty {
            guard exchanges.isOpen(now.monotonic), exchanges.count < share(of: Backlog.underWayMax) else {
                deadlines.set(.backlog, at: max(exchanges.opens(now.monotonic), now.monotonic + Backlog.tick))
                return
            }
            if let slot = backlog.nextToTell() {
                guard let peer = peers[slot], peer.duties.contains(.tellPeer) else { continue }
                peers[peer.hoa]?.duties.remove(.tellPeer)
                tellPeer(peer.hoa, now)
            } else if let slot = backlog.nextToAsk() {
                guard let peer = peers[slot] else { continue }
                askServers(of: peer, now)
            }
        }
    }

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
        if duties.contains(.subscribe) { start(.queryPeer(peer.hoa), .maQuery, to: servers.endpoints, now) }
    }

    // MARK: One IMS

    /// HA Notify, from a locator that our record lists: an IMS_CN believes a notifier only at such a source (section 7 (3)). An IMS
    /// that has had as many as it takes gets this one later, unless the peer has acked by then.
    ///
    /// - Returns: whether it went at once.
    @discardableResult
    mutating func notifyServers(of peer: HomeAddress, _ servers: ServerSet, _ now: Now) -> Bool {
        guard let own = home(for: peer), let source = desiredLocators(of: own).first else { return true }
        let targets = servers.endpoints.filter { $0.address.isIPv4 == source.isIPv4 }
        guard let server = targets.first?.address else {
            serverNotified(peer, nil, "it has no \(source.isIPv4 ? "IPv4" : "IPv6") address", now)
            return true
        }
        guard takesNotify(server, now) else {
            serverQueues[server]?.wait(peer)
            return false
        }
        start(.notifyServer(peer), .haNotify, to: targets, now)
        return true
    }

    /// Whether an IMS takes another HA Notify now. If it does that one is counted, otherwise its queue is woken when it does.
    private mutating func takesNotify(_ server: IPAddress, _ now: Now) -> Bool {
        if serverQueues[server] == nil {
            if serverQueues.count >= share(of: ServerQueue.queuesMax) { serverQueues = serverQueues.filter { !$0.value.isIdle(now.monotonic) } }
            // So many IMSs at once: their own limits have to do.
            guard serverQueues.count < share(of: ServerQueue.queuesMax) else { return true }
            serverQueues[server] = ServerQueue()
        }
        guard let queue = serverQueues[server], queue.isOpen(now.monotonic) else {
            deadlines.set(.server(server), at: serverQueues[server]?.opens(now.monotonic) ?? now.monotonic)
            return false
        }
        serverQueues[server]?.took(now.monotonic)
        return true
    }

    /// An IMS may take HA Notifies again.
    mutating func serverDue(_ server: IPAddress, _ now: Now) {
        while serverQueues[server]?.isOpen(now.monotonic) ?? false, let peer = serverQueues[server]?.next() {
            // Who has acked our record itself needs no IMS to bring it.
            guard peers[peer] != nil, !knowsUs(peer), !isUnderWay(.notifyServer(peer)), let servers = knownServers(of: peer, now) else { continue }
            notifyServers(of: peer, servers, now)
        }
        if let queue = serverQueues[server], queue.hasWaiting { deadlines.set(.server(server), at: queue.opens(now.monotonic)) }
    }

    /// An IMS said code 7: it is left alone for as long as it says, and then asked again for this peer.
    mutating func serverPauses(_ peer: HomeAddress, lifetime: UInt32?, _ now: Now) {
        guard let own = home(for: peer), let source = desiredLocators(of: own).first, let set = serverSet(of: peer),
            let server = set.endpoints.first(where: { $0.address.isIPv4 == source.isIPv4 })?.address, serverQueues[server] != nil
        else { return }
        let pause = lifetime.map { min(ServerQueue.pauseMax, .seconds(Int64(max(1, $0)))) } ?? ServerQueue.pauseDefault
        serverQueues[server]?.pause(until: now.monotonic + pause)
        serverQueues[server]?.wait(peer)
        deadlines.set(.server(server), at: now.monotonic + pause)
    }

    // MARK: Who knows

    /// Whether the peer, or its IMS for it, has acked our newest record.
    func knowsUs(_ hoa: HomeAddress) -> Bool {
        guard let peer = peers[hoa], let own = home(for: hoa) else { return false }
        return peer.knownMove == homes[own]?.move
    }

    mutating func noteKnowsUs(_ hoa: HomeAddress) {
        guard let own = home(for: hoa), let move = homes[own]?.move else { return }
        peers[hoa]?.knownMove = move
        peers[hoa]?.notifyFailures = 0
    }
}
