import MATCore
import MATSignal
import Testing

/// What is asked about a lease, with a test that plays the servers (protocol.md section 12).
@Suite("Asking for an address, and giving it back")
struct LeaseRequestTests {
    private let servers = ["203.0.113.53", "203.0.113.54"].compactMap { IPAddress($0).map { Endpoint($0, port: SignalPort.ims) } }
    private let hoa: HomeAddress
    private let key: SigningKey
    private let issuer: SigningKey
    private let token: JoinToken
    private var now = Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: 1_790_000_000_000)
    private var random = SystemRandomNumberGenerator()

    init() throws {
        hoa = try #require(HomeAddress("192.0.2.10"))
        key = try #require(SigningKey(seed: [UInt8](repeating: 1, count: 32)))
        issuer = try #require(SigningKey(seed: [UInt8](repeating: 2, count: 32)))
        let secret = try #require(TokenSecret([UInt8](repeating: 3, count: 32)))
        token = JoinToken(host: "ims.example", id: TokenID(rawValue: 7), secret: secret, server: issuer.publicKey)
    }

    private func certificate(_ notBefore: UInt64 = 1_790_000_000_000) throws -> Certificate {
        try #require(Certificate(issuing: hoa, nodeKey: key.publicKey, notBefore: notBefore, notAfter: notBefore + 3_600_000, with: issuer))
    }

    private mutating func request(_ purpose: LeaseRequest.Purpose, at servers: [Endpoint]? = nil) -> LeaseRequest {
        LeaseRequest(
            purpose, by: .token(token), at: servers ?? self.servers, key: key, patience: LeaseRequest.Patience(latersMax: 2, laterSecondsMax: 5),
            random: &random, now.monotonic)
    }

    private func sent(_ event: LeaseRequest.OnEvent?) throws -> (message: SignalMessage, to: Endpoint) {
        guard case .send(let octets, let server)? = event, case .message(let message, _)? = Array(SignalDatagram.decode(octets)).first else {
            throw Failure(what: "\(String(describing: event)) sends nothing")
        }
        return (message, server)
    }

    private struct Failure: Error { let what: String }

    /// The server that was asked answers.
    private mutating func answer(
        _ request: inout LeaseRequest, _ asked: SignalMessage, from server: Int = 0, _ body: (Cookie) -> SignalMessage.Body
    ) -> LeaseRequest.OnEvent? {
        let cookie = Cookie(client: asked.cookie.client, server: ServerCookie(head: 1, hash: 2))
        return request.received(SignalMessage(sequence: asked.sequence, body(cookie)), from: servers[server], random: &random, now)
    }

    private mutating func giveCookie(_ request: inout LeaseRequest, from server: Int = 0) throws -> SignalMessage {
        let asked = try sent(request.takeDue(random: &random, now)).message
        let seen = Endpoint(hoa.address, port: SignalPort.node)
        return try sent(answer(&request, asked, from: server) { .bindAck(BindAck(code: .ok, cookie: $0, observed: seen)) }).message
    }

    @Test("A server's cookie is asked for, what is said is signed under it, and what it grants is the outcome")
    mutating func granted() throws {
        var request = request(.address(IPPrefix(hoa.address), lifetime: 600))
        let asked = try giveCookie(&request)
        guard case .join(let join) = asked.body else { return #expect(Bool(false), "\(asked)") }
        #expect(join.wanted == IPPrefix(hoa.address) && join.lifetime == 600)
        #expect(try #require(join.statement(to: issuer.publicKey)).isSigned(join.signature))
        // Another's answer, and one to another question, are none.
        let grant = JoinReply.Grant(hoa, try certificate(), lifetime: 600)
        let foreign = answer(&request, asked, from: 1) { .joinReply(JoinReply(code: .ok, cookie: $0, granted: grant)) }
        #expect(foreign == nil)
        guard case .ended(.granted(let given))? = answer(&request, asked, { .joinReply(JoinReply(code: .ok, cookie: $0, granted: grant)) }) else {
            return #expect(Bool(false))
        }
        #expect(given == grant && request.due == nil)
    }

    @Test("A silent server is left for the next one, and silence of all is the outcome")
    mutating func silent() throws {
        var request = request(.address(nil, lifetime: nil))
        var asked: [Endpoint] = []
        while let due = request.due {
            now.monotonic = max(now.monotonic, due)
            switch request.takeDue(random: &random, now) {
            case .send(_, let server): asked.append(server)
            case .ended(.silent): break
            case .ended, .nothing: #expect(Bool(false))
            }
        }
        #expect(asked == servers.flatMap { Array(repeating: $0, count: Retransmission.triesMax) })
    }

    @Test("Put off it waits, for as long as it has patience; another cookie is followed twice")
    mutating func later() throws {
        var request = request(.address(nil, lifetime: nil))
        var asked = try giveCookie(&request)
        for _ in 1...2 {
            asked = try sent(answer(&request, asked) { .joinReply(JoinReply(code: .cookieRequired, cookie: $0)) }).message
        }
        for _ in 1...2 {
            guard case .nothing? = answer(&request, asked, { .joinReply(JoinReply(code: .tryLater, cookie: $0, lifetime: 60)) }) else {
                return #expect(Bool(false))
            }
            #expect(request.due == now.monotonic + .seconds(5))
            now.monotonic = now.monotonic + .seconds(5)
            asked = try sent(request.takeDue(random: &random, now)).message
        }
        guard case .ended(.refused(.tryLater, _))? = answer(&request, asked, { .joinReply(JoinReply(code: .tryLater, cookie: $0)) }) else {
            return #expect(Bool(false))
        }
    }

    @Test("What is given back is withdrawn first: over what is registered, under the newest certificate, and anew if a late Join has undone it")
    mutating func giveBack() throws {
        let (old, newest) = (try certificate(), try certificate(1_790_000_100_000))
        var request = request(.giveBack(old, sequence: 77))
        var asked = try giveCookie(&request)
        func update(_ message: SignalMessage) throws -> IMSUpdate {
            guard case .imsUpdate(let update) = message.body else { throw Failure(what: "\(message)") }
            return update
        }
        let first = try update(asked).record.mapping.record
        #expect(first.isWithdrawal && first.sequence == now.wallMilliseconds)
        let ahead = MappingRecord(
            hoa: hoa, prefixLength: 128, sequence: now.wallMilliseconds + 5000, lifetime: 600, issued: now.wallMilliseconds, locators: [])
        let current = try #require(ahead.signed(with: key))
        asked = try sent(answer(&request, asked) { .imsUpdateReply(IMSUpdateReply(code: .stale, cookie: $0, current: current)) }).message
        #expect(try update(asked).record.mapping.record.sequence == now.wallMilliseconds + 5001)
        asked = try sent(
            answer(&request, asked) { .imsUpdateReply(IMSUpdateReply(code: .authenticationFailed, cookie: $0, certificate: newest)) }
        ).message
        #expect(try update(asked).record.certificate == .whole(newest))
        asked = try sent(answer(&request, asked) { .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: $0)) }).message
        guard case .join(let join) = asked.body else { return #expect(Bool(false), "\(asked)") }
        #expect(join.lifetime == 0 && join.wanted == IPPrefix(hoa.address))
        asked = try sent(answer(&request, asked) { .joinReply(JoinReply(code: .refused, cookie: $0)) }).message
        #expect(try update(asked).record.mapping.record.isWithdrawal)
        asked = try sent(answer(&request, asked) { .imsUpdateReply(IMSUpdateReply(code: .ok, cookie: $0)) }).message
        let grant = JoinReply.Grant(hoa, newest, lifetime: 0)
        guard case .ended(.granted)? = answer(&request, asked, { .joinReply(JoinReply(code: .ok, cookie: $0, granted: grant)) }) else {
            return #expect(Bool(false))
        }
    }
}
