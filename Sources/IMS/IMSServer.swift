import IMSCore
import Logging
import MATCore
import MATDNS
import MATRuntime
import MATServer
import MATSignal
import RADIUS

/// The shell around `IMSCore`: query path, DNS, store, timers, control socket. It decides nothing; it tells the core what happened
/// and does what the core says.
public final class IMSServer {
    /// DNS questions at a time. Each inquiry takes two or more and a socket for each; sources have their shares of the inquiries, and
    /// those whose zones keep silent must not hold all places.
    static let questionsMax = 1024

    var configuration: IMSConfiguration
    let loop: EventLoop
    var logger: Logger
    let started = SystemClock.now().monotonic
    var core: IMSCore
    let store: any MappingStoring
    /// The same, if others share it.
    let sharing: (any MappingSharing)?
    let verifiers: VerifierPool
    private var resolver: Resolver
    /// The system's files that name resolvers, as long as it serves.
    private var resolverFiles: PathWatch?
    private var lookup: IMSLookup
    private(set) var queryPath: QueryPath?
    /// `nil` unless nodes' reachability is tested.
    var reachabilitySockets: ReachabilitySockets?
    /// `nil` unless RADIUS servers are configured; and these, with their secrets.
    var radius: RADIUSService?
    var radiusServers: [[RADIUSServer]] = []
    private var control: ControlServer?
    private var wakeup: (time: MonotonicTime, timer: TimerID)?
    /// What people asked for, answered once it is durable; the closure gets why it is not.
    var awaited: [StoreTicket: (String?) -> Void] = [:]
    private var sendFailures: UInt64 = 0
    /// Whether more events follow before anything is sent (`turn`).
    private var isInTurn = false
    var storeFailure: String?
    var secretTimer: TimerID?
    /// What the store told last, the current one first.
    var cookieSecrets: [CookieSecret] = []
    let metrics: IMSMetrics
    /// Who may read them: Prometheus over HTTP; people read them over the control socket.
    lazy var metricsListener = HTTPListener.metrics(of: "imsd", loop) { [weak self] in
        self.map { $0.metrics.families(of: $0, SystemClock.now()) } ?? []
    }
    lazy var viewListener = HTTPListener.view(of: "imsd", loop, find: { [weak self] in $1(self?.viewNodes($0, SystemClock.now()) ?? .init()) }) {
        [weak self] in self?.viewReport(SystemClock.now())
    }
    let serviceManager = ServiceManager()
    var drainState = DrainState.serving
    /// Whether there are bindings in the file.
    var hasSavedBindings = false

    /// Reads the key and opens the store that is configured. Nothing is answered before `start`.
    public convenience init(
        configuration: IMSConfiguration, loop: EventLoop, logger: Logger, metrics: MetricsRegistry = MetricsRegistry()
    ) throws(IMSServerError) {
        try self.init(
            configuration: configuration, store: try Self.openStore(configuration), loop: loop, logger: logger, metrics: metrics)
    }

    /// Reads the key. Nothing is answered before `start`.
    public init(
        configuration: IMSConfiguration, store: any MappingStoring, loop: EventLoop, logger: Logger,
        metrics: MetricsRegistry = MetricsRegistry()
    ) throws(IMSServerError) {
        self.metrics = IMSMetrics(metrics)
        self.configuration = configuration
        self.store = store
        sharing = store as? any MappingSharing
        verifiers = VerifierPool(threads: configuration.verifiersCount)
        self.loop = loop
        self.logger = logger
        let key = try configuration.signingKey()
        guard
            var core = IMSCore(
                // Cookies are made with a secret of the moment until the store has told the one that counts.
                configuration.coreConfiguration(signingKey: key), cookieSecrets: [Self.randomOctets()], clientSecret: Self.randomOctets(),
                random: DrawnAhead())
        else { throw IMSServerError("the cookie secrets are not of \(CookieSecret.octetsCount) octets") }
        core.loadBegins()
        if sharing != nil { core.shareNews() }
        self.core = core

        resolver = Resolver(loop: loop, configuration: Self.resolverConfiguration(configuration))
        lookup = IMSLookup(resolver: resolver)
    }

    private static func resolverConfiguration(_ configuration: IMSConfiguration) -> ResolverConfiguration {
        var dns = ResolverConfiguration.named(configuration.resolvers, requireDNSSEC: configuration.requireDNSSEC)
        dns.totalTimeout = configuration.dnsTimeout
        dns.usesSystemTimeouts = false
        dns.inFlightMax = Self.questionsMax
        return dns
    }

    /// Asks other name servers from now on; questions under way are left to those before.
    func changeResolver(to fresh: IMSConfiguration) {
        let retired = (resolver, lookup)
        loop.schedule(after: configuration.dnsTimeout + configuration.dnsTimeout) { withExtendedLifetime(retired) {} }
        resolver = Resolver(loop: loop, configuration: Self.resolverConfiguration(fresh))
        lookup = IMSLookup(resolver: resolver)
    }

    static func randomOctets() -> [UInt8] { (0..<CookieSecret.octetsCount).map { _ in UInt8.random(in: .min ... .max) } }

    // MARK: Life

    public func start() throws(IMSServerError) {
        do throws(ControlError) {
            control = try ControlServer(loop: loop, path: configuration.controlPath, allowedGroup: configuration.controlGroup) {
                [unowned self] request, respond in
                answer(request, respond)
            }
        } catch {
            throw IMSServerError("\(error)")
        }
        restoreBindings()
        do throws(SystemError) {
            let queryPath = try QueryPath(
                core: core, loop: loop, port: configuration.port, addresses: configuration.addresses,
                threads: configuration.threads ?? QueryPath.coresCount, freshness: sharing?.freshness
            ) { [unowned self] octets, local, peer in sendAlone(octets, from: local, to: peer) }
            self.queryPath = queryPath
            if let fault = queryPath.filterFault {
                logger.warning("malformed datagrams and floods are dropped here and not by the kernel, which costs more: \(fault)")
            }
            try queryPath.start(turn: { [unowned self] in answer($0) }) { [unowned self] datagram, isPutOff, source, local in
                guard mayAnswer else { return }
                received(datagram, isPutOff: isPutOff, source, local)
            }
        } catch {
            throw IMSServerError(listening: error)
        }
        do throws(HTTPEndpointError) {
            try metricsListener.change(to: configuration.metricsAddress, logger)
            try viewListener.change(to: configuration.viewAddress, logger)
        } catch {
            throw IMSServerError("\(error)")
        }
        reachabilitySockets = try Self.openReachabilitySockets(configuration)
        try changeRADIUS(to: configuration)
        addRADIUSMetrics()
        resolverFiles = PathWatch(loop: loop, paths: [ResolverConfiguration.systemPath, ResolverConfiguration.upstreamPath]) { [unowned self] in
            guard resolver.followSystem() else { return }
            logger.notice("DNS servers are now \(resolver.configuration.servers.map(\.endpoint.address.description).joined(separator: ", "))")
        }
        startVerifiers()
        startStore()
        surveyLater(after: Self.surveyFirst)
        serviceManager.ready(status: statusLine)
        serviceManager.beat(on: loop)
        logger.notice(
            "imsd is up",
            metadata: [
                "port": "\(configuration.port)", "prefixes": "\(configuration.served.map(\.prefix.description).joined(separator: " "))",
                "store": "\(store.place)",
            ])
    }

    /// Ends service. What was acknowledged is durable already.
    public func stop() {
        removeControlSocket()
        resolverFiles?.stop()
        resolverFiles = nil
        metricsListener.stop()
        viewListener.stop()
        queryPath?.stop()
        queryPath = nil
        saveBindingsAtEnd()
        reachabilitySockets = nil
        radius?.stop()
        radius = nil
        verifiers.stop()
        store.close()
        loop.stop()
    }

    func removeControlSocket() {
        control?.stop()
        control = nil
    }

    /// Reads no more datagrams; what was read still gets its answers.
    func stopReceiving() { queryPath?.stopReceiving() }

    /// The sockets of the reachability test that the configuration wants; `nil` if it wants none.
    static func openReachabilitySockets(_ configuration: IMSConfiguration) throws(IMSServerError) -> ReachabilitySockets? {
        guard configuration.testsReachability else { return nil }
        let addresses = configuration.reachabilityAddresses.isEmpty ? configuration.addresses : configuration.reachabilityAddresses
        do throws(SystemError) {
            return try ReachabilitySockets(addresses: addresses)
        } catch {
            throw IMSServerError("reachability-test: \(error); list only addresses that this host has")
        }
    }

    /// For the service manager.
    var statusLine: String {
        "serving \(configuration.served.count) prefix\(configuration.served.count == 1 ? "" : "es") at port \(configuration.port)"
    }

    // MARK: Events and actions

    /// - Parameter since: when the message came that this event follows from; `nil` if that is now.
    func run(since: MonotonicTime? = nil, _ event: (inout IMSCore, Now) -> [IMSAction]) {
        let now = SystemClock.now()
        let actions = event(&core, now)
        perform(actions, since: since ?? now.monotonic)
        if !isInTurn { endTurn() }
    }

    /// Several events that have come together: what follows from all of them is sent together, and looked after once.
    func turn(_ body: () -> Void) {
        isInTurn = true
        body()
        isInTurn = false
        endTurn()
    }

    /// The same of datagrams that came together. What is not fresh any more when all are looked at is not told: a stop of this process may have
    /// come meanwhile.
    private func answer(_ datagrams: () -> Void) {
        turn {
            datagrams()
            if !mayAnswer { queryPath?.drop() }
        }
    }

    private var mayAnswer: Bool { sharing?.freshness.mayAnswer(at: SystemClock.now().monotonic) ?? true }

    private func endTurn() {
        flush()
        shareNews()
        scheduleWakeup()
    }

    /// Sends what waits.
    private func flush() {
        guard let queryPath else { return }
        // Before anybody is told of what changed.
        queryPath.publish(core.takeQueryRules())
        queryPath.flush()
        reachabilitySockets?.flush()
    }

    /// - Parameter since: when the message came that all this follows from; `nil` if none did.
    func perform(_ actions: [IMSAction], since: MonotonicTime? = nil) {
        for action in actions {
            switch action {
            case .send(let octets, let local, let peer):
                send(octets, from: local, to: peer)
            case .check(let octets, let target, let avoided): reachabilitySockets?.add(octets, to: target, avoiding: avoided)
            case .lookUp(let name):
                let reference = UncheckedReference(self)
                let poster = loop.poster
                // Posted, since a cached answer comes before the look-up call returns, while the core's actions are being done.
                lookup.lookup(prefix: name) { result in
                    poster.post { reference.value?.run { core, now in core.resolved(name, result, now: now) } }
                }
            case .commit(let ticket, let change):
                metrics.handed(ticket, receivedAt: since, SystemClock.now().monotonic)
                store.commit(ticket, change)
            case .verify(let ticket, let job):
                metrics.verifying(ticket, receivedAt: since)
                verifiers.verify(ticket, job)
            case .log(let level, let message):
                logger.log(level: Logger.Level(rawValue: level.rawValue) ?? .info, "\(message)")
            case .bindingChanged(let change): log(change)
            case .authorise(let ticket, let question): authorise(ticket, question)
            case .account(let change): radius?.account(change)
            }
        }
        if !isInTurn { flush() }
    }

    /// Carries the server through closures that run in the loop's thread but have to be Sendable to get there.
    final class UncheckedReference: @unchecked Sendable {
        weak var value: IMSServer?
        init(_ value: IMSServer?) { self.value = value }
    }

    private func send(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) {
        guard let queryPath else { return }
        if queryPath.isFull { flush() }
        queryPath.add(octets, from: local, to: peer)
    }

    /// What could not be sent with others.
    private func sendAlone(_ octets: [UInt8], from local: IPAddress?, to peer: Endpoint) {
        guard var failure = queryPath?.send(octets, from: local, to: peer) else { return }
        if local != nil, failure.isAboutSource {
            // The address of another instance that the peer was served by before: then from any of ours.
            guard let second = queryPath?.send(octets, from: nil, to: peer) else { return }
            failure = second
        }
        // The other side retransmits; what matters is that somebody can see why it has to.
        sendFailures += 1
        logger.debug("\(failure)")
    }

    private func scheduleWakeup() {
        guard let next = core.nextDeadline else { return }
        if let wakeup {
            guard next < wakeup.time else { return }
            loop.cancel(wakeup.timer)
        }
        wakeup = (
            next,
            loop.schedule(at: next) { [weak self] in
                guard let self else { return }
                wakeup = nil
                run { core, now in core.timerFired(now: now) }
            }
        )
    }

    var sendFailuresCount: UInt64 { sendFailures &+ (queryPath?.total(.sendFailures) ?? 0) }

    /// What the core and the workers have counted.
    var totalCounters: IMSCounters {
        var counters = core.counters
        queryPath?.add(to: &counters)
        return counters
    }
}
