import MATSignal

// The keys that a certificate is believed under: those that the DNS gives at the certificate's own name (sections 5 and 8). For one HoA that is
// the name at which its IMSs were found. A network's certificate has the name of its prefix, which is asked for apart: whoever holds the
// reverse name of one address in it says nothing about the rest.

/// What waits for the keys at a prefix's name.
enum KeyWaiter: Hashable, Sendable {
    /// The answer of an HoA's IMS to our query.
    case answer(HomeAddress, MAAnswer)
    case record(PendingRecord)
}

extension NodeCore {
    /// Prefixes whose keys are remembered; those that expire first go first.
    static let networkKeysMax = 1024
    /// Prefixes asked for at a time, and what waits for each; more is dropped, and its sender repeats it.
    static let keyLookUpsMax = 256
    static let keyWaitersMax = 16

    /// The keys to check a record's certificate with; `nil` if they are to be asked for.
    func keys(for offered: OfferedRecord, of hoa: HomeAddress, _ now: Now) -> [PublicKey]? {
        offered.prefix.length == 128 ? serverSet(of: hoa)?.keys : keys(of: offered.prefix, now)
    }

    /// The keys at a prefix's own name, if they are known.
    func keys(of prefix: IPPrefix, _ now: Now) -> [PublicKey]? {
        networkKeys[prefix].flatMap { $0.expires > now.monotonic ? $0.keys : nil }
    }

    mutating func lookUpKeys(of prefix: IPPrefix, for waiter: KeyWaiter?, _ now: Now) {
        if let waiting = keyLookUps[prefix] {
            if let waiter, waiting.count < Self.keyWaitersMax, !waiting.contains(waiter) { keyLookUps[prefix]?.append(waiter) }
            return
        }
        guard keyLookUps.count < share(of: Self.keyLookUpsMax) else { return }
        keyLookUps[prefix] = waiter.map { [$0] } ?? []
        emit(.lookUpKeys(prefix))
    }

    mutating func finishKeyLookUp(_ prefix: IPPrefix, _ result: ServerLookup, _ now: Now) {
        if case .found(let set) = result {
            networkKeys.makeRoom(for: prefix, max: share(of: Self.networkKeysMax)) { $1.expires }
            // Good for what waits now, whatever the zone says.
            networkKeys[prefix] = ServerSet(endpoints: [], keys: set.keys, expires: max(set.expires, now.monotonic + .seconds(1)))
        }
        for waiter in keyLookUps.removeValue(forKey: prefix) ?? [] {
            switch waiter {
            case .answer(let hoa, let answer):
                if keys(of: prefix, now) == nil { keysAreMissing(of: prefix, for: hoa, result, now) } else { peerAnswered(hoa, answer, now) }
            case .record(let pending):
                recordKeysLookedUp(pending, keys(of: prefix, now), now)
            }
        }
    }
}
