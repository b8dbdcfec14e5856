import MATSignal
import MappingMemory

/// HA Queries per source, in memory of fixed size: each worker's own. The kernel gives all datagrams of one source address and port to
/// one worker, so a node meets one bucket; a source with many ports could meet one in each worker.
///
/// Sets of eight buckets, found by a keyed hash. A bucket that is full says no more than none, so its place can be taken; if there is no
/// such place the table is under attack, and new sources are refused rather than those in use.
struct QueryRates: @unchecked Sendable {
    static let setsCount = 2048
    private static let ways = 8

    private struct Bucket {
        var source: IPAddress
        /// When the bucket is full again, monotonic nanoseconds: the level, told by one number.
        var fullAt: Int64
    }

    private let buckets: UnsafeMutablePointer<Bucket>
    private let hash = TableHash()

    init() {
        let count = Self.setsCount * Self.ways
        buckets = .allocate(capacity: count)
        buckets.initialize(repeating: Bucket(source: IPAddress(high: 0, low: 0), fullAt: .min), count: count)
    }

    func deallocate() { buckets.deallocate() }

    /// Takes a token of the source's bucket if there is one; as `RateLimit.take`.
    func take(_ source: IPAddress, perSecond rate: Int, at now: MonotonicTime) -> Bool {
        // What counts as one source: an IPv4 address, or a /64.
        let key = source.family == .ipv4 ? source : source.masked(to: 64)
        let set = buckets + Int(hash.tag(key, 0)) % Self.setsCount * Self.ways
        var place: Int?
        for way in 0..<Self.ways {
            if set[way].source == key {
                place = way
                break
            }
            if set[way].fullAt <= now.nanoseconds { place = place ?? way }
        }
        guard let place else { return false }
        if set[place].source != key { set[place] = Bucket(source: key, fullAt: .min) }
        let rate = Int64(max(1, rate))
        let step = 1_000_000_000 / rate
        let next = max(set[place].fullAt, now.nanoseconds) &+ step
        guard next &- now.nanoseconds <= step &* rate else { return false }
        set[place].fullAt = next
        return true
    }
}
