import MATSignal

/// The newest certificate of each HoA that this IMS knows of: issued here, or first seen with an update. Older ones are no
/// longer accepted, across restarts too.
///
/// Nearly always that is the certificate of the HoA's mapping, which stands in the table; here are only those that are newer than
/// it, or without a mapping: issued and not used yet.
struct IssuedCertificates: Sendable {
    private let mappings: MappingTable
    private var unused: [IPPrefix: Certificate] = [:]

    init(mappings: MappingTable) { self.mappings = mappings }

    /// HoAs with a certificate that no mapping has brought yet.
    var unusedCount: Int { unused.count }

    subscript(prefix: IPPrefix) -> Certificate? {
        guard let certificate = unused[prefix] else { return mappings.certificate(of: prefix) }
        if let held = mappings.certificateNotBefore(of: prefix), held > certificate.notBefore { return mappings.certificate(of: prefix) }
        return certificate
    }

    mutating func note(_ certificate: Certificate) {
        let prefix = certificate.prefix
        if let held = mappings.certificateNotBefore(of: prefix), held >= certificate.notBefore { return }
        if let known = unused[prefix], known.notBefore >= certificate.notBefore { return }
        unused[prefix] = certificate
    }

    /// The mapping of this HoA prefix was replaced, with this certificate: what is not newer than it need not be kept here.
    mutating func used(_ certificate: Certificate) {
        if !unused.isEmpty, let known = unused[certificate.prefix], known.notBefore <= certificate.notBefore {
            unused[certificate.prefix] = nil
        }
    }
}
