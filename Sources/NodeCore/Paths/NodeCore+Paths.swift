import MATSignal

// Paths that are up but dead. Probes find what does not answer; this decides what that means:
// - one peer is silent over one pair of addresses: its other pairs are tried, and that peer alone takes another (`judge(peer)`)
// - nothing answers over an own address, and something does over another: a handover away from it (`judge(uplink)`)
// - nothing answers anywhere: everything stays as it is.
// What was left is gone back to when it has answered for the hold-down.

extension NodeCore {
    // MARK: What to watch

    /// Packets were exchanged with the peer, or wait for it.
    mutating func notePeerUse(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], hasChoice(peer) else { return }
        // Watched until the next look at least, or a rarely looked at peer would not be for most of the time.
        let until = now.monotonic + max(configuration.paths.useMax, ways.lookInterval * 2)
        guard let current = currentPair(of: peer) else {
            for pair in pairs(for: peer).prefix(Self.pairsMax) { watch(pair, of: hoa, until: until, now) }
            return
        }
        watch(current, of: hoa, until: until, now)
        // A peer that is silent itself does not tell whether the way out that it kept still works.
        if isBehind(peer) { for path in serverPaths(over: current.own) { ways.monitor.watch(path, until: until, now: now.monotonic) } }
        // On a detour the better ones are asked whether they are back.
        if ways.detours[hoa]?.isTaken == true {
            for pair in pairs(for: peer).prefix(while: { $0 != current }).prefix(Self.pairsMax) { watch(pair, of: hoa, until: until, now) }
        }
    }

    /// Without another pair there is nothing to decide, so nothing is asked.
    private func hasChoice(_ peer: Peer) -> Bool {
        peer.locators.listed.count > 1 || (home(for: peer.hoa).map { desiredLocators(of: $0).count > 1 } ?? false)
    }

    private mutating func watch(_ pair: MobilePair, of hoa: HomeAddress, until: MonotonicTime, atOnce: Bool = false, _ now: Now) {
        ways.monitor.watch(PathMonitor.Path(pair.own, .peer(hoa, pair.peer)), until: until, atOnce: atOnce, now: now.monotonic)
    }

    /// Pairs of one peer that are tried.
    static let pairsMax = 8
    private static let serversMax = 2

    /// All pairs of addresses for a peer, the best first: our preference before the peer's, for ours may be a matter of cost.
    private func pairs(for peer: Peer) -> [MobilePair] {
        let listed = provenLocators(of: peer)
        let record = home(for: peer.hoa).flatMap { homes[$0]?.mapping?.record }
        let ours = ownMoAs(for: peer.hoa)
        return ours.filter { $0 == ours.first || record?.lists($0) ?? false }.flatMap { own in listed.map { MobilePair(own: own, peer: $0) } }
    }

    private func currentPair(of peer: Peer) -> MobilePair? {
        guard let own = ownMoA(of: peer), let moa = outboundLocator(of: peer) else { return nil }
        return MobilePair(own: own, peer: moa)
    }

    /// Our IMSs, as probes of an own address.
    private func serverPaths(over own: MobileAddress) -> [PathMonitor.Path] {
        guard let home = home(of: own), let servers = homes[home]?.servers else { return [] }
        return servers.endpoints.filter { $0.address.isIPv4 == own.isIPv4 }.prefix(Self.serversMax).map { PathMonitor.Path(own, .server($0.address)) }
    }

    /// The own HoA that an own address belongs to.
    func home(of moa: MobileAddress) -> HomeAddress? { homes.keys.sorted().first { desiredLocators(of: $0).contains(moa) } }

    /// The other addresses by which the same HoA can be reached.
    func others(than own: MobileAddress) -> [MobileAddress] {
        home(of: own).map { desiredLocators(of: $0).filter { $0 != own } } ?? []
    }

    /// Something over this address is overdue, or it has just become the preferred one: ask whether anything answers over it, and over the others.
    mutating func suspect(_ own: MobileAddress, _ now: Now) {
        let others = others(than: own)
        guard !others.isEmpty else { return }
        let until = now.monotonic + configuration.paths.useMax
        for moa in [own] + others {
            for path in serverPaths(over: moa) { ways.monitor.watch(path, until: until, atOnce: true, now: now.monotonic) }
        }
    }

    /// What is watched while nothing is in use: the preferred address of each HoA, if there is another to go to.
    private mutating func watchIdle(_ now: Now) {
        var standing: Set<PathMonitor.Path> = []
        for hoa in homes.keys {
            let moas = desiredLocators(of: hoa)
            guard moas.count > 1, let first = moas.first, let path = serverPaths(over: first).first else { continue }
            standing.insert(path)
        }
        ways.monitor.stand(standing, now: now.monotonic)
    }

    // MARK: Events

    /// The own addresses changed: `gone` no longer exist, `new` have just come.
    mutating func uplinksChanged(gone: [OwnLocator], new: [OwnLocator], _ now: Now) {
        let lost = Set(gone.map(\.moa))
        ways.monitor.forget { lost.contains($0.own) }
        for moa in lost where ways.uplinks[moa]?.history.isForgotten(at: now.monotonic, configuration.paths) ?? false { ways.uplinks[moa] = nil }
        for locator in new {
            // A new connection to the network is a new start: what was dead before may work now, and what flaps is told below.
            ways.uplinks[locator.moa]?.state = .sound
            let link = LinkFlaps.Link(interface: locator.interface, isIPv4: locator.moa.isIPv4)
            if let pause = ways.flaps.holdDown(link, at: now.monotonic, configuration.paths) {
                ways.uplinks[locator.moa, default: Uplink()].state = .flapping(until: now.monotonic + pause)
                log(.notice, "\(locator.interface) comes and goes: \(locator.moa) is preferred only after it has stayed for \(pause.components.seconds) s")
            }
        }
        for link in Set(gone.map { LinkFlaps.Link(interface: $0.interface, isIPv4: $0.moa.isIPv4) }).sorted() { ways.flaps.lost(link, at: now.monotonic) }
        pruneUplinks()
    }

    /// What is remembered of addresses that are gone is bounded.
    private mutating func pruneUplinks() {
        let present = Set(systemLocators.map(\.moa))
        guard ways.uplinks.count > Self.uplinksMax else { return }
        for moa in ways.uplinks.keys.sorted() where !present.contains(moa) && ways.uplinks.count > Self.uplinksMax { ways.uplinks[moa] = nil }
    }

    private static let uplinksMax = 64

    /// The preferred address of a HoA changed: whether anything answers there is asked at once rather than when packets were lost.
    mutating func checkNewUplink(_ own: MobileAddress, _ now: Now) { suspect(own, now) }

    /// A person chose this interface: what was held against it counts no more.
    mutating func trust(interface: String, _ now: Now) {
        for locator in systemLocators where locator.interface == interface {
            endRecovery(of: locator.moa, now)
            ways.uplinks[locator.moa]?.state = .sound
        }
    }

    /// Carries on with what is due, and sets the time for the next look. Ends every event that may have changed what is watched.
    mutating func runPaths(_ now: Now) {
        guard configuration.paths.isProbing else { return scheduleTrust(now) }
        watchIdle(now)
        // An answer to one event may make another due; the bound is only against a mistake.
        for _ in 0..<8 {
            var generator = random
            let events = ways.monitor.due(now: now.monotonic) { UInt32.random(in: .min ... .max, using: &generator) }
            random = generator
            guard !events.isEmpty else { break }
            for event in events {
                switch event {
                case .probe(let path, let sequence): probe(path, sequence, now)
                case .missed(let path): pathMissed(path, now)
                case .silent(let path): pathSilent(path, now)
                }
            }
        }
        scheduleTrust(now)
    }

    private mutating func scheduleTrust(_ now: Now) {
        let trusted = ways.uplinks.values.compactMap(\.trustedAt).min()
        guard let next = [ways.monitor.next, trusted].compactMap({ $0 }).min() else {
            deadlines.cancel(.paths)
            return
        }
        deadlines.set(.paths, at: max(next, now.monotonic))
    }

    mutating func pathsDue(_ now: Now) {
        for moa in ways.uplinks.keys.sorted() {
            guard let uplink = ways.uplinks[moa], let time = uplink.trustedAt, time <= now.monotonic else { continue }
            trustAgain(moa, uplink, now)
        }
        runPaths(now)
    }

    // MARK: Probes

    private mutating func probe(_ path: PathMonitor.Path, _ sequence: UInt32, _ now: Now) {
        let subject: HomeAddress
        let port: UInt16
        switch path.target {
        case .server:
            guard let home = home(of: path.own) else { return }
            (subject, port) = (home, SignalPort.ims)
        case .peer(let hoa, _): (subject, port) = (hoa, SignalPort.node)
        }
        let target = address(of: path.target)
        let client = exchanges.clientCookie(of: target, at: path.own.address)
        let message = SignalMessage(sequence: sequence, .maQuery(MAQuery(cookie: Cookie(client: client), hoa: subject)))
        counters.messagesSent += 1
        counters.probesSent += 1
        post(message.octets, from: path.own.address, to: Endpoint(target, port: port))
    }

    private func address(of target: PathMonitor.Target) -> IPAddress {
        switch target {
        case .server(let address): address
        case .peer(let hoa, let moa): signallingAddress(of: moa, hoa)
        }
    }

    /// A response that belongs to no exchange may answer a probe.
    ///
    /// - Returns: whether it does. Cookie, source and HoA must match, as for any response.
    mutating func finishProbe(_ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: Now) -> Bool {
        guard let path = ways.monitor.probed(message.sequence), case .maAnswer(let answer) = message.body,
            source == Endpoint(address(of: path.target), port: path.target.isServer ? SignalPort.ims : SignalPort.node), local == path.own.address,
            message.cookie.client == exchanges.clientCookie(of: source.address, at: local)
        else { return false }
        switch path.target {
        case .server:
            // Its cookie proves the address in the next registration.
            exchanges.learn(message.cookie.server, from: source.address, at: local, now.monotonic)
        case .peer(let hoa, let moa):
            guard answer.hoa == nil || answer.hoa == hoa, peers[hoa] != nil else { return false }
            if message.code == .notAuthoritative {
                locatorAnswered(hoa, moa, .notAuthoritative, now)
                return true
            }
            if message.code == .ok { prove(moa, of: hoa, now) }
        }
        ways.monitor.answered(message.sequence, now: now.monotonic)
        pathAnswered(path, now)
        runPaths(now)
        return true
    }

    // MARK: What it means

    private mutating func pathMissed(_ path: PathMonitor.Path, _ now: Now) {
        if case .peer(let hoa, let moa) = path.target, let peer = peers[hoa], currentPair(of: peer) == MobilePair(own: path.own, peer: moa) {
            let until = now.monotonic + configuration.paths.useMax
            for pair in pairs(for: peer).prefix(Self.pairsMax) { watch(pair, of: hoa, until: until, atOnce: true, now) }
        }
        // The other family of a link often shares its fate.
        let siblings = ownLocators.first { $0.moa == path.own }.map { locator in ownLocators.filter { $0.interface == locator.interface }.map(\.moa) } ?? []
        for moa in siblings where ways.uplinks[moa]?.isDead != true && desiredLocators(of: home(of: moa)).first == moa || moa == path.own { suspect(moa, now) }
    }

    private func desiredLocators(of hoa: HomeAddress?) -> [MobileAddress] { hoa.map { desiredLocators(of: $0) } ?? [] }

    private mutating func pathSilent(_ path: PathMonitor.Path, _ now: Now) {
        judge(uplink: path.own, now)
        if case .peer(let hoa, _) = path.target { judge(peer: hoa, now) }
    }

    private mutating func pathAnswered(_ path: PathMonitor.Path, _ now: Now) {
        if let uplink = ways.uplinks[path.own], case .dead(let since) = uplink.state { answersAgain(path.own, uplink, since, now) }
        for other in others(than: path.own) where ways.uplinks[other]?.isDead != true { judge(uplink: other, now) }
        if path.target.isServer { blameSilence(at: path.own, now) }
        if case .peer(let hoa, _) = path.target { judge(peer: hoa, now) }
    }

    /// Whether an own address is a way out at all. It is not if an IMS is silent over it, nothing else has answered over it of late,
    /// and something answers over another address: a silent server or peer alone says nothing about the way there.
    private mutating func judge(uplink own: MobileAddress, _ now: Now) {
        guard ways.uplinks[own]?.isDead != true else { return }
        let over = ways.monitor.over(own)
        let recent = PathMonitor.silenceMin
        guard over.contains(where: { $0.value.isSilent }), !over.contains(where: { $0.value.answered(within: recent, at: now.monotonic) }) else { return }
        let servers = over.filter { $0.key.target.isServer }
        guard serverPaths(over: own).isEmpty || servers.contains(where: { $0.value.isSilent }), !servers.contains(where: { $0.value.askedSince != nil })
        else { return }
        let window = configuration.paths.interval * 2
        // Something that is silent here answers there, and has done so since: what was not asked here proves nothing.
        guard let better = others(than: own).first(where: { other in
            over.contains { path, state in
                guard let since = state.silentSince, let there = ways.monitor[PathMonitor.Path(other, path.target)] else { return false }
                return !there.isSilent && there.answered(within: window, at: now.monotonic) && there.lastAnswer.map { $0 >= since } ?? false
            }
        }) else { return }
        var uplink = ways.uplinks[own] ?? Uplink()
        uplink.state = .dead(since: over.compactMap(\.value.silentSince).max() ?? now.monotonic)
        uplink.history.failed(at: now.monotonic, configuration.paths)
        ways.uplinks[own] = uplink
        counters.uplinkFailures += 1
        log(.warning, "\(named(own)) is up but dead: nothing answers over it, but something over \(named(better)); it is used last")
        for path in recoveryPaths(over: own, servers: servers.map(\.key), peers: over.map(\.key)) {
            ways.monitor.watch(path, until: .distantFuture, now: now.monotonic)
        }
        adopt(systemLocators, now)
    }

    /// By what a dead address shows that it works again: our servers, or where there are none the peers that it was used for.
    private func recoveryPaths(over own: MobileAddress, servers: [PathMonitor.Path], peers: [PathMonitor.Path]) -> [PathMonitor.Path] {
        let known = Set(serverPaths(over: own)).union(servers)
        return known.isEmpty ? Array(peers.sorted().prefix(Self.serversMax)) : known.sorted()
    }

    private mutating func answersAgain(_ own: MobileAddress, _ uplink: Uplink, _ since: MonotonicTime, _ now: Now) {
        let pause = uplink.history.holdDown(configuration.paths)
        ways.uplinks[own]?.state = .returning(since: since, until: now.monotonic + pause)
        log(.notice, "\(named(own)) answers again after \((now.monotonic - since).components.seconds) s; preferred again if it does so for \(pause.components.seconds) s")
        adopt(systemLocators, now)
    }

    private mutating func endRecovery(of own: MobileAddress, _ now: Now) {
        for (path, state) in ways.monitor.over(own) where state.watchedUntil == .distantFuture { ways.monitor.unwatch(path, now: now.monotonic) }
    }

    private mutating func trustAgain(_ own: MobileAddress, _ uplink: Uplink, _ now: Now) {
        if uplink.isRefused, tryRefused(own, now) { return }
        if case .returning(let since, _) = uplink.state {
            // Trusted on what it did all the time, not on what it did at first.
            let pause = uplink.history.holdDown(configuration.paths)
            let steady = ways.monitor.over(own).filter { $0.value.answered(within: configuration.paths.interval * 2, at: now.monotonic) }
            guard let began = steady.compactMap(\.value.answeringSince).min(), now.monotonic - began >= pause else {
                let until = steady.compactMap(\.value.answeringSince).min().map { $0 + pause } ?? now.monotonic + configuration.paths.interval
                ways.uplinks[own]?.state = .returning(since: since, until: until)
                return
            }
            endRecovery(of: own, now)
        }
        ways.uplinks[own]?.state = .sound
        log(.notice, "\(named(own)) has its place in the order of preference again")
        adopt(systemLocators, now)
    }

    /// Which pair a peer is reached by: the first in order of preference that answers, but back to a better one only after its hold-down.
    private mutating func judge(peer hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let current = currentPair(of: peer) else { return }
        let pairs = pairs(for: peer)
        func state(_ pair: MobilePair) -> PathMonitor.State? { ways.monitor[PathMonitor.Path(pair.own, .peer(hoa, pair.peer))] }
        let silentSince = state(current)?.silentSince
        let isSilent = silentSince != nil
        guard isSilent || ways.detours[hoa]?.isTaken == true else { return }
        let window = configuration.paths.interval * 2
        let pause = ways.detours[hoa]?.history.holdDown(configuration.paths) ?? configuration.paths.holdDown
        let choice = pairs.first { pair in
            guard pair != current, let state = state(pair), !state.isSilent, state.answered(within: window, at: now.monotonic) else { return false }
            // What it answered before the present one fell silent may have been the last of it, too.
            if let silentSince { return state.lastAnswer.map { $0 >= silentSince } ?? false }
            return state.answeringSince.map { now.monotonic - $0 >= pause } ?? false
        }
        guard let choice else { return }
        // Back only, never on: what comes later in the order is for when the present one is silent.
        if !isSilent, let here = pairs.firstIndex(of: current), let there = pairs.firstIndex(of: choice), there > here { return }
        take(choice, for: peer, instead: current, isFailure: isSilent, now)
    }

    private mutating func take(_ pair: MobilePair, for peer: Peer, instead current: MobilePair, isFailure: Bool, _ now: Now) {
        let hoa = peer.hoa
        if ways.detours[hoa] == nil, ways.detours.count >= configuration.paths.detoursMax {
            // Memories go first, then whichever is the oldest.
            let victim = ways.detours.min { ($0.value.isTaken ? 1 : 0, $0.value.since, $0.key) < ($1.value.isTaken ? 1 : 0, $1.value.since, $1.key) }?.key
            if let victim {
                ways.detours[victim] = nil
                applyPeer(victim, now)
            }
        }
        var detour = ways.detours[hoa] ?? Detour(since: now.monotonic)
        if isFailure { detour.history.failed(at: now.monotonic, configuration.paths) }
        if !detour.isTaken { detour.since = now.monotonic }
        detour.own = pair.own == preferredOwnMoA(for: hoa) ? nil : pair.own
        detour.moa = pair.peer == usualLocator(of: peer) ? nil : pair.peer
        ways.detours[hoa] = detour
        if isFailure {
            counters.detours += 1
            log(.warning, "\(hoa) does not answer by \(current.own) -> \(current.peer); its traffic goes by \(pair.own) -> \(pair.peer)")
        } else {
            log(.notice, "\(hoa) answers by \(pair.own) -> \(pair.peer) again; its traffic goes back there")
        }
        if detour.own == nil, let own = home(for: hoa) {
            let path = pathNumber(of: pair.own, own)
            peers[hoa]?.path = path
        }
        applyPeer(hoa, now)
        notePeerUse(hoa, now)
    }

    func named(_ own: MobileAddress) -> String {
        ownLocators.first { $0.moa == own }.map { "\($0.interface) (\(own))" } ?? "\(own)"
    }

    // MARK: Detours, as others see them

    /// The own address that this peer's traffic leaves from.
    func ownMoA(of peer: Peer) -> MobileAddress? {
        guard let own = ways.detours[peer.hoa]?.own, let home = home(for: peer.hoa), desiredLocators(of: home).contains(own) else { return ownPaths[peer.path] }
        return own
    }

    /// The peer's locator of a detour, as long as its record lists it.
    func detouredLocator(of peer: Peer) -> MobileAddress? {
        guard let moa = ways.detours[peer.hoa]?.moa, peer.lists(moa) else { return nil }
        return moa
    }

    /// Ends what a detour was for: the address is gone, or has become the usual one.
    mutating func pruneDetour(of peer: Peer) {
        guard let detour = ways.detours[peer.hoa], detour.isTaken else { return }
        let own = home(for: peer.hoa).map { desiredLocators(of: $0) } ?? []
        if let moa = detour.own, !own.contains(moa) || moa == preferredOwnMoA(for: peer.hoa) { ways.detours[peer.hoa]?.own = nil }
        if let moa = detour.moa, !peer.lists(moa) || moa == usualLocator(of: peer) { ways.detours[peer.hoa]?.moa = nil }
    }

    mutating func forgetPaths(of hoa: HomeAddress) {
        ways.detours[hoa] = nil
        ways.monitor.forget { if case .peer(hoa, _) = $0.target { true } else { false } }
    }
}
