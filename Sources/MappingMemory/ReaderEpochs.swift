import Synchronization

/// Tells a writer when nobody can be reading any more what it has taken out of sight, without ever making a reader wait.
///
/// ```
///  reader   begin: announce the epoch ── looks up, copies ── end: announce nothing
///  writer   put the successor in sight ── retire the predecessor under the epoch ── epoch + 1 ── ... ── free it
/// ```
/// What was retired under an epoch is free once every reader that has announced one has announced a later one: it then began after
/// the successor was in sight. Announcing and looking up are sequentially consistent on both sides, so that either the writer sees
/// the reader or the reader sees what the writer did. Readers announce once for a batch of datagrams, not for each look-up.
package final class ReaderEpochs: @unchecked Sendable {
    static let readersMax = 1024
    /// Each place has two cache lines to itself: processors fetch them in pairs.
    private static let wordsPerPlace = 16
    @inlinable static var idle: UInt64 { .max }

    /// The epoch, then the readers' announcements.
    private let words: UnsafeMutablePointer<Atomic<UInt64>>
    private let taken = Mutex(Set<Int>())
    private let places = Atomic<Int>(0)

    // The writer's own.
    private var waiting: [(epoch: UInt64, item: Retired)] = []
    private var head = 0

    /// What the writer gets back.
    package enum Retired {
        case slab(UInt32, units: Int)
        case memory(UnsafeMutableRawPointer)
    }

    /// One reader's place. Whoever has it begins and ends with it in one thread at a time.
    package struct Reader: @unchecked Sendable {
        @usableFromInline let epoch: UnsafeMutablePointer<Atomic<UInt64>>
        @usableFromInline let own: UnsafeMutablePointer<Atomic<UInt64>>
        fileprivate let number: Int

        @inlinable @inline(__always)
        package func begin() { own.pointee.store(epoch.pointee.load(ordering: .sequentiallyConsistent), ordering: .sequentiallyConsistent) }

        @inlinable @inline(__always)
        package func end() { own.pointee.store(ReaderEpochs.idle, ordering: .sequentiallyConsistent) }
    }

    package init() {
        let count = (Self.readersMax + 1) * Self.wordsPerPlace
        let raw = UnsafeMutableRawPointer.allocate(byteCount: count * 8, alignment: 128)
        words = raw.bindMemory(to: Atomic<UInt64>.self, capacity: count)
        for index in 0..<count { (words + index).initialize(to: Atomic(index < Self.wordsPerPlace ? 0 : Self.idle)) }
    }

    deinit {
        for entry in waiting[head...] { if case .memory(let memory) = entry.item { memory.deallocate() } }
        UnsafeMutableRawPointer(words).deallocate()
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
        return number.map { Reader(epoch: words, own: words + $0 * Self.wordsPerPlace, number: $0) }
    }

    /// Gives the place back; the reader is not used any more.
    package func remove(_ reader: Reader) {
        reader.end()
        taken.withLock { _ = $0.remove(reader.number) }
    }

    // MARK: The writer

    /// Takes charge of something that is out of sight for readers that begin from now on.
    package func retire(_ item: Retired) {
        waiting.append((words.pointee.load(ordering: .relaxed), item))
        words.pointee.wrappingAdd(1, ordering: .sequentiallyConsistent)
    }

    /// What is free by now, the oldest first; call until `nil`.
    package func takeFree() -> Retired? {
        guard head < waiting.count, waiting[head].epoch < oldestReader() else { return nil }
        let item = waiting[head].item
        head += 1
        if head == waiting.count || head >= 4096 {
            waiting.removeSubrange(0..<head)
            head = 0
        }
        return item
    }

    /// Things retired and not yet free.
    package var waitingCount: Int { waiting.count - head }

    private func oldestReader() -> UInt64 {
        var oldest = Self.idle
        let places = places.load(ordering: .sequentiallyConsistent)
        if places > 0 {
            for place in 1...places {
                oldest = min(oldest, words[place * Self.wordsPerPlace].load(ordering: .sequentiallyConsistent))
            }
        }
        return oldest
    }
}
