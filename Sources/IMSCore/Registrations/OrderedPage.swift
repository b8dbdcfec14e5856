import MATSignal

/// The first `count` values in the order of their HoA prefixes, those after `after`, out of a table that has no order.
///
/// One pass with a heap of at most `count` keys, the greatest on top: what is beyond the page costs a comparison.
func firstInOrder<Value>(
    _ table: some Sequence<(key: IPPrefix, value: Value)>, after: IPPrefix?, count: Int, where isWanted: (Value) -> Bool
) -> [Value] {
    guard count > 0 else { return [] }
    var heap: [(key: IPPrefix, value: Value)] = []
    heap.reserveCapacity(min(count, 4096))

    func siftDown() {
        var parent = 0
        while true {
            var child = 2 * parent + 1
            guard child < heap.count else { return }
            if child + 1 < heap.count, heap[child].key < heap[child + 1].key { child += 1 }
            guard heap[parent].key < heap[child].key else { return }
            heap.swapAt(parent, child)
            parent = child
        }
    }

    for entry in table {
        if let after, entry.key <= after { continue }
        let isFull = heap.count == count
        if isFull, let greatest = heap.first, greatest.key < entry.key { continue }
        guard isWanted(entry.value) else { continue }
        if isFull {
            heap[0] = entry
            siftDown()
        } else {
            heap.append(entry)
            var child = heap.count - 1
            while child > 0, heap[(child - 1) / 2].key < heap[child].key {
                heap.swapAt(child, (child - 1) / 2)
                child = (child - 1) / 2
            }
        }
    }
    return heap.sorted { $0.key < $1.key }.map(\.value)
}
