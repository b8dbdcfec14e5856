import MATCore
import MATSignal
import MappingMemory

/// Durable mappings for which the system gave no memory: they stand in the store, and this server does not serve them.
///
/// ```
///              refused ┌─────────────── refused ──────────────┐
///   durable ──────────►│ kept ── a second later ─► tried again ── held ──► (gone)
///                      └─ full ──► left in the store, until a restart reads it
/// ```
/// This is the last resort: updates are refused before they are written when memory is short (`Registrations.memoryRefusal`). What comes here is
/// what was durable before anybody could ask: the store's contents at the start, what other instances wrote, and the rare write for whose HoA the
/// index could not grow.
struct UnheldMappings: Sendable {
    private var kept: [IPPrefix: StoredMapping] = [:]
    /// Mappings that only the store has.
    private var leftCount = 0
    private var retryAt: MonotonicTime?
    private var loggedAt: MonotonicTime?

    /// Mappings kept to be tried again, some 4 MB.
    static let keptMax = 4096
    static let retryInterval: Duration = .seconds(1)
    /// Between two log lines about it.
    static let logInterval: Duration = .seconds(10)

    /// Mappings that are durable and not held.
    var count: Int { kept.count + leftCount }

    // MARK: Events

    /// The table had no memory for this mapping, at the start or later.
    ///
    /// - Returns: what is to be logged, if anything.
    mutating func refused(_ mapping: StoredMapping, _ refusal: MemoryRefusal, _ now: Now) -> String? {
        let prefix = mapping.record.prefix
        if let other = kept[prefix] {
            if other.certified.version < mapping.certified.version { kept[prefix] = mapping }
        } else if kept.count < Self.keptMax {
            kept[prefix] = mapping
        } else {
            leftCount += 1
        }
        if retryAt == nil { retryAt = now.monotonic + Self.retryInterval }
        if let loggedAt, loggedAt + Self.logInterval > now.monotonic { return nil }
        loggedAt = now.monotonic
        return
            "mappings are stored and not served, at present \(count), because \(refusal); give imsd more memory (LimitAS= and MemoryMax= of its unit, ulimit -v)\(leftCount > 0 ? " and start it anew" : "")"
    }

    /// A mapping of this HoA is held.
    ///
    /// - Returns: what is to be logged, if anything.
    mutating func held(_ prefix: IPPrefix, _ version: RecordVersion) -> String? {
        guard let mapping = kept[prefix], !(version < mapping.certified.version) else { return nil }
        kept[prefix] = nil
        guard count == 0 else { return nil }
        loggedAt = nil
        return "there is memory again: all mappings are served"
    }

    /// The store's contents have all come.
    ///
    /// - Parameters:
    ///   - heldCount: mappings in the table.
    ///   - octetsCount: its octets.
    /// - Returns: what is to be logged, if anything.
    func loadEnded(heldCount: Int, octetsCount: Int) -> String? {
        guard count > 0 else { return nil }
        let megabytes = { (octets: Int) in (octets + 999_999) / 1_000_000 }
        return
            "no memory for \(count) of the store's \(heldCount + count) mappings: \(heldCount) are held in \(megabytes(octetsCount)) MB, and the others want \(megabytes(count * Self.octetsPerMapping)) MB more. They are answered with \"try later\". Give imsd more memory (LimitAS= and MemoryMax= of its unit, ulimit -v) and start it anew"
    }

    /// What a mapping takes in a large table, with its places in the indexes.
    private static let octetsPerMapping = 512

    // MARK: Time

    var nextDeadline: MonotonicTime? { retryAt }

    /// - Returns: what is to be tried again, in the order of HoAs; `nil` if nothing is due.
    mutating func due(_ now: MonotonicTime) -> [StoredMapping]? {
        guard let time = retryAt, time <= now else { return nil }
        retryAt = kept.isEmpty ? nil : now + Self.retryInterval
        return kept.keys.sorted().compactMap { kept[$0] }
    }
}
