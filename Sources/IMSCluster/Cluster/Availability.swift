import IMSCore
import MATSignal

/// Whether etcd takes writes, as the core is told.
///
/// ```
///               refused for all, or no answer for 2 s
///   available ────────────────────────────────────────► unavailable      a single slow answer is no trouble yet
///       ▲                       an answer                    │
///       └────────────────────────────────────────────────────┘
/// ```
struct Availability: Sendable {
    private(set) var isUnavailable = false
    /// What last went wrong, for a person.
    private(set) var trouble = "etcd was not reached yet"
    private var answeredAt: MonotonicTime

    init(_ now: MonotonicTime) { answeredAt = now }

    /// Whether etcd has answered of late, so that it is only slow.
    func isAnswering(_ now: MonotonicTime) -> Bool { answeredAt + ClusterInstance.patience > now }

    mutating func failed(_ reason: String) { trouble = reason }

    // MARK: Events; each returns what the core is to be told, if anything

    mutating func answered(_ now: MonotonicTime) -> StoreEvent? {
        answeredAt = now
        defer { isUnavailable = false }
        return isUnavailable ? .available : nil
    }

    /// This process was stopped: not etcd was silent.
    mutating func slept(_ now: MonotonicTime) { answeredAt = now }

    mutating func ticked(_ now: MonotonicTime) -> StoreEvent? {
        answeredAt + ClusterInstance.patience < now ? refused(trouble) : nil
    }

    /// Writes are refused for this reason.
    mutating func refused(_ reason: String) -> StoreEvent? {
        defer { isUnavailable = true }
        return isUnavailable ? nil : .unavailable(reason)
    }
}
