import IMTPlan
import MATCore
import MATSignal

// Peers in the network that we are in, behind the same translator or at the same site (protocol.md section 11.4, "Same site"): both tell each other
// their private addresses within the path that they have, and whatever proves itself there is used by rewriting. Nobody else is told, and nobody
// else's address is believed: what a private address means, only its network knows.

extension NodeCore {
    // MARK: Who and where

    /// Whether the peer may be where we are: our servers see us at an address that its record lists, or the configuration says so of its HoA.
    func isAtOwnSite(_ hoa: HomeAddress) -> Bool {
        guard !isHidden else { return false }
        // There packets are rewritten, from and to addresses that one HoA has alone.
        guard !configuration.sharesAddresses, let own = home(for: hoa), let peer = peers[hoa], isBetweenHosts(peer) else { return false }
        if configuration.site.contains(where: { $0.contains(hoa.address) }) { return true }
        let seen = desiredLocators(of: own).compactMap { ownEndpoints.translation(of: $0)?.seen?.address }
        return peer.record.endpoints.contains { seen.contains($0.address) }
    }

    /// The own address that packets leave from, whose network is the one that counts: another may be a matter of cost.
    private func firstOwn(_ family: AddressFamily) -> OwnLocator? {
        addresses.ordered.first { $0.moa.family == family && !uplinks.isDead($0.moa) }
    }

    /// Whether a peer's place may be tried: private, on an own link, and nobody's that is known.
    ///
    /// - Parameter onAnyLink: on one that is not the first, too: where we were a moment ago.
    func mayBeCandidate(_ endpoint: Endpoint, of hoa: HomeAddress, onAnyLink: Bool = false) -> Bool {
        let address = endpoint.address
        guard address.family == hoa.family, ![.global, .none].contains(address.scope), endpoint.port == SignalPort.node || endpoint.port > 1023,
            !isOwn(address), !addresses.isOwn(address), !addresses.isOthers(address), !addresses.infrastructure.contains(address)
        else { return false }
        // Whoever has proven that it is there by its record has it.
        if let holder = peers.holder(of: MobileAddress(address)), holder != hoa { return false }
        if candidates.other(than: hoa, at: MobileAddress(address)) != nil { return false }
        let links = onAnyLink ? addresses.ordered.filter { !uplinks.isDead($0.moa) } : firstOwn(address.family).map { [$0] } ?? []
        return links.contains { $0.link?.contains(address) ?? false } || configuration.site.contains { $0.contains(hoa.address) }
    }

    /// Our own private places.
    private func ownCandidates(_ family: AddressFamily) -> [Candidate] {
        addresses.of(family).filter { ![.global, .none].contains($0.address.scope) && !uplinks.isDead($0) }.prefix(Candidate.countMax).enumerated()
            .map { Candidate(Endpoint($1.address, port: SignalPort.node), preference: UInt8(clamping: 10 * ($0 + 1))) }
    }

    // MARK: Offers

    /// A peer's packets take a path in datagrams: both may be nearer to each other.
    mutating func offerCandidates(to hoa: HomeAddress, from own: Endpoint, to far: Endpoint, _ now: Now) {
        guard isAtOwnSite(hoa), candidates.tell(hoa, enters: true, { $0.offer(now.monotonic) }) ?? false else { return }
        sendCandidates(to: hoa, from: own, to: far, now)
    }

    private mutating func sendCandidates(to hoa: HomeAddress, from own: Endpoint, to far: Endpoint, _ now: Now) {
        let mine = ownCandidates(hoa.family)
        guard !mine.isEmpty else { return }
        probeInPath(hoa, from: own, to: far, for: .candidates, candidates: mine, wait: .milliseconds(500), now)
    }

    mutating func candidatesTold(_ probe: InPathProbes.Probe, isAnswered: Bool, _ now: Now) {
        guard candidates.tell(probe.hoa, { $0.offerEnded(isAnswered: isAnswered, now.monotonic) }) ?? false, isAtOwnSite(probe.hoa) else { return }
        sendCandidates(to: probe.hoa, from: probe.own, to: probe.far, now)
    }

    /// A peer told its private places, within the path.
    mutating func candidatesOffered(_ offered: [Candidate], by hoa: HomeAddress, _ message: InPathMessage, _ now: Now) {
        guard !offered.isEmpty, isAtOwnSite(hoa) else { return }
        let places = offered.enumerated().sorted { ($0.element.preference, $0.offset) < ($1.element.preference, $1.offset) }.map(\.element.endpoint)
            .filter { mayBeCandidate($0, of: hoa) }
        if !places.isEmpty { perform(candidates.tell(hoa, enters: true) { $0.offered(places, now.monotonic) } ?? [], at: hoa, now) }
        guard candidates.tell(hoa, enters: true, { $0.offerReturned(now.monotonic) }) ?? false else { return }
        sendCandidates(to: hoa, from: message.own, to: message.far, now)
    }

    // MARK: Probes

    private mutating func perform(_ actions: [PeerCandidates.Action], at hoa: HomeAddress, _ now: Now) {
        for action in actions {
            switch action {
            case .probe(let endpoint, let asked): probeCandidate(endpoint, of: hoa, asked, now)
            case .choose: applyPeer(hoa, now)
            }
        }
    }

    private mutating func probeCandidate(_ endpoint: Endpoint, of hoa: HomeAddress, _ asked: PeerEndpoints.Asked?, _ now: Now) {
        // The network may be another since it was offered.
        guard mayBeCandidate(endpoint, of: hoa) else { return }
        guard let home = home(for: hoa).flatMap({ homes[$0] }), let source = firstOwn(endpoint.family)?.moa.address else { return }
        let series = asked ?? newSeries(at: endpoint, now)
        if asked == nil { _ = candidates.tell(hoa) { $0.began(endpoint, series) } }
        probe(hoa, series, at: endpoint, candidates[hoa]?.cookie(at: endpoint), by: home, from: source, needsRoom: true)
    }

    /// The answer to a probe of a candidate.
    ///
    /// - Returns: `false` if it answers none.
    mutating func candidateAnswered(_ answer: PathAnswer, _ sequence: UInt32, from source: Endpoint, to local: IPAddress, _ now: Now) -> Bool {
        guard let hoa = candidates.peer(asked: sequence) else { return false }
        guard let asked = candidates[hoa]?.asked(at: source), asked.sequence == sequence, let peer = peers[hoa], let own = home(for: hoa),
            answer.cookie.client == exchanges.clientCookie(of: source.address, at: local), answer.hoa.map({ $0 == hoa }) ?? true
        else { return false }
        // It was sent to our own address, as the peer sees us.
        if answer.code == .ok, let signature = answer.signature, let seen = answer.observed, seen == Endpoint(local, port: SignalPort.node),
            PathStatement(.pathAnswer, by: hoa, to: own.address, at: seen, cookie: asked.challenge).isSigned(signature, by: peer.record.key.nodeKey)
        {
            perform(candidates.tell(hoa) { $0.proved(source, from: local, now.monotonic) } ?? [], at: hoa, now)
        }
        if let cookie = answer.cookie.server {
            perform(candidates.tell(hoa) { $0.gaveCookie(cookie, isWanted: answer.code == .cookieRequired, at: source) } ?? [], at: hoa, now)
        }
        return true
    }

    /// A peer's signature came from a private address.
    ///
    /// - Returns: whether it is one of its candidates now.
    mutating func candidateHeard(_ source: Endpoint, of hoa: HomeAddress, _ now: Now) -> Bool {
        guard isAtOwnSite(hoa), mayBeCandidate(source, of: hoa), let actions = candidates.tell(hoa, enters: true, { $0.heard(source, now.monotonic) })
        else { return false }
        perform(actions, at: hoa, now)
        return candidates[hoa]?.isHeard(source) ?? false
    }

    /// Whether a peer probes us at a private address of a network that we are leaving: an answer would have it stay there.
    func isCandidateLeft(_ local: IPAddress, _ source: Endpoint, of hoa: HomeAddress) -> Bool {
        guard ![.global, .none].contains(local.scope), let first = firstOwn(local.family), first.moa.address != local, isAtOwnSite(hoa),
            let link = addresses.ordered.first(where: { $0.moa.address == local }), link.interface != first.interface,
            let peer = peers[hoa], let own = home(for: hoa)
        else { return false }
        return !peer.mapping.record.lists(source) && homes[own]?.mapping?.record.lists(MobileAddress(local)) != true
            && link.link?.contains(source.address) ?? false
    }

    mutating func candidatesDue(of hoa: HomeAddress, _ now: Now) { perform(candidates.tell(hoa) { $0.takeDue(now.monotonic) } ?? [], at: hoa, now) }

    mutating func useCandidates(of hoa: HomeAddress, _ now: Now) {
        perform(candidates.tell(hoa) { $0.use(now.monotonic) } ?? [], at: hoa, now)
    }

    /// Our own addresses, or which of them work, changed.
    mutating func reconsiderCandidates(_ now: Now) {
        guard !candidates.isEmpty else { return }
        for hoa in candidates.hoas {
            let here = (candidates[hoa]?.endpoints ?? []).filter { mayBeCandidate($0, of: hoa, onAnyLink: true) }
            let first = firstOwn(hoa.family)?.interface
            let there = addresses.ordered.filter { $0.interface == first }.map(\.moa.address)
            perform(candidates.tell(hoa) { $0.moved(keeping: here.contains, isFirst: there.contains, now.monotonic) } ?? [], at: hoa, now)
        }
    }

    // MARK: The kernel

    /// Brings what the kernel does for a peer in our network in step.
    ///
    /// - Parameter isRewritten: its record has a way that goes before.
    /// - Returns: whether its packets go to one of its candidates, and whether they had no way before.
    mutating func applyCandidates(of hoa: HomeAddress, isRewritten: Bool, _ now: Now) -> (isUsed: Bool, hasOpened: Bool) {
        guard candidates[hoa] != nil, let own = home(for: hoa) else { return (false, false) }
        let listed = peers[hoa]?.record.endpoints ?? []
        perform((candidates.tell(hoa) { $0.listed(listed, now.monotonic) } ?? []).filter { $0 != .choose }, at: hoa, now)
        guard let known = candidates[hoa] else { return (false, false) }
        let pair = HomePair(own: own, peer: hoa)
        let hasNone = known.installed == nil && carriage(of: hoa) == nil
        // Packets that are held until its IMS knows of us must not be overtaken by later ones.
        let isHeld = destinations.contains(hoa) && hasNone
        let first = firstOwn(hoa.family)?.moa.address
        var way = isRewritten || isHeld ? nil : known.way { $0 == first }
        // Where one of us has just left, until there is another.
        let isRelayed = peerRelays[hoa]?.hasAnswered { holder(of: $0, for: hoa) } ?? false
        if way == nil, !isRewritten, !isHeld, !isRelayed, encapsulatedWay(to: hoa) == nil {
            way = known.way(isLast: true, isUsable)
        }
        let sources = known.sources
        guard way != known.installed || sources != known.installedSources else { return (way != nil, false) }
        for source in sources where !known.installedSources.contains(source) { change(.setInbound(peer: source, pair)) }
        for source in known.installedSources where !sources.contains(source) && peers.holder(of: source) == nil {
            change(.removeInbound(peer: source, own: own))
        }
        if let way, way != known.installed {
            change(.setOutbound(pair, .rewritten(way)))
            paths.count(.rewritten(way), of: hoa, in: &peers)
            log(PeerRecords.level(peers), "\(hoa) is in this network: packets to it go from \(way.own) to \(way.peer)")
        } else if way == nil, known.installed != nil, !isRewritten {
            change(.removeOutbound(pair))
        }
        _ = candidates.tell(hoa) { $0.install(way, sources: sources) }
        return (way != nil, way != nil && hasNone && !isRewritten)
    }

    /// A peer is forgotten.
    mutating func removeCandidates(of hoa: HomeAddress) {
        guard let known = candidates[hoa], let own = home(for: hoa) else { return }
        if known.installed != nil { change(.removeOutbound(HomePair(own: own, peer: hoa))) }
        for source in known.installedSources { change(.removeInbound(peer: source, own: own)) }
        candidates.remove(hoa)
    }
}
