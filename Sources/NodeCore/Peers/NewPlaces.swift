import MATSignal

/// Places to which peers are moving while they are still at another: their packets go to the old one until some have come from the new one.
///
/// ```
///                a better place is proven, and the one                packets come from there, or 1 s
///   (nothing) ──── in use is, too; packets were exchanged ──► awaited ──────────────────────────────► settled ── it is in use, or listed no more ──► (nothing)
/// ```
/// A firewall before the new place may let an answer to the peer's own signalling in, and nothing else that has not begun inside. The peer moves with
/// both networks there, so it begins as soon as we take its packets in; what we sent there before would be lost.
struct NewPlaces: Sendable {
    private struct Wait: Sendable {
        let place: MobileAddress
        let until: MonotonicTime
        /// Packets that came from there; `nil`: not known yet.
        var came: UInt64?
        var isSettled = false
    }

    /// At a time, of each core.
    static let waitsMax = 64
    /// A peer that sends nothing can't show that anything comes through; its old network may be going.
    static let waitMax: Duration = .seconds(1)

    private var waits: [HomeAddress: Wait] = [:]

    // MARK: Questions

    /// The place that a peer's packets do not go to yet.
    func awaited(_ hoa: HomeAddress) -> MobileAddress? { waits[hoa].flatMap { $0.isSettled ? nil : $0.place } }

    /// What is to be read, by peer and in order.
    var watched: [(hoa: HomeAddress, place: MobileAddress)] {
        waits.filter { !$0.value.isSettled }.map { ($0.key, $0.value.place) }.sorted { $0.0 < $1.0 }
    }
    var isWatching: Bool { waits.contains { !$0.value.isSettled } }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? { waits.values.reduce(nil) { $1.isSettled ? $0 : $0.earlier($1.until) } }

    // MARK: Events

    /// A peer's packets could go to this place instead of the one where they go now.
    ///
    /// - Parameter isNew: nothing was taken from there before.
    mutating func begin(_ hoa: HomeAddress, at place: MobileAddress, isNew: Bool, _ now: MonotonicTime) {
        guard waits[hoa]?.place != place else { return }
        waits[hoa] = nil
        guard waits.count < Self.waitsMax else { return }
        waits[hoa] = Wait(place: place, until: now + Self.waitMax, came: isNew ? 0 : nil)
    }

    mutating func end(_ hoa: HomeAddress) { waits[hoa] = nil }

    /// So many packets have come from the place that is awaited.
    ///
    /// - Returns: whether the peer's packets may go there now.
    mutating func counted(_ hoa: HomeAddress, came: UInt64) -> Bool {
        guard let wait = waits[hoa], !wait.isSettled else { return false }
        guard let before = wait.came, before <= came else {
            waits[hoa]?.came = came
            return false
        }
        guard came > before else { return false }
        waits[hoa]?.isSettled = true
        return true
    }

    /// - Returns: the peers whose time is up; in order.
    mutating func takeDue(_ now: MonotonicTime) -> [HomeAddress] {
        let due = waits.filter { !$0.value.isSettled && $0.value.until <= now }.keys.sorted()
        for hoa in due { waits[hoa]?.isSettled = true }
        return due
    }
}
