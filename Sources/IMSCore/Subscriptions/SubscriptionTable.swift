import MATCore
import MATSignal

/// Who is to be told by this server of changes of which mapping. Bound to the address that asked; lost at a restart, unless the
/// store is one that servers share. The nodes' polling makes that good.
///
/// ```
///   entries:  (mapping, endpoint) ──► until when, and its place in the mapping's list
///   lists:    mapping ──► its subscribers
/// ```
/// Nothing here walks through a list to add to it or take from it: a popular HoA has very many subscribers. No source gets more than
/// its share of a table that fills up, so that one can't keep all others out.
struct SubscriptionTable: Sendable {
    struct Subscriber: Sendable, Hashable {
        var endpoint: Endpoint
        /// The server's address that was asked, to push from.
        var local: IPAddress
        var expires: MonotonicTime
        /// Until when other instances think that it lasts.
        var toldUntil: MonotonicTime?
    }

    private struct Key: Hashable, Sendable {
        var prefix: IPPrefix
        var endpoint: Endpoint
    }

    private struct Entry: Sendable {
        var expires: MonotonicTime
        /// In `lists[prefix]`.
        var place: Int
    }

    private struct SourceOfMapping: Hashable, Sendable {
        var prefix: IPPrefix
        var source: IPPrefix
    }

    private var perSourceMax: Int
    private var totalMax: Int
    private var entries = RecencyTable<Key, Entry>()
    private var lists: [IPPrefix: [Subscriber]] = [:]
    private var countsOfMapping: [SourceOfMapping: Int] = [:]
    private var countsOfSource: [IPPrefix: Int] = [:]

    /// Expired entries looked for when the table is full; the sweep finds the rest.
    static let stepsToRoomMax = 4

    init(perSourceMax: Int, totalMax: Int) {
        self.perSourceMax = max(1, perSourceMax)
        self.totalMax = max(1, totalMax)
    }

    /// Other bounds, for subscriptions that come from now on; those there are live out their time.
    mutating func setBounds(perSourceMax: Int, totalMax: Int) {
        self.perSourceMax = max(1, perSourceMax)
        self.totalMax = max(1, totalMax)
    }

    var count: Int { entries.count }
    /// What one source (/64 or IPv4 address) may hold of a table that is more than half full.
    var shareMax: Int { max(perSourceMax, totalMax / 16) }
    /// Subscribers of one mapping: each of its changes is pushed to all of them.
    var perMappingMax: Int { max(perSourceMax, totalMax / 4) }

    /// The longest grant counts: a later and shorter one ends nothing early.
    ///
    /// - Parameters:
    ///   - prefix: of the mapping.
    ///   - isGranted: whether a server of this IMS has granted it already, within its bounds: then only the whole table's counts.
    /// - Returns: whether there was room.
    mutating func add(_ subscriber: Subscriber, to prefix: IPPrefix, now: MonotonicTime, isGranted: Bool = false) -> Bool {
        let key = Key(prefix: prefix, endpoint: subscriber.endpoint)
        if var entry = entries[key] {
            entry.expires = max(entry.expires, subscriber.expires)
            entries.use(key, entry)
            var subscriber = subscriber
            subscriber.expires = entry.expires
            subscriber.toldUntil = lists[prefix]?[entry.place].toldUntil
            lists[prefix]?[entry.place] = subscriber
            return true
        }
        makeRoom(now)
        let source = subscriber.endpoint.address.sourceKey
        let ofMapping = SourceOfMapping(prefix: prefix, source: source)
        let isWithinShares =
            lists[prefix]?.count ?? 0 < perMappingMax && countsOfMapping[ofMapping] ?? 0 < perSourceMax
            && (count < totalMax / 2 || countsOfSource[source] ?? 0 < shareMax)
        guard count < totalMax, isGranted || isWithinShares else { return false }
        lists[prefix, default: []].append(subscriber)
        entries.use(key, Entry(expires: subscriber.expires, place: (lists[prefix]?.count ?? 1) - 1))
        countsOfMapping[ofMapping, default: 0] += 1
        countsOfSource[source, default: 0] += 1
        return true
    }

    /// A subscription that was not renewed is the oldest before long, so the first few show whether there is any that ran out.
    private mutating func makeRoom(_ now: MonotonicTime) {
        for _ in 0..<Self.stepsToRoomMax {
            guard let oldest = entries.oldest, oldest.value.expires <= now else { return }
            remove(oldest.key.endpoint, from: oldest.key.prefix)
        }
    }

    /// Of how long other instances are told when so much was granted.
    static func told(_ granted: Duration) -> Duration { granted + granted / 2 }

    /// - Returns: what other instances should be told now, because they think that it ends before it does; it counts as told.
    mutating func becomesNews(_ endpoint: Endpoint, of prefix: IPPrefix, now: MonotonicTime) -> (
        until: MonotonicTime, local: IPAddress
    )? {
        guard let place = entries[Key(prefix: prefix, endpoint: endpoint)]?.place, let subscriber = lists[prefix]?[place] else {
            return nil
        }
        if let toldUntil = subscriber.toldUntil, toldUntil >= subscriber.expires { return nil }
        let until = now + Self.told(subscriber.expires - now)
        lists[prefix]?[place].toldUntil = until
        return (until, subscriber.local)
    }

    /// In an order that is the same in every run of a simulation.
    func current(of prefix: IPPrefix, now: MonotonicTime) -> [Subscriber] { (lists[prefix] ?? []).filter { $0.expires > now } }

    /// - Returns: what was there.
    @discardableResult
    mutating func remove(_ endpoint: Endpoint, from prefix: IPPrefix) -> Subscriber? {
        let key = Key(prefix: prefix, endpoint: endpoint)
        guard let entry = entries[key], let last = lists[prefix]?.last, let removed = lists[prefix]?[entry.place] else {
            return nil
        }
        entries.remove(key)
        // The last of the list moves into the gap.
        if last.endpoint != endpoint {
            lists[prefix]?[entry.place] = last
            let moved = Key(prefix: prefix, endpoint: last.endpoint)
            entries[moved]?.place = entry.place
        }
        lists[prefix]?.removeLast()
        if lists[prefix]?.isEmpty == true { lists[prefix] = nil }
        let source = endpoint.address.sourceKey
        Self.decrement(&countsOfMapping, SourceOfMapping(prefix: prefix, source: source))
        Self.decrement(&countsOfSource, source)
        return removed
    }

    private static func decrement<Name: Hashable>(_ counts: inout [Name: Int], _ name: Name) {
        guard let count = counts[name] else { return }
        counts[name] = count > 1 ? count - 1 : nil
    }

    /// Looks at some subscriptions and ends those that have run out.
    mutating func sweep(_ now: MonotonicTime, steps: Int) {
        for key in entries.over(steps: steps, { $1.expires <= now }) { remove(key.endpoint, from: key.prefix) }
    }
}

extension SubscriptionTable.Subscriber {
    /// One that this server serves from now on, since another instance granted it and serves it no more. Its first renewal here is told to the
    /// others, and makes this instance the one that has granted it last.
    ///
    /// - Returns: `nil` if its time is over.
    init?(_ shared: SharedSubscription, _ limits: IMSLimits, _ now: Now) {
        guard shared.lasts > .zero else { return nil }
        let longest = SubscriptionTable.told(.seconds(Int(limits.subscribeSecondsMax)))
        self.init(endpoint: shared.endpoint, local: shared.local, expires: now.monotonic + min(shared.lasts, longest))
    }
}
