import MATSignal

/// The newest certificate of each HoA that this IMS knows of: issued here, or first seen with an update. Older ones are no
/// longer accepted, across restarts too.
struct IssuedCertificates: Sendable {
    private var newest: [IPPrefix: Certificate] = [:]

    var count: Int { newest.count }

    var all: some Sequence<Certificate> { newest.values }

    /// Up to `count` certificates in the order of their HoAs, those after `after`.
    func page(after: IPPrefix? = nil, count: Int) -> [Certificate] { firstInOrder(newest, after: after, count: count) { _ in true } }

    subscript(prefix: IPPrefix) -> Certificate? { newest[prefix] }

    mutating func note(_ certificate: Certificate) {
        if let known = newest[certificate.prefix], known.notBefore >= certificate.notBefore { return }
        newest[certificate.prefix] = certificate
    }
}
