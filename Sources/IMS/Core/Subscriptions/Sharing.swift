import MATSignal

// What the instances of one IMS tell one another beside mappings, when they share a store.
//
// Every instance holds the remembered mappings of all. A subscription is held by the instance that serves it: the one that granted it last,
// as long as it lives. The store knows all subscriptions of the cluster and tells the core which ones to serve.

extension IMSCore {
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

    /// A subscription was granted or prolonged. Others are told of half as much again as was granted, so that they need not hear of every
    /// renewal and yet never end it before its time.
    mutating func noteSubscription(_ endpoint: Endpoint, to prefix: IPPrefix, _ now: Now) {
        guard sharesNews, let told = subscriptions.becomesNews(endpoint, of: prefix, now: now.monotonic) else { return }
        news.append(
            .subscribed(SharedSubscription(prefix: prefix, endpoint: endpoint, local: told.local, lasts: told.until - now.monotonic)))
    }

    /// What is no longer held is another instance's, which finds out by itself whether the subscriber answers.
    mutating func endSubscription(_ endpoint: Endpoint, to prefix: IPPrefix) {
        guard subscriptions.remove(endpoint, from: prefix) != nil, sharesNews else { return }
        news.append(.unsubscribed(prefix, endpoint))
    }

    /// What other instances have told, and which subscriptions are this one's to serve.
    mutating func take(_ shared: [SharedNews], _ now: Now) {
        for item in shared {
            switch item {
            case .remembered(let certified, let isConfirmed): take(certified, isConfirmed: isConfirmed, now)
            case .serve(let subscription, let isBehind): serve(subscription, isBehind: isBehind, now)
            case .leave(let prefix, let endpoint):
                guard let left = subscriptions.remove(endpoint, from: prefix) else { continue }
                // A push on its way is repeated until it is acked, as nobody else does that; if it never is, it is no longer ours to judge.
                pushes[PushKey(peer: endpoint, local: left.local, prefix: prefix)]?.isSubscription = false
            // Said by a core, never to it.
            case .subscribed, .unsubscribed: break
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

    private mutating func serve(_ subscription: SharedSubscription, isBehind: Bool, _ now: Now) {
        guard subscription.lasts > .zero else { return }
        let longest = SubscriptionTable.told(.seconds(Int(configuration.limits.subscribeSecondsMax)))
        let expires = now.monotonic + min(subscription.lasts, longest)
        // Its first renewal here is told, and makes this instance the one that has granted it last.
        let subscriber = SubscriptionTable.Subscriber(endpoint: subscription.endpoint, local: subscription.local, expires: expires)
        guard subscriptions.add(subscriber, to: subscription.prefix, now: now.monotonic, isGranted: true) else {
            logRefusal("can't serve the subscription of \(subscription.endpoint) to \(subscription.prefix): the table is full", now)
            return
        }
        guard isBehind, let mapping = mappings[subscription.prefix], mapping.source != subscription.endpoint else { return }
        push(mapping.certified, to: subscription.endpoint, from: subscription.local, isSubscription: true, now)
    }
}
