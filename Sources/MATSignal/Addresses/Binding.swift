/// The two ends of a conversation as applications see them. In order by the own end, then the peer.
public struct HomePair: Hashable, Comparable, Sendable, CustomStringConvertible {
    public var own: HomeAddress
    public var peer: HomeAddress

    public init(own: HomeAddress, peer: HomeAddress) {
        self.own = own
        self.peer = peer
    }

    public var description: String { "\(own) <-> \(peer)" }

    public static func < (a: HomePair, b: HomePair) -> Bool { (a.own, a.peer) < (b.own, b.peer) }
}

/// The two ends of a conversation as the network sees them. Both are of one family: a packet has one header.
public struct MobilePair: Hashable, Sendable, CustomStringConvertible {
    public var own: MobileAddress
    public var peer: MobileAddress

    public init(own: MobileAddress, peer: MobileAddress) {
        self.own = own
        self.peer = peer
    }

    public var description: String { "\(own) <-> \(peer)" }
}

/// What tells whom an arriving packet is from: the peer's MoA that it came from, and the own HoA that it is for. The second
/// follows from the own MoA that it came to, since a MoA belongs to one HoA at a time (protocol.md section 6).
public struct Arrival: Hashable, Sendable, CustomStringConvertible {
    public var peer: MobileAddress
    public var own: HomeAddress

    public init(peer: MobileAddress, own: HomeAddress) {
        self.peer = peer
        self.own = own
    }

    public var description: String { "\(peer) -> \(own)" }
}
