import IMTPlan

/// A way that a peer's packets took, small enough to be kept for each of very many peers, and to be compared with the next one.
struct WayMark: Hashable, Sendable {
    private let value: UInt16

    /// They have had no way yet.
    static let none = WayMark(value: 0)
    /// An entry of the peer's own, whatever its addresses: changes of those are counted where they are made.
    static let rewritten = WayMark(value: 1)

    private init(value: UInt16) { self.value = value }

    /// Two ways have the same mark once in 65,000 times; then one change is not counted.
    init(_ way: Carriage.Way) {
        value = max(2, UInt16(truncatingIfNeeded: way.hashValue))
    }

    func isOther(than next: WayMark) -> Bool { self != .none && self != next }
}
