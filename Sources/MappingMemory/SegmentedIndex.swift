import Synchronization

// What lies where:
//   cell:      the directory's address; readers load it first
//   directory: its depth (8 octets), then 2^depth names of segments (4 octets each); in memory of the heap
//   segment:   a head of one cache line (depth, live, used; the writer's alone), then 4096 slots of 8 octets; a piece of the arena
//
// Invariants:
// - Of each segment and directory only the writer changes what is not atomic, and before readers can reach it.
// - A slot is one word: free, removed, or a tag and the name of a piece that is whole. A free slot ends every search for the tags
//   before it, so a slot that was used never becomes free again; each segment keeps at least one free slot.
// - A reader looks at atomic words only, and at the depth of a directory, which never changes.
// - The directory has 2^depth entries, and each segment of depth d stands in 2^(depth - d) of them side by side.
// - What readers could reach and no longer can is retired, never freed.
//
// Why `unsafe` is right here: segments are pieces of the arena of `unitsPerSegment`, so all `slotsPerSegment` slots behind the head are
// within; an entry is found by the upper `depth` bits of a tag, so it is one of the directory's.

/// Finds pieces of an arena by a hash: a directory of segments of equal size (extendible hashing), open addressing within each.
///
/// ```
///  directory: depth d │ 2^d names of segments             tag, 32 bits: │ d bits: which entry │   ...   │ 12 bits: first place │
///                 │
///                 └──► segment: 4096 slots, each: tag 32 │ name 32     0: free, ends a search     1: removed, a search goes on
/// ```
/// Readers look up while the one writer changes: a slot is one word, replaced at once. A full segment is divided into two new ones, which
/// take its place in the directory when they are complete; so growth costs one division (some 50 us) now and then, and never a halt
/// of all. Slots are never moved within a segment, since a reader might miss what moves: what removals leave behind goes when the
/// segment is next made anew.
@safe
package struct SegmentedIndex {
    // Computed, since another module reads a stored constant by a call.
    @inlinable static var slotsPerSegment: Int { 4096 }
    @inlinable static var placeMask: UInt32 { UInt32(slotsPerSegment - 1) }
    @inlinable static var headOctets: Int { SlabArena.unitOctets }
    static let unitsPerSegment = (headOctets + slotsPerSegment * 8) / SlabArena.unitOctets
    /// Slots that are not free; beyond, searches become long.
    static let usedMax = slotsPerSegment / 8 * 7
    /// Slots in use from which a full segment is divided, and not just made anew without what was removed.
    private static let liveToDivide = slotsPerSegment / 2
    private static let depthMax = 20
    @inlinable static var free: UInt64 { 0 }
    @inlinable static var removed: UInt64 { 1 }

    package typealias Slot = UnsafeMutablePointer<Atomic<UInt64>>

    /// What stands at the head of a segment; the writer's alone.
    private struct Head {
        var depth: UInt32
        var live: UInt32
        var used: UInt32
    }

    /// What readers hold.
    @safe
    package struct View: @unchecked Sendable {
        /// The directory's address.
        @usableFromInline let directory: UnsafeMutablePointer<Atomic<UInt>>
        @usableFromInline let arena: SlabArena.View

        /// The slot whose piece is the one wanted, and that piece.
        @inlinable @inline(__always)
        package func find(_ tag: UInt32, where isWanted: (UnsafeRawPointer) -> Bool) -> (slot: Slot, name: UInt32)? {
            let slots = unsafe SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            var place = tag & SegmentedIndex.placeMask
            for _ in 0..<SegmentedIndex.slotsPerSegment {
                let slot = unsafe slots + Int(place)
                let word = unsafe slot.pointee.load(ordering: .sequentiallyConsistent)
                if word == SegmentedIndex.free { return nil }
                if UInt32(truncatingIfNeeded: word >> 32) == tag, word != SegmentedIndex.removed {
                    let name = UInt32(truncatingIfNeeded: word)
                    if unsafe isWanted(UnsafeRawPointer(arena.pointer(name))) { return unsafe (slot, name) }
                }
                place = (place &+ 1) & SegmentedIndex.placeMask
            }
            return nil
        }

        /// Where a search for this tag begins, for a prefetch.
        @inlinable @inline(__always)
        package func firstSlot(_ tag: UInt32) -> UnsafeRawPointer {
            let slots = unsafe SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            return unsafe UnsafeRawPointer(slots + Int(tag & SegmentedIndex.placeMask))
        }

        /// The piece that is nearly surely the one wanted, without a look at it: for a prefetch.
        @inlinable @inline(__always)
        package func likely(_ tag: UInt32) -> UnsafeRawPointer? {
            let slots = unsafe SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            var place = tag & SegmentedIndex.placeMask
            for _ in 0..<8 {
                let word = unsafe slots[Int(place)].load(ordering: .sequentiallyConsistent)
                if word == SegmentedIndex.free { return nil }
                if UInt32(truncatingIfNeeded: word >> 32) == tag, word != SegmentedIndex.removed {
                    return unsafe UnsafeRawPointer(arena.pointer(UInt32(truncatingIfNeeded: word)))
                }
                place = (place &+ 1) & SegmentedIndex.placeMask
            }
            return nil
        }

        @inlinable @inline(__always)
        func entry(_ tag: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
            let address = unsafe directory.pointee.load(ordering: .sequentiallyConsistent)
            let head = unsafe UnsafeMutablePointer<UInt64>(bitPattern: address).unsafelyUnwrapped
            let entries = unsafe UnsafeMutableRawPointer(head + 1).assumingMemoryBound(to: Atomic<UInt32>.self)
            return unsafe entries + Int(UInt64(tag) &>> (32 &- head.pointee))
        }
    }

    let view: View
    private let arena: SlabArena
    private let epochs: ReaderEpochs
    private let memory: TableMemory
    private(set) var count = 0
    private var depth = 0
    private var directory: TableMemory.Piece

    init(arena: SlabArena, epochs: ReaderEpochs, memory: TableMemory) {
        self.arena = arena
        self.epochs = epochs
        self.memory = memory
        guard let first = Self.makeSegment(depth: 0, arena), let directory = unsafe Self.makeDirectory(depth: 0, memory) else {
            TableMemory.endWithoutTable()
        }
        unsafe self.directory = directory
        unsafe Self.entries(directory.start)[0].store(first, ordering: .relaxed)
        let cell = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: 1)
        unsafe cell.initialize(to: Atomic(UInt(bitPattern: directory.start)))
        view = unsafe View(directory: cell, arena: arena.view)
    }

    /// Gives up what does not belong to the arena. The last call, when there are no readers.
    func deallocate() {
        unsafe memory.free(directory)
        unsafe view.directory.deallocate()
    }

    /// Octets outside of the arena.
    var directoryOctets: Int { 8 + 4 << depth }

    // MARK: Changes

    /// Pieces that one change may insert, whatever their tags: the locators of a mapping.
    static let insertsMax = 8
    /// Slots that stay free when memory is short, so that whatever one change inserts finds room.
    private static let slack = 2 * insertsMax

    /// Whether a piece with this tag can be inserted without a division.
    @inline(__always)
    func hasRoom(_ tag: UInt32) -> Bool { used(tag) < Self.usedMax }

    /// Sees to it that a piece with this tag can be inserted, and `insertsMax` in all before the next call. Without memory for a division a
    /// segment fills beyond what makes for short searches, up to the last few slots.
    ///
    /// - Returns: whether there is room. At most two things are retired.
    mutating func makeRoom(_ tag: UInt32) -> Bool {
        if hasRoom(tag) { return true }
        divide(tag)
        return used(tag) < Self.slotsPerSegment - Self.slack
    }

    /// Segments that so many insertions may take at most, divisions of two at a time.
    static func segments(for count: Int) -> Int { 2 + 2 * (count / (usedMax - liveToDivide)) }

    private func used(_ tag: UInt32) -> Int { Int(unsafe Self.head(segment(tag)).pointee.used) }

    private func segment(_ tag: UInt32) -> UnsafeMutableRawPointer { unsafe arena.view.pointer(view.entry(tag).pointee.load(ordering: .relaxed)) }

    /// Enters a piece whose like is not here. `makeRoom` has seen to it.
    mutating func insert(_ name: UInt32, tag: UInt32) {
        let segment = unsafe segment(tag)
        let slots = unsafe Self.slots(segment)
        var place = tag & Self.placeMask
        while true {
            let word = unsafe slots[Int(place)].load(ordering: .relaxed)
            if word == Self.free || word == Self.removed {
                if word == Self.free { unsafe Self.head(segment).pointee.used += 1 }
                break
            }
            place = (place &+ 1) & Self.placeMask
        }
        unsafe slots[Int(place)].store(UInt64(tag) << 32 | UInt64(name), ordering: .sequentiallyConsistent)
        unsafe Self.head(segment).pointee.live += 1
        count += 1
    }

    /// Puts another piece of equal key into the slot: readers find one or the other, never none.
    func replace(_ slot: Slot, with name: UInt32, tag: UInt32) {
        unsafe slot.pointee.store(UInt64(tag) << 32 | UInt64(name), ordering: .sequentiallyConsistent)
    }

    mutating func remove(_ slot: Slot, tag: UInt32) {
        unsafe slot.pointee.store(Self.removed, ordering: .sequentiallyConsistent)
        unsafe Self.head(segment(tag)).pointee.live -= 1
        count -= 1
    }

    // MARK: Walks

    /// Calls `body` with the name of each piece from a place in the order of hashes on, whole segments at a time, until it has been
    /// called at least so many times. Growth in between changes nothing of the order.
    ///
    /// - Parameter from: 0, or what was returned before.
    /// - Returns: from where to go on; `nil` at the end.
    func walk(from: UInt64, atLeast: Int, _ body: (UInt32) -> Void) -> UInt64? {
        var from = from
        var seen = 0
        while from < 1 << 32 {
            let segment = unsafe segment(UInt32(truncatingIfNeeded: from))
            let slots = unsafe Self.slots(segment)
            for place in 0..<Self.slotsPerSegment {
                let word = unsafe slots[place].load(ordering: .relaxed)
                if word != Self.free, word != Self.removed { body(UInt32(truncatingIfNeeded: word)) }
            }
            seen += Int(unsafe Self.head(segment).pointee.live)
            let span = UInt64(1) << (32 - UInt64(unsafe Self.head(segment).pointee.depth))
            from = (from / span + 1) * span
            if seen >= atLeast { break }
        }
        return from < 1 << 32 ? from : nil
    }

    // MARK: Growth

    /// Divides the segment of this tag, or makes it anew if it is full of what was removed. All memory comes first, so that a lack of it
    /// changes nothing.
    ///
    private mutating func divide(_ tag: UInt32) {
        let old = unsafe view.entry(tag).pointee.load(ordering: .relaxed)
        let head = unsafe Self.head(arena.view.pointer(old)).pointee
        let divides = Int(head.live) >= Self.liveToDivide && head.depth < Self.depthMax
        let newDepth = head.depth + (divides ? 1 : 0)
        guard let lower = Self.makeSegment(depth: newDepth, arena) else { return }
        guard let upper = divides ? Self.makeSegment(depth: newDepth, arena) : lower else {
            arena.deallocate(lower, units: Self.unitsPerSegment)
            return
        }
        guard !divides || Int(head.depth) < depth || doubleDirectory() else {
            // Of a segment that is divided there are two.
            arena.deallocate(lower, units: Self.unitsPerSegment)
            arena.deallocate(upper, units: Self.unitsPerSegment)
            return
        }
        let slots = unsafe Self.slots(arena.view.pointer(old))
        for place in 0..<Self.slotsPerSegment {
            let word = unsafe slots[place].load(ordering: .relaxed)
            guard word != Self.free, word != Self.removed else { continue }
            let isUpper = divides && UInt32(truncatingIfNeeded: word >> 32) >> (32 - newDepth) & 1 == 1
            unsafe Self.place(word, in: arena.view.pointer(isUpper ? upper : lower))
        }
        // All entries that named the old segment name a new one; they stand side by side.
        let entries = unsafe Self.entries(directory.start)
        let span = 1 << (depth - Int(head.depth))
        let first = Int(UInt64(tag) >> UInt64(32 - depth)) / span * span
        for index in 0..<span {
            unsafe entries[first + index].store(divides && index >= span / 2 ? upper : lower, ordering: .sequentiallyConsistent)
        }
        epochs.retire(.slab(old, units: Self.unitsPerSegment))
    }

    private static func place(_ word: UInt64, in segment: UnsafeMutableRawPointer) {
        let slots = unsafe slots(segment)
        var place = UInt32(truncatingIfNeeded: word >> 32) & placeMask
        while unsafe slots[Int(place)].load(ordering: .relaxed) != free { place = (place &+ 1) & placeMask }
        unsafe slots[Int(place)].store(word, ordering: .relaxed)
        unsafe head(segment).pointee.live += 1
        unsafe head(segment).pointee.used += 1
    }

    /// - Returns: whether there was memory.
    private mutating func doubleDirectory() -> Bool {
        guard let new = unsafe Self.makeDirectory(depth: depth + 1, memory) else { return false }
        let old = unsafe directory
        for index in 0..<1 << depth {
            let name = unsafe Self.entries(old.start)[index].load(ordering: .relaxed)
            unsafe Self.entries(new.start)[2 * index].store(name, ordering: .relaxed)
            unsafe Self.entries(new.start)[2 * index + 1].store(name, ordering: .relaxed)
        }
        depth += 1
        unsafe directory = new
        unsafe view.directory.pointee.store(UInt(bitPattern: new.start), ordering: .sequentiallyConsistent)
        unsafe epochs.retire(.memory(old))
        return true
    }

    private static func makeSegment(depth: UInt32, _ arena: SlabArena) -> UInt32? {
        guard let name = arena.allocate(units: unitsPerSegment) else { return nil }
        let segment = unsafe arena.view.pointer(name)
        unsafe segment.bindMemory(to: Head.self, capacity: 1).initialize(to: Head(depth: depth, live: 0, used: 0))
        let slots = unsafe (segment + headOctets).bindMemory(to: Atomic<UInt64>.self, capacity: slotsPerSegment)
        for place in 0..<slotsPerSegment { unsafe (slots + place).initialize(to: Atomic(free)) }
        return name
    }

    private static func makeDirectory(depth: Int, _ memory: TableMemory) -> TableMemory.Piece? {
        guard let piece = unsafe memory.allocate(8 + 4 << depth) else { return nil }
        unsafe piece.start.storeBytes(of: UInt64(depth), as: UInt64.self)
        let entries = unsafe (piece.start + 8).bindMemory(to: Atomic<UInt32>.self, capacity: 1 << depth)
        for index in 0..<1 << depth { unsafe (entries + index).initialize(to: Atomic(0)) }
        return unsafe piece
    }

    private static func entries(_ directory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        unsafe (directory + 8).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private static func head(_ segment: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Head> {
        unsafe segment.assumingMemoryBound(to: Head.self)
    }

    @inlinable @inline(__always)
    static func slots(_ segment: UnsafeMutableRawPointer) -> Slot {
        unsafe (segment + headOctets).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
