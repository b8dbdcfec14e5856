import MATCore
import MATSignal
import MappingMemory

// What people and programs want of a server, and what they ask.

extension IMSCore {
    /// Issues a certificate: this key may sign mappings for this HoA. It counts once its write is durable.
    ///
    /// - Parameters:
    ///   - lifetime: how long it is valid; the configured time if `nil`.
    ///   - isForced: whether it may take the HoA, or a part of it, from whoever has it now, and take back what was issued while a clock was
    ///     far ahead.
    ///   - isRenewed: whether its node gets another certificate when this one ends.
    ///   - isClockConfirmed: whether NTP says that the clock is right; for the sentence of a refusal.
    /// - Returns: the certificate, the ticket whose `stored` decides, and what to do.
    public mutating func enrol(
        _ hoa: HomeAddress, prefixLength: UInt8 = 128, key: PublicKey, lifetime: Duration? = nil, isForced: Bool = false,
        isRenewed: Bool = true, isClockConfirmed: Bool = false, now: Now
    ) throws(EnrolmentRefusal) -> (certificate: Certificate, ticket: StoreTicket, actions: [IMSAction]) {
        let enrolment = Enrolment(
            hoa: hoa, prefixLength: prefixLength, key: key, lifetime: lifetime, isForced: isForced,
            isRenewed: isRenewed, isClockConfirmed: isClockConfirmed)
        let issued = try enrolment.issue(view, &random, now)
        if isForced, let loser = view.loser(to: issued.certificate.prefix, key, now) { log(.notice, "enrolling by force: \(loser)") }
        let ticket = commit(registrations.begin(issued.write, latest: issued.latest, now))
        return (issued.certificate, ticket, takeActions(now))
    }

    /// Makes a token durable.
    ///
    /// - Returns: the ticket whose `stored` decides, and what to do.
    public mutating func create(_ token: HeldToken, now: Now) throws(TokenRefusal) -> (ticket: StoreTicket, actions: [IMSAction]) {
        let write = try joining.create(token, view)
        return (commit(registrations.begin(write, now)), takeActions(now))
    }

    /// Nobody new joins with the token, as soon as that is durable.
    ///
    /// - Returns: `nil` if it is revoked already.
    public mutating func revokeToken(_ id: TokenID, now: Now) throws(TokenRefusal) -> (ticket: StoreTicket, actions: [IMSAction])? {
        guard let write = try joining.revoke(id, now) else { return nil }
        return (commit(registrations.begin(write, now)), takeActions(now))
    }

    /// All tokens, in the order in which they were made.
    public var tokens: [HeldToken] { joining.tokens.values.sorted { ($0.createdAt, $0.id) < ($1.createdAt, $1.id) } }

    /// What was given and is held by a key, by whatever: leases, and in their place HoAs of which there is a certificate alone or one of another key.
    /// Such were signed where the signing key is kept, or before there were leases, and count as given by hand.
    ///
    /// - Returns: up to `count`, in the order of their HoAs, those after `after`; and behind which there may be more.
    public func givenPage(after: IPPrefix?, count: Int) -> (given: [Lease], next: IPPrefix?) {
        var after = after
        let size = max(count, Self.givenLooksMin)
        for _ in 0..<Self.givenLooksMax {
            let certificates = issued.page(after: after, count: size).map(\.prefix)
            let leases = leasesPage(after: after, count: size).map(\.prefix)
            // What comes after the last of a whole page has not been looked at.
            let end = [certificates, leases].compactMap { $0.count < size ? nil : $0.last }.min()
            let found = Set(certificates + leases).filter { prefix in end.map { prefix <= $0 } ?? true }.sorted().compactMap { given($0) }
            if found.count > count { return (Array(found.prefix(count)), found[count - 1].prefix) }
            guard found.isEmpty, let end else { return (found, end) }
            after = end
        }
        return ([], after)
    }

    /// HoAs that are looked at in one go, and how often there may be nothing among them.
    private static let givenLooksMin = 1000
    private static let givenLooksMax = 16

    private func given(_ prefix: IPPrefix) -> Lease? {
        let lease = joining.leases[prefix]
        if let certificate = issued[prefix], lease?.key != certificate.nodeKey {
            let isRevoked = registrations[prefix].map { $0.isRevocation && $0.certified.certificate == certificate } ?? false
            if !isRevoked { return Lease(prefix, key: certificate.nodeKey, .hand, givenAt: certificate.notBefore) }
        }
        return lease.flatMap { $0.isReturned ? nil : $0 }
    }

    /// HoAs that were given, in order, those after `after`.
    public func leasesPage(after: IPPrefix?, count: Int) -> [Lease] { joining.leases.page(after: after, count: count) { !$0.isReturned } }

    /// Revokes every certificate of the HoA that there is so far, and withdraws its mapping, as soon as that is durable.
    ///
    /// - Parameters:
    ///   - isUnknownAllowed: whether an HoA of which this server has never heard may be revoked: one whose certificate was issued
    ///     elsewhere and never used. Otherwise that is taken for a mistyped one.
    ///   - tombstone: made where the signing key is, if it is not here.
    /// - Returns: the ticket whose write decides, and what to do; `nil` if it is revoked already.
    public mutating func revoke(
        _ prefix: IPPrefix, isUnknownAllowed: Bool = false, tombstone: CertifiedMapping? = nil, now: Now
    ) throws(RevocationRefusal) -> (ticket: StoreTicket, actions: [IMSAction])? {
        let revocation = Revocation(prefix: prefix, isUnknownAllowed: isUnknownAllowed, tombstone: tombstone)
        guard let write = try revocation.revoke(view, &random, now) else { return nil }
        return (commit(registrations.begin(write, now)), takeActions(now))
    }

    /// Writes an imported mapping if it is newer than what is held.
    package mutating func importing(_ mapping: StoredMapping, _ now: Now) -> ImportStep {
        write(view.judge(imported: mapping), now)
    }

    /// Writes an imported certificate if it is newer than what is known of its HoA.
    package mutating func importing(_ certificate: Certificate, _ now: Now) -> ImportStep {
        write(view.judge(imported: certificate), now)
    }

    /// Writes an imported token or lease if it is newer than what is held, as the version after that.
    package mutating func importing(_ row: StoredRow, _ now: Now) -> ImportStep {
        if let refusal = store.refusalForOperators { return .refused(refusal) }
        let held = joining.row(like: row)
        if held?.value == row.value { return .same }
        guard (held?.version ?? 0) < row.version else { return .older }
        var next = row
        next.version = (held?.version ?? 0) + 1
        return .written(commit(registrations.begin(PendingWrite(rows: [next]), now)))
    }

    private mutating func write(_ judgement: OnImport, _ now: Now) -> ImportStep {
        switch judgement {
        case .leave(let step): step
        case .write(let write): .written(commit(registrations.begin(write, now)))
        }
    }

    /// Takes the next step of a walk through all that is held, or the first of the next one.
    ///
    /// - Returns: what to do, and whether the walk goes on; otherwise the next one is for the caller to begin.
    public mutating func survey(now: Now) -> (actions: [IMSAction], goesOn: Bool) {
        let step = survey.step(registrations, now)
        for line in step.lines { log(.warning, line) }
        for mapping in step.expired {
            let change = BindingChange(
                hoa: mapping.record.prefix, reason: .expired, before: mapping.record.whereabouts, after: [],
                source: mapping.source, sequence: mapping.record.sequence)
            log(change, now)
        }
        return (takeActions(now), step.goesOn)
    }

    /// From now on `takeNews` has what others should know.
    public mutating func shareNews() {
        sharing.begin()
        joining.isShared = true
        remembered.keepNews()
    }

    /// What has been learned since the last call.
    public mutating func takeNews() -> [SharedNews] {
        guard sharing.isShared else { return [] }
        // Nodes of our own are told of by their mappings.
        let learned = remembered.takeNews().filter { configuration.served(covering: $0.certified.record.prefix) == nil }
        return sharing.takeNews() + learned.map { .remembered($0.certified, isConfirmed: $0.isConfirmed) }
    }

    // MARK: Questions

    public var counters: IMSCounters {
        var counters = counted
        counters.verifications = verifications.begunCount
        counters.quotaRefusals = updates.quotaRefusals
        counters.memoryRefusals = counted.memoryRefusals + updates.memoryRefusals
        return counters
    }

    /// The latest first.
    public var latestChanges: [RecentChange] { recentChanges.latest }

    /// The HoA whose node is at this address and port, as far as this server knows.
    public func home(at endpoint: Endpoint, now: Now) -> IPPrefix? {
        binds.table.bindings(acceptedFrom: endpoint, now.monotonic).first?.prefix
            ?? registrations.entry(holding: MobileAddress(endpoint.address), now: now)?.record.prefix
    }

    public var mappingsCount: Int { registrations.count }
    /// Mappings that are durable and not served, because the system gave no memory for them.
    public var unheldCount: Int { unheld.count }
    public var rememberedCount: Int { remembered.count }
    public var rememberedUnconfirmedCount: Int { remembered.unconfirmedCount }
    public var subscriptionsCount: Int { subscriptions.count }
    public var bindingsCount: Int { binds.table.count }
    public var notifiesPendingCount: Int { ownNotifies.count + confirmations.count }
    public var verificationsPendingCount: Int { verifications.count }
    public var pushesPendingCount: Int { pushes.count }
    /// Changes that the store has not answered for.
    public var writesCount: Int { registrations.writesCount }
    public var servedPrefixes: [ServedPrefix] { configuration.served }
    public var publicKeys: [PublicKey] { configuration.publicKeys }
    public var canSign: Bool { configuration.signingKey != nil }
    public func isSigning(_ key: PublicKey) -> Bool { configuration.signingKey?.publicKey == key }
    public func isPrevious(_ key: PublicKey) -> Bool { configuration.previousKeys.contains(key) }
    public var isLoading: Bool { store.isLoading }
    /// Why the store takes no change at present.
    public var storeUnavailable: String? { store.unavailable }
    /// The last whole survey's findings.
    public var surveyed: SurveyResult { survey.result }

    public func mappingsInOrder() -> [StoredMapping] { registrations.table.sorted() }
    public func mapping(of hoa: HomeAddress) -> StoredMapping? { registrations.entry(covering: hoa.address) }
    /// What nodes are bound at.
    package var bindings: BindingTable { binds.table }

    /// Takes back what an earlier run held. Before the first event.
    package mutating func restoreBindings(_ saved: [SavedBinding], now: Now) { binds.restore(saved, configuration, now) }

    /// Where the node of the HoA is bound here.
    public func boundEndpoint(of hoa: HomeAddress, now: Now) -> Endpoint? {
        binds.table.binding(covering: hoa.address, now.monotonic)?.endpoint
    }
    public func rememberedMapping(of hoa: HomeAddress) -> (mapping: CertifiedMapping, isConfirmed: Bool)? {
        remembered.entry(covering: hoa).map { ($0.certified, $0.isConfirmed) }
    }
    public func subscribers(of hoa: HomeAddress, now: Now) -> [Endpoint] {
        guard let entry = registrations.entry(covering: hoa.address) else { return [] }
        return subscriptions.current(of: entry.record.prefix, now: now.monotonic).map(\.endpoint)
    }

    /// Mappings held of each served prefix, in the configuration's order.
    public var mappingsByPrefix: [(prefix: ServedPrefix, count: Int)] {
        configuration.served.map { ($0, registrations.count(of: $0.prefix)) }
    }

    /// The HoA whose newest certificate has this id; for revoking by it. Looks at everything.
    public func prefix(certifiedBy id: CertificateID) -> IPPrefix? { registrations.prefix(certifiedBy: id) }

    /// For the threads that answer queries.
    package var mappings: MappingTable { registrations.table }

    /// The newest certificate of each HoA.
    package var issued: IssuedCertificates { registrations.certificates }

    /// Pushes on their way at the moment.
    package var pushesUnderWay: Set<PushKey> { Set(pushes.underWay) }
    package func isUnderWay(_ key: PushKey) -> Bool { pushes.isUnderWay(key) }

    /// Up to `count` mappings in the order of their HoAs, those after `after`.
    package func mappingsPage(after: IPPrefix?, count: Int, where isWanted: (StoredMapping) -> Bool) -> [StoredMapping] {
        registrations.page(after: after, count: count, where: isWanted)
    }

    /// Calls `body` with at least `count` mappings, in an order that changes keep.
    ///
    /// - Parameter from: 0 at first, then what was returned before.
    /// - Returns: from where to go on; `nil` at the end.
    package func walkMappings(from: UInt64, atLeast count: Int, _ body: (StoredMapping) -> Void) -> UInt64? {
        registrations.table.walk(from: from, atLeast: count, body)
    }

    /// Up to `count`, certificates that no mapping held here has: issued, and not used yet.
    package func certificatesPage(after: IPPrefix?, count: Int) -> (certificates: [Certificate], last: IPPrefix?) {
        let page = issued.unusedPage(after: after, count: count)
        return (
            page.filter { registrations[$0.prefix]?.certified.certificate != $0 }, page.count < count ? nil : page.last?.prefix
        )
    }
}
