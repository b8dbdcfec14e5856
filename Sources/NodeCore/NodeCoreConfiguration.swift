import MATCore
import MATSignal

/// Who this node is at one HoA.
public struct HomeIdentity: Sendable {
    public var hoa: HomeAddress
    public var key: SigningKey
    public var certificate: Certificate
    /// The highest sequence that was signed before, from the state directory; 0 if none is known.
    public var lastSequence: UInt64
    /// Which own addresses it may have, if a node has several HoAs of a family; empty: any.
    package var use: [LocatorAssignment.Use] = []
    /// Given by the network that the node is in, while programs use it (`Visits`).
    package var isVisited = false

    public init(hoa: HomeAddress, key: SigningKey, certificate: Certificate, lastSequence: UInt64 = 0) {
        self.hoa = hoa
        self.key = key
        self.certificate = certificate
        self.lastSequence = lastSequence
    }
}

/// What the core is told at start. Every table that the network can make grow has its bound here.
public struct NodeCoreConfiguration: Sendable {
    /// For a `NodeCore` at most one HoA of each family; `NodeCores` takes any number.
    public var homes: [HomeIdentity]
    /// Interfaces in order of preference; others follow in the order the system lists them.
    public var preferredInterfaces: [String] = []
    /// Exceptions from that order for some peers; the longest prefix counts.
    public var peerPreferences: [PeerPreference] = []
    /// What the configuration says are HoAs: their packets wait for the DNS however long it is silent.
    public var namedPrefixes: [IPPrefix] = []
    public var paths = PathConfiguration()
    /// HoAs of the site that this node stands at: only to these, and to who is behind the same translator, its private addresses are told.
    public var site: [IPPrefix] = []
    /// How large packets in datagrams are, if it is not to be found out.
    public var mtu: UInt32?
    /// Own relays beside those that the DNS names; they go before those.
    public var relays: [RelayHost] = []
    /// Whether packets that nobody here asked for arrive at the own addresses.
    public var inbound = InboundSetting.auto
    /// How plain hosts are talked to.
    public var plain = PlainPolicy()
    /// Prefixes of other than global scope that are routed from here without translation: peers' locators in them are used.
    public var routedPrefixes: [IPPrefix] = []
    /// Seconds; protocol.md section 4.
    public var lifetime: UInt32 = MappingRecord.lifetimeDefault
    /// Seconds, while at home, where the location changes least.
    public var homeLifetime: UInt32 = MappingRecord.lifetimeMax
    /// How often an active peer's mapping is asked for; the pushes make this a safety net.
    public var pollInterval: Duration = .seconds(30)
    /// A peer without traffic for this long is forgotten; a later packet starts anew.
    public var peerIdleMax: Duration = .seconds(600)
    /// How long a packet that opens a connection waits for our IMS's answer before it passes as plain: two round trips to that IMS, but
    /// within these bounds. The upper one is a little less than what the kernel holds it for, and that is less than what a SYN waits for
    /// its repetition.
    public var strangerWaitMin: Duration = .milliseconds(100)
    public var strangerWaitMax: Duration = .milliseconds(950)
    /// How long any other packet from an unknown source waits.
    public var strangerHoldMax: Duration = .seconds(3)
    /// How long a source that our IMS does not know may still turn out to be a peer that moved just now: its MA Notify travels
    /// beside its first packets, and one loss must not make it plain.
    public var movedPeerWaitMax: Duration = .milliseconds(300)
    /// How long packets to an unknown destination wait for DNS and IMS.
    public var destinationHoldMax: Duration = .seconds(10)
    /// How long further locators may delay a registration while they are being proven.
    public var proofWaitMax: Duration = .milliseconds(400)
    /// Messages a second to peers and their IMSs, requests and their repetitions together, on average; and how many may go at once. A
    /// node with 100,000 peers has told all of them after a handover in 50 s, with 6 Mbit/s.
    public var messagesPerSecond = 2000
    public var messagesBurst = 256
    /// Peers polled a second: with many peers each is polled less often than `pollInterval` says.
    public var pollsPerSecond = 400
    public var peersMax = 100_000
    public var strangersMax = 4096
    public var destinationsMax = 4096
    /// Entries of cookies and round-trip times.
    public var serversMax = 8192
    /// Signature checks per second on MA Notify without a valid cookie, and per source with one (section 6).
    public var uncookiedChecksPerSecond = 50
    public var checksPerSecondPerSource = 20
    /// HA Queries per second to the own IMS, which grants 100; two thirds for packets that open connections.
    public var strangerQueriesPerSecond = 90
    /// Answers to strangers on an own link: each may stay in the socket's buffer (768 octets of 208 KiB) and take a neighbour's entry (of 1024)
    /// for the three seconds that the kernel looks for him. Fewer than fill the part that answers to all strangers share.
    var linkAnswersPerSecond = 16
    /// Checks and questions out of turn, that what strangers send can cause.
    var recheckedPerSecond = 50
    /// Answers to malformed requests.
    var refusalsPerSecond = 10
    /// How many cores share these bounds, and those that are constants.
    private(set) var coresCount = 1
    /// How often the own IMS is asked whether it still has our record.
    public var selfCheckInterval: Duration = .seconds(120)
    /// NTP had confirmed the machine's clock at the start. The daemon says what the kernel says; without it the own IMS's clock is read first.
    public var isClockConfirmed = true
    /// Whether its own addresses are other HoAs', which others reach there by rewritten packets: this one's packets always go in datagrams.
    var sharesAddresses = false
    /// Whether there may be visited homes, for which a part of the bounds is set aside.
    public var visits = false
    /// 16 octets each, made at start.
    public var clientSecret: [UInt8]
    public var cookieSecret: [UInt8]

    public init(homes: [HomeIdentity], clientSecret: [UInt8], cookieSecret: [UInt8]) {
        self.homes = homes
        self.clientSecret = clientSecret
        self.cookieSecret = cookieSecret
    }

    /// What each of so many cores of one node gets: rates and tables are the whole node's, times and everything else are the same for all.
    func part(of cores: Int) -> NodeCoreConfiguration {
        var part = self
        part.coresCount = max(1, cores)
        for bound in Self.bounds { part[keyPath: bound] = max(1, self[keyPath: bound] / part.coresCount) }
        return part
    }

    /// This core's share of a bound of the whole node.
    func share(of bound: Int) -> Int { max(1, bound / coresCount) }

    /// All that the network can make grow. A test finds what is missing here.
    private static let bounds: [WritableKeyPath<NodeCoreConfiguration, Int> & Sendable] = [
        \.messagesPerSecond, \.messagesBurst, \.pollsPerSecond, \.peersMax, \.strangersMax, \.destinationsMax, \.serversMax,
        \.uncookiedChecksPerSecond,
        \.checksPerSecondPerSource, \.strangerQueriesPerSecond, \.linkAnswersPerSecond, \.recheckedPerSecond, \.refusalsPerSecond,
        \.paths.probesPerSecond,
        \.paths.pathsMax, \.paths.detoursMax,
    ]
}
