import MATSignal

/// What a start found in the kernel.
public struct AdoptedState: Sendable {
    /// Whether an earlier run had left translation behind, which goes on working.
    public var adopted: Bool
    public var outbound: [HomePair: MobilePair]
    public var inbound: [Arrival: HomeAddress]
    public var own: [MobileAddress: HomeAddress]
    /// Pairs whose packets an earlier run encapsulated. Where to, only it knew: nothing of them leaves until a way is found anew.
    public var encapsulated: Set<HomePair>
    /// Those of them whose packets the kernel's programs go on sending, and how; for `forwardedMax`.
    public var forwarded: [HomePair: Carriage] = [:]
    /// Destinations an earlier run had found plain. They are questioned again after `PlainDestinations.adoptedLifetime`.
    public var plain: Set<IPAddress>
    /// Visited homes that programs of an earlier run start from still.
    public var visited: [HomeAddress] = []

    /// How long peers that were taken over are kept without a word from the agent: a proof's life (protocol.md section 11.4).
    package static let forwardedMax: Duration = .seconds(120)

    public init(
        adopted: Bool, outbound: [HomePair: MobilePair] = [:], inbound: [Arrival: HomeAddress] = [:],
        own: [MobileAddress: HomeAddress] = [:], encapsulated: Set<HomePair> = [], plain: Set<IPAddress> = []
    ) {
        self.adopted = adopted
        self.outbound = outbound
        self.inbound = inbound
        self.own = own
        self.encapsulated = encapsulated
        self.plain = plain
    }
}
