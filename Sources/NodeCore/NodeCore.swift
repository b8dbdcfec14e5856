import IMTPlan
import MATCore
import MATSignal

/// All decisions of a node: event and `now` in, actions out. No socket, kernel, clock or file is touched here, so the same
/// code runs in a simulated network with virtual time and in the daemon.
///
/// What happens to it, and where that is handled:
/// - links change, a person asks for a handover: `Handover/`
/// - a path is dead though its link is up; preferences: `Paths/`
/// - the own registration: `NodeCore+Registration`; the right time: `Clock/`; whether the IMS still knows us: `NodeCore+SelfCheck`
/// - a packet to an unknown destination (paper 4.2 (1)-(5)), also when the DNS is silent: `Destinations/`
/// - a packet from an unknown source (paper 4.2 (6), (7)): `Strangers/`
/// - a peer's record, its locators, and what the kernel gets of them: `Peers/`; who is told of a move: `Announcing/`
/// - requests, retransmission, cookies: `Exchanges/`; requests of others: `NodeCore+Requests`
public struct NodeCore {
    /// What a deadline is for.
    enum Deadline: Hashable, Sendable {
        case locator(HomeAddress, MobileAddress)
        case destination(HomeAddress)
        /// The DNS gave no answer about a destination, and is asked again.
        case destinationLookUp(HomeAddress)
        case stranger(MobileAddress)
        case adoption
        /// Asking for the peers of an earlier run goes on.
        case adopting
        /// Telling peers of a move goes on.
        case backlog
        /// An IMS takes HA Notifies again.
        case server(IPAddress)
        /// Peers whose locators may or may not be used since our own scope changed.
        case scope
        case paths
    }

    let configuration: NodeCoreConfiguration
    var random: any RandomNumberGenerator

    var homes: [HomeAddress: Home] = [:]
    var clock: ConfirmedClock
    /// Our own addresses, and which of them the kernel knows.
    var addresses: UsableAddresses
    var entered = EnteredAddresses()
    /// Which paths work, and what is done about those that don't.
    var uplinks: Uplinks
    var monitor: PathMonitor
    var detours: Detours
    var preferences: Preferences

    var peers = PeerTable()
    /// The own addresses that peers' traffic leaves from.
    var ownPaths = OwnPaths()
    /// Peers that were entered, or have new places, while there was no own address.
    var pathless: Set<HomeAddress> = []
    var busiest = BusiestPeers()
    var destinations: Destinations
    var strangers: Strangers
    /// Lines of the log about peers whose locators are of no use here.
    var scopeReports = RateLimit(perSecond: 2)
    var knownServers: KnownServers
    var adoption = Adoption()
    var polls: PollTimes
    /// Who waits for the DNS to answer about an HoA.
    var lookUps: LookUps
    /// The keys at networks' prefixes, and what waits for them.
    var networkKeys: NetworkKeys

    /// Requests under way.
    var exchanges: Exchanges
    var deadlines = DeadlineQueue<Deadline>()
    var backlog = Backlog()
    var notifyQueues: NotifyQueues
    /// Requests of others.
    var requests: Requests
    /// Checks and questions out of turn, that what strangers send can cause.
    var rechecks: RateLimit
    public internal(set) var counters = NodeCounters()

    private var actions: [NodeAction] = []
    private var changes: [IMTChange] = []
    /// Datagrams among the actions that have room for more messages.
    private var openDatagrams: [DatagramWay: OpenDatagram] = [:]

    private struct DatagramWay: Hashable {
        let own: IPAddress
        let target: Endpoint
        let needsRoom: Bool
    }

    private struct OpenDatagram {
        let action: Int
        var messages: Int
        var octets: Int
    }

    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(_ configuration: NodeCoreConfiguration, random: any RandomNumberGenerator) {
        guard let client = ClientCookies(secret: configuration.clientSecret), let authority = CookieAuthority(secret: configuration.cookieSecret)
        else { return nil }
        self.configuration = configuration
        self.random = random
        clock = ConfirmedClock(isRightAtStart: configuration.isClockConfirmed)
        exchanges = Exchanges(
            clientCookies: client, serversMax: configuration.serversMax, pace: Pace(perSecond: configuration.messagesPerSecond, burst: configuration.messagesBurst))
        addresses = UsableAddresses(configuration)
        uplinks = Uplinks(configuration.paths)
        monitor = PathMonitor(configuration.paths)
        detours = Detours(configuration.paths)
        preferences = Preferences(configuration)
        strangers = Strangers(configuration)
        destinations = Destinations(configuration)
        notifyQueues = NotifyQueues(countMax: configuration.share(of: NotifyQueues.countMax))
        polls = PollTimes(configuration)
        knownServers = KnownServers(othersMax: configuration.share(of: KnownServers.othersMax))
        lookUps = LookUps(askedMax: configuration.share(of: LookUps.askedMax))
        networkKeys = NetworkKeys(knownMax: configuration.share(of: NetworkKeys.knownMax), askedMax: configuration.share(of: NetworkKeys.askedMax))
        requests = Requests(cookies: authority, configuration)
        rechecks = RateLimit(perSecond: configuration.recheckedPerSecond)
        for identity in configuration.homes { homes[identity.hoa] = Home(identity, configuration) }
    }

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
        runPaths(now)
        return takeActions()
    }

    /// A person wants this interface to be used first; `nil` goes back to the configured order.
    public mutating func prefer(interface: String?, now: Now) -> [NodeAction] {
        addresses.choose(interface: interface)
        if let interface { trust(interface: interface, now) }
        log(.notice, interface.map { "handover to \($0) asked for" } ?? "the configured order of interfaces is used again")
        arrangeAgain(now)
        runPaths(now)
        return takeActions()
    }

    /// A packet from an own HoA to an address that the IMT does not know is held.
    ///
    /// - Parameter isName: it is a question to a DNS server, as far as its port tells.
    public mutating func heldOutbound(to destination: IPAddress, isName: Bool = false, now: Now) -> [NodeAction] {
        if !(isName && passesNames(to: HomeAddress(destination), now)) { resolve(HomeAddress(destination), now) }
        runPaths(now)
        return takeActions()
    }

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
        return takeActions()
    }

    /// The DNS answered a `lookUp`.
    public mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, now: Now) -> [NodeAction] {
        finishLookUp(hoa, result, now)
        runPaths(now)
        return takeActions()
    }

    /// The DNS answered a `lookUpKeys`.
    public mutating func keysLookedUp(_ prefix: IPPrefix, _ result: ServerLookup, now: Now) -> [NodeAction] {
        finishKeyLookUp(prefix, result, now)
        runPaths(now)
        return takeActions()
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
        return takeActions()
    }

    /// Packets counted so far with each peer, both directions. Told now and then; it keeps used peers alive.
    public mutating func traffic(_ packets: some Sequence<(key: HomeAddress, value: UInt64)>, now: Now) -> [NodeAction] {
        var busy = BusiestPeers.Count()
        var used: [HomeAddress] = []
        for (hoa, count) in packets {
            guard let before = peers[hoa]?.packets, before != count else { continue }
            peers[hoa]?.packets = count
            peers[hoa]?.lastTraffic = now.monotonic
            used.append(hoa)
            busy.add(count &- before, of: hoa)
        }
        busiest.replace(by: busy)
        monitor.trafficCounted(now: now.monotonic)
        // More than these are not watched anyway.
        for hoa in used.count <= configuration.paths.pathsMax ? used.sorted() : busiest.peers { notePeerUse(hoa, now) }
        runPaths(now)
        return takeActions()
    }

    /// When `timerFired` wants to be called next.
    public var nextDeadline: MonotonicTime? {
        mutating get {
            [peers.nextDue, exchanges.nextDue, nextHomeDue, deadlines.next].compactMap(\.self).min()
        }
    }

    public mutating func timerFired(now: Now) -> [NodeAction] {
        while true {
            guard let due = nextDeadline, due <= now.monotonic else { break }
            if peers.nextDue == due, let hoa = peers.takeDue(now.monotonic) {
                peerDue(hoa, now)
                continue
            }
            if exchanges.nextDue == due {
                perform(exchanges.due(preferred: preferredSources, now.monotonic), now)
                continue
            }
            if nextHomeDue == due {
                homeDue(now)
                continue
            }
            guard let deadline = deadlines.takeDue(now.monotonic) else { break }
            switch deadline {
            case .locator(let hoa, let moa): locatorDue(hoa, moa, now)
            case .destination(let hoa): destinationDue(hoa, now)
            case .destinationLookUp(let hoa): destinationLookUpDue(hoa, now)
            case .stranger(let moa): strangerDue(moa, now)
            case .adoption: adoptionDue(now)
            case .adopting: goOnAdopting(now)
            case .backlog: workOff(now)
            case .server(let server): serverDue(server, now)
            case .scope: reconsiderScope(now)
            case .paths: pathsDue(now)
            }
        }
        return takeActions()
    }

    /// Entries that an earlier run left in the kernel and that no peer of this run stands behind: traffic flows through
    /// them, so the peers are asked for anew instead of being dropped.
    public mutating func adopted(
        outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress], own: [MobileAddress: HomeAddress] = [:], now: Now
    ) -> [NodeAction] {
        entered.adopt(own)
        adoptEntries(outbound, inbound, now)
        return takeActions()
    }

    // MARK: Collecting actions

    mutating func emit(_ action: NodeAction) { actions.append(action) }

    mutating func change(_ change: IMTChange) { changes.append(change) }

    /// Puts the kernel changes so far before what is emitted next.
    mutating func flushChanges() {
        guard !changes.isEmpty else { return }
        actions.append(.changeIMT(changes))
        changes = []
        // An answer to what goes earlier could come before the change.
        openDatagrams = [:]
    }

    /// Sends a message. Several to one place in the same breath share a datagram (section 1). Kernel changes decided in that breath go
    /// first: an answer may come at once.
    ///
    /// - Parameter needsRoom: it is for somebody who has not shown that he is there; see `NodeAction.sendIfRoom`.
    mutating func post(_ octets: [UInt8], from own: IPAddress, to target: Endpoint, needsRoom: Bool = false) {
        flushChanges()
        func action(_ octets: [UInt8]) -> NodeAction {
            needsRoom ? .sendIfRoom(octets, from: own, to: target) : .send(octets, from: own, to: target)
        }
        let way = DatagramWay(own: own, target: target, needsRoom: needsRoom)
        if let open = openDatagrams[way], open.messages < SignalDatagram.messagesMax, open.octets + octets.count <= SignalDatagram.octetsMax,
            var datagram = Self.octets(of: actions[open.action])
        {
            // Taken out for the moment, so that appending does not copy.
            actions[open.action] = action([])
            datagram += octets
            actions[open.action] = action(datagram)
            openDatagrams[way]?.messages += 1
            openDatagrams[way]?.octets += octets.count
        } else {
            openDatagrams[way] = OpenDatagram(action: actions.count, messages: 1, octets: octets.count)
            emit(action(octets))
        }
    }

    private static func octets(of action: NodeAction) -> [UInt8]? {
        switch action {
        case .send(let octets, _, _), .sendIfRoom(let octets, _, _): octets
        default: nil
        }
    }

    mutating func log(_ level: NodeLogLevel, _ text: String) { actions.append(.log(level, text)) }

    /// Ends an event whose handling lies in another file.
    mutating func endEvent() -> [NodeAction] { takeActions() }

    private mutating func takeActions() -> [NodeAction] {
        flushChanges()
        openDatagrams = [:]
        defer { actions = [] }
        return actions
    }

    // MARK: Small questions

    /// What is known of whom requests go to.
    var servers: ServerTable { exchanges.servers }

    /// This core's share of a bound of the whole node.
    func share(of bound: Int) -> Int { configuration.share(of: bound) }

    /// Usable own addresses in order of preference.
    var ownLocators: [OwnLocator] { addresses.ordered }

    /// Own usable addresses of a family, in order of preference.
    func ownMoAs(ipv4: Bool) -> [MobileAddress] { addresses.of(ipv4 ? .ipv4 : .ipv6) }

    /// The locators that a record of this HoA is to list.
    func desiredLocators(of hoa: HomeAddress) -> [MobileAddress] { addresses.places(of: hoa) }

    /// The own HoA that talks to a peer: the one of its family.
    func home(for peer: HomeAddress) -> HomeAddress? {
        homes.keys.first { $0.isIPv4 == peer.isIPv4 }
    }

    func isOwn(_ address: IPAddress) -> Bool {
        homes.values.contains { $0.prefix.contains(address) }
            || ownLocators.contains { covers($0.moa, homeLength(isIPv4: $0.moa.isIPv4), address) }
    }

    /// Whether the kernel has been told to take packets to this address for an own HoA's.
    func isReachable(at address: IPAddress) -> Bool {
        entered.covers(address) { homes[$0]?.prefix.length ?? 128 }
    }

    private func covers(_ moa: MobileAddress, _ length: UInt8, _ address: IPAddress) -> Bool {
        IPPrefix(covering: moa.address, length: length).contains(address)
    }

    /// The prefix length of the own HoA of a family, and so that of the locators.
    private func homeLength(isIPv4: Bool) -> UInt8 { homes.values.first { $0.hoa.isIPv4 == isIPv4 }?.prefix.length ?? 128 }
}

/// Counts that never go down, for `mat status`.
public struct NodeCounters: Hashable, Sendable {
    public var handovers: UInt64
    /// Own addresses that were left because nothing answered over them, or because they could not be registered.
    public var uplinkFailures: UInt64
    /// Peers' traffic that took another pair of addresses because the usual one was silent.
    public var detours: UInt64
    public var probesSent: UInt64
    public var registrations: UInt64
    /// The own IMS no longer had our record.
    public var recordsLost: UInt64
    public var messagesSent: UInt64
    public var messagesReceived: UInt64
    public var retransmissions: UInt64
    public var malformedDropped: UInt64
    public var unmatchedDropped: UInt64
    public var draftsDropped: UInt64
    public var recordsRefused: UInt64
    /// Answers to strangers on an own link that were not given, because there were too many.
    public var answersWithheld: UInt64
    /// HA Queries begun.
    public var strangersAsked: UInt64
    public var strangersIdentified: UInt64
    public var strangersPlain: UInt64
    public var destinationsResolved: UInt64
    public var destinationsPlain: UInt64
    /// Destinations that became plain because the DNS gave no answer.
    public var destinationsUndecided: UInt64

    public init() { self.init { _ in 0 } }

    /// Each counter gets its value here and nowhere else: one that is forgotten does not compile.
    init(_ value: (KeyPath<NodeCounters, UInt64>) -> UInt64) {
        handovers = value(\.handovers)
        uplinkFailures = value(\.uplinkFailures)
        detours = value(\.detours)
        probesSent = value(\.probesSent)
        registrations = value(\.registrations)
        recordsLost = value(\.recordsLost)
        messagesSent = value(\.messagesSent)
        messagesReceived = value(\.messagesReceived)
        retransmissions = value(\.retransmissions)
        malformedDropped = value(\.malformedDropped)
        unmatchedDropped = value(\.unmatchedDropped)
        draftsDropped = value(\.draftsDropped)
        recordsRefused = value(\.recordsRefused)
        answersWithheld = value(\.answersWithheld)
        strangersAsked = value(\.strangersAsked)
        strangersIdentified = value(\.strangersIdentified)
        strangersPlain = value(\.strangersPlain)
        destinationsResolved = value(\.destinationsResolved)
        destinationsPlain = value(\.destinationsPlain)
        destinationsUndecided = value(\.destinationsUndecided)
    }

    static func + (a: NodeCounters, b: NodeCounters) -> NodeCounters { NodeCounters { a[keyPath: $0] &+ b[keyPath: $0] } }
}
