import IMS
import IMSCore
import MATSignal

// Who lives, who serves what, and how an instance comes and goes.
//
// ```
//            sign of life                    good-bye, or another one deletes its key after silence
//   unknown ──────────────► lives ─────────────────────────────────────────────────────────────────► does not live
//                             ▲                          sign of life                                      │
//                             └────────────────────────────────────────────────────────────────────────────┘
// ```
// Each arrow is an event of etcd's log, never a judgement of one instance alone: an instance that finds another one silent deletes its key,
// and that is when it is dead, to all at the same revision, itself included. As the deletion is a transaction with a sign of life of the one
// that judges, it can't happen while etcd takes no writes; as it is bound to the key's last revision, a sign of life that comes first
// prevents it, and two that judge at once do so once.

/// What the log has told of instances, and what follows for subscriptions.
struct LivingState: Sendable {
    let own: InstanceID
    var instances = LivingInstances()
    var subscriptions: ClusterSubscriptions
    /// The others whose keys are there.
    var peers: [InstanceID: Peer] = [:]
    /// Of the last event about subscriptions or instances.
    var revision: Int64 = 0
    /// All up to here was handed to the core.
    var handedUpTo: Int64 = 0
    var isDeposing = false
    var deposePausedUntil: MonotonicTime = .zero
    /// What the own signs of life have told of how far changes were handed to the core, the newest last.
    var ownPushed: [Int64] = []
    var farewell: Farewell?
    private var isReading = false
    /// Those that were known before all was read anew.
    private var peersBefore: [InstanceID: Peer] = [:]

    enum Farewell: Equatable, Sendable { case due, said }

    struct Peer: Equatable, Sendable {
        /// Of its key.
        var revision: Int64
        var seenAt: MonotonicTime
        /// Own signs of life since its last one.
        var ownSignsSince = 0
        /// Of its last sign of life.
        var count: UInt64 = 0
        /// How far it had handed changes to its core, by its last signs of life, the newest last.
        var pushed: [Int64] = []

        /// It said good-bye, and everything up to here was pushed by it.
        var farewellUpTo: Int64?

        /// A push of the last second before its last sign of life may have been lost, and nobody repeats it any more.
        var pushedSafely: Int64 { farewellUpTo ?? pushed.first ?? 0 }

        /// One that is repeated with another's death says nothing new.
        mutating func note(_ count: UInt64, pushedUpTo: Int64) {
            if count != self.count { LivingState.note(pushedUpTo, in: &pushed) }
            self.count = count
        }

        func isSilent(_ now: Now) -> Bool {
            ownSignsSince >= ClusterInstance.silentSignsMax && seenAt + ClusterInstance.silenceMax < now.monotonic
        }
    }

    /// Signs of life of which it is kept how far pushes were: one second's.
    static let pushedKept = 3

    init(own: InstanceID) {
        self.own = own
        subscriptions = ClusterSubscriptions(own: own)
    }

    static func note(_ pushedUpTo: Int64, in list: inout [Int64]) {
        list.append(pushedUpTo)
        if list.count > pushedKept { list.removeFirst() }
    }

    // MARK: Reading

    mutating func beginReading(at revision: Int64) {
        // Begun anew before the end, it is about those of before all the same.
        if !isReading { peersBefore = peers }
        isReading = true
        peers = [:]
        instances = LivingInstances()
        subscriptions.beginReading(at: revision)
    }

    /// - Parameter isFirst: whether the core, which has just begun, holds no subscription that is not its own.
    mutating func finishReading(at revision: Int64, isFirst: Bool, _ now: MonotonicTime) -> [ClusterSubscriptions.Order] {
        isReading = false
        self.revision = revision
        handedUpTo = revision
        let dead = peersBefore.filter { !instances.all.contains($0.key) }.mapValues(\.pushedSafely)
        peersBefore = [:]
        subscriptions.touchAll()
        let orders = subscriptions.orders(instances, dead: dead, at: revision, now)
        return isFirst ? orders.filter { if case .serve = $0 { true } else { false } } : orders
    }

    // MARK: Following

    /// What the events up to here mean for the core.
    mutating func ordersSoFar(_ now: MonotonicTime) -> [ClusterSubscriptions.Order] {
        isReading ? [] : subscriptions.orders(instances, at: revision, now)
    }

    /// Who lives has changed.
    ///
    /// - Parameter dead: the one that has just died, with the revision up to which all was pushed that it had to push.
    mutating func ordersAfterChange(
        from before: LivingInstances, dead: (id: InstanceID, pushed: Int64)?, _ now: MonotonicTime
    ) -> [ClusterSubscriptions.Order] {
        guard !isReading else { return [] }
        subscriptions.touchAll()
        var unserved: [InstanceID: Int64] = [:]
        // If nobody stood in before, nobody has pushed for those that were dead already.
        if !before.hasStandIn {
            for (id, peer) in peers where !instances.all.contains(id) { unserved[id] = peer.pushedSafely }
        }
        if let dead { unserved[dead.id] = dead.pushed }
        return subscriptions.orders(instances, dead: unserved, at: revision, now)
    }
}

extension ClusterInstance {
    /// What one sign of life says.
    func signOfLife() -> EtcdPut {
        let key = keys.octets(.instance(settings.id))
        let value: [UInt8] =
            switch living.farewell {
            case nil: ClusterValue.encode(signOfLife: heartbeat.count, pushedUpTo: pushedUpTo)
            // After `leave` all that was written before it will have been pushed; after `close` alone what the core has had time for.
            case _ where isClosing: ClusterValue.encode(signOfLife: ClusterValue.lastSignOfLife, pushedUpTo: living.ownPushed.first ?? 0)
            case _: ClusterValue.encode(signOfLife: ClusterValue.lastSignOfLife, pushedUpTo: .max)
            }
        return EtcdPut(key: key, value: value)
    }

    /// Up to where the core has been handed all changes; 0 while it is not, and if there is none.
    private var pushedUpTo: Int64 {
        guard serves, hasLoaded, case .following = feed else { return 0 }
        return living.handedUpTo
    }

    /// Tells the core whom to serve. Many at once come in pieces, so that answers go out between them.
    mutating func tell(_ orders: [ClusterSubscriptions.Order], _ now: Now) {
        var news: [SharedNews] = []
        for order in orders {
            switch order {
            case .serve(let key, let local, let until, let isBehind):
                news.append(
                    .serve(
                        SharedSubscription(prefix: key.prefix, endpoint: key.endpoint, local: local, lasts: until - now.monotonic),
                        isBehind: isBehind))
            case .leave(let key): news.append(.leave(key.prefix, key.endpoint))
            }
            if news.count == Self.ordersPerEventMax {
                actions.append(.deliver(.shared(news)))
                news = []
            }
        }
        if !news.isEmpty { actions.append(.deliver(.shared(news))) }
    }

    // MARK: Signs of life

    mutating func signOfLife(_ id: InstanceID, _ event: EtcdWatchResponse.Event, _ now: Now) {
        // What was written before belongs to who served until now.
        tell(living.ordersSoFar(now.monotonic), now)
        living.revision = max(living.revision, event.pair.modRevision)
        if event.isDelete { return keyDeleted(id, now) }
        guard let sign = ClusterValue.signOfLife(event.pair.value) else { return }
        guard id != settings.id else { return ownSignOfLife(sign.count, sign.pushedUpTo, now) }
        guard living.peers[id] != nil || living.peers.count < Self.peersMax else { return }
        var peer = living.peers[id] ?? LivingState.Peer(revision: 0, seenAt: now.monotonic)
        peer.revision = event.pair.modRevision
        peer.seenAt = now.monotonic
        peer.ownSignsSince = 0
        let hasLeft = sign.count == ClusterValue.lastSignOfLife
        if hasLeft {
            peer.farewellUpTo = peer.farewellUpTo ?? min(sign.pushedUpTo, event.pair.modRevision)
        } else {
            peer.note(sign.count, pushedUpTo: sign.pushedUpTo)
        }
        living.peers[id] = peer
        changeLiving(id, lives: !hasLeft, isReady: sign.pushedUpTo > 0, pushed: peer.pushedSafely, now)
    }

    private mutating func ownSignOfLife(_ count: UInt64, _ pushedUpTo: Int64, _ now: Now) {
        // One that was repeated, with another's death or after good-bye, counts once.
        let isNews = echoed(count, now)
        if isNews {
            for id in living.peers.keys { living.peers[id]?.ownSignsSince += 1 }
        }
        let hasLeft = count == ClusterValue.lastSignOfLife
        if !hasLeft, isNews { LivingState.note(pushedUpTo, in: &living.ownPushed) }
        changeLiving(settings.id, lives: !hasLeft, isReady: pushedUpTo > 0, pushed: 0, now)
        if hasLeft, !isClosing { actions.append(.deliver(.left)) }
        if doubt.isAwaited(count) { endDoubt(now) }
    }

    private mutating func keyDeleted(_ id: InstanceID, _ now: Now) {
        if id == settings.id {
            // Declared dead while alive: back at once, and until then others serve.
            changeLiving(id, lives: false, isReady: false, pushed: 0, now)
            heartbeat.hurry(now.monotonic)
            return
        }
        let pushed = living.peers.removeValue(forKey: id)?.pushedSafely ?? 0
        changeLiving(id, lives: false, isReady: false, pushed: pushed, now)
    }

    /// What is about to be read says so.
    mutating func wasDeposed(_ now: Now) { changeLiving(settings.id, lives: false, isReady: false, pushed: 0, now) }

    private mutating func changeLiving(_ id: InstanceID, lives: Bool, isReady: Bool, pushed: Int64, _ now: Now) {
        let before = living.instances
        if lives { living.instances.lives(id, isReady: isReady) } else { living.instances.dies(id) }
        guard living.instances != before else { return }
        let dead = !lives && before.all.contains(id) ? (id: id, pushed: pushed) : nil
        tell(living.ordersAfterChange(from: before, dead: dead, now.monotonic), now)
    }

    // MARK: Declaring another one dead

    /// Whether another instance is dead can be told only by who hears itself, through an etcd that takes writes.
    mutating func deposeIfDue(_ now: Now) {
        guard !living.isDeposing, !availability.isUnavailable, !isClosing, living.farewell == nil, case .following = feed,
            living.deposePausedUntil <= now.monotonic, heartbeat.hearsItself(now.monotonic),
            living.instances.ready.contains(settings.id)
        else { return }
        let silent = living.peers.filter { $0.value.isSilent(now) }
        // One does it; if that one can't, it is silent before long.
        let judge = living.instances.ready.filter { silent[$0] == nil }.min()
        guard judge == settings.id, let (dead, peer) = silent.min(by: { $0.key < $1.key }) else { return }
        living.isDeposing = true
        let key = keys.octets(.instance(dead))
        call(
            .depose(dead),
            .transaction(
                EtcdTransaction(compare: [.modifiedAt(key, peer.revision)], success: [.put(signOfLife()), .delete(key)])))
    }

    mutating func deposeFailed(_ now: Now) {
        living.isDeposing = false
        living.deposePausedUntil = now.monotonic + Self.deposePause
    }

    // MARK: Leaving

    /// Says good-bye, and goes on: others push what changes from then on.
    mutating func leave(_ now: Now) -> [Action] {
        defer { actions = [] }
        guard living.farewell == nil else { return actions }
        guard link.isUp, !availability.isUnavailable else {
            actions.append(.deliver(.left))
            return actions
        }
        living.farewell = .due
        heartbeat.hurry(now.monotonic)
        beat(now)
        return actions
    }

    /// The end: what waits is still written, and good-bye is said if it was not. Whoever takes over need not wait for silence.
    mutating func close(_ now: Now) -> [Action] {
        isClosing = true
        if living.farewell == nil { living.farewell = .due }
        heartbeat.hurry(now.monotonic)
        if link.isUp { beat(now) }
        defer { actions = [] }
        return actions
    }
}
