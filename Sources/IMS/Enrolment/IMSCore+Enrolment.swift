import MATSignal

/// Why no certificate was issued, for the person who asked.
public struct EnrolmentRefusal: Error, Hashable, Sendable, CustomStringConvertible {
    public let description: String
    init(_ description: String) { self.description = description }
}

extension IMSCore {
    /// Issues a certificate: this key may sign mappings for this HoA. It counts once its write is durable.
    ///
    /// - Parameter lifetime: how long it is valid; the configured time if `nil`.
    /// - Returns: the certificate, the ticket whose `stored` decides, and what to do.
    public mutating func enrol(
        _ hoa: HomeAddress, prefixLength: UInt8 = 128, key: PublicKey, lifetime: Duration? = nil, now: Now
    ) throws(EnrolmentRefusal) -> (certificate: Certificate, ticket: StoreTicket, actions: [IMSAction]) {
        guard hoa.address.isUsableUnicast else { throw EnrolmentRefusal("\(hoa) can't be a home address") }
        guard let prefix = IPPrefix(hoa.address, length: prefixLength), prefixLength > (hoa.isIPv4 ? 96 : 0) else {
            throw EnrolmentRefusal("\(hoa) does not fit the prefix length")
        }
        guard configuration.served(covering: prefix) != nil else {
            let own = configuration.served.map(\.prefix.description).joined(separator: ", ")
            throw EnrolmentRefusal(
                "\(prefix) is not within a prefix served here (\(own)); ask the IMS of that prefix, or add it to `prefixes`")
        }
        if let refusal = store.refusalForOperators { throw EnrolmentRefusal("\(refusal); try again later") }
        guard writes.count < configuration.limits.writesMax else {
            throw EnrolmentRefusal("too many writes are waiting for the store; try again")
        }
        guard let certificate = issue(prefix, key, lifetime ?? configuration.certificateLifetime, now) else {
            throw EnrolmentRefusal(
                configuration.signingKey == nil
                    ? "this server has no signing key; use `mat enrol` where the key is kept"
                    : "the newest certificate of \(prefix) begins more than 300 s ahead; set the clock")
        }
        let ticket = newTicket()
        writes[ticket] = PendingWrite(mapping: nil, issued: certificate, waiting: [])
        actions.append(.commit(ticket, StoreChange(issued: certificate)))
        return (certificate, ticket, takeActions(now))
    }

    /// Not-before grows strictly, so that the newest certificate of an HoA is always the one issued last.
    func issue(_ prefix: IPPrefix, _ key: PublicKey, _ lifetime: Duration, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey else { return nil }
        guard let notBefore = nextNotBefore(of: prefix, now) else { return nil }
        let notAfter = notBefore + UInt64(max(0, lifetime.millisecondsSaturated))
        return Certificate(
            issuing: HomeAddress(prefix.address), prefixLength: prefix.length, nodeKey: key, notBefore: notBefore, notAfter: notAfter,
            with: signingKey)
    }

    /// Now, or just after the newest certificate of the HoA; `nil` if that one begins too far ahead for anybody to believe a later one.
    func nextNotBefore(of prefix: IPPrefix, _ now: Now) -> UInt64? {
        guard let newest = issued[prefix] else { return now.wallMilliseconds }
        guard newest.notBefore < now.wallMilliseconds + UInt64(CertifiedMapping.clockTolerance.components.seconds) * 1000 else { return nil }
        return max(now.wallMilliseconds, newest.notBefore + 1)
    }

    /// A new certificate for the same key, when the last third of the old one's time has begun, or its IMS key is being rotated out. Not
    /// whenever the signing key is another: in a cluster the servers change it one after the other, and would sign against each other.
    func renewed(_ certificate: Certificate, _ now: Now) -> Certificate? {
        guard let signingKey = configuration.signingKey, certificate.notAfter > certificate.notBefore else { return nil }
        let left = certificate.notAfter > now.wallMilliseconds ? certificate.notAfter - now.wallMilliseconds : 0
        let isOfOldKey =
            configuration.previousIDs.contains(certificate.issuerID) && certificate.issuerID != signingKey.publicKey.id
        guard isOfOldKey || left < (certificate.notAfter - certificate.notBefore) / 3 else { return nil }
        return issue(certificate.prefix, certificate.nodeKey, configuration.certificateLifetime, now)
    }
}
