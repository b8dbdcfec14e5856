import MATSignal
import Testing

@testable import MappingMemory

/// A table, what it must hold, and an allocator that fails when it is told.
private final class TableBeforeGrowth {
    let table = MappingTable()
    private let template: Certificate
    /// Of each HoA the sequence of its mapping and its MoAs, by number.
    private(set) var held: [Int: (sequence: UInt64, moas: [Int])] = [:]
    private(set) var owners: [Int: Int] = [:]
    /// Requests for memory since the last call of `failing`.
    private(set) var requests = 0
    private var stamp: Stamp

    /// Mappings with which both indexes are full to the last slot before a division.
    static let count = SegmentedIndex.usedMax

    init() throws {
        template = try Population.certificate()
        stamp = Stamp(try Population.mapping(Population.hoa(0), at: [Population.moa(0)], certificate: template))
        for number in 0..<Self.count { try #require(put(number)) }
        // More replaced mappings wait for this reader than there is room for.
        let reader = try #require(table.epochs.makeReader())
        reader.begin()
        for number in 0..<250 { try #require(put(number)) }
    }

    /// A mapping with one MoA of its own.
    func put(_ number: Int) -> Bool {
        guard stamp.put(number, into: table) else { return false }
        note(number, 1, [number])
        return true
    }

    /// - Returns: whether it was refused.
    func isRefused(_ number: Int, at moas: [Int], sequence: UInt64) throws -> Bool {
        let mapping = try Population.mapping(
            Population.hoa(number), at: moas.map(Population.moa), sequence: sequence, provenAt: sequence, certificate: template)
        do throws(MemoryRefusal) {
            try table.set(mapping)
            note(number, sequence, moas)
            return false
        } catch {
            return true
        }
    }

    private func note(_ number: Int, _ sequence: UInt64, _ moas: [Int]) {
        for moa in held[number]?.moas ?? [] where owners[moa] == number { owners[moa] = nil }
        held[number] = (sequence, moas)
        for moa in moas { owners[moa] = number }
    }

    /// From now on requests are counted from 0, and those fail whose number says so.
    func failing(_ fails: @escaping (_ request: Int) -> Bool) {
        requests = 0
        table.memory.mayGrant = { [unowned self] _ in
            defer { requests += 1 }
            return !fails(requests)
        }
    }

    /// Compares all that can be looked up with what must be there.
    func check(_ comment: String) {
        #expect(table.count == held.count, "\(comment)")
        var wrong = 0
        for (number, mapping) in held {
            let block = table.view.block(covering: Population.hoa(number))
            let isRight =
                block?.hoa == Population.hoa(number) && block?.version?.sequence == mapping.sequence && block?.locatorsCount == mapping.moas.count
            if !isRight { wrong += 1 }
        }
        for (moa, owner) in owners where table.view.block(holding: Population.moa(moa))?.hoa != Population.hoa(owner) { wrong += 1 }
        #expect(wrong == 0, "\(comment)")
        for moa in [500_000, 500_001] where owners[moa] == nil { #expect(table.view.block(holding: Population.moa(moa)) == nil, "\(comment)") }
        var seen = 0
        table.forEachPrefix { _ in seen += 1 }
        #expect(seen == held.count, "\(comment)")
    }
}

@Suite("The table when memory ends")
struct FailingAllocationTests {
    @Test(
        "Whichever allocation fails, the change is refused or made as a whole, all else is found as before, and a later one succeeds",
        arguments: [false, true])
    func each(stays: Bool) throws {
        var failed = 0
        while true {
            let one = try TableBeforeGrowth()
            let number = failed
            let text = "\(stays ? "from" : "only") request \(number) on"
            one.failing { stays ? $0 >= number : $0 == number }
            // A new HoA with as many MoAs as there can be, so that both indexes grow; one that moves; one that moves back.
            let changes: [(hoa: Int, moas: [Int])] = [
                (TableBeforeGrowth.count, Array(500_000..<500_008)), (7, [500_100, 500_101]), (TableBeforeGrowth.count + 1, []),
            ]
            var refused: [Int] = []
            for (index, change) in changes.enumerated() where try one.isRefused(change.hoa, at: change.moas, sequence: 9) { refused.append(index) }
            one.check(text)
            let requests = one.requests
            one.failing { _ in false }
            for index in refused { #expect(try !one.isRefused(changes[index].hoa, at: changes[index].moas, sequence: 9), "\(text)") }
            for number in 0..<50 { #expect(one.put(10_000 + number), "\(text)") }
            one.check("later, \(text)")
            // Until nothing failed: the last turn made all changes at once.
            guard requests > number else {
                #expect(refused.isEmpty && number > 8)
                break
            }
            failed += 1
        }
    }

    @Test("Without memory for the index it fills up to its last slots, refuses what is new, still takes moves, and grows as soon as it can")
    func fullIndex() throws {
        let one = try TableBeforeGrowth()
        one.table.memory.mayGrant = { $0 < SegmentedIndex.unitsPerSegment * SlabArena.unitOctets }
        var number = TableBeforeGrowth.count
        while one.put(number) { number += 1 }
        #expect(number > 4000 && number < 4096)
        one.check("full")
        #expect(try !one.isRefused(11, at: [11], sequence: 9), "a refresh needs no new place")
        #expect(try one.isRefused(12, at: [600_000], sequence: 9), "a new MoA does")
        one.check("full, and after moves")
        one.table.memory.mayGrant = nil
        for number in number..<number + 4000 { #expect(one.put(number)) }
        one.check("grown")
    }

    @Test("What was reserved can be set, though the system gives nothing more")
    func reserved() throws {
        let one = try TableBeforeGrowth()
        let further = 9000
        try one.table.reserve(further, recordOctets: 60)
        one.table.memory.mayGrant = { $0 < SlabArena.chunkOctets }
        for number in 0..<further { #expect(one.put(20_000 + number)) }
        one.check("reserved")
        #expect(throws: MemoryRefusal.self) { try one.table.reserve(100_000, recordOctets: 60) }
        one.check("and no more")
    }

    @Test("A reader that stands still makes the table refuse changes in the end; it takes them again when the reader moves on")
    func stuckReader() throws {
        let table = MappingTable()
        let reader = try #require(table.epochs.makeReader())
        reader.begin()
        var stamp = Stamp(try Population.mapping(Population.hoa(0), at: [Population.moa(0)], certificate: try Population.certificate()))
        var changes = 0
        while stamp.put(changes % 100, into: table) {
            changes += 1
            guard changes <= ReaderEpochs.waitingMax + 100 else { break }
        }
        #expect(changes > ReaderEpochs.waitingMax - 100 && changes < ReaderEpochs.waitingMax + 100)
        #expect(throws: MemoryRefusal.readers(waiting: table.epochs.waitingCount)) { try table.reserve(1, recordOctets: 60) }
        #expect(table.count == 100 && table.view.block(holding: Population.moa(99)) != nil)
        reader.end()
        #expect(stamp.put(5, into: table) && table.epochs.waitingCount < 10)
    }
}
