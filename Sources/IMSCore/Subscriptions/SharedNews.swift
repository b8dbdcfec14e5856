import MATSignal

/// What the instances of one IMS tell one another beside mappings: what may be lost without harm, and is small.
public enum SharedNews: Hashable, Sendable {
    /// From the core: this instance has granted it, so it lasts at least for so long.
    case subscribed(SharedSubscription)
    /// From the core: the subscriber wants no more, or does not answer.
    case unsubscribed(IPPrefix, Endpoint)
    /// To the core: this instance pushes to the subscriber from now on, at least for so long. If `isBehind`, the mapping may have changed
    /// without a push to this subscriber.
    case serve(SharedSubscription, isBehind: Bool)
    /// To the core: another instance pushes to the subscriber from now on.
    case leave(IPPrefix, Endpoint)
    /// A mapping of another IMS's node that HA Notify or MA Notify brought.
    case remembered(CertifiedMapping, isConfirmed: Bool)
    /// From the core: the node of this HoA prefix is bound here, and may keep that up for so long without saying so again.
    case bound(IPPrefix, lasts: Duration)
    case unbound(IPPrefix)
    /// From the core: the node of this HoA prefix is to be told of the record, and is not bound here. One that has its binding tells it.
    case handOver(to: IPPrefix, CertifiedMapping)
    /// To the core: another instance, or the store since no other has a binding, hands the record over for the node of this HoA prefix. It is not
    /// handed on.
    case handedOver(to: IPPrefix, CertifiedMapping)
}

public struct SharedSubscription: Hashable, Sendable {
    /// Of the mapping.
    public var prefix: IPPrefix
    public var endpoint: Endpoint
    /// The address of the server that was asked: perhaps not of this one.
    public var local: IPAddress
    /// From now on. No time of day, since the instances' clocks differ.
    public var lasts: Duration

    public init(prefix: IPPrefix, endpoint: Endpoint, local: IPAddress, lasts: Duration) {
        self.prefix = prefix
        self.endpoint = endpoint
        self.local = local
        self.lasts = lasts
    }
}
