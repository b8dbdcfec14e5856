import IMTPlan
import MATCore
import MATSignal
import NodeCore

/// matd's configuration file, as values. `NodeConfiguration+Reader` reads it; matd.yaml(5) describes it.
public struct NodeConfiguration: Sendable {
    public struct Home: Hashable, Sendable {
        /// Of a mobile network: the base address of its home prefix.
        public var hoa: HomeAddress
        /// What the node speaks for: its address alone, or a mobile network's home prefix.
        public var prefix: IPPrefix
        /// A mobile network's places: prefixes (MoPres) that networks route to this router. As long as the home prefix; valid while the
        /// interface is usable.
        package var mobilePrefixes: [AddressRules.MobilePrefix] = []
        /// The node's private key, of mode 0600.
        public var keyPath: String
        /// The certificate that `mat enrol` wrote.
        public var certificatePath: String
        /// Which own addresses it may have: all, if empty.
        var use: [LocatorAssignment.Use] = []
    }

    /// What happens to the kernel's state at SIGTERM.
    public enum OnStop: String, CaseIterable, Sendable {
        /// Everything that was added is removed.
        case remove
        /// Translation goes on; the next start adopts it. For restarts without a gap.
        case keep
    }

    public var homes: [Home] = []
    /// Which destinations the node talks to as its HoA.
    public var traffic = TrafficSelection.everything
    /// Destinations that are no HoAs: never looked up, talked to plainly.
    public var exceptions: [IPPrefix] = []
    /// Interfaces in order of preference.
    public var preferredInterfaces: [String] = []
    /// Exceptions from that order for some peers.
    public var peerPreferences: [PeerPreference] = []
    public static let peerPreferencesMax = 1024
    /// Prefixes of private addresses (RFC 1918, 6598, 4193) that are routed between this node and its peers without translation.
    public var routedPrefixes: [IPPrefix] = []
    public static let routedPrefixesMax = 64
    /// Own relays beside those that the DNS names.
    public var relays: [RelayHost] = []
    public static let relaysMax = 4
    /// HoAs of the site that this node stands at.
    public var site: [IPPrefix] = []
    public static let siteMax = 64
    /// The largest packets between HoAs that travel in datagrams, in octets; `nil`: found out for each path.
    public var mtu: UInt32?
    public static let mtuRange = 1280...9000
    /// How plain hosts are talked to.
    public var plain = PlainPolicy()
    /// How paths are watched, and when a failed one is trusted again.
    public var paths = PathConfiguration()
    /// Whether packets that nobody here asked for arrive.
    public var inbound = InboundSetting.auto
    /// Interfaces whose addresses are never used as locators. An entry may end in `*`.
    public var ignoredInterfaces: [String] = ["docker*", "virbr*", "br-*", "veth*"]
    /// Whether an address counts only once its interface has a default route: DHCP brings the route a moment after the address,
    /// and a handover in between would find nobody. Networks without a way out set this to false.
    public var needsDefaultRoute = true
    /// Empty: those of /etc/resolv.conf.
    public var resolvers: [Endpoint] = []
    public var requireDNSSEC = false
    /// How IPv4 is reached from networks that have IPv6 only.
    package var nat64 = NAT64Use.auto
    /// Whether programs may have home addresses of the networks that the node is in, where these give any.
    public var takesVisitedHomes = false
    /// How long such a home is kept after its last program, for the next one.
    public var visitedLinger: Duration = Visit.lingerDefault
    public var controlPath = "/run/matd/control.sock"
    /// Members may use `mat` without being root.
    public var controlGroup: String?
    public var statePath = "/var/lib/matd"
    public var logLevel = "info"
    /// Where Prometheus may read the metrics; nowhere unless it is given.
    public var metricsAddress: Endpoint?
    public var lifetime: UInt32 = MappingRecord.lifetimeDefault
    public var pollInterval: Duration = .seconds(30)
    public var peerIdleMax: Duration = .seconds(600)
    /// To peers and their IMSs, after a move and for polls, on average.
    public var messagesPerSecond = 2000
    public var onStop = OnStop.keep
    /// Where packets are put into datagrams and taken out.
    public var encapsulation = EncapsulationPlace.auto
    /// By what TCP's and UDP's addresses are rewritten, of peers that are reached directly.
    public var dataPlane = DataPlane.nftables
    /// Whether the kernel tracks connections with peers: for a stateful firewall on this host.
    public var connectionTracking = ConnectionTracking.auto
    /// What becomes of strict reverse path filters (`rp_filter` 1) on links that are used side by side.
    public var reversePath = ReversePath.warn

    /// What becomes of other programs' routing rules that take all traffic and come before ours.
    public var routingRules = RoutingRules.first

    public enum RoutingRules: String, CaseIterable, Sendable {
        /// Ours move before them.
        case first
        /// Ours stay; `mat status` says what is before them.
        case fixed
    }

    public enum ReversePath: String, CaseIterable, Sendable {
        case warn
        /// Set to loose while `matd` runs.
        case loosen
    }

    public init() {}

    /// What the configuration says are HoAs: the destinations of `traffic`, if they are listed, and of `peers`. A prefix of length 0 names
    /// nobody.
    var namedPrefixes: [IPPrefix] {
        var prefixes = peerPreferences.map(\.prefix)
        if case .prefixes(let listed) = traffic { prefixes += listed }
        return prefixes.filter { $0.familyLength > 0 }
    }

    /// Whether an interface's addresses may serve as locators.
    public func mayUse(interface: String) -> Bool {
        addressRules.mayUse(interface: interface)
    }
}
