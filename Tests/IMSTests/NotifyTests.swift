import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMSCore

/// ```
///   MN 10.1.0.1 at 198.51.100.7      CN 192.0.2.1 at 198.51.100.9
///          |                                |
///   IMS_MN 203.0.113.50              IMS_CN: the server under test
/// ```
@Suite("HA Notify, MA Notify and pushes")
struct NotifyTests {
    let mn = node("198.51.100.7")
    let cn = node("198.51.100.9")
    let upstream = Endpoint(address("203.0.113.50"), port: SignalPort.ims)
    let second = Endpoint(address("203.0.113.51"), port: SignalPort.ims)
    let mnHoA = "10.1.0.1"
    let cnHoA = "192.0.2.1"

    /// A server with the CN registered, and a node of another IMS.
    private func make(limits: IMSLimits = IMSLimits()) throws -> (TestServer, TestNode, SigningKey) {
        let server = try TestServer(limits: limits)
        let peer = try server.makeNode(cnHoA, seed: 5)
        #expect(server.update(try peer.record(["198.51.100.9"], sequence: server.now.wallMilliseconds), from: cn)?.code == .ok)
        server.clear()
        let foreignKey = try key(150)
        let node = try TestNode(mnHoA, seed: 1, issuer: foreignKey, notBefore: TestServer.start - 1000)
        return (server, node, foreignKey)
    }

    private func found(_ server: TestServer, _ key: SigningKey, servers: [Endpoint]? = nil) -> IMSLookupResult {
        let list = (servers ?? [upstream]).enumerated().map {
            IMSHost(priority: UInt16($0), weight: 0, addresses: [$1.address], port: $1.port, target: .root)
        }
        return .found(IMSSet(servers: list, keys: [key.publicKey.octets], expires: server.now.monotonic + .seconds(300)))
    }

    private func resolve(_ server: TestServer, _ result: IMSLookupResult) {
        server.perform(server.core.resolved(prefix("\(mnHoA)/32"), result, now: server.now))
    }

    private func answer(
        _ server: TestServer, _ code: ResponseCode, _ record: CertifiedMapping?, from source: Endpoint? = nil, cookie: Cookie? = nil
    ) throws {
        let source = source ?? upstream
        let query = try #require(server.queries(to: source).last)
        let answer = MAAnswer(
            code: code, cookie: cookie ?? Cookie(client: query.query.cookie.client), hoa: home(mnHoA), mapping: record?.mapping,
            certificate: record?.certificate,
            lifetime: code == .notFound ? 30 : nil)
        server.receive(SignalMessage(sequence: query.sequence, .maAnswer(answer)).octets, from: source)
    }

    private func acks(_ server: TestServer) -> [ResponseCode] {
        server.sent.filter { $0.to == mn && $0.message.type == .haNotifyAck }.map(\.message.code)
    }

    private func ackPush(_ server: TestServer, _ peer: Endpoint, _ code: ResponseCode = .ok, cookie: ServerCookie? = nil) throws {
        let push = try #require(server.notified(peer).last)
        let ack = MANotifyAck(
            code: code, cookie: Cookie(client: push.notify.cookie.client, server: cookie), hoa: push.notify.record.mapping.record.hoa)
        server.receive(SignalMessage(sequence: push.sequence, .maNotifyAck(ack)).octets, from: peer)
    }

    @Test("With a record that verifies, the ack and the CN's MA Notify go at once, and IMS_MN is asked to confirm")
    func withRecord() throws {
        let (server, node, foreignKey) = try make()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.notify(mnHoA, about: cnHoA, record, from: mn) == nil)
        #expect(server.lookUps == [prefix("\(mnHoA)/32")])
        resolve(server, found(server, foreignKey))
        #expect(acks(server) == [.ok])
        #expect(server.notified(cn).map(\.notify.record.mapping) == [record.mapping])
        let query = try #require(server.queries(to: upstream).first)
        #expect(query.query.hoa == home(mnHoA) && query.query.subscribe == 300)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.isConfirmed == false)
        try answer(server, .ok, record)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.isConfirmed == true)
        // The CN knows it already.
        #expect(server.notified(cn).count == 1)
        // HA Query finds it now.
        #expect(server.whose("198.51.100.7", from: cn)?.mapping == record.mapping)
    }

    @Test("Without a record IMS_MN is asked first")
    func withoutRecord() throws {
        let (server, node, foreignKey) = try make()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.notify(mnHoA, about: cnHoA, nil, from: mn) == nil)
        resolve(server, found(server, foreignKey))
        #expect(acks(server).isEmpty && server.notified(cn).isEmpty)
        try answer(server, .ok, record)
        #expect(acks(server) == [.ok] && server.notified(cn).count == 1)
    }

    @Test("A repeated HA Notify in progress is ignored")
    func duplicate() throws {
        let (server, node, foreignKey) = try make()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
        let octets = SignalMessage(
            sequence: 77, .haNotify(HANotify(cookie: server.cookie(mn), hoa: home(mnHoA), peerHoA: home(cnHoA), record: enclosed))
        ).octets
        for _ in 0..<3 { server.receive(octets, from: mn) }
        resolve(server, found(server, foreignKey))
        #expect(acks(server) == [.ok] && server.lookUps.count == 1 && server.queries(to: upstream).count == 1)
    }

    @Test("A record of the wrong key is code 1, one that does not list the source code 8")
    func wrong() throws {
        let (server, node, foreignKey) = try make()
        let time = server.now.wallMilliseconds
        let thief = try TestNode(mnHoA, seed: 66, issuer: try key(66), notBefore: time - 1000)
        #expect(server.notify(mnHoA, about: cnHoA, try thief.record(["198.51.100.7"], sequence: time), from: mn) == nil)
        resolve(server, found(server, foreignKey))
        #expect(acks(server) == [.authenticationFailed] && server.notified(cn).isEmpty && server.core.rememberedCount == 0)
        #expect(server.logs.contains { $0.contains("refused HA Notify") && $0.contains("not signed by an IMS key that DNS lists") })
        let elsewhere = try node.record(["198.51.100.8"], sequence: time)
        #expect(server.notify(mnHoA, about: cnHoA, elsewhere, from: mn)?.code == .upstreamFailed)
        #expect(server.core.rememberedCount == 0)
    }

    @Test("No IMS in DNS, a failed look-up, an IMS that knows nothing or does not list the source: code 8")
    func upstreamFails() throws {
        let (server, node, foreignKey) = try make()
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, .absent(until: server.now.monotonic + .milliseconds(10)))
        #expect(acks(server) == [.upstreamFailed])
        server.advance(.seconds(3))
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, .failed("SERVFAIL"))
        #expect(acks(server) == [.upstreamFailed, .upstreamFailed])
        server.advance(.seconds(3))
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, found(server, foreignKey))
        try answer(server, .notFound, nil)
        #expect(acks(server).count == 3 && acks(server).last == .upstreamFailed)
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        try answer(server, .ok, try node.record(["198.51.100.8"], sequence: server.now.wallMilliseconds))
        #expect(acks(server).count == 4 && acks(server).last == .upstreamFailed && server.notified(cn).isEmpty)
    }

    @Test("Foreign PEER-HOA is code 4, an unregistered one code 2, too many code 7")
    func refusals() throws {
        let (server, _, _) = try make()
        #expect(server.notify(mnHoA, about: "10.7.7.7", nil, from: mn)?.code == .notAuthoritative)
        #expect(server.notify(mnHoA, about: "192.0.2.99", nil, from: mn)?.code == .notFound)
        // Limits come before authority: those two counted as well.
        server.advance(.seconds(1))
        var codes: [ResponseCode?] = []
        for _ in 0..<11 { codes.append(server.notify(mnHoA, about: cnHoA, nil, from: mn)?.code) }
        #expect(codes.dropLast().allSatisfy { $0 == nil } && codes.last == .tryLater)
    }

    @Test("The number of pending HA Notifies is bounded")
    func pendingBound() throws {
        var limits = IMSLimits()
        limits.notifiesPendingMax = 2
        let (server, _, _) = try make(limits: limits)
        #expect(
            server.notify("10.1.0.1", about: cnHoA, nil, from: mn) == nil && server.notify("10.1.0.2", about: cnHoA, nil, from: mn) == nil)
        #expect(server.notify("10.1.0.3", about: cnHoA, nil, from: mn)?.code == .tryLater)
        #expect(server.core.notifiesPendingCount == 2)
    }

    @Test("A silent IMS gets two tries, then the next of the set is asked")
    func failOver() throws {
        let (server, node, foreignKey) = try make()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, found(server, foreignKey, servers: [upstream, second]))
        server.advance(.milliseconds(800))
        #expect(server.queries(to: upstream).count == 2 && server.queries(to: second).count == 1)
        try answer(server, .ok, record, from: second)
        #expect(acks(server) == [.ok])
    }

    @Test("If no IMS answers, the notifier without a record gets code 8, and nothing is left behind")
    func silence() throws {
        let (server, _, foreignKey) = try make()
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, found(server, foreignKey))
        server.advance(.seconds(30))
        #expect(acks(server) == [.upstreamFailed] && server.core.notifiesPendingCount == 0 && !server.isFindingOut)
        #expect(server.queries(to: upstream).count == 2)
    }

    @Test("A silent IMS does not undo what a verified record said")
    func silenceKeepsHint() throws {
        let (server, node, foreignKey) = try make()
        _ = server.notify(mnHoA, about: cnHoA, try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        resolve(server, found(server, foreignKey))
        server.advance(.seconds(30))
        #expect(acks(server) == [.ok] && server.core.rememberedMapping(of: home(mnHoA)) != nil)
    }

    @Test("Code 9 is followed twice at most, with the cookie that was given")
    func cookieRequired() throws {
        let (server, _, foreignKey) = try make()
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, found(server, foreignKey))
        let given = server.core.cookies.make(for: upstream, clientCookie: 1, now: server.now)
        for round in 1...3 {
            let query = try #require(server.queries(to: upstream).last)
            try answer(server, .cookieRequired, nil, cookie: Cookie(client: query.query.cookie.client, server: given))
            #expect(server.queries(to: upstream).count == min(round + 1, 3))
        }
        #expect(server.queries(to: upstream).last?.query.cookie.server == given)
        #expect(acks(server) == [.upstreamFailed])
    }

    @Test("Answers from elsewhere, with another cookie or sequence, or about another HoA are dropped")
    func foreignAnswers() throws {
        let (server, node, foreignKey) = try make()
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        _ = server.notify(mnHoA, about: cnHoA, nil, from: mn)
        resolve(server, found(server, foreignKey))
        let query = try #require(server.queries(to: upstream).last)
        func send(_ sequence: UInt32, _ client: UInt64, _ hoa: String, _ source: Endpoint) {
            let answer = MAAnswer(
                code: .ok, cookie: Cookie(client: client), hoa: home(hoa), mapping: record.mapping, certificate: record.certificate)
            server.receive(SignalMessage(sequence: sequence, .maAnswer(answer)).octets, from: source)
        }
        let client = query.query.cookie.client
        send(query.sequence, client, mnHoA, second)
        send(query.sequence, client, mnHoA, Endpoint(upstream.address, port: 5353))
        send(query.sequence &+ 1, client, mnHoA, upstream)
        send(query.sequence, client ^ 1, mnHoA, upstream)
        send(query.sequence, client, "10.1.0.2", upstream)
        #expect(acks(server).isEmpty && server.core.counters.dropped == 5)
        send(query.sequence, client, mnHoA, upstream)
        #expect(acks(server) == [.ok])
    }

    @Test("An older answer of IMS_MN is asked again, and after three seconds it corrects what was announced")
    func correction() throws {
        let (server, node, foreignKey) = try make()
        let time = server.now.wallMilliseconds
        let old = try node.record(["198.51.100.7"], sequence: time - 10)
        let new = try node.record(["198.51.100.7", "198.51.100.8"], sequence: time)
        _ = server.notify(mnHoA, about: cnHoA, new, from: mn)
        resolve(server, found(server, foreignKey))
        try answer(server, .ok, old)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.mapping == new)
        for _ in 0..<8 where server.isFindingOut {
            server.advance(.milliseconds(501))
            try answer(server, .ok, old)
        }
        let held = try #require(server.core.rememberedMapping(of: home(mnHoA)))
        #expect(held.mapping == old && held.isConfirmed && !server.isFindingOut)
        #expect(server.notified(cn).last?.notify.record.mapping == old.mapping)
    }

    @Test("A newer answer of IMS_MN is passed on to the CN")
    func newerAnswer() throws {
        let (server, node, foreignKey) = try make()
        let time = server.now.wallMilliseconds
        _ = server.notify(mnHoA, about: cnHoA, try node.record(["198.51.100.7"], sequence: time), from: mn)
        resolve(server, found(server, foreignKey))
        let newer = try node.record(["198.51.100.8"], sequence: time + 1)
        try answer(server, .ok, newer)
        #expect(server.notified(cn).last?.notify.record.mapping == newer.mapping)
    }

    @Test("A notifier of the own prefixes is settled from the own table; ahead of its update, its record serves until then")
    func ownNotifier() throws {
        let (server, _, _) = try make()
        let node = try server.makeNode("192.0.2.7", seed: 7)
        #expect(server.notify("192.0.2.7", about: cnHoA, nil, from: mn)?.code == .upstreamFailed)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.notify("192.0.2.7", about: cnHoA, record, from: mn)?.code == .ok)
        #expect(server.notified(cn).count == 1 && server.lookUps.isEmpty && server.core.rememberedCount == 1)
        #expect(server.update(record, from: mn)?.code == .ok)
        #expect(server.core.rememberedCount == 0 && !server.isFindingOut)
        #expect(server.notify("192.0.2.7", about: cnHoA, nil, from: mn)?.code == .ok)
        #expect(server.notify("192.0.2.7", about: cnHoA, nil, from: endpoint("198.51.100.66"))?.code == .upstreamFailed)
    }

    private func endpoint(_ text: String) -> Endpoint { IMSTests.node(text) }

    @Test("An announced record that is never registered is taken back")
    func ownNeverRegistered() throws {
        let (server, _, _) = try make()
        let node = try server.makeNode("192.0.2.7", seed: 7)
        let time = server.now.wallMilliseconds
        let registered = try node.record(["198.51.100.7"], sequence: time)
        _ = server.update(registered, from: mn)
        #expect(server.notify("192.0.2.7", about: cnHoA, try node.record(["198.51.100.7"], sequence: time + 1), from: mn)?.code == .ok)
        server.advance(.seconds(4))
        #expect(server.core.rememberedCount == 0 && !server.isFindingOut)
        #expect(server.notified(cn).last?.notify.record.mapping == registered.mapping)
    }

    // MARK: Pushes

    @Test("Subscribers are told of a change, except the source of the update, until they ack")
    func pushes() throws {
        let server = try TestServer()
        let node = try server.makeNode(cnHoA)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.9"], sequence: time), from: cn)
        #expect(server.query(cnHoA, from: mn, subscribe: 9999)?.subscribe == 300)
        #expect(server.query(cnHoA, from: cn, subscribe: 60)?.subscribe == 60)
        server.clear()
        let moved = try node.record(["198.51.100.9"], sequence: time + 1)
        _ = server.update(moved, from: cn)
        #expect(server.notified(mn).map(\.notify.record.mapping) == [moved.mapping] && server.notified(cn).isEmpty)
        server.advance(.milliseconds(300))
        #expect(server.notified(mn).count == 2)
        // Code 9 is followed with the cookie.
        let given = server.core.cookies.make(for: mn, clientCookie: 1, now: server.now)
        try ackPush(server, mn, .cookieRequired, cookie: given)
        #expect(server.notified(mn).count == 3 && server.notified(mn).last?.notify.cookie.server == given)
        try ackPush(server, mn)
        server.advance(.seconds(20))
        #expect(server.notified(mn).count == 3 && server.core.pushesPendingCount == 0 && server.core.subscriptionsCount == 2)
    }

    @Test("Five unacknowledged pushes end a subscription")
    func deafSubscriber() throws {
        let server = try TestServer()
        let node = try server.makeNode(cnHoA)
        let time = server.now.wallMilliseconds
        _ = server.update(try node.record(["198.51.100.9"], sequence: time), from: cn)
        _ = server.query(cnHoA, from: mn, subscribe: 300)
        _ = server.update(try node.record(["198.51.100.9"], sequence: time + 1), from: cn)
        server.advance(.seconds(20))
        #expect(server.notified(mn).count == 5 && server.core.subscriptionsCount == 0)
        #expect(server.core.counters.pushesUnanswered == 1)
    }

    @Test("Subscriptions end by themselves and are limited per source and HoA")
    func subscriptionLimits() throws {
        let server = try TestServer()
        let node = try server.makeNode(cnHoA)
        _ = server.update(try node.record([], sequence: server.now.wallMilliseconds, lifetime: 3600), from: cn)
        let granted = (0..<9).map { server.query(cnHoA, from: Endpoint(mn.address, port: 7000 + $0), subscribe: 300) }
        #expect(granted.dropLast().allSatisfy { $0?.subscribe == 300 })
        #expect(granted.last??.code == .ok && granted.last??.subscribe == nil)
        server.advance(.seconds(400))
        #expect(server.core.subscriptionsCount == 0)
    }

    @Test("MA Notify is taken for remembered HoAs: from its IMS as truth, from others as a hint that is confirmed")
    func maNotify() throws {
        let (server, node, foreignKey) = try make()
        let time = server.now.wallMilliseconds
        let first = try node.record(["198.51.100.7"], sequence: time)
        func notify(_ record: CertifiedMapping, from source: Endpoint, cookie: Cookie? = nil) -> MANotifyAck? {
            let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
            guard
                case .maNotifyAck(let ack)? = server.ask(
                    .maNotify(MANotify(cookie: cookie ?? server.cookie(source), record: enclosed)), from: source)?.body
            else { return nil }
            return ack
        }
        #expect(notify(first, from: upstream, cookie: Cookie(client: 4))?.code == .cookieRequired)
        #expect(notify(first, from: upstream)?.code == .notFound)
        _ = server.notify(mnHoA, about: cnHoA, first, from: mn)
        resolve(server, found(server, foreignKey))
        try answer(server, .ok, first)
        #expect(notify(first, from: upstream)?.code == .ok)
        let second = try node.record(["198.51.100.8"], sequence: time + 1)
        let ack = notify(second, from: upstream)
        #expect(ack?.code == .ok && ack?.cookie.server != nil)
        #expect(
            server.core.rememberedMapping(of: home(mnHoA))?.isConfirmed == true
                && server.core.rememberedMapping(of: home(mnHoA))?.mapping == second)
        let stale = notify(first, from: upstream)
        #expect(stale?.code == .stale && stale?.current == second.mapping)
        let asked = server.queries(to: upstream).count
        let third = try node.record(["198.51.100.7"], sequence: time + 2)
        #expect(notify(third, from: mn)?.code == .ok)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.isConfirmed == false && server.queries(to: upstream).count == asked + 1)
        try answer(server, .ok, third)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.isConfirmed == true)
        let thief = try TestNode(mnHoA, seed: 66, issuer: try key(66), notBefore: time)
        #expect(notify(try thief.record(["198.51.100.66"], sequence: time + 3), from: mn)?.code == .authenticationFailed)
        #expect(server.core.rememberedMapping(of: home(mnHoA))?.mapping == third)
    }

    @Test("Random octets and mutated messages never trap")
    func garbage() throws {
        let (server, node, _) = try make()
        var generator = SeededGenerator(seed: 42)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
        let message = SignalMessage(
            sequence: 1, .haNotify(HANotify(cookie: server.cookie(mn), hoa: home(mnHoA), peerHoA: home(cnHoA), record: enclosed))
        ).octets
        for _ in 0..<3000 {
            var octets = message
            for _ in 0..<Int.random(in: 1...4, using: &generator) {
                octets[Int.random(in: 0..<octets.count, using: &generator)] = UInt8.random(in: .min ... .max, using: &generator)
            }
            server.receive(Array(octets.prefix(Int.random(in: 0...octets.count, using: &generator))), from: mn)
        }
        #expect(server.core.rememberedCount == 0)
    }
}
