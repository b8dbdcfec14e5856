import IMTPlan
import MATCore
import MATSignal

// Relays: those of the own HoAs, at which a node behind translators is bound all the time so that peers reach it there; those of peers, where it is a
// visitor while no better path is proven (protocol.md sections 11.3 to 11.5); and what the kernel gets of paths that are not rewritten.

extension NodeCore {
    // MARK: Own relays

    /// The relays of an own HoA: those that the configuration names, then those that the DNS does.
    func ownRelays(of hoa: HomeAddress) -> [RelayHost] {
        // What a mobile network's hosts send is not encapsulated.
        guard let home = homes[hoa], !home.isNetwork else { return [] }
        var relays: [RelayHost] = []
        for relay in configuration.relays + (home.servers?.relays ?? []) where relays.count < OwnBindings.relaysMax {
            // One that is named twice is one.
            if !relays.contains(where: { !Set($0.endpoints).isDisjoint(with: relay.endpoints) }) { relays.append(relay) }
        }
        return relays
    }

    func isOwnRelay(_ endpoint: Endpoint) -> Bool { homes.keys.contains { ownRelays(of: $0).contains { $0.endpoints.contains(endpoint) } } }

    /// Whether others may not reach the HoA but by what it has opened: its first MoA is translated, filtered or not yet seen by anybody, or there
    /// is no address that IPv4 hosts reach.
    private func needsRelays(_ hoa: HomeAddress) -> Bool {
        guard let first = desiredLocators(of: hoa).first else { return false }
        if !addresses.ordered.contains(where: { $0.moa.family == .ipv4 }) { return true }
        return ownEndpoints.listing(of: first, for: hoa.family, servers: homes[hoa]?.servers?.endpoints ?? []) != .moa
    }

    /// The relays to be bound at: own ones, each at the address that the preferred MoA reaches, and peers'.
    var neededRelays: [OwnBindings.Key: MobileAddress] {
        var needed: [OwnBindings.Key: MobileAddress] = [:]
        for hoa in homes.keys {
            for (_, server, moa) in neededRelays(of: hoa) { needed[OwnBindings.Key(hoa: hoa, server: server)] = moa }
        }
        for visit in peerRelays.visits {
            guard let hoa = home(in: visit.family), let way = way(to: [visit.relay]) else { continue }
            needed[OwnBindings.Key(hoa: hoa, server: visit.relay)] = way.moa
        }
        return needed
    }

    private func neededRelays(of hoa: HomeAddress) -> [(host: RelayHost, server: Endpoint, moa: MobileAddress)] {
        guard needsRelays(hoa) || wantsGateways(hoa) else { return [] }
        return ownRelays(of: hoa).compactMap { host in
            (heldWay(to: host, of: hoa) ?? way(to: host.endpoints)).map { (host, $0.server, $0.moa) }
        }
    }

    /// The address of a relay at which there is a binding, if the preferred MoA's link has one of its family: at another address of the relay what
    /// comes and goes by this one would wait until that is granted.
    private func heldWay(to relay: RelayHost, of hoa: HomeAddress) -> (server: Endpoint, moa: MobileAddress)? {
        guard let server = relay.endpoints.first(where: { bindings.isGranted(OwnBindings.Key(hoa: hoa, server: $0)) }) else { return nil }
        let usable = addresses.ordered.filter { !uplinks.isDead($0.moa) }
        return usable.first { $0.moa.family == server.family && $0.interface == usable.first?.interface }.map { (server, $0.moa) }
    }

    /// The first of a server's addresses that the preferred MoA reaches.
    private func way(to server: [Endpoint]) -> (server: Endpoint, moa: MobileAddress)? {
        let usable = addresses.ordered.map(\.moa)
        for moa in usable.filter({ !uplinks.isDead($0) }) + usable.filter(uplinks.isDead) {
            if let endpoint = server.first(where: { $0.family == moa.family }) { return (endpoint, moa) }
        }
        return nil
    }

    /// The addresses of the relays at which a HoA is bound, for its record (protocol.md section 11.1, kind 2).
    func listedRelays(of hoa: HomeAddress) -> [Endpoint] {
        guard homes[hoa]?.registration.takesNoRelays == false else { return [] }
        let bound = ownRelays(of: hoa).filter { relay in
            relay.endpoints.contains { bindings.isGranted(OwnBindings.Key(hoa: hoa, server: $0)) }
        }
        // An IMS takes no others beside endpoints.
        return Array(bound.flatMap(\.endpoints).filter { $0.address.scope == .global }.prefix(MappingRecord.relaysMax))
    }

    /// A server has answered a Bind, or has not.
    mutating func relayBindingEnded(_ key: OwnBindings.Key, _ now: Now) {
        let isGranted = bindings.isGranted(key)
        for hoa in peerRelays.peers(of: key.server) where home(for: hoa) == key.hoa {
            perform(peerRelays.tell(hoa) { $0.bound(key.server, isGranted: isGranted, now.monotonic) }, of: hoa, now)
        }
        guard isOwnRelay(key.server) else { return }
        // Peers can be reached by it now, or can't.
        if homes[key.hoa]?.registration.signer.relays != listedRelays(of: key.hoa) { carryAnew([key.hoa.family], now) }
        listRelays(of: key.hoa, now)
        gatewaysChanged(now)
    }

    // MARK: What people see

    func relayStates() -> [NodeStatus.RelayState] {
        homes.keys.sorted().flatMap { hoa in
            let needed = neededRelays(of: hoa)
            return ownRelays(of: hoa).map { relay in
                let key = needed.first { $0.host == relay }.map { OwnBindings.Key(hoa: hoa, server: $0.server) }
                return NodeStatus.RelayState(
                    hoa: hoa, endpoints: relay.endpoints, server: key?.server, own: key.flatMap(bindings.source), standing: standing(key, relay, hoa),
                    observed: key.flatMap(bindings.observed), role: key.map(bindings.role) ?? [])
            }
        }
    }

    private func standing(_ key: OwnBindings.Key?, _ relay: RelayHost, _ hoa: HomeAddress) -> NodeStatus.RelayState.Standing {
        guard let key else { return needsRelays(hoa) || wantsGateways(hoa) ? .unreachable : .notNeeded }
        if let failure = bindings.failure(of: key) { return failure == .silent ? .silent : .refused(failure.text) }
        guard bindings.isGranted(key) else { return .asked }
        return homes[hoa]?.registration.takesNoRelays == true ? .unlisted : .bound
    }

    /// Has the record say at which relays the HoA is bound, if that has changed. What is under way goes first.
    mutating func listRelays(of hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], home.registration.isRegistered, home.registration.signer.relays != listedRelays(of: hoa) else { return }
        let relays = listedRelays(of: hoa).map(\.description).joined(separator: ", ")
        log(.notice, relays.isEmpty ? "\(hoa) is bound at no relay any more" : "\(hoa) is bound at the relay \(relays)")
        homes[hoa]?.announcement.owe()
        register(hoa, now)
    }

    /// The relays by which a peer's packets go, or could.
    func relayCandidates(_ hoa: HomeAddress) -> [PathExplanation.Candidate] {
        guard let own = home(for: hoa), let known = peerRelays[hoa] else { return [] }
        return known.candidates.map { candidate in
            let (key, isUsed) = (OwnBindings.Key(hoa: own, server: candidate.relay), known.installed?.relay == candidate.relay)
            let (state, remedy) = text(candidate, known, key)
            return PathExplanation.Candidate(
                kind: .relayed, place: candidate.relay, own: bindings.holder(of: key)?.address, isUsed: isUsed, state: state, remedy: remedy)
        }
    }

    private func text(_ candidate: PeerRelays.Candidate, _ known: PeerRelays, _ key: OwnBindings.Key) -> (state: String, remedy: String?) {
        let whose = candidate.isPeers ? candidate.isOwn ? "of both records" : "of its record" : "of our record"
        switch bindings.failure(of: key) {
        case .silent?:
            return ("\(whose); it does not answer", "an answer of \(candidate.relay): is the relay up, and does UDP pass to it?")
        case .refused(let code)? where code == .notAuthoritative:
            return (
                "\(whose); it serves other home addresses only",
                "that \(candidate.relay) takes \(key.hoa): `residents`, or `visitors`, in its mat-relay.yaml"
            )
        case .refused?:
            return (
                "\(whose); \(bindings.failure(of: key)?.text ?? "it refuses")",
                "that \(candidate.relay) takes \(key.hoa): its log says why it does not"
            )
        case nil: break
        }
        guard bindings.holder(of: key) != nil else {
            return bindings.source(of: key) == nil
                ? ("\(whose); not asked: a better path is used, or there are no packets", nil) : ("\(whose); being asked", nil)
        }
        if known.isLeft(candidate.relay) {
            return ("\(whose); bound there, but nothing comes back by it", "that \(key.hoa) and its peer are both bound there")
        }
        if known.hasAnswered(candidate.relay) { return ("\(whose); bound there, and it has answered by it", nil) }
        return candidate.isPeers
            ? ("\(whose); bound there", nil)
            : (
                "\(whose); bound there, it is not known whether the peer is as well",
                "that the peer binds there, which it does while it has no better path"
            )
    }

    // MARK: Peers' relays

    /// The relays by which a peer can be reached, in the order of section 11.4: those of the lower HoA's record first.
    private func candidates(_ peer: Peer) -> [PeerRelays.Candidate] {
        guard let own = home(for: peer.hoa), homes[own]?.isNetwork == false, !peer.record.isNetwork, needsRelay(peer) else { return [] }
        let bound = neededRelays(of: own)
        let theirs = peer.record.places(at: peer.listed).compactMap { place -> PeerRelays.Candidate? in
            guard case .relay(let relay, _) = place else { return nil }
            // At one that is ours as well we are bound already, perhaps at another address of it.
            if let ours = bound.first(where: { $0.host.endpoints.contains(relay) }) {
                return PeerRelays.Candidate(relay: ours.server, isPeers: true, isOwn: true)
            }
            guard isProbeable(relay.address), way(to: [relay]) != nil else { return nil }
            return PeerRelays.Candidate(relay: relay, isPeers: true, isOwn: false)
        }
        let ours = bound.map { relay in
            PeerRelays.Candidate(relay: relay.server, isPeers: theirs.contains { $0.relay == relay.server }, isOwn: true)
        }
        return (own < peer.hoa ? ours + theirs : theirs + ours).reduce(into: []) { all, one in
            if !all.contains(where: { $0.relay == one.relay }) { all.append(one) }
        }
    }

    /// Whether a relay may be all there is, now or after a move: one of both is not reached as it is.
    private func needsRelay(_ peer: Peer) -> Bool {
        guard let own = home(for: peer.hoa) else { return false }
        return needsRelays(own) || !peer.record.places(at: peer.listed).contains { if case .moa = $0 { true } else { false } }
    }

    /// Brings a peer's relays in step with both records and our addresses.
    mutating func listPeersRelays(of hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        let listed = candidates(peer)
        guard !listed.isEmpty || peerRelays[hoa] != nil else { return }
        let isAwaited = destinations.contains(hoa)
        let actions = peerRelays.enter(hoa) { relays in
            relays.list(listed, now.monotonic) + (isAwaited ? relays.use(now.monotonic) : [])
        }
        // What carries the packets is looked at right after this anyway.
        perform(actions.filter { $0 != .choose }, of: hoa, now)
    }

    /// Packets go to a peer, or come from it.
    mutating func useRelays(of hoa: HomeAddress, _ now: Now) {
        guard peerRelays[hoa] != nil else { return }
        perform(peerRelays.tell(hoa) { $0.use(now.monotonic) }, of: hoa, now)
        guard let way = carriage(of: hoa), case .relayed(let own, let relay) = way else { return }
        usePathMTU(of: hoa, over: way, now)
        offerCandidates(to: hoa, from: own, to: relay, now)
        if peerEndpoints[hoa] == nil { useCandidates(of: hoa, now) }
    }

    /// What the way in use has carried was read.
    mutating func relayCounted(_ use: PathUse, _ now: Now) {
        perform(peerRelays.tell(use.pair.peer) { $0.counted(use, now.monotonic) }, of: use.pair.peer, now)
    }

    mutating func relaysDue(of hoa: HomeAddress, _ now: Now) { perform(peerRelays.tell(hoa) { $0.takeDue(now.monotonic) }, of: hoa, now) }

    private mutating func perform(_ actions: [PeerRelays.Action], of hoa: HomeAddress, _ now: Now) {
        for action in actions {
            switch action {
            case .bind: holdBindings(now)
            case .choose: applyPeer(hoa, now)
            case .probe(let relay): probe(relay, for: hoa, now)
            case .left(let relay): relayLeft(relay, of: hoa, now)
            case .refresh(let relay):
                guard let own = home(for: hoa) else { continue }
                perform(bindings.doubt(OwnBindings.Key(hoa: own, server: relay), now.monotonic), now)
            }
        }
    }

    private mutating func probe(_ relay: Endpoint, for hoa: HomeAddress, _ now: Now) {
        guard let own = holder(of: relay, for: hoa) else { return }
        probeInPath(hoa, from: Endpoint(own, port: SignalPort.node), to: relay, for: .relay, wait: PeerRelays.answerMax, now)
    }

    /// An in-path message of a peer's came by a relay.
    mutating func heardByRelay(_ message: InPathMessage, _ now: Now) {
        perform(peerRelays.tell(message.pair.peer) { $0.answered(message.far, now.monotonic) }, of: message.pair.peer, now)
    }

    /// A probe by a relay was answered after this time.
    mutating func relayAnswered(_ probe: InPathProbes.Probe, after time: Duration) {
        _ = peerRelays.tell(probe.hoa) { relays in
            relays.learn(roundTrip: time, of: probe.far)
            return []
        }
    }

    /// Two probes by the relay in use stayed unanswered. If there is no other path, the peer may not know where we are.
    private mutating func relayLeft(_ relay: Endpoint, of hoa: HomeAddress, _ now: Now) {
        let hasOther = carriage(of: hoa).map { $0.destination != relay.address } ?? (peers[hoa].flatMap { paths.installed(of: $0) } != nil)
        log(
            peers.count <= PeerRecords.loggedMax ? .info : .debug,
            "nothing of \(hoa) comes by the relay \(relay); \(hasOther ? "another path is used" : "there is no other path, so it is told where this node is")"
        )
        guard !hasOther else { return }
        suspectBindings(now)
        if !isUnderWay(.notifyServer(hoa)), let servers = knownServers(of: hoa, now) { notifyServers(of: hoa, servers, now) }
    }

    /// The own address that a relay has us at for a peer.
    private func holder(of relay: Endpoint, for hoa: HomeAddress) -> IPAddress? {
        guard let own = home(for: hoa), let holder = bindings.holder(of: OwnBindings.Key(hoa: own, server: relay)),
            usableAddresses.contains(holder.address)
        else { return nil }
        return holder.address
    }

    private func relayedWay(of hoa: HomeAddress, _ now: Now) -> PeerRelays.Way? { peerRelays[hoa]?.way({ holder(of: $0, for: hoa) }, now.monotonic) }

    /// Nothing better than a relay is to be expected for the peer soon: none of its endpoints is proven or being probed.
    func isLeftToRelay(_ hoa: HomeAddress) -> Bool {
        guard peerRelays[hoa]?.installed != nil || peerRelays[hoa]?.candidates.contains(where: { holder(of: $0.relay, for: hoa) != nil }) == true
        else {
            return false
        }
        guard let endpoints = peerEndpoints[hoa] else { return true }
        return endpoints.endpoints.allSatisfy { endpoints.state(of: $0).map { !$0.isProven && !$0.isProbing } ?? true }
    }

    // MARK: The kernel

    /// Brings what the kernel does for a peer's packets that are not rewritten in step with its paths.
    ///
    /// - Parameter isRewritten: there is an entry for it, which goes before.
    /// - Returns: whether its packets have a way now that had none before.
    mutating func applyCarriage(of hoa: HomeAddress, isRewritten: Bool, _ now: Now) -> Bool {
        guard let own = home(for: hoa), let peer = peers[hoa], peerEndpoints[hoa] != nil || peerRelays[hoa] != nil else { return false }
        let pair = HomePair(own: own, peer: hoa)
        let before = carriage(of: hoa)
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        let isHeld = destinations.contains(hoa) && before == nil
        let proven = peerEndpoints[hoa]?.way(usableAddresses.contains)
        let endpoint = isRewritten || isHeld ? nil : proven
        let isFallback = needsRelay(peer)
        let followed = peerRelays.tell(hoa) { $0.hasBetter(isRewritten || proven != nil, isFallback: isFallback, now.monotonic) }
        // What carries the packets is looked at here.
        perform(followed.filter { $0 != .choose }, of: hoa, now)
        let held = Set((peerRelays[hoa]?.candidates ?? []).map(\.relay).filter { holder(of: $0, for: hoa) != nil })
        let probes = peerRelays.tell(hoa) { $0.hold(held, now.monotonic) }
        let relayed = isRewritten || isHeld || endpoint != nil ? nil : relayedWay(of: hoa, now)
        let after: Carriage.Way? =
            endpoint.map { .encapsulated(own: Endpoint($0.own, port: SignalPort.node), peer: $0.endpoint) }
            ?? relayed.map { .relayed(own: Endpoint($0.own, port: SignalPort.node), relay: $0.relay) }
        let largest = after.map { self.largest(of: hoa, over: $0) } ?? Carriage.mtuAtFirst
        let largestBefore = peerEndpoints[hoa]?.installed != nil ? peerEndpoints[hoa]?.installedLargest : peerRelays[hoa]?.installedLargest
        let added = accept(pair, now)
        _ = peerEndpoints.tell(hoa) { paths in
            paths.setOtherWay(isRewritten || relayed != nil)
            paths.install(endpoint, largest: largest, sources: paths.installedSources, now.monotonic)
            return []
        }
        _ = peerRelays.tell(hoa) { relays in
            relays.install(relayed, largest: largest, sources: relays.installedSources, now.monotonic)
            return []
        }
        defer { perform(probes, of: hoa, now) }
        if after != before || after != nil && largest != largestBefore {
            if let after { change(.setOutbound(pair, Carriage(after, largest: largest))) } else if !isRewritten { change(.removeOutbound(pair)) }
            logCarriage(of: hoa, after, largest: after == before ? largest : nil)
        }
        if after != before { usePathMTU(of: hoa, over: after, now) }
        if !added.isEmpty {
            flushChanges()
            for endpoint in added { emit(.releaseEncapsulated(of: hoa, from: endpoint)) }
        }
        return after != nil && before == nil
    }

    /// - Parameter largest: only this is news.
    private mutating func logCarriage(of hoa: HomeAddress, _ way: Carriage.Way?, largest: UInt32?) {
        let level: NodeLogLevel = peers.count <= PeerRecords.loggedMax ? .info : .debug
        if let far = way?.endpoints?.far, let largest {
            let isNarrow = largest < Carriage.mtuAtFirst
            log(level, "packets to \(hoa) in datagrams to \(far) may have \(largest) octets\(isNarrow ? "; larger ones are cut up" : "")")
            return
        }
        switch way {
        case .encapsulated(let own, let endpoint): log(level, "packets to \(hoa) go encapsulated, from \(own.address) to \(endpoint)")
        case .relayed(let own, let relay): log(level, "packets to \(hoa) go by the relay \(relay), from \(own.address)")
        case .rewritten, nil: break
        }
    }

    /// How a peer's packets go, as the kernel was told, if they are not rewritten.
    private func carriage(of hoa: HomeAddress) -> Carriage.Way? {
        if let way = peerEndpoints[hoa]?.installed { return .encapsulated(own: Endpoint(way.own, port: SignalPort.node), peer: way.endpoint) }
        return peerRelays[hoa]?.installed.map { .relayed(own: Endpoint($0.own, port: SignalPort.node), relay: $0.relay) }
    }

    /// From where a peer's encapsulated packets are taken: its endpoints, and the relays of both records (section 11.2).
    ///
    /// - Returns: what is accepted from now on.
    private mutating func accept(_ pair: HomePair, _ now: Now) -> [Endpoint] {
        let hoa = pair.peer
        let (endpoints, relays) = (peerEndpoints[hoa]?.sources ?? [], relaySources(of: hoa))
        let before = (peerEndpoints[hoa]?.installedSources ?? [], peerRelays[hoa]?.installedSources ?? [])
        guard before != (endpoints, relays) else { return [] }
        change(.accept(pair, from: Array((endpoints + relays.filter { !endpoints.contains($0) }).prefix(EncapsulationTable.endpointsMax))))
        _ = peerEndpoints.tell(hoa) { paths in
            paths.install(paths.installed, largest: paths.installedLargest, sources: endpoints, now.monotonic)
            return []
        }
        _ = peerRelays.tell(hoa) { paths in
            paths.install(paths.installed, largest: paths.installedLargest, sources: relays, now.monotonic)
            return []
        }
        return (endpoints + relays).filter { !before.0.contains($0) && !before.1.contains($0) }
    }

    /// A relay answers from the address that was bound to; the peer may have bound to another one of those that its record lists.
    private func relaySources(of hoa: HomeAddress) -> [Endpoint] {
        guard let known = peerRelays[hoa], !known.candidates.isEmpty, let peer = peers[hoa] else { return [] }
        let listed = peer.record.places(at: peer.listed).compactMap { if case .relay(let relay, _) = $0 { relay } else { nil } }
        return Set(known.candidates.map(\.relay) + listed).sorted { ($0.address, $0.port) < ($1.address, $1.port) }
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func carriagesMoved(from: MobileAddress, to: MobileAddress) {
        peerEndpoints.installedMoved(from: from, to: to)
        peerRelays.installedMoved(from: from, to: to)
    }

    /// A peer is forgotten.
    mutating func removeCarriage(of hoa: HomeAddress, _ now: Now) {
        guard let own = home(for: hoa) else { return }
        let pair = HomePair(own: own, peer: hoa)
        if carriage(of: hoa) != nil { change(.removeOutbound(pair)) }
        if peerEndpoints[hoa]?.installedSources.isEmpty == false || peerRelays[hoa]?.installedSources.isEmpty == false {
            change(.accept(pair, from: []))
        }
        peerEndpoints.remove(hoa)
        inPathProbes.remove(hoa)
        pathMTUs.remove(hoa)
        guard peerRelays[hoa] != nil else { return }
        peerRelays.remove(hoa)
        holdBindings(now)
    }
}
