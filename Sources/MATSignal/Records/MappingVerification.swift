/// Why a mapping or certificate is not believed; always code 1 on the wire, but an operator needs the difference.
public struct VerificationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public let reason: String
    public init(_ reason: String) { self.reason = reason }
    public var description: String { reason }
}

extension CertifiedMapping {
    /// How far clocks may differ (sections 4 and 5).
    public static let clockToleranceMilliseconds: UInt64 = 300_000
    public static let clockTolerance: Duration = .milliseconds(clockToleranceMilliseconds)

    /// All that can be checked without public-key arithmetic. Servers do this first: it costs an attacker's target next
    /// to nothing.
    ///
    /// - Parameter asked: the HoA that the record is wanted for; `nil` if any will do.
    public func checkTimesAndNames(asked: HomeAddress?, now: Now) throws(VerificationFailure) {
        try mapping.checkTimesAndNames(under: certificate.key, of: certificate.prefix, asked: asked, now: now)
    }

    /// The whole check of section 5: times and names, then IMS key -> certificate -> mapping.
    ///
    /// - Parameter keys: the IMS keys that DNS gives at the certificate's own HoA.
    public func verify(asked: HomeAddress?, keys: [PublicKey], now: Now) throws(VerificationFailure) {
        try checkTimesAndNames(asked: asked, now: now)
        guard keys.contains(where: certificate.isIssued) else {
            throw VerificationFailure(
                "certificate for \(certificate.prefix) is not signed by an IMS key that DNS lists for it (\(keys.count) found)")
        }
        try verifySignature()
    }

    /// The node's signature alone, under a certificate that is believed already.
    public func verifySignature() throws(VerificationFailure) { try mapping.verifySignature(by: certificate.nodeKey) }

    /// 2020-01-01: a machine without a battery-backed clock starts in 1970.
    static let plausibleClockMin: UInt64 = 1_577_836_800_000
}

extension SignedMapping {
    /// Likewise, under a certificate of which only this is kept.
    ///
    /// - Parameter prefix: the one that the certificate is for.
    public func checkTimesAndNames(under key: CertifiedKey, of prefix: IPPrefix, asked: HomeAddress?, now: Now)
        throws(VerificationFailure)
    {
        try record.checkTimes(now)
        try key.checkTimes(of: prefix, now)
        try record.checkNames(under: prefix, asked: asked)
    }

    public func verifySignature(by key: PublicKey) throws(VerificationFailure) {
        guard key.isValid(signature, over: record.signedOctets) else {
            throw VerificationFailure("signature of the mapping of \(record.hoa) does not fit the certified key")
        }
    }
}

extension MappingRecord {
    /// Section 4, in whatever message the record comes: neither dated nor numbered ahead of the clock, and not long expired; each with 300 s of
    /// tolerance. Records that a store keeps are exempt, since they mark the version below which nothing is accepted.
    public func checkTimes(_ now: Now) throws(VerificationFailure) {
        try now.checkIsPlausible()
        let latest = now.latestBelieved
        if issued > latest {
            throw VerificationFailure(
                "mapping of \(hoa) is issued \((issued - now.wallMilliseconds) / 1000) s ahead of the own clock, more than 300 s; is a clock wrong?"
            )
        }
        if sequence > latest {
            throw VerificationFailure(
                "the sequence of the mapping of \(hoa) is \((sequence - now.wallMilliseconds) / 1000) s ahead of the own clock, more than 300 s; is a clock wrong?"
            )
        }
        if expires.isMoreThanTolerancePast(now) {
            throw VerificationFailure(
                "mapping of \(hoa) expired \((now.wallMilliseconds - expires) / 1000) s ago by the own clock; is a clock wrong?")
        }
    }

    /// Section 5: certificate and mapping are of one prefix, which covers the HoA that was asked for, and claims no more than the protocol lets
    /// a certificate say.
    ///
    /// - Parameters:
    ///   - certified: the certificate's prefix.
    ///   - asked: the HoA that the record is wanted for; `nil` if any will do.
    public func checkNames(under certified: IPPrefix, asked: HomeAddress?) throws(VerificationFailure) {
        guard certified == prefix else {
            throw VerificationFailure("certificate is for \(certified), mapping for \(prefix)")
        }
        if let asked, !prefix.contains(asked.address) {
            throw VerificationFailure("mapping is for \(prefix), asked for was \(asked)")
        }
        if let refusal = prefix.certificateRefusal { throw VerificationFailure(refusal) }
    }
}

extension IPPrefix {
    /// Why no certificate for this prefix is believed (section 5: 104 bits of the 16-octet form at least in IPv4, 16 in IPv6); `nil` if one
    /// can be.
    public var certificateRefusal: String? {
        length >= (family == .ipv4 ? 104 : 16) ? nil : "\(self) is more than one certificate can speak for: at most an IPv4 /8 or an IPv6 /16"
    }
}

extension CertifiedKey {
    /// The certificate's own times, with 300 s of tolerance.
    ///
    /// - Parameter prefix: the one that it is for, for the words.
    public func checkTimes(of prefix: IPPrefix, _ now: Now) throws(VerificationFailure) {
        try now.checkTimes(notBefore, notAfter, of: prefix)
    }
}

extension Certificate {
    /// As its key's, without making that: its id is a hash.
    public func checkTimes(_ now: Now) throws(VerificationFailure) { try now.checkTimes(notBefore, notAfter, of: prefix) }
}

extension Now {
    /// The latest time, Unix in ms, that is believed of what others date (sections 4 and 5).
    public var latestBelieved: UInt64 {
        let (sum, overflow) = wallMilliseconds.addingReportingOverflow(CertifiedMapping.clockToleranceMilliseconds)
        return overflow ? .max : sum
    }

    fileprivate func checkTimes(_ notBefore: UInt64, _ notAfter: UInt64, of prefix: IPPrefix) throws(VerificationFailure) {
        try checkIsPlausible()
        if notBefore > latestBelieved {
            throw VerificationFailure(
                "certificate for \(prefix) is not valid before \(notBefore) ms, now is \(wallMilliseconds); is a clock wrong?"
            )
        }
        if notAfter.isMoreThanTolerancePast(self) {
            throw VerificationFailure("certificate for \(prefix) expired at \(notAfter) ms, now is \(wallMilliseconds)")
        }
    }

    fileprivate func checkIsPlausible() throws(VerificationFailure) {
        guard wallMilliseconds > CertifiedMapping.plausibleClockMin else {
            throw VerificationFailure(
                "the own clock stands at \(wallMilliseconds / 1000) s since 1970, before this protocol existed; set it (NTP) first"
            )
        }
    }
}

extension UInt64 {
    /// Whether this Unix time in ms lies more than 300 s back.
    fileprivate func isMoreThanTolerancePast(_ now: Now) -> Bool {
        let (end, overflow) = addingReportingOverflow(CertifiedMapping.clockToleranceMilliseconds)
        return !overflow && end < now.wallMilliseconds
    }
}
