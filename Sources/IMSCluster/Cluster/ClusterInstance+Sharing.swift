import IMS
import IMSCore
import MATSignal

// Subscriptions and remembered mappings: written as news, with leases, so that what nobody renews goes by itself.
//
// Each instance writes what it granted under its own name, and takes back only its own or what it knows to be of no use any more.

/// What is waiting to be written, and the lease it is written with.
struct SharingState: Sendable {
    /// By key, so that only the newest of each is written.
    private var waiting: [[UInt8]: News] = [:]
    private var order: [[UInt8]] = []
    private(set) var sending: [(key: [UInt8], news: News)] = []
    var lease: (id: Int64, at: MonotonicTime)?
    var isGranting = false
    private(set) var droppedCount = 0
    /// After failures: nothing is written before this time; how many failures there were in a row, and whether a person was told.
    private(set) var pausedUntil: MonotonicTime = .zero
    private var failuresCount = 0
    var isFailureTold = false

    /// What is done to a key.
    enum News: Equatable, Sendable {
        case put([UInt8])
        /// A remembered mapping, only over an older one; over that of this revision if one was compared with.
        case remember(CertifiedMapping, isConfirmed: Bool, overRevision: Int64? = nil)
        case delete
        /// Unless it was written again after this revision.
        case deleteIfAt(Int64)
    }

    var isEmpty: Bool { waiting.isEmpty && sending.isEmpty }
    var isSending: Bool { !sending.isEmpty }
    var hasWaiting: Bool { !waiting.isEmpty }
    func isWaiting(_ key: [UInt8]) -> Bool { waiting[key] != nil }

    mutating func add(_ key: [UInt8], _ news: News, max: Int) {
        if waiting[key] == nil {
            guard waiting.count < max else {
                droppedCount += 1
                return
            }
            order.append(key)
        }
        waiting[key] = news
    }

    mutating func next(max: Int) -> [(key: [UInt8], news: News)] {
        let keys = order.prefix(max)
        order.removeFirst(keys.count)
        sending = keys.compactMap { key in waiting.removeValue(forKey: key).map { (key, $0) } }
        return sending
    }

    mutating func sent() { sending = [] }

    /// What was on the way waits again, unless there is something newer about the key.
    mutating func linkLost() {
        for (key, news) in sending where waiting[key] == nil {
            waiting[key] = news
            order.append(key)
        }
        sending = []
        isGranting = false
    }

    mutating func leaseFailed() {
        lease = nil
        isGranting = false
    }

    mutating func failed(_ now: MonotonicTime) {
        pausedUntil = now + min(ClusterInstance.newsDelay * (1 << min(failuresCount, 10)), ClusterInstance.newsDelayMax)
        failuresCount += 1
    }

    mutating func succeeded() {
        pausedUntil = .zero
        failuresCount = 0
        isFailureTold = false
    }
}

extension ClusterInstance {
    /// What the core has learned and the other instances, or one that takes over, should know.
    mutating func share(_ news: [SharedNews], _ now: Now) -> [Action] {
        for item in news {
            switch item {
            case .subscribed(let subscription):
                let lasts = UInt64(clamping: max(0, subscription.lasts.millisecondsSaturated))
                let value = ClusterValue.encode(
                    subscriptionEnding: now.wallMilliseconds &+ lasts, grantedAt: now.wallMilliseconds, local: subscription.local)
                sharing.add(
                    keys.octets(.subscription(settings.id, subscription.prefix, subscription.endpoint)), .put(value), max: Self.newsMax)
            case .unsubscribed(let prefix, let endpoint):
                sharing.add(keys.octets(.subscription(settings.id, prefix, endpoint)), .delete, max: Self.newsMax)
                // Grants of others that this one served. What one of them has granted since then stays.
                let key = ClusterSubscriptions.Key(prefix: prefix, endpoint: endpoint)
                for grant in living.subscriptions.grants(of: key) where grant.instance != settings.id {
                    sharing.add(
                        keys.octets(.subscription(grant.instance, prefix, endpoint)), .deleteIfAt(grant.revision), max: Self.newsMax)
                }
            case .serve, .leave: break
            case .remembered(let certified, let isConfirmed):
                sharing.add(
                    keys.octets(.remembered(certified.record.prefix)), .remember(certified, isConfirmed: isConfirmed),
                    max: Self.newsMax)
            }
        }
        tendSharing(now)
        defer { actions = [] }
        return actions
    }

    mutating func tendSharing(_ now: Now) {
        guard link.isUp, !availability.isUnavailable, sharing.hasWaiting, !sharing.isSending, sharing.pausedUntil <= now.monotonic else { return }
        guard let lease = sharing.lease, lease.at + Self.leaseAge > now.monotonic else {
            guard !sharing.isGranting else { return }
            sharing.isGranting = true
            return call(.lease, .grantLease(seconds: Self.leaseSeconds))
        }
        let operations = sharing.next(max: Self.operationsMax).map { key, news -> EtcdOperation in
            switch news {
            case .put(let value): .put(EtcdPut(key: key, value: value, lease: lease.id))
            case .remember(let certified, let isConfirmed, let revision):
                Self.remember(
                    certified, isConfirmed: isConfirmed, over: revision,
                    EtcdPut(key: key, value: ClusterValue.encode(certified, isConfirmed: isConfirmed), lease: lease.id))
            case .delete: .delete(key)
            case .deleteIfAt(let revision):
                .transaction(EtcdTransaction(compare: [.modifiedAt(key, revision)], success: [.delete(key)]))
            }
        }
        call(.news, .transaction(EtcdTransaction(success: operations)))
    }

    mutating func takeLease(_ id: Int64, _ now: Now) {
        sharing.isGranting = false
        sharing.lease = (id, now.monotonic)
        tendSharing(now)
    }

    mutating func leaseFailed(_ error: EtcdError, _ now: Now) {
        sharing.leaseFailed()
        noteSharingFailure(error, now)
    }

    private static func remember(
        _ certified: CertifiedMapping, isConfirmed: Bool, over revision: Int64?, _ put: EtcdPut
    ) -> EtcdOperation {
        // An equal version replaces one that was not confirmed.
        revision.map { Self.put(put, over: $0) } ?? putIfNewer(put, certified.version, suffix: [isConfirmed ? 1 : 0])
    }

    mutating func newsSent(_ response: EtcdResponse, _ now: Now) {
        // What etcd could not compare is compared here, and tried once more over what was read.
        let again = zip(sharing.sending, response.responses).compactMap { item, response -> ([UInt8], SharingState.News)? in
            guard case .remember(let certified, let isConfirmed, nil) = item.news, case .refused(let pair?) = result(of: response),
                let held = ClusterValue.remembered(pair.value), certified.version > held.certified.version
            else { return nil }
            return (item.key, .remember(certified, isConfirmed: isConfirmed, overRevision: pair.modRevision))
        }
        sharing.sent()
        for (key, news) in again where !sharing.isWaiting(key) { sharing.add(key, news, max: Self.newsMax) }
        sharing.succeeded()
        tendSharing(now)
    }

    mutating func newsFailed(_ error: EtcdError, _ now: Now) {
        noteSharingFailure(error, now)
        if error.kind == .refused {
            // The lease is gone, or etcd does not take such a thing: with a new lease once more, and not again.
            let isFirst = sharing.lease.map { $0.at + Self.callTimeMax < now.monotonic } ?? false
            sharing.leaseFailed()
            guard isFirst else { return sharing.sent() }
        }
        sharing.linkLost()
    }

    /// One line when etcd begins to refuse, however often it is tried; what else can be wrong is told of changes as well.
    private mutating func noteSharingFailure(_ error: EtcdError, _ now: Now) {
        sharing.failed(now.monotonic)
        if error.kind == .noSpace { declareUnavailable(error.description) }
        guard error.kind == .refused, !sharing.isFailureTold else { return }
        sharing.isFailureTold = true
        actions.append(.deliver(.failed("subscriptions or remembered mappings are not shared: \(error)")))
    }

    // MARK: Stopping

    /// Whether nothing is on its way any more.
    var isIdle: Bool { changes.isEmpty && calls.isEmpty && (!link.isUp || (sharing.isEmpty && living.farewell != .due)) }
}
