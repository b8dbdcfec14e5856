import Testing

@testable import MATCore

@Suite("Tables") struct TableTests {
    @Test("Slots are found by their keys, whatever came and went, also where hashes collide")
    func slotIndex() {
        var random = SystemRandomNumberGenerator()
        // Only the lowest bits of a hash differ, so that every slot probes past others.
        var index = SlotIndex()
        var keys: [UInt32: Int] = [:]
        func hash(_ key: Int) -> UInt32 { UInt32(key % 7) }
        var model: [Int: UInt32] = [:]
        for _ in 0..<20_000 {
            let key = Int.random(in: 0..<200, using: &random)
            if let slot = model[key] {
                index.remove(slot, hash: hash(key))
                model[key] = nil
                keys[slot] = nil
            } else {
                let slot = UInt32(key + 1000)
                index.insert(slot, hash: hash(key))
                model[key] = slot
                keys[slot] = key
            }
        }
        #expect(index.count == model.count)
        for key in 0..<200 { #expect(index.first(hash: hash(key)) { keys[$0] == key } == model[key]) }
        // Removing an absent key changes nothing.
        index.remove(1, hash: 3)
        #expect(index.count == model.count)
    }

    @Test("A full table pushes out what was entered first; what is entered anew counts as new, what is only changed does not")
    func bounded() {
        var table = BoundedTable<Int, String>(max: 3)
        for key in 1...3 { table[key] = "\(key)" }
        table[1] = "changed"
        table[2] = nil
        table[2] = "again"
        table[4] = "4"
        #expect(table.count == 3 && table[1] == nil && table[2] == "again" && table[3] == "3" && table[4] == "4")
        for key in 5...1000 { table[key] = "" }
        #expect(table.count == 3 && table[1000] == "" && table[998] == "")
    }
}
