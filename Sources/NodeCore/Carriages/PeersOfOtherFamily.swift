import MATSignal

/// Peers that only addresses of the other family than their HoA's lead to, as one in a network that has IPv4 alone is for IPv6. A translator before
/// such a peer lets in only what it has sent to, so while there are any, the own record lists an endpoint of that family beside the MoAs (protocol.md
/// section 11.1); not always, since each peer would then have endpoints to be probed where rewriting works.
struct PeersOfOtherFamily: Sendable {
    /// Others are reached by relays.
    static let peersMax = EndpointTable.peersMax

    private var peers: [AddressFamily: Set<HomeAddress>] = [:]

    /// Whether there is one of the HoA's family.
    func isAny(like hoa: HomeAddress) -> Bool { peers[hoa.family]?.isEmpty == false }

    /// - Returns: whether it is the first of its family.
    mutating func set(_ hoa: HomeAddress, _ isOne: Bool) -> Bool {
        guard isOne else {
            peers[hoa.family]?.remove(hoa)
            return false
        }
        let count = peers[hoa.family]?.count ?? 0
        guard count < Self.peersMax else { return false }
        peers[hoa.family, default: []].insert(hoa)
        return count == 0
    }

    static func isOne(_ record: MappingRecord, at places: some Sequence<MappingRecord.Place>) -> Bool {
        var isSeen = false
        for place in places {
            // A MoA behind an endpoint is the one that it is leaving.
            if place.isMoA { return isSeen }
            if place.endpoint?.family == record.hoa.family { return false }
            isSeen = isSeen || place.endpoint != nil
        }
        return isSeen
    }
}

extension NodeCore {
    /// Whether the peer is such a one by its record. The first has the own record list what leads here from there.
    mutating func findOtherFamily(of peer: Peer, _ now: Now) {
        guard let own = home(for: peer.hoa) else { return }
        let isOne = PeersOfOtherFamily.isOne(peer.mapping.record, at: peer.record.places(at: peer.listed))
        guard peersOfOtherFamily.set(peer.hoa, isOne) else { return }
        let missing = Set(desiredLocators(of: own)).subtracting(homes[own]?.registration.signer.places ?? [])
        guard !missing.isEmpty, homes[own]?.registration.isRegistered == true else { return }
        log(.info, "\(peer.hoa) has no \(peer.hoa.family) address where it is: the record of \(own) lists others of this node, too")
        homes[own]?.announcement.owe()
        register(own, now)
    }
}
