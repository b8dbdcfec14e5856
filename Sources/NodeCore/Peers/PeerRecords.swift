import MATCore
import MATSignal

/// Peers' records: who becomes a peer, which record is in force, when each peer's IMS is asked, and who is forgotten. What a record means to one
/// peer is `Peer`'s.
///
/// ```
///                  of nobody yet, there is room                     of a peer
///   verified ──┬──────────────────────────────────► entered     ──┬─ newer ──────────────────────────► in force
///   record     └─ there is none ──► not entered                   ├─ the same ───────────────────────► confirmed, if its IMS says so
///                                                                 └─ older, from its IMS: ask again ─► refuted? ──► the one before
///   poll ──┬─ packets lately ──► its turn ──► its IMS is asked, its places are checked
///          └─ none for long ───► forgotten
/// ```
struct PeerRecords: Sendable {
    enum Action: Equatable, Sendable {
        /// There is a new peer.
        case entered(HomeAddress)
        /// The places of this record are a peer's, and no longer taken for plain hosts'.
        case listed(MappingRecord)
        /// What the kernel is to have of this peer has changed.
        case arrange(HomeAddress)
        /// A record has come into force: its node may have shown already that it is there.
        case hearEarly(HomeAddress)
        /// It moved before it heard of our last move: our MA Notify went to where it was.
        case tellAgain(HomeAddress)
        case log(NodeLogLevel, String)
    }

    /// What an answer of a peer's IMS means.
    enum OnAnswer: Equatable, Sendable {
        /// Its record is verified.
        case believed(OfferedRecord)
        /// It can't be verified before the keys at the name of this prefix are known.
        case keysNeeded(IPPrefix)
        /// The record is not believed.
        case unbelieved(String)
        /// The IMS knows no mapping, and is to be believed for so long.
        case absent(for: Duration)
        /// - Parameter isDenial: the IMS refuses this peer rather than this question.
        case refused(String, isDenial: Bool)
    }

    /// What a peer's time to be polled brings.
    enum OnDue: Equatable, Sendable {
        /// Others go first; it has its turn later.
        case wait
        case poll
        case forget
    }

    private let peersMax: Int
    private let idleMax: Duration
    private let pollInterval: Duration
    private var polls: PollTimes
    /// Lines of the log about peers whose locators are of no use here.
    private var scopeReports = RateLimit(perSecond: 2)

    /// With more peers than this, what happens to each alone is no news for the log.
    static let loggedMax = 256
    /// When an IMS is asked again that has an older record than is in force: that one's update may be on its way.
    private static let contradictedPause: Duration = .seconds(1)
    /// When an IMS is asked again that did not answer, if the record in force waits for its confirmation.
    private static let unconfirmedPause: Duration = .seconds(2)
    /// For how long an IMS is believed that it knows no mapping, if it does not say, and at most; seconds.
    private static let absenceDefault: UInt32 = 5
    private static let absenceMax: UInt32 = 300

    init(_ configuration: NodeCoreConfiguration) {
        peersMax = configuration.peersMax
        idleMax = configuration.peerIdleMax
        pollInterval = configuration.pollInterval
        polls = PollTimes(configuration)
    }

    // MARK: Records

    /// Takes over a verified record of a peer, if it is newer than what is in force.
    ///
    /// - Parameters:
    ///   - isConfirmed: it came from the peer's IMS; otherwise it is provisional (protocol.md section 7, "MA Notify").
    ///   - hasPath: the kernel has an entry for packets to the peer.
    ///   - hasPassed: whether something from an address was let in untranslated of late.
    mutating func offer(
        _ offered: OfferedRecord, for hoa: HomeAddress, isConfirmed: Bool, hasPath: Bool, hasPassed: (MobileAddress) -> Bool,
        in peers: inout PeerTable, _ addresses: UsableAddresses, now: Now
    ) -> [Action] {
        switch peers.update(hoa, { $0.offer(offered, isConfirmed: isConfirmed, now: now.monotonic) }) {
        case nil:
            guard peers.count < peersMax else {
                return [.log(.warning, "the IMT is full (\(peersMax) peers); \(hoa) is not entered")]
            }
            peers.enter(Peer(offered, hoa: hoa, isConfirmed: isConfirmed, now: now.monotonic))
            let isListed = guardPlain(offered.record, of: hoa, in: &peers, hasPassed)
            pollLater(hoa, in: &peers, now)
            let news = "peer \(hoa) is at \(Self.places(offered, of: hoa, isConfirmed))"
            return [.entered(hoa), isListed, .log(Self.level(peers, few: .notice), news), .arrange(hoa), .hearEarly(hoa)]
                + reportScope(of: hoa, peers, addresses, now)
        case .conflicting, .older(contradicts: false):
            return []
        case .older(contradicts: true):
            // Asked again soon, the IMS confirms the new record or refutes it.
            peers.schedule(hoa, at: now.monotonic + Self.contradictedPause)
            let actions = doubt(hoa, in: &peers, now: now.monotonic)
            return actions + (peers[hoa]?.holds(offered) ?? true ? [] : [.arrange(hoa)])
        case .same(let isNewlyConfirmed):
            // A poll that finds nothing new costs the kernel's entries no look.
            return isNewlyConfirmed || !hasPath ? [.arrange(hoa)] : []
        case .newer(let hasMoved):
            var actions = [guardPlain(offered.record, of: hoa, in: &peers, hasPassed)]
            if hasMoved {
                let news = "peer \(hoa) is now at \(Self.places(offered, of: hoa, isConfirmed))"
                actions.append(.log(Self.level(peers, few: .notice), news))
            }
            actions += [.arrange(hoa), .hearEarly(hoa)]
            if hasMoved { actions += reportScope(of: hoa, peers, addresses, now) + [.tellAgain(hoa)] }
            return actions
        }
    }

    /// With which of its places an untranslated conversation is known is noted before that is forgotten: what passed may still go on, though new
    /// packets would be questioned again.
    private func guardPlain(_ record: MappingRecord, of hoa: HomeAddress, in peers: inout PeerTable, _ hasPassed: (MobileAddress) -> Bool) -> Action {
        for moa in record.moas(of: hoa) where hasPassed(moa) { peers.update(hoa) { $0.guardPlace(moa) } }
        return .listed(record)
    }

    /// The level of what is told of one peer.
    ///
    /// - Parameter few: while there are so few that people can read it of each.
    static func level(_ peers: PeerTable, few: NodeLogLevel = .info) -> NodeLogLevel { peers.count <= loggedMax ? few : .debug }

    private static func places(_ offered: OfferedRecord, of hoa: HomeAddress, _ isConfirmed: Bool) -> String {
        let record = offered.record
        if record.isWithdrawal, offered.key.isRevocation(sequence: record.sequence, issued: record.issued) {
            return "no place (the operator of its mapping server took the address from it)" + (isConfirmed ? "" : unconfirmed)
        }
        let others = record.endpoints.map { "\($0)" } + record.relays.map { "relay \($0)" }
        let names = record.moas(of: hoa).map(\.description) + others
        return (names.isEmpty ? places([]) : names.joined(separator: ", ")) + (isConfirmed ? "" : unconfirmed)
    }

    private static let unconfirmed = " (not confirmed yet)"

    private static func places(_ moas: [MobileAddress]) -> String {
        moas.isEmpty ? "no place (it withdrew its mapping)" : moas.map(\.description).joined(separator: ", ")
    }

    private mutating func reportScope(of hoa: HomeAddress, _ peers: PeerTable, _ addresses: UsableAddresses, _ now: Now) -> [Action] {
        guard let peer = peers[hoa], let problem = addresses.scopeProblem(of: peer), scopeReports.take(at: now.monotonic) else { return [] }
        return [.log(.warning, "\(hoa): \(problem)")]
    }

    /// Goes back to the record before, if the one in force is refuted.
    func doubt(_ hoa: HomeAddress, in peers: inout PeerTable, now: MonotonicTime) -> [Action] {
        guard peers[hoa]?.isRefuted(now: now) ?? false else { return [] }
        return undo(hoa, "its IMS has an older record and its new place does not answer", in: &peers)
    }

    /// Goes back to the record before a provisional one, if there is one.
    func undo(_ hoa: HomeAddress, _ reason: String, in peers: inout PeerTable) -> [Action] {
        guard let earlier = peers[hoa]?.earlier else { return [] }
        peers.update(hoa) { $0.undo() }
        return [
            .log(.warning, "peer \(hoa): going back to \(Self.places(earlier.places(of: hoa).map(\.moa))): \(reason)"), .arrange(hoa),
        ]
    }

    // MARK: Its IMS

    /// - Parameters:
    ///   - peer: the peer, if the HoA is one.
    ///   - keys: the keys that a record's certificate may be checked with; `nil` if they are not known.
    static func judge(_ answer: MAAnswer, about hoa: HomeAddress, _ peer: Peer?, keys: (OfferedRecord) -> [PublicKey]?, now: Now) -> OnAnswer {
        switch answer.code {
        case .ok:
            let offered = answer.mapping.flatMap { mapping in
                answer.certificate.map { OfferedRecord(mapping, under: $0) } ?? peer.map { OfferedRecord(mapping, underKnownOf: $0) }
            }
            guard let offered else { return .refused("the answer of its IMS has no mapping or no certificate", isDenial: false) }
            do throws(VerificationFailure) {
                if peer?.holds(offered) ?? false {
                    // Verified before, but it may have expired meanwhile.
                    try offered.checkTimesAndNames(asked: hoa, now: now)
                } else {
                    guard let keys = keys(offered) else { return .keysNeeded(offered.prefix) }
                    try offered.verify(asked: hoa, keys: keys, now: now)
                }
            } catch {
                return .unbelieved("the record that its IMS gave is not believed: \(error)")
            }
            return .believed(offered)
        case .notFound:
            return .absent(for: .seconds(Int64(min(absenceMax, answer.lifetime ?? absenceDefault))))
        default:
            return .refused(
                "its IMS answers \(answer.code)\(answer.text.map { " (\($0.printable))" } ?? "")", isDenial: answer.code == .authenticationFailed)
        }
    }

    /// No IMS of a peer answers: what is known stays in force.
    func silent(_ hoa: HomeAddress, in peers: inout PeerTable, now: MonotonicTime) -> [Action] {
        let actions = [.log(.info, "no IMS of peer \(hoa) answers; what is known stays in force")] + doubt(hoa, in: &peers, now: now)
        // A record that waits for its confirmation does not wait for the next poll.
        if peers[hoa]?.isProvisional == true { peers.schedule(hoa, at: now + min(pollInterval, Self.unconfirmedPause)) }
        return actions
    }

    // MARK: Polls

    /// Whether a translator or a firewall stands before an own address.
    mutating func isTranslated(_ isSo: Bool) { polls.isTranslated = isSo }

    private func pollLater(_ hoa: HomeAddress, in peers: inout PeerTable, _ now: Now) {
        if let peer = peers[hoa] { peers.schedule(hoa, at: now.monotonic + polls.interval(for: peer, among: peers.count, now)) }
    }

    /// Those that are due soon are due now: something else is sent at this moment, and a radio wakes once for all of it.
    func pollTogether(in peers: inout PeerTable, _ now: MonotonicTime) {
        for hoa in peers.dueSoon(by: now + PollTimes.togetherWithin, max: PollTimes.togetherMax) { peers.schedule(hoa, at: now) }
    }

    /// A peer's time has come: it is forgotten if it is unused, and polled otherwise.
    ///
    /// - Parameter turn: when the pace of messages lets it go. Polls are a safety net: they also let what is more urgent go first.
    mutating func due(_ hoa: HomeAddress, in peers: inout PeerTable, turn: MonotonicTime, now: Now) -> OnDue {
        guard let peer = peers[hoa] else { return .wait }
        if !peer.hasPollTurn {
            let turn = max(polls.turn(now.monotonic), turn)
            if turn > now.monotonic {
                peers.update(hoa) { $0.givePollTurn() }
                peers.schedule(hoa, at: turn)
                return .wait
            }
        }
        peers.update(hoa) { $0.usePollTurn() }
        guard now.monotonic - peer.lastTraffic < idleMax else { return .forget }
        pollLater(hoa, in: &peers, now)
        return .poll
    }

    /// An IMS that could not tell the peer of us is asked again sooner than the next poll: until it has, our packets are a stranger's there, and its
    /// new connections to us find nobody.
    func notifyAgain(_ hoa: HomeAddress, in peers: inout PeerTable, now: MonotonicTime) {
        if let pause = peers.update(hoa, { $0.tell { $0.failed() } }), pause < pollInterval { peers.schedule(hoa, at: now + pause) }
    }
}
