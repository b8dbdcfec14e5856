import MATSignal

// IMS Update: keeping our own mapping at our own IMS (section 7, "Registration and handover"; paper 4.3 (1)).

extension NodeCore {
    /// Registers the HoA's present locators; called at start, when they change, and at half the lifetime.
    mutating func register(_ hoa: HomeAddress, _ now: Now) {
        guard var home = homes[hoa] else { return }
        deadlines.cancel(.registration(hoa))
        deadlines.cancel(.proofs(hoa))
        let locators = desiredLocators(of: hoa)
        guard !locators.isEmpty else {
            cancel(.register(hoa))
            home.phase = .waiting
            homes[hoa] = home
            return
        }
        guard let servers = home.servers else {
            home.phase = .waiting
            homes[hoa] = home
            lookUp(hoa, for: .home, now)
            return
        }
        // What the DNS said last is used while it is asked again: right after a move it may not be reachable yet.
        if servers.expires <= now.monotonic { lookUp(hoa, for: .home, now) }
        // Beside the proofs, so that a start takes no round trip more.
        let isReadingClock = locators.first.map { readClockIfNeeded(hoa, from: $0, servers, now) } ?? false
        // The datagram's source proves itself; each further locator needs a cookie fetched from there.
        var missing: [(MobileAddress, Endpoint)] = []
        // For a network nobody can prove; its IMS's operator vouches.
        for moa in home.isNetwork ? [] : listedLocators(of: home).dropFirst() {
            guard let server = servers.endpoints.first(where: { $0.address.isIPv4 == moa.isIPv4 }) else {
                home.unproven.insert(moa)
                continue
            }
            guard self.servers.proof(servers: servers.endpoints, own: moa.address, now: now.monotonic) == nil else { continue }
            // Over a dead link no proof will come: it is not waited for.
            if uplinks.isDead(moa) { home.unproven.insert(moa) } else { missing.append((moa, server)) }
        }
        guard missing.isEmpty else {
            // The source's cookie is fetched along with the others: it would be asked for anyway.
            if let first = locators.first, let server = servers.endpoints.first(where: { $0.address.isIPv4 == first.isIPv4 }),
                !isReadingClock, self.servers.cookie(server: server.address, own: first.address, now: now.monotonic) == nil
            {
                missing.append((first, server))
            }
            home.phase = .proving
            homes[hoa] = home
            // An answer to an earlier update would end this attempt before its locators are listed.
            cancel(.register(hoa))
            deadlines.set(.proofs(hoa), at: now.monotonic + configuration.proofWaitMax)
            for (moa, server) in missing where !isUnderWay(.prove(hoa, moa)) {
                start(.prove(hoa, moa), .maQuery, to: [server], source: moa.address, triesMax: 2, now)
            }
            return
        }
        homes[hoa] = home
        signAndUpdate(hoa, now)
    }

    /// The usable addresses without those that the IMS would not take; the first is listed all the same.
    func listedLocators(of home: Home) -> [MobileAddress] {
        let all = desiredLocators(of: home.hoa)
        return all.filter { $0 == all.first || !home.unproven.contains($0) && !uplinks.isRefused($0) }
    }

    /// Signs the present locators and sends the record to the own IMS.
    mutating func signAndUpdate(_ hoa: HomeAddress, _ now: Now) {
        guard var home = homes[hoa], let servers = home.servers else { return }
        let locators = listedLocators(of: home)
        guard let first = locators.first else { return }
        guard !readClockIfNeeded(hoa, from: first, servers, now) else {
            home.phase = .proving
            homes[hoa] = home
            // An answer to an earlier update would end this attempt.
            cancel(.register(hoa))
            return
        }
        if let problem = clock.problem(lifetime: lifetime(of: home, locators), now) {
            // The next attempt reads the IMS's clock anew: it may be that one that was wrong.
            clock.doubt()
            registrationFailed(hoa, problem, now)
            return
        }
        if warnsOfExpiry(home, now) {
            warnOfExpiry(hoa, now)
            home.expiryWarnedAt = now.monotonic
        }
        // The primary locator must be the datagram's source, so only servers of its family can be asked. A server of the
        // other family alone can't check it.
        let targets = servers.endpoints.filter { $0.address.isIPv4 == first.isIPv4 }
        // Without one there may be no clock to sign by either, and nothing that the key has to do with.
        guard sign(&home, locators, now) || targets.isEmpty else {
            home.problem = "the record could not be signed"
            homes[hoa] = home
            log(.error, "\(hoa): signing failed; is the key file intact?")
            return
        }
        home.phase = .updating
        homes[hoa] = home
        guard !targets.isEmpty else {
            registrationFailed(hoa, "the IMS has no \(first.isIPv4 ? "IPv4" : "IPv6") address, which proving \(first) needs", now)
            return
        }
        start(.register(hoa), .imsUpdate, to: targets, source: first.address, now)
    }

    /// Makes the next record: sequence = max(previous + 1, Unix time in ms), but never more than 300 s ahead of a confirmed clock.
    ///
    /// - Returns: whether it was signed.
    mutating func sign(_ home: inout Home, _ locators: [MobileAddress], _ now: Now) -> Bool {
        guard let most = clock.sequenceMax(now) else { return false }
        if home.lastSequence > most {
            // Signed while a clock was wrong. No IMS with the right time took it; what it holds instead it tells by code 5.
            let lead = (home.lastSequence - most) / 1000 + 300
            log(.notice, "\(home.hoa): the sequence kept from before lies \(lead) s in the future, from a time when a clock was wrong; it counts no more")
            home.lastSequence = 0
        }
        let sequence = max(home.lastSequence + 1, now.wallMilliseconds)
        guard sequence <= most else { return false }
        let record = MappingRecord(
            hoa: home.hoa, prefixLength: home.certificate.prefixLength, sequence: sequence, lifetime: lifetime(of: home, locators),
            issued: now.wallMilliseconds,
            locators: locators.enumerated().map { Locator($1, prefixLength: home.certificate.prefixLength, preference: UInt8(clamping: ($0 + 1) * 10)) })
        guard let mapping = record.signed(with: home.key) else { return false }
        home.mapping = CertifiedMapping(mapping: mapping, certificate: home.certificate)
        home.lastSequence = record.sequence
        return true
    }

    /// Seconds.
    private func lifetime(of home: Home, _ locators: [MobileAddress]) -> UInt32 {
        let atHome = !locators.isEmpty && locators.allSatisfy { $0.address == home.hoa.address }
        return max(1, atHome ? configuration.homeLifetime : min(configuration.lifetime, MappingRecord.lifetimeMax))
    }

    mutating func proofEnded(_ hoa: HomeAddress, _ moa: MobileAddress, isAnswered: Bool, _ now: Now) {
        guard homes[hoa]?.phase == .proving else { return }
        if !isAnswered, moa != desiredLocators(of: hoa).first {
            homes[hoa]?.unproven.insert(moa)
            log(.info, "\(hoa): \(moa) gets no answer from the IMS; registering without it")
        }
        signWhenProven(hoa, now)
    }

    /// Whichever of the proofs and the reading of the clock ends last signs.
    mutating func signWhenProven(_ hoa: HomeAddress, _ now: Now) {
        guard !isUnderWay(.readClock(hoa)), !desiredLocators(of: hoa).contains(where: { isUnderWay(.prove(hoa, $0)) }) else { return }
        deadlines.cancel(.proofs(hoa))
        // Asks for nothing again: what is still missing was found unprovable.
        signAndUpdate(hoa, now)
        rememberSequence(hoa, now)
    }

    /// The proofs took too long: registering the locator that works matters more than listing all.
    mutating func proofsDue(_ hoa: HomeAddress, _ now: Now) {
        guard homes[hoa]?.phase == .proving else { return }
        for moa in desiredLocators(of: hoa) where isUnderWay(.prove(hoa, moa)) {
            cancel(.prove(hoa, moa))
            homes[hoa]?.unproven.insert(moa)
        }
        signAndUpdate(hoa, now)
        rememberSequence(hoa, now)
    }

    /// Keeps the highest sequence across restarts. What was kept before a clock was confirmed is looked at when the next record is signed.
    mutating func rememberSequence(_ hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], home.lastSequence > 0, let most = clock.sequenceMax(now), home.lastSequence <= most else { return }
        emit(.remember(hoa, sequence: home.lastSequence))
    }

    // MARK: Answers

    mutating func homeLookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ now: Now) {
        guard var home = homes[hoa] else { return }
        switch result {
        case .found(let set):
            let isNews = Set(home.servers?.endpoints ?? []) != Set(set.endpoints)
            home.servers = set
            // What denied us has denied others as well: the network has opened.
            if home.isDenied { forgetAbsence(now) }
            home.isDenied = false
            home.namesProblem = nil
            home.lookUpFailures = 0
            if isNews { home.serverHasCertificate = false }
            homes[hoa] = home
            if isNews || home.phase == .waiting || home.phase == .pausing {
                register(hoa, now)
                rememberSequence(hoa, now)
            }
        case .absent:
            // Never believed for as long as it says: a captive portal denies everything until somebody has signed in.
            home.isDenied = true
            retryLookUp(&home, "the DNS has no IMS record for \(hoa); its operator must add the lines that `mat zone` writes", now)
            homes[hoa] = home
        case .failed(let reason), .unusable(let reason):
            retryLookUp(&home, "looking up the IMS of \(hoa) failed: \(reason)", now)
            homes[hoa] = home
        }
    }

    private mutating func retryLookUp(_ home: inout Home, _ problem: String, _ now: Now) {
        if home.namesProblem != problem { log(.warning, problem) }
        home.namesProblem = problem
        deadlines.set(.lookUp(home.hoa), at: now.monotonic + home.lookUpPause)
        home.lookUpFailures += 1
    }

    mutating func registrationAnswered(_ hoa: HomeAddress, _ reply: IMSUpdateReply, _ now: Now) {
        guard var home = homes[hoa], let mapping = home.mapping else { return }
        home.observed = reply.observed
        switch reply.code {
        case .ok:
            let isFirst = home.registered == nil
            let isRenewal = home.phase == .registered || home.problem == nil
            home.phase = .registered
            home.registered = mapping.version
            home.registeredAt = now.monotonic
            home.registeredPlaces = Set(mapping.record.locators.map(\.moa))
            home.silentOver = nil
            home.serverHasCertificate = true
            home.failures = 0
            home.problem = nil
            counters.registrations += 1
            homes[hoa] = home
            for moa in home.registeredPlaces { uplinks.accept(moa) }
            _ = adopt(reply.certificate, of: hoa, now)
            if isFirst || home.owesPeers, let problem = scopeProblem(of: home) { log(.warning, "\(hoa) is registered, but \(problem)") }
            let places = mapping.record.locators.map(\.moa.description).joined(separator: ", ")
            log(isFirst || !isRenewal || home.owesPeers ? .notice : .debug, "\(hoa) is registered at \(places)")
            deadlines.set(.registration(hoa), at: now.monotonic + refreshInterval(of: mapping, now))
            selfCheckLater(hoa, now)
            registrationDone(hoa, now)
        case .stale:
            // Another instance of us, or a clock that went back: go past what the server has.
            guard let current = reply.current, (try? CertifiedMapping(mapping: current, certificate: home.certificate).verifySignature()) != nil else {
                registrationFailed(hoa, "the IMS holds a record of \(hoa) that another key signed: the address was enrolled for another node", now)
                return
            }
            guard let most = clock.sequenceMax(now), current.record.sequence < most else {
                clock.doubt()
                registrationFailed(
                    hoa, "the IMS has a record of sequence \(current.record.sequence), which lies in the future: it was taken while a clock was wrong", now)
                return
            }
            // Section 4: max(enclosed, own, now) + 1.
            home.lastSequence = max(home.lastSequence, current.record.sequence, min(now.wallMilliseconds, most))
            homes[hoa] = home
            log(.notice, "\(hoa): the IMS has a newer record; signing one beyond it")
            signAndUpdate(hoa, now)
            rememberSequence(hoa, now)
        case .authenticationFailed where adopt(reply.certificate, of: hoa, now):
            // The answer that brought it was lost; it is the one that counts, so the record is signed again under it.
            signAndUpdate(hoa, now)
            rememberSequence(hoa, now)
        case .authenticationFailed where home.serverHasCertificate:
            // The server knows no such CERT-ID: give it the certificate.
            home.serverHasCertificate = false
            homes[hoa] = home
            signAndUpdate(hoa, now)
        case .tryLater:
            fail(&home, "the IMS asks to try later\(reply.text.map { ": \($0.printable)" } ?? "")")
            homes[hoa] = home
            deadlines.set(.registration(hoa), at: now.monotonic + .seconds(Int64(min(60, max(1, reply.lifetime ?? 1)))))
        default:
            // It may be that a clock is wrong, here or there.
            if reply.code == .authenticationFailed { clock.doubt() }
            // Proofs may have aged on the way; they are fetched anew.
            exchanges.forgetCookies(of: home.servers?.endpoints ?? [], at: mapping.record.locators.map(\.moa))
            homes[hoa] = home
            if reply.code == .refused, registrationRefused(hoa, mapping.record, reply, now) { return }
            registrationFailed(hoa, "the IMS refused: \(reply.code)\(reply.text.map { " (\($0.printable))" } ?? "")", now)
        }
    }

    /// When to register again: at half the record's lifetime, and when the last third of a short certificate's life begins, so that the IMS
    /// renews it before it ends.
    private func refreshInterval(of mapping: CertifiedMapping, _ now: Now) -> Duration {
        let half = Duration.seconds(Int64(mapping.record.lifetime / 2))
        let certificate = homes[mapping.hoa]?.certificate ?? mapping.certificate
        let life = certificate.notAfter - min(certificate.notAfter, certificate.notBefore)
        let renewal = certificate.notAfter - life / 3
        guard renewal > now.wallMilliseconds else { return half }
        return min(half, .milliseconds(Int64(clamping: renewal - now.wallMilliseconds)) + .seconds(1))
    }

    /// The instance that answered is asked first from now on; the DNS's order holds again when it is asked again.
    mutating func prefer(_ server: Endpoint, of hoa: HomeAddress) {
        guard var set = homes[hoa]?.servers, let index = set.endpoints.firstIndex(of: server), index > 0 else { return }
        set.endpoints.remove(at: index)
        set.endpoints.insert(server, at: 0)
        homes[hoa]?.servers = set
    }

    private func fail(_ home: inout Home, _ problem: String) {
        home.phase = .pausing
        home.problem = problem
        home.failures += 1
    }

    mutating func registrationFailed(_ hoa: HomeAddress, _ reason: String, _ now: Now) {
        guard var home = homes[hoa] else { return }
        if home.problem != reason { log(.warning, "\(hoa) could not be registered: \(reason); trying again in \(home.pause.components.seconds) s") }
        fail(&home, reason)
        home.unproven = []
        homes[hoa] = home
        deadlines.set(.registration(hoa), at: now.monotonic + home.pause)
        // Peers can believe the record without our IMS; the IMSs follow when it is through.
        // Not of where we were before, which is all there is while no clock is confirmed.
        if home.owesPeers, let place = home.mapping?.record.locators.first?.moa, place == desiredLocators(of: hoa).first { tell(hoa, .tellPeer, now) }
    }
}
