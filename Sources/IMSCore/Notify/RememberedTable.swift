import MATCore
import MATSignal
import MappingMemory

/// Mappings of other IMSs' nodes, learned from HA Notify and kept up to date by MA Notify: by HoA and, for HA Query, by MoA.
///
/// ```
///     set ──► newcomers ── a HA Query found it ──► asked for (at most 3/4)
///                 │  ▲                                 │
///                 │  └──────── unused for longest ─────┘
///                 └─ unused for longest ──► forgotten
/// ```
/// Bounded. Strangers can announce as many HoAs as they have, and newcomers that nobody asks for push out each other; what own
/// nodes have asked for stays. Never stored: after a restart the next HA Notify brings the mappings again.
struct RememberedTable: Sendable {
    struct Entry: Sendable {
        var certified: CertifiedMapping
        /// Whether IMS_MN itself has said so; a notifier's record is a hint until then.
        var isConfirmed: Bool
    }

    /// What was learned since `takeNews`, if somebody wants to know. Bounded, since that is asked after every event.
    private var keepsNews = false
    private var news: [(certified: CertifiedMapping, isConfirmed: Bool)] = []
    private var entriesMax: Int
    private var newcomers = RecencyTable<IPPrefix, Entry>()
    private var askedFor = RecencyTable<IPPrefix, Entry>()
    /// MoA or MoPre -> HoA prefix.
    private var owners: [IPPrefix: IPPrefix] = [:]
    private var entryLengths = PrefixLengths()
    private var ownerLengths = PrefixLengths()
    private(set) var unconfirmedCount = 0

    init(entriesMax: Int) { self.entriesMax = max(1, entriesMax) }

    /// Another bound, from the next entry on.
    mutating func setBound(_ entriesMax: Int) { self.entriesMax = max(1, entriesMax) }

    var count: Int { newcomers.count + askedFor.count }
    private var askedForMax: Int { entriesMax * 3 / 4 }

    subscript(prefix: IPPrefix) -> Entry? { askedFor[prefix] ?? newcomers[prefix] }

    /// The record of the HoA, of the longest prefix that covers it.
    func entry(covering hoa: HomeAddress) -> Entry? {
        for length in entryLengths.descending {
            if let entry = self[IPPrefix(covering: hoa.address, length: length)] { return entry }
        }
        return nil
    }

    /// The certificate with this id among those of records that cover the HoA.
    func certificate(_ id: CertificateID, of hoa: HomeAddress) -> Certificate? {
        guard let certificate = entry(covering: hoa)?.certified.certificate, certificate.id == id else { return nil }
        return certificate
    }

    /// The entry that holds the MoA, if it is still valid.
    func entry(holding moa: MobileAddress, now: Now) -> Entry? { owner(of: moa, now: now).flatMap { self[$0] } }

    /// The same for an own node that asks: the entry is in use from now on.
    mutating func use(holding moa: MobileAddress, now: Now) -> Entry? {
        guard let prefix = owner(of: moa, now: now), let entry = self[prefix] else { return nil }
        newcomers.remove(prefix)
        askedFor.use(prefix, entry)
        if askedFor.count > askedForMax, let (oldest, entry) = askedFor.removeOldest() { newcomers.use(oldest, entry) }
        return entry
    }

    private func owner(of moa: MobileAddress, now: Now) -> IPPrefix? {
        for length in ownerLengths.descending {
            guard let prefix = owners[IPPrefix(covering: moa.address, length: length)], let entry = self[prefix] else { continue }
            return entry.certified.record.expires > now.wallMilliseconds ? prefix : nil
        }
        return nil
    }

    /// From now on somebody wants to know what is learned.
    mutating func keepNews() { keepsNews = true }

    mutating func takeNews() -> [(certified: CertifiedMapping, isConfirmed: Bool)] {
        defer { news = [] }
        return news
    }

    /// - Parameters:
    ///   - source: the address at which its node has shown to receive, if it has. A locator without that proof does not take the
    ///     MoA from an entry that IMS_MN has confirmed: a record may list what is another's.
    ///   - isNews: whether other instances should hear of it.
    mutating func set(
        _ certified: CertifiedMapping, isConfirmed: Bool, from source: IPAddress? = nil, now: Now, isNews: Bool = true
    ) {
        let prefix = certified.record.prefix
        if keepsNews, isNews, self[prefix].map({ $0.certified != certified || $0.isConfirmed != isConfirmed }) ?? true {
            news.append((certified, isConfirmed))
        }
        let wasAskedFor = askedFor[prefix] != nil
        remove(prefix)
        if count >= entriesMax, let oldest = newcomers.oldest ?? askedFor.oldest { remove(oldest.key) }
        let entry = Entry(certified: certified, isConfirmed: isConfirmed)
        if wasAskedFor { askedFor.use(prefix, entry) } else { newcomers.use(prefix, entry) }
        entryLengths.add(prefix.length)
        if !isConfirmed { unconfirmedCount += 1 }
        for locator in certified.record.locators {
            let isProven = source.map { locator.prefix.contains($0) } ?? false
            if !isProven, let owner = owners[locator.prefix], owner != prefix, let other = self[owner], other.isConfirmed,
                other.certified.record.expires > now.wallMilliseconds
            {
                continue
            }
            if owners.updateValue(prefix, forKey: locator.prefix) == nil { ownerLengths.add(locator.prefixLength) }
        }
    }

    /// Another instance has told of it.
    mutating func shared(_ certified: CertifiedMapping, isConfirmed: Bool, _ now: Now) {
        guard certified.record.expires > now.wallMilliseconds else { return }
        if let held = self[certified.record.prefix] {
            let isNewer = held.certified.version < certified.version
            guard isNewer || (held.certified.version == certified.version && isConfirmed && !held.isConfirmed) else { return }
        }
        set(certified, isConfirmed: isConfirmed, now: now, isNews: false)
    }

    mutating func remove(_ prefix: IPPrefix) {
        guard let entry = self[prefix] else { return }
        newcomers.remove(prefix)
        askedFor.remove(prefix)
        entryLengths.remove(prefix.length)
        if !entry.isConfirmed { unconfirmedCount -= 1 }
        for locator in entry.certified.record.locators where owners[locator.prefix] == prefix {
            owners[locator.prefix] = nil
            ownerLengths.remove(locator.prefixLength)
        }
    }

    /// Looks at some entries and forgets those that have expired.
    mutating func sweep(_ now: Now, steps: Int) {
        let isOver = { (_: IPPrefix, entry: Entry) in entry.certified.record.expires <= now.wallMilliseconds }
        for prefix in newcomers.over(steps: steps, isOver) + askedFor.over(steps: steps, isOver) { remove(prefix) }
    }
}
