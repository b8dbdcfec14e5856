import MATSignal

/// A peer whose rewritten packets are counted by themselves for a while: it is read from the kernel's tables one by one.
public struct RewrittenPath: Hashable, Sendable {
    public var pair: HomePair
    /// Where its packets come from.
    public var places: [MobileAddress]

    public init(_ pair: HomePair, from places: [MobileAddress]) {
        self.pair = pair
        self.places = places
    }
}

/// What was rewritten for a peer so far, in packets.
public struct RewrittenUse: Hashable, Sendable {
    public var pair: HomePair
    public var sent: UInt64
    public var came: UInt64

    public init(_ pair: HomePair, sent: UInt64, came: UInt64) {
        self.pair = pair
        self.sent = sent
        self.came = came
    }
}
