import IMSCore
import MATSignal

// Subscriptions and remembered mappings on their way through `SharingState` to etcd.

extension ClusterInstance {
    /// What the core has learned and the other instances, or one that takes over, should know.
    mutating func share(_ news: [SharedNews], _ now: Now) -> [Action] {
        for item in news {
            switch item {
            case .subscribed(let subscription):
                let lasts = UInt64(clamping: max(0, subscription.lasts.millisecondsSaturated))
                let value = ClusterValue.encode(
                    subscriptionEnding: now.wallMilliseconds &+ lasts, grantedAt: now.wallMilliseconds, local: subscription.local)
                sharing.add(
                    keys.octets(.subscription(settings.id, subscription.prefix, subscription.endpoint)), .put(value))
            case .unsubscribed(let prefix, let endpoint):
                sharing.add(keys.octets(.subscription(settings.id, prefix, endpoint)), .delete)
                // Grants of others that this one served. What one of them has granted since then stays.
                let key = ClusterSubscriptions.Key(prefix: prefix, endpoint: endpoint)
                for grant in living.subscriptions.grants(of: key) where grant.instance != settings.id {
                    sharing.add(
                        keys.octets(.subscription(grant.instance, prefix, endpoint)), .deleteIfAt(grant.revision))
                }
            case .serve, .leave, .handedOver: break
            case .bound(let prefix, let lasts):
                let lasts = UInt64(clamping: max(0, lasts.millisecondsSaturated))
                let value = ClusterValue.encode(bindingEnding: now.wallMilliseconds &+ lasts, boundAt: now.wallMilliseconds)
                sharing.add(keys.octets(.binding(settings.id, prefix)), .put(value))
            case .unbound(let prefix): sharing.add(keys.octets(.binding(settings.id, prefix)), .delete)
            case .handOver(let prefix, let certified): handOver(certified, to: prefix, now)
            case .remembered(let certified, let isConfirmed):
                sharing.add(
                    keys.octets(.remembered(certified.record.prefix)), .remember(certified, isConfirmed: isConfirmed))
            }
        }
        tendSharing(now)
        return takeActions()
    }

    /// To the instance at which the node is bound; if there is none, back to the core, which tells it where its last update came from.
    private mutating func handOver(_ certified: CertifiedMapping, to node: IPPrefix, _ now: Now) {
        guard link.isUp, !availability.isUnavailable, let instance = bindings.instance(of: node, living.instances, now.monotonic) else {
            return actions.append(.deliver(.shared([.handedOver(to: node, certified)])))
        }
        let key = keys.octets(.handOver(instance, to: node, of: certified.record.prefix))
        sharing.add(key, .put(ClusterValue.encode(certified, isConfirmed: true)))
    }

    mutating func tendSharing(_ now: Now) {
        guard link.isUp, !availability.isUnavailable else { return }
        switch sharing.tend(now.monotonic) {
        case .nothing: break
        case .askLease: call(.lease, .grantLease(seconds: Self.leaseSeconds))
        case .send(let items, let lease):
            let operations = items.map { Self.operation($0.key, $0.news, lease: lease) }
            call(.news, .transaction(EtcdTransaction(success: operations)))
        }
    }

    private static func operation(_ key: [UInt8], _ news: SharingState.News, lease: Int64) -> EtcdOperation {
        switch news {
        case .put(let value): .put(EtcdPut(key: key, value: value, lease: lease))
        case .remember(let certified, let isConfirmed, let revision):
            remember(
                certified, isConfirmed: isConfirmed, over: revision,
                EtcdPut(key: key, value: ClusterValue.encode(certified, isConfirmed: isConfirmed), lease: lease))
        case .delete: .delete(key)
        case .deleteIfAt(let revision):
            .transaction(EtcdTransaction(compare: [.modifiedAt(key, revision)], success: [.delete(key)]))
        }
    }

    private static func remember(
        _ certified: CertifiedMapping, isConfirmed: Bool, over revision: Int64?, _ put: EtcdPut
    ) -> EtcdOperation {
        // An equal version replaces one that was not confirmed.
        revision.map { Self.put(put, over: $0) } ?? putIfNewer(put, certified.version, suffix: [isConfirmed ? 1 : 0])
    }

    mutating func leased(_ id: Int64, _ now: Now) {
        sharing.leased(id, now.monotonic)
        tendSharing(now)
    }

    mutating func newsSent(_ response: EtcdResponse, _ now: Now) {
        // What etcd could not compare is compared here, and tried once more over what was read.
        sharing.succeeded(
            again: { item, response in
                guard case .remember(let certified, let isConfirmed, nil) = item.news, case .refused(let pair?) = Self.result(of: response),
                    let held = ClusterValue.remembered(pair.value), certified.version > held.certified.version
                else { return nil }
                return .remember(certified, isConfirmed: isConfirmed, overRevision: pair.modRevision)
            }, response.responses)
        tendSharing(now)
    }

    mutating func leaseFailed(_ error: EtcdError, _ now: Now) { tellFailure(error, isTold: sharing.leaseFailed(error.kind, now.monotonic)) }

    mutating func newsFailed(_ error: EtcdError, _ now: Now) { tellFailure(error, isTold: sharing.failed(error.kind, now.monotonic)) }

    private mutating func tellFailure(_ error: EtcdError, isTold: Bool) {
        if error.kind == .noSpace { declareUnavailable(error.description) }
        if isTold { actions.append(.deliver(.failed("subscriptions or remembered mappings are not shared: \(error)"))) }
    }

    // MARK: Stopping

    /// Whether nothing is on its way any more.
    var isIdle: Bool { changes.isEmpty && calls.isEmpty && (!link.isUp || (sharing.isEmpty && !living.isFarewellDue)) }
}
