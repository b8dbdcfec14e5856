/// Which of two records of one HoA is newer (protocol.md section 4): of one node key, the one of the higher sequence; of different
/// keys, the one whose certificate begins later. A renewed certificate of the same key therefore lifts no older record. Should two keys'
/// certificates begin in the same millisecond, the sequence decides, so that all receivers come to hold the same record.
///
/// Not `Comparable`: among records of three and more certificates the relation need not be transitive, so nothing may be sorted by it.
/// Two versions of which neither is newer than the other are of the same rank; the one that is held stays.
public struct RecordVersion: Hashable, Sendable {
    public var nodeKey: PublicKey
    /// Of the certificate, Unix time in ms.
    public var notBefore: UInt64
    public var sequence: UInt64

    public init(nodeKey: PublicKey, notBefore: UInt64, sequence: UInt64) {
        self.nodeKey = nodeKey
        self.notBefore = notBefore
        self.sequence = sequence
    }

    public init(_ record: MappingRecord, _ certificate: Certificate) {
        self.init(nodeKey: certificate.nodeKey, notBefore: certificate.notBefore, sequence: record.sequence)
    }

    public func isNewer(than other: RecordVersion) -> Bool {
        nodeKey == other.nodeKey ? sequence > other.sequence : (notBefore, sequence) > (other.notBefore, other.sequence)
    }

    public static func > (a: RecordVersion, b: RecordVersion) -> Bool { a.isNewer(than: b) }
    public static func < (a: RecordVersion, b: RecordVersion) -> Bool { b.isNewer(than: a) }
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
