import IMSCore
import MATSignal

/// Changes of tokens and leases that others were quicker than, on their way to the core.
///
/// ```
///   refused by etcd, which has something newer ─► waits ─► the watch has brought all up to that ─► told
///                                                   └ it does not come: failed
/// ```
/// Who has lost decides anew. He must know by then all that was written with what he lost against, and not only the rows that differ: that the same
/// node has joined at another server, and with which certificate.
struct LateConflicts: Sendable {
    private var waiting: [(outcome: StoreOutcome, revision: Int64, until: MonotonicTime)] = []

    mutating func add(_ outcome: StoreOutcome, at revision: Int64, until: MonotonicTime) { waiting.append((outcome, revision, until)) }

    /// - Parameter revision: up to which the core has been told everything; `nil`: that is not known.
    mutating func take(upTo revision: Int64?, _ now: MonotonicTime) -> [StoreOutcome] {
        guard !waiting.isEmpty else { return [] }
        var taken: [StoreOutcome] = []
        waiting.removeAll { each in
            if let revision, each.revision <= revision {
                taken.append(each.outcome)
            } else if each.until <= now {
                taken.append(StoreOutcome(each.outcome.ticket, .failed("etcd does not tell what another server wrote")))
            } else {
                return false
            }
            return true
        }
        return taken
    }
}
