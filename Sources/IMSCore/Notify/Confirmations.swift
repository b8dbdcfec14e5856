import MATCore
import MATSignal

/// Finding out from IMS_MN what is true about HoAs of other servers. What a notifier says is a hint, what is signed is identity, what IMS_MN
/// answers is truth (section 7). For each HoA, for all who wait for it:
///
/// ```
///   HA Notify / MA Notify
///          │
///     look up HoA ── absent, failed ──► code 8
///          │
///   keys known: enclosed records verified ──► remembered, code 0, MA Notify to the CN
///          │
///     MA Query to IMS_MN ─── no answer ───► code 8 for who still waits; what is held stays a hint
///          │
///       MA Answer ── older than what is held ──► asked again for 3 s: its update may be on the way
///          │
///     remembered as confirmed, CNs told if it differs
/// ```
struct Confirmations: Sendable {
    private struct Confirmation: Sendable {
        let started: MonotonicTime
        /// The source that is charged for it: the first that announced the HoA.
        var inquirer: IPPrefix?
        var waiting: [NotifyKey] = []
        /// Records from MA Notify that wait for keys.
        var offered: [Offer] = []
        /// The correspondents whose nodes were told a record that IMS_MN has not confirmed.
        var told: Set<HomeAddress> = []
        /// IMS_MN's answer, while the keys for its certificate are looked up and its signature is checked.
        var answered: CertifiedMapping?

        mutating func told(_ peerHoA: HomeAddress) {
            if told.count < Confirmations.toldMax { told.insert(peerHoA) }
        }
    }

    private var confirmations: [HomeAddress: Confirmation] = [:]
    private var notifies: [NotifyKey: PendingNotify] = [:]
    private var lookUps = LookUps()
    private var queries = UpstreamQueries()
    private var inquiries: Inquiries
    /// Of the event that is being handled.
    private var actions: [NotifyAction] = []

    /// How long an answer that is older than what is held is asked for again: the node's update may be on its way to IMS_MN.
    static let olderAnswerFor: Duration = .seconds(3)
    static let olderAnswerRetry: Duration = .milliseconds(500)
    /// More MA Notifies of one HoA wait for nothing: they are retransmitted.
    static let offeredMax = 4
    /// More are not corrected if the record turns out wrong; their nodes find out by themselves.
    static let toldMax = 256

    enum OnNotify: Sendable {
        case answer(Reply)
        case work([NotifyAction])
    }

    init(_ limits: IMSLimits) { inquiries = Inquiries(perSecond: limits.inquiriesPerSecond) }

    mutating func reconfigure(_ limits: IMSLimits) { inquiries.reconfigure(perSecond: limits.inquiriesPerSecond) }

    /// Notifies that are being worked on.
    var count: Int { notifies.count }
    var isEmpty: Bool { confirmations.isEmpty }
    var hoasCount: Int { confirmations.count }
    var lookUpsCount: Int { lookUps.count }
    var hasInquiries: Bool { !inquiries.isEmpty }
    func isWorking(on key: NotifyKey) -> Bool { notifies[key] != nil }

    mutating func sweep(_ now: MonotonicTime) { lookUps.sweep(now) }

    private mutating func takeActions() -> [NotifyAction] {
        defer { actions = [] }
        return actions
    }

    // MARK: Events

    mutating func notified(_ pending: PendingNotify, _ server: ServerView, _ random: inout CoreRandom, _ now: Now) -> OnNotify {
        let hoa = pending.key.hoa
        if confirmations[hoa] == nil {
            let source = pending.request.source.address.sourceKey
            if let reason = inquiries.begin(source, server.limits, now.monotonic) {
                return .answer(pending.refused(.tryLater, reason, lifetime: 1))
            }
            confirmations[hoa] = Confirmation(started: now.monotonic, inquirer: source)
        }
        notifies[pending.key] = pending
        confirmations[hoa]?.waiting.append(pending.key)
        advance(hoa, server, &random, now)
        return .work(takeActions())
    }

    /// A record came by MA Notify that is newer than what is remembered.
    mutating func offered(_ offer: Offer, _ server: ServerView, _ random: inout CoreRandom, _ now: Now) -> [NotifyAction] {
        let hoa = offer.certified.record.hoa
        guard confirmations[hoa]?.offered.count ?? 0 < Self.offeredMax else { return [] }
        confirmations[hoa, default: Confirmation(started: now.monotonic)].offered.append(offer)
        if let set = onlySource(of: hoa, server, now) {
            verifyOffered(hoa, set, server, now)
            if confirmations[hoa]?.offered.isEmpty == true { end(hoa) }
        } else {
            advance(hoa, server, &random, now)
        }
        return takeActions()
    }

    /// A look-up has ended.
    mutating func resolved(
        _ name: IPPrefix, _ result: IMSLookupResult, _ server: ServerView, _ random: inout CoreRandom, _ now: Now
    ) -> [NotifyAction] {
        for hoa in lookUps.ended(name, result, now.monotonic) { advance(hoa, server, &random, now) }
        return takeActions()
    }

    /// An MA Answer came.
    ///
    /// - Returns: `nil` if it answers no query of ours.
    mutating func answered(
        _ answer: MAAnswer, _ sequence: UInt32, from source: Endpoint, _ server: ServerView, _ random: inout CoreRandom,
        _ now: Now
    ) -> [NotifyAction]? {
        guard let query = queries.answered(answer, sequence, from: source, server.servers) else { return nil }
        let hoa = query.hoa
        actions.append(.heard(source, answer.cookie.server))
        switch answer.code {
        case .cookieRequired where query.isCookieFollowed:
            actions.append(.ask(hoa, [source], sequence: sequence))
        case .ok:
            guard let mapping = answer.mapping,
                let certificate = answer.certificate ?? server.remembered.entry(covering: hoa)?.certified.certificate,
                certificate.prefix == mapping.record.prefix
            else { break }
            truthCame(CertifiedMapping(mapping: mapping, certificate: certificate), hoa, server, &random, now)
        case .notFound:
            truthCame(nil, hoa, server, &random, now)
        default:
            let text = answer.text.map { " (\($0))" } ?? ""
            abandon(hoa, "the IMS \(source) of \(hoa) answered: \(answer.code)\(text)")
        }
        return takeActions()
    }

    /// The signature of what a notifier enclosed has been checked. IMS_MN's own answer may have come before and settled it.
    mutating func verified(_ key: NotifyKey, _ failure: VerificationFailure?, _ server: ServerView) -> [NotifyAction] {
        guard let enclosed = notifies[key]?.record else { return [] }
        if let failure {
            refuse(key, .authenticationFailed, failure.reason)
        } else {
            hold(enclosed, isConfirmed: false, from: key.source.address, over: server.remembered[enclosed.record.prefix])
            confirmations[key.hoa]?.told(key.peerHoA)
            accept(key, enclosed)
        }
        confirmations[key.hoa]?.waiting.removeAll { $0 == key }
        return takeActions()
    }

    /// The signature of the way that a notify came has been checked; its record is known from IMS_MN.
    mutating func pathVerified(_ key: NotifyKey, _ truth: CertifiedMapping, _ failure: VerificationFailure?) -> [NotifyAction] {
        if let failure { refuse(key, .authenticationFailed, failure.reason) } else { accept(key, truth) }
        return takeActions()
    }

    /// There is no time to check the signature of what a notifier enclosed.
    mutating func unchecked(_ key: NotifyKey, _ refusal: VerificationRefusal) -> [NotifyAction] {
        refuse(key, .tryLater, refusal.reason, lifetime: refusal.seconds)
        confirmations[key.hoa]?.waiting.removeAll { $0 == key }
        return takeActions()
    }

    /// The signature of what came by MA Notify has been checked.
    mutating func verified(
        _ offer: Offer, isFromIMS: Bool, _ failure: VerificationFailure?, _ server: ServerView, _ random: inout CoreRandom,
        _ now: Now
    ) -> [NotifyAction] {
        let (certified, source) = (offer.certified, offer.request.source)
        let record = certified.record
        if let failure { return [.reply(Offer.refused(record, offer.request, .authenticationFailed, failure.reason))] }
        if server.remembered[record.prefix].map({ $0.certified.version < certified.version }) ?? true {
            actions.append(.remember(certified, isConfirmed: isFromIMS, from: source.address, by: source))
            // IMS_MN's answer may have come before the check ended: it is asked about this record too.
            if !isFromIMS, confirmations[record.hoa] == nil {
                confirmations[record.hoa] = Confirmation(started: now.monotonic)
                advance(record.hoa, server, &random, now)
            }
        }
        actions.append(.reply(Offer.acked(record.hoa, offer.request, .ok)))
        return takeActions()
    }

    /// The signature of IMS_MN's answer has been checked.
    mutating func verified(
        truth: CertifiedMapping, of hoa: HomeAddress, _ failure: VerificationFailure?, _ server: ServerView,
        _ random: inout CoreRandom, _ now: Now
    ) -> [NotifyAction] {
        // A later answer, or the end of the confirmation, may have come before.
        guard confirmations[hoa]?.answered == truth else { return [] }
        confirmations[hoa]?.answered = nil
        if let failure {
            abandon(hoa, "the answer of the IMS of \(hoa) does not verify: \(failure.reason)")
        } else {
            conclude(truth, hoa, server, &random, now)
        }
        return takeActions()
    }

    /// There is no time to check the signature of IMS_MN's answer.
    mutating func unchecked(truthOf hoa: HomeAddress, _ refusal: VerificationRefusal) -> [NotifyAction] {
        abandon(hoa, "the answer of the IMS of \(hoa) can't be checked: \(refusal.reason)")
        return takeActions()
    }

    // MARK: Time

    var nextDeadline: MonotonicTime? { mutating get { queries.nextDeadline } }

    /// - Returns: `nil` if nothing is due.
    mutating func due(_ server: ServerView, _ now: Now) -> [NotifyAction]? {
        guard let (hoa, outcome) = queries.due(server.servers, now) else { return nil }
        asked(hoa, outcome)
        return takeActions()
    }

    // MARK: DNS

    /// What DNS says at the name, if it is known. Otherwise it is asked, and `advance` is called for the HoA when the answer is there.
    private mutating func lookUp(_ name: IPPrefix, for hoa: HomeAddress, _ server: ServerView, _ now: Now) -> IMSLookupResult? {
        switch lookUps.wanted(name, for: hoa, server.limits, now.monotonic) {
        case .known(let result): return result
        case .waits: return nil
        case .ask:
            actions.append(.lookUp(name))
            return nil
        }
    }

    /// The IMS keys at the certificate's own name: keys found anywhere else prove nothing.
    ///
    /// - Returns: `nil` while they are being looked up.
    private mutating func keys(
        for certificate: Certificate, of hoa: HomeAddress, _ server: ServerView, _ now: Now
    ) -> Result<[PublicKey], VerificationFailure>? {
        if server.configuration.served(covering: certificate.prefix) != nil { return .success(server.configuration.publicKeys) }
        switch lookUp(certificate.prefix, for: hoa, server, now) {
        case nil: return nil
        case .found(let set)?: return .success(set.keys.compactMap(PublicKey.init))
        case .absent?: return .failure(VerificationFailure("DNS has no IMS key at \(certificate.prefix)\(certificate.prefix.keysNote)"))
        case .failed(let reason)?, .unusable(let reason)?:
            return .failure(VerificationFailure("look-up of the IMS keys at \(certificate.prefix) failed: \(reason)"))
        }
    }

    /// The servers of the HoA, if all that is to be found out was offered by one of them: it needs no question to it.
    private mutating func onlySource(of hoa: HomeAddress, _ server: ServerView, _ now: Now) -> IMSSet? {
        guard let confirmation = confirmations[hoa], !queries.isAsking(hoa), confirmation.waiting.isEmpty,
            case .found(let set)? = lookUp(IPPrefix(hoa.address), for: hoa, server, now),
            confirmation.offered.allSatisfy({ $0.isFrom(set) })
        else { return nil }
        return set
    }

    // MARK: Steps

    /// Takes the confirmation of an HoA as far as what is known allows.
    private mutating func advance(_ hoa: HomeAddress, _ server: ServerView, _ random: inout CoreRandom, _ now: Now) {
        guard confirmations[hoa] != nil else { return }
        switch lookUp(IPPrefix(hoa.address), for: hoa, server, now) {
        case nil: return
        case .found(let set)?:
            if !queries.isAsking(hoa) { beginQuery(hoa, set, server, &random, now) }
            verifyEnclosed(hoa, server, now)
            verifyOffered(hoa, set, server, now)
            if let answered = confirmations[hoa]?.answered { truthCame(answered, hoa, server, &random, now) }
        case .absent?: abandon(hoa, "DNS has no IMS for \(hoa)")
        case .failed(let reason)?, .unusable(let reason)?: abandon(hoa, "look-up of the IMS of \(hoa) failed: \(reason)")
        }
    }

    private mutating func beginQuery(
        _ hoa: HomeAddress, _ set: IMSSet, _ server: ServerView, _ random: inout CoreRandom, _ now: Now
    ) {
        let servers = set.ordered(using: &random).flatMap(\.endpoints)
        guard !servers.isEmpty else { return abandon(hoa, "the IMS of \(hoa) has no address") }
        asked(hoa, queries.begin(hoa, servers, server.servers, &random, now))
    }

    private mutating func asked(_ hoa: HomeAddress, _ outcome: UpstreamQueries.OnTry) {
        switch outcome {
        case .ask(let servers, let sequence): actions.append(.ask(hoa, servers, sequence: sequence))
        case .silent: abandon(hoa, "the IMS of \(hoa) does not answer")
        }
    }

    /// What notifiers enclosed goes to the check of its signature, or is what is held already.
    private mutating func verifyEnclosed(_ hoa: HomeAddress, _ server: ServerView, _ now: Now) {
        guard let waiting = confirmations[hoa]?.waiting else { return }
        for key in waiting {
            guard case .unchecked(let enclosed)? = notifies[key]?.enclosed else { continue }
            if notifies[key]?.claim == nil, let held = server.remembered.entry(covering: hoa), held.certified == enclosed {
                confirmations[hoa]?.told(key.peerHoA)
                accept(key, enclosed)
                continue
            }
            switch keys(for: enclosed.certificate, of: hoa, server, now) {
            case nil: continue
            case .failure(let failure)?: refuse(key, .upstreamFailed, failure.reason)
            case .success(let keys)?:
                let job = VerificationJob(enclosed, with: notifies[key]?.claim, issuers: keys)
                notifies[key]?.checkBegins()
                actions.append(.verify(job, .notify(key), source: key.source.address))
            }
        }
        confirmations[hoa]?.waiting.removeAll { notifies[$0] == nil }
    }

    /// What came by MA Notify goes to the check of its signature as soon as the keys are known.
    private mutating func verifyOffered(_ hoa: HomeAddress, _ set: IMSSet, _ server: ServerView, _ now: Now) {
        guard let offered = confirmations[hoa]?.offered else { return }
        var left: [Offer] = []
        for offer in offered {
            switch keys(for: offer.certified.certificate, of: hoa, server, now) {
            case nil: left.append(offer)
            case .failure(let failure)?:
                actions.append(
                    .reply(Offer.refused(offer.certified.record, offer.request, .authenticationFailed, failure.reason)))
            case .success(let keys)?:
                let use = VerificationUse.offer(offer.request, isFromIMS: offer.isFrom(set))
                actions.append(
                    .verify(VerificationJob(offer.certified, issuers: keys), use, source: offer.request.source.address))
            }
        }
        confirmations[hoa]?.offered = left
    }

    /// What IMS_MN says, `nil` for "nothing registered". It is believed if it verifies; if it is older than what is held, it is asked
    /// again for a while.
    private mutating func truthCame(
        _ truth: CertifiedMapping?, _ hoa: HomeAddress, _ server: ServerView, _ random: inout CoreRandom, _ now: Now
    ) {
        guard confirmations[hoa] != nil else { return }
        confirmations[hoa]?.answered = truth
        guard let truth else { return conclude(nil, hoa, server, &random, now) }
        guard let keys = keys(for: truth.certificate, of: hoa, server, now) else { return }
        do throws(VerificationFailure) {
            try truth.checkTimesAndNames(asked: hoa, now: now)
            // It was asked for here, so no source's budget pays.
            actions.append(.verify(VerificationJob(truth, issuers: try keys.get()), .truth(hoa), source: nil))
        } catch {
            abandon(hoa, "the answer of the IMS of \(hoa) does not verify: \(error)")
        }
    }

    private mutating func conclude(
        _ truth: CertifiedMapping?, _ hoa: HomeAddress, _ server: ServerView, _ random: inout CoreRandom, _ now: Now
    ) {
        guard let started = confirmations[hoa]?.started else { return }
        let held = server.remembered.entry(covering: hoa)
        let isOlder = held.map { held in truth.map { $0.version < held.certified.version } ?? true } ?? false
        if isOlder, now.monotonic < started + Self.olderAnswerFor {
            return queries.askAgain(hoa, after: Self.olderAnswerRetry, &random, now)
        }
        guard let confirmation = end(hoa) else { return }
        if isOlder, let held {
            actions.append(.forget(held.certified.record.prefix))
            actions.append(.log("\(hoa) announced a record that its IMS does not confirm; it is corrected"))
        }
        if let truth, !truth.record.isWithdrawal {
            let prefix = truth.record.prefix
            let isForgotten = isOlder && held?.certified.record.prefix == prefix
            hold(
                truth, isConfirmed: true, from: confirmation.waiting.first?.source.address,
                over: isForgotten ? nil : server.remembered[prefix])
        } else if let held {
            actions.append(.forget(held.certified.record.prefix))
        }
        if let truth, truth != held?.certified {
            for peerHoA in confirmation.told.sorted() { actions.append(.tell(peerHoA, truth)) }
        }
        for key in confirmation.waiting { decide(key, truth) }
        for offer in confirmation.offered { actions.append(.reply(Offer.acked(hoa, offer.request, .ok))) }
    }

    private mutating func decide(_ key: NotifyKey, _ truth: CertifiedMapping?) {
        guard let truth else { return refuse(key, .upstreamFailed, "the IMS of \(key.hoa) has nothing registered for it") }
        guard let pending = notifies[key] else { return }
        if truth.record.listsSource(key.source) || pending.isSourceProven {
            accept(key, truth)
        } else if let claim = pending.claim {
            notifies[key]?.sourceCheckBegins()
            let job = VerificationJob(claim, by: truth.certificate, issuers: nil)
            actions.append(.verify(job, .notifyPath(key, truth), source: key.source.address))
        } else if !pending.isSourceBeingChecked {
            refuse(key, .upstreamFailed, "the record at the IMS of \(key.hoa) does not list the source \(key.source)")
        }
    }

    /// Ends the confirmation: who still waits gets code 8, what is held as a hint stays one.
    private mutating func abandon(_ hoa: HomeAddress, _ reason: String) {
        guard let confirmation = end(hoa) else { return }
        for key in confirmation.waiting { refuse(key, .upstreamFailed, reason) }
        for offer in confirmation.offered {
            actions.append(.reply(Offer.acked(hoa, offer.request, .upstreamFailed, text: reason)))
        }
        if confirmation.waiting.isEmpty { actions.append(.logRefusal("could not confirm \(hoa) with its IMS: \(reason)")) }
    }

    @discardableResult
    private mutating func end(_ hoa: HomeAddress) -> Confirmation? {
        guard let confirmation = confirmations.removeValue(forKey: hoa) else { return nil }
        queries.end(hoa)
        if let inquirer = confirmation.inquirer { inquiries.end(inquirer) }
        return confirmation
    }

    /// Remembers the record unless a newer one is held.
    private mutating func hold(
        _ certified: CertifiedMapping, isConfirmed: Bool, from source: IPAddress?, over held: RememberedTable.Entry?
    ) {
        if let held, held.certified.version > certified.version { return }
        let wasConfirmed = held.map { $0.isConfirmed && $0.certified == certified } ?? false
        actions.append(.remember(certified, isConfirmed: isConfirmed || wasConfirmed, from: source, by: nil))
    }

    private mutating func accept(_ key: NotifyKey, _ certified: CertifiedMapping) {
        guard let pending = notifies.removeValue(forKey: key) else { return }
        actions += [.reply(pending.accepted), .tell(key.peerHoA, certified)]
    }

    private mutating func refuse(_ key: NotifyKey, _ code: ResponseCode, _ reason: String, lifetime: UInt32? = nil) {
        guard let pending = notifies.removeValue(forKey: key) else { return }
        actions.append(.reply(pending.refused(code, reason, lifetime: lifetime)))
    }
}
