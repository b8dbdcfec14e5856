import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMSCore

private let here = node("198.51.100.7")
private let elsewhere = node("203.0.113.99")

/// Who gets a home address though he is at home elsewhere, for how long, and who does not (protocol.md section 12, "Visitors").
@Suite("Visitors")
struct VisitorTests {
    private let server: TestServer
    /// What visitors get IPv4 addresses of.
    private let pool = "192.0.2.128/28"
    /// Of the IMS that the visitors are at home at.
    private let foreign: SigningKey

    init() throws {
        server = try TestServer()
        foreign = try key(150)
        try configure { _ in }
    }

    private func configure(_ change: (inout VisitorPolicy) -> Void) throws {
        var policy = VisitorPolicy(pools: [prefix(pool), prefix("2001:db8:10:ff::/64")], sources: [prefix("198.51.100.0/24")])
        change(&policy)
        var configuration = server.core.configuration
        configuration.visitors = policy
        server.core.reconfigure(configuration)
    }

    private func visitor(_ seed: UInt8, of hoa: String? = nil, issuer: SigningKey? = nil) throws -> TestNode {
        try TestNode(hoa ?? "10.0.0.\(seed)", seed: seed, issuer: issuer ?? foreign, notBefore: TestServer.start - 1000, notAfter: UInt64.max / 2)
    }

    private func found(_ keys: [SigningKey]) -> IMSLookupResult {
        let host = IMSHost(priority: 0, weight: 0, addresses: [address("203.0.113.53")], port: SignalPort.ims, target: .root)
        return .found(IMSSet(servers: [host], keys: keys.map(\.publicKey.octets), expires: server.now.monotonic + .seconds(300)))
    }

    /// Sends a Join, and has the DNS say this of every home that is asked about.
    private func join(
        _ node: TestNode, wanted: String? = nil, lifetime: UInt32? = nil, from: Endpoint = here, dns: IMSLookupResult? = nil, signedBy: UInt8? = nil,
        _ change: (inout Join) -> Void = { _ in }
    ) throws -> JoinReply {
        let cookie = server.cookie(from)
        let statement = JoinStatement(
            to: server.issuer.publicKey, cookie: try #require(Challenge(cookie)), key: node.key.publicKey, wanted: wanted.map { prefix($0) },
            lifetime: lifetime)
        var join = Join(
            cookie: cookie, key: node.key.publicKey, .visitor(node.hoa, node.certificate), wanted: statement.wanted, lifetime: lifetime,
            signature: try #require(statement.signed(with: try signedBy.map { try key($0) } ?? node.key)))
        change(&join)
        let message = SignalMessage(sequence: server.nextSequence, .join(join))
        server.nextSequence += 1
        server.clear()
        server.receive(message.octets, from: from)
        for name in server.lookUps { server.perform(server.core.resolved(name, dns ?? found([foreign]), now: server.now)) }
        let answer = server.sent.first { $0.to == from && $0.message.sequence == message.sequence }?.message
        guard case .joinReply(let reply)? = answer?.body else {
            Issue.record("no answer")
            return JoinReply(code: .malformed, cookie: cookie)
        }
        return reply
    }

    // MARK: What is given

    @Test(
        "A node whose home the DNS confirms gets an address of a visitors' pool, of the family that it wants, for as long as it asks, at most a day")
    func given() throws {
        let node = try visitor(1)
        let granted = try #require(join(node, lifetime: 600).granted)
        #expect(prefix(pool).contains(granted.hoa.address) && granted.lifetime == 600)
        #expect(granted.certificate.nodeKey == node.key.publicKey && granted.certificate.isIssued(by: server.issuer.publicKey))
        let six = try #require(join(node, wanted: "2000::/3").granted)
        #expect(prefix("2001:db8:10:ff::/64").contains(six.hoa.address) && six.lifetime == 86_400)
        let lease = try #require(server.core.leasesPage(after: nil, count: 10).first { $0.prefix == IPPrefix(granted.hoa.address) })
        #expect(lease.origin == .visitor(node.hoa, issuer: foreign.publicKey.id) && lease.endsAt == granted.certificate.notAfter && !lease.isRenewed)
        // It is a home address like any other.
        var visiting = try TestNode("\(granted.hoa)", seed: 1, issuer: server.issuer, notBefore: 0)
        visiting.certificate = granted.certificate
        #expect(server.update(try visiting.record(["203.0.113.99"], sequence: server.now.wallMilliseconds), from: elsewhere)?.code == .ok)
    }

    @Test("A repeated Join gets the same address and certificate; past half of its time a longer one, also from another network")
    func prolonged() throws {
        let node = try visitor(1)
        let first = try #require(join(node, lifetime: 3600).granted)
        server.advance(.seconds(100))
        #expect(try join(node, lifetime: 3600).granted?.certificate == first.certificate)
        server.advance(.seconds(1800))
        let later = try #require(join(node, wanted: "\(first.hoa)", lifetime: 3600, from: elsewhere).granted)
        #expect(later.hoa == first.hoa && later.certificate.notAfter > first.certificate.notAfter && later.lifetime == 3600)
        // Its home has another key by now: it is the same visitor all the same.
        let other = try key(151)
        let renewed = try TestNode("10.0.0.1", seed: 1, issuer: other, notBefore: TestServer.start, notAfter: UInt64.max / 2)
        server.advance(.seconds(400))
        #expect(try join(renewed, lifetime: 3600, dns: found([other])).granted?.hoa == first.hoa)
    }

    @Test("An IMS Update does not prolong a visitor's certificate: that is for a Join, which asks about the home again")
    func updates() throws {
        let node = try visitor(1)
        let granted = try #require(join(node, lifetime: 3600).granted)
        var visiting = try TestNode("\(granted.hoa)", seed: 1, issuer: server.issuer, notBefore: 0)
        visiting.certificate = granted.certificate
        server.advance(.seconds(3500))
        let reply = server.update(try visiting.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: here)
        #expect(reply?.code == .ok && reply?.certificate == nil)
    }

    private func giveBack(_ hoa: HomeAddress, of node: TestNode) throws -> JoinReply {
        let certificate = try #require(server.core.issued[IPPrefix(hoa.address)])
        let record = MappingRecord(
            hoa: hoa, prefixLength: 128, sequence: server.now.wallMilliseconds, lifetime: 600, issued: server.now.wallMilliseconds, locators: [])
        let withdrawal = CertifiedMapping(mapping: try #require(record.signed(with: node.key)), certificate: certificate)
        #expect(server.update(withdrawal, from: here)?.code == .ok)
        return try join(node, wanted: "\(hoa)", lifetime: 0)
    }

    @Test("Given back, once it is withdrawn, an address is another visitor's after an hour, and before any that was never given")
    func givenBack() throws {
        let node = try visitor(1)
        let granted = try #require(join(node, lifetime: 600).granted)
        var visiting = try TestNode("\(granted.hoa)", seed: 1, issuer: server.issuer, notBefore: 0)
        visiting.certificate = granted.certificate
        #expect(server.update(try visiting.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: here)?.code == .ok)
        #expect(try join(node, wanted: "\(granted.hoa)", lifetime: 0).code == .refused, "it is registered")
        server.advance(.seconds(1))
        #expect(server.update(try visiting.record([], sequence: server.now.wallMilliseconds), from: here)?.code == .ok)
        #expect(try join(node, wanted: "\(granted.hoa)", lifetime: 0, from: elsewhere).granted?.lifetime == 0)
        #expect(server.core.leasesPage(after: nil, count: 10).isEmpty)
        #expect(try join(try visitor(2)).granted?.hoa != granted.hoa)
        server.advance(.seconds(3590))
        #expect(try join(try visitor(3)).granted?.hoa != granted.hoa)
        server.advance(.seconds(20))
        #expect(try join(try visitor(4)).granted?.hoa == granted.hoa)
    }

    @Test("A visitor that says no more is forgotten an hour after its certificate has ended, and there are no more leases than visitors")
    func ended() throws {
        try configure { $0.leasesMax = 2 }
        func join(_ seed: UInt8) throws -> JoinReply { try self.join(try visitor(seed), wanted: pool, lifetime: 600) }
        let first = try #require(join(1).granted)
        let second = try #require(join(2).granted)
        let full = try join(3)
        #expect(full.code == .notFound && full.text?.contains("as many visitors as may be are here") == true)
        server.advance(.seconds(600 + 3500))
        #expect(try join(3).code == .notFound)
        server.advance(.seconds(200))
        for seed in 3..<5 {
            let reply = try join(UInt8(seed))
            #expect([first.hoa, second.hoa].contains(try #require(reply.granted, "\(reply.text ?? "")").hoa))
        }
        #expect(server.core.leasesPage(after: nil, count: 10).count == 2)
    }

    // MARK: Limits

    @Test("Visitors get half of a pool, and those of one home's IMS 64 addresses or as many as the configuration says")
    func limits() throws {
        for seed in 1...8 {
            server.advance(.milliseconds(200))
            #expect(try join(try visitor(UInt8(seed))).code == .ok)
        }
        server.advance(.seconds(1))
        #expect(try join(try visitor(9), wanted: pool).code == .notFound)
        #expect(try join(try visitor(9), wanted: "2000::/3").code == .ok, "the other family has a pool of its own")
        try configure { $0.leasesPerHomeMax = 9 }
        server.advance(.seconds(1))
        let many = try join(try visitor(10), wanted: "2000::/3")
        #expect(many.code == .notFound && many.text?.contains("of this home's IMS") == true)
        let other = try key(151)
        #expect(try join(try visitor(11, issuer: other), wanted: "2000::/3", dns: found([other])).code == .ok)
    }

    @Test("Who comes back after his time is one visitor more: refused where as many as may be are here, else given what he had")
    func late() throws {
        try configure { $0.leasesMax = 1 }
        let first = try #require(join(try visitor(1), wanted: pool, lifetime: 600).granted)
        server.advance(.seconds(600 + 3700))
        let other = first.hoa == home("192.0.2.130") ? "192.0.2.131" : "192.0.2.130"
        #expect(try join(try visitor(2), wanted: other, lifetime: 600).code == .ok)
        #expect(try join(try visitor(1), wanted: pool).code == .notFound)
        try configure { $0.leasesMax = 2 }
        #expect(try join(try visitor(1), wanted: pool).granted?.hoa == first.hoa)
    }

    @Test("Of each family visitors get what others have left, whatever is left of the other")
    func families() throws {
        var sixes: Set<HomeAddress> = []
        for round in 0..<4 {
            let node = try visitor(UInt8(1 + round))
            for wanted in round == 0 ? ["192.0.2.0/24", "2000::/3"] : ["2000::/3"] {
                let granted = try #require(join(node, wanted: wanted, lifetime: 600).granted)
                if granted.hoa.family == .ipv6 { sixes.insert(granted.hoa) }
                #expect(try giveBack(granted.hoa, of: node).code == .ok)
            }
            server.advance(.seconds(3700))
        }
        #expect(sixes.count == 1)
    }

    @Test("Homes of which the one lies at the beginning of the other are each held to their own keys")
    func nested() throws {
        func network(_ text: String, seed: UInt8, _ issuer: SigningKey) throws -> TestNode {
            var node = try visitor(seed, of: "10.0.0.0")
            node.certificate = try #require(
                issuer.certify(prefix(text), node.key.publicKey, .seconds(86_400), notBefore: server.now.wallMilliseconds))
            return node
        }
        let other = try key(151)
        // Both look-ups are under way: what the DNS says at 10.0.0.0/32 is nothing about 10.0.0.0/24.
        try pending(network("10.0.0.0/24", seed: 1, other), sequence: 1, from: from(1))
        try pending(network("10.0.0.0/32", seed: 2, other), sequence: 2, from: from(2))
        server.perform(server.core.resolved(prefix("10.0.0.0/32"), found([other]), now: server.now))
        server.perform(server.core.resolved(prefix("10.0.0.0/24"), found([foreign]), now: server.now))
        let answers = server.sent.compactMap { sent -> (Endpoint, ResponseCode)? in
            sent.message.type == .joinReply ? (sent.to, sent.message.code) : nil
        }
        #expect(answers.count == 2)
        #expect(answers.first { $0.0 == from(1) }?.1 == .authenticationFailed && answers.first { $0.0 == from(2) }?.1 == .ok)
    }

    @Test("A visitor has one address of a family at a time")
    func one() throws {
        let node = try visitor(1)
        let granted = try #require(join(node).granted)
        let second = try join(node, wanted: granted.hoa == home("192.0.2.130") ? "192.0.2.131" : "192.0.2.130")
        #expect(second.code == .refused && second.text?.contains("gives that back") == true)
    }

    @Test("Homes beyond the rate of look-ups are asked about later, and known ones at once")
    func lookUps() throws {
        try configure { $0.lookUpsPerSecond = 1 }
        #expect(try join(try visitor(1)).code == .ok)
        #expect(try join(try visitor(2)).code == .tryLater)
        #expect(try join(try visitor(1)).code == .ok)
        server.advance(.seconds(3))
        #expect(try join(try visitor(2)).code == .ok)
    }

    // MARK: What is refused

    @Test("A server without a policy, and one whose policy does not cover source or home, takes nobody; the log says why")
    func policy() throws {
        let outside = try join(try visitor(1), from: elsewhere)
        #expect(outside.code == .refused && outside.text?.contains("198.51.100.0/24") == true && server.lookUps.isEmpty)
        #expect(server.logs.contains { $0.contains("refused Join of key") && $0.contains("203.0.113.99") })
        try configure { $0.homes = [prefix("10.1.0.0/16")] }
        #expect(try join(try visitor(1)).code == .refused && server.lookUps.isEmpty)
        #expect(try join(try visitor(1, of: "10.1.0.1")).code == .ok)
        var configuration = server.core.configuration
        configuration.visitors = nil
        server.core.reconfigure(configuration)
        #expect(try join(try visitor(1)).text == "this server takes no visitors")
    }

    @Test("A home that the DNS does not know, cannot tell of, or has another key for, gives no address; nothing changes")
    func unverifiable() throws {
        let unknown = try join(try visitor(1), dns: .absent(until: server.now.monotonic + .seconds(60)))
        #expect(unknown.code == .authenticationFailed && unknown.text?.contains("the DNS lists no IMS for it") == true)
        #expect(server.logs.contains { $0.contains("10.0.0.1") && $0.contains("the DNS lists no IMS") })
        #expect(try join(try visitor(2), dns: .failed("SERVFAIL")).code == .tryLater)
        #expect(try join(try visitor(3), dns: found([try key(99)])).code == .authenticationFailed)
        #expect(try join(try visitor(4), dns: found([])).code == .authenticationFailed)
        #expect(server.core.leasesPage(after: nil, count: 10).isEmpty && server.commits.isEmpty)
    }

    @Test("Wrong signatures, certificates of others, ended ones and those of this server's own nodes are refused without a look-up")
    func wrong() throws {
        #expect(try join(try visitor(1), signedBy: 2).code == .authenticationFailed && server.lookUps.isEmpty)
        let stolen = try visitor(2)
        #expect(
            try join(try visitor(1)) { $0.title = .visitor(stolen.hoa, stolen.certificate) }.code == .authenticationFailed && server.lookUps.isEmpty)
        #expect(try join(try visitor(1)) { $0.wanted = prefix("192.0.2.130") }.code == .authenticationFailed)
        let own = try visitor(1, of: "192.0.2.9", issuer: server.issuer)
        let resident = try join(own)
        #expect(resident.code == .refused && resident.text?.contains("at home here") == true)
        let ended = try TestNode("10.0.0.5", seed: 5, issuer: foreign, notBefore: 1, notAfter: 2)
        #expect(try join(ended).code == .authenticationFailed)
        #expect(try join(try visitor(6), wanted: "192.0.2.9").code == .refused, "served here, and not for visitors")
        #expect(try join(try visitor(6), wanted: "100.64.0.0/10").code == .notAuthoritative)
    }

    @Test("All that wait for one home's keys get them with one look-up; more than four are told to come later")
    func together() throws {
        let node = try visitor(1)
        server.clear()
        for number in 0..<6 { try pending(node, sequence: UInt32(number), from: from(number)) }
        let answered = { (code: ResponseCode) in server.sent.count { $0.message.type == .joinReply && $0.message.code == code } }
        #expect(server.lookUps == [prefix("10.0.0.1/32")] && answered(.tryLater) == 2)
        server.perform(server.core.resolved(prefix("10.0.0.1/32"), found([foreign]), now: server.now))
        #expect(answered(.ok) == 4)
    }

    /// Sends a Join; the DNS has yet to answer.
    private func pending(_ node: TestNode, sequence: UInt32, from: Endpoint, at other: TestServer? = nil) throws {
        let server = other ?? server
        let cookie = server.cookie(from)
        let statement = JoinStatement(
            to: server.issuer.publicKey, cookie: try #require(Challenge(cookie)), key: node.key.publicKey, wanted: nil, lifetime: nil)
        let join = Join(
            cookie: cookie, key: node.key.publicKey, .visitor(node.hoa, node.certificate), signature: try #require(statement.signed(with: node.key)))
        server.receive(SignalMessage(sequence: sequence, .join(join)).octets, from: from)
    }

    // MARK: At several servers

    @Test("A visitor that asks two servers of a cluster at once gets one address, though each would have given another")
    func twoServers() throws {
        let other = try TestServer()
        var configuration = other.core.configuration
        configuration.visitors = server.core.configuration.visitors
        other.core.reconfigure(configuration)
        for each in [server, other] {
            each.core.shareNews()
            each.storesAtOnce = false
        }
        /// What a server wants to write for a visitor.
        func asked(_ node: TestNode, at server: TestServer) throws -> (ticket: StoreTicket, change: StoreChange) {
            try pending(node, sequence: 9, from: here, at: server)
            for name in server.lookUps { server.perform(server.core.resolved(name, found([foreign]), now: server.now)) }
            server.lookUps = []
            let commit = server.commits.popLast()
            return try #require(commit)
        }
        func lease(_ change: StoreChange) throws -> Lease { try #require(change.rows.lazy.compactMap { Lease($0) }.first) }
        func granted(_ server: TestServer) -> HomeAddress? {
            guard case .joinReply(let reply)? = server.sent.last?.message.body else { return nil }
            return reply.granted?.hoa
        }

        let node = try visitor(1)
        let first = try asked(node, at: server)
        // The other server has heard that this address is another key's, of which the first one has yet to hear.
        var others = Lease(try lease(first.change).prefix, key: try key(50).publicKey, .hand, givenAt: server.now.wallMilliseconds)
        others.version = 1
        other.perform(other.core.store(.changed([StoreChange(rows: [others.row])]), now: other.now))
        let second = try asked(node, at: other)
        let (mine, elsewhere) = (try lease(first.change), try lease(second.change))
        #expect(mine.prefix != elsewhere.prefix)
        let gates = [first, second].map { $0.change.rows.filter { $0.kind == .visitorGate } }
        #expect(gates[0].count == 1 && gates[0] == gates[1], "what the store takes once")
        // The second one's is written, and the first one's refused.
        other.perform(other.core.stored(second.ticket, now: other.now))
        #expect(granted(other) == HomeAddress(elsewhere.prefix.address))
        server.perform(server.core.store(.changed([second.change, StoreChange(rows: [others.row])]), now: server.now))
        for certificate in second.change.certificates {
            server.perform(server.core.store(.changed([StoreChange(issued: certificate)]), now: server.now))
        }
        server.perform(server.core.store(.committed([StoreOutcome(first.ticket, .conflict([others.row] + gates[1]))]), now: server.now))
        let confirming = server.commits.popLast()
        let again = try #require(confirming)
        #expect(again.change.rows.map(\.kind) == [.lease] && again.change.certificates.isEmpty, "it has that already")
        server.perform(server.core.stored(again.ticket, now: server.now))
        #expect(granted(server) == HomeAddress(elsewhere.prefix.address))
        // Once it is there nobody waits at the gate for it, nor for others.
        let beside = try asked(visitor(2), at: server)
        #expect(beside.change.rows.map(\.kind) == [.lease, .visitorGate] && beside.change.rows[1].key != gates[0][0].key)
        let repeated = try asked(node, at: other)
        #expect(repeated.change.rows.map(\.kind) == [.lease])
    }

    // MARK: All together

    @Test(
        "However visitors come, go and fall silent, no address is two visitors' within its time, and no more have one than may", arguments: [1, 2, 3])
    func simulation(seed: UInt64) throws {
        struct Given {
            var holder: UInt8
            var end: MonotonicTime
            var isReturned = false
        }
        var random = SeededGenerator(seed: seed)
        var given: [HomeAddress: Given] = [:]
        let idle = Duration.seconds(3600)
        for _ in 0..<200 {
            server.advance(.seconds(Int.random(in: 1...900, using: &random)))
            let now = server.now.monotonic
            let number = UInt8.random(in: 1...12, using: &random)
            let node = try visitor(number)
            let held = given.sorted { $0.key < $1.key }.first { $0.value.holder == number && !$0.value.isReturned && now < $0.value.end }?.key
            if let held, Bool.random(using: &random) {
                #expect(try giveBack(held, of: node).code == .ok)
                given[held]?.isReturned = true
                given[held]?.end = now
                continue
            }
            let seconds = UInt32.random(in: 300...5000, using: &random)
            let reply = try join(node, wanted: "192.0.2.0/24", lifetime: seconds)
            let visiting = given.values.count { !$0.isReturned && now - $0.end <= idle }
            guard let granted = reply.granted else {
                // As many as may, or all addresses still rest.
                let isUsedUp = visiting == 8 || given.values.count { now - $0.end <= idle } == 14
                #expect(reply.code == .notFound && isUsedUp, "\(reply.code) \(reply.text ?? "") with \(visiting)")
                continue
            }
            if let before = given[granted.hoa], before.holder != number { #expect(now - before.end > idle, "\(granted.hoa) was another's") }
            given[granted.hoa] = Given(holder: number, end: now + .seconds(Int(granted.lifetime)))
            #expect(given.values.count { !$0.isReturned && now - $0.end <= idle } <= 8)
        }
        // As many addresses were used as visitors were here within some hours.
        #expect(given.count <= 14)
    }

    private func from(_ number: Int) -> Endpoint { node("198.51.100.\(10 + number)") }
}
