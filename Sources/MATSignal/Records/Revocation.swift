extension CertifiedKey {
    /// Whether a record without locators that is under it, with this sequence and of this time (Unix, ms), was made by an IMS in the place of a
    /// mapping whose certificate is revoked (IMSCore's Tombstone), rather than by a node that is nowhere: of such a record everything begins at one
    /// moment, and it lasts as long as a record can, which no node's own does.
    public func isRevocation(sequence: UInt64, issued: UInt64) -> Bool {
        sequence == notBefore && issued == notBefore && notAfter >= notBefore
            && notAfter - notBefore == UInt64(MappingRecord.homeLifetimeMax) * 1000
    }
}

extension CertifiedMapping {
    /// Whether an IMS made it in the place of a mapping whose certificate is revoked.
    public var isRevocation: Bool {
        record.isWithdrawal && certificate.key.isRevocation(sequence: record.sequence, issued: record.issued)
    }
}
