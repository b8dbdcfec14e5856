import MATCore
import MATSignal

/// Requests of others: our own cookies, how much anybody can make us do, and what becomes of a MA Notify.
///
/// ```
///   MA Notify of a HoA that is neither a peer nor being resolved ─────► "not found"; remembered for 3 s (`EarlyNotices`)
///      │ under the id of a certificate that the peer does not have ───► "authentication failed"
///      │ its times or names are wrong ────────────────────────────────► refused
///      │ it is the record in force ───────────────────────────────────► "ok"
///      │ it is older ─────────────────────────────────────────────────► "stale", with the newer one
///      │ its sender has no signature check left ──────────────────────► "try later", or "cookie required"
///      ▼
///    checked: its keys, then its signature
/// ```
/// Nothing is looked up and nothing beyond a small budget is checked for a sender who has not shown where he is (section 6).
struct Requests: Sendable {
    /// What is known of the HoA that a MA Notify concerns.
    struct Subject: Sendable {
        let hoa: HomeAddress
        let peer: Peer?
        /// Ours, or of a family that we have no HoA of.
        let isNoPeer: Bool
        let isBeingResolved: Bool
        /// It came from an IMS of the HoA; from an IMS of ours.
        let isFromItsServer: Bool
        let isFromOwnServer: Bool
    }

    enum OnNotify: Sendable {
        /// Only an answer is due.
        case answer(ResponseCode, current: SignedMapping? = nil, text: String? = nil)
        /// The record is not one that anybody could believe.
        case refuse(OfferedRecord, VerificationFailure)
        /// It is the record in force.
        ///
        /// - Parameter confirms: the HoA's IMS sent it, which confirms a provisional one (section 7).
        case inForce(OfferedRecord, confirms: Bool)
        /// It is newer, and its sender may cause a check of its signature.
        case check(OfferedRecord)
    }

    /// Sources with a rate of their own, of the whole node.
    private static let sourcesMax = 4096

    /// Probes within paths that are answered a second, of the whole node and of one peer.
    private static let inPathAnswersPerSecond = 1000, inPathAnswersPerSecondPerPeer = 50

    private let cookies: CookieAuthority
    /// Signature checks for senders without cookie, and with one for each source.
    private var uncookiedChecks: RateLimit
    private var sourceChecks: RateTable<IPPrefix>
    /// Answers to strangers on an own link.
    private var linkAnswers: RateLimit
    /// Path Answers to who has not shown where it is.
    private var probeAnswers = RateLimit(perSecond: 50)
    /// Path Answers within paths: in all, and for each peer, who may probe several paths with all sizes at once.
    private var inPathAnswers: RateLimit
    private var inPathAnswersOfPeer: RateTable<HomeAddress>
    /// Places asked whether a peer is there, because something came from there that said so.
    private var callerProbes = RateLimit(perSecond: 20)
    /// Answers to malformed requests.
    private var refusals: RateLimit
    private var earlyNotices: EarlyNotices
    /// Lines of the log about records that are refused: anybody can send such.
    private var reports = RateLimit(perSecond: 1, burst: 5)

    init(cookies: CookieAuthority, _ configuration: NodeCoreConfiguration) {
        self.cookies = cookies
        sourceChecks = RateTable(perSecond: configuration.checksPerSecondPerSource, keysMax: configuration.share(of: Self.sourcesMax))
        earlyNotices = EarlyNotices(countMax: configuration.share(of: EarlyNotices.countMax))
        uncookiedChecks = RateLimit(perSecond: configuration.uncookiedChecksPerSecond)
        linkAnswers = RateLimit(perSecond: configuration.linkAnswersPerSecond)
        refusals = RateLimit(perSecond: configuration.refusalsPerSecond)
        inPathAnswers = RateLimit(perSecond: configuration.share(of: Self.inPathAnswersPerSecond))
        inPathAnswersOfPeer = RateTable(perSecond: Self.inPathAnswersPerSecondPerPeer, keysMax: configuration.share(of: Self.sourcesMax))
    }

    // MARK: Answers

    /// Code 0 if the HoA is ours and the query came to a locator of our current record, else 4. The answer has the query's
    /// size, so it needs no cookie.
    static func locatorAnswer(_ query: MAQuery, _ sequence: UInt32, isHere: Bool) -> SignalMessage {
        SignalMessage(
            sequence: sequence,
            .maAnswer(MAAnswer(code: isHere ? .ok : .notAuthoritative, cookie: Cookie(client: query.cookie.client), hoa: query.hoa)))
    }

    /// What a malformed request is answered with: 20 octets, as no request with a cookie is shorter.
    mutating func refusal(of rejection: SignalDatagram.Rejection, _ now: MonotonicTime) -> SignalMessage? {
        guard let code = rejection.answerCode, let type = rejection.type, let cookie = rejection.cookie, refusals.take(at: now) else { return nil }
        return SignalMessage.refusal(of: type, sequence: rejection.sequence, code: code, cookie: Cookie(client: cookie.client))
    }

    /// Whether a stranger on an own link is answered, whose neighbour entry and place in the socket's buffer may be in vain.
    mutating func answersOnLink(_ now: MonotonicTime) -> Bool { linkAnswers.take(at: now) }

    /// The answer to a MA Notify; `nil` if another one answers for it. It always carries our cookie.
    func acknowledgement(
        _ ack: PendingAck, _ code: ResponseCode, _ hoa: HomeAddress, current: SignedMapping? = nil, text: String? = nil, _ now: Now
    ) -> SignalMessage? {
        guard !ack.isSilent else { return nil }
        let cookie = Cookie(client: ack.clientCookie, server: cookies.make(for: ack.source, clientCookie: ack.clientCookie, now: now))
        var body = MANotifyAck(code: code, cookie: cookie, hoa: code == .cookieRequired ? nil : hoa, current: current, text: text)
        let full = SignalMessage(sequence: ack.sequence, .maNotifyAck(body))
        if ack.hasCookie || full.octets.count <= ack.octetsCount { return full }
        // What explains goes first; then the sender is asked to show where it is.
        body.text = nil
        let short = SignalMessage(sequence: ack.sequence, .maNotifyAck(body))
        if short.octets.count <= ack.octetsCount { return short }
        return SignalMessage(sequence: ack.sequence, .maNotifyAck(MANotifyAck(code: .cookieRequired, cookie: cookie, hoa: nil)))
    }

    /// How loud the log is about a record that is refused.
    mutating func reportLevel(_ level: NodeLogLevel, _ now: MonotonicTime) -> NodeLogLevel { reports.take(at: now) ? level : .debug }

    // MARK: MA Notify

    /// Whose it is and where its answer goes.
    func sender(
        of notify: MANotify, _ sequence: UInt32, _ octetsCount: Int, from source: Endpoint, to local: IPAddress, _ now: Now
    ) -> PendingAck {
        let hasCookie = cookies.isValid(notify.cookie, from: source, now: now)
        return PendingAck(
            sequence: sequence, clientCookie: notify.cookie.client, source: source, local: local, hasCookie: hasCookie,
            provesPlace: hasCookie && cookies.isValid(notify.cookie, from: source, now: now, ageMax: CookieAuthority.proofAgeMax),
            octetsCount: octetsCount)
    }

    mutating func judge(_ notify: MANotify, _ ack: PendingAck, about subject: Subject, _ now: Now) -> OnNotify {
        guard !subject.isNoPeer, subject.peer != nil || subject.isBeingResolved || subject.isFromOwnServer else {
            if ack.provesPlace, ack.source.port == SignalPort.node { earlyNotices.enter(notify.record.mapping, from: ack.source, now: now.monotonic) }
            // Section 7: neither in the IMT nor being resolved.
            return .answer(.notFound, text: "not a peer of this node")
        }
        let record: OfferedRecord
        switch notify.record.certificate {
        case .whole(let whole):
            record = OfferedRecord(notify.record.mapping, under: whole)
        case .id(let id):
            guard let peer = subject.peer, peer.record.key.id == id else { return .answer(.authenticationFailed, text: "unknown CERT-ID") }
            record = OfferedRecord(notify.record.mapping, underKnownOf: peer)
        }
        // In the order of section 2: times, sequence, and the signature last.
        do throws(VerificationFailure) {
            try record.checkTimesAndNames(asked: subject.hoa, now: now)
        } catch {
            return .refuse(record, error)
        }
        if let peer = subject.peer {
            if peer.holds(record) { return .inForce(record, confirms: ack.hasCookie && subject.isFromItsServer) }
            guard record.version > peer.version else { return .answer(.stale, current: peer.mapping) }
        }
        // Signatures last, and within a budget: for one without cookie a small common one, with cookie one a source.
        guard ack.isVerified || mayCheck(ack, isOfInterest: subject.peer != nil || subject.isFromOwnServer, now.monotonic) else {
            return .answer(ack.hasCookie ? .tryLater : .cookieRequired)
        }
        return .check(record)
    }

    /// - Parameter isOfInterest: the HoA is in the IMT or the record comes from our own IMS; only then a check without cookie is allowed.
    private mutating func mayCheck(_ ack: PendingAck, isOfInterest: Bool, _ now: MonotonicTime) -> Bool {
        guard ack.hasCookie else { return isOfInterest && uncookiedChecks.take(at: now) }
        return mayVerify(for: ack.source.address, now)
    }

    // MARK: Path Probes

    /// What a peer at this endpoint is to sign.
    ///
    /// - Parameter client: random.
    func challenge(for endpoint: Endpoint, client: UInt64, _ now: Now) -> Challenge { cookies.challenge(for: endpoint, client: client, now: now) }

    /// Our cookie for who sends from there.
    func freshCookie(for source: Endpoint, clientCookie: UInt64, _ now: Now) -> Cookie {
        Cookie(client: clientCookie, server: cookies.make(for: source, clientCookie: clientCookie, now: now))
    }

    /// Whether the cookie shows that its sender receives at its source, now.
    func provesPlace(_ cookie: Cookie, from source: Endpoint, _ now: Now) -> Bool {
        cookies.isValid(cookie, from: source, now: now, ageMax: CookieAuthority.proofAgeMax)
    }

    /// Whether one more signature is checked for this source, which has shown where it is.
    mutating func mayVerify(for source: IPAddress, _ now: MonotonicTime) -> Bool { sourceChecks.take(source.sourceKey, at: now) }

    /// Whether one more probe is answered whose sender has not shown where it is.
    mutating func answersProbes(_ now: MonotonicTime) -> Bool { probeAnswers.take(at: now) }

    /// Whether one more probe within a path is answered, whose sender can send packets under the peer's name.
    mutating func answersInPath(_ peer: HomeAddress, _ now: MonotonicTime) -> Bool {
        inPathAnswersOfPeer.take(peer, at: now) && inPathAnswers.take(at: now)
    }

    /// Whether one more place is asked whether the peer is there in whose name something came.
    mutating func probesCallers(_ now: MonotonicTime) -> Bool { callerProbes.take(at: now) }

    // MARK: Early notices

    var hasEarlyNotices: Bool { !earlyNotices.isEmpty }

    /// Where a record that has come into force was shown before.
    func earlySources(of mapping: SignedMapping, _ now: MonotonicTime) -> [Endpoint] { earlyNotices.sources(of: mapping, now: now) }
}
