import HeapModule
import MATSignal

extension Optional<MonotonicTime> {
    /// The earlier of two times, each of which may be none.
    package func earlier(_ other: MonotonicTime?) -> MonotonicTime? {
        guard let self, let other else { return self ?? other }
        return Swift.min(self, other)
    }
}

/// Deadlines by key, at most one a key: setting a key's deadline replaces it. A heap with lazy deletion: what was replaced or
/// cancelled stays until its time, or until there is more of it than of the rest.
///
/// Inlinable, as all tables that a message meets: otherwise each step in another module finds out at run time what its key is.
public struct DeadlineQueue<Key: Hashable & Sendable>: Sendable {
    @usableFromInline
    struct Entry: Comparable, Sendable {
        @usableFromInline let time: MonotonicTime
        @usableFromInline let key: Key

        @inlinable
        init(time: MonotonicTime, key: Key) {
            self.time = time
            self.key = key
        }

        @inlinable static func < (a: Entry, b: Entry) -> Bool { a.time < b.time }
        @inlinable static func == (a: Entry, b: Entry) -> Bool { a.time == b.time }
    }

    @usableFromInline var heap = Heap<Entry>()
    @usableFromInline var current: [Key: MonotonicTime] = [:]

    @inlinable public init() {}

    /// When the next deadline is, if there is one.
    @inlinable public var next: MonotonicTime? {
        mutating get {
            // Most of a node's queues are empty, and each event asks them all.
            guard !current.isEmpty else { return nil }
            dropStale()
            return heap.min?.time
        }
    }

    @inlinable
    public mutating func set(_ key: Key, at time: MonotonicTime) {
        guard current[key] != time else { return }
        current[key] = time
        heap.insert(Entry(time: time, key: key))
        if heap.count > Self.staleMin, heap.count > 3 * current.count { sweep() }
    }

    /// Fewer stale entries than this are not worth a sweep.
    @inlinable static var staleMin: Int { 256 }

    /// Rids the heap of what no longer counts, and of its room.
    @inlinable
    mutating func sweep() {
        heap = Heap(heap.unordered.filter { current[$0.key] == $0.time })
    }

    /// A key's deadline, if it has one.
    @inlinable public subscript(key: Key) -> MonotonicTime? { current[key] }

    @inlinable public mutating func cancel(_ key: Key) { current[key] = nil }

    /// Removes and returns a key whose deadline has come.
    @inlinable
    public mutating func takeDue(_ now: MonotonicTime) -> Key? {
        dropStale()
        guard let first = heap.min, first.time <= now else { return nil }
        heap.removeMin()
        current[first.key] = nil
        return first.key
    }

    @inlinable
    mutating func dropStale() {
        while let first = heap.min, current[first.key] != first.time { heap.removeMin() }
    }
}
