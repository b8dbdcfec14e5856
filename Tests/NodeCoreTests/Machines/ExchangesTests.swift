import MATCore
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// Requests under way, without a node around them.
@Suite("Requests under way") struct ExchangesTests {
    private let own = ip("192.0.2.10")
    private let servers = [Endpoint(ip("192.88.1.1"), port: SignalPort.ims), Endpoint(ip("192.88.1.2"), port: SignalPort.ims)]
    private let hoa: HomeAddress = home("203.0.113.1")
    private var random: any RandomNumberGenerator = SeededGenerator(seed: 7)
    private var exchanges: Exchanges
    private var now = MonotonicTime.zero + .seconds(100)

    private var preferred: FamilyPair<IPAddress?> { FamilyPair(ipv4: own, ipv6: nil) }

    init() throws {
        let cookies = try #require(ClientCookies(secret: [UInt8](repeating: 1, count: 16)))
        exchanges = Exchanges(clientCookies: cookies, serversMax: 16, pace: Pace(perSecond: 2000, burst: 256))
    }

    private mutating func start(_ purpose: Exchange.Purpose, to targets: [Endpoint]) -> [Exchanges.Transmission] {
        sent(exchanges.start(purpose, to: targets, source: nil, move: nil, triesMax: nil, preferred: preferred, random: &random, now))
    }

    private func sent(_ tries: [Exchanges.OnTry]) -> [Exchanges.Transmission] {
        tries.compactMap { if case .send(let transmission) = $0 { transmission } else { nil } }
    }

    /// The next try, or giving up, at its time.
    private mutating func next() throws -> [Exchanges.OnTry] {
        let due = exchanges.nextDue
        now = try #require(due)
        return exchanges.due(preferred: preferred, now)
    }

    private func answer(_ request: Exchanges.Transmission, _ code: ResponseCode = .ok, server: ServerCookie? = nil, hoa: HomeAddress? = nil)
        -> SignalMessage
    {
        SignalMessage(
            sequence: request.sequence,
            .maAnswer(MAAnswer(code: code, cookie: Cookie(client: request.cookie.client, server: server), hoa: hoa ?? self.hoa)))
    }

    private mutating func receive(_ message: SignalMessage, from source: Endpoint) -> Exchanges.OnResponse {
        exchanges.received(message, from: source, to: own, own: FamilyPair(both: nil), preferred: preferred, now)
    }

    private func isUnmatched(_ response: Exchanges.OnResponse) -> Bool { if case .unmatched = response { true } else { false } }
    private func ended(_ response: Exchanges.OnResponse) -> Exchange? { if case .ended(let exchange) = response { exchange } else { nil } }

    @Test("A request is tried five times, from the third on at two servers, and is then given up and forgotten")
    mutating func tries() throws {
        var targets = [start(.queryPeer(hoa), to: servers).map(\.target)]
        while exchanges.isUnderWay(.queryPeer(hoa)) {
            let actions = try next()
            if case .giveUp(let exchange)? = actions.first {
                #expect(exchange.purpose == .queryPeer(hoa))
            } else {
                targets.append(sent(actions).map(\.target))
            }
        }
        #expect(targets == [[servers[0]], [servers[0]], servers, [servers[1], servers[0]], servers])
        let next = exchanges.nextDue
        #expect(exchanges.count == 0 && next == nil)
    }

    /// How many messages a request to one server comes to, if nobody answers.
    private mutating func unanswered(_ purpose: Exchange.Purpose) throws -> Int {
        var count = start(purpose, to: [servers[0]]).count
        while exchanges.isUnderWay(purpose) { count += sent(try next()).count }
        return count
    }

    @Test("An IMS that has never answered gets two HA Notify; one that has gets five")
    mutating func unknownServers() throws {
        let unknown = try unanswered(.notifyServer(hoa))
        exchanges.learn(nil, from: servers[0], at: own, now)
        let known = try unanswered(.notifyServer(hoa))
        #expect(unknown == 2 && known == Retransmission.triesMax)
    }

    @Test("Only who was asked may answer, with our cookie, the right type and the right HoA")
    mutating func whoMayAnswer() throws {
        let request = try #require(start(.queryPeer(hoa), to: servers).first)
        #expect(isUnmatched(receive(answer(request), from: servers[1])), "not asked yet")
        #expect(isUnmatched(receive(answer(request, hoa: home("203.0.113.9")), from: servers[0])))
        let forged = SignalMessage(sequence: request.sequence, .maAnswer(MAAnswer(code: .ok, cookie: Cookie(client: 1), hoa: hoa)))
        #expect(isUnmatched(receive(forged, from: servers[0])))
        let other = SignalMessage(
            sequence: request.sequence, .haAnswer(HAAnswer(code: .notFound, cookie: Cookie(client: request.cookie.client), moa: nil)))
        #expect(isUnmatched(receive(other, from: servers[0])))
        #expect(!exchanges.hasHeard(.ipv4, within: .seconds(8), now))
        #expect(ended(receive(answer(request), from: servers[0]))?.purpose == .queryPeer(hoa))
        #expect(isUnmatched(receive(answer(request), from: servers[0])), "answered")
        #expect(exchanges.hasHeard(.ipv4, within: .seconds(8), now))
    }

    @Test("\"Cookie required\" is followed twice, with the cookie that came; of a request for a cookie it is the answer")
    mutating func cookieRequired() throws {
        let authority = try #require(CookieAuthority(secret: [UInt8](repeating: 9, count: 16)))
        let clock = Now(monotonic: now, wallMilliseconds: VirtualClock.wallAtStart)
        let request = try #require(start(.queryPeer(hoa), to: servers).first)
        for count in 0..<4 {
            let cookie = authority.make(for: Endpoint(own, port: UInt16(6289 + count)), clientCookie: request.cookie.client, now: clock)
            guard case .sendAgain(let tries) = receive(answer(request, .cookieRequired, server: cookie), from: servers[0]) else {
                Issue.record("it is no answer")
                return
            }
            #expect(sent(tries).map(\.cookie.server) == (count < 2 ? [cookie] : []))
        }
        let proof = try #require(start(.prove(hoa, MobileAddress(own)), to: [servers[0]]).first)
        #expect(proof.cookie.server == nil, "a fresh cookie is asked for")
        #expect(ended(receive(answer(proof, .cookieRequired), from: servers[0]))?.purpose == .prove(hoa, MobileAddress(own)))
    }

    @Test("Without an address of the first server's family the next one is asked, and the try counts")
    mutating func families() throws {
        let targets = [Endpoint(ip("2001:db8::1"), port: SignalPort.ims), servers[0]]
        #expect(start(.queryPeer(hoa), to: targets).isEmpty)
        #expect(sent(try next()).map(\.target) == [servers[0]])
        #expect(sent(try next()).map(\.target) == [servers[0]], "at the third try too, when two servers are asked")
    }

    @Test("A second request for the same purpose takes the first one's place; those from addresses that are gone end")
    mutating func replaced() throws {
        let first = try #require(start(.queryPeer(hoa), to: servers).first)
        let second = try #require(start(.queryPeer(hoa), to: servers).first)
        #expect(exchanges.count == 1 && first.sequence != second.sequence)
        _ = exchanges.start(.register(hoa), to: servers, source: own, move: nil, triesMax: nil, preferred: preferred, random: &random, now)
        exchanges.cancel(from: [MobileAddress(own)])
        #expect(!exchanges.isUnderWay(.register(hoa)) && exchanges.isUnderWay(.queryPeer(hoa)), "the other goes from whatever address there is")
    }

    @Test("Requests to peers that become due together take turns; our own registration does not wait")
    mutating func turns() throws {
        let cookies = try #require(ClientCookies(secret: [UInt8](repeating: 1, count: 16)))
        exchanges = Exchanges(clientCookies: cookies, serversMax: 16, pace: Pace(perSecond: 10, burst: 1))
        for number in 1...3 { _ = start(.queryPeer(home("203.0.113.\(number)")), to: [servers[0]]) }
        _ = start(.register(hoa), to: [servers[0]])
        let firstDue = exchanges.nextDue
        let due = try #require(firstDue)
        now = due
        var purposes: [Exchange.Purpose] = []
        while let next = exchanges.nextDue, next <= now { purposes += sent(exchanges.due(preferred: preferred, now)).map(\.purpose) }
        #expect(purposes == [.register(hoa)])
        while purposes.count < 4 { purposes += sent(try next()).map(\.purpose).filter { $0 != .register(hoa) } }
        #expect(now - due >= .milliseconds(200), "ten a second")
    }
}
