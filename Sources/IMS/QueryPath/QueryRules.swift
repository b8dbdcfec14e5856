import IMSCore
import MATSignal
import MappingMemory
import Synchronization

/// The rules as workers read them: one block of memory, never changed, replaced as a whole.
struct QuerySnapshot {
    let cookies: CookieAuthority
    let clientCookies: ClientCookies
    let isIncomplete: Bool
    let isUnknownForLong: Bool
    let hasRemembered: Bool
    let hasBindings: Bool
    let limits: IMSLimits
    /// Another one in each snapshot.
    let number: UInt64
    /// In order, without those that lie within others: whether any covers an address is all that is asked here.
    fileprivate let servedCount: Int
    fileprivate let served: UnsafePointer<IPPrefix>

    @inline(__always)
    func serves(_ address: IPAddress) -> Bool {
        // The last one that does not begin behind the address.
        var low = 0
        var high = servedCount
        while low < high {
            let middle = (low + high) / 2
            if served[middle].address <= address { low = middle + 1 } else { high = middle }
        }
        return low > 0 && served[low - 1].contains(address)
    }
}

/// The place where workers find the newest rules. The core's thread puts them there.
final class QueryRulesCell: @unchecked Sendable {
    private let cell: UnsafeMutablePointer<Atomic<UInt>>
    private let table: MappingTable
    /// What workers look at now.
    private var block: TableMemory.Piece
    private(set) var current: QueryRules
    private var number: UInt64 = 1

    struct View: @unchecked Sendable {
        fileprivate let cell: UnsafeMutablePointer<Atomic<UInt>>

        /// Holds until the reader's `end`.
        @inline(__always)
        var snapshot: UnsafePointer<QuerySnapshot> {
            UnsafePointer(bitPattern: cell.pointee.load(ordering: .sequentiallyConsistent)).unsafelyUnwrapped
        }
    }

    var view: View { View(cell: cell) }

    /// - Parameter table: whose readers read the rules as well, and whose memory they stand in.
    init(_ rules: QueryRules, table: MappingTable) throws(MemoryRefusal) {
        self.table = table
        current = rules
        block = try Self.make(rules, number, table.memory)
        cell = .allocate(capacity: 1)
        cell.initialize(to: Atomic(UInt(bitPattern: block.start)))
    }

    deinit {
        table.memory.free(block)
        cell.deallocate()
    }

    /// Makes the rules count from each worker's next batch on. Without memory for them the ones before count on until the next call, which
    /// comes after the core's next event.
    ///
    /// - Returns: whether they count.
    @discardableResult
    func publish(_ rules: QueryRules) -> Bool {
        guard rules != current else { return true }
        do throws(MemoryRefusal) {
            try table.epochs.reserve(1)
            let new = try Self.make(rules, number + 1, table.memory)
            cell.pointee.store(UInt(bitPattern: new.start), ordering: .sequentiallyConsistent)
            table.epochs.retire(.memory(block))
            block = new
            current = rules
            number += 1
            return true
        } catch {
            return false
        }
    }

    private static func make(_ rules: QueryRules, _ number: UInt64, _ memory: TableMemory) throws(MemoryRefusal) -> TableMemory.Piece {
        var outermost: [IPPrefix] = []
        for prefix in rules.served.map(\.prefix).sorted() where !(outermost.last?.contains(prefix) ?? false) { outermost.append(prefix) }
        let head = MemoryLayout<QuerySnapshot>.stride
        guard let piece = memory.allocate(head + outermost.count * MemoryLayout<IPPrefix>.stride) else {
            throw .system(octets: memory.refusedOctets)
        }
        let block = piece.start
        let served = (block + head).bindMemory(to: IPPrefix.self, capacity: outermost.count)
        for (index, prefix) in outermost.enumerated() { (served + index).initialize(to: prefix) }
        block.bindMemory(to: QuerySnapshot.self, capacity: 1).initialize(
            to: QuerySnapshot(
                cookies: rules.cookies, clientCookies: rules.clientCookies, isIncomplete: rules.isIncomplete,
                isUnknownForLong: rules.isUnknownForLong, hasRemembered: rules.hasRemembered, hasBindings: rules.hasBindings, limits: rules.limits,
                number: number, servedCount: outermost.count, served: UnsafePointer(served)))
        return piece
    }
}
