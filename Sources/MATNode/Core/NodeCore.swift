import IMTKernel
import MATSignal

/// All decisions of a node: event and `now` in, actions out. No socket, kernel, clock or file is touched here, so the same
/// code runs in a simulated network with virtual time and in the daemon.
///
/// What happens to it, and where that is handled:
/// - links change, a person asks for a handover: `NodeCore+Handover`
/// - a path is dead though its link is up; preferences: `Paths/NodeCore+Paths`, `NodeCore+Preference`
/// - the own registration: `NodeCore+Registration`
/// - a packet to an unknown destination: `NodeCore+Destinations` (paper 4.2 (1)-(5))
/// - a packet from an unknown source: `NodeCore+Strangers` (paper 4.2 (6), (7))
/// - a peer's record, its locators, and what the kernel gets of them: `NodeCore+Peers`, `NodeCore+Locators`
/// - requests, retransmission, cookies: `NodeCore+Exchanges`; requests of others: `NodeCore+Requests`
public struct NodeCore {
    /// What a deadline is for.
    enum Deadline: Hashable, Sendable {
        case exchange(UInt32)
        case registration(HomeAddress)
        case proofs(HomeAddress)
        case peer(HomeAddress)
        case locator(HomeAddress, MobileAddress)
        case destination(HomeAddress)
        case stranger(MobileAddress)
        case lookUp(HomeAddress)
        case adoption
        case paths
    }

    let configuration: NodeCoreConfiguration
    var random: any RandomNumberGenerator
    let clientCookies: ClientCookies
    var cookieAuthority: CookieAuthority

    var homes: [HomeAddress: Home] = [:]
    /// Usable own addresses in order of preference.
    var ownLocators: [OwnLocator] = []
    /// The same in the order in which the system lists them.
    var systemLocators: [OwnLocator] = []
    /// The interface that a person chose with `mat handover`; it goes before the configured order while it is usable.
    var chosenInterface: String?
    /// Which paths work, and what is done about those that don't.
    var ways: PathKnowledge
    /// Gateways and resolvers: never a peer's locator.
    var infrastructure: Set<IPAddress> = []

    var peers: [HomeAddress: Peer] = [:]
    /// Which peer uses a locator.
    var locatorOwners: [MobileAddress: HomeAddress] = [:]
    var destinations: [HomeAddress: Destination] = [:]
    var strangers: [MobileAddress: Stranger] = [:]
    var strangerQueries: RateLimit
    /// Sources remembered as plain, and until when: a record that lists one clears it.
    var plainSources: [MobileAddress: MonotonicTime] = [:]
    /// IMSs of HoAs that are or were of interest.
    var serverSets: [HomeAddress: ServerSet] = [:]
    /// Kernel entries of an earlier run that no peer of this run stands behind yet.
    var staleOutbound: Set<HomePair> = []
    var staleInbound: [HomePair: Set<MobileAddress>] = [:]
    /// The kernel's own MoAs, each with the HoA that packets to it are for.
    var installedOwn: [MobileAddress: HomeAddress] = [:]
    /// Who waits for the DNS to answer about an HoA.
    var lookUps: [HomeAddress: [LookUpPurpose]] = [:]

    var servers: ServerTable
    var exchanges: [UInt32: Exchange] = [:]
    var exchangeByPurpose: [Exchange.Purpose: UInt32] = [:]
    var deadlines = DeadlineQueue<Deadline>()
    var uncookiedChecks: RateLimit
    var sourceChecks: [IPAddress: RateLimit] = [:]
    /// Answers to malformed requests.
    var refusals = RateLimit(perSecond: 10)
    public internal(set) var counters = NodeCounters()

    private var actions: [NodeAction] = []
    private var changes: [IMTChange] = []

    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(_ configuration: NodeCoreConfiguration, random: any RandomNumberGenerator) {
        guard let client = ClientCookies(secret: configuration.clientSecret), let authority = CookieAuthority(secret: configuration.cookieSecret)
        else { return nil }
        self.configuration = configuration
        self.random = random
        clientCookies = client
        cookieAuthority = authority
        ways = PathKnowledge(configuration.paths)
        servers = ServerTable(entriesMax: configuration.serversMax)
        strangerQueries = RateLimit(perSecond: configuration.strangerQueriesPerSecond)
        uncookiedChecks = RateLimit(perSecond: configuration.uncookiedChecksPerSecond)
        for identity in configuration.homes { homes[identity.hoa] = Home(identity) }
    }

    // MARK: Events

    /// The machine's addresses, or which of them work, changed.
    public mutating func linksChanged(_ locators: [OwnLocator], infrastructure: Set<IPAddress>, now: Now) -> [NodeAction] {
        let isSame = self.infrastructure == infrastructure
        self.infrastructure = infrastructure
        adopt(locators, now)
        // A gateway or resolver is no peer's locator, and what is none any more may be one.
        if !isSame { for peer in peers.keys.sorted() { applyPeer(peer, now) } }
        runPaths(now)
        return takeActions()
    }

    /// A person wants this interface to be used first; `nil` goes back to the configured order.
    public mutating func prefer(interface: String?, now: Now) -> [NodeAction] {
        chosenInterface = interface
        if let interface { trust(interface: interface, now) }
        log(.notice, interface.map { "handover to \($0) asked for" } ?? "the configured order of interfaces is used again")
        adopt(systemLocators, now)
        runPaths(now)
        return takeActions()
    }

    /// A packet from an own HoA to an address that the IMT does not know is held.
    public mutating func heldOutbound(to destination: IPAddress, now: Now) -> [NodeAction] {
        resolve(HomeAddress(destination), now)
        runPaths(now)
        return takeActions()
    }

    /// A packet from an unknown source to one of the own MoAs is held.
    ///
    /// - Parameters:
    ///   - opensConnection: it could be a stranger's first packet, whom waiting would hurt.
    ///   - isSegment: it belongs to a TCP connection that exists somewhere; if it does not here, the stack would reset it.
    public mutating func heldInbound(
        from source: IPAddress, to own: IPAddress, opensConnection: Bool, isSegment: Bool = false, now: Now
    ) -> [NodeAction] {
        identify(MobileAddress(source), at: own, opensConnection, isSegment, now)
        return takeActions()
    }

    /// The DNS answered a `lookUp`.
    public mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, now: Now) -> [NodeAction] {
        finishLookUp(hoa, result, now)
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
    public mutating func traffic(_ packets: [HomeAddress: UInt64], now: Now) -> [NodeAction] {
        for (hoa, count) in packets where peers[hoa] != nil && peers[hoa]?.packets != count {
            peers[hoa]?.packets = count
            peers[hoa]?.lastTraffic = now.monotonic
            notePeerUse(hoa, now)
        }
        runPaths(now)
        return takeActions()
    }

    /// When `timerFired` wants to be called next.
    public var nextDeadline: MonotonicTime? {
        mutating get { deadlines.next }
    }

    public mutating func timerFired(now: Now) -> [NodeAction] {
        while let deadline = deadlines.takeDue(now.monotonic) {
            switch deadline {
            case .exchange(let sequence): exchangeDue(sequence, now)
            case .registration(let hoa): register(hoa, now)
            case .proofs(let hoa): proofsDue(hoa, now)
            case .peer(let hoa): peerDue(hoa, now)
            case .locator(let hoa, let moa): locatorDue(hoa, moa, now)
            case .destination(let hoa): destinationDue(hoa, now)
            case .stranger(let moa): strangerDue(moa, now)
            case .lookUp(let hoa): lookUp(hoa, now)
            case .adoption: adoptionDue()
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
        installedOwn = own
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
    }

    mutating func log(_ level: NodeLogLevel, _ text: String) { actions.append(.log(level, text)) }

    /// Ends an event whose handling lies in another file.
    mutating func endEvent() -> [NodeAction] { takeActions() }

    private mutating func takeActions() -> [NodeAction] {
        flushChanges()
        defer { actions = [] }
        return actions
    }

    // MARK: Small questions

    /// Own usable addresses of a family, in order of preference.
    func ownMoAs(ipv4: Bool) -> [MobileAddress] {
        ownLocators.map(\.moa).filter { $0.isIPv4 == ipv4 }
    }

    /// The locators that a record of this HoA is to list: the HoA alone when it is an address of a link (the node is at
    /// home), otherwise the usable addresses of its family.
    func desiredLocators(of hoa: HomeAddress) -> [MobileAddress] {
        let moas = ownMoAs(ipv4: hoa.isIPv4)
        if moas.contains(where: { $0.address == hoa.address }) { return [MobileAddress(hoa.address)] }
        return Array(moas.prefix(MappingRecord.locatorsMax))
    }

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
        installedOwn.contains { covers($0.key, homes[$0.value]?.prefix.length ?? 128, address) }
    }

    private func covers(_ moa: MobileAddress, _ length: UInt8, _ address: IPAddress) -> Bool {
        IPPrefix(covering: moa.address, length: length).contains(address)
    }

    /// The prefix length of the own HoA of a family, and so that of the locators.
    private func homeLength(isIPv4: Bool) -> UInt8 { homes.values.first { $0.hoa.isIPv4 == isIPv4 }?.prefix.length ?? 128 }
}

/// Counts that never go down, for `mat status`.
public struct NodeCounters: Hashable, Sendable {
    public var handovers: UInt64 = 0
    /// Handovers among these, away from an own address over which nothing answered.
    public var uplinkFailures: UInt64 = 0
    /// Peers' traffic that took another pair of addresses because the usual one was silent.
    public var detours: UInt64 = 0
    public var probesSent: UInt64 = 0
    public var registrations: UInt64 = 0
    public var messagesSent: UInt64 = 0
    public var messagesReceived: UInt64 = 0
    public var retransmissions: UInt64 = 0
    public var malformedDropped: UInt64 = 0
    public var unmatchedDropped: UInt64 = 0
    public var draftsDropped: UInt64 = 0
    public var recordsRefused: UInt64 = 0
    public var strangersIdentified: UInt64 = 0
    public var strangersPlain: UInt64 = 0
    public var destinationsResolved: UInt64 = 0
    public var destinationsPlain: UInt64 = 0

    public init() {}
}
