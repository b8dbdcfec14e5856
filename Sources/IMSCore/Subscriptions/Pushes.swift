import MATCore
import MATSignal
import MappingMemory

/// One receiver is told of one HoA at a time; a newer record takes the place of the one on its way.
package struct PushKey: Hashable, Sendable {
    var peer: Endpoint
    var local: IPAddress
    var prefix: IPPrefix
}

/// MA Notify that this server sends: to subscribers of a changed mapping, and to nodes of its own about their correspondents.
///
/// ```
///                 push                                     ack; "not wanted"; 5 tries without an ack
///    (nothing) ─────────► on its way, sequence n, due at t ──────────────────────────────────────────► (nothing)
///                          │ ▲  └─ due ─► sent again               └─► the subscription ends, unless it was an ack
///                          └─┘  └─ code 9 ─► sent again at once under the cookie that it brought, twice at most
///               push of another record: begins anew under another sequence number
///
///    changed ──► 256 subscribers told ── pause ──► the next 256 ──► ...      a newer record begins again with all
///
///    an own node is at another place ──► what is on its way to where it was is ended, for `takeBehind` to say what goes there
/// ```
/// A receiver is owed a push only once, however many reasons there are; if one of them is a subscription, it ends when nobody acks.
struct Pushes: Sendable {
    private struct Push: Sendable {
        var certified: CertifiedMapping
        var sequence: UInt32
        var retransmission: Retransmission
        /// Code 9 answers followed; a receiver that wants a third cookie is not served.
        var cookiesFollowed = 0
        /// Whether it is owed to a subscription, which ends if nobody acks.
        var isSubscription: Bool
        /// The own node that is to know it, wherever it is.
        var node: IPPrefix?
    }

    private enum Deadline: Hashable, Sendable {
        case retransmission(PushKey)
        /// The pause after a part of a mapping's pushes is over.
        case rest(IPPrefix)
    }

    private var pushes: [PushKey: Push] = [:]
    private var keys: [UInt32: PushKey] = [:]
    /// What is on its way to own nodes, by their prefixes.
    private var ofNodes: [IPPrefix: Set<PushKey>] = [:]
    /// By changed mapping, who has not been sent it yet.
    private var rest: [IPPrefix: ArraySlice<SubscriptionTable.Subscriber>] = [:]
    private var deadlines = DeadlineQueue<Deadline>()
    private var pushesMax: Int

    /// Pushes sent at once; the rest of a popular HoA's subscribers come after a pause, in which others get their answers.
    static let perTurnMax = 256
    static let pause: Duration = .milliseconds(1)

    enum Action: Sendable {
        /// One MA Notify with the record and its certificate.
        case send(CertifiedMapping, PushKey, sequence: UInt32)
        /// There is no room for it.
        case drop(PushKey)
        /// The receiver does not want to know, or does not answer: then `unanswered`.
        case endSubscription(PushKey)
        /// All tries were made. `isSubscription`: it was owed to one.
        case unanswered(PushKey, isSubscription: Bool)
        /// Its response brought this cookie.
        case learned(ServerCookie?, of: KnownServers.Peer)
        /// The receiver answered something that ends the push and is neither ok nor "I know a newer one".
        case oddAck(PushKey, ResponseCode, text: String?)
    }

    /// What became due.
    enum OnDue: Sendable {
        case done([Action])
        /// The next part of the subscribers is to be told what is held of the mapping by now: `changed`.
        case tell(IPPrefix, ArraySlice<SubscriptionTable.Subscriber>)
    }

    init(pushesMax: Int) { self.pushesMax = pushesMax }

    mutating func reconfigure(pushesMax: Int) { self.pushesMax = pushesMax }

    var count: Int { pushes.count }
    /// Those on their way at the moment.
    var underWay: some Collection<PushKey> { pushes.keys }
    func isUnderWay(_ key: PushKey) -> Bool { pushes[key] != nil }
    /// Whether an own node is being told something.
    func isUnderWay(to node: IPPrefix) -> Bool { ofNodes[node] != nil }

    // MARK: Events

    /// The mapping has changed, or its next subscribers are to be told.
    mutating func changed(
        _ mapping: StoredMapping, subscribers: ArraySlice<SubscriptionTable.Subscriber>, _ random: inout CoreRandom, _ now: Now
    ) -> [Action] {
        var actions: [Action] = []
        // Whoever sent the update knows it.
        for subscriber in subscribers.prefix(Self.perTurnMax) where subscriber.endpoint != mapping.source {
            actions += push(
                mapping.certified, to: subscriber.endpoint, from: subscriber.local, isSubscription: true, &random, now)
        }
        let prefix = mapping.record.prefix
        let left = subscribers.dropFirst(Self.perTurnMax)
        rest[prefix] = left.isEmpty ? nil : left
        if left.isEmpty { deadlines.cancel(.rest(prefix)) } else { deadlines.set(.rest(prefix), at: now.monotonic + Self.pause) }
        return actions
    }

    /// Tells one receiver.
    ///
    /// - Parameter node: the own node that is there, if it is to know whatever becomes of that place.
    mutating func push(
        _ certified: CertifiedMapping, to peer: Endpoint, from local: IPAddress, isSubscription: Bool, node: IPPrefix? = nil,
        _ random: inout CoreRandom, _ now: Now
    ) -> [Action] {
        let key = PushKey(peer: peer, local: local, prefix: certified.record.prefix)
        var (isOwed, node) = (isSubscription, node)
        if let earlier = pushes[key] {
            isOwed = isOwed || earlier.isSubscription
            node = node ?? earlier.node
            if earlier.certified == certified {
                // It is on its way; its retransmissions go on.
                pushes[key]?.isSubscription = isOwed
                pushes[key]?.node = node
                if let node { ofNodes[node, default: []].insert(key) }
                return []
            }
            remove(key)
        }
        guard pushes.count < pushesMax else { return [.drop(key)] }
        let sequence = random.sequence { keys[$0] != nil }
        pushes[key] = Push(
            certified: certified, sequence: sequence, retransmission: Retransmission(type: .maNotify, now: now.monotonic),
            isSubscription: isOwed, node: node)
        keys[sequence] = key
        if let node { ofNodes[node, default: []].insert(key) }
        return transmit(key, now)
    }

    /// An own node is here now. What is on its way to where it was would never be acked; what is owed to a subscription there besides goes on.
    ///
    /// - Returns: what it has not acked, to be told it anew.
    mutating func takeBehind(_ node: IPPrefix, at endpoint: Endpoint) -> [CertifiedMapping] {
        guard let behind = ofNodes[node]?.filter({ $0.peer != endpoint }), !behind.isEmpty else { return [] }
        return behind.sorted { ($0.prefix, $0.peer) < ($1.prefix, $1.peer) }.compactMap { key in
            guard let push = pushes[key] else { return nil }
            if push.isSubscription {
                leave(key)
            } else {
                end(key)
            }
            return push.certified
        }
    }

    /// Another instance pushes to this subscriber from now on. What is on its way is repeated until it is acked, as nobody else does that; if
    /// it never is, that is no longer for this one to judge.
    mutating func left(_ key: PushKey) { pushes[key]?.isSubscription = false }

    /// An MA Notify Ack came.
    ///
    /// - Returns: `nil` if it belongs to no push of ours.
    mutating func acked(_ ack: MANotifyAck, _ sequence: UInt32, from source: Endpoint, _ servers: KnownServers) -> [Action]? {
        guard let key = keys[sequence], var push = pushes[key], key.peer == source else { return nil }
        let peer = KnownServers.Peer(endpoint: key.peer, local: key.local)
        guard servers.isOurs(ack.cookie, from: peer) else { return nil }
        if let hoa = ack.hoa, !push.certified.record.prefix.contains(hoa.address) { return nil }
        var actions = [Action.learned(ack.cookie.server, of: peer)]
        switch ack.code {
        case .cookieRequired where ack.cookie.server != nil && push.cookiesFollowed < Retransmission.cookiesFollowedMax:
            push.cookiesFollowed += 1
            pushes[key] = push
            actions.append(.send(push.certified, key, sequence: push.sequence))
        case .notFound, .notAuthoritative, .refused:
            // It does not want to know (any more).
            end(key)
            actions.append(.endSubscription(key))
        case .tryLater:
            // The retransmission that is due anyway comes late enough.
            break
        default:
            end(key)
            if ack.code != .ok, ack.code != .stale { actions.append(.oddAck(key, ack.code, text: ack.text)) }
        }
        return actions
    }

    // MARK: Time

    var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    /// - Returns: `nil` if nothing is due.
    mutating func due(_ now: Now) -> OnDue? {
        switch deadlines.takeDue(now.monotonic) {
        case nil: return nil
        case .rest(let prefix)?:
            guard let left = rest.removeValue(forKey: prefix) else { return .done([]) }
            return .tell(prefix, left)
        case .retransmission(let key)?:
            guard let push = pushes[key] else { return .done([]) }
            guard push.retransmission.isExhausted else { return .done(transmit(key, now)) }
            end(key)
            return .done([.unanswered(key, isSubscription: push.isSubscription)])
        }
    }

    private mutating func transmit(_ key: PushKey, _ now: Now) -> [Action] {
        guard var push = pushes[key] else { return [] }
        push.retransmission.tried(at: now.monotonic)
        pushes[key] = push
        deadlines.set(.retransmission(key), at: push.retransmission.due)
        return [.send(push.certified, key, sequence: push.sequence)]
    }

    private mutating func end(_ key: PushKey) {
        remove(key)
        deadlines.cancel(.retransmission(key))
    }

    private mutating func remove(_ key: PushKey) {
        leave(key)
        guard let push = pushes.removeValue(forKey: key) else { return }
        keys[push.sequence] = nil
    }

    /// It is no own node's any more.
    private mutating func leave(_ key: PushKey) {
        guard let node = pushes[key]?.node else { return }
        pushes[key]?.node = nil
        ofNodes[node]?.remove(key)
        if ofNodes[node]?.isEmpty == true { ofNodes[node] = nil }
    }
}
