import MATCore
import MATSignal

/// The certificate of an own HoA: taking over what the own IMS renewed, and saying in time that it is about to end (section 5).
struct HomeCertificate: Sendable {
    /// What a certificate that came with a reply is.
    enum OnRenewal: Hashable, Sendable {
        /// None came, or not a newer one of ours.
        case none
        /// The keys to check it with are not known. The reply to the next update brings it again.
        case keysNeeded
        /// No key in the DNS has signed it; one may be there since the last look, if the operator has rotated it.
        case notIssued
        case renewed
    }

    private(set) var current: Certificate
    /// Whether our IMS is known to hold it, so that its id is enough.
    private(set) var isAtServer = false
    /// When people were last told that it is about to end.
    private var warnedAt: MonotonicTime?

    /// How often people are reminded of the same certificate.
    private static let warningInterval: Duration = .seconds(86_400)

    init(_ certificate: Certificate) { current = certificate }

    mutating func serverHasIt(_ has: Bool) { isAtServer = has }

    /// Takes over a certificate that an IMS Update Reply brought, if it certifies the own key, is newer, and an IMS key of the DNS
    /// signed it: whoever can forge a reply must not make the node keep a certificate that nobody believes.
    ///
    /// - Parameter keys: of the DNS, at the certificate's name; `nil` if they are not known.
    mutating func renew(_ renewed: Certificate?, keys: [PublicKey]?) -> OnRenewal {
        guard let renewed, renewed.prefix == current.prefix, renewed.nodeKey == current.nodeKey, renewed.notBefore > current.notBefore else {
            return .none
        }
        guard let keys else { return .keysNeeded }
        guard keys.contains(where: renewed.isIssued) else { return .notIssued }
        current = renewed
        isAtServer = true
        warnedAt = nil
        return .renewed
    }

    /// Takes over one that was given for the same key, and that was checked.
    mutating func prolong(_ given: Certificate) {
        guard given.prefix == current.prefix, given.nodeKey == current.nodeKey, given.notBefore > current.notBefore else { return }
        current = given
        isAtServer = false
        warnedAt = nil
    }

    /// What to tell people of its end, once a day while nobody renews it.
    mutating func warning(_ now: Now) -> (NodeLogLevel, String)? {
        guard current.endsSoon(now), warnedAt.map({ now.monotonic - $0 >= Self.warningInterval }) ?? true else { return nil }
        warnedAt = now.monotonic
        let remedy = "have the operator of the IMS enrol it again (`mat enrol`), or find out why the IMS does not renew it"
        let hoa = current.hoa
        if current.hasEnded(now) { return (.error, "the certificate of \(hoa) has ended; \(remedy)") }
        let days = (current.notAfter - now.wallMilliseconds) / 86_400_000
        return (.warning, "the certificate of \(hoa) ends \(days > 0 ? "in \(days) days" : "within a day") and was not renewed; \(remedy)")
    }
}
