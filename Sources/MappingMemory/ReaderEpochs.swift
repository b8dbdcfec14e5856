import Synchronization

// What lies where:
//   words:   the epoch, then a word for each reader, each with two cache lines to itself
//   waiting: a ring of what was retired, the oldest first; the writer's alone
//
// Invariants:
// - `words` is there for the life of the object, with `readersMax + 1` places. A reader's word is written by its thread alone.
// - The epoch only grows, and only the writer makes it grow.
// - What is retired was taken out of readers' reach before, by a sequentially consistent store.
// - The ring's places from `head` on, `count` of them and modulo `capacity`, are initialized; epochs grow from the first to the last.
// - `retire` is called only after `reserve` has made room, so it never fails.
//
// Why `unsafe` is right here: numbers of places come from `taken` alone and lie within 1...readersMax; places of the ring are taken modulo its
// capacity, a power of two.

/// Tells a writer when nobody can be reading any more what it has taken out of sight, without ever making a reader wait.
///
/// ```
///  reader   begin: announce the epoch ── looks up, copies ── end: announce nothing
///  writer   put the successor in sight ── retire the predecessor under the epoch ── epoch + 1 ── ... ── free it
/// ```
/// What was retired under an epoch is free once every reader that has announced one has announced a later one: it then began after
/// the successor was in sight. Announcing and looking up are sequentially consistent on both sides, so that either the writer sees
/// the reader or the reader sees what the writer did. Readers announce once for a batch of datagrams, not for each look-up.
@safe
package final class ReaderEpochs: @unchecked Sendable {
    package static let readersMax = 1024
    /// Things that may wait for readers. A reader for which more would wait stands still, and the table changes no more until it moves on.
    package static let waitingMax = 1 << 17
    private static let waitingAtFirst = 1 << 8
    /// Each place has two cache lines to itself: processors fetch them in pairs.
    private static let wordsPerPlace = 16
    @inlinable static var idle: UInt64 { .max }

    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let taken = Mutex(Set<Int>())
    private let places = Atomic<Int>(0)

    // The writer's own.
    private let memory: TableMemory
    private var waiting: TableMemory.Piece
    private var capacity: Int
    private var head = 0
    private var count = 0

    /// What the writer gets back.
    @safe
    package enum Retired {
        case slab(UInt32, units: Int)
        case memory(TableMemory.Piece)
    }

    private struct Waiting {
        var epoch: UInt64
        var item: Retired
    }

    /// One reader's place. Whoever has it begins and ends with it in one thread at a time.
    @safe
    package struct Reader: @unchecked Sendable {
        @usableFromInline let epoch: UnsafeMutablePointer<Atomic<UInt64>>
        @usableFromInline let own: UnsafeMutablePointer<Atomic<UInt64>>
        fileprivate let number: Int

        @inlinable @inline(__always)
        package func begin() {
            unsafe own.pointee.store(epoch.pointee.load(ordering: .sequentiallyConsistent), ordering: .sequentiallyConsistent)
        }

        @inlinable @inline(__always)
        package func end() { unsafe own.pointee.store(ReaderEpochs.idle, ordering: .sequentiallyConsistent) }
    }

    /// Ends the process if there is no memory for it.
    init(memory: TableMemory) {
        self.memory = memory
        capacity = Self.waitingAtFirst
        guard let ring = unsafe memory.allocate(capacity * MemoryLayout<Waiting>.stride) else {
            TableMemory.endWithoutTable()
        }
        unsafe waiting = ring
        let count = (Self.readersMax + 1) * Self.wordsPerPlace
        let raw = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: 128)
        unsafe words = raw.bindMemory(to: Atomic<UInt64>.self, capacity: count)
        for index in 0..<count { unsafe (words + index).initialize(to: Atomic(index < Self.wordsPerPlace ? 0 : Self.idle)) }
    }

    /// There are no readers any more: they hold the table.
    deinit {
        while count > 0 { if case .memory(let piece) = removeFirst() { unsafe memory.free(piece) } }
        unsafe memory.free(waiting)
        unsafe UnsafeMutableRawPointer(words).deallocate()
    }

    // MARK: Readers

    /// A place for one more reader; `nil` if all are taken.
    package func makeReader() -> Reader? {
        let number = taken.withLock { taken -> Int? in
            guard let free = (1...Self.readersMax).first(where: { !taken.contains($0) }) else { return nil }
            taken.insert(free)
            places.store(max(places.load(ordering: .relaxed), free), ordering: .sequentiallyConsistent)
            return free
        }
        return number.map { unsafe Reader(epoch: words, own: words + $0 * Self.wordsPerPlace, number: $0) }
    }

    /// Gives the place back; the reader is not used any more.
    package func remove(_ reader: Reader) {
        reader.end()
        taken.withLock { _ = $0.remove(reader.number) }
    }

    // MARK: The writer

    /// Makes room for so many more things to wait, 64 at most.
    package func reserve(_ further: Int) throws(MemoryRefusal) {
        guard count + further > capacity else { return }
        guard capacity < Self.waitingMax else { throw .readers(waiting: count) }
        let larger = capacity * 2
        guard let ring = unsafe memory.allocate(larger * MemoryLayout<Waiting>.stride) else { throw .system(octets: memory.refusedOctets) }
        for index in 0..<count {
            let place = unsafe Self.places(ring, larger) + index
            unsafe place.initialize(to: (Self.places(waiting, capacity) + (head + index) & (capacity - 1)).pointee)
        }
        unsafe memory.free(waiting)
        unsafe waiting = ring
        (capacity, head) = (larger, 0)
    }

    /// Takes charge of something that is out of sight for readers that begin from now on. `reserve` has made room.
    package func retire(_ item: Retired) {
        let entry = unsafe Waiting(epoch: words.pointee.load(ordering: .relaxed), item: item)
        unsafe (Self.places(waiting, capacity) + (head + count) & (capacity - 1)).initialize(to: entry)
        count += 1
        unsafe words.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    }

    /// What is free by now, the oldest first; call until `nil`.
    func takeFree() -> Retired? {
        guard count > 0, unsafe (Self.places(waiting, capacity) + head).pointee.epoch < oldestReader() else { return nil }
        return removeFirst()
    }

    /// Things retired and not yet free.
    package var waitingCount: Int { count }

    private func removeFirst() -> Retired {
        defer {
            head = (head + 1) & (capacity - 1)
            count -= 1
        }
        return unsafe (Self.places(waiting, capacity) + head).pointee.item
    }

    private static func places(_ ring: TableMemory.Piece, _ capacity: Int) -> UnsafeMutablePointer<Waiting> {
        unsafe ring.start.bindMemory(to: Waiting.self, capacity: capacity)
    }

    private func oldestReader() -> UInt64 {
        var oldest = Self.idle
        let places = places.load(ordering: .sequentiallyConsistent)
        if places > 0 {
            for place in 1...places {
                oldest = unsafe min(oldest, words[place * Self.wordsPerPlace].load(ordering: .sequentiallyConsistent))
            }
        }
        return oldest
    }
}
