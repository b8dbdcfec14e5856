/// Packets exchanged with a peer so far, by whichever way.
public struct PeerPackets: Hashable, Sendable {
    public var sent: UInt64
    public var came: UInt64

    public init(sent: UInt64 = 0, came: UInt64 = 0) {
        self.sent = sent
        self.came = came
    }

    /// Both directions.
    public var sum: UInt64 { sent &+ came }

    public mutating func add(_ others: Self) {
        sent &+= others.sent
        came &+= others.came
    }
}
