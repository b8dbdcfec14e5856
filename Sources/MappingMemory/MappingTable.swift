import MATSignal

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
    package let epochs = ReaderEpochs()
    package let view: MappingView
    private let arena = SlabArena()
    private var forward: SegmentedIndex
    /// One MoA belongs to one HoA: the newest proof holds it.
    private var reverse: SegmentedIndex
    private let homeLengths = PrefixLengthSet()
    private let locatorLengths = PrefixLengthSet()
    private let hash = TableHash()

    package init() {
        forward = SegmentedIndex(arena: arena, epochs: epochs)
        reverse = SegmentedIndex(arena: arena, epochs: epochs)
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
        forward.walk(from: from, atLeast: count) { body(MappingBlock(arena.view.pointer($0))) }
    }

    /// Calls `body` with the HoA prefix of each entry, in no order.
    package func forEachPrefix(_ body: (IPPrefix) -> Void) {
        _ = forward.walk(from: 0, atLeast: .max) { body(MappingBlock(arena.view.pointer($0)).prefix) }
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
                let block = MappingBlock(arena.view.pointer(name))
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

    /// Replaces the entry of the mapping's HoA prefix. The caller has compared versions.
    package func set(_ mapping: StoredMapping) {
        let certificate = mapping.certified.certificate
        mapping.record.octets.withUnsafeBytes { record in
            mapping.certified.mapping.signature.octets.withUnsafeBytes { signature in
                certificate.octets.withUnsafeBytes { octets in
                    set(
                        PackedMapping(
                            record: record, signature: signature, certificate: octets, source: mapping.source, local: mapping.local,
                            provenAt: mapping.provenAt), expires: mapping.record.expires)
                }
            }
        }
    }

    /// The same of octets that are well-formed (`PackedMapping.wellFormed`), without making a value of them.
    package func set(_ mapping: PackedMapping, expires: UInt64) {
        reclaim()
        let name = arena.allocate(units: MappingBlock.units(recordOctets: mapping.record.count))
        MappingBlock.write(mapping, expires: expires, to: arena.view.pointer(name))
        let block = MappingBlock(arena.view.pointer(name))
        let tag = hash.tag(block.hoa, block.prefixLength)
        let found = forward.view.find(tag) { MappingBlock($0).isOf(block.hoa, block.prefixLength) }
        if let found {
            forward.replace(found.slot, with: name, tag: tag)
        } else {
            homeLengths.add(block.prefixLength)
            forward.insert(name, tag: tag)
        }
        for index in 0..<block.locatorsCount { own(block.locator(index), name, block) }
        guard let earlier = found?.name else { return }
        release(earlier)
        epochs.retire(.slab(earlier, units: MappingBlock(arena.view.pointer(earlier)).units))
    }

    package func remove(_ prefix: IPPrefix) {
        reclaim()
        let tag = hash.tag(prefix.address, prefix.length)
        guard let (slot, name) = forward.view.find(tag, where: { MappingBlock($0).isOf(prefix.address, prefix.length) }) else { return }
        forward.remove(slot, tag: tag)
        homeLengths.remove(prefix.length)
        release(name)
        epochs.retire(.slab(name, units: MappingBlock(arena.view.pointer(name)).units))
    }

    /// Lets the block hold the locator, unless another HoA's has a newer proof.
    private func own(_ locator: IPPrefix, _ name: UInt32, _ block: MappingBlock) {
        let tag = hash.tag(locator.address, locator.length)
        guard let (slot, holder) = reverse.view.find(tag, where: { MappingBlock($0).lists(locator.address, locator.length) }) else {
            locatorLengths.add(locator.length)
            reverse.insert(name, tag: tag)
            return
        }
        let other = MappingBlock(arena.view.pointer(holder))
        // At a start entries come in any order, so the time of the proof decides and not the order.
        guard other.isOf(block.hoa, block.prefixLength) || other.provenAt <= block.provenAt else { return }
        reverse.replace(slot, with: name, tag: tag)
    }

    /// Takes away the locators that this block still holds.
    private func release(_ name: UInt32) {
        let block = MappingBlock(arena.view.pointer(name))
        for index in 0..<block.locatorsCount {
            let locator = block.locator(index)
            let tag = hash.tag(locator.address, locator.length)
            guard let (slot, holder) = reverse.view.find(tag, where: { MappingBlock($0).lists(locator.address, locator.length) }),
                holder == name
            else { continue }
            reverse.remove(slot, tag: tag)
            locatorLengths.remove(locator.length)
        }
    }

    /// Takes back what no reader can see any more: all of it here, so that the table grows no more than its readers are slow.
    private func reclaim() {
        while let item = epochs.takeFree() {
            switch item {
            case .slab(let name, let units): arena.deallocate(name, units: units)
            case .memory(let memory): memory.deallocate()
            }
        }
    }
}
