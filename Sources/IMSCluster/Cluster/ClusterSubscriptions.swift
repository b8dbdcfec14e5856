import DequeModule
import MATSignal

// The subscriptions of the cluster, as one value that every instance works out for itself from what etcd's log tells.
//
// Nobody moves subscriptions from one instance to another. Each instance writes what it grants under its own name, and who serves a
// subscriber is a function of what is written and of who lives, both as of one revision of etcd. As all instances follow the same log, all
// come to the same answer at the same place in it: a change at revision n is pushed by the instance that serves at revision n, and by no
// other, however late each of them gets to read it.

/// What the instances together have granted to one subscriber of one mapping.
///
/// ```
///   written:   instance 1 at revision 10, ends at 60        merged:   served by 2 (revision 15 is later), from the address asked there,
///              instance 2 at revision 15, ends at 20                  until 60
/// ```
/// `merge` is commutative, associative and idempotent, and nothing in it ever gets less, so it does not matter in which order, how often, or
/// in how many pieces an instance hears of grants. The longest one counts, wherever it was given; the latest one says who serves.
struct SubscriptionGrant: Hashable, Sendable {
    /// etcd's, of the write: the order of all grants, without anybody's clock.
    var revision: Int64
    var instance: InstanceID
    /// The address of the server that was asked.
    var local: IPAddress
    /// In the time of the instance that merges.
    var ends: MonotonicTime

    func merged(with other: SubscriptionGrant) -> SubscriptionGrant {
        var merged = isOlder(than: other) ? other : self
        merged.ends = max(ends, other.ends)
        return merged
    }

    /// The instance and the address decide only between grants of one revision, of which etcd has none for one subscriber.
    private func isOlder(than other: SubscriptionGrant) -> Bool {
        if revision != other.revision { return revision < other.revision }
        if instance != other.instance { return instance < other.instance }
        return local < other.local
    }
}

struct ClusterSubscriptions: Sendable {
    /// Subscriptions of all instances that are held. Beyond it, those that come are served by the instance that granted them while it lives.
    static let entriesMax = 1 << 20
    /// Mappings of which it is known when they changed last.
    static let recentMax = 65_536
    /// Revisions back from a reading of all in which changes are noted.
    static let recentRevisionsMax: Int64 = 32_768

    struct Key: Hashable, Sendable {
        var prefix: IPPrefix
        var endpoint: Endpoint
    }

    struct Entry: Sendable {
        /// By instance that wrote it; one, or a few after a subscriber has gone from server to server. Ends with its key in etcd.
        var grants: [SubscriptionGrant] = []
        /// Whether the core was told to serve it, or not to; `nil` if nothing was said.
        var isServed: Bool?
        /// Until when the core serves it as far as was said to it.
        var servedUntil: MonotonicTime = .zero

        var merged: SubscriptionGrant? { grants.dropFirst().reduce(grants.first) { $0?.merged(with: $1) } }
    }

    /// What the core is to be told.
    enum Order: Equatable, Sendable {
        case serve(Key, local: IPAddress, until: MonotonicTime, isBehind: Bool)
        case leave(Key)

        fileprivate var key: Key {
            switch self {
            case .serve(let key, _, _, _), .leave(let key): key
            }
        }
    }

    let own: InstanceID
    private(set) var entries: [Key: Entry] = [:]
    private var touched: Set<Key> = []
    /// At which revision mappings changed last, and those before in the order of their changes.
    private var recent: [IPPrefix: Int64] = [:]
    private var recentOrder: Deque<(prefix: IPPrefix, revision: Int64)> = []
    /// Of changes up to this revision nothing is known.
    private(set) var recentFloor: Int64 = 0

    init(own: InstanceID) { self.own = own }

    // MARK: What the log tells

    mutating func put(_ key: Key, _ grant: SubscriptionGrant) {
        guard entries[key] != nil || entries.count < Self.entriesMax else { return }
        var entry = entries[key] ?? Entry()
        if let index = entry.grants.firstIndex(where: { $0.instance == grant.instance }) {
            // The same instance's later word. An instance never grants less, but one that has no memory of what it granted may say so.
            entry.grants[index] = entry.grants[index].merged(with: grant)
        } else {
            entry.grants.append(grant)
        }
        entries[key] = entry
        touched.insert(key)
    }

    mutating func delete(_ key: Key, of instance: InstanceID) {
        guard var entry = entries[key] else { return }
        entry.grants.removeAll { $0.instance == instance }
        entries[key] = entry
        touched.insert(key)
    }

    /// A mapping changed; told also of own changes, whose answer may come before the log does.
    mutating func changed(_ prefix: IPPrefix, at revision: Int64) {
        guard revision > recentFloor, revision > recent[prefix] ?? 0 else { return }
        recent[prefix] = revision
        recentOrder.append((prefix, revision))
        while recentOrder.count > Self.recentMax, let oldest = recentOrder.popFirst() {
            recentFloor = max(recentFloor, oldest.revision)
            if recent[oldest.prefix] == oldest.revision { recent[oldest.prefix] = nil }
        }
    }

    /// All is read anew, so what is not told again is gone. Of the last changes before that it is told when they were.
    mutating func beginReading(at revision: Int64) {
        recentFloor = max(recentFloor, revision - Self.recentRevisionsMax)
        for key in entries.keys {
            entries[key]?.grants = []
            touched.insert(key)
        }
    }

    // MARK: What follows

    /// The grants of which keys are known in etcd: all of them end when the subscriber wants no more.
    func grants(of key: Key) -> [SubscriptionGrant] { entries[key]?.grants ?? [] }

    /// What the core is to be told now that the log has been read up to `revision`, in order.
    ///
    /// - Parameters:
    ///   - living: who lives as of there.
    ///   - dead: instances of which nobody has served the subscriptions until now, with the revision up to which all was pushed that they had to.
    mutating func orders(_ living: LivingInstances, dead: [InstanceID: Int64] = [:], at revision: Int64, _ now: MonotonicTime) -> [Order] {
        let keys = touched
        touched = []
        // Each looks at its own entry only, so the orders are sorted and not the keys: when who lives has changed, all are touched, and most
        // get none.
        return keys.compactMap { order(for: $0, living, dead, revision, now) }.sorted { Self.isBefore($0.key, $1.key) }
    }

    /// All are looked at: who lives has changed.
    mutating func touchAll() { touched.formUnion(entries.keys) }

    private mutating func order(
        for key: Key, _ living: LivingInstances, _ dead: [InstanceID: Int64], _ revision: Int64, _ now: MonotonicTime
    ) -> Order? {
        guard var entry = entries[key] else { return nil }
        guard let grant = entry.merged else {
            // It ended with its keys. The core's own runs out by itself, or was ended by it.
            entries[key] = nil
            return nil
        }
        defer { entries[key] = entry }
        guard living.server(of: grant.instance) == own, grant.ends > now else {
            // Said once, also if the core never had it: it may have granted it and not have been read yet.
            guard entry.isServed != false else { return nil }
            entry.isServed = false
            return .leave(key)
        }
        let known = entry.isServed == true ? entry.servedUntil : .zero
        let isOwnGrant = grant.instance == own && grant.ends == entry.grants.first { $0.instance == own }?.ends
        if isOwnGrant, entry.isServed != false {
            // The core granted it itself, and has not been told of another server since.
            entry.isServed = true
            entry.servedUntil = max(known, grant.ends)
            return nil
        }
        guard entry.isServed != true || grant.ends > known else { return nil }
        let isTaken = entry.isServed != true
        entry.isServed = true
        entry.servedUntil = grant.ends
        // What the server before has pushed: all up to now, or up to where a dead one came.
        let pushedUpTo = min(revision, dead[grant.instance] ?? revision)
        let isBehind = isTaken && (pushedUpTo < recentFloor || recent[key.prefix] ?? 0 > pushedUpTo)
        return .serve(key, local: grant.local, until: grant.ends, isBehind: isBehind)
    }

    private static func isBefore(_ a: Key, _ b: Key) -> Bool {
        if a.prefix != b.prefix { return a.prefix < b.prefix }
        if a.endpoint.address != b.endpoint.address { return a.endpoint.address < b.endpoint.address }
        return a.endpoint.port < b.endpoint.port
    }
}

/// Who lives, as etcd's log tells.
struct LivingInstances: Equatable, Sendable {
    /// Those that have given a sign of life and neither said good-bye nor been declared dead.
    private(set) var all: Set<InstanceID> = []
    /// Those among them that know all subscriptions, and so can stand in for others.
    private(set) var ready: Set<InstanceID> = []
    /// Serves what those granted that are no more: the one with the lowest id.
    private var standIn: InstanceID?

    mutating func lives(_ id: InstanceID, isReady: Bool) {
        all.insert(id)
        if isReady { ready.insert(id) } else { ready.remove(id) }
        standIn = ready.min()
    }

    mutating func dies(_ id: InstanceID) {
        all.remove(id)
        ready.remove(id)
        standIn = ready.min()
    }

    /// Whether anybody serves what those granted that are no more.
    var hasStandIn: Bool { standIn != nil }

    /// Who serves what this instance granted last.
    func server(of instance: InstanceID) -> InstanceID? { all.contains(instance) ? instance : standIn }
}
