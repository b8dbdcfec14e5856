import MATSignal

/// What is known of one own address as a way out.
///
/// ```
///           nothing answers over it,                     something answers
///           but something over another                   over it again
///   sound ------------------------------> dead ------------------------------> returning --+
///     ^                                    ^                                       |        |  answered for
///     |                                    +------------ silent again -------------+        |  the hold-down
///     +-------------------------------------------------------------------------------------+
///     +---- stayed for the hold-down ---- flapping <---- came back for the third time in a minute
///     +---- the IMS sees it now, or the hold-down is over ---- refused <---- the IMS does not take it as a locator, or does not
/// ```                                                                        answer a registration from it, but others
struct Uplink: Hashable, Sendable {
    enum State: Hashable, Sendable {
        case sound
        case dead(since: MonotonicTime)
        case returning(since: MonotonicTime, until: MonotonicTime)
        case flapping(until: MonotonicTime)
        case refused(since: MonotonicTime, until: MonotonicTime, reason: String)
    }

    var state = State.sound
    var history = FailureHistory()

    /// Before the preferences of people: what works, what has just begun to work again, what does not.
    var rank: Int {
        switch state {
        case .sound: 0
        case .returning, .flapping: 1
        case .refused: 2
        case .dead: 3
        }
    }

    /// The rank and, among those that were refused, when: where all are, each gets its turn.
    var order: Order {
        if case .refused(let since, _, _) = state { return Order(rank: rank, since: since) }
        return Order(rank: rank, since: .zero)
    }

    struct Order: Comparable {
        var rank: Int
        var since: MonotonicTime
        static func < (a: Order, b: Order) -> Bool { (a.rank, a.since) < (b.rank, b.since) }
    }

    var isRefused: Bool { if case .refused = state { true } else { false } }

    var isDead: Bool { if case .dead = state { true } else { false } }

    /// When it is to be trusted again, if nothing happens.
    var trustedAt: MonotonicTime? {
        switch state {
        case .returning(_, let until), .flapping(let until), .refused(_, let until, _): until
        case .sound, .dead: nil
        }
    }
}
