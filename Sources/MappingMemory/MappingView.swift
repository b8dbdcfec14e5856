import MATSignal
import Synchronization

// What lies where: nothing of its own but two words of prefix lengths each, a bit for each length; the rest is the table's and the indexes'.
//
// Invariants:
// - Any thread looks up, each under a reader of the table's epochs; nothing here writes but `PrefixLengthSet`, for the writer alone.
// - A bit is set before the first entry of its length is in sight, and cleared after the last one has gone: a reader may look in vain, and
//   never misses one.
//
// Why `unsafe` is right here: the index compares a block with what is looked for before it returns its name, and a block that the index
// names is not freed before the reader's `end`. The words of a set of lengths are two, for the life of the set, which its table holds.

/// Look-ups in a `MappingTable` from any thread: no locks, no waiting, no counting of references. What a look-up returns holds until
/// the reader's `end`.
@safe
package struct MappingView: @unchecked Sendable {
    package let forward: SegmentedIndex.View
    package let reverse: SegmentedIndex.View
    @usableFromInline let arena: SlabArena.View
    package let hash: TableHash
    @usableFromInline let homeLengths: PrefixLengthSet.View
    @usableFromInline let locatorLengths: PrefixLengthSet.View

    @inlinable @inline(__always)
    package func find(_ address: IPAddress, _ length: UInt8) -> MappingBlock? {
        guard let (_, name) = unsafe forward.find(hash.tag(address, length), where: { unsafe MappingBlock($0).isOf(address, length) }) else {
            return nil
        }
        return unsafe MappingBlock(arena.pointer(name))
    }

    /// The mapping whose HoA prefix is the longest that covers the address, expired or not.
    @inlinable @inline(__always)
    package func block(covering address: IPAddress) -> MappingBlock? {
        if let block = find(address, 128) { return block }
        return homeLengths.firstShorter { find(address.masked(to: $0), $0) }
    }

    /// The mapping that holds the MoA, expired or not.
    @inlinable @inline(__always)
    package func block(holding moa: IPAddress) -> MappingBlock? {
        if let block = owner(moa, 128) { return block }
        return locatorLengths.firstShorter { owner(moa.masked(to: $0), $0) }
    }

    @inlinable @inline(__always)
    func owner(_ moa: IPAddress, _ length: UInt8) -> MappingBlock? {
        guard let (_, name) = unsafe reverse.find(hash.tag(moa, length), where: { unsafe MappingBlock($0).lists(moa, length) }) else { return nil }
        return unsafe MappingBlock(arena.pointer(name))
    }
}

/// The prefix lengths below 128 that are in use: what to try when an address itself is not found. Nearly always none.
@safe
package final class PrefixLengthSet {
    /// A bit for each length.
    @safe
    package struct View: @unchecked Sendable {
        @usableFromInline let words: UnsafeMutablePointer<Atomic<UInt64>>

        /// The first result that there is, from the longest length in use down.
        @inlinable @inline(__always)
        package func firstShorter<Result>(_ body: (UInt8) -> Result?) -> Result? {
            var word = unsafe words[1].load(ordering: .sequentiallyConsistent)
            if word == 0, unsafe words[0].load(ordering: .sequentiallyConsistent) == 0 { return nil }
            for index in stride(from: 1, through: 0, by: -1) {
                word = unsafe words[index].load(ordering: .sequentiallyConsistent)
                while word != 0 {
                    let bit = 63 - word.leadingZeroBitCount
                    word &= ~(1 << UInt64(bit))
                    if let result = body(UInt8(64 * index + bit)) { return result }
                }
            }
            return nil
        }
    }

    let view: View
    private var counts = [Int](repeating: 0, count: 128)

    init() {
        view = unsafe View(words: .allocate(capacity: 2))
        for index in 0..<2 { unsafe (view.words + index).initialize(to: Atomic(0)) }
    }

    deinit { unsafe view.words.deallocate() }

    /// Before the entry is in sight.
    func add(_ length: UInt8) {
        guard length < 128 else { return }
        counts[Int(length)] += 1
        publish(length)
    }

    /// After the entry has gone.
    func remove(_ length: UInt8) {
        guard length < 128 else { return }
        counts[Int(length)] -= 1
        publish(length)
    }

    private func publish(_ length: UInt8) {
        let index = Int(length) / 64
        let bit = UInt64(1) << UInt64(length % 64)
        let word = unsafe view.words[index].load(ordering: .relaxed)
        unsafe view.words[index].store(counts[Int(length)] > 0 ? word | bit : word & ~bit, ordering: .sequentiallyConsistent)
    }
}
