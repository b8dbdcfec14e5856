import MATSignal
import MappingMemory

// IMS Update: registration and handover (section 7). Checks that cost little come first, the signature last, and nothing is
// answered with ok before it is durable.

/// A write on its way to the store, and who waits for it.
struct PendingWrite: Sendable {
    var mapping: StoredMapping?
    var issued: Certificate?
    /// A renewed certificate that the answers bring along.
    var renewed: Certificate?
    /// The served prefix in whose quota a place is reserved, since the HoA is new.
    var reserved: IPPrefix?
    /// The update itself and duplicates of it that came meanwhile.
    var waiting: [Request]

    /// Duplicates answered at once; more are retransmissions of a client that is being answered anyway.
    static let waitingMax = 8
}

/// Why an update is refused.
private struct UpdateRefusal: Error {
    var code: ResponseCode
    var reason: String
    var current: SignedMapping?
    var lifetime: UInt32?

    init(_ code: ResponseCode, _ reason: String, current: SignedMapping? = nil, lifetime: UInt32? = nil) {
        self.code = code
        self.reason = reason
        self.current = current
        self.lifetime = lifetime
    }
}

extension IMSCore {
    mutating func handle(_ update: IMSUpdate, _ request: Request, _ now: Now) -> Answer {
        do throws(UpdateRefusal) {
            return try accept(update, request, now)
        } catch {
            return .now(refuse(update.record.mapping.record.prefix, update.record.certificate, request, error, now))
        }
    }

    private mutating func refuse(
        _ prefix: IPPrefix, _ certificate: CertificateReference, _ request: Request, _ refusal: UpdateRefusal, _ now: Now
    ) -> SignalMessage.Body {
        logRefusal("refused IMS Update of \(prefix) from \(request.source): \(refusal.code) (\(refusal.reason))", now)
        if refusal.code == .cookieRequired {
            return .imsUpdateReply(IMSUpdateReply(code: .cookieRequired, cookie: freshCookie(request, now)))
        }
        var reply = IMSUpdateReply(
            code: refusal.code, cookie: freshCookie(request, now), observed: request.source, current: refusal.current,
            lifetime: refusal.lifetime, text: refusal.reason)
        // A node that missed the answer which brought its renewed certificate gets it again here.
        if refusal.code == .authenticationFailed { reply.certificate = successor(of: certificate, prefix) }
        return .imsUpdateReply(reply)
    }

    /// All that costs little, in the order of section 2, and then the signature.
    private mutating func accept(_ update: IMSUpdate, _ request: Request, _ now: Now) throws(UpdateRefusal) -> Answer {
        let record = update.record.mapping.record
        try checkLimits(of: record.prefix, now)
        guard let served = configuration.served(covering: record.prefix) else {
            throw UpdateRefusal(.notAuthoritative, "no prefix served here covers \(record.prefix)")
        }
        // What the newest certificate and version are is known only when all is read.
        if store.isLoading, let refusal = store.refusal { throw UpdateRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds) }
        let certificate = certificate(named: update.record)
        try checkTimes(record, certificate, now)
        if let answer = repeated(update.record, request, now) { return answer }
        if let certificate {
            let certified = CertifiedMapping(mapping: update.record.mapping, certificate: certificate)
            if let answer = try compare(certified, request, now) { return answer }
        }
        for locator in record.locators { try checkProof(of: locator, of: record, update.proofs, request, served, now) }
        guard let certificate else { throw UpdateRefusal(.authenticationFailed, "CERT-ID is unknown here; repeat with CERTIFICATE") }
        let certified = CertifiedMapping(mapping: update.record.mapping, certificate: certificate)
        try check(certificate, of: record)
        try checkRoom(for: record, served, now)
        do throws(VerificationRefusal) {
            let job = VerificationJob(certified, issuers: issuersToCheck(certified.certificate))
            try verify(job, for: .update(request), source: request.source.address, now)
        } catch {
            throw UpdateRefusal(.tryLater, error.reason, lifetime: error.seconds)
        }
        return .later
    }

    /// The signature has been checked. What others sent meanwhile counts: another update of the HoA may have come first.
    mutating func finishUpdate(_ certified: CertifiedMapping, _ request: Request, _ failure: VerificationFailure?, _ now: Now) {
        do throws(UpdateRefusal) {
            if let failure { throw UpdateRefusal(.authenticationFailed, failure.reason) }
            try checkIsNewest(certified.certificate)
            if let answer = try compare(certified, request, now) {
                if case .now(let body) = answer { reply(body, to: request) }
                return
            }
            guard let served = configuration.served(covering: certified.record.prefix) else {
                throw UpdateRefusal(.notAuthoritative, "no prefix served here covers \(certified.record.prefix)")
            }
            try checkLimits(of: certified.record.prefix, now)
            try checkRoom(for: certified.record, served, now)
            // Charged only now: an update that does not verify must not use up the HoA's rate.
            _ = updateRates.take(certified.record.prefix, at: now.monotonic)
            quotas.takeUpdate(served, now.monotonic)
            write(certified, request, served, now)
        } catch {
            reply(refuse(certified.record.prefix, .whole(certified.certificate), request, error, now), to: request)
        }
    }

    private mutating func write(_ certified: CertifiedMapping, _ request: Request, _ served: ServedPrefix, _ now: Now) {
        let stored = StoredMapping(certified: certified, source: request.source, local: request.local, provenAt: now.wallMilliseconds)
        let renewed = renewed(certified.certificate, now)
        let ticket = newTicket()
        let isNew = mappings[certified.record.prefix] == nil && newestWrites[certified.record.prefix] == nil
        if isNew { quotas.reserve(served.prefix) }
        writes[ticket] = PendingWrite(
            mapping: stored, issued: renewed, renewed: renewed, reserved: isNew ? served.prefix : nil, waiting: [request])
        newestWrites[certified.record.prefix] = ticket
        actions.append(.commit(ticket, StoreChange(mapping: stored, issued: renewed)))
    }

    // MARK: Checks

    /// The certificate that came along or is named; `nil` if the name is unknown here.
    func certificate(named enclosed: EnclosedRecord) -> Certificate? {
        switch enclosed.certificate {
        case .whole(let whole): return whole
        case .id(let id):
            // The mapping's own certificate may be older than the newest issued; that it is no longer good is said later.
            let prefix = enclosed.mapping.record.prefix
            return [issued[prefix], mappings[prefix]?.certified.certificate].compactMap { $0 }.first { $0.id == id }
        }
    }

    private func checkTimes(_ record: MappingRecord, _ certificate: Certificate?, _ now: Now) throws(UpdateRefusal) {
        do throws(VerificationFailure) {
            try record.checkTimes(now)
            if let certificate { try certificate.key.checkTimes(of: certificate.prefix, now) }
        } catch {
            throw UpdateRefusal(.authenticationFailed, error.reason)
        }
    }

    /// All of the certificate but its signature: it is for this HoA, its HoA's newest, and signed with a key of this IMS.
    private func check(_ certificate: Certificate, of record: MappingRecord) throws(UpdateRefusal) {
        do throws(VerificationFailure) {
            try record.checkNames(under: certificate.prefix, asked: nil)
        } catch {
            throw UpdateRefusal(.authenticationFailed, error.reason)
        }
        try checkIsNewest(certificate)
        guard configuration.issuerIDs.contains(certificate.issuerID) else {
            throw UpdateRefusal(.authenticationFailed, "the certificate is signed with a key that is not among this server's")
        }
    }

    /// What the held record was registered with, once more: its answer was lost. It is ok also if the certificate was renewed meanwhile
    /// (the lost answer brought the new one), which would not be so for any other record under the old one.
    private func repeated(_ enclosed: EnclosedRecord, _ request: Request, _ now: Now) -> Answer? {
        let prefix = enclosed.mapping.record.prefix
        guard newestWrites[prefix] == nil, let held = mappings[prefix]?.certified, held.mapping == enclosed.mapping,
            held.certificate.id == enclosed.certificate.id
        else { return nil }
        return .now(.imsUpdateReply(ok(request, successor(of: enclosed.certificate, prefix), now)))
    }

    /// Versions never go back. A duplicate is answered like the first; what is older gets the current record.
    private mutating func compare(_ certified: CertifiedMapping, _ request: Request, _ now: Now) throws(UpdateRefusal) -> Answer? {
        let prefix = certified.record.prefix
        let ticket = newestWrites[prefix]
        guard let newest = (ticket.flatMap { writes[$0]?.mapping } ?? mappings[prefix])?.certified else { return nil }
        if newest.mapping == certified.mapping, newest.certificate == certified.certificate {
            guard let ticket, var write = writes[ticket] else { return .now(.imsUpdateReply(ok(request, nil, now))) }
            if write.waiting.count < PendingWrite.waitingMax {
                write.waiting.append(request)
                writes[ticket] = write
            }
            return .later
        }
        // Records of different keys have no sequence in common: which of the keys counts is a question of certificates, which comes later.
        guard certified.certificate.nodeKey != newest.certificate.nodeKey || certified.version > newest.version else {
            throw UpdateRefusal(
                .stale,
                "the record's sequence \(certified.record.sequence) is not above \(newest.record.sequence), which is held: replayed or late",
                current: newest.mapping)
        }
        return nil
    }

    /// Section 6: the node must have shown that it receives at the locator, within 300 s and from the node port.
    private func checkProof(
        of locator: Locator, of record: MappingRecord, _ proofs: [LocatorProof], _ request: Request, _ served: ServedPrefix, _ now: Now
    ) throws(UpdateRefusal) {
        guard locator.prefixLength == 128 else {
            // Nobody can prove a whole network by a datagram from it, so the operator vouches for it.
            guard served.mobilePrefixes.contains(where: { $0.contains(locator.prefix) }) else {
                throw UpdateRefusal(.refused, "\(locator.prefix) is not among the mobile prefixes configured for \(served.prefix)")
            }
            return
        }
        let client = Endpoint(locator.moa.address, port: SignalPort.node)
        if request.source == client, request.isFresh { return }
        if let proof = proofs.first(where: { $0.locator == locator.moa }) {
            guard cookies.isValid(proof.server, clientCookie: proof.client, from: client, now: now, ageMax: CookieAuthority.proofAgeMax) else {
                throw UpdateRefusal(.refused, "LOCATOR-PROOF of \(locator.moa) is not ours, older than 300 s or not for port \(SignalPort.node)")
            }
            return
        }
        guard locator.moa.address == request.source.address else {
            throw UpdateRefusal(.refused, "locator \(locator.moa) is neither the source nor proven; the node does not hold it")
        }
        // The update itself may come from any port, but then its own cookie proves nothing.
        guard request.source == client else {
            throw UpdateRefusal(
                .refused, "locators are proven from port \(SignalPort.node) only, this came from port \(request.source.port) without LOCATOR-PROOF")
        }
        // The reply brings a fresh cookie, so all that is missing is a repetition.
        throw UpdateRefusal(.cookieRequired, "the cookie is too old to prove the locator \(locator.moa)")
    }

    /// What is being written counts as well: it is what will be held.
    private func checkIsNewest(_ certificate: Certificate) throws(UpdateRefusal) {
        let written = newestWrites[certificate.prefix].flatMap { writes[$0]?.mapping?.certified.certificate }
        for known in [issued[certificate.prefix], written].compactMap({ $0 }) {
            if certificate.notBefore < known.notBefore || (certificate.notBefore == known.notBefore && certificate != known) {
                throw UpdateRefusal(.authenticationFailed, supersededReason(known))
            }
        }
    }

    /// What is refused whatever the update says: too many of one HoA.
    private mutating func checkLimits(of prefix: IPPrefix, _ now: Now) throws(UpdateRefusal) {
        guard updateRates.allows(prefix, at: now.monotonic) else {
            throw UpdateRefusal(
                .tryLater, "more than \(configuration.limits.updatesPerSecond) updates of this HoA in a second", lifetime: 1)
        }
    }

    /// Whether the store writes, and the bounds. Only for what would be written, so that a duplicate has its answer all the same.
    private mutating func checkRoom(for record: MappingRecord, _ served: ServedPrefix, _ now: Now) throws(UpdateRefusal) {
        if let refusal = store.refusal { throw UpdateRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds) }
        guard writes.count < configuration.limits.writesMax else {
            throw UpdateRefusal(.tryLater, "\(writes.count) writes are waiting for the store", lifetime: 1)
        }
        guard mappings.contains(record.prefix) || mappings.count < configuration.limits.mappingsMax else {
            throw UpdateRefusal(.tryLater, "the table of \(configuration.limits.mappingsMax) mappings is full", lifetime: 60)
        }
        if let refusal = quotaRefusal(of: record.prefix, served, now) {
            counters.quotaRefusals += 1
            throw UpdateRefusal(refusal.code, refusal.reason, lifetime: refusal.lifetime)
        }
    }

    /// The newest certificate, if it certifies the same key as the one the node came with.
    private func successor(of reference: CertificateReference, _ prefix: IPPrefix) -> Certificate? {
        guard let newest = issued[prefix], newest.id != reference.id else { return nil }
        switch reference {
        case .whole(let old): return old.nodeKey == newest.nodeKey ? newest : nil
        case .id(let id):
            guard let old = mappings[prefix]?.certified.certificate, old.id == id, old.nodeKey == newest.nodeKey else { return nil }
            return newest
        }
    }

    private func ok(_ request: Request, _ renewed: Certificate?, _ now: Now) -> IMSUpdateReply {
        IMSUpdateReply(code: .ok, cookie: freshCookie(request, now), observed: request.source, certificate: renewed)
    }

    // MARK: After the store

    mutating func finishWrite(_ ticket: StoreTicket, _ result: StoreOutcome.Result, _ now: Now) {
        guard let write = writes.removeValue(forKey: ticket) else { return }
        let prefix = write.mapping?.record.prefix
        if let prefix, newestWrites[prefix] == ticket { newestWrites[prefix] = nil }
        if let reserved = write.reserved { quotas.release(reserved) }
        switch result {
        case .durable:
            if let certificate = write.issued { issued.note(certificate, latest: now.latestBelieved) }
            if let mapping = write.mapping { take(mapping, now) }
            if write.renewed != nil { counters.certificatesRenewed += 1 }
            for request in write.waiting { reply(.imsUpdateReply(ok(request, write.renewed, now)), to: request) }
        case .failed(let reason):
            if let line = store.noteFailure(of: prefix.map { " of \($0)" } ?? "", reason, now) {
                log(.error, line)
            } else {
                counters.logLinesSuppressed += 1
            }
            for request in write.waiting {
                reply(
                    .imsUpdateReply(
                        IMSUpdateReply(
                            code: .tryLater, cookie: freshCookie(request, now), observed: request.source,
                            lifetime: StoreState.unavailableSeconds, text: StoreState.notStoredText)),
                    to: request)
            }
        case .outrun(let current):
            take(current, now)
            let isSame = write.mapping.map { $0.certified == current.certified } ?? false
            for request in write.waiting {
                // The same update, sent to two instances, is a duplicate at the slower one.
                let stale = IMSUpdateReply(
                    code: .stale, cookie: freshCookie(request, now), observed: request.source, current: current.certified.mapping,
                    text: "another server of this IMS took a newer record")
                reply(.imsUpdateReply(isSame ? ok(request, nil, now) : stale), to: request)
            }
        }
    }
}
