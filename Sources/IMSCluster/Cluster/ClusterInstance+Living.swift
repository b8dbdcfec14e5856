import IMSCore
import MATSignal

// Signs of life on their way to `LivingState`, and what follows for the core.

extension ClusterInstance {
    /// What one sign of life says.
    func signOfLife() -> EtcdPut {
        let isHandingOn = serves && feed.hasLoaded && feed.isFollowing
        return EtcdPut(
            key: keys.octets(.instance(settings.id)), value: living.sign(heartbeat.count, isHandingOn: isHandingOn, isClosing: isClosing))
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
        let revision = event.pair.modRevision
        living.advance(to: revision)
        if event.isDelete {
            tell(living.died(id, now.monotonic), now)
            // Declared dead while alive: back at once.
            if id == settings.id { heartbeat.hurry(now.monotonic) }
            return
        }
        guard let sign = ClusterValue.signOfLife(event.pair.value) else { return }
        if id == settings.id {
            ownSignOfLife(sign.count, sign.pushedUpTo, now)
        } else {
            tell(living.signOfLife(of: id, sign.count, pushedUpTo: sign.pushedUpTo, at: revision, now.monotonic), now)
        }
    }

    private mutating func ownSignOfLife(_ count: UInt64, _ pushedUpTo: Int64, _ now: Now) {
        let isNews = heartbeat.echoed(count, now.monotonic)
        tell(living.ownSignOfLife(count, pushedUpTo: pushedUpTo, isNews: isNews, now.monotonic), now)
        if count == ClusterValue.lastSignOfLife, !isClosing { actions.append(.deliver(.left)) }
        if doubt.isAwaited(count) { endDoubt(now) }
    }

    /// Whether another instance is dead can be told only by who hears itself, through an etcd that takes writes.
    mutating func deposeIfDue(_ now: Now) {
        guard !availability.isUnavailable, !isClosing, feed.isFollowing, heartbeat.hearsItself(now.monotonic),
            let dead = living.nextDeposition(now.monotonic)
        else { return }
        let key = keys.octets(.instance(dead.id))
        call(
            .depose,
            .transaction(EtcdTransaction(compare: [.modifiedAt(key, dead.revision)], success: [.put(signOfLife()), .delete(key)])))
    }

    // MARK: Leaving

    /// Says good-bye, and goes on: others push what changes from then on.
    mutating func leave(_ now: Now) -> [Action] {
        guard !living.isLeaving else { return takeActions() }
        guard link.isUp, !availability.isUnavailable else {
            actions.append(.deliver(.left))
            return takeActions()
        }
        living.leave()
        heartbeat.hurry(now.monotonic)
        beat(now)
        return takeActions()
    }

    /// The end: what waits is still written, and good-bye is said if it was not. Whoever takes over need not wait for silence.
    mutating func close(_ now: Now) -> [Action] {
        isClosing = true
        living.leave()
        heartbeat.hurry(now.monotonic)
        if link.isUp { beat(now) }
        return takeActions()
    }
}
