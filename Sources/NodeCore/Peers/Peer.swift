import IMTPlan
import MATSignal

/// A correspondent: its mapping, how far that is believed, and what the kernel has of it. There may be 100,000 of them, so
/// everything that most peers don't have, or that follows from something else, stands elsewhere: about 240 octets are left.
struct Peer: Sendable {
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
    private(set) var installedPath = OwnPaths.none
    /// The own address that its packets are to leave from, by the same numbers; 0 until there is one.
    private(set) var path = OwnPaths.none
    /// Whether it knows of our last move.
    private(set) var telling = Telling()
    /// It has its turn to be polled.
    private(set) var hasPollTurn = false
    /// By which way its packets went last, also while they have none. Here it takes no room.
    private var lastWay = WayMark.none
    private(set) var locators = PeerLocators()
    /// Exchanged with it so far, as the kernel counts them.
    private(set) var packets: UInt64 = 0
    private var refreshedAt: CoarseTime
    private var lastTrafficAt: CoarseTime
    private var sinceAt: CoarseTime
    /// Its IMSs, by number in `KnownServers`, and when the DNS is to be asked again.
    private(set) var servers = ServerSets.none
    private(set) var serversExpire = CoarseTime(.zero)
    /// Changes of its packets' way that were made for this peer alone; see `OwnPaths` for those of all together.
    private(set) var switches: UInt32 = 0

    init(_ offered: OfferedRecord, hoa: HomeAddress, isConfirmed: Bool, now: MonotonicTime) {
        self.hoa = hoa
        record = PeerRecord(offered)
        standing = isConfirmed ? .confirmed : .provisional(nil)
        (refreshedAt, lastTrafficAt, sinceAt) = (CoarseTime(now), CoarseTime(now), CoarseTime(now))
        locators.list(LocatedRecord(offered).places(of: hoa), earlier: [])
    }

    /// Changes it where it stands.
    mutating func apply<Result>(_ change: (inout Peer) -> Result) -> Result { change(&self) }

    // MARK: Times

    /// When an answer of its IMS last came.
    var refreshed: MonotonicTime { refreshedAt.time }

    var lastTraffic: MonotonicTime { lastTrafficAt.time }

    /// When it was entered.
    var since: MonotonicTime { sinceAt.time }

    /// The kernel has counted so many packets exchanged with it, both directions.
    ///
    /// - Returns: how many are new; `nil` if none.
    mutating func counted(_ count: UInt64, now: MonotonicTime) -> UInt64? {
        guard count != packets else { return nil }
        defer { (packets, lastTrafficAt) = (count, CoarseTime(now)) }
        return count &- packets
    }

    mutating func givePollTurn() { hasPollTurn = true }

    mutating func usePollTurn() { hasPollTurn = false }

    // MARK: Our moves

    /// Tells the machine that says whether it knows of our last move; see there.
    mutating func tell<Result>(_ change: (inout Telling) -> Result) -> Result { change(&telling) }

    // MARK: IMSs

    /// The DNS names these, by number in `ServerSets`, until then.
    mutating func isServed(by number: UInt32, until time: MonotonicTime) { (servers, serversExpire) = (number, CoarseTime(time)) }

    /// What is known of its IMSs is not believed beyond this time without asking again.
    mutating func expireServers(by time: MonotonicTime) { serversExpire = min(serversExpire, CoarseTime(time)) }

    // MARK: Locators

    /// Tells the machine of one of its locators; see there.
    ///
    /// - Returns: what it was and what it is now; `nil` if that is none of its locators.
    mutating func hear(_ event: LocatorState.Event, at moa: MobileAddress, now: MonotonicTime) -> (before: LocatorState, after: LocatorState)? {
        guard let before = locators[moa]?.state else { return nil }
        var after = before
        after.take(event, now)
        locators.update(moa) { $0.state = after }
        return (before, after)
    }

    /// It is found by this address in the table of peers, or no more.
    mutating func claim(_ moa: MobileAddress, _ isClaimed: Bool) {
        locators.update(moa) { if isClaimed { $0.roles.insert(.claimed) } else { $0.roles.remove(.claimed) } }
    }

    /// What is known of an address that it no longer lists is forgotten, unless it was refused: a record that lists it again must not make it new.
    ///
    /// - Returns: whether it was.
    mutating func forget(_ moa: MobileAddress) -> Bool {
        guard let state = locators[moa]?.state, !state.isRefused else { return false }
        locators.update(moa) { $0.state = .unchecked }
        return true
    }

    /// An untranslated conversation is known with this address.
    mutating func guardPlace(_ moa: MobileAddress) { locators.update(moa) { $0.roles.insert(.guarded) } }

    /// Those that packets are taken from: those of its record and, while that is provisional, of the one before.
    func accepted(_ isUsable: (MobileAddress) -> Bool) -> Set<MobileAddress> {
        Set(locators.filter { $0.roles.contains(.claimed) && $0.state.acceptsPackets && isUsable($0.moa) }.map(\.moa))
    }

    /// Those that packets may be sent to, in the record's order.
    func proven(_ isUsable: (MobileAddress) -> Bool) -> [MobileAddress] {
        locators.filter { $0.roles.isSuperset(of: [.listed, .claimed]) && $0.state.isProven && isUsable($0.moa) }.map(\.moa)
    }

    // MARK: The kernel's entries

    /// Packets to it are to leave by the own address of this number.
    mutating func leave(by path: UInt8) { self.path = path }

    /// Where the kernel sends its packets.
    var target: MobileAddress? { locators.first { $0.roles.contains(.target) }?.moa }

    /// Where the kernel takes packets from as this peer's.
    var arrivals: Set<MobileAddress> { Set(locators.filter { $0.roles.contains(.accepted) }.map(\.moa)) }

    /// The kernel has these entries of it now.
    ///
    /// - Parameters:
    ///   - path: the number of the own address that its packets leave from.
    ///   - moves: how often an own address of a number came to mean another; see `OwnPaths`.
    mutating func install(_ entries: PeerEntries, by path: UInt8, moves: (UInt8) -> UInt32, hasSwitched: Bool) {
        if entries.outbound != nil {
            if hasSwitched || lastWay.isOther(than: .rewritten) { switches &+= 1 }
            lastWay = .rewritten
        }
        locators.assign(.accepted) { entries.inbound.contains($0.moa) }
        locators.assign(.target) { $0.moa == entries.outbound?.peer }
        locators.prune()
        // What the number counts for all its peers counts from now on.
        switches = switches &+ moves(installedPath) &- moves(path)
        installedPath = path
    }

    /// Whether its packets go by another way than they did, now that what carries them is none of its entries.
    func isNews(_ way: Carriage.Way) -> Bool { lastWay != WayMark(way) }

    /// Its packets go by this way, which is none of its entries.
    mutating func carried(by way: Carriage.Way) {
        let mark = WayMark(way)
        if lastWay.isOther(than: mark) { switches &+= 1 }
        lastWay = mark
    }

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
            let hasMoved = locators.listed.map(\.moa) != offered.record.moas(of: hoa) || record.endpoints != offered.record.endpoints
            // The last confirmed one is kept to go back to.
            let before = isProvisional ? earlier : LocatedRecord(record, at: listed)
            set(LocatedRecord(offered), isConfirmed ? .confirmed : .provisional(before.map { Fallback($0) }))
            if isConfirmed { refreshedAt = CoarseTime(now) }
            return .newer(hasMoved: hasMoved)
        }
        guard offered.version < version || holds(offered) else { return .conflicting }
        if isConfirmed { refreshedAt = CoarseTime(now) }
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
