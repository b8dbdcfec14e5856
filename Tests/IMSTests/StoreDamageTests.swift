import Glibc
import MATSignal
import MATTesting
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

@Suite("A damaged store")
struct StoreDamageTests {
    private let issuer: SigningKey
    private let node: SigningKey
    private let directory: TemporaryDirectory
    private var path: String { "\(directory.path)/ims.db" }
    private static let pageOctets = 4096

    init() throws {
        issuer = try key(200)
        node = try key(1)
        directory = try TemporaryDirectory()
    }

    /// Unsigned, since the store looks at no signature: a thousand of them cost no time.
    private func mapping(_ number: Int, sequence: UInt64 = 1) throws -> StoredMapping {
        let hoa = HomeAddress(IPAddress(ipv4: 0x0A00_0000 + UInt32(number)))
        let zeros = try #require(Signature([UInt8](repeating: UInt8(truncatingIfNeeded: number), count: 64)))
        let certificate = try Certificate(
            octets: hoa.address.octets + [128, 0, 0, 0] + [UInt8](repeating: 1, count: 16) + node.publicKey.octets
                + [UInt8](repeating: 2, count: 8 + 64))
        let record = MappingRecord(
            hoa: hoa, sequence: TestServer.start + sequence, lifetime: 600, issued: TestServer.start,
            locators: [Locator(MobileAddress(address("198.51.100.7")))])
        return StoredMapping(
            certified: CertifiedMapping(mapping: SignedMapping(record: record, signature: zeros), certificate: certificate),
            source: IMSTests.node("198.51.100.7"), local: address("203.0.113.1"), provenAt: TestServer.start)
    }

    private func fill(_ count: Int) throws {
        let database = try MappingDatabase(path: path)
        _ = try database.write((0..<count).map { StoreChange(mapping: try mapping($0)) })
        database.close()
    }

    @Test("What can be read around damaged pages is read, and the places are named")
    func salvage() throws {
        try fill(5000)
        let whole = try StoreFile.read(path)
        #expect(whole.mappings.count == 5000 && whole.damage.isEmpty)
        let pages = StoreFile.size(path) / Self.pageOctets
        for page in [pages / 4, pages / 2, pages * 3 / 4] { try StoreFile.damage(path, at: page * Self.pageOctets, count: Self.pageOctets) }
        let read = try StoreFile.read(path)
        // Three leaves of some ten rows; if one of them is an inner page, a hundred times that is behind it.
        #expect(read.mappings.count > 4900 && read.mappings.count < 5000, "\(read.mappings.count) of \(pages) pages")
        #expect(Set(read.mappings).isSubset(of: Set(whole.mappings)) && Set(read.mappings).count == read.mappings.count)
        #expect((1...3).contains(read.damage.count) && read.damage.allSatisfy { $0.contains("between 10.0.") }, "\(read.damage)")
    }

    @Test("Started with a damaged file, the store tells what it has, never that this is all, and refuses changes")
    func start() throws {
        try fill(2000)
        try StoreFile.damage(path, at: StoreFile.size(path) / Self.pageOctets / 2 * Self.pageOctets, count: Self.pageOctets)
        let listener = StoreListener()
        let store = try MappingStore(path: path)
        defer { store.close() }
        store.start { listener.receive($0) }
        listener.wait("unavailable") { !$0.unavailable.isEmpty }
        let heard = listener.heard
        #expect(heard.mappings.count > 1900 && !heard.hasLoaded)
        #expect(heard.unavailable.last?.contains("restore it from a backup") == true, "\(heard.unavailable)")
        store.commit(StoreTicket(number: 1), StoreChange(mapping: try mapping(1, sequence: 9)))
        listener.wait("an outcome") { !$0.outcomes.isEmpty }
        guard case .failed(let reason)? = listener.heard.outcomes.first?.result else { return #expect(Bool(false), "it was written") }
        #expect(reason.contains("damaged"))
    }

    @Test("A file that is no store at all, or a database of another program: no start, nothing is overwritten, and it says what --check does")
    func garbage() throws {
        let text = [UInt8](String(repeating: "this is no database ", count: 500).utf8)
        let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
        #expect(write(descriptor, text, text.count) == text.count)
        close(descriptor)
        let refused = #expect(throws: StoreError.self) { try MappingStore(path: path) }
        var configuration = IMSConfiguration()
        configuration.storePath = path
        let checked = #expect(throws: IMSServerError.self) { try configuration.check() }
        let atStart = #expect(throws: IMSServerError.self) { try configuration.checkStore() }
        #expect(refused?.description.contains("is no store of imsd's; move it away") == true)
        #expect(refused?.description == atStart?.description && checked == atStart)
        #expect(StoreFile.size(path) == text.count)

        let other = "\(directory.path)/other.db"
        do {
            let database = try MappingDatabase(path: other)
            defer { database.close() }
            for table in ["grdb_migrations", "mapping", "issued", "cookieSecret"] { try database.execute("DROP TABLE \(table)") }
        }
        let size = StoreFile.size(other)
        for _ in 0..<2 {
            let foreign = #expect(throws: StoreError.self) { try MappingStore(path: other) }
            #expect(foreign?.description == MappingStore.notOurs(other))
        }
        #expect(StoreFile.size(other) == size)
    }

    @Test("A new store on a full disk says that the disk is full, and nothing of tables; with room it serves")
    func fullAtStart() throws {
        // What a disk without room leaves of a new store, read as its start does.
        let descriptor = open(path, O_WRONLY | O_CREAT, 0o600)
        close(descriptor)
        let reader = try MappingReader(path: path, isAlone: true) { _ in Issue.record("there is nothing") }
        #expect(try !reader.read())
        reader.close()
        try fill(10)
        let filled = try MappingReader(path: path, isAlone: false) { _ in }
        defer { filled.close() }
        #expect(try filled.read() && filled.mappingsCount == 10)
    }

    @Test("A second server on one store does not start, by whatever name it calls it; readers do, and the next after a close does at once")
    func locked() throws {
        let store = try MappingStore(path: path)
        let link = "\(directory.path)/link.db"
        #expect(symlink(path, link) == 0)
        for name in [path, link] {
            let refused = #expect(throws: StoreError.self) { try MappingStore(path: name) }
            let words = "store: \(name) is in use by another imsd, process \(getpid());"
            #expect(refused?.description.hasPrefix(words) == true, "\(String(describing: refused))")
        }
        // SQLite's locks go when any descriptor of its file is closed; this one does not.
        close(open(path, O_RDONLY))
        #expect(throws: StoreError.self) { try StoreLock(store: path, waiting: 0) }
        _ = try StoreFile.read(path)
        var status = stat()
        #expect(stat(StoreLock.path(of: path), &status) == 0 && status.st_mode & 0o777 == 0o600)
        store.close()
        _ = try StoreLock(store: path, waiting: 0)
        try MappingStore(path: path).close()
    }

    @Test("A page damaged while running: the change that meets it fails, and no other is taken after it")
    func running() throws {
        try fill(5000)
        let listener = StoreListener()
        let store = try MappingStore(path: path)
        defer { store.close() }
        store.start { listener.receive($0) }
        listener.wait("the end of loading") { $0.hasLoaded }
        // All leaves but the first pages, which hold the schema and are in the cache.
        let size = StoreFile.size(path)
        try StoreFile.damage(path, at: 16 * Self.pageOctets, count: size - 16 * Self.pageOctets)
        var ticket: UInt64 = 0
        for number in stride(from: 0, to: 5000, by: 100) {
            ticket += 1
            store.commit(StoreTicket(number: ticket), StoreChange(mapping: try mapping(number, sequence: 9)))
        }
        listener.wait("all outcomes") { $0.outcomes.count == Int(ticket) }
        let heard = listener.heard
        #expect(heard.unavailable.last?.contains("restore it from a backup") == true, "\(heard.unavailable)")
        #expect(heard.outcomes.contains { if case .failed = $0.result { true } else { false } })
        store.commit(StoreTicket(number: ticket + 1), StoreChange(mapping: try mapping(1, sequence: 10)))
        listener.wait("the last outcome") { $0.outcomes.count == Int(ticket) + 1 }
        guard case .failed? = listener.heard.outcomes.last?.result else { return #expect(Bool(false), "it was written") }
    }

    @Test("A row that can't be read is named and not served; what its node signs next takes its place")
    func unreadableRow() throws {
        try fill(10)
        do {
            let database = try MappingDatabase(path: path)
            defer { database.close() }
            try database.execute("UPDATE mapping SET certificate = x'00' WHERE hoa = (SELECT hoa FROM mapping LIMIT 1 OFFSET 3)")
            // The row's structure is intact, its contents are not: the column has another sequence than the record.
            try database.execute("UPDATE mapping SET sequence = sequence + 1000 WHERE hoa = (SELECT hoa FROM mapping LIMIT 1 OFFSET 5)")
        }
        let read = try StoreFile.read(path)
        #expect(read.mappings.count == 8 && read.unreadable == ["10.0.0.3", "10.0.0.5"] && read.damage.isEmpty)
        let database = try MappingDatabase(path: path)
        defer { database.close() }
        let next = try mapping(5, sequence: 2)
        guard case .durable? = try database.write([StoreChange(mapping: next)]).first else { return #expect(Bool(false)) }
        #expect(try StoreFile.read(path).mappings.contains(next))
    }

    @Test("What the reader takes for whole are exactly the records and certificates that can be decoded")
    func formats() throws {
        var numbers = SeededGenerator(seed: 5)
        let server = try TestServer()
        let nodes = [try server.makeNode("192.0.2.1"), try server.makeNode("2001:db8:10:100::", prefixLength: 56)]
        let records = [
            try nodes[0].record([], sequence: 1), try nodes[0].record(["198.51.100.7"], sequence: 2),
            try nodes[0].record(["192.0.2.1"], sequence: 3, lifetime: 604_800),
            try nodes[1].record(["2001:db8:aa:700::", "2001:db8:aa:800::"], sequence: 4),
        ]
        var counts = (good: 0, bad: 0)
        for certified in records {
            for _ in 0..<3000 {
                var record = certified.record.octets
                var certificate = certified.certificate.octets
                // Mostly one octet, now and then the length, and as often nothing.
                switch Int.random(in: 0..<8, using: &numbers) {
                case 0: break
                case 1: record.removeLast(Int.random(in: 1...20, using: &numbers))
                case 2: record += [UInt8](repeating: 1, count: 20)
                default:
                    record[Int.random(in: record.indices, using: &numbers)] = [0, 1, 16, 127, 128, 255].randomElement(using: &numbers) ?? 0
                    certificate[Int.random(in: certificate.indices, using: &numbers)] = UInt8.random(in: 0...255, using: &numbers)
                }
                let decoded = try? MappingRecord(octets: record)
                let head = record.withUnsafeBytes { RecordHead($0) }
                #expect((decoded == nil) == (head == nil), "\(record)")
                #expect(head?.hoa == decoded?.hoa.address && head?.sequence == decoded?.sequence && head?.prefixLength == decoded?.prefixLength)
                let issued = try? Certificate(octets: certificate)
                let issuedHead = certificate.withUnsafeBytes { CertificateHead($0) }
                #expect((issued == nil) == (issuedHead == nil) && issued?.notBefore == issuedHead?.notBefore, "\(certificate)")
                if decoded == nil { counts.bad += 1 } else { counts.good += 1 }
            }
        }
        #expect(counts.good > 1000 && counts.bad > 1000, "\(counts)")
    }

    @Test("What another hand wrote into the file and is newer is not overwritten but told")
    func outrun() throws {
        try fill(1)
        let database = try MappingDatabase(path: path)
        defer { database.close() }
        let newer = try mapping(0, sequence: 9)
        _ = try database.write([StoreChange(mapping: newer)])
        guard case .outrun(let held)? = try database.write([StoreChange(mapping: try mapping(0, sequence: 5))]).first else {
            return #expect(Bool(false), "it was written")
        }
        #expect(held == newer)
    }

    @Test("A full store refuses, says so, and takes changes again when there is room")
    func full() throws {
        try fill(1000)
        let listener = StoreListener()
        let store = try MappingStore(path: path)
        defer { store.close() }
        store.start { listener.receive($0) }
        listener.wait("the end of loading") { $0.hasLoaded }
        // SQLite's page limit stands in for a full disk: the error is the same.
        store.limitPages(to: 1)
        for number in 0..<2000 { store.commit(StoreTicket(number: UInt64(number)), StoreChange(mapping: try mapping(5000 + number))) }
        listener.wait("all outcomes") { $0.outcomes.count == 2000 }
        #expect(listener.heard.unavailable.last?.contains("the disk is full; make room") == true, "\(listener.heard.unavailable)")
        store.limitPages(to: 1_000_000)
        let before = listener.heard.availableCount
        listener.wait("room") { $0.availableCount > before || $0.availableCount > 0 }
        store.commit(StoreTicket(number: 9999), StoreChange(mapping: try mapping(9999)))
        listener.wait("the last outcome") { $0.outcomes.last?.ticket.number == 9999 }
        guard case .durable? = listener.heard.outcomes.last?.result else { return #expect(Bool(false), "\(listener.heard.unavailable)") }
    }
}
