import CLinux
import Glibc

// What lies where:
//   chunks: a megabyte of addresses, a pointer for each chunk that there can be; the kernel provides what is used of it
//   chunk:  2 MB, cut into pieces of whole cache lines, each a mapping's block or a segment of an index
//   spares: chunks that are not entered in `chunks` yet
//
// Invariants:
// - A chunk, once entered in `chunks`, stays where it is until the arena ends; the arena ends after its last reader.
// - A name is given out with the chunk that holds it entered before. It reaches readers only through the index, by a store that orders
//   what was written before it; so who has a name finds the chunk, and what stands in the piece.
// - A piece belongs to whoever allocated it until `deallocate`, which the table calls when no reader can have its name (`ReaderEpochs`).
// - The first word of a free piece is the name of the next free one of its size, or 0.
// - `freeCounts` says how long these lists are.
// - Only the writer allocates, frees and reserves.
//
// Why `unsafe` is right here: places within a chunk are computed from names that were given out, and those lie within the chunk.

/// Memory in pieces of whole cache lines, named by 32 bits each instead of 64, in chunks that stay where they are.
///
/// A freed piece goes to the list of its size and is given out again for that size only: pieces have few sizes (a mapping of up to
/// two locators has one, of up to eight two more). Only the writer allocates and frees; readers turn a name into a pointer. What the system
/// refuses is told to whoever asked.
@safe
package final class SlabArena {
    @inlinable package static var unitOctets: Int { 64 }
    /// Two megabytes, aligned: the kernel can back such a chunk by one huge page, which spares most misses of the TLB.
    @inlinable package static var chunkOctets: Int { 2 << 20 }
    @inlinable static var unitsPerChunk: UInt32 { UInt32(chunkOctets / unitOctets) }
    /// 2^32 units of 64 octets: 256 GB.
    private static let chunksMax = 1 << 17
    /// The smallest name that is given out; the numbers below it mark slots of the index without a piece.
    static let firstName: UInt32 = 2
    /// A small table takes small pages: one huge page would occupy more than the rest of the daemon.
    private static let chunksOfSmallPages = 4
    /// Sizes of pieces, in units.
    static let unitsMax = 1024
    /// The largest of the small pieces, in units: a mapping with eight locators.
    private static let smallUnitsMax = 8

    /// A view for readers. Each chunk is entered before any name within it is in sight.
    @safe
    package struct View: @unchecked Sendable {
        @usableFromInline let chunks: UnsafeMutablePointer<UnsafeMutableRawPointer?>

        /// The piece of this name, which must be one that was given out.
        @inlinable @inline(__always)
        package func pointer(_ name: UInt32) -> UnsafeMutableRawPointer {
            unsafe chunks[Int(name / SlabArena.unitsPerChunk)].unsafelyUnwrapped + Int(name % SlabArena.unitsPerChunk) * SlabArena.unitOctets
        }
    }

    /// Where the rest of a chunk begins. Small and large pieces come from chunks of their own, so that little is left at the ends.
    private struct Bump {
        var next: UInt32 = 0
        var left: UInt32 = 0
    }

    let view: View
    private let memory: TableMemory
    private var chunksCount = 0
    /// Chunks taken ahead (`reserve`).
    private var spares = unsafe [UnsafeMutableRawPointer]()
    private var small = Bump()
    private var large = Bump()
    /// The first free piece of each size.
    private var free = [UInt32](repeating: 0, count: unitsMax + 1)
    /// How many there are of each size.
    private var freeCounts = [Int](repeating: 0, count: unitsMax + 1)

    /// Ends the process if there is not even memory for an empty table.
    init(memory: TableMemory) {
        self.memory = memory
        guard let table = unsafe calloc(Self.chunksMax, MemoryLayout<UnsafeMutableRawPointer?>.stride) else {
            TableMemory.endWithoutTable()
        }
        view = unsafe View(chunks: table.bindMemory(to: UnsafeMutableRawPointer?.self, capacity: Self.chunksMax))
    }

    deinit {
        for index in 0..<chunksCount { if let chunk = unsafe view.chunks[index] { unsafe memory.unmap(chunk, Self.chunkOctets) } }
        while let chunk = unsafe spares.popLast() { unsafe memory.unmap(chunk, Self.chunkOctets) }
        unsafe Glibc.free(view.chunks)
    }

    /// Octets taken from the system, used or not.
    var octetsCount: Int { unsafe (chunksCount + spares.count) * Self.chunkOctets }

    /// A piece of so many units, at most `unitsMax`; `nil` if there is no memory. What stands in it is undefined.
    func allocate(units: Int) -> UInt32? {
        guard !memory.refuses(units * Self.unitOctets) else { return nil }
        let name = free[units]
        guard name == 0 else {
            free[units] = unsafe view.pointer(name).load(as: UInt32.self)
            freeCounts[units] -= 1
            return name
        }
        return units <= Self.smallUnitsMax ? cut(UInt32(units), from: &small) : cut(UInt32(units), from: &large)
    }

    /// Takes a piece back of which no reader can have the name any more.
    func deallocate(_ name: UInt32, units: Int) {
        unsafe view.pointer(name).storeBytes(of: free[units], as: UInt32.self)
        free[units] = name
        freeCounts[units] += 1
    }

    /// Takes chunks ahead, so that so many pieces of these sizes can be allocated.
    ///
    /// - Returns: whether there is memory for them.
    func reserve(_ smallCount: Int, units smallUnits: Int, _ largeCount: Int, units largeUnits: Int) -> Bool {
        let smallMissing = smallCount - freeCounts[smallUnits] - Int(small.left) / smallUnits
        let largeMissing = largeCount - freeCounts[largeUnits] - Int(large.left) / largeUnits
        let chunks = Self.chunks(for: smallMissing, units: smallUnits) + Self.chunks(for: largeMissing, units: largeUnits)
        while unsafe spares.count < chunks {
            guard unsafe chunksCount + spares.count < Self.chunksMax, let chunk = unsafe memory.map(Self.chunkOctets) else { return false }
            unsafe spares.append(chunk)
        }
        return true
    }

    private static func chunks(for pieces: Int, units: Int) -> Int {
        let perChunk = (Int(unitsPerChunk) - Int(firstName)) / units
        return pieces > 0 ? (pieces + perChunk - 1) / perChunk : 0
    }

    private func cut(_ units: UInt32, from bump: inout Bump) -> UInt32? {
        if bump.left < units {
            guard chunksCount < Self.chunksMax, let chunk = unsafe spares.popLast() ?? memory.map(Self.chunkOctets) else { return nil }
            if chunksCount >= Self.chunksOfSmallPages { unsafe madvise(chunk, Self.chunkOctets, Int32(mat_advice_huge_pages)) }
            unsafe view.chunks[chunksCount] = chunk
            let skipped: UInt32 = chunksCount == 0 ? Self.firstName : 0
            bump = Bump(next: UInt32(chunksCount) * Self.unitsPerChunk + skipped, left: Self.unitsPerChunk - skipped)
            chunksCount += 1
        }
        defer {
            bump.next += units
            bump.left -= units
        }
        return bump.next
    }
}
