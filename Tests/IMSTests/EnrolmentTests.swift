import Glibc
import MATSignal
import Testing

@testable import IMS
@testable import IMSCore

private let mn = node("198.51.100.7")

/// Which enrolments are refused because another node would lose its address, and how certificates are renewed.
@Suite("Enrolment")
struct EnrolmentTests {
    private func refusal(
        _ server: TestServer, _ text: String, seed: UInt8, isForced: Bool = false
    ) throws -> String? {
        let home = prefix(text)
        let publicKey = try key(seed).publicKey
        do throws(EnrolmentRefusal) {
            let enrolled = try server.core.enrol(
                HomeAddress(home.address), prefixLength: home.length, key: publicKey, isForced: isForced, now: server.now)
            server.perform(enrolled.actions)
            return nil
        } catch let error {
            return error.description
        }
    }

    @Test("A live home address is not given to another key without --force, and the refusal says whom it would throw out")
    func liveAddress() throws {
        let server = try TestServer()
        #expect(try refusal(server, "192.0.2.7", seed: 1) == nil)
        let unseen = try #require(try refusal(server, "192.0.2.7", seed: 2))
        #expect(
            unseen.contains("192.0.2.7 is enrolled for another key since 2026-09-21, not seen yet") && unseen.contains("--force"))
        var node = try server.makeNode("192.0.2.7")
        server.advance(.seconds(1))
        node.certificate = try #require(server.core.issued[prefix("192.0.2.7")])
        #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)?.code == .ok)
        #expect(try #require(try refusal(server, "192.0.2.7", seed: 2)).contains("registered at 198.51.100.7"))
        #expect(try refusal(server, "192.0.2.7", seed: 1) == nil, "the same key again takes nothing from anybody")
        #expect(try refusal(server, "192.0.2.7", seed: 2, isForced: true) == nil)
        #expect(server.core.issued[prefix("192.0.2.7")]?.nodeKey == (try key(2).publicKey))
        #expect(server.logs.contains { $0.contains("by force") && $0.contains("192.0.2.7") && $0.contains("would be thrown out") })
    }

    @Test("What was given is listed with what only certificates tell: of before there were leases, and signed elsewhere; not what was revoked")
    func given() throws {
        let server = try TestServer()
        // Registered by certificates that this server has not recorded, one of them over what it gave by hand itself.
        for number in [1, 2, 3] {
            let node = try server.makeNode("192.0.2.\(number)", seed: UInt8(number))
            #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)?.code == .ok)
        }
        #expect(try refusal(server, "192.0.2.4", seed: 4) == nil)
        let elsewhere = try TestNode("192.0.2.4", seed: 5, issuer: server.issuer, notBefore: server.now.wallMilliseconds + 1)
        let unused = try TestNode("192.0.2.5", seed: 6, issuer: server.issuer, notBefore: server.now.wallMilliseconds)
        let changes = [elsewhere, unused].map { StoreChange(issued: $0.certificate) }
        server.perform(server.core.store(.changed(changes), now: server.now))
        server.perform(try #require(try server.core.revoke(prefix("192.0.2.2"), now: server.now)).actions)
        #expect(try refusal(server, "192.0.2.16/28", seed: 7) == nil)
        let expected: [(String, UInt8)] = [("192.0.2.1", 1), ("192.0.2.3", 3), ("192.0.2.4", 5), ("192.0.2.5", 6), ("192.0.2.16/28", 7)]
        for count in 1...6 {
            var listed: [Lease] = []
            var after: IPPrefix?
            repeat {
                let page = server.core.givenPage(after: after, count: count)
                #expect(page.given.count <= count)
                listed += page.given
                after = page.next
            } while after != nil && listed.count < 10
            #expect(listed.map(\.prefix) == expected.map { prefix($0.0) })
            #expect(try listed.map(\.key) == expected.map { try key($0.1).publicKey } && listed.allSatisfy { $0.origin == .hand })
        }
    }

    @Test("A network that overlaps others' home addresses, and an address within another's network, are refused likewise")
    func overlaps() throws {
        let server = try TestServer()
        #expect(try refusal(server, "192.0.2.16/28", seed: 1) == nil)
        #expect(try #require(try refusal(server, "192.0.2.17", seed: 2)).contains("lies within the network 192.0.2.16/28"))
        #expect(try #require(try refusal(server, "192.0.2.24/29", seed: 2)).contains("lies within the network 192.0.2.16/28"))
        #expect(try refusal(server, "192.0.2.17", seed: 1) == nil, "its own router may have an address of its own there")
        #expect(try refusal(server, "192.0.2.40", seed: 3) == nil)
        #expect(try refusal(server, "192.0.2.41", seed: 4) == nil)
        let outer = try #require(try refusal(server, "192.0.2.32/27", seed: 5))
        #expect(outer.contains("192.0.2.40, one of 2 such within it, is enrolled for another key"))
        #expect(try refusal(server, "192.0.2.32/27", seed: 5, isForced: true) == nil)
        #expect(try refusal(server, "2001:db8:10:5::/64", seed: 5) == nil)
        #expect(try #require(try refusal(server, "2001:db8:10:5::9", seed: 6)).contains("2001:db8:10:5::/64"))
    }

    @Test("The network's own addresses are no home addresses, not even by --force")
    func networkAddresses() throws {
        let server = try TestServer()
        #expect(
            try #require(try refusal(server, "192.0.2.0", seed: 1, isForced: true)).contains("network address of 192.0.2.0/24"))
        #expect(
            try #require(try refusal(server, "192.0.2.255", seed: 1, isForced: true)).contains(
                "broadcast address of 192.0.2.0/24"))
        #expect(try #require(try refusal(server, "2001:db8:10::", seed: 1, isForced: true)).contains("all routers"))
        for fine in ["192.0.2.1", "192.0.2.254", "2001:db8:10::1", "2001:db8:10:ffff:ffff:ffff:ffff:ffff", "2001:db8:10::/64"] {
            #expect(try refusal(server, fine, seed: 1, isForced: true) == nil, "\(fine)")
        }
        let small = try TestServer(served: [
            ServedPrefix(prefix: prefix("192.0.2.4/31")), ServedPrefix(prefix: prefix("192.0.2.9/32")),
        ])
        for fine in ["192.0.2.4", "192.0.2.5", "192.0.2.9"] { #expect(try refusal(small, fine, seed: 1) == nil, "\(fine)") }
    }

    @Test("Of very many that a network would overlap the refusal names the first, whatever the table's order")
    func manyWithin() throws {
        let server = try TestServer()
        for number in (129...250).reversed() {
            let node = try server.makeNode("192.0.2.\(number)")
            let source = IMSTests.node("198.51.100.\(number)")
            let update = try node.record([source.address.description], sequence: server.now.wallMilliseconds)
            #expect(server.update(update, from: source)?.code == .ok)
        }
        let refusal = try #require(try refusal(server, "192.0.2.128/25", seed: 9))
        #expect(refusal.contains("192.0.2.129, one of at least 100 such within it"), "\(refusal)")
    }

    @Test("No certificate is issued for more than nodes and servers believe one can speak for, not even by --force")
    func widePrefixes() throws {
        let server = try TestServer(served: [
            ServedPrefix(prefix: prefix("96.0.0.0/3")), ServedPrefix(prefix: prefix("2000::/3")),
        ])
        for wide in ["112.0.0.0/7", "2600::/15"] {
            #expect(try refusal(server, wide, seed: 1, isForced: true)?.contains("more than one certificate can speak for") == true, "\(wide)")
        }
        for fine in ["112.0.0.0/8", "2600::/16"] { #expect(try refusal(server, fine, seed: 1) == nil, "\(fine)") }
    }

    @Test(
        "A certificate from a time when the clock was far ahead is taken back by --force once it is right, and the address works at once",
        arguments: [false, true])
    func clockWasAhead(_ isRegistered: Bool) throws {
        let server = try TestServer()
        let right = server.now.wallMilliseconds
        server.now.wallMilliseconds = right + 400 * 86_400_000
        #expect(try refusal(server, "192.0.2.7", seed: 1) == nil)
        var node = try server.makeNode("192.0.2.7")
        node.certificate = try #require(server.core.issued[prefix("192.0.2.7")])
        if isRegistered {
            let record = try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
            #expect(server.update(record, from: mn)?.code == .ok)
        }
        server.now.wallMilliseconds = right
        let refused = try #require(try refusal(server, "192.0.2.7", seed: 1))
        #expect(refused.contains("begins on 2027-10-26") && refused.contains("clock says 2026-09-21") && refused.contains("--force"))
        #expect(throws: RevocationRefusal.self) { try server.core.revoke(prefix("192.0.2.7"), now: server.now) }
        #expect(try refusal(server, "192.0.2.7", seed: 1, isForced: true) == nil)
        let old = node
        node.certificate = try #require(server.core.issued[prefix("192.0.2.7")])
        #expect(node.certificate.notBefore <= right + 1)
        #expect(server.update(try node.record(["198.51.100.7"], sequence: right), from: mn)?.code == .ok)
        #expect(server.update(try old.record(["198.51.100.7"], sequence: right + 1), from: mn)?.code == .authenticationFailed)
        #expect(server.core.mapping(of: node.hoa)?.record.sequence == right)
        // And all goes on as ever.
        server.advance(.seconds(1))
        #expect(try refusal(server, "192.0.2.7", seed: 1) == nil)
        #expect(try refusal(server, "192.0.2.7", seed: 2) != nil)
    }

    @Test("A revoked or ended certificate keeps nobody from enrolling the address")
    func freedAddresses() throws {
        let server = try TestServer()
        #expect(try refusal(server, "192.0.2.7", seed: 1) == nil)
        server.perform(try #require(try server.core.revoke(prefix("192.0.2.7"), now: server.now)).actions)
        #expect(try refusal(server, "192.0.2.7", seed: 2) == nil)
        let short = try server.core.enrol(home("192.0.2.8"), key: key(1).publicKey, lifetime: .seconds(60), now: server.now)
        server.perform(short.actions)
        #expect(try refusal(server, "192.0.2.8", seed: 2) != nil)
        server.advance(.seconds(61))
        #expect(try refusal(server, "192.0.2.8", seed: 2) == nil)
    }

    @Test("A certificate enrolled for two minutes is renewed for two minutes, and a longer one for as long as it was")
    func lifetimes() throws {
        for seconds in [120, 4 * 365 * 86_400] as [Int64] {
            let server = try TestServer()
            let enrolled = try server.core.enrol(
                home("192.0.2.7"), key: key(1).publicKey, lifetime: .seconds(seconds), now: server.now)
            server.perform(enrolled.actions)
            var node = try server.makeNode("192.0.2.7")
            node.certificate = enrolled.certificate
            for _ in 0..<3 {
                server.advance(.seconds(seconds * 3 / 4))
                let time = server.now.wallMilliseconds
                let reply = server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)
                node.certificate = try #require(reply?.certificate)
                #expect(node.certificate.notBefore == time && node.certificate.notAfter - time == UInt64(seconds) * 1000)
            }
        }
    }

    @Test("Enrolled home addresses that never registered are told apart from mappings, page by page")
    func unseen() throws {
        let server = try TestServer()
        for number in 1...5 { #expect(try refusal(server, "192.0.2.\(number)", seed: UInt8(number)) == nil) }
        var node = try server.makeNode("192.0.2.3", seed: 3)
        node.certificate = try #require(server.core.issued[prefix("192.0.2.3")])
        #expect(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)?.code == .ok)
        #expect(server.core.issued.unseenCount == 4)
        let page = server.core.issued.unseenPage(after: prefix("192.0.2.1"), count: 2) { _ in true }
        #expect(page.map(\.prefix) == [prefix("192.0.2.2"), prefix("192.0.2.4")])
    }

    @Test("The store and its log are their owner's alone, whatever the umask, and one that others may read is closed to them")
    func modes() throws {
        let before = umask(0)
        defer { umask(before) }
        let directory = try TemporaryDirectory()
        let path = "\(directory.path)/ims.db"
        func modes() -> [mode_t] {
            [path, path + "-wal", path + "-shm"].map { file in
                var status = stat()
                return stat(file, &status) == 0 ? status.st_mode & 0o777 : 0
            }
        }
        var database = try MappingDatabase(path: path)
        try database.write(CookieSecret(octets: [UInt8](repeating: 1, count: 16), madeAt: 1))
        #expect(modes() == [0o600, 0o600, 0o600])
        database.close()
        // As an earlier version left it, started by hand.
        #expect(chmod(path, 0o644) == 0)
        database = try MappingDatabase(path: path)
        try database.write(CookieSecret(octets: [UInt8](repeating: 2, count: 16), madeAt: 2))
        #expect(modes() == [0o640, 0o640, 0o640])
        database.close()
    }
}
