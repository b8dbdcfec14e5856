import IMTPlan
import MATNode
import MATSignal
import NodeCore

/// A node: the real cores in the real shell, over a model of the machine around them. Applications' packets go through the model IMT as
/// they would through the kernel's.
///
/// ```
///   app ──► plain? ──► out map ──► wire                     wire ──► in map ──► app
///                        └─ no entry, no way ──► agent                 └─ no entry ──► plain? ──► app, untranslated
///                                                                               └─ agent
/// ```
public final class SimulatedNode: SimulatedHost {
    public let network: SimulatedNetwork
    public let dns: SimulatedDNS
    public let hoa: HomeAddress
    public private(set) var imt = ModelIMT()
    public private(set) var locators: [OwnLocator] = []
    /// Packets that applications got between HoAs, with the peer they came from.
    public private(set) var delivered: [Delivery] = []
    /// Packets that came in without translation.
    public private(set) var deliveredPlain: [UserPacket] = []
    /// Encapsulated packets from endpoints that are no known peer's: they went to the agent.
    public private(set) var encapsulatedHeld = 0
    public private(set) var logs: [String] = []
    public private(set) var keptSequence: UInt64 = 0
    package private(set) var visitedHomes: Set<HomeAddress> = []
    package private(set) var visitAnswers: [VisitingProgram: VisitAnswer] = [:]
    public private(set) var keptCertificate: Certificate?
    /// Routers of the networks that it is in.
    public var infrastructure: Set<IPAddress> = []
    /// By which prefix the networks that it is in reach IPv4.
    package var nat64: NAT64Prefix?
    /// How many bits of its addresses tell its link; `nil`: there is nobody else on it.
    public var linkBits: UInt8?
    /// How far the machine's wall clock is ahead of the right time; negative: behind.
    public var clockLead: Duration = .zero

    private let configuration: NodeCoreConfiguration
    private var shell: NodeShell?
    private var timers: [NodeTimer: MonotonicTime] = [:]
    /// Own addresses whose datagrams leave from another port than 6289.
    private var ports: [IPAddress: UInt16] = [:]
    /// Which start of the agent this is: what an earlier one waited for does not concern a later one.
    private var run = 0
    private var isUp = true
    /// What reached a stopped agent's sockets, in order; they hold so much, and what comes later is lost.
    private var backlog: [(NodeShell) -> Void] = []
    private var isFrozen = false
    static let backlogMax = 256
    private var counts: [HomeAddress: PeerPackets] = [:]
    private var uses: [HomeAddress: PathUse] = [:]
    private var rewrittenOut: [HomeAddress: UInt64] = [:]
    private var rewrittenIn: [MobileAddress: UInt64] = [:]
    private var isUseAwaited = false
    /// How often the shell has asked for the counts.
    package private(set) var countsRead = 0

    public struct Delivery: Hashable, Sendable {
        public var packet: UserPacket
        public var from: HomeAddress
        public var at: MonotonicTime
    }

    public init(_ network: SimulatedNetwork, _ dns: SimulatedDNS, _ identity: TestIdentity, adjust: (inout NodeCoreConfiguration) -> Void = { _ in })
    {
        self.network = network
        self.dns = dns
        hoa = identity.hoa
        var configuration = NodeCoreConfiguration(
            homes: [HomeIdentity(hoa: identity.hoa, key: identity.key, certificate: identity.certificate)],
            clientSecret: network.random.octets(16), cookieSecret: network.random.octets(16))
        adjust(&configuration)
        self.configuration = configuration
        begin(configuration)
    }

    /// A new agent, which finds what the kernel has.
    private func begin(_ configuration: NodeCoreConfiguration) {
        let network = network
        guard let cores = NodeCores(configuration, random: { SeededGenerator(seed: network.random.next()) }) else {
            preconditionFailure("secrets have 16 octets")
        }
        let rules = AddressRules(homes: configuration.homes.map { AddressRules.Home(hoa: $0.hoa, prefix: $0.certificate.prefix) })
        let shell = NodeShell(Node(cores, rules, names: NameServers()), over: self)
        let hoa = hoa
        shell.onAction = { network.onAction?("\(network.time.nanoseconds) \(hoa) \($0)") }
        self.shell = shell
        let hasEntries = !imt.outbound.isEmpty || !imt.arrivals.isEmpty || !imt.own.isEmpty
        shell.start(AdoptedState(adopted: hasEntries, outbound: imt.outbound, inbound: imt.arrivals, own: imt.own), links)
    }

    /// The agent's core.
    public var core: NodeCore {
        guard let core = shell?.node.cores.cores.first else { preconditionFailure("there is always a core") }
        return core
    }

    // MARK: What happens to it

    /// The node's addresses, in the system's order; others are gone. Those of a family are each on a link of their own, the first of both on one.
    ///
    /// - Parameter areApart: all are each on a link of their own.
    public func move(to addresses: [IPAddress], areApart: Bool = false) {
        for old in locators where !addresses.contains(old.moa.address) { network.detach(old.moa.address) }
        var counts = FamilyPair(both: 0)
        locators = addresses.map { address in
            defer { counts[address.family] += 1 }
            let name = areApart ? "if\(counts[address.family])-\(address.family)" : "if\(counts[address.family])"
            return OwnLocator(MobileAddress(address), interface: name)
        }
        for address in addresses { network.attach(self, at: address) }
        let links = links
        tell { shell in shell.run { node, now in node.linksChanged(links, now: now) } }
    }

    private var links: LinkSnapshot {
        let names = Set(locators.map(\.interface)).sorted()
        let addresses = locators.map { locator in
            LocalAddress(
                address: locator.moa.address, interface: locator.interface,
                interfaceIndex: UInt32((names.firstIndex(of: locator.interface) ?? 0) + 1),
                prefixLength: linkBits ?? locator.moa.family.addressBits,
                hasDefaultRoute: true)
        }
        return LinkSnapshot(addresses: addresses, gateways: infrastructure.sorted())
    }

    /// An application sends a packet to a HoA, or to a plain host's address.
    public func send(_ packet: UserPacket, to destination: IPAddress) {
        guard !leaves(packet, to: destination) else { return }
        let held = packet.held(from: hoa.address, to: destination)
        tell { shell in shell.run { node, now in node.heldOutbound(held, now: now) } }
    }

    /// The agent dies, and the kernel goes on with what it has.
    public func crash() {
        isUp = false
        run += 1
        timers = [:]
    }

    /// A new agent takes over what the kernel has.
    public func restart() {
        var configuration = configuration
        configuration.homes = configuration.homes.map {
            HomeIdentity(
                hoa: $0.hoa, key: $0.key, certificate: keptCertificate ?? $0.certificate,
                lastSequence: keptSequence == 0 ? $0.lastSequence : keptSequence)
        }
        // A daemon makes new secrets at each start.
        configuration.clientSecret = network.random.octets(16)
        configuration.cookieSecret = network.random.octets(16)
        isUp = true
        ports = [:]
        begin(configuration)
    }

    /// The agent stands still (SIGSTOP); the kernel goes on, and what is for the agent waits in its sockets.
    public func freeze() { isFrozen = true }

    /// It goes on, with all that waits and all that is overdue.
    public func thaw() {
        isFrozen = false
        let waiting = backlog
        backlog = []
        for event in waiting { tell(event) }
        for timer in NodeTimer.allCases { fire(timer) }
    }

    public func handOver(to interface: String?) {
        tell { shell in shell.run { node, now in node.prefer(interface: interface, now: now) } }
    }

    public func receive(_ packet: SimulatedPacket) {
        switch packet.content {
        case .signal(let octets, let sourcePort, let destinationPort):
            guard isOpen(destinationPort) else { return }
            let source = Endpoint(packet.source, port: sourcePort)
            tell { shell in shell.run { node, now in node.received(octets, from: source, to: packet.destination, now: now) } }
        case .user(let user):
            arrive(user, from: packet.source, to: packet.destination, isReleased: false)
        case .encapsulated(let inner, let sourcePort, let destinationPort):
            guard isOpen(destinationPort), inner.destination == hoa.address else { return }
            arrive(inner, from: Endpoint(packet.source, port: sourcePort), to: Endpoint(packet.destination, port: destinationPort))
        }
    }

    private func isOpen(_ port: UInt16) -> Bool { port == SignalPort.node || ports.values.contains(port) }

    private func tell(_ event: @escaping (NodeShell) -> Void) {
        guard isUp, let shell else { return }
        guard !isFrozen else {
            if backlog.count < Self.backlogMax { backlog.append(event) }
            return
        }
        event(shell)
    }

    // MARK: The kernel

    private func pair(_ destination: IPAddress) -> HomePair { HomePair(own: hoa, peer: HomeAddress(destination)) }

    /// Sends a packet on by the entry or as plain, if there is a way.
    private func leaves(_ packet: UserPacket, to destination: IPAddress) -> Bool {
        if let mobile = imt.outbound[pair(destination)] {
            // While its own MoA is gone the kernel has no route.
            guard locators.contains(where: { $0.moa == mobile.own }) else { return false }
            counts[HomeAddress(destination), default: PeerPackets()].sent += 1
            rewrittenOut[HomeAddress(destination), default: 0] += 1
            tellUse()
            transmit(packet, from: mobile.own.address, to: mobile.peer.address)
        } else if let (own, peer) = imt.encapsulated[pair(destination)]?.endpoints {
            guard locators.contains(where: { $0.moa.address == own.address }) else { return false }
            counts[HomeAddress(destination), default: PeerPackets()].sent += 1
            count(HomeAddress(destination), by: peer) { $0.sent += 1 }
            tellUse()
            let inner = SimulatedPacket.InnerPacket(from: hoa.address, to: destination, packet)
            network.send(
                SimulatedPacket(from: own.address, to: peer.address, .encapsulated(inner, sourcePort: own.port, destinationPort: peer.port)),
                by: self)
        } else if imt.isPlain(destination, now: network.time) {
            if let own = locators.first?.moa.address { transmit(packet, from: own, to: destination) }
        } else {
            return false
        }
        return true
    }

    private func tellUse() {
        if isUseAwaited { tell { $0.used() } }
    }

    /// What the peer's present way has carried.
    private func count(_ peer: HomeAddress, by far: Endpoint, _ change: (inout PathUse) -> Void) {
        var use = uses[peer] ?? PathUse(pair(peer.address), far: far, sent: 0, heard: 0, came: 0)
        if use.far != far { (use.far, use.sent, use.heard) = (far, 0, 0) }
        change(&use)
        uses[peer] = use
    }

    private func transmit(_ packet: UserPacket, from own: IPAddress, to peer: IPAddress) {
        network.send(SimulatedPacket(from: own, to: peer, .user(packet)), by: self)
    }

    /// An encapsulated packet is the peer's if it comes from an endpoint of the peer's.
    private func arrive(_ inner: SimulatedPacket.InnerPacket, from endpoint: Endpoint, to own: Endpoint) {
        guard imt.accepted[pair(inner.source)]?.contains(endpoint) ?? false else {
            encapsulatedHeld += 1
            let held = inner.packet.held(from: inner.source, to: inner.destination)
            tell { shell in shell.run { node, now in node.heldEncapsulated(held, from: endpoint, to: own.address, now: now) } }
            return
        }
        if let octets = inner.message {
            let message = InPathMessage(octets, between: pair(inner.source), from: own, to: endpoint)
            return tell { shell in shell.run { node, now in node.arrivedInPath(message, now: now) } }
        }
        counts[HomeAddress(inner.source), default: PeerPackets()].came += 1
        let far = imt.encapsulated[pair(inner.source)].flatMap(\.endpoints)?.far ?? endpoint
        count(HomeAddress(inner.source), by: far) { use in
            use.came += 1
            if far == endpoint { use.heard += 1 }
        }
        delivered.append(Delivery(packet: inner.packet, from: HomeAddress(inner.source), at: network.time))
    }

    private func arrive(_ packet: UserPacket, from source: IPAddress, to own: IPAddress, isReleased: Bool) {
        if let home = imt.home(of: MobilePair(own: MobileAddress(own), peer: MobileAddress(source))) {
            counts[home.peer, default: PeerPackets()].came += 1
            rewrittenIn[MobileAddress(source), default: 0] += 1
            delivered.append(Delivery(packet: packet, from: home.peer, at: network.time))
        } else if isReleased || imt.isPlain(source, now: network.time) || packet.kind == .opening && imt.letsOpen(source, now: network.time) {
            deliveredPlain.append(packet)
        } else {
            let held = packet.held(from: source, to: own)
            tell { shell in shell.run { node, now in node.heldInbound(held, now: now) } }
        }
    }
}

// MARK: - The machine

extension SimulatedNode: NodeEnvironment {
    package var now: Now {
        var now = network.now
        now.wallMilliseconds = UInt64(max(0, Int64(now.wallMilliseconds) + clockLead.millisecondsSaturated))
        return now
    }

    package var isClockSynchronized: Bool { false }

    package func set(_ timer: NodeTimer, at time: MonotonicTime?) {
        timers[timer] = time
        guard let time else { return }
        let run = run
        network.at(time) { [weak self] in
            // One that was set anew meanwhile fires at its own time; a stopped agent's overdue ones are `thaw`'s.
            guard let self, self.run == run, timers[timer] == time, !isFrozen else { return }
            fire(timer)
        }
    }

    private func fire(_ timer: NodeTimer) {
        guard let time = timers[timer], time <= network.time else { return }
        timers[timer] = nil
        shell?.timerFired(timer)
    }

    package func send(_ datagram: [UInt8], from own: IPAddress, to target: Endpoint, ifRoom: Bool) {
        network.send(
            SimulatedPacket(
                from: own, to: target.address, .signal(datagram, sourcePort: ports[own] ?? SignalPort.node, destinationPort: target.port)), by: self)
    }

    package func use(port: UInt16, for own: IPAddress) -> Bool {
        ports[own] = port == SignalPort.node ? nil : port
        return true
    }

    package func sendInPath(_ message: InPathMessage) {
        let inner = SimulatedPacket.InnerPacket(from: message.pair.own.address, to: message.pair.peer.address, message: message.octets)
        network.send(
            SimulatedPacket(
                from: message.own.address, to: message.far.address,
                .encapsulated(inner, sourcePort: message.own.port, destinationPort: message.far.port)),
            by: self)
    }

    package func lookUp(_ hoa: HomeAddress, _ completion: @escaping (ServerLookup) -> Void) { lookUp(IPPrefix(hoa.address), completion) }

    package func lookUpKeys(_ prefix: IPPrefix, _ completion: @escaping (ServerLookup) -> Void) { lookUp(prefix, completion) }

    private func lookUp(_ name: IPPrefix, _ completion: @escaping (ServerLookup) -> Void) {
        let run = run
        dns.lookUp(of: name) { [weak self] result in
            guard let self, self.run == run else { return }
            tell { _ in completion(result) }
        }
    }

    package func findTranslator(_ completion: @escaping (NAT64Answer) -> Void) {
        let (found, run) = (nat64, run)
        network.after(.milliseconds(20)) { [weak self] in
            guard let self, self.run == run else { return }
            tell { _ in completion(found.map { .prefix($0) } ?? .none) }
        }
    }

    /// The simulated DNS is everywhere.
    package func readNames() -> (servers: NameServers, areOthers: Bool) { (NameServers(), false) }

    package func enter(_ home: HomeAddress) { visitedHomes.insert(home) }

    package func leave(_ home: HomeAddress) { visitedHomes.remove(home) }

    package func answer(_ program: VisitingProgram, _ answer: VisitAnswer) { visitAnswers[program] = answer }

    package func commit(_ changes: [IMTChange], linkAddresses: [LocalAddress]?) { imt.apply(changes, now: network.time) }

    package func release(_ offer: HeldOffer, from home: HomeAddress?) -> HeldExit {
        let destination = offer.destination.address
        if let mobile = imt.outbound[pair(destination)] {
            guard locators.contains(where: { $0.moa == mobile.own }) else { return .noWay }
        } else if let way = imt.encapsulated[pair(destination)] {
            guard locators.contains(where: { $0.moa == way.own }) else { return .noWay }
        } else if offer.needsEntry {
            return .noEntry
        }
        return .sent(offer.packets.firstIndex { !leaves(UserPacket($0), to: destination) } ?? offer.packets.count)
    }

    package func pass(_ packets: [HeldPacket], to destination: IPAddress, by interface: String?) {
        guard let own = locators.first(where: { $0.interface == interface ?? $0.interface })?.moa.address else { return }
        for packet in packets { transmit(UserPacket(packet), from: own, to: destination) }
    }

    package func deliver(_ packets: [HeldPacket]) {
        for packet in packets {
            // Those that came in datagrams are between HoAs already.
            if packet.destination == hoa.address, imt.accepted[pair(packet.source)] != nil {
                counts[HomeAddress(packet.source), default: PeerPackets()].came += 1
                let user = UserPacket(packet)
                guard user != .message else { continue }
                delivered.append(Delivery(packet: user, from: HomeAddress(packet.source), at: network.time))
            } else {
                arrive(UserPacket(packet), from: packet.source, to: packet.destination, isReleased: true)
            }
        }
    }

    package func packetCounts() -> [HomePair: PeerPackets] {
        countsRead += 1
        return Dictionary(uniqueKeysWithValues: counts.map { (HomePair(own: hoa, peer: $0.key), $0.value) })
    }

    package func awaitUse(_ isOn: Bool) -> Bool {
        isUseAwaited = isOn
        return isOn
    }

    package func pathUses(of pairs: [HomePair]) -> [PathUse] {
        let pairs = Set(pairs)
        return uses.sorted { $0.key < $1.key }.map(\.value).filter {
            pairs.contains($0.pair) && imt.encapsulated[$0.pair]?.endpoints?.far == $0.far
        }
    }

    package func rewrittenUses(of paths: [RewrittenPath]) -> [RewrittenUse] {
        paths.map { path in
            RewrittenUse(
                path.pair, sent: rewrittenOut[path.pair.peer] ?? 0, came: path.places.reduce(0) { $0 + (rewrittenIn[$1] ?? 0) })
        }
    }

    package func keep(sequence: UInt64, of hoa: HomeAddress) { keptSequence = sequence }

    package func keep(_ certificate: Certificate) { keptCertificate = certificate }

    package func log(_ level: NodeLogLevel, _ text: String) { logs.append("\(network.clock) \(level): \(text)") }
}
