/// A home address (HoA): who a node is. Applications see it and it never changes.
///
/// A type of its own, so that a HoA can't be passed where a MoA is meant: swapped arguments do not compile.
public struct HomeAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let address: IPAddress

    public init(_ address: IPAddress) { self.address = address }

    public init?(_ text: String) {
        guard let address = IPAddress(text) else { return nil }
        self.address = address
    }

    public var isIPv4: Bool { address.isIPv4 }
    public var description: String { address.description }
    public static func < (a: HomeAddress, b: HomeAddress) -> Bool { a.address < b.address }
}
