import Glibc
import MATCore
import MATRuntime
import MATSignal

/// What a server answered a Join, or why there is no answer.
enum JoinOutcome: Sendable {
    case granted(JoinReply.Grant)
    case refused(ResponseCode, String?)
    case silent
}

/// Asks an IMS for a home address (protocol.md section 12), at one of its addresses after the other.
///
/// ```
///   Bind (an ask) ──► Bind Ack: a cookie ──► Join ──┬─ ok ────────────────► granted
///        │ silence: the next address                ├─ code 9, a cookie ──► Join again (twice)
///        ▼                                          ├─ code 7, seconds ───► Join again then (5 times)
///      silent                                       └─ any other code ────► refused
/// ```
/// A Join signs the cookie that it comes under, so it can't be the first message. Who gives an address back withdraws its mapping before, by an
/// IMS Update without locators between the two: what is registered is not taken back. Refused, it withdraws anew: a Join that came late, as a copy,
/// counts as its wish to keep the address.
final class JoinExchange {
    /// How often a server may say "later".
    static let latersMax = 5
    /// How long it may put us off, in seconds.
    static let laterSecondsMax: UInt32 = 10
    /// How often it withdraws what it gives back.
    static let withdrawalsMax = 3
    /// Of a withdrawal, in seconds: how long others remember it.
    static let withdrawalSeconds: UInt32 = 600

    private let loop: EventLoop
    private let token: JoinToken
    private let key: SigningKey
    private let wanted: IPPrefix?
    private let lifetime: UInt32?
    /// What is withdrawn first.
    private var withdrawing: Certificate?
    private var withdrawals = 0
    /// Withdrawals that came too late, or under an old certificate.
    private var stales = 0
    private var sequence: UInt64 = 0
    private var socket: UDPSocket?
    private var servers: ArraySlice<Endpoint>
    private var cookie: Cookie
    private var message: SignalMessage?
    private var retransmission = Retransmission(type: .join, now: .zero)
    private var timer: TimerID?
    private var cookiesFollowed = 0
    private var laters = 0
    private var outcome = JoinOutcome.silent

    static func run(
        _ token: JoinToken, at servers: [Endpoint], key: SigningKey, wanted: IPPrefix? = nil
    ) throws(CommandFailure) -> JoinOutcome {
        try run { loop throws(SystemError) in try JoinExchange(token, servers, key, wanted, nil, nil, loop) }
    }

    /// Gives back what a certificate is for.
    static func giveBack(
        _ certificate: Certificate, by token: JoinToken, at servers: [Endpoint], key: SigningKey
    ) throws(CommandFailure) -> JoinOutcome {
        try run { loop throws(SystemError) in
            try JoinExchange(token, servers, key, IPPrefix(certificate.hoa.address), 0, certificate, loop)
        }
    }

    private static func run(_ make: (EventLoop) throws(SystemError) -> JoinExchange) throws(CommandFailure) -> JoinOutcome {
        do throws(SystemError) {
            let loop = try EventLoop()
            let exchange = try make(loop)
            loop.schedule(after: .zero) { exchange.askNext() }
            try loop.run()
            return exchange.outcome
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    private init(
        _ token: JoinToken, _ servers: [Endpoint], _ key: SigningKey, _ wanted: IPPrefix?, _ lifetime: UInt32?, _ withdrawing: Certificate?,
        _ loop: EventLoop
    ) throws(SystemError) {
        self.token = token
        self.key = key
        self.wanted = wanted
        self.lifetime = lifetime
        self.withdrawing = withdrawing
        self.loop = loop
        self.servers = servers[...]
        cookie = Cookie(client: .random(in: 0 ... .max))
        socket = try UDPSocket(loop: loop, port: 0) { [unowned self] octets, source, _ in receive(Array(octets), source) }
    }

    // MARK: Requests

    private func askNext() {
        guard !servers.isEmpty else { return loop.stop() }
        cookie = Cookie(client: .random(in: 0 ... .max))
        begin(.bind(Bind.padded(cookie: cookie, .ask)))
    }

    private func join() {
        guard let given = Challenge(cookie) else { return askNext() }
        let statement = JoinStatement(to: token.server, cookie: given, key: key.publicKey, wanted: wanted, lifetime: lifetime)
        guard let signature = statement.signed(with: key) else { return end(.refused(.authenticationFailed, "the crypto library does not sign")) }
        begin(
            .join(
                Join(
                    cookie: cookie, key: key.publicKey, .token(TokenProof(of: token, over: statement)), wanted: wanted, lifetime: lifetime,
                    signature: signature)))
    }

    /// - Parameter registered: the sequence of what is registered.
    private func withdraw(_ certificate: Certificate, after registered: UInt64 = 0) {
        sequence = max(SystemClock.now().wallMilliseconds, max(registered, sequence) &+ 1)
        let record = MappingRecord(
            hoa: certificate.hoa, prefixLength: certificate.prefixLength, sequence: sequence, lifetime: Self.withdrawalSeconds,
            issued: SystemClock.now().wallMilliseconds, locators: [])
        guard let mapping = record.signed(with: key) else { return end(.refused(.authenticationFailed, "the crypto library does not sign")) }
        begin(.imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: mapping, certificate: .whole(certificate)), proofs: [])))
    }

    private func begin(_ body: SignalMessage.Body) {
        message = SignalMessage(sequence: .random(in: 0 ... .max), body)
        retransmission = Retransmission(type: .join, now: SystemClock.now().monotonic)
        send()
    }

    private func send() {
        guard let message, let server = servers.first else { return }
        guard !retransmission.isExhausted else { return giveUp() }
        retransmission.tried(at: SystemClock.now().monotonic)
        if socket?.send(message.octets, to: server) != nil { return giveUp() }
        timer = loop.schedule(at: retransmission.due) { [self] in send() }
    }

    private func giveUp() {
        stop()
        servers = servers.dropFirst()
        askNext()
    }

    private func stop() {
        if let timer { loop.cancel(timer) }
        timer = nil
        message = nil
    }

    private func end(_ outcome: JoinOutcome) {
        stop()
        self.outcome = outcome
        loop.stop()
    }

    // MARK: Answers

    private func receive(_ octets: [UInt8], _ source: Endpoint) {
        guard source == servers.first, let asked = message else { return }
        for case .message(let message, _) in SignalDatagram.decode(octets)
        where message.sequence == asked.sequence && message.type == asked.type.response && message.cookie.client == cookie.client {
            return answered(message)
        }
    }

    private func answered(_ message: SignalMessage) {
        stop()
        cookie = message.cookie
        switch message.body {
        case .bindAck where cookie.server == nil: giveUp()
        case .bindAck:
            guard let withdrawing else { return join() }
            withdraw(withdrawing)
        case .imsUpdateReply(let reply): withdrawn(reply)
        case .joinReply(let reply): answered(reply)
        default: giveUp()
        }
    }

    private func withdrawn(_ reply: IMSUpdateReply) {
        guard let withdrawing else { return join() }
        switch reply.code {
        // Its own clock was ahead of this one when it registered last.
        case .stale where stales < Self.withdrawalsMax:
            stales += 1
            reply.current.map { withdraw(withdrawing, after: $0.record.sequence) } ?? join()
        case .ok:
            withdrawals += 1
            join()
        // matd keeps renewed certificates with its state; the IMS says which is the newest.
        case .authenticationFailed where stales < Self.withdrawalsMax:
            guard let newest = reply.certificate, newest.prefix == withdrawing.prefix, newest.nodeKey == withdrawing.nodeKey else { fallthrough }
            stales += 1
            self.withdrawing = newest
            withdraw(newest)
        default: end(.refused(reply.code, reply.text.map { "it is not withdrawn: \($0)" }))
        }
    }

    private func answered(_ reply: JoinReply) {
        switch reply.code {
        case .ok:
            guard let granted = reply.granted else { return end(.refused(.malformed, nil)) }
            end(.granted(granted))
        case .cookieRequired where cookiesFollowed < 2 && cookie.server != nil:
            cookiesFollowed += 1
            join()
        case .refused where withdrawals < Self.withdrawalsMax:
            guard let withdrawing else { return end(.refused(reply.code, reply.text)) }
            withdraw(withdrawing)
        case .tryLater where laters < Self.latersMax:
            laters += 1
            timer = loop.schedule(after: .seconds(Int(min(reply.lifetime ?? 1, Self.laterSecondsMax)))) { [self] in join() }
        default: end(.refused(reply.code, reply.text))
        }
    }
}

/// Addresses of a host's name, as the system finds them.
enum HostAddresses {
    static func find(_ host: String, port: UInt16) throws(CommandFailure) -> [Endpoint] {
        if let address = IPAddress(host) { return [Endpoint(address, port: port)] }
        var hints = addrinfo()
        hints.ai_socktype = Int32(SOCK_DGRAM.rawValue)
        var list: UnsafeMutablePointer<addrinfo>?
        let code = getaddrinfo(host, nil, &hints, &list)
        guard code == 0 else {
            throw CommandFailure("the name \(host) in the token is not found: \(String(cString: gai_strerror(code))); is DNS reachable from here?")
        }
        defer { freeaddrinfo(list) }
        var found: [Endpoint] = []
        var entry = list
        while let here = entry {
            if let address = here.pointee.ai_addr, let endpoint = Self.address(address).map({ Endpoint($0, port: port) }), !found.contains(endpoint) {
                found.append(endpoint)
            }
            entry = here.pointee.ai_next
        }
        guard !found.isEmpty else { throw CommandFailure("the name \(host) in the token has no address") }
        return found
    }

    private static func address(_ address: UnsafeMutablePointer<sockaddr>) -> IPAddress? {
        switch Int32(address.pointee.sa_family) {
        case AF_INET:
            return address.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { IPAddress(ipv4: UInt32(bigEndian: $0.pointee.sin_addr.s_addr)) }
        case AF_INET6:
            return address.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { here in
                withUnsafeBytes(of: here.pointee.sin6_addr) { IPAddress(octets: Array($0)) }
            }
        default: return nil
        }
    }
}
