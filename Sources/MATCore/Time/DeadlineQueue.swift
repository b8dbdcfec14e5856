import MATSignal

/// Deadlines by key, at most one a key: setting a key's deadline replaces it. A binary heap with lazy deletion: what was replaced
/// or cancelled stays until its time, or until there is more of it than of the rest.
public struct DeadlineQueue<Key: Hashable & Sendable>: Sendable {
    private var heap: [(time: MonotonicTime, key: Key)] = []
    private var current: [Key: MonotonicTime] = [:]

    public init() {}

    /// When the next deadline is, if there is one.
    public var next: MonotonicTime? {
        mutating get {
            dropStale()
            return heap.first?.time
        }
    }

    public mutating func set(_ key: Key, at time: MonotonicTime) {
        guard current[key] != time else { return }
        current[key] = time
        heap.append((time, key))
        siftUp(heap.count - 1)
        if heap.count > Self.staleMin, heap.count > 3 * current.count { sweep() }
    }

    /// Fewer stale entries than this are not worth a sweep.
    private static var staleMin: Int { 256 }

    /// Rids the heap of what no longer counts, and of its room.
    private mutating func sweep() {
        let old = heap
        heap = []
        for entry in old where current[entry.key] == entry.time {
            heap.append(entry)
            siftUp(heap.count - 1)
        }
    }

    /// A key's deadline, if it has one.
    public subscript(key: Key) -> MonotonicTime? { current[key] }

    public mutating func cancel(_ key: Key) { current[key] = nil }

    /// Removes and returns a key whose deadline has come.
    public mutating func takeDue(_ now: MonotonicTime) -> Key? {
        dropStale()
        guard let first = heap.first, first.time <= now else { return nil }
        removeFirst()
        current[first.key] = nil
        return first.key
    }

    private mutating func dropStale() {
        while let first = heap.first, current[first.key] != first.time { removeFirst() }
    }

    private mutating func siftUp(_ start: Int) {
        var child = start
        while child > 0, heap[child].time < heap[(child - 1) / 2].time {
            heap.swapAt(child, (child - 1) / 2)
            child = (child - 1) / 2
        }
    }

    private mutating func removeFirst() {
        heap.swapAt(0, heap.count - 1)
        heap.removeLast()
        var parent = 0
        while true {
            var smallest = parent
            for child in [2 * parent + 1, 2 * parent + 2] where child < heap.count && heap[child].time < heap[smallest].time { smallest = child }
            if smallest == parent { return }
            heap.swapAt(parent, smallest)
            parent = smallest
        }
    }
}
