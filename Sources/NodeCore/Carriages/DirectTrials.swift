import IMTPlan
import MATCore
import MATSignal

/// Whether rewritten packets pass in the middle of their flows over pairs of networks that are new to a conversation (protocol.md section 11.4,
/// "Leaving and coming back"). A firewall may let a check pass, which begins a flow, and drop what it has not seen beginning.
///
/// ```
///   (nothing) ── a new pair is used ──► watched ── a packet comes, or 10 s ──► (nothing)
///                                         │  what went out had been answered, and for 500 ms what goes out is not;
///                                         │  or the peer's come in datagrams from that very MoA, and none rewritten for 100 ms;
///                                         │  or we are new here, and the check is late
///                                         ▼
///                                      doubted: its MoA is asked as an endpoint ── a packet comes ──► (nothing)
///                                         │  it has signed
///                                         ▼
///                                      filtered, for this pair of networks: by datagrams ── 10 min, or a packet comes rewritten ──► (nothing)
///
///   (nothing) ── a new pair could be used, and another one still works ──► ahead, until the check comes, 1 s at most ──► watched
///                                                                            └── it is late ──► doubted
/// ```
/// A peer may have had nothing to send, or could not yet: its first packet ends the mistake.
///
/// Where nothing has shown yet that packets which began outside arrive here, one that comes shows nothing either: it may answer one of ours, while
/// other flows of the peer, whose receivers send nothing, wait behind the same firewall. Only the check of the own IMS tells, and whether it is late.
/// While another network is there, packets stay on their pair until that has told.
struct DirectTrials: Sendable {
    /// Between which networks packets go, as far as addresses tell.
    struct Networks: Hashable, Sendable {
        let own: IPPrefix
        let peer: IPPrefix

        init(_ pair: MobilePair) { (own, peer) = (pair.own.likelyNetwork, pair.peer.likelyNetwork) }
    }

    private struct Trial: Sendable {
        let pair: MobilePair
        var until: MonotonicTime
        var last: RewrittenUse?
        var cameAtFirst: UInt64 = 0
        /// Since when packets go out, while none has come, and those sent before.
        var silence: (since: MonotonicTime, sent: UInt64)?
        /// The peer's packets come in datagrams that might have been rewritten, or it asks whether they may.
        var isLeftByPeer = false
        /// Packets were exchanged with it shortly before.
        var wasBusy = false
        /// What it had answered until then.
        var answers: RecentAnswers?
        /// Packets do not take the pair yet.
        var isAhead = false
        var isDoubted = false
        /// For no other reason than the check.
        var isByCheck = false
        var isFiltered = false
    }

    enum OnCount: Hashable, Sendable {
        case nothing
        /// The peer's MoA is to be asked as an endpoint.
        case doubt
        /// Packets may be rewritten again.
        case trust
    }

    /// Peers watched at a time, and pairs of networks remembered, of each core.
    static let trialsMax = 64
    static let networksMax = 256
    static let trialMax: Duration = .seconds(10)
    /// So long before a trial a conversation may have carried its last packet, the time without a network included, and still be expected to go on.
    static let busyMax: Duration = .seconds(10)
    /// How long it is watched whether packets come rewritten all the same.
    static let mistakeMax: Duration = .seconds(60)
    static let filteredFor: Duration = .seconds(600)
    /// So long nothing comes rewritten of a peer that has gone over to datagrams: what it had sent before may still have been on its way.
    static let leftMax: Duration = .milliseconds(100)
    /// So long at most packets stay on another pair because of the check.
    static let aheadMax: Duration = .seconds(1)
    /// Packets without any that comes: of fewer, chance may have lost them or their answers.
    static let silentPacketsMin: UInt64 = 3
    /// Answers that should have come by then, from what came before.
    static let answersMin = 1.5

    private var trials: [HomeAddress: Trial] = [:]
    private var passed: [Networks: MonotonicTime] = [:]
    private var filtered: [Networks: MonotonicTime] = [:]

    // MARK: Questions

    /// Whether packets are known not to pass between the networks of these.
    func isFiltered(_ pair: MobilePair) -> Bool { !filtered.isEmpty && filtered[Networks(pair)] != nil }
    /// Whether packets have passed between the networks of these, in the middle of their flows.
    func hasPassed(_ pair: MobilePair) -> Bool { passed[Networks(pair)] != nil }
    var hasFiltered: Bool { !filtered.isEmpty }

    /// Until when.
    func filteredUntil(_ pair: MobilePair) -> MonotonicTime? { filtered[Networks(pair)] }

    /// In order; what they send and get is to be read.
    var watched: [HomeAddress] { trials.keys.sorted() }
    var isWatching: Bool { !trials.isEmpty }

    /// The pair of a peer that is doubted.
    func doubted(_ hoa: HomeAddress) -> MobilePair? { trials[hoa].flatMap { $0.isDoubted && !$0.isFiltered ? $0.pair : nil } }
    func pair(of hoa: HomeAddress) -> MobilePair? { trials[hoa]?.pair }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? { trials.values.reduce(filtered.values.min()) { $1.isAhead ? $0.earlier($1.until) : $0 } }

    // MARK: Events

    /// Rewritten packets of a peer take this pair from now on.
    ///
    /// - Parameters:
    ///   - lastTraffic: when packets were last seen to be exchanged with it.
    ///   - answers: what it had answered until then, if that is known.
    mutating func begin(
        _ hoa: HomeAddress, _ pair: MobilePair, lastTraffic: MonotonicTime? = nil, answers: RecentAnswers? = nil, _ now: MonotonicTime
    ) {
        if let trial = trials[hoa], trial.pair == pair {
            trials[hoa]?.answers = trial.answers ?? answers
            return takeUp(hoa, now)
        }
        trials[hoa] = nil
        guard passed[Networks(pair)] == nil, trials.count < Self.trialsMax else { return }
        trials[hoa] = Trial(pair: pair, until: now + Self.trialMax, wasBusy: Self.isBusy(lastTraffic, now), answers: answers)
    }

    private static func isBusy(_ lastTraffic: MonotonicTime?, _ now: MonotonicTime) -> Bool { lastTraffic.map { now - $0 < busyMax } ?? false }

    /// Rewritten packets of a peer could take this pair, and have another one that still works.
    ///
    /// - Returns: whether they wait for the check.
    mutating func foresee(
        _ hoa: HomeAddress, _ pair: MobilePair, _ check: Translation.Check, lastTraffic: MonotonicTime?, _ now: MonotonicTime
    ) -> Bool {
        if let trial = trials[hoa], trial.pair == pair { return trial.isAhead }
        guard check == .awaited || check == .late, Self.isBusy(lastTraffic, now), passed[Networks(pair)] == nil,
            trials[hoa] != nil || trials.count < Self.trialsMax
        else { return false }
        trials[hoa] = Trial(pair: pair, until: now + Self.aheadMax, wasBusy: true, isAhead: true)
        return true
    }

    /// Those that wait for the check at an own address; in order.
    func ahead(at own: MobileAddress) -> [HomeAddress] { trials.filter { $0.value.isAhead && $0.value.pair.own == own }.keys.sorted() }

    /// The check is late.
    mutating func late(_ hoa: HomeAddress) {
        guard var trial = trials[hoa], trial.isAhead else { return }
        (trial.isDoubted, trial.isByCheck) = (true, true)
        trials[hoa] = trial
    }

    /// A peer's packets do not wait any more.
    ///
    /// - Parameter hasCome: the check has.
    mutating func takeUp(_ hoa: HomeAddress, hasCome: Bool = false, _ now: MonotonicTime) {
        guard var trial = trials[hoa], trial.isAhead else { return }
        (trial.isAhead, trial.until) = (false, now + Self.trialMax)
        if hasCome { (trial.isDoubted, trial.isByCheck) = (false, false) }
        trials[hoa] = trial
    }

    mutating func end(_ hoa: HomeAddress) { trials[hoa] = nil }

    /// - Parameters:
    ///   - isAwaited: the peer, or its IMS, has acked where we are.
    ///   - check: whether packets that began outside have been shown to arrive at the own MoA of the pair.
    mutating func counted(_ use: RewrittenUse, isAwaited: Bool, check: Translation.Check = .none, _ now: MonotonicTime) -> OnCount {
        let hoa = use.pair.peer
        guard var trial = trials[hoa], !trial.isAhead else { return .nothing }
        defer { if trials[hoa] != nil { trials[hoa] = trial } }
        guard let last = trial.last, last.sent <= use.sent, last.came <= use.came else {
            (trial.last, trial.cameAtFirst) = (use, use.came)
            return .nothing
        }
        trial.last = use
        if check == .came, trial.isByCheck {
            let wasFiltered = trial.isFiltered
            (trial.isByCheck, trial.isDoubted, trial.isFiltered, trial.silence) = (false, false, false, nil)
            if wasFiltered { filtered[Networks(trial.pair)] = nil }
            return wasFiltered ? .trust : .nothing
        }
        let hasCome = use.came != last.came
        if hasCome, !Self.showsNothing(trial, check) {
            passes(trial, of: hoa, now)
            return trial.isFiltered ? .trust : .nothing
        }
        if hasCome { trial.silence = nil }
        guard now < trial.until || trial.isDoubted && !trial.isFiltered else {
            trials[hoa] = nil
            return .nothing
        }
        guard !trial.isDoubted else { return .nothing }
        guard isAwaited else {
            trial.silence = nil
            return .nothing
        }
        if Self.isLate(trial, check) {
            (trial.isDoubted, trial.isByCheck) = (true, true)
            return .doubt
        }
        guard !hasCome, let silence = trial.silence ?? (use.sent > last.sent ? (now, last.sent) : nil) else { return .nothing }
        trial.silence = silence
        let lasted = now - silence.since
        trial.isDoubted =
            trial.isLeftByPeer
            ? lasted >= Self.leftMax
            : lasted >= PathSigns.silenceMax && use.sent > last.sent && Self.isStrange(trial, silentPackets: use.sent - silence.sent)
        return trial.isDoubted ? .doubt : .nothing
    }

    /// Whether so many packets would not have gone unanswered before. Who only listens, or answers seldom, may just have nothing to say.
    private static func isStrange(_ trial: Trial, silentPackets: UInt64) -> Bool {
        guard silentPackets >= silentPacketsMin else { return false }
        guard let answers = trial.answers else { return trial.cameAtFirst >= UInt64(RecentAnswers.cameMin) }
        return Double(silentPackets) * answers.perPacketSent >= answersMin
    }

    /// Whether a packet that came may be no more than the answer to one of ours.
    private static func showsNothing(_ trial: Trial, _ check: Translation.Check) -> Bool {
        switch check {
        case .came, .none: false
        case .expected: !trial.isFiltered
        case .awaited, .late: true
        }
    }

    /// Whoever only listens, in one flow of many or in the only one, has nothing but the check to tell, and opens a firewall of its own by asking.
    /// What comes in datagrams comes.
    private static func isLate(_ trial: Trial, _ check: Translation.Check) -> Bool { check == .late && trial.wasBusy && !trial.isLeftByPeer }

    private mutating func passes(_ trial: Trial, of hoa: HomeAddress, _ now: MonotonicTime) {
        trials[hoa] = nil
        filtered[Networks(trial.pair)] = nil
        Self.makeRoom(in: &passed)
        passed[Networks(trial.pair)] = now
    }

    private static func makeRoom(in known: inout [Networks: MonotonicTime]) {
        guard known.count >= networksMax, let oldest = known.values.min() else { return }
        known = known.filter { $0.value != oldest }
    }

    /// The peer's packets, or probes, come in datagrams from the MoA that its rewritten packets should come from.
    ///
    /// What has passed before, then, was not all that it waits for.
    ///
    /// - Parameter pair: that rewritten packets take.
    mutating func cameEncapsulated(_ hoa: HomeAddress, from place: MobileAddress, _ pair: MobilePair, _ now: MonotonicTime) {
        if trials[hoa] == nil, pair.peer == place, passed.removeValue(forKey: Networks(pair)) != nil { begin(hoa, pair, now) }
        if trials[hoa]?.pair.peer == place { trials[hoa]?.isLeftByPeer = true }
    }

    /// The peer asks for datagrams from a place that its packets do not go to yet: it has found out that rewritten ones do not arrive there.
    mutating func ask(_ hoa: HomeAddress, _ pair: MobilePair, _ now: MonotonicTime) {
        if trials[hoa]?.pair == pair { return late(hoa) }
        begin(hoa, pair, now)
        trials[hoa]?.isLeftByPeer = true
        trials[hoa]?.isDoubted = true
    }

    /// The MoA that is doubted has signed as an endpoint.
    ///
    /// - Returns: the pair, which packets do not take any more.
    mutating func proved(_ hoa: HomeAddress, _ now: MonotonicTime) -> MobilePair? {
        guard var trial = trials[hoa], trial.isDoubted, !trial.isFiltered else { return nil }
        (trial.isFiltered, trial.isAhead, trial.until) = (true, false, now + Self.mistakeMax)
        trials[hoa] = trial
        Self.makeRoom(in: &filtered)
        filtered[Networks(trial.pair)] = now + Self.filteredFor
        return trial.pair
    }

    /// - Returns: the peers whose packets wait no longer for a check; in order.
    mutating func aheadDue(_ now: MonotonicTime) -> [HomeAddress] {
        let due = trials.filter { $0.value.isAhead && $0.value.until <= now }.keys.sorted()
        for hoa in due { takeUp(hoa, now) }
        return due
    }

    /// - Returns: whether packets may take a pair again that was filtered.
    mutating func takeDue(_ now: MonotonicTime) -> Bool {
        let before = filtered.count
        filtered = filtered.filter { $0.value > now }
        return filtered.count < before
    }
}
