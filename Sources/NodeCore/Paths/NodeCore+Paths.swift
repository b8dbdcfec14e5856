import MATSignal

// Paths that are up but dead. `PathMonitor` finds what does not answer; here that is told to those who say what it means:
// - one peer is silent over one pair of addresses: its other pairs are tried, and that peer alone takes another (`PeerPaths`, `Detours`)
// - nothing answers over an own address, and something does over another: a handover away from it (`Uplinks`)
// - nothing answers anywhere: everything stays as it is.
// What was left is gone back to when it has answered for the hold-down.

extension NodeCore {
    // MARK: What to watch

    /// The own addresses as ways out.
    private var ways: OwnWays {
        OwnWays(
            homes.keys.sorted().map { hoa in
                OwnWays.Home(places: desiredLocators(of: hoa), servers: homes[hoa]?.servers?.endpoints ?? [], hoa: hoa)
            })
    }

    /// The own HoA that an own address belongs to.
    func home(of moa: MobileAddress) -> HomeAddress? { ways.home(of: moa) }

    /// The other addresses by which the same HoA can be reached.
    func others(than own: MobileAddress) -> [MobileAddress] { ways.others(than: own) }

    /// Packets were exchanged with the peer, or wait for it.
    mutating func notePeerUse(_ hoa: HomeAddress, _ now: Now) {
        guard let peer = peers[hoa], let side = ownSide(for: hoa) else { return }
        let until = monitor.useEnd(now: now.monotonic)
        for probe in paths.probes(of: peer, side, addresses, uplinks) {
            switch probe {
            case .path(let pair): watch(pair, of: hoa, until: until, now)
            case .wayOut(let own): for path in ways.servers(over: own) { monitor.watch(path, until: until, now: now.monotonic) }
            }
        }
    }

    private mutating func watch(_ pair: MobilePair, of hoa: HomeAddress, until: MonotonicTime, atOnce: Bool = false, _ now: Now) {
        monitor.watch(PathMonitor.Path(pair.own, .peer(hoa, pair.peer)), until: until, atOnce: atOnce, now: now.monotonic)
    }

    /// Something over this address is overdue, or it has just become the preferred one: ask whether anything answers over it, and over the others.
    mutating func suspect(_ own: MobileAddress, _ now: Now) {
        let until = now.monotonic + configuration.paths.useMax
        for path in ways.suspicions(about: own) { monitor.watch(path, until: until, atOnce: true, now: now.monotonic) }
    }

    // MARK: Events

    /// Carries on with what is due, and sets the time for the next look. Ends every event that may have changed what is watched.
    mutating func runPaths(_ now: Now) {
        guard configuration.paths.isProbing else { return scheduleTrust(now) }
        monitor.stand(ways.standing, now: now.monotonic)
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
            exchanges.learn(message.cookie.server, from: source, at: local, now.monotonic)
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
        if case .peer(let hoa, let moa) = path.target, let peer = peers[hoa], let side = ownSide(for: hoa) {
            let until = now.monotonic + configuration.paths.useMax
            for pair in paths.alternatives(to: MobilePair(own: path.own, peer: moa), of: peer, side, addresses) {
                watch(pair, of: hoa, until: until, atOnce: true, now)
            }
        }
        for own in ways.suspects(for: path.own, addresses.siblings(of: path.own), uplinks) { suspect(own, now) }
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
        guard let death = uplinks.judge(own, servers: ways.servers(over: own), others: ways.others(than: own), monitor, now: now.monotonic) else {
            return
        }
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
        guard let side = ownSide(for: hoa) else { return }
        for action in paths.judge(hoa, in: &peers, side, addresses, monitor, now: now.monotonic) {
            switch action {
            case .arrange(let hoa): applyPeer(hoa, now)
            case .watch(let hoa): notePeerUse(hoa, now)
            case .count(let counter): counters[keyPath: counter] += 1
            case .log(let level, let text): log(level, text)
            }
        }
    }

    // MARK: Preferences

    /// A person wants this interface to be used first towards one peer; `nil` goes back to what is configured.
    public mutating func prefer(interface: String?, for peer: HomeAddress, now: Now) -> [NodeAction] {
        if preferences.choose(interface, for: peer), let interface {
            log(.notice, "traffic to \(peer) is to use \(interface)")
        } else {
            log(.notice, "traffic to \(peer) uses the configured order of interfaces again")
        }
        paths.endDetour(of: peer)
        switchPeer(peer, now)
        runPaths(now)
        return endEvent()
    }
}
