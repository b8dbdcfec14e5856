import MATCore
import MATSignal
import MappingMemory

/// IMS Update: registration and handover (section 7). Checks that cost little come first, the signature last, and nothing is answered with
/// ok before it is durable.
///
/// ```
///   received ─► rate of the HoA ─► authority ─► the store is read ─► times ─► duplicate? ─► newer? ─► locators proven ─► certificate ─► room
///                  7 │               5 │              7 │            4 │         0 │          6 │       2, 9 │           4 │          7, 2 │
///                    ▼                 ▼                ▼              ▼           ▼            ▼            ▼             ▼             ▼
///   verify ─ ... ─ verified ─► what others sent meanwhile: certificate, newer?, authority, rate, room ─► write ─ ... ─ answers
/// ```
/// The numbers are the codes of the refusals, in the order of section 2. What was true when the check of the signature began is looked at
/// again when it ends: another update of the HoA may have come first.
struct Updates: Sendable {
    private var rates: RateTable<IPPrefix>

    /// What an update leads to.
    enum OnUpdate: Sendable {
        case answer(Reply)
        /// A duplicate of what is being written: it is answered with it.
        case join(StoreTicket)
        /// The signature is all that is left to check; then `verified`, or `unchecked` if there is no time for it.
        case verify(VerificationJob)
    }

    /// What it leads to when its signature has been checked.
    enum OnVerified: Sendable {
        case answer(Reply)
        case join(StoreTicket)
        /// To be made durable, with the renewed certificate that the answer brings along; then `answers`.
        case write(PendingWrite, ServedPrefix)
    }

    /// Why an update is refused.
    private struct UpdateRefusal: Error {
        var code: ResponseCode
        var reason: String
        var current: SignedMapping?
        var lifetime: UInt32?
        /// Whether the quota of its prefix is the reason, or a lack of memory.
        var isQuota = false
        var isMemory = false

        init(_ code: ResponseCode, _ reason: String, current: SignedMapping? = nil, lifetime: UInt32? = nil) {
            self.code = code
            self.reason = reason
            self.current = current
            self.lifetime = lifetime
        }
    }

    /// What a comparison with the newest that is known says of an update that is not older.
    private enum Comparison {
        case newer
        /// Held already.
        case same
        case beingWritten(StoreTicket)
    }

    /// Updates refused because the quota of their prefix was used up.
    private(set) var quotaRefusals: UInt64 = 0
    /// Updates refused because there was no memory to hold them.
    private(set) var memoryRefusals: UInt64 = 0

    init(_ limits: IMSLimits) { rates = RateTable(perSecond: limits.updatesPerSecond, keysMax: limits.ratesMax) }

    mutating func reconfigure(_ limits: IMSLimits) {
        rates.reconfigure(perSecond: limits.updatesPerSecond, keysMax: limits.ratesMax)
    }

    // MARK: Events

    /// An update came under a valid cookie.
    mutating func received(_ update: IMSUpdate, _ request: Request, _ server: ServerView, _ cookies: CookieAuthority, _ now: Now)
        -> OnUpdate
    {
        do throws(UpdateRefusal) {
            return try accept(update, request, server, cookies, now)
        } catch {
            return .answer(refuse(update.record.mapping.record.prefix, update.record.certificate, request, error, server))
        }
    }

    /// There is no time to check its signature.
    mutating func unchecked(
        _ certified: CertifiedMapping, _ request: Request, _ refusal: VerificationRefusal, _ server: ServerView
    ) -> Reply {
        let refusal = UpdateRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds)
        return refuse(certified.record.prefix, .whole(certified.certificate), request, refusal, server)
    }

    /// The signature has been checked.
    mutating func verified(
        _ certified: CertifiedMapping, _ request: Request, _ failure: VerificationFailure?, _ server: ServerView, _ now: Now
    ) -> OnVerified {
        do throws(UpdateRefusal) {
            if let failure { throw UpdateRefusal(.authenticationFailed, failure.reason) }
            try checkIsNewest(certified.certificate, server)
            switch try compare(certified, server) {
            case .newer: break
            case .same: return .answer(Self.ok(request, nil))
            case .beingWritten(let ticket): return .join(ticket)
            }
            let prefix = certified.record.prefix
            guard let served = server.configuration.served(covering: prefix) else {
                throw UpdateRefusal(.notAuthoritative, "no prefix served here covers \(prefix)")
            }
            try checkRate(of: prefix, server, now)
            try checkRoom(for: certified.record, served, server, now)
            try checkMemory(for: certified.record, server)
            // Charged only now: an update that does not verify must not use up the HoA's rate.
            _ = rates.take(prefix, at: now.monotonic)
            let stored = StoredMapping(
                certified: certified, source: request.source, local: request.local, provenAt: now.wallMilliseconds)
            let renewed = server.renewed(certified.certificate, now)
            return .write(PendingWrite(mapping: stored, issued: renewed, renewed: renewed, waiting: [request]), served)
        } catch {
            return .answer(refuse(certified.record.prefix, .whole(certified.certificate), request, error, server))
        }
    }

    /// The store has answered: what those are told who wait for the write.
    ///
    /// - Parameter isHeld: whether there was memory for what is durable now. Without, the node sends it again; it is ok when it is held.
    static func answers(to write: PendingWrite, _ result: StoreOutcome.Result, isHeld: Bool = true) -> [Reply] {
        switch result {
        case .durable: return write.waiting.map { isHeld ? ok($0, write.renewed) : later($0, StoreState.notHeldText) }
        // Of rows only, which no update has.
        case .failed, .conflict: return write.waiting.map { later($0, StoreState.notStoredText) }
        case .outrun(let current):
            // The same update, sent to two instances, is a duplicate at the slower one.
            if let mapping = write.mapping, mapping.certified == current.certified {
                return write.waiting.map { isHeld ? ok($0, nil) : later($0, StoreState.notHeldText) }
            }
            return write.waiting.map { request in
                let body = IMSUpdateReply(
                    code: .stale, cookie: request.cookie, observed: request.source, current: current.certified.mapping,
                    text: "another server of this IMS took a newer record")
                return Reply(.imsUpdateReply(body), to: request)
            }
        }
    }

    private static func later(_ request: Request, _ text: String) -> Reply {
        let body = IMSUpdateReply(
            code: .tryLater, cookie: request.cookie, observed: request.source, lifetime: StoreState.unavailableSeconds, text: text)
        return Reply(.imsUpdateReply(body), to: request)
    }

    private static func ok(_ request: Request, _ renewed: Certificate?) -> Reply {
        Reply(
            .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: request.cookie, observed: request.source, certificate: renewed)),
            to: request)
    }

    // MARK: Time

    var ratesCount: Int { rates.count }
    mutating func sweep(_ now: MonotonicTime) { rates.sweep(now) }

    // MARK: Checks

    /// All that costs little, in the order of section 2, and then the signature.
    private mutating func accept(
        _ update: IMSUpdate, _ request: Request, _ server: ServerView, _ cookies: CookieAuthority, _ now: Now
    ) throws(UpdateRefusal) -> OnUpdate {
        let record = update.record.mapping.record
        try checkRate(of: record.prefix, server, now)
        guard let served = server.configuration.served(covering: record.prefix) else {
            throw UpdateRefusal(.notAuthoritative, "no prefix served here covers \(record.prefix)")
        }
        // What the newest certificate and version are is known only when all is read.
        if server.store.isLoading, let refusal = server.store.refusal {
            throw UpdateRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds)
        }
        let certificate = server.registrations.certificate(named: update.record)
        try checkTimes(record, certificate, now)
        if isRepeated(update.record, server) {
            return .answer(Self.ok(request, server.registrations.successor(of: update.record.certificate, record.prefix)))
        }
        if let certificate {
            switch try compare(CertifiedMapping(mapping: update.record.mapping, certificate: certificate), server) {
            case .newer: break
            case .same: return .answer(Self.ok(request, nil))
            case .beingWritten(let ticket): return .join(ticket)
            }
        }
        for place in record.places {
            try checkScope(of: place, in: record)
            switch place {
            case .moa(let locator): try checkProof(of: locator, update.proofs, request, served, cookies, now)
            case .endpoint(let endpoint, _): try checkProof(of: endpoint, update.endpointProofs, request, cookies, now)
            case .relay(let relay, _):
                guard server.configuration.relays.allows(relay.address) else {
                    throw UpdateRefusal(.refused, "the relay \(relay) is not among those that this server's configuration allows")
                }
            // What a later version means by it is nobody's business here.
            case .unknown: break
            }
        }
        guard let certificate else {
            throw UpdateRefusal(.authenticationFailed, "CERT-ID is unknown here; repeat with CERTIFICATE")
        }
        try check(certificate, of: record, server)
        try checkRoom(for: record, served, server, now)
        try checkMemory(for: record, server)
        let certified = CertifiedMapping(mapping: update.record.mapping, certificate: certificate)
        return .verify(VerificationJob(certified, issuers: server.issuersToCheck(certificate)))
    }

    private mutating func refuse(
        _ prefix: IPPrefix, _ certificate: CertificateReference, _ request: Request, _ refusal: UpdateRefusal,
        _ server: ServerView
    ) -> Reply {
        if refusal.isQuota { quotaRefusals += 1 }
        if refusal.isMemory { memoryRefusals += 1 }
        let line = Refusal(subject: .update(prefix), source: request.source, code: refusal.code, reason: refusal.reason)
        if refusal.code == .cookieRequired {
            return Reply(
                .imsUpdateReply(IMSUpdateReply(code: .cookieRequired, cookie: request.cookie)), to: request, refusal: line)
        }
        var reply = IMSUpdateReply(
            code: refusal.code, cookie: request.cookie, observed: request.source, current: refusal.current,
            lifetime: refusal.lifetime, text: refusal.reason)
        // A node that missed the answer which brought its renewed certificate gets it again here.
        if refusal.code == .authenticationFailed { reply.certificate = server.registrations.successor(of: certificate, prefix) }
        return Reply(.imsUpdateReply(reply), to: request, refusal: line)
    }

    private func checkTimes(_ record: MappingRecord, _ certificate: Certificate?, _ now: Now) throws(UpdateRefusal) {
        do throws(VerificationFailure) {
            try record.checkTimes(now)
            try certificate?.checkTimes(now)
        } catch {
            throw UpdateRefusal(.authenticationFailed, error.reason)
        }
    }

    /// All of the certificate but its signature: it is for this HoA, its HoA's newest, and signed with a key of this IMS.
    private func check(_ certificate: Certificate, of record: MappingRecord, _ server: ServerView) throws(UpdateRefusal) {
        do throws(VerificationFailure) {
            try record.checkNames(under: certificate.prefix, asked: nil)
        } catch {
            throw UpdateRefusal(.authenticationFailed, error.reason)
        }
        try checkIsNewest(certificate, server)
        guard server.configuration.issuerIDs.contains(certificate.issuerID) else {
            throw UpdateRefusal(.authenticationFailed, "the certificate is signed with a key that is not among this server's")
        }
    }

    private func checkIsNewest(_ certificate: Certificate, _ server: ServerView) throws(UpdateRefusal) {
        if let reason = server.registrations.refusalOfOlder(certificate) { throw UpdateRefusal(.authenticationFailed, reason) }
    }

    /// Whether it is what the held record was registered with, once more: its answer was lost. It is ok also if the certificate was renewed
    /// meanwhile (the lost answer brought the new one), which would not be so for any other record under the old one.
    private func isRepeated(_ enclosed: EnclosedRecord, _ server: ServerView) -> Bool {
        let prefix = enclosed.mapping.record.prefix
        guard !server.registrations.isBeingWritten(prefix), let held = server.registrations[prefix]?.certified else {
            return false
        }
        return held.mapping == enclosed.mapping && held.certificate.id == enclosed.certificate.id
    }

    /// Versions never go back. A duplicate is answered like the first; what is older gets the current record.
    private func compare(_ certified: CertifiedMapping, _ server: ServerView) throws(UpdateRefusal) -> Comparison {
        let prefix = certified.record.prefix
        guard let newest = server.registrations.newest(of: prefix)?.certified else { return .newer }
        if newest.mapping == certified.mapping, newest.certificate == certified.certificate {
            return server.registrations.newestTicket(of: prefix).map { .beingWritten($0) } ?? .same
        }
        // Records of different keys have no sequence in common: which of the keys counts is a question of certificates, which comes later.
        guard certified.certificate.nodeKey != newest.certificate.nodeKey || certified.version > newest.version else {
            throw UpdateRefusal(
                .stale,
                "the record's sequence \(certified.record.sequence) is not above \(newest.record.sequence), which is held: replayed or late",
                current: newest.mapping)
        }
        return .newer
    }

    /// Section 6: the node must have shown that it receives at the locator, within 300 s and from the node port.
    private func checkProof(
        of locator: Locator, _ proofs: [LocatorProof], _ request: Request, _ served: ServedPrefix, _ cookies: CookieAuthority,
        _ now: Now
    ) throws(UpdateRefusal) {
        guard locator.prefixLength == 128 else {
            // Nobody can prove a whole network by a datagram from it, so the operator vouches for it.
            guard served.mobilePrefixes.contains(where: { $0.contains(locator.prefix) }) else {
                throw UpdateRefusal(
                    .refused, "\(locator.prefix) is not among the mobile prefixes configured for \(served.prefix)")
            }
            return
        }
        let client = Endpoint(locator.moa.address, port: SignalPort.node)
        if request.source == client, request.isFresh { return }
        if let proof = proofs.first(where: { $0.locator == locator.moa }) {
            guard
                cookies.isValid(
                    proof.server, clientCookie: proof.client, from: client, now: now, ageMax: CookieAuthority.proofAgeMax)
            else {
                throw UpdateRefusal(
                    .refused, "LOCATOR-PROOF of \(locator.moa) is not ours, older than 300 s or not for port \(SignalPort.node)")
            }
            return
        }
        guard locator.moa.address == request.source.address else {
            throw UpdateRefusal(.refused, "locator \(locator.moa) is neither the source nor proven; the node does not hold it")
        }
        // The update itself may come from any port, but then its own cookie proves nothing.
        guard request.source == client else {
            throw UpdateRefusal(
                .refused,
                "locators are proven from port \(SignalPort.node) only, this came from port \(request.source.port) without LOCATOR-PROOF"
            )
        }
        // The reply brings a fresh cookie, so all that is missing is a repetition.
        throw UpdateRefusal(.cookieRequired, "the cookie is too old to prove the locator \(locator.moa)")
    }

    /// Section 11.1: the same for an endpoint, at whatever port it is.
    private func checkProof(
        of endpoint: Endpoint, _ proofs: [EndpointProof], _ request: Request, _ cookies: CookieAuthority, _ now: Now
    ) throws(UpdateRefusal) {
        if request.source == endpoint, request.isFresh { return }
        if let proof = proofs.first(where: { $0.endpoint == endpoint }) {
            guard
                cookies.isValid(
                    proof.server, clientCookie: proof.client, from: endpoint, now: now, ageMax: CookieAuthority.proofAgeMax)
            else { throw UpdateRefusal(.refused, "ENDPOINT-PROOF of \(endpoint) is not ours, older than 300 s or not for its port") }
            return
        }
        guard request.source == endpoint else {
            throw UpdateRefusal(.refused, "endpoint \(endpoint) is neither the source nor proven; the node does not receive there")
        }
        throw UpdateRefusal(.cookieRequired, "the cookie is too old to prove the endpoint \(endpoint)")
    }

    /// Section 11.1: what means another host elsewhere is in no record with endpoints.
    private func checkScope(of place: MappingRecord.Place, in record: MappingRecord) throws(UpdateRefusal) {
        guard record.hasKinds else { return }
        let address: IPAddress
        switch place {
        case .moa(let locator): address = locator.moa.address
        case .endpoint(let endpoint, _), .relay(let endpoint, _): address = endpoint.address
        case .unknown: return
        }
        guard address.scope != .global else { return }
        throw UpdateRefusal(.refused, "\(address) is not a global address, and a record with endpoints or relays lists no other")
    }

    /// What is refused whatever the update says: too many of one HoA.
    private func checkRate(of prefix: IPPrefix, _ server: ServerView, _ now: Now) throws(UpdateRefusal) {
        guard rates.allows(prefix, at: now.monotonic) else {
            throw UpdateRefusal(
                .tryLater, "more than \(server.limits.updatesPerSecond) updates of this HoA in a second", lifetime: 1)
        }
    }

    /// What is durable must be held, so without memory for it nothing is written. Who runs the server reads why in the log.
    private func checkMemory(for record: MappingRecord, _ server: ServerView) throws(UpdateRefusal) {
        guard server.registrations.memoryRefusal(for: record) != nil else { return }
        var error = UpdateRefusal(.tryLater, StoreState.noMemoryText, lifetime: StoreState.unavailableSeconds)
        error.isMemory = true
        throw error
    }

    /// Whether the store writes, and the bounds. Only for what would be written, so that a duplicate has its answer all the same.
    private func checkRoom(for record: MappingRecord, _ served: ServedPrefix, _ server: ServerView, _ now: Now)
        throws(UpdateRefusal)
    {
        if let refusal = server.store.refusal { throw UpdateRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds) }
        guard server.registrations.hasRoomForWrite(server.limits) else {
            throw UpdateRefusal(.tryLater, "\(server.registrations.writesCount) writes are waiting for the store", lifetime: 1)
        }
        guard server.registrations.hasRoom(for: record.prefix, server.limits) else {
            throw UpdateRefusal(.tryLater, "the table of \(server.limits.mappingsMax) mappings is full", lifetime: 60)
        }
        if let refusal = server.registrations.quotaRefusal(of: record.prefix, served, now) {
            var error = UpdateRefusal(refusal.code, refusal.reason, lifetime: refusal.lifetime)
            error.isQuota = true
            throw error
        }
    }
}
