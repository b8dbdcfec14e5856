import IMTPlan
import MATCore
import MATSignal

/// All decisions of a node: event and `now` in, actions out. No socket, kernel, clock or file is touched here, so the same
/// code runs in a simulated network with virtual time and in the daemon.
///
/// Each concern is a value with state of its own (quinn-proto's `Connection` is the model). An event goes to those that it concerns; they answer
/// with actions, which the extension of this type in the same folder carries out: on another value, or as `Effects`.
/// - `Registration/`: the own registration with its parts, the right time, whether the IMS still knows us
/// - `Exchanges/`: requests under way, cookies, who may answer; `Requests/`: requests of others
/// - `LookUps/`: questions to the DNS
/// - `Destinations/`: packets to unknown destinations (paper 4.2 (1)-(5)), also while the DNS is silent
/// - `Strangers/`: packets from unknown sources (paper 4.2 (6), (7))
/// - `Peers/`: peers' records and locators, and what the kernel gets of them; `Announcing/`: telling them of our moves
/// - `Carriages/`: what lies before our addresses, bindings, and peers' endpoints: packets that travel encapsulated
/// - `Handover/`: our own addresses; links change, a person asks for a handover; `Paths/`: dead paths, preferences
public struct NodeCore {
    var configuration: NodeCoreConfiguration
    var random: any RandomNumberGenerator

    var homes: [HomeAddress: Home] = [:]
    var clock: ConfirmedClock
    /// Our own addresses, and which of them the kernel knows.
    var addresses: UsableAddresses
    var entered = EnteredAddresses()
    /// What lies before them, and the bindings that open it.
    var ownEndpoints: OwnEndpoints
    var bindings = OwnBindings()
    var localPorts = LocalPorts()
    /// Plain hosts that own relays carry, and from which relays others' packets are taken, by HoA.
    var gateways: GatewayDestinations
    var gatewaysAccepted: [HomeAddress: [Endpoint]] = [:]
    /// Which paths work, and what is done about those that don't.
    var uplinks: Uplinks
    var monitor: PathMonitor
    var preferences: Preferences

    var peers = PeerTable()
    /// Who is one, and by which record.
    var records: PeerRecords
    /// Which of them is at which address.
    var locatorChecks: LocatorChecks
    /// By which pair of addresses each is reached.
    var paths: PeerPaths
    /// Ways to peers that are not rewritten.
    var peerEndpoints: EndpointTable
    /// How often endpoints are probed.
    var probeRates: ProbeRates
    /// What is asked within them, and how large packets they carry.
    var inPathProbes: InPathProbes
    var pathMTUs: PathMTUs
    /// Peers in the network that we are in.
    var candidates: CandidateTable
    var peerRelays: RelayTable
    /// Those that only addresses of the other family lead to.
    var peersOfOtherFamily = PeersOfOtherFamily()
    /// Whether rewritten packets pass in the middle of their flows.
    var trials = DirectTrials()
    var busiest = BusiestPeers()
    var destinations: Destinations
    /// Who sends us something in datagrams, and is not known.
    var callers: Callers
    var strangers: Strangers
    var knownServers: KnownServers
    var adoption = Adoption()
    /// Who waits for the DNS to answer about an HoA.
    var lookUps: LookUps
    /// The keys at networks' prefixes, and what waits for them.
    var networkKeys: NetworkKeys

    /// Requests under way.
    var exchanges: Exchanges
    var deadlines = DeadlineQueue<Deadline>()
    var backlog = Backlog()
    var announcing: Announcing
    var begun = BegunConnections()
    /// Requests of others.
    var requests: Requests
    public internal(set) var counters = NodeCounters()
    public internal(set) var history = HandoverHistory()
    /// What the present event wants done.
    private var effects = Effects()

    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(_ configuration: NodeCoreConfiguration, random: any RandomNumberGenerator) {
        guard let client = ClientCookies(secret: configuration.clientSecret), let authority = CookieAuthority(secret: configuration.cookieSecret)
        else { return nil }
        self.configuration = configuration
        self.random = random
        clock = ConfirmedClock(isRightAtStart: configuration.isClockConfirmed)
        exchanges = Exchanges(
            clientCookies: client, serversMax: configuration.serversMax,
            pace: Pace(perSecond: configuration.messagesPerSecond, burst: configuration.messagesBurst))
        addresses = UsableAddresses(configuration)
        ownEndpoints = OwnEndpoints(
            configuration.sharesAddresses ? .filtered : configuration.inbound, areHidden: configuration.paths.isRelayOnly,
            isShared: configuration.sharesAddresses)
        uplinks = Uplinks(configuration.paths)
        monitor = PathMonitor(configuration.paths)
        locatorChecks = LocatorChecks(configuration)
        paths = PeerPaths(configuration.paths)
        probeRates = ProbeRates(configuration)
        peerEndpoints = EndpointTable(peersMax: configuration.share(of: EndpointTable.peersMax))
        inPathProbes = InPathProbes(
            underWayMax: configuration.share(of: InPathProbes.underWayMax), perSecond: configuration.share(of: InPathProbes.perSecondMax))
        candidates = CandidateTable(peersMax: configuration.share(of: CandidateTable.peersMax))
        pathMTUs = PathMTUs(pathsMax: configuration.share(of: PathMTUs.pathsMax), asksSizes: configuration.mtu == nil)
        peerRelays = RelayTable(
            peersMax: configuration.share(of: EndpointTable.peersMax), visitsMax: configuration.share(of: RelayTable.visitsMax))
        preferences = Preferences(configuration)
        strangers = Strangers(configuration)
        destinations = Destinations(configuration)
        callers = Callers(perSecond: configuration.share(of: Callers.perSecond), askedMax: configuration.share(of: Callers.askedMax))
        gateways = GatewayDestinations(countMax: configuration.share(of: GatewayDestinations.countMax))
        announcing = Announcing(configuration)
        records = PeerRecords(configuration)
        knownServers = KnownServers(othersMax: configuration.share(of: KnownServers.othersMax))
        lookUps = LookUps(askedMax: configuration.share(of: LookUps.askedMax))
        networkKeys = NetworkKeys(knownMax: configuration.share(of: NetworkKeys.knownMax), askedMax: configuration.share(of: NetworkKeys.askedMax))
        requests = Requests(cookies: authority, configuration)
        for identity in configuration.homes { homes[identity.hoa] = Home(identity, configuration) }
    }

    /// Peers learn nothing of where this node is.
    var isHidden: Bool { configuration.paths.isRelayOnly }

    // MARK: Events

    /// The machine's addresses, or which of them work, changed.
    ///
    /// - Parameter otherOwn: addresses of this node that serve other HoAs than this core's.
    public mutating func linksChanged(
        _ locators: [OwnLocator], infrastructure: Set<IPAddress>, otherOwn: Set<IPAddress> = [], now: Now
    ) -> [NodeAction] {
        let changed = addresses.surround(infrastructure: infrastructure, others: otherOwn)
        arrange(locators, now)
        // What is ours is no peer's locator, and what is not any more may be one.
        reconsider(changed, now)
        gatewaysChanged(now)
        runPaths(now)
        return endEvent()
    }

    /// A person wants this interface to be used first; `nil` goes back to the configured order.
    public mutating func prefer(interface: String?, now: Now) -> [NodeAction] {
        addresses.choose(interface: interface)
        if let interface { trust(interface: interface, now) }
        log(.notice, interface.map { "handover to \($0) asked for" } ?? "the configured order of interfaces is used again")
        arrangeAgain(now)
        for hoa in homes.keys.sorted() {
            guard let interface, let home = addresses.atHome(hoa), home.interface != interface else { continue }
            log(.notice, "\(home.moa) is at home on \(home.interface), and stays there as long as that link has it")
        }
        runPaths(now)
        return endEvent()
    }

    /// A packet from an own HoA to an address that the IMT does not know is held.
    ///
    /// - Parameter isName: it is a question to a DNS server, as far as its port tells.
    public mutating func heldOutbound(to destination: IPAddress, isName: Bool = false, now: Now) -> [NodeAction] {
        if peers[HomeAddress(destination)] != nil, let own = home(for: HomeAddress(destination)) { history.held(own, now.monotonic) }
        if !(isName && passesNames(to: HomeAddress(destination), now)) { resolve(HomeAddress(destination), now) }
        useEndpoints(of: HomeAddress(destination), now)
        runPaths(now)
        return endEvent()
    }

    /// Packets that were held had waited for too long, or were too many.
    mutating func packetsLost(_ count: Int, of own: HomeAddress) { history.lost(count, of: own) }

    /// A packet from an unknown source to one of the own MoAs is held.
    ///
    /// - Parameters:
    ///   - opensConnection: it could be a stranger's first packet, whom waiting would hurt.
    ///   - isSegment: it belongs to a TCP connection or a conversation over UDP that exists somewhere; since it does not here, the
    ///     stack would end it, by a reset or port unreachable.
    public mutating func heldInbound(
        from source: IPAddress, to own: IPAddress, opensConnection: Bool, isSegment: Bool = false, now: Now
    ) -> [NodeAction] {
        identify(Strangers.Packet(source: MobileAddress(source), own: own, opensConnection: opensConnection, isSegment: isSegment), now)
        return endEvent()
    }

    /// The DNS answered a `lookUp`.
    public mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, now: Now) -> [NodeAction] {
        finishLookUp(hoa, result, now)
        runPaths(now)
        return endEvent()
    }

    /// The DNS answered a `lookUpKeys`.
    public mutating func keysLookedUp(_ prefix: IPPrefix, _ result: ServerLookup, now: Now) -> [NodeAction] {
        finishKeyLookUp(prefix, result, now)
        runPaths(now)
        return endEvent()
    }

    /// A datagram came from `source` to the own address `local`.
    public mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [NodeAction] {
        for part in SignalDatagram.decode(datagram) {
            switch part {
            case .message(let message, let octetsCount):
                if message.type.isRequest {
                    answer(message, octetsCount, from: source, to: local, now)
                } else {
                    finish(message, from: source, to: local, now)
                }
            case .rejected(let rejection):
                refuse(rejection, from: source, to: local, now)
            case .draft:
                // Draft bodies carry no proof (section 9).
                counters.draftsDropped += 1
            }
        }
        return endEvent()
    }

    /// Packets counted so far with each peer. Told now and then; it keeps used peers alive.
    public mutating func traffic(_ packets: some Sequence<(key: HomeAddress, value: PeerPackets)>, now: Now) -> [NodeAction] {
        let used = busiest.counted(packets, in: &peers, now: now.monotonic)
        if !gateways.isEmpty { for (hoa, count) in packets { gateways.counted(hoa, count.sum) } }
        if !peerEndpoints.isEmpty || !peerRelays.isEmpty {
            for hoa in used.filter({ peerEndpoints[$0] != nil || peerRelays[$0] != nil }).sorted() { useEndpoints(of: hoa, now) }
        }
        monitor.trafficCounted(now: now.monotonic)
        // More than these are not watched anyway.
        for hoa in used.count <= configuration.paths.pathsMax ? used.sorted() : busiest.peers { notePeerUse(hoa, now) }
        runPaths(now)
        return endEvent()
    }

    /// Entries that an earlier run left in the kernel and that no peer of this run stands behind: traffic flows through
    /// them, so the peers are asked for anew instead of being dropped.
    ///
    /// - Parameter forwarded: what the kernel's programs still send in datagrams.
    public mutating func adopted(
        outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress], own: [MobileAddress: HomeAddress] = [:],
        forwarded: [HomePair: Carriage] = [:], now: Now
    ) -> [NodeAction] {
        entered.adopt(own)
        pathMTUs.adopt(forwarded, now.monotonic)
        adoptEntries(outbound, inbound, now)
        return endEvent()
    }

    /// The node ends, and what it has in the kernel with it: whoever would go on sending to it is told.
    public mutating func leaves(now: Now) -> [NodeAction] {
        leaveServers(now)
        return endEvent()
    }

    // MARK: What is to be done

    mutating func emit(_ action: NodeAction) { effects.add(action) }

    mutating func change(_ change: IMTChange) { effects.change(change) }

    mutating func log(_ level: NodeLogLevel, _ text: String) { effects.add(.log(level, text)) }

    /// Puts the kernel changes so far before what is emitted next.
    mutating func flushChanges() { effects.commit() }

    /// - Parameter needsRoom: it is for somebody who has not shown that he is there; see `NodeAction.sendIfRoom`.
    mutating func post(_ octets: [UInt8], from own: IPAddress, to target: Endpoint, needsRoom: Bool = false) {
        effects.send(octets, from: own, to: target, needsRoom: needsRoom)
    }

    mutating func endEvent() -> [NodeAction] { effects.end() }
}
