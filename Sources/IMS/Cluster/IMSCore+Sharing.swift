import MATSignal

// What the instances of one IMS tell one another beside mappings, when they share a store.
//
// Every instance holds the remembered mappings of all. A subscription is held by the instance that granted it: each learns of every
// change and pushes to its own subscribers. When an instance is no more, another is handed its subscriptions.

extension IMSCore {
    /// A change of this age or less may not have been pushed by an instance that is no more: its silence has to be noticed first.
    static let adoptedChangesMilliseconds: UInt64 = 15_000

    /// From now on `takeNews` has what others should know.
    public mutating func shareNews() {
        sharesNews = true
        remembered.keepsNews = true
    }

    /// What has been learned since the last call.
    public mutating func takeNews() -> [SharedNews] {
        guard sharesNews else { return [] }
        // Nodes of our own are told of by their mappings.
        let learned = remembered.takeNews().filter { configuration.served(covering: $0.certified.record.prefix) == nil }
        defer { news = [] }
        return news + learned.map { .remembered($0.certified, isConfirmed: $0.isConfirmed) }
    }

    /// A subscription was granted or prolonged. Told anew only when half of what was told has passed.
    mutating func noteSubscription(_ subscriber: SubscriptionTable.Subscriber, to prefix: IPPrefix, _ now: Now) {
        guard sharesNews, subscriptions.becomesNews(subscriber.endpoint, of: prefix, now: now.monotonic) else { return }
        let left = UInt64(max(0, (subscriber.expires - now.monotonic).millisecondsSaturated))
        news.append(
            .subscribed(
                SharedSubscription(
                    prefix: prefix, endpoint: subscriber.endpoint, local: subscriber.local, ends: now.wallMilliseconds &+ left)))
    }

    mutating func endSubscription(_ endpoint: Endpoint, to prefix: IPPrefix) {
        subscriptions.remove(endpoint, from: prefix)
        if sharesNews { news.append(.unsubscribed(prefix, endpoint)) }
    }

    /// What other instances have told, or one that is no more has left behind.
    mutating func take(_ shared: [SharedNews], _ now: Now) {
        for item in shared {
            switch item {
            case .remembered(let certified, let isConfirmed): take(certified, isConfirmed: isConfirmed, now)
            case .subscribed(let subscription): adopt(subscription, now)
            case .unsubscribed(let prefix, let endpoint): subscriptions.remove(endpoint, from: prefix)
            }
        }
    }

    private mutating func take(_ certified: CertifiedMapping, isConfirmed: Bool, _ now: Now) {
        let prefix = certified.record.prefix
        guard configuration.served(covering: prefix) == nil, certified.record.expires > now.wallMilliseconds else { return }
        if let held = remembered[prefix] {
            guard
                held.certified.version < certified.version
                    || (held.certified.version == certified.version && isConfirmed && !held.isConfirmed)
            else { return }
        }
        remembered.set(certified, isConfirmed: isConfirmed, now: now, isNews: false)
    }

    private mutating func adopt(_ subscription: SharedSubscription, _ now: Now) {
        guard subscription.ends > now.wallMilliseconds else { return }
        let left = min(subscription.ends - now.wallMilliseconds, UInt64(configuration.limits.subscribeSecondsMax) * 1000)
        let expires = now.monotonic + .milliseconds(Int64(clamping: left))
        let subscriber = SubscriptionTable.Subscriber(
            endpoint: subscription.endpoint, local: subscription.local, expires: expires, toldUntil: expires)
        guard subscriptions.add(subscriber, to: subscription.prefix, now: now.monotonic) else { return }
        guard let mapping = mappings[subscription.prefix], mapping.source != subscription.endpoint,
            mapping.provenAt &+ Self.adoptedChangesMilliseconds > now.wallMilliseconds
        else { return }
        push(mapping.certified, to: subscription.endpoint, from: subscription.local, isSubscription: true, now)
    }
}
