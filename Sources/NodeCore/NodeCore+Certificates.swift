import MATSignal

// The own certificates: taking over what the own IMS renewed, and saying in time that one is about to end (section 5).

extension NodeCore {
    /// How often people are reminded of the same certificate.
    static let expiryWarningInterval: Duration = .seconds(86_400)

    /// Takes over a certificate that an IMS Update Reply brought, if it certifies the own key, is newer, and an IMS key of the DNS
    /// signed it: whoever can forge a reply must not make the node keep a certificate that nobody believes.
    ///
    /// - Returns: whether it is in force now.
    mutating func adopt(_ renewed: Certificate?, of hoa: HomeAddress, _ now: Now) -> Bool {
        guard let renewed, let home = homes[hoa], renewed.prefix == home.prefix, renewed.nodeKey == home.key.publicKey,
            renewed.notBefore > home.certificate.notBefore
        else { return false }
        let known = home.isNetwork ? keys(of: home.prefix, now) : home.servers?.keys
        if home.isNetwork, known == nil {
            // The reply to the next update brings it again.
            lookUpKeys(of: home.prefix, for: nil, now)
            return false
        }
        guard let keys = known, keys.contains(where: renewed.isIssued) else {
            // The key may be in the DNS since the last look: the operator has rotated it.
            log(.warning, "\(hoa): the IMS sent a renewed certificate that no key in the DNS has signed; looking the keys up anew")
            if home.isNetwork { lookUpKeys(of: home.prefix, for: nil, now) }
            lookUp(hoa, for: .home, now)
            return false
        }
        homes[hoa]?.certificate = renewed
        homes[hoa]?.serverHasCertificate = true
        homes[hoa]?.expiryWarnedAt = nil
        emit(.keepCertificate(renewed))
        log(.notice, "\(hoa): the IMS renewed the certificate; it is good for \((renewed.notAfter - min(renewed.notAfter, now.wallMilliseconds)) / 86_400_000) days")
        return true
    }

    /// Once a day, while nobody renews it.
    func warnsOfExpiry(_ home: Home, _ now: Now) -> Bool {
        home.certificate.endsSoon(now) && home.expiryWarnedAt.map { now.monotonic - $0 >= Self.expiryWarningInterval } ?? true
    }

    mutating func warnOfExpiry(_ hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], warnsOfExpiry(home, now) else { return }
        homes[hoa]?.expiryWarnedAt = now.monotonic
        let end = home.certificate.notAfter
        let remedy = "have the operator of the IMS enrol it again (`mat enrol`), or find out why the IMS does not renew it"
        if home.certificate.hasEnded(now) {
            log(.error, "the certificate of \(hoa) has ended; \(remedy)")
        } else {
            log(.warning, "the certificate of \(hoa) ends in \((end - now.wallMilliseconds) / 86_400_000) days and was not renewed; \(remedy)")
        }
    }
}
