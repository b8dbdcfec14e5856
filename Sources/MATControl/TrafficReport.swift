/// What `mat explain` asks: what becomes of the packets between two addresses, why, and whether a conversation of theirs survives a move.
public struct TrafficReport: Codable, Hashable, Sendable {
    public enum Way: String, Codable, Hashable, Sendable {
        case mapped
        /// To a plain host, by a relay that is a gateway.
        case gateway
        case plain
        /// Held until it is known which, or until there is a path.
        case waits
        /// Never leaves this host or its link.
        case local
        /// It is found out with the next packet.
        case unknown
    }

    /// What decides the way. The words are an interface; new ones may come.
    public struct Cause: RawRepresentable, Codable, Hashable, Sendable {
        public let rawValue: String
        public init(rawValue: String) { self.rawValue = rawValue }

        public static let peer = Cause(rawValue: "peer")
        public static let gateway = Cause(rawValue: "gateway")
        public static let gatewayAwaited = Cause(rawValue: "gateway-awaited")
        public static let thisHost = Cause(rawValue: "this-host")
        public static let link = Cause(rawValue: "link")
        public static let ownNetwork = Cause(rawValue: "own-network")
        public static let noHome = Cause(rawValue: "no-home-address")
        public static let nameServer = Cause(rawValue: "dns-server")
        public static let exception = Cause(rawValue: "except")
        public static let notSelected = Cause(rawValue: "traffic")
        public static let ownAddress = Cause(rawValue: "own-address")
        public static let peersAddress = Cause(rawValue: "mobile-address-of-peer")
        public static let noServers = Cause(rawValue: "no-server-in-dns")
        public static let noMapping = Cause(rawValue: "no-mapping")
        public static let silentNames = Cause(rawValue: "dns-silent")
        public static let lookedUp = Cause(rawValue: "asking-dns")
        public static let asked = Cause(rawValue: "asking-server")
        public static let unseen = Cause(rawValue: "unseen")
    }

    public enum Survival: String, Codable, Hashable, Sendable {
        case yes
        /// Not as far as this end can know, or not now.
        case perhaps
        case no
        case unknown
    }

    @OrNull public var local: String?
    public var remote: String
    public var way: Way
    public var cause: Cause
    /// Why, in a line.
    public var text: String
    public var survives: Survival
    /// Why `perhaps`.
    @OrNull public var survivalReason: String?
    @OrNull public var remedy: String?
    /// How its packets go, of what is mapped.
    @OrNull public var peer: PeerReport?

    public init(
        local: String?, remote: String, way: Way, cause: Cause, text: String, survives: Survival, survivalReason: String?, remedy: String?,
        peer: PeerReport?
    ) {
        self.local = local
        self.remote = remote
        self.way = way
        self.cause = cause
        self.text = text
        self.survives = survives
        self.survivalReason = survivalReason
        self.remedy = remedy
        self.peer = peer
    }
}

/// The answers, in the order of the questions.
public struct TrafficReports: Codable, Hashable, Sendable {
    /// This node's home addresses, or home prefixes of mobile networks.
    public var homes: [String]
    public var traffic: [TrafficReport]

    public init(homes: [String], traffic: [TrafficReport]) {
        self.homes = homes
        self.traffic = traffic
    }
}
