import MATSignal

/// What a node asks an IMS about an address that is lent to it (protocol.md section 12): to give one, to give it for longer, or to take it back.
///
/// ```
///   Bind (an ask) ─► Bind Ack: a cookie ─► Join ──────────────────────────┬─ ok ────────────────► granted
///        │ silence: the next address         ▲ to give back: first        ├─ code 9, a cookie ──► again (twice)
///        ▼                                   └── IMS Update: withdrawn ───┤─ code 7, seconds ───► again then
///      silent                                                             └─ any other code ────► refused
/// ```
/// A Join signs the cookie that it comes under, so it can't be the first message. Who gives an address back withdraws its mapping before, by an
/// IMS Update without locators: what is registered is not taken back. Refused, it withdraws anew: a Join that came late, as a copy, counts as its
/// wish to keep the address.
package struct LeaseRequest: Sendable {
    /// Why the IMS should do it.
    package enum Title: Sendable {
        case token(JoinToken)
        /// A node that is at home elsewhere, and one of the IMS's keys.
        case visitor(HomeAddress, Certificate, of: PublicKey)
    }

    package enum Purpose: Hashable, Sendable {
        /// - Parameter lifetime: in seconds.
        case address(IPPrefix?, lifetime: UInt32?)
        /// What the certificate is for. The sequence is the highest that was signed for it, as far as that is known.
        case giveBack(Certificate, sequence: UInt64)
    }

    package enum Outcome: Sendable {
        case granted(JoinReply.Grant)
        case refused(ResponseCode, String?)
        /// No server has answered.
        case silent
    }

    package enum OnEvent: Sendable {
        case send([UInt8], to: Endpoint)
        case ended(Outcome)
        case nothing
    }

    /// How often a server may say "later" before that is its answer, and how long it may put off a node each time.
    package struct Patience: Sendable {
        let latersMax: Int
        let laterSecondsMax: UInt32

        package init(latersMax: Int, laterSecondsMax: UInt32) { (self.latersMax, self.laterSecondsMax) = (latersMax, laterSecondsMax) }
    }

    private enum Step: Sendable { case cookie, withdrawal, join }

    /// How often it withdraws what it gives back.
    private static let withdrawalsMax = 3
    /// Of a withdrawal, in seconds: how long others remember it.
    private static let withdrawalSeconds: UInt32 = 600

    private let title: Title
    private let purpose: Purpose
    private let key: SigningKey
    private let patience: Patience
    private var servers: ArraySlice<Endpoint>
    private var cookie = Cookie(client: 0)
    private var step = Step.cookie
    private var message: SignalMessage?
    private var retransmission = Retransmission(type: .join, now: .zero)
    /// When what is to be said is said again.
    private var pausedUntil: MonotonicTime?
    private var cookiesFollowed = 0
    private var laters = 0
    /// What is withdrawn before it is given back, under its newest certificate.
    private var withdrawing: Certificate?
    private var sequence: UInt64 = 0
    private var withdrawals = 0
    /// Withdrawals that came too late, or under an old certificate.
    private var stales = 0

    /// - Parameter servers: those that can be reached from where it is asked; `due` says when to begin.
    package init(
        _ purpose: Purpose, by title: Title, at servers: [Endpoint], key: SigningKey, patience: Patience,
        random: inout some RandomNumberGenerator, _ now: MonotonicTime
    ) {
        self.title = title
        self.purpose = purpose
        self.key = key
        self.patience = patience
        self.servers = servers[...]
        if case .giveBack(let certificate, let sequence) = purpose { (withdrawing, self.sequence) = (certificate, sequence) }
        askForCookie(random: &random, now)
    }

    // MARK: What is said

    private mutating func askForCookie(random: inout some RandomNumberGenerator, _ now: MonotonicTime) {
        cookie = Cookie(client: random.next())
        begin(.cookie, .bind(.padded(cookie: cookie, .ask)), random: &random, now)
    }

    private mutating func begin(_ step: Step, _ body: SignalMessage.Body, random: inout some RandomNumberGenerator, _ now: MonotonicTime) {
        self.step = step
        pausedUntil = nil
        message = SignalMessage(sequence: random.next(), body)
        retransmission = Retransmission(type: .join, now: now)
    }

    private mutating func say(_ step: Step, random: inout some RandomNumberGenerator, _ now: Now) -> OnEvent {
        guard let body = step == .withdrawal ? withdrawal(now) : join() else {
            return end(.refused(.authenticationFailed, "the crypto library does not sign"))
        }
        begin(step, body, random: &random, now.monotonic)
        return takeDue(random: &random, now)
    }

    private func join() -> SignalMessage.Body? {
        guard let given = Challenge(cookie) else { return nil }
        let server: PublicKey
        switch title {
        case .token(let token): server = token.server
        case .visitor(_, _, let key): server = key
        }
        let wanted: IPPrefix?
        let lifetime: UInt32?
        switch purpose {
        case .address(let prefix, let seconds): (wanted, lifetime) = (prefix, seconds)
        case .giveBack(let certificate, _): (wanted, lifetime) = (IPPrefix(certificate.hoa.address), 0)
        }
        let statement = JoinStatement(to: server, cookie: given, key: key.publicKey, wanted: wanted, lifetime: lifetime)
        let shown: Join.Title
        switch title {
        case .token(let token): shown = .token(TokenProof(of: token, over: statement))
        case .visitor(let home, let certificate, _): shown = .visitor(home, certificate)
        }
        return statement.signed(with: key).map {
            .join(Join(cookie: cookie, key: key.publicKey, shown, wanted: wanted, lifetime: lifetime, signature: $0))
        }
    }

    private mutating func withdrawal(_ now: Now) -> SignalMessage.Body? {
        guard let certificate = withdrawing else { return nil }
        sequence = max(now.wallMilliseconds, sequence &+ 1)
        let record = MappingRecord(
            hoa: certificate.hoa, prefixLength: certificate.prefixLength, sequence: sequence, lifetime: Self.withdrawalSeconds,
            issued: now.wallMilliseconds, locators: [])
        let cookie = cookie
        return record.signed(with: key).map {
            .imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: $0, certificate: .whole(certificate)), proofs: []))
        }
    }

    // MARK: Time

    package var due: MonotonicTime? { pausedUntil ?? (message == nil ? nil : retransmission.due) }

    /// Time has come to `due`.
    package mutating func takeDue(random: inout some RandomNumberGenerator, _ now: Now) -> OnEvent {
        if let until = pausedUntil {
            guard until <= now.monotonic else { return .nothing }
            return say(step, random: &random, now)
        }
        guard let message, retransmission.due <= now.monotonic else { return .nothing }
        guard let server = servers.first, !retransmission.isExhausted else { return askNext(random: &random, now) }
        retransmission.tried(at: now.monotonic)
        return .send(message.octets, to: server)
    }

    /// The server can't be reached, or does not answer.
    package mutating func askNext(random: inout some RandomNumberGenerator, _ now: Now) -> OnEvent {
        servers = servers.dropFirst()
        guard !servers.isEmpty else { return end(.silent) }
        askForCookie(random: &random, now.monotonic)
        return takeDue(random: &random, now)
    }

    private mutating func end(_ outcome: Outcome) -> OnEvent {
        (message, pausedUntil) = (nil, nil)
        return .ended(outcome)
    }

    // MARK: Answers

    /// - Returns: `nil` if it is no answer to this.
    package mutating func received(
        _ message: SignalMessage, from source: Endpoint, random: inout some RandomNumberGenerator, _ now: Now
    ) -> OnEvent? {
        guard let asked = self.message, source == servers.first, message.sequence == asked.sequence, message.type == asked.type.response,
            message.cookie.client == cookie.client
        else { return nil }
        if message.cookie.server != nil { cookie = message.cookie }
        if case .bindAck = message.body {
            return message.cookie.server == nil ? askNext(random: &random, now) : say(withdrawing == nil ? .join : .withdrawal, random: &random, now)
        }
        if message.code == .cookieRequired, message.cookie.server != nil, cookiesFollowed < Retransmission.cookiesFollowedMax {
            cookiesFollowed += 1
            return say(step, random: &random, now)
        }
        switch message.body {
        case .imsUpdateReply(let reply): return withdrawn(reply, random: &random, now)
        case .joinReply(let reply): return answered(reply, random: &random, now)
        default: return askNext(random: &random, now)
        }
    }

    private mutating func withdrawn(_ reply: IMSUpdateReply, random: inout some RandomNumberGenerator, _ now: Now) -> OnEvent {
        switch reply.code {
        case .ok:
            withdrawals += 1
            return say(.join, random: &random, now)
        // Its own clock was ahead of this one when it registered last.
        case .stale where stales < Self.withdrawalsMax:
            stales += 1
            guard let current = reply.current else { return say(.join, random: &random, now) }
            sequence = max(sequence, current.record.sequence)
            return say(.withdrawal, random: &random, now)
        // Renewed certificates are kept elsewhere; the IMS says which is the newest.
        case .authenticationFailed where stales < Self.withdrawalsMax:
            guard let newest = reply.certificate, newest.prefix == withdrawing?.prefix, newest.nodeKey == withdrawing?.nodeKey else { break }
            stales += 1
            withdrawing = newest
            return say(.withdrawal, random: &random, now)
        case .tryLater where laters < patience.latersMax: return pause(nil, now)
        default: break
        }
        return end(.refused(reply.code, reply.text.map { "it is not withdrawn: \($0)" }))
    }

    private mutating func answered(_ reply: JoinReply, random: inout some RandomNumberGenerator, _ now: Now) -> OnEvent {
        switch reply.code {
        case .ok: return end(reply.granted.map { .granted($0) } ?? .refused(.malformed, nil))
        case .tryLater where laters < patience.latersMax: return pause(reply.lifetime, now)
        case .refused where withdrawing != nil && withdrawals < Self.withdrawalsMax: return say(.withdrawal, random: &random, now)
        default: return end(.refused(reply.code, reply.text))
        }
    }

    private mutating func pause(_ seconds: UInt32?, _ now: Now) -> OnEvent {
        laters += 1
        message = nil
        pausedUntil = now.monotonic + .seconds(Int(min(max(1, seconds ?? 1), patience.laterSecondsMax)))
        return .nothing
    }
}
