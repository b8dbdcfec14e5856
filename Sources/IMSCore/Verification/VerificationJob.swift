import MATSignal

/// Names a signature check in progress.
public struct VerificationTicket: Hashable, Sendable {
    public let number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// The part of a check that costs: public-key arithmetic. Times and names have been looked at before (protocol.md section 6:
/// signatures last), so this needs neither clock nor tables and runs in any thread.
public struct VerificationJob: Hashable, Sendable {
    public var certified: CertifiedMapping
    /// The IMS keys of which one must have signed the certificate; `nil` if the certificate is believed already, as that of an accepted
    /// record is.
    public var issuers: [PublicKey]?

    public init(_ certified: CertifiedMapping, issuers: [PublicKey]?) {
        self.certified = certified
        self.issuers = issuers
    }

    /// - Returns: `nil`, or why it is not believed. Takes some 70 us for each signature.
    public func run() -> VerificationFailure? {
        let certificate = certified.certificate
        if let issuers, !issuers.contains(where: certificate.isIssued) {
            return VerificationFailure(
                "certificate for \(certificate.prefix) is not signed by an IMS key that DNS lists for it (\(issuers.count) found)"
            )
        }
        do throws(VerificationFailure) {
            try certified.verifySignature()
            return nil
        } catch {
            return error
        }
    }
}

/// What came of a check.
public struct VerificationResult: Sendable {
    public var ticket: VerificationTicket
    /// `nil` if the signatures fit.
    public var failure: VerificationFailure?

    public init(_ ticket: VerificationTicket, failure: VerificationFailure?) {
        self.ticket = ticket
        self.failure = failure
    }
}
