import IMTPlan
import MATCore
import MATSignal

/// What the core wants done. The shell carries actions out in order; each list comes from one event.
public enum NodeAction: Hashable, Sendable {
    /// A datagram, from the given own address.
    case send([UInt8], from: IPAddress, to: Endpoint)
    /// Likewise, for somebody who has not shown that he is there: only while what waits to leave is little, so that made-up addresses
    /// of an own link, whose neighbours never answer, can't keep back what is for others.
    case sendIfRoom([UInt8], from: IPAddress, to: Endpoint)
    /// A message inside an encapsulated packet, whichever path the peer's packets take.
    case sendInPath(InPathMessage)
    /// All that leaves from an own address in datagrams is to leave from this port, and to be received there too. To the core it stays 6289.
    case usePort(UInt16, for: IPAddress)
    /// Find the IMSs of this HoA in the DNS, and tell `NodeCore.lookedUp`.
    case lookUp(HomeAddress)
    /// Find the IMS keys at this prefix's own name, and tell `NodeCore.keysLookedUp`.
    case lookUpKeys(IPPrefix)
    /// One kernel transaction.
    case changeIMT([IMTChange])
    /// Send the held packets to this destination on, after the changes before it.
    case releaseOutbound(to: IPAddress)
    case dropOutbound(to: IPAddress)
    /// Send on those held packets to this destination that are questions to a DNS server, as if nothing had captured them.
    case passNames(to: IPAddress)
    /// Send on all held packets to peers that have an entry and a route now: our address changed, for all of them at once.
    case releaseRouted
    /// Let the held packets of this pair of outer addresses in, after the changes before it.
    case releaseInbound(from: IPAddress, to: IPAddress)
    case dropInbound(from: IPAddress, to: IPAddress)
    /// Let in only those held packets of the pair that open connections; the others go on waiting.
    case releaseOpeners(from: IPAddress, to: IPAddress)
    /// Let in the held packets of this source that came in datagrams from this endpoint, after the changes before it.
    case releaseEncapsulated(of: HomeAddress, from: Endpoint)
    /// Keep the highest sequence signed for this HoA across restarts.
    case remember(HomeAddress, sequence: UInt64)
    /// Keep a renewed certificate.
    case keepCertificate(Certificate)
    case log(NodeLogLevel, String)
}

public enum NodeLogLevel: Hashable, Sendable {
    case debug, info, notice, warning, error
}

/// An address that a network gave this node and that works now, as the link monitor reports it.
public struct OwnLocator: Hashable, Sendable {
    public var moa: MobileAddress
    public var interface: String
    /// Its network is about to take it away: it works, but is used after all others.
    public var isDeprecated: Bool
    /// What is on the link with it; `nil` if that isn't known. Routers have addresses there that no route tells.
    public var link: IPPrefix?
    /// It stands for a prefix that is routed to this mobile router (MoPre), as its base address.
    public var isMobilePrefix: Bool

    public init(
        _ moa: MobileAddress, interface: String, isDeprecated: Bool = false, link: IPPrefix? = nil, isMobilePrefix: Bool = false
    ) {
        self.moa = moa
        self.interface = interface
        self.isDeprecated = isDeprecated
        self.link = link
        self.isMobilePrefix = isMobilePrefix
    }

    /// Whether it is this address on the same link, whatever else changed about it.
    func isSame(as other: OwnLocator) -> Bool { moa == other.moa && interface == other.interface }
}

/// The IMSs of an HoA, as the DNS gives them, in the order in which they are to be tried.
public struct ServerSet: Hashable, Sendable {
    public var endpoints: [Endpoint]
    public var keys: [PublicKey]
    /// The relays that serve the HoA.
    public var relays: [RelayHost]
    public var expires: MonotonicTime
    /// By DNSSEC, on this host: then it holds in any network.
    public var isValidated: Bool

    public init(
        endpoints: [Endpoint], keys: [PublicKey], relays: [RelayHost] = [], expires: MonotonicTime, isValidated: Bool = false
    ) {
        self.endpoints = endpoints
        self.keys = keys
        self.relays = relays
        self.expires = expires
        self.isValidated = isValidated
    }
}

/// What the DNS says of an HoA. Absence and failure are never mixed: absence makes a destination plain, a failure leaves it in doubt.
public enum ServerLookup: Hashable, Sendable {
    case found(ServerSet)
    /// No IMS record exists; how long that may be remembered.
    case absent(lifetime: Duration)
    /// Nothing is known: a time-out, SERVFAIL, refused.
    case failed(String)
    /// There is something that must not be taken for absence: it is bogus, or names an IMS and no way to it.
    case unusable(String)
}
