import MATSignal
import MappingMemory
import Testing

@testable import IMSCore

@Suite("What the store tells the server")
struct StoreEventTests {
    let mn = node("198.51.100.7")
    let hoa = "192.0.2.1"

    private func stored(_ certified: CertifiedMapping, _ server: TestServer) -> StoredMapping {
        StoredMapping(certified: certified, source: mn, local: TestServer.local, provenAt: server.now.wallMilliseconds)
    }

    @Test("While it loads it answers what it has, says \"try later\" for the rest, and never \"not found\"")
    func loading() throws {
        let server = try TestServer()
        server.core.loadBegins()
        let node = try server.makeNode(hoa)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let early = try #require(server.query(hoa, from: mn))
        #expect(early.code == .tryLater && early.lifetime == 1 && early.text?.contains("just started") == true)
        #expect(server.whose("198.51.100.7", from: mn)?.code == .tryLater)
        let network = try server.makeNode("2001:db8:10:100::", prefixLength: 56)
        let wide = try network.record(["2001:db8:aa:700::"], sequence: server.now.wallMilliseconds)
        server.perform(server.core.store(.loaded(StoreContents(mappings: [stored(record, server), stored(wide, server)])), now: server.now))
        #expect(server.query(hoa, from: mn)?.mapping == record.mapping && server.whose("198.51.100.7", from: mn)?.code == .ok)
        // A node within the network may have a record of its own that is still to be read.
        #expect(server.query("2001:db8:10:1ff::5", from: mn)?.code == .tryLater)
        #expect(server.query("192.0.2.2", from: mn)?.code == .tryLater)
        // Versions could not be compared with what is not known.
        let next = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1)
        #expect(server.update(next, from: mn)?.code == .tryLater)
        #expect(throws: EnrolmentRefusal.self) { try server.core.enrol(home(hoa), key: node.key.publicKey, now: server.now) }
        #expect(server.notify("10.1.0.1", about: hoa, nil, from: mn)?.code == .tryLater)

        server.perform(server.core.store(.loadEnded, now: server.now))
        #expect(server.query("192.0.2.2", from: mn)?.code == .notFound && server.query("2001:db8:10:1ff::5", from: mn)?.code == .ok)
        #expect(server.update(next, from: mn)?.code == .ok)
    }

    @Test("Without a store that writes, updates get code 7 with the reason, queries are answered, and it ends when the store says so")
    func unavailable() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: mn)?.code == .ok)
        server.perform(server.core.store(.unavailable("the disk is full; make room"), now: server.now))
        #expect(server.logs.contains { $0.contains("updates are refused") && $0.contains("the disk is full") })
        let next = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1)
        let refused = try #require(server.update(next, from: mn))
        // Why is for the log: it may hold paths, addresses and a library's words.
        #expect(refused.code == .tryLater && refused.lifetime == 5 && refused.text == StoreState.unavailableText)
        // What it has already is a duplicate, which needs no store; no signature was checked for the other.
        #expect(server.update(record, from: mn)?.code == .ok && server.core.counters.verifications == 1)
        #expect(server.query(hoa, from: mn)?.mapping == record.mapping)
        #expect(server.core.storeUnavailable == "the disk is full; make room")
        server.perform(server.core.store(.available, now: server.now))
        #expect(server.update(next, from: mn)?.code == .ok && server.core.storeUnavailable == nil)
    }

    @Test("A thousand changes that can't be stored make one log line, and another with their number; nodes get a fixed text")
    func failuresTogether() throws {
        let server = try TestServer()
        server.storesAtOnce = false
        let reason = "etcd1.example.net:2379: connection reset (errno 104)"
        var tickets: [StoreTicket] = []
        for number in 1...200 {
            let source = IMSTests.node("198.51.100.\(number)")
            let node = try server.makeNode("192.0.2.\(number)")
            _ = server.update(try node.record([source.address.description], sequence: server.now.wallMilliseconds), from: source)
            tickets += server.commits.map(\.ticket)
            server.commits = []
        }
        #expect(tickets.count == 200)
        server.clear()
        let suppressed = server.core.counters.logLinesSuppressed
        server.perform(server.core.store(.committed(tickets.map { StoreOutcome($0, .failed(reason)) }), now: server.now))
        func lines() -> [String] { server.logs.filter { $0.contains("could not take") || $0.contains("takes changes again") } }
        #expect(lines().count == 1 && lines().first?.contains(reason) == true, "\(lines())")
        #expect(server.core.counters.logLinesSuppressed == suppressed + 199)
        let texts = server.sent.compactMap { if case .imsUpdateReply(let reply) = $0.message.body { reply.text } else { nil } }
        #expect(texts.count == 200 && Set(texts) == [StoreState.notStoredText])
        server.perform(server.core.store(.unavailable(reason), now: server.now))
        server.perform(server.core.store(.available, now: server.now))
        #expect(lines().count == 2 && lines().last?.contains("199 more changes were not stored meanwhile") == true, "\(lines())")
    }

    @Test("What another instance wrote is served and pushed; what is older changes nothing")
    func changed() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        let first = try node.record(["198.51.100.7"], sequence: time)
        let second = try node.record(["198.51.100.8"], sequence: time + 1)
        let subscriber = IMSTests.node("198.51.100.99")
        server.perform(server.core.store(.changed([StoreChange(mapping: stored(first, server))]), now: server.now))
        #expect(server.query(hoa, from: subscriber, subscribe: 300)?.subscribe == 300)
        server.perform(
            server.core.store(.changed([StoreChange(mapping: stored(second, server)), StoreChange(mapping: stored(first, server))]), now: server.now))
        #expect(server.query(hoa, from: mn)?.mapping == second.mapping)
        #expect(server.notified(subscriber).map(\.notify.record.mapping) == [second.mapping])
        let newer = try TestNode(hoa, seed: 1, issuer: server.issuer, notBefore: time)
        server.perform(server.core.store(.changed([StoreChange(issued: newer.certificate)]), now: server.now))
        let third = try node.record(["198.51.100.7"], sequence: time + 2)
        #expect(server.update(third, from: mn)?.code == .authenticationFailed)
    }

    @Test("An update that another instance outran is stale; the same update at two instances is ok at both")
    func outrun() throws {
        let server = try TestServer()
        server.storesAtOnce = false
        let node = try server.makeNode(hoa)
        let time = server.now.wallMilliseconds
        let older = try node.record(["198.51.100.7"], sequence: time)
        let newer = try node.record(["198.51.100.8"], sequence: time + 1)
        _ = server.update(older, from: mn)
        let ticket = try #require(server.commits.popLast()?.ticket)
        server.perform(server.core.store(.committed([StoreOutcome(ticket, .outrun(by: stored(newer, server)))]), now: server.now))
        guard case .imsUpdateReply(let reply)? = server.sent.last?.message.body else { return #expect(Bool(false)) }
        #expect(reply.code == .stale && reply.current == newer.mapping)
        #expect(server.query(hoa, from: mn)?.mapping == newer.mapping)

        let next = try node.record(["198.51.100.7"], sequence: time + 2)
        _ = server.update(next, from: mn)
        let second = try #require(server.commits.popLast()?.ticket)
        server.perform(server.core.store(.committed([StoreOutcome(second, .outrun(by: stored(next, server)))]), now: server.now))
        #expect(server.sent.last?.message.code == .ok)
    }

    @Test("Cookies of the newest two secrets are good, those from before a new store had its first among them, of older ones not")
    func secrets() throws {
        let server = try TestServer()
        let old = server.cookie(mn)
        let secrets = (1...3).map { CookieSecret(octets: [UInt8](repeating: UInt8($0 * 20), count: 16), madeAt: UInt64($0)) }
        func isGood(_ cookie: Cookie) -> Bool { server.core.cookies.isValid(cookie, from: mn, now: server.now) }
        server.perform(server.core.store(.secrets([secrets[0]]), now: server.now))
        let first = server.cookie(mn)
        #expect(isGood(old) && isGood(first))
        server.perform(server.core.store(.secrets([secrets[1], secrets[0]]), now: server.now))
        let second = server.cookie(mn)
        #expect(isGood(first) && isGood(second) && !isGood(old))
        server.perform(server.core.store(.secrets([secrets[2], secrets[1]]), now: server.now))
        #expect(!isGood(first) && isGood(second) && isGood(server.cookie(mn)))
        server.perform(server.core.store(.secrets([]), now: server.now))
        #expect(isGood(second))
    }
}
