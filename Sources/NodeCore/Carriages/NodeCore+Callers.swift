import MATSignal

// What comes in datagrams from where its source is not known to be: it is probed there, or found out about, and what was held of it is let in when
// it has proven itself (protocol.md sections 11.2 and 11.4).

extension NodeCore {
    /// A packet from this HoA to an own one came in a datagram from an endpoint that it is not known at, to this own address; it is held.
    ///
    /// - Parameter octets: that came from there in this HoA's name, and are held.
    mutating func heldEncapsulated(
        from source: HomeAddress, by endpoint: Endpoint, at own: IPAddress, octets: Int = .max, now: Now
    ) -> [NodeAction] {
        // Whoever forges a source must not get more octets sent there than he sends. A peer that is there sends on, or asks by itself.
        let hasShown = octets >= EndpointState.courtesyTimes.count * PathProbe.octetsMin
        if peers[source] == nil || hasShown { called(by: source, at: Callers.Place(endpoint: endpoint, own: own, hasShown: hasShown), now) }
        return endEvent()
    }

    /// Something came that names a HoA as its source, from an endpoint that it is not known at.
    mutating func called(by hoa: HomeAddress, at place: Callers.Place, _ now: Now) {
        guard hoa.address.isUsableUnicast, !isOwn(hoa.address), home(for: hoa) != nil else { return }
        guard peers[hoa] == nil else {
            cameEncapsulated(from: place.endpoint, to: place.own, of: hoa, now)
            return probe(caller: hoa, at: place, now)
        }
        guard callers.called(hoa, from: place, now.monotonic) else { return }
        if let servers = knownServers(of: hoa, now) {
            start(.queryPeer(hoa), to: servers.endpoints, now)
        } else {
            lookUp(hoa, for: .caller, now)
        }
    }

    /// A peer may be at another endpoint than those that are known: only its signature tells.
    private mutating func probe(caller hoa: HomeAddress, at place: Callers.Place, _ now: Now) {
        if peerEndpoints[hoa]?.installedSources.contains(place.endpoint) == true {
            // It was on its way here when the kernel was told.
            return emit(.releaseEncapsulated(of: hoa, from: place.endpoint))
        }
        guard !isHidden, isProbeable(place.endpoint.address), peerEndpoints[hoa]?.isBeingProbed(place.endpoint) != true,
            requests.probesCallers(now.monotonic)
        else { return }
        perform(peerEndpoints.enter(hoa) { $0.called(from: place, now.monotonic) }, of: hoa, now)
    }

    mutating func callerLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard callers.contains(hoa) else { return }
        guard case .found(let set) = result else {
            callers.end(hoa)
            return
        }
        if !isUnderWay(.queryPeer(hoa)) { start(.queryPeer(hoa), to: set.endpoints, now) }
    }

    /// Its IMS has said who it is.
    ///
    /// Its next packets have it probed where it called from: what has come so far may be less than a probe is long.
    mutating func callerKnown(_ hoa: HomeAddress, _ now: Now) {
        guard let place = callers.end(hoa), peers[hoa] != nil, place.hasShown else { return }
        probe(caller: hoa, at: place, now)
    }
}
