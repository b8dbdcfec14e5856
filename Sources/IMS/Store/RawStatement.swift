import GRDB
import GRDBSQLite

/// A prepared statement without a library's conveniences: rows are read where SQLite keeps them and values bound where they
/// lie, so that a million of them make no object each. The one place of this module where SQLite's C interface is called.
///
/// To be used in the thread of its connection, and to be gone before that is closed.
struct RawStatement: ~Copyable {
    private let statement: OpaquePointer
    private let connection: OpaquePointer

    init(_ database: Database, _ sql: String) throws(DatabaseError) {
        guard let connection = database.sqliteConnection else { throw DatabaseError(resultCode: .SQLITE_MISUSE, message: "it is closed") }
        var statement: OpaquePointer?
        let code = sqlite3_prepare_v3(connection, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil)
        guard code == SQLITE_OK, let statement else { throw Self.error(code, connection) }
        self.statement = statement
        self.connection = connection
    }

    deinit { sqlite3_finalize(statement) }

    // MARK: Values. Indices begin at 1, as in SQL.

    /// The octets must stay where they are until the statement was stepped.
    func bind(_ index: Int32, octets: UnsafeRawBufferPointer) {
        // No destructor: SQLite reads them in place (SQLITE_STATIC).
        sqlite3_bind_blob(statement, index, octets.baseAddress, Int32(truncatingIfNeeded: octets.count), nil)
    }

    func bind(_ index: Int32, _ value: Int64) { sqlite3_bind_int64(statement, index, value) }

    // MARK: Running

    /// - Returns: whether there is a row.
    func step() throws(DatabaseError) -> Bool {
        switch sqlite3_step(statement) {
        case SQLITE_ROW: return true
        case SQLITE_DONE: return false
        case let code: throw Self.error(code, connection)
        }
    }

    /// Makes it ready to be run again; what went wrong in the last run was told by `step`.
    func reset() { sqlite3_reset(statement) }

    /// Runs a statement that has no rows.
    func run() throws(DatabaseError) {
        defer { reset() }
        while try step() {}
    }

    /// The rows that the last write changed.
    var changesCount: Int { Int(sqlite3_changes(connection)) }

    // MARK: The row. Columns begin at 0; their octets hold until the next step.

    func octets(_ column: Int32) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: sqlite3_column_blob(statement, column), count: Int(sqlite3_column_bytes(statement, column)))
    }

    func isNull(_ column: Int32) -> Bool { sqlite3_column_type(statement, column) == SQLITE_NULL }
    func int(_ column: Int32) -> Int64 { sqlite3_column_int64(statement, column) }

    private static func error(_ code: Int32, _ connection: OpaquePointer) -> DatabaseError {
        DatabaseError(resultCode: ResultCode(rawValue: code), message: sqlite3_errmsg(connection).map { String(cString: $0) })
    }
}

/// How many pages the write-ahead log has. SQLite tells it after each commit.
final class WALCounter {
    private let count = UnsafeMutablePointer<Int32>.allocate(capacity: 1)

    var pages: Int { Int(count.pointee) }

    init() { count.initialize(to: 0) }
    deinit { count.deallocate() }

    /// To be called in the connection's thread. The counter must outlive the connection. Takes the place of automatic checkpoints.
    func watch(_ database: Database) {
        guard let connection = database.sqliteConnection else { return }
        sqlite3_wal_hook(
            connection,
            { context, _, _, pages in
                context?.assumingMemoryBound(to: Int32.self).pointee = pages
                return SQLITE_OK
            }, count)
    }
}
