import MATSignal

/// Which datagrams are worth the core's time, told from their first octet and their source before anything is decoded.
///
/// ```
///   MA Query, HA Query, answers ────────────────────────────────────────────────────────────────────► pass
///   IMS Update ───────────────────────────────► share of the source ────────────────────────────────► pass
///   HA Notify, MA Notify, what is no message ─► share of the source ──► budget of all strangers ────► pass
///                                                   └─ used up ► drop          └─ used up ► code 7, at a rate of its own
/// ```
/// What a flood may cost is decided here: to say no takes some nanoseconds, no memory and no lock, whatever the datagram holds.
/// Queries are answered from memory and cost little more than looking at them. Nothing is kept by source: shares are buckets in two
/// fixed rows, found by keyed hashes, and the emptier of the two counts (a count-min sketch with conservative update: Estan and Varghese,
/// 2002), so that sources which meet in one row hardly meet in the other too.
///
/// One belongs to one thread, with its part of the budget.
struct AdmissionGate: Sendable {
    enum Verdict: Sendable, Hashable {
        case pass
        /// Worth an answer that says when to come again, if its cookie is good.
        case tryLater
        case drop
    }

    /// Of each row; a power of two. Twice 64 KB stay in a processor's cache.
    static let bucketsCount = 8192

    /// When each bucket will be full again, nanoseconds of the monotonic clock: the first row, then the second.
    private var fullAt = [Int64](repeating: 0, count: 2 * bucketsCount)
    private let key: (UInt64, UInt64)
    private let threads: Int
    private var nanosecondsPerMessage: Int64
    private var strangers: RateLimit
    private var refusals: RateLimit

    /// - Parameters:
    ///   - key: random, so that nobody can aim at another's buckets.
    ///   - threads: how many share the budget of all.
    init(limits: IMSLimits, key: (UInt64, UInt64), threads: Int = 1) {
        self.key = key
        self.threads = max(1, threads)
        nanosecondsPerMessage = 0
        strangers = RateLimit(perSecond: 1)
        refusals = strangers
        setLimits(limits)
    }

    /// Other limits, from the next datagram on. What sources have taken of their shares stays taken.
    mutating func setLimits(_ limits: IMSLimits) {
        nanosecondsPerMessage = 1_000_000_000 / Int64(max(1, limits.messagesPerSourcePerSecond))
        let share = max(1, limits.strangerMessagesPerSecond / threads)
        strangers = RateLimit(perSecond: share, burst: max(1, share / 10))
        refusals = RateLimit(perSecond: share, burst: max(1, share / 10))
    }

    /// - Parameter firstOctet: of the datagram, which is the type of its first message; `nil` if it is empty.
    mutating func judge(firstOctet: UInt8?, source: IPAddress, at now: MonotonicTime) -> Verdict {
        guard let firstOctet else { return .drop }
        switch MessageType(rawValue: firstOctet) {
        case .maQuery, .haQuery, .imsUpdateReply, .maAnswer, .haNotifyAck, .haAnswer, .maNotifyAck: return .pass
        case .imsUpdate: return take(source, now) ? .pass : .drop
        case .haNotify, .maNotify:
            guard take(source, now) else { return .drop }
            if strangers.take(at: now) { return .pass }
            return refusals.take(at: now) ? .tryLater : .drop
        case nil: return take(source, now) && strangers.take(at: now) ? .pass : .drop
        }
    }

    /// Takes from the source's share: up to one second's at once.
    private mutating func take(_ source: IPAddress, _ now: MonotonicTime) -> Bool {
        let hash = hash(source.sourceKey.address)
        let first = Int(truncatingIfNeeded: hash) & (Self.bucketsCount - 1)
        let second = Self.bucketsCount + Int(truncatingIfNeeded: hash >> 32) & (Self.bucketsCount - 1)
        let next = max(min(fullAt[first], fullAt[second]), now.nanoseconds) &+ nanosecondsPerMessage
        guard next &- now.nanoseconds <= 1_000_000_000 else { return false }
        fullAt[first] = max(fullAt[first], next)
        fullAt[second] = max(fullAt[second], next)
        return true
    }

    /// Multiplications with secret odd numbers, then SplitMix64's mixing: what it yields is never seen outside, so nothing stronger is
    /// needed, and nothing slower wanted.
    private func hash(_ address: IPAddress) -> UInt64 {
        var z = address.high &* (key.0 | 1) ^ (address.low &+ key.0) &* (key.1 | 1)
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
