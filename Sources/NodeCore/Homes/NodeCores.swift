import IMTPlan
import MATControl
import MATCore
import MATSignal

/// A node with any number of HoAs: a `NodeCore` for each set of one HoA a family, and the decision which of them an event concerns.
///
/// Each core has own addresses of its own (`LocatorAssignment`) and so its own registrations, peers and paths: the same peer may
/// be reached from two HoAs by two ways, and one HoA's link may die without the other's. What arrives tells by its own address
/// whom it is for; what is sent, by its HoA. With one HoA of each family there is one core, and nothing here decides anything.
public struct NodeCores {
    /// An action, and which core wants it: answers go back there.
    public struct Step: Hashable, Sendable {
        public var core: Int
        public var action: NodeAction
    }

    public private(set) var cores: [NodeCore] = []
    private var coreOfHome: [HomeAddress: Int] = [:]
    /// Mobile networks' home prefixes.
    private let networks: [IPPrefix]
    private var assignment: LocatorAssignment
    /// HoAs that other HoAs of their family left without an address.
    private var unserved: Set<HomeAddress> = []
    /// Cores of visited homes, by what they are made of: they have own addresses in common with the others. One without a home waits for the next.
    private(set) var visited: Set<Int> = []
    private var configuration: NodeCoreConfiguration
    private let random: () -> any RandomNumberGenerator
    private var links: (locators: [OwnLocator], infrastructure: Set<IPAddress>) = ([], [])
    private var isResolvingLocally = false

    /// - Parameter random: makes a generator for each core.
    /// - Returns: `nil` if a secret has not 16 octets.
    public init?(_ configuration: NodeCoreConfiguration, random: @escaping () -> any RandomNumberGenerator) {
        self.configuration = configuration
        self.random = random
        var groups: [[HomeIdentity]] = []
        for home in configuration.homes {
            if let group = groups.firstIndex(where: { !$0.contains { $0.hoa.family == home.hoa.family } }) {
                groups[group].append(home)
            } else {
                groups.append([home])
            }
        }
        if groups.isEmpty { groups = [[]] }
        networks = configuration.homes.map(\.certificate.prefix).filter { $0.length < 128 }
        assignment = LocatorAssignment(
            configuration.homes.map { LocatorAssignment.Claimant(hoa: $0.hoa, use: $0.use, isNetwork: $0.certificate.prefix.length < 128) })
        for (index, group) in groups.enumerated() {
            // Bounds are the node's.
            var part = configuration.part(of: groups.count + (configuration.visits ? 1 : 0))
            part.homes = group
            guard let core = NodeCore(part, random: random()) else { return nil }
            cores.append(core)
            for home in group { coreOfHome[home.hoa] = index }
        }
    }

    // MARK: Whom it concerns

    /// The core of an own HoA; what belongs to none is the first one's.
    private func index(home: IPAddress) -> Int {
        coreOfHome[HomeAddress(home)] ?? networks.first { $0.contains(home) }.flatMap { coreOfHome[HomeAddress($0.address)] } ?? 0
    }

    private func index(locator: IPAddress) -> Int { holder(of: locator).flatMap { coreOfHome[$0] } ?? 0 }

    /// The own HoA that an own address serves, also one behind a MoPre.
    private func holder(of locator: IPAddress) -> HomeAddress? {
        if let holder = assignment.holders[MobileAddress(locator)] { return holder }
        for network in networks where network.family == locator.family {
            let base = MobileAddress(locator.masked(to: network.length))
            if assignment.holders[base] == HomeAddress(network.address) { return HomeAddress(network.address) }
        }
        return nil
    }

    private mutating func decide(_ index: Int, _ event: (inout NodeCore) -> [NodeAction]) -> [Step] {
        guard cores.indices.contains(index) else { return [] }
        return event(&cores[index]).map { Step(core: index, action: $0) }
    }

    mutating func decideAll(_ event: (inout NodeCore, Int) -> [NodeAction]) -> [Step] {
        cores.indices.flatMap { index in event(&cores[index], index).map { Step(core: index, action: $0) } }
    }

    /// Homes that are visited from now on have it too.
    mutating func take(_ fresh: NodeReconfiguration) { configuration.take(fresh) }

    // MARK: Visited homes

    /// A visited home is ours: a core of its own speaks for it. All of them have one part of the bounds together.
    package mutating func enter(_ identity: HomeIdentity, now: Now) -> [Step] {
        guard coreOfHome[identity.hoa] == nil, let core = visitedCore([identity]) else { return [] }
        let index = visited.sorted().first { cores[$0].homes.isEmpty } ?? cores.count
        if index == cores.count { cores.append(core) } else { cores[index] = core }
        visited.insert(index)
        coreOfHome[identity.hoa] = index
        let isLocal = isResolvingLocally
        // The others hear that the address is one of ours.
        return linksChanged(links.locators, infrastructure: links.infrastructure, now: now)
            + decide(index) { $0.namesChanged(isLocal: isLocal, now: now) }
    }

    private func visitedCore(_ homes: [HomeIdentity]) -> NodeCore? {
        var part = configuration.part(of: (cores.count - visited.count + 1) * Visits.visitsMax)
        part.homes = homes
        part.sharesAddresses = true
        return NodeCore(part, random: random())
    }

    /// - Returns: what follows, and the highest sequence that was signed for it.
    package mutating func leave(_ hoa: HomeAddress, now: Now) -> (steps: [Step], sequence: UInt64) {
        guard let index = coreOfHome[hoa], visited.contains(index), let empty = visitedCore([]) else { return ([], 0) }
        let sequence = cores[index].sequence(of: hoa)
        let steps = decide(index) { $0.leave(now: now) }
        cores[index] = empty
        coreOfHome[hoa] = nil
        return (steps + linksChanged(links.locators, infrastructure: links.infrastructure, now: now), sequence)
    }

    package mutating func prolong(_ certificate: Certificate, now: Now) -> [Step] {
        decide(index(home: certificate.hoa.address)) { $0.prolong(certificate, now: now) }
    }

    /// A core has changed the port that an own address's datagrams leave from: visited homes are seen elsewhere by that.
    mutating func portChanged(of own: IPAddress, now: Now) -> [Step] {
        visited.sorted().flatMap { index in decide(index) { $0.portChanged(of: own, now: now) } }
    }

    func isVisited(_ hoa: HomeAddress) -> Bool { coreOfHome[hoa].map(visited.contains) ?? false }

    /// Whether connections that begin to a destination wait until that has heard where we are.
    func holdsConnections(to destination: HeldDestination) -> Bool {
        cores.indices.contains(destination.core) && cores[destination.core].holdsConnections(to: HomeAddress(destination.address))
    }

    /// Whether its IMS holds a record of the own HoA.
    func isKnown(_ hoa: HomeAddress) -> Bool { coreOfHome[hoa].flatMap { cores[$0].homes[hoa]?.isRegistered } ?? false }

    /// The node's homes that are no visited ones.
    private var ownCores: [NodeCore] { visited.isEmpty ? cores : cores.indices.filter { !visited.contains($0) }.map { cores[$0] } }

    func surroundings(_ family: AddressFamily, isTranslatable: (IPAddress) -> Bool) -> Visit.Surroundings {
        let places = ownCores.flatMap { core in
            core.ownLocators.map(\.moa.address).filter { isTranslatable($0) && core.isUsable($0) }.map { Visit.Place(own: $0, seen: core.seen($0)) }
        }
        let cores = cores
        return Visit.Surroundings(
            places: places, home: ownCores.lazy.compactMap { $0.identity(of: family) }.first,
            isTaken: { address in cores.contains { $0.knows(address) } })
    }

    /// Which cores a datagram is for that came to an own address which visited homes have too: requests name the HoA that they are for, and who
    /// has asked nothing takes no answer.
    private func shares(of datagram: [UInt8], at index: Int) -> [(core: Int, octets: [UInt8])] {
        var shares: [(core: Int, octets: [UInt8])] = []
        var start = 0
        for part in SignalDatagram.decode(datagram) {
            // What is not understood is one core's to refuse.
            guard case .message(let message, let count) = part else {
                shares.append((index, Array(datagram[min(start, datagram.count)...])))
                break
            }
            let octets = Array(datagram[min(start, datagram.count)..<min(start + count, datagram.count)])
            start += count
            for core in receivers(of: message, at: index) { shares.append((core, octets)) }
        }
        return shares
    }

    private func receivers(of message: SignalMessage, at index: Int) -> [Int] {
        let sharing = [index] + visited.sorted().filter { !cores[$0].homes.isEmpty }
        switch message.body {
        case .maQuery(let query): return [named(query.hoa) ?? index]
        case .pathProbe(let probe): return [named(probe.hoa) ?? index]
        case .maNotify(let notify):
            // Of whoever talks to it, or has it from its own IMS.
            let record = notify.record.mapping.record
            let knowing = sharing.filter { cores[$0].concerns(record) }
            return knowing.isEmpty ? [index] : knowing
        default: return message.type.isRequest ? [index] : sharing
        }
    }

    private func named(_ hoa: HomeAddress) -> Int? { coreOfHome[hoa] }

    // MARK: Events, as `NodeCore` has them

    public mutating func linksChanged(_ locators: [OwnLocator], infrastructure: Set<IPAddress>, now: Now) -> [Step] {
        links = (locators, infrastructure)
        assignment.assign(locators)
        let news = noteUnserved(among: locators)
        let holders = assignment.holders
        let (coreOfHome, visited) = (coreOfHome, visited)
        func owner(_ moa: MobileAddress) -> Int { holders[moa].flatMap { coreOfHome[$0] } ?? -1 }
        return news
            + decideAll { core, index in
                // What another of our HoAs has is no peer's.
                let otherHomes = coreOfHome.filter { $0.value != index }.map(\.key.address)
                if visited.contains(index) {
                    return core.linksChanged(core.homes.isEmpty ? [] : locators, infrastructure: infrastructure, otherOwn: Set(otherHomes), now: now)
                }
                let others = locators.filter { owner($0.moa) != index }.map(\.moa.address) + otherHomes
                let own = locators.filter { owner($0.moa) == index }
                return core.linksChanged(own, infrastructure: infrastructure, otherOwn: Set(others), now: now)
            }
    }

    private mutating func noteUnserved(among locators: [OwnLocator]) -> [Step] {
        let served = Set(assignment.holders.values)
        let families = Set(locators.map(\.moa.family))
        let now = Set(assignment.claimants.map(\.hoa).filter { !served.contains($0) && families.contains($0.family) })
        defer { unserved = now }
        return now.subtracting(unserved).sorted().map { Step(core: index(home: $0.address), action: .log(.warning, Self.problem(of: $0).text)) }
    }

    private static func problem(of hoa: HomeAddress) -> Problem {
        Problem(
            .noMobileAddressLeft, of: hoa,
            "no mobile address is left for \(hoa): the other home addresses of its family have them all, or its `use` fits none")
    }

    public mutating func clockIsSynchronized(now: Now) {
        for index in cores.indices { cores[index].clockIsSynchronized(now: now) }
    }

    public mutating func prefer(interface: String?, now: Now) -> [Step] {
        decideAll { core, _ in core.prefer(interface: interface, now: now) }
    }

    public mutating func prefer(interface: String?, for peer: HomeAddress, now: Now) -> [Step] {
        decideAll { core, _ in core.prefer(interface: interface, for: peer, now: now) }
    }

    /// - Parameter own: the source that the held packet has.
    /// Packets that were held had waited for too long, or were too many.
    public mutating func packetsLost(_ count: Int, to destination: IPAddress, core: Int) {
        guard cores.indices.contains(core), let own = cores[core].home(for: HomeAddress(destination)) else { return }
        cores[core].packetsLost(count, of: own)
    }

    public mutating func heldOutbound(from own: IPAddress, to destination: IPAddress, isName: Bool = false, now: Now) -> [Step] {
        decide(index(home: own)) { $0.heldOutbound(to: destination, isName: isName, now: now) }
    }

    public mutating func namesChanged(isLocal: Bool, now: Now) -> [Step] {
        isResolvingLocally = isLocal
        return decideAll { core, _ in core.namesChanged(isLocal: isLocal, now: now) }
    }

    public mutating func heldInbound(
        from source: IPAddress, to own: IPAddress, opensConnection: Bool, isSegment: Bool = false, now: Now
    ) -> [Step] {
        decide(index(locator: own)) { $0.heldInbound(from: source, to: own, opensConnection: opensConnection, isSegment: isSegment, now: now) }
    }

    /// - Parameters: source and destination of the packet within, where its datagram came from, and the own address that it came to.
    mutating func heldEncapsulated(from source: IPAddress, to home: IPAddress, by endpoint: Endpoint, at own: IPAddress, octets: Int, now: Now)
        -> [Step]
    {
        decide(index(home: home)) { $0.heldEncapsulated(from: HomeAddress(source), by: endpoint, at: own, octets: octets, now: now) }
    }

    public mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, core: Int, now: Now) -> [Step] {
        decide(core) { $0.lookedUp(hoa, result, now: now) }
    }

    public mutating func keysLookedUp(_ prefix: IPPrefix, _ result: ServerLookup, core: Int, now: Now) -> [Step] {
        decide(core) { $0.keysLookedUp(prefix, result, now: now) }
    }

    public mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [Step] {
        let index = index(locator: local)
        guard !visited.isEmpty else { return decide(index) { $0.received(datagram, from: source, to: local, now: now) } }
        return shares(of: datagram, at: index).flatMap { share in
            decide(share.core) { $0.received(share.octets, from: source, to: local, now: now) }
        }
    }

    public mutating func arrivedFromGateway(_ pair: HomePair, by gateway: Endpoint, now: Now) -> [Step] {
        decide(index(home: pair.own.address)) { $0.arrivedFromGateway(pair, by: gateway, now: now) }
    }

    public mutating func arrivedInPath(_ message: InPathMessage, now: Now) -> [Step] {
        decide(index(home: message.pair.own.address)) { $0.arrivedInPath(message, now: now) }
    }

    public mutating func datagramFailed(_ error: DatagramError, now: Now) -> [Step] {
        // Of what carried no packet it is not known whose it was.
        guard let pair = error.pair else { return [] }
        return decide(index(home: pair.own.address)) { $0.datagramFailed(error, now: now) }
    }

    /// Packets counted so far with each pair of HoAs.
    public mutating func traffic(_ packets: some Sequence<(key: HomePair, value: PeerPackets)>, now: Now) -> [Step] {
        // Without a copy where there may be a hundred thousand.
        guard cores.count > 1 else { return decide(0) { $0.traffic(packets.lazy.map { (key: $0.key.peer, value: $0.value) }, now: now) } }
        var parts = [[HomeAddress: PeerPackets]](repeating: [:], count: cores.count)
        for (pair, count) in packets { parts[index(home: pair.own.address)][pair.peer, default: PeerPackets()].add(count) }
        return decideAll { core, index in core.traffic(parts[index].lazy.map { (key: $0.key, value: $0.value) }, now: now) }
    }

    /// Whether `pathsUsed` is to be told soon.
    var wantsPathUses: Bool { cores.contains { $0.wantsPathUses } }

    /// Whether `rewritten` is to be told very soon.
    var awaitsPlaces: Bool { cores.contains { $0.paths.newPlaces.isWatching } }

    /// Whose paths it is to be told of.
    var pathsWatched: [HomePair] { cores.flatMap(\.pathsWatched) }

    /// What paths in datagrams have carried so far.
    mutating func pathsUsed(_ uses: [PathUse], now: Now) -> [Step] {
        let parts = parts(uses, \.pair)
        return decideAll { core, index in core.pathsUsed(parts[index], now: now) }
    }

    /// Peers whose rewritten packets are to be counted by themselves, and what was counted.
    var rewrittenWatched: [RewrittenPath] { cores.flatMap(\.rewrittenWatched) }

    mutating func rewritten(_ uses: [RewrittenUse], now: Now) -> [Step] {
        let parts = parts(uses, \.pair)
        return decideAll { core, index in core.rewritten(parts[index], now: now) }
    }

    /// Of each core, what concerns its homes.
    private func parts<Use>(_ uses: [Use], _ pair: (Use) -> HomePair) -> [[Use]] {
        guard cores.count > 1 else { return [uses] }
        var parts = [[Use]](repeating: [], count: cores.count)
        for use in uses { parts[index(home: pair(use).own.address)].append(use) }
        return parts
    }

    public var nextDeadline: MonotonicTime? {
        mutating get {
            var next: MonotonicTime?
            for index in cores.indices { next = next.earlier(cores[index].nextDeadline) }
            return next
        }
    }

    public mutating func timerFired(now: Now) -> [Step] { decideAll { core, _ in core.timerFired(now: now) } }

    public mutating func leaves(now: Now) -> [Step] { decideAll { core, _ in core.leaves(now: now) } }

    public mutating func adopted(
        outbound: [HomePair: MobilePair], inbound: [Arrival: HomeAddress], own: [MobileAddress: HomeAddress],
        forwarded: [HomePair: Carriage] = [:], now: Now
    ) -> [Step] {
        let coreOfHome = coreOfHome
        func part(_ home: HomeAddress) -> Int { coreOfHome[home] ?? 0 }
        return decideAll { core, index in
            core.adopted(
                outbound: outbound.filter { part($0.key.own) == index }, inbound: inbound.filter { part($0.key.own) == index },
                own: own.filter { part($0.value) == index }, forwarded: forwarded.filter { part($0.key.own) == index }, now: now)
        }
    }

    // MARK: What is to be seen

    /// The number of the core that an own HoA belongs to.
    public func core(of home: IPAddress) -> Int { index(home: home) }

    /// The own HoA of a core's that talks to destinations of this one's family.
    public func home(of core: Int, like address: IPAddress) -> HomeAddress? {
        coreOfHome.first { $0.value == core && $0.key.family == address.family }?.key
    }

    public var ownLocators: [OwnLocator] { ownCores.flatMap(\.ownLocators) }

    public var peersCount: Int { cores.reduce(0) { $0 + $1.peersCount } }

    /// Why packets to a peer go as they go; of the core that talks to it.
    public func explain(_ peer: HomeAddress, now: Now) -> PathExplanation? {
        let all = cores.compactMap { $0.explain(peer, now: now) }
        return all.first { !$0.candidates.isEmpty } ?? all.first
    }

    /// Likewise, of an own HoA's.
    public func explain(_ peer: HomeAddress, from own: HomeAddress, now: Now) -> PathExplanation? {
        let index = index(home: own.address)
        return cores.indices.contains(index) ? cores[index].explain(peer, now: now) : nil
    }

    /// Whether packets between two addresses go by a mapping; of the core whose HoA or peer is concerned.
    package func explainTraffic(from own: IPAddress?, to remote: IPAddress, _ kernel: IMTConfiguration, now: Now) -> TrafficExplanation {
        let index = own.flatMap { coreOfHome[HomeAddress($0)] } ?? cores.firstIndex { $0.peers[HomeAddress(remote)] != nil } ?? 0
        return cores[index].explainTraffic(from: own, to: remote, kernel, now)
    }

    public var isRegistered: Bool { ownCores.allSatisfy(\.isRegistered) }

    /// The latest handovers of all home addresses, in order of time.
    public var handovers: [HandoverHistory.Handover] {
        cores.flatMap(\.history.handovers).sorted { ($0.began.monotonic, $0.hoa) < ($1.began.monotonic, $1.hoa) }
    }

    public func status(now: Now) -> NodeStatus {
        let all = cores.map { $0.status(now: now) }
        guard var status = all.first else { preconditionFailure("there is always a core") }
        for (index, other) in all.enumerated().dropFirst() {
            status.registrations += other.registrations
            // Those of visited homes are the others'.
            if !visited.contains(index) {
                status.locators += other.locators
                status.uplinks += other.uplinks
            }
            status.relays += other.relays
            if status.peersTroubled != nil || other.peersTroubled != nil {
                status.peersTroubled = (status.peersTroubled ?? status.troubledToldOf) + (other.peersTroubled ?? other.troubledToldOf)
            }
            status.peers += other.peers
            status.peersCount += other.peersCount
            status.peersOneSided += other.peersOneSided
            status.peersUnreachable += other.peersUnreachable
            status.pathsWatched += other.pathsWatched
            status.resolving += other.resolving
            status.undecided = Array((status.undecided + other.undecided).prefix(NodeStatus.undecidedMax))
            status.undecidedCount += other.undecidedCount
            status.strangers += other.strangers
            status.counters = status.counters + other.counters
        }
        guard all.count > 1 else { return status }
        status.registrations.sort { $0.hoa < $1.hoa }
        status.peers.sort { ($0.hoa, $0.ownHoA) < ($1.hoa, $1.ownHoA) }
        for index in status.registrations.indices where unserved.contains(status.registrations[index].hoa) {
            status.registrations[index].problem = Self.problem(of: status.registrations[index].hoa)
        }
        return status
    }
}
