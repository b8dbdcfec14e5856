import MATSignal
import MappingMemory

/// Why nothing was revoked, for the person who asked.
public struct RevocationRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension IMSCore {
    /// Revokes every certificate of the HoA that there is so far, and withdraws its mapping, as soon as that is durable.
    ///
    /// - Parameters:
    ///   - isUnknownAllowed: whether an HoA of which this server has never heard may be revoked: one whose certificate was issued
    ///     elsewhere and never used. Otherwise that is taken for a mistyped one.
    ///   - tombstone: made where the signing key is, if it is not here.
    /// - Returns: the ticket whose write decides, and what to do; `nil` if it is revoked already.
    public mutating func revoke(
        _ prefix: IPPrefix, isUnknownAllowed: Bool = false, tombstone: CertifiedMapping? = nil, now: Now
    ) throws(RevocationRefusal) -> (ticket: StoreTicket, actions: [IMSAction])? {
        guard configuration.served(covering: prefix) != nil else {
            let own = configuration.served.map(\.prefix.description).joined(separator: ", ")
            throw RevocationRefusal("\(prefix) is not within a prefix served here (\(own))")
        }
        if !isUnknownAllowed, issued[prefix] == nil, mappings[prefix] == nil {
            if let covering = mappings.entry(covering: prefix.address), covering.record.prefixLength < prefix.length {
                throw RevocationRefusal("\(prefix) belongs to the network \(covering.record.prefix); revoke that")
            }
            throw RevocationRefusal("nothing is known of \(prefix); if a certificate issued elsewhere is to be revoked, say so with --unknown")
        }
        let newest = (newestWrites[prefix].flatMap { writes[$0]?.mapping } ?? mappings[prefix])
        if let newest, newest.isRevocation, issued[prefix].map({ $0.notBefore <= newest.certified.certificate.notBefore }) ?? true {
            return nil
        }
        guard writes.count < configuration.limits.writesMax else {
            throw RevocationRefusal("too many writes are waiting for the store; try again")
        }
        let made: CertifiedMapping
        if let tombstone {
            made = try check(tombstone, of: prefix, now)
        } else {
            made = try makeTombstone(of: prefix, now)
        }
        let ticket = newTicket()
        let mapping = StoredMapping.revocation(made)
        writes[ticket] = PendingWrite(mapping: mapping, issued: made.certificate, waiting: [])
        newestWrites[prefix] = ticket
        actions.append(.commit(ticket, StoreChange(mapping: mapping, issued: made.certificate)))
        return (ticket, takeActions(now))
    }

    private mutating func makeTombstone(of prefix: IPPrefix, _ now: Now) throws(RevocationRefusal) -> CertifiedMapping {
        guard let signingKey = configuration.signingKey else {
            throw RevocationRefusal(
                "this server has no signing key; give `mat ims revoke` the key with --signing-key, on the machine where it is kept")
        }
        guard let notBefore = nextNotBefore(of: prefix, now) else {
            throw RevocationRefusal(
                "the newest certificate of \(prefix) begins more than 300 s ahead. If this host's clock is wrong, set it; if it was wrong when that was issued, `mat enrol --force` takes it back, for a key of your own if nobody is to have the address"
            )
        }
        guard let tombstone = tombstone(of: prefix, notBefore: notBefore, signingKey) else {
            throw RevocationRefusal("the crypto library does not sign; this should not happen")
        }
        return tombstone
    }

    mutating func tombstone(of prefix: IPPrefix, notBefore: UInt64, _ signingKey: SigningKey) -> CertifiedMapping? {
        let seed = (0..<8).flatMap { _ in withUnsafeBytes(of: randomSequence()) { Array($0) } }
        return Tombstone.make(of: prefix, notBefore: notBefore, seed: seed, signedBy: signingKey)
    }

    /// One that was made elsewhere is looked at like any record.
    private func check(_ tombstone: CertifiedMapping, of prefix: IPPrefix, _ now: Now) throws(RevocationRefusal) -> CertifiedMapping {
        guard tombstone.record.prefix == prefix, tombstone.record.isWithdrawal else {
            throw RevocationRefusal("the record that was sent is no withdrawal of \(prefix)")
        }
        do throws(VerificationFailure) {
            try tombstone.verify(asked: nil, keys: configuration.publicKeys, now: now)
        } catch {
            throw RevocationRefusal("the record that was sent does not verify: \(error.reason)")
        }
        let newest = [issued[prefix]?.notBefore, mappings[prefix]?.certified.certificate.notBefore].compactMap { $0 }.max()
        if let newest, tombstone.certificate.notBefore <= newest {
            throw RevocationRefusal("the record that was sent is older than the newest certificate of \(prefix), of \(newest) ms; is a clock wrong?")
        }
        return tombstone
    }

    /// The HoA whose newest certificate has this id; for revoking by it. Looks at everything.
    public func prefix(certifiedBy id: CertificateID) -> IPPrefix? {
        if let mapping = mappings.all.first(where: { $0.certified.certificate.id == id }) { return mapping.record.prefix }
        return issued.unusedOnes.first { $0.id == id }?.prefix
    }

    /// Why a certificate that is not the newest is refused, in words for its node's owner.
    func supersededReason(_ known: Certificate) -> String {
        if let held = mappings[known.prefix], held.isRevocation, held.certified.certificate == known {
            return "the certificate was revoked at \(known.notBefore) ms; the operator of this server must enrol \(known.prefix) anew"
        }
        return "the certificate is superseded by one of \(known.notBefore) ms"
    }
}
