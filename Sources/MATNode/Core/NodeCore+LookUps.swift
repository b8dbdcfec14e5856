import MATSignal

/// Who waits for the IMSs of an HoA.
enum LookUpPurpose: Hashable, Sendable {
    case home
    case destination
    case record(PendingRecord)
    case peer
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
        guard lookUps.count < Self.lookUpsMax else { return }
        lookUps[hoa] = [purpose]
        emit(.lookUp(hoa))
    }

    /// A delayed look-up of an own HoA is due.
    mutating func lookUp(_ hoa: HomeAddress, _ now: Now) {
        guard homes[hoa] != nil else { return }
        lookUp(hoa, for: .home, now)
    }

    mutating func finishLookUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        if case .found(let set) = result { keepServers(set, of: hoa) }
        for purpose in lookUps.removeValue(forKey: hoa) ?? [] {
            switch purpose {
            case .home: homeLookedUp(hoa, result, now)
            case .destination: destinationLookedUp(hoa, result, now)
            case .record(let pending): recordLookedUp(pending, result, now)
            case .peer: peerLookedUp(hoa, result, now)
            }
        }
    }
}
