// What matd says at its control socket, and `mat ... --json` prints. Keys are an interface: they are added to and never given another
// meaning; docs/json has the schemas, and says what a change costs. Addresses, prefixes and endpoints are text. Times are milliseconds, and
// their names say so: durations, and points in time since 1970.

/// What `mat status` asks, and what a handover answers.
public struct NodeReport: Codable, Hashable, Sendable {
    public var uptimeMilliseconds: Int64
    /// Whether every home address is.
    public var registered: Bool
    public var homes: [HomeReport]
    public var locators: [LocatorReport]
    /// Of the home addresses. `nil` from an earlier matd.
    @OrNull public var relays: [RelayReport]?
    /// Peers do not learn where the node is: it is reached by relays alone. `nil` from an earlier matd.
    @OrNull public var relayOnly: Bool?
    public var unusedAddresses: [UnusedAddressReport]
    public var silentRouters: [SilentRouterReport]
    public var routingRules: RoutingRulesReport
    public var pathsWatched: Int
    /// What a person has chosen for all traffic.
    @OrNull public var chosenInterface: String?
    /// Those that a person should look at, then those with the latest traffic, if there are very many.
    public var peers: [PeerReport]
    public var peersCount: Int
    /// If there are very many: of all, those that a person should look at. `nil` else, and from an earlier matd.
    @OrNull public var peersTroubled: Int?
    /// Destinations being looked up.
    public var resolving: Int
    public var undecided: UndecidedReport
    @OrNull public var dns: DNSReport?
    public var unknownSources: Int
    /// To the kernel's tables, since the start.
    public var repairs: UInt64
    @OrNull public var lastRepair: String?
    public var counters: NodeCountersReport

    public init(
        uptimeMilliseconds: Int64, registered: Bool, homes: [HomeReport], locators: [LocatorReport], relays: [RelayReport]?,
        relayOnly: Bool? = nil, unusedAddresses: [UnusedAddressReport],
        silentRouters: [SilentRouterReport], routingRules: RoutingRulesReport, pathsWatched: Int, chosenInterface: String?, peers: [PeerReport],
        peersCount: Int, peersTroubled: Int? = nil, resolving: Int, undecided: UndecidedReport, dns: DNSReport?, unknownSources: Int, repairs: UInt64,
        lastRepair: String?,
        counters: NodeCountersReport
    ) {
        self.uptimeMilliseconds = uptimeMilliseconds
        self.registered = registered
        self.homes = homes
        self.locators = locators
        self.relays = relays
        self.relayOnly = relayOnly
        self.unusedAddresses = unusedAddresses
        self.silentRouters = silentRouters
        self.routingRules = routingRules
        self.pathsWatched = pathsWatched
        self.chosenInterface = chosenInterface
        self.peers = peers
        self.peersCount = peersCount
        self.peersTroubled = peersTroubled
        self.resolving = resolving
        self.undecided = undecided
        self.dns = dns
        self.unknownSources = unknownSources
        self.repairs = repairs
        self.lastRepair = lastRepair
        self.counters = counters
    }
}

/// What `mat peers` asks.
public struct PeersReport: Codable, Hashable, Sendable {
    /// Those that a person should look at, then those with the latest traffic, if there are very many.
    public var peers: [PeerReport]
    public var peersCount: Int
    /// If there are very many: of all, those that a person should look at. `nil` else, and from an earlier matd.
    @OrNull public var peersTroubled: Int?
    /// Destinations that may be MAT nodes; some are talked to plainly meanwhile. `nil` from an earlier matd.
    @OrNull public var undecided: UndecidedReport?

    public init(peers: [PeerReport], peersCount: Int, peersTroubled: Int? = nil, undecided: UndecidedReport?) {
        self.peers = peers
        self.peersTroubled = peersTroubled
        self.peersCount = peersCount
        self.undecided = undecided
    }
}

/// A home address of this node's.
public struct HomeReport: Codable, Hashable, Sendable {
    public var address: String
    /// A mobile network's.
    @OrNull public var prefix: String?
    /// What is registered, the preferred first.
    public var locators: [String]
    public var servers: [String]
    /// waiting, proving, updating, registered or pausing.
    public var state: String
    /// Until the next attempt after one that failed, or the next question for its servers. `nil` also from an earlier matd.
    @OrNull public var nextTryMilliseconds: Int64?
    /// Since its server last acknowledged it.
    @OrNull public var ageMilliseconds: Int64?
    @OrNull public var expiresInMilliseconds: Int64?
    public var certificateNotAfterMilliseconds: UInt64
    public var certificateEndsSoon: Bool
    public var sequence: UInt64
    /// What is wrong, what to do about it, and a word for programs.
    @OrNull public var problem: String?
    @OrNull public var problemCode: Problem.Code?
    @OrNull public var remedy: String?

    public init(
        address: String, prefix: String?, locators: [String], servers: [String], state: String, ageMilliseconds: Int64?,
        expiresInMilliseconds: Int64?,
        certificateNotAfterMilliseconds: UInt64, certificateEndsSoon: Bool, sequence: UInt64, problem: Problem?,
        nextTryMilliseconds: Int64? = nil
    ) {
        self.address = address
        self.prefix = prefix
        self.locators = locators
        self.servers = servers
        self.state = state
        self.nextTryMilliseconds = nextTryMilliseconds
        self.ageMilliseconds = ageMilliseconds
        self.expiresInMilliseconds = expiresInMilliseconds
        self.certificateNotAfterMilliseconds = certificateNotAfterMilliseconds
        self.certificateEndsSoon = certificateEndsSoon
        self.sequence = sequence
        self.problem = problem?.text
        problemCode = problem?.code
        remedy = problem?.remedy
    }
}

/// A mobile address of this node's.
public struct LocatorReport: Codable, Hashable, Sendable {
    public var address: String
    public var interface: String
    /// sound, dead, returning, flapping or refused.
    public var state: String
    public var deprecated: Bool
    /// Why it is not used, or not registered.
    @OrNull public var reason: String?
    @OrNull public var silentMilliseconds: Int64?
    @OrNull public var nextCheckMilliseconds: Int64?
    @OrNull public var trustedInMilliseconds: Int64?
    public var failures: Int
    /// A translator or firewall before it.
    @OrNull public var translation: TranslationReport?

    public init(
        address: String, interface: String, state: String, deprecated: Bool, reason: String?, silentMilliseconds: Int64?,
        nextCheckMilliseconds: Int64?,
        trustedInMilliseconds: Int64?, failures: Int, translation: TranslationReport? = nil
    ) {
        self.address = address
        self.interface = interface
        self.state = state
        self.deprecated = deprecated
        self.reason = reason
        self.silentMilliseconds = silentMilliseconds
        self.nextCheckMilliseconds = nextCheckMilliseconds
        self.trustedInMilliseconds = trustedInMilliseconds
        self.failures = failures
        self.translation = translation
    }
}

/// What stands before an own mobile address.
public struct TranslationReport: Codable, Hashable, Sendable {
    public enum Mapping: String, Codable, Hashable, Sendable {
        /// One server was asked.
        case unknown
        case endpointIndependent = "endpoint-independent"
        case endpointDependent = "endpoint-dependent"
    }

    /// Where others see the address; `nil`: it is filtered, not translated.
    @OrNull public var seen: String?
    @OrNull public var mapping: Mapping?
    public var text: String

    public init(seen: String?, mapping: Mapping?, text: String) {
        self.seen = seen
        self.mapping = mapping
        self.text = text
    }
}

/// A relay of a home address, at which this node is bound where it can't be reached as it is.
public struct RelayReport: Codable, Hashable, Sendable {
    public enum State: String, Codable, Hashable, CaseIterable, Sendable {
        /// Peers reach the node without.
        case notNeeded = "not needed"
        case asked
        /// Peers may use it.
        case bound
        /// Bound, but the mapping server takes no record that says so.
        case unlisted
        case silent
        case refused
        /// It has no address of a family that this host has.
        case unreachable
    }

    public var home: String
    /// All addresses of the relay, with ports.
    public var addresses: [String]
    public var state: State
    /// The address of it that is used, and the mobile address that it is used from.
    @OrNull public var address: String?
    @OrNull public var locator: String?
    /// Where the relay sees this node.
    @OrNull public var observed: String?
    /// Why it is refused.
    @OrNull public var reason: String?
    /// `routed` or `source-nat` if it is a gateway to plain hosts: as which they see this node.
    @OrNull public var gateway: String?

    public init(
        home: String, addresses: [String], state: State, address: String?, locator: String?, observed: String?, reason: String?, gateway: String?
    ) {
        self.home = home
        self.addresses = addresses
        self.state = state
        self.address = address
        self.locator = locator
        self.observed = observed
        self.reason = reason
        self.gateway = gateway
    }
}

public struct UnusedAddressReport: Codable, Hashable, Sendable {
    public var address: String
    public var interface: String
    public var reason: String

    public init(address: String, interface: String, reason: String) {
        self.address = address
        self.interface = interface
        self.reason = reason
    }
}

/// A router that does not answer.
public struct SilentRouterReport: Codable, Hashable, Sendable {
    public var address: String
    public var interface: String
    /// The one that is used meanwhile.
    @OrNull public var instead: String?

    public init(address: String, interface: String, instead: String?) {
        self.address = address
        self.interface = interface
        self.instead = instead
    }
}

/// Other programs' routing rules that want all traffic.
public struct RoutingRulesReport: Codable, Hashable, Sendable {
    /// The first priority of MAT's own.
    public var base: UInt32
    public var passed: [String]
    public var before: [String]

    public init(base: UInt32, passed: [String], before: [String]) {
        self.base = base
        self.passed = passed
        self.before = before
    }
}

public struct PeerReport: Codable, Hashable, Sendable {
    /// Whether a conversation with it would survive a move of either end, as far as this one can know.
    public enum Standing: String, Codable, Hashable, Sendable {
        /// Each end knows where the other is.
        case mapped
        /// The peer may not hear of this host's moves.
        case oneSided
        /// Packets to it wait, or are lost.
        case unreachable
    }

    public enum Path: String, Codable, Hashable, CaseIterable, Sendable {
        /// Addresses are rewritten; packets keep their size.
        case direct
        /// Packets travel whole in datagrams between endpoints.
        case encapsulated
        /// Likewise, by a relay that forwards them: then `locator` is the relay.
        case relayed
    }

    public var home: String
    public var ownHome: String
    /// How its packets go.
    @OrNull public var path: Path?
    /// Where its packets go, and from where; `nil` without a path.
    @OrNull public var locator: String?
    @OrNull public var ownLocator: String?
    @OrNull public var interface: String?
    public var locators: [String]
    public var confirmed: Bool
    public var proven: Bool
    public var ageMilliseconds: Int64
    public var refreshedAgoMilliseconds: Int64
    /// How often the way of its packets changed: the pair of addresses, the endpoint, the relay, or which of these.
    public var switches: Int
    @OrNull public var detourMilliseconds: Int64?
    @OrNull public var chosenInterface: String?
    public var packetsOut: UInt64
    public var packetsIn: UInt64
    public var octetsOut: UInt64
    public var octetsIn: UInt64
    @OrNull public var problem: String?
    @OrNull public var problemCode: Problem.Code?
    /// `nil` from an earlier matd.
    @OrNull public var standing: Standing?
    /// Why it is not mapped.
    @OrNull public var standingReason: String?

    public init(
        home: String, ownHome: String, path: Path?, locator: String?, ownLocator: String?, interface: String?, locators: [String], confirmed: Bool,
        proven: Bool,
        ageMilliseconds: Int64, refreshedAgoMilliseconds: Int64, switches: Int, detourMilliseconds: Int64?, chosenInterface: String?,
        packetsOut: UInt64,
        packetsIn: UInt64, octetsOut: UInt64, octetsIn: UInt64, problem: Problem?, standing: Standing?, standingReason: String?
    ) {
        self.home = home
        self.ownHome = ownHome
        self.path = path
        self.locator = locator
        self.ownLocator = ownLocator
        self.interface = interface
        self.locators = locators
        self.confirmed = confirmed
        self.proven = proven
        self.ageMilliseconds = ageMilliseconds
        self.refreshedAgoMilliseconds = refreshedAgoMilliseconds
        self.switches = switches
        self.detourMilliseconds = detourMilliseconds
        self.chosenInterface = chosenInterface
        self.packetsOut = packetsOut
        self.packetsIn = packetsIn
        self.octetsOut = octetsOut
        self.octetsIn = octetsIn
        self.problem = problem?.text
        problemCode = problem?.code
        self.standing = standing
        self.standingReason = standingReason
    }
}

/// Destinations of which DNS does not say whether they are MAT nodes.
public struct UndecidedReport: Codable, Hashable, Sendable {
    public struct Destination: Codable, Hashable, Sendable {
        public var address: String
        /// Talked to plainly meanwhile; otherwise its packets wait.
        public var isPlain: Bool
        public var reason: String
        public var ageMilliseconds: Int64
        public var askedAgoMilliseconds: Int64

        public init(address: String, isPlain: Bool, reason: String, ageMilliseconds: Int64, askedAgoMilliseconds: Int64) {
            self.address = address
            self.isPlain = isPlain
            self.reason = reason
            self.ageMilliseconds = ageMilliseconds
            self.askedAgoMilliseconds = askedAgoMilliseconds
        }
    }

    public var count: Int
    /// Those used last.
    public var destinations: [Destination]

    public init(count: Int, destinations: [Destination]) {
        self.count = count
        self.destinations = destinations
    }
}

/// The DNS servers that matd asks.
public struct DNSReport: Codable, Hashable, Sendable {
    public struct Server: Codable, Hashable, Sendable {
        /// With the interface behind a `%`, if it is for that one alone.
        public var address: String
        public var port: UInt16
        /// Whom a local resolver asks.
        public var isUpstream: Bool
        @OrNull public var answeredAgoMilliseconds: Int64?
        @OrNull public var failingMilliseconds: Int64?
        @OrNull public var failure: String?

        public init(address: String, port: UInt16, isUpstream: Bool, answeredAgoMilliseconds: Int64?, failingMilliseconds: Int64?, failure: String?) {
            self.address = address
            self.port = port
            self.isUpstream = isUpstream
            self.answeredAgoMilliseconds = answeredAgoMilliseconds
            self.failingMilliseconds = failingMilliseconds
            self.failure = failure
        }
    }

    /// Where they are configured.
    public var from: String
    public var servers: [Server]

    public init(from: String, servers: [Server]) {
        self.from = from
        self.servers = servers
    }
}

/// Counts since the start.
public struct NodeCountersReport: Codable, Hashable, Sendable {
    public var handovers: UInt64 = 0
    public var answersWithheld: UInt64 = 0
    public var uplinkFailures: UInt64 = 0
    public var detours: UInt64 = 0
    public var probesSent: UInt64 = 0
    public var registrations: UInt64 = 0
    public var recordsLost: UInt64 = 0
    public var messagesSent: UInt64 = 0
    public var messagesReceived: UInt64 = 0
    public var retransmissions: UInt64 = 0
    public var malformedDropped: UInt64 = 0
    public var unmatchedDropped: UInt64 = 0
    public var draftsDropped: UInt64 = 0
    public var recordsRefused: UInt64 = 0
    public var unknownSourcesAsked: UInt64 = 0
    public var unknownSourcesIdentified: UInt64 = 0
    public var unknownSourcesPlain: UInt64 = 0
    public var destinationsResolved: UInt64 = 0
    public var destinationsPlain: UInt64 = 0
    public var destinationsUndecided: UInt64 = 0

    public init() {}
}

/// What `mat why` asks.
public struct WhyReport: Codable, Hashable, Sendable {
    /// A way that packets take, or could.
    public struct Candidate: Codable, Hashable, Sendable {
        public var path: PeerReport.Path
        public var to: String
        @OrNull public var from: String?
        public var used: Bool
        /// What was found out about it last, in words.
        public var state: String
        /// What would make it work.
        @OrNull public var remedy: String?

        public init(path: PeerReport.Path, to: String, from: String?, used: Bool, state: String, remedy: String?) {
            self.path = path
            self.to = to
            self.from = from
            self.used = used
            self.state = state
            self.remedy = remedy
        }
    }

    /// A conversation with the peer that goes beside the mapping: a move of either end ends it.
    public struct PlainConversation: Codable, Hashable, Sendable {
        /// tcp or udp.
        public var transport: String
        public var local: String
        public var remote: String
        /// Why it is not mapped.
        public var reason: String

        public init(transport: String, local: String, remote: String, reason: String) {
            self.transport = transport
            self.local = local
            self.remote = remote
            self.reason = reason
        }
    }

    public var peer: String
    public var ownHome: String
    /// Best first.
    public var candidates: [Candidate]
    /// What stands before the own addresses, a sentence for each.
    public var translations: [String]
    /// What its record shows of what stands before the peer; `nil` also from an earlier matd.
    @OrNull public var peerTranslation: String?
    @OrNull public var problem: String?
    /// Of this host's sockets, those that `mat` finds connected, and flows of datagrams that matd has noted. `nil` from an earlier matd.
    @OrNull public var plain: [PlainConversation]?

    public init(
        peer: String, ownHome: String, candidates: [Candidate], translations: [String], peerTranslation: String? = nil, problem: String?,
        plain: [PlainConversation]? = nil
    ) {
        self.plain = plain
        self.peer = peer
        self.peerTranslation = peerTranslation
        self.ownHome = ownHome
        self.candidates = candidates
        self.translations = translations
        self.problem = problem
    }
}
