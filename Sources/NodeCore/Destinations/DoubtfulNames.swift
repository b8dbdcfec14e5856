import MATCore
import MATSignal

/// A destination of which the DNS says neither that it is a MAT node nor that it is none (protocol.md section 7).
struct Doubt: Hashable, Sendable {
    /// When the first packet to it came.
    let since: MonotonicTime
    /// When the DNS was last asked.
    fileprivate(set) var asked: MonotonicTime
    /// When a packet to it last came into our hands: every 30 s while it is in use.
    fileprivate(set) var used: MonotonicTime
    let reason: String
    /// It is talked to plainly meanwhile; otherwise its packets wait.
    let isPlain: Bool
}

/// The destinations in doubt:
///
/// ```
///                            found ──► its IMS is asked; never plain
///                            absent ─► plain, for as long as the answer says, 300 s at most
///   first packet ─ look-up ──┤
///                            │ nothing (time-out, SERVFAIL, refused), asked again each second
///                            │    was a peer, or the configuration names it as MAT ──► waits; with known IMSs these are asked
///                            │    any other ─ after 2 s ──► plain, asked again every 30 s while in use     } both are in doubt, and
///                            └ bogus, or an IMS that can't be used ──► waits                               } shown by `mat status`
/// ```
struct DoubtfulNames: Sendable {
    /// How often the DNS is asked again about one that is plain for lack of an answer.
    static let interval: Duration = .seconds(30)
    /// One that was not used for so long is held anew, like any other.
    static let unusedMax: Duration = .seconds(300)
    /// What `mat status` counts as in use.
    static let shownFor: Duration = .seconds(90)
    static let countMax = 1024

    private let countMax: Int
    private var doubts: [HomeAddress: Doubt] = [:]
    private var reports = RateLimit(perSecond: 1, burst: 5)

    init(countMax: Int) { self.countMax = countMax }

    subscript(hoa: HomeAddress) -> Doubt? { doubts[hoa] }

    /// The DNS gave no answer about it, or none in time.
    ///
    /// - Parameter since: when its packets began to wait.
    /// - Returns: how people are to be told, if it is news.
    mutating func enter(_ hoa: HomeAddress, _ reason: String, isPlain: Bool, since: MonotonicTime, now: MonotonicTime) -> NodeLogLevel? {
        let old = doubts[hoa]
        // Those that were not used for longest.
        doubts.makeRoom(for: hoa, max: countMax) { $1.used }
        doubts[hoa] = Doubt(since: old?.since ?? since, asked: old?.asked ?? since, used: old?.used ?? now, reason: reason, isPlain: isPlain)
        guard old?.isPlain != isPlain else { return nil }
        return reports.take(at: now) ? .warning : .debug
    }

    /// It is being asked for.
    mutating func ask(_ hoa: HomeAddress, now: MonotonicTime) {
        doubts[hoa]?.asked = now
        doubts[hoa]?.used = now
    }

    mutating func use(_ hoa: HomeAddress, now: MonotonicTime) { doubts[hoa]?.used = now }

    mutating func remove(_ hoa: HomeAddress) -> Doubt? { doubts.removeValue(forKey: hoa) }

    /// In another network the DNS may know: those that are plain are asked for with their next packet. They stay plain until they lapse, so that
    /// no conversation stands still for 2 s once more.
    mutating func askAnew() {
        for (hoa, doubt) in doubts where doubt.isPlain { doubts[hoa]?.asked = .zero }
    }

    /// Those in use, the latest first.
    func inUse(now: MonotonicTime) -> [(hoa: HomeAddress, doubt: Doubt)] {
        doubts.filter { now - $0.value.used < Self.shownFor }.sorted { ($1.value.used, $0.key) < ($0.value.used, $1.key) }.map { ($0.key, $0.value) }
    }
}
