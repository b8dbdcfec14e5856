import MATSignal
import MappingMemory

/// A row of table `mapping`, and what makes it worth believing.
///
/// What stands twice in it (HoA, prefix length, sequence and not-before, once as a column and once inside of what was signed) must
/// agree: damage that leaves the file's structure whole is found by that, and by the parts' own formats. What then still is wrong
/// the nodes find, since they check the signature.
///
/// A million rows are read at a start, so the formats are looked at in place; whether this sees them as the decoders do is a test.
enum MappingRow {
    static let columns = "hoa, prefixLength, notBefore, sequence, record, signature, certificate, source, sourcePort, local, provenAt"

    /// Adds the statement's row to the others.
    ///
    /// - Returns: whether it could be read.
    static func read(_ row: borrowing RawStatement, into mappings: inout PackedMappings) -> Bool {
        let record = row.octets(4)
        let signature = row.octets(5)
        let certificate = row.octets(6)
        guard let head = RecordHead(record), let issued = CertificateHead(certificate), signature.count == Signature.octetsCount,
            address(row.octets(0)) == head.hoa, row.int(1) == Int64(head.prefixLength), row.int(2) == Int64(bitPattern: issued.notBefore),
            row.int(3) == Int64(bitPattern: head.sequence), issued.hoa == head.hoa, issued.prefixLength == head.prefixLength,
            let source = address(row.octets(7)), let port = UInt16(exactly: row.int(8)), let local = address(row.octets(9))
        else { return false }
        return mappings.append(
            record: record, signature: signature, certificate: certificate, source: Endpoint(source, port: port), local: local,
            provenAt: UInt64(bitPattern: row.int(10)))
    }

    static func address(_ octets: UnsafeRawBufferPointer) -> IPAddress? {
        octets.count == 16 ? IPAddress(high: octets.bigEndian(0), low: octets.bigEndian(8)) : nil
    }

    /// Section 1: an address that a host can have, whose bits beyond the prefix are zero; IPv4's prefix includes what marks it as IPv4.
    fileprivate static func fits(_ address: IPAddress, _ length: UInt8) -> Bool {
        address.isUsableUnicast && length > address.family.leadingBits && IPPrefix(address, length: length) != nil
    }
}

/// The fields of a MAPPING value that the store needs, if the value is whole (protocol.md sections 4 and 11.1).
struct RecordHead {
    let hoa: IPAddress
    let prefixLength: UInt8
    let sequence: UInt64

    init?(_ octets: UnsafeRawBufferPointer) {
        let record = MappingRecordView(octets)
        guard record.fault == nil else { return nil }
        (hoa, prefixLength, sequence) = (record.hoa, record.prefixLength, record.sequence)
    }
}

/// Likewise of a CERTIFICATE value (section 5).
struct CertificateHead {
    let hoa: IPAddress
    let prefixLength: UInt8
    let notBefore: UInt64

    init?(_ octets: UnsafeRawBufferPointer) {
        guard octets.count == Certificate.octetsCount else { return nil }
        hoa = IPAddress(high: octets.bigEndian(0), low: octets.bigEndian(8))
        prefixLength = octets[16]
        notBefore = octets.bigEndian(20)
        guard MappingRow.fits(hoa, prefixLength), octets[17] == 0, octets[18] == 0, octets[19] == 0 else { return nil }
    }
}

extension UnsafeRawBufferPointer {
    /// The number in the eight octets at `offset`, of which the caller knows that they are there.
    fileprivate func bigEndian(_ offset: Int) -> UInt64 { UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self)) }
}
