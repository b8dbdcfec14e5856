import MATSignal

/// A peer's record as it came, with what it is to be checked by: a certificate that came along, or the one of the record in force
/// if the sender only named it.
struct OfferedRecord: Hashable, Sendable {
    let mapping: SignedMapping
    let key: CertifiedKey
    /// The prefix that the certificate is for.
    let prefix: IPPrefix
    /// `nil` if it is the one of the record in force, which was verified with that.
    private let certificate: Certificate?

    init(_ mapping: SignedMapping, under certificate: Certificate) {
        self.mapping = mapping
        key = certificate.key
        prefix = certificate.prefix
        self.certificate = certificate
    }

    init(_ mapping: SignedMapping, underKnownOf peer: Peer) {
        self.mapping = mapping
        key = peer.record.key
        prefix = IPPrefix(covering: peer.hoa.address, length: peer.record.prefixLength)
        certificate = nil
    }

    var record: MappingRecord { mapping.record }
    var hoa: HomeAddress { mapping.record.hoa }
    var version: RecordVersion { RecordVersion(nodeKey: key.nodeKey, notBefore: key.notBefore, sequence: mapping.record.sequence) }

    /// Whether its certificate says what the peer's does: then that was verified before.
    func isUnderKnown(of peer: Peer) -> Bool { key == peer.record.key && prefix.length == peer.record.prefixLength }

    func checkTimesAndNames(asked: HomeAddress?, now: Now) throws(VerificationFailure) {
        try mapping.checkTimesAndNames(under: key, of: prefix, asked: asked, now: now)
    }

    /// The whole check of section 5. Of a certificate verified before it asks whether its key is still in the DNS.
    func verify(asked: HomeAddress?, keys: [PublicKey], now: Now) throws(VerificationFailure) {
        if let certificate {
            try CertifiedMapping(mapping: mapping, certificate: certificate).verify(asked: asked, keys: keys, now: now)
            return
        }
        try checkTimesAndNames(asked: asked, now: now)
        guard keys.contains(where: { $0.id == key.issuerID }) else {
            throw VerificationFailure("certificate for \(prefix) was signed by an IMS key that DNS no longer lists for it (\(keys.count) found)")
        }
        try verifySignature()
    }

    func verifySignature() throws(VerificationFailure) { try mapping.verifySignature(by: key.nodeKey) }
}
