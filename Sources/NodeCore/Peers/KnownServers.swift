import MATCore
import MATSignal

/// The IMSs of other HoAs, as far as the DNS was asked: those of peers by number, for many have the same, and those of whoever else is or was
/// of interest. What has expired is kept: right after a move the DNS may not be reachable, and who was a MAT node is not plain.
struct KnownServers: Sendable {
    /// HoAs beside the peers.
    static let othersMax = 8192

    private let othersMax: Int
    private var ofPeers = ServerSets()
    private var others: [HomeAddress: ServerSet] = [:]

    init(othersMax: Int) { self.othersMax = othersMax }

    /// Those of an HoA; perhaps expired.
    func servers(of hoa: HomeAddress, _ peer: Peer?) -> ServerSet? {
        guard let peer, let content = ofPeers[peer.servers] else { return others[hoa] }
        return ServerSet(endpoints: content.endpoints, keys: content.keys, expires: peer.serversExpire.time)
    }

    /// The DNS named those of a peer.
    mutating func keep(_ set: ServerSet, of peer: inout Peer) {
        let number = ofPeers.enter(ServerSets.Content(endpoints: set.endpoints, keys: set.keys))
        ofPeers.leave(peer.servers)
        peer.isServed(by: number, until: set.expires)
    }

    /// The DNS named those of an HoA.
    ///
    /// - Parameter isAwaited: packets wait for it.
    mutating func keep(_ set: ServerSet, of hoa: HomeAddress, in peers: inout PeerTable, isAwaited: (HomeAddress) -> Bool) {
        if peers.update(hoa, { keep(set, of: &$0) }) == nil { keep(set, of: hoa, isAwaited: isAwaited) }
    }

    /// The DNS named those of an HoA that is no peer.
    ///
    /// - Parameter isAwaited: packets wait for it.
    mutating func keep(_ set: ServerSet, of hoa: HomeAddress, isAwaited: (HomeAddress) -> Bool) {
        // HoAs that nothing depends on any more go first, and what would expire first; whatever goes is only looked up again.
        others.makeRoom(for: hoa, max: othersMax) { isAwaited($0) ? .distantFuture : $1.expires }
        others[hoa] = set
    }

    /// The HoA has become a peer.
    mutating func enter(_ hoa: HomeAddress, in peers: inout PeerTable) {
        if let set = others.removeValue(forKey: hoa) { peers.update(hoa) { keep(set, of: &$0) } }
    }

    /// It is a peer no more, but remembered as what it was: if the DNS is silent when it is called again, it is not plain.
    mutating func leave(_ peer: Peer, isAwaited: (HomeAddress) -> Bool) {
        let set = servers(of: peer.hoa, peer)
        ofPeers.leave(peer.servers)
        if let set { keep(set, of: peer.hoa, isAwaited: isAwaited) }
    }

    /// In another network, what was not validated on this host is asked for anew.
    mutating func expire(now: MonotonicTime) {
        for (hoa, set) in others where !set.isValidated { others[hoa]?.expires = min(set.expires, now) }
    }
}
