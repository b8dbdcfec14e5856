import MATSignal

/// Token buckets by key, for at most so many keys at a time.
///
/// Full buckets are forgotten when room is needed, which loses nothing. If none is full the table is under attack, and new
/// keys are refused rather than those in use.
struct RateTable<Key: Hashable & Sendable>: Sendable {
    private let rate: Int
    private let keysMax: Int
    private var buckets: [Key: RateLimit] = [:]

    init(perSecond rate: Int, keysMax: Int) {
        self.rate = rate
        self.keysMax = keysMax
    }

    /// Takes a token of the key's bucket if there is one.
    mutating func take(_ key: Key, at now: MonotonicTime) -> Bool {
        if buckets[key] == nil {
            if buckets.count >= keysMax { forgetIdle(at: now) }
            guard buckets.count < keysMax else { return false }
        }
        return buckets[key, default: RateLimit(perSecond: rate)].take(at: now)
    }

    /// Whether `take` would succeed.
    func allows(_ key: Key, at now: MonotonicTime) -> Bool {
        var bucket = buckets[key] ?? RateLimit(perSecond: rate)
        return bucket.take(at: now)
    }

    mutating func forgetIdle(at now: MonotonicTime) {
        buckets = buckets.filter { !$0.value.isIdle(at: now) }
    }
}

extension IPAddress {
    /// What counts as one source for limits: an IPv4 address, or the /64 that one IPv6 subscriber commonly has to himself.
    var sourceKey: IPPrefix { IPPrefix(covering: self, length: isIPv4 ? 128 : 64) }
}
