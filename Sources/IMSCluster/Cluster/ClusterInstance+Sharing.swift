import IMS
import MATSignal

// Subscriptions and remembered mappings: written as news, with leases, so that what nobody renews goes by itself.
//
// Each instance pushes to the subscribers that asked it; others hold nothing of that in memory. When an instance dies, the living one
// with the lowest id reads its subscriptions, makes them its own, and pushes what changed meanwhile.

/// What is waiting to be written, and the lease it is written with.
struct SharingState: Sendable {
    /// By key, so that only the newest of each is written.
    private var waiting: [[UInt8]: News] = [:]
    private var order: [[UInt8]] = []
    private var sending: [(key: [UInt8], news: News)] = []
    var lease: (id: Int64, at: MonotonicTime)?
    var isGranting = false
    private(set) var droppedCount = 0

    /// What is done to a key.
    enum News: Equatable, Sendable {
        case put([UInt8])
        /// Only over what is older than this version.
        case putIfNewer([UInt8], than: [UInt8])
        case delete
    }

    var isEmpty: Bool { waiting.isEmpty && sending.isEmpty }
    var isSending: Bool { !sending.isEmpty }
    var hasWaiting: Bool { !waiting.isEmpty }

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
}

extension ClusterInstance {
    /// What the core has learned and the other instances, or one that takes over, should know.
    mutating func share(_ news: [SharedNews], _ now: Now) -> [Action] {
        for item in news {
            switch item {
            case .subscribed(let subscription):
                sharing.add(
                    key(of: subscription.prefix, subscription.endpoint),
                    .put(ClusterValue.encode(subscriptionEnding: subscription.ends, local: subscription.local)), max: Self.newsMax
                )
            case .unsubscribed(let prefix, let endpoint):
                sharing.add(key(of: prefix, endpoint), .delete, max: Self.newsMax)
            case .remembered(let certified, let isConfirmed):
                let value = ClusterValue.encode(certified, isConfirmed: isConfirmed)
                // An equal version replaces one that was not confirmed.
                let version = ClusterValue.version(certified.version) + [isConfirmed ? 1 : 0]
                sharing.add(
                    keys.octets(.remembered(certified.record.prefix)), .putIfNewer(value, than: version), max: Self.newsMax)
            }
        }
        tendSharing(now)
        defer { actions = [] }
        return actions
    }

    private func key(of prefix: IPPrefix, _ endpoint: Endpoint) -> [UInt8] {
        keys.octets(.subscription(settings.id, prefix, endpoint))
    }

    mutating func tendSharing(_ now: Now) {
        guard link == .up, !isUnavailable, sharing.hasWaiting || adopting != nil, !sharing.isSending else { return }
        guard let lease = sharing.lease, lease.at + Self.leaseAge > now.monotonic else {
            guard !sharing.isGranting else { return }
            sharing.isGranting = true
            return call(.lease, .grantLease(seconds: Self.leaseSeconds))
        }
        guard sharing.hasWaiting else { return }
        let operations = sharing.next(max: Self.operationsMax).map { key, news -> EtcdOperation in
            switch news {
            case .put(let value): .put(EtcdPut(key: key, value: value, lease: lease.id))
            case .putIfNewer(let value, let version):
                Self.putIfNewer(EtcdPut(key: key, value: value, lease: lease.id), than: version)
            case .delete: .delete(key)
            }
        }
        call(.news, .transaction(EtcdTransaction(success: operations)))
    }

    mutating func takeLease(_ id: Int64, _ now: Now) {
        sharing.isGranting = false
        sharing.lease = (id, now.monotonic)
        if let adopting { readSubscriptions(of: adopting) }
        tendSharing(now)
    }

    mutating func newsSent(_ now: Now) {
        sharing.sent()
        tendSharing(now)
    }

    mutating func newsFailed(_ error: EtcdError, _ now: Now) {
        if error.kind == .refused {
            // The lease is gone, or etcd does not take such a thing: with a new lease once more, and not again.
            let isFirst = sharing.lease.map { $0.at + Self.callTimeMax < now.monotonic } ?? false
            sharing.leaseFailed()
            guard isFirst else {
                sharing.sent()
                actions.append(.deliver(.failed("subscriptions or remembered mappings are not shared: \(error)")))
                return
            }
        }
        sharing.linkLost()
    }

    // MARK: Taking over

    /// Whether another instance is dead can be told only by who hears itself.
    mutating func adoptIfDue(_ now: Now) {
        guard adopting == nil, let echoingSince, echoingSince + Self.silenceMax < now.monotonic, !isClosing else { return }
        let living = peers.filter { !$0.value.isDead(now) }.keys
        guard living.allSatisfy({ settings.id < $0 }), let dead = peers.filter({ $0.value.isDead(now) }).keys.min() else {
            return
        }
        adopting = dead
        if let lease = sharing.lease, lease.at + Self.leaseAge > now.monotonic {
            readSubscriptions(of: dead)
        } else {
            tendSharing(now)
        }
    }

    mutating func readSubscriptions(of dead: InstanceID) {
        guard adopting == dead else { return }
        let range = keys.subscriptions(of: dead)
        call(.adoptPage(dead), .range(EtcdRange(key: range.key, end: range.end, limit: UInt64(Self.operationsMax / 2))))
    }

    /// Moves a page of subscriptions to this instance's name; the next page is what is then first.
    mutating func adopt(_ dead: InstanceID, _ response: EtcdResponse, _ now: Now) {
        guard adopting == dead, let lease = sharing.lease else {
            adopting = nil
            return
        }
        guard !response.pairs.isEmpty else {
            peers[dead] = nil
            call(.adoptEnd(dead), .transaction(EtcdTransaction(success: [.delete(keys.octets(.instance(dead)))])))
            return
        }
        var news: [SharedNews] = []
        var operations: [EtcdOperation] = []
        for pair in response.pairs {
            operations.append(.delete(pair.key))
            guard case .subscription(_, let prefix, let endpoint) = keys.parse(pair.key),
                let value = ClusterValue.subscription(pair.value),
                value.ends > now.wallMilliseconds
            else { continue }
            operations.append(.put(EtcdPut(key: key(of: prefix, endpoint), value: pair.value, lease: lease.id)))
            news.append(.subscribed(SharedSubscription(prefix: prefix, endpoint: endpoint, local: value.local, ends: value.ends)))
        }
        if !news.isEmpty { actions.append(.deliver(.shared(news))) }
        call(.adoptMove(dead), .transaction(EtcdTransaction(success: operations)))
    }

    // MARK: Stopping

    /// Whether nothing is on its way any more.
    var isIdle: Bool { changes.isEmpty && calls.isEmpty && (sharing.isEmpty || link != .up) }

    /// The last sign of life: whoever takes over need not wait for silence.
    mutating func leave(_ now: Now) -> [Action] {
        isClosing = true
        if link == .up {
            let put = EtcdPut(
                key: keys.octets(.instance(settings.id)), value: ClusterValue.encode(signOfLife: ClusterValue.lastSignOfLife))
            call(.beat(0), .transaction(EtcdTransaction(success: [.put(put)])), within: Self.beatTimeMax)
        }
        defer { actions = [] }
        return actions
    }
}

extension ClusterInstance.Peer {
    func isDead(_ now: Now) -> Bool { hasLeft || seenAt + ClusterInstance.silenceMax < now.monotonic }
}
