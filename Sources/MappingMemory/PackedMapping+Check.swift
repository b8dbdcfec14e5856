import MATSignal

// Why `unsafe` is right here: the parts have the lengths that `PackedMapping.init` checked. The record's is compared with its number of
// locators by `MappingRecordView`, before any of them is read.

extension PackedMapping {
    /// What a table and its keeper have to know of a mapping.
    package struct Facts {
        package var prefix: IPPrefix
        package var version: RecordVersion
        /// Unix time in ms.
        package var expires: UInt64
    }

    /// Looks at the octets as decoding would, without making values: a million mappings are read at a start.
    ///
    /// - Returns: `nil` if decoding would fail, or record and certificate are not of the same HoA prefix.
    package var wellFormed: Facts? {
        let view = unsafe MappingRecordView(record)
        guard view.fault == nil, unsafe OptionTable.standard.fault(of: OctetView(certificate), as: .certificate) == nil else { return nil }
        let prefix = IPPrefix(covering: view.hoa, length: view.prefixLength)
        guard unsafe Self.word(certificate, 0) == prefix.address.high, unsafe Self.word(certificate, 8) == prefix.address.low,
            unsafe certificate[16] == prefix.length
        else { return nil }
        guard let nodeKey = unsafe PublicKey(UnsafeRawBufferPointer(rebasing: certificate[Certificate.nodeKeyPlace])) else { return nil }
        return Facts(
            prefix: prefix,
            version: unsafe RecordVersion(nodeKey: nodeKey, notBefore: Self.word(certificate, 20), sequence: view.sequence),
            expires: MappingRecord.expires(issued: view.issued, lifetime: view.lifetime))
    }

    private static func word(_ octets: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
        UInt64(bigEndian: unsafe octets.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }
}
