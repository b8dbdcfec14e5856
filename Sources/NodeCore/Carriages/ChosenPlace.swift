import MATSignal

// Which of a peer's places its packets go to where it has several of different kinds: the one that it prefers, if that is proven. Whoever moves
// with both networks there says by its record's order where it is going, and takes the old one away when its peers have followed.

extension NodeCore {
    /// Whether the peer has put a place at which packets arrive in datagrams only before all that take rewritten ones, and is proven to be there.
    func hasChosenEndpoint(_ hoa: HomeAddress) -> Bool {
        guard let peer = peers[hoa], peerEndpoints[hoa] != nil else { return false }
        let places = peer.record.places(at: peer.listed)
        guard places.first?.endpoint != nil, let way = encapsulatedWay(to: hoa) else { return false }
        // By another endpoint that it showed where its translator maps by destination; not by a place that takes rewritten ones.
        return !places.contains { $0.locator?.moa.address == way.endpoint.address }
    }
}
