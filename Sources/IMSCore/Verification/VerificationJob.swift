import MATSignal

/// Names a signature check in progress.
public struct VerificationTicket: Hashable, Sendable {
    public let number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// The part of a check that costs: public-key arithmetic. Times and names have been looked at before (protocol.md section 6:
/// signatures last), so this needs neither clock nor tables and runs in any thread.
///
/// It goes through many hands, so its contents stand in one place and are not copied.
public struct VerificationJob: Hashable, Sendable, CustomStringConvertible {
    private struct Contents: Hashable, Sendable {
        var certified: CertifiedMapping?
        var claim: PathClaim?
        var joining: JoinClaim?
        var certificate: Certificate?
        var issuers: [PublicKey]?
    }

    private final class Place: Sendable {
        let contents: Contents
        init(_ contents: Contents) { self.contents = contents }
    }

    private let place: Place

    /// The record that has to be signed with the certificate's key, if there is one.
    public var certified: CertifiedMapping? { place.contents.certified }
    /// What has to be signed with it as well, or alone: the way of the message that brings it.
    public var claim: PathClaim? { place.contents.claim }
    /// What a Join says of itself; its key may have no certificate yet.
    public var joining: JoinClaim? { place.contents.joining }
    public var certificate: Certificate? { place.contents.certificate }
    /// The IMS keys of which one must have signed the certificate; `nil` if the certificate is believed already, as that of an accepted
    /// record is.
    public var issuers: [PublicKey]? { place.contents.issuers }

    public init(_ certified: CertifiedMapping, with claim: PathClaim? = nil, issuers: [PublicKey]?) {
        place = Place(Contents(certified: certified, claim: claim, certificate: certified.certificate, issuers: issuers))
    }

    public init(_ claim: PathClaim, by certificate: Certificate, issuers: [PublicKey]?) {
        place = Place(Contents(claim: claim, certificate: certificate, issuers: issuers))
    }

    public init(_ joining: JoinClaim) { place = Place(Contents(joining: joining)) }

    /// A certificate alone: a visitor's, of its home.
    public init(_ certificate: Certificate, issuers: [PublicKey]) { place = Place(Contents(certificate: certificate, issuers: issuers)) }

    public static func == (a: Self, b: Self) -> Bool { a.place === b.place || a.place.contents == b.place.contents }

    public func hash(into hasher: inout Hasher) { hasher.combine(place.contents) }

    /// Differs wherever what is signed differs.
    var signature: Signature? { claim?.signature ?? joining?.signature ?? certified?.mapping.signature }

    /// What stands in it, and not where: two runs say the same.
    public var description: String {
        func text(_ part: (some Sendable)?) -> String { part.map { "\($0)" } ?? "nil" }
        return "VerificationJob(\(text(certified)), \(text(claim)), \(text(joining)), \(text(certificate)), issuers: \(text(issuers)))"
    }

    /// - Returns: `nil`, or why it is not believed. Takes some 70 us for each signature.
    public func run() -> VerificationFailure? {
        if let issuers, let certificate, !issuers.contains(where: certificate.isIssued) {
            return VerificationFailure(
                "certificate for \(certificate.prefix) is not signed by an IMS key that DNS lists for it (\(issuers.count) found)"
            )
        }
        do throws(VerificationFailure) {
            try certified?.verifySignature()
            if let certificate { try claim?.verify(by: certificate.nodeKey) }
            try joining?.verify()
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
