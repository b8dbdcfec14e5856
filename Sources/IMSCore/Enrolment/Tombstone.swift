import MATSignal
import MappingMemory

/// What takes the place of a mapping whose certificate is revoked.
///
/// The protocol has no message that says "revoked", and a server can't sign for a node. But of two records of one HoA everybody
/// prefers that of the newer certificate (section 4). So the IMS issues one more certificate of the HoA, newer than all before, for a key
/// that it makes, uses once and forgets, and with that key signs a record without locators: a withdrawal. Answered and pushed like any
/// record, it makes peers and other IMSs drop the mapping, and because it is the newest, nothing signed under an earlier certificate is
/// believed again, here or there. It is stored as any mapping is, so it is as durable, and travels with exports. Enrolling the HoA anew
/// makes a still newer certificate: that is how a revocation ends.
public enum Tombstone {
    /// How long others serve and remember it: as long as a record without locators may live. The mark itself stays for ever.
    public static let lifetime: UInt32 = MappingRecord.homeLifetimeMax

    /// - Parameters:
    ///   - notBefore: later than that of every certificate of the HoA so far.
    ///   - seed: 32 random octets, used for nothing else.
    /// - Returns: `nil` if the seed has another length, or the crypto library fails.
    public static func make(of prefix: IPPrefix, notBefore: UInt64, seed: [UInt8], signedBy issuer: SigningKey)
        -> CertifiedMapping?
    {
        let end = notBefore.addingReportingOverflow(UInt64(lifetime) * 1000)
        guard let key = SigningKey(seed: seed), !end.overflow,
            let certificate = Certificate(
                issuing: HomeAddress(prefix.address), prefixLength: prefix.length, nodeKey: key.publicKey, notBefore: notBefore,
                notAfter: end.partialValue, with: issuer),
            let mapping = MappingRecord(
                hoa: HomeAddress(prefix.address), prefixLength: prefix.length, sequence: notBefore, lifetime: lifetime,
                issued: notBefore,
                locators: []
            ).signed(with: key)
        else { return nil }
        return CertifiedMapping(mapping: mapping, certificate: certificate)
    }
}

extension StoredMapping {
    /// - Parameter tombstone: what `Tombstone.make` made.
    package static func revocation(_ tombstone: CertifiedMapping) -> StoredMapping {
        StoredMapping(
            certified: tombstone, source: tombstoneSource, local: .unspecifiedIPv6, provenAt: tombstone.certificate.notBefore)
    }
}
