import MATSignal

/// The newest certificate of each HoA that this IMS knows of: issued here, or first seen with an update. Older ones are no
/// longer accepted, across restarts too.
struct IssuedCertificates: Sendable {
    private var newest: [IPPrefix: Certificate] = [:]

    var count: Int { newest.count }

    subscript(prefix: IPPrefix) -> Certificate? { newest[prefix] }

    mutating func note(_ certificate: Certificate) {
        if let known = newest[certificate.prefix], known.notBefore >= certificate.notBefore { return }
        newest[certificate.prefix] = certificate
    }
}
