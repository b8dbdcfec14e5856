import IMTPlan
import MATCore
import MATSignal

// Encapsulated paths to peers: which endpoints are probed, what answers to probes say, and what the kernel gets of it.

extension NodeCore {
    // MARK: What a record lists

    /// Whether rewritten packets of an own HoA pass at an own MoA: its record lists it as it is.
    func isOpen(_ moa: MobileAddress, for hoa: HomeAddress) -> Bool { listing(of: moa, for: hoa) == .moa }

    /// How the record of an own HoA lists an own MoA.
    func listing(of moa: MobileAddress, for hoa: HomeAddress) -> OwnEndpoints.Listing {
        homes[hoa]?.registration.listing(of: moa, ownEndpoints, isRouted: isRouted(moa, to: hoa)) ?? .moa
    }

    /// Whether the own HoA that talks to peers of a family is reached by rewritten packets, wherever it is. Peers send in datagrams to a place that is
    /// not the first, too, while that comes or goes.
    private func isOpen(_ family: AddressFamily) -> Bool {
        home(in: family).map { hoa in addresses.places(of: hoa).allSatisfy { isOpen($0, for: hoa) } } ?? true
    }

    /// The peer's packets can travel encapsulated from the address that is the first for it, where rewritten ones don't pass.
    func isReachedByEndpoint(_ hoa: HomeAddress, _ side: PeerPaths.OwnSide) -> Bool {
        guard let first = side.preferred.first, let peer = peers[hoa], paths.isClosed(to: peer, side, addresses) else { return false }
        return peerEndpoints[hoa]?.way(isUsable, preferring: first.address)?.own == first.address || isLeftToRelay(hoa)
    }

    /// How a peer's packets go in datagrams, if they do.
    func encapsulatedWay(to hoa: HomeAddress) -> PeerEndpoints.Way? {
        guard let known = peerEndpoints[hoa], home(for: hoa) != nil else { return nil }
        return known.way(isUsable, preferring: firstOwn(for: hoa))
    }

    /// Nothing is known yet of how the peer's packets could go from the address that is the first for it, and they have another way.
    func waitsForEndpoint(_ hoa: HomeAddress, _ side: PeerPaths.OwnSide) -> Bool {
        guard let peer = peers[hoa], paths.isClosed(to: peer, side, addresses), !isReachedByEndpoint(hoa, side) else { return false }
        return paths.current(of: peer, side, addresses) != nil
    }

    func isUsable(_ own: IPAddress) -> Bool { addresses.ordered.contains { $0.moa.address == own && !uplinks.isDead($0.moa) } }

    /// The endpoints at which a peer may receive encapsulated packets: those that it lists, and its MoAs, if rewriting can't be all there is.
    private func endpoints(of peer: Peer) -> [Endpoint] {
        guard !isHidden else { return [] }
        let all = peer.record.places(at: peer.listed)
        // What is of the other family behind MoAs is for who is at none of theirs.
        let isAtMoA = home(for: peer.hoa).flatMap { own in desiredLocators(of: own).first.map { isRewritable($0, own) } } ?? false
        let places =
            isAtMoA
            ? all.prefix { !$0.isMoA } + all.drop { !$0.isMoA }.filter { $0.endpoint.map { $0.family == peer.hoa.family } ?? true }
            : all[...]
        let isRewritten = isOpen(peer.hoa.family) && !places.contains { $0.endpoint != nil }
        let inDoubt = isRewritten ? placesInDoubt(of: peer) : []
        if isRewritten, inDoubt.isEmpty { return [] }
        return places.compactMap { place in
            switch place {
            case .endpoint(let endpoint, _): isProbeable(endpoint.address) ? endpoint : nil
            case .moa(let locator):
                // That of a mobile network is its MoPre's base address, where its router is.
                isProbeable(locator.moa.address) && (!isRewritten || inDoubt.contains(locator.moa))
                    ? Endpoint(locator.moa.address, port: SignalPort.node) : nil
            case .relay, .unknown: nil
            }
        }
    }

    /// Others' addresses that mean to us what they mean to them, and are not ours.
    func isProbeable(_ address: IPAddress) -> Bool {
        !isOwn(address) && !addresses.isOthers(address) && addresses.isInReach(MobileAddress(address)) && !addresses.infrastructure.contains(address)
    }

    /// Brings a peer's paths in step with its record and our addresses.
    mutating func listEndpoints(of hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa] else { return }
        let listed = endpoints(of: peer)
        guard !listed.isEmpty || peerEndpoints[hoa] != nil else { return }
        let isAwaited = destinations.contains(hoa)
        let actions = peerEndpoints.enter(hoa) { paths in
            paths.list(listed, now.monotonic) + (isAwaited ? paths.use(now.monotonic) : [])
        }
        // What carries the packets is looked at right after this anyway.
        perform(actions.filter { $0 != .choose }, of: hoa, now)
    }

    /// Packets go to a peer, or come from it.
    mutating func useEndpoints(of hoa: HomeAddress, _ now: Now) {
        useRelays(of: hoa, now)
        guard peerEndpoints[hoa] != nil else { return }
        perform(peerEndpoints.tell(hoa) { $0.use(now.monotonic) }, of: hoa, now)
        if let way = peerEndpoints[hoa]?.installed {
            usePathMTU(of: hoa, over: way.carriage, now)
            offerCandidates(to: hoa, from: Endpoint(way.own, port: SignalPort.node), to: way.endpoint, now)
        }
        useCandidates(of: hoa, now)
    }

    /// Our addresses are others, or the port that we send from: what peers there are is found out from where we are now.
    ///
    /// - Parameter families: of the peers that are asked at all their endpoints. Others are where own addresses went that those were proven from.
    mutating func probeAnew(_ families: [AddressFamily], _ now: Now) {
        let usable = addresses.ordered.map(\.moa.address).filter(isUsable)
        for hoa in peerEndpoints.hoas {
            let actions = peerEndpoints.tell(hoa) { peer in
                families.contains(hoa.family)
                    ? peer.moved(isUsable: usable.contains, now.monotonic) : peer.left(isUsable: usable.contains, now.monotonic)
            }
            perform(actions, of: hoa, now)
        }
        for hoa in peerRelays.hoas where families.contains(hoa.family) { applyPeer(hoa, now) }
    }

    /// Others see our addresses elsewhere than was thought.
    mutating func probeFromSeen(_ now: Now) {
        for hoa in peerEndpoints.hoas { perform(peerEndpoints.tell(hoa) { $0.seenElsewhere(now.monotonic) }, of: hoa, now) }
        for hoa in peerRelays.hoas { applyPeer(hoa, now) }
    }

    mutating func endpointsDue(of hoa: HomeAddress, _ now: Now) { perform(peerEndpoints.tell(hoa) { $0.takeDue(now.monotonic) }, of: hoa, now) }

    mutating func perform(_ actions: [PeerEndpoints.Action], of hoa: HomeAddress, _ now: Now) {
        for action in actions {
            switch action {
            case .probe(let endpoint, let asked): probe(hoa, at: endpoint, asked, now)
            case .choose: applyPeer(hoa, now)
            case .left(let endpoint): endpointLeft(endpoint, of: hoa, now)
            case .suspectLoss:
                suspectBindings(now)
                // It may be the large ones alone that are lost.
                doubtPathMTU(of: hoa, now)
            case .unheard: peerUnheard(hoa, now)
            }
        }
    }

    // MARK: Our probes

    private mutating func probe(_ hoa: HomeAddress, at endpoint: Endpoint, _ asked: PeerEndpoints.Asked?, _ now: Now) {
        guard let home = home(for: hoa).flatMap({ homes[$0] }),
            let source = peerEndpoints[hoa]?.own(asking: endpoint) ?? preferredSources[endpoint.family],
            // A probe says where we are.
            !isLeft(source, of: hoa), !passesRewritten(hoa, at: endpoint, from: MobileAddress(source)),
            probeRates.allows(hoa, at: endpoint.address, hasAnswered: peerEndpoints[hoa]?.hasAnswered ?? false, now.monotonic)
        else { return }
        let series = asked ?? newSeries(at: endpoint, now)
        if asked == nil { peerEndpoints.update(hoa) { $0.began(endpoint, series) } }
        probe(hoa, series, at: endpoint, peerEndpoints[hoa]?.cookie(at: endpoint), by: home, from: source, needsRoom: isStranger(endpoint.address))
    }

    /// A new series of probes to an endpoint of a peer, or to one of its candidates.
    mutating func newSeries(at endpoint: Endpoint, _ now: Now) -> PeerEndpoints.Asked {
        var sequence = UInt32.random(in: .min ... .max, using: &random)
        while peerEndpoints.peer(asked: sequence) != nil || candidates.peer(asked: sequence) != nil { sequence &+= 1 }
        return PeerEndpoints.Asked(
            sequence: sequence, challenge: requests.challenge(for: endpoint, client: UInt64.random(in: .min ... .max, using: &random), now))
    }

    /// One of them goes, signed if the peer has given its cookie for where we are.
    mutating func probe(
        _ hoa: HomeAddress, _ series: PeerEndpoints.Asked, at endpoint: Endpoint, _ given: ServerCookie?, by home: Home, from source: IPAddress,
        needsRoom: Bool
    ) {
        let cookie = Cookie(client: exchanges.clientCookie(of: endpoint.address, at: source), server: given)
        var proof: PathProof?
        if let given = Challenge(cookie), let certificate = home.mapping?.certificate,
            let signature = PathStatement(.pathProbe, by: home.hoa, to: hoa.address, at: endpoint, cookie: given).signed(
                with: home.registration.signer.key)
        {
            proof = PathProof(certificate: .id(certificate.id), signature: signature)
        }
        counters.messagesSent += 1
        let probe = PathProbe.padded(cookie: cookie, hoa: hoa, peerHoA: home.hoa, challenge: series.challenge, proof: proof)
        post(SignalMessage(sequence: series.sequence, .pathProbe(probe)).octets, from: source, to: endpoint, needsRoom: needsRoom)
    }

    /// The peer answered one.
    mutating func pathAnswered(_ answer: PathAnswer, _ sequence: UInt32, from source: Endpoint, to local: IPAddress, _ now: Now) {
        if candidateAnswered(answer, sequence, from: source, to: local, now) { return }
        guard let hoa = peerEndpoints.peer(asked: sequence), let asked = peerEndpoints[hoa]?.asked(at: source), asked.sequence == sequence,
            let peer = peers[hoa],
            let own = home(for: hoa), answer.cookie.client == exchanges.clientCookie(of: source.address, at: local),
            answer.hoa.map({ $0 == hoa }) ?? true
        else {
            counters.unmatchedDropped += 1
            return
        }
        let preferred = preferredSources[source.family]
        // What sees us elsewhere than our servers did may see what a translator has made of us since.
        let isOwn = answer.observed.map(ownEndpoints.isOwn) ?? false
        if !isOwn, answer.observed != nil { suspectBindings(now) }
        // The signature says where the datagram was sent to: to us, as the peer sees us. Where the peer is at a MoA of its own, nobody else can have
        // had it sign for another place; else our servers' word is waited for.
        if answer.code == .ok, let signature = answer.signature, let seen = answer.observed, isOwn || isMoA(source, of: peer),
            PathStatement(.pathAnswer, by: hoa, to: own.address, at: seen, cookie: asked.challenge).isSigned(signature, by: peer.record.key.nodeKey)
        {
            perform(peerEndpoints.tell(hoa) { $0.proved(source, from: local, preferring: preferred, now.monotonic) }, of: hoa, now)
        }
        if let cookie = answer.cookie.server {
            perform(
                peerEndpoints.tell(hoa) { $0.gaveCookie(cookie, seenAs: answer.observed, isWanted: answer.code == .cookieRequired, at: source) },
                of: hoa, now)
        }
    }

    private func isMoA(_ endpoint: Endpoint, of peer: Peer) -> Bool {
        endpoint.port == SignalPort.node && peer.mapping.record.lists(MobileAddress(endpoint.address))
    }

    // MARK: Others' probes

    /// A peer wants to know whether we receive where it sent this (section 11.4, "Probing").
    mutating func probed(
        _ probe: PathProbe, _ sequence: UInt32, _ octetsCount: Int, from source: Endpoint, to local: IPAddress, _ now: Now
    ) {
        // Who is hidden does not answer to whoever tries addresses.
        guard !isHidden, let challenge = probe.challenge, let home = home(speakingFor: probe.hoa),
            home.hoa.family == probe.peerHoA.family, !home.prefix.contains(probe.peerHoA.address)
        else {
            counters.unmatchedDropped += 1
            return
        }
        let hoa = probe.peerHoA
        guard !isCandidateLeft(local, source, of: hoa), !isLeft(local, of: hoa) else {
            counters.unmatchedDropped += 1
            return
        }
        let preferred = preferredSources[source.family]
        let fresh = requests.freshCookie(for: source, clientCookie: probe.cookie.client, now)
        let proves = requests.provesPlace(probe.cookie, from: source, now)
        var isVerified = false
        if proves, let given = Challenge(probe.cookie), let proof = probe.proof, let peer = peers[hoa], proof.certificate.id == peer.record.key.id,
            requests.mayVerify(for: source.address, now.monotonic),
            destinations(of: hoa, at: source, local).contains(where: {
                PathStatement(.pathProbe, by: hoa, to: probe.hoa.address, at: $0, cookie: given)
                    .isSigned(proof.signature, by: peer.record.key.nodeKey)
            })
        {
            // It asks whether packets may go in datagrams where they are rewritten now: those may not arrive.
            cameEncapsulated(from: source, to: local, of: hoa, now)
            if !candidateHeard(source, of: hoa, now) {
                perform(peerEndpoints.enter(hoa) { $0.proved(source, from: local, preferring: preferred, now.monotonic) }, of: hoa, now)
            }
            isVerified = true
        }
        let isKnown =
            isVerified || peerEndpoints[hoa].map { $0.sources.contains(source) } ?? false || peers[hoa].map { lists($0, source) } ?? false
        // Who has shown where it is, is found out about.
        if peers[hoa] == nil, proves { called(by: hoa, at: Callers.Place(endpoint: source, own: local), now) }
        guard isKnown, proves || requests.answersProbes(now.monotonic),
            let signature = PathStatement(.pathAnswer, by: probe.hoa, to: hoa.address, at: source, cookie: challenge)
                .signed(with: home.registration.signer.key)
        else {
            guard octetsCount >= PathProbe.octetsMin else { return }
            let refusal = SignalMessage.refusal(of: .pathProbe, sequence: sequence, code: .cookieRequired, cookie: fresh, observed: source)
            return reply(refusal, from: local, to: source, now)
        }
        reply(
            SignalMessage(
                sequence: sequence, .pathAnswer(PathAnswer(code: .ok, cookie: fresh, hoa: probe.hoa, observed: source, signature: signature))),
            from: local, to: source, now)
        perform(peerEndpoints.tell(hoa) { $0.probed(from: source, now.monotonic) }, of: hoa, now)
    }

    private func lists(_ peer: Peer, _ endpoint: Endpoint) -> Bool { peer.mapping.record.lists(endpoint) }

    /// Where a peer may have sent what came to us: our own address, what our servers see of it, and what the peer itself sees.
    private func destinations(of hoa: HomeAddress, at source: Endpoint, _ local: IPAddress) -> [Endpoint] {
        let own = Endpoint(local, port: SignalPort.node)
        let seen = ownEndpoints[MobileAddress(local)].endpoint
        let seenByPeer = peerEndpoints[hoa]?.seenAs(at: source).flatMap { ownEndpoints.isOwn($0) ? $0 : nil }
        return [own, seen, seenByPeer].compactMap { $0 }.reduce(into: []) { if !$0.contains($1) { $0.append($1) } }
    }
}
