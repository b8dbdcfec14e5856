import DequeModule
import MATSignal

/// Subscriptions and remembered mappings on their way to etcd: written as news, with leases, so that what nobody renews goes by itself.
///
/// ```
///   add ─► waiting, by key: only the newest of each ─► sending, 100 at most ── answered ─► gone
///             ▲            under a lease: none ─► asked ─► held, for 120 s       │
///             └──────────────── the link is lost, or it failed: after a pause ───┘
/// ```
/// Each instance writes what it granted under its own name, and takes back only its own or what it knows to be of no use any more.
struct SharingState: Sendable {
    /// What is done to a key.
    enum News: Equatable, Sendable {
        case put([UInt8])
        /// A remembered mapping, only over an older one; over that of this revision if one was compared with.
        case remember(CertifiedMapping, isConfirmed: Bool, overRevision: Int64? = nil)
        case delete
        /// Unless it was written again after this revision.
        case deleteIfAt(Int64)
    }

    typealias Item = (key: [UInt8], news: News)

    private enum Lease: Sendable {
        case none
        case asked
        case held(id: Int64, at: MonotonicTime)
    }

    enum OnTend: Sendable {
        case nothing
        case askLease
        /// With this lease.
        case send([Item], lease: Int64)
    }

    private var waiting: [[UInt8]: News] = [:]
    private var order: Deque<[UInt8]> = []
    private var sending: [Item] = []
    private var lease = Lease.none
    /// After failures: nothing is written before this time; how many failures there were in a row, and whether a person was told.
    private var pausedUntil: MonotonicTime = .zero
    private var failuresCount = 0
    private var isFailureTold = false

    var isEmpty: Bool { waiting.isEmpty && sending.isEmpty }

    mutating func add(_ key: [UInt8], _ news: News) {
        if waiting[key] == nil {
            guard waiting.count < ClusterInstance.newsMax else { return }
            order.append(key)
        }
        waiting[key] = news
    }

    /// What is to be done now, while etcd takes writes.
    mutating func tend(_ now: MonotonicTime) -> OnTend {
        guard !waiting.isEmpty, sending.isEmpty, pausedUntil <= now else { return .nothing }
        switch lease {
        case .asked: return .nothing
        case .held(let id, let at) where at + ClusterInstance.leaseAge > now:
            let keys = order.prefix(ClusterInstance.operationsMax)
            order.removeFirst(keys.count)
            sending = keys.compactMap { key in waiting.removeValue(forKey: key).map { (key, $0) } }
            return .send(sending, lease: id)
        case .none, .held:
            lease = .asked
            return .askLease
        }
    }

    mutating func leased(_ id: Int64, _ now: MonotonicTime) { lease = .held(id: id, at: now) }

    /// All of it was written; `again`: what is to be tried once more, unless there is something newer about the key.
    mutating func succeeded(again: (Item, EtcdResponse) -> News?, _ responses: [EtcdResponse]) {
        let sent = sending
        sending = []
        for (item, response) in zip(sent, responses) {
            if waiting[item.key] == nil, let news = again(item, response) { add(item.key, news) }
        }
        pausedUntil = .zero
        failuresCount = 0
        isFailureTold = false
    }

    /// No answer comes any more: what was on the way waits again, unless there is something newer about the key.
    mutating func linkLost() {
        for (key, news) in sending where waiting[key] == nil {
            waiting[key] = news
            order.append(key)
        }
        sending = []
        if case .asked = lease { lease = .none }
    }

    /// There is no lease.
    ///
    /// - Returns: whether a person is to be told.
    mutating func leaseFailed(_ kind: EtcdError.Kind, _ now: MonotonicTime) -> Bool {
        lease = .none
        return pause(kind, now)
    }

    /// What was sent was not written.
    ///
    /// - Returns: whether a person is to be told.
    mutating func failed(_ kind: EtcdError.Kind, _ now: MonotonicTime) -> Bool {
        let isTold = pause(kind, now)
        if kind == .refused {
            // The lease is gone, or etcd does not take such a thing: with a new lease once more, and not again.
            var isOfOldLease = false
            if case .held(_, let at) = lease { isOfOldLease = at + ClusterInstance.callTimeMax < now }
            if !isOfOldLease { sending = [] }
            lease = .none
        }
        linkLost()
        return isTold
    }

    /// One line when etcd begins to refuse, however often it is tried; what else can be wrong is told of changes as well.
    private mutating func pause(_ kind: EtcdError.Kind, _ now: MonotonicTime) -> Bool {
        pausedUntil = now + min(ClusterInstance.newsDelay * (1 << min(failuresCount, 10)), ClusterInstance.newsDelayMax)
        failuresCount += 1
        guard kind == .refused, !isFailureTold else { return false }
        isFailureTold = true
        return true
    }
}
