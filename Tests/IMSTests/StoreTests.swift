import Glibc
import MATRuntime
import MATSignal
import MappingMemory
import Synchronization
import Testing

@testable import IMS
@testable import IMSCore

/// A directory that is removed with everything in it.
final class TemporaryDirectory {
    let path: String

    init() throws {
        var template = Array("/tmp/mat-ims-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        path = String(decoding: template.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafeBytes(of: &entry.pointee.d_name) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
                if name != ".", name != ".." { unlink("\(path)/\(name)") }
            }
            closedir(directory)
        }
        rmdir(path)
    }
}

@Suite("The store")
struct StoreTests {
    private let issuer: SigningKey
    private let directory: TemporaryDirectory
    private var path: String { "\(directory.path)/ims.db" }

    init() throws {
        issuer = try key(200)
        directory = try TemporaryDirectory()
    }

    private func mapping(_ hoa: String, sequence: UInt64, moas: [String] = ["198.51.100.7"]) throws -> StoredMapping {
        let node = try TestNode(hoa, seed: 1, issuer: issuer, notBefore: TestServer.start)
        return StoredMapping(
            certified: try node.record(moas, sequence: TestServer.start + sequence), source: Endpoint(address("2001:db8::7"), port: 6289),
            local: address("203.0.113.1"), provenAt: TestServer.start)
    }

    private func write(_ changes: [StoreChange]) throws {
        let database = try MappingDatabase(path: path)
        _ = try database.write(changes)
        database.close()
    }

    private func contents() throws -> (mappings: [StoredMapping], issued: [Certificate], unreadable: [String], secrets: [CookieSecret]) {
        let database = try MappingDatabase(path: path)
        defer { database.close() }
        let read = try StoreFile.read(path)
        return (read.mappings, read.issued, read.unreadable, try database.secrets())
    }

    @Test("What was written is read back octet for octet, both families, withdrawals too")
    func roundTrip() throws {
        let mappings = [
            try mapping("192.0.2.1", sequence: 1), try mapping("2001:db8:10::1", sequence: 2, moas: ["198.51.100.7", "2001:db8:aa::7"]),
            try mapping("192.0.2.3", sequence: 3, moas: []),
        ]
        // A certificate is told where it is newer than the mapping's own.
        let same = mappings[0].certified.certificate
        let newer = try TestNode("192.0.2.3", seed: 1, issuer: issuer, notBefore: TestServer.start + 5).certificate
        let alone = try TestNode("192.0.2.9", seed: 1, issuer: issuer, notBefore: TestServer.start).certificate
        let older = try TestNode("192.0.2.9", seed: 1, issuer: issuer, notBefore: TestServer.start - 5).certificate
        try write(mappings.map { StoreChange(mapping: $0) } + [same, newer, alone, older].map { StoreChange(issued: $0) })
        let contents = try contents()
        #expect(Set(contents.mappings) == Set(mappings) && contents.unreadable.isEmpty)
        #expect(Set(contents.issued) == [newer, alone])
    }

    @Test("A row never goes back, even if it is told to")
    func neverBack() throws {
        let new = try mapping("192.0.2.1", sequence: 9)
        try write([StoreChange(mapping: new)])
        try write([StoreChange(mapping: try mapping("192.0.2.1", sequence: 8))])
        #expect(try contents().mappings == [new])
    }

    @Test("An item is written over the version before it, else nothing of its change is, and it is told what there is")
    func items() throws {
        let database = try MappingDatabase(path: path)
        defer { database.close() }
        func row(_ key: UInt8, _ version: UInt64, _ value: UInt8) -> StoredRow { StoredRow(.lease, key: [key], value: [value], version: version) }
        let certificate = try TestNode("192.0.2.9", seed: 1, issuer: issuer, notBefore: TestServer.start).certificate
        let first = StoreChange(rows: [row(1, 1, 10), row(2, 1, 20)])
        let late = StoreChange(rows: [row(1, 2, 11), row(2, 1, 21)], certificates: [certificate])
        let after = StoreChange(rows: [row(1, 2, 12)])
        #expect(try database.write([first, late, after]) == [.durable, .conflict([row(1, 1, 10), row(2, 1, 20)]), .durable])
        #expect(try database.write([StoreChange(rows: [row(3, 2, 1)])]) == [.conflict([StoredRow(.lease, key: [3], value: [], version: 0)])])
        // So it is if what it relies on is no longer so.
        let (withdrawal, moved) = (try mapping("192.0.2.1", sequence: 1, moas: []), try mapping("192.0.2.1", sequence: 2))
        let relied = MappingVersion(withdrawal.record.prefix, withdrawal.certified.version)
        let (missing, held) = (StoreChange(rows: [row(4, 1, 1)], relied: [relied]), StoreChange(rows: [row(4, 1, 2)], relied: [relied]))
        let late4 = StoreChange(rows: [row(4, 2, 3)], relied: [relied])
        #expect(
            try database.write([missing, StoreChange(mapping: withdrawal), held, StoreChange(mapping: moved), late4])
                == [.conflict([StoredRow(.lease, key: [4], value: [], version: 0)]), .durable, .durable, .durable, .conflict([row(4, 1, 2)])])
        let read = try StoreFile.read(path)
        #expect(Set(read.rows) == [row(1, 2, 12), row(2, 1, 20), row(4, 1, 2)] && read.issued.isEmpty && read.unreadable.isEmpty)
    }

    @Test("The two newest cookie secrets are kept")
    func secrets() throws {
        let store = try MappingStore(path: path)
        for number in 1...3 { store.write(CookieSecret(octets: [UInt8](repeating: UInt8(number), count: 16), madeAt: UInt64(number))) }
        store.close()
        #expect(try contents().secrets.map(\.madeAt) == [3, 2])
    }

    @Test("Changes are committed together and come back in order")
    func groupCommit() throws {
        let loop = try EventLoop()
        let store = try MappingStore(path: path)
        let outcomes = Mutex<[UInt64]>([])
        var changes: [StoreChange] = []
        for number in 0..<200 { changes.append(StoreChange(mapping: try mapping("192.0.2.\(number)", sequence: 1))) }
        store.start { event in
            guard case .committed(let batch) = event else { return }
            for outcome in batch {
                if case .durable = outcome.result { outcomes.withLock { $0.append(outcome.ticket.number) } }
            }
        }
        for (number, change) in changes.enumerated() { store.commit(StoreTicket(number: UInt64(number)), change) }
        loop.schedule(after: .milliseconds(10)) { poll() }
        func poll() {
            if outcomes.withLock({ $0.count }) == 200 { loop.stop() } else { loop.schedule(after: .milliseconds(10)) { poll() } }
        }
        loop.schedule(after: .seconds(20)) { loop.stop() }
        try loop.run()
        #expect(outcomes.withLock { $0 } == Array(0..<200))
        store.close()
        #expect(try contents().mappings.count == 200)
    }

    @Test("A missing directory is an error that says what to do")
    func errors() throws {
        let missing = #expect(throws: StoreError.self) { try MappingStore(path: "/nonexistent/ims.db") }
        #expect(missing?.description.contains("make its directory") == true, "\(String(describing: missing))")
    }
}

@Suite("The configuration")
struct ConfigurationTests {
    private static let good = """
        store: /var/lib/imsd/ims.db
        signing-key: /etc/imsd/ims.key
        prefixes:
          - prefix: 192.0.2.0/24
            mobile-prefixes: [198.51.100.0/24]
          - prefix: "2001:db8:10::/64"
        dns: {resolvers: [203.0.113.131], require-dnssec: true}
        limits: {updates-per-second: 50}
        certificate-lifetime: 30d
        """

    @Test("A full file is read")
    func reads() throws {
        let configuration = try IMSConfiguration(parsing: Self.good, file: "imsd.yaml")
        #expect(configuration.served.map(\.prefix) == [prefix("192.0.2.0/24"), prefix("2001:db8:10::/64")])
        #expect(configuration.limits.updatesPerSecond == 50 && configuration.requireDNSSEC && configuration.port == 6288)
        #expect(
            configuration.certificateLifetime == .seconds(30 * 86_400)
                && configuration.resolvers == [Endpoint(address("203.0.113.131"), port: 53)])
    }

    @Test("Relays are read with all their addresses, and what is no relay is refused with its line")
    func relays() throws {
        func read(_ relays: String) throws -> [[String]] {
            let configuration = try IMSConfiguration(parsing: Self.good + "\nrelays: \(relays)\n", file: "imsd.yaml")
            return configuration.relays.map { $0.endpoints.map(\.description) }
        }
        #expect(try read("[203.0.113.53]") == [["203.0.113.53:6290"]])
        #expect(
            try read("[\"203.0.113.53:7000, 2001:db8:53::53\", \"[2001:db8:54::54]:7001\"]")
                == [["203.0.113.53:7000", "[2001:db8:53::53]:6290"], ["[2001:db8:54::54]:7001"]])
        for (relays, reason) in [
            ("[relay.example]", "is not an address with a port"), ("[127.0.0.1]", "has an address that no relay can have"),
            ("[\"203.0.113.53,\"]", "is not an address with a port"),
            ("[\"" + (1...9).map { "203.0.113.\($0)" }.joined(separator: ",") + "\"]", "has 9 addresses"),
            ("[" + (1...9).map { "203.0.113.\($0)" }.joined(separator: ",") + "]", "9 relays are listed"),
        ] {
            do throws(ConfigurationError) {
                _ = try IMSConfiguration(parsing: Self.good + "\nrelays: \(relays)\n", file: "imsd.yaml")
                Issue.record("\(relays) was read")
            } catch {
                #expect(error.description.contains(reason) && error.description.contains("imsd.yaml:10"), "\(error)")
            }
        }
    }

    @Test("All mistakes are told at once, with line and remedy")
    func mistakes() throws {
        let text = """
            prefixes:
              - prefix: 192.0.2.0/24
              - prefix: 192.0.2.128/25
            listen: {port: 99999}
            limitz: {}
            """
        let error = #expect(throws: ConfigurationError.self) { try IMSConfiguration(parsing: text, file: "imsd.yaml") }
        let words = error?.description ?? ""
        for part in ["imsd.yaml:3", "overlaps 192.0.2.0/24", "signing-key", "is not a port", "did you mean limits?"] {
            #expect(words.contains(part), "\(words)")
        }
    }

    @Test("Prefixes of addresses that no host can have are refused", arguments: ["0.0.0.0/0", "::/0", "fe80::/10", "127.0.0.0/8", "ff00::/8"])
    func impossiblePrefixes(prefix: String) {
        let text = "signing-key: /etc/imsd/ims.key\nprefixes: [{prefix: \"\(prefix)\"}]\n"
        let error = #expect(throws: ConfigurationError.self) { try IMSConfiguration(parsing: text, file: "imsd.yaml") }
        #expect(error?.description.contains("holds addresses that no host can have") == true, "\(String(describing: error))")
    }

    @Test("What could never work is refused with its line, though each line is well formed")
    func impossible() throws {
        let etcd = Self.good.replacing("store: /var/lib/imsd/ims.db", with: "store: etcd")
        let unreachable = ["0.0.0.0", "::", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "255.255.255.255"]
        let mistakes: [(String, String)] = [
            (etcd + "\netcd: {endpoints: []}\n", "imsd.yaml:10: etcd.endpoints: the list is empty"),
            (etcd + "\netcd:\n  endpoints:\n", "etcd.endpoints: no member of the etcd cluster is named"),
            (
                Self.good + "\nview: {listen: 127.0.0.1}\nmetrics: {listen: \"127.0.0.1:8288\"}\n",
                "imsd.yaml:11: metrics.listen: 127.0.0.1:8288 is where"
            ),
            (Self.good + "\nview: {listen: \"127.0.0.1:9288\"}\nmetrics: {listen: 0.0.0.0}\n", "0.0.0.0:9288 is where `view` listens"),
            (Self.good + "\nview: {listen: \"127.0.0.1:9288\"}\nmetrics: {listen: \"::\"}\n", "[::]:9288 is where `view` listens"),
            (Self.good + "\nmetrics: {listen: 224.0.0.1}\n", "224.0.0.1 is no address to listen at"),
        ]
        let addresses = unreachable.map {
            (Self.good + "\npublic-addresses: [203.0.113.1, \"\($0)\"]\n", "\($0) is no address at which a node could reach this server")
        }
        for (text, words) in mistakes + addresses {
            do throws(ConfigurationError) {
                _ = try IMSConfiguration(parsing: text, file: "imsd.yaml")
                Issue.record("read: \(text)")
            } catch {
                #expect(error.description.contains(words), "\(error)")
            }
        }
        for text in [
            "view: {listen: \"[::1]:9288\"}\nmetrics: {listen: 0.0.0.0}", "view: {listen: 127.0.0.1}\nmetrics: {listen: 127.0.0.1}",
            "public-addresses: [203.0.113.1, \"2001:db8::1\", 10.0.0.1]",
        ] { _ = try IMSConfiguration(parsing: Self.good + "\n\(text)\n", file: "imsd.yaml") }
    }

    @Test("A previous key that signs still is told by --check")
    func previousKey() throws {
        let directory = try TemporaryDirectory()
        let key = try key(200)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(key), mode: 0o600)
        var configuration = try IMSConfiguration(parsing: Self.good, file: "imsd.yaml")
        configuration.signingKeyPath = "\(directory.path)/ims.key"
        configuration.storePath = "\(directory.path)/ims.db"
        configuration.previousKeys = [key.publicKey]
        let error = #expect(throws: IMSServerError.self) { try configuration.check() }
        #expect(error?.description.contains("signs or is accepted still") == true)
        configuration.previousKeys = []
        try configuration.check()
    }

    @Test("A key that others may read is refused")
    func keyMode() throws {
        let directory = try TemporaryDirectory()
        var configuration = try IMSConfiguration(parsing: Self.good, file: "imsd.yaml")
        configuration.signingKeyPath = "\(directory.path)/ims.key"
        configuration.storePath = "\(directory.path)/ims.db"
        let missing = #expect(throws: IMSServerError.self) { try configuration.check() }
        #expect(missing?.description.contains("mat keygen") == true)
        try TextFile.replace("\(directory.path)/ims.key", with: KeyFile.write(try key(200)), mode: 0o600)
        try configuration.check()
        chmod("\(directory.path)/ims.key", 0o644)
        let open = #expect(throws: IMSServerError.self) { try configuration.check() }
        #expect(open?.description.contains("chmod 600") == true)
    }
}
