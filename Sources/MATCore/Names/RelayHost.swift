import MATSignal

/// A relay as DNS or a configuration names it: one that serves a home address, at each of its addresses (protocol.md sections 8 and 11.5).
public struct RelayHost: Hashable, Sendable {
    /// Addresses of one relay.
    public static let endpointsMax = 8

    public var endpoints: [Endpoint]

    public init(_ endpoints: [Endpoint]) { self.endpoints = endpoints }
}
