import MATCore
import MATSignal

/// Whether the own IMS still knows us. An IMS that lost its store, or got an old copy of it back, knows nothing of the nodes that registered
/// before, and says so to nobody: a node at home would be missing until it registers again, up to half an hour later, and its peers' new
/// connections would be plain without a word.
///
/// ```
///   every 2 minutes ─────────────────────────────┐
///   a peer or an IMS says something that fits ───┴──► MA Query for the own HoA ──► nothing, or an older record ──► register again
/// ```
/// A query of 40 to 84 octets that workers answer from memory: 10^6 nodes cost their IMS some 8,000 of them a second. The times are spread
/// at random, so a store that is lost comes back at that pace too, about what one server takes in.
struct SelfCheck: Sendable {
    /// Between two checks that something gave a reason for.
    private static let pauseMin: Duration = .seconds(5)

    private let interval: Duration
    private var askedAt: MonotonicTime?
    /// When to ask next; `nil` before the first registration.
    private(set) var due: MonotonicTime?

    init(interval: Duration) { self.interval = interval }

    /// The next check: in the configured time, less or more up to a quarter of it.
    mutating func schedule(random: inout any RandomNumberGenerator, _ now: MonotonicTime) {
        let nanoseconds = interval.nanosecondsSaturated
        due = now + .nanoseconds(nanoseconds / 4 * 3 + Int64.random(in: 0...max(1, nanoseconds / 2), using: &random))
    }

    /// The time to ask has come; it is set anew as soon as that is done.
    mutating func isDue() { due = nil }

    /// Whether a suspicion is to be followed now: not when the IMS was asked a moment ago.
    func followsSuspicion(_ now: MonotonicTime) -> Bool { askedAt.map { now - $0 >= Self.pauseMin } ?? true }

    mutating func asked(_ now: MonotonicTime) { askedAt = now }

    /// What the IMS's answer says is missing there; `nil` if nothing is.
    static func loss(_ answer: MAAnswer, own: SignedMapping) -> String? {
        switch answer.code {
        case .notFound: return "no"
        case .ok:
            guard let held = answer.mapping, held != own, held.record.sequence < own.record.sequence else { return nil }
            return "only an older"
        default: return nil
        }
    }
}
