/// Which of two records of one HoA is newer (section 4): by the certificate's not before, then by sequence.
public struct RecordVersion: Hashable, Comparable, Sendable {
    /// Unix time in ms.
    public var notBefore: UInt64
    public var sequence: UInt64

    public init(notBefore: UInt64, sequence: UInt64) {
        self.notBefore = notBefore
        self.sequence = sequence
    }

    public init(_ record: MappingRecord, _ certificate: Certificate) {
        self.init(notBefore: certificate.notBefore, sequence: record.sequence)
    }

    public static func < (a: RecordVersion, b: RecordVersion) -> Bool {
        (a.notBefore, a.sequence) < (b.notBefore, b.sequence)
    }
}

/// A mapping with the certificate that its signature is checked with: what an MA Answer gives and a store keeps.
public struct CertifiedMapping: Hashable, Sendable {
    public var mapping: SignedMapping
    public var certificate: Certificate

    public init(mapping: SignedMapping, certificate: Certificate) {
        self.mapping = mapping
        self.certificate = certificate
    }

    public var record: MappingRecord { mapping.record }
    public var hoa: HomeAddress { mapping.record.hoa }
    public var version: RecordVersion { RecordVersion(record, certificate) }
}
