/// Finds entries of a table by a hash: the slots' numbers by what they are looked up with, which stays in the table itself. A
/// dictionary would hold the keys a second time, and twice the room for them.
///
/// Open addressing with linear probing; a removal moves what follows back, so that no marks of removed entries pile up. The hash
/// stands beside the slot, so growing asks nobody and few comparisons look into the table.
public struct SlotIndex: Sendable {
    private struct Entry {
        var slot: UInt32
        var hash: UInt32
    }

    private static let empty = UInt32.max
    private var entries: [Entry] = []
    public private(set) var count = 0

    public init() {}

    /// The first slot under this hash that matches.
    public func first(hash: UInt32, where matches: (UInt32) -> Bool) -> UInt32? {
        guard !entries.isEmpty else { return nil }
        let mask = entries.count - 1
        var place = Int(hash) & mask
        while entries[place].slot != Self.empty {
            if entries[place].hash == hash, matches(entries[place].slot) { return entries[place].slot }
            place = (place + 1) & mask
        }
        return nil
    }

    /// The part of a key's hash that is used here.
    public static func hash(_ key: some Hashable) -> UInt32 { UInt32(truncatingIfNeeded: key.hashValue) }

    /// Enters a slot, which must not be there already.
    public mutating func insert(_ slot: UInt32, hash: UInt32) {
        // Seven eighths full at most: probing stays short and the room is used.
        if (count + 1) * 8 > entries.count * 7 { grow() }
        place(Entry(slot: slot, hash: hash))
        count += 1
    }

    /// Takes a slot out that was entered under this hash.
    public mutating func remove(_ slot: UInt32, hash: UInt32) {
        guard !entries.isEmpty else { return }
        let mask = entries.count - 1
        var hole = Int(hash) & mask
        while entries[hole].slot != slot || entries[hole].hash != hash {
            guard entries[hole].slot != Self.empty else { return }
            hole = (hole + 1) & mask
        }
        count -= 1
        var next = (hole + 1) & mask
        while entries[next].slot != Self.empty {
            // An entry may fill the hole unless it would then stand before its own place.
            let home = Int(entries[next].hash) & mask
            if (next - home) & mask >= (next - hole) & mask {
                entries[hole] = entries[next]
                hole = next
            }
            next = (next + 1) & mask
        }
        entries[hole].slot = Self.empty
    }

    private mutating func place(_ entry: Entry) {
        let mask = entries.count - 1
        var place = Int(entry.hash) & mask
        while entries[place].slot != Self.empty { place = (place + 1) & mask }
        entries[place] = entry
    }

    private mutating func grow() {
        let old = entries
        entries = Array(repeating: Entry(slot: Self.empty, hash: 0), count: max(16, old.count * 2))
        for entry in old where entry.slot != Self.empty { place(entry) }
    }
}
