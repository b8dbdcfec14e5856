import MATSignal
import MappingMemory

/// The newest certificate of each HoA that this IMS knows of: issued here, or first seen with an update. Older ones are no
/// longer accepted, across restarts too.
///
/// Nearly always that is the certificate of the HoA's mapping, which stands in the table; here are only those that are newer than
/// it, or without a mapping: issued and not used yet.
package struct IssuedCertificates: Sendable {
    private let mappings: MappingTable
    private var unused: [IPPrefix: Certificate] = [:]

    init(mappings: MappingTable) { self.mappings = mappings }

    /// Certificates that no mapping has brought yet, in no order: to be searched only.
    var unusedOnes: some Sequence<Certificate> { unused.values }

    /// Certificates that no mapping has brought yet: up to `count` of those that are wanted, in the order of their HoAs, those after `after`.
    package func unusedPage(after: IPPrefix? = nil, count: Int, where isWanted: (IPPrefix) -> Bool = { _ in true })
        -> [Certificate]
    {
        firstInOrder(unused, after: after, count: count) { isWanted($0.prefix) }
    }

    /// Of HoAs that never registered: those among them that are wanted, in the order of their HoAs.
    package func unseenPage(after: IPPrefix? = nil, count: Int, where isWanted: (IPPrefix) -> Bool) -> [Certificate] {
        firstInOrder(unused, after: after, count: count) { isWanted($0.prefix) && !mappings.contains($0.prefix) }
    }

    /// HoAs that are enrolled and never registered. Looks at all certificates that were never used.
    package var unseenCount: Int { unused.keys.count { !mappings.contains($0) } }

    /// Up to `count` certificates in the order of their HoAs, those after `after`: of all HoAs, with a mapping and without.
    package func page(after: IPPrefix? = nil, count: Int) -> [Certificate] {
        let ofMappings = mappings.page(after: after, count: count).map(\.certified.certificate)
        let others = unusedPage(after: after, count: count)
        guard !others.isEmpty else { return ofMappings }
        let prefixes = Set(ofMappings.map(\.prefix)).union(others.map(\.prefix))
        return prefixes.sorted().prefix(count).compactMap { self[$0] }
    }

    package subscript(prefix: IPPrefix) -> Certificate? {
        guard let certificate = unused[prefix] else { return mappings.certificate(of: prefix) }
        if let held = mappings.certificateNotBefore(of: prefix), held > certificate.notBefore {
            return mappings.certificate(of: prefix)
        }
        return certificate
    }

    /// The newest certificate of the HoA, if no mapping has brought it yet.
    func unused(of prefix: IPPrefix) -> Certificate? {
        guard let certificate = unused[prefix] else { return nil }
        if let held = mappings.certificateNotBefore(of: prefix), held > certificate.notBefore { return nil }
        return certificate
    }

    /// The certificate of the HoA that is newer than its mapping's, which began then (Unix, ms); `nil` if there is none.
    func newer(than notBefore: UInt64, of prefix: IPPrefix) -> Certificate? {
        guard !unused.isEmpty, let certificate = unused[prefix], certificate.notBefore > notBefore else { return nil }
        return certificate
    }

    /// - Parameter latest: what is held and begins later (Unix, ms) was issued while a clock was wrong: it gives way to what the store has
    ///   taken instead.
    mutating func add(_ certificate: Certificate, latest: UInt64 = .max) {
        let prefix = certificate.prefix
        func stays(_ held: UInt64) -> Bool {
            held >= certificate.notBefore && !(held > latest && certificate.notBefore <= latest)
        }
        if let held = mappings.certificateNotBefore(of: prefix), stays(held) { return }
        if let known = unused[prefix], stays(known.notBefore) { return }
        unused[prefix] = certificate
    }

    /// The mapping of this HoA prefix was replaced, with a certificate of that time (Unix, ms): what is not newer need not be kept here.
    mutating func mappingReplaced(_ prefix: IPPrefix, notBefore: UInt64) {
        if !unused.isEmpty, let known = unused[prefix], known.notBefore <= notBefore { unused[prefix] = nil }
    }
}
