import IMSCore
import MATSignal

// What all instances hold in memory, as `Feed` has it come.

extension ClusterInstance {
    // MARK: Reading

    mutating func pageRead(_ response: EtcdResponse, _ now: Now) {
        guard feed.isReading else { return }
        if feed.hasLoaded {
            // What has come since the watch was lost; the core takes what is newer.
            apply(response.pairs.map { EtcdWatchResponse.Event(pair: $0) }, now)
        } else if !response.pairs.isEmpty {
            let contents = contents(response.pairs)
            if !contents.isEmpty { actions.append(.deliver(.loaded(contents))) }
            applyOthers(response.pairs, now)
        }
        switch feed.pageEnded(response) {
        case .next(let page)?: call(.page, .range(page))
        case .ended(let revision, let isFirst, let watch)?:
            tell(living.finishReading(at: revision, isFirst: isFirst, now.monotonic), now)
            if isFirst { actions.append(.deliver(.loadEnded)) }
            follow(watch)
        case nil: break
        }
    }

    private mutating func contents(_ pairs: [EtcdKeyValue]) -> StoreContents {
        var contents = StoreContents()
        for pair in pairs {
            switch keys.parse(pair.key) {
            case .mapping(let prefix):
                living.changed(prefix, at: pair.modRevision)
                if !ClusterValue.append(pair.value, to: &contents.mappings) { contents.unreadable.append("\(prefix)") }
            case .certificate(let prefix):
                if let certificate = ClusterValue.certificate(pair.value), certificate.prefix == prefix {
                    contents.issued.append(certificate)
                } else {
                    contents.unreadable.append("the certificate of \(prefix)")
                }
            case .row(let kind, let key):
                if let row = ClusterValue.row(kind, key: key, pair.value) {
                    contents.rows.append(row)
                } else {
                    contents.unreadable.append("\(pair)")
                }
            default: break
            }
        }
        return contents
    }

    /// At a start the mappings go on undecoded, all else as it would come through the watch.
    private mutating func applyOthers(_ pairs: [EtcdKeyValue], _ now: Now) {
        let others = pairs.filter { pair in
            switch keys.parse(pair.key) {
            case .mapping, .certificate, .row, nil: false
            default: true
            }
        }
        apply(others.map { EtcdWatchResponse.Event(pair: $0) }, now)
    }

    // MARK: Following

    mutating func follow(_ watch: EtcdWatch) {
        heartbeat.forgetUnechoed()
        actions.append(.watch(watch))
    }

    mutating func watched(_ response: EtcdWatchResponse, _ now: Now) -> [Action] {
        noticeSleep(now)
        guard link.isUp else { return takeActions() }
        switch feed.watched(response) {
        case .events?: applyOrHold(response.events, now)
        case .compacted(let revision)?: drop("etcd has compacted what came after revision \(revision); all is read again", now)
        case .cancelled(let reason)?: drop("etcd cancelled the watch: \(reason)", now)
        case nil: break
        }
        tellConflicts(now)
        return takeActions()
    }

    /// After a stop or a time without etcd, all that happened meanwhile is looked at before any of it is done: if others have declared this
    /// instance dead, they have pushed what changed before that, too.
    private mutating func applyOrHold(_ events: [EtcdWatchResponse.Event], _ now: Now) {
        guard doubt.isInDoubt else { return apply(events, now) }
        let hasRoom = doubt.hold(events)
        let hasCaughtUp = events.contains { event in
            guard !event.isDelete, keys.parse(event.pair.key) == .instance(settings.id),
                let sign = ClusterValue.signOfLife(event.pair.value)
            else { return false }
            return doubt.isAwaited(sign.count)
        }
        if hasCaughtUp || !hasRoom { releaseHeldEvents(doubt.release(), now) }
    }

    mutating func releaseHeldEvents(_ events: [EtcdWatchResponse.Event], _ now: Now) {
        guard !events.isEmpty else { return }
        let own = keys.octets(.instance(settings.id))
        if events.contains(where: { $0.isDelete && $0.pair.key == own }) { tell(living.died(settings.id, now.monotonic), now) }
        apply(events, now)
    }

    /// Tells the core what was written, in the order of etcd's log: who serves whom as of a change, then the change.
    private mutating func apply(_ events: [EtcdWatchResponse.Event], _ now: Now) {
        var changed: [StoreChange] = []
        var news: [SharedNews] = []
        func handOn(_ instance: inout ClusterInstance) {
            if !changed.isEmpty { instance.actions.append(.deliver(.changed(changed))) }
            if !news.isEmpty { instance.actions.append(.deliver(.shared(news))) }
            changed = []
            news = []
        }
        for event in events {
            guard let key = keys.parse(event.pair.key) else { continue }
            let revision = event.pair.modRevision
            switch key {
            case .mapping(let prefix):
                guard !event.isDelete else { continue }
                tell(living.ordersSoFar(now.monotonic), now)
                living.changed(prefix, at: revision)
                if let mapping = ClusterValue.mapping(event.pair.value), mapping.record.prefix == prefix {
                    changed.append(StoreChange(mapping: mapping))
                } else {
                    actions.append(.deliver(.failed("\(event.pair) is no mapping of \(prefix); it is not served until its node registers again")))
                }
            case .certificate(let prefix):
                guard !event.isDelete else { continue }
                if let certificate = ClusterValue.certificate(event.pair.value), certificate.prefix == prefix {
                    changed.append(StoreChange(issued: certificate))
                } else {
                    actions.append(.deliver(.failed("\(event.pair) is no certificate of \(prefix); are all imsd of the cluster of one version?")))
                }
            case .row(let kind, let key):
                guard !event.isDelete else { continue }
                if let row = ClusterValue.row(kind, key: key, event.pair.value) {
                    changed.append(StoreChange(rows: [row]))
                } else {
                    actions.append(.deliver(.failed("\(event.pair) is no token or lease; are all imsd of the cluster of one version?")))
                }
            case .remembered(let prefix):
                guard let remembered = ClusterValue.remembered(event.pair.value), remembered.certified.record.prefix == prefix
                else { continue }
                news.append(.remembered(remembered.certified, isConfirmed: remembered.isConfirmed))
            case .binding(let id, let prefix):
                if event.isDelete {
                    bindings.unbound(prefix, at: id)
                } else if let lasts = ClusterValue.binding(event.pair.value) {
                    bindings.bound(prefix, at: id, lasts: lasts, now.monotonic)
                }
            case .handOver(let id, let node, let peer):
                guard id == settings.id, !event.isDelete, let handed = ClusterValue.remembered(event.pair.value),
                    handed.certified.record.prefix == peer
                else { continue }
                news.append(.handedOver(to: node, handed.certified))
                sharing.add(event.pair.key, .deleteIfAt(revision))
            case .cookies: if !event.isDelete { secretsTold(event.pair) }
            case .instance(let id):
                handOn(&self)
                signOfLife(id, event, now)
            case .subscription(let id, let prefix, let endpoint):
                handOn(&self)
                let value = event.isDelete ? nil : ClusterValue.subscription(event.pair.value, now: now.wallMilliseconds)
                // What can't be read changes nothing.
                guard event.isDelete || value != nil else {
                    living.advance(to: revision)
                    continue
                }
                let grant = value.map {
                    SubscriptionGrant(revision: revision, instance: id, local: $0.local, ends: now.monotonic + $0.lasts)
                }
                living.subscribed(ClusterSubscriptions.Key(prefix: prefix, endpoint: endpoint), of: id, grant, at: revision)
            case .format: break
            }
        }
        handOn(&self)
        tell(living.ordersSoFar(now.monotonic), now)
        living.handed(upTo: events.last?.pair.modRevision ?? 0)
    }
}
