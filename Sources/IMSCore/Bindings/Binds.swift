import MATCore
import MATSignal
import MappingMemory

/// Bind (section 11.3): nodes behind translators and filters keep the endpoint known here at which they can be reached.
///
/// ```
///   no HOA ──────────────────────────────────────────────────────────────────────────────────────► code 0: what was seen
///   HOA alone ─► bound from here, under this client cookie, and signed within 600 s? ────────────► granted on
///                   2 │
///   signed ─► cookie of 300 s ─► authority ─► registered ─► certificate ─► no repetition, room ─► verify ─┐
///                  9 │               4 │         2, 7 │            1 │               9, 7 │          7 │   │
///        ┌────────────────────────────────────────────────────────────────────────────────────────────────┘
///        └─ ... ─ verified ─► registered still ─► no repetition, room ─► granted, or ended
///                      1 │                2 │              9, 7 │
///
///   behind an IMS Update in the same datagram: waits for what becomes of that, and is then received
/// ```
/// The numbers are the codes of the refusals. Without a valid cookie nothing of this is looked at (code 9). The table says what may be bound;
/// all that is said here is whether it is asked.
struct Binds: Sendable {
    /// A Bind whose signature is being checked.
    struct Pending: Sendable {
        var request: Request
        var wanted: BindingTable.Request
    }

    /// One that waits for an IMS Update.
    struct Waiting: Sendable {
        var bind: Bind
        var request: Request
    }

    enum OnBind: Sendable {
        case answer(Reply)
        /// The signature is all that is left to check; then `verified`, or `unchecked` if there is no time for it.
        case verify(VerificationJob, Pending)
    }

    struct OnVerified: Sendable {
        var reply: Reply
        /// What other instances should know.
        var news: SharedNews?
    }

    /// Why a Bind is refused.
    private struct BindRefusal: Error {
        var code: ResponseCode
        var reason: String
        var lifetime: UInt32?

        init(_ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil) {
            self.code = code
            self.reason = reason
            self.lifetime = lifetime
        }
    }

    /// What is bound. Others may look at it.
    private(set) var table: BindingTable
    /// By the update that they wait for.
    private var waiting = BoundedTable<Request, [Waiting]>(max: Self.waitingMax)

    /// Updates that Binds wait for; the oldest goes first, and its node binds again.
    static let waitingMax = 4096
    /// Binds that wait for one update: more are repetitions.
    static let waitingPerUpdateMax = 4

    init(_ limits: IMSLimits) { table = BindingTable(BindingLimits(bindingsMax: limits.bindingsMax)) }

    mutating func reconfigure(_ limits: IMSLimits) { table.reconfigure(BindingLimits(bindingsMax: limits.bindingsMax)) }

    // MARK: Events

    /// A Bind came under a valid cookie.
    ///
    /// - Parameter server: without the bindings, of which this would otherwise have to make a copy.
    mutating func received(_ bind: Bind, _ request: Request, _ server: ServerView, _ now: Now) -> OnBind {
        switch bind.wish {
        case .ask: return .answer(Self.observed(request))
        case .refresh(let hoa):
            do throws(BindRefusal) {
                return .answer(try refreshed(hoa, request, server, now))
            } catch {
                return .answer(Self.refuse(hoa, request, error))
            }
        case .bind(let hoa, let proof, let lifetime):
            do throws(BindRefusal) {
                return try accept(hoa, proof, lifetime, request, server, now)
            } catch {
                return .answer(Self.refuse(hoa, request, error))
            }
        }
    }

    /// There is no time to check its signature.
    func unchecked(_ pending: Pending, _ refusal: VerificationRefusal) -> Reply {
        Self.refuse(HomeAddress(pending.wanted.prefix.address), pending.request, BindRefusal(.tryLater, refusal.reason, lifetime: refusal.seconds))
    }

    /// The signature has been checked. Another Bind, or a withdrawal, may have come first.
    mutating func verified(_ pending: Pending, _ failure: VerificationFailure?, _ server: ServerView, _ now: Now) -> OnVerified {
        let hoa = HomeAddress(pending.wanted.prefix.address)
        do throws(BindRefusal) {
            if let failure { throw BindRefusal(.authenticationFailed, failure.reason) }
            try checkIsRegistered(pending.wanted.prefix, server, now)
            switch table.bind(pending.wanted, now) {
            case .bound(let binding, _, _, _):
                return OnVerified(
                    reply: Self.granted(hoa, pending.request, seconds: binding.secondsLeft(now.monotonic)),
                    news: .bound(binding.prefix, lasts: binding.refreshedUntilMax - now.monotonic))
            case .ended(let ended, _):
                return OnVerified(reply: Self.granted(hoa, pending.request, seconds: 0), news: ended.map { .unbound($0.prefix) })
            case .refused(let refusal): throw Self.refusal(refusal, server)
            }
        } catch {
            return OnVerified(reply: Self.refuse(hoa, pending.request, error))
        }
    }

    /// A mapping is no more: its node is at no endpoint.
    mutating func withdrawn(_ prefix: IPPrefix, _ now: Now) { table.end(prefix, now.monotonic) }

    /// A node has registered. If it did so from elsewhere than where it is bound, and lists nothing there, it has left that place, and what would be
    /// sent there is lost: it binds anew if it needs to.
    ///
    /// - Returns: whether a binding ended.
    mutating func registered(_ mapping: StoredMapping, _ now: Now) -> Bool {
        let record = mapping.record
        guard let bound = table.binding(of: record.prefix, now.monotonic)?.endpoint.address, bound != mapping.source.address,
            !record.lists(MobileAddress(bound)), !record.endpoints.contains(where: { $0.address == bound })
        else { return false }
        table.end(record.prefix, now.monotonic)
        return true
    }

    mutating func restore(_ saved: [SavedBinding], _ configuration: IMSCoreConfiguration, _ now: Now) {
        for binding in saved where configuration.served(covering: binding.prefix) != nil {
            _ = table.restore(binding, holder: .resident, now)
        }
    }

    // MARK: Waiting for an update

    /// It came behind an IMS Update whose answer is not known yet.
    mutating func wait(_ bind: Bind, _ request: Request, for update: Request) {
        var all = waiting[update] ?? []
        guard all.count < Self.waitingPerUpdateMax, !all.contains(where: { $0.request == request }) else { return }
        all.append(Waiting(bind: bind, request: request))
        waiting[update] = all
    }

    /// The update has been answered.
    ///
    /// - Returns: what is to be received now.
    mutating func takeWaiting(for update: Request) -> [Waiting] {
        guard let all = waiting[update] else { return [] }
        waiting[update] = nil
        return all
    }

    // MARK: Time

    mutating func sweep(_ now: MonotonicTime) { _ = table.sweep(steps: Sweep.steps(table.slotsCount), now) }

    // MARK: Checks

    /// All that costs little, and then the signature.
    private mutating func accept(
        _ hoa: HomeAddress, _ proof: PathProof, _ lifetime: UInt32, _ request: Request, _ server: ServerView, _ now: Now
    ) throws(BindRefusal) -> OnBind {
        guard request.isFresh, let cookie = request.serverCookie else {
            throw BindRefusal(.cookieRequired, "the cookie is too old to prove where the node receives")
        }
        try checkAuthority(hoa, server)
        guard let held = server.registrations.current(covering: hoa.address, now), !held.record.isWithdrawal, held.record.hoa == hoa else {
            throw notRegistered("\(hoa)", server)
        }
        let certificate = try certificate(proof.certificate, held.record.prefix, server, now)
        let wanted = BindingTable.Request(
            prefix: certificate.prefix, endpoint: request.source, local: Endpoint(request.local, port: server.configuration.port),
            cookieTime: UInt32(truncatingIfNeeded: cookie.head), clientCookie: request.clientCookie, seconds: lifetime,
            certificateNotAfter: certificate.notAfter)
        if let refusal = table.mayBind(wanted, now) { throw Self.refusal(refusal, server) }
        let claim = server.claim(proof.signature, of: hoa, request, cookie)
        return .verify(
            VerificationJob(claim, by: certificate, issuers: server.issuersToCheck(certificate)),
            Pending(request: request, wanted: wanted))
    }

    private mutating func refreshed(_ hoa: HomeAddress, _ request: Request, _ server: ServerView, _ now: Now) throws(BindRefusal) -> Reply {
        try checkAuthority(hoa, server)
        let local = Endpoint(request.local, port: server.configuration.port)
        guard
            let binding = table.refresh(hoa, from: request.source, to: local, clientCookie: request.clientCookie, now.monotonic)
        else { throw BindRefusal(.notFound, "no binding of \(hoa) to refresh from here") }
        return Self.granted(hoa, request, seconds: binding.secondsLeft(now.monotonic))
    }

    private func checkAuthority(_ hoa: HomeAddress, _ server: ServerView) throws(BindRefusal) {
        guard server.configuration.served(covering: hoa.address) != nil else {
            throw BindRefusal(.notAuthoritative, "no prefix served here covers \(hoa)")
        }
    }

    private func checkIsRegistered(_ prefix: IPPrefix, _ server: ServerView, _ now: Now) throws(BindRefusal) {
        guard let held = server.registrations[prefix], held.isCurrent(now), !held.record.isWithdrawal else {
            throw notRegistered(prefix.shortText, server)
        }
    }

    /// What is not known may yet be read.
    private func notRegistered(_ name: String, _ server: ServerView) -> BindRefusal {
        guard server.store.isIncomplete else { return BindRefusal(.notFound, "nothing is registered for \(name)") }
        return BindRefusal(.tryLater, server.store.unknown.text, lifetime: server.store.unknown.seconds)
    }

    /// The HoA's newest certificate, whole or named, as an IMS Update's; all of it but its signature is checked.
    private func certificate(
        _ reference: CertificateReference, _ prefix: IPPrefix, _ server: ServerView, _ now: Now
    ) throws(BindRefusal) -> Certificate {
        guard let certificate = server.registrations.certificate(named: reference, of: prefix) else {
            throw BindRefusal(.authenticationFailed, "CERT-ID is unknown here; repeat with CERTIFICATE")
        }
        guard certificate.prefix == prefix else {
            throw BindRefusal(.authenticationFailed, "the certificate is for \(certificate.prefix), the HoA is registered as \(prefix)")
        }
        do throws(VerificationFailure) {
            try certificate.key.checkTimes(of: certificate.prefix, now)
        } catch {
            throw BindRefusal(.authenticationFailed, error.reason)
        }
        if let reason = server.registrations.refusalOfOlder(certificate) { throw BindRefusal(.authenticationFailed, reason) }
        guard server.configuration.issuerIDs.contains(certificate.issuerID) else {
            throw BindRefusal(.authenticationFailed, "the certificate is signed with a key that is not among this server's")
        }
        return certificate
    }

    // MARK: Answers

    /// What was seen: also the answer of the workers' query path.
    static func observed(_ request: Request) -> Reply {
        Reply(.bindAck(BindAck(code: .ok, cookie: request.cookie, observed: request.source)), to: request)
    }

    /// A mapping server is neither relay nor gateway.
    private static func granted(_ hoa: HomeAddress, _ request: Request, seconds: UInt32) -> Reply {
        Reply(
            .bindAck(
                BindAck(
                    code: .ok, cookie: request.cookie, observed: request.source,
                    granted: BindAck.Grant(hoa, lifetime: seconds, role: []))), to: request)
    }

    private static func refusal(_ refusal: BindingTable.Refusal, _ server: ServerView) -> BindRefusal {
        switch refusal {
        case .olderCookie: BindRefusal(.cookieRequired, "the cookie is older than that of the last Bind, or that Bind is repeated")
        case .certificateEnded: BindRefusal(.authenticationFailed, "the certificate has ended")
        // All nodes are this server's own.
        case .full, .fullOfVisitors, .fullOfIssuer:
            BindRefusal(.tryLater, "the table of \(server.limits.bindingsMax) bindings is full", lifetime: 60)
        }
    }

    private static func refuse(_ hoa: HomeAddress, _ request: Request, _ refusal: BindRefusal) -> Reply {
        let ack = BindAck(
            code: refusal.code, cookie: request.cookie, observed: request.source, lifetime: refusal.lifetime,
            text: refusal.code == .cookieRequired || refusal.code == .notFound ? nil : refusal.reason)
        return Reply(
            .bindAck(ack), to: request,
            refusal: Refusal(subject: .bind(hoa), source: request.source, code: refusal.code, reason: refusal.reason))
    }
}
