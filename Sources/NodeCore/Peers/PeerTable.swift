import MATCore
import MATSignal

/// A peer's place in the table, as long as it is entered; afterwards another peer may get it.
struct PeerSlot: Hashable, Sendable {
    fileprivate let number: UInt32
}

/// All peers: by HoA, by the locators that they own, and by when each is due.
///
/// Each peer stands once, in a cell that never moves; everything else names cells by number. Cells are allocated some at a time,
/// so that growing copies nothing and leaves little room unused. With 100,000 peers that is 300 octets each where
/// dictionaries by HoA, by locator and by deadline took 1,900.
struct PeerTable: Sendable {
    private struct Cell {
        var peer: Peer?
        var due = MonotonicTime.distantFuture
        /// In `schedule`; `unscheduled` if nothing is due.
        var place = unscheduled
    }

    private static let unscheduled = UInt32.max
    private static let cellsPerChunk = 64

    private var chunks: [ContiguousArray<Cell>] = []
    private var free: [UInt32] = []
    private var byHoA = SlotIndex()
    private var byLocator = SlotIndex()
    /// A heap of slots, the one due first on top.
    private var schedule: [UInt32] = []
    private var counts = FamilyPair(ipv4: 0, ipv6: 0)

    // MARK: By slot

    private subscript(cell number: UInt32) -> Cell {
        get { chunks[Int(number) / Self.cellsPerChunk][Int(number) % Self.cellsPerChunk] }
        _modify { yield &chunks[Int(number) / Self.cellsPerChunk][Int(number) % Self.cellsPerChunk] }
    }

    private func peer(_ number: UInt32) -> Peer? { chunks[Int(number) / Self.cellsPerChunk][Int(number) % Self.cellsPerChunk].peer }

    /// The peer that has this place now.
    subscript(slot: PeerSlot) -> Peer? { peer(slot.number) }

    /// All that are taken, in no order that means anything.
    var slots: some Sequence<PeerSlot> {
        (0..<UInt32(chunks.count * Self.cellsPerChunk)).lazy.filter { hasPeer($0) }.map { PeerSlot(number: $0) }
    }

    /// What is known of their IMSs is not believed beyond this time without asking again.
    mutating func expireServers(by time: MonotonicTime) {
        let limit = CoarseTime(time)
        for chunk in chunks.indices {
            for cell in chunks[chunk].indices where chunks[chunk][cell].peer.map({ $0.serversExpire > limit }) ?? false {
                chunks[chunk][cell].peer?.expireServers(by: time)
            }
        }
    }

    private func hasPeer(_ number: UInt32) -> Bool {
        let (chunk, cell) = (Int(number) / Self.cellsPerChunk, Int(number) % Self.cellsPerChunk)
        return cell < chunks[chunk].count && chunks[chunk][cell].peer != nil
    }

    // MARK: By HoA

    var count: Int { byHoA.count }
    var isEmpty: Bool { byHoA.count == 0 }
    func count(of family: AddressFamily) -> Int { counts[family] }

    func slot(of hoa: HomeAddress) -> PeerSlot? { find(hoa).map { PeerSlot(number: $0) } }

    private func find(_ hoa: HomeAddress) -> UInt32? {
        byHoA.first(hash: SlotIndex.hash(hoa)) { chunks[Int($0) / Self.cellsPerChunk][Int($0) % Self.cellsPerChunk].peer?.hoa == hoa }
    }

    subscript(hoa: HomeAddress) -> Peer? { find(hoa).flatMap { peer($0) } }

    /// Changes a peer where it stands, if it is there.
    @discardableResult
    mutating func update<Result>(_ hoa: HomeAddress, _ change: (inout Peer) -> Result) -> Result? {
        find(hoa).flatMap { self[cell: $0].peer?.apply(change) }
    }

    /// A new peer.
    mutating func enter(_ peer: Peer) {
        guard find(peer.hoa) == nil else { return }
        let number: UInt32
        if let reused = free.popLast() {
            number = reused
            self[cell: number] = Cell(peer: peer)
        } else {
            if chunks.last.map({ $0.count == Self.cellsPerChunk }) ?? true {
                var chunk = ContiguousArray<Cell>()
                chunk.reserveCapacity(Self.cellsPerChunk)
                chunks.append(chunk)
            }
            number = UInt32((chunks.count - 1) * Self.cellsPerChunk + chunks[chunks.count - 1].count)
            chunks[chunks.count - 1].append(Cell(peer: peer))
        }
        byHoA.insert(number, hash: SlotIndex.hash(peer.hoa))
        counts[peer.hoa.family] += 1
    }

    /// A peer is one no more. It gives up its locators first.
    mutating func remove(_ hoa: HomeAddress) {
        guard let number = find(hoa) else { return }
        self[cell: number].peer = nil
        unschedule(number)
        byHoA.remove(number, hash: SlotIndex.hash(hoa))
        free.append(number)
        counts[hoa.family] -= 1
    }

    // MARK: By locator

    /// Peers whose records list one address and that are found by it. Whoever proves to be there is entered all the same.
    static let claimantsMax = 16

    /// The peer whose packets the address is taken to send; at most one at a time (section 6).
    func holder(of moa: MobileAddress) -> HomeAddress? {
        byLocator.first(hash: SlotIndex.hash(moa)) { peer($0)?.locators.holds(moa) ?? false }.flatMap { peer($0)?.hoa }
    }

    /// All peers that are found by the address, whether or not they have shown that they are there.
    func claimants(of moa: MobileAddress) -> [HomeAddress] {
        var found: [HomeAddress] = []
        _ = byLocator.first(hash: SlotIndex.hash(moa)) { number in
            if let peer = peer(number), peer.locators.has(moa, .claimed) { found.append(peer.hoa) }
            return false
        }
        return found.sorted()
    }

    /// Lets the peer be found by one of its places.
    ///
    /// - Parameter isCertain: it has shown that it is there; otherwise `claimantsMax` counts.
    mutating func claim(_ moa: MobileAddress, for hoa: HomeAddress, isCertain: Bool = false) {
        guard let number = find(hoa), let place = peer(number)?.locators[moa], !place.roles.contains(.claimed) else { return }
        guard isCertain || claimants(of: moa).count < Self.claimantsMax else { return }
        self[cell: number].peer?.claim(moa, true)
        byLocator.insert(number, hash: SlotIndex.hash(moa))
    }

    mutating func release(_ moa: MobileAddress, of hoa: HomeAddress) {
        guard let number = find(hoa), peer(number)?.locators.has(moa, .claimed) ?? false else { return }
        byLocator.remove(number, hash: SlotIndex.hash(moa))
        self[cell: number].peer?.claim(moa, false)
    }

    // MARK: By time

    /// When the next peer is due.
    var nextDue: MonotonicTime? { schedule.first.map { self[cell: $0].due } }

    /// Sets when a peer is due; an earlier setting no longer counts.
    mutating func schedule(_ hoa: HomeAddress, at time: MonotonicTime) {
        guard let number = find(hoa) else { return }
        let place = self[cell: number].place
        self[cell: number].due = time
        if place == Self.unscheduled {
            schedule.append(number)
            self[cell: number].place = UInt32(schedule.count - 1)
            siftUp(schedule.count - 1)
        } else {
            siftUp(Int(place))
            siftDown(Int(self[cell: number].place))
        }
    }

    /// The peers that are due by then, if there are no more than so many peers; in order.
    func dueSoon(by time: MonotonicTime, max: Int) -> [HomeAddress] {
        guard schedule.count <= max else { return [] }
        return schedule.filter { self[cell: $0].due <= time }.compactMap { peer($0)?.hoa }.sorted()
    }

    /// Takes a peer that is due off the schedule.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? {
        guard let first = schedule.first, self[cell: first].due <= now else { return nil }
        unschedule(first)
        return peer(first)?.hoa
    }

    private mutating func unschedule(_ number: UInt32) {
        let place = Int(self[cell: number].place)
        guard self[cell: number].place != Self.unscheduled else { return }
        let last = schedule.removeLast()
        self[cell: number].place = Self.unscheduled
        guard last != number else { return }
        put(last, at: place)
        siftUp(place)
        siftDown(Int(self[cell: last].place))
    }

    private mutating func put(_ number: UInt32, at place: Int) {
        schedule[place] = number
        self[cell: number].place = UInt32(place)
    }

    private mutating func siftUp(_ start: Int) {
        var place = start
        let number = schedule[place]
        let due = self[cell: number].due
        while place > 0, due < self[cell: schedule[(place - 1) / 2]].due {
            put(schedule[(place - 1) / 2], at: place)
            place = (place - 1) / 2
        }
        put(number, at: place)
    }

    private mutating func siftDown(_ start: Int) {
        var place = start
        let number = schedule[place]
        let due = self[cell: number].due
        while 2 * place + 1 < schedule.count {
            var child = 2 * place + 1
            if child + 1 < schedule.count, self[cell: schedule[child + 1]].due < self[cell: schedule[child]].due { child += 1 }
            guard self[cell: schedule[child]].due < due else { break }
            put(schedule[child], at: place)
            place = child
        }
        put(number, at: place)
    }
}
