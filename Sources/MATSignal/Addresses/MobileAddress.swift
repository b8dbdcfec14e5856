/// A mobile address (MoA): where a node is. Its network gave it and routes it; it changes when the node moves.
///
/// A type of its own, so that a MoA can't be passed where a HoA is meant: swapped arguments do not compile.
public struct MobileAddress: Hashable, Sendable, Comparable, CustomStringConvertible {
    public let address: IPAddress

    public init(_ address: IPAddress) { self.address = address }

    public init?(_ text: String) {
        guard let address = IPAddress(text) else { return nil }
        self.address = address
    }

    public var isIPv4: Bool { address.isIPv4 }
    public var description: String { address.description }
    public static func < (a: MobileAddress, b: MobileAddress) -> Bool { a.address < b.address }
}
