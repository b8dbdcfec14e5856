import MATCore
import MATSignal

/// How packets to each peer leave and whom arriving packets are from: the two large maps, in one table.
///
/// Nearly always the MoA that a peer's packets go to is one that its packets come from, so one cell of 40 octets is both entries; it
/// is found by the pair of HoAs and by the arrival. With 100,000 peers that is 62 octets each, where two dictionaries took 270.
/// Nobody outside sees the cells: there are departures and arrivals.
package struct EntryTable {

    package init() {}
    private struct Cell {
        var peer: HomeAddress
        var moa: MobileAddress
        var own: UInt16
        /// The departure's path; 0 if the cell is none. Their number is small: see `TranslationRuleset.pathsMax`.
        var path: UInt16 = 0
        var isArrival = false

        var isFree: Bool { path == 0 && !isArrival }
    }

    private static let cellsPerChunk = 128

    private var chunks: [ContiguousArray<Cell>] = []
    private var free: [UInt32] = []
    /// Own HoAs by number; there are few.
    private var owns: [HomeAddress] = []
    private var byPair = SlotIndex()
    private var byArrival = SlotIndex()

    package var departuresCount: Int { byPair.count }
    package var arrivalsCount: Int { byArrival.count }

    // MARK: Departures

    package subscript(home: HomePair) -> Departure? {
        get { departure(home).map { Departure(path: UInt32(self[cell: $0].path), peer: self[cell: $0].moa) } }
        set { set(home, newValue) }
    }

    private func departure(_ home: HomePair) -> UInt32? {
        guard let own = owns.firstIndex(of: home.own) else { return nil }
        return byPair.first(hash: SlotIndex.hash(home)) { self[cell: $0].own == own && self[cell: $0].peer == home.peer }
    }

    private mutating func set(_ home: HomePair, _ new: Departure?) {
        let hash = SlotIndex.hash(home)
        if let old = departure(home) {
            if let new, self[cell: old].moa == new.peer {
                self[cell: old].path = UInt16(clamping: new.path)
                return
            }
            byPair.remove(old, hash: hash)
            self[cell: old].path = 0
            freeIfUnused(old)
        }
        guard let new else { return }
        let own = number(home.own)
        let moa = new.peer
        let same = byArrival.first(hash: SlotIndex.hash(Arrival(peer: moa, own: home.own))) {
            self[cell: $0].own == own && self[cell: $0].moa == moa && self[cell: $0].peer == home.peer && self[cell: $0].path == 0
        }
        let slot = same ?? place(Cell(peer: home.peer, moa: moa, own: own))
        self[cell: slot].path = UInt16(clamping: new.path)
        byPair.insert(slot, hash: hash)
    }

    // MARK: Arrivals

    package subscript(arrival: Arrival) -> HomeAddress? {
        get { self.arrival(arrival).map { self[cell: $0].peer } }
        set { set(arrival, newValue) }
    }

    private func arrival(_ arrival: Arrival) -> UInt32? {
        guard let own = owns.firstIndex(of: arrival.own) else { return nil }
        return byArrival.first(hash: SlotIndex.hash(arrival)) { self[cell: $0].own == own && self[cell: $0].moa == arrival.peer }
    }

    private mutating func set(_ arrival: Arrival, _ peer: HomeAddress?) {
        let hash = SlotIndex.hash(arrival)
        if let old = self.arrival(arrival) {
            guard self[cell: old].peer != peer else { return }
            byArrival.remove(old, hash: hash)
            self[cell: old].isArrival = false
            freeIfUnused(old)
        }
        guard let peer else { return }
        let own = number(arrival.own)
        let same = departure(HomePair(own: arrival.own, peer: peer)).flatMap { self[cell: $0].moa == arrival.peer ? $0 : nil }
        let slot = same ?? place(Cell(peer: peer, moa: arrival.peer, own: own))
        self[cell: slot].isArrival = true
        byArrival.insert(slot, hash: hash)
    }

    // MARK: All of them

    /// All departures, in no order that means anything.
    package var departures: some Sequence<(key: HomePair, value: Departure)> {
        chunks.lazy.joined().filter { $0.path != 0 }.map {
            (key: HomePair(own: owns[Int($0.own)], peer: $0.peer), value: Departure(path: UInt32($0.path), peer: $0.moa))
        }
    }

    package var arrivals: some Sequence<(key: Arrival, value: HomeAddress)> {
        chunks.lazy.joined().filter(\.isArrival).map { (key: Arrival(peer: $0.moa, own: owns[Int($0.own)]), value: $0.peer) }
    }

    // MARK: Cells

    private subscript(cell slot: UInt32) -> Cell {
        get { chunks[Int(slot) / Self.cellsPerChunk][Int(slot) % Self.cellsPerChunk] }
        _modify { yield &chunks[Int(slot) / Self.cellsPerChunk][Int(slot) % Self.cellsPerChunk] }
    }

    private mutating func place(_ cell: Cell) -> UInt32 {
        if let slot = free.popLast() {
            self[cell: slot] = cell
            return slot
        }
        if chunks.last.map({ $0.count == Self.cellsPerChunk }) ?? true {
            var chunk = ContiguousArray<Cell>()
            chunk.reserveCapacity(Self.cellsPerChunk)
            chunks.append(chunk)
        }
        chunks[chunks.count - 1].append(cell)
        return UInt32((chunks.count - 1) * Self.cellsPerChunk + chunks[chunks.count - 1].count - 1)
    }

    private mutating func freeIfUnused(_ slot: UInt32) {
        if self[cell: slot].isFree { free.append(slot) }
    }

    private mutating func number(_ own: HomeAddress) -> UInt16 {
        if let known = owns.firstIndex(of: own) { return UInt16(known) }
        owns.append(own)
        return UInt16(clamping: owns.count - 1)
    }
}

extension EntryTable: Equatable {
    package static func == (a: EntryTable, b: EntryTable) -> Bool {
        a.departuresCount == b.departuresCount && a.arrivalsCount == b.arrivalsCount && a.departures.allSatisfy { b[$0.key] == $0.value }
            && a.arrivals.allSatisfy { b[$0.key] == $0.value }
    }
}
