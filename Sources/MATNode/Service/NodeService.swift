import IMTKernel
import IMTPlan
import Logging
import MATCore
import MATDNS
import MATRuntime
import MATSignal
import NodeCore

/// The shell around `NodeCore`: sockets, kernel, DNS, timers and files. It decides nothing; it tells the core what happened
/// and does what the core says.
public final class NodeService {
    /// How often the kernel's packet counts are read at most: which peers are in use decides whose paths are watched.
    private static let countInterval: Duration = .seconds(1)
    /// How much longer than a reading took it must be to the next: one half per cent of the time is spent on it, however many peers there are.
    private static let countRest = 200
    /// The longest that is still of use to tell idle peers.
    private static let countIntervalMax: Duration = .seconds(300)
    /// After so long what only the start needed is done.
    private static let startTime: Duration = .seconds(5)
    /// While there are no peers.
    private static let idleInterval: Duration = .seconds(10)
    /// How long a packet may wait and still be of use: a TCP segment is sent again long before.
    private static let heldAgeMax: Duration = .seconds(10)
    /// How long packets wait that the kernel would not let out: twice as long with each try.
    private static let refusedDelays: ClosedRange<Duration> = .milliseconds(50) ... .milliseconds(1600)

    let configuration: NodeConfiguration
    let loop: EventLoop
    let logger: Logger
    let started = SystemClock.now().monotonic
    private(set) var core: NodeCores
    private let kernel: IMTKernel
    let names: NodeNames
    private let lookup: IMSLookup
    private let state: StateDirectory
    private var socket: UDPSocket?
    private var control: ControlServer?
    private var random = SystemRandomNumberGenerator()
    /// The main table's.
    private var gateways: [IPAddress] = []
    /// All of this host's, usable as locators or not.
    private var ownAddresses: Set<IPAddress> = []
    private var heldOutbound = HoldQueue<OutboundKey>(ageMax: heldAgeMax)
    private var heldInbound = HoldQueue<InboundKey>(ageMax: heldAgeMax)
    /// Packets that may go and that the kernel refuses: by whom, and how long until the next try.
    private var refusedKeys: Set<OutboundKey> = []
    private var refusedDelay = NodeService.refusedDelays.lowerBound
    private var refusedTimer: TimerID?
    private var wakeup: (time: MonotonicTime, timer: TimerID)?
    private var pending: [NodeCores.Step] = []
    private var isPerforming = false
    private(set) var repairs: UInt64 = 0
    private(set) var lastRepair: String?
    /// Addresses of the host that are no MoAs, and why; routers that are passed over.
    private(set) var unusedAddresses: [UnusedAddress] = []
    private(set) var silentRouters: [SilentRouter] = []
    var rulePlace: RulePlace { kernel.rulePlace }
    /// Called once the service has ended and the kernel's state is removed or left, as configured.
    public var onStopped: () -> Void = {}

    /// The packets of each core's HoAs wait for that core.
    private struct OutboundKey: Hashable {
        let core: Int
        let destination: IPAddress
    }

    private struct InboundKey: Hashable {
        let source: IPAddress
        let destination: IPAddress
        let opensConnection: Bool
    }

    /// Reads keys and certificates, and opens what needs no kernel state yet.
    public init(configuration: NodeConfiguration, loop: EventLoop, logger: Logger) throws(NodeServiceError) {
        self.configuration = configuration
        self.loop = loop
        self.logger = logger
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
        coreConfiguration.namedPrefixes = configuration.namedPrefixes
        coreConfiguration.routedPrefixes = configuration.routedPrefixes
        coreConfiguration.lifetime = configuration.lifetime
        coreConfiguration.pollInterval = configuration.pollInterval
        coreConfiguration.peerIdleMax = configuration.peerIdleMax
        coreConfiguration.messagesPerSecond = configuration.messagesPerSecond
        // An eighth of a second's at once: 250 peers hear of a move without any wait.
        coreConfiguration.messagesBurst = max(16, configuration.messagesPerSecond / 8)
        coreConfiguration.pollsPerSecond = max(1, configuration.messagesPerSecond / 5)
        guard let core = NodeCores(coreConfiguration, random: { SystemRandomNumberGenerator() }) else { throw NodeServiceError("no randomness for the cookie secrets") }
        self.core = core

        var kernelConfiguration = IMTConfiguration(homeAddresses: homes.map(\.hoa), traffic: configuration.traffic)
        kernelConfiguration.homePrefixes = configuration.networks.map(\.prefix)
        // At home the router has the address as its HoA already.
        kernelConfiguration.mobilePrefixes = configuration.networks.flatMap { home in home.mobilePrefixes.values.filter { $0 != home.prefix } }.sorted()
        names = NodeNames(loop: loop, configuration, mark: kernelConfiguration.mark)
        lookup = IMSLookup(resolver: names.resolver)
        kernelConfiguration.connectionTracking = configuration.connectionTracking
        kernelConfiguration.keepsRulesFirst = configuration.routingRules == .first
        kernelConfiguration.loosensReversePath = configuration.reversePath == .loosen
        kernelConfiguration.alwaysPlain = names.alwaysPlain
        kernelConfiguration.exceptions = configuration.exceptions
        var deliver: (KernelEvent) -> Void = { _ in }
        do throws(KernelError) {
            kernel = try IMTKernel(loop: loop, configuration: kernelConfiguration) { deliver($0) }
        } catch {
            throw NodeServiceError("\(error)")
        }
        deliver = { [weak self] in self?.happened($0) }
        names.resolver.ways = { [unowned self] server in
            NodeNames.ways(to: server, own: self.core.ownLocators.map(\.moa.address), hasOwnRoute: kernel.hasOwnRoute)
        }
    }

    /// What `matd --check` looks at beyond the configuration's own text: keys and certificates.
    public static func check(_ configuration: NodeConfiguration) throws(NodeServiceError) {
        _ = try HomeFiles.read(configuration, nil)
    }

    private static func secret() -> [UInt8] { (0..<16).map { _ in UInt8.random(in: .min ... .max) } }

    // MARK: Life

    public func start() throws(NodeServiceError) {
        do throws(ControlError) {
            control = try ControlServer(loop: loop, path: configuration.controlPath, allowedGroup: configuration.controlGroup) { [unowned self] request, respond in
                respond(answer(request))
            }
        } catch {
            throw NodeServiceError("\(error)")
        }
        do throws(SystemError) {
            var options = UDPSocket.Options()
            options.mark = IMTConfiguration().mark
            socket = try UDPSocket(loop: loop, port: SignalPort.node, options: options) { [unowned self] octets, source, local in
                let datagram = Array(octets)
                run { core, now in core.received(datagram, from: source, to: local, now: now) }
            }
        } catch {
            throw NodeServiceError("\(error); is another matd running?")
        }
        do throws(KernelError) {
            let adopted = try kernel.start()
            run { core, now in core.adopted(outbound: adopted.outbound, inbound: adopted.inbound, own: adopted.own, now: now) }
            tellNames()
            take(try kernel.currentLinks())
        } catch {
            throw NodeServiceError("\(error)")
        }
        names.follow(loop) { [unowned self] in namesChanged() }
        for warning in configuration.forwardingWarnings() { logger.warning("\(warning)") }
        countLater(after: Self.countInterval)
        loop.schedule(after: Self.startTime) { ResidentMemory.forgetStart() }
        logger.info("matd is up", metadata: ["homes": "\(configuration.homes.map(\.hoa.description).joined(separator: " "))"])
    }

    /// Takes away what an agent that does not run any more has left in the kernel: tables, routes, rules, the device with the HoAs.
    public static func remove() throws(NodeServiceError) {
        do {
            try IMTKernel(loop: try EventLoop(), configuration: IMTConfiguration()) { _ in }.removeLeftovers()
        } catch {
            throw NodeServiceError("\(error)")
        }
    }

    /// Ends service; what the kernel holds goes or stays as configured.
    public func stop() {
        control?.stop()
        control = nil
        names.stop()
        socket = nil
        do throws(KernelError) {
            switch configuration.onStop {
            case .remove: try kernel.stop()
            case .keep: kernel.leave()
            }
        } catch {
            logger.error("what was added to the kernel could not all be removed: \(error)")
        }
        onStopped()
    }

    // MARK: Events

    private func happened(_ event: KernelEvent) {
        switch event {
        case .links(let snapshot):
            take(snapshot)
        case .heldOutbound(let packet):
            let key = OutboundKey(core: core.core(of: packet.source), destination: packet.destination)
            heldOutbound.hold(packet, for: key, now: SystemClock.now().monotonic)
            run { core, now in core.heldOutbound(from: packet.source, to: packet.destination, isName: packet.isName, now: now) }
        case .heldInbound(let packet):
            let key = InboundKey(source: packet.source, destination: packet.destination, opensConnection: packet.opensConnection)
            heldInbound.hold(packet, for: key, now: SystemClock.now().monotonic)
            identify(packet)
        case .resetHeld(let source, let own):
            run { core, now in core.heldInbound(from: source, to: own, opensConnection: false, isSegment: true, now: now) }
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

    private func identify(_ packet: HeldPacket) {
        // The rules hold what finds no socket; a later fragment, without ports, is answered by nobody.
        let isAnswered = packet.protocolNumber == 6 || packet.protocolNumber == 17 && packet.destinationPort != nil
        run { core, now in
            core.heldInbound(
                from: packet.source, to: packet.destination, opensConnection: packet.opensConnection,
                isSegment: isAnswered && !packet.opensConnection, now: now)
        }
    }

    private func take(_ snapshot: LinkSnapshot) {
        let (usable, unused) = configuration.sort(snapshot.addresses)
        (unusedAddresses, silentRouters) = (unused, snapshot.silentRouters)
        let places = configuration.places(of: usable)
        do throws(KernelError) {
            try kernel.setOwnLocators(usable + places.filter { !usable.contains($0) })
        } catch {
            logger.error("\(error)")
        }
        let locators = places.map { OwnLocator(MobileAddress($0.address), interface: $0.interface, isDeprecated: $0.isDeprecated, link: $0.onLink) }
        gateways = snapshot.gateways
        let isNews = locators != core.systemLocators
        let wasLocal = names.isLocal(own: ownAddresses)
        ownAddresses = Set(snapshot.addresses.map(\.address)).union(configuration.homes.map(\.hoa.address))
        if isNews, names.networkChanged() { useNames() }
        linksChanged(locators)
        if isNews || names.isLocal(own: ownAddresses) != wasLocal { tellNames() }
        // Routes come back without an event that changes our addresses.
        releaseRouted()
    }

    private func linksChanged(_ locators: [OwnLocator]) {
        // What is the network's is no peer's locator before it proves itself.
        let infrastructure = Set(gateways).union(names.addresses)
        run { core, now in core.linksChanged(locators, infrastructure: infrastructure, now: now) }
    }

    /// The DNS servers are others than before.
    private func namesChanged() {
        useNames()
        linksChanged(core.systemLocators)
        tellNames()
    }

    private func useNames() {
        logger.notice("DNS servers of \(names.origin): \(names.resolver.configuration.servers.map(\.endpoint.address.description).joined(separator: ", "))")
        do throws(KernelError) {
            try kernel.setAlwaysPlain(names.alwaysPlain)
        } catch {
            logger.error("\(error)")
        }
    }

    private func tellNames() {
        let isLocal = names.isLocal(own: ownAddresses)
        run { core, now in core.namesChanged(isLocal: isLocal, now: now) }
    }

    /// Packets of known peers that waited for a route only.
    private func releaseRouted() {
        let now = SystemClock.now().monotonic
        // Another way may be open now.
        refusedKeys = []
        for key in heldOutbound.keys where hasEntry(key) && canLeave(key) { release(key, now) }
    }

    /// Sends what waits for a destination, in order. What the kernel would hold again waits on, and is tried again later: an IPv6
    /// route whose gateway does not answer is passed over for the one into our device.
    private func release(_ key: OutboundKey, _ now: MonotonicTime) {
        guard !refusedKeys.contains(key) else { return }
        var rest = heldOutbound.lift(key, now: now)[...]
        while let next = rest.first, kernel.releaseOutbound(next.packet) { rest = rest.dropFirst() }
        guard !rest.isEmpty else { return }
        heldOutbound.putBack(rest, for: key)
        if refusedKeys.isEmpty, refusedTimer == nil {
            logger.warning("packets to \(key.destination) wait: the kernel's route to it leads back to the agent, as it does while an IPv6 gateway is silent (ip -6 neighbour), or a firewall refuses them; tried again until it lets them out")
        }
        refusedKeys.insert(key)
        if refusedTimer == nil { tryRefusedLater() }
    }

    private func tryRefusedLater() {
        refusedTimer = loop.schedule(after: refusedDelay) { [weak self] in self?.releaseRefused() }
        refusedDelay = min(refusedDelay * 2, Self.refusedDelays.upperBound)
    }

    private func releaseRefused() {
        let keys = refusedKeys
        refusedKeys = []
        let now = SystemClock.now().monotonic
        // The timer still counts as running, so that one episode is told of once.
        for key in keys where canLeave(key) { release(key, now) }
        refusedTimer = nil
        if refusedKeys.isEmpty { refusedDelay = Self.refusedDelays.lowerBound } else { tryRefusedLater() }
    }

    private func hasEntry(_ key: OutboundKey) -> Bool {
        core.home(of: key.core, like: key.destination).map { kernel.hasEntry(from: $0, for: key.destination) } ?? false
    }

    private func canLeave(_ key: OutboundKey) -> Bool {
        guard let own = core.home(of: key.core, like: key.destination) else { return kernel.canLeave(to: key.destination) }
        return kernel.canLeave(from: own, to: key.destination)
    }

    func handOver(to interface: String?) {
        run { core, now in core.prefer(interface: interface, now: now) }
    }

    func handOver(to interface: String?, for peer: HomeAddress) {
        run { core, now in core.prefer(interface: interface, for: peer, now: now) }
    }

    /// Lets the core decide and carries out what it says. A decision that is taken while another's actions are carried out
    /// (the DNS cache answers at once) has its actions done after those.
    private func run(_ decide: (inout NodeCores, Now) -> [NodeCores.Step]) {
        pending += decide(&core, SystemClock.now())
        guard !isPerforming else { return }
        isPerforming = true
        var index = 0
        while index < pending.count {
            perform(pending[index])
            index += 1
        }
        pending.removeAll(keepingCapacity: pending.capacity < 4096)
        isPerforming = false
        sleepUntilDeadline()
    }

    private func sleepUntilDeadline() {
        let next = core.nextDeadline
        guard next != wakeup?.time else { return }
        if let wakeup { loop.cancel(wakeup.timer) }
        wakeup = next.map { time in
            (time, loop.schedule(at: time) { [unowned self] in
                wakeup = nil
                run { core, now in core.timerFired(now: now) }
            })
        }
    }

    // MARK: Actions

    private func perform(_ step: NodeCores.Step) {
        let now = SystemClock.now()
        switch step.action {
        case .send(let octets, let own, let target):
            // Lost is lost: whatever matters is sent again. The reason is for someone who debugs.
            if let error = socket?.send(octets, from: own, to: target) { logger.debug("\(error)") }
        case .sendIfRoom(let octets, let own, let target):
            if let error = socket?.sendIfRoom(octets, from: own, to: target) { logger.debug("\(error)") }
        case .lookUp(let hoa):
            lookup.lookup(hoa) { [weak self] result in self?.lookedUp(hoa, result, for: step.core) }
        case .lookUpKeys(let prefix):
            lookup.lookup(prefix: prefix) { [weak self] result in
                guard let self else { return }
                let answer = servers(result)
                run { cores, now in cores.keysLookedUp(prefix, answer, core: step.core, now: now) }
            }
        case .changeIMT(let changes):
            do throws(KernelError) {
                try kernel.commit(changes)
            } catch {
                logger.error("\(error)")
            }
        case .releaseOutbound(let destination):
            // Without a route they stay held until the links change.
            let key = OutboundKey(core: step.core, destination: destination)
            guard canLeave(key) else { break }
            release(key, now.monotonic)
        case .releaseRouted:
            releaseRouted()
        case .dropOutbound(let destination):
            _ = heldOutbound.take(OutboundKey(core: step.core, destination: destination), now: now.monotonic)
        case .passNames(let destination):
            let link = kernel.hasOwnRoute(to: destination) ? nil : core.ownLocators.first { $0.moa.isIPv4 == destination.isIPv4 }?.interface
            for packet in heldOutbound.take(OutboundKey(core: step.core, destination: destination), now: now.monotonic, where: \.isName) {
                kernel.passOutbound(packet, by: link)
            }
        case .releaseInbound(let source, let own):
            for packet in takeInbound(source, own, [true, false], now) { kernel.releaseInbound(packet) }
        case .releaseOpeners(let source, let own):
            for packet in takeInbound(source, own, [true], now) { kernel.releaseInbound(packet) }
        case .dropInbound(let source, let own):
            _ = takeInbound(source, own, [true, false], now)
        case .remember(let hoa, let sequence):
            do throws(SystemError) {
                try state.keep(sequence, of: hoa)
            } catch {
                logger.error("the sequence of \(hoa) can't be kept: \(error)")
            }
        case .keepCertificate(let certificate):
            do throws(SystemError) {
                try HomeFiles.keep(certificate, in: state)
            } catch {
                logger.error("the renewed certificate of \(certificate.hoa) can't be kept: \(error)")
            }
        case .log(let level, let text):
            logger.log(level: Self.level(level), "\(text)")
        }
    }

    private func takeInbound(_ source: IPAddress, _ own: IPAddress, _ opening: [Bool], _ now: Now) -> [HeldPacket] {
        opening.flatMap { heldInbound.take(InboundKey(source: source, destination: own, opensConnection: $0), now: now.monotonic) }
    }

    private static func level(_ level: NodeLogLevel) -> Logger.Level {
        switch level {
        case .debug: .debug
        case .info: .info
        case .notice: .notice
        case .warning: .warning
        case .error: .error
        }
    }

    private func servers(_ result: IMSLookupResult) -> ServerLookup {
        switch result {
        case .found(let set):
            .found(ServerSet(
                endpoints: set.ordered(using: &random).flatMap(\.endpoints), keys: set.keys.compactMap(PublicKey.init), expires: set.expires,
                isValidated: set.isAuthenticated && names.validatesHere))
        case .absent(let until): .absent(lifetime: max(.seconds(1), until - SystemClock.now().monotonic))
        case .failed(let reason): .failed(reason)
        case .unusable(let reason): .unusable(reason)
        }
    }

    private func lookedUp(_ hoa: HomeAddress, _ result: IMSLookupResult, for core: Int) {
        let answer = servers(result)
        run { cores, now in cores.lookedUp(hoa, answer, core: core, now: now) }
    }

    // MARK: Counting

    private func countLater(after interval: Duration) {
        loop.schedule(after: interval) { [weak self] in
            guard let self, socket != nil else { return }
            let start = SystemClock.now().monotonic
            if SystemClock.isSynchronized { core.clockIsSynchronized(now: SystemClock.now()) }
            // Without peers nobody counts, and the kernel need not be asked.
            if core.peersCount > 0 { count() }
            heldOutbound.prune(now: start)
            heldInbound.prune(now: start)
            let took = SystemClock.now().monotonic - start
            countLater(after: core.peersCount == 0 ? Self.idleInterval : min(Self.countIntervalMax, max(Self.countInterval, took * Self.countRest)))
        }
    }

    /// Reads the kernel's packet counts, so that idle peers can be told from used ones.
    func count() {
        tell(readCounters())
    }

    /// Tells the core how many packets each peer's entries have translated.
    func tell(_ counters: [HomePair: PeerCounters]) {
        run { core, now in
            core.traffic(counters.lazy.map { (key: $0.key, value: $0.value.packetsIn &+ $0.value.packetsOut) }, now: now)
        }
    }

    func readCounters() -> [HomePair: PeerCounters] {
        do throws(KernelError) {
            return try kernel.peerCounters()
        } catch {
            logger.warning("\(error)")
            return [:]
        }
    }
}

/// Why the daemon can't start or go on, for the person who started it.
public struct NodeServiceError: Error, CustomStringConvertible {
    public let description: String
    public init(_ description: String) { self.description = description }
}
