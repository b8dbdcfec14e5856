import MATCore
import MATSignal
import MappingMemory

/// What is registered here: the mappings that are durable, the newest certificate of each HoA, the changes on their way to the store,
/// and how full each prefix's quota is.
///
/// ```
///   begin(write) ──► PendingWrites ──► the store ──► finish: durable ──► hold ──► MappingTable, IssuedCertificates, PrefixQuotas
///                                                                        ▲
///                       what the store held at the start, what other instances wrote, imports
/// ```
/// `hold` takes only what is newer, wherever it comes from, so nothing goes back. The table is shared with the threads that answer
/// queries from it, and changed here alone; copies of a core share it.
struct Registrations: Sendable {
    private let mappings = MappingTable()
    private var issued: IssuedCertificates
    private var writes = PendingWrites()
    private var quotas = PrefixQuotas()
    private(set) var sharedAddresses = SharedAddresses()

    /// A change that the shell is to have made durable.
    struct Write: Sendable {
        var ticket: StoreTicket
        var change: StoreChange
    }

    /// A mapping that is held from now on.
    struct OnHeld: Sendable {
        /// For the log: of its own HoA, and of those that it took a locator from.
        var changes: [BindingChange]
    }

    init(_ configuration: IMSCoreConfiguration) {
        issued = IssuedCertificates(mappings: mappings)
        quotas.reset(configuration.served)
    }

    // MARK: Questions

    /// For the threads that answer queries.
    var table: MappingTable { mappings }

    var count: Int { mappings.count }
    var writesCount: Int { writes.count }

    /// The mapping of exactly this HoA prefix that is durable, expired or not.
    subscript(prefix: IPPrefix) -> StoredMapping? { mappings[prefix] }

    /// The mapping whose HoA prefix is the longest that covers the address, expired or not.
    func entry(covering address: IPAddress) -> StoredMapping? { mappings.entry(covering: address) }

    /// The mapping that covers the address, if it says today where the node is.
    func current(covering address: IPAddress, _ now: Now) -> StoredMapping? {
        mappings.entry(covering: address).flatMap { $0.isCurrent(now) ? $0 : nil }
    }

    /// The mapping that holds the MoA, if it is still valid.
    func entry(holding moa: MobileAddress, now: Now) -> StoredMapping? { mappings.entry(holding: moa, now: now) }

    /// The newest mapping of exactly this HoA prefix, durable or on its way.
    func newest(of prefix: IPPrefix) -> StoredMapping? { writes.newestMapping(of: prefix) ?? mappings[prefix] }

    /// The write of the HoA prefix's newest mapping, if it is on its way.
    func newestTicket(of prefix: IPPrefix) -> StoreTicket? { writes.newestTicket(of: prefix) }
    func isBeingWritten(_ prefix: IPPrefix) -> Bool { writes.newestTicket(of: prefix) != nil }

    /// When the certificate of the mapping of exactly this HoA prefix begins to be valid, Unix time in ms.
    func certificateNotBefore(of prefix: IPPrefix) -> UInt64? { mappings.certificateNotBefore(of: prefix) }

    /// The newest certificate of each HoA.
    var certificates: IssuedCertificates { issued }

    /// The certificate that came along or is named; `nil` if the name is unknown here.
    func certificate(named enclosed: EnclosedRecord) -> Certificate? {
        certificate(named: enclosed.certificate, of: enclosed.mapping.record.prefix)
    }

    func certificate(named reference: CertificateReference, of prefix: IPPrefix) -> Certificate? {
        switch reference {
        case .whole(let whole): return whole
        case .id(let id):
            // The mapping's own certificate may be older than the newest issued; that it is no longer good is said later. Its id stands in the
            // table; another's takes a hash.
            if mappings.certificateID(of: prefix) == id { return mappings.certificate(of: prefix) }
            return issued.unused(of: prefix).flatMap { $0.id == id ? $0 : nil }
        }
    }

    /// Whether its signature has been checked, as that of an accepted record's.
    func isBelieved(_ certificate: Certificate) -> Bool {
        mappings.certificate(of: certificate.prefix) == certificate || issued[certificate.prefix] == certificate
    }

    /// Why the certificate counts no more, in words for its node's owner; `nil` if it is its HoA's newest. What is being written counts as
    /// well: it is what will be held.
    func refusalOfOlder(_ certificate: Certificate) -> String? {
        let written = writes.newestMapping(of: certificate.prefix)?.certified.certificate
        for known in [issued[certificate.prefix], written].compactMap({ $0 }) {
            if certificate.notBefore < known.notBefore || (certificate.notBefore == known.notBefore && certificate != known) {
                return supersededReason(known)
            }
        }
        return nil
    }

    /// Why a certificate that is not the newest is refused, in words for its node's owner.
    func supersededReason(_ known: Certificate) -> String {
        if let held = mappings[known.prefix], held.isRevocation, held.certified.certificate == known {
            return
                "the certificate was revoked at \(UTCTime.text(unixMilliseconds: known.notBefore)); the operator of this server must enrol \(known.prefix) anew"
        }
        return "the certificate is superseded by one of \(UTCTime.text(unixMilliseconds: known.notBefore))"
    }

    /// The newest certificate, if it certifies the same key as the one the node came with.
    func successor(of reference: CertificateReference, _ prefix: IPPrefix) -> Certificate? {
        guard let newest = issued[prefix], newest.id != reference.id else { return nil }
        switch reference {
        case .whole(let old): return old.nodeKey == newest.nodeKey ? newest : nil
        case .id(let id):
            guard let old = mappings[prefix]?.certified.certificate, old.id == id, old.nodeKey == newest.nodeKey else {
                return nil
            }
            return newest
        }
    }

    /// Whether the HoA prefix needs a place of its own in its prefix's quota.
    private func isNew(_ prefix: IPPrefix) -> Bool { !mappings.contains(prefix) && !isBeingWritten(prefix) }

    /// Mappings held of the served prefix.
    func count(of served: IPPrefix) -> Int { quotas.count(of: served) }

    /// Whether one more write may wait for the store.
    func hasRoomForWrite(_ limits: IMSLimits) -> Bool { writes.count < limits.writesMax }

    /// Whether the table takes this HoA prefix.
    func hasRoom(for prefix: IPPrefix, _ limits: IMSLimits) -> Bool {
        mappings.contains(prefix) || mappings.count < limits.mappingsMax
    }

    /// Why there is no memory to hold this record beside all that is on its way to the store; `nil` if there is. Takes it ahead: what becomes
    /// durable must be held, so whatever is to be written is asked for here before.
    func memoryRefusal(for record: MappingRecord) -> MemoryRefusal? {
        do throws(MemoryRefusal) {
            try mappings.reserve(writes.count + 1, recordOctets: record.octetsCount)
            return nil
        } catch {
            return error
        }
    }

    /// Why the quotas of its prefix leave no room for an update of this HoA prefix.
    func quotaRefusal(of prefix: IPPrefix, _ served: ServedPrefix, _ now: Now) -> PrefixQuotas.Refusal? {
        quotas.refusal(served, isNew: isNew(prefix), now.monotonic)
    }

    // MARK: Walking

    /// Up to `count` mappings in the order of their HoAs, those after `after`.
    func page(after: IPPrefix?, count: Int, where isWanted: (StoredMapping) -> Bool) -> [StoredMapping] {
        mappings.page(after: after, count: count, where: isWanted)
    }

    /// The first `count` HoA prefixes that are wanted, in order.
    func prefixes(count: Int, where isWanted: (IPPrefix) -> Bool) -> [IPPrefix] {
        mappings.prefixes(count: count, where: isWanted)
    }

    /// The HoA whose newest certificate has this id. Looks at everything.
    func prefix(certifiedBy id: CertificateID) -> IPPrefix? {
        if let mapping = mappings.all.first(where: { $0.certified.certificate.id == id }) { return mapping.record.prefix }
        return issued.unusedOnes.first { $0.id == id }?.prefix
    }

    // MARK: Changes

    /// A change is to be made durable. An accepted update takes from its prefix's rate, and a new HoA a place in its quota.
    ///
    /// - Parameters:
    ///   - served: of an update; others are not counted.
    ///   - latest: what the store holds under certificates that begin later than this (Unix, ms) gives way.
    mutating func begin(_ write: PendingWrite, ofUpdateTo served: ServedPrefix? = nil, latest: UInt64? = nil, _ now: Now) -> Write {
        var write = write
        if let served {
            quotas.takeUpdate(served, now.monotonic)
            if let mapping = write.mapping, isNew(mapping.record.prefix) {
                quotas.reserve(served.prefix)
                write.reserved = served.prefix
            }
        }
        let ticket = writes.begin(write)
        let change = StoreChange(
            mapping: write.mapping, issued: write.issued, latest: latest, rows: write.rows, certificates: write.certificates,
            relied: write.relied)
        return Write(ticket: ticket, change: change)
    }

    /// A duplicate of the update that is being written: it is answered with it.
    mutating func join(_ ticket: StoreTicket, _ request: Request) { writes.join(ticket, request) }

    /// The store has answered for the change.
    ///
    /// - Returns: who waits; `nil` if there is no such write.
    mutating func finish(_ ticket: StoreTicket, isDurable: Bool, _ now: Now) -> PendingWrite? {
        guard let write = writes.finish(ticket) else { return nil }
        if let reserved = write.reserved { quotas.release(reserved) }
        if isDurable {
            for certificate in write.certificates { issued.add(certificate, latest: now.latestBelieved) }
            if let certificate = write.issued { issued.add(certificate, latest: now.latestBelieved) }
        }
        return write
    }

    /// A certificate that is durable: no older one of its HoA is accepted any more.
    ///
    /// - Parameter latest: what is held and begins later (Unix, ms) gives way.
    mutating func hold(_ certificate: Certificate, latest: UInt64 = .max) { issued.add(certificate, latest: latest) }

    /// A mapping that is durable.
    ///
    /// - Returns: `nil` if a newer one is held, or the same.
    /// - Throws: if there is no memory for it; what was held is held.
    mutating func hold(_ mapping: StoredMapping, _ configuration: IMSCoreConfiguration, _ now: Now) throws(MemoryRefusal) -> OnHeld? {
        let latest = now.latestBelieved
        issued.add(mapping.certified.certificate, latest: latest)
        let held = mappings.version(of: mapping.record.prefix)
        // What begins too far ahead for anybody to believe it gives way to what the store has taken in its place.
        func givesWay(_ held: RecordVersion) -> Bool {
            held < mapping.certified.version || held.notBefore > latest && mapping.certified.version.notBefore <= latest
        }
        guard held.map(givesWay) ?? true else { return nil }
        let before = mappings[mapping.record.prefix]
        let changes = changes(by: mapping, insteadOf: before, now)
        try mappings.set(mapping)
        if held == nil { quotas.added(mapping.record.prefix, configuration) }
        sharedAddresses.held(mapping.record, insteadOf: before?.record)
        issued.mappingReplaced(mapping.record.prefix, notBefore: mapping.certified.certificate.notBefore)
        return OnHeld(changes: changes)
    }

    /// What the store held at the start, as octets: no value is made of it.
    mutating func load(_ packed: PackedMapping, _ facts: PackedMapping.Facts, _ configuration: IMSCoreConfiguration) throws(MemoryRefusal) {
        let held = mappings.version(of: facts.prefix)
        guard held.map({ $0 < facts.version }) ?? true else { return }
        // Only of a record with endpoints is a value made.
        let stored = packed.hasKinds ? packed.stored : nil
        let before = stored != nil && held != nil ? mappings[facts.prefix]?.record : nil
        try mappings.set(packed, expires: facts.expires)
        if held == nil { quotas.added(facts.prefix, configuration) }
        if let stored { sharedAddresses.held(stored.record, insteadOf: before) }
        issued.mappingReplaced(facts.prefix, notBefore: facts.version.notBefore)
    }

    /// What a store held, before the first event.
    mutating func load(_ mapping: StoredMapping, _ configuration: IMSCoreConfiguration) throws(MemoryRefusal) {
        let before = mappings[mapping.record.prefix]
        try mappings.set(mapping)
        if before == nil { quotas.added(mapping.record.prefix, configuration) }
        sharedAddresses.held(mapping.record, insteadOf: before?.record)
        issued.mappingReplaced(mapping.record.prefix, notBefore: mapping.certified.certificate.notBefore)
    }

    /// Other prefixes are served: everything is counted anew.
    mutating func recount(_ configuration: IMSCoreConfiguration) {
        quotas.reset(configuration.served)
        mappings.forEachPrefix { quotas.added($0, configuration) }
    }

    /// What holding this mapping changes. Before the table is changed.
    private func changes(by mapping: StoredMapping, insteadOf held: StoredMapping?, _ now: Now) -> [BindingChange] {
        let record = mapping.record
        let before = held.flatMap { $0.isCurrent(now) ? $0.record.whereabouts : nil } ?? []
        let after = record.whereabouts
        let reason: BindingChange.Reason
        switch (mapping.isRevocation, record.isWithdrawal) {
        case (true, _): reason = .revoked
        case (false, true): reason = .withdrawn
        case (false, false): reason = before.isEmpty ? .registered : before == after ? .refreshed : .moved
        }
        var changes = [
            BindingChange(
                hoa: record.prefix, reason: reason, before: before, after: after,
                source: mapping.isRevocation ? nil : mapping.source,
                sequence: record.sequence)
        ]
        guard reason != .refreshed else { return changes }
        for case .network(let prefix) in after where !before.contains(.network(prefix)) {
            guard let other = mappings.entry(holding: MobileAddress(prefix.address), now: now), other.record.prefix != record.prefix,
                other.provenAt <= mapping.provenAt
            else { continue }
            changes.append(
                BindingChange(
                    hoa: other.record.prefix, reason: .displaced, before: [.network(prefix)], after: [], source: mapping.source,
                    sequence: other.record.sequence, by: record.prefix))
        }
        return changes
    }
}
