import MATSignal
import MappingMemory

/// Why nothing was revoked, for the person who asked.
public struct RevocationRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

/// That every certificate of an HoA that there is so far counts no more, and its mapping is withdrawn, as an operator wants it.
///
/// ```
///   served here? ─► known? ─► revoked already? ──► nothing to do
///                                    └─ no ─► a mark is made (`Tombstone`), here or where the signing key is ─► write
/// ```
struct Revocation: Sendable {
    var prefix: IPPrefix
    /// Whether an HoA of which this server has never heard may be revoked: one whose certificate was issued elsewhere and never used.
    /// Otherwise that is taken for a mistyped one.
    var isUnknownAllowed: Bool
    /// Made where the signing key is, if it is not here.
    var tombstone: CertifiedMapping?

    /// - Returns: what is to be made durable; `nil` if it is revoked already.
    func revoke(_ server: ServerView, _ random: inout CoreRandom, _ now: Now) throws(RevocationRefusal) -> PendingWrite? {
        let (registrations, configuration) = (server.registrations, server.configuration)
        guard configuration.served(covering: prefix) != nil else {
            let own = configuration.served.map(\.prefix.description).joined(separator: ", ")
            throw RevocationRefusal("\(prefix) is not within a prefix served here (\(own))")
        }
        if !isUnknownAllowed, registrations.certificates[prefix] == nil, registrations[prefix] == nil {
            if let covering = registrations.entry(covering: prefix.address), covering.record.prefixLength < prefix.length {
                throw RevocationRefusal("\(prefix) belongs to the network \(covering.record.prefix); revoke that")
            }
            throw RevocationRefusal(
                "nothing is known of \(prefix); if a certificate issued elsewhere is to be revoked, say so with --unknown")
        }
        if let newest = registrations.newest(of: prefix), newest.isRevocation,
            registrations.certificates[prefix].map({ $0.notBefore <= newest.certified.certificate.notBefore }) ?? true
        {
            return nil
        }
        guard registrations.hasRoomForWrite(server.limits) else {
            throw RevocationRefusal("too many writes are waiting for the store; try again")
        }
        let made: CertifiedMapping
        if let tombstone {
            made = try check(tombstone, server, now)
        } else {
            made = try makeTombstone(server, &random, now)
        }
        if let refusal = registrations.memoryRefusal(for: made.record) { throw RevocationRefusal("no memory for the mark: \(refusal)") }
        return PendingWrite(mapping: .revocation(made), issued: made.certificate)
    }

    private func makeTombstone(_ server: ServerView, _ random: inout CoreRandom, _ now: Now) throws(RevocationRefusal)
        -> CertifiedMapping
    {
        guard let signingKey = server.configuration.signingKey else {
            throw RevocationRefusal(
                "this server has no signing key; give `mat ims revoke` the key with --signing-key, on the machine where it is kept"
            )
        }
        guard let notBefore = server.nextNotBefore(of: prefix, now) else {
            throw RevocationRefusal(
                "the newest certificate of \(prefix) begins more than 300 s ahead. If this host's clock is wrong, set it; if it was wrong when that was issued, `mat enrol --force` takes it back, for a key of your own if nobody is to have the address"
            )
        }
        guard let tombstone = Tombstone.make(of: prefix, notBefore: notBefore, seed: random.seed(), signedBy: signingKey) else {
            throw RevocationRefusal("the crypto library does not sign; this should not happen")
        }
        return tombstone
    }

    /// One that was made elsewhere is looked at like any record.
    private func check(_ tombstone: CertifiedMapping, _ server: ServerView, _ now: Now) throws(RevocationRefusal)
        -> CertifiedMapping
    {
        guard tombstone.record.prefix == prefix, tombstone.record.isWithdrawal else {
            throw RevocationRefusal("the record that was sent is no withdrawal of \(prefix)")
        }
        do throws(VerificationFailure) {
            try tombstone.verify(asked: nil, keys: server.configuration.publicKeys, now: now)
        } catch {
            throw RevocationRefusal("the record that was sent does not verify: \(error.reason)")
        }
        let known = [server.registrations.certificates[prefix]?.notBefore, server.registrations.certificateNotBefore(of: prefix)]
        if let newest = known.compactMap({ $0 }).max(), tombstone.certificate.notBefore <= newest {
            throw RevocationRefusal(
                "the record that was sent is older than the newest certificate of \(prefix), of \(newest) ms; is a clock wrong?")
        }
        return tombstone
    }
}
