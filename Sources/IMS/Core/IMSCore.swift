import MATCore
import MATDNS
import MATSignal
import MappingMemory

/// An IMS's decisions, without I/O, clock or threads: events and `Now` in, actions out.
///
/// ```
///  datagram ──► dispatch ──► MA Query, HA Query ───────────────► answer from memory
///                  │
///                  ├──► IMS Update ──► checks ──► verify ─ verified ─► commit ─ stored ─► reply, push to subscribers
///                  │
///                  ├──► HA Notify ──► look-up ─ resolved ─► verify ─ verified ─► ack, MA Notify to the CN
///                  │                     └───► MA Query to IMS_MN ──► confirm or correct
///                  └──► MA Notify ──► verify ─ verified ─► remember
/// ```
/// Names between dashes are events of their own: what they wait for is done elsewhere.
/// Everything that grows is bounded by `IMSLimits`. One source of randomness is given from outside, so a simulation with the
/// same seed runs the same way.
public struct IMSCore: Sendable {
    var configuration: IMSCoreConfiguration
    var cookies: CookieAuthority
    let clientCookies: ClientCookies
    private var random: any RandomNumberGenerator & Sendable

    var store = StoreState()
    var quotas = PrefixQuotas()
    var survey: Survey?
    var surveyResult = SurveyResult()
    var lastSurveyBegan: UInt64?
    var certificatesWarnedAt: MonotonicTime?
    /// Shared with the threads that answer queries from it; changed here alone. Copies of a core share it.
    let mappings = MappingTable()
    var issued: IssuedCertificates
    var remembered: RememberedTable
    var subscriptions: SubscriptionTable
    /// Cookies that other servers and nodes gave us, so that our requests are answered at once.
    var serverCookies = RecencyTable<CookiePeer, ServerCookie>()

    var verifications = VerificationTable()
    var writes: [StoreTicket: PendingWrite] = [:]
    /// The newest mapping of each HoA that is being written: versions are compared with it, not only with what is durable.
    var newestWrites: [IPPrefix: StoreTicket] = [:]
    var pushes: [PushKey: Push] = [:]
    var pushKeys: [UInt32: PushKey] = [:]
    /// By changed mapping, who has not been sent it yet.
    var subscribersToTell: [IPPrefix: ArraySlice<SubscriptionTable.Subscriber>] = [:]
    var notifies: [NotifyKey: PendingNotify] = [:]
    var confirmations: [HomeAddress: Confirmation] = [:]
    var confirmationKeys: [UInt32: HomeAddress] = [:]
    var lookUps = RecencyTable<IPPrefix, LookUp>()
    /// HoAs that strangers at one source make us find out about at the moment.
    var inquiries: [IPPrefix: Int] = [:]
    /// Servers that have answered us before: those get all tries, others two.
    var answeredServers = RecencyTable<IPAddress, Bool>()

    var updateRates: RateTable<IPPrefix>
    var notifySourceRates: RateTable<IPPrefix>
    var notifyPeerRates: RateTable<HomeAddress>
    var queryRates: RateTable<IPPrefix>
    var verificationRates: RateTable<IPPrefix>
    var strangerVerifications: RateLimit
    var inquiryRate: RateLimit
    var errorAnswers: RateLimit
    var draftAnswers: RateLimit
    var refusalLogs: RateLimit
    var bindingLogs: BindingLogs
    var suppressedLogs: UInt64 = 0

    var deadlines = DeadlineQueue<Deadline>()
    public internal(set) var counters = IMSCounters()
    var actions: [IMSAction] = []
    /// What other instances should know, if there are any.
    var news: [SharedNews] = []
    var sharesNews = false
    private var lastTicket: UInt64 = 0

    /// Entries of `serverCookies` and `answeredServers`.
    static let peersMax = 65_536
    /// How often what has run out is looked for.
    static let sweepInterval: Duration = .seconds(1)
    /// Entries of a table looked at in one sweep: a part of a large table, so that nobody waits for it.
    static func sweepSteps(_ count: Int) -> Int { max(1024, count / 16) }

    /// What a deadline is for.
    enum Deadline: Hashable, Sendable {
        case push(PushKey)
        case pushOn(IPPrefix)
        case confirmation(HomeAddress)
        case sweep
    }

    struct CookiePeer: Hashable, Sendable {
        var peer: Endpoint
        var local: IPAddress?
    }

    /// - Parameters:
    ///   - cookieSecrets: what server cookies are made with, 16 octets each: the current one, then the one before.
    ///   - clientSecret: what our own requests' cookies are made with, 16 octets.
    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(
        _ configuration: IMSCoreConfiguration, cookieSecrets: [[UInt8]], clientSecret: [UInt8], random: any RandomNumberGenerator & Sendable
    ) {
        guard let secret = cookieSecrets.first, let clientCookies = ClientCookies(secret: clientSecret),
            let cookies = CookieAuthority(secret: secret, previous: cookieSecrets.dropFirst().first)
        else { return nil }
        self.configuration = configuration
        self.cookies = cookies
        self.clientCookies = clientCookies
        self.random = random
        let limits = configuration.limits
        issued = IssuedCertificates(mappings: mappings)
        remembered = RememberedTable(entriesMax: limits.rememberedMax)
        subscriptions = SubscriptionTable(perSourceMax: limits.subscriptionsPerSourceMax, totalMax: limits.subscriptionsMax)
        updateRates = RateTable(perSecond: limits.updatesPerSecond, keysMax: limits.ratesMax)
        notifySourceRates = RateTable(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
        notifyPeerRates = RateTable(perSecond: limits.notifiesPerSecond, keysMax: limits.ratesMax)
        queryRates = RateTable(perSecond: limits.queriesPerSecond, keysMax: limits.ratesMax)
        verificationRates = RateTable(perSecond: limits.verificationsPerSecond, keysMax: limits.ratesMax)
        strangerVerifications = RateLimit(perSecond: limits.strangerVerificationsPerSecond)
        inquiryRate = RateLimit(perSecond: limits.inquiriesPerSecond)
        errorAnswers = RateLimit(perSecond: limits.errorAnswersPerSecond)
        draftAnswers = RateLimit(perSecond: limits.draftAnswersPerSecond)
        refusalLogs = RateLimit(perSecond: limits.refusalLogsPerSecond)
        bindingLogs = BindingLogs(perSecond: limits.bindingLogsPerSecond)
        quotas.reset(configuration.served)
    }

    // MARK: Events

    /// A datagram came from `source` to our address `local`.
    public mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [IMSAction] {
        dispatch(datagram, source, local, now)
        return takeActions(now)
    }

    /// The look-up asked for with `IMSAction.lookUp` has ended.
    public mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, now: Now) -> [IMSAction] {
        finishLookUp(name, result, now)
        return takeActions(now)
    }

    /// The write asked for with `IMSAction.commit` is durable, or failed for the given reason.
    public mutating func stored(_ ticket: StoreTicket, failure: String? = nil, now: Now) -> [IMSAction] {
        finishWrite(ticket, failure.map { .failed($0) } ?? .durable, now)
        return takeActions(now)
    }

    /// Time has come to `nextDeadline`.
    public mutating func timerFired(now: Now) -> [IMSAction] {
        while let deadline = deadlines.takeDue(now.monotonic) {
            switch deadline {
            case .push(let key): pushIsDue(key, now)
            case .pushOn(let prefix): pushOnIsDue(prefix, now)
            case .confirmation(let hoa): confirmationIsDue(hoa, now)
            case .sweep: sweep(now)
            }
        }
        return takeActions(now)
    }

    public var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    /// Takes in what the store holds. Before the first event.
    public mutating func load(mappings stored: [StoredMapping], issued certificates: [Certificate]) {
        for mapping in stored {
            if !mappings.contains(mapping.record.prefix) { countMapping(mapping.record.prefix) }
            mappings.set(mapping)
            issued.used(mapping.record.prefix, notBefore: mapping.certified.certificate.notBefore)
        }
        for certificate in certificates { issued.note(certificate) }
    }

    // MARK: What people ask for

    public var mappingsCount: Int { mappings.count }
    public var rememberedCount: Int { remembered.count }
    public var rememberedUnconfirmedCount: Int { remembered.unconfirmedCount }
    public var subscriptionsCount: Int { subscriptions.count }
    public var notifiesPendingCount: Int { notifies.count }
    public var pushesPendingCount: Int { pushes.count }
    /// Changes that the store has not answered for.
    public var writesCount: Int { writes.count }
    public var servedPrefixes: [ServedPrefix] { configuration.served }
    public var publicKeys: [PublicKey] { configuration.publicKeys }
    public var canSign: Bool { configuration.signingKey != nil }
    public func isSigning(_ key: PublicKey) -> Bool { configuration.signingKey?.publicKey == key }
    public func isPrevious(_ key: PublicKey) -> Bool { configuration.previousKeys.contains(key) }
    public func mappingsInOrder() -> [StoredMapping] { mappings.sorted() }
    public func mapping(of hoa: HomeAddress) -> StoredMapping? { mappings.entry(covering: hoa.address) }
    public func rememberedMapping(of hoa: HomeAddress) -> (mapping: CertifiedMapping, isConfirmed: Bool)? {
        remembered.entry(covering: hoa).map { ($0.certified, $0.isConfirmed) }
    }
    public func subscribers(of hoa: HomeAddress, now: Now) -> [Endpoint] {
        guard let entry = mappings.entry(covering: hoa.address) else { return [] }
        return subscriptions.current(of: entry.record.prefix, now: now.monotonic).map(\.endpoint)
    }

    // MARK: Tools of all procedures

    mutating func newTicket() -> StoreTicket {
        lastTicket &+= 1
        return StoreTicket(number: lastTicket)
    }

    mutating func randomSequence() -> UInt32 { UInt32.random(in: .min ... .max, using: &random) }

    /// The order in which to ask an IMS set's servers.
    mutating func order(_ set: IMSSet) -> [Endpoint] {
        var generator = ErasedGenerator(base: random)
        let endpoints = set.ordered(using: &generator).flatMap(\.endpoints)
        random = generator.base
        return endpoints
    }

    mutating func takeActions(_ now: Now) -> [IMSAction] {
        if !(remembered.count == 0 && subscriptions.count == 0 && lookUps.isEmpty && ratesCount == 0), !sweepIsSet {
            sweepIsSet = true
            deadlines.set(.sweep, at: now.monotonic + Self.sweepInterval)
        }
        defer { actions = [] }
        return actions
    }

    private var sweepIsSet = false
    private var ratesCount: Int {
        updateRates.count + notifySourceRates.count + notifyPeerRates.count + queryRates.count + verificationRates.count
    }

    private mutating func sweep(_ now: Now) {
        sweepIsSet = false
        remembered.sweep(now, steps: Self.sweepSteps(remembered.count))
        subscriptions.sweep(now.monotonic, steps: Self.sweepSteps(subscriptions.count))
        lookUps.sweep(steps: Self.sweepSteps(lookUps.count)) { $1.isOver(now.monotonic) }
        for keyPath in [\IMSCore.notifySourceRates, \.queryRates, \.verificationRates, \.updateRates] {
            self[keyPath: keyPath].forgetIdle(at: now.monotonic, steps: Self.sweepSteps(self[keyPath: keyPath].count))
        }
        notifyPeerRates.forgetIdle(at: now.monotonic, steps: Self.sweepSteps(notifyPeerRates.count))
    }

    mutating func remember(_ cookie: ServerCookie?, of peer: CookiePeer) {
        guard let cookie else { return }
        serverCookies.use(peer, cookie)
        if serverCookies.count > Self.peersMax { serverCookies.removeOldest() }
    }

    mutating func noteAnswer(of server: IPAddress) {
        answeredServers.use(server, true)
        if answeredServers.count > Self.peersMax { answeredServers.removeOldest() }
    }

    func ownCookie(for peer: CookiePeer) -> Cookie {
        Cookie(client: clientCookies.cookie(server: peer.peer.address, own: peer.local ?? .unspecifiedIPv6), server: serverCookies[peer])
    }

    // MARK: Logs

    /// What others put into their messages reaches the log as one line of visible characters.
    mutating func log(_ level: IMSLogLevel, _ message: String) { actions.append(.log(level, message.printable)) }

    /// Says what was refused to whom and why, unless there is a flood of such lines.
    mutating func logRefusal(_ what: @autoclosure () -> String, _ now: Now) {
        guard refusalLogs.take(at: now.monotonic) else {
            suppressedLogs += 1
            counters.logLinesSuppressed += 1
            return
        }
        if suppressedLogs > 0 {
            log(.warning, "\(suppressedLogs) more refusals were not logged, because there were too many")
            suppressedLogs = 0
        }
        log(.notice, what())
    }
}

/// Lets a generator of unknown type be passed where Swift wants a known one.
private struct ErasedGenerator: RandomNumberGenerator {
    var base: any RandomNumberGenerator & Sendable
    mutating func next() -> UInt64 { base.next() }
}
