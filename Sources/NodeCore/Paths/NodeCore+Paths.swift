import MATSignal

// Paths that are up but dead. `PathMonitor` finds what does not answer; here that is told to those who say what it means:
// - one peer is silent over one pair of addresses: its other pairs are tried, and that peer alone takes another (`Detours`)
// - nothing answers over an own address, and something does over another: a handover away from it (`Uplinks`)
// - nothing answers anywhere: everything stays as it is.
// What was left is gone back to when it has answered for the hold-down.

extension NodeCore {
    // MARK: What to watch

    /// Packets were exchanged with the peer, or wait for it.
    mutating func notePeerUse(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], hasChoice(peer) else { return }
        let until = monitor.useEnd(now: now.monotonic)
        guard let current = currentPair(of: peer) else {
            for pair in pairs(for: peer).prefix(Self.pairsMax) { watch(pair, of: hoa, until: until, now) }
            return
        }
        watch(current, of: hoa, until: until, now)
        // A peer that is silent itself does not tell whether the way out that it kept still works.
        if isBehind(peer) { for path in serverPaths(over: current.own) { monitor.watch(path, until: until, now: now.monotonic) } }
        // On a detour the better ones are asked whether they are back.
        if detours.isTaken(by: hoa) {
            for pair in pairs(for: peer).prefix(while: { $0 != current }).prefix(Self.pairsMax) { watch(pair, of: hoa, until: until, now) }
        }
    }

    /// Without another pair there is nothing to decide, so nothing is asked.
    private func hasChoice(_ peer: Peer) -> Bool {
        peer.locators.listed.count > 1 || (home(for: peer.hoa).map { desiredLocators(of: $0).count > 1 } ?? false)
    }

    private mutating func watch(_ pair: MobilePair, of hoa: HomeAddress, until: MonotonicTime, atOnce: Bool = false, _ now: Now) {
        monitor.watch(PathMonitor.Path(pair.own, .peer(hoa, pair.peer)), until: until, atOnce: atOnce, now: now.monotonic)
    }

    /// Pairs of one peer that are tried.
    static let pairsMax = 8

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
        return servers.endpoints.filter { $0.family == own.family }.prefix(Uplinks.recoveryMax).map {
            PathMonitor.Path(own, .server($0.address))
        }
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
            for path in serverPaths(over: moa) { monitor.watch(path, until: until, atOnce: true, now: now.monotonic) }
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
        monitor.stand(standing, now: now.monotonic)
    }

    // MARK: Events

    /// Carries on with what is due, and sets the time for the next look. Ends every event that may have changed what is watched.
    mutating func runPaths(_ now: Now) {
        guard configuration.paths.isProbing else { return scheduleTrust(now) }
        watchIdle(now)
        // An answer to one event may make another due; the bound is only against a mistake.
        for _ in 0..<8 {
            var generator = random
            let events = monitor.due(now: now.monotonic) { UInt32.random(in: .min ... .max, using: &generator) }
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
        guard let next = monitor.next.earlier(uplinks.nextTrial) else {
            deadlines.cancel(.paths)
            return
        }
        deadlines.set(.paths, at: max(next, now.monotonic))
    }

    mutating func pathsDue(_ now: Now) {
        for moa in uplinks.trials(now: now.monotonic) { trustAgain(moa, now) }
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
        guard let path = monitor.probed(message.sequence), case .maAnswer(let answer) = message.body,
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
        monitor.answered(message.sequence, now: now.monotonic)
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
        for moa in addresses.siblings(of: path.own) {
            if !uplinks.isDead(moa) && home(of: moa).flatMap({ desiredLocators(of: $0).first }) == moa || moa == path.own { suspect(moa, now) }
        }
    }

    private mutating func pathSilent(_ path: PathMonitor.Path, _ now: Now) {
        judge(uplink: path.own, now)
        if case .peer(let hoa, _) = path.target { judge(peer: hoa, now) }
    }

    private mutating func pathAnswered(_ path: PathMonitor.Path, _ now: Now) {
        if let (silence, pause) = uplinks.answered(path.own, now: now.monotonic) {
            log(
                .notice,
                "\(addresses.named(path.own)) answers again after \(silence.components.seconds) s; preferred again if it does so for \(pause.components.seconds) s"
            )
            arrangeAgain(now)
        }
        for other in others(than: path.own) where !uplinks.isDead(other) { judge(uplink: other, now) }
        if path.target.isServer { blameSilence(at: path.own, now) }
        if case .peer(let hoa, _) = path.target { judge(peer: hoa, now) }
    }

    private mutating func judge(uplink own: MobileAddress, _ now: Now) {
        guard let death = uplinks.judge(own, servers: serverPaths(over: own), others: others(than: own), monitor, now: now.monotonic) else { return }
        counters.uplinkFailures += 1
        log(
            .warning,
            "\(addresses.named(own)) is up but dead: nothing answers over it, but something over \(addresses.named(death.better)); it is used last")
        for path in death.recovery { monitor.watch(path, until: .distantFuture, now: now.monotonic) }
        arrangeAgain(now)
    }

    mutating func endRecovery(of own: MobileAddress, _ now: Now) {
        for (path, state) in monitor.over(own) where state.watchedUntil == .distantFuture { monitor.unwatch(path, now: now.monotonic) }
    }

    private mutating func trustAgain(_ own: MobileAddress, _ now: Now) {
        switch uplinks.trial(own, monitor, now: now.monotonic) {
        case .goesOn:
            return
        case .refused:
            if tryRefused(own, now) { return }
            uplinks.trust(own)
        case .passed(let wasDead):
            if wasDead { endRecovery(of: own, now) }
        }
        log(.notice, "\(addresses.named(own)) has its place in the order of preference again")
        arrangeAgain(now)
    }

    /// Which pair a peer is reached by.
    private mutating func judge(peer hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let current = currentPair(of: peer),
            let choice = detours.choose(for: hoa, among: pairs(for: peer), instead: current, monitor, now: now.monotonic)
        else { return }
        let pair = choice.pair
        if let victim = detours.makeRoom(for: hoa) { applyPeer(victim, now) }
        let isUsualOwn = pair.own == preferredOwnMoA(for: hoa)
        detours.take(
            own: isUsualOwn ? nil : pair.own, moa: pair.peer == usualLocator(of: peer) ? nil : pair.peer, by: hoa, isFailure: choice.isFailure,
            now: now.monotonic)
        if choice.isFailure {
            counters.detours += 1
            log(.warning, "\(hoa) does not answer by \(current.own) -> \(current.peer); its traffic goes by \(pair.own) -> \(pair.peer)")
        } else {
            log(.notice, "\(hoa) answers by \(pair.own) -> \(pair.peer) again; its traffic goes back there")
        }
        if isUsualOwn, let own = home(for: hoa) {
            let path = pathNumber(of: pair.own, own)
            peers[hoa]?.path = path
        }
        applyPeer(hoa, now)
        notePeerUse(hoa, now)
    }

    // MARK: Detours, as others see them

    /// The own address that this peer's traffic leaves from.
    func ownMoA(of peer: Peer) -> MobileAddress? {
        guard let own = detours[peer.hoa]?.own, let home = home(for: peer.hoa), desiredLocators(of: home).contains(own) else {
            return ownPaths[peer.path]
        }
        return own
    }

    /// The peer's locator of a detour, as long as its record lists it.
    func detouredLocator(of peer: Peer) -> MobileAddress? { detours[peer.hoa]?.moa.flatMap { peer.lists($0) ? $0 : nil } }

    /// Ends what a detour was for: the address is gone, or has become the usual one.
    mutating func pruneDetour(of peer: Peer) {
        guard detours.isTaken(by: peer.hoa) else { return }
        let own = home(for: peer.hoa).map { desiredLocators(of: $0) } ?? []
        let (usualOwn, usual) = (preferredOwnMoA(for: peer.hoa), usualLocator(of: peer))
        detours.prune(peer.hoa, own: { own.contains($0) && $0 != usualOwn }, moa: { peer.lists($0) && $0 != usual })
    }

    mutating func forgetPaths(of hoa: HomeAddress) {
        detours.remove(hoa)
        monitor.forget { if case .peer(hoa, _) = $0.target { true } else { false } }
    }

    // MARK: Preferences

    /// A person wants this interface to be used first towards one peer; `nil` goes back to what is configured.
    public mutating func prefer(interface: String?, for peer: HomeAddress, now: Now) -> [NodeAction] {
        if preferences.choose(interface, for: peer), let interface {
            log(.notice, "traffic to \(peer) is to use \(interface)")
        } else {
            log(.notice, "traffic to \(peer) uses the configured order of interfaces again")
        }
        detours.remove(peer)
        switchPeer(peer, now)
        runPaths(now)
        return endEvent()
    }

    /// The own addresses for a peer, the best first.
    func ownMoAs(for peer: HomeAddress) -> [MobileAddress] {
        guard let own = home(for: peer) else { return [] }
        return preferences.addresses(for: peer, among: desiredLocators(of: own), listedIn: homes[own]?.mapping?.record, addresses, uplinks)
    }

    func preferredOwnMoA(for peer: HomeAddress) -> MobileAddress? { ownMoAs(for: peer).first }
}
