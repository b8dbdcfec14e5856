import MATSignal

/// A row of table `mapping`, and what makes it worth believing.
///
/// What stands twice in it (HoA, prefix length, sequence and not-before, once as a column and once inside of what was signed) must
/// agree: damage that leaves the file's structure whole is found by that, and by the parts' own formats. What then still is wrong
/// the nodes find, since they check the signature.
enum MappingRow {
    static let columns = "hoa, prefixLength, notBefore, sequence, record, signature, certificate, source, sourcePort, local, provenAt"

    /// Adds the statement's row to the others.
    ///
    /// - Returns: whether it could be read.
    static func read(_ row: borrowing RawStatement, into mappings: inout PackedMappings) -> Bool {
        let recordOctets = row.octets(4)
        let signature = row.octets(5)
        let certificateOctets = row.octets(6)
        guard PackedMappings.recordOctets.contains(recordOctets.count), signature.count == Signature.octetsCount,
            certificateOctets.count == Certificate.octetsCount,
            let record = try? MappingRecord(octets: Array(recordOctets)),
            let certificate = try? Certificate(octets: Array(certificateOctets)),
            let hoa = address(row.octets(0)), hoa == record.hoa.address, row.int(1) == Int64(record.prefixLength),
            row.int(2) == Int64(bitPattern: certificate.notBefore), row.int(3) == Int64(bitPattern: record.sequence),
            certificate.hoa == record.hoa, certificate.prefixLength == record.prefixLength,
            let source = address(row.octets(7)), let port = UInt16(exactly: row.int(8)), let local = address(row.octets(9))
        else { return false }
        return mappings.append(
            record: recordOctets, signature: signature, certificate: certificateOctets, source: Endpoint(source, port: port), local: local,
            provenAt: UInt64(bitPattern: row.int(10)))
    }

    static func address(_ octets: UnsafeRawBufferPointer) -> IPAddress? {
        guard octets.count == 16 else { return nil }
        return IPAddress(
            high: UInt64(bigEndian: octets.loadUnaligned(as: UInt64.self)),
            low: UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
    }
}
