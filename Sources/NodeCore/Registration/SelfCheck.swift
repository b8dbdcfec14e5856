import MATCore
import MATSignal

/// Whether the own IMS still knows us. An IMS that lost its store, or got an old copy of it back, knows nothing of the nodes that registered
/// before, and says so to nobody: a node at home would be missing until it registers again, up to half an hour later, and its peers' new
/// connections would be plain without a word.
///
/// ```
///   every 2 minutes ─────────────────────────────┐
///   a peer or an IMS says something that fits ───┤
///   the own IMS pushes a record of another key ──┴──► MA Query for the own HoA ──► nothing, an older record, or another key's ──► register again
/// ```
/// A record of another key is what an operator who revokes the address leaves (IMSCore's Tombstone), or the next owner's: the answer to the
/// registration says which, and what to do. What was pushed is not looked at more closely, for the question costs less than a signature.
///
/// A query of 40 to 84 octets that workers answer from memory: 10^6 nodes cost their IMS some 8,000 of them a second. The times are spread
/// at random, so a store that is lost comes back at that pace too, about what one server takes in.
struct SelfCheck: Sendable {
    /// Between two checks that something gave a reason for, and those that the own IMS did.
    private static let pauseMin: Duration = .seconds(5), pushedPauseMin: Duration = .seconds(1)

    /// What is missing at the IMS.
    enum Loss: Hashable, Sendable {
        case record
        /// It has one from before.
        case newestRecord
        /// Nothing: the HoA is another key's there.
        case address
    }

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

    /// The own IMS has pushed something that is not as we know it. What it answered a moment ago, or is about to, may be of before that.
    ///
    /// - Parameter isBusy: it can't be asked now.
    /// - Returns: whether it is to be asked now; if not, the next check comes soon.
    mutating func followsPush(isBusy: Bool, _ now: MonotonicTime) -> Bool {
        let next = max(now, askedAt.map { $0 + Self.pushedPauseMin } ?? now)
        if !isBusy, next == now { return true }
        let soon = max(next, now + Self.pushedPauseMin)
        due = due.map { min($0, soon) } ?? soon
        return false
    }

    mutating func asked(_ now: MonotonicTime) { askedAt = now }

    /// What the IMS's answer says is missing there; `nil` if nothing is.
    static func loss(_ answer: MAAnswer, own: CertifiedMapping) -> Loss? {
        switch answer.code {
        case .notFound: return .record
        case .ok:
            guard let held = answer.mapping, held != own.mapping else { return nil }
            // It is enclosed if it is not the one that the query named.
            if let certificate = answer.certificate, certificate.nodeKey != own.certificate.nodeKey { return .address }
            return held.record.sequence < own.record.sequence ? .newestRecord : nil
        default: return nil
        }
    }
}
