import Glibc
import IMTPlan
import MATCore
import MATRuntime
import MATSignal

/// The kernel side of a node: translation, routes, the TUN device and the packets held for the agent.
///
/// Everything happens in the event loop's thread and network namespace. Calls take microseconds: they ask the kernel and
/// have its answer when they return. What belongs to the node's plan (which peers, which MoAs) comes from the agent; what
/// follows from it in the kernel (mirrored routes, per-link tables, source NAT) is kept right here, also when links come and
/// go.
///
/// Life: `init`, `start()`, then either `stop()`, which leaves no trace, or `leave()` (or a crash), after which
/// translation goes on and the next `start()` adopts it.
public final class IMTKernel {
    let loop: EventLoop
    let onEvent: (KernelEvent) -> Void
    public internal(set) var configuration: IMTConfiguration

    // What talks to the kernel.
    let tables: TranslationTables
    let routes: RouteSocket
    let injector: RawInjector
    let trackedFlows: TrackedFlows
    /// `nil` where the kernel has no sock_diag.
    let socketSearch: SocketSearch?
    /// How often it is asked about sockets that are bound to the device, and whether people were told of one.
    var boundRate = RateLimit(perSecond: IMTKernel.boundPerSecondMax)
    var hasToldOfBound = false
    /// What travels in datagrams.
    let encapsulator: Encapsulator
    /// Likewise by the kernel alone; `nil` if all of it is the encapsulator's.
    var forwarding: KernelEncapsulation?
    /// Peers that were taken over with `forwarding`, and that the agent has not said anything of yet.
    var unconfirmedForwarding: Set<HomePair> = []
    /// Tells when programs with other addresses have ended; `nil` before there is one.
    var groupWatch: GroupWatch?
    var groupMount: GroupMount?
    var device: TunnelDevice? { didSet { encapsulator.device = device } }
    var hold: HoldListener?
    var linkMonitor: NetlinkMonitor<LinkNews>?
    var rulesetMonitor: NetlinkMonitor<RulesetNews>?
    /// Watches for IPsec policies; `nil` on kernels without IPsec.
    var policies: PolicyMonitor?
    var advertisements: AdvertisementMonitor?

    // What is known, and decides (IMTPlan).
    var linkTables = LinkTables()
    var announcedLinks: LinkSnapshot?
    var locators: [LocalAddress] = []
    var homes = OwnHomes()
    var installed = InstalledRoutes()
    var sharedPaths = SharedPaths()
    var peerSweep = PeerRouteSweep()
    var ruleOrder: RuleOrder
    var tableRepair = TableRepair()
    var routeRepair = RouteRepair()
    var reversePaths = ReversePaths()
    var plainDestinations = PlainDestinations()
    var retiredAddresses = RetiredAddresses()
    var plainSearch = PlainSearch()
    var programs: SteeredPrograms
    /// The links changed, and what follows in tables and routes is written together with what the agent decides about it.
    var linkWritesPending = false
    var reportedFailures: Set<RepeatedFailure> = []
    /// Whether there were tables of iptables-legacy when the tables were last made to fit who filters on this host; unknown until they have been.
    var hadLegacyTables: Bool?

    // What is waited for.
    var deadlines = DeadlineQueue<KernelDeadline>()
    /// Some peer's datagrams were cut up on their way, and connection tracking puts them together.
    var reassembles = false
    var alarm: (time: MonotonicTime, timer: TimerID)?

    /// Where our rules stand among other programs'.
    public var rulePlace: RulePlace { ruleOrder.place }

    /// Opens what is needed to talk to the kernel; changes nothing yet.
    /// - Throws: an impossible configuration, or missing privileges.
    public init(
        loop: EventLoop, configuration: IMTConfiguration, onEvent: @escaping (KernelEvent) -> Void
    ) throws(KernelError) {
        try KernelError.planned { () throws(PlanError) in try configuration.check() }
        self.loop = loop
        self.configuration = configuration
        self.onEvent = onEvent
        ruleOrder = RuleOrder(base: configuration.rulePriorityBase)
        programs = SteeredPrograms(mark: configuration.mark)
        tables = try TranslationTables(configuration: configuration)
        routes = try RouteSocket()
        socketSearch = try? SocketSearch()
        trackedFlows = TrackedFlows(socket: tables.socket)
        injector = try RawInjector(mark: configuration.releaseMark)
        encapsulator = Encapsulator(loop: loop, configuration: configuration, onEvent: onEvent)
        encapsulator.place = { [unowned self] hoa in
            guard case .rewritten(let mobile)? = tables.model.entry(of: hoa, self.configuration)?.carriage.way else { return nil }
            return mobile.peer.address
        }
        encapsulator.onStall = { [unowned self] in deviceWaits($0) }
        encapsulator.onPorts = { [unowned self] in
            writeForwardingPorts()
            exemptPorts()
        }
    }

    // MARK: Start, stop, leave

    /// Creates device, tables, rules and routes, or adopts those of an earlier run without interrupting their traffic.
    /// - Throws: what the kernel refused; what this call had created is removed again.
    public func start() throws(KernelError) -> AdoptedState {
        let adopted = try tables.existPartly()
        do throws(KernelError) {
            try begin(adopting: adopted)
        } catch {
            if adopted { leave() } else { try? stop() }
            throw error
        }
        var state = AdoptedState(
            adopted: adopted, outbound: tables.model.outbound, inbound: tables.model.inbound, own: tables.model.own,
            encapsulated: tables.encapsulatedBefore, plain: tables.model.plain)
        state.visited = configuration.visitedHomes.compactMap { $0 }
        if adopted { state.forwarded = adoptedForwarding }
        return state
    }

    private func begin(adopting: Bool) throws(KernelError) {
        let device = try TunnelDevice(name: configuration.deviceName)
        self.device = device
        try routes.configureDevice(index: device.index, name: device.name)
        try tables.askKernel()
        if configuration.protectsTables, tables.protection == .none {
            onEvent(
                .warning(
                    "this kernel can't keep others from flushing our tables (Linux 6.9 can): `nft flush ruleset`, which restarting the nftables "
                        + "service does, ends peers' connections; let firewall scripts flush their own tables only"))
        }
        beginForwarding()
        if adopting { try tables.adopt(adoptedForwarding) }
        tables.needs = tables.needs.reviewed(configuration, othersFilter: try tables.othersFilter(), hasPolicies: false)
        try readLinks()
        adoptVisitedHomes()
        try placeHomes(retire: true)
        var model = tables.model
        model.homes = unhomed()
        // Which of those that are there now are own MoAs is about to be said.
        model.addresses = decidedAddresses()
        model.keepOwn(of: Set(configuration.homeAddresses))
        locators = linkTables.snapshot(without: device.name).addresses.filter { model.own[MobileAddress($0.address)] != nil }
        beginRewriting(model)
        try tables.install(model)
        keepPlainFlowsOfAll()
        plainDestinations.adopt(model.plain, now: SystemClock.now().monotonic)
        awaitPlain()
        awaitRetired()
        try placeRules()
        adoptPrograms()
        try synchroniseRoutes(readBack: .everything)
        takeOverForwarding()
        hold = try HoldListener(loop: loop, group: configuration.nflogGroup) { [unowned self] in held($0) }
        try beginWatching()
        // Whatever happened between reading and listening.
        reviewTracking()
        awaitLastWords()
        try watchDevice(device)
    }

    func watchDevice(_ device: TunnelDevice) throws(KernelError) {
        do {
            try loop.watch(device.descriptor) { [unowned self] in readDevice() }
        } catch {
            throw .system(error.operation, device.name, errno: error.errno)
        }
    }

    /// Removes everything that was added and nothing else. The object can't be used afterwards.
    public func stop() throws(KernelError) {
        detach()
        var failure: KernelError?
        func attempt(_ body: () throws(KernelError) -> Void) {
            do throws(KernelError) { try body() } catch { failure = failure ?? error }
        }
        // Rules first: with them gone, traffic follows the main table again, whatever is still to be removed.
        attempt { () throws(KernelError) in
            let found = try routes.rules()
            _ = try routes.apply(found.map { .deleteRule($0) })
        }
        removePrograms()
        attempt { () throws(KernelError) in try removeForwarding() }
        attempt { () throws(KernelError) in
            for family in AddressFamily.allCases {
                _ = try routes.apply(try routes.routes(family: family).map { .deleteRoute($0) })
            }
        }
        attempt { () throws(KernelError) in try tables.remove() }
        restoreReversePath()
        device?.forget()
        device = nil
        if let failure { throw failure }
    }

    /// Removes what an earlier run has left. The object can't be used afterwards.
    /// - Throws: that an agent runs, which has to be stopped first.
    public func removeLeftovers() throws(KernelError) {
        // Whoever has the device has the rest.
        if TunnelDevice.exists(configuration.deviceName) { device = try TunnelDevice(name: configuration.deviceName) }
        try stop()
    }

    /// Lets go of everything and removes nothing: translation, HoAs and sockets live on for the next start. The object can't be
    /// used afterwards.
    public func leave() {
        detach()
        device = nil
    }

    private func detach() {
        if let device { loop.unwatch(device.descriptor) }
        hold?.stop()
        hold = nil
        encapsulator.stop()
        groupWatch = nil
        endWatching()
    }

    // MARK: Changes

    /// Applies the changes in one transaction, and the routes that belong to them.
    ///
    /// A peer without a route to its MoA (its link is down) is no error: its traffic is held until there is one.
    /// - Parameter locators: the node's MoAs from now on, so that each is used over its own link; `nil` leaves them. The answer to
    ///   `KernelEvent.links`: with it, all that follows from the links is written once, as it is to be.
    /// - Throws: what the kernel refused. Nothing of `changes` is applied then, and what is known of the kernel's state has been read anew.
    public func commit(_ changes: [IMTChange], locators: [LocalAddress]? = nil) throws(KernelError) {
        var locators = locators
        if let count = locators?.count, count > TranslationRuleset.locatorsMax {
            // The changes go on all the same, and `linksRead` writes what follows from the links.
            onEvent(.failed(.invalid("set the own MoAs", "\(count) of them, at most \(TranslationRuleset.locatorsMax)")))
            locators = nil
        }
        let left = locators.map { LinkFamily.of(self.locators).subtracting(LinkFamily.of($0)) } ?? []
        let new = replaceLocators(locators)
        let changes = plainDestinations.evictions(for: changes, plain: tables.model.plain) + changes
        let touched = TouchedKeys(changes)
        let peers = Set(touched.homes.map(\.peer))
        // A removed peer's route goes first, so that its packets fall into the device rather than out of a link as they are.
        let leaving = leavingPeers(changes)
        if !leaving.isEmpty {
            try writePeers(leaving, leaving: true)
        }
        keepPlainFlows(changes)
        if locators != nil, touched.moves || !touched.homes.isEmpty {
            // What leaves by a link that is no longer its source's waits in our device until tables and routes both say where it goes: with the
            // tables alone changed, it would leave the old link under the new one's address.
            try writePath()
            try writePeers(installed.peers.separatePeers)
        }
        let away = locators.map { _ in unhomed() }
        prepareRewriting(changes, homes: away ?? [])
        do throws(KernelError) {
            // The agent has decided about every address that is there.
            if let repaired = try tables.commit(changes, touched, host: away.map { ($0, knownAddresses()) }) {
                keepPlainFlowsOfAll()
                onEvent(.repaired(repaired))
                writeRewriting()
            }
        } catch {
            // The links are as they are, whatever became of the changes.
            if locators != nil { try? tables.setHost(homes: unhomed(), addresses: knownAddresses()) }
            writeRewriting()
            _ = try? synchroniseRoutes(readBack: .everything)
            announce(new)
            throw error
        }
        writeRewriting(touched)
        encapsulator.apply(changes)
        needReassembly(for: changes)
        reviewEncapsulation()
        if locators == nil, !touched.moves { writeForwarding(of: touched.homes, after: changes) } else { forwardingChanged(changes) }
        configuration.alwaysPlain = tables.configuration.alwaysPlain
        plainDestinations.committed(changes, now: SystemClock.now().monotonic)
        awaitPlain()
        awaitRetired()
        try writeRoutes(after: touched, peers, all: locators != nil, hasOtherRoutes: hasFurtherHomes || changes.alwaysPlain != nil)
        announce(new)
        forgetUnresolved(on: left)
    }

    /// What was sent over links that have gone, before the tables were written, waits there for a router that can't answer. TCP sends no segment
    /// again as long as the host itself still has it, which would be three seconds.
    private func forgetUnresolved(on links: Set<LinkFamily>) {
        guard !links.isEmpty else { return }
        do throws(KernelError) { try routes.forgetUnresolved(on: links) } catch { onEvent(.warning("\(error)")) }
    }

    /// - Parameters:
    ///   - all: what follows from the links is still to be written.
    ///   - hasOtherRoutes: routes that belong to no peer and no plain address may be others.
    private func writeRoutes(after touched: TouchedKeys, _ peers: Set<HomeAddress>, all: Bool, hasOtherRoutes: Bool) throws(KernelError) {
        let isOther = chooseSharedPaths()
        if all {
            // After a move nobody stays behind for whom the shared route would have to wait.
            if isOther, !touched.moves { try writePeersApart() }
            try writeRoutes()
            if touched.moves { try writePeersApart() }
            _ = try mirrorPeers(peers, isCertain: false, sharing: isOther || touched.moves)
            if isOther || touched.moves { try leaveSeparateRoutes() }
            linkWritesPending = false
            return
        }
        if isOther || touched.moves {
            if touched.moves { try writePath() }
            try pathsChanged()
        }
        try writePeers(peers)
        try writeRoutes(to: touched.addresses)
        if hasOtherRoutes { try writeRoutes() }
    }

    /// Peers that have an entry in the tables now and won't have one after these changes.
    private func leavingPeers(_ changes: [IMTChange]) -> Set<HomeAddress> {
        var entries: [HomePair: Bool] = [:]
        for change in changes {
            switch change {
            case .setOutbound(let home, let carriage): entries[home] = carriage.way.endpoints == nil
            case .removeOutbound(let home): entries[home] = false
            default: break
            }
        }
        let kept = Set(entries.filter(\.value).keys.map(\.peer))
        let gone = Set(entries.filter { !$0.value }.keys.map(\.peer)).subtracting(kept)
        return gone.filter { peer in
            guard installed.peers.contains(peer), let own = configuration.primaryHome(family: peer.family) else { return false }
            let pair = HomePair(own: own, peer: peer)
            return tables.model.entries[pair] == nil || entries[pair] == false
        }
    }

    /// Tells which addresses are the node's MoAs, and changes nothing else.
    public func setOwnLocators(_ addresses: [LocalAddress]) throws(KernelError) { try commit([], locators: addresses) }

    /// - Returns: those that were not there, or on another link.
    private func replaceLocators(_ addresses: [LocalAddress]?) -> [LocalAddress] {
        guard let addresses else { return [] }
        let new = addresses.filter { address in
            address.isUsable && !locators.contains { $0.address == address.address && $0.interfaceIndex == address.interfaceIndex }
        }
        locators = addresses
        reviewReversePath()
        return new
    }

    private func announce(_ addresses: [LocalAddress]) {
        for address in addresses {
            // Without it the router finds out by itself, if later.
            do throws(KernelError) { try NeighbourAnnouncement.send(address) } catch { onEvent(.warning("\(error)")) }
        }
    }

    /// Reads the kernel's maps back and makes them what the agent expects, in one transaction.
    /// - Returns: how many entries had drifted.
    @discardableResult
    public func reconcile(outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress]) throws(KernelError) -> Int {
        var wanted = tables.model
        try KernelError.planned { () throws(PlanError) in try wanted.replace(outbound: outbound, inbound: inbound) }
        let drift = try tables.repairAll(wanted)
        writeRewriting()
        try synchroniseRoutes(readBack: .everything)
        return drift
    }

    // MARK: Held packets

    /// Whether a packet to this address would leave now. A mapped peer can be without a route: its own MoA's link is down, or its
    /// gateway not known yet; a packet released then would come back as held, again and again.
    public func canLeave(to destination: IPAddress) -> Bool {
        let peer = HomeAddress(destination)
        return hasWay(to: peer) || tables.model.entry(of: peer, configuration) == nil
    }

    /// Whether the address is the HoA of a peer that has an entry.
    public func hasEntry(for destination: IPAddress) -> Bool {
        tables.model.entry(of: HomeAddress(destination), configuration) != nil
    }

    /// Sends a held packet again, through translation or source NAT, by the route that exists now.
    /// - Returns: `false` if that route leads into our device again (or a firewall refuses it): the packet has to wait on. It is never held a
    ///   second time by itself, so nothing goes round.
    @discardableResult
    public func releaseOutbound(_ packet: HeldPacket) -> Bool {
        if !hasEntry(for: packet.destination) { needSourceTranslation(for: packet) }
        let network = configuration.homePrefixes.first { $0.contains(packet.source) }
        let home = HomeAddress(network?.address ?? packet.source)
        do throws(KernelError) {
            let source = isFurther(home) ? home.address : nil
            if try sends(packet, from: source) { return true }
            // Source NAT may have passed it over, because its flow is older.
            guard forgetTracking(of: packet) else { return false }
            return try sends(packet, from: source)
        } catch {
            // The new way has no room for it, and it may not be cut: the kernel tells its sender, or its next packet meets the link's MTU.
            if error.errno != EMSGSIZE { onEvent(.failed(error)) }
        }
        return true
    }

    private func sends(_ packet: HeldPacket, from home: IPAddress?) throws(KernelError) -> Bool {
        do throws(KernelError) {
            try injector.send(packet, from: home)
            return true
        } catch {
            guard error.errno == EPERM else { throw error }
            return false
        }
    }

    /// Delivers a held packet: translated if its MoAs have an entry now, as it is otherwise.
    public func releaseInbound(_ packet: HeldPacket) {
        guard let device else { return }
        do throws(KernelError) { try device.deliver(packet.bytes) } catch { onEvent(.failed(error)) }
    }

    // MARK: Reading

    /// What was translated per peer, counted by the kernel, also while no agent ran.
    public func peerCounters() throws(KernelError) -> [HomePair: PeerCounters] {
        // Asked for each second: as good a moment as any for what sends no notification.
        reviewLegacyTables()
        reviewPlainFlows()
        return try tables.counters().merging(forwarding?.rewriting?.counts() ?? [:], uniquingKeysWith: +)
            .merging(encapsulator.counters(), uniquingKeysWith: +).merging(forwarding?.counts() ?? [:], uniquingKeysWith: +)
    }

    /// Flows of datagrams with these addresses that passed untranslated in the last minutes, whatever socket has them. For people to be told: it
    /// reads a large set of the kernel's.
    package func plainDatagramFlows(to addresses: Set<IPAddress>) throws(KernelError) -> [PlainFlow] {
        try tables.plainFlows(to: addresses, in: [TranslationRuleset.plainFlows]).filter { $0.protocolNumber == UInt8(IPPROTO_UDP) }
    }

    /// Has the next packet to a peer told (`KernelEvent.used`), so that nobody needs to look at the counts until then.
    ///
    /// - Returns: whether it will be told; of hosts behind a mobile router it is not. What programs rewrite has passed the rule before.
    public func awaitUse(_ isOn: Bool) throws(KernelError) -> Bool {
        guard configuration.homePrefixes.isEmpty || !isOn else { return false }
        try tables.set(awaitsUse: isOn)
        return isOn
    }

    /// The links and addresses now.
    public func currentLinks() throws(KernelError) -> LinkSnapshot {
        try readLinks()
        return linkTables.snapshot(without: configuration.deviceName)
    }

    /// Entries in the kernel as this process last knew them.
    public var outbound: [HomePair: MobilePair] { tables.model.outbound }
    public var inbound: [Arrival: HomeAddress] { tables.model.inbound }
}
