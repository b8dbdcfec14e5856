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

    /// A record that its IMS has not confirmed, and what there was before.
    private final class Doubt: Sendable {
        let earlier: LocatedRecord?
        let contradictedSince: MonotonicTime?

        init(_ earlier: LocatedRecord?, _ contradictedSince: MonotonicTime?) {
            self.earlier = earlier
            self.contradictedSince = contradictedSince
        }
    }

    let hoa: HomeAddress
    /// The record in force; its locators are the listed ones of `locators`, which say where this very HoA is: behind a mobile
    /// router, its own address in each MoPre.
    private(set) var record: PeerRecord
    /// The record in force is not confirmed by the peer's IMS.
    private(set) var isProvisional: Bool
    /// The kernel has an entry for its packets, which leave by the own address of this number in `NodeCore.ownPaths`; 0 for none.
    var installedPath: UInt8 = 0
    /// The own address that its packets are to leave from, by the same numbers; 0 until there is one.
    var path: UInt8 = 0
    var duties: Duties = []
    /// HA Notifies without success since our last move: the next one comes the later the more there were.
    var notifyFailures: UInt8 = 0
    /// It has its turn to be polled.
    var hasPollTurn = false
    var locators = PeerLocators()
    private var doubt: Doubt?
    var packets: UInt64 = 0
    /// When an answer of its IMS last came.
    private var refreshedAt: CoarseTime
    private var lastTrafficAt: CoarseTime
    private var sinceAt: CoarseTime
    /// Its IMSs, by number in `NodeCore.peerServers`, and when the DNS is to be asked again.
    var servers: UInt32 = ServerSets.none
    var serversExpire = CoarseTime(.zero)
    /// Which of our moves the peer, or its IMS for it, has acked; compared with `Home.move`.
    var knownMove: UInt32 = 0
    /// Moves of either side that its traffic followed one by one; see `OwnPaths` for those of all together.
    var switches: UInt32 = 0

    init(_ offered: OfferedRecord, hoa: HomeAddress, isConfirmed: Bool, now: MonotonicTime) {
        self.hoa = hoa
        record = PeerRecord(offered)
        isProvisional = !isConfirmed
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

    /// What was in force before a provisional record, to go back to.
    var earlier: LocatedRecord? { doubt?.earlier }

    /// Since when the IMS answers with an older record than the provisional one.
    var contradictedSince: MonotonicTime? { doubt?.contradictedSince }

    /// Puts a newer record in force. If it is not confirmed, the last confirmed one is kept to go back to.
    mutating func hold(_ offered: OfferedRecord, isConfirmed: Bool) {
        let before = isProvisional ? earlier : LocatedRecord(record, at: listed)
        set(LocatedRecord(offered), isProvisional: !isConfirmed, earlier: isConfirmed ? nil : before)
    }

    /// Its IMS has the same record.
    mutating func confirm() {
        guard isProvisional || doubt != nil else { return }
        set(LocatedRecord(record, at: listed), isProvisional: false, earlier: nil)
    }

    /// Its IMS has an older record. The newest of those is the best to go back to.
    mutating func contradict(by offered: OfferedRecord, now: MonotonicTime) {
        let older = earlier.flatMap { $0.version < offered.version ? nil : $0 } ?? LocatedRecord(offered)
        doubt = Doubt(older, contradictedSince ?? now)
        locators.list(LocatedRecord(record, at: listed).places(of: hoa), earlier: older.places(of: hoa))
    }

    /// Goes back to the earlier record.
    mutating func undo() {
        guard let earlier else { return }
        set(earlier, isProvisional: false, earlier: nil)
    }

    private mutating func set(_ held: LocatedRecord, isProvisional: Bool, earlier: LocatedRecord?) {
        record = held.record
        self.isProvisional = isProvisional
        doubt = earlier.map { Doubt($0, nil) }
        locators.list(held.places(of: hoa), earlier: earlier?.places(of: hoa) ?? [])
    }
}
