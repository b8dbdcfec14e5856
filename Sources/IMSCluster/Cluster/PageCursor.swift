/// Where a read of many keys stands.
///
/// etcd (3.4) walks through its index to the end of what is asked for, however few keys the page may have: a million keys in pages of the
/// whole rest would be walked through hundreds of times. So each page has an end of its own, guessed from how far apart the last keys were,
/// with twice as many keys expected as a page holds.
struct PageCursor: Equatable, Sendable {
    /// The first key of the next page.
    private(set) var key: [UInt8]
    private let end: [UInt8]
    private let prefixCount: Int
    /// How many addresses the next page is about; 0 if there is nothing to guess from.
    private var span: UInt128 = 0

    init(_ keys: ClusterKeys) {
        (key, end) = keys.followed
        prefixCount = keys.prefix.count
    }

    func range(limit: UInt64, revision: Int64) -> EtcdRange { EtcdRange(key: key, end: bound, limit: limit, revision: revision) }

    /// Takes in what the page had.
    ///
    /// - Parameter hasMore: whether its limit kept some keys back.
    /// - Returns: whether there are more pages.
    mutating func advance(_ pairs: [EtcdKeyValue], hasMore: Bool, limit: UInt64) -> Bool {
        let bound = bound
        if hasMore, let first = pairs.first?.key, let last = pairs.last?.key {
            span = 0
            if let start = place(first), let stop = place(last), start.head == stop.head {
                span = max(1, Self.multiplied(stop.number - min(start.number, stop.number), by: 2))
            }
            key = last + [0]
            return true
        }
        guard bound.lexicographicallyPrecedes(end) else { return false }
        key = bound
        // Keys have become rarer.
        if UInt64(pairs.count) < limit / 4 { span = Self.multiplied(span, by: 8) }
        return true
    }

    private var bound: [UInt8] {
        guard span > 0, let place = place(key) else { return end }
        let (number, isOver) = place.number.addingReportingOverflow(span)
        let start = Array(key.prefix(prefixCount)) + place.head
        // What begins with the octet behind "/" comes after all keys that begin so.
        guard !isOver else { return Array(start.dropLast()) + [UInt8(ascii: "/") + 1] }
        return start + ClusterKeys.hex(number).utf8
    }

    /// The address of a key, if it has one, and what stands before it: a letter and "/", of subscriptions an instance and "/" as well.
    private func place(_ key: [UInt8]) -> (head: [UInt8], number: UInt128)? {
        let rest = key.dropFirst(prefixCount)
        let headCount = rest.first == UInt8(ascii: "s") ? 19 : 2
        guard rest.count >= headCount + 32, rest.dropFirst(headCount - 1).first == UInt8(ascii: "/") else { return nil }
        let digits = String(decoding: rest.dropFirst(headCount).prefix(32), as: UTF8.self)
        return ClusterKeys.number(digits).map { (Array(rest.prefix(headCount)), $0) }
    }

    private static func multiplied(_ number: UInt128, by factor: UInt128) -> UInt128 {
        let (product, isOver) = number.multipliedReportingOverflow(by: factor)
        return isOver ? .max : product
    }
}
