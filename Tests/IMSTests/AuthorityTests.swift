import MATSignal
import MATTesting
import Testing

@testable import IMSCore

private let source = node("198.51.100.7")

/// Joins that somebody else has a word in, and what he is told of leases.
@Suite("Authorities over tokens")
struct AuthorityTests {
    private let server: TestServer
    private let token: JoinToken

    init() throws {
        server = try TestServer()
        var configuration = server.core.configuration
        configuration.authorities = [
            Authority(name: "office", prefixes: [prefix("192.0.2.128/25")], isToldOfLeases: true, interim: .seconds(600))
        ]
        server.core.reconfigure(configuration)
        token = try server.token(1, ["192.0.2.128/25"])
    }

    /// - Returns: the answer, if one came at once.
    private func join(_ seed: UInt8, _ token: JoinToken? = nil, wanted: String? = nil, lifetime: UInt32? = nil) throws -> JoinReply? {
        let token = token ?? self.token
        let cookie = server.cookie(source)
        let statement = JoinStatement(
            to: server.issuer.publicKey, cookie: try #require(Challenge(cookie)), key: try key(seed).publicKey, wanted: wanted.map { prefix($0) },
            lifetime: lifetime)
        let join = Join(
            cookie: cookie, key: statement.key, .token(TokenProof(of: token, over: statement)), wanted: statement.wanted, lifetime: lifetime,
            signature: try #require(statement.signed(with: try key(seed))))
        guard case .joinReply(let reply)? = server.ask(.join(join), from: source)?.body else { return nil }
        return reply
    }

    /// Has the authority say something, and returns the replies that came of it.
    private func answer(_ answer: AuthorisationAnswer) throws -> [JoinReply] {
        let ticket = try #require(server.questions.first?.ticket, "nobody was asked")
        server.questions.removeFirst()
        let before = server.sent.count
        server.perform(server.core.authorised(ticket, answer, now: server.now))
        return server.sent[before...].compactMap { if case .joinReply(let reply) = $0.message.body { reply } else { nil } }
    }

    private func register(_ granted: JoinReply.Grant, _ seed: UInt8, _ moas: [String] = ["198.51.100.7"]) throws -> ResponseCode? {
        var node = try TestNode("\(granted.hoa)", seed: seed, issuer: server.issuer, notBefore: granted.certificate.notBefore)
        node.certificate = granted.certificate
        return server.update(try node.record(moas, sequence: server.now.wallMilliseconds), from: source)?.code
    }

    private var told: [LeaseChange.Kind] { server.accounts.map(\.kind) }

    @Test("A Join waits for the authority's word; granted it gets its address, refused and unanswered a code and the reason, and nothing is spent")
    func words() throws {
        #expect(try join(1) == nil)
        let question = try #require(server.questions.first?.question)
        let own = try key(1).publicKey
        #expect(question.authority == "office" && question.key == own && question.token == token.id && question.source == source)
        let granted = try #require(answer(.granted(seconds: nil)).first?.granted)
        #expect(prefix("192.0.2.128/25").contains(granted.hoa.address) && granted.lifetime == 365 * 86_400)
        #expect(try join(2) == nil)
        let refused = try #require(answer(.refused("not today")).first)
        #expect(refused.code == .refused && refused.text == "not today")
        #expect(try join(2) == nil)
        let later = try #require(answer(.unanswered("no server answers")).first)
        #expect(later.code == .tryLater && later.lifetime == 5)
        #expect(server.core.tokens.first?.uses == 1)
        #expect(server.logs.contains { $0.contains("refused Join of key") && $0.contains("not today") })
    }

    @Test("Who repeats a Join is not asked about again: while it waits he waits with it, and afterwards he has what he has")
    func repeated() throws {
        for _ in 0..<3 { #expect(try join(1) == nil) }
        #expect(server.questions.count == 1)
        let replies = try answer(.granted(seconds: nil))
        #expect(replies.count == 3 && Set(replies.map { $0.granted?.hoa }).count == 1)
        #expect(try join(1)?.granted?.hoa == replies[0].granted?.hoa && server.questions.isEmpty)
    }

    @Test("A Join that comes again while its lease is being written is not asked about a second time")
    func beingWritten() throws {
        server.storesAtOnce = false
        #expect(try join(1) == nil)
        #expect(try answer(.granted(seconds: nil)).isEmpty)
        #expect(try join(1) == nil && server.questions.isEmpty)
        let before = server.sent.count
        server.finishCommits()
        #expect(server.sent[before...].count { if case .joinReply(let reply) = $0.message.body { reply.granted != nil } else { false } } == 2)
    }

    @Test("Nobody is asked about what is refused anyway, lies elsewhere, or is given back")
    func unasked() throws {
        let elsewhere = try server.token(2, ["192.0.2.0/25"])
        #expect(try join(1, elsewhere)?.granted != nil)
        let expired = try server.token(3, ["192.0.2.128/25"]) { $0.expiresAt = TestServer.start - 1 }
        #expect(try join(1, expired)?.code == .refused)
        #expect(try join(1, wanted: "192.0.2.5")?.code == .refused)
        #expect(server.questions.isEmpty)
        // Of a token with a pool that is the authority's and one that is not, each goes its way.
        let both = try server.token(4, ["192.0.2.128/25", "2001:db8:10::/48"])
        #expect(try join(5, both, wanted: "2000::/3")?.granted?.hoa.family == .ipv6)
        #expect(try join(6, both) == nil && server.questions.count == 1)
        #expect(try answer(.granted(seconds: nil)).first?.granted?.hoa.family == .ipv4)
    }

    @Test("What is granted for a time ends then, is not renewed, and has to be asked for again")
    func forATime() throws {
        #expect(try join(1) == nil)
        let granted = try #require(answer(.granted(seconds: 7200)).first?.granted)
        #expect(granted.lifetime == 7200)
        server.advance(.seconds(7000))
        #expect(try register(granted, 1) == .ok)
        #expect(server.core.issued[IPPrefix(granted.hoa.address)] == granted.certificate, "no other certificate was issued")
        server.advance(.seconds(300))
        #expect(try join(1) == nil && server.questions.count == 1)
        #expect(try answer(.granted(seconds: 7200)).first?.granted?.hoa == granted.hoa)
    }

    @Test("Who waits is bounded, and who does not fit comes later")
    func bounded() throws {
        var full = Authorisations()
        for number in 0..<Authorisations.waitingMax {
            let key = try #require(SigningKey(seed: (0..<32).map { UInt8(truncatingIfNeeded: $0 == 0 ? number : $0 == 1 ? number >> 8 : 0) }))
                .publicKey
            let candidate = JoinQueue.Candidate(key: key, origin: .token(token.id), requests: [])
            guard case .ask = full.wanted(candidate, .token(token.id)) else { return #expect(Bool(false), "\(number) was not asked about") }
        }
        let candidate = JoinQueue.Candidate(key: try key(99).publicKey, origin: .token(token.id), requests: [])
        guard case .full = full.wanted(candidate, .token(token.id)) else { return #expect(Bool(false), "there was room") }
        #expect(full.ended(AuthorisationTicket(number: 1)) != nil && full.ended(AuthorisationTicket(number: 1)) == nil)
    }

    // MARK: Accounts

    @Test("The authority hears when a lease begins, now and then that it is used, and that it was given back")
    func accounts() throws {
        #expect(try join(1) == nil)
        let granted = try #require(answer(.granted(seconds: nil)).first?.granted)
        #expect(told == [.began])
        #expect(try register(granted, 1) == .ok)
        #expect(told == [.began], "its beginning has just been told")
        for _ in 0..<10 {
            server.advance(.seconds(120))
            #expect(try register(granted, 1) == .ok)
        }
        #expect(told == [.began, .goesOn, .goesOn])
        #expect(server.accounts[1].source == source && server.accounts[1].session == server.accounts[0].session)
        server.advance(.seconds(1))
        #expect(try register(granted, 1, []) == .ok)
        #expect(try join(1, wanted: "\(granted.hoa)", lifetime: 0)?.granted?.lifetime == 0)
        #expect(told.last == .ended(.givenBack) && server.accounts.last?.session == server.accounts[0].session)
        #expect(server.accounts.last?.seconds == 1201)
        // Who has it next begins a session of his own.
        server.advance(.seconds(1))
        #expect(try join(2, wanted: "\(granted.hoa)") == nil)
        _ = try answer(.granted(seconds: nil))
        #expect(told.suffix(2) == [.ended(.givenBack), .began] && server.accounts.last?.session != server.accounts[0].session)
    }

    @Test("The authority hears once that a lease has expired, was revoked, or was taken by another key")
    func ends() throws {
        #expect(try join(1) == nil)
        let short = try #require(answer(.granted(seconds: 3600)).first?.granted)
        server.advance(.seconds(3500))
        #expect(told == [.began])
        server.advance(.seconds(600))
        #expect(told == [.began, .ended(.expired)])
        server.advance(.seconds(100_000))
        #expect(told.count == 2)
        // The same node comes back: another session.
        #expect(try join(1) == nil)
        let again = try #require(answer(.granted(seconds: nil)).first?.granted)
        #expect(again.hoa == short.hoa && told == [.began, .ended(.expired), .began])
        #expect(server.accounts[2].session != server.accounts[0].session)

        let revoked = try #require(try server.core.revoke(IPPrefix(again.hoa.address), now: server.now))
        server.perform(revoked.actions)
        server.advance(.seconds(1))
        #expect(told.last == .ended(.revoked) && told.count == 4)

        #expect(try join(3) == nil)
        let third = try #require(answer(.granted(seconds: nil)).first?.granted)
        let taken = try server.core.enrol(third.hoa, key: try key(50).publicKey, isForced: true, now: server.now)
        server.perform(taken.actions)
        #expect(told.suffix(2) == [.began, .ended(.taken)])
        server.advance(.seconds(100_000))
        #expect(told.count == 6)
    }

    @Test("A token of one address that goes to another key ends the one account and begins the other")
    func single() throws {
        let single = try server.token(2, ["192.0.2.200"])
        #expect(try join(1, single) == nil)
        _ = try answer(.granted(seconds: nil))
        server.advance(.seconds(1))
        #expect(try join(2, single) == nil)
        _ = try answer(.granted(seconds: nil))
        #expect(told == [.began, .ended(.taken), .began])
        #expect(server.accounts.map(\.lease.key) == [try key(1).publicKey, try key(1).publicKey, try key(2).publicKey])
    }

    @Test("Where another server closes the account it is not closed again here")
    func others() throws {
        #expect(try join(1) == nil)
        let granted = try #require(answer(.granted(seconds: 3600)).first?.granted)
        server.advance(.seconds(3590))
        var lease = try #require(server.core.leasesPage(after: nil, count: 10).first { $0.prefix.address == granted.hoa.address })
        lease.isClosed = true
        lease.version += 1
        server.perform(server.core.store(.changed([StoreChange(rows: [lease.row])]), now: server.now))
        server.advance(.seconds(10_000))
        #expect(told == [.began])
    }

    @Test("Accounts of leases from before a restart are closed in their time, also where they are wanted only since")
    func afterRestart() throws {
        let plain = try TestServer()
        let old = Lease(prefix("192.0.2.130"), key: try key(1).publicKey, .token(token.id), givenAt: TestServer.start - 5000)
        var stored = old
        stored.version = 1
        let certificate = try #require(
            Certificate(
                issuing: home("192.0.2.130"), prefixLength: 128, nodeKey: old.key, notBefore: TestServer.start - 5000,
                notAfter: TestServer.start + 600_000, with: plain.issuer))
        var contents = StoreContents(mappings: [], issued: [certificate])
        contents.rows = [stored.row]
        plain.core.loadBegins()
        plain.perform(plain.core.store(.loaded(contents), now: plain.now))
        plain.perform(plain.core.store(.loadEnded, now: plain.now))
        plain.advance(.seconds(60))
        plain.core.reconfigure(server.core.configuration)
        plain.advance(.seconds(1200))
        #expect(plain.accounts.map(\.kind) == [.ended(.expired)])
        #expect(plain.core.leasesPage(after: nil, count: 10).first?.isClosed == true)
    }
}
