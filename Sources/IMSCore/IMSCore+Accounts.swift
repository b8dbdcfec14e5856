import MATSignal
import MappingMemory

// What joining asks of others, and tells them.

extension IMSCore {
    /// The answer to `IMSAction.authorise` has come.
    public mutating func authorised(_ ticket: AuthorisationTicket, _ answer: AuthorisationAnswer, now: Now) -> [IMSAction] {
        perform(joining.authorised(ticket, answer, viewWithoutLeases, now), now)
        return takeActions(now)
    }

    /// Questions that have not been answered yet.
    public var authorisationsPendingCount: Int { joining.authorisations.count }

    /// The store holds these.
    mutating func holdRows(_ rows: [StoredRow], isAnyVersion: Bool = false, _ now: Now) {
        joining.hold(rows, isAnyVersion: isAnyVersion)
        follow(rows, now)
    }

    /// Sees to it that the end of what these give is noticed.
    mutating func follow(_ rows: [StoredRow], _ now: Now) {
        guard configuration.accounts else { return }
        for row in rows where row.kind == .lease {
            if let prefix = RowKey.prefix(row.key), let lease = joining.leases[prefix] { leaseAccounts.follow(lease, configuration, now) }
        }
    }

    /// Before what this server wrote is held: what changes by it.
    mutating func account(for rows: [StoredRow], _ now: Now) {
        guard configuration.accounts else { return }
        for row in rows where row.kind == .lease {
            guard let lease = Lease(row) else { continue }
            let over = joining.leases[lease.prefix].map { (lease: $0, cause: LeaseAccounts.cause(of: $0, view)) }
            for change in leaseAccounts.changes(to: lease, from: over?.lease, over?.cause, configuration, now) { append(.account(change)) }
        }
    }

    /// An update of a node's was accepted here.
    mutating func accountForUpdate(of mapping: StoredMapping, _ now: Now) {
        guard configuration.accounts, let lease = joining.leases[mapping.record.prefix] else { return }
        if mapping.isRevocation { return leaseAccounts.mayHaveEnded(lease.prefix, now) }
        guard lease.key == mapping.certified.certificate.nodeKey, !mapping.record.isWithdrawal else { return }
        if let change = leaseAccounts.isUsed(lease, from: mapping.source, configuration, now) { append(.account(change)) }
    }

    /// Closes the accounts of leases that have ended, as far as that is due now.
    mutating func closeLeases(_ now: Now) {
        for lease in leaseAccounts.due(view, now) {
            var closed = lease
            closed.isClosed = true
            closed.version += 1
            commit(registrations.begin(PendingWrite(rows: [closed.row]), now))
        }
    }

    /// Accounts may be wanted that were not before.
    mutating func followLeases() {
        leaseAccounts = LeaseAccounts()
        guard configuration.accounts else { return }
        leaseAccounts.followAll = true
    }
}
