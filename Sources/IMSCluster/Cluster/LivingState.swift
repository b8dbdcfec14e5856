import MATSignal

/// Who lives, who serves which subscription, and how an instance comes and goes, as etcd's log tells it.
///
/// ```
///            sign of life                    good-bye, or another one deletes its key after silence
///   unknown ──────────────► lives ─────────────────────────────────────────────────────────────────► does not live
///                             ▲                          sign of life                                      │
///                             └────────────────────────────────────────────────────────────────────────────┘
/// ```
/// Each arrow is an event of etcd's log, never a judgement of one instance alone: an instance that finds another one silent deletes its key,
/// and that is when it is dead, to all at the same revision, itself included. As the deletion is a transaction with a sign of life of the one
/// that judges, it can't happen while etcd takes no writes; as it is bound to the key's last revision, a sign of life that comes first
/// prevents it, and two that judge at once do so once.
struct LivingState: Sendable {
    private struct Peer: Sendable {
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

        func isSilent(_ now: MonotonicTime) -> Bool {
            ownSignsSince >= ClusterInstance.silentSignsMax && seenAt + ClusterInstance.silenceMax < now
        }
    }

    /// What this instance does to one that it finds silent.
    private enum Deposition: Sendable {
        case none
        case asked
        /// It failed.
        case paused(until: MonotonicTime)
    }

    /// Of this instance itself.
    private enum Farewell: Sendable { case none, due, said }

    private enum Reading: Sendable {
        case done
        /// Those that were known before all was read anew.
        case begun(peersBefore: [InstanceID: Peer])
    }

    private let own: InstanceID
    private(set) var instances = LivingInstances()
    private(set) var subscriptions: ClusterSubscriptions
    /// The others whose keys are there.
    private var peers: [InstanceID: Peer] = [:]
    /// Of the last event about subscriptions or instances.
    private var revision: Int64 = 0
    /// All up to here was handed to the core.
    private var handedUpTo: Int64 = 0
    /// What the own signs of life have told of how far changes were handed to the core, the newest last.
    private var ownPushed: [Int64] = []
    private var deposition = Deposition.none
    private var farewell = Farewell.none
    private var reading = Reading.done

    /// Signs of life of which it is kept how far pushes were: one second's.
    static let pushedKept = 3

    init(own: InstanceID) {
        self.own = own
        subscriptions = ClusterSubscriptions(own: own)
    }

    private static func keep(_ pushedUpTo: Int64, in list: inout [Int64]) {
        list.append(pushedUpTo)
        if list.count > pushedKept { list.removeFirst() }
    }

    private var isReading: Bool {
        if case .begun = reading { return true }
        return false
    }

    // MARK: Reading

    mutating func beginReading(at revision: Int64) {
        // Begun anew before the end, it is about those of before all the same.
        if !isReading { reading = .begun(peersBefore: peers) }
        peers = [:]
        instances = LivingInstances()
        subscriptions.beginReading(at: revision)
    }

    /// - Parameter isFirst: whether the core, which has just begun, holds no subscription that is not its own.
    mutating func finishReading(at revision: Int64, isFirst: Bool, _ now: MonotonicTime) -> [ClusterSubscriptions.Order] {
        var dead: [InstanceID: Int64] = [:]
        if case .begun(let before) = reading {
            dead = before.filter { !instances.all.contains($0.key) }.mapValues(\.pushedSafely)
        }
        reading = .done
        self.revision = revision
        handedUpTo = revision
        subscriptions.touchAll()
        let orders = subscriptions.orders(instances, dead: dead, at: revision, now)
        return isFirst ? orders.filter { if case .serve = $0 { true } else { false } } : orders
    }

    // MARK: Following

    /// What the events up to here mean for the core.
    mutating func ordersSoFar(_ now: MonotonicTime) -> [ClusterSubscriptions.Order] {
        isReading ? [] : subscriptions.orders(instances, at: revision, now)
    }

    /// All up to this revision was handed to the core.
    mutating func handed(upTo revision: Int64) { handedUpTo = max(handedUpTo, revision) }

    /// A mapping has changed.
    mutating func changed(_ prefix: IPPrefix, at revision: Int64) { subscriptions.changed(prefix, at: revision) }

    /// A subscription was granted, or its key is gone: then `nil`.
    mutating func subscribed(_ key: ClusterSubscriptions.Key, of id: InstanceID, _ grant: SubscriptionGrant?, at revision: Int64) {
        self.revision = max(self.revision, revision)
        if let grant { subscriptions.put(key, grant) } else { subscriptions.delete(key, of: id) }
    }

    /// The log has come to this revision with an event about an instance.
    mutating func advance(to revision: Int64) { self.revision = max(self.revision, revision) }

    // MARK: Signs of life

    /// Another instance's.
    mutating func signOfLife(
        of id: InstanceID, _ count: UInt64, pushedUpTo: Int64, at revision: Int64, _ now: MonotonicTime
    ) -> [ClusterSubscriptions.Order] {
        guard peers[id] != nil || peers.count < ClusterInstance.peersMax else { return [] }
        var peer = peers[id] ?? Peer(revision: 0, seenAt: now)
        peer.revision = revision
        peer.seenAt = now
        peer.ownSignsSince = 0
        let hasLeft = count == ClusterValue.lastSignOfLife
        if hasLeft {
            peer.farewellUpTo = peer.farewellUpTo ?? min(pushedUpTo, revision)
        } else {
            // One that is repeated with another's death says nothing new.
            if count != peer.count { Self.keep(pushedUpTo, in: &peer.pushed) }
            peer.count = count
        }
        peers[id] = peer
        return change(id, lives: !hasLeft, isReady: pushedUpTo > 0, pushed: peer.pushedSafely, now)
    }

    /// This instance's own has come back.
    ///
    /// - Parameter isNews: whether it is the first time.
    mutating func ownSignOfLife(_ count: UInt64, pushedUpTo: Int64, isNews: Bool, _ now: MonotonicTime) -> [ClusterSubscriptions
        .Order]
    {
        if isNews {
            for id in peers.keys { peers[id]?.ownSignsSince += 1 }
        }
        let hasLeft = count == ClusterValue.lastSignOfLife
        if !hasLeft, isNews { Self.keep(pushedUpTo, in: &ownPushed) }
        return change(own, lives: !hasLeft, isReady: pushedUpTo > 0, pushed: 0, now)
    }

    /// Its key is gone: it is dead. If that is this instance itself, it was declared dead while alive, and until it is back others serve.
    mutating func died(_ id: InstanceID, _ now: MonotonicTime) -> [ClusterSubscriptions.Order] {
        let pushed = id == own ? 0 : peers.removeValue(forKey: id)?.pushedSafely ?? 0
        return change(id, lives: false, isReady: false, pushed: pushed, now)
    }

    private mutating func change(
        _ id: InstanceID, lives: Bool, isReady: Bool, pushed: Int64, _ now: MonotonicTime
    ) -> [ClusterSubscriptions.Order] {
        let before = instances
        if lives { instances.lives(id, isReady: isReady) } else { instances.dies(id) }
        guard instances != before, !isReading else { return [] }
        subscriptions.touchAll()
        // Up to where those that do not live have pushed what was theirs.
        var unserved: [InstanceID: Int64] = [:]
        // If nobody stood in before, nobody has pushed for those that were dead already.
        if !before.hasStandIn {
            for (id, peer) in peers where !instances.all.contains(id) { unserved[id] = peer.pushedSafely }
        }
        if !lives, before.all.contains(id) { unserved[id] = pushed }
        return subscriptions.orders(instances, dead: unserved, at: revision, now)
    }

    // MARK: Declaring another one dead

    /// - Returns: the instance that this one is to declare dead now, and the revision of its key; it counts as asked.
    mutating func nextDeposition(_ now: MonotonicTime) -> (id: InstanceID, revision: Int64)? {
        switch deposition {
        case .none: break
        case .asked: return nil
        case .paused(let until): if until > now { return nil }
        }
        guard farewell == .none, instances.ready.contains(own) else { return nil }
        let silent = peers.filter { $0.value.isSilent(now) }
        // One does it; if that one can't, it is silent before long.
        let judge = instances.ready.filter { silent[$0] == nil }.min()
        guard judge == own, let (dead, peer) = silent.min(by: { $0.key < $1.key }) else { return nil }
        deposition = .asked
        return (dead, peer.revision)
    }

    /// It was answered: what came of it is told by the log, to all at the same place. Or nobody will ever know.
    mutating func depositionEnded() {
        if case .asked = deposition { deposition = .none }
    }

    mutating func depositionFailed(_ now: MonotonicTime) { deposition = .paused(until: now + ClusterInstance.deposePause) }

    // MARK: The own sign of life, and leaving

    var isLeaving: Bool { farewell != .none }
    var isFarewellDue: Bool { farewell == .due }

    /// The next sign of life says good-bye.
    mutating func leave() {
        if farewell == .none { farewell = .due }
    }

    /// A sign of life was sent.
    mutating func signed() {
        if farewell == .due { farewell = .said }
    }

    /// What a sign of life of this instance says.
    ///
    /// - Parameters:
    ///   - isHandingOn: whether there is a core, and it is told all changes.
    ///   - isClosing: whether the process ends, whatever the core has had time for.
    func sign(_ count: UInt64, isHandingOn: Bool, isClosing: Bool) -> [UInt8] {
        if farewell == .none { return ClusterValue.encode(signOfLife: count, pushedUpTo: isHandingOn ? handedUpTo : 0) }
        // After `leave` all that was written before it will have been pushed; after `close` alone what the core has had time for.
        return ClusterValue.encode(signOfLife: ClusterValue.lastSignOfLife, pushedUpTo: isClosing ? ownPushed.first ?? 0 : .max)
    }
}
