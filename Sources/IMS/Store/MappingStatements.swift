import GRDB
import IMSCore
import MATSignal
import MappingMemory

/// The statements that write changes, prepared once. For the thread of their connection; let go before it is closed.
final class MappingStatements {
    private let begin: RawStatement
    private let commit: RawStatement
    private let rollback: RawStatement
    private let mapping: RawStatement
    private let held: RawStatement
    private let forget: RawStatement
    private let issued: RawStatement
    private let forgetIssued: RawStatement
    private let save: RawStatement
    private let keep: RawStatement
    private let undo: RawStatement
    private let addItem: RawStatement
    private let replaceItem: RawStatement
    private let heldItem: RawStatement

    init(_ database: Database) throws(DatabaseError) {
        begin = try RawStatement(database, "BEGIN IMMEDIATE")
        commit = try RawStatement(database, "COMMIT")
        rollback = try RawStatement(database, "ROLLBACK")
        // As `RecordVersion.isNewer`: of one node key by sequence, else by the certificates' beginnings. Octets count from 1 in SQL.
        let (keyStart, keyCount) = (Certificate.nodeKeyPlace.lowerBound + 1, Certificate.nodeKeyPlace.count)
        mapping = try RawStatement(
            database,
            """
            INSERT INTO mapping (\(MappingRow.columns)) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
            ON CONFLICT DO UPDATE SET notBefore = excluded.notBefore, sequence = excluded.sequence, record = excluded.record,
                signature = excluded.signature, certificate = excluded.certificate, source = excluded.source,
                sourcePort = excluded.sourcePort, local = excluded.local, provenAt = excluded.provenAt
            WHERE CASE WHEN substr(excluded.certificate, \(keyStart), \(keyCount)) = substr(certificate, \(keyStart), \(keyCount))
                THEN excluded.sequence > sequence ELSE (excluded.notBefore, excluded.sequence) > (notBefore, sequence) END
                OR notBefore > ?
            """)
        held = try RawStatement(database, "SELECT \(MappingRow.columns) FROM mapping WHERE hoa = ? AND prefixLength = ?")
        forget = try RawStatement(database, "DELETE FROM mapping WHERE hoa = ? AND prefixLength = ?")
        forgetIssued = try RawStatement(database, "DELETE FROM issued WHERE hoa = ? AND prefixLength = ? AND notBefore > ?")
        save = try RawStatement(database, "SAVEPOINT change")
        keep = try RawStatement(database, "RELEASE change")
        undo = try RawStatement(database, "ROLLBACK TO change")
        addItem = try RawStatement(database, "INSERT OR IGNORE INTO item (kind, key, version, value) VALUES (?, ?, ?, ?)")
        replaceItem = try RawStatement(database, "UPDATE item SET version = ?3, value = ?4 WHERE kind = ?1 AND key = ?2 AND version = ?3 - 1")
        heldItem = try RawStatement(database, "SELECT version, value FROM item WHERE kind = ? AND key = ?")
        issued = try RawStatement(database, "INSERT OR IGNORE INTO issued (hoa, prefixLength, notBefore, certificate) VALUES (?, ?, ?, ?)")
    }

    /// Makes all the changes durable in one transaction, or none.
    ///
    /// - Returns: what came of each.
    func write(_ changes: [StoreChange]) throws -> [StoreOutcome.Result] {
        try begin.run()
        do {
            var results: [StoreOutcome.Result] = []
            results.reserveCapacity(changes.count)
            for change in changes { results.append(try write(change)) }
            try commit.run()
            return results
        } catch {
            // After some errors SQLite has rolled back by itself, and says that there is no transaction.
            try? rollback.run()
            throw error
        }
    }

    private func write(_ change: StoreChange) throws -> StoreOutcome.Result {
        let latest = change.latest.map { Int64(clamping: $0) } ?? .max
        if !change.rows.isEmpty {
            try save.run()
            guard try change.relied.allSatisfy({ try held($0.prefix)?.certified.version == $0.version }), try replace(change.rows) else {
                // Some may have been written.
                try undo.run()
                try keep.run()
                return .conflict(try change.rows.map { try heldNow($0) })
            }
            for certificate in change.certificates { try write(certificate) }
            try keep.run()
        }
        if let certificate = change.issued {
            if latest < .max { try forget(certificate.prefix, after: latest) }
            try write(certificate)
        }
        guard let mapping = change.mapping else { return .durable }
        if try replace(mapping, latest: latest) { return .durable }
        // The file holds something newer than memory does: written by another hand, or not readable at the start. What can be read
        // counts; what can't gives way to what a node has just signed.
        if let held = try held(mapping.record.prefix) { return .outrun(by: held) }
        try forget(mapping.record)
        _ = try replace(mapping, latest: latest)
        return .durable
    }

    /// - Returns: whether the row was written; it is not if what it holds is as new.
    private func replace(_ new: StoredMapping, latest: Int64) throws -> Bool {
        let record = new.record
        let certificate = new.certified.certificate
        // All in one block: a record begins with its HoA.
        var octets = record.octets
        let recordEnd = octets.count
        octets += new.certified.mapping.signature.octets
        let signatureEnd = octets.count
        octets += certificate.octets
        let certificateEnd = octets.count
        octets += new.source.address.octets
        octets += new.local.octets
        return try octets.withUnsafeBytes { octets in
            func part(_ range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: octets[range]) }
            mapping.bind(1, octets: part(0..<16))
            mapping.bind(2, Int64(record.prefixLength))
            // SQLite's integers are signed; both are checked to be near the present before they come here.
            mapping.bind(3, Int64(bitPattern: certificate.notBefore))
            mapping.bind(4, Int64(bitPattern: record.sequence))
            mapping.bind(5, octets: part(0..<recordEnd))
            mapping.bind(6, octets: part(recordEnd..<signatureEnd))
            mapping.bind(7, octets: part(signatureEnd..<certificateEnd))
            mapping.bind(8, octets: part(certificateEnd..<certificateEnd + 16))
            mapping.bind(9, Int64(new.source.port))
            mapping.bind(10, octets: part(certificateEnd + 16..<certificateEnd + 32))
            mapping.bind(11, Int64(bitPattern: new.provenAt))
            mapping.bind(12, latest)
            try mapping.run()
            return mapping.changesCount > 0
        }
    }

    /// - Returns: whether all were written; otherwise some may have been.
    private func replace(_ rows: [StoredRow]) throws -> Bool {
        for row in rows {
            guard row.version <= 1 ? try Self.write(row, addItem) : try Self.write(row, replaceItem) else { return false }
        }
        return true
    }

    /// - Returns: whether it was written.
    private static func write(_ row: StoredRow, _ statement: borrowing RawStatement) throws -> Bool {
        let octets = row.key + row.value
        try octets.withUnsafeBytes { octets in
            statement.bind(1, Int64(row.kind.rawValue))
            statement.bind(2, octets: UnsafeRawBufferPointer(rebasing: octets[..<row.key.count]))
            statement.bind(3, Int64(bitPattern: row.version))
            statement.bind(4, octets: UnsafeRawBufferPointer(rebasing: octets[row.key.count...]))
            try statement.run()
        }
        return statement.changesCount > 0
    }

    private func heldNow(_ row: StoredRow) throws -> StoredRow {
        try row.key.withUnsafeBytes { key in
            heldItem.bind(1, Int64(row.kind.rawValue))
            heldItem.bind(2, octets: key)
            defer { heldItem.reset() }
            guard try heldItem.step() else { return StoredRow(row.kind, key: row.key, value: [], version: 0) }
            return StoredRow(row.kind, key: row.key, value: Array(heldItem.octets(1)), version: UInt64(bitPattern: heldItem.int(0)))
        }
    }

    private func held(_ prefix: IPPrefix) throws -> StoredMapping? {
        try prefix.address.octets.withUnsafeBytes { hoa in
            held.bind(1, octets: hoa)
            held.bind(2, Int64(prefix.length))
            defer { held.reset() }
            guard try held.step() else { return nil }
            var packed = PackedMappings()
            guard MappingRow.read(held, into: &packed) else { return nil }
            return packed.stored.first ?? nil
        }
    }

    private func forget(_ record: MappingRecord) throws {
        try record.hoa.address.octets.withUnsafeBytes { hoa in
            forget.bind(1, octets: hoa)
            forget.bind(2, Int64(record.prefixLength))
            try forget.run()
        }
    }

    private func forget(_ prefix: IPPrefix, after latest: Int64) throws {
        try prefix.address.octets.withUnsafeBytes { hoa in
            forgetIssued.bind(1, octets: hoa)
            forgetIssued.bind(2, Int64(prefix.length))
            forgetIssued.bind(3, latest)
            try forgetIssued.run()
        }
    }

    private func write(_ certificate: Certificate) throws {
        try certificate.octets.withUnsafeBytes { octets in
            // A certificate begins with its HoA.
            issued.bind(1, octets: UnsafeRawBufferPointer(rebasing: octets[0..<16]))
            issued.bind(2, Int64(certificate.prefixLength))
            issued.bind(3, Int64(bitPattern: certificate.notBefore))
            issued.bind(4, octets: octets)
            try issued.run()
        }
    }
}
