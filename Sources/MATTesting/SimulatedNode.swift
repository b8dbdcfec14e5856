import IMTKernel
import MATSignal
import NodeCore

/// A node: the real core, and a model of the shell and kernel around it. Applications' packets go through the model IMT as
/// they would through the kernel's.
///
/// ```
///   app ──► plain? ──► out map ──► wire                     wire ──► in map ──► app
///                        └─ no entry ──► held, core asked              └─ no entry ──► plain? ──► app, untranslated
///                                                                               └─ held, core asked
/// ```
public final class SimulatedNode: SimulatedHost {
    public let network: SimulatedNetwork
    public let dns: SimulatedDNS
    public let hoa: HomeAddress
    public private(set) var core: NodeCore
    public private(set) var imt = ModelIMT()
    public private(set) var locators: [OwnLocator] = []
    /// Packets that applications got between HoAs, with the peer they came from.
    public private(set) var delivered: [Delivery] = []
    /// Packets that came in without translation.
    public private(set) var deliveredPlain: [UserPacket] = []
    /// Packets that the agent held and then threw away.
    public private(set) var droppedHeld: [UserPacket] = []
    public private(set) var logs: [String] = []
    public private(set) var keptSequence: UInt64 = 0
    public private(set) var keptCertificate: Certificate?
    public var infrastructure: Set<IPAddress> = []
    /// How far the machine's wall clock is ahead of the right time; negative: behind.
    public var clockLead: Duration = .zero

    private let configuration: NodeCoreConfiguration
    private var heldOutbound: [IPAddress: [UserPacket]] = [:]
    private var heldInbound: [Flow: [UserPacket]] = [:]
    private var wakeAt: MonotonicTime?
    /// Which start of the agent this is: what an earlier one waited for does not concern a later one.
    private var run = 0
    private var isUp = true
    /// What reached a stopped agent's sockets, in order; they hold so much, and what comes later is lost.
    private var backlog: [(inout NodeCore, Now) -> [NodeAction]] = []
    private var isFrozen = false
    static let backlogMax = 256
    private var counts: [HomeAddress: UInt64] = [:]
    /// Packets held for one key; more push the oldest out, as in the daemon.
    static let heldMax = 64

    public struct Delivery: Hashable, Sendable {
        public var packet: UserPacket
        public var from: HomeAddress
        public var at: MonotonicTime
    }

    private struct Flow: Hashable {
        let source: IPAddress
        let destination: IPAddress
    }

    public init(_ network: SimulatedNetwork, _ dns: SimulatedDNS, _ identity: TestIdentity, adjust: (inout NodeCoreConfiguration) -> Void = { _ in }) {
        self.network = network
        self.dns = dns
        hoa = identity.hoa
        var configuration = NodeCoreConfiguration(
            homes: [HomeIdentity(hoa: identity.hoa, key: identity.key, certificate: identity.certificate)],
            clientSecret: network.random.octets(16), cookieSecret: network.random.octets(16))
        adjust(&configuration)
        self.configuration = configuration
        core = Self.makeCore(configuration, network)
        countLater()
    }

    private static func makeCore(_ configuration: NodeCoreConfiguration, _ network: SimulatedNetwork) -> NodeCore {
        guard let core = NodeCore(configuration, random: SeededGenerator(seed: network.random.next())) else { preconditionFailure("secrets have 16 octets") }
        return core
    }

    // MARK: What happens to it

    /// The node's addresses, in the system's order; others are gone.
    public func move(to addresses: [IPAddress]) {
        for old in locators where !addresses.contains(old.moa.address) { network.detach(old.moa.address) }
        locators = addresses.enumerated().map { OwnLocator(MobileAddress($1), interface: "if\($0)") }
        for address in addresses { network.attach(self, at: address) }
        guard isUp else { return }
        let infrastructure = infrastructure
        let locators = locators
        decide { core, now in core.linksChanged(locators, infrastructure: infrastructure, now: now) }
    }

    /// An application sends a packet to a HoA, or to a plain host's address.
    public func send(_ packet: UserPacket, to destination: IPAddress) {
        if let mobile = route(to: destination) {
            counts[HomeAddress(destination), default: 0] += 1
            transmit(packet, from: mobile.own.address, to: mobile.peer.address)
        } else if imt.isPlain(destination, now: network.time) {
            if let own = locators.first?.moa.address { transmit(packet, from: own, to: destination) }
        } else {
            heldOutbound[destination, default: []].append(packet)
            if heldOutbound[destination]?.count ?? 0 > Self.heldMax { heldOutbound[destination]?.removeFirst() }
            guard isUp else { return }
            decide { core, now in core.heldOutbound(to: destination, now: now) }
        }
    }

    /// The agent dies, and the kernel goes on with what it has.
    public func crash() {
        isUp = false
        run += 1
        wakeAt = nil
        heldOutbound = [:]
        heldInbound = [:]
    }

    /// A new agent takes over what the kernel has.
    public func restart() {
        var configuration = configuration
        configuration.homes = configuration.homes.map {
            HomeIdentity(hoa: $0.hoa, key: $0.key, certificate: keptCertificate ?? $0.certificate, lastSequence: keptSequence == 0 ? $0.lastSequence : keptSequence)
        }
        // A daemon makes new secrets at each start.
        configuration.clientSecret = network.random.octets(16)
        configuration.cookieSecret = network.random.octets(16)
        core = Self.makeCore(configuration, network)
        isUp = true
        let (outbound, inbound, own) = (imt.outbound, imt.arrivals, imt.own)
        decide { core, now in core.adopted(outbound: outbound, inbound: inbound, own: own, now: now) }
        move(to: locators.map(\.moa.address))
    }

    /// The agent stands still (SIGSTOP); the kernel goes on, and what is for the agent waits in its sockets.
    public func freeze() { isFrozen = true }

    /// It goes on, with all that waits and all that is overdue.
    public func thaw() {
        isFrozen = false
        let waiting = backlog
        backlog = []
        for event in waiting { decide(event) }
        decide { core, now in core.timerFired(now: now) }
    }

    public func handOver(to interface: String?) {
        decide { core, now in core.prefer(interface: interface, now: now) }
    }

    public func receive(_ packet: SimulatedPacket) {
        switch packet.content {
        case .signal(let octets, let sourcePort, let destinationPort):
            guard isUp, destinationPort == SignalPort.node else { return }
            decide { core, now in core.received(octets, from: Endpoint(packet.source, port: sourcePort), to: packet.destination, now: now) }
        case .user(let user):
            take(user, from: packet.source, to: packet.destination, isReleased: false)
        }
    }

    // MARK: The kernel

    /// How a packet to this HoA would leave; `nil` without an entry, or while its own MoA is gone and the kernel has no route.
    private func route(to destination: IPAddress) -> MobilePair? {
        imt.outbound[HomePair(own: hoa, peer: HomeAddress(destination))].flatMap { mobile in locators.contains { $0.moa == mobile.own } ? mobile : nil }
    }

    /// Whether packets to it would come back if they were released.
    private func isWithoutRoute(_ destination: IPAddress) -> Bool {
        imt.outbound[HomePair(own: hoa, peer: HomeAddress(destination))] != nil && route(to: destination) == nil
    }

    private func transmit(_ packet: UserPacket, from own: IPAddress, to peer: IPAddress) {
        network.send(SimulatedPacket(from: own, to: peer, .user(packet)), by: self)
    }

    private func take(_ packet: UserPacket, from source: IPAddress, to own: IPAddress, isReleased: Bool) {
        if let home = imt.home(of: MobilePair(own: MobileAddress(own), peer: MobileAddress(source))) {
            counts[home.peer, default: 0] += 1
            delivered.append(Delivery(packet: packet, from: home.peer, at: network.time))
        } else if isReleased || imt.isPlain(source, now: network.time) || packet.kind == .opening && imt.letsOpen(source, now: network.time) {
            deliveredPlain.append(packet)
        } else {
            let flow = Flow(source: source, destination: own)
            heldInbound[flow, default: []].append(packet)
            if heldInbound[flow]?.count ?? 0 > Self.heldMax { heldInbound[flow]?.removeFirst() }
            guard isUp else { return }
            decide { core, now in
                core.heldInbound(from: source, to: own, opensConnection: packet.kind == .opening, isSegment: packet.kind == .segment, now: now)
            }
        }
    }

    // MARK: The shell

    /// Actions are queued: one that is carried out may cause the next event at once.
    private var pending: [NodeAction] = []
    private var isPerforming = false

    private func decide(_ event: @escaping (inout NodeCore, Now) -> [NodeAction]) {
        guard !isFrozen else {
            if backlog.count < Self.backlogMax { backlog.append(event) }
            return
        }
        pending += event(&core, now)
        guard !isPerforming else { return }
        isPerforming = true
        while !pending.isEmpty { perform(pending.removeFirst()) }
        isPerforming = false
        sleep()
    }

    private var now: Now {
        var now = network.now
        now.wallMilliseconds = UInt64(max(0, Int64(now.wallMilliseconds) + clockLead.millisecondsSaturated))
        return now
    }

    private func sleep() {
        guard let next = core.nextDeadline, next != wakeAt else { return }
        wakeAt = next
        let run = run
        network.at(next) { [weak self] in
            guard let self, self.run == run, wakeAt == next else { return }
            wakeAt = nil
            // A stopped agent's overdue timers are `thaw`'s.
            if !isFrozen { decide { core, now in core.timerFired(now: now) } }
        }
    }

    private func perform(_ action: NodeAction) {
        network.onAction?("\(network.time.nanoseconds) \(hoa) \(action)")
        switch action {
        case .send(let octets, let own, let target), .sendIfRoom(let octets, let own, let target):
            network.send(SimulatedPacket(from: own, to: target.address, .signal(octets, sourcePort: SignalPort.node, destinationPort: target.port)), by: self)
        case .lookUp(let hoa):
            let run = run
            dns.lookUp(hoa) { [weak self] result in
                guard let self, self.run == run else { return }
                decide { core, now in core.lookedUp(hoa, result, now: now) }
            }
        case .lookUpKeys(let prefix):
            let run = run
            dns.lookUp(of: prefix) { [weak self] result in
                guard let self, self.run == run else { return }
                decide { core, now in core.keysLookedUp(prefix, result, now: now) }
            }
        case .changeIMT(let changes): imt.apply(changes, now: network.time)
        case .releaseOutbound(let destination):
            guard !isWithoutRoute(destination) else { break }
            // What still has no entry comes back to be held, as it would from the TUN.
            for packet in heldOutbound.removeValue(forKey: destination) ?? [] { send(packet, to: destination) }
        case .releaseRouted:
            for destination in heldOutbound.keys.sorted() where route(to: destination) != nil {
                for packet in heldOutbound.removeValue(forKey: destination) ?? [] { send(packet, to: destination) }
            }
        // Nobody asks for names here.
        case .passNames: break
        case .dropOutbound(let destination): droppedHeld += heldOutbound.removeValue(forKey: destination) ?? []
        case .releaseInbound(let source, let own):
            for packet in heldInbound.removeValue(forKey: Flow(source: source, destination: own)) ?? [] { take(packet, from: source, to: own, isReleased: true) }
        case .releaseOpeners(let source, let own):
            let flow = Flow(source: source, destination: own)
            let openers = heldInbound[flow]?.filter { $0.kind == .opening } ?? []
            heldInbound[flow]?.removeAll { $0.kind == .opening }
            for packet in openers { take(packet, from: source, to: own, isReleased: true) }
        case .dropInbound(let source, let own): droppedHeld += heldInbound.removeValue(forKey: Flow(source: source, destination: own)) ?? []
        case .remember(_, let sequence): keptSequence = sequence
        case .keepCertificate(let certificate): keptCertificate = certificate
        case .log(let level, let text): logs.append("\(network.clock) \(level): \(text)")
        }
    }

    /// The daemon reads the counters of a few peers every second.
    private func countLater() {
        network.after(.seconds(1)) { [weak self] in
            guard let self else { return }
            if isUp {
                let counts = counts
                decide { core, now in core.traffic(counts, now: now) }
            }
            countLater()
        }
    }
}
