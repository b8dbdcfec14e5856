import GRDB
import IMSCore
import MATSignal

/// Reads all that the store holds, in the order of its keys and in parts. A connection of its own, so that changes are written
/// meanwhile; used by one thread.
///
/// A damaged page ends SQLite's scan at it. The reader then goes on from the other end, and at points between, so that only the
/// rows of the page itself are missing (`salvage`).
final class MappingReader {
    /// Mappings in one part: what the core takes in at a time while messages wait, some milliseconds.
    static let mappingsPerPartMax = 1024
    /// With two locators.
    static let octetsPerMappingUsual = 336
    /// Starting points that are tried within damaged stretches.
    static let salvagePointsMax = 512

    private let path: String
    private let queue: DatabaseQueue
    private let deliver: (StoreContents) -> Void
    private var part = StoreContents()
    private(set) var mappingsCount = 0
    /// What could not be read because the file is damaged, in words. Empty if all was read.
    private(set) var damage: [String] = []

    /// - Parameters:
    ///   - isAlone: whether to read without the file that connections share, which can't be made on a full disk. Nobody else can use
    ///     the store then.
    ///   - deliver: gets each part.
    init(path: String, isAlone: Bool, deliver: @escaping (StoreContents) -> Void) throws(StoreError) {
        self.path = path
        self.deliver = deliver
        var configuration = Configuration()
        configuration.label = "mapping store, reading"
        configuration.busyMode = .timeout(5)
        configuration.readonly = !isAlone
        configuration.prepareDatabase { database in
            if isAlone { try database.execute(sql: "PRAGMA locking_mode = EXCLUSIVE") }
            try database.execute(sql: "PRAGMA cell_size_check = ON")
        }
        do {
            queue = try DatabaseQueue(path: path, configuration: configuration)
        } catch {
            throw StoreError(error, path)
        }
    }

    func close() { try? queue.close() }

    /// Reads everything.
    ///
    /// - Returns: `false` if there are no tables yet, as in a file that a full disk let be made and no more.
    /// - Throws: if nothing can be read at all.
    @discardableResult func read() throws(StoreError) -> Bool {
        do {
            let isMade = try queue.inDatabase { database in
                guard try database.tableExists("mapping") else { return false }
                try readMappings(database)
                try readIssued(database)
                try readItems(database)
                return true
            }
            guard isMade else { return false }
        } catch {
            throw StoreError(error, path)
        }
        hand()
        return true
    }

    private func hand() {
        guard !part.isEmpty else { return }
        deliver(part)
        part = StoreContents()
        part.mappings.reserve(octets: Self.mappingsPerPartMax * Self.octetsPerMappingUsual)
    }

    // MARK: Mappings

    /// Where a scan stands: HoA and prefix length, as the table is ordered.
    private struct Key: Comparable {
        var hoa: UInt128
        var length: UInt8

        static let first = Key(hoa: 0, length: 0)
        static let last = Key(hoa: .max, length: .max)
        static func < (a: Key, b: Key) -> Bool { (a.hoa, a.length) < (b.hoa, b.length) }

        var address: IPAddress { IPAddress(high: UInt64(truncatingIfNeeded: hoa >> 64), low: UInt64(truncatingIfNeeded: hoa)) }

        init(hoa: UInt128, length: UInt8) {
            self.hoa = hoa
            self.length = length
        }

        init?(_ row: borrowing RawStatement) {
            guard let address = MappingRow.address(row.octets(0)), let length = UInt8(exactly: row.int(1)) else { return nil }
            self.init(hoa: UInt128(address.high) << 64 | UInt128(address.low), length: length)
        }
    }

    private func readMappings(_ database: Database) throws {
        let query = "SELECT \(MappingRow.columns) FROM mapping WHERE (hoa, prefixLength) > (?, ?) AND (hoa, prefixLength) < (?, ?)"
        let up = try RawStatement(database, "\(query) ORDER BY hoa, prefixLength")
        let down = try RawStatement(database, "\(query) ORDER BY hoa DESC, prefixLength DESC")
        let (end, failure) = scan(up, Key.first, Key.last)
        guard let failure else { return }
        try salvage(up, down, end, failure)
    }

    /// Reads the rows between two keys as far as it can.
    ///
    /// - Returns: the last key that was read, or `from` (`to` if it reads downwards) if there was none; and why it ended early.
    private func scan(_ statement: borrowing RawStatement, _ from: Key, _ to: Key, isDown: Bool = false) -> (end: Key, failure: DatabaseError?) {
        var end = isDown ? to : from
        let low = from.address.octets
        let high = to.address.octets
        let failure = low.withUnsafeBytes { low in
            high.withUnsafeBytes { high -> DatabaseError? in
                statement.bind(1, octets: low)
                statement.bind(2, Int64(from.length))
                statement.bind(3, octets: high)
                statement.bind(4, Int64(to.length))
                defer { statement.reset() }
                do throws(DatabaseError) {
                    while try statement.step() {
                        take(statement)
                        if let key = Key(statement) { end = key }
                    }
                    return nil
                } catch {
                    return error
                }
            }
        }
        return (end, failure)
    }

    private func take(_ row: borrowing RawStatement) {
        if MappingRow.read(row, into: &part.mappings) {
            mappingsCount += 1
        } else {
            part.unreadable.append(Self.name(row))
        }
        if part.mappings.count + part.unreadable.count >= Self.mappingsPerPartMax { hand() }
    }

    private static func name(_ row: borrowing RawStatement) -> String {
        MappingRow.address(row.octets(0)).map { "\($0)" } ?? "a row without a readable HoA"
    }

    /// Goes on behind a place that can't be read: from the upper end down to the next such place, then from points halfway in what
    /// is left, the widest stretch first, until all points are used up.
    private func salvage(_ up: borrowing RawStatement, _ down: borrowing RawStatement, _ end: Key, _ failure: DatabaseError) throws {
        let upper = scan(down, end, Key.last, isDown: true).end
        // Not one row from either side: this is not a damaged page but no table.
        if mappingsCount == 0, part.isEmpty, end == Key.first, upper == Key.last { throw failure }
        var gaps = [(low: end, high: upper)]
        var points = Self.salvagePointsMax
        var lost: [(low: Key, high: Key)] = []
        while !gaps.isEmpty {
            let gap = gaps.removeFirst()
            let middle = Key(hoa: gap.low.hoa + (gap.high.hoa - gap.low.hoa) / 2, length: .max)
            guard points > 0, gap.low < middle, middle < gap.high else {
                lost.append(gap)
                continue
            }
            points -= 1
            let lower = scan(down, gap.low, middle, isDown: true)
            let upper = scan(up, middle, gap.high)
            if lower.failure != nil { gaps.append((gap.low, lower.end)) }
            if upper.failure != nil { gaps.append((upper.end, gap.high)) }
        }
        hand()
        // Neighbours that differ only by a point that was tried in vain are one place.
        lost.sort { $0.low < $1.low }
        var places: [(low: Key, high: Key)] = []
        for gap in lost {
            if let last = places.last, last.high >= gap.low { places[places.count - 1].high = gap.high } else { places.append(gap) }
        }
        damage = places.map { "between \($0.low.address) and \($0.high.address)" }
        if damage.isEmpty { damage = ["\(failure.message ?? "error \(failure.resultCode.rawValue)")"] }
    }

    // MARK: Certificates

    /// Those alone that are newer than the mapping's own.
    private func readIssued(_ database: Database) throws {
        let statement = try RawStatement(
            database,
            """
            SELECT i.hoa, i.prefixLength, MAX(i.notBefore), i.certificate, m.notBefore
            FROM issued AS i LEFT JOIN mapping AS m ON m.hoa = i.hoa AND m.prefixLength = i.prefixLength
            GROUP BY i.hoa, i.prefixLength
            """)
        do throws(DatabaseError) {
            while try statement.step() {
                guard statement.isNull(4) || statement.int(2) > statement.int(4) else { continue }
                if let certificate = try? Certificate(octets: Array(statement.octets(3))) {
                    part.issued.append(certificate)
                } else {
                    part.unreadable.append("the certificate of \(Self.name(statement))")
                }
                if part.issued.count >= Self.mappingsPerPartMax { hand() }
            }
        } catch {
            damage.append("in the table of certificates: \(error.message ?? "error \(error.resultCode.rawValue)")")
        }
    }

    // MARK: Tokens and leases

    private func readItems(_ database: Database) throws {
        // A file of before, on a disk that is full now, has no such table yet.
        guard try database.tableExists("item") else { return }
        let statement = try RawStatement(database, "SELECT kind, key, version, value FROM item")
        do throws(DatabaseError) {
            while try statement.step() {
                let key = Array(statement.octets(1))
                guard let kind = UInt8(exactly: statement.int(0)).flatMap(StoredRow.Kind.init) else {
                    part.unreadable.append("an item of kind \(statement.int(0))")
                    continue
                }
                part.rows.append(StoredRow(kind, key: key, value: Array(statement.octets(3)), version: UInt64(bitPattern: statement.int(2))))
                if part.rows.count >= Self.mappingsPerPartMax { hand() }
            }
        } catch {
            damage.append("in the table of tokens and leases: \(error.message ?? "error \(error.resultCode.rawValue)")")
        }
    }
}
