import MATSignal

// The DNS: `LookUps` and `NetworkKeys` say what to ask, here is whom the answers concern.

extension NodeCore {
    /// Asks the DNS for the IMSs of an HoA, on behalf of `purpose`.
    mutating func lookUp(_ hoa: HomeAddress, for purpose: LookUps.Purpose, _ now: Now) {
        if lookUps.ask(hoa, for: purpose) { emit(.lookUp(hoa)) }
    }

    /// The IMSs of a peer as far as they are known; expired knowledge is used while the DNS is asked again, because right
    /// after a move the DNS may not be reachable yet.
    mutating func knownServers(of hoa: HomeAddress, _ now: Now) -> ServerSet? {
        guard let set = serverSet(of: hoa) else { return nil }
        if set.expires <= now.monotonic { lookUp(hoa, for: .refresh, now) }
        return set
    }

    mutating func finishLookUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        let purposes = lookUps.end(hoa)
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
            case .caller: callerLookedUp(hoa, result, now)
            case .refresh: break
            }
        }
    }

    // MARK: Keys of networks

    /// The keys to check a record's certificate with; `nil` if they are to be asked for.
    func keys(for offered: OfferedRecord, of hoa: HomeAddress, _ now: Now) -> [PublicKey]? {
        offered.prefix.length == 128 ? serverSet(of: hoa)?.keys : networkKeys.keys(of: offered.prefix, now.monotonic)
    }

    mutating func lookUpKeys(of prefix: IPPrefix, for waiter: NetworkKeys.Waiter?, _ now: Now) {
        if networkKeys.ask(prefix, for: waiter) { emit(.lookUpKeys(prefix)) }
    }

    mutating func finishKeyLookUp(_ prefix: IPPrefix, _ result: ServerLookup, _ now: Now) {
        for waiter in networkKeys.lookedUp(prefix, result, now.monotonic) {
            let keys = networkKeys.keys(of: prefix, now.monotonic)
            switch waiter {
            case .answer(let hoa, let answer):
                if keys == nil { keysAreMissing(of: prefix, for: hoa, result, now) } else { peerAnswered(hoa, answer, now) }
            case .record(let pending): recordKeysLookedUp(pending, keys, now)
            }
        }
    }
}
