/// What stands between a network and the router: the gateway of a home, an office or a carrier, a host of its own (`Gateways` builds it). What
/// it does to what passes is said for each family.
///
/// ```
///   hosts --- ports of bridge "lan"  gateway  eth0 --- router            .router(...)
///                                             eth0 --- another's "lan"   .network(...): a gateway behind a gateway
/// ```
public struct Gateway: Sendable {
    /// Its own addresses on the link outwards, with their lengths.
    public var outside: [String]
    public var upstream: Upstream
    public var ipv4: IPv4
    public var ipv6: IPv6
    /// Hosts reach the gateway, and not one another.
    public var isolatesClients = false
    /// Nothing of UDP passes but DNS, without which no network would be called one.
    public var dropsUDP = false

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
        case absent
        /// Routed, and a stateful firewall: in comes only what belongs to a flow that began inside.
        case guarded
        case translated(Translation)
    }

    public enum IPv6: Sendable {
        case absent
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
    /// Outer ports of each inner address (RFC 6888, RFC 7422), in their order; `nil`: any port for anyone.
    public var blockPorts: Int?
    /// For how long a flow lives without packets: one that was not answered yet, and one that was. Linux's own by default.
    public var unansweredSeconds: Int
    public var answeredSeconds: Int

    public init(
        mapping: Mapping = .endpointIndependent, filtering: Filtering = .addressAndPortDependent, blockPorts: Int? = nil, unansweredSeconds: Int = 30,
        answeredSeconds: Int = 120
    ) {
        self.mapping = mapping
        self.filtering = filtering
        self.blockPorts = blockPorts
        self.unansweredSeconds = unansweredSeconds
        self.answeredSeconds = answeredSeconds
    }
}
