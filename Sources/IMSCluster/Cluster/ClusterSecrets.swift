import IMSCore
import MATSignal

/// The cookie secrets that all instances share, as of a revision of their one key.
///
/// ```
///   none ── told by etcd ──► known, revision r ── written by whoever has seen r ──► known, revision r + n
/// ```
/// One instance rotates: if another has just done so, it stays at that.
struct ClusterSecrets: Sendable {
    private var secrets: [CookieSecret] = []
    private var revision: Int64 = 0

    enum OnWrite: Sendable {
        /// Only over the revision that was seen; if another was quicker, its own come back.
        case put(EtcdTransaction)
        /// Another instance has just made new ones.
        case keep([CookieSecret])
    }

    /// Cookies are to be made with this secret from now on.
    func write(_ secret: CookieSecret, key: [UInt8], _ now: Now) -> OnWrite {
        if let newest = secrets.first, secret.madeAt < newest.madeAt &+ ClusterInstance.secretAgeMin,
            newest.madeAt < now.wallMilliseconds &+ ClusterInstance.secretAheadMax
        {
            return .keep(secrets)
        }
        let put = EtcdPut(key: key, value: ClusterValue.encode([secret] + secrets))
        return .put(
            EtcdTransaction(compare: [.modifiedAt(key, revision)], success: [.put(put)], failure: [.range(EtcdRange(key: key))]))
    }

    /// What is in etcd.
    ///
    /// - Returns: what the core is to be told.
    mutating func told(_ pair: EtcdKeyValue?) -> [StoreEvent] {
        guard let pair else { return revision == 0 ? [.secrets([])] : [] }
        guard pair.modRevision > revision else { return [] }
        revision = pair.modRevision
        guard let secrets = ClusterValue.secrets(pair.value), !secrets.isEmpty else {
            // Nobody can use these; whoever is first makes new ones.
            return [.failed("\(pair) is no list of cookie secrets; they are replaced, and nodes fetch new cookies"), .secrets([])]
        }
        self.secrets = secrets
        return [.secrets(secrets)]
    }
}
