import MATSignal

/// What the instances of one IMS tell one another beside mappings: what may be lost without harm, and is small.
public enum SharedNews: Hashable, Sendable {
    /// This instance pushes to the subscriber from now on; who takes its place needs to know.
    case subscribed(SharedSubscription)
    case unsubscribed(IPPrefix, Endpoint)
    /// A mapping of another IMS's node that HA Notify or MA Notify brought.
    case remembered(CertifiedMapping, isConfirmed: Bool)
}

public struct SharedSubscription: Hashable, Sendable {
    /// Of the mapping.
    public var prefix: IPPrefix
    public var endpoint: Endpoint
    /// The address of the server that was asked: perhaps not of this one.
    public var local: IPAddress
    /// Unix time in ms.
    public var ends: UInt64

    public init(prefix: IPPrefix, endpoint: Endpoint, local: IPAddress, ends: UInt64) {
        self.prefix = prefix
        self.endpoint = endpoint
        self.local = local
        self.ends = ends
    }
}
