import CLinux
import Glibc

// What lies where: nothing of its own; what is handed out lies where the system put it.
//
// Invariants:
// - What is handed out is exactly what the system gave, of the size asked for, and belongs to whoever asked until it is given back.
// - What is given back was handed out here, once.
// - One thread at a time asks and gives back: the table's writer. Nothing here reads or writes the memory itself.

/// Why a change of the table was refused. The table is as before.
package enum MemoryRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    /// The system gave no memory of this size.
    case system(octets: Int)
    /// So many replaced things wait for readers, one of which has not moved on since.
    case readers(waiting: Int)

    package var description: String {
        switch self {
        case .system(let octets): "the system gives the table of mappings no more memory (\(octets) octets were asked for)"
        case .readers(let waiting): "a thread that answers queries stands still, and \(waiting) replaced mappings wait for it"
        }
    }
}

/// Where the table's memory comes from. Every request may be refused, and whoever asked goes on without.
@safe
package final class TableMemory {
    /// Whether a request of so many octets may be granted, where it is set: the system's own bounds come where they are set. It is asked for pieces
    /// of a chunk as well, so that a test can refuse each single one.
    package var mayGrant: ((_ octets: Int) -> Bool)?
    /// What the system has given, and was not given back.
    package private(set) var octetsCount = 0
    /// The size of the last request that was refused.
    package private(set) var refusedOctets = 0

    package init() {}

    /// There is not even memory for an empty table: at the start, before anything was answered, so nothing is lost by ending here.
    static func endWithoutTable() -> Never {
        fatalError("the system gives no memory for an empty table of mappings; see the limits of this process (ulimit -v)")
    }

    /// A piece of the heap, in whole cache lines.
    @unsafe
    package struct Piece {
        package let start: UnsafeMutableRawPointer
        package let octets: Int
    }

    /// Whether a request of so many octets is refused before the system is asked.
    @inline(__always)
    func refuses(_ octets: Int) -> Bool {
        guard let mayGrant, !mayGrant(octets) else { return false }
        refusedOctets = octets
        return true
    }

    /// Whole pages at a multiple of `octets`, which is a power of two; all zero. Twice as much is mapped, and what is too much given back.
    func map(_ octets: Int) -> UnsafeMutableRawPointer? {
        guard !refuses(octets) else { return nil }
        guard let mapped = unsafe mmap(nil, 2 * octets, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), unsafe mapped != MAP_FAILED
        else {
            refusedOctets = octets
            return nil
        }
        let before = (octets - Int(bitPattern: mapped) % octets) % octets
        if before > 0 { unsafe munmap(mapped, before) }
        unsafe munmap(mapped + before + octets, octets - before)
        octetsCount += octets
        return unsafe mapped + before
    }

    func unmap(_ start: UnsafeMutableRawPointer, _ octets: Int) {
        unsafe munmap(start, octets)
        octetsCount -= octets
    }

    /// What stands in it is undefined.
    package func allocate(_ octets: Int) -> Piece? {
        let octets = (octets + 63) & ~63
        guard !refuses(octets) else { return nil }
        var start: UnsafeMutableRawPointer?
        guard unsafe posix_memalign(&start, 64, octets) == 0, let start = unsafe start else {
            refusedOctets = octets
            return nil
        }
        octetsCount += octets
        return unsafe Piece(start: start, octets: octets)
    }

    package func free(_ piece: Piece) {
        octetsCount -= unsafe piece.octets
        unsafe Glibc.free(piece.start)
    }
}
