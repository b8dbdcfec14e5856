import MATSignal

/// Mappings by HoA with longest-prefix match, and the way back from a MoA.
///
/// It holds what nodes registered here, including withdrawn and expired mappings: those are the marks below which no version is
/// accepted again.
struct MappingTable: Sendable {
    private var entries: [IPPrefix: StoredMapping] = [:]
    /// MoA or MoPre -> HoA prefix. One MoA belongs to one HoA: the newest proof holds it.
    private var owners: [IPPrefix: IPPrefix] = [:]
    /// How many entries there are of each HoA prefix length, and how many owners of each locator length: what to try in a match.
    private var entryLengths = LengthCount()
    private var ownerLengths = LengthCount()

    var count: Int { entries.count }
    var all: some Sequence<StoredMapping> { entries.values }

    /// In the order of their HoAs, for lists.
    func sorted() -> [StoredMapping] { entries.sorted { $0.key < $1.key }.map(\.value) }

    /// Up to `count` entries in the order of their HoAs, those after `after`. Looks at all entries and keeps the first: no sort of the
    /// whole table for a page of it.
    func page(after: IPPrefix? = nil, count: Int, where isWanted: (StoredMapping) -> Bool = { _ in true }) -> [StoredMapping] {
        firstInOrder(entries, after: after, count: count, where: isWanted)
    }

    /// The entry of exactly this HoA prefix, expired or not.
    subscript(prefix: IPPrefix) -> StoredMapping? { entries[prefix] }

    /// The entry whose HoA prefix is the longest that covers the address, expired or not.
    func entry(covering address: IPAddress) -> StoredMapping? {
        for length in entryLengths.descending {
            if let entry = entries[IPPrefix(covering: address, length: length)] { return entry }
        }
        return nil
    }

    /// The entry that holds the MoA, if it is still valid.
    func entry(holding moa: MobileAddress, now: Now) -> StoredMapping? {
        for length in ownerLengths.descending {
            guard let owner = owners[IPPrefix(covering: moa.address, length: length)], let entry = entries[owner] else { continue }
            return entry.isCurrent(now) ? entry : nil
        }
        return nil
    }

    /// Replaces the entry of the mapping's HoA prefix. The caller has compared versions.
    mutating func set(_ mapping: StoredMapping) {
        let prefix = mapping.record.prefix
        if let earlier = entries[prefix] {
            for locator in earlier.record.locators where owners[locator.prefix] == prefix {
                owners[locator.prefix] = nil
                ownerLengths.remove(locator.prefixLength)
            }
        } else {
            entryLengths.add(prefix.length)
        }
        entries[prefix] = mapping
        for locator in mapping.record.locators {
            if let owner = owners[locator.prefix] {
                // At a start entries come in any order, so the time of the proof decides and not the order.
                if owner != prefix, let other = entries[owner], other.provenAt > mapping.provenAt { continue }
            } else {
                ownerLengths.add(locator.prefixLength)
            }
            owners[locator.prefix] = prefix
        }
    }

    mutating func remove(_ prefix: IPPrefix) {
        guard let entry = entries.removeValue(forKey: prefix) else { return }
        entryLengths.remove(prefix.length)
        for locator in entry.record.locators where owners[locator.prefix] == prefix {
            owners[locator.prefix] = nil
            ownerLengths.remove(locator.prefixLength)
        }
    }
}

extension StoredMapping {
    func isCurrent(_ now: Now) -> Bool { record.expires > now.wallMilliseconds }
}

extension Locator {
    var prefix: IPPrefix { IPPrefix(covering: moa.address, length: prefixLength) }
}

/// The prefix lengths in use. Nearly always 128 alone, so that a match is one look-up.
private struct LengthCount: Sendable {
    private var counts = [Int](repeating: 0, count: 129)
    private(set) var descending: [UInt8] = []

    mutating func add(_ length: UInt8) {
        counts[Int(min(length, 128))] += 1
        if counts[Int(min(length, 128))] == 1 { descending = (descending + [length]).sorted(by: >) }
    }

    mutating func remove(_ length: UInt8) {
        counts[Int(min(length, 128))] -= 1
        if counts[Int(min(length, 128))] == 0 { descending.removeAll { $0 == length } }
    }
}
