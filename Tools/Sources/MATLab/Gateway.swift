/// What stands between a network and the router: the gateway of a home, an office or a carrier, a host of its own (`Gateways` builds it). What
/// it does to what passes is said for each family.
///
/// ```
///   hosts --- ports of bridge "lan"  gateway  eth0 --- router            .router(...)
///                                             eth0 --- another's "lan"   .network(...): a gateway behind a gateway
///
///   nftables translates:      lan -> eth0, which has the public address
///   `mat-lab nat` translates: lan -> nat0 -> program -> nat0 -> eth0, which has another address, and answers for the public one (proxy ARP)
/// ```
public struct Gateway: Sendable {
    /// Its addresses on the link outwards, with their lengths; the IPv4 address is what a translator's packets come from.
    public var outside: [String]
    /// The IPv4 address that it has in the place of that after its line was renewed; with its length.
    public var nextAddress: String?
    /// Of `eth0`, where a program has the public one.
    public var transferAddress: String?
    public var upstream: Upstream
    public var ipv4: IPv4
    public var ipv6: IPv6
    /// Hosts reach the gateway, and not one another.
    public var isolatesClients = false
    /// Nothing of UDP passes but DNS, without which no network would be called one.
    public var dropsUDP = false
    /// Over IPv6, without a sum (RFC 8200 forbade it, RFC 6935 allows it to tunnels).
    public var dropsUDPWithoutSum = false

    public init(outside: [String], upstream: Upstream, ipv4: IPv4, ipv6: IPv6 = .absent) {
        self.outside = outside
        self.upstream = upstream
        self.ipv4 = ipv4
        self.ipv6 = ipv6
    }

    /// Where its link outwards ends.
    public enum Upstream: Sendable {
        /// At the topology's router, which has these addresses on it.
        case router([String])
        /// In a network behind another gateway.
        case network(String)
    }

    public enum IPv4: Sendable {
        /// Routed, and a stateful firewall: in comes only what belongs to a flow that began inside.
        case guarded
        case translated(Translation)
        /// Hosts have IPv6 only, and reach IPv4 addresses in a prefix of 96 bits (NAT64, RFC 6146); their resolver makes names lead there
        /// (DNS64, RFC 6147).
        case translatedFromIPv6(Translation)
        /// There is none, and no way to it.
        case absent
    }

    public enum IPv6: Sendable {
        case absent
        /// Routed, and anybody's packets come in.
        case open
        case guarded
    }
}

/// How a NAT translates UDP, in the words of RFC 4787. TCP follows as far as it can.
public struct Translation: Sendable, Equatable {
    /// Which flows of an inner endpoint share an outer one (RFC 4787 section 4.1).
    public enum Mapping: String, Sendable, CaseIterable {
        case endpointIndependent = "endpoint-independent"
        case addressAndPortDependent = "address-and-port-dependent"
    }

    /// From whom an outer endpoint takes packets (RFC 4787 section 5).
    public enum Filtering: String, Sendable, CaseIterable {
        case endpointIndependent = "endpoint-independent"
        case addressDependent = "address-dependent"
        case addressAndPortDependent = "address-and-port-dependent"
    }

    public var mapping: Mapping
    public var filtering: Filtering
    /// Inner hosts reach one another at their outer endpoints (RFC 4787 section 6).
    public var hairpins: Bool
    /// After which a mapping ends, whatever traffic it has.
    public var ageSeconds: Int?
    /// Outer ports of each inner address (RFC 6888, RFC 7422), in their order; `nil`: any port for anyone.
    public var blockPorts: Int?
    /// For how long a flow lives without packets: one that was not answered yet, and one that was. Linux's own by default.
    public var unansweredSeconds: Int
    public var answeredSeconds: Int

    /// Whether Linux's own translator is of that kind: it maps and filters by flows, but gives an inner endpoint the same outer one while it
    /// can. Two inner endpoints may share one as long as their destinations differ. Else a program of the lab's does it.
    var isLinux: Bool { filtering == .addressAndPortDependent && !hairpins && ageSeconds == nil }

    public init(
        mapping: Mapping = .endpointIndependent, filtering: Filtering = .addressAndPortDependent, hairpins: Bool = false, ageSeconds: Int? = nil,
        blockPorts: Int? = nil, unansweredSeconds: Int = 30, answeredSeconds: Int = 120
    ) {
        self.mapping = mapping
        self.filtering = filtering
        self.hairpins = hairpins
        self.ageSeconds = ageSeconds
        self.blockPorts = blockPorts
        self.unansweredSeconds = unansweredSeconds
        self.answeredSeconds = answeredSeconds
    }
}
