import IMS
import MATSignal

// What all instances hold in memory: read in pages as of one revision, then followed by a watch from there.

extension ClusterInstance {
    // MARK: Reading

    mutating func readPage() {
        guard case .loading(let revision, let cursor) = feed else { return }
        call(.page, .range(cursor.range(limit: Self.pageKeysMax, revision: revision)))
    }

    mutating func takePage(_ response: EtcdResponse, _ now: Now) {
        guard case .loading(let revision, var cursor) = feed else { return }
        if hasLoaded {
            // What has come since the watch was lost; the core takes what is newer.
            take(response.pairs.map { EtcdWatchResponse.Event(pair: $0) }, now)
        } else if !response.pairs.isEmpty {
            actions.append(.deliver(.loaded(contents(response.pairs))))
            takeOthers(response.pairs, now)
        }
        if cursor.advance(response.pairs, hasMore: response.hasMore, limit: Self.pageKeysMax) {
            feed = .loading(revision: revision, cursor)
            return readPage()
        }
        if !hasLoaded {
            hasLoaded = true
            actions.append(.deliver(.loadEnded))
        }
        follow(revision)
    }

    private func contents(_ pairs: [EtcdKeyValue]) -> StoreContents {
        var contents = StoreContents()
        for pair in pairs {
            switch keys.parse(pair.key) {
            case .mapping(let prefix):
                if !ClusterValue.append(pair.value, to: &contents.mappings) { contents.unreadable.append("\(prefix)") }
            case .certificate(let prefix):
                if let certificate = ClusterValue.certificate(pair.value), certificate.prefix == prefix {
                    contents.issued.append(certificate)
                } else {
                    contents.unreadable.append("the certificate of \(prefix)")
                }
            default: break
            }
        }
        return contents
    }

    /// At a start the mappings go on undecoded, all else as it would come through the watch.
    private mutating func takeOthers(_ pairs: [EtcdKeyValue], _ now: Now) {
        let others = pairs.filter { pair in
            switch keys.parse(pair.key) {
            case .mapping, .certificate, nil: false
            default: true
            }
        }
        take(others.map { EtcdWatchResponse.Event(pair: $0) }, now)
    }

    // MARK: Following

    mutating func follow(_ revision: Int64) {
        feed = .following(revision: revision)
        beatsUnechoed = []
        let range = keys.followed
        actions.append(.watch(EtcdWatch(key: range.key, end: range.end, fromRevision: revision + 1)))
    }

    mutating func watched(_ response: EtcdWatchResponse, _ now: Now) -> [Action] {
        defer { actions = [] }
        guard case .following(let revision) = feed, link == .up else { return actions }
        if response.compactRevision > 0 {
            // Too long away: what happened meanwhile is no longer told step by step.
            drop("etcd has compacted what came after revision \(revision); all is read again", now)
            feed = .none
            return actions
        }
        guard !response.isCanceled else {
            drop("etcd cancelled the watch: \(response.cancelReason)", now)
            return actions
        }
        take(response.events, now)
        if let last = response.events.last?.pair.modRevision {
            // The rest of a revision that comes in parts is asked for again if the connection breaks between them.
            feed = .following(revision: max(revision, response.isFragment ? last - 1 : last))
        }
        return actions
    }

    /// Tells the core what was written, in order.
    private mutating func take(_ events: [EtcdWatchResponse.Event], _ now: Now) {
        var changed: [StoreChange] = []
        var news: [SharedNews] = []
        for event in events {
            guard let key = keys.parse(event.pair.key) else { continue }
            if event.isDelete {
                if case .instance(let id) = key { peers[id] = nil }
                continue
            }
            switch key {
            case .mapping(let prefix):
                if let mapping = ClusterValue.mapping(event.pair.value), mapping.record.prefix == prefix {
                    changed.append(StoreChange(mapping: mapping))
                } else {
                    actions.append(.deliver(.failed("etcd holds something unreadable about \(prefix); it is not served")))
                }
            case .certificate(let prefix):
                if let certificate = ClusterValue.certificate(event.pair.value), certificate.prefix == prefix {
                    changed.append(StoreChange(issued: certificate))
                } else {
                    actions.append(.deliver(.failed("etcd holds an unreadable certificate of \(prefix)")))
                }
            case .remembered(let prefix):
                guard let remembered = ClusterValue.remembered(event.pair.value), remembered.certified.record.prefix == prefix
                else { continue }
                news.append(.remembered(remembered.certified, isConfirmed: remembered.isConfirmed))
            case .cookies: takeSecrets(event.pair)
            case .instance(let id): signOfLife(id, event.pair.value, now)
            case .format, .subscription: break
            }
        }
        if !changed.isEmpty { actions.append(.deliver(.changed(changed))) }
        if !news.isEmpty { actions.append(.deliver(.shared(news))) }
    }

    private mutating func signOfLife(_ id: InstanceID, _ value: [UInt8], _ now: Now) {
        guard let count = ClusterValue.signOfLife(value) else { return }
        guard id != settings.id else { return echoed(count, now) }
        guard peers[id] != nil || peers.count < Self.peersMax else { return }
        peers[id] = Peer(seenAt: now.monotonic, hasLeft: count == ClusterValue.lastSignOfLife)
        if adopting == id, count != ClusterValue.lastSignOfLife { adopting = nil }
    }
}
