import MATSignal

/// Who waits for the IMSs of an HoA.
enum LookUpPurpose: Hashable, Sendable {
    case home
    case destination
    case record(PendingRecord)
    case peer
    /// Nobody waits: what is known has expired, and is used until there is something newer.
    case refresh
}

extension NodeCore {
    /// Waiters per HoA; more are dropped, and their senders retransmit.
    static let waitersMax = 16
    static let lookUpsMax = 4096

    /// Asks the DNS for the IMSs of an HoA, on behalf of `purpose`.
    mutating func lookUp(_ hoa: HomeAddress, for purpose: LookUpPurpose, _ now: Now) {
        if var waiters = lookUps[hoa] {
            guard waiters.count < Self.waitersMax, !waiters.contains(purpose) else { return }
            waiters.append(purpose)
            lookUps[hoa] = waiters
            return
        }
        guard lookUps.count < share(of: Self.lookUpsMax) else { return }
        lookUps[hoa] = [purpose]
        emit(.lookUp(hoa))
    }

    /// The IMSs of a peer as far as they are known; expired knowledge is used while the DNS is asked again, because right
    /// after a move the DNS may not be reachable yet.
    mutating func knownServers(of hoa: HomeAddress, _ now: Now) -> ServerSet? {
        guard let set = serverSet(of: hoa) else { return nil }
        if set.expires <= now.monotonic { lookUp(hoa, for: .refresh, now) }
        return set
    }

    /// A delayed look-up of an own HoA is due.
    mutating func lookUp(_ hoa: HomeAddress, _ now: Now) {
        guard homes[hoa] != nil else { return }
        lookUp(hoa, for: .home, now)
    }

    mutating func finishLookUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        let purposes = lookUps.removeValue(forKey: hoa) ?? []
        if case .found(let set) = result {
            keepServers(set, of: hoa)
            destinationNamed(hoa, isAwaited: purposes.contains(.destination), now)
        }
        for purpose in purposes {
            switch purpose {
            case .home: homeLookedUp(hoa, result, now)
            case .destination: destinationLookedUp(hoa, result, now)
            case .record(let pending): recordLookedUp(pending, result, now)
            case .peer: peerLookedUp(hoa, result, now)
            case .refresh: break
            }
        }
    }
}
