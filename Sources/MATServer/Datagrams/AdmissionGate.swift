import MATCore
import MATSignal

/// What a datagram holds, as far as it matters for who may have the core look at it. The later ones weigh more: a datagram of several
/// messages is of the kind of its heaviest.
package enum DatagramKind: UInt8, Comparable, Sendable {
    /// Queries, answers and acks.
    case regular
    case update
    /// Who holds a token may send these from anywhere, and each that is genuine costs two signatures and a write.
    case join
    /// HA Notify, MA Notify: strangers send these too, and each may cost a signature check, a look-up, a question to another server.
    case notify
    /// A message of the draft's form.
    case draft
    /// With an answer or ack to no request of this server's.
    case unasked
    /// What can't be read, or is of an unknown type, or has an option that must be known and is not.
    case odd

    @inlinable package static func < (a: DatagramKind, b: DatagramKind) -> Bool { a.rawValue < b.rawValue }
}

/// Datagrams a second that a gate lets in.
package struct AdmissionLimits: Hashable, Sendable {
    /// All but queries, of one source.
    package var perSourcePerSecond: Int
    /// Notifies of all sources together, divided among the workers; `nil`: `AdmissionGate.strangersPerThread` for each worker.
    package var strangersPerSecond: Int?
    /// Joins of all sources together, divided among the workers; `nil`: `AdmissionGate.joinsPerThread` for each worker.
    package var joinsPerSecond: Int?
    /// Of the draft's form, of all sources together, divided among the workers; likewise what is odd, and answers that nobody asked for.
    package var draftsPerSecond: Int
    package var oddPerSecond: Int

    package init(perSourcePerSecond: Int, strangersPerSecond: Int?, joinsPerSecond: Int? = nil, draftsPerSecond: Int, oddPerSecond: Int) {
        self.perSourcePerSecond = perSourcePerSecond
        self.strangersPerSecond = strangersPerSecond
        self.joinsPerSecond = joinsPerSecond
        self.draftsPerSecond = draftsPerSecond
        self.oddPerSecond = oddPerSecond
    }
}

/// Which datagrams are worth the core's time, told from their kind and their source before anything is decoded.
///
/// ```
///   queries, answers, acks ──────────────────────────────────────────────► pass
///   IMS Update ────────────► share of the source ────────────────────────► pass
///   Join ──────────────────► share of the source ─► budget of Joins ─────► pass
///   HA Notify, MA Notify ──► share of the source ─► budget of strangers ─► pass
///                                └─ used up ► drop      └─ used up ► code 7, at a rate of its own
///   draft's form ──────────► share of the source ─► a budget ────────────► pass
///   unasked, odd ──────────► share of the source ─► a budget of both ────► pass
///                                └─ used up ► drop      └─ used up ► drop
/// ```
/// What a flood may cost is decided here: to say no takes some nanoseconds, no memory and no lock, whatever the datagram holds.
/// Queries are answered from memory and cost little more than looking at them. Nothing is kept by source: shares are buckets in two
/// fixed rows, found by keyed hashes, and the emptier of the two counts (a count-min sketch with conservative update: Estan and Varghese,
/// 2002), so that sources which meet in one row hardly meet in the other too.
///
/// One belongs to one thread, with its part of the budget.
package struct AdmissionGate: Sendable {
    package enum Verdict: Sendable, Hashable {
        case pass
        /// Worth an answer that says when to come again, if its cookie is good.
        case tryLater
        case drop
    }

    /// Of each row; a power of two. Twice 64 KB stay in a processor's cache.
    package static let bucketsCount = 8192

    /// When each bucket will be full again, nanoseconds of the monotonic clock: the first row, then the second.
    private var fullAt = [Int64](repeating: 0, count: 2 * bucketsCount)
    private let key: (UInt64, UInt64)
    private let threads: Int
    private var limits: AdmissionLimits?
    private var nanosecondsPerMessage: Int64
    private var strangers: RateLimit
    private var joins: RateLimit
    private var refusals: RateLimit
    private var drafts: RateLimit
    private var odd: RateLimit
    /// HA and MA Notifies that one worker lets in if nothing is configured: with what they lead to some 3 % of a core.
    package static let strangersPerThread = 1000
    /// Joins that one worker lets in likewise; three times what 10,000 nodes in a minute take.
    package static let joinsPerThread = 500
    /// As many are told to come later: more would cost what is to be saved, and a sender tries again anyway.
    private static let refusalsPerStranger = 1

    /// - Parameters:
    ///   - key: random, so that nobody can aim at another's buckets.
    ///   - threads: how many share the budget of all.
    package init(limits: AdmissionLimits, key: (UInt64, UInt64), threads: Int = 1) {
        self.key = key
        self.threads = max(1, threads)
        nanosecondsPerMessage = 0
        strangers = RateLimit(perSecond: 1)
        joins = strangers
        refusals = strangers
        drafts = strangers
        odd = strangers
        setLimits(limits)
    }

    /// Other limits, from the next datagram on. What sources have taken of their shares stays taken.
    package mutating func setLimits(_ limits: AdmissionLimits) {
        // The rules change for many reasons (a new cookie secret, the store's end of loading); none of them fills the budgets again.
        guard limits != self.limits else { return }
        self.limits = limits
        nanosecondsPerMessage = 1_000_000_000 / Int64(max(1, limits.perSourcePerSecond))
        let share = limits.strangersPerSecond.map { max(1, $0 / threads) } ?? Self.strangersPerThread
        strangers = Self.limit(share)
        joins = Self.limit(limits.joinsPerSecond.map { max(1, $0 / threads) } ?? Self.joinsPerThread)
        refusals = Self.limit(share * Self.refusalsPerStranger)
        drafts = Self.limit(max(1, limits.draftsPerSecond / threads))
        odd = Self.limit(max(1, limits.oddPerSecond / threads))
    }

    private static func limit(_ perSecond: Int) -> RateLimit { RateLimit(perSecond: perSecond, burst: max(1, perSecond / 10)) }

    package mutating func judge(_ kind: DatagramKind, source: IPAddress, at now: MonotonicTime) -> Verdict {
        guard kind != .regular else { return .pass }
        guard takeShare(of: source, at: now) else { return .drop }
        switch kind {
        case .regular, .update: return .pass
        case .join: return joins.take(at: now) ? .pass : refusals.take(at: now) ? .tryLater : .drop
        case .notify:
            if strangers.take(at: now) { return .pass }
            return refusals.take(at: now) ? .tryLater : .drop
        case .draft: return drafts.take(at: now) ? .pass : .drop
        case .unasked, .odd: return odd.take(at: now) ? .pass : .drop
        }
    }

    /// Takes from the source's share: up to one second's at once.
    package mutating func takeShare(of source: IPAddress, at now: MonotonicTime) -> Bool {
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
