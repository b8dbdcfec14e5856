import MATCore
import MATSignal
import MappingMemory

// HA Notify: this server as IMS_CN (section 7, paper 4.2 and 4.3).

extension IMSCore {
    mutating func handle(_ notify: HANotify, _ request: Request, _ now: Now) -> Answer {
        let key = NotifyKey(source: request.source, sequence: request.sequence, hoa: notify.hoa, peerHoA: notify.peerHoA)
        // It is being worked on; its sender will get the one answer.
        if notifies[key] != nil { return .later }
        if let refusal = refusal(of: notify, request, now) {
            return refuse(notify, request, refusal.code, refusal.reason, lifetime: refusal.lifetime, now)
        }
        var pending = PendingNotify(request: request, notify: notify)
        if let enclosed = notify.record {
            do throws(VerificationFailure) {
                pending.enclosed = try certify(enclosed, notify.hoa, now)
            } catch {
                return refuse(notify, request, .authenticationFailed, error.reason, now)
            }
            if let record = pending.enclosed?.record, !record.lists(MobileAddress(request.source.address)) {
                return refuse(
                    notify, request, .upstreamFailed, "the enclosed record does not list the source \(request.source.address)", now)
            }
        }
        var confirmation =
            confirmations[notify.hoa]
            ?? Confirmation(hoa: notify.hoa, isOwn: configuration.served(covering: notify.hoa.address) != nil, now: now.monotonic)
        if !confirmation.isOwn, confirmations[notify.hoa] == nil {
            if let reason = beginInquiry(of: request.source.address.sourceKey, now) {
                return refuse(notify, request, .tryLater, reason, lifetime: 1, now)
            }
            confirmation.inquirer = request.source.address.sourceKey
        }
        notifies[key] = pending
        confirmation.waiting.append(key)
        confirmations[notify.hoa] = confirmation
        if confirmation.isOwn { settleOwn(notify.hoa, now) } else { advance(notify.hoa, now) }
        return .later
    }

    private struct Refusal {
        var code: ResponseCode
        var reason: String
        var lifetime: UInt32?
    }

    private mutating func refusal(of notify: HANotify, _ request: Request, _ now: Now) -> Refusal? {
        // In the order of section 2: limits, authority, and then what is known of the correspondent.
        guard notifySourceRates.take(request.source.address.sourceKey, at: now.monotonic) else {
            return Refusal(
                code: .tryLater, reason: "more than \(configuration.limits.notifiesPerSecond) a second from this source", lifetime: 1)
        }
        guard notifyPeerRates.take(notify.peerHoA, at: now.monotonic) else {
            return Refusal(
                code: .tryLater, reason: "more than \(configuration.limits.notifiesPerSecond) a second for this PEER-HOA", lifetime: 1)
        }
        guard notifies.count < configuration.limits.notifiesPendingMax else {
            return Refusal(code: .tryLater, reason: "\(notifies.count) are being worked on", lifetime: 1)
        }
        guard configuration.served(covering: notify.peerHoA.address) != nil else {
            return Refusal(code: .notAuthoritative, reason: "no prefix served here covers PEER-HOA \(notify.peerHoA)")
        }
        if store.isLoading {
            return Refusal(code: .tryLater, reason: store.unknown.text, lifetime: store.unknown.seconds)
        }
        guard let peer = mappings.entry(covering: notify.peerHoA.address), peer.isCurrent(now), !peer.record.isWithdrawal else {
            return Refusal(
                code: .notFound, reason: "nothing is registered for PEER-HOA \(notify.peerHoA)",
                lifetime: configuration.limits.notFoundSeconds)
        }
        return nil
    }

    private mutating func refuse(
        _ notify: HANotify, _ request: Request, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil, _ now: Now
    ) -> Answer {
        logRefusal("refused HA Notify of \(notify.hoa) about \(notify.peerHoA) from \(request.source): \(code) (\(reason))", now)
        return .now(
            .haNotifyAck(HANotifyAck(code: code, cookie: freshCookie(request, now), hoa: notify.hoa, lifetime: lifetime, text: reason)))
    }

    /// The enclosed record with its certificate; `nil` if a newer record of the HoA is known, because then IMS_MN must decide.
    private func certify(_ enclosed: EnclosedRecord, _ hoa: HomeAddress, _ now: Now) throws(VerificationFailure) -> CertifiedMapping? {
        var found = certificate(named: enclosed)
        if found == nil, case .id(let id) = enclosed.certificate { found = remembered.certificate(id, of: hoa) }
        guard let certificate = found else { throw VerificationFailure("CERT-ID is unknown here; repeat with CERTIFICATE") }
        let certified = CertifiedMapping(mapping: enclosed.mapping, certificate: certificate)
        try certified.checkTimesAndNames(asked: hoa, now: now)
        if let held = remembered.entry(covering: hoa), held.isConfirmed, held.certified.version > certified.version { return nil }
        return certified
    }

    /// Finding out about an HoA costs DNS questions and a query to a server of whoever owns the HoA, and takes seconds where those
    /// keep silent. So no source has more than a few such inquiries going, and all together begin so many a second.
    ///
    /// - Returns: why not now; `nil` if it has begun.
    private mutating func beginInquiry(of source: IPPrefix, _ now: Now) -> String? {
        let limits = configuration.limits
        guard inquiries[source] ?? 0 < limits.inquiriesPerSourceMax else {
            return "\(limits.inquiriesPerSourceMax) HoAs announced by this source are being found out about"
        }
        guard inquiryRate.take(at: now.monotonic) else {
            return "more than \(limits.inquiriesPerSecond) HoAs of other servers announced in a second"
        }
        inquiries[source, default: 0] += 1
        return nil
    }

    mutating func endInquiry(of source: IPPrefix) {
        guard let count = inquiries[source] else { return }
        inquiries[source] = count > 1 ? count - 1 : nil
    }

    // MARK: Answers

    /// The record is held: ack, and tell the correspondent's node at the same time.
    mutating func accept(_ key: NotifyKey, _ certified: CertifiedMapping, _ now: Now) {
        guard let pending = notifies.removeValue(forKey: key) else { return }
        reply(.haNotifyAck(HANotifyAck(code: .ok, cookie: freshCookie(pending.request, now), hoa: key.hoa)), to: pending.request)
        tell(key.peerHoA, certified, now)
    }

    mutating func tell(_ peerHoA: HomeAddress, _ certified: CertifiedMapping, _ now: Now) {
        guard let peer = mappings.entry(covering: peerHoA.address), peer.isCurrent(now), !peer.record.isWithdrawal else { return }
        push(certified, toNodeOf: peer, now)
    }

    mutating func fail(_ key: NotifyKey, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil, _ now: Now) {
        guard let pending = notifies.removeValue(forKey: key) else { return }
        if case .now(let body) = refuse(pending.notify, pending.request, code, reason, lifetime: lifetime, now) {
            reply(body, to: pending.request)
        }
    }

    // MARK: A notifier of our own

    /// How long a HA Notify may be ahead of the IMS Update that it belongs to: both are sent at once.
    static let ownUpdateDelayMax: Duration = .seconds(3)

    /// IMS_MN is this server: its table is the truth, except that the update may still be on its way.
    mutating func settleOwn(_ hoa: HomeAddress, _ now: Now) {
        guard var confirmation = confirmations[hoa] else { return }
        let stored = mappings.entry(covering: hoa.address).flatMap { $0.isCurrent(now) ? $0.certified : nil }
        let isBeingWritten = stored.map { newestWrites[$0.record.prefix] != nil } ?? (newestWrites[IPPrefix(hoa.address)] != nil)
        for key in confirmation.waiting {
            guard let pending = notifies[key] else { continue }
            let source = MobileAddress(key.source.address)
            if let enclosed = pending.enclosed, stored.map({ $0.version < enclosed.version }) ?? true {
                if pending.isVerifying { continue }
                if let newest = issued[enclosed.record.prefix], enclosed.certificate.notBefore < newest.notBefore {
                    fail(key, .authenticationFailed, supersededReason(newest), now)
                    continue
                }
                do throws(VerificationRefusal) {
                    let job = VerificationJob(enclosed, issuers: issuersToCheck(enclosed.certificate))
                    try verify(job, for: .ownNotify(key), source: key.source.address, now)
                    notifies[key]?.isVerifying = true
                } catch {
                    fail(key, .tryLater, error.reason, lifetime: error.seconds, now)
                }
            } else if let stored, stored.record.lists(source) {
                accept(key, stored, now)
            } else if !isBeingWritten {
                fail(
                    key, .upstreamFailed,
                    stored == nil ? "\(hoa) is not registered here" : "the registered record does not list the source \(source)", now)
            }
        }
        confirmation.waiting.removeAll { notifies[$0] == nil }
        guard !confirmation.waiting.isEmpty || !confirmation.told.isEmpty else {
            confirmations[hoa] = nil
            deadlines.cancel(.confirmation(hoa))
            return
        }
        confirmations[hoa] = confirmation
        deadlines.set(.confirmation(hoa), at: confirmation.started + Self.ownUpdateDelayMax)
    }

    /// The signature of what an own node enclosed has been checked. Its update may have been stored before, which settled it.
    mutating func finishOwnNotify(_ key: NotifyKey, _ failure: VerificationFailure?, _ now: Now) {
        guard let enclosed = notifies[key]?.enclosed else { return }
        notifies[key]?.isVerifying = false
        let stored = mappings.entry(covering: key.hoa.address).flatMap { $0.isCurrent(now) ? $0.certified : nil }
        if let failure {
            fail(key, .authenticationFailed, failure.reason, now)
        } else if stored.map({ $0.version < enclosed.version }) ?? true {
            noteRemembered(enclosed, from: key.source, now)
            remembered.set(enclosed, isConfirmed: false, from: key.source.address, now: now)
            confirmations[key.hoa]?.noteTold(key.peerHoA)
            accept(key, enclosed, now)
        }
        settleOwn(key.hoa, now)
    }

    /// A registration has become durable: what waited for it is settled.
    mutating func settleOwnNotifies(of mapping: StoredMapping, _ now: Now) {
        let prefix = mapping.record.prefix
        let hoas = prefix.length == 128 ? [HomeAddress(prefix.address)] : confirmations.keys.filter { prefix.contains($0.address) }.sorted()
        for hoa in hoas where confirmations[hoa]?.isOwn == true {
            confirmations[hoa]?.told = []
            settleOwn(hoa, now)
        }
    }

    /// The update that a notifier's record promised has not come: those who were told it get the registered one.
    mutating func giveUpOwn(_ confirmation: Confirmation, _ now: Now) {
        confirmations[confirmation.hoa] = nil
        for key in confirmation.waiting {
            fail(key, .upstreamFailed, "\(confirmation.hoa) has no registration that lists \(key.source.address)", now)
        }
        guard !confirmation.told.isEmpty, let hint = remembered.entry(covering: confirmation.hoa), !hint.isConfirmed else { return }
        remembered.remove(hint.certified.record.prefix)
        log(.notice, "\(confirmation.hoa) announced a record that it did not register; it is forgotten")
        guard let stored = mappings.entry(covering: confirmation.hoa.address), stored.isCurrent(now) else { return }
        for peerHoA in confirmation.told.sorted() { tell(peerHoA, stored.certified, now) }
    }
}
