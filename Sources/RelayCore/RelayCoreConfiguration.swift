import MATCore
import MATSignal

/// A prefix of HoAs that the relay is for.
public struct ResidentPrefix: Hashable, Sendable {
    public var prefix: IPPrefix
    /// Keys whose certificates are believed without asking the DNS. If there are none, the DNS is asked.
    public var publicKeys: [PublicKey]
    /// Whether visitors are kept from talking to these residents.
    public var refusesVisitors: Bool

    public init(_ prefix: IPPrefix, publicKeys: [PublicKey] = [], refusesVisitors: Bool = false) {
        self.prefix = prefix
        self.publicKeys = publicKeys
        self.refusesVisitors = refusesVisitors
    }
}

/// What a relay spends on whom (protocol.md section 11.5).
public struct RelayLimits: Hashable, Sendable {
    /// Of each HoA as source, and again as destination.
    public var octetsPerSecond = 2_500_000
    public var burstOctets = 262_144
    /// Of all together.
    public var relayOctetsPerSecond = 125_000_000
    /// Of all visitors together; `nil`: half of the relay's.
    public var visitorsOctetsPerSecond: Int?
    /// Forwarded for one HoA in a calendar month (UTC), both directions together; without bound if `nil`.
    public var octetsPerMonth: UInt64?
    public var bindingsMax = 100_000
    /// `nil`: half of all bindings.
    public var visitorBindingsMax: Int?
    /// Visitors that one IMS key certified.
    public var visitorBindingsPerKeyMax = 64
    /// Signed Binds of one source (/64 or IPv4 address); and of an IPv4 address at which several HoAs are bound.
    public var bindsPerSecond = 10
    public var bindsPerSharedSourcePerSecond = 100
    /// Look-ups of visitors' keys, of all together.
    public var lookUpsPerSecond = 100
    /// Names of which the keys are known or being found out.
    public var lookUpsMax = 16_384
    /// Signature checks of one source, and ten times that for an IPv4 address at which several HoAs are bound.
    public var verificationsPerSecond = 20
    /// Signature checks that wait for a thread or are being made, in all.
    public var verificationsPendingMax = 4096
    /// Answers that say what could not be read.
    public var errorAnswersPerSecond = 50
    public var refusalLogsPerSecond = 20
    public var bindingLogsPerSecond = 200
    /// Sources for which a rate is kept.
    public var ratesMax = 65_536

    public init() {}

    package var visitorsRate: Int { visitorsOctetsPerSecond ?? relayOctetsPerSecond / 2 }

    var bindings: BindingLimits {
        BindingLimits(bindingsMax: bindingsMax, visitorsMax: visitorBindingsMax, visitorsPerIssuerMax: visitorBindingsPerKeyMax)
    }
}

/// What `RelayCore` is told at its start, and again when the configuration is read anew.
public struct RelayCoreConfiguration: Hashable, Sendable {
    public var residents: [ResidentPrefix]
    /// Whether nodes of others are served as well, for talking to residents.
    public var takesVisitors: Bool
    /// The addresses that nodes know the relay by, where a translator in front of it gives it others than it has.
    public var advertised: [IPAddress]
    /// Addresses of other relays: nobody is bound there, so that no packet goes round among relays.
    public var otherRelays: [IPAddress]
    /// For whom it forwards to and from plain hosts as well; `nil` for a relay that is no gateway.
    public var gateway: GatewayConfiguration?
    public var limits: RelayLimits

    public init(
        residents: [ResidentPrefix], takesVisitors: Bool = true, advertised: [IPAddress] = [], otherRelays: [IPAddress] = [],
        gateway: GatewayConfiguration? = nil, limits: RelayLimits = RelayLimits()
    ) {
        self.residents = residents
        self.takesVisitors = takesVisitors
        self.advertised = advertised
        self.otherRelays = otherRelays
        self.gateway = gateway
        self.limits = limits
    }

    /// The prefix whose resident this is; `nil` for a visitor.
    public func resident(_ prefix: IPPrefix) -> ResidentPrefix? { residents.first { $0.prefix.contains(prefix) } }
}
