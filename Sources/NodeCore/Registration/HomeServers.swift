import MATControl
import MATCore
import MATSignal

/// The IMSs of an own HoA, as the DNS names them.
///
/// ```
///              found                        expired: used on, and asked for anew; not in another network unless validated
///   unknown ──────────► known ─────────────────────────────┐
///      │ ▲                ▲ └──────────────────────────────┘
///      ▼ │ 1, 2, 4, 8, 10 s: asked again
///   no answer, or denied ─┘ (what was known before is used meanwhile)
/// ```
struct HomeServers: Sendable {
    private struct Trouble: Sendable {
        var problem: Problem
        var failures: Int
        /// The DNS said that there is none. A captive portal denies everything until somebody has signed in, so it is never believed for as
        /// long as it says.
        var isDenied: Bool
        /// When it is asked again; `nil` while that is under way.
        var retryAt: MonotonicTime?
    }

    /// Perhaps expired.
    private(set) var set: ServerSet?
    private var trouble: Trouble?

    /// What a found set is.
    struct OnFound: Hashable, Sendable {
        /// Others than before.
        let isNews: Bool
        /// What denied us has denied others as well: the network has opened.
        let endsDenial: Bool
    }

    /// What the DNS does not say, or denies; `nil` if nothing is wrong.
    var problem: Problem? { trouble?.problem }
    var retryAt: MonotonicTime? { trouble?.retryAt }

    func isExpired(_ now: MonotonicTime) -> Bool { set.map { $0.expires <= now } ?? true }

    func contains(_ endpoint: Endpoint) -> Bool { set?.endpoints.contains(endpoint) ?? false }

    mutating func found(_ found: ServerSet) -> OnFound {
        defer {
            set = found
            trouble = nil
        }
        return OnFound(isNews: Set(set?.endpoints ?? []) != Set(found.endpoints), endsDenial: trouble?.isDenied ?? false)
    }

    /// The DNS gave none.
    ///
    /// - Returns: whether people have not been told of this problem.
    mutating func notFound(_ problem: Problem, isDenied: Bool, _ now: MonotonicTime) -> Bool {
        let old = trouble
        let failures = old?.failures ?? 0
        trouble = Trouble(
            problem: problem, failures: failures + 1, isDenied: isDenied || old?.isDenied ?? false, retryAt: now + Self.pause(after: failures))
        return old?.problem != problem
    }

    /// 1, 2, 4, 8, 10 s between look-ups that found no IMS: a question costs little, and whoever walks through a captive portal waits for it.
    private static func pause(after failures: Int) -> Duration { .seconds(min(10, 1 << min(failures, 4))) }

    /// The time to ask again has come.
    mutating func retries() { trouble?.retryAt = nil }

    /// The network or the resolvers changed: whatever pause it was in, it is asked at once.
    mutating func startOver() {
        trouble?.failures = 0
        trouble?.retryAt = nil
    }

    /// What was not validated on this host says nothing about another network.
    mutating func leaveNetwork(_ now: MonotonicTime) {
        guard let known = set, !known.isValidated else { return }
        set?.expires = min(known.expires, now)
    }

    /// The instance that answered is asked first from now on; the DNS's order holds again when it is asked again.
    mutating func prefer(_ server: Endpoint) {
        guard let index = set?.endpoints.firstIndex(of: server), index > 0 else { return }
        set?.endpoints.remove(at: index)
        set?.endpoints.insert(server, at: 0)
    }
}
