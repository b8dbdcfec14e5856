/// Why a mapping or certificate is not believed; always code 1 on the wire, but an operator needs the difference.
public struct VerificationFailure: Error, Hashable, Sendable, CustomStringConvertible {
    public let reason: String
    public init(_ reason: String) { self.reason = reason }
    public var description: String { reason }
}

extension CertifiedMapping {
    /// How far clocks may differ (sections 4 and 5).
    public static let clockTolerance: Duration = .seconds(300)

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
            throw VerificationFailure("certificate for \(certificate.prefix) is not signed by an IMS key that DNS lists for it (\(keys.count) found)")
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
    public func checkTimesAndNames(under key: CertifiedKey, of prefix: IPPrefix, asked: HomeAddress?, now: Now) throws(VerificationFailure) {
        let tolerance = UInt64(CertifiedMapping.clockTolerance.components.seconds) * 1000
        let latest = now.wallMilliseconds + tolerance
        guard now.wallMilliseconds > CertifiedMapping.plausibleClockMin else {
            throw VerificationFailure("the own clock stands at \(now.wallMilliseconds / 1000) s since 1970, before this protocol existed; set it (NTP) first")
        }
        guard prefix == record.prefix else {
            throw VerificationFailure("certificate is for \(prefix), mapping for \(record.prefix)")
        }
        if let asked, !record.prefix.contains(asked.address) {
            throw VerificationFailure("mapping is for \(record.prefix), asked for was \(asked)")
        }
        if key.notBefore > latest {
            throw VerificationFailure("certificate for \(prefix) is not valid before \(key.notBefore) ms, now is \(now.wallMilliseconds)")
        }
        let (end, overflow) = key.notAfter.addingReportingOverflow(tolerance)
        if !overflow, end < now.wallMilliseconds {
            throw VerificationFailure("certificate for \(prefix) expired at \(key.notAfter) ms, now is \(now.wallMilliseconds)")
        }
        if record.issued > latest || record.sequence > latest {
            throw VerificationFailure("mapping of \(record.hoa) is issued more than 300 s ahead of the own clock")
        }
    }

    public func verifySignature(by key: PublicKey) throws(VerificationFailure) {
        guard key.isValid(signature, over: record.signedOctets) else {
            throw VerificationFailure("signature of the mapping of \(record.hoa) does not fit the certified key")
        }
    }
}
