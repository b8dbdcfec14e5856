import MATSignal

/// How this node talks to plain hosts: as it is, or by a gateway, so that their connections go on when it moves (protocol.md section 11.5).
public struct PlainPolicy: Hashable, Sendable {
    public enum Way: String, CaseIterable, Hashable, Sendable {
        /// By the network where the node is. A move ends what was begun.
        case none
        /// By an own relay that is a gateway: as the HoA if it is routed there, else with source translation.
        case gateway
        /// By a gateway that translates the source, so that the plain host does not learn the HoA.
        case sourceNAT = "source-nat"
    }

    public struct Exception: Hashable, Sendable {
        public var prefix: IPPrefix
        public var way: Way

        public init(_ prefix: IPPrefix, _ way: Way) {
            self.prefix = prefix
            self.way = way
        }
    }

    /// For global addresses. A private one is of the network where the node is, unless an exception names it.
    public var standard = Way.none
    /// Of several the longest prefix counts. At most `exceptionsMax`.
    public var exceptions: [Exception] = []

    public static let exceptionsMax = 256

    public init() {}

    /// Whether anything goes by a gateway.
    var usesGateways: Bool { standard != .none || exceptions.contains { $0.way != .none } }

    func way(to address: IPAddress) -> Way {
        let named = exceptions.filter { $0.prefix.family == address.family && $0.prefix.contains(address) }
        if let longest = named.max(by: { $0.prefix.length < $1.prefix.length }) { return longest.way }
        return address.scope == .global ? standard : .none
    }
}
