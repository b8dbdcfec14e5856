import CLinux
import Glibc

/// Memory in pieces of whole cache lines, named by 32 bits each instead of 64, in chunks that stay where they are.
///
/// A freed piece goes to the list of its size and is given out again for that size only: pieces have few sizes (a mapping of up to
/// two locators has one, of up to eight two more). Only the writer allocates and frees; readers turn a name into a pointer.
package final class SlabArena {
    @inlinable package static var unitOctets: Int { 64 }
    /// Two megabytes, aligned: the kernel can back such a chunk by one huge page, which spares most misses of the TLB.
    @inlinable package static var chunkOctets: Int { 2 << 20 }
    @inlinable static var unitsPerChunk: UInt32 { UInt32(chunkOctets / unitOctets) }
    /// 2^32 units of 64 octets: 256 GB.
    private static let chunksMax = 1 << 17
    /// Names below this stand for nothing.
    static let firstName: UInt32 = 2
    /// A small table takes small pages: one huge page would occupy more than the rest of the daemon.
    private static let chunksOfSmallPages = 4
    /// Sizes of pieces, in units.
    static let unitsMax = 1024

    /// A view for readers. Each chunk is entered before any name within it is in sight.
    package struct View: @unchecked Sendable {
        @usableFromInline let chunks: UnsafeMutablePointer<UnsafeMutableRawPointer?>

        /// The piece of this name, which must be one that was given out.
        @inlinable @inline(__always)
        package func pointer(_ name: UInt32) -> UnsafeMutableRawPointer {
            chunks[Int(name / SlabArena.unitsPerChunk)].unsafelyUnwrapped + Int(name % SlabArena.unitsPerChunk) * SlabArena.unitOctets
        }
    }

    /// Where the rest of a chunk begins. Small and large pieces come from chunks of their own, so that little is left at the ends.
    private struct Bump {
        var next: UInt32 = 0
        var left: UInt32 = 0
    }

    let view: View
    private var chunksCount = 0
    private var small = Bump()
    private var large = Bump()
    /// The first free piece of each size; in each stands the name of the next.
    private var free = [UInt32](repeating: 0, count: unitsMax + 1)

    init() {
        // A megabyte of addresses, of which the kernel provides what is used: a page for each gigabyte of the arena.
        guard let table = calloc(Self.chunksMax, MemoryLayout<UnsafeMutableRawPointer?>.stride) else { fatalError("out of memory") }
        view = View(chunks: table.bindMemory(to: UnsafeMutableRawPointer?.self, capacity: Self.chunksMax))
    }

    deinit {
        for index in 0..<chunksCount { munmap(view.chunks[index], Self.chunkOctets) }
        Glibc.free(view.chunks)
    }

    /// Octets taken from the system, used or not.
    var octetsCount: Int { chunksCount * Self.chunkOctets }

    /// A piece of so many units, at most `unitsMax`. What stands in it is undefined.
    func allocate(units: Int) -> UInt32 {
        let name = free[units]
        if name != 0 {
            free[units] = view.pointer(name).load(as: UInt32.self)
            return name
        }
        return units <= 8 ? take(UInt32(units), &small) : take(UInt32(units), &large)
    }

    /// Takes a piece back of which no reader can have the name any more.
    func deallocate(_ name: UInt32, units: Int) {
        view.pointer(name).storeBytes(of: free[units], as: UInt32.self)
        free[units] = name
    }

    private func take(_ units: UInt32, _ bump: inout Bump) -> UInt32 {
        if bump.left < units {
            guard chunksCount < Self.chunksMax, let chunk = Self.mapChunk() else { fatalError("out of memory for mappings") }
            if chunksCount >= Self.chunksOfSmallPages { madvise(chunk, Self.chunkOctets, Int32(mat_advice_huge_pages)) }
            view.chunks[chunksCount] = chunk
            // The names 0 and 1 mean nothing.
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

    /// A chunk at a multiple of its size: twice as much is mapped, and what is too much given back.
    private static func mapChunk() -> UnsafeMutableRawPointer? {
        guard let mapped = mmap(nil, 2 * chunkOctets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), mapped != MAP_FAILED
        else { return nil }
        let before = (chunkOctets - Int(bitPattern: mapped) % chunkOctets) % chunkOctets
        if before > 0 { munmap(mapped, before) }
        munmap(mapped + before + chunkOctets, chunkOctets - before)
        return mapped + before
    }
}
