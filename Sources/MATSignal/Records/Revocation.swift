extension CertifiedMapping {
    /// Whether an IMS made it in the place of a mapping whose certificate is revoked (IMSCore's Tombstone), rather than a node that is nowhere: of
    /// such a record everything begins at one moment, and it lasts as long as a record can, which no node's own does.
    public var isRevocation: Bool {
        let (begin, life) = (certificate.notBefore, UInt64(MappingRecord.homeLifetimeMax) * 1000)
        return record.isWithdrawal && record.sequence == begin && record.issued == begin && certificate.notAfter >= begin
            && certificate.notAfter - begin == life
    }
}
