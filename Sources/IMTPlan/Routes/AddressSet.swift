import MATCore
import MATSignal

/// Many addresses, each in 16 octets and ten to find it: a `Set` of 100,000 takes more than twice of that.
package struct AddressSet {

    package init() {}
    private var addresses: [ContiguousArray<IPAddress>] = []
    private var free: [UInt32] = []
    private var index = SlotIndex()

    private static let perChunk = 256

    package var count: Int { index.count }

    package func contains(_ address: IPAddress) -> Bool { slot(of: address) != nil }

    private func slot(of address: IPAddress) -> UInt32? {
        index.first(hash: SlotIndex.hash(address)) { addresses[Int($0) / Self.perChunk][Int($0) % Self.perChunk] == address }
    }

    package mutating func insert(_ address: IPAddress) {
        guard slot(of: address) == nil else { return }
        let slot: UInt32
        if let reused = free.popLast() {
            slot = reused
            addresses[Int(slot) / Self.perChunk][Int(slot) % Self.perChunk] = address
        } else {
            if addresses.last.map({ $0.count == Self.perChunk }) ?? true {
                var chunk = ContiguousArray<IPAddress>()
                chunk.reserveCapacity(Self.perChunk)
                addresses.append(chunk)
            }
            addresses[addresses.count - 1].append(address)
            slot = UInt32((addresses.count - 1) * Self.perChunk + addresses[addresses.count - 1].count - 1)
        }
        index.insert(slot, hash: SlotIndex.hash(address))
    }

    package mutating func remove(_ address: IPAddress) {
        guard let slot = slot(of: address) else { return }
        index.remove(slot, hash: SlotIndex.hash(address))
        free.append(slot)
    }

    package mutating func removeAll() { self = AddressSet() }

    /// Some of the members, to go through all of them bit by bit: those in places from `place` on.
    /// - Returns: also where the next begin; `nil` after the last.
    package func some(from place: Int, _ count: Int) -> (members: [IPAddress], next: Int?) {
        let end = min(place + count, addresses.reduce(0) { $0 + $1.count })
        guard place < end else { return ([], nil) }
        let members = (place..<end).map { addresses[$0 / Self.perChunk][$0 % Self.perChunk] }.filter(contains)
        return (members, end < place + count ? nil : end)
    }
}
