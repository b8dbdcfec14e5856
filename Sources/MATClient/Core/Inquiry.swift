import MATCore
import MATSignal

/// One question to the mapping servers of a home address, at one after the other (protocol.md sections 6 and 7):
///
/// ```
///   MA Query ──┬─ ok, or not found ───────────────► answered
///     │        ├─ code 9, a cookie (twice) ───────► the same under it
///     │        └─ any other code ──┐
///     └─ three tries unanswered ───┴─► the next server ── there is none ──► the last server's answer, or silence
/// ```
struct Inquiry: Sendable {
    enum OnEvent: Sendable {
        case nothing
        case send([UInt8], to: Endpoint)
        case answered(MAAnswer)
        case silent
    }

    /// A server, with the cookie that it gave for the next question.
    struct Acquaintance: Hashable, Sendable {
        var server: Endpoint
        var cookie: Cookie
    }

    /// Addresses of servers that are tried.
    static let serversMax = 8

    private let hoa: HomeAddress
    private let subscribe: UInt32?
    private let certificate: CertificateID?
    private var servers: ArraySlice<Endpoint>
    private var cookie: Cookie
    private var cookiesFollowed = 0
    private var retransmission: Retransmission
    private var refusal: MAAnswer?
    /// Of the question that is under way.
    private(set) var sequence: UInt32
    /// Whose answer it has.
    private(set) var acquaintance: Acquaintance?

    /// - Parameters:
    ///   - known: a server that was asked before; it is asked first.
    ///   - certificate: one that need not be sent again.
    init(
        _ hoa: HomeAddress, servers: [Endpoint], known: Acquaintance?, subscribe: UInt32?, certificate: CertificateID?,
        random: inout some RandomNumberGenerator, _ now: MonotonicTime
    ) {
        self.hoa = hoa
        self.subscribe = subscribe
        self.certificate = certificate
        cookie = Cookie(client: random.next())
        sequence = random.next()
        retransmission = Retransmission(type: .maQuery, now: now)
        if let known, servers.contains(known.server) {
            self.servers = ([known.server] + servers.filter { $0 != known.server }).prefix(Self.serversMax)
            cookie = known.cookie
        } else {
            self.servers = servers.prefix(Self.serversMax)
        }
    }

    var due: MonotonicTime { retransmission.due }

    /// Time has come to `due`.
    mutating func takeDue(random: inout some RandomNumberGenerator, _ now: MonotonicTime) -> OnEvent {
        guard let server = servers.first else { return refusal.map { .answered($0) } ?? .silent }
        guard retransmission.due <= now else { return .nothing }
        guard retransmission.tries < Retransmission.failoverTry else { return next(random: &random, now) }
        retransmission.tried(at: now)
        let query = MAQuery(cookie: cookie, hoa: hoa, certID: certificate, subscribe: subscribe)
        return .send(SignalMessage(sequence: sequence, .maQuery(query)).octets, to: server)
    }

    /// - Returns: `nil` if it is no answer to this.
    mutating func received(
        _ answer: MAAnswer, _ sequence: UInt32, from source: Endpoint, random: inout some RandomNumberGenerator, _ now: MonotonicTime
    )
        -> OnEvent?
    {
        guard source == servers.first, sequence == self.sequence, answer.cookie.client == cookie.client, answer.hoa == nil || answer.hoa == hoa else {
            return nil
        }
        if answer.cookie.server != nil { acquaintance = Acquaintance(server: source, cookie: answer.cookie) }
        switch answer.code {
        case .ok, .notFound: return .answered(answer)
        case .cookieRequired where answer.cookie.server != nil && cookiesFollowed < Retransmission.cookiesFollowedMax:
            cookiesFollowed += 1
            cookie = answer.cookie
            return ask(random: &random, now)
        default:
            refusal = answer
            return next(random: &random, now)
        }
    }

    private mutating func next(random: inout some RandomNumberGenerator, _ now: MonotonicTime) -> OnEvent {
        servers = servers.dropFirst()
        cookie = Cookie(client: random.next())
        cookiesFollowed = 0
        return ask(random: &random, now)
    }

    private mutating func ask(random: inout some RandomNumberGenerator, _ now: MonotonicTime) -> OnEvent {
        sequence = random.next()
        retransmission = Retransmission(type: .maQuery, now: now)
        return takeDue(random: &random, now)
    }
}
