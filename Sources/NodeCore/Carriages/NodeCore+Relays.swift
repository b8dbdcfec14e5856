import IMTPlan
import MATCore
import MATSignal

// Relays: those of the own HoAs, at which a node behind translators is bound all the time so that peers reach it there; those of peers, where it is a
// visitor while no better path is proven (protocol.md sections 11.3 to 11.5).

extension NodeCore {
    // MARK: Own relays

    /// The relays of an own HoA: those that the configuration names, then those that the DNS does.
    func ownRelays(of hoa: HomeAddress) -> [RelayHost] {
        guard let home = homes[hoa] else { return [] }
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
    func needsRelays(_ hoa: HomeAddress) -> Bool {
        guard let first = desiredLocators(of: hoa).first else { return false }
        if !addresses.ordered.contains(where: { $0.moa.family == .ipv4 }) { return true }
        return !isOpen(first, for: hoa)
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

    func neededRelays(of hoa: HomeAddress) -> [(host: RelayHost, server: Endpoint, moa: MobileAddress)] {
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
    func way(to server: [Endpoint]) -> (server: Endpoint, moa: MobileAddress)? {
        let usable = addresses.ordered.map(\.moa)
        for moa in usable.filter({ !uplinks.isDead($0) }) + usable.filter(uplinks.isDead) {
            if let endpoint = server.first(where: { $0.family == moa.family }) { return (endpoint, moa) }
        }
        return nil
    }

    /// The addresses of the relays at which a HoA is bound, for its record (protocol.md section 11.1, kind 2).
    func listedRelays(of hoa: HomeAddress) -> [Endpoint] {
        guard homes[hoa]?.registration.relayPolicy.takesNone == false else { return [] }
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
        // Who is reached by relays alone has no record before one of them has granted a binding.
        if isHidden, isGranted, homes[key.hoa]?.registration.stage == .pausing { register(key.hoa, now) }
    }

    /// Has the record say at which relays the HoA is bound, if that has changed. What is under way goes first.
    mutating func listRelays(of hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], home.registration.isRegistered, home.registration.signer.relays != listedRelays(of: hoa) else { return }
        let relays = listedRelays(of: hoa).map(\.description).joined(separator: ", ")
        log(.notice, relays.isEmpty ? "\(hoa) is bound at no relay any more" : "\(hoa) is bound at the relay \(relays)")
        homes[hoa]?.announcement.owe()
        register(hoa, now)
    }

    // MARK: Peers' relays

    /// The relays by which a peer can be reached, in the order of section 11.4: those of the lower HoA's record first.
    private func candidates(_ peer: Peer) -> [PeerRelays.Candidate] {
        guard let own = home(for: peer.hoa), needsRelay(peer) else { return [] }
        let bound = neededRelays(of: own)
        let theirs = peer.record.places(at: peer.listed).compactMap { place -> PeerRelays.Candidate? in
            guard let relay = place.relay else { return nil }
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
    func needsRelay(_ peer: Peer) -> Bool {
        guard let own = home(for: peer.hoa) else { return false }
        return needsRelays(own) || !peer.record.places(at: peer.listed).contains(where: \.isMoA)
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

    mutating func perform(_ actions: [PeerRelays.Action], of hoa: HomeAddress, _ now: Now) {
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
        perform(peerRelays.tell(message.pair.peer) { $0.answered(message.far, at: message.own.address, now.monotonic) }, of: message.pair.peer, now)
    }

    /// A probe by a relay was answered after this time; `nil`: it was not.
    mutating func relayProbed(_ probe: InPathProbes.Probe, after time: Duration?, _ now: Now) {
        perform(peerRelays.tell(probe.hoa) { $0.probed(probe.far, at: probe.sentAt, time, now.monotonic) }, of: probe.hoa, now)
    }

    /// Two probes by the relay in use stayed unanswered.
    private mutating func relayLeft(_ relay: Endpoint, of hoa: HomeAddress, _ now: Now) {
        let hasOther = carriage(of: hoa).map { $0.destination != relay.address } ?? (peers[hoa].flatMap { paths.installed(of: $0) } != nil)
        pathLeft(of: hoa, "nothing of \(hoa) comes by the relay \(relay)", hasOther: hasOther, now)
    }

    /// The own address that a relay has us at for a peer.
    func holder(of relay: Endpoint, for hoa: HomeAddress) -> IPAddress? {
        guard let own = home(for: hoa), let holder = bindings.holder(of: OwnBindings.Key(hoa: own, server: relay)), isUsable(holder.address) else {
            return nil
        }
        return holder.address
    }

    func relayedWay(of hoa: HomeAddress, _ now: Now) -> PeerRelays.Way? { peerRelays[hoa]?.way({ holder(of: $0, for: hoa) }, now.monotonic) }

    /// Nothing better than a relay is to be expected for the peer soon: none of its endpoints is proven or being probed.
    func isLeftToRelay(_ hoa: HomeAddress) -> Bool {
        guard peerRelays[hoa]?.installed != nil || peerRelays[hoa]?.candidates.contains(where: { holder(of: $0.relay, for: hoa) != nil }) == true
        else {
            return false
        }
        guard let endpoints = peerEndpoints[hoa] else { return true }
        return endpoints.endpoints.allSatisfy { endpoints.state(of: $0).map { !$0.isProven && !$0.isProbing } ?? true }
    }
}
