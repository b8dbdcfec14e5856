import Glibc
import IMTKernel
import IMTPlan
import Logging
import MATRuntime
import MATServer
import MATSignal
import NodeCore

/// The daemon: puts a node, its shell and this machine together, begins and ends service, and counts what the kernel side repairs.
public final class NodeService {
    /// After so long what only the start needed is done.
    private static let startTime: Duration = .seconds(5)

    var configuration: NodeConfiguration
    private let loop: EventLoop
    private(set) var logger: Logger
    let started = SystemClock.now().monotonic
    let environment: SystemEnvironment
    let shell: NodeShell
    private(set) var control: ControlServer?
    private let metrics = NodeMetrics()
    private(set) lazy var metricsListener = HTTPListener.metrics(of: "matd", loop) { [weak self] in self?.metricFamilies() ?? [] }
    let serviceManager = ServiceManager()
    /// Programs that wait for a visited home, and those that have one, by their connections.
    var askingPrograms: [UInt64: (ControlResponse) -> Void] = [:]
    var visitingPrograms: Set<UInt64> = []
    /// Programs that are to start from visited homes, by the connections over which that was said, until there are some.
    var startingPrograms: [UInt64: StartingProgram] = [:]
    private(set) var repairs: UInt64 = 0
    private(set) var lastRepair: String?
    /// Called once the service has ended and the kernel's state is removed or left, as configured.
    public var onStopped: () -> Void = {}

    /// Reads keys and certificates, and opens what needs no kernel state yet.
    public init(configuration: NodeConfiguration, loop: EventLoop, logger: Logger) throws(NodeServiceError) {
        self.configuration = configuration
        self.loop = loop
        self.logger = logger
        let state: StateDirectory
        do throws(SystemError) {
            state = try StateDirectory(path: configuration.statePath)
        } catch {
            throw NodeServiceError("\(error)")
        }
        let homes = try HomeFiles.read(configuration, state)
        var coreConfiguration = NodeCoreConfiguration(homes: homes, clientSecret: Self.secret(), cookieSecret: Self.secret())
        coreConfiguration.isClockConfirmed = SystemClock.isSynchronized
        coreConfiguration.preferredInterfaces = configuration.preferredInterfaces
        coreConfiguration.peerPreferences = configuration.peerPreferences
        coreConfiguration.paths = configuration.paths
        coreConfiguration.inbound = configuration.inbound
        coreConfiguration.mtu = configuration.mtu
        coreConfiguration.site = configuration.site
        coreConfiguration.namedPrefixes = configuration.namedPrefixes
        coreConfiguration.routedPrefixes = configuration.routedPrefixes
        coreConfiguration.relays = configuration.relays
        coreConfiguration.plain = configuration.plain
        coreConfiguration.lifetime = configuration.lifetime
        coreConfiguration.pollInterval = configuration.pollInterval
        coreConfiguration.peerIdleMax = configuration.peerIdleMax
        coreConfiguration.messagesPerSecond = configuration.messagesPerSecond
        // An eighth of a second's at once: 250 peers hear of a move without any wait.
        coreConfiguration.messagesBurst = max(16, configuration.messagesPerSecond / 8)
        coreConfiguration.pollsPerSecond = max(1, configuration.messagesPerSecond / 5)
        coreConfiguration.visits = configuration.takesVisitedHomes
        guard let cores = NodeCores(coreConfiguration, random: { SystemRandomNumberGenerator() }) else {
            throw NodeServiceError("this is a fault of matd: a secret for cookies has not 16 octets")
        }

        var kernelConfiguration = IMTConfiguration(homeAddresses: homes.map(\.hoa), traffic: configuration.traffic)
        kernelConfiguration.homePrefixes = configuration.networks.map(\.prefix)
        // At home the router has the address as its HoA already.
        kernelConfiguration.mobilePrefixes = configuration.networks.flatMap { home in home.mobilePrefixes.map(\.prefix).filter { $0 != home.prefix } }
            .sorted()
        let names = NodeNames(loop: loop, configuration, mark: kernelConfiguration.mark)
        kernelConfiguration.connectionTracking = configuration.connectionTracking
        kernelConfiguration.keepsRulesFirst = configuration.routingRules == .first
        kernelConfiguration.encapsulation = configuration.encapsulation
        kernelConfiguration.dataPlane = configuration.dataPlane
        Self.readEnvironment(into: &kernelConfiguration)
        kernelConfiguration.loosensReversePath = configuration.reversePath == .loosen
        kernelConfiguration.alwaysPlain = names.servers.alwaysPlain
        kernelConfiguration.exceptions = configuration.exceptions
        var deliver: (KernelEvent) -> Void = { _ in }
        do throws(KernelError) {
            let kernel = try IMTKernel(loop: loop, configuration: kernelConfiguration) { deliver($0) }
            environment = SystemEnvironment(loop: loop, logger: logger, kernel: kernel, names: names, state: state)
        } catch {
            throw NodeServiceError("\(error)")
        }
        let visiting: SystemRandomNumberGenerator? = configuration.takesVisitedHomes ? SystemRandomNumberGenerator() : nil
        shell = NodeShell(
            Node(
                cores, configuration.addressRules, names: names.servers, nat64: configuration.nat64, visiting: visiting,
                linger: configuration.visitedLinger),
            over: environment)
        environment.shell = shell
        environment.onAnswer = { [weak self] in self?.answered($0, $1) }
        deliver = { [weak self] in self?.happened($0) }
    }

    /// What `matd --check` looks at beyond the configuration's own text: keys and certificates, their times, the state directory, the group.
    /// Changes nothing.
    ///
    /// - Returns: what is wrong if this host's clock is right, which nobody holds.
    public static func check(_ configuration: NodeConfiguration) throws(NodeServiceError) -> [String] {
        // Who may not read the keys is told so first: the rest follows from that.
        var state = Result<StateDirectory?, SystemError>.success(nil)
        do throws(SystemError) { state = .success(try StateDirectory.check(configuration.statePath)) } catch { state = .failure(error) }
        let homes = try HomeFiles.read(configuration, (try? state.get()) ?? nil)
        if case .failure(let error) = state {
            throw NodeServiceError("state: \(error); make it, and give it to the user that matd runs as, or name another directory")
        }
        do throws(ControlError) { try ControlServer.checkGroup(configuration.controlGroup) } catch {
            throw NodeServiceError("control-group: \(error)")
        }
        let wrong = HomeFiles.timeProblems(homes, SystemClock.now())
        guard !wrong.isEmpty, SystemClock.isSynchronized else { return wrong }
        throw NodeServiceError(wrong.joined(separator: "\n"))
    }

    /// What tests and unusual hosts set by the environment: where programs are pinned, and that they are tied to links as before Linux 6.6.
    private static func readEnvironment(into configuration: inout IMTConfiguration) {
        if let directory = getenv("MAT_PROGRAMS") { configuration.programDirectory = String(cString: directory) }
        if let ties = getenv("MAT_PROGRAM_TIES") { configuration.usesClassifiers = String(cString: ties) == "classifiers" }
    }

    private static func secret() -> [UInt8] { (0..<16).map { _ in UInt8.random(in: .min ... .max) } }

    // MARK: Life

    public func start() throws(NodeServiceError) {
        do throws(ControlError) {
            control = try ControlServer(loop: loop, path: configuration.controlPath, allowedGroup: configuration.controlGroup) {
                [unowned self] request, respond in
                answer(request, respond)
            }
            control?.onClosed = { [unowned self] in
                release($0)
                if startingPrograms[$0] != nil { endStarting($0) }
            }
        } catch {
            throw NodeServiceError("\(error)")
        }
        do throws(SystemError) {
            try environment.openSocket()
        } catch {
            throw NodeServiceError("\(error); is another matd running?")
        }
        do throws(KernelError) {
            let adopted = try environment.kernel.start()
            shell.start(adopted, try environment.kernel.currentLinks())
            // Some may have ended since they were looked for.
            let steered = environment.kernel.steeredHomes
            shell.run { node, now in node.programsSteered(from: steered, now: now) }
        } catch {
            throw NodeServiceError("\(error)")
        }
        do throws(HTTPEndpointError) {
            try metricsListener.change(to: configuration.metricsAddress, logger)
        } catch {
            throw NodeServiceError("\(error)")
        }
        environment.names.follow(loop) { [unowned self] in
            let servers = environment.names.servers
            shell.run { node, now in node.namesRead(servers, areOthers: true, now: now) }
        }
        for warning in configuration.forwardingWarnings() { logger.warning("\(warning)") }
        loop.schedule(after: Self.startTime) { ResidentMemory.forgetStart() }
        serviceManager.ready(status: statusLine)
        serviceManager.beat(on: loop)
        logger.info("matd is up", metadata: ["homes": "\(configuration.homes.map(\.hoa.description).joined(separator: " "))"])
    }

    /// For the service manager.
    var statusLine: String { "serving \(configuration.homes.map(\.hoa.description).joined(separator: " "))" }

    func log(at level: Logger.Level) {
        logger.logLevel = level
        environment.logger.logLevel = level
    }

    /// Takes away what an agent that does not run any more has left in the kernel: tables, routes, rules, the device with the HoAs.
    public static func remove() throws(NodeServiceError) {
        do {
            var configuration = IMTConfiguration()
            readEnvironment(into: &configuration)
            try IMTKernel(loop: try EventLoop(), configuration: configuration) { _ in }.removeLeftovers()
        } catch {
            throw NodeServiceError("\(error)")
        }
    }

    /// Ends service; what the kernel holds goes or stays as configured.
    public func stop() {
        serviceManager.stopping()
        control?.stop()
        control = nil
        metricsListener.stop()
        environment.names.stop()
        // What the kernel keeps is used on, by the next run too.
        if configuration.onStop == .remove { shell.run { node, now in node.leaves(now: now) } }
        environment.closeSocket()
        shell.stop()
        do throws(KernelError) {
            switch configuration.onStop {
            case .remove: try environment.kernel.stop()
            case .keep: environment.kernel.leave()
            }
        } catch {
            logger.error("what was added to the kernel could not all be removed: \(error)")
        }
        onStopped()
    }

    private func metricFamilies() -> [MetricFamily] {
        let (counted, now) = (environment.counters(), SystemClock.now())
        let status = status(now, counted)
        return metrics.families(report(status, now, counted), status, counted)
    }

    // MARK: Events

    private func happened(_ event: KernelEvent) {
        switch event {
        case .links(let snapshot): shell.run { node, now in node.linksChanged(snapshot, now: now) }
        case .translator(let translator, let index): shell.run { node, now in node.translatorAdvertised(translator, on: index, now: now) }
        case .heldOutbound(let packet): shell.run { node, now in node.heldOutbound(packet, now: now) }
        case .heldInbound(let packets): shell.run { node, now in packets.flatMap { node.heldInbound($0, now: now) } }
        case .resetHeld(let source, let own): shell.run { node, now in node.resetHeld(from: source, to: own, now: now) }
        case .inPath(let message): shell.run { node, now in node.arrivedInPath(message, now: now) }
        case .gatewayArrival(let pair, let gateway): shell.run { node, now in node.arrivedFromGateway(pair, by: gateway, now: now) }
        case .heldEncapsulated(let packet, let source, let own):
            shell.run { node, now in node.heldEncapsulated(packet, from: source, to: own.address, now: now) }
        case .datagramError(let error): shell.run { node, now in node.datagramFailed(error, now: now) }
        case .used: shell.used()
        case .programs(let homes): shell.run { node, now in node.programsSteered(from: homes, now: now) }
        case .repaired(let what):
            repairs += 1
            lastRepair = what
            logger.warning("repaired: \(what)")
        case .warning(let what):
            logger.warning("\(what)")
        case .failed(let error):
            logger.error("\(error)")
        }
    }
}

/// Why the daemon can't start or go on, for the person who started it.
public struct NodeServiceError: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
