import IMTPlan
import MATCore
import MATSignal

/// The relays by which packets can travel to one peer, where no better path is proven (protocol.md section 11.4): at which of them this node is to be
/// a visitor, and which of them carries the packets.
///
/// ```
///           packets, and no better path               the relay grants it
///   apart ──────────────────────────────► asking, 1 ─────────────────────► visiting one
///     ▲                                   │  ▲    │                            │
///     │                                   └──┘    └────── it grants no more ◄──┘
///     │              400 ms without a grant, or a refusal: one more of the peer's relays
///     └──── a better path, and both ends will not need a relay after a move; no packets for 60 s, and the peer has another way to us
///
///   each relay:   untried ──bound, and packets──► probed, 7 times ──an in-path message of the peer's──► answered
///                                                     ▲                                                  │ `PathSigns`: silent
///                                                     └──────────── left: others go before it ◄──────────┘
///
///   two answered, and packets by one ──► each measured: 8 probes, a second apart, then every 15 s ──► `RelayQuality`: the favourite goes first
/// ```
/// At its own relays the node is bound anyway. What the peer's record lists carries packets as soon as the relay grants us a binding, since the peer is
/// bound there; a relay of ours alone only when the peer has shown by it that it is bound there as well, or after a second.
struct PeerRelays: PeerMachine {
    struct Candidate: Hashable, Sendable {
        /// The address of it that we use.
        let relay: Endpoint
        /// The peer's record lists it.
        let isPeers: Bool
        /// It is one of ours.
        let isOwn: Bool
    }

    enum Action: Hashable, Sendable {
        /// It is to be bound at others than before.
        case bind
        /// Another one may carry the packets now.
        case choose
        /// An in-path probe is to go by this relay.
        case probe(Endpoint)
        /// The relay may not know us any more.
        case refresh(Endpoint)
        /// The relay that carried the packets is silent.
        case left(Endpoint)
    }

    /// A way that packets may take.
    struct Way: Hashable, Sendable {
        let own: IPAddress
        let relay: Endpoint

        var carriage: Carriage.Way { .relayed(own: Endpoint(own, port: SignalPort.node), relay: relay) }
    }

    private struct Place: Sendable {
        let candidate: Candidate
        /// It grants us a binding.
        var isHeld = false
        /// When an in-path message of the peer's last came by it.
        var answeredAt: MonotonicTime?
        /// In-path probes in a row that nothing came back for, and when the next one goes.
        var probes = 0
        var next: MonotonicTime?
        /// Of the last probe that was answered.
        var roundTrip: Duration?
        /// What the probes say that went since it has answered.
        var quality = RelayQuality()
        var measuredSince: MonotonicTime?
        /// It carried packets, and nothing came back; until it answers it goes last.
        var isLeft = false
        /// The own address that this message came to.
        var own: IPAddress?

        /// The peer is bound there as well.
        var carries: Bool { isHeld && answeredAt != nil && !isLeft }
    }

    /// Packets without a better path.
    private enum Need: Hashable, Sendable {
        case none
        case since(MonotonicTime)
        /// They have waited for long enough.
        case blind
    }

    private enum Visit: Hashable, Sendable {
        case apart
        /// At so many of the peer's relays, in order; at one more from then on.
        case asking(Int, next: MonotonicTime)
        case visiting(Endpoint)
    }

    /// When in-path probes by a relay go, after the first.
    static let probeTimes: [Duration] = [100, 100, 200, 400, 800, 1600].map { .milliseconds($0) }
    /// How long after those the relay is tried again, while there is none better.
    static let probePause: Duration = .seconds(10)
    /// How long an answer to one of them counts.
    static let answerMax: Duration = .seconds(2)

    /// Between probes of relays that have answered, where there are several and one is in use: the first ones, and later ones.
    static let firstMeasures: Duration = .seconds(1)
    static let measurePause: Duration = .seconds(15)
    /// How long a favourite stays one, whatever others cost.
    static let favouriteMin: Duration = .seconds(60)

    /// Relays of both records.
    static let candidatesMax = 2 * MappingRecord.relaysMax
    /// How long one relay is waited for before the next is asked as well.
    static let patience: Duration = .milliseconds(400)
    /// How long a visit lasts after the last packet, if the peer reaches us by a relay of ours all the same.
    static let idleMax: Duration = .seconds(60)
    /// How long packets wait for a sign that the peer is bound at a relay of ours.
    static let blindAfter: Duration = .seconds(1)

    private var places: [Place] = []
    private var visit = Visit.apart
    private var activeAt: MonotonicTime?
    private var need = Need.none
    /// Whether a better path is proven.
    private var hasBetter = false
    /// The first own address, if that path leaves from another one, which may be about to go: whether a relay leads from there is found out meanwhile.
    private var standby: IPAddress?
    /// Whether a relay may be all there is after the next move of one of us.
    private var isFallback = false
    /// Clearly better than those before it, and since when.
    private var favourite: (relay: Endpoint, since: MonotonicTime)?
    /// What the kernel was told.
    private(set) var installed: Way?
    private(set) var installedLargest = Carriage.mtuAtFirst
    private(set) var installedNeedsSum = false
    private(set) var installedSources: [Endpoint] = []
    /// Of the way that the kernel was told.
    private var signs: PathSigns?
    /// By these relays packets came, some of which are candidates no more: what is on its way is taken for a while.
    private var lingering = LingeringSources()

    // MARK: Questions

    /// Where packets are taken from beside the candidates.
    var lasting: [Endpoint] { lingering.all }

    var isEmpty: Bool { places.isEmpty && installed == nil && installedSources.isEmpty }
    var candidates: [Candidate] { places.map(\.candidate) }

    /// The peer's relays at which a visitor's binding is wanted.
    var wanted: [Endpoint] {
        switch visit {
        case .apart: []
        case .asking(let count, _): Array(visitable.prefix(count))
        case .visiting(let relay): [relay]
        }
    }

    private var visitable: [Endpoint] { places.filter { $0.candidate.isPeers && !$0.candidate.isOwn }.map(\.candidate.relay) }

    /// It is at a relay of ours that the peer reaches us whenever it wants to.
    private var isReachable: Bool { places.contains { $0.candidate.isOwn } }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? {
        var due: MonotonicTime?
        if case .asking(let count, let next) = visit, count < visitable.count { due = next }
        if case .since(let time) = need { due = due.earlier(time + Self.blindAfter) }
        if isAsking { for place in places where place.isHeld { due = due.earlier(place.next) } }
        if need != .none || visit != .apart && !isKept || places.contains(where: { $0.answeredAt != nil }) {
            due = due.earlier(activeAt.map { $0 + Self.idleMax })
        }
        return due.earlier(signs?.due).earlier(lingering.due)
    }

    /// What its way carries is to be read at short intervals.
    var isWatched: Bool { signs?.isInUse ?? false }

    /// The peer could not reach us otherwise when it wants to.
    private var isKept: Bool { isFallback && !isReachable }

    private var isAsking: Bool { need != .none || standby != nil }

    /// The peer has answered at this own address by a relay that has us there.
    func hasAnswered(at own: IPAddress, _ holder: (Endpoint) -> IPAddress?) -> Bool {
        places.contains { $0.answeredAt != nil && !$0.isLeft && $0.own == own && holder($0.candidate.relay) == own }
    }

    func hasAnswered(_ relay: Endpoint) -> Bool { places.contains { $0.candidate.relay == relay && $0.answeredAt != nil } }
    func quality(of relay: Endpoint) -> RelayQuality? { places.first { $0.candidate.relay == relay }?.quality }
    func isLeft(_ relay: Endpoint) -> Bool { places.contains { $0.candidate.relay == relay && $0.isLeft } }

    /// How its packets go, if no better way is proven.
    ///
    /// - Parameter holder: the own address that a relay has us at.
    func way(_ holder: (Endpoint) -> IPAddress?, _ now: MonotonicTime) -> Way? {
        let isBlind: Bool =
            switch need {
            case .none: false
            case .since(let time): now - time >= Self.blindAfter
            case .blind: true
            }
        func rank(_ place: Place) -> Int {
            (place.isLeft ? 8 : 0) + (place.answeredAt != nil ? place.candidate.relay == favourite?.relay ? 0 : 1 : place.candidate.isPeers ? 2 : 3)
        }
        // The first of those that are equal: the relays of the lower HoA's record go first.
        let best = places.enumerated().filter { _, place in
            holder(place.candidate.relay) != nil && (place.answeredAt != nil || place.candidate.isPeers || isBlind)
        }.min { (rank($0.element), $0.offset) < (rank($1.element), $1.offset) }
        guard let relay = best?.element.candidate.relay, let own = holder(relay) else { return nil }
        return Way(own: own, relay: relay)
    }

    /// The peer has answered by a relay that has us, since then if a time is given.
    func hasAnswered(since time: MonotonicTime? = nil, _ holder: (Endpoint) -> IPAddress?) -> Bool {
        places.contains { place in
            guard !place.isLeft, let answeredAt = place.answeredAt else { return false }
            return time.map { answeredAt >= $0 } ?? true && holder(place.candidate.relay) != nil
        }
    }

    // MARK: Events

    /// These are the relays of both records, in the order of section 11.4.
    mutating func list(_ candidates: [Candidate], _ now: MonotonicTime) -> [Action] {
        let listed = Array(candidates.prefix(Self.candidatesMax))
        guard listed != self.candidates else { return [] }
        let before = wanted
        if !installedSources.isEmpty, places.contains(where: { place in !listed.contains { $0.relay == place.candidate.relay } }) {
            lingering.add(installedSources, now)
        }
        places = listed.map { candidate in
            var place = Place(candidate: candidate)
            if let known = places.first(where: { $0.candidate.relay == candidate.relay }) {
                (place.isHeld, place.answeredAt, place.isLeft) = (known.isHeld, known.answeredAt, known.isLeft)
                (place.probes, place.next, place.roundTrip, place.own) = (known.probes, known.next, known.roundTrip, known.own)
                (place.quality, place.measuredSince) = (known.quality, known.measuredSince)
            }
            return place
        }
        if case .visiting(let relay) = visit, !visitable.contains(relay) { visit = .apart }
        if case .asking = visit { visit = .apart }
        return [.choose] + settle(from: before, now)
    }

    /// There are packets for the peer, or from it.
    mutating func use(_ now: MonotonicTime) -> [Action] {
        let before = wanted
        let wasActive = isActive(now)
        activeAt = now
        if !wasActive { for index in places.indices { places[index].isLeft = false } }
        if !hasBetter, need == .none { need = .since(now) }
        signs?.use(now)
        return settle(from: before, now) + probe(now)
    }

    private func isActive(_ now: MonotonicTime) -> Bool { activeAt.map { now - $0 < Self.idleMax } ?? false }

    /// - Parameters:
    ///   - isProven: a direct or an encapsulated path carries its packets.
    ///   - isFallback: an end is translated or filtered, or they have no family in common, so that this path may be gone with a move.
    ///   - standby: the first own address, if that path leaves from another one.
    mutating func hasBetter(_ isProven: Bool, isFallback: Bool, standby: IPAddress? = nil, _ now: MonotonicTime) -> [Action] {
        let before = wanted
        hasBetter = isProven
        self.isFallback = isFallback
        if standby != self.standby {
            self.standby = standby
            if standby != nil { for index in places.indices { (places[index].probes, places[index].next) = (0, now) } }
        }
        if isProven { need = .none } else if isActive(now), need == .none { need = .since(now) }
        return settle(from: before, now)
    }

    /// These relays take our packets now.
    mutating func hold(_ relays: Set<Endpoint>, _ now: MonotonicTime) -> [Action] {
        for index in places.indices {
            let isHeld = relays.contains(places[index].candidate.relay)
            guard isHeld != places[index].isHeld else { continue }
            places[index].isHeld = isHeld
            // A relay that has us anew may have lost the peer.
            if isHeld { (places[index].probes, places[index].next) = (0, now) }
        }
        return probe(now)
    }

    /// In-path probes that are due.
    private mutating func probe(_ now: MonotonicTime) -> [Action] {
        guard isAsking else { return [] }
        var actions: [Action] = []
        for index in places.indices where places[index].isHeld && places[index].next.map({ $0 <= now }) ?? false {
            guard places[index].answeredAt == nil || isUnshown(places[index]) else {
                // Nobody needs to know while nothing goes by any of them.
                let isFirst = isWatched && places[index].quality.count < RelayQuality.probesMin
                places[index].next = isMeasuring ? now + (isFirst ? Self.firstMeasures : Self.measurePause) : nil
                if isMeasuring, isWatched { actions.append(.probe(places[index].candidate.relay)) }
                continue
            }
            let wait = places[index].probes < Self.probeTimes.count ? Self.probeTimes[places[index].probes] : Self.probePause
            places[index].next = now + wait
            if places[index].probes < Self.probeTimes.count { places[index].probes += 1 }
            actions.append(.probe(places[index].candidate.relay))
        }
        return actions
    }

    /// By the old address nothing is shown of the new one.
    private func isUnshown(_ place: Place) -> Bool { standby != nil && place.own != standby }

    /// There is something to choose from.
    private var isMeasuring: Bool { need != .none && places.count(where: \.carries) > 1 }

    /// A relay has granted a binding, or does no more.
    mutating func bound(_ relay: Endpoint, isGranted: Bool, _ now: MonotonicTime) -> [Action] {
        guard candidates.contains(where: { $0.relay == relay }) else { return [] }
        let before = wanted
        switch visit {
        case .asking(_, _) where isGranted && visitable.contains(relay): visit = .visiting(relay)
        // The next one is asked at once.
        case .asking(let count, _) where !isGranted && before.contains(relay):
            visit = .asking(min(count + 1, max(1, visitable.count)), next: now + Self.patience)
        case .visiting(relay) where !isGranted: visit = .asking(max(2, 1 + (visitable.firstIndex(of: relay) ?? 0)), next: now + Self.patience)
        case .apart, .asking, .visiting: break
        }
        return [.choose] + (wanted == before ? [] : [.bind])
    }

    /// An in-path message of the peer's came by this relay to this own address: the peer is bound there as well.
    mutating func answered(_ relay: Endpoint, at own: IPAddress, _ now: MonotonicTime) -> [Action] {
        guard let index = places.firstIndex(where: { $0.candidate.relay == relay }) else { return [] }
        let isNews = places[index].answeredAt == nil || places[index].isLeft || own == standby && places[index].own != own
        (places[index].answeredAt, places[index].isLeft, places[index].own) = (now, false, own)
        if isNews { (places[index].quality, places[index].measuredSince) = (RelayQuality(), now) }
        // What is being measured has its next time.
        if !isUnshown(places[index]), isNews || places[index].probes > 0 { (places[index].probes, places[index].next) = (0, nil) }
        if isMeasuring {
            for index in places.indices where places[index].answeredAt != nil && places[index].next == nil {
                places[index].next = now + Self.firstMeasures
            }
        }
        if installed?.relay == relay { signs?.sign(now) }
        return isNews ? [.choose] : []
    }

    /// Packets go by this relay, and nothing comes back: others are better, until it answers.
    private mutating func left(_ relay: Endpoint, _ now: MonotonicTime) -> [Action] {
        guard let index = places.firstIndex(where: { $0.candidate.relay == relay }) else { return [] }
        let before = wanted
        (places[index].answeredAt, places[index].isLeft, places[index].probes, places[index].next) = (nil, true, 0, now)
        if favourite?.relay == relay { favourite = nil }
        if visit == .visiting(relay) { visit = .asking(max(2, 1 + (visitable.firstIndex(of: relay) ?? 0)), next: now + Self.patience) }
        return [.choose] + (wanted == before ? [] : [.bind])
    }

    mutating func install(_ way: Way?, largest: UInt32, needsSum: Bool = false, _ now: MonotonicTime) {
        if way != installed {
            signs = way.map { way in PathSigns(roundTrip: places.first { $0.candidate.relay == way.relay }?.roundTrip, now) }
        }
        (installed, installedLargest, installedNeedsSum) = (way, largest, needsSum)
    }

    /// The kernel takes the peer's packets from there.
    mutating func accept(from sources: [Endpoint]) { installedSources = sources }

    /// What the way in use has carried was read.
    mutating func counted(_ use: PathUse, _ now: MonotonicTime) -> [Action] {
        guard installed?.relay == use.far, let action = signs?.counted(sent: use.sent, heard: use.heard, now) else { return [] }
        return signAction(action, now)
    }

    private mutating func signAction(_ action: PathSigns.Action, _ now: MonotonicTime) -> [Action] {
        guard let relay = installed?.relay else { return [] }
        switch action {
        case .probe: return [.refresh(relay), .probe(relay)]
        case .leave: return left(relay, now) + probe(now) + [.left(relay)]
        }
    }

    private mutating func learn(roundTrip: Duration, of relay: Endpoint) {
        if let index = places.firstIndex(where: { $0.candidate.relay == relay }) { places[index].roundTrip = roundTrip }
        if installed?.relay == relay { signs?.learn(roundTrip: roundTrip) }
    }

    /// A probe has come to its end.
    ///
    /// - Parameter roundTrip: `nil`: no answer came.
    mutating func probed(_ relay: Endpoint, at sentAt: MonotonicTime, _ roundTrip: Duration?, _ now: MonotonicTime) -> [Action] {
        if let roundTrip { learn(roundTrip: roundTrip, of: relay) }
        // What went before the peer was there says nothing of the way.
        guard let index = places.firstIndex(where: { $0.candidate.relay == relay }), let since = places[index].measuredSince, sentAt >= since,
            places[index].answeredAt != nil
        else { return [] }
        places[index].quality.probed(roundTrip)
        let answered = places.filter(\.carries)
        guard let present = answered.first(where: { $0.candidate.relay == favourite?.relay }) ?? answered.first,
            favourite.map({ now - $0.since >= Self.favouriteMin }) ?? true,
            let better = answered.filter({ $0.quality.isClearlyBetter(than: present.quality) })
                .min(by: { RelayQuality.isLess($0.quality, $1.quality) })
        else { return [] }
        favourite = (better.candidate.relay, now)
        return [.choose]
    }

    mutating func installedMoved(from: IPAddress, to: IPAddress) {
        if let way = installed, way.own == from { installed = Way(own: to, relay: way.relay) }
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        let before = wanted
        if case .asking(let count, let next) = visit, next <= now, count < visitable.count {
            visit = .asking(count + 1, next: now + Self.patience)
        }
        var actions = signs?.takeDue(now).map { signAction($0, now) } ?? []
        if case .since(let time) = need, time + Self.blindAfter <= now {
            need = .blind
            actions.append(.choose)
        }
        if lingering.takeDue(now) { actions.append(.choose) }
        if !isActive(now) {
            // By now it may be bound there no more.
            (need, activeAt, favourite) = (.none, nil, nil)
            // Its packets' way is found out anew.
            for index in places.indices { (places[index].answeredAt, places[index].probes, places[index].next) = (nil, 0, now) }
        }
        return actions + settle(from: before, now) + probe(now)
    }

    /// Begins a visit, or ends it, as things are now.
    private mutating func settle(from before: [Endpoint], _ now: MonotonicTime) -> [Action] {
        let isNeeded = isActive(now) && (!hasBetter || standby != nil || isFallback && visit != .apart)
        let isWanted = !visitable.isEmpty && (isKept || isNeeded)
        switch visit {
        case .apart where isWanted: visit = .asking(1, next: now + Self.patience)
        case .asking where !isWanted, .visiting where !isWanted: visit = .apart
        case .apart, .asking, .visiting: break
        }
        return wanted == before ? [] : [.bind]
    }
}
