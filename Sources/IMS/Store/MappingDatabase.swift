import CLinux
import FoundationEssentials
import GRDB
import Glibc
import IMSCore

import enum MATRuntime.TextFile

/// The SQLite file's writing side: schema, secrets, and one transaction per batch of changes. Used by one thread.
///
/// A registration's row is never deleted: it is also the mark below which no version is accepted again, withdrawn or expired.
/// The write itself compares versions, so that not even a bug above could take a row back.
final class MappingDatabase {
    /// Pages of the write-ahead log from which on it is brought into the file by another thread (16 MiB at 4 KiB a page).
    static let checkpointPages = 4096

    let path: String
    private let queue: DatabaseQueue
    private let log = WALCounter()
    private var statements: MappingStatements?

    /// Opens the file, makes it if it isn't there, and brings its schema up to date.
    init(path: String) throws(StoreError) {
        self.path = path
        Self.protect(path)
        do {
            queue = try DatabaseQueue(path: path, configuration: Self.configuration(label: "mapping store"))
            if try !queue.unsafeRead({ try Self.migrator.hasCompletedMigrations($0) }) {
                let newer = try queue.unsafeRead { try Self.migrator.hasBeenSuperseded($0) }
                guard !newer else {
                    throw StoreError("the store \(path) was written by a newer version of imsd; install that one", kind: .unusable)
                }
                // Nothing is added to a database of somebody else.
                guard try queue.unsafeRead({ try Self.isOurs($0) }) else {
                    throw StoreError(MappingStore.notOurs(path), kind: .unusable)
                }
                try Self.migrator.migrate(queue)
            }
            try queue.inDatabase { database in
                log.watch(database)
                statements = try MappingStatements(database)
            }
        } catch let error as StoreError {
            throw error
        } catch {
            throw StoreError(error, path)
        }
    }

    /// Makes the file before SQLite does, or takes from it what others may do with it: it holds the secrets of cookies. Only its owner, and its
    /// group if somebody allowed that, may read it, whatever the umask of who started imsd. SQLite gives its log and the log's index the
    /// same mode. What can't be done here, opening will complain about.
    private static func protect(_ path: String) {
        let made = mat_open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
        if made >= 0 {
            // The log and its index SQLite gives to whom the file belongs.
            TextFile.giveToDirectorysOwner(made, path)
            Glibc.close(made)
            return
        }
        for file in [path, path + "-wal", path + "-shm"] {
            var status = stat()
            guard stat(file, &status) == 0, status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o137 != 0 else { continue }
            chmod(file, status.st_mode & 0o640)
        }
    }

    static func configuration(label: String) -> Configuration {
        var configuration = Configuration()
        configuration.label = label
        // A backup or a checkpoint holds the file for moments.
        configuration.busyMode = .timeout(5)
        configuration.prepareDatabase { database in
            // WAL with FULL: a committed transaction survives power loss, at one fdatasync a batch.
            try database.execute(sql: "PRAGMA journal_mode = WAL")
            try database.execute(sql: "PRAGMA synchronous = FULL")
            // KiB: what updates of a million mappings meet twice is mostly the inner pages.
            try database.execute(sql: "PRAGMA cache_size = -16384")
            // Damage is found where it is, not where it leads to.
            try database.execute(sql: "PRAGMA cell_size_check = ON")
        }
        return configuration
    }

    /// Empty, or made by the migrations here.
    private static func isOurs(_ database: Database) throws -> Bool {
        if try database.tableExists("grdb_migrations") { return true }
        return try Int.fetchOne(database, sql: "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'") == 0
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
        // What joining keeps: tokens and leases.
        migrator.registerMigration("2") { database in
            try database.execute(
                sql: """
                    CREATE TABLE item (
                        kind INTEGER NOT NULL, key BLOB NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL,
                        PRIMARY KEY (kind, key)
                    ) WITHOUT ROWID;
                    """)
        }
        return migrator
    }

    // MARK: Changes

    /// Makes all the changes durable in one transaction, or none.
    ///
    /// - Returns: what came of each.
    func write(_ changes: [StoreChange]) throws(StoreError) -> [StoreOutcome.Result] {
        do {
            return try queue.inDatabase { _ in
                guard let statements else { throw StoreError("the store \(path) is closed") }
                return try statements.write(changes)
            }
        } catch {
            throw (error as? StoreError) ?? StoreError(error, path)
        }
    }

    /// Whether a transaction can be made durable now: one that changes nothing but takes the same way.
    func probe() throws(StoreError) {
        do {
            // It may be the log itself that fills the disk. Where the file can take it, that ends here.
            queue.inDatabase { database in _ = try? database.checkpoint(.truncate) }
            try queue.write { database in
                // Its page is written even if the number is the same. GRDB has its own table for migrations, so this one is free.
                try database.execute(sql: "PRAGMA user_version = 1")
            }
        } catch {
            throw StoreError(error, path)
        }
    }

    // MARK: Secrets

    /// What cookies are made with, the newest first, at most two.
    func secrets() throws(StoreError) -> [CookieSecret] {
        do {
            return try queue.read { database in
                try Row.fetchAll(database, sql: "SELECT madeAt, octets FROM cookieSecret ORDER BY madeAt DESC LIMIT 2").compactMap { row in
                    guard let octets = Data.fromDatabaseValue(row["octets"]), octets.count == CookieSecret.octetsCount,
                        let madeAt = row["madeAt"] as Int64?
                    else { return nil }
                    return CookieSecret(octets: Array(octets), madeAt: UInt64(bitPattern: madeAt))
                }
            }
        } catch {
            throw StoreError(error, path)
        }
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
            throw StoreError(error, path)
        }
    }

    // MARK: The write-ahead log

    /// Whether there is enough in the log for a checkpoint to be worth its sync.
    var wantsCheckpoint: Bool { log.pages >= Self.checkpointPages }

    /// Brings into the file what another thread's checkpoint has left over; then the log begins anew with the next change, and does not
    /// grow. Short, because that one has just done the bulk.
    func finishCheckpoint() throws(StoreError) {
        do {
            try queue.inDatabase { database in _ = try database.checkpoint(.passive) }
        } catch {
            throw StoreError(error, path)
        }
    }

    /// Brings what the log holds now into the file, while the writer goes on; with a connection of its own, for another thread.
    static func checkpoint(path: String) throws(StoreError) {
        do {
            let queue = try DatabaseQueue(path: path, configuration: configuration(label: "mapping store, checkpoints"))
            try queue.inDatabase { database in _ = try database.checkpoint(.passive) }
            try queue.close()
        } catch {
            throw StoreError(error, path)
        }
    }

    /// Anything else, for tests.
    func execute(_ sql: String) throws(StoreError) {
        do {
            try queue.inDatabase { database in try database.execute(sql: sql) }
        } catch {
            throw StoreError(error, path)
        }
    }

    func close() {
        queue.inDatabase { _ in statements = nil }
        try? queue.close()
    }
}
