import IMSCore
import MATSignal
import MappingMemory
import Synchronization

/// The rules as workers read them: one block of memory, never changed, replaced as a whole.
struct QuerySnapshot {
    let cookies: CookieAuthority
    let isLoading: Bool
    let hasRemembered: Bool
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
    private let epochs: ReaderEpochs
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

    init(_ rules: QueryRules, epochs: ReaderEpochs) {
        self.epochs = epochs
        current = rules
        cell = .allocate(capacity: 1)
        cell.initialize(to: Atomic(UInt(bitPattern: Self.make(rules, number))))
    }

    deinit {
        UnsafeMutableRawPointer(bitPattern: cell.pointee.load(ordering: .relaxed))?.deallocate()
        cell.deallocate()
    }

    /// Makes the rules count from each worker's next batch on.
    func publish(_ rules: QueryRules) {
        guard rules != current else { return }
        current = rules
        number += 1
        let old = cell.pointee.exchange(UInt(bitPattern: Self.make(rules, number)), ordering: .sequentiallyConsistent)
        if let old = UnsafeMutableRawPointer(bitPattern: old) { epochs.retire(.memory(old)) }
    }

    private static func make(_ rules: QueryRules, _ number: UInt64) -> UnsafeMutableRawPointer {
        var outermost: [IPPrefix] = []
        for prefix in rules.served.map(\.prefix).sorted() where !(outermost.last?.contains(prefix) ?? false) { outermost.append(prefix) }
        let head = MemoryLayout<QuerySnapshot>.stride
        let block = UnsafeMutableRawPointer.allocate(
            byteCount: head + outermost.count * MemoryLayout<IPPrefix>.stride, alignment: 64)
        let served = (block + head).bindMemory(to: IPPrefix.self, capacity: outermost.count)
        for (index, prefix) in outermost.enumerated() { (served + index).initialize(to: prefix) }
        block.bindMemory(to: QuerySnapshot.self, capacity: 1).initialize(
            to: QuerySnapshot(
                cookies: rules.cookies, isLoading: rules.isLoading, hasRemembered: rules.hasRemembered,
                limits: rules.limits, number: number, servedCount: outermost.count,
                served: UnsafePointer(served)))
        return block
    }
}
