import DequeModule

/// A table of at most so many entries: when it is full, a new one pushes out the one that was entered first, in a few steps however
/// large it is, and the same one in every run. (A dictionary's first entry depends on the process's hash seed.)
package struct BoundedTable<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    private struct Entry: Sendable {
        var value: Value
        /// Which entering put it here: a key that was removed and entered again stands in `order` twice.
        let number: UInt64
    }

    private var entries: [Key: Entry] = [:]
    /// As they were entered, with those that are gone since.
    private var order: Deque<(key: Key, number: UInt64)> = []
    private var entered: UInt64 = 0
    private let max: Int

    package init(max: Int) { self.max = Swift.max(1, max) }

    package var count: Int { entries.count }

    /// As they were entered.
    package var all: [(key: Key, value: Value)] {
        order.compactMap { key, number in entries[key].flatMap { $0.number == number ? (key, $0.value) : nil } }
    }

    package subscript(key: Key) -> Value? {
        get { entries[key]?.value }
        set {
            guard let newValue else {
                entries[key] = nil
                return
            }
            guard entries[key] == nil else {
                entries[key]?.value = newValue
                return
            }
            while entries.count >= max, dropFirst() {}
            entered += 1
            entries[key] = Entry(value: newValue, number: entered)
            order.append((key, entered))
            if order.count > 4 * max + 64 { sweep() }
        }
    }

    private mutating func dropFirst() -> Bool {
        guard let (key, number) = order.popFirst() else { return false }
        if entries[key]?.number == number { entries[key] = nil }
        return true
    }

    /// Gives back the room of what is gone.
    private mutating func sweep() {
        order = Deque(order.filter { entries[$0.key]?.number == $0.number })
    }
}
