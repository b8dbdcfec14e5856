import MATSignal

/// A correspondent: its mapping, how far that is believed, and what the kernel has of it. There may be 100,000 of them, so
/// everything that most peers don't have, or that follows from something else, stands elsewhere: about 240 octets are left.
struct Peer: Sendable {
    /// What is still to be done to tell of our last move; see `Backlog`.
    struct Duties: OptionSet, Hashable, Sendable {
        let rawValue: UInt8
        /// MA Notify to the peer itself.
        static let tellPeer = Duties(rawValue: 1)
        /// HA Notify to its IMS.
        static let tellServer = Duties(rawValue: 2)
        /// MA Query with SUBSCRIBE from the new address.
        static let subscribe = Duties(rawValue: 4)
    }

    /// How far the record in force is confirmed:
    ///
    /// ```
    ///          MA Notify brings it                its IMS has the same
    ///   ──────────────────────────► provisional ───────────────────────► confirmed ◄── its IMS brings it
    ///                                  │    ▲                               │
    ///                                  │    └── MA Notify brings a newer ───┘
    ///       its IMS has an older one:  │
    ///       contradicted since then    └─► back to the earlier record, if the new places do not answer either
    /// ```
    private enum Standing: Sendable {
        case confirmed
        /// With what there is to go back to, if anything.
        case provisional(Fallback?)
    }

    /// The record before a provisional one, and since when the IMS answers with an older one.
    private final class Fallback: Sendable {
        let record: LocatedRecord
        let contradictedSince: MonotonicTime?

        init(_ record: LocatedRecord, contradictedSince: MonotonicTime? = nil) {
            self.record = record
            self.contradictedSince = contradictedSince
        }
    }

    /// What a verified record means to a peer.
    enum Offered: Equatable, Sendable {
        /// It is in force now.
        case newer(hasMoved: Bool)
        /// It is in force already.
        case same(isNewlyConfirmed: Bool)
        /// It is older than the one in force.
        case older(contradicts: Bool)
        /// Another record of the same version.
        case conflicting
    }

    let hoa: HomeAddress
    /// The record in force; its locators are the listed ones of `locators`, which say where this very HoA is: behind a mobile
    /// router, its own address in each MoPre.
    private(set) var record: PeerRecord
    private var standing: Standing
    /// The kernel has an entry for its packets, which leave by the own address of this number in `OwnPaths`; 0 for none.
    var installedPath: UInt8 = 0
    /// The own address that its packets are to leave from, by the same numbers; 0 until there is one.
    var path: UInt8 = 0
    var duties: Duties = []
    /// HA Notifies without success since our last move: the next one comes the later the more there were.
    var notifyFailures: UInt8 = 0
    /// It has its turn to be polled.
    var hasPollTurn = false
    var locators = PeerLocators()
    var packets: UInt64 = 0
    /// When an answer of its IMS last came.
    private var refreshedAt: CoarseTime
    private var lastTrafficAt: CoarseTime
    private var sinceAt: CoarseTime
    /// Its IMSs, by number in `KnownServers`, and when the DNS is to be asked again.
    var servers: UInt32 = ServerSets.none
    var serversExpire = CoarseTime(.zero)
    /// Which of our moves the peer, or its IMS for it, has acked; compared with `Announcement.number`.
    var knownMove: UInt32 = 0
    /// Moves of either side that its traffic followed one by one; see `OwnPaths` for those of all together.
    var switches: UInt32 = 0

    init(_ offered: OfferedRecord, hoa: HomeAddress, isConfirmed: Bool, now: MonotonicTime) {
        self.hoa = hoa
        record = PeerRecord(offered)
        standing = isConfirmed ? .confirmed : .provisional(nil)
        (refreshedAt, lastTrafficAt, sinceAt) = (CoarseTime(now), CoarseTime(now), CoarseTime(now))
        locators.list(LocatedRecord(offered).places(of: hoa), earlier: [])
    }

    /// HA Notify for it had no success.
    ///
    /// - Returns: how long to wait before the next one, if that is to come sooner than its poll: 2, 4, 8 ... 1024 s.
    mutating func notifyFailed() -> Duration {
        defer { if notifyFailures < .max { notifyFailures += 1 } }
        return .seconds(Int64(1) << Int64(min(notifyFailures, 9) + 1))
    }

    // MARK: Times

    var refreshed: MonotonicTime {
        get { refreshedAt.time }
        set { refreshedAt = CoarseTime(newValue) }
    }

    var lastTraffic: MonotonicTime {
        get { lastTrafficAt.time }
        set { lastTrafficAt = CoarseTime(newValue) }
    }

    var since: MonotonicTime { sinceAt.time }

    // MARK: Record

    var version: RecordVersion { record.version }

    /// The record's locators, in its order.
    var listed: [Locator] {
        locators.listed.map {
            Locator(MobileAddress($0.moa.address.masked(to: record.prefixLength)), prefixLength: record.prefixLength, preference: $0.preference)
        }
    }

    func lists(_ moa: MobileAddress) -> Bool {
        locators.has(moa, .listed)
    }

    /// Where the node that answers for a locator listens; see `MappingRecord.signallingAddress`.
    func signallingAddress(of moa: MobileAddress) -> IPAddress { moa.address.masked(to: record.prefixLength) }

    /// The record as its node signed it.
    var mapping: SignedMapping { record.mapping(of: hoa, at: listed) }

    /// Whether this very record is in force.
    func holds(_ offered: OfferedRecord) -> Bool { PeerRecord(offered) == record && offered.record.locators == listed }

    /// The record in force is not confirmed by the peer's IMS.
    var isProvisional: Bool { if case .provisional = standing { true } else { false } }

    private var fallback: Fallback? { if case .provisional(let fallback) = standing { fallback } else { nil } }

    /// What was in force before a provisional record, to go back to.
    var earlier: LocatedRecord? { fallback?.record }

    /// Since when the IMS answers with an older record than the provisional one.
    var contradictedSince: MonotonicTime? { fallback?.contradictedSince }

    /// Somebody has a record of this peer, and it was verified.
    ///
    /// - Parameter isConfirmed: it came from the peer's IMS; otherwise it is provisional (section 7, "MA Notify").
    mutating func offer(_ offered: OfferedRecord, isConfirmed: Bool, now: MonotonicTime) -> Offered {
        if offered.version > version {
            let hasMoved = locators.listed.map(\.moa) != offered.record.moas(of: hoa)
            // The last confirmed one is kept to go back to.
            let before = isProvisional ? earlier : LocatedRecord(record, at: listed)
            set(LocatedRecord(offered), isConfirmed ? .confirmed : .provisional(before.map { Fallback($0) }))
            if isConfirmed { refreshed = now }
            return .newer(hasMoved: hasMoved)
        }
        guard offered.version < version || holds(offered) else { return .conflicting }
        if isConfirmed { refreshed = now }
        let isNews = isConfirmed && isProvisional
        if offered.version < version {
            if isNews { contradict(by: offered, now) }
            return .older(contradicts: isNews)
        }
        if isNews { set(LocatedRecord(record, at: listed), .confirmed) }
        return .same(isNewlyConfirmed: isNews)
    }

    /// Its IMS has an older record. The newest of those is the best to go back to.
    private mutating func contradict(by offered: OfferedRecord, _ now: MonotonicTime) {
        let older = earlier.flatMap { $0.version < offered.version ? nil : $0 } ?? LocatedRecord(offered)
        set(LocatedRecord(record, at: listed), .provisional(Fallback(older, contradictedSince: contradictedSince ?? now)))
    }

    /// Whether there is reason to go back to the earlier record: the IMS has answered with an older one for 3 s, and no place of this one answers.
    func isRefuted(now: MonotonicTime) -> Bool {
        guard let since = contradictedSince, now - since >= Self.contradictionMin else { return false }
        return locators.listed.allSatisfy { !$0.state.isProven }
    }

    private static let contradictionMin: Duration = .seconds(3)

    /// Goes back to the earlier record.
    mutating func undo() {
        if let earlier { set(earlier, .confirmed) }
    }

    private mutating func set(_ held: LocatedRecord, _ standing: Standing) {
        record = held.record
        self.standing = standing
        locators.list(held.places(of: hoa), earlier: earlier?.places(of: hoa) ?? [])
    }
}
