import FoundationEssentials
import GRDB
import MATSignal

/// The SQLite file: schema, reading, and one transaction per batch of changes. Used by one thread.
///
/// A registration's row is never deleted: it is also the mark below which no version is accepted again, withdrawn or expired.
/// The write itself compares versions, so that not even a bug above could take a row back.
final class MappingDatabase {
    private let queue: DatabaseQueue
    private let path: String

    /// Opens the file, makes it if it isn't there, and brings its schema up to date.
    init(path: String) throws(StoreError) {
        self.path = path
        var configuration = Configuration()
        configuration.label = "mapping store"
        configuration.prepareDatabase { database in
            // WAL with FULL: a committed transaction survives power loss, at one fdatasync a batch.
            try database.execute(sql: "PRAGMA journal_mode = WAL")
            try database.execute(sql: "PRAGMA synchronous = FULL")
        }
        do {
            queue = try DatabaseQueue(path: path, configuration: configuration)
            try Self.migrator.migrate(queue)
            let newer = try queue.read { try Self.migrator.hasBeenSuperseded($0) }
            guard !newer else { throw StoreError("the store \(path) was written by a newer version of imsd; install that one") }
        } catch let error as StoreError {
            throw error
        } catch {
            throw Self.explain(error, path)
        }
    }

    private static var migrator: DatabaseMigrator {
        var migrator = DatabaseMigrator()
        migrator.registerMigration("1") { database in
            try database.execute(
                sql: """
                    CREATE TABLE mapping (
                        hoa BLOB NOT NULL, prefixLength INTEGER NOT NULL,
                        notBefore INTEGER NOT NULL, sequence INTEGER NOT NULL,
                        record BLOB NOT NULL, signature BLOB NOT NULL, certificate BLOB NOT NULL,
                        source BLOB NOT NULL, sourcePort INTEGER NOT NULL, local BLOB NOT NULL, provenAt INTEGER NOT NULL,
                        PRIMARY KEY (hoa, prefixLength)
                    ) WITHOUT ROWID;
                    CREATE TABLE issued (
                        hoa BLOB NOT NULL, prefixLength INTEGER NOT NULL, notBefore INTEGER NOT NULL, certificate BLOB NOT NULL,
                        PRIMARY KEY (hoa, prefixLength, notBefore)
                    ) WITHOUT ROWID;
                    CREATE TABLE cookieSecret (madeAt INTEGER PRIMARY KEY, octets BLOB NOT NULL);
                    """)
        }
        return migrator
    }

    // MARK: Reading

    func contents() throws(StoreError) -> StoreContents {
        do {
            return try queue.read { database in
                var contents = StoreContents()
                for row in try Row.fetchAll(database, sql: "SELECT * FROM mapping") {
                    if let mapping = Self.mapping(row) {
                        contents.mappings.append(mapping)
                    } else {
                        contents.unreadable.append(Self.name(row))
                    }
                }
                // The newest of each HoA alone counts; the others are kept as a record of what was issued.
                let newest = "SELECT hoa, prefixLength, MAX(notBefore), certificate FROM issued GROUP BY hoa, prefixLength"
                for row in try Row.fetchAll(database, sql: newest) {
                    if let octets = Self.octets(row["certificate"]), let certificate = try? Certificate(octets: octets) {
                        contents.issued.append(certificate)
                    } else {
                        contents.unreadable.append(Self.name(row))
                    }
                }
                return contents
            }
        } catch {
            throw Self.explain(error, path)
        }
    }

    /// What cookies are made with, the newest first, at most two.
    func secrets() throws(StoreError) -> [CookieSecret] {
        do {
            return try queue.read { database in
                try Row.fetchAll(database, sql: "SELECT * FROM cookieSecret ORDER BY madeAt DESC LIMIT 2").compactMap { row in
                    guard let octets = Self.octets(row["octets"]), octets.count == CookieSecret.octetsCount,
                        let madeAt = row["madeAt"] as Int64?
                    else { return nil }
                    return CookieSecret(octets: octets, madeAt: UInt64(bitPattern: madeAt))
                }
            }
        } catch {
            throw Self.explain(error, path)
        }
    }

    private static func octets(_ value: DatabaseValue) -> [UInt8]? { Data.fromDatabaseValue(value).map { Array($0) } }

    private static func name(_ row: Row) -> String {
        octets(row["hoa"]).flatMap { IPAddress(octets: $0) }?.description ?? "a row without a readable HoA"
    }

    private static func mapping(_ row: Row) -> StoredMapping? {
        guard let octets = octets(row["record"]), let record = try? MappingRecord(octets: octets),
            let signature = self.octets(row["signature"]).flatMap(Signature.init),
            let certificateOctets = self.octets(row["certificate"]), let certificate = try? Certificate(octets: certificateOctets),
            let source = self.octets(row["source"]).flatMap({ IPAddress(octets: $0) }),
            let port = (row["sourcePort"] as Int64?).flatMap({ UInt16(exactly: $0) }),
            let local = self.octets(row["local"]).flatMap({ IPAddress(octets: $0) }), let provenAt = row["provenAt"] as Int64?
        else { return nil }
        let certified = CertifiedMapping(mapping: SignedMapping(record: record, signature: signature), certificate: certificate)
        return StoredMapping(
            certified: certified, source: Endpoint(source, port: port), local: local, provenAt: UInt64(bitPattern: provenAt))
    }

    // MARK: Writing

    /// Makes all the changes durable in one transaction, or none.
    func write(_ changes: [StoreChange]) throws(StoreError) {
        do {
            try queue.write { database in
                for change in changes {
                    if let mapping = change.mapping { try Self.write(mapping, database) }
                    if let certificate = change.issued { try Self.write(certificate, database) }
                }
            }
        } catch {
            throw Self.explain(error, path)
        }
    }

    private static func write(_ mapping: StoredMapping, _ database: Database) throws {
        let record = mapping.record
        let statement = try database.cachedStatement(
            sql: """
                INSERT INTO mapping VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
                ON CONFLICT DO UPDATE SET notBefore = excluded.notBefore, sequence = excluded.sequence, record = excluded.record,
                    signature = excluded.signature, certificate = excluded.certificate, source = excluded.source,
                    sourcePort = excluded.sourcePort, local = excluded.local, provenAt = excluded.provenAt
                WHERE (excluded.notBefore, excluded.sequence) > (notBefore, sequence)
                """)
        // SQLite's integers are signed; both are checked to be near the present before they come here.
        try statement.execute(arguments: [
            Data(record.hoa.address.octets), Int64(record.prefixLength), Int64(bitPattern: mapping.certified.certificate.notBefore),
            Int64(bitPattern: record.sequence), Data(record.octets), Data(mapping.certified.mapping.signature.octets),
            Data(mapping.certified.certificate.octets), Data(mapping.source.address.octets), Int64(mapping.source.port),
            Data(mapping.local.octets), Int64(bitPattern: mapping.provenAt),
        ])
    }

    private static func write(_ certificate: Certificate, _ database: Database) throws {
        let statement = try database.cachedStatement(sql: "INSERT OR IGNORE INTO issued VALUES (?, ?, ?, ?)")
        try statement.execute(arguments: [
            Data(certificate.hoa.address.octets), Int64(certificate.prefixLength), Int64(bitPattern: certificate.notBefore),
            Data(certificate.octets),
        ])
    }

    /// Adds a secret and forgets all but the newest two.
    func write(_ secret: CookieSecret) throws(StoreError) {
        do {
            try queue.write { database in
                try database.execute(
                    sql: "INSERT OR REPLACE INTO cookieSecret VALUES (?, ?)",
                    arguments: [Int64(bitPattern: secret.madeAt), Data(secret.octets)])
                try database.execute(
                    sql: "DELETE FROM cookieSecret WHERE madeAt NOT IN (SELECT madeAt FROM cookieSecret ORDER BY madeAt DESC LIMIT 2)")
            }
        } catch {
            throw Self.explain(error, path)
        }
    }

    func close() { try? queue.close() }

    // MARK: Errors

    private static func explain(_ error: any Error, _ path: String) -> StoreError {
        guard let error = error as? DatabaseError else { return StoreError("the store \(path) can't be used: \(error)") }
        let remedy =
            switch error.resultCode {
            case .SQLITE_CORRUPT, .SQLITE_NOTADB:
                "it is damaged or no store; restore it from a backup, or move it away and let the nodes register anew"
            case .SQLITE_FULL: "the disk is full; make room"
            case .SQLITE_READONLY, .SQLITE_PERM, .SQLITE_AUTH: "it is not writable; give file and directory to the user that imsd runs as"
            case .SQLITE_CANTOPEN: "it can't be opened; make its directory, and give it to the user that imsd runs as"
            case .SQLITE_IOERR: "the disk reports errors; see dmesg"
            case .SQLITE_BUSY, .SQLITE_LOCKED: "another process holds it; is another imsd running?"
            default: "see the message"
            }
        return StoreError("the store \(path): \(error.message ?? "error \(error.resultCode.rawValue)"); \(remedy)")
    }
}
