/// The two ends of a conversation as applications see them.
public struct HomePair: Hashable, Sendable, CustomStringConvertible {
    public var own: HomeAddress
    public var peer: HomeAddress

    public init(own: HomeAddress, peer: HomeAddress) {
        self.own = own
        self.peer = peer
    }

    public var description: String { "\(own) <-> \(peer)" }
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
