import MATSignal

/// Whether one peer knows of our last move: from us, or from its IMS.
///
/// ```
///            we move                 `Backlog` comes to it                the peer, or its IMS for it, acks
///   knows ─────────────► duties ────────────────────────────► told ─────────────────────────────────────────► knows
///                                                             │  ▲
///                                                             └──┘ its IMS does not confirm us: again after 2, 4, 8 ... 1024 s, at its poll at the latest
/// ```
/// Moves are counted by `Announcement.number`. It takes 8 octets, for there may be 100,000 peers.
struct Telling: Hashable, Sendable {
    /// What is still to be done to tell of our last move.
    struct Duties: OptionSet, Hashable, Sendable {
        let rawValue: UInt8
        /// MA Notify to the peer itself.
        static let tellPeer = Duties(rawValue: 1)
        /// HA Notify to its IMS.
        static let tellServer = Duties(rawValue: 2)
        /// MA Query with SUBSCRIBE from the new address.
        static let subscribe = Duties(rawValue: 4)
    }

    private(set) var duties: Duties = []
    /// HA Notifies without success since our last move.
    private var failures: UInt8 = 0
    /// Told since it was entered, it has not acked yet. Who was never told found us by itself, and so knows us.
    private(set) var isDoubtful = false
    /// The move that it, or its IMS for it, has acked.
    private var knownMove: UInt32 = 0

    func knows(_ move: UInt32) -> Bool { knownMove == move }

    /// We moved. Who knows that already has only its subscription to be renewed.
    mutating func owe(_ duties: Duties, of move: UInt32) {
        self.duties.formUnion(knows(move) ? duties.subtracting([.tellPeer, .tellServer]) : duties)
        failures = 0
        if !knows(move) { isDoubtful = true }
    }

    /// - Returns: those of these duties that were left; they are being done now.
    mutating func begin(_ some: Duties) -> Duties {
        defer { duties.subtract(some) }
        return duties.intersection(some)
    }

    /// It, or its IMS for it, has acked our record of this move.
    mutating func acked(_ move: UInt32) {
        knownMove = move
        failures = 0
        isDoubtful = false
    }

    /// HA Notify for it had no success.
    ///
    /// - Returns: how long to wait before the next one, if that is to come sooner than its poll.
    mutating func failed() -> Duration {
        isDoubtful = true
        defer { if failures < .max { failures += 1 } }
        return .seconds(Int64(1) << Int64(min(failures, 9) + 1))
    }
}
