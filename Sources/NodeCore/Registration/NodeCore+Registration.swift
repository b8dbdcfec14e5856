import MATControl
import MATCore
import MATSignal

// Own HoAs: what `Registration` is told of the rest of the node, and what is done of what it says.

extension NodeCore {
    /// What a registration sees of the rest of the node.
    private mutating func surroundings(of hoa: HomeAddress, _ now: Now) -> Registration.Surroundings {
        let locators = desiredLocators(of: hoa)
        return Registration.Surroundings(
            locators: locators, dead: Set(locators.filter(uplinks.isDead)),
            refused: Set(locators.filter(uplinks.isRefused)), cookies: exchanges.servers, clock: clock.outlook(now),
            networkKeys: homes[hoa].flatMap { $0.isNetwork ? networkKeys.keys(of: $0.prefix, now.monotonic) : nil }, endpoints: ownEndpoints,
            routed: Set(locators.filter { isRouted($0, to: hoa) }), relays: listedRelays(of: hoa))
    }

    private mutating func inform(
        _ hoa: HomeAddress, _ now: Now, _ event: (inout Registration, Registration.Surroundings) -> [Registration.Action]
    ) {
        let around = surroundings(of: hoa, now)
        guard let actions = homes.update(hoa, { event(&$0.registration, around) }) else { return }
        for action in actions { perform(action, of: hoa, now) }
    }

    private mutating func perform(_ action: Registration.Action, of hoa: HomeAddress, _ now: Now) {
        switch action {
        case .lookUpServers: lookUp(hoa, for: .home, now)
        case .lookUpKeys(let prefix): lookUpKeys(of: prefix, for: nil, now)
        case .prove(let moa, let server):
            if !isUnderWay(.prove(hoa, moa)) { start(.prove(hoa, moa), to: [server], source: moa.address, triesMax: 2, now) }
        case .observe(let moas, let servers): observe(moas, for: hoa, at: servers, now)
        case .readClock(let servers, let moa):
            if !isUnderWay(.readClock(hoa)) { start(.readClock(hoa), to: servers, source: moa.address, now) }
        case .stopProving(let moa): cancel(.prove(hoa, moa))
        case .update(let servers, let moa):
            start(.register(hoa), to: servers, source: moa.address, now)
            // In the same datagram: a server binds only whom it knows.
            holdBindings(now)
        case .stopUpdating: cancel(.register(hoa))
        case .refused(let places, let reply, let problem):
            if !registrationRefused(hoa, places, reply, now) { registrationFailed(hoa, problem, now) }
        case .registered: registered(hoa, now)
        case .tellPeers: if homes[hoa]?.announcement.isOwed == true { tell(hoa, .tellPeer, now) }
        case .doubtClock: clock.doubt()
        case .forgetCookies(let servers, let moas): exchanges.forgetCookies(of: servers, at: moas)
        case .forgetAbsence: forgetAbsence(now)
        case .remember(let sequence): emit(.remember(hoa, sequence: sequence))
        case .keep(let certificate): emit(.keepCertificate(certificate))
        case .log(let level, let text): log(level, text)
        }
    }

    /// Registers the HoA's present locators; called at start, when they change, and at half the lifetime.
    mutating func register(_ hoa: HomeAddress, _ now: Now) { inform(hoa, now) { $0.begin($1, now) } }

    mutating func registrationFailed(_ hoa: HomeAddress, _ problem: Problem, silentOver: MobileAddress? = nil, _ now: Now) {
        inform(hoa, now) { $0.failed(problem, silentOver: silentOver, $1, now) }
    }

    mutating func homeLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        inform(hoa, now) { $0.lookedUp(result, $1, now) }
        // The DNS may name other relays now.
        holdBindings(now)
    }

    mutating func proofEnded(_ hoa: HomeAddress, _ moa: MobileAddress, isAnswered: Bool, _ now: Now) {
        inform(hoa, now) { $0.proofEnded(of: moa, isAnswered: isAnswered, $1, now) }
    }

    mutating func observationEnded(_ moa: MobileAddress, _ now: Now) {
        for hoa in homes.keys.sorted() { inform(hoa, now) { $0.observationEnded(of: moa, $1, now) } }
    }

    mutating func clockRead(_ hoa: HomeAddress, refusal: Problem?, silentOver: MobileAddress? = nil, _ now: Now) {
        inform(hoa, now) { $0.clockRead(refusal: refusal, silentOver: silentOver, $1, now) }
    }

    mutating func registrationAnswered(_ hoa: HomeAddress, _ reply: IMSUpdateReply, from server: Endpoint, _ now: Now) {
        let owesPeers = homes[hoa]?.announcement.isOwed ?? false
        inform(hoa, now) { $0.answered(reply, from: server, owesPeers: owesPeers, $1, now) }
    }

    /// Our IMS holds our new record: peers and their IMSs can be told.
    private mutating func registered(_ hoa: HomeAddress, _ now: Now) {
        guard let acked = homes[hoa]?.registration.acked else { return }
        counters.registrations += 1
        history.registered(hoa, now)
        for moa in acked.places { uplinks.accept(moa) }
        awaitChecks(of: hoa, now)
        homes[hoa]?.registration.scheduleSelfCheck(random: &random, now.monotonic)
        continueResolving(hoa.family, now)
        if homes[hoa]?.announcement.isOwed == true {
            homes[hoa]?.announcement.told()
            tell(hoa, [.tellPeer, .tellServer, .subscribe], now)
        }
        listRelays(of: hoa, now)
    }

    /// Signs a record of where we are now, for peers to believe before our IMS has it.
    ///
    /// - Returns: whether it could be signed.
    mutating func signAtOnce(_ hoa: HomeAddress, _ now: Now) -> Bool {
        let around = surroundings(of: hoa, now)
        guard let actions = homes[hoa]?.registration.signAtOnce(around, now) else { return false }
        for action in actions { perform(action, of: hoa, now) }
        return true
    }

    /// Someone has a record of ours that is newer than ours: sign one beyond it.
    mutating func goBeyond(_ hoa: HomeAddress, _ sequence: UInt64, _ now: Now) {
        let around = surroundings(of: hoa, now)
        guard homes[hoa]?.registration.goBeyond(sequence, around) == true else { return }
        homes[hoa]?.announcement.owe()
        register(hoa, now)
    }

    // MARK: Time

    /// When something of an own HoA is due next.
    var nextHomeDue: MonotonicTime? { homes.values.reduce(nil) { $0.earlier($1.registration.nextDue) } }

    mutating func homeDue(_ now: Now) {
        for hoa in homes.keys.sorted() {
            switch homes[hoa]?.registration.takeDue(now.monotonic) {
            case nil: continue
            case .proofs: inform(hoa, now) { $0.proofsDue($1, now) }
            case .attempt: registrationDue(hoa, now)
            case .lookUp: lookUp(hoa, for: .home, now)
            case .selfCheck:
                homes[hoa]?.registration.scheduleSelfCheck(random: &random, now.monotonic)
                checkSelf(hoa, now)
            }
            return
        }
    }

    // MARK: Names

    /// The network or the resolvers changed: whose IMSs are not known, or not any more, is looked up at once.
    mutating func homeNamesChanged(_ now: Now) {
        for hoa in homes.keys.sorted() { inform(hoa, now) { home, _ in home.namesChanged(now.monotonic) } }
    }

    // MARK: The right time (protocol.md section 4)

    /// NTP says that the machine's clock is right. Told now and then.
    public mutating func clockIsSynchronized(now: Now) { clock.synchronized(now) }

    /// A server's cookie came with a response, and was not only echoed: if it is the own IMS's, it tells the time.
    mutating func readTime(of cookie: ServerCookie, from source: Endpoint, _ now: Now) {
        if homes.values.contains(where: { $0.registration.servers.contains(source) }) { clock.read(cookie, now) }
    }

    // MARK: Whether the own IMS still knows us

    /// An answer was as if our IMS did not know us: it is asked at once.
    mutating func suspectLoss(of hoa: HomeAddress, _ now: Now) {
        if homes[hoa]?.registration.selfCheck.followsSuspicion(now.monotonic) == true { checkSelf(hoa, now) }
    }

    /// Our IMS pushed a record of an own HoA: if it is another key's, we are asked for no more.
    mutating func pushed(_ record: EnclosedRecord, of hoa: HomeAddress, from server: Endpoint, _ now: Now) {
        guard case .whole(let certificate) = record.certificate, let own = homes[hoa]?.registration.certificate.current,
            certificate.nodeKey != own.nodeKey
        else { return }
        let isBusy = isAskingOfSelf(hoa)
        if homes[hoa]?.registration.followsPush(isBusy: isBusy, now.monotonic) == true { checkSelf(hoa, first: server, now) }
    }

    /// Something is under way that tells whether the IMS has our record.
    private func isAskingOfSelf(_ hoa: HomeAddress) -> Bool { isUnderWay(.checkSelf(hoa)) || isUnderWay(.register(hoa)) }

    private mutating func checkSelf(_ hoa: HomeAddress, first: Endpoint? = nil, _ now: Now) {
        let locators = desiredLocators(of: hoa)
        let isBusy = isAskingOfSelf(hoa)
        guard let question = homes[hoa]?.registration.checkSelf(at: locators, isBusy: isBusy, first: first, now.monotonic) else { return }
        start(.checkSelf(hoa), to: question.servers, source: question.source.address, triesMax: Retransmission.failoverTry, now)
    }

    mutating func selfChecked(_ hoa: HomeAddress, _ answer: MAAnswer, _ now: Now) {
        guard let (loss, text) = homes[hoa]?.registration.selfChecked(answer) else { return }
        log(.warning, text)
        register(hoa, now)
        guard loss != .address else { return }
        counters.recordsLost += 1
        // The other family's record is likely to have been in the same store.
        for other in homes.keys.sorted() where other != hoa { suspectLoss(of: other, now) }
    }
}

extension Dictionary {
    /// Changes a value in place, if there is one.
    fileprivate mutating func update<Result>(_ key: Key, _ change: (inout Value) -> Result) -> Result? {
        guard let index = index(forKey: key) else { return nil }
        return change(&values[index])
    }
}
