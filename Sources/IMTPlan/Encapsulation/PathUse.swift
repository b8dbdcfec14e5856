import MATSignal

/// What a peer's path in datagrams has carried, in packets: it is read at short intervals while packets go, to see whether the path gives signs
/// (protocol.md section 11.4, "Leaving and coming back").
public struct PathUse: Hashable, Sendable {
    public var pair: HomePair
    /// The endpoint, or relay, that the peer's packets go to now.
    public var far: Endpoint
    /// Sent there, since they go there.
    public var sent: UInt64
    /// Came from there, likewise.
    public var heard: UInt64
    /// Came from the peer by whatever endpoint, since it was entered.
    public var came: UInt64

    public init(_ pair: HomePair, far: Endpoint, sent: UInt64, heard: UInt64, came: UInt64) {
        self.pair = pair
        self.far = far
        self.sent = sent
        self.heard = heard
        self.came = came
    }
}
