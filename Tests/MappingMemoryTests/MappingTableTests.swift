import Glibc
import MATSignal
import SeededRandom
import Synchronization
import Testing

@testable import MappingMemory

@Suite("The table of mappings")
struct MappingTableTests {
    private let template: Certificate

    init() throws { template = try Population.certificate() }

    private func mapping(
        _ hoa: IPAddress, length: UInt8 = 128, at moas: [IPAddress], sequence: UInt64 = 1, provenAt: UInt64 = 1
    ) throws -> StoredMapping {
        try Population.mapping(hoa, length: length, at: moas, sequence: sequence, provenAt: provenAt, certificate: template)
    }

    private let now = Now(monotonic: .zero, wallMilliseconds: 1)

    @Test("What is put in comes out the same, with any number of locators, and networks match by their longest prefix")
    func roundTrip() throws {
        let table = MappingTable()
        for count in 0...MappingRecord.locatorsMax {
            let one = try mapping(Population.hoa(count), at: (0..<count).map { Population.moa(100 * count + $0) })
            try table.set(one)
            #expect(table[one.record.prefix] == one && table.entry(covering: Population.hoa(count)) == one)
            for locator in one.record.locators { #expect(table.entry(holding: locator.moa, now: now) == one) }
        }
        let network = try mapping(address("2001:db8:10:5::"), length: 64, at: [address("2001:db8:aa:7::")])
        try table.set(network)
        #expect(table.entry(covering: address("2001:db8:10:5::99")) == network)
        #expect(table.entry(holding: MobileAddress(address("2001:db8:aa:7::3")), now: now) == network)
        let inner = try mapping(address("2001:db8:10:5::99"), at: [address("2001:db8:aa:7::3")])
        try table.set(inner)
        #expect(table.entry(covering: address("2001:db8:10:5::99")) == inner)
        #expect(table.entry(covering: address("2001:db8:10:5::98")) == network)
        #expect(table.entry(holding: MobileAddress(address("2001:db8:aa:7::3")), now: now) == inner)
        try table.remove(network.record.prefix)
        #expect(table.entry(covering: address("2001:db8:10:5::98")) == nil)
        #expect(table.entry(holding: MobileAddress(address("2001:db8:aa:7::4")), now: now) == nil)
        #expect(table.count == MappingRecord.locatorsMax + 2)
    }

    @Test("It agrees with two dictionaries over thousands of random changes, and its pages with their order")
    func againstModel() throws {
        let table = MappingTable()
        var entries: [IPPrefix: StoredMapping] = [:]
        var owners: [IPPrefix: IPPrefix] = [:]
        var random = SeededGenerator(seed: 11)
        for step in 1...6000 {
            let hoa = Population.hoa(Int.random(in: 0..<3000, using: &random))
            let prefix = IPPrefix(hoa)
            if Int.random(in: 0..<10, using: &random) == 0 {
                try table.remove(prefix)
                for (moa, owner) in owners where owner == prefix && (entries[prefix]?.record.lists(MobileAddress(moa.address)) ?? false) {
                    owners[moa] = nil
                }
                entries[prefix] = nil
            } else {
                // None twice: that is malformed.
                let moas = Set((0..<Int.random(in: 0...3, using: &random)).map { _ in Int.random(in: 0..<2000, using: &random) })
                    .sorted().map(Population.moa)
                let proven = UInt64.random(in: 0..<100, using: &random)
                let one = try mapping(hoa, at: moas, sequence: UInt64(step), provenAt: proven)
                try table.set(one)
                for locator in entries[prefix]?.record.locators ?? [] where owners[locator.prefix] == prefix { owners[locator.prefix] = nil }
                entries[prefix] = one
                for locator in one.record.locators {
                    if let owner = owners[locator.prefix], owner != prefix, let other = entries[owner], other.provenAt > proven { continue }
                    owners[locator.prefix] = prefix
                }
            }
        }
        #expect(table.count == entries.count)
        for number in 0..<3000 { #expect(table[IPPrefix(Population.hoa(number))] == entries[IPPrefix(Population.hoa(number))]) }
        for number in 0..<2000 {
            let moa = Population.moa(number)
            #expect(table.entry(holding: MobileAddress(moa), now: now) == owners[IPPrefix(moa)].flatMap { entries[$0] })
        }
        #expect(table.sorted().map(\.record.prefix) == entries.keys.sorted())
        var paged: [IPPrefix] = []
        while true {
            let page = table.page(after: paged.last, count: 700)
            paged += page.map(\.record.prefix)
            if page.count < 700 { break }
        }
        #expect(paged == entries.keys.sorted())
        #expect(Set(table.all.map(\.record.prefix)) == Set(entries.keys))
    }

    @Test("200,000 mappings with certificate and signature take at most 512 octets each, and none is lost while it grows")
    func growth() throws {
        let table = MappingTable()
        let count = 200_000
        var stamp = Stamp(try mapping(Population.hoa(0), at: [Population.moa(0)]))
        for number in 0..<count {
            guard stamp.put(number, into: table) else { return #expect(Bool(false), "\(number) is not well-formed") }
            // Growth happens at any count; what came long before must be there all the while.
            if number % 997 == 0 {
                #expect(table.contains(IPPrefix(Population.hoa(number / 2))))
                #expect(table.view.block(holding: Population.moa(number / 3)) != nil)
            }
        }
        #expect(table.count == count)
        let perMapping = Double(table.octetsCount) / Double(count)
        print("octets per mapping at \(count): \(perMapping)")
        #expect(perMapping <= 512)
        for number in stride(from: 0, to: count, by: 7) {
            let block = table.view.block(covering: Population.hoa(number))
            #expect(block?.hoa == Population.hoa(number))
        }
    }

    @Test("A walk in steps sees each mapping once, whatever changes meanwhile")
    func walk() throws {
        let table = MappingTable()
        var stamp = Stamp(try mapping(Population.hoa(0), at: [Population.moa(0)]))
        let count = 9000
        for number in 0..<count { stamp.put(number, into: table) }
        var seen: [IPPrefix: Int] = [:]
        var from: UInt64? = 0
        var added = count
        while let start = from {
            from = table.walk(from: start, atLeast: 1000) { seen[$0.record.prefix, default: 0] += 1 }
            // Segments are divided while it goes on.
            for _ in 0..<3000 {
                stamp.put(added, into: table)
                added += 1
            }
        }
        for number in 0..<count { #expect(seen[IPPrefix(Population.hoa(number))] == 1) }
    }

    @Test("What decoding refuses is not well-formed, whatever octet is changed")
    func wellFormed() throws {
        var random = SeededGenerator(seed: 12)
        var refused = 0
        for number in 0..<3000 {
            var packed = PackedMappings()
            var one = try mapping(
                Population.hoa(1), at: (0..<number % 4).map { Population.moa($0) }, sequence: UInt64.random(in: 0 ... .max, using: &random))
            one.source.port = 1
            var record = one.record.octets
            var certificate = one.certified.certificate.octets
            let place = Int.random(in: 0..<record.count + 20, using: &random)
            let bit = UInt8(1) << UInt8.random(in: 0...7, using: &random)
            if place < record.count { record[place] ^= bit } else { certificate[place - record.count] ^= bit }
            record.withUnsafeBytes { record in
                one.certified.mapping.signature.octets.withUnsafeBytes { signature in
                    certificate.withUnsafeBytes { certificate in
                        _ = packed.append(
                            record: record, signature: signature, certificate: certificate, source: one.source, local: one.local, provenAt: 7)
                    }
                }
            }
            packed.forEach { packed in
                let stored = packed.stored
                let facts = packed.wellFormed
                if stored == nil { refused += 1 }
                if let stored, stored.record.prefix == stored.certified.certificate.prefix {
                    #expect(facts?.prefix == stored.record.prefix && facts?.version == stored.certified.version)
                    #expect(facts?.expires == stored.record.expires)
                } else {
                    #expect(facts == nil)
                }
            }
        }
        #expect(refused > 100)
    }

    @Test("Handovers without end take no more room than their number at a time")
    func churn() throws {
        let table = MappingTable()
        for number in 0..<1000 { try table.set(try mapping(Population.hoa(number), at: [Population.moa(number)])) }
        let before = table.octetsCount
        for step in 1000..<13_000 {
            try table.set(try mapping(Population.hoa(step % 1000), at: [Population.moa(step)], sequence: UInt64(step), provenAt: UInt64(step)))
        }
        #expect(table.count == 1000 && table.octetsCount <= before + 2 * SlabArena.chunkOctets)
        #expect(table.view.block(holding: Population.moa(12_999)) != nil && table.view.block(holding: Population.moa(11_999)) == nil)
    }

    @Test("Readers in other threads find every mapping whole while it is replaced, and never an older one after a newer")
    func concurrentReaders() throws {
        let table = MappingTable()
        let template = template
        let fixed = 500
        for number in 0..<fixed { try table.set(try mapping(Population.hoa(number), at: [Population.moa(number)])) }
        let end = Atomic<Bool>(false)
        let looked = Atomic<Int>(0)
        struct Wrong: Error {}

        final class Shared: @unchecked Sendable {
            let table: MappingTable
            let failures = Mutex<[String]>([])
            init(_ table: MappingTable) { self.table = table }
            func fail(_ text: String) { failures.withLock { $0.append(text) } }
        }
        let shared = Shared(table)
        withThreads(
            3,
            { thread in
                guard let reader = shared.table.epochs.makeReader() else { return shared.fail("no place for a reader") }
                var newest = [UInt64](repeating: 0, count: fixed)
                var random = SeededGenerator(seed: UInt64(thread))
                var turns = 0
                while !end.load(ordering: .relaxed) || turns < 10 {
                    turns += 1
                    reader.begin()
                    for _ in 0..<64 {
                        let number = Int.random(in: 0..<fixed, using: &random)
                        guard let block = shared.table.view.block(covering: Population.hoa(number)) else {
                            shared.fail("\(number) is missing")
                            continue
                        }
                        // The head, the record and the certificate are of one mapping.
                        guard let stored = block.stored, stored.record.hoa.address == Population.hoa(number),
                            stored.certified.certificate.hoa.address == Population.hoa(number), block.expires == stored.record.expires,
                            stored.provenAt == stored.record.sequence
                        else {
                            shared.fail("\(number) is torn")
                            continue
                        }
                        if stored.record.sequence < newest[number] { shared.fail("\(number) went back") }
                        newest[number] = stored.record.sequence
                        _ = shared.table.view.block(holding: Population.moa(number))
                        looked.wrappingAdd(1, ordering: .relaxed)
                    }
                    reader.end()
                }
                shared.table.epochs.remove(reader)
            },
            {
                // Replaces those that are looked up; adds and removes others, so that segments are divided and made anew.
                for step in 2..<6002 {
                    let number = step % fixed
                    guard
                        let one = try? Population.mapping(
                            Population.hoa(number), at: [Population.moa(number), Population.moa(100_000 + step)], sequence: UInt64(step),
                            provenAt: UInt64(step), certificate: template),
                        let other = try? Population.mapping(Population.hoa(10_000 + step), at: [], certificate: template)
                    else { return shared.fail("no mapping was made") }
                    do throws(MemoryRefusal) {
                        try table.set(one)
                        try table.set(other)
                        if step % 3 == 0 { try table.remove(IPPrefix(Population.hoa(10_000 + step - 1))) }
                    } catch {
                        shared.fail("\(error)")
                    }
                }
                end.store(true, ordering: .relaxed)
            })
        let failures = shared.failures.withLock { $0 }
        #expect(failures.isEmpty, "\(failures.prefix(5))")
        #expect(looked.load(ordering: .relaxed) > 0)
        #expect(table.epochs.waitingCount < 20_000)
    }
}
