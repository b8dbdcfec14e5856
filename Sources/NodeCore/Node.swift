import IMTPlan
import MATCore
import MATSignal

/// A node as one value: its cores, the packets that wait for them, and what it knows of its links. Events in, actions out:
///
/// ```
///   links ──► OwnAddresses ──► (names read anew?) ──► NodeCores ──► one transaction, then messages, then packets
///   a packet ──► Held, NodeCores ──► ... release ──► Held ──► offer ──► the kernel ──► exited ──► Held
///   datagrams, answers of the DNS, time ──► NodeCores
/// ```
/// Here nothing is decided but how these fit together; `NodeShell` does what is said.
package struct Node {
    package internal(set) var cores: NodeCores
    private var held = Held()
    package internal(set) var addresses: OwnAddresses
    private var names: NameServers
    private var links = Links.settled
    /// IPv4 through the NAT64s of networks that have IPv6 only.
    private var standIns = StandIns()
    /// Homes of networks that the node visits; `nil` if it has none whatever happens.
    var visits: Visits?
    /// Own addresses whose datagrams leave from another port than 6289.
    private var ports = OwnPorts()
    private var translators: NAT64Search

    private enum Links {
        case settled
        /// They are others, and what follows waits for the names to be read.
        case awaitNames
    }

    /// - Parameters:
    ///   - visiting: there may be visited homes, whose requests are numbered by this.
    ///   - linger: how long such a home is kept for the next program.
    package init(
        _ cores: NodeCores, _ rules: AddressRules, names: NameServers, nat64: NAT64Use = .auto,
        visiting: (any RandomNumberGenerator & Sendable)? = nil, linger: Duration = Visit.lingerDefault
    ) {
        visits = visiting.map { Visits(linger: linger, random: $0) }
        translators = NAT64Search(nat64)
        self.cores = cores
        self.names = names
        addresses = OwnAddresses(rules)
    }

    // MARK: Start, links, names

    /// What the kernel had of an earlier run.
    package mutating func adopted(_ state: AdoptedState, now: Now) -> [ShellAction] {
        let steps = cores.adopted(
            outbound: state.outbound, inbound: state.inbound, own: state.own, forwarded: state.forwarded, now: now)
        let visiting = takeOver(visited: state.visited, now)
        return visiting + actions(steps + cores.namesChanged(isLocal: isResolvingLocally, now: now), now)
    }

    private var isResolvingLocally: Bool { names.isLocal(own: addresses.all) }

    /// Links, their addresses or the routes that lead away from them changed.
    package mutating func linksChanged(_ snapshot: LinkSnapshot, now: Now) -> [ShellAction] {
        let wasLocal = isResolvingLocally
        if addresses.update(snapshot) { links = .awaitNames }
        if case .awaitNames = links { return [.readNames] }
        return decide(isLinkEvent: true, tellsNames: isResolvingLocally != wasLocal, now)
    }

    /// Who answers for names was read anew: because it was asked for, or because the files changed.
    ///
    /// - Parameter areOthers: than those before.
    package mutating func namesRead(_ names: NameServers, areOthers: Bool, now: Now) -> [ShellAction] {
        self.names = names
        switch links {
        case .settled: return areOthers ? decide(hasOtherServers: true, tellsNames: true, now) : []
        case .awaitNames:
            links = .settled
            return decide(isLinkEvent: true, hasOtherServers: areOthers, tellsNames: true, now)
        }
    }

    /// The one decision about the links as they are: the kernel gets all that follows in one transaction, before anything is sent, and packets
    /// are let out once, at the end.
    private mutating func decide(isLinkEvent: Bool = false, hasOtherServers: Bool = false, tellsNames: Bool, _ now: Now) -> [ShellAction] {
        // What is the network's is no peer's locator before it proves itself.
        let infrastructure = Set(addresses.gateways).union(names.addresses)
        let asksForTranslators =
            (isLinkEvent || hasOtherServers)
            && translators.begin(isNeeded: !StandIns.links(addresses.locators).isEmpty, links: Set(addresses.linkAddresses.map(\.interfaceIndex)))
        _ = standIns.found(translators.present(standIns.prefix))
        let (locators, hasOthers) = standIns.add(to: addresses.locators)
        var steps = cores.linksChanged(locators, infrastructure: infrastructure, now: now)
        if tellsNames { steps += cores.namesChanged(isLocal: isResolvingLocally, now: now) }
        var changes = hasOthers ? standIns.acceptAnew() : []
        steps.removeAll { step in
            switch step.action {
            case .changeIMT(let some): changes += real(some)
            // Routes come back without an event that changes our addresses, so it is done each time.
            case .releaseRouted: break
            default: return false
            }
            return true
        }
        var actions: [ShellAction] = []
        if hasOtherServers { changes.append(.setAlwaysPlain(names.alwaysPlain)) }
        if isLinkEvent || !changes.isEmpty { actions.append(.changeIMT(changes, linkAddresses: isLinkEvent ? addresses.linkAddresses : nil)) }
        if hasOtherServers {
            let list = names.inUse.map(\.address.description).joined(separator: ", ")
            actions.append(.log(.notice, "DNS servers of \(names.origin): \(list)"))
        }
        if asksForTranslators { actions.append(.findTranslator) }
        return actions + self.actions(steps, now) + releaseRouted(now)
    }

    /// A router advertised by which prefix the NAT64 of its network is reached.
    package mutating func translatorAdvertised(_ translator: AdvertisedTranslator, on interfaceIndex: UInt32, now: Now) -> [ShellAction] {
        translators.advertised(translator, on: interfaceIndex, now.monotonic)
        return translatorChanged(translators.present(standIns.prefix), now)
    }

    /// The network's resolvers said by which prefix its NAT64 is reached, or that it has none, or nothing.
    package mutating func translatorSought(_ answer: NAT64Answer, now: Now) -> [ShellAction] {
        translatorChanged(translators.answered(answer, before: standIns.prefix, now.monotonic), now)
    }

    private mutating func translatorChanged(_ prefix: NAT64Prefix?, _ now: Now) -> [ShellAction] {
        guard standIns.found(prefix) else { return [] }
        let text = prefix.map { "the network translates IPv4 by NAT64: addresses stand in \($0)" } ?? "the network has no NAT64 any more"
        return [.log(.notice, text)] + decide(tellsNames: false, now)
    }

    // MARK: Packets

    /// A local packet found no IMT entry.
    package mutating func heldOutbound(_ packet: HeldPacket, now: Now) -> [ShellAction] {
        guard !awaitsHome(packet.source) else { return [] }
        held.hold(packet, for: HeldDestination(core: cores.core(of: packet.source), address: packet.destination), now: now.monotonic)
        return actions(cores.heldOutbound(from: packet.source, to: packet.destination, isName: packet.isName, now: now), now)
    }

    /// A packet arrived from an unknown source.
    package mutating func heldInbound(_ packet: HeldPacket, now: Now) -> [ShellAction] {
        held.hold(inbound: packet, now: now.monotonic)
        return actions(
            cores.heldInbound(
                from: packet.source, to: packet.destination, opensConnection: packet.opensConnection, isSegment: packet.isSegment, now: now), now)
    }

    /// A segment from an unknown source found no connection, and its reset was not sent.
    package mutating func resetHeld(from source: IPAddress, to own: IPAddress, now: Now) -> [ShellAction] {
        actions(cores.heldInbound(from: source, to: own, opensConnection: false, isSegment: true, now: now), now)
    }

    /// An encapsulated packet for an own HoA came from an endpoint that its source is not known at.
    package mutating func heldEncapsulated(_ packet: HeldPacket, from endpoint: Endpoint, to own: IPAddress, now: Now) -> [ShellAction] {
        guard !awaitsHome(packet.destination) else { return [] }
        let (endpoint, own) = standIns.arriving(from: endpoint, to: own)
        let octets = held.hold(encapsulated: packet, from: endpoint, core: cores.core(of: packet.destination), now: now.monotonic)
        return actions(
            cores.heldEncapsulated(from: packet.source, to: packet.destination, by: endpoint, at: own, octets: octets, now: now), now)
    }

    /// What became of packets that were to be released.
    package mutating func exited(_ destination: HeldDestination, _ exit: HeldExit, now: Now) -> [ShellAction] {
        guard held.exited(destination, exit, now: now.monotonic) else { return [] }
        return [
            .log(
                .warning,
                "packets to \(destination.address) wait: the kernel's route to it leads back to the agent, as it does while an IPv6 gateway is silent (ip -6 neighbour), or a firewall refuses them; tried again until it lets them out"
            )
        ]
    }

    // MARK: Everything else

    package mutating func prefer(interface: String?, now: Now) -> [ShellAction] { actions(cores.prefer(interface: interface, now: now), now) }

    package mutating func prefer(interface: String?, for peer: HomeAddress, now: Now) -> [ShellAction] {
        actions(cores.prefer(interface: interface, for: peer, now: now), now)
    }

    package mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, core: Int, now: Now) -> [ShellAction] {
        if core == Self.visitsCore { return visitLookedUp(hoa, result, now) }
        return actions(cores.lookedUp(hoa, result, core: core, now: now), now)
    }

    package mutating func keysLookedUp(_ prefix: IPPrefix, _ result: ServerLookup, core: Int, now: Now) -> [ShellAction] {
        actions(cores.keysLookedUp(prefix, result, core: core, now: now), now)
    }

    package mutating func received(_ datagram: [UInt8], from source: Endpoint, to local: IPAddress, now: Now) -> [ShellAction] {
        let (source, local) = standIns.arriving(from: source, to: local)
        let visiting = visitsReceived(datagram, from: source, to: local, now)
        return visiting + actions(cores.received(datagram, from: source, to: local, now: now), now) + visitsRegistered(now)
    }

    /// A packet came from an own gateway, of somebody who has no entry.
    package mutating func arrivedFromGateway(_ pair: HomePair, by gateway: Endpoint, now: Now) -> [ShellAction] {
        actions(cores.arrivedFromGateway(pair, by: gateway, now: now), now)
    }

    /// A message came inside an encapsulated packet, from an endpoint that is accepted for its peer.
    package mutating func arrivedInPath(_ message: InPathMessage, now: Now) -> [ShellAction] {
        actions(cores.arrivedInPath(ports.arriving(standIns.arriving(message)), now: now), now)
    }

    /// The network said something of a datagram that was sent.
    package mutating func datagramFailed(_ error: DatagramError, now: Now) -> [ShellAction] {
        actions(cores.datagramFailed(ports.arriving(standIns.arriving(error)), now: now), now)
    }

    /// The machine sends from this port, and receives at it.
    package mutating func usesPort(_ port: UInt16, for own: IPAddress) -> [ShellAction] {
        let changes = ports.use(port, for: own)
        return changes.isEmpty ? [] : [.changeIMT(standIns.real(changes), linkAddresses: nil)]
    }

    /// The port that an own address's datagrams leave from, if it is another than the usual.
    package func otherPort(of own: IPAddress) -> UInt16? {
        let port = ports.port(of: own)
        return port == SignalPort.node ? nil : port
    }

    /// What the kernel is to have, which knows neither stand-ins nor that to the cores all ports are one.
    private mutating func real(_ changes: [IMTChange]) -> [IMTChange] { standIns.real(ports.real(changes)) }

    /// The own addresses that this host really has, usable ones, the best first.
    package var ownAddresses: [IPAddress] { cores.ownLocators.map(\.moa.address).filter { !StandIns.isStandIn($0) } }

    /// An own address that stands for another, as people know it.
    package func named(_ own: IPAddress) -> String? { standIns.named(own) }

    /// Packets counted so far with each pair of HoAs.
    package mutating func traffic(_ packets: some Sequence<(key: HomePair, value: PeerPackets)>, now: Now) -> [ShellAction] {
        actions(cores.traffic(packets, now: now), now)
    }

    /// Packets go in datagrams: what their paths have carried is to be read soon.
    package var wantsPathUses: Bool { cores.wantsPathUses }

    /// Whose: of a great many peers only those are in use.
    package var pathsWatched: [HomePair] { cores.pathsWatched }

    /// Between two such readings.
    package static let pathUseInterval = PathSigns.readingInterval

    /// Peers are on their way to other places: until their packets come from there, ours go where they are about to leave.
    package var awaitsPlaces: Bool { cores.awaitsPlaces }
    /// Between two readings meanwhile.
    package static let awaitedPlaceInterval: Duration = .milliseconds(20)

    package mutating func pathsUsed(_ uses: [PathUse], now: Now) -> [ShellAction] { actions(cores.pathsUsed(uses.map(standIns.seen), now: now), now) }

    /// Peers whose rewritten packets are to be read beside them.
    package var rewrittenWatched: [RewrittenPath] { cores.rewrittenWatched }

    package mutating func rewritten(_ uses: [RewrittenUse], now: Now) -> [ShellAction] { actions(cores.rewritten(uses, now: now), now) }

    /// Told now and then: what has waited for too long goes.
    ///
    /// - Parameter isClockSynchronized: as the kernel says.
    package mutating func timePassed(isClockSynchronized: Bool, now: Now) {
        if isClockSynchronized { cores.clockIsSynchronized(now: now) }
        held.prune(now: now.monotonic)
        for lost in held.takeLost() { cores.packetsLost(lost.count, to: lost.destination, core: lost.core) }
    }

    /// When `timerFired` wants to be called next.
    package var nextDeadline: MonotonicTime? {
        mutating get { cores.nextDeadline.earlier(held.nextDeadline).earlier(translators.due).earlier(visits?.nextDue) }
    }

    package mutating func timerFired(now: Now) -> [ShellAction] {
        let decided = actions(cores.timerFired(now: now), now) + visitsDue(now)
        // After what was decided: a move may be among it, and connections that begin then wait.
        let offers = offers(held.retry(holding: cores.holdsConnections(to:), now: now.monotonic))
        let search: [ShellAction] = translators.takeDue(now.monotonic) ? [.findTranslator] : []
        return decided + offers + search + translatorChanged(translators.present(standIns.prefix), now)
    }

    /// The node ends, and what it has in the kernel with it.
    package mutating func leaves(now: Now) -> [ShellAction] { actions(cores.leaves(now: now), now) }

    // MARK: What the cores want

    private mutating func releaseRouted(_ now: Now) -> [ShellAction] {
        offers(held.releaseRouted(holding: cores.holdsConnections(to:), now: now.monotonic))
    }

    private func offers(_ offers: [HeldOffer]) -> [ShellAction] {
        offers.map { .release($0, from: cores.home(of: $0.destination.core, like: $0.destination.address)) }
    }

    mutating func actions(_ steps: [NodeCores.Step], _ now: Now) -> [ShellAction] { steps.flatMap { actions($0, now) } }

    private mutating func actions(_ step: NodeCores.Step, _ now: Now) -> [ShellAction] {
        func destination(_ address: IPAddress) -> HeldDestination { HeldDestination(core: step.core, address: address) }
        func delivery(_ packets: [HeldPacket]) -> [ShellAction] { packets.isEmpty ? [] : [.deliver(packets)] }
        let time = now.monotonic
        switch step.action {
        case .send(let octets, let own, let target):
            let (own, target) = standIns.leaving(from: own, to: target)
            return [.send(octets, from: own, to: target)]
        case .sendIfRoom(let octets, let own, let target):
            let (own, target) = standIns.leaving(from: own, to: target)
            return [.sendIfRoom(octets, from: own, to: target)]
        case .sendInPath(let message): return [.sendInPath(standIns.leaving(ports.leaving(message)))]
        case .usePort(let port, let own): return [.usePort(port, for: own)] + actions(cores.portChanged(of: own, now: now), now)
        case .lookUp(let hoa): return [.lookUp(hoa, core: step.core)]
        case .lookUpKeys(let prefix): return [.lookUpKeys(prefix, core: step.core)]
        case .changeIMT(let changes): return [.changeIMT(real(changes), linkAddresses: nil)]
        case .releaseOutbound(let address):
            let holding = cores.holdsConnections(to: destination(address))
            return offers(held.release(destination(address), holding: holding, now: time).map { [$0] } ?? [])
        case .releaseRouted: return releaseRouted(now)
        case .dropOutbound(let address):
            held.drop(destination(address), now: time)
            return []
        case .passNames(let address):
            let packets = held.removeNames(destination(address), now: time)
            let link = cores.ownLocators.first { $0.moa.family == address.family }?.interface
            return packets.isEmpty ? [] : [.pass(packets, to: address, by: link)]
        case .releaseInbound(let source, let own): return delivery(held.remove(from: source, to: own, now: time))
        case .releaseOpeners(let source, let own): return delivery(held.remove(from: source, to: own, openersOnly: true, now: time))
        case .dropInbound(let source, let own):
            _ = held.remove(from: source, to: own, now: time)
            return []
        case .releaseEncapsulated(let source, let endpoint):
            return delivery(held.removeEncapsulated(of: source.address, from: endpoint, core: step.core, now: time))
        // A visited home's ends with the agent.
        case .remember(let hoa, _) where cores.isVisited(hoa): return []
        case .remember(let hoa, let sequence): return [.remember(hoa, sequence: sequence)]
        case .keepCertificate(let certificate): return [.keepCertificate(certificate)]
        case .log(let level, let text): return [.log(level, text)]
        }
    }
}
