import MATSignal

/// Whether the own IMS takes records that list our relays: its operator may allow others, or none.
///
/// ```
///   taken ── it refuses a record with relays ──► doubted: one without is tried ── it takes that ──► refused
///     ▲                                             │ nor does it take that: they were not the reason  │
///     └─────────────────────────────────────────────┴────────────── the IMSs are others ◄──────────────┘
/// ```
struct RelayPolicy: Hashable, Sendable {
    private enum State: Hashable, Sendable {
        case taken
        case doubted
        case refused
    }

    private var state = State.taken

    /// It takes no record that lists them, as far as is known.
    var takesNone: Bool { state != .taken }

    mutating func serversChanged() { state = .taken }

    /// It took a record.
    mutating func accepted() { if state == .doubted { state = .refused } }

    /// It refused a record.
    ///
    /// - Returns: whether one without relays is to be tried.
    mutating func refused(_ code: ResponseCode, hasRelays: Bool) -> Bool {
        guard code == .refused else { return false }
        if hasRelays {
            state = .doubted
        } else if state == .doubted {
            state = .taken
        }
        return hasRelays
    }
}
