import MATCore
import MATSignal
import MappingMemory

/// MA Query, HA Query, and the draft's query: answered from memory.
///
/// ```
///   MA Query ─► authority ─► the store is read ─► found? ─► record; the certificate unless the asker has it; SUBSCRIBE under a valid cookie
///                  5 │              7 │             3 │
///   HA Query ─► rate of the source ─► source registered or bound? ─► found here? ─► remembered? ─► record and certificate
///                  7 │                          2, 7 │                                  3, 7 │
/// ```
/// The numbers are the codes of other answers. Queries in datagrams of their own are answered by the query path's workers from the same
/// table, octet for octet alike (`QueryResponder`).
package struct Queries: Sendable {
    private var rates: RateTable<IPPrefix>
    private var drafts: RateLimit

    /// What is said of an address from which HA Query is not answered.
    package static let unlistedSource: StaticString = " is no locator of a node registered here, or this is not from port 6289"

    /// The most that a HA Answer's "not found" may be remembered (section 7), seconds.
    package static let strangerNotFoundSecondsMax: UInt32 = 5

    struct OnMAQuery: Sendable {
        var answer: MAAnswer
        /// The subscription that was asked for: the answer says how long it lasts, if it is granted.
        var subscription: SubscriptionWish?
    }

    /// A wish that can be granted if there is room.
    struct SubscriptionWish: Sendable {
        /// Of the mapping.
        var prefix: IPPrefix
        var seconds: UInt32
    }

    struct OnHAQuery: Sendable {
        var answer: HAAnswer
        /// The mapping of another IMS's node that holds the MoA was asked for by a node of ours: it is in use.
        var isRememberedUsed = false
        var refusal: Refusal?
    }

    init(_ limits: IMSLimits) {
        rates = RateTable(perSecond: limits.queriesPerSecond, keysMax: limits.ratesMax)
        drafts = RateLimit(perSecond: limits.draftAnswersPerSecond)
    }

    mutating func reconfigure(_ limits: IMSLimits) {
        rates.reconfigure(perSecond: limits.queriesPerSecond, keysMax: limits.ratesMax)
        drafts.reconfigure(perSecond: limits.draftAnswersPerSecond)
    }

    var ratesCount: Int { rates.count }
    mutating func sweep(_ now: MonotonicTime) { rates.sweep(now) }

    // MARK: MA Query

    func answer(_ query: MAQuery, _ request: Request, _ server: ServerView, _ now: Now) -> OnMAQuery {
        var answer = MAAnswer(code: .ok, cookie: request.cookie, hoa: query.hoa)
        guard let served = server.configuration.served(covering: query.hoa.address) else {
            answer.code = .notAuthoritative
            answer.text = "no prefix served here covers \(query.hoa)"
            return OnMAQuery(answer: answer)
        }
        let found = server.registrations.entry(covering: query.hoa.address)
        // The record of a network may be followed by that of a node within it, so it is not the answer yet either.
        if server.store.isIncomplete, found?.record.prefixLength != 128 {
            answer.code = .tryLater
            answer.lifetime = server.store.unknown.seconds
            answer.text = server.store.unknown.text
            return OnMAQuery(answer: answer)
        }
        guard let entry = found, entry.isCurrent(now) else {
            answer.code = .notFound
            answer.lifetime = server.limits.notFoundSeconds
            return OnMAQuery(answer: answer)
        }
        answer.mapping = entry.certified.mapping
        if query.certID != entry.certified.certificate.id { answer.certificate = entry.certified.certificate }
        var result = OnMAQuery(answer: answer)
        if let asked = query.subscribe, asked > 0, request.isValidated, mayBeTold(request.source, served, server, now) {
            result.subscription = SubscriptionWish(
                prefix: entry.record.prefix, seconds: min(asked, server.limits.subscribeSecondsMax))
        }
        return result
    }

    /// Whether the source may subscribe. If not, the answer itself is given all the same, since a node that polls instead is served worse,
    /// not wrongly.
    private func mayBeTold(_ source: Endpoint, _ served: ServedPrefix, _ server: ServerView, _ now: Now) -> Bool {
        if served.allowsStrangersToSubscribe { return true }
        let moa = MobileAddress(source.address)
        return server.registrations.entry(holding: moa, now: now) != nil || server.remembered.entry(holding: moa, now: now) != nil
            || server.bindings.isBound(source, now.monotonic)
    }

    // MARK: HA Query

    mutating func answer(_ query: HAQuery, _ request: Request, _ server: ServerView, _ now: Now) -> OnHAQuery {
        var answer = HAAnswer(code: .ok, cookie: request.cookie, moa: query.moa)
        // Only proven sources are charged: a forger must not use up another's rate.
        let source = request.source
        let times = server.budgetTimes(of: source.address)
        guard !request.isValidated || rates.take(source.address.sourceKey, at: now.monotonic, times: times) else {
            answer.code = .tryLater
            answer.lifetime = 1
            return OnHAQuery(answer: answer)
        }
        // Who holds which MoA is told only to nodes of our own: others could search for people.
        guard isListed(source, server, now) || server.bindings.isBound(source, now.monotonic) else {
            if server.store.isIncomplete { return later(answer, server) }
            answer.code = .refused
            answer.text = "\(request.source.address)\(Self.unlistedSource)"
            return OnHAQuery(
                answer: answer,
                refusal: Refusal(
                    subject: .haQuery(query.moa), source: request.source, code: .refused,
                    reason: "the source is no registered locator and not bound"))
        }
        let own = server.registrations.entry(holding: query.moa, now: now)?.certified
        let remembered = own == nil ? server.remembered.entry(holding: query.moa, now: now)?.certified : nil
        guard let found = own ?? remembered else {
            if server.store.isIncomplete { return later(answer, server) }
            answer.code = .notFound
            answer.lifetime = min(Self.strangerNotFoundSecondsMax, server.limits.notFoundSeconds)
            return OnHAQuery(answer: answer)
        }
        answer.mapping = found.mapping
        answer.certificate = found.certificate
        // Who has not shown that it receives at its address changes nothing here, not even what counts as used.
        return OnHAQuery(answer: answer, isRememberedUsed: remembered != nil && request.isValidated)
    }

    private func isListed(_ source: Endpoint, _ server: ServerView, _ now: Now) -> Bool {
        source.port == SignalPort.node && server.registrations.entry(holding: MobileAddress(source.address), now: now) != nil
    }

    /// Whether a HA Query without a valid cookie is worth a cookie rather than a no: it may be from a node that is bound elsewhere, which is
    /// looked up for who has a cookie only.
    func mayBeFromBound(_ request: Request, _ server: ServerView, _ now: Now) -> Bool {
        server.bindings.count > 0 && !isListed(request.source, server, now)
    }

    /// What is not known may still be read.
    private func later(_ answer: HAAnswer, _ server: ServerView) -> OnHAQuery {
        var answer = answer
        answer.code = .tryLater
        answer.lifetime = server.store.unknown.seconds
        answer.text = server.store.unknown.text
        return OnHAQuery(answer: answer)
    }

    // MARK: The draft's query

    /// Section 9: type 3 from configured sources only, and nothing else ever.
    ///
    /// - Returns: `nil` if it is not answered.
    mutating func answer(_ draft: DraftMessage, _ source: Endpoint, _ server: ServerView, _ now: Now) -> DraftMessage? {
        guard case .query(let hoa, _) = draft.body,
            server.configuration.draftSources.contains(where: { $0.contains(source.address) }),
            drafts.take(at: now.monotonic)
        else { return nil }
        var code = ResponseCode.ok
        var moas: [MobileAddress] = []
        var lifetime: UInt32 = 0
        if server.configuration.served(covering: hoa.address) == nil {
            code = .notAuthoritative
        } else if server.store.isIncomplete {
            code = .tryLater
            lifetime = server.store.unknown.seconds
        } else if let entry = server.registrations.current(covering: hoa.address, now) {
            moas = entry.record.locators.filter { $0.prefixLength == 128 }.map(\.moa)
            lifetime = UInt32(clamping: (entry.record.expires - now.wallMilliseconds) / 1000)
        } else {
            code = .notFound
            lifetime = server.limits.notFoundSeconds
        }
        let body = DraftMessage.Body.mapping(hoa, moas, timestamp: now.wallSeconds, lifetime: lifetime, isUpdate: false)
        return DraftMessage(code: code, sequence: draft.sequence, body: body)
    }
}
