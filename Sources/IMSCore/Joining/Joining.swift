import MATCore
import MATSignal
import MappingMemory

/// Join (protocol.md section 12): who holds a token, or visits, gets a home address.
///
/// ```
///   Join ─► signs here? ─► token known ─► its proof ─► signature ─► what it has already ──────────────────────────► that again
///              4 │            1 │           1 │       7 │ 1 │          └ nothing ─► token good ─► its HoA, or a free one ─► written ─► Join Reply
///                                                                                     6 │            2, 4, 6 │         7 │
///   a visitor's Join ─► taken in? ─► signature ─► his home's IMS keys: DNS ─► his certificate ─► what he has, or a free one ─► written ─► Join Reply
///                           6 │        7 │ 1 │               1 │ 7 │            1 │              2, 4, 6 │            7 │
///   Join, LIFETIME 0 ─► ... signature ─► has it, and has withdrawn since it has it ─► given back
///                                           6 │                                  or has given it back: that again
/// ```
/// Where an authority has a word, "free one" is preceded by its answer (`Authorisations`).
///
/// The numbers are the codes of the refusals. None of them spends a token or locks anything.
struct Joining: Sendable {
    /// A Join whose signature is being checked.
    struct Pending: Sendable {
        var request: Request
        var candidate: JoinQueue.Candidate
        var queue: JoinQueue.Key
        /// A visitor's certificate of his home.
        var home: Certificate?
        /// The home's certificate is being checked: the node's own signature fits.
        var isHomeChecked = false
    }

    enum OnJoin: Sendable {
        case answer(Reply)
        /// The signature is all that is left to check; then `verified`, or `unchecked` if there is no time for it.
        case verify(VerificationJob, Pending)
    }

    enum Action: Sendable {
        case answer(Reply)
        case write(PendingWrite)
        case authorise(AuthorisationTicket, Authorisation)
        case log(String)
        /// Ask the DNS for the keys at a visitor's home; then `resolved`.
        case lookUp(IPPrefix)
        case verify(VerificationJob, Pending)
    }

    /// Tokens at most.
    static let tokensMax = 100_000
    /// Tokens whose Joins are under way.
    static let queuesMax = 4096

    private(set) var tokens: [TokenID: HeldToken] = [:]
    var leases = LeaseTable()
    private(set) var authorisations = Authorisations()
    /// Whether other servers write at the same time. What is known here may then be late: what was given is said again only once the store has
    /// confirmed that it still holds, by a write that changes nothing; and whatever is given by a token is written over its last use, so that
    /// who does not know of that has to look again.
    var isShared = false
    private var queues: [JoinQueue.Key: JoinQueue] = [:]
    /// HoAs that writes on their way give.
    private(set) var taken: Set<IPPrefix> = []
    var homes = VisitorHomes()
    /// Visitors that writes on their way give something, of each family and by the key of their home's IMS.
    var visitorsTaken = FamilyPair<Int>(both: 0)
    var visitorsTakenByIssuer: [UInt64: Int] = [:]
    private var gates = VisitorGates()

    // MARK: Events

    /// A Join came under a valid cookie.
    func received(_ join: Join, _ request: Request, _ server: ServerView) -> OnJoin {
        guard !server.store.isLoading else { return .answer(Self.refuse(request, join.key, .tryLater, "the store is still being read", lifetime: 1)) }
        guard server.configuration.signingKey != nil else {
            return .answer(Self.refuse(request, join.key, .notAuthoritative, "this server signs no certificates"))
        }
        let proof: TokenProof
        switch join.title {
        case .token(let shown): proof = shown
        case .visitor(let home, let certificate): return visit(join, home, certificate, request, server)
        }
        // Whether the token or its proof is wrong is nobody's business.
        let wrong = "the token is not known here, or its proof does not fit"
        guard let token = tokens[proof.token],
            let statement = server.configuration.publicKeys.lazy.compactMap({ join.statement(to: $0) }).first(where: {
                proof.isValid(token.secret, over: $0)
            })
        else { return .answer(Self.refuse(request, join.key, .authenticationFailed, wrong)) }
        let candidate = JoinQueue.Candidate(
            key: join.key, origin: .token(token.id), wanted: join.wanted, lifetime: join.lifetime, requests: [request])
        return .verify(
            VerificationJob(JoinClaim(statement: statement, signature: join.signature)),
            Pending(request: request, candidate: candidate, queue: .token(token.id)))
    }

    /// There is no time to check its signature.
    func unchecked(_ pending: Pending, _ refusal: VerificationRefusal) -> Reply {
        Self.refuse(pending.request, pending.candidate.key, .tryLater, refusal.reason, lifetime: refusal.seconds)
    }

    /// The signature has been checked.
    ///
    /// - Parameter server: without the leases, of which this would otherwise have to make a copy.
    mutating func verified(_ pending: Pending, _ failure: VerificationFailure?, _ server: ServerView, _ now: Now) -> [Action] {
        if let failure { return [.answer(Self.refuse(pending.request, pending.candidate.key, .authenticationFailed, failure.reason))] }
        if let home = pending.home, !pending.isHomeChecked { return askAbout(home, pending, server, now) }
        guard let authorisation = authorisation(for: pending, server, now) else { return admit(pending.candidate, pending.queue, server, now) }
        var candidate = pending.candidate
        candidate.authority = authorisation.authority
        switch authorisations.wanted(candidate, pending.queue) {
        case .ask(let ticket): return [.authorise(ticket, authorisation)]
        case .joined: return []
        case .full: return Self.refuse(candidate, .tryLater, "too many nodes wait for the word of \(authorisation.authority)", lifetime: 2)
        }
    }

    /// An authority has answered.
    mutating func authorised(_ ticket: AuthorisationTicket, _ answer: AuthorisationAnswer, _ server: ServerView, _ now: Now) -> [Action] {
        guard let waiting = authorisations.ended(ticket) else { return [] }
        var candidate = waiting.candidate
        switch answer {
        case .granted(let seconds):
            candidate.secondsMax = seconds
            return admit(candidate, waiting.queue, server, now)
        case .refused(let reason): return Self.refuse(candidate, .refused, reason)
        case .unanswered(let reason): return Self.refuse(candidate, .tryLater, reason, lifetime: 5)
        }
    }

    /// What an authority has to be asked first; `nil` if nothing, also where something is refused or given again anyway.
    private func authorisation(for pending: Pending, _ server: ServerView, _ now: Now) -> Authorisation? {
        let candidate = pending.candidate
        guard !server.configuration.authorities.isEmpty, candidate.lifetime != 0, queues[pending.queue]?.contains(candidate) != true,
            let token = token(of: pending.queue)
        else { return nil }
        let mine = leases.held(by: candidate.key, candidate.origin)
        if let same = mine.first(where: { candidate.wanted?.contains($0.prefix) ?? true }), grant(of: same, server, now) != nil { return nil }
        guard token.refusal(isNew: mine.isEmpty, now) == nil, let places = try? token.places(wanted: candidate.wanted, server),
            let authority = places.lazy.compactMap({ server.configuration.authority(over: $0) }).first
        else { return nil }
        return Authorisation(
            authority: authority.name, token: token.id, key: candidate.key,
            places: places.filter { server.configuration.authority(over: $0)?.name == authority.name }, source: pending.request.source)
    }

    private mutating func admit(_ candidate: JoinQueue.Candidate, _ queue: JoinQueue.Key, _ server: ServerView, _ now: Now) -> [Action] {
        guard queues[queue] != nil || queues.count < Self.queuesMax, queues[queue, default: JoinQueue()].add(candidate, isShared: isShared) else {
            return Self.refuse(candidate, .tryLater, "too many nodes are joining", lifetime: 2)
        }
        return advance(queue, server, now)
    }

    /// The store has answered for a write.
    mutating func written(_ key: JoinQueue.Key, _ result: StoreOutcome.Result, rows: [StoredRow], _ server: ServerView, _ now: Now) -> [Action] {
        guard let given = queues[key]?.end() else { return [] }
        for each in given { taken.remove(IPPrefix(each.grant.hoa.address)) }
        countVisitors(given, by: -1)
        var actions: [Action] = []
        switch result {
        case .durable:
            hold(rows)
            for each in given {
                let what = each.grant.lifetime == 0 ? "gave back" : each.candidate.origin.isVisit ? "visits as" : "joined as"
                if !each.isAgain { actions.append(.log("\(Self.name(each.candidate.key)) \(what) \(each.grant.hoa), by \(each.candidate.origin)")) }
                actions += each.candidate.requests.map { .answer(Self.granted(each.grant, $0)) }
            }
        case .conflict(let held):
            hold(held, isAnyVersion: true)
            for tired in queues[key]?.retry(given) ?? [] {
                actions += tired.requests.map {
                    .answer(Self.refuse($0, tired.key, .tryLater, "other servers of this IMS give addresses at the same time", lifetime: 1))
                }
            }
        case .failed, .outrun:
            for each in given {
                actions += each.candidate.requests.map {
                    .answer(Self.refuse($0, each.candidate.key, .tryLater, "the store does not take it", lifetime: 5))
                }
            }
        }
        return actions + advance(key, server, now)
    }

    /// The store holds these.
    ///
    /// - Parameter isAnyVersion: also those that are older than what was believed.
    mutating func hold(_ rows: [StoredRow], isAnyVersion: Bool = false) {
        for row in rows {
            switch row.kind {
            case .token:
                guard let id = RowKey.token(row.key) else { continue }
                guard let token = HeldToken(row) else {
                    if row.value.isEmpty { tokens[id] = nil }
                    continue
                }
                if isAnyVersion || tokens[id].map({ $0.version < token.version }) ?? (tokens.count < Self.tokensMax) { tokens[id] = token }
            case .lease: if let lease = Lease(row) { leases.set(lease) }
            case .visitorGate: gates.hold(row, isAnyVersion: isAnyVersion)
            }
        }
    }

    /// What is held of the same token, lease or gate.
    func row(like row: StoredRow) -> StoredRow? {
        switch row.kind {
        case .token: RowKey.token(row.key).flatMap { tokens[$0]?.row }
        case .lease: RowKey.prefix(row.key).flatMap { leases[$0]?.row }
        case .visitorGate: gates.row(like: row)
        }
    }

    // MARK: One write after the other

    private mutating func advance(_ key: JoinQueue.Key, _ server: ServerView, _ now: Now) -> [Action] {
        var actions: [Action] = []
        while let candidates = queues[key]?.take(), !candidates.isEmpty {
            var batch = Batch(token: token(of: key), isShared: isShared)
            var late: [JoinQueue.Candidate] = []
            for candidate in candidates {
                // What a key gets depends on what it has.
                guard !batch.given.contains(where: { $0.candidate.key == candidate.key }) else {
                    late.append(candidate)
                    continue
                }
                do throws(Allotment.Refusal) {
                    let decision: Decision
                    switch candidate.origin {
                    case .visitor(_, let issuer): decision = try decideVisit(candidate, certifiedBy: issuer, batch, server, now)
                    case .token, .hand: decision = try decide(candidate, &batch, server, now)
                    }
                    switch decision {
                    // One write says one thing of a lease.
                    case .again(let lease, _) where batch.prefixes.contains(lease.prefix): late.append(candidate)
                    case .give(let lease, _, _) where batch.prefixes.contains(lease.prefix): late.append(candidate)
                    case .giveBack(let lease, _, _) where batch.prefixes.contains(lease.prefix): late.append(candidate)
                    case .again(let lease, let grant) where isShared || lease != leases[lease.prefix]:
                        batch.confirm(lease, candidate, grant, server.registrations.newest(of: lease.prefix))
                    case .again(_, let grant): actions += candidate.requests.map { .answer(Self.granted(grant, $0)) }
                    case .give(let lease, let grant, let certificate):
                        batch.give(
                            lease, candidate, grant, certificate, isFurtherVisitor: lease.isVisitors && !leases.isVisiting(lease.prefix))
                        // What a visitor has already is guarded by its own row.
                        let isFirst = !leases.held(by: lease.key, lease.origin).contains { $0.prefix == lease.prefix }
                        if isShared, lease.isVisitors, isFirst { batch.pass(gates.next(of: lease.key)) }
                    case .giveBack(let lease, let grant, let withdrawal): batch.giveBack(lease, candidate, grant, withdrawal)
                    case .later: late.append(candidate)
                    }
                } catch {
                    actions += candidate.requests.map { .answer(Self.refuse($0, candidate.key, error.code, error.reason)) }
                }
            }
            guard !batch.given.isEmpty else { continue }
            for each in batch.given { taken.insert(IPPrefix(each.grant.hoa.address)) }
            countVisitors(batch.given, by: 1)
            queues[key]?.begin(batch.given)
            queues[key]?.putBack(late)
            actions.append(.write(PendingWrite(rows: batch.rows, certificates: batch.certificates, relied: batch.relied, joins: key)))
            break
        }
        if queues[key]?.isEmpty == true { queues[key] = nil }
        return actions
    }

    private func token(of key: JoinQueue.Key) -> HeldToken? { if case .token(let id) = key { tokens[id] } else { nil } }

    /// What one write gives.
    struct Batch {
        var token: HeldToken?
        private(set) var given: [JoinQueue.Given] = []
        private(set) var certificates: [Certificate] = []
        /// Whether something is given back, or is no longer to be, depends on them.
        private(set) var relied: [MappingVersion] = []
        private var leases: [StoredRow] = []
        private var gates: [StoredRow] = []
        private var newUses: Set<PublicKey> = []
        private let isShared: Bool

        init(token: HeldToken?, isShared: Bool) {
            self.token = token
            self.isShared = isShared
        }

        var prefixes: Set<IPPrefix> { Set(given.map { IPPrefix($0.grant.hoa.address) }) }

        /// The token's row among them only if it was used by somebody new, or others might use it now.
        var rows: [StoredRow] {
            guard var token, !newUses.isEmpty || isShared && !certificates.isEmpty else { return leases + gates }
            token.version += 1
            return leases + gates + [token.row]
        }

        mutating func confirm(_ lease: Lease, _ candidate: JoinQueue.Candidate, _ grant: JoinReply.Grant, _ mapping: StoredMapping?) {
            var same = lease
            same.version += 1
            leases.append(same.row)
            relied.append(MappingVersion(lease.prefix, mapping?.certified.version))
            given.append(JoinQueue.Given(candidate: candidate, grant: grant, isAgain: true))
        }

        mutating func give(
            _ lease: Lease, _ candidate: JoinQueue.Candidate, _ grant: JoinReply.Grant, _ certificate: Certificate, isFurtherVisitor: Bool
        ) {
            given.append(JoinQueue.Given(candidate: candidate, grant: grant, isFurtherVisitor: isFurtherVisitor))
            leases.append(lease.row)
            certificates.append(certificate)
        }

        mutating func giveBack(_ lease: Lease, _ candidate: JoinQueue.Candidate, _ grant: JoinReply.Grant, _ withdrawal: MappingVersion) {
            given.append(JoinQueue.Given(candidate: candidate, grant: grant))
            leases.append(lease.row)
            relied.append(withdrawal)
        }

        /// Two visitors may have one gate.
        mutating func pass(_ gate: StoredRow) { if !gates.contains(gate) { gates.append(gate) } }

        /// The node counts as one that joined with the token.
        mutating func use(by key: PublicKey) {
            guard newUses.insert(key).inserted, let uses = token?.uses else { return }
            token?.uses = uses &+ 1
        }
    }

    enum Decision {
        /// It has that already.
        case again(Lease, JoinReply.Grant)
        case give(Lease, JoinReply.Grant, Certificate)
        case giveBack(Lease, JoinReply.Grant, MappingVersion)
        /// To be decided after this write.
        case later
    }

    private func decide(
        _ candidate: JoinQueue.Candidate, _ batch: inout Batch, _ server: ServerView, _ now: Now
    ) throws(Allotment.Refusal) -> Decision {
        guard let token = batch.token else { throw Allotment.Refusal(.authenticationFailed, "the token is not known here any more") }
        let mine = leases.held(by: candidate.key, candidate.origin)
        let same = mine.first { candidate.wanted?.contains($0.prefix) ?? true }
        if candidate.lifetime == 0 { return try giveBack(candidate, server, now) }
        if let same, let grant = grant(of: same, server, now) { return .again(asked(for: same, server), grant) }
        if let reason = token.refusal(isNew: mine.isEmpty, now) {
            // Spent by those before it in this write? Whether that is so, and who had joined elsewhere, is known when the store has taken it.
            if tokens[token.id]?.refusal(isNew: mine.isEmpty, now) == nil { return .later }
            throw Allotment.Refusal(.refused, reason)
        }
        // Only of what this Join's authority has spoken.
        let places = try token.places(wanted: candidate.wanted, server).filter {
            server.configuration.authority(over: $0)?.name == candidate.authority
        }
        guard !places.isEmpty else { throw Allotment.Refusal(.tryLater, "who has a word in this has changed meanwhile") }
        let single = places.first { place in place.length == 128 && token.gives.contains(place) && !batch.prefixes.contains(place) }
        let prefix: IPPrefix
        // A token of one HoA gives it to whoever comes last.
        if let already = same?.prefix ?? single {
            prefix = already
        } else {
            prefix = try allotment(for: candidate, batch, server, now).hoa(in: places, for: candidate.key)
        }
        let most = Duration.seconds(Int64(clamping: token.certificateSeconds ?? .max))
        let usual = min(server.configuration.certificateLifetime, most)
        let wanted = candidate.lifetime.map { min(usual, .seconds(Int64($0))) } ?? usual
        let lifetime = candidate.secondsMax.map { min(wanted, .seconds(Int64(max(1, $0)))) } ?? wanted
        guard let certificate = server.issue(prefix, candidate.key, lifetime, now) else {
            throw Allotment.Refusal(.tryLater, "no certificate could follow the newest of \(prefix.shortText): a clock was wrong, or is")
        }
        // By its certificate, and so later than all that was signed under the HoA's earlier ones, whosever clock those had their time from.
        var lease = Lease(prefix, key: candidate.key, candidate.origin, givenAt: certificate.notBefore)
        lease.version = (leases[prefix]?.version ?? 0) + 1
        // What an authority gave for a time has to be asked for again.
        lease.isRenewed = token.isRenewed && candidate.secondsMax == nil
        if !lease.isRenewed { lease.endsAt = certificate.notAfter }
        if mine.isEmpty { batch.use(by: candidate.key) }
        return .give(lease, Self.grant(certificate, now), certificate)
    }

    /// - Returns: for one question, since it keeps the leases from being changed without a copy.
    func allotment(for candidate: JoinQueue.Candidate, _ batch: Batch, _ server: ServerView, _ now: Now) -> Allotment {
        Allotment(
            server: server, leases: leases, taken: taken.union(batch.prefixes),
            own: Set(server.configuration.publicAddresses + candidate.requests.map(\.local)), now: now)
    }

    /// What a lease still gives; `nil` if its certificate has ended, or another key has the HoA since.
    private func grant(of lease: Lease, _ server: ServerView, _ now: Now) -> JoinReply.Grant? {
        guard let certificate = server.registrations.certificates[lease.prefix], certificate.nodeKey == lease.key,
            certificate.notAfter > now.wallMilliseconds
        else { return nil }
        return Self.grant(certificate, now)
    }

    /// Its holder asks for it again: what it sent before to give it back, and may still be on its way, no longer counts.
    func asked(for lease: Lease, _ server: ServerView) -> Lease {
        var same = lease
        if let withdrawal = withdrawal(of: lease, server) { same.withdrawnAt = withdrawal.record.sequence }
        return same
    }

    /// The withdrawal that is in force, if it was made since the lease was given: under a certificate of this lease, of which an earlier lease has
    /// none, and since its holder last asked for it.
    private func withdrawal(of lease: Lease, _ server: ServerView) -> StoredMapping? {
        guard let mapping = server.registrations.newest(of: lease.prefix), mapping.record.isWithdrawal,
            mapping.certified.certificate.nodeKey == lease.key, mapping.certified.certificate.notBefore >= lease.givenAt,
            lease.withdrawnAt.map({ $0 < mapping.record.sequence }) ?? true
        else { return nil }
        return mapping
    }

    /// Requests come late, and twice: one of these that was sent before the same key was given the HoA again must not take it.
    func giveBack(_ candidate: JoinQueue.Candidate, _ server: ServerView, _ now: Now) throws(Allotment.Refusal) -> Decision {
        guard let wanted = candidate.wanted, wanted.length == 128, let lease = leases[wanted], lease.key == candidate.key,
            lease.origin == candidate.origin, let certificate = server.registrations.certificates[wanted], certificate.nodeKey == lease.key
        else { throw Allotment.Refusal(.refused, "nothing of this key's is there to be given back; name the address") }
        let grant = JoinReply.Grant(HomeAddress(wanted.address), certificate, lifetime: 0)
        if lease.isReturned { return .again(lease, grant) }
        guard let mapping = withdrawal(of: lease, server) else {
            throw Allotment.Refusal(.refused, "\(wanted.shortText) is not withdrawn since it was given; withdraw it first")
        }
        var returned = lease
        returned.isReturned = true
        // A visitor's rests from now on.
        if returned.isVisitors { returned.endsAt = min(returned.endsAt ?? .max, now.wallMilliseconds) }
        returned.version += 1
        return .giveBack(returned, grant, MappingVersion(wanted, mapping.certified.version))
    }

    // MARK: Answers

    static func grant(_ certificate: Certificate, _ now: Now) -> JoinReply.Grant {
        let left = certificate.notAfter > now.wallMilliseconds ? (certificate.notAfter - now.wallMilliseconds) / 1000 : 0
        return JoinReply.Grant(HomeAddress(certificate.prefix.address), certificate, lifetime: UInt32(clamping: max(1, left)))
    }

    private static func granted(_ grant: JoinReply.Grant, _ request: Request) -> Reply {
        Reply(.joinReply(JoinReply(code: .ok, cookie: request.cookie, granted: grant)), to: request)
    }

    static func refuse(_ request: Request, _ key: PublicKey, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil) -> Reply {
        Reply(
            .joinReply(JoinReply(code: code, cookie: request.cookie, lifetime: lifetime, text: reason)), to: request,
            refusal: Refusal(subject: .join(name(key)), source: request.source, code: code, reason: reason))
    }

    private static func refuse(_ candidate: JoinQueue.Candidate, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil) -> [Action] {
        candidate.requests.map { .answer(refuse($0, candidate.key, code, reason, lifetime: lifetime)) }
    }

    /// A key as logs name it: its id.
    static func name(_ key: PublicKey) -> String { "key \(TokenID(rawValue: key.id))" }
}

extension Lease.Origin: CustomStringConvertible {
    var isVisit: Bool { if case .visitor = self { true } else { false } }

    public var description: String {
        switch self {
        case .token(let id): "token \(id)"
        case .visitor(let home, _): "visit from \(home)"
        case .hand: "hand"
        }
    }
}

// MARK: Tokens

/// Why a token was not made or changed, for the person who asked.
public struct TokenRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension Joining {
    /// What makes a token durable.
    func create(_ token: HeldToken, _ server: ServerView) throws(TokenRefusal) -> PendingWrite {
        guard server.configuration.signingKey != nil else {
            throw TokenRefusal("this server has no signing key; make tokens where the key is kept")
        }
        guard tokens.count < Self.tokensMax else {
            throw TokenRefusal("there are \(tokens.count) tokens, as many as may be; let more nodes join by one of them (--uses)")
        }
        guard tokens[token.id] == nil else { throw TokenRefusal("a token of this id is there already; try again") }
        guard !token.gives.isEmpty else { throw TokenRefusal("a token gives a prefix or a home address; name one") }
        for prefix in token.gives {
            guard let served = server.configuration.served(covering: prefix) else {
                let own = server.configuration.served.map(\.prefix.description).joined(separator: ", ")
                throw TokenRefusal("\(prefix.shortText) is not within a prefix served here (\(own))")
            }
            if let name = served.prefix.specialName(of: prefix) {
                throw TokenRefusal("\(prefix.shortText) is the \(name) of \(served.prefix), which no node can have; choose another address")
            }
        }
        if let refusal = server.store.refusalForOperators { throw TokenRefusal("\(refusal); try again later") }
        var token = token
        token.version = 1
        return PendingWrite(rows: [token.row])
    }

    func revoke(_ id: TokenID, _ now: Now) throws(TokenRefusal) -> PendingWrite? {
        guard var token = tokens[id] else { throw TokenRefusal("there is no token \(id); `mat ims token list` shows them") }
        guard token.revokedAt == nil else { return nil }
        token.revokedAt = now.wallMilliseconds
        token.version += 1
        return PendingWrite(rows: [token.row])
    }
}
