import Synchronization

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
package struct SegmentedIndex {
    // Computed, since another module reads a stored constant by a call.
    @inlinable static var slotsPerSegment: Int { 4096 }
    @inlinable static var placeMask: UInt32 { UInt32(slotsPerSegment - 1) }
    @inlinable static var headOctets: Int { SlabArena.unitOctets }
    static let unitsPerSegment = (headOctets + slotsPerSegment * 8) / SlabArena.unitOctets
    /// Slots that are not free; beyond, searches become long.
    private static let usedMax = slotsPerSegment / 8 * 7
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
    package struct View: @unchecked Sendable {
        /// The directory's address.
        @usableFromInline let directory: UnsafeMutablePointer<Atomic<UInt>>
        @usableFromInline let arena: SlabArena.View

        /// The slot whose piece is the one wanted, and that piece.
        @inlinable @inline(__always)
        package func find(_ tag: UInt32, where isWanted: (UnsafeRawPointer) -> Bool) -> (slot: Slot, name: UInt32)? {
            let slots = SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            var place = tag & SegmentedIndex.placeMask
            for _ in 0..<SegmentedIndex.slotsPerSegment {
                let slot = slots + Int(place)
                let word = slot.pointee.load(ordering: .sequentiallyConsistent)
                if word == SegmentedIndex.free { return nil }
                if UInt32(truncatingIfNeeded: word >> 32) == tag, word != SegmentedIndex.removed {
                    let name = UInt32(truncatingIfNeeded: word)
                    if isWanted(UnsafeRawPointer(arena.pointer(name))) { return (slot, name) }
                }
                place = (place &+ 1) & SegmentedIndex.placeMask
            }
            return nil
        }

        /// Where a search for this tag begins, for a prefetch.
        @inlinable @inline(__always)
        package func firstSlot(_ tag: UInt32) -> UnsafeRawPointer {
            let slots = SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            return UnsafeRawPointer(slots + Int(tag & SegmentedIndex.placeMask))
        }

        /// The piece that is nearly surely the one wanted, without a look at it: for a prefetch.
        @inlinable @inline(__always)
        package func likely(_ tag: UInt32) -> UnsafeRawPointer? {
            let slots = SegmentedIndex.slots(arena.pointer(entry(tag).pointee.load(ordering: .sequentiallyConsistent)))
            var place = tag & SegmentedIndex.placeMask
            for _ in 0..<8 {
                let word = slots[Int(place)].load(ordering: .sequentiallyConsistent)
                if word == SegmentedIndex.free { return nil }
                if UInt32(truncatingIfNeeded: word >> 32) == tag, word != SegmentedIndex.removed {
                    return UnsafeRawPointer(arena.pointer(UInt32(truncatingIfNeeded: word)))
                }
                place = (place &+ 1) & SegmentedIndex.placeMask
            }
            return nil
        }

        @inlinable @inline(__always)
        func entry(_ tag: UInt32) -> UnsafeMutablePointer<Atomic<UInt32>> {
            let address = directory.pointee.load(ordering: .sequentiallyConsistent)
            let head = UnsafeMutablePointer<UInt64>(bitPattern: address).unsafelyUnwrapped
            let entries = UnsafeMutableRawPointer(head + 1).assumingMemoryBound(to: Atomic<UInt32>.self)
            return entries + Int(UInt64(tag) &>> (32 &- head.pointee))
        }
    }

    let view: View
    private let arena: SlabArena
    private let epochs: ReaderEpochs
    private(set) var count = 0
    private var depth = 0
    private(set) var segmentsCount = 0

    init(arena: SlabArena, epochs: ReaderEpochs) {
        self.arena = arena
        self.epochs = epochs
        let cell = UnsafeMutablePointer<Atomic<UInt>>.allocate(capacity: 1)
        cell.initialize(to: Atomic(0))
        view = View(directory: cell, arena: arena.view)
        let first = makeSegment(depth: 0)
        let directory = Self.makeDirectory(depth: 0)
        Self.entries(directory)[0].store(first, ordering: .relaxed)
        cell.pointee.store(UInt(bitPattern: directory), ordering: .releasing)
    }

    /// Gives up what does not belong to the arena. The last call, when there are no readers.
    func deallocate() {
        UnsafeMutableRawPointer(bitPattern: view.directory.pointee.load(ordering: .relaxed))?.deallocate()
        view.directory.deallocate()
    }

    /// Octets outside of the arena.
    var directoryOctets: Int { 8 + 4 << depth }

    // MARK: Changes

    /// Enters a piece whose like is not here.
    mutating func insert(_ name: UInt32, tag: UInt32) {
        var segment = arena.view.pointer(view.entry(tag).pointee.load(ordering: .relaxed))
        if Int(Self.head(segment).pointee.used) >= Self.usedMax {
            makeRoom(tag)
            segment = arena.view.pointer(view.entry(tag).pointee.load(ordering: .relaxed))
        }
        let slots = Self.slots(segment)
        var place = tag & Self.placeMask
        while true {
            let word = slots[Int(place)].load(ordering: .relaxed)
            if word == Self.free || word == Self.removed {
                if word == Self.free { Self.head(segment).pointee.used += 1 }
                break
            }
            place = (place &+ 1) & Self.placeMask
        }
        slots[Int(place)].store(UInt64(tag) << 32 | UInt64(name), ordering: .sequentiallyConsistent)
        Self.head(segment).pointee.live += 1
        count += 1
    }

    /// Puts another piece of equal key into the slot: readers find one or the other, never none.
    func replace(_ slot: Slot, with name: UInt32, tag: UInt32) {
        slot.pointee.store(UInt64(tag) << 32 | UInt64(name), ordering: .sequentiallyConsistent)
    }

    mutating func remove(_ slot: Slot, tag: UInt32) {
        slot.pointee.store(Self.removed, ordering: .sequentiallyConsistent)
        Self.head(arena.view.pointer(view.entry(tag).pointee.load(ordering: .relaxed))).pointee.live -= 1
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
            let segment = arena.view.pointer(view.entry(UInt32(truncatingIfNeeded: from)).pointee.load(ordering: .relaxed))
            let slots = Self.slots(segment)
            for place in 0..<Self.slotsPerSegment {
                let word = slots[place].load(ordering: .relaxed)
                if word != Self.free, word != Self.removed { body(UInt32(truncatingIfNeeded: word)) }
            }
            seen += Int(Self.head(segment).pointee.live)
            let span = UInt64(1) << (32 - UInt64(Self.head(segment).pointee.depth))
            from = (from / span + 1) * span
            if seen >= atLeast { break }
        }
        return from < 1 << 32 ? from : nil
    }

    // MARK: Growth

    /// Divides the segment of this tag, or makes it anew if it is full of what was removed.
    private mutating func makeRoom(_ tag: UInt32) {
        let old = view.entry(tag).pointee.load(ordering: .relaxed)
        let head = Self.head(arena.view.pointer(old)).pointee
        let divides = Int(head.live) >= Self.liveToDivide && head.depth < Self.depthMax
        if divides, Int(head.depth) == depth { doubleDirectory() }
        let newDepth = head.depth + (divides ? 1 : 0)
        let lower = makeSegment(depth: newDepth)
        let upper = divides ? makeSegment(depth: newDepth) : lower
        let slots = Self.slots(arena.view.pointer(old))
        for place in 0..<Self.slotsPerSegment {
            let word = slots[place].load(ordering: .relaxed)
            guard word != Self.free, word != Self.removed else { continue }
            let isUpper = divides && UInt32(truncatingIfNeeded: word >> 32) >> (32 - newDepth) & 1 == 1
            Self.place(word, in: arena.view.pointer(isUpper ? upper : lower))
        }
        // All entries that named the old segment name a new one; they stand side by side.
        let entries = Self.entries(currentDirectory)
        let span = 1 << (depth - Int(head.depth))
        let first = Int(UInt64(tag) >> UInt64(32 - depth)) / span * span
        for index in 0..<span {
            entries[first + index].store(divides && index >= span / 2 ? upper : lower, ordering: .sequentiallyConsistent)
        }
        segmentsCount -= 1
        epochs.retire(.slab(old, units: Self.unitsPerSegment))
    }

    private static func place(_ word: UInt64, in segment: UnsafeMutableRawPointer) {
        let slots = slots(segment)
        var place = UInt32(truncatingIfNeeded: word >> 32) & placeMask
        while slots[Int(place)].load(ordering: .relaxed) != free { place = (place &+ 1) & placeMask }
        slots[Int(place)].store(word, ordering: .relaxed)
        head(segment).pointee.live += 1
        head(segment).pointee.used += 1
    }

    private mutating func doubleDirectory() {
        let old = currentDirectory
        let new = Self.makeDirectory(depth: depth + 1)
        for index in 0..<1 << depth {
            let name = Self.entries(old)[index].load(ordering: .relaxed)
            Self.entries(new)[2 * index].store(name, ordering: .relaxed)
            Self.entries(new)[2 * index + 1].store(name, ordering: .relaxed)
        }
        depth += 1
        view.directory.pointee.store(UInt(bitPattern: new), ordering: .sequentiallyConsistent)
        epochs.retire(.memory(old))
    }

    private mutating func makeSegment(depth: UInt32) -> UInt32 {
        let name = arena.allocate(units: Self.unitsPerSegment)
        let segment = arena.view.pointer(name)
        segment.bindMemory(to: Head.self, capacity: 1).initialize(to: Head(depth: depth, live: 0, used: 0))
        let slots = (segment + Self.headOctets).bindMemory(to: Atomic<UInt64>.self, capacity: Self.slotsPerSegment)
        for place in 0..<Self.slotsPerSegment { (slots + place).initialize(to: Atomic(Self.free)) }
        segmentsCount += 1
        return name
    }

    private static func makeDirectory(depth: Int) -> UnsafeMutableRawPointer {
        let directory = UnsafeMutableRawPointer.allocate(byteCount: 8 + 4 << depth, alignment: 64)
        directory.storeBytes(of: UInt64(depth), as: UInt64.self)
        let entries = (directory + 8).bindMemory(to: Atomic<UInt32>.self, capacity: 1 << depth)
        for index in 0..<1 << depth { (entries + index).initialize(to: Atomic(0)) }
        return directory
    }

    private var currentDirectory: UnsafeMutableRawPointer {
        UnsafeMutableRawPointer(bitPattern: view.directory.pointee.load(ordering: .relaxed)).unsafelyUnwrapped
    }

    private static func entries(_ directory: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Atomic<UInt32>> {
        (directory + 8).assumingMemoryBound(to: Atomic<UInt32>.self)
    }

    private static func head(_ segment: UnsafeMutableRawPointer) -> UnsafeMutablePointer<Head> {
        segment.assumingMemoryBound(to: Head.self)
    }

    @inlinable @inline(__always)
    static func slots(_ segment: UnsafeMutableRawPointer) -> Slot {
        (segment + headOctets).assumingMemoryBound(to: Atomic<UInt64>.self)
    }
}
