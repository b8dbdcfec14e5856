import Dispatch
import Glibc
import IMTKernel
import Logging
import MATCore
import MATDNS
import MATRuntime
import MATServer
import MATSignal
import RelayCore

/// The shell around `RelayCore`: workers, DNS, signature checks, timers, the file with the state. It decides nothing; it tells the core what happened
/// and does what the core says.
///
/// ```
///  workers, one a core   ForwardWorker: packets ──► RelayCore.forward, under a lock ──► sendmmsg
///                                       signalling ──► DatagramRing ──► the loop's thread: RelayCore.received ──► actions
/// ```
public final class RelayService {
    /// DNS questions at a time.
    private static let questionsMax = 1024
    /// How often the core ends what is over.
    private static let tickInterval = Duration.seconds(1)
    /// How often the machine's own addresses are looked at, and what changes all the time is written down.
    private static let slowInterval = Duration.seconds(10)
    /// How often cookies are made with another secret.
    private static let secretInterval = Duration.seconds(12 * 3600)
    private static let secretOctets = 16

    enum Life {
        case serving
        /// Nodes are told to go elsewhere; packets are forwarded on.
        case draining
        case ended
    }

    var configuration: RelayConfiguration
    let loop: EventLoop
    var logger: Logger
    let started = SystemClock.now().monotonic
    let core: SharedCore
    /// `nil` if this process forwards alone.
    var kernel: ForwardingProgram?
    /// Whether routes will be looked at.
    var isFollowing = false
    private let checks: JobPool<(BindTicket, BindCheck), (BindTicket, VerificationFailure?)>
    private var resolver: Resolver
    /// The system's files that name resolvers.
    private var resolverFiles: PathWatch?
    private var lookup: IMSLookup
    private var path: ForwardPath?
    /// Of a gateway.
    var gatewayDevice: GatewayDevice?
    private var gatewayPath: GatewayPath?
    private var sendFailures: UInt64 = 0
    private let metrics: RelayMetrics
    private lazy var metricsListener = HTTPListener.metrics(of: "mat-relay", loop) { [weak self] in self?.metricFamilies() ?? [] }
    private lazy var viewListener = HTTPListener.view(
        of: "mat-relay", loop,
        find: { [weak self] text, completion in
            guard let self else { return completion(.init()) }
            findNodes(text, completion)
        }
    ) { [weak self] in self?.viewReport(SystemClock.now()) }
    private let serviceManager = ServiceManager()
    private(set) var life = Life.serving
    /// The current one first.
    private var secrets: [[UInt8]]
    /// How many there have been that are not in the file that was read.
    private var secretsCount: UInt64 = 0
    private let stateWriter = DispatchQueue(label: "relay state")
    /// What of the state had changed when it was last written.
    private var written = Changes()
    private var isWritingState = false
    private var nextWrite = MonotonicTime.zero

    /// Reads the state of an earlier run. Nothing is answered before `start`.
    public init(
        configuration: RelayConfiguration, loop: EventLoop, logger: Logger, metrics: MetricsRegistry = MetricsRegistry()
    ) throws(RelayError) {
        self.configuration = configuration
        self.loop = loop
        self.logger = logger
        self.metrics = RelayMetrics(metrics)
        var state = Self.readState(configuration, logger)
        state?.saved.add(Self.leftCounts(configuration))
        secrets = state?.secrets ?? []
        if secrets.isEmpty {
            secrets = [Self.randomSecret()]
            secretsCount = 1
        }
        guard var core = RelayCore(configuration.core, cookieSecret: secrets[0], previousSecret: secrets.dropFirst().first) else {
            throw RelayError("a cookie secret is not of \(Self.secretOctets) octets")
        }
        core.ownAddresses = LocalAddresses.now()
        if let state {
            let count = core.restore(state.saved, now: SystemClock.now())
            logger.notice("bindings of the run before that are still good: \(count) of \(state.saved.bindings.count)")
        }
        self.core = SharedCore(core)
        checks = JobPool(label: "verifier", threads: configuration.verifiersCount) { ticket, check in (ticket, check.run()) }
        resolver = Resolver(loop: loop, configuration: Self.resolverConfiguration(configuration))
        lookup = IMSLookup(resolver: resolver)
    }

    private static func resolverConfiguration(_ configuration: RelayConfiguration) -> ResolverConfiguration {
        var dns = ResolverConfiguration.named(configuration.resolvers, requireDNSSEC: configuration.requireDNSSEC)
        dns.totalTimeout = configuration.dnsTimeout
        dns.usesSystemTimeouts = false
        dns.inFlightMax = questionsMax
        return dns
    }

    private static func randomSecret() -> [UInt8] { (0..<secretOctets).map { _ in UInt8.random(in: .min ... .max) } }

    // MARK: Life

    public func start() throws(RelayError) {
        try makeGatewayDevice()
        do throws(SystemError) {
            let path = try ForwardPath(
                core: core, loop: loop, port: configuration.port, addresses: configuration.addresses,
                threads: configuration.threads ?? ForwardPath.coresCount)
            self.path = path
            if let gatewayDevice {
                let gatewayPath = GatewayPath(core: core, device: gatewayDevice, sockets: path.sockets, holds: path.holds)
                self.gatewayPath = gatewayPath
                path.setGateway(gatewayPath)
                try gatewayPath.start()
            }
            try path.start { [unowned self] datagram, source, local in
                let local = Endpoint(local, port: configuration.port)
                run { core, now in core.received(datagram, from: source, to: local, now: now) }
            }
        } catch {
            throw RelayError("\(error); is another mat-relay running?")
        }
        try startKernel()
        do throws(HTTPEndpointError) {
            try metricsListener.change(to: configuration.metricsAddress, logger)
            try viewListener.change(to: configuration.viewAddress, logger)
        } catch {
            throw RelayError("\(error)")
        }
        resolverFiles = PathWatch(loop: loop, paths: [ResolverConfiguration.systemPath, ResolverConfiguration.upstreamPath]) { [unowned self] in
            guard resolver.followSystem() else { return }
            logger.notice("DNS servers are now \(resolver.configuration.servers.map(\.endpoint.address.description).joined(separator: ", "))")
        }
        let reference = UncheckedReference(self)
        let poster = loop.poster
        checks.start { outcomes in
            poster.post {
                for (ticket, failure) in outcomes { reference.value?.run { core, now in core.checked(ticket, failure, now: now) } }
            }
        }
        repeating(Self.tickInterval) { service in
            service.countKernel()
            service.run { core, now in core.tick(now: now) }
            service.writeState(ifChanged: \.bindings)
        }
        repeating(Self.slowInterval) { service in
            let addresses = LocalAddresses.now()
            service.core.use { $0.ownAddresses = addresses }
            service.writeState(ifChanged: \.self)
        }
        repeating(Self.secretInterval) { service in
            let secret = Self.randomSecret()
            service.secrets = [secret] + service.secrets.prefix(1)
            service.secretsCount += 1
            service.core.use { $0.rotate(to: secret) }
        }
        serviceManager.ready(status: statusLine)
        serviceManager.beat(on: loop)
        logger.notice(
            "mat-relay is up",
            metadata: [
                "port": "\(configuration.port)",
                "residents": "\(configuration.core.residents.map(\.prefix.description).joined(separator: " "))",
                "visitors": "\(configuration.core.takesVisitors)",
            ])
    }

    private func repeating(_ interval: Duration, _ body: @escaping (RelayService) -> Void) {
        loop.schedule(after: interval) { [weak self] in
            guard let self, life != .ended else { return }
            body(self)
            repeating(interval, body)
        }
    }

    /// Begins to end service; the second call ends it at once.
    public func drain() {
        guard case .serving = life, configuration.drain > .zero else { return stop() }
        life = .draining
        serviceManager.stopping()
        let count = core.use { $0.bindingsCount }
        logger.notice(
            "stopping: nodes are told to go elsewhere, and packets forwarded on for \(configuration.drain.components.seconds) s; \(count) are bound")
        core.use { $0.drain() }
        loop.schedule(after: configuration.drain) { [weak self] in self?.stop() }
    }

    /// Ends service: forwards what has arrived, writes the state down.
    public func stop() {
        if case .ended = life { return }
        // Who was drained is not awaited back.
        let isForGood = life == .draining
        life = .ended
        serviceManager.stopping()
        path?.stop()
        gatewayPath?.stop()
        (path, gatewayPath, gatewayDevice) = (nil, nil, nil)
        checks.stop()
        countKernel()
        let told = kernel?.told() ?? []
        writeState()
        stateWriter.sync {}
        kernel?.written(told)
        stopKernel(forGood: isForGood)
        resolverFiles?.stop()
        resolverFiles = nil
        metricsListener.stop()
        viewListener.stop()
        if isForGood {
            // Those that did not hear of it find out by their silent paths.
            let count = core.use { $0.bindingsCount }
            if count > 0 { logger.notice("\(count) were bound until the end; `drain: 30s` reaches every node") }
        }
        logger.notice("mat-relay has ended")
        loop.stop()
    }

    /// For the service manager.
    private var statusLine: String {
        let count = configuration.core.residents.count
        return "relaying for \(count) prefix\(count == 1 ? "" : "es") at port \(configuration.port)"
    }

    // MARK: Events and actions

    func run(_ event: (inout RelayCore, Now) -> [RelayAction]) {
        let now = SystemClock.now()
        perform(core.use { core in event(&core, now) })
    }

    private func perform(_ actions: [RelayAction]) {
        for action in actions {
            switch action {
            case .send(let octets, let local, let peer):
                // The other side retransmits; what matters is that somebody can see why it has to.
                guard let failure = path?.send(octets, from: local.address, to: peer) else { break }
                sendFailures += 1
                logger.debug("\(failure)")
            case .lookUp(let name):
                let reference = UncheckedReference(self)
                let poster = loop.poster
                // Posted, since a cached answer comes before the look-up call returns.
                lookup.lookup(prefix: name) { result in
                    poster.post { reference.value?.run { core, now in core.resolved(name, result, now: now) } }
                }
            case .check(let ticket, let check): checks.add((ticket, check))
            case .kernel(let change):
                kernel?.apply(change) { octets, prefix in
                    let now = SystemClock.now().monotonic
                    core.use { $0.forwardedByKernel(octets, of: prefix, now: now) }
                }
            case .log(let level, let message): logger.log(level: Logger.Level(rawValue: level.rawValue) ?? .info, "\(message)")
            }
        }
    }

    /// Carries the service through closures that run in the loop's thread but have to be Sendable to get there.
    private final class UncheckedReference: @unchecked Sendable {
        weak var value: RelayService?
        init(_ value: RelayService?) { self.value = value }
    }

    // MARK: The state

    private static func readState(_ configuration: RelayConfiguration, _ logger: Logger) -> RelayStateFile.Contents? {
        guard let path = configuration.statePath else { return nil }
        let text: String
        do throws(SystemError) {
            text = try TextFile.read(path, octetsMax: RelayStateFile.octetsMax)
        } catch {
            if error.errno != ENOENT { logger.error("state: \(error); nodes have to bind anew") }
            return nil
        }
        guard let (contents, unreadable) = RelayStateFile.parse(text) else {
            logger.error("state: \(path) is not a relay's state; nodes have to bind anew, and it will be written over")
            return nil
        }
        if unreadable > 0 { logger.warning("state: \(unreadable) lines of \(path) can't be read, and are left out") }
        return contents
    }

    /// What the state tells of, counted.
    private struct Changes: Hashable {
        /// Bindings and secrets. Those of the moment count: what was just bound must not be lost with the process.
        var bindings: UInt64 = 0
        /// Grants and octets. They may be some seconds old.
        var rest: UInt64 = 0
    }

    private var changes: Changes {
        let secrets = secretsCount
        return core.use { core in
            let counters = core.counters
            return Changes(
                bindings: secrets &+ counters.binds &+ counters.ends, rest: counters.refreshes &+ counters.packetsForwarded)
        }
    }

    private func writeState<Part: Equatable>(ifChanged part: KeyPath<Changes, Part>) {
        let now = SystemClock.now().monotonic
        guard configuration.statePath != nil, !isWritingState, now >= nextWrite else { return }
        let changes = changes
        guard changes[keyPath: part] != written[keyPath: part] else { return }
        written = changes
        isWritingState = true
        let reference = UncheckedReference(self)
        let poster = loop.poster
        writeState { ended in
            poster.post {
                reference.value?.isWritingState = false
                // A large table is written less often, so that this takes a twentieth of a processor at most.
                let pause = Duration.nanoseconds(20 * (ended - now).nanosecondsSaturated)
                reference.value?.nextWrite = ended + pause
            }
        }
    }

    /// In another thread, since the disk may take its time.
    ///
    /// - Parameter completion: gets the time, in that thread.
    private func writeState(_ completion: @escaping @Sendable (MonotonicTime) -> Void = { _ in }) {
        guard let path = configuration.statePath else { return }
        let now = SystemClock.now()
        // A copy costs moments; workers would wait for the lock while lines are made of 100,000 bindings.
        let copy = core.use { $0 }
        let (secrets, logger) = (secrets, logger)
        // What the copy has counted of the kernel's work: the rest is the next run's to count, if this one is killed.
        let told = kernel?.told() ?? []
        let reference = UncheckedReference(self)
        let poster = loop.poster
        stateWriter.async {
            let contents = RelayStateFile.Contents(secrets: secrets, saved: copy.saved(now: now))
            do throws(SystemError) {
                try TextFile.replace(path, with: RelayStateFile.write(contents), mode: 0o600)
                if !told.isEmpty { poster.post { reference.value?.kernel?.written(told) } }
            } catch {
                logger.error("state: \(error); after a restart nodes have to bind anew")
            }
            completion(SystemClock.now().monotonic)
        }
    }

    // MARK: Metrics

    private func metricFamilies() -> [MetricFamily] {
        let uptime = (SystemClock.now().monotonic - started).components.seconds
        countKernel()
        metrics.collect(
            core.use { RelayMetrics.CoreFigures($0) }, configuration.core.limits, isDraining: life == .draining, path, kernel,
            sendFailures: sendFailures, uptimeSeconds: uptime)
        if let gatewayPath { metrics.collect(core.use(\.counters), gatewayPath) }
        return metrics.registry.families()
    }

    // MARK: Reload

    /// Takes from the file what can change while the relay runs, all of it or nothing; what can't is named in the log. A file with a mistake
    /// leaves everything as it was.
    ///
    /// - Parameter logLevel: what the command line wants instead of the file.
    public func reload(path: String, logLevel: Logger.Level? = nil) {
        guard case .serving = life else {
            logger.warning("the configuration is not reloaded: the relay is being stopped")
            return
        }
        serviceManager.reloading()
        defer { serviceManager.ready(status: statusLine) }
        let fresh: RelayConfiguration
        do {
            fresh = try RelayConfiguration(path: path)
            // The only steps that need something from outside, so they come first: after them nothing can fail.
            let metrics = try metricsListener.prepare(fresh.metricsAddress)
            let view = try viewListener.prepare(fresh.viewAddress)
            metricsListener.take(metrics, logger)
            viewListener.take(view, logger)
        } catch {
            logger.error("the configuration is not reloaded, and the one before stays in force:\n\(error)")
            return
        }
        let restartKeys = configuration.restartKeys(against: fresh)
        if !configuration.hasSameDNS(as: fresh) {
            let retired = (resolver, lookup)
            loop.schedule(after: configuration.dnsTimeout + configuration.dnsTimeout) { withExtendedLifetime(retired) {} }
            resolver = Resolver(loop: loop, configuration: Self.resolverConfiguration(fresh))
            lookup = IMSLookup(resolver: resolver)
        }
        logger = .daemon("mat-relay", fresh.logFormat, .chosen(logLevel, configured: fresh.logLevel))
        configuration = configuration.taking(fresh)
        let taken = configuration.core
        run { core, now in core.reconfigure(taken, now: now) }
        applyGateway()
        kernel?.changeRates(taken.limits)
        if !restartKeys.isEmpty { logger.warning("changed, but counting only after a restart: \(restartKeys.joined(separator: ", "))") }
        logger.notice(
            "the configuration is reloaded",
            metadata: ["residents": "\(taken.residents.map(\.prefix.description).joined(separator: " "))", "visitors": "\(taken.takesVisitors)"])
    }
}
