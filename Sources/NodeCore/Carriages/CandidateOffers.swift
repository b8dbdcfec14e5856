import MATCore
import MATSignal

/// When a peer is told our own candidates.
///
/// ```
///   due ──► told, 3 tries ── answered, or not ──► due again after 60, 120, ... 600 s of use
/// ```
struct CandidateOffers: Hashable, Sendable {
    static let triesMax = 3
    static let intervalMin: Duration = .seconds(60)
    static let intervalMax: Duration = .seconds(600)
    /// Between two, if the peer's own come meanwhile.
    static let pauseMin: Duration = .seconds(5)

    private var toldAt: MonotonicTime?
    private var interval = CandidateOffers.intervalMin
    private var tries = 0

    var isBegun: Bool { toldAt != nil }

    /// - Returns: whether they are to be told now.
    mutating func offer(_ now: MonotonicTime) -> Bool {
        if let toldAt {
            guard tries == 0, now - toldAt >= interval else { return false }
            interval = min(Self.intervalMax, interval * 2)
        }
        (toldAt, tries) = (now, 1)
        return true
    }

    /// The peer told its own: it may not have ours.
    mutating func returned(_ now: MonotonicTime) -> Bool {
        if let toldAt, now - toldAt < Self.pauseMin { return false }
        (toldAt, tries) = (now, 1)
        return true
    }

    /// - Returns: whether they are to be told once more.
    mutating func ended(isAnswered: Bool, _ now: MonotonicTime) -> Bool {
        guard tries > 0, !isAnswered, tries < Self.triesMax else {
            tries = 0
            return false
        }
        tries += 1
        return true
    }
}
