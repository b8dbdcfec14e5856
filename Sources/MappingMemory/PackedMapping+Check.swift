import MATSignal

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
        guard record.count >= MappingBlock.recordOctetsMin, signature.count == Signature.octetsCount,
            certificate.count == Certificate.octetsCount
        else { return nil }
        let count = Int(UInt16(bigEndian: record.loadUnaligned(fromByteOffset: 18, as: UInt16.self)))
        guard count <= MappingRecord.locatorsMax, record.count == MappingBlock.recordOctetsMin + count * MappingBlock.locatorOctets,
            record[17] == 0, let prefix = Self.prefix(record, 0), let certified = Self.prefix(certificate, 0), certified == prefix,
            certificate[17] == 0, certificate[18] == 0, certificate[19] == 0
        else { return nil }
        var isAtHome = true
        for index in 0..<count {
            let start = MappingBlock.recordOctetsMin + index * MappingBlock.locatorOctets
            guard let locator = Self.prefix(record, start), locator.length == prefix.length, record[start + 18] == 0, record[start + 19] == 0
            else { return nil }
            for earlier in 0..<index where Self.prefix(record, MappingBlock.recordOctetsMin + earlier * MappingBlock.locatorOctets) == locator {
                return nil
            }
            if locator.address != prefix.address { isAtHome = false }
        }
        let lifetime = UInt32(bigEndian: record.loadUnaligned(fromByteOffset: 28, as: UInt32.self))
        // A withdrawal, without locators, may last as long as a node at home.
        guard lifetime > 0, lifetime <= (isAtHome ? MappingRecord.homeLifetimeMax : MappingRecord.lifetimeMax) else { return nil }
        guard let nodeKey = PublicKey(UnsafeRawBufferPointer(rebasing: certificate[Certificate.nodeKeyPlace])) else { return nil }
        return Facts(
            prefix: prefix,
            version: RecordVersion(nodeKey: nodeKey, notBefore: Self.word(certificate, 20), sequence: Self.word(record, 20)),
            expires: MappingRecord.expires(issued: Self.word(record, 32), lifetime: lifetime))
    }

    private static func word(_ octets: UnsafeRawBufferPointer, _ offset: Int) -> UInt64 {
        UInt64(bigEndian: octets.loadUnaligned(fromByteOffset: offset, as: UInt64.self))
    }

    /// An address and the prefix length behind it, as section 1 wants them.
    private static func prefix(_ octets: UnsafeRawBufferPointer, _ offset: Int) -> IPPrefix? {
        let address = IPAddress(high: word(octets, offset), low: word(octets, offset + 8))
        let length = octets[offset + 16]
        guard address.isUsableUnicast, length > 0, !address.isIPv4 || length > 96 else { return nil }
        return IPPrefix(address, length: length)
    }
}
