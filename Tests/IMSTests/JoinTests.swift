import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMSCore

private let source = node("198.51.100.7")

/// Who gets which home address by a token, and who gets none (protocol.md section 12). The store here takes all, unless a test says otherwise.
@Suite("Joining")
struct JoinTests {
    private let server: TestServer
    private let token: JoinToken

    init() throws {
        server = try TestServer()
        token = try server.token(1, ["192.0.2.0/24"])
    }

    private func join(
        _ seed: UInt8, _ token: JoinToken? = nil, wanted: String? = nil, lifetime: UInt32? = nil, signedBy signer: UInt8? = nil,
        to ims: PublicKey? = nil, _ change: (inout Join) -> Void = { _ in }
    ) throws -> JoinReply {
        try #require(try send(seed, token, wanted: wanted, lifetime: lifetime, signedBy: signer, to: ims, change), "no answer")
    }

    private func send(
        _ seed: UInt8, _ token: JoinToken? = nil, wanted: String? = nil, lifetime: UInt32? = nil, signedBy signer: UInt8? = nil,
        to ims: PublicKey? = nil, from: Endpoint = source, _ change: (inout Join) -> Void = { _ in }
    ) throws -> JoinReply? {
        let token = token ?? self.token
        let cookie = server.cookie(from)
        let statement = JoinStatement(
            to: ims ?? server.issuer.publicKey, cookie: try #require(Challenge(cookie)), key: try key(seed).publicKey,
            wanted: wanted.map { prefix($0) }, lifetime: lifetime)
        var join = Join(
            cookie: cookie, key: statement.key, .token(TokenProof(of: token, over: statement)), wanted: statement.wanted, lifetime: lifetime,
            signature: try #require(statement.signed(with: try key(signer ?? seed))))
        change(&join)
        guard case .joinReply(let reply)? = server.ask(.join(join), from: from)?.body else { return nil }
        return reply
    }

    // MARK: What is given

    @Test("Each key gets an address of its own from the pool, with a certificate that verifies; never the network's or the broadcast address")
    func pool() throws {
        var given: Set<HomeAddress> = []
        for seed in 1...40 {
            server.advance(.milliseconds(100))
            let reply = try join(UInt8(seed))
            let granted = try #require(reply.granted, "\(reply.code) \(reply.text ?? "")")
            #expect(given.insert(granted.hoa).inserted)
            #expect(prefix("192.0.2.0/24").contains(granted.hoa.address) && ![home("192.0.2.0"), home("192.0.2.255")].contains(granted.hoa))
            #expect(try granted.certificate.hoa == granted.hoa && granted.certificate.nodeKey == key(UInt8(seed)).publicKey)
            #expect(granted.certificate.isIssued(by: server.issuer.publicKey))
            #expect(granted.lifetime == 365 * 86_400)
        }
    }

    @Test("A repeated Join gets the same address and certificate, however often, also by a token that has ended since")
    func again() throws {
        let first = try join(1)
        server.advance(.seconds(100))
        #expect(try join(1).granted?.certificate == first.granted?.certificate)
        let revoked = try #require(try server.core.revokeToken(token.id, now: server.now))
        server.perform(revoked.actions)
        #expect(try join(1).granted?.hoa == first.granted?.hoa)
        let refused = try join(2)
        #expect(refused.code == .refused && refused.text?.contains("revoked") == true)
    }

    @Test("A Join that names an address gets that one, or none")
    func wanted() throws {
        #expect(try join(1, wanted: "192.0.2.9").granted?.hoa == home("192.0.2.9"))
        #expect(try join(2, wanted: "192.0.2.9").code == .notFound)
        #expect(try prefix("192.0.2.64/28").contains(#require(join(3, wanted: "192.0.2.64/28").granted).hoa.address))
        #expect(try join(4, wanted: "192.0.2.255").code == .notFound)
        #expect(try join(4, wanted: "2001:db8:10::9").code == .refused, "served, but not by this token")
        #expect(try join(4, wanted: "198.51.100.9").code == .notAuthoritative)
        // Nor what an operator gave by hand, nor what lies in another's network.
        let enrolled = try server.core.enrol(home("192.0.2.16"), prefixLength: 124, key: try key(9).publicKey, now: server.now)
        server.perform(enrolled.actions)
        #expect(try join(4, wanted: "192.0.2.17").code == .notFound)
    }

    @Test("A token of both families gives one address of each, and counts one node")
    func bothFamilies() throws {
        let both = try server.token(2, ["192.0.2.0/24", "2001:db8:10::/48"]) { $0.usesMax = 1 }
        let four = try #require(join(1, both).granted)
        let six = try #require(join(1, both, wanted: "2000::/3").granted)
        #expect(four.hoa.family == .ipv4 && prefix("2001:db8:10::/48").contains(six.hoa.address))
        #expect(try join(1, both).granted == four && join(1, both, wanted: "2001:db8:10::/48").granted == six)
        let spent = try join(2, both)
        #expect(spent.code == .refused && spent.text?.contains("spent") == true)
        #expect(server.core.tokens.map(\.uses) == [0, 1])
    }

    @Test("A token of one address gives it to whoever comes last, whose certificate is the newer one")
    func single() throws {
        let single = try server.token(2, ["192.0.2.77"])
        let first = try #require(join(1, single).granted)
        server.advance(.seconds(1))
        let second = try #require(join(2, single).granted)
        #expect(first.hoa == home("192.0.2.77") && second.hoa == first.hoa && second.certificate.notBefore > first.certificate.notBefore)
        #expect(server.core.issued[prefix("192.0.2.77")]?.nodeKey == (try key(2).publicKey))
    }

    @Test("A pool that is used up gives nothing more until an address is given back, or its lease has ended")
    func usedUp() throws {
        let small = try server.token(2, ["192.0.2.128/30"]) { $0.certificateSeconds = 3600 }
        // The first and the last of a pool are not given.
        let held = [try #require(join(1, small).granted), try #require(join(2, small).granted)]
        #expect(try join(3, small).code == .notFound)
        // Given back, once it is withdrawn.
        var node = try TestNode("\(held[0].hoa)", seed: 1, issuer: server.issuer, notBefore: held[0].certificate.notBefore)
        node.certificate = held[0].certificate
        #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: source)?.code == .ok)
        #expect(try join(1, small, wanted: "\(held[0].hoa)", lifetime: 0).code == .refused, "it is registered")
        server.advance(.seconds(1))
        #expect(server.update(try node.record([], sequence: server.now.wallMilliseconds), from: source)?.code == .ok)
        let back = try join(1, small, wanted: "\(held[0].hoa)", lifetime: 0)
        #expect(back.granted?.lifetime == 0 && back.granted?.hoa == held[0].hoa)
        #expect(try join(3, small).granted?.hoa == held[0].hoa)
        #expect(try join(4, small).code == .notFound)
        // The other one's certificate ends, and nothing is heard for 30 days.
        server.advance(.seconds(29 * 86_400))
        #expect(try join(4, small).code == .notFound)
        server.advance(.seconds(2 * 86_400))
        #expect(try join(4, small).granted != nil)
    }

    private func register(_ grant: JoinReply.Grant, _ seed: UInt8, _ moas: [String]) throws -> ResponseCode? {
        server.advance(.seconds(1))
        var node = try TestNode("\(grant.hoa)", seed: seed, issuer: server.issuer, notBefore: 0)
        node.certificate = grant.certificate
        return server.update(try node.record(moas, sequence: server.now.wallMilliseconds), from: source)?.code
    }

    @Test("An address is given back once it is withdrawn, twice to the same reply, and a late copy of that ends no later lease of the same key")
    func giveBack() throws {
        let small = try server.token(2, ["192.0.2.128/30"])
        let first = try #require(join(1, small).granted)
        func back(_ seed: UInt8 = 1) throws -> JoinReply { try join(seed, small, wanted: "\(first.hoa)", lifetime: 0) }
        #expect(try back().code == .refused, "it has not withdrawn")
        #expect(try register(first, 1, []) == .ok)
        let given = try #require(back().granted)
        #expect(given.lifetime == 0 && given.hoa == first.hoa)
        #expect(try back().granted == given, "its answer was lost")
        #expect(server.logs.filter { $0.contains("gave back") }.count == 1)
        // The same key again. The withdrawal that is in force is not of this lease.
        let second = try #require(join(1, small).granted)
        #expect(second.hoa == first.hoa && second.certificate.notBefore > first.certificate.notBefore)
        let late = try back()
        #expect(late.code == .refused && late.text?.contains("withdraw it first") == true)
        #expect(try register(second, 1, ["198.51.100.7"]) == .ok)
        #expect(try back().code == .refused)
        #expect(try join(2, small, wanted: "\(first.hoa)").code == .notFound, "it is still the first key's")
        #expect(try register(second, 1, []) == .ok)
        // It gave back in vain, so it thinks, and joins again: what comes late of that counts no longer.
        #expect(try join(1, small).granted?.certificate == second.certificate)
        #expect(try back().code == .refused)
        #expect(try join(2, small, wanted: "\(first.hoa)").code == .notFound)
        #expect(try register(second, 1, []) == .ok)
        #expect(try back().granted?.lifetime == 0)
        // Another key has it now.
        #expect(try join(2, small, wanted: "\(first.hoa)").granted != nil)
        #expect(try back().code == .refused)
        #expect(try back(2).code == .refused)
        #expect(try join(2, small).granted?.hoa == first.hoa)
    }

    @Test("Among several servers an address is given back over the withdrawal known here, and not if its node has registered elsewhere since")
    func giveBackElsewhere() throws {
        server.core.shareNews()
        let granted = try #require(join(1).granted)
        #expect(try register(granted, 1, []) == .ok)
        let withdrawal = try #require(server.core.mapping(of: granted.hoa))
        server.storesAtOnce = false
        #expect(try send(1, wanted: "\(granted.hoa)", lifetime: 0) == nil)
        let commit = server.commits.removeFirst()
        #expect(commit.change.relied == [MappingVersion(IPPrefix(granted.hoa.address), withdrawal.certified.version)])
        #expect(commit.change.rows.compactMap { Lease($0)?.isReturned } == [true] && commit.change.certificates.isEmpty)
        var node = try TestNode("\(granted.hoa)", seed: 1, issuer: server.issuer, notBefore: 0)
        node.certificate = granted.certificate
        let elsewhere = StoredMapping(
            certified: try node.record(["198.51.100.9"], sequence: server.now.wallMilliseconds + 1), source: source, local: TestServer.local,
            provenAt: server.now.wallMilliseconds)
        server.perform(server.core.store(.changed([StoreChange(mapping: elsewhere)]), now: server.now))
        var held = try #require(Lease(commit.change.rows[0]))
        (held.isReturned, held.version) = (false, held.version - 1)
        server.perform(server.core.store(.committed([StoreOutcome(commit.ticket, .conflict([held.row]))]), now: server.now))
        guard case .joinReply(let reply)? = server.sent.last?.message.body else { return #expect(Bool(false), "no answer") }
        #expect(reply.code == .refused && server.commits.isEmpty)
    }

    @Test("Certificates last as asked for, as long as the token lets them, and are renewed or not as it says")
    func lifetimes() throws {
        let guests = try server.token(2, ["192.0.2.0/24"]) {
            $0.certificateSeconds = 3600
            $0.isRenewed = false
        }
        #expect(try join(1, guests, lifetime: 600).granted?.lifetime == 600)
        let granted = try #require(join(2, guests, lifetime: 86_400).granted)
        #expect(granted.lifetime == 3600)
        var node = try TestNode("\(granted.hoa)", seed: 2, issuer: server.issuer, notBefore: 0)
        node.certificate = granted.certificate
        server.advance(.seconds(3500))
        let reply = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: source)
        #expect(reply?.code == .ok && reply?.certificate == nil, "a guest's certificate is not renewed")
        // An ordinary one is.
        let usual = try server.token(3, ["192.0.2.0/24"]) { $0.certificateSeconds = 3600 }
        let other = try #require(join(3, usual).granted)
        var second = try TestNode("\(other.hoa)", seed: 3, issuer: server.issuer, notBefore: 0)
        second.certificate = other.certificate
        server.advance(.seconds(3500))
        #expect(server.update(try second.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: source)?.certificate != nil)
    }

    @Test("A pool has room for every key outside of the networks in it, and finding that out does not cost the server's time")
    func roomBesideNetworks() throws {
        let enrolled = try server.core.enrol(home("2001:db8:10:ff00::"), prefixLength: 56, key: try key(9).publicKey, now: server.now)
        server.perform(enrolled.actions)
        let pool = try server.token(2, ["2001:db8:10::/48"])
        var generator = SeededGenerator(seed: 5)
        for number in 0..<2000 {
            server.advance(.milliseconds(100))
            let seed = (0..<4).flatMap { _ in withUnsafeBytes(of: generator.next()) { Array($0) } }
            let signer = try #require(SigningKey(seed: seed))
            let cookie = server.cookie(source)
            let statement = JoinStatement(
                to: server.issuer.publicKey, cookie: try #require(Challenge(cookie)), key: signer.publicKey, wanted: nil, lifetime: nil)
            let join = Join(
                cookie: cookie, key: signer.publicKey, .token(TokenProof(of: pool, over: statement)),
                signature: try #require(statement.signed(with: signer)))
            guard case .joinReply(let reply)? = server.ask(.join(join), from: source)?.body else { return #expect(number < 0) }
            #expect(reply.code == .ok, "\(number): \(reply.text ?? "") \(signer.publicKey.octets)")
        }
    }

    // MARK: What is refused

    @Test("A wrong token, proof, signature, server or cookie gets code 1, spends nothing and locks nothing")
    func wrong() throws {
        let once = try server.token(2, ["192.0.2.0/24"]) { $0.usesMax = 1 }
        let other = try JoinToken(
            host: "x", id: once.id, secret: #require(TokenSecret([UInt8](repeating: 99, count: 32))), server: server.issuer.publicKey)
        let unknown = JoinToken(host: "x", id: TokenID(rawValue: 99), secret: once.secret, server: once.server)
        #expect(try join(1, other).code == .authenticationFailed)
        #expect(try join(1, unknown).code == .authenticationFailed)
        #expect(try join(1, once, signedBy: 2).code == .authenticationFailed)
        #expect(try join(1, once, to: key(3).publicKey).code == .authenticationFailed)
        #expect(try join(1, once) { $0.wanted = prefix("192.0.2.9") }.code == .authenticationFailed)
        let elsewhere = server.cookie(node("198.51.100.8"))
        #expect(try join(1, once) { $0.cookie = elsewhere }.code == .cookieRequired)
        #expect(server.core.tokens.last?.uses == 0 && server.core.leasesPage(after: nil, count: 10).isEmpty)
        #expect(try join(1, once).code == .ok)
        #expect(server.logs.contains { $0.contains("refused Join of key") && $0.contains("198.51.100.7") })
    }

    @Test("Expired and spent tokens get code 6, and a server without signing key gives nothing")
    func ended() throws {
        let short = try server.token(2, ["192.0.2.0/24"]) { $0.expiresAt = TestServer.start + 1000 }
        #expect(try join(1, short).code == .ok)
        server.advance(.seconds(2))
        let late = try join(2, short)
        #expect(late.code == .refused && late.text?.contains("expired") == true)
        var configuration = server.core.configuration
        configuration.signingKey = nil
        server.core.reconfigure(configuration)
        #expect(try join(3).code == .notAuthoritative)
    }

    @Test("A token is not made of what is not served, or can't be a node's")
    func badTokens() throws {
        for (gives, reason) in [(["198.51.100.0/24"], "not within a prefix served here"), (["192.0.2.255"], "broadcast"), ([], "name one")] {
            let error = #expect(throws: TokenRefusal.self) { try server.token(7, gives) }
            #expect(error?.description.contains(reason) == true)
        }
    }

    // MARK: The store

    @Test("All that join while a write is on its way are in the next one, each answered when that is durable, duplicates too")
    func batches() throws {
        server.storesAtOnce = false
        for seed in 1...10 { #expect(try send(UInt8(seed)) == nil) }
        #expect(try send(1) == nil, "a repetition waits for the same answer")
        #expect(server.commits.count == 1 && server.commits[0].change.certificates.count == 1)
        let first = server.commits.removeFirst()
        server.perform(server.core.stored(first.ticket, now: server.now))
        #expect(server.sent.count == 2, "the first and its repetition")
        #expect(server.commits.count == 1 && server.commits[0].change.certificates.count == 9)
        #expect(server.commits[0].change.rows.count == 10, "nine leases and the token")
        server.finishCommits()
        let given = server.sent.compactMap { sent in if case .joinReply(let reply) = sent.message.body { reply.granted?.hoa } else { nil } }
        #expect(given.count == 11 && Set(given).count == 10)
        #expect(server.core.tokens.first?.uses == 10)
    }

    @Test("Among several servers what was given before is said again only when the store has confirmed it, and each gift is a use that others notice")
    func confirmed() throws {
        server.core.shareNews()
        let first = try #require(try join(1).granted)
        server.storesAtOnce = false
        #expect(try send(1) == nil)
        let confirming = server.commits.removeFirst()
        #expect(confirming.change.certificates.isEmpty && confirming.change.rows.map(\.kind) == [.lease] && confirming.change.rows[0].version == 2)
        // Given back at another server, of which this one did not know.
        var returned = try #require(Lease(confirming.change.rows[0]))
        returned.isReturned = true
        let before = server.sent.count
        server.perform(server.core.store(.committed([StoreOutcome(confirming.ticket, .conflict([returned.row]))]), now: server.now))
        #expect(server.sent.count == before)
        let second = try #require(server.commits.first)
        #expect(second.change.certificates.count == 1 && second.change.rows.map(\.kind) == [.lease, .token])
        server.finishCommits()
        guard case .joinReply(let reply)? = server.sent.last?.message.body else { return #expect(Bool(false), "no answer") }
        #expect(reply.granted != nil && reply.granted?.certificate != first.certificate)
        // Twice at once, as from two places: one write for each.
        #expect(try send(1) == nil && send(1, wanted: "192.0.2.0/24") == nil)
        #expect(server.commits.count == 1)
        let count = server.sent.count
        server.finishCommits()
        #expect(server.sent.count == count + 2)
    }

    @Test("Among several servers who asks while a write for him is under way is answered by a later one: that one may be old when it ends")
    func oldWrites() throws {
        server.core.shareNews()
        server.storesAtOnce = false
        #expect(try send(1) == nil && send(1) == nil)
        let first = server.commits.removeFirst()
        // Another server was quicker with something else: both are looked at anew, and get one address.
        server.perform(server.core.store(.committed([StoreOutcome(first.ticket, .conflict([]))]), now: server.now))
        #expect(server.commits.count == 1 && server.commits[0].change.certificates.count == 1)
        let second = server.commits.removeFirst()
        server.perform(server.core.stored(second.ticket, now: server.now))
        #expect(server.sent.count == 1 && server.commits.count == 1 && server.commits[0].change.certificates.isEmpty)
        server.finishCommits()
        let given = server.sent.compactMap { sent in if case .joinReply(let reply) = sent.message.body { reply.granted?.hoa } else { nil } }
        #expect(given.count == 2 && Set(given).count == 1)
    }

    @Test("A store that fails has the node come later, and nothing is spent")
    func failing() throws {
        server.storesAtOnce = false
        #expect(try send(1) == nil)
        server.finishCommits(failure: "the disk is full")
        guard case .joinReply(let reply)? = server.sent.last?.message.body else { return #expect(server.sent.count == 1) }
        #expect(reply.code == .tryLater)
        server.storesAtOnce = true
        #expect(try join(1).code == .ok && server.core.tokens.first?.uses == 1)
    }

    @Test("Where another server was quicker it is tried again with what that left; after five times the node comes later")
    func conflicts() throws {
        server.storesAtOnce = false
        #expect(try send(1) == nil)
        let commit = server.commits.removeFirst()
        // The other one gave this very address to another key, by another use of the token.
        let lost = try #require(commit.change.rows.first.flatMap { Lease($0) })
        var others = Lease(lost.prefix, key: try key(50).publicKey, .token(token.id), givenAt: server.now.wallMilliseconds)
        others.version = 1
        var held = try #require(server.core.tokens.first)
        (held.uses, held.version) = (1, 2)
        server.perform(server.core.store(.committed([StoreOutcome(commit.ticket, .conflict([others.row, held.row]))]), now: server.now))
        let second = try #require(server.commits.first)
        #expect(second.change.rows.compactMap { Lease($0)?.prefix } != [lost.prefix])
        #expect(second.change.rows.compactMap { HeldToken($0) }.map(\.uses) == [2])
        for round in 3...10 where !server.commits.isEmpty {
            let commit = server.commits.removeFirst()
            held.version = UInt64(round)
            server.perform(server.core.store(.committed([StoreOutcome(commit.ticket, .conflict([held.row]))]), now: server.now))
        }
        guard case .joinReply(let reply)? = server.sent.last?.message.body else { return #expect(server.sent.count == 1) }
        #expect(reply.code == .tryLater && server.commits.isEmpty)
    }

    @Test("Who finds a token spent by nodes of a write that is under way hears so when that is durable, and not if it had joined at another server")
    func spentMeanwhile() throws {
        server.core.shareNews()
        let few = try server.token(2, ["192.0.2.0/24"]) { $0.usesMax = 2 }
        server.storesAtOnce = false
        for seed in 1...3 { #expect(try send(UInt8(seed), few) == nil) }
        let first = server.commits.removeFirst()
        server.perform(server.core.stored(first.ticket, now: server.now))
        #expect(server.sent.count == 1 && server.commits.count == 1, "the third waits")
        // That had joined elsewhere, of which this server hears now.
        let second = server.commits.removeFirst()
        let own = try TestNode("192.0.2.200", seed: 3, issuer: server.issuer, notBefore: server.now.wallMilliseconds).certificate
        var lease = Lease(own.prefix, key: own.nodeKey, .token(few.id), givenAt: own.notBefore)
        lease.version = 1
        var held = try #require(server.core.tokens.last)
        (held.uses, held.version) = (2, held.version + 1)
        server.perform(server.core.store(.changed([StoreChange(rows: [lease.row, held.row], certificates: [own])]), now: server.now))
        server.perform(server.core.store(.changed([StoreChange(issued: own)]), now: server.now))
        server.perform(server.core.store(.committed([StoreOutcome(second.ticket, .conflict([held.row]))]), now: server.now))
        server.finishCommits()
        let replies = server.sent.compactMap { sent in if case .joinReply(let reply) = sent.message.body { reply } else { nil } }
        #expect(replies.count == 3 && replies.last?.granted?.certificate == own)
        #expect(replies.count { $0.code == .refused && $0.text?.contains("spent") == true } == 1)
    }

    @Test("Tokens and leases come back from their rows as they were; what is damaged does not come at all")
    func rows() throws {
        var held = try #require(server.core.tokens.first)
        (held.usesMax, held.uses, held.expiresAt, held.certificateSeconds, held.revokedAt, held.isRenewed) = (3, 2, 5, 60, 9, false)
        #expect(HeldToken(held.row) == held)
        var lease = Lease(prefix("192.0.2.9"), key: try key(1).publicKey, .visitor(home("198.51.100.9"), issuer: 7), givenAt: 5)
        (lease.endsAt, lease.isReturned, lease.version) = (77, true, 3)
        #expect(Lease(lease.row) == lease)
        lease.withdrawnAt = 99
        #expect(Lease(lease.row) == lease)
        for count in lease.row.value.indices {
            var cut = lease.row
            cut.value = Array(cut.value.prefix(count))
            #expect(Lease(cut) == nil)
        }
        for count in held.row.value.indices {
            var cut = held.row
            cut.value = Array(cut.value.prefix(count))
            #expect(HeldToken(cut) == nil)
        }
    }
}
