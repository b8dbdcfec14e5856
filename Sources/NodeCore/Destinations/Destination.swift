import MATSignal

/// An unknown destination, whose packets are held while communication with it begins (paper 4.2 (1)-(5)).
///
/// ```
///            the DNS names its IMSs           there is an own record, and an address to ask from
///   naming ─────────────────────────► found ──────────────────────────────────────────────────► asked
///     │                                 │                                                         │
///     │ it is absent, or silent         │        its mapping is in force, and its IMS has answered HA Notify
///     │ for 2 s: plain                  └──────── (a MA Notify may bring the mapping at any time) ─┴──► its packets go on
///     │
///     └ the time is up, whatever the state: with a mapping its packets go on, without one they are dropped or go plain
/// ```
struct Destination: Hashable, Sendable {
    enum Stage: Hashable, Sendable {
        /// The DNS is asked for its IMSs. Why it has not said anything yet, once it has failed.
        case naming(failure: String?)
        /// The DNS names its IMSs.
        case found
        /// Its IMSs are asked for its mapping, and told of us.
        case asked
    }

    /// What became of HA Notify.
    enum Notification: Hashable, Sendable {
        /// Nothing yet.
        case awaited
        /// Its IMS has answered, or the packets do not wait for that.
        case ended
        /// Its IMS was silent, or could not confirm us yet.
        case endedInVain
    }

    let started: MonotonicTime
    /// Nobody's packets wait: it is talked to plainly, or was asked for by a name server's name.
    var isBackground: Bool
    var stage = Stage.naming(failure: nil)
    /// Its mapping is in force.
    var isKnown = false
    var notification = Notification.awaited

    init(started: MonotonicTime, isBackground: Bool) {
        self.started = started
        self.isBackground = isBackground
    }

    var isNamed: Bool { if case .naming = stage { false } else { true } }

    /// Why the DNS has not said anything yet.
    var failure: String? { if case .naming(let failure) = stage { failure } else { nil } }

    /// The DNS failed to answer.
    mutating func fail(_ reason: String) {
        if case .naming = stage { stage = .naming(failure: reason) }
    }

    var isReady: Bool { isKnown && notification != .awaited }
}
