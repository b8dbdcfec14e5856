/// What a server does for who is bound to it: the value of ROLE in Bind Ack (section 11). An IMS that is no relay does nothing of this. Bits
/// that have no name yet are ignored.
public struct ServerRole: OptionSet, Hashable, Sendable {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// Forwards encapsulated packets between nodes that are bound to it.
    public static let relay = ServerRole(rawValue: 1 << 0)
    /// Forwards to and from plain hosts, for HoAs that are routed to it.
    public static let gateway = ServerRole(rawValue: 1 << 1)
    /// Likewise for HoAs that nobody routes, by translating the source.
    public static let translatingGateway = ServerRole(rawValue: 1 << 2)
}
