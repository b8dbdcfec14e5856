import MATCore
import MATSignal

/// Where a Bind came from and what its answer has to repeat.
struct BindOrigin: Hashable, Sendable {
    var source: Endpoint
    /// The relay's address and port that it was sent to; the answer comes from there.
    var local: Endpoint
    var sequence: UInt32
    var cookie: Cookie
}

/// A Bind that asks for a binding, on its way through the checks.
struct BindRequest: Hashable, Sendable {
    var origin: BindOrigin
    var certificate: Certificate
    var signature: Signature
    /// As LIFETIME says.
    var seconds: UInt32
    var holder: Binding.Holder

    /// What the table of bindings is asked for.
    ///
    /// - Returns: `nil` if the cookie does not tell its time, which a valid one does.
    var entry: BindingTable.Request? {
        guard let madeAt = origin.cookie.server?.madeAt else { return nil }
        return BindingTable.Request(
            prefix: certificate.prefix, holder: holder, endpoint: origin.source, local: origin.local,
            cookieTime: UInt32(truncatingIfNeeded: madeAt / 1000), clientCookie: origin.cookie.client, seconds: seconds,
            certificateNotAfter: certificate.notAfter)
    }
}

/// Names a check in progress.
public struct BindTicket: Hashable, Sendable {
    public let number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// The part of a check that costs: public-key arithmetic. It needs neither clock nor tables and runs in any thread.
public struct BindCheck: Hashable, Sendable {
    public var certificate: Certificate
    /// The IMS keys of which one must have signed the certificate; `nil` if the certificate is believed already.
    public var issuers: [PublicKey]?
    public var signature: Signature
    /// What the node may have signed: the relay knows the addresses that it may be known by.
    public var statements: [PathStatement]

    public init(_ certificate: Certificate, issuers: [PublicKey]?, signature: Signature, statements: [PathStatement]) {
        self.certificate = certificate
        self.issuers = issuers
        self.signature = signature
        self.statements = statements
    }

    /// - Returns: `nil`, or why it is not believed. Takes some 70 us for each signature.
    public func run() -> VerificationFailure? {
        if let issuers, !issuers.contains(where: certificate.isIssued) {
            return VerificationFailure(
                "certificate for \(certificate.prefix) is not signed by an IMS key that DNS lists for it (\(issuers.count) found)")
        }
        guard statements.contains(where: { $0.isSigned(signature, by: certificate.nodeKey) }) else {
            let destinations = statements.map { "\($0.destination)" }.joined(separator: " or ")
            return VerificationFailure(
                "PATH-SIGNATURE of \(certificate.hoa) does not fit the certified key, or is for another destination than \(destinations)")
        }
        return nil
    }
}
