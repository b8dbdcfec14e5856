import MATSignal

/// Mappings of other IMSs' nodes, learned from HA Notify and kept up to date by MA Notify: by HoA and, for HA Query, by MoA.
///
/// Bounded; the one that was used longest ago goes. Never stored: after a restart the next HA Notify brings them again.
struct RememberedTable: Sendable {
    struct Entry: Sendable {
        var certified: CertifiedMapping
        /// Whether IMS_MN itself has said so; a notifier's record is a hint until then.
        var isConfirmed: Bool
        var usedAt: MonotonicTime
    }

    private let entriesMax: Int
    /// What was learned since `takeNews`, if somebody wants to know. Bounded, since that is asked after every event.
    var keepsNews = false
    private var news: [(certified: CertifiedMapping, isConfirmed: Bool)] = []
    private var entries: [IPPrefix: Entry] = [:]
    private var owners: [IPPrefix: IPPrefix] = [:]

    init(entriesMax: Int) { self.entriesMax = max(1, entriesMax) }

    var count: Int { entries.count }
    var unconfirmedCount: Int { entries.values.reduce(0) { $0 + ($1.isConfirmed ? 0 : 1) } }

    subscript(prefix: IPPrefix) -> Entry? { entries[prefix] }

    /// The record of the HoA, of the longest prefix that covers it.
    func entry(covering hoa: HomeAddress) -> Entry? {
        if let entry = entries[IPPrefix(hoa.address)] { return entry }
        // Mobile networks are few among strangers, so this rare walk needs no index.
        return entries.filter { $0.key.contains(hoa.address) }.max { $0.key.length < $1.key.length }?.value
    }

    /// The certificate with this id among those of records that cover the HoA.
    func certificate(_ id: CertificateID, of hoa: HomeAddress) -> Certificate? {
        guard let certificate = entry(covering: hoa)?.certified.certificate, certificate.id == id else { return nil }
        return certificate
    }

    mutating func entry(holding moa: MobileAddress, now: Now) -> Entry? {
        let host = IPPrefix(moa.address)
        let owner = owners[host] ?? owners.filter { $0.key.contains(moa.address) }.max { $0.key.length < $1.key.length }?.value
        guard let owner, var entry = entries[owner], entry.certified.record.expires > now.wallMilliseconds else { return nil }
        entry.usedAt = now.monotonic
        entries[owner] = entry
        return entry
    }

    mutating func takeNews() -> [(certified: CertifiedMapping, isConfirmed: Bool)] {
        defer { news = [] }
        return news
    }

    mutating func set(_ certified: CertifiedMapping, isConfirmed: Bool, now: Now, isNews: Bool = true) {
        let prefix = certified.record.prefix
        if keepsNews, isNews, entries[prefix].map({ $0.certified != certified || $0.isConfirmed != isConfirmed }) ?? true {
            news.append((certified, isConfirmed))
        }
        remove(prefix)
        if entries.count >= entriesMax, let oldest = entries.min(by: { $0.value.usedAt < $1.value.usedAt }) { remove(oldest.key) }
        entries[prefix] = Entry(certified: certified, isConfirmed: isConfirmed, usedAt: now.monotonic)
        for locator in certified.record.locators { owners[locator.prefix] = prefix }
    }

    mutating func remove(_ prefix: IPPrefix) {
        guard let entry = entries.removeValue(forKey: prefix) else { return }
        for locator in entry.certified.record.locators where owners[locator.prefix] == prefix { owners[locator.prefix] = nil }
    }

    mutating func removeExpired(_ now: Now) {
        for (prefix, entry) in entries where entry.certified.record.expires <= now.wallMilliseconds { remove(prefix) }
    }
}
