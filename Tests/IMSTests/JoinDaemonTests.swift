import Glibc
import IMSCore
import MATRuntime
import MATSignal
import Testing

@testable import IMS

/// Every refusal of protocol.md section 12, tried from outside: what the node is told, what the log says, and that nothing has changed.
@Suite(
    "Joining a running imsd", .serialized,
    .enabled(if: Daemon.program != nil, "imsd is not beside the test bundle; build it with swift build --product imsd"))
struct JoinDaemonTests {
    /// A token of an earlier time: the command line makes none that has ended.
    private func store(_ host: JoinHost, _ number: UInt8, _ change: (inout HeldToken) -> Void) throws -> JoinToken {
        let secret = try #require(TokenSecret([UInt8](repeating: number, count: 32)))
        var held = HeldToken(
            id: TokenID(rawValue: UInt64(number)), secret: secret, gives: [prefix(JoinHost.pool)],
            createdAt: SystemClock.now().wallMilliseconds - 100_000)
        held.version = 1
        change(&held)
        let store = try MappingStore(path: "\(host.directory.path)/ims.db")
        try store.fill([StoreChange(rows: [held.row])])
        store.close()
        return JoinToken(host: "127.0.0.1", id: held.id, secret: secret, server: try key(200).publicKey)
    }

    private static func byHome(_ list: [JSONValue]) -> [String: JSONValue] {
        Dictionary(list.map { ($0["home"]?.string ?? "", $0) }) { first, _ in first }
    }

    @Test("Each refusal says its code to the node and its reason to the log, and changes nothing in the store")
    func refusals() throws {
        let host = try JoinHost()
        let expired = try store(host, 1) { $0.expiresAt = SystemClock.now().wallMilliseconds - 1000 }
        let spent = try store(host, 2) { ($0.usesMax, $0.uses) = (1, 1) }
        try host.start()
        let good = try host.makeToken([JoinHost.pool])
        let small = try host.makeToken(["192.0.2.32/30"])
        let revoked = try host.makeToken([JoinHost.pool])
        let single = try host.makeToken(["192.0.2.77"])
        _ = try host.control("tokenRevoke", ["id": .string("\(revoked.id)")])
        let first = try #require(try host.join(1, good).granted)
        #expect(try host.join(2, small).code == .ok && host.join(3, small).code == .ok)
        let before = (tokens: try host.control("tokenList"), homes: try host.control("enrolled"))
        host.end(SIGTERM)
        let rows = try host.storedRows()
        try host.start()

        let other = try key(9)
        let unknown = JoinToken(host: "127.0.0.1", id: TokenID(rawValue: 0xDEAD), secret: good.secret, server: good.server)
        let wrong = JoinToken(host: "127.0.0.1", id: good.id, secret: expired.secret, server: good.server)
        func elsewhere(_ statement: JoinStatement, _ change: (inout JoinStatement) -> Void) -> JoinStatement {
            var statement = statement
            change(&statement)
            return statement
        }
        let stranger = other.publicKey
        let proof = "its proof does not fit"
        let signature = "not signed with the key that it names"
        var seed: UInt8 = 20
        func refused(
            _ what: String, _ token: JoinToken, _ code: ResponseCode, _ reason: String, wanted: String? = nil, lifetime: UInt32? = nil,
            by joining: UInt8? = nil, _ change: @escaping (inout JoinMaking) -> Void = { _ in }
        ) throws {
            seed += 1
            let reply = try host.join(joining ?? seed, token, wanted: wanted, lifetime: lifetime, change)
            #expect(reply.code == code && reply.granted == nil, "\(what): \(reply.code) \(reply.text ?? "")")
            let id = TokenID(rawValue: try key(joining ?? seed).publicKey.id)
            let line = host.log.split(separator: "\n").last { $0.contains("refused Join of key \(id)") && $0.contains(reason) }
            #expect(line != nil && line?.contains("127.0.0.1:") == true, "\(what): the log does not say \"\(reason)\":\n\(host.log.suffix(600))")
        }
        try refused("an unknown token", unknown, .authenticationFailed, "the token is not known here")
        try refused("a wrong secret", wrong, .authenticationFailed, proof)
        try refused("a spent token", spent, .refused, "the token is spent")
        try refused("an expired token", expired, .refused, "the token has expired")
        try refused("a revoked token", revoked, .refused, "the token is revoked")
        try refused("another's key", good, .authenticationFailed, signature) { $0.signer = other }
        try refused("a proof of another cookie", good, .authenticationFailed, proof) { making in
            making.proven = elsewhere(making.proven) { $0.cookie = Challenge(Cookie(client: 7, server: making.cookie.server)) ?? $0.cookie }
        }
        try refused("a proof for another IMS", good, .authenticationFailed, proof) { making in
            making.proven = elsewhere(making.proven) { $0.server = stranger }
        }
        try refused("a proof of another wish", good, .authenticationFailed, proof) { making in
            making.proven = elsewhere(making.proven) { $0.wanted = prefix("192.0.2.3") }
        }
        try refused("a proof of another lifetime", good, .authenticationFailed, proof) { making in
            making.proven = elsewhere(making.proven) { $0.lifetime = 60 }
        }
        try refused("a proof for another key", good, .authenticationFailed, proof) { making in
            making.proven = elsewhere(making.proven) { $0.key = stranger }
        }
        try refused("a signature of another cookie", good, .authenticationFailed, signature) { making in
            making.signed = elsewhere(making.signed) { $0.cookie = Challenge(Cookie(client: 7, server: making.cookie.server)) ?? $0.cookie }
        }
        try refused("a signature for another IMS", good, .authenticationFailed, signature) { making in
            making.signed = elsewhere(making.signed) { $0.server = stranger }
        }
        try refused("a signature of another wish", good, .authenticationFailed, signature) { making in
            making.signed = elsewhere(making.signed) { $0.wanted = prefix("192.0.2.3") }
        }
        try refused("what is not served", good, .notAuthoritative, "not within a prefix served here", wanted: "198.51.100.0/24")
        try refused("what the token does not give", good, .refused, "the token is for", wanted: "2001:db8:10::/48")
        try refused("what another has", good, .notFound, "no address is free", wanted: "\(first.hoa)")
        try refused("the network's address", good, .notFound, "no address is free", wanted: "192.0.2.0")
        try refused("a pool that is used up", small, .notFound, "no address is free")
        try refused("a token for one address used for another", single, .refused, "the token is for", wanted: "192.0.2.78")
        try refused("to give back what one has not", good, .refused, "nothing of this key's", wanted: "\(first.hoa)", lifetime: 0)
        try refused("to give back without saying what", good, .refused, "name the address", lifetime: 0, by: 1)
        // Without a cookie that is its own: told to ask again, and no word of the rest.
        #expect(throws: ControlError.self) {
            try host.join(40, good) { $0.cookie = Cookie(client: $0.cookie.client ^ 1, server: $0.cookie.server) }
        }
        #expect(try host.control("status")["counters"]?["answered"]?["Join Reply"]?["cookie required"]?.int ?? 0 > 0)

        let after = (tokens: try host.control("tokenList"), homes: try host.control("enrolled"))
        #expect(after.tokens == before.tokens && after.homes == before.homes)
        #expect(try host.control("status")["mappings"]?.int == 0)
        host.end(SIGTERM)
        #expect(try host.storedRows() == rows)
        // And who may still may.
        try host.start()
        #expect(try host.join(1, good).granted?.certificate == first.certificate)
        #expect(try host.join(41, single).granted?.hoa == home("192.0.2.77"))
    }

    @Test("A visitor is refused where none are taken in, from outside of the networks, and while its home can't be verified; nothing changes")
    func visitors() throws {
        let now = SystemClock.now().wallMilliseconds
        let node = try TestNode("10.0.0.1", seed: 1, issuer: key(150), notBefore: now - 1000)
        let own = try TestNode("192.0.2.9", seed: 2, issuer: key(200), notBefore: now - 1000)
        let host = try JoinHost()
        func refused(_ node: TestNode, _ code: ResponseCode, _ reason: String) throws {
            let reply = try host.visit(node)
            #expect(reply.code == code && reply.text?.contains(reason) == true, "\(reply.code) \(reply.text ?? "")")
            let line = host.log.split(separator: "\n").last { $0.contains("refused Join of key \(TokenID(rawValue: node.key.publicKey.id))") }
            #expect(line?.contains(reason) == true && line?.contains("127.0.0.1:") == true, "\(host.log.suffix(600))")
        }
        try host.start()
        try refused(node, .refused, "this server takes no visitors")
        host.end(SIGTERM)
        let rows = try host.storedRows()
        try host.configure("visitors: {pools: [192.0.2.128/28], from: [192.0.2.0/25]}\n")
        try host.start()
        try refused(node, .refused, "visitors are taken in who are in 192.0.2.0/25")
        host.end(SIGTERM)
        try host.configure("visitors: {pools: [192.0.2.128/28], from: [127.0.0.0/8]}\n")
        try host.start()
        try refused(own, .refused, "at home here")
        try refused(node, .tryLater, "the home 10.0.0.1 can't be verified now")
        host.end(SIGTERM)
        #expect(try host.storedRows() == rows)
    }

    @Test("An operator takes an address that another has, or a part of a network, only by force, and hears whom that throws out")
    func enrolments() throws {
        let host = try JoinHost()
        try host.start()
        func enrol(_ hoa: String, _ seed: UInt8, _ further: [String: JSONValue] = [:]) throws -> JSONValue {
            try host.control(
                "enrol", ["hoa": .string(hoa), "publicKey": .string(KeyFile.write(try key(seed).publicKey))].merging(further) { _, new in new })
        }
        func refusal(_ hoa: String, _ seed: UInt8, _ further: [String: JSONValue] = [:]) -> String {
            do {
                _ = try enrol(hoa, seed, further)
                return ""
            } catch { return "\(error)" }
        }
        let token = try host.makeToken([JoinHost.pool])
        let joined = try #require(try host.join(1, token).granted)
        _ = try enrol("192.0.2.48", 2, ["prefixLength": 28])
        for (hoa, length) in [("\(joined.hoa)", 32), ("192.0.2.50", 32), ("192.0.2.32", 27), ("192.0.2.0", 28)] as [(String, Int64)] {
            let reason = refusal(hoa, 3, ["prefixLength": .int(length)])
            #expect(reason.contains("--force") && reason.contains("another key"), "\(hoa)/\(length): \(reason)")
        }
        #expect(refusal("\(joined.hoa)", 3).contains("that node would be thrown out"))
        for (hoa, name) in [("192.0.2.0", "network address"), ("192.0.2.255", "broadcast address"), ("2001:db8:10::", "all routers")] {
            #expect(refusal(hoa, 3, ["force": true]).contains(name), "\(hoa)")
        }
        // The same key may, and force does it, and says so in the list.
        _ = try enrol("\(joined.hoa)", 1)
        _ = try enrol("\(joined.hoa)", 3, ["force": true])
        let homes = try host.control("enrolled")["homes"]?.array ?? []
        let taken = homes.first { $0["home"]?.string == "\(joined.hoa)" }
        let third = KeyFile.write(try key(3).publicKey)
        #expect(taken?["by"]?.string == "hand" && taken?["publicKey"]?.string == third)
        // The pool leaves what is taken, networks too, alone.
        for seed in 4...16 {
            if let hoa = try host.join(UInt8(seed), token).granted?.hoa { #expect(hoa != joined.hoa) }
        }
    }

    @Test(
        "The list of who has what tells key, origin, times and the last sign of life, a page at a time, also after a restart and an import elsewhere")
    func enrolled() throws {
        let host = try JoinHost()
        try host.start()
        let token = try host.makeToken(["192.0.2.64/26"], ["certificateSeconds": 7200, "renewal": false])
        var given: [String: UInt8] = [:]
        for seed in 1...10 { given["\(try #require(try host.join(UInt8(seed), token).granted).hoa)"] = UInt8(seed) }
        _ = try host.control(
            "enrol", ["hoa": "192.0.2.9", "publicKey": .string(KeyFile.write(try key(30).publicKey)), "lifetime": 3600, "renewal": false])
        given["192.0.2.9"] = 30
        func list() throws -> [JSONValue] {
            var homes: [JSONValue] = []
            var after: String?
            for _ in 0..<20 {
                var arguments: [String: JSONValue] = ["count": 3]
                if let after { arguments["after"] = .string(after) }
                let page = try host.control("enrolled", arguments)
                homes += page["homes"]?.array ?? []
                after = page["next"]?.string
                if after == nil { break }
            }
            return homes
        }
        let before = try list()
        #expect(before.count == 11)
        let now = Int64(SystemClock.now().wallMilliseconds)
        for each in before {
            let seed = try #require(given[each["home"]?.string ?? ""])
            #expect(each["publicKey"]?.string == KeyFile.write(try key(seed).publicKey))
            #expect(each["by"]?.string == (seed == 30 ? "hand" : "token \(token.id)") && each["renewal"]?.bool == false)
            let seconds: Int64 = seed == 30 ? 3600 : 7200
            #expect(abs((each["validUntilMilliseconds"]?.int ?? 0) - now - seconds * 1000) < 60_000)
            #expect(abs((each["givenAtMilliseconds"]?.int ?? 0) - now) < 60_000)
        }
        host.end()
        try host.start()
        #expect(try list() == before)
        // Export, and import at a server of the same key that knows nothing.
        var lines: [JSONValue] = []
        var place: [String: JSONValue] = ["secrets": true]
        for _ in 0..<100 {
            let page = try host.control("export", place.merging(["count": 4]) { old, _ in old })
            lines += page["lines"]?.array ?? []
            guard let next = page["next"], let part = next["part"]?.string else { break }
            place = ["secrets": true, "part": .string(part)]
            if let from = next["from"]?.int { place["from"] = .int(from) }
            if let after = next["after"]?.string { place["after"] = .string(after) }
        }
        #expect(lines.count { $0["lease"] != nil } == 11)
        let other = try JoinHost()
        try other.start()
        let taken = try other.control("import", ["lines": .array(lines)])
        #expect(taken["skippedCount"]?.int == 0, "\(taken)")
        let there = try other.control("enrolled", ["count": 100])["homes"]?.array ?? []
        #expect(Self.byHome(there) == Self.byHome(before))
        // Who joined here has the same there.
        let first = try #require(given.first { $0.value == 1 })
        #expect("\(try #require(try other.join(1, token).granted).hoa)" == first.key)
    }
}
