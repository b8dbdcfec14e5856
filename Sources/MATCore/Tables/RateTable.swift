import MATSignal

/// Token buckets by key, for at most so many keys at a time.
///
/// When room is needed, a full bucket is forgotten, which loses nothing. If none is full among those unused for longest, the table
/// is under attack, and new keys are refused rather than those in use. Either way a key costs a few steps, never a walk through
/// the table.
public struct RateTable<Key: Hashable & Sendable>: Sendable {
    @usableFromInline var rate: Int
    @usableFromInline var keysMax: Int
    @usableFromInline var buckets = RecencyTable<Key, RateLimit>()

    /// Buckets looked at to find one that can go. The oldest are the likeliest; one that is still in use goes to the end of the row.
    @inlinable public static var stepsToRoomMax: Int { 4 }

    @inlinable
    public init(perSecond rate: Int, keysMax: Int) {
        self.rate = rate
        self.keysMax = max(1, keysMax)
    }

    /// Another rate or bound: what was taken is forgotten. If they are what they were, what was taken stays taken.
    @inlinable
    public mutating func reconfigure(perSecond rate: Int, keysMax: Int) {
        if rate != self.rate || max(1, keysMax) != self.keysMax { self = RateTable(perSecond: rate, keysMax: keysMax) }
    }

    @inlinable public var count: Int { buckets.count }

    /// Takes a token of the key's bucket if there is one.
    ///
    /// - Parameter times: how many times the rate this key has at present.
    @inlinable
    public mutating func take(_ key: Key, at now: MonotonicTime, times: Int = 1) -> Bool {
        if var bucket = buckets[key] {
            bucket.reconfigure(perSecond: rate * times)
            let isTaken = bucket.take(at: now)
            buckets.use(key, bucket)
            return isTaken
        }
        guard buckets.count < keysMax || buckets.removeOldest(within: Self.stepsToRoomMax, where: { $1.isIdle(at: now) }) else { return false }
        var bucket = RateLimit(perSecond: rate * times)
        let isTaken = bucket.take(at: now)
        buckets.use(key, bucket)
        return isTaken
    }

    /// Whether `take` would succeed, but for a lack of room.
    @inlinable
    public func allows(_ key: Key, at now: MonotonicTime) -> Bool {
        var bucket = buckets[key] ?? RateLimit(perSecond: rate)
        return bucket.take(at: now)
    }

    /// Looks at some buckets and forgets those that are full.
    @inlinable
    public mutating func forgetIdle(at now: MonotonicTime, steps: Int) {
        buckets.sweep(steps: steps) { $1.isIdle(at: now) }
    }
}

extension IPAddress {
    /// What counts as one source for limits: an IPv4 address, or the /64 that one IPv6 subscriber commonly has to himself.
    package var sourceKey: IPPrefix { IPPrefix(covering: self, length: family == .ipv4 ? 128 : 64) }
}
