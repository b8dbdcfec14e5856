import HeapModule
import MATSignal

/// The first `count` values in the order of their HoA prefixes, those after `after`, out of a table that has no order.
///
/// One pass with a heap of at most `count` keys, the greatest on top: what is beyond the page costs a comparison.
func firstInOrder<Value>(
    _ table: some Sequence<(key: IPPrefix, value: Value)>, after: IPPrefix?, count: Int, where isWanted: (Value) -> Bool
) -> [Value] {
    guard count > 0 else { return [] }
    var page = Heap<PageEntry<Value>>()
    page.reserveCapacity(min(count, 4096))
    for entry in table {
        if let after, entry.key <= after { continue }
        let isFull = page.count == count
        if isFull, let greatest = page.max, greatest.key < entry.key { continue }
        guard isWanted(entry.value) else { continue }
        if isFull { page.removeMax() }
        page.insert(PageEntry(key: entry.key, value: entry.value))
    }
    return page.unordered.sorted().map(\.value)
}

/// Ordered by its key.
private struct PageEntry<Value>: Comparable {
    let key: IPPrefix
    let value: Value

    static func < (a: PageEntry, b: PageEntry) -> Bool { a.key < b.key }
    static func == (a: PageEntry, b: PageEntry) -> Bool { a.key == b.key }
}
