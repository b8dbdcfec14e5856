import MATCore
import MATSignal
import MappingMemory

/// An IMS's decisions, without I/O, clock or threads: events and `Now` in, actions out. This is wiring: machines decide, each for itself.
///
/// ```
///  datagram ──► SizeRule ──► Queries ──────────────────────────────────────────────────► answer from memory
///                  │            └─ SUBSCRIBE ─► SubscriptionTable
///                  ├──► Updates ──► Verifications ─ verified ─► Registrations ─ stored ─► reply; Pushes to subscribers; OwnNotifies
///                  │
///                  ├──► NotifyAdmission ──► OwnNotifies | Confirmations ─► Verifications ─ verified ─► ack, Pushes to the CN; RememberedTable
///                  │                                        └─ LookUps, UpstreamQueries ─► DNS, IMS_MN
///                  ├──► Joining ──► Verifications ─ verified ─► JoinQueue ─ stored ─► Join Reply; LeaseAccounts
///                  │                                    └─ Authorisations ─ authorised ─┘
///                  ├──► Binds ──► Verifications ─ verified ─► the binding, ack
///                  └──► acks, answers ──► Pushes, Confirmations
///
///  a registration that is stored ──► ReachabilityTests
/// ```
/// Names between dashes are events of their own: what they wait for is done elsewhere. Machines don't know each other: what they need to know
/// of the server comes as a `ServerView`, what they want of it they return.
///
/// Everything that grows is bounded by `IMSLimits`.
public struct IMSCore: Sendable {
    package private(set) var configuration: IMSCoreConfiguration
    /// Cookies of those who ask here.
    var cookies: CookieAuthority
    /// Cookies of those whom this server asks.
    var servers: KnownServers
    var random: CoreRandom

    var store = StoreState()
    var registrations: Registrations
    var unheld = UnheldMappings()
    var updates: Updates
    var queries: Queries
    var verifications: Verifications
    var notifyAdmission: NotifyAdmission
    var ownNotifies = OwnNotifies()
    var confirmations: Confirmations
    var remembered: RememberedTable
    var subscriptions: SubscriptionTable
    var pushes: Pushes
    var reachability: ReachabilityTests
    var binds: Binds
    var joining = Joining()
    var leaseAccounts = LeaseAccounts()
    var sharing = Sharing()
    var survey = Survey()
    var rejections: Rejections
    var refusalLog: LimitedLog
    var bindingLogs: BindingLogs
    /// Refreshes are not among them.
    var recentChanges = RecentList<RecentChange>(entriesMax: Self.recentChangesMax)
    static let recentChangesMax = 200
    var sweep = Sweep()

    /// Of messages and log lines; machines count what only they see.
    var counted = IMSCounters()
    private var actions: [IMSAction] = []

    /// - Parameters:
    ///   - cookieSecrets: what server cookies are made with, 16 octets each: the current one, then the one before.
    ///   - clientSecret: what our own requests' cookies are made with, 16 octets.
    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(
        _ configuration: IMSCoreConfiguration, cookieSecrets: [[UInt8]], clientSecret: [UInt8],
        random: any RandomNumberGenerator & Sendable
    ) {
        guard let secret = cookieSecrets.first, let clientCookies = ClientCookies(secret: clientSecret),
            let cookies = CookieAuthority(secret: secret, previous: cookieSecrets.dropFirst().first)
        else { return nil }
        let limits = configuration.limits
        self.configuration = configuration
        self.cookies = cookies
        servers = KnownServers(clientCookies)
        self.random = CoreRandom(random)
        registrations = Registrations(configuration)
        updates = Updates(limits)
        queries = Queries(limits)
        verifications = Verifications(limits)
        notifyAdmission = NotifyAdmission(limits)
        confirmations = Confirmations(limits)
        remembered = RememberedTable(entriesMax: limits.rememberedMax)
        subscriptions = SubscriptionTable(perSourceMax: limits.subscriptionsPerSourceMax, totalMax: limits.subscriptionsMax)
        pushes = Pushes(pushesMax: limits.pushesMax)
        reachability = ReachabilityTests(limits)
        binds = Binds(limits)
        joining.reconfigure(configuration.visitors)
        rejections = Rejections(perSecond: limits.errorAnswersPerSecond)
        refusalLog = LimitedLog(perSecond: limits.refusalLogsPerSecond)
        bindingLogs = BindingLogs(perSecond: limits.bindingLogsPerSecond)
    }

    /// What machines may know. For one call each: see `ServerView`.
    var view: ServerView { view(with: binds.table, joining.leases) }

    /// For the machine that changes the bindings, which would have to copy them if they were in its view.
    var viewWithoutBindings: ServerView { view(with: BindingTable(BindingLimits(bindingsMax: 1)), joining.leases) }

    /// Likewise, for the machine that changes the leases.
    var viewWithoutLeases: ServerView { view(with: binds.table, LeaseTable()) }

    private func view(with bindings: BindingTable, _ leases: LeaseTable) -> ServerView {
        ServerView(
            configuration: configuration, store: store, registrations: registrations, remembered: remembered, servers: servers,
            bindings: bindings, leases: leases)
    }

    // MARK: Events

    /// A datagram came from `source` to our address `local`.
    public mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [IMSAction] {
        dispatch(datagram, source, local, now)
        return takeActions(now)
    }

    /// A datagram of notifies came for which there is no time now: each sender that receives at its address is told to come later.
    /// Nothing is kept of it, and nothing else happens.
    public mutating func putOff(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [IMSAction] {
        counted.putOff += 1
        var answers: [SignalMessage] = []
        for case .message(let message, _) in SignalDatagram.decode(datagram)
        where cookies.isValid(message.cookie, from: source, now: now) {
            if let answer = PutOff.answer(to: message, freshCookie(source, message.cookie.client, now)) { answers.append(answer) }
        }
        send(answers, from: local, to: source)
        return takeActions(now)
    }

    /// The look-up asked for with `IMSAction.lookUp` has ended.
    public mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, now: Now) -> [IMSAction] {
        perform(confirmations.resolved(name, result, view, &random, now), now)
        perform(joining.resolved(name, result, now), now)
        return takeActions(now)
    }

    /// The checks asked for with `IMSAction.verify` have ended.
    public mutating func verified(_ results: [VerificationResult], now: Now) -> [IMSAction] {
        for result in results {
            guard let ended = verifications.ended(result.ticket) else { continue }
            for use in ended.waiting { verified(ended.job, for: use, result.failure, now) }
        }
        return takeActions(now)
    }

    /// The write asked for with `IMSAction.commit` is durable, or failed for the given reason.
    public mutating func stored(_ ticket: StoreTicket, failure: String? = nil, now: Now) -> [IMSAction] {
        written(ticket, failure.map { .failed($0) } ?? .durable, now)
        return takeActions(now)
    }

    /// The store told something.
    public mutating func store(_ event: StoreEvent, now: Now) -> [IMSAction] {
        switch event {
        case .loaded(let contents): load(contents, now)
        case .loadEnded: loadEnded()
        case .changed(let changes):
            for change in changes {
                if let certificate = change.issued { registrations.hold(certificate, latest: now.latestBelieved) }
                for certificate in change.certificates { registrations.hold(certificate, latest: now.latestBelieved) }
                if let mapping = change.mapping { hold(mapping, now) }
                holdRows(change.rows, now)
            }
        case .secrets(let secrets):
            // Until a new store had its first secret, cookies were made with one of the moment: who got one meanwhile keeps it.
            if secrets.count == 1 {
                cookies.rotate(to: secrets[0].octets)
            } else if let newest = secrets.first {
                cookies.use(newest.octets, previous: secrets[1].octets)
            }
        case .committed(let outcomes): for outcome in outcomes { written(outcome.ticket, outcome.result, now) }
        case .unavailable(let reason): if let line = store.becameUnavailable(reason) { log(.error, line) }
        case .available: if let line = store.becameAvailable() { log(.notice, line) }
        case .shared(let news): for item in news { shared(item, now) }
        // The shell's business.
        case .caughtUp, .left: break
        case .failed(let text): log(.error, text)
        }
        return takeActions(now)
    }

    /// The store will tell what it holds by `StoreEvent.loaded`: until `loadEnded` what is not known is not "not found".
    public mutating func loadBegins() { store.loadBegins() }

    /// Takes in what a store holds. Before the first event.
    ///
    /// - Throws: `MemoryRefusal` if there is no memory for all of it.
    package mutating func load(mappings stored: [StoredMapping], issued certificates: [Certificate]) throws(MemoryRefusal) {
        for mapping in stored { try registrations.load(mapping, configuration) }
        for certificate in certificates { registrations.hold(certificate) }
    }

    /// Takes a new configuration, from the next event on: prefixes, keys, rates, bounds and quotas. Rates that did not change keep what was
    /// taken from them. What is held stays held, also beyond a smaller bound; it is served as long as a served prefix covers it.
    public mutating func reconfigure(_ fresh: IMSCoreConfiguration) {
        let (servedBefore, authoritiesBefore, limits) = (configuration.served, configuration.authorities, fresh.limits)
        configuration = fresh
        updates.reconfigure(limits)
        queries.reconfigure(limits)
        verifications.reconfigure(limits)
        notifyAdmission.reconfigure(limits)
        confirmations.reconfigure(limits)
        remembered.setBound(limits.rememberedMax)
        subscriptions.setBounds(perSourceMax: limits.subscriptionsPerSourceMax, totalMax: limits.subscriptionsMax)
        pushes.reconfigure(pushesMax: limits.pushesMax)
        reachability.reconfigure(limits)
        binds.reconfigure(limits)
        joining.reconfigure(fresh.visitors)
        rejections.reconfigure(perSecond: limits.errorAnswersPerSecond)
        refusalLog.reconfigure(perSecond: limits.refusalLogsPerSecond)
        bindingLogs.reconfigure(perSecond: limits.bindingLogsPerSecond)
        if servedBefore != fresh.served { registrations.recount(configuration) }
        if authoritiesBefore != fresh.authorities { followLeases() }
    }

    // MARK: Time

    private enum Timer { case pushes, confirmations, ownNotifies, unheld, reachability, leases, sweep }

    /// The machine whose deadline comes first.
    private var nextTimer: (time: MonotonicTime, timer: Timer)? {
        mutating get {
            var next: (time: MonotonicTime, timer: Timer)?
            func consider(_ time: MonotonicTime?, _ timer: Timer) {
                if let time, next.map({ time < $0.time }) ?? true { next = (time, timer) }
            }
            consider(pushes.nextDeadline, .pushes)
            consider(confirmations.nextDeadline, .confirmations)
            consider(ownNotifies.nextDeadline, .ownNotifies)
            consider(unheld.nextDeadline, .unheld)
            consider(reachability.nextDeadline, .reachability)
            consider(leaseAccounts.nextDeadline, .leases)
            consider(sweep.nextDeadline, .sweep)
            return next
        }
    }

    public var nextDeadline: MonotonicTime? { mutating get { nextTimer?.time } }

    /// Time has come to `nextDeadline`.
    public mutating func timerFired(now: Now) -> [IMSAction] {
        while let (time, timer) = nextTimer, time <= now.monotonic {
            switch timer {
            case .pushes: pushesDue(now)
            case .confirmations: perform(confirmations.due(view, now) ?? [], now)
            case .ownNotifies: perform(ownNotifies.due(view, now) ?? [], now)
            case .unheld: retryUnheld(now)
            // Most of what is due is of these, and asking each machine again for each would cost more than they do.
            case .reachability: while let checks = reachability.due(&random, now) { check(checks) }
            case .leases: closeLeases(now)
            case .sweep: sweep(now)
            }
        }
        return takeActions(now)
    }

    private mutating func loadEnded() {
        guard store.loadEnded() else { return }
        let table = registrations.table
        if let line = unheld.loadEnded(heldCount: table.count, octetsCount: table.octetsCount) {
            log(.error, line)
        } else {
            log(.notice, "all mappings are loaded: \(registrations.count)")
        }
    }

    private mutating func pushesDue(_ now: Now) {
        switch pushes.due(now) {
        case nil: break
        case .done(let actions)?: perform(actions, now)
        case .tell(let prefix, let subscribers)?:
            guard let mapping = registrations[prefix] else { break }
            perform(pushes.changed(mapping, subscribers: subscribers, &random, now), now)
        }
    }

    private mutating func sweep(_ now: Now) {
        guard sweep.isDue(now.monotonic) else { return }
        remembered.sweep(now, steps: Sweep.steps(remembered.count))
        subscriptions.sweep(now.monotonic, steps: Sweep.steps(subscriptions.count))
        confirmations.sweep(now.monotonic)
        joining.homes.sweep(now.monotonic)
        notifyAdmission.sweep(now.monotonic)
        queries.sweep(now.monotonic)
        verifications.sweep(now.monotonic)
        updates.sweep(now.monotonic)
        binds.sweep(now.monotonic)
    }

    // MARK: Actions

    mutating func append(_ action: IMSAction) { actions.append(action) }

    package mutating func takeActions(_ now: Now) -> [IMSAction] {
        let rates = updates.ratesCount + notifyAdmission.ratesCount + queries.ratesCount + verifications.ratesCount
        if rates + remembered.count + subscriptions.count + confirmations.lookUpsCount + joining.homes.lookUpsCount + binds.table.slotsCount > 0 {
            sweep.begin(now.monotonic)
        }
        defer { actions = [] }
        return actions
    }
}
