/// A table that knows the order in which its entries were last used, so that the one unused for longest can go.
///
/// ```
///   slots:   key ──► place in `nodes`
///   nodes:   oldest ⇄ … ⇄ newest      a list within an array; a removal moves the last node into the gap
/// ```
/// Every step costs the same however full the table is; in an ordered dictionary of swift-collections, to remove the oldest entry, or to make
/// one the newest, would move all that stand behind it. That matters where a stranger chooses the keys: a search for the oldest
/// entry, done for each message of a flood, is what the flood is sent for. Iteration is in the order of use and so the same in
/// every run, which a dictionary's is not.
public struct RecencyTable<Key: Hashable & Sendable, Value: Sendable>: Sendable {
    @usableFromInline
    struct Node: Sendable {
        @usableFromInline var key: Key
        @usableFromInline var value: Value
        @usableFromInline var older: Int32
        @usableFromInline var newer: Int32

        @inlinable
        init(key: Key, value: Value, older: Int32, newer: Int32) {
            self.key = key
            self.value = value
            self.older = older
            self.newer = newer
        }
    }

    @inlinable static var none: Int32 { -1 }
    /// What a place in `nodes` can be told with.
    @inlinable public static var entriesMax: Int { Int(Int32.max) - 1 }

    @usableFromInline var slots: [Key: Int32] = [:]
    @usableFromInline var nodes: [Node] = []
    @usableFromInline var oldestPlace: Int32 = -1
    @usableFromInline var newestPlace: Int32 = -1
    /// Where the next sweep begins.
    @usableFromInline var hand = 0

    @inlinable public init() {}

    @inlinable public var count: Int { nodes.count }
    @inlinable public var isEmpty: Bool { nodes.isEmpty }

    /// Without counting as a use. Writing changes an entry that is there where it stands, and adds a new one as the newest.
    @inlinable
    public subscript(key: Key) -> Value? {
        get { slots[key].map { nodes[Int($0)].value } }
        set {
            guard let value = newValue else { return remove(key) }
            if let place = slots[key] {
                nodes[Int(place)].value = value
            } else {
                add(key, value)
            }
        }
    }

    /// The entry that has not been used for longest.
    @inlinable public var oldest: (key: Key, value: Value)? { oldestPlace < 0 ? nil : (nodes[Int(oldestPlace)].key, nodes[Int(oldestPlace)].value) }

    /// Sets the value and makes it the newest.
    @inlinable
    public mutating func use(_ key: Key, _ value: Value) {
        guard let place = slots[key] else { return add(key, value) }
        nodes[Int(place)].value = value
        moveToEnd(place)
    }

    /// Makes the entry the newest, if it is there.
    @inlinable
    public mutating func use(_ key: Key) {
        if let place = slots[key] { moveToEnd(place) }
    }

    @inlinable
    public mutating func remove(_ key: Key) {
        guard let place = slots.removeValue(forKey: key) else { return }
        unlink(place)
        let last = Int32(truncatingIfNeeded: nodes.count - 1)
        if place != last {
            let moved = nodes[Int(last)]
            nodes[Int(place)] = moved
            slots[moved.key] = place
            if moved.older >= 0 { nodes[Int(moved.older)].newer = place } else { oldestPlace = place }
            if moved.newer >= 0 { nodes[Int(moved.newer)].older = place } else { newestPlace = place }
        }
        nodes.removeLast()
    }

    @inlinable
    @discardableResult
    public mutating func removeOldest() -> (key: Key, value: Value)? {
        guard let oldest else { return nil }
        remove(oldest.key)
        return oldest
    }

    /// Removes entries that are over among the next `steps`, in the order of their places, which says nothing about their use. Called
    /// now and then, it goes round the whole table in pieces that hold nobody up.
    @inlinable
    public mutating func sweep(steps: Int, isOver: (Key, Value) -> Bool) {
        for key in over(steps: steps, isOver) { remove(key) }
    }

    /// The same without removing: the keys of the entries that are over.
    @inlinable
    public mutating func over(steps: Int, _ isOver: (Key, Value) -> Bool) -> [Key] {
        var keys: [Key] = []
        for _ in 0..<min(steps, count) {
            if hand >= nodes.count { hand = 0 }
            if isOver(nodes[hand].key, nodes[hand].value) { keys.append(nodes[hand].key) }
            hand += 1
        }
        return keys
    }

    /// Removes one of the `steps` entries that have not been used for longest, if one of them can go. The others count as used, so
    /// that those that can't go do not stand in the way for ever.
    @inlinable
    public mutating func removeOldest(within steps: Int, where canGo: (Key, Value) -> Bool) -> Bool {
        for _ in 0..<min(steps, count) {
            guard let oldest else { return false }
            if canGo(oldest.key, oldest.value) {
                remove(oldest.key)
                return true
            }
            use(oldest.key)
        }
        return false
    }

    /// Oldest first.
    @inlinable
    public func forEach(_ body: (Key, Value) -> Void) {
        var place = oldestPlace
        while place >= 0 {
            body(nodes[Int(place)].key, nodes[Int(place)].value)
            place = nodes[Int(place)].newer
        }
    }

    // MARK: The list

    @inlinable
    mutating func add(_ key: Key, _ value: Value) {
        guard count < Self.entriesMax else { return }
        let place = Int32(truncatingIfNeeded: nodes.count)
        nodes.append(Node(key: key, value: value, older: newestPlace, newer: Self.none))
        slots[key] = place
        if newestPlace >= 0 { nodes[Int(newestPlace)].newer = place } else { oldestPlace = place }
        newestPlace = place
    }

    @inlinable
    mutating func moveToEnd(_ place: Int32) {
        guard place != newestPlace else { return }
        unlink(place)
        nodes[Int(place)].older = newestPlace
        nodes[Int(place)].newer = Self.none
        if newestPlace >= 0 { nodes[Int(newestPlace)].newer = place } else { oldestPlace = place }
        newestPlace = place
    }

    @inlinable
    mutating func unlink(_ place: Int32) {
        let (older, newer) = (nodes[Int(place)].older, nodes[Int(place)].newer)
        if older >= 0 { nodes[Int(older)].newer = newer } else { oldestPlace = newer }
        if newer >= 0 { nodes[Int(newer)].older = older } else { newestPlace = older }
    }
}
