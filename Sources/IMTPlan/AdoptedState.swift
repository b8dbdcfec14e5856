import MATSignal

/// What a start found in the kernel.
public struct AdoptedState: Sendable {
    /// Whether an earlier run had left translation behind, which goes on working.
    public var adopted: Bool
    public var outbound: [HomePair: MobilePair]
    public var inbound: [Arrival: HomeAddress]
    public var own: [MobileAddress: HomeAddress]
    /// Destinations an earlier run had found plain. They are questioned again after `PlainDestinations.adoptedLifetime`.
    public var plain: Set<IPAddress>

    public init(
        adopted: Bool, outbound: [HomePair: MobilePair] = [:], inbound: [Arrival: HomeAddress] = [:],
        own: [MobileAddress: HomeAddress] = [:], plain: Set<IPAddress> = []
    ) {
        self.adopted = adopted
        self.outbound = outbound
        self.inbound = inbound
        self.own = own
        self.plain = plain
    }
}
