import IMTPlan
import MATSignal

/// Destinations that packets are held for, and what the DNS said of others: see `Destination` for the way of each, and `DoubtfulNames` for what
/// becomes of those of which the DNS says nothing.
struct Destinations: Sendable {
    /// What the node knows of an HoA when its fate is decided.
    struct Surroundings: Hashable, Sendable {
        /// The DNS named IMSs for it in this run; perhaps too long ago to be believed.
        var hasServers = false
        /// Recently enough.
        var hasFreshServers = false
        /// There is an own record to enclose, and an address of its family to send from, and an IMS of it is known.
        var canAsk = false
        /// There is an own address.
        var hasAddress = false
    }

    enum Action: Equatable, Sendable {
        /// Ask the DNS for its IMSs.
        case lookUp(HomeAddress)
        /// Ask its IMSs for its mapping, and tell them of us.
        case ask(HomeAddress)
        /// Its mapping has come into force: let it know us as early as possible.
        case introduce(HomeAddress)
        /// It is a peer now, and its packets go on.
        case begin(HomeAddress, after: Duration, isNotifiedInVain: Bool)
        /// Let its packets go untranslated, after the changes so far.
        case pass(HomeAddress)
        /// Let those go that are questions to a DNS server.
        case passNames(HomeAddress)
        case drop(HomeAddress)
        /// Nothing that was asked about it is of use any more.
        case stopAsking(HomeAddress)
        case change(IMTChange)
        case wake(HomeAddress, at: MonotonicTime)
        case wakeToLookUp(HomeAddress, at: MonotonicTime)
        case stopWakingToLookUp(HomeAddress)
        /// Neither of its times is waited for any more.
        case stopWaiting(HomeAddress)
        case count(WritableKeyPath<NodeCounters, UInt64> & Sendable)
        case log(NodeLogLevel, String)
    }

    /// How long packets to an unknown destination wait for a DNS that gives no answer.
    static let silentNamesMax: Duration = .seconds(2)
    /// For how long packets that must wait do so before the next question; and others, within their 2 s.
    static let lookUpAgainAfter: Duration = .seconds(1)
    /// For how long absence is believed at most.
    static let absenceMax: Duration = .seconds(300)
    /// Destinations whose absence is remembered here, to be forgotten in another network. Those before them lapse by themselves.
    static let absencesMax = 4096
    /// Questions about destinations of a local resolver's own questions: each can make it ask some more.
    static let backgroundMax = 2

    private let countMax: Int
    private let absencesMax: Int
    private let holdMax: Duration
    private var namedPrefixes: [IPPrefix]

    private var destinations: [HomeAddress: Destination] = [:]
    private var doubts: DoubtfulNames
    /// Until when it is believed that a destination is no HoA, and whether it was its IMS that said so rather than the DNS.
    private struct Absence: Sendable {
        let until: MonotonicTime
        let isNamed: Bool
    }

    private var absences: [HomeAddress: Absence] = [:]
    /// Peers of an earlier run, as the kernel's entries tell, that this run has heard nothing of yet.
    private var former: Set<HomeAddress> = []
    /// Names are found by a process of this host, whose own questions must not wait for a look-up.
    private var resolvesLocally = false

    init(_ configuration: NodeCoreConfiguration) {
        countMax = configuration.destinationsMax
        holdMax = configuration.destinationHoldMax
        namedPrefixes = configuration.namedPrefixes
        absencesMax = configuration.share(of: Self.absencesMax)
        doubts = DoubtfulNames(countMax: configuration.share(of: DoubtfulNames.countMax))
    }

    /// The configuration names others as home addresses. What is known of a destination stays.
    mutating func name(_ prefixes: [IPPrefix]) { namedPrefixes = prefixes }

    // MARK: Questions

    var count: Int { destinations.count }

    func contains(_ hoa: HomeAddress) -> Bool { destinations[hoa] != nil }

    /// In order.
    var all: [HomeAddress] { destinations.keys.sorted() }

    /// Whether it is talked to plainly, as far as is known here.
    func isPlain(_ hoa: HomeAddress) -> Bool { absences[hoa] != nil || doubts[hoa]?.isPlain == true }

    /// What has become of packets to one that is no peer, as far as is known here.
    func fate(of hoa: HomeAddress, now: MonotonicTime) -> DestinationFate {
        if let doubt = doubts[hoa], now - doubt.used < DoubtfulNames.unusedMax { return .doubtful(isPlain: doubt.isPlain, doubt.reason) }
        if let absence = absences[hoa], absence.until > now { return absence.isNamed ? .unmapped : .absent }
        if let destination = destinations[hoa] { return destination.isNamed ? .asked : .lookedUp(failure: destination.failure) }
        return .unknown
    }

    /// Those of which the DNS has not said anything yet.
    var unnamed: [HomeAddress] { destinations.filter { !$0.value.isNamed }.keys.sorted() }

    /// Those about which the DNS gives no answer and that are in use, the latest first.
    func undecided(now: MonotonicTime) -> [(hoa: HomeAddress, doubt: Doubt)] { doubts.inUse(now: now) }

    /// Whether it is a peer of an earlier run whose packets wait, because the DNS says nothing about it.
    func isUndecidedPeer(_ hoa: HomeAddress) -> Bool { former.contains(hoa) && doubts[hoa]?.isPlain == false }

    /// Whether it may be talked to plainly while the DNS says nothing: not what the configuration calls a MAT node, nor what was one.
    private func mayBePlain(_ hoa: HomeAddress, _ around: Surroundings) -> Bool {
        !namedPrefixes.contains { $0.family == hoa.family && $0.contains(hoa.address) } && !former.contains(hoa) && !around.hasServers
    }

    /// How long the DNS may take: then it is plain, or the IMSs that were known before are asked, or nothing can be done.
    private func patience(for hoa: HomeAddress, _ around: Surroundings) -> Duration {
        mayBePlain(hoa, around) || around.hasServers ? Self.silentNamesMax : holdMax
    }

    // MARK: Packets

    /// A packet to a destination that is no peer is held.
    mutating func hold(_ hoa: HomeAddress, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        if let doubt = doubts[hoa], doubt.isPlain {
            if mayBePlain(hoa, around), now - doubt.used < DoubtfulNames.unusedMax { return holdInDoubt(hoa, doubt, around, now) }
            _ = doubts.remove(hoa)
        }
        guard let destination = destinations[hoa] else {
            guard destinations.count < countMax else { return [.drop(hoa)] }
            return begin(hoa, isBackground: false, around, now: now)
        }
        guard destination.isBackground else { return [] }
        // What was begun for nobody's packets is waited for now.
        destinations[hoa]?.isBackground = false
        return destination.isNamed ? [] : [.wake(hoa, at: now + patience(for: hoa, around))]
    }

    /// A packet to a destination that was plain for lack of an answer is in our hands again: it goes on, and the DNS is asked anew.
    private mutating func holdInDoubt(_ hoa: HomeAddress, _ doubt: Doubt, _ around: Surroundings, _ now: MonotonicTime) -> [Action] {
        doubts.use(hoa, now: now)
        let passing = passInDoubt(hoa)
        guard destinations[hoa] == nil, now - doubt.asked >= DoubtfulNames.interval - .seconds(1) else { return passing }
        return passing + begin(hoa, isBackground: true, around, now: now)
    }

    /// A question of a process of this host, to a DNS server that nobody has looked up: where names are found by such a process, each
    /// look-up would wait for the next.
    ///
    /// - Returns: `nil` if the packet does not go on, but is to be held like any other.
    mutating func holdName(_ hoa: HomeAddress, _ around: Surroundings, now: MonotonicTime) -> [Action]? {
        guard resolvesLocally, mayBePlain(hoa, around) else { return nil }
        let passing = [Action.passNames(hoa)]
        // Found out about all the same, if slowly: as plain it passes us by, and a name server may be a MAT node.
        guard destinations[hoa] == nil, destinations.values.count(where: \.isBackground) < Self.backgroundMax else { return passing }
        if let doubt = doubts[hoa], now - doubt.asked < DoubtfulNames.interval { return passing }
        return passing + begin(hoa, isBackground: true, around, now: now)
    }

    /// Begins to find out about a destination.
    private mutating func begin(_ hoa: HomeAddress, isBackground: Bool, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard destinations[hoa] == nil, destinations.count < countMax else { return [] }
        destinations[hoa] = Destination(started: now, isBackground: isBackground)
        doubts.ask(hoa, now: now)
        let wake = Action.wake(hoa, at: now + patience(for: hoa, around))
        guard around.hasFreshServers else { return [wake, .lookUp(hoa)] }
        destinations[hoa]?.stage = .found
        return [wake] + ask(hoa, around)
    }

    // MARK: The DNS

    /// The DNS named its IMSs, to whoever asked: what made it plain, an absence or a doubt, counts no more.
    ///
    /// - Parameter isAwaited: it was asked for because of packets.
    mutating func named(_ hoa: HomeAddress, isAwaited: Bool, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        let doubt = doubts.remove(hoa)
        let wasPlain = doubt?.isPlain ?? false
        var actions = doubt == nil ? [] : [Self.answersAgain(hoa)]
        if absences.removeValue(forKey: hoa) != nil || wasPlain { actions.append(.change(.removePlain(hoa.address))) }
        // Asked for packets to it: it is held from now on, until its IMS has answered.
        if wasPlain, isAwaited { actions += begin(hoa, isBackground: true, around, now: now) }
        return actions
    }

    private static func answersAgain(_ hoa: HomeAddress) -> Action { .log(.info, "the DNS answers about \(hoa) again") }

    /// The DNS answered a `lookUp`, or not.
    mutating func lookedUp(_ hoa: HomeAddress, _ result: ServerLookup, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        switch result {
        case .found:
            return find(hoa, around)
        case .absent(let lifetime):
            let doubt = doubts.remove(hoa)
            let answersAgain = doubt == nil ? [] : [Self.answersAgain(hoa)]
            former.remove(hoa)
            guard destinations[hoa] != nil || doubt != nil else { return answersAgain }
            return answersAgain + absent(hoa, for: min(lifetime, Self.absenceMax), now: now)
        case .failed(let reason):
            // Not absence: treating it so at once would leak traffic past mobility.
            if destinations[hoa] != nil { return undecided(hoa, reason, around, now) }
            guard let doubt = doubts[hoa] else { return [] }
            return self.doubt(hoa, reason, isPlain: doubt.isPlain, now)
        case .unusable(let reason):
            let old = doubts[hoa]
            guard destinations[hoa] != nil || old != nil else { return [] }
            var actions: [Action] = old?.isPlain == true ? [.change(.removePlain(hoa.address))] : []
            actions += doubt(hoa, reason, isPlain: false, now)
            destinations[hoa]?.fail(reason)
            // Not for 2 s: until somebody has mended it.
            if let started = destinations[hoa]?.started { actions.append(.wake(hoa, at: started + holdMax)) }
            return actions + lookUpAgain(hoa, now)
        }
    }

    /// Its IMSs are known, from the DNS or from before.
    private mutating func find(_ hoa: HomeAddress, _ around: Surroundings) -> [Action] {
        guard let destination = destinations[hoa], destination.stage != .asked else { return [] }
        destinations[hoa]?.stage = .found
        return [.stopWakingToLookUp(hoa), .wake(hoa, at: destination.started + holdMax)] + ask(hoa, around)
    }

    /// The DNS has nothing to say about a destination at the moment.
    private mutating func undecided(_ hoa: HomeAddress, _ reason: String, _ around: Surroundings, _ now: MonotonicTime) -> [Action] {
        destinations[hoa]?.fail(reason)
        if mayBePlain(hoa, around) {
            // Asked in passing about what is plain meanwhile: again when it is used in 30 s.
            guard doubts[hoa]?.isPlain == true, destinations[hoa]?.isBackground == true else { return lookUpAgain(hoa, now) }
            return doubt(hoa, reason, isPlain: true, now) + forget(hoa)
        }
        // Who was a MAT node is asked where it was served.
        if around.hasServers { return find(hoa, around) }
        return doubt(hoa, reason, isPlain: false, now) + lookUpAgain(hoa, now)
    }

    private func lookUpAgain(_ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] {
        destinations[hoa] == nil ? [] : [.wakeToLookUp(hoa, at: now + Self.lookUpAgainAfter)]
    }

    /// Time to ask the DNS again.
    func lookUpDue(_ hoa: HomeAddress) -> [Action] { destinations[hoa]?.isNamed == false ? [.lookUp(hoa)] : [] }

    /// The network or the resolvers changed.
    mutating func namesChanged(isLocal: Bool) { resolvesLocally = isLocal }

    /// In another network the DNS may say otherwise: what was found absent, or is in doubt, is looked up when the next packet to it comes.
    mutating func forgetAbsence(now: MonotonicTime) -> [Action] {
        let lapsing = absences.filter { $0.value.until > now }.keys.sorted()
        absences = [:]
        doubts.askAnew()
        return lapsing.map { .change(.removePlain($0.address)) }
    }

    /// The DNS gave no answer about a destination, or none in time.
    private mutating func doubt(_ hoa: HomeAddress, _ reason: String, isPlain: Bool, _ now: MonotonicTime) -> [Action] {
        guard let level = doubts.enter(hoa, reason, isPlain: isPlain, since: destinations[hoa]?.started ?? now, now: now) else { return [] }
        let end = isPlain ? "it is talked to plainly, and asked for again every \(DoubtfulNames.interval.components.seconds) s" : "packets to it wait"
        return [.log(level, "whether \(hoa) is a MAT node can't be found out: \(reason); \(end)")]
    }

    // MARK: Its IMS

    /// Whether something that it waited for is there now: an own record, an own address.
    mutating func ask(_ hoa: HomeAddress, _ around: Surroundings) -> [Action] {
        guard let destination = destinations[hoa], destination.stage != .asked, around.canAsk else { return [] }
        destinations[hoa]?.stage = .asked
        return [.ask(hoa)]
    }

    /// The mapping is in force.
    mutating func answered(_ hoa: HomeAddress, now: MonotonicTime) -> [Action] {
        guard let destination = destinations[hoa] else { return [] }
        destinations[hoa]?.isKnown = true
        return (destination.isKnown ? [] : [.introduce(hoa)]) + beginIfReady(hoa, now)
    }

    /// Its IMS takes no more HA Notifies at present, which does not keep the packets back; the peer is told later, or directly.
    mutating func notificationDelayed(_ hoa: HomeAddress) {
        if destinations[hoa]?.notification == .awaited { destinations[hoa]?.notification = .ended }
    }

    /// Its IMS has answered HA Notify, whatever it said, or is not going to.
    mutating func notified(_ hoa: HomeAddress, inVain: Bool, now: MonotonicTime) -> [Action] {
        destinations[hoa]?.notification = inVain ? .endedInVain : .ended
        return beginIfReady(hoa, now)
    }

    private mutating func beginIfReady(_ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] {
        guard let destination = destinations[hoa], destination.isReady else { return [] }
        former.remove(hoa)
        return forget(hoa) + [
            .count(\.destinationsResolved), .begin(hoa, after: now - destination.started, isNotifiedInVain: destination.notification == .endedInVain),
        ]
    }

    // MARK: How else it ends

    /// It is no HoA: plain for as long as that may be believed.
    mutating func absent(_ hoa: HomeAddress, for lifetime: Duration, now: MonotonicTime) -> [Action] {
        let time = max(lifetime, .seconds(1))
        // What has run out goes first, or what is still believed would have to.
        if absences.count >= absencesMax, absences[hoa] == nil { absences = absences.filter { $0.value.until > now } }
        absences.makeRoom(for: hoa, max: absencesMax) { $1.until }
        absences[hoa] = Absence(until: now + time, isNamed: destinations[hoa]?.isNamed ?? false)
        return forget(hoa) + [.count(\.destinationsPlain), .change(.setPlain(hoa.address, lifetime: time)), .pass(hoa)]
    }

    /// The 2 s are over.
    private mutating func passUndecided(_ hoa: HomeAddress, _ reason: String, _ now: MonotonicTime) -> [Action] {
        doubt(hoa, reason, isPlain: true, now) + [.count(\.destinationsUndecided)] + forget(hoa) + passInDoubt(hoa)
    }

    private func passInDoubt(_ hoa: HomeAddress) -> [Action] {
        [.change(.setPlain(hoa.address, lifetime: DoubtfulNames.interval)), .pass(hoa)]
    }

    /// Nothing can be found out about it, or its IMS does not answer.
    mutating func drop(_ hoa: HomeAddress) -> [Action] {
        guard destinations[hoa] != nil else { return [] }
        return forget(hoa) + [.stopAsking(hoa), .drop(hoa)]
    }

    private mutating func forget(_ hoa: HomeAddress) -> [Action] {
        destinations[hoa] = nil
        return [.stopWaiting(hoa)]
    }

    /// Packets were held for as long as is of use.
    mutating func due(_ hoa: HomeAddress, _ around: Surroundings, now: MonotonicTime) -> [Action] {
        guard let destination = destinations[hoa] else { return [] }
        if destination.isKnown {
            // Only the Ack is missing: the peer may learn of us by another way.
            notificationDelayed(hoa)
            return beginIfReady(hoa, now)
        }
        if destination.isNamed {
            return [.log(.warning, "\(hoa) could not be resolved within \(holdMax.components.seconds) s; packets to it are dropped")] + drop(hoa)
        }
        if around.hasServers { return find(hoa, around) }
        if mayBePlain(hoa, around), doubts[hoa]?.isPlain != false {
            if around.hasAddress {
                return passUndecided(hoa, destination.failure ?? "no answer within \(Self.silentNamesMax.components.seconds) s", now)
            }
            // Without an address to ask from it is not the DNS that is silent.
            return now - destination.started < holdMax ? [.wake(hoa, at: destination.started + holdMax)] : drop(hoa)
        }
        let doubting = doubts[hoa] == nil ? doubt(hoa, destination.failure ?? "no answer of the DNS", isPlain: false, now) : []
        doubts.use(hoa, now: now)
        return doubting + drop(hoa)
    }

    // MARK: An earlier run

    /// These were peers of an earlier run. Until this one knows better, they are not plain.
    mutating func remember(former: Set<HomeAddress>) { self.former = former }
}
