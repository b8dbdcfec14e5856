import MATSignal

/// Who wants to be told of changes of which mapping. Bound to the address that asked; lost at a restart, which the nodes'
/// polling makes good.
struct SubscriptionTable: Sendable {
    struct Subscriber: Sendable, Hashable {
        var endpoint: Endpoint
        /// The server's address that was asked, to push from.
        var local: IPAddress
        var expires: MonotonicTime
        /// Until when other instances think that it lasts.
        var toldUntil: MonotonicTime?
    }

    private let perSourceMax: Int
    private let totalMax: Int
    private var subscribers: [IPPrefix: [Endpoint: Subscriber]] = [:]
    private(set) var count = 0

    init(perSourceMax: Int, totalMax: Int) {
        self.perSourceMax = perSourceMax
        self.totalMax = totalMax
    }

    /// - Parameter prefix: of the mapping.
    /// - Returns: whether there was room.
    mutating func add(_ subscriber: Subscriber, to prefix: IPPrefix, now: MonotonicTime) -> Bool {
        var list = subscribers[prefix] ?? [:]
        if list[subscriber.endpoint] == nil {
            let before = list.count
            list = list.filter { $0.value.expires > now }
            count -= before - list.count
            let source = subscriber.endpoint.address.sourceKey
            let ofSource = list.keys.reduce(0) { $0 + ($1.address.sourceKey == source ? 1 : 0) }
            guard ofSource < perSourceMax, count < totalMax else {
                subscribers[prefix] = list.isEmpty ? nil : list
                return false
            }
            count += 1
        }
        var subscriber = subscriber
        subscriber.toldUntil = subscriber.toldUntil ?? list[subscriber.endpoint]?.toldUntil
        list[subscriber.endpoint] = subscriber
        subscribers[prefix] = list
        return true
    }

    /// Whether other instances should be told anew, because for them less than half is left. If so, they count as told.
    mutating func becomesNews(_ endpoint: Endpoint, of prefix: IPPrefix, now: MonotonicTime) -> Bool {
        guard let subscriber = subscribers[prefix]?[endpoint] else { return false }
        let left = subscriber.expires - now
        if let toldUntil = subscriber.toldUntil, (toldUntil - now) * 2 > left { return false }
        subscribers[prefix]?[endpoint]?.toldUntil = subscriber.expires
        return true
    }

    /// In a fixed order, so that a simulation can be repeated.
    func current(of prefix: IPPrefix, now: MonotonicTime) -> [Subscriber] {
        (subscribers[prefix] ?? [:]).values.filter { $0.expires > now }
            .sorted { ($0.endpoint.address, $0.endpoint.port) < ($1.endpoint.address, $1.endpoint.port) }
    }

    mutating func remove(_ endpoint: Endpoint, from prefix: IPPrefix) {
        guard subscribers[prefix]?.removeValue(forKey: endpoint) != nil else { return }
        count -= 1
        if subscribers[prefix]?.isEmpty == true { subscribers[prefix] = nil }
    }

    mutating func removeExpired(_ now: MonotonicTime) {
        for (prefix, list) in subscribers {
            let kept = list.filter { $0.value.expires > now }
            count -= list.count - kept.count
            subscribers[prefix] = kept.isEmpty ? nil : kept
        }
    }
}
