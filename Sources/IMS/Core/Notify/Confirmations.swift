import MATCore
import MATDNS
import MATSignal

// Asking IMS_MN: what a notifier says is a hint, what is signed is identity, what IMS_MN answers is truth (section 7).

extension IMSCore {
    /// How long an answer that is older than what is held is asked for again: the node's update may be on its way to IMS_MN.
    static let olderAnswerFor: Duration = .seconds(3)
    static let olderAnswerRetry: Duration = .milliseconds(500)

    /// Takes the confirmation of an HoA as far as what is known allows.
    mutating func advance(_ hoa: HomeAddress, _ now: Now) {
        guard let confirmation = confirmations[hoa], !confirmation.isOwn else { return }
        switch lookUp(IPPrefix(hoa.address), for: hoa, now) {
        case nil: return
        case .found(let set)?:
            if confirmation.query == nil { beginQuery(hoa, set, now) }
            verifyEnclosed(hoa, now)
            verifyOffered(hoa, set, now)
            if let answered = confirmations[hoa]?.answered { takeTruth(answered, hoa, now) }
        case .absent?: abandon(hoa, .upstreamFailed, "DNS has no IMS for \(hoa)", now)
        case .failed(let reason)?, .unusable(let reason)?: abandon(hoa, .upstreamFailed, "look-up of the IMS of \(hoa) failed: \(reason)", now)
        }
    }

    /// Ends the confirmation: who still waits gets the code, what is held as a hint stays one.
    private mutating func abandon(_ hoa: HomeAddress, _ code: ResponseCode, _ reason: String, _ now: Now) {
        guard let confirmation = endConfirmation(hoa) else { return }
        for key in confirmation.waiting { fail(key, code, reason, now) }
        for offer in confirmation.offered { acknowledge(offer.request, hoa, code, text: reason, now) }
        if confirmation.waiting.isEmpty { logRefusal("could not confirm \(hoa) with its IMS: \(reason)", now) }
    }

    @discardableResult
    mutating func endConfirmation(_ hoa: HomeAddress) -> Confirmation? {
        guard let confirmation = confirmations.removeValue(forKey: hoa) else { return nil }
        if let query = confirmation.query { confirmationKeys[query.sequence] = nil }
        if let inquirer = confirmation.inquirer { endInquiry(of: inquirer) }
        deadlines.cancel(.confirmation(hoa))
        return confirmation
    }

    // MARK: What notifiers enclosed

    private mutating func verifyEnclosed(_ hoa: HomeAddress, _ now: Now) {
        guard let waiting = confirmations[hoa]?.waiting else { return }
        for key in waiting {
            guard let pending = notifies[key], let enclosed = pending.enclosed, !pending.isVerifying else { continue }
            if let held = remembered.entry(covering: hoa), held.certified == enclosed {
                confirmations[hoa]?.noteTold(key.peerHoA)
                accept(key, enclosed, now)
                continue
            }
            guard let keys = keys(for: enclosed.certificate, of: hoa, now) else { continue }
            switch keys {
            case .failure(let failure):
                fail(key, .upstreamFailed, failure.reason, now)
            case .success(let keys):
                do throws(VerificationRefusal) {
                    try verify(VerificationJob(enclosed, issuers: keys), for: .notify(key), source: key.source.address, now)
                    notifies[key]?.isVerifying = true
                } catch {
                    fail(key, .tryLater, error.reason, lifetime: error.seconds, now)
                }
            }
        }
        confirmations[hoa]?.waiting.removeAll { notifies[$0] == nil }
    }

    /// The signature of what a notifier enclosed has been checked. IMS_MN's own answer may have come before and settled it.
    mutating func finishNotify(_ key: NotifyKey, _ failure: VerificationFailure?, _ now: Now) {
        guard let enclosed = notifies[key]?.enclosed else { return }
        if let failure {
            fail(key, .authenticationFailed, failure.reason, now)
        } else {
            hold(enclosed, isConfirmed: false, from: key.source.address, now)
            confirmations[key.hoa]?.noteTold(key.peerHoA)
            accept(key, enclosed, now)
        }
        confirmations[key.hoa]?.waiting.removeAll { $0 == key }
    }

    /// Remembers the record unless a newer one is held.
    private mutating func hold(_ certified: CertifiedMapping, isConfirmed: Bool, from source: IPAddress?, _ now: Now) {
        if let held = remembered[certified.record.prefix], held.certified.version > certified.version { return }
        noteRemembered(certified, from: nil, now)
        remembered.set(
            certified,
            isConfirmed: isConfirmed || remembered[certified.record.prefix].map { $0.isConfirmed && $0.certified == certified } ?? false,
            from: source, now: now)
    }

    // MARK: The question

    private mutating func beginQuery(_ hoa: HomeAddress, _ set: IMSSet, _ now: Now) {
        let servers = order(set)
        guard !servers.isEmpty else { return abandon(hoa, .upstreamFailed, "the IMS of \(hoa) has no address", now) }
        let sequence = unusedSequence()
        confirmations[hoa]?.query = UpstreamQuery(
            sequence: sequence, servers: servers, retransmission: Retransmission(type: .maQuery, now: now.monotonic))
        confirmationKeys[sequence] = hoa
        ask(hoa, now)
    }

    private mutating func ask(_ hoa: HomeAddress, _ now: Now) {
        guard var query = confirmations[hoa]?.query else { return }
        let targets = query.retransmission.isExhausted ? [] : query.targets(hasAnswered: { answeredServers[$0] != nil })
        guard !targets.isEmpty else { return abandon(hoa, .upstreamFailed, "the IMS of \(hoa) does not answer", now) }
        query.retransmission.tried(at: now.monotonic)
        for target in targets { query.tries[target, default: 0] += 1 }
        confirmations[hoa]?.query = query
        deadlines.set(.confirmation(hoa), at: query.retransmission.due)
        for target in targets { sendQuery(query, hoa, to: target) }
    }

    private mutating func sendQuery(_ query: UpstreamQuery, _ hoa: HomeAddress, to server: Endpoint) {
        let body = MAQuery(
            cookie: ownCookie(for: CookiePeer(peer: server, local: nil)), hoa: hoa,
            certID: remembered.entry(covering: hoa)?.certified.certificate.id,
            subscribe: configuration.limits.subscribeSecondsMax)
        send(SignalMessage(sequence: query.sequence, .maQuery(body)), from: nil, to: server)
    }

    mutating func confirmationIsDue(_ hoa: HomeAddress, _ now: Now) {
        guard let confirmation = confirmations[hoa] else { return }
        if confirmation.isOwn { giveUpOwn(confirmation, now) } else { ask(hoa, now) }
    }

    // MARK: The answer

    /// - Returns: whether it belongs to a query of ours.
    mutating func take(_ answer: MAAnswer, _ sequence: UInt32, _ source: Endpoint, _ now: Now) -> Bool {
        guard let hoa = confirmationKeys[sequence], var query = confirmations[hoa]?.query, query.tries[source] != nil else { return false }
        let peer = CookiePeer(peer: source, local: nil)
        guard answer.cookie.client == ownCookie(for: peer).client else { return false }
        if let answered = answer.hoa, answered != hoa { return false }
        noteAnswer(of: source.address)
        remember(answer.cookie.server, of: peer)

        switch answer.code {
        case .cookieRequired where answer.cookie.server != nil && query.cookiesFollowed < Self.cookiesFollowedMax:
            query.cookiesFollowed += 1
            confirmations[hoa]?.query = query
            sendQuery(query, hoa, to: source)
        case .ok:
            guard let mapping = answer.mapping else { break }
            let certificate = answer.certificate ?? remembered.entry(covering: hoa)?.certified.certificate
            guard let certificate, certificate.prefix == mapping.record.prefix else { break }
            takeTruth(CertifiedMapping(mapping: mapping, certificate: certificate), hoa, now)
        case .notFound:
            takeTruth(nil, hoa, now)
        default:
            let text = answer.text.map { " (\($0))" } ?? ""
            abandon(hoa, .upstreamFailed, "the IMS \(source) of \(hoa) answered: \(answer.code)\(text)", now)
        }
        return true
    }

    /// What IMS_MN says, `nil` for "nothing registered". It is believed if it verifies; if it is older than what is held, it is asked
    /// again for a while.
    private mutating func takeTruth(_ truth: CertifiedMapping?, _ hoa: HomeAddress, _ now: Now) {
        guard confirmations[hoa] != nil else { return }
        confirmations[hoa]?.answered = truth
        guard let truth else { return conclude(nil, hoa, now) }
        guard let keys = keys(for: truth.certificate, of: hoa, now) else { return }
        do {
            try truth.checkTimesAndNames(asked: hoa, now: now)
            // It was asked for here, so no source's budget pays.
            try verify(VerificationJob(truth, issuers: try keys.get()), for: .truth(hoa), source: nil, now)
        } catch let refusal as VerificationRefusal {
            abandon(hoa, .upstreamFailed, "the answer of the IMS of \(hoa) can't be checked: \(refusal.reason)", now)
        } catch {
            abandon(hoa, .upstreamFailed, "the answer of the IMS of \(hoa) does not verify: \(error)", now)
        }
    }

    /// The signature of IMS_MN's answer has been checked.
    mutating func finishTruth(_ truth: CertifiedMapping, _ hoa: HomeAddress, _ failure: VerificationFailure?, _ now: Now) {
        // A later answer, or the end of the confirmation, may have come before.
        guard confirmations[hoa]?.answered == truth else { return }
        confirmations[hoa]?.answered = nil
        if let failure {
            abandon(hoa, .upstreamFailed, "the answer of the IMS of \(hoa) does not verify: \(failure.reason)", now)
        } else {
            conclude(truth, hoa, now)
        }
    }

    private mutating func conclude(_ truth: CertifiedMapping?, _ hoa: HomeAddress, _ now: Now) {
        guard let confirmation = confirmations[hoa] else { return }
        let held = remembered.entry(covering: hoa)
        let isOlder = held.map { held in truth.map { $0.version < held.certified.version } ?? true } ?? false
        if isOlder, now.monotonic < confirmation.started + Self.olderAnswerFor {
            askAgain(hoa, now)
            return
        }
        endConfirmation(hoa)
        if isOlder, let held {
            remembered.remove(held.certified.record.prefix)
            log(.notice, "\(hoa) announced a record that its IMS does not confirm; it is corrected")
        }
        if let truth, !truth.record.isWithdrawal {
            hold(truth, isConfirmed: true, from: confirmation.waiting.first?.source.address, now)
        } else if let held {
            remembered.remove(held.certified.record.prefix)
        }
        if let truth, truth != held?.certified {
            for peerHoA in confirmation.told.sorted() { tell(peerHoA, truth, now) }
        }
        for key in confirmation.waiting { decide(key, truth, now) }
        for offer in confirmation.offered { acknowledge(offer.request, hoa, .ok, now) }
    }

    private mutating func askAgain(_ hoa: HomeAddress, _ now: Now) {
        guard let query = confirmations[hoa]?.query else { return }
        confirmationKeys[query.sequence] = nil
        var again = query
        again.sequence = unusedSequence()
        again.retransmission = Retransmission(type: .maQuery, now: now.monotonic)
        again.tries = [:]
        confirmationKeys[again.sequence] = hoa
        confirmations[hoa]?.query = again
        deadlines.set(.confirmation(hoa), at: now.monotonic + Self.olderAnswerRetry)
    }

    private mutating func decide(_ key: NotifyKey, _ truth: CertifiedMapping?, _ now: Now) {
        guard let truth else { return fail(key, .upstreamFailed, "the IMS of \(key.hoa) has nothing registered for it", now) }
        guard truth.record.lists(MobileAddress(key.source.address)) else {
            return fail(key, .upstreamFailed, "the record at the IMS of \(key.hoa) does not list the source \(key.source.address)", now)
        }
        accept(key, truth, now)
    }
}
