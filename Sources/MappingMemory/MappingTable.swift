import MATSignal

// What lies where:
//   arena:            blocks (`MappingBlock`) and the segments of both indexes, under names of 32 bits
//   forward, reverse: their directories, in memory of the heap; names of blocks by HoA prefix and by MoA or MoPre
//   homeLengths, locatorLengths: two words each, a bit for each prefix length in use
//
// Invariants:
// - One thread changes; it is also the only one that calls anything here but `view` and `epochs`.
// - A block is whole before the index names it, and never changed afterwards. A change makes a new block, puts its name where the old
//   one's was, and retires the old one; `reclaim` frees it when no reader can have it (`ReaderEpochs`).
// - Each entry of `forward` names the one block of its HoA prefix; each entry of `reverse` names a block that lists the locator.
// - Room is made first: from the first store that readers can see, nothing that a change does can fail. What is refused before that
//   leaves all entries as they were; at most a segment was divided, which nobody notices.
//
// Why `unsafe` is right here: names come from the index, so they are those of blocks that are not freed; the octets of a `PackedMapping`
// hold during the call, and are as long as `write` takes them for (`PackedMapping.init`).

/// Mappings by HoA with longest-prefix match, and the way back from a MoA.
///
/// It holds what nodes registered here, including withdrawn and expired mappings: those are the marks below which no version is
/// accepted again.
///
/// One thread, the core's, reads and changes it by the methods here. Any number of threads look up at the same time by `view`, each
/// under a reader of `epochs`, and never wait:
///
/// ```
///  forward: HoA prefix ──► block        block: head, then MAPPING, SIGNATURE, CERTIFICATE as they go on the wire; never changed
///  reverse: MoA, MoPre ──► block        a change makes a new block, puts it where the old one was, and retires that
/// ```
/// A mapping with one locator takes 384 octets and two slots of 9 to 18 octets each.
package final class MappingTable: @unchecked Sendable {
    package let epochs: ReaderEpochs
    package let view: MappingView
    /// Where all memory of the table comes from, and of whatever else its readers look at.
    package let memory: TableMemory
    private let arena: SlabArena
    private var forward: SegmentedIndex
    /// One MoA belongs to one HoA: the newest proof holds it.
    private var reverse: SegmentedIndex
    private let homeLengths = PrefixLengthSet()
    private let locatorLengths = PrefixLengthSet()
    private let hash = TableHash()

    /// - Parameter memory: without enough for an empty table the process ends.
    package init(memory: TableMemory = TableMemory()) {
        self.memory = memory
        epochs = ReaderEpochs(memory: memory)
        arena = SlabArena(memory: memory)
        forward = SegmentedIndex(arena: arena, epochs: epochs, memory: memory)
        reverse = SegmentedIndex(arena: arena, epochs: epochs, memory: memory)
        view = MappingView(
            forward: forward.view, reverse: reverse.view, arena: arena.view, hash: hash, homeLengths: homeLengths.view,
            locatorLengths: locatorLengths.view)
    }

    deinit {
        forward.deallocate()
        reverse.deallocate()
    }

    package var count: Int { forward.count }

    /// Octets that it occupies, with what is reserved and not yet used.
    package var octetsCount: Int { arena.octetsCount + forward.directoryOctets + reverse.directoryOctets }

    // MARK: Looking up

    /// The entry of exactly this HoA prefix, expired or not.
    package subscript(prefix: IPPrefix) -> StoredMapping? { view.find(prefix.address, prefix.length)?.stored }

    /// Whether there is one, without making a value of it.
    package func contains(_ prefix: IPPrefix) -> Bool { view.find(prefix.address, prefix.length) != nil }

    /// The version of the entry of exactly this HoA prefix.
    package func version(of prefix: IPPrefix) -> RecordVersion? { view.find(prefix.address, prefix.length)?.version }

    /// The certificate of the entry of exactly this HoA prefix.
    package func certificate(of prefix: IPPrefix) -> Certificate? { view.find(prefix.address, prefix.length)?.certificate }

    /// The id of that certificate, which is not hashed anew for it.
    package func certificateID(of prefix: IPPrefix) -> CertificateID? {
        view.find(prefix.address, prefix.length).map { CertificateID(rawValue: $0.certificateID) }
    }

    /// When that certificate begins to be valid, Unix time in ms.
    package func certificateNotBefore(of prefix: IPPrefix) -> UInt64? { view.find(prefix.address, prefix.length)?.notBefore }

    /// The entry whose HoA prefix is the longest that covers the address, expired or not.
    package func entry(covering address: IPAddress) -> StoredMapping? { view.block(covering: address)?.stored }

    /// The entry that holds the MoA, if it is still valid.
    package func entry(holding moa: MobileAddress, now: Now) -> StoredMapping? {
        guard let block = view.block(holding: moa.address), block.expires > now.wallMilliseconds else { return nil }
        return block.stored
    }

    // MARK: Walking

    /// All entries, in no order that means anything. The table must not be changed meanwhile.
    package var all: some Sequence<StoredMapping> {
        sequence(state: (page: [StoredMapping](), next: UInt64?(0))) { [self] state -> StoredMapping? in
            while state.page.isEmpty {
                guard let from = state.next else { return nil }
                state.next = walk(from: from, atLeast: 1) { state.page.append($0) }
            }
            return state.page.removeLast()
        }
    }

    /// Calls `body` with at least `count` entries, in an order that stays the same whatever is changed between calls: an entry that is
    /// there all the while is seen once.
    ///
    /// - Parameter from: 0 at the beginning, then what the call before returned.
    /// - Returns: from where to go on; `nil` if that was all.
    package func walk(from: UInt64, atLeast count: Int, _ body: (StoredMapping) -> Void) -> UInt64? {
        walkBlocks(from: from, atLeast: count) { block in
            if let stored = block.stored { body(stored) }
        }
    }

    /// The same without making values, which takes far longer than looking at what stands in memory. The blocks hold during the call.
    package func walkBlocks(from: UInt64, atLeast count: Int, _ body: (MappingBlock) -> Void) -> UInt64? {
        forward.walk(from: from, atLeast: count) { body(block($0)) }
    }

    /// Calls `body` with the HoA prefix of each entry, in no order.
    package func forEachPrefix(_ body: (IPPrefix) -> Void) {
        _ = forward.walk(from: 0, atLeast: .max) { body(block($0).prefix) }
    }

    /// In the order of their HoAs, for lists.
    package func sorted() -> [StoredMapping] { page(count: .max) }

    /// Up to `count` entries in the order of their HoAs, those after `after`. Looks at all entries and keeps the names of the first, so
    /// that a page takes a page's memory.
    package func page(after: IPPrefix? = nil, count: Int) -> [StoredMapping] { page(after: after, count: count, of: { _ in true }) }

    /// The same of those that are wanted.
    package func page(after: IPPrefix? = nil, count: Int, where isWanted: (StoredMapping) -> Bool) -> [StoredMapping] {
        page(after: after, count: count, of: { $0.stored.map(isWanted) ?? false })
    }

    private func page(after: IPPrefix?, count: Int, of isWanted: (MappingBlock) -> Bool) -> [StoredMapping] {
        prefixes(after: after, count: count, of: isWanted).compactMap { self[$0] }
    }

    /// The first `count` HoA prefixes that are wanted, in order.
    package func prefixes(count: Int, where isWanted: (IPPrefix) -> Bool) -> [IPPrefix] {
        prefixes(after: nil, count: count) { isWanted($0.prefix) }
    }

    private func prefixes(after: IPPrefix?, count: Int, of isWanted: (MappingBlock) -> Bool) -> [IPPrefix] {
        guard count > 0 else { return [] }
        var prefixes: [IPPrefix] = []
        var bound: IPPrefix?
        let most = count > Int.max / 2 ? Int.max : max(2 * count, 1024)
        var from: UInt64? = 0
        while let start = from {
            from = forward.walk(from: start, atLeast: 1) { name in
                let block = self.block(name)
                let prefix = block.prefix
                if let after, prefix <= after { return }
                if let bound, prefix >= bound { return }
                guard isWanted(block) else { return }
                prefixes.append(prefix)
                guard prefixes.count >= most else { return }
                prefixes.sort()
                prefixes.removeSubrange(count...)
                bound = prefixes.last
            }
        }
        prefixes.sort()
        return Array(prefixes.prefix(count))
    }

    // MARK: Changing

    /// Things that one change retires at most: a block, and for its HoA and each locator a segment and a directory.
    private static let retiredPerChangeMax = 1 + 2 * (1 + MappingRecord.locatorsMax)

    /// Sees to it that so many further mappings can be set of which each has as many locators as this one: takes memory ahead. What can be made
    /// durable only once is to be accepted only after this. Directories apart, which double at a time and are not taken ahead.
    ///
    /// - Throws: why they can't; nothing has changed.
    package func reserve(_ count: Int, recordOctets: Int) throws(MemoryRefusal) {
        reclaim()
        try epochs.reserve(Self.retiredPerChangeMax)
        guard
            arena.reserve(
                count, units: MappingBlock.units(recordOctets: recordOctets), 2 * SegmentedIndex.segments(for: count),
                units: SegmentedIndex.unitsPerSegment)
        else { throw .system(octets: memory.refusedOctets) }
    }

    /// Replaces the entry of the mapping's HoA prefix. The caller has compared versions.
    ///
    /// - Throws: if there is no memory for it; nothing has changed.
    package func set(_ mapping: StoredMapping) throws(MemoryRefusal) {
        let expires = mapping.record.expires
        let outcome = mapping.withPacked { packed in Result { () throws(MemoryRefusal) in try set(packed, expires: expires) } }
        try outcome.get()
    }

    /// The same of octets that are well-formed (`PackedMapping.wellFormed`), without making a value of them.
    package func set(_ mapping: PackedMapping, expires: UInt64) throws(MemoryRefusal) {
        reclaim()
        try epochs.reserve(Self.retiredPerChangeMax)
        guard let name = arena.allocate(units: MappingBlock.units(recordOctets: mapping.recordCount)) else {
            throw .system(octets: memory.refusedOctets)
        }
        unsafe MappingBlock.write(mapping, expires: expires, to: arena.view.pointer(name))
        let block = self.block(name)
        let tag = hash.tag(block.hoa, block.prefixLength)
        let found = unsafe forward.view.find(tag) { unsafe MappingBlock($0).isOf(block.hoa, block.prefixLength) }
        guard unsafe (found != nil || forward.makeRoom(tag)) && makeRoomForLocators(of: block) else {
            arena.deallocate(name, units: block.units)
            throw .system(octets: memory.refusedOctets)
        }
        // From here on nothing fails.
        if let found = unsafe found {
            unsafe forward.replace(found.slot, with: name, tag: tag)
        } else {
            homeLengths.add(block.prefixLength)
            forward.insert(name, tag: tag)
        }
        for index in 0..<block.locatorsCount {
            if let locator = block.locator(index) { own(locator, name, block) }
        }
        guard let earlier = unsafe found?.name else { return }
        release(earlier)
        epochs.retire(.slab(earlier, units: self.block(earlier).units))
    }

    /// - Returns: whether there is room for those of its locators that nobody holds yet.
    private func makeRoomForLocators(of block: MappingBlock) -> Bool {
        for index in 0..<block.locatorsCount {
            guard let locator = block.locator(index) else { continue }
            let tag = hash.tag(locator.address, locator.length)
            guard reverse.hasRoom(tag) || isHeld(locator, tag) || reverse.makeRoom(tag) else { return false }
        }
        return true
    }

    private func isHeld(_ locator: IPPrefix, _ tag: UInt32) -> Bool {
        unsafe reverse.view.find(tag, where: { unsafe MappingBlock($0).lists(locator.address, locator.length) }) != nil
    }

    /// - Throws: if the memory of what is removed can't be noted for when its readers are gone; nothing has changed.
    package func remove(_ prefix: IPPrefix) throws(MemoryRefusal) {
        reclaim()
        try epochs.reserve(Self.retiredPerChangeMax)
        let tag = hash.tag(prefix.address, prefix.length)
        guard let (slot, name) = unsafe forward.view.find(tag, where: { unsafe MappingBlock($0).isOf(prefix.address, prefix.length) }) else { return }
        unsafe forward.remove(slot, tag: tag)
        homeLengths.remove(prefix.length)
        release(name)
        epochs.retire(.slab(name, units: block(name).units))
    }

    /// Lets the block hold the locator, unless another HoA's has a newer proof.
    private func own(_ locator: IPPrefix, _ name: UInt32, _ block: MappingBlock) {
        let tag = hash.tag(locator.address, locator.length)
        guard let (slot, holder) = unsafe reverse.view.find(tag, where: { unsafe MappingBlock($0).lists(locator.address, locator.length) }) else {
            locatorLengths.add(locator.length)
            reverse.insert(name, tag: tag)
            return
        }
        let other = self.block(holder)
        // At a start entries come in any order, so the time of the proof decides and not the order.
        guard other.isOf(block.hoa, block.prefixLength) || other.provenAt <= block.provenAt else { return }
        unsafe reverse.replace(slot, with: name, tag: tag)
    }

    /// Takes away the locators that this block still holds.
    private func release(_ name: UInt32) {
        let block = self.block(name)
        for index in 0..<block.locatorsCount {
            guard let locator = block.locator(index) else { continue }
            let tag = hash.tag(locator.address, locator.length)
            guard let (slot, holder) = unsafe reverse.view.find(tag, where: { unsafe MappingBlock($0).lists(locator.address, locator.length) }),
                holder == name
            else { continue }
            unsafe reverse.remove(slot, tag: tag)
            locatorLengths.remove(locator.length)
        }
    }

    /// Takes back what no reader can see any more: all of it here, so that the table grows no more than its readers are slow.
    private func reclaim() {
        while let item = epochs.takeFree() { free(item) }
    }

    private func free(_ item: ReaderEpochs.Retired) {
        switch item {
        case .slab(let name, let units): arena.deallocate(name, units: units)
        case .memory(let piece): unsafe memory.free(piece)
        }
    }

    /// The block of a name that the index has.
    private func block(_ name: UInt32) -> MappingBlock { unsafe MappingBlock(arena.view.pointer(name)) }
}
