import MATSignal

// What certificates this server signs, and when. Not-before grows strictly, so that the newest certificate of an HoA is always the one
// issued last.

extension ServerView {
    /// Now, or just after the newest certificate of the HoA; `nil` if that one begins too far ahead for anybody to believe a later one.
    func nextNotBefore(of prefix: IPPrefix, _ now: Now) -> UInt64? {
        guard let newest = registrations.certificates[prefix] else { return now.wallMilliseconds }
        guard newest.notBefore < now.latestBelieved else { return nil }
        return max(now.wallMilliseconds, newest.notBefore + 1)
    }

    /// - Returns: `nil` without a signing key, if none could follow the newest, or if the crypto library fails.
    func issue(_ prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey, let notBefore = nextNotBefore(of: prefix, now) else { return nil }
        return signingKey.certify(prefix, key, lifetime, notBefore: notBefore)
    }

    /// A new certificate for the same key, when the last third of the old one's time has begun, or its IMS key is being rotated out. Not
    /// whenever the signing key is another: in a cluster the servers change it one after the other, and would sign against each other.
    func renewed(_ certificate: Certificate, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey, certificate.notAfter > certificate.notBefore else { return nil }
        let left = certificate.notAfter > now.wallMilliseconds ? certificate.notAfter - now.wallMilliseconds : 0
        let isOfOldKey =
            configuration.previousIDs.contains(certificate.issuerID) && certificate.issuerID != signingKey.publicKey.id
        guard isOfOldKey || left < (certificate.notAfter - certificate.notBefore) / 3 else { return nil }
        // For as long as the one before: whoever asked for a short life must not get the configured one by waiting.
        var milliseconds = certificate.notAfter - certificate.notBefore
        if let lease = leases[certificate.prefix], lease.key == certificate.nodeKey {
            guard lease.isRenewed else { return nil }
            if let end = lease.endsAt {
                // Nothing would be won by one that ends no later.
                guard end > certificate.notAfter, end > now.wallMilliseconds else { return nil }
                milliseconds = min(milliseconds, end - now.wallMilliseconds)
            }
        }
        return issue(certificate.prefix, certificate.nodeKey, .milliseconds(Int64(clamping: milliseconds)), now)
    }
}

extension SigningKey {
    /// - Returns: `nil` if the crypto library fails.
    func certify(_ prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, notBefore: UInt64) -> Certificate? {
        let notAfter = notBefore + UInt64(max(0, lifetime.millisecondsSaturated))
        return Certificate(
            issuing: HomeAddress(prefix.address), prefixLength: prefix.length, nodeKey: key, notBefore: notBefore,
            notAfter: notAfter,
            with: self)
    }
}
