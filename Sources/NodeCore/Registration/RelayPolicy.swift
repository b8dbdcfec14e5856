import MATSignal

/// Whether the own IMS takes records that list our relays: its operator may allow others, or none.
///
/// ```
///   taken ── it refuses a record with relays ──► doubted: one without is tried ── it takes that, and else they are the same ──► refused
///     ▲                                             │ nor does it take that, or it lists other places:       │
///     │                                             │ they were not the reason                              │
///     └─────────────────────────────────────────────┴─────────────────── the IMSs are others ◄──────────────┘
/// ```
struct RelayPolicy: Hashable, Sendable {
    private enum State: Hashable, Sendable {
        case taken
        /// What the refused record listed beside relays. A translator that has just given us another port makes an IMS refuse that, too.
        case doubted(beside: [MappingRecord.Place])
        case refused
    }

    private var state = State.taken

    /// It takes no record that lists them, as far as is known.
    var takesNone: Bool { state != .taken }

    mutating func serversChanged() { state = .taken }

    /// It took a record.
    mutating func accepted(_ record: MappingRecord) {
        if case .doubted(let places) = state { state = places == Self.placesBesideRelays(record) ? .refused : .taken }
    }

    /// It refused a record.
    ///
    /// - Returns: whether one without relays is to be tried.
    mutating func refused(_ record: MappingRecord, _ code: ResponseCode) -> Bool {
        guard code == .refused else { return false }
        guard record.relays.isEmpty else {
            state = .doubted(beside: Self.placesBesideRelays(record))
            return true
        }
        if case .doubted = state { state = .taken }
        return false
    }

    private static func placesBesideRelays(_ record: MappingRecord) -> [MappingRecord.Place] { record.places.filter { $0.relay == nil } }
}
