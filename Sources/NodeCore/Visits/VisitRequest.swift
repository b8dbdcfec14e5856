import MATCore
import MATSignal

/// One request of a visit to the IMS of its network, with the cookie that it has to come under:
///
/// ```
///   Bind {COOKIE, PAD} ──► a cookie ──► Join | IMS Update ──► its answer
///     │ silent: the next server          │ code 9, twice at most: again under the enclosed cookie
///     ▼                                  │ code 7: when the server says
///   none answers ◄───────────────────────┘ silent
/// ```
struct VisitRequest: Sendable {
    enum Purpose: Hashable, Sendable {
        /// For a first address, or the one that is there for longer.
        case join
        /// The record goes, so that the address can be given back.
        case withdraw
        case giveBack
    }

    enum OnEvent: Sendable {
        case send([UInt8], from: IPAddress, to: Endpoint)
        /// What it has to say is to be said under this cookie.
        case say(Cookie)
        case answered(SignalMessage)
        /// No server has answered.
        case silent
        case nothing
    }

    /// Times that a server may say "later" before that is its answer.
    private static let latersMax = 2
    private static let laterSecondsMax: UInt32 = 5

    let purpose: Purpose
    /// Where it comes from: what the server takes the node's place to be.
    let own: IPAddress
    private var servers: ArraySlice<Endpoint>
    private var cookie: Cookie
    private var message: SignalMessage?
    private var retransmission: Retransmission
    private var cookiesFollowed = 0
    private var laters = 0
    /// When what is to be said is said again.
    private var pausedUntil: MonotonicTime?

    /// - Parameter servers: those that the address can reach.
    init(_ purpose: Purpose, from own: IPAddress, to servers: [Endpoint], random: inout some RandomNumberGenerator, _ now: MonotonicTime) {
        self.purpose = purpose
        self.own = own
        self.servers = servers[...]
        cookie = Cookie(client: random.next())
        retransmission = Retransmission(type: .bind, now: now)
        message = SignalMessage(sequence: random.next(), .bind(.padded(cookie: cookie, .ask)))
    }

    var due: MonotonicTime? { pausedUntil ?? (message == nil ? nil : retransmission.due) }

    /// Time has come to `due`.
    mutating func takeDue(random: inout some RandomNumberGenerator, _ now: MonotonicTime) -> OnEvent {
        if let until = pausedUntil {
            guard until <= now else { return .nothing }
            pausedUntil = nil
            return .say(cookie)
        }
        guard let message, retransmission.due <= now else { return .nothing }
        guard let server = servers.first else { return .silent }
        guard !retransmission.isExhausted else {
            servers = servers.dropFirst()
            guard !servers.isEmpty else { return .silent }
            cookie = Cookie(client: random.next())
            self.message = SignalMessage(sequence: random.next(), .bind(.padded(cookie: cookie, .ask)))
            retransmission = Retransmission(type: .bind, now: now)
            return takeDue(random: &random, now)
        }
        retransmission.tried(at: now)
        return .send(message.octets, from: own, to: server)
    }

    /// What is to be said, under the cookie that was told.
    mutating func say(_ body: SignalMessage.Body, random: inout some RandomNumberGenerator, _ now: MonotonicTime) {
        let message = SignalMessage(sequence: random.next(), body)
        self.message = message
        retransmission = Retransmission(type: message.type, now: now)
    }

    /// - Returns: `nil` if it is no answer to this.
    mutating func received(_ message: SignalMessage, from source: Endpoint, to local: IPAddress, _ now: MonotonicTime) -> OnEvent? {
        guard let asked = self.message, source == servers.first, local == own, message.sequence == asked.sequence,
            message.type == asked.type.response, message.cookie.client == cookie.client
        else { return nil }
        if case .bindAck = message.body {
            guard message.cookie.server != nil else { return .nothing }
            cookie = message.cookie
            self.message = nil
            return .say(cookie)
        }
        if message.cookie.server != nil { cookie = message.cookie }
        if message.code == .cookieRequired, cookie.server != nil, cookiesFollowed < Retransmission.cookiesFollowedMax {
            cookiesFollowed += 1
            self.message = nil
            return .say(cookie)
        }
        if message.code == .tryLater, laters < Self.latersMax {
            laters += 1
            self.message = nil
            var seconds: UInt32 = 1
            if case .joinReply(let reply) = message.body { seconds = reply.lifetime ?? 1 }
            pausedUntil = now + .seconds(Int(min(max(1, seconds), Self.laterSecondsMax)))
            return .nothing
        }
        self.message = nil
        return .answered(message)
    }
}
