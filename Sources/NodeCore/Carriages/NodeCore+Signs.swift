import IMTPlan
import MATCore
import MATSignal

// Whether paths in datagrams still work while packets go: the counts of what they carry are read at short intervals then, and `PathSigns` judges
// them. What follows from a silent path, and from packets that stop coming, is done here (protocol.md sections 11.3 and 11.4).

extension NodeCore {
    /// Packets go on some path in datagrams: `pathsUsed` is to be told soon, and again.
    var wantsPathUses: Bool { !peerEndpoints.watched.isEmpty || !peerRelays.watched.isEmpty || trials.isWatching || paths.newPlaces.isWatching }

    /// Peers whose paths are in use, in order.
    var pathsWatched: [HomePair] {
        peerEndpoints.watched.union(peerRelays.watched).sorted().compactMap { hoa in home(for: hoa).map { HomePair(own: $0, peer: hoa) } }
    }

    /// What paths in datagrams have carried so far was read.
    public mutating func pathsUsed(_ uses: some Sequence<PathUse>, now: Now) -> [NodeAction] {
        let watched = peerEndpoints.watched
        let relayed = peerRelays.watched
        for use in uses where relayed.contains(use.pair.peer) { relayCounted(use, now) }
        for use in uses where watched.contains(use.pair.peer) {
            perform(peerEndpoints.tell(use.pair.peer) { $0.counted(use, now.monotonic) }, of: use.pair.peer, now)
        }
        return endEvent()
    }

    /// Two probes of the endpoint in use stayed unanswered.
    mutating func endpointLeft(_ endpoint: Endpoint, of hoa: HomeAddress, _ now: Now) {
        let hasOther = carriage(of: hoa) != nil || peers[hoa].flatMap { paths.installed(of: $0) } != nil
        pathLeft(of: hoa, "\(endpoint) of \(hoa) is silent", hasOther: hasOther, now)
    }

    /// A path was left. If there is no other, the peer may not know where we are.
    ///
    /// - Parameter what: what has happened, for people.
    mutating func pathLeft(of hoa: HomeAddress, _ what: String, hasOther: Bool, _ now: Now) {
        log(PeerRecords.level(peers), "\(what); \(hasOther ? "another path is used" : "there is no other path, so it is told where this node is")")
        guard !hasOther else { return }
        suspectBindings(now)
        if !isUnderWay(.notifyServer(hoa)), let servers = knownServers(of: hoa, now) { notifyServers(of: hoa, servers, now) }
    }

    /// Packets wait, and the peer answers at none of its endpoints. Its server told it of us where it was when they were to begin; it may have moved
    /// since, and without probes of its own a translator there keeps ours out.
    mutating func peerUnheard(_ hoa: HomeAddress, _ now: Now) {
        guard let servers = knownServers(of: hoa, now) else { return }
        if !isUnderWay(.notifyServer(hoa)) { notifyServers(of: hoa, servers, now) }
        if !isUnderWay(.queryPeer(hoa)) { start(.queryPeer(hoa), to: servers.endpoints, now) }
    }

    /// Something that is to reach us does not: whether our bindings stand is asked at once.
    mutating func suspectBindings(_ now: Now) { perform(bindings.doubt(now.monotonic), now) }

    /// A record that is known already was pushed again: its node has repeated it, since it does not hear us.
    mutating func recordRepeated(of hoa: HomeAddress, _ now: Now) {
        guard peerEndpoints[hoa] != nil || peerRelays[hoa] != nil else { return }
        suspectBindings(now)
        perform(peerEndpoints.tell(hoa) { $0.doubt(now.monotonic) }, of: hoa, now)
    }
}
