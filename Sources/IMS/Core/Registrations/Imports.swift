import MATSignal
import MappingMemory

// Taking over what another server, or this one before, exported. The caller has checked it (`TransferCheck`).

extension IMSCore {
    /// What becomes of one imported thing.
    enum ImportStep {
        /// The ticket's write decides.
        case written(StoreTicket)
        case same
        case older
        case refused(String)
    }

    /// Writes the mapping if it is newer than what is held.
    mutating func take(imported mapping: StoredMapping, _ now: Now) -> ImportStep {
        if let refusal = store.refusalForOperators { return .refused(refusal) }
        let prefix = mapping.record.prefix
        let newest = newestWrites[prefix].flatMap { writes[$0]?.mapping } ?? mappings[prefix]
        if let newest {
            if newest.certified == mapping.certified { return .same }
            guard newest.certified.version < mapping.certified.version else { return .older }
        }
        if let known = issued[prefix], mapping.certified.certificate.notBefore < known.notBefore { return .older }
        guard writes.count < configuration.limits.writesMax else { return .refused("too many writes are waiting for the store") }
        guard newest != nil || mappings.count < configuration.limits.mappingsMax else {
            return .refused("the table of \(configuration.limits.mappingsMax) mappings is full")
        }
        let ticket = newTicket()
        writes[ticket] = PendingWrite(mapping: mapping, issued: nil, waiting: [])
        newestWrites[prefix] = ticket
        actions.append(.commit(ticket, StoreChange(mapping: mapping)))
        return .written(ticket)
    }

    /// Writes the certificate if it is newer than what is known of its HoA.
    mutating func take(imported certificate: Certificate, _ now: Now) -> ImportStep {
        if let refusal = store.refusalForOperators { return .refused(refusal) }
        if let known = issued[certificate.prefix], known.notBefore >= certificate.notBefore { return known == certificate ? .same : .older }
        guard writes.count < configuration.limits.writesMax else { return .refused("too many writes are waiting for the store") }
        let ticket = newTicket()
        writes[ticket] = PendingWrite(mapping: nil, issued: certificate, waiting: [])
        actions.append(.commit(ticket, StoreChange(issued: certificate)))
        return .written(ticket)
    }

    /// Up to `count` mappings in the order of their HoAs, those after `after`.
    func mappingsPage(after: IPPrefix?, count: Int, where isWanted: (StoredMapping) -> Bool) -> [StoredMapping] {
        mappings.page(after: after, count: count, where: isWanted)
    }

    /// Calls `body` with at least `count` mappings, in an order that changes keep.
    ///
    /// - Parameter from: 0 at first, then what was returned before.
    /// - Returns: from where to go on; `nil` at the end.
    func walkMappings(from: UInt64, atLeast count: Int, _ body: (StoredMapping) -> Void) -> UInt64? {
        mappings.walk(from: from, atLeast: count, body)
    }

    /// Up to `count`, certificates that no mapping held here has: issued, and not used yet.
    func certificatesPage(after: IPPrefix?, count: Int) -> (certificates: [Certificate], last: IPPrefix?) {
        let page = issued.unusedPage(after: after, count: count)
        return (
            page.filter { mappings[$0.prefix]?.certified.certificate != $0 }, page.count < count ? nil : page.last?.prefix
        )
    }
}
