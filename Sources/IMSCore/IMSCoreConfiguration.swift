import MATCore
import MATSignal

/// A prefix of home addresses that this IMS is authoritative for.
public struct ServedPrefix: Hashable, Sendable {
    public var prefix: IPPrefix
    /// The networks that mobile networks of this prefix may be behind (MoPre); others are refused.
    public var mobilePrefixes: [IPPrefix]
    /// Whether anyone may subscribe to changes, or only nodes whose locator is known here.
    public var allowsStrangersToSubscribe: Bool
    /// Mappings that it may have, the table's bound apart; `nil`: as many as the table takes.
    public var mappingsMax: Int?
    /// Updates accepted of all its nodes together.
    public var updatesPerSecond: Int

    /// More than one server takes in.
    public static let updatesPerSecondDefault = 100_000

    public init(
        prefix: IPPrefix, mobilePrefixes: [IPPrefix] = [], allowsStrangersToSubscribe: Bool = true, mappingsMax: Int? = nil,
        updatesPerSecond: Int = Self.updatesPerSecondDefault
    ) {
        self.mappingsMax = mappingsMax
        self.updatesPerSecond = updatesPerSecond
        self.prefix = prefix
        self.mobilePrefixes = mobilePrefixes
        self.allowsStrangersToSubscribe = allowsStrangersToSubscribe
    }
}

/// The bounds of protocol.md sections 6 and 7, with its defaults.
public struct IMSLimits: Hashable, Sendable {
    /// IMS Updates accepted per HoA.
    public var updatesPerSecond = 5
    /// HA Notifies per source (/64 or IPv4 address), and again per PEER-HOA.
    public var notifiesPerSecond = 10
    /// HA Notifies being worked on.
    public var notifiesPendingMax = 1000
    /// HA Queries per source.
    public var queriesPerSecond = 100
    /// Signature checks per source. Of this, of HA Notifies and of HA Queries an IPv4 address at which several HoAs are registered or bound
    /// has ten times as many (section 6): `SharedAddresses`.
    public var verificationsPerSecond = 20
    /// Signature checks waiting for a thread, over all.
    public var verificationsPendingMax = 4096
    /// Signature checks for nodes of other IMSs, over all; each is two signatures, 140 us.
    public var strangerVerificationsPerSecond = 500
    /// Answers with code 3 or 10, over all.
    public var errorAnswersPerSecond = 50
    /// Answers to draft queries, over all: they carry no cookie and are longer than the question.
    public var draftAnswersPerSecond = 1000
    /// Datagrams of one source (/64 or IPv4 address), queries apart, that are looked at; more are dropped.
    public var messagesPerSourcePerSecond = 1000
    /// HA Notifies and MA Notifies of all sources together; `nil`: `AdmissionGate.strangersPerThread` for each worker. Beyond it they are told
    /// to come later.
    public var strangerMessagesPerSecond: Int?
    /// Joins of all sources together; `nil`: `AdmissionGate.joinsPerThread` for each worker. Beyond it they are told to come later.
    public var joinsPerSecond: Int?
    /// HoAs of other IMSs that HA Notifies of one source make us find out about at a time.
    public var inquiriesPerSourceMax = 8
    /// HoAs of other IMSs that HA Notifies of all sources together make us find out about. Each takes a look-up in DNS and a question to
    /// another server: 250 us of the core's time.
    public var inquiriesPerSecond = 150
    /// Names of the reverse zone for which it is known who serves them, or being found out.
    public var lookUpsMax = 16_384
    /// Log lines about refusals, over all.
    public var refusalLogsPerSecond = 20
    /// Log lines about changes of mappings, over all.
    public var bindingLogsPerSecond = 200
    /// The longest subscription, seconds.
    public var subscribeSecondsMax: UInt32 = 300
    /// Subscriptions per source (/64 or IPv4 address) and HoA.
    public var subscriptionsPerSourceMax = 8
    public var subscriptionsMax = 262_144
    /// Mappings of other IMSs' nodes that are kept.
    public var rememberedMax = 4096
    /// Registered mappings.
    public var mappingsMax = 1_000_000
    /// Bindings. A full table takes no new ones and drops none that is in use.
    public var bindingsMax = 262_144
    /// Reachability tests begun; each is three small datagrams to each MoA. More than nodes register in a second: who is not tested takes its
    /// MoA for filtered.
    public var reachabilityTestsPerSecond = 100_000
    /// Sources, HoAs and the like for which a rate is kept.
    public var ratesMax = 65_536
    /// Pushes waiting for their ack.
    public var pushesMax = 65_536
    /// Writes waiting to become durable.
    public var writesMax = 16_384
    /// How long "not found" may be remembered, seconds.
    public var notFoundSeconds: UInt32 = 30

    public init() {}
}

/// Which relays a node's record may list (section 11.1): peers' packets go there.
public enum RelayPolicy: Hashable, Sendable {
    case any
    case none
    case within([IPPrefix])

    func allows(_ address: IPAddress) -> Bool {
        switch self {
        case .any: true
        case .none: false
        case .within(let prefixes): prefixes.contains { $0.contains(address) }
        }
    }
}

/// What `IMSCore` is told at its start, and again when the configuration is read anew.
public struct IMSCoreConfiguration: Sendable {
    public var served: [ServedPrefix] { didSet { servedIndex = ServedIndex(served) } }
    private var servedIndex: ServedIndex
    /// Keys that certificates of the own HoAs may be signed with: the current one and, during a rotation, earlier ones.
    public var publicKeys: [PublicKey] {
        didSet { issuerIDs = publicKeys.map(\.id) }
    }
    /// Their ids, each of which is a hash.
    private(set) var issuerIDs: [UInt64] = []
    /// Those among them that are being rotated out: certificates signed with them are renewed when their node next registers.
    public var previousKeys: [PublicKey] {
        didSet { previousIDs = previousKeys.map(\.id) }
    }
    private(set) var previousIDs: [UInt64] = []
    /// Signs certificates, if it is kept on this server.
    public var signingKey: SigningKey?
    /// How long issued certificates are valid.
    public var certificateLifetime: Duration
    public var limits: IMSLimits
    /// Sources whose draft queries (X=0) are answered.
    public var draftSources: [IPPrefix]
    /// Whether nodes that register are sent locator checks from elsewhere, by which they find out that their MoAs are filtered.
    public var testsReachability = false
    public var relays = RelayPolicy.any
    /// How long an HoA stays its key's after its certificate has ended and its last IMS Update came (section 12).
    public var leaseIdle: Duration = .seconds(30 * 86_400)
    public var visitorLeaseIdle: Duration = .seconds(3600)
    /// Who else has a word in what tokens give; of several that cover something the first.
    public var authorities: [Authority] = []
    /// Who is taken in of other IMSs' nodes; `nil`: nobody.
    public var visitors: VisitorPolicy?
    /// Where this server receives.
    public var port = SignalPort.ims
    /// Addresses at which nodes reach it, beside those that datagrams come to.
    public var publicAddresses: [IPAddress] = []

    public init(
        served: [ServedPrefix], publicKeys: [PublicKey] = [], previousKeys: [PublicKey] = [], signingKey: SigningKey? = nil,
        certificateLifetime: Duration = .seconds(365 * 86_400), limits: IMSLimits = IMSLimits(), draftSources: [IPPrefix] = []
    ) {
        self.served = served
        servedIndex = ServedIndex(served)
        self.signingKey = signingKey
        self.publicKeys = publicKeys + previousKeys.filter { !publicKeys.contains($0) }
        self.previousKeys = previousKeys
        if let own = signingKey?.publicKey, !self.publicKeys.contains(own) { self.publicKeys.insert(own, at: 0) }
        issuerIDs = self.publicKeys.map(\.id)
        previousIDs = previousKeys.map(\.id)
        self.certificateLifetime = certificateLifetime
        self.limits = limits
        self.draftSources = draftSources
    }

    /// The longest served prefix that covers the address.
    public func served(covering address: IPAddress) -> ServedPrefix? { served(covering: IPPrefix(address)) }

    /// The longest served prefix that covers all of the prefix.
    public func served(covering prefix: IPPrefix) -> ServedPrefix? {
        servedIndex.place(covering: prefix).map { served[$0] }
    }
}

/// Finds a served prefix without a walk through all of them: every message asks, and some servers have thousands.
private struct ServedIndex: Sendable {
    private var places: [IPPrefix: Int] = [:]
    private var lengths = PrefixLengths()

    init(_ served: [ServedPrefix]) {
        for (place, each) in served.enumerated() where places.updateValue(place, forKey: each.prefix) == nil {
            lengths.add(each.prefix.length)
        }
    }

    func place(covering prefix: IPPrefix) -> Int? {
        for length in lengths.descending where length <= prefix.length {
            if let place = places[IPPrefix(covering: prefix.address, length: length)] { return place }
        }
        return nil
    }
}
