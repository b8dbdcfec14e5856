import IMTPlan
import MATCore
import MATSignal

/// The ways to one peer that rewriting can't take: the endpoints at which it receives encapsulated packets, how far each is believed, and which of
/// them carries its packets (protocol.md section 11.4).
///
/// ```
///   its record ──► listed ──┐
///                           ├──► each an `EndpointState`: probed, proven ──► the first proven one carries its packets
///   its probes ──► learned ─┘         (a learned one goes first: its packets come from there)  │
///                                                                                              ▼
///                                                            `PathSigns`: silent ──► it is probed on, and another goes
/// ```
/// A learned endpoint is forgotten when its proof has run out; a listed one when the record in force no longer lists it. Without packets all
/// proofs end after 25 s: by then a translator or firewall may have forgotten the flow.
struct PeerEndpoints: PeerMachine {
    /// What is to be done.
    enum Action: Hashable, Sendable {
        /// A Path Probe is to go there, with what the series asks; `nil`: the first of a series, which asks anew.
        case probe(Endpoint, Asked?)
        /// Another endpoint may carry the packets now.
        case choose
        /// The endpoint that carried them is silent.
        case left(Endpoint)
        /// Packets that came from the peer have stopped coming: what lets them in may be lost.
        case suspectLoss
        /// Packets wait, and the peer answers nowhere: it may not have heard of us, and a translator lets us in when it has asked us, too.
        case unheard
    }

    /// What all probes of a series have in common, since an answer may take longer than the next probe.
    struct Asked: Hashable, Sendable {
        let sequence: UInt32
        /// What the peer is to sign.
        let challenge: Challenge
        /// Probes that went at once because the peer had given its cookie.
        fileprivate(set) var cookiesFollowed = 0

        init(sequence: UInt32, challenge: Challenge) { (self.sequence, self.challenge) = (sequence, challenge) }
    }

    /// A way that packets may take.
    struct Way: Hashable, Sendable {
        let own: IPAddress
        let endpoint: Endpoint

        var carriage: Carriage.Way { .encapsulated(own: Endpoint(own, port: SignalPort.node), peer: endpoint) }
    }

    private struct Place: Sendable {
        let endpoint: Endpoint
        var isListed: Bool
        /// The peer has shown itself there, and a record has come since that does not list it: it goes last until proven again.
        var outdatedAt: MonotonicTime?
        var state = EndpointState.unproven
        /// The own address that it was proven from.
        var own: IPAddress?
        /// What the peer gave us there, to be signed: it shows who is asked that we receive where we send from.
        var cookie: ServerCookie?
        var asked: Asked?
        /// Where the peer sees us, who asks from there.
        var seenAs: Endpoint?
        /// When a valid message last came from there.
        var heardAt: MonotonicTime?
        /// Of the last series whose first probe was answered.
        var roundTrip: Duration?

        var isOutdated: Bool { outdatedAt != nil }
    }

    /// Endpoints that a peer showed by its probes, beside those of its record.
    static let learnedMax = 4
    /// Others, that something of the peer's may have come from, while they are asked.
    static let callersMax = 2
    /// Endpoints that are probed when the peer tells where it is, and there are no packets for it.
    static let courtesyEndpointsMax = 2
    /// How long proofs last after the last packet.
    static let idleMax: Duration = .seconds(25)
    /// After so long without a packet from a peer that has sent some, something may be lost (section 11.3).
    static let lossSuspectedAfter: Duration = .seconds(1)

    private var places: [Place] = []
    /// When there were packets for or from the peer, or one of us began to probe.
    private var activeAt: MonotonicTime?
    /// What the kernel was told.
    private(set) var installed: Way?
    /// With packets as large as this.
    private(set) var installedLargest = Carriage.mtuAtFirst
    private(set) var installedNeedsSum = false
    private(set) var installedSources: [Endpoint] = []
    /// `sources` when they were last looked at, and those that have gone since.
    private var lastSources: [Endpoint] = []
    private var lingering = LingeringSources()
    /// Of the way that the kernel was told.
    private var signs: PathSigns?
    /// Its packets go in yet another way, by rewriting or a relay.
    private var hasOtherWay = false
    /// Packets that came from the peer, and when that was seen; `nil`: none lately, or what follows from their absence was done.
    private var came: UInt64?
    private var cameAt: MonotonicTime?

    // MARK: Questions

    var isEmpty: Bool { places.isEmpty && installed == nil && installedSources.isEmpty }
    var endpoints: [Endpoint] { places.map(\.endpoint) }
    /// Nothing is held against any of its endpoints, and none is asked: there are no packets for it.
    var isUntried: Bool { !places.isEmpty && places.allSatisfy { if case .unproven = $0.state { true } else { false } } }
    /// The sequences of its series.
    var sequences: [UInt32] { places.compactMap(\.asked?.sequence) }

    /// Endpoints from which encapsulated packets are the peer's: those of its record, and those that it has proven (section 11.2); in order.
    var sources: [Endpoint] { places.filter { $0.isListed || $0.state.isProven }.map(\.endpoint).sorted() }
    /// Those that were among them a moment ago.
    var lasting: [Endpoint] { lingering.all }

    var due: MonotonicTime? {
        let idle = places.contains { $0.state.isProven } ? activeAt.map { $0 + Self.idleMax } : nil
        return places.reduce(idle) { $0.earlier($1.state.due) }.earlier(signs?.due).earlier(lingering.due)
    }

    /// What its way carries is to be read at short intervals.
    var isWatched: Bool { signs?.isInUse ?? false }
    /// When the way in use last gave a sign.
    var signAt: MonotonicTime? { signs?.signAt }

    /// How its packets go: to where it has shown itself, before what it lists, before where it was by an earlier record.
    ///
    /// - Parameters:
    ///   - isUsable: an own address can be sent from.
    ///   - preferred: the own address that is the first for the peer. What is proven from there goes before all else: a peer that asks at every place
    ///     that we list shows itself at others too, of the other family perhaps, where it does not expect our packets.
    func way(_ isUsable: (IPAddress) -> Bool, preferring preferred: IPAddress? = nil) -> Way? {
        let ways = places.filter { place in place.state.isProven && (place.own.map(isUsable) ?? false) }
        func best(of ways: [Place]) -> Place? { ways.first { !$0.isListed && !$0.isOutdated } ?? ways.first { $0.isListed } ?? ways.first }
        // Until something is, what is in use stays in use.
        let present = ways.first { place in
            !place.isOutdated && (installed.map { $0.own == place.own && $0.endpoint == place.endpoint } ?? false)
        }
        // Where it was by an earlier record goes last, from wherever that is reached.
        let now = ways.filter { !$0.isOutdated }
        let best =
            best(of: now.filter { $0.own == preferred }) ?? present ?? best(of: now)
            ?? best(of: ways.filter { $0.own == preferred }) ?? best(of: ways)
        return best.flatMap { place in
            place.own.map { Way(own: $0, endpoint: place.endpoint) }
        }
    }

    private func place(_ endpoint: Endpoint) -> Place? { places.first { $0.endpoint == endpoint } }

    /// Since when the peer may be there no more, by its record.
    func outdatedAt(_ endpoint: Endpoint) -> MonotonicTime? { place(endpoint)?.outdatedAt }

    func state(of endpoint: Endpoint) -> EndpointState? { place(endpoint)?.state }
    func cookie(at endpoint: Endpoint) -> ServerCookie? { place(endpoint)?.cookie }
    func asked(at endpoint: Endpoint) -> Asked? { place(endpoint)?.asked }
    /// Where the peer says that it sees us from there.
    func seenAs(at endpoint: Endpoint) -> Endpoint? { place(endpoint)?.seenAs }

    /// Nothing answers at any of them what is asked now.
    var isInVain: Bool { places.allSatisfy(\.state.isInVain) }
    /// It has shown at some place that it is there.
    var hasAnswered: Bool { places.contains { $0.heardAt != nil } }

    func isActive(_ now: MonotonicTime) -> Bool { activeAt.map { now - $0 < Self.idleMax } ?? false }

    // MARK: Events

    /// A record is in force that lists these, in order.
    mutating func list(_ endpoints: [Endpoint], _ now: MonotonicTime) -> [Action] {
        guard endpoints != places.filter(\.isListed).map(\.endpoint) else { return [] }
        let listed = endpoints.map { endpoint in
            var place = place(endpoint) ?? Place(endpoint: endpoint, isListed: true)
            (place.isListed, place.outdatedAt) = (true, nil)
            return place
        }
        // A newer record ends trust in what it does not list any more; where the peer has shown itself without having listed it, it may be still.
        let isActive = isActive(now)
        let shown = places.filter { !$0.isListed && !endpoints.contains($0.endpoint) }.map { place in
            var place = place
            if isActive, place.state.isProven, !place.isOutdated { place.state.beginAnew(keepsProof: true, now) }
            place.outdatedAt = place.outdatedAt ?? now
            return place
        }
        places = listed + shown
        if isActive { return [.choose] + begin(now) }
        for index in places.indices.prefix(Self.courtesyEndpointsMax) { places[index].state.begin(isCourtesy: true, now) }
        return [.choose] + takeDue(now)
    }

    /// There are packets for the peer, or from it.
    mutating func use(_ now: MonotonicTime) -> [Action] {
        let wasActive = isActive(now)
        activeAt = now
        signs?.use(now)
        // What rests has its own time, unless traffic begins anew.
        return wasActive && !places.contains { $0.state == .unproven } ? [] : begin(now, restsToo: !wasActive)
    }

    private mutating func begin(_ now: MonotonicTime, restsToo: Bool = true) -> [Action] {
        activeAt = activeAt ?? now
        for index in places.indices where restsToo || places[index].state == .unproven { places[index].state.begin(now) }
        return takeDue(now)
    }

    /// Our own addresses changed: everything is probed from the new one. What was proven from an old one that still works goes on meanwhile.
    mutating func moved(isUsable: (IPAddress) -> Bool, _ now: MonotonicTime) -> [Action] {
        guard isActive(now) else {
            for index in places.indices { (places[index].state, places[index].cookie) = (.unproven, nil) }
            return [.choose]
        }
        for index in places.indices {
            // The cookie was made for the address before.
            places[index].cookie = nil
            places[index].state.beginAnew(keepsProof: places[index].own.map(isUsable) ?? false, now)
        }
        return [.choose] + takeDue(now)
    }

    /// Own addresses went, the first not among them: what was proven from there is probed from another. What is asked from the first goes on.
    mutating func left(isUsable: (IPAddress) -> Bool, _ now: MonotonicTime) -> [Action] {
        let lost = places.indices.filter { places[$0].state.isProven && !(places[$0].own.map(isUsable) ?? false) }
        guard !lost.isEmpty else { return [] }
        let isActive = isActive(now)
        for index in lost {
            places[index].cookie = nil
            if isActive { places[index].state.beginAnew(keepsProof: false, now) } else { places[index].state = .unproven }
        }
        return [.choose] + takeDue(now)
    }

    /// Others see us elsewhere than was thought, while our addresses are what they were. What was asked is still good, and so is the cookie that was
    /// given, or it is refused, which costs no more than to ask for one: a round trip.
    mutating func seenElsewhere(_ now: MonotonicTime) -> [Action] {
        guard isActive(now) else {
            for index in places.indices { places[index].state = .unproven }
            return [.choose]
        }
        for index in places.indices { places[index].state.hurry(now) }
        return [.choose] + takeDue(now)
    }

    /// The peer's signature shows that it receives at this endpoint what we send from this own address.
    ///
    /// - Parameter preferred: the own address that is first. What works from there is not moved by a word that came to another: a peer asks at all
    ///   places that we list.
    mutating func proved(_ endpoint: Endpoint, from own: IPAddress, preferring preferred: IPAddress? = nil, _ now: MonotonicTime) -> [Action] {
        if !isActive(now) { activeAt = now }
        if let index = places.firstIndex(where: { $0.endpoint == endpoint }) {
            if let roundTrip = places[index].state.roundTrip(now) { places[index].roundTrip = roundTrip }
            if installed?.endpoint == endpoint {
                signs?.sign(now)
                if let roundTrip = places[index].roundTrip { signs?.learn(roundTrip: roundTrip) }
            }
            // What is asked from the first address is not answered by what came to another.
            if let preferred, own != preferred, places[index].own == own, places[index].state.isProbing, places[index].state.isProven,
                own == installed?.own
            {
                (places[index].heardAt, places[index].outdatedAt) = (now, nil)
                places[index].state.confirm(now)
                return []
            }
            let isSettled = places[index].state.isProven && places[index].own == preferred
            let isElsewhere = places[index].own != own && !isSettled
            if isElsewhere { places[index].own = own }
            (places[index].heardAt, places[index].outdatedAt) = (now, nil)
            return places[index].state.proved(now) || isElsewhere ? [.choose] : []
        }
        let learned = places.filter { !$0.isListed }
        if learned.count >= Self.learnedMax, let oldest = learned.min(by: { ($0.heardAt ?? now) < ($1.heardAt ?? now) }) {
            places.removeAll { $0.endpoint == oldest.endpoint }
        }
        var place = Place(endpoint: endpoint, isListed: false)
        (place.heardAt, place.own) = (now, own)
        _ = place.state.proved(now)
        places.insert(place, at: 0)
        return [.choose]
    }

    /// The peer probed us from this endpoint of its record without showing more: it is probed back.
    mutating func probed(from endpoint: Endpoint, _ now: MonotonicTime) -> [Action] {
        guard let index = places.firstIndex(where: { $0.endpoint == endpoint }), !places[index].state.isProven, !places[index].state.isProbing
        else { return [] }
        if !isActive(now) { activeAt = now }
        places[index].state.begin(now)
        return takeDue(now)
    }

    func isProven(_ endpoint: Endpoint) -> Bool { place(endpoint)?.state.isProven ?? false }
    func isProven(_ endpoint: Endpoint, from own: IPAddress) -> Bool { isProven(endpoint) && place(endpoint)?.own == own }
    func isBeingProbed(_ endpoint: Endpoint) -> Bool { place(endpoint)?.state.isProbing ?? false }

    /// The own address that a place of the peer is asked from, if only that tells: what came from there came to it.
    func own(asking endpoint: Endpoint) -> IPAddress? { place(endpoint).flatMap { !$0.isListed && !$0.state.isProven ? $0.own : nil } }

    /// Something came from there that names the peer as its source: if it is the peer, it can sign.
    mutating func called(from caller: Callers.Place, _ now: MonotonicTime) -> [Action] {
        if !places.contains(where: { $0.endpoint == caller.endpoint }) {
            guard places.count(where: { !$0.isListed && !$0.state.isProven }) < Self.callersMax else { return [] }
            var place = Place(endpoint: caller.endpoint, isListed: false)
            place.own = caller.own
            places.append(place)
        }
        if !isActive(now) { activeAt = now }
        for index in places.indices where places[index].endpoint == caller.endpoint { places[index].state.begin(isCourtesy: true, now) }
        return takeDue(now)
    }

    /// The peer gave us its cookie for where we are, and said where it sees us.
    ///
    /// - Parameter isWanted: it wants to see it signed: it has no other for where we are now.
    /// - Returns: a probe that signs it, if the peer waits for one.
    mutating func gaveCookie(_ cookie: ServerCookie, seenAs seen: Endpoint?, isWanted: Bool, at endpoint: Endpoint) -> [Action] {
        guard let index = places.firstIndex(where: { $0.endpoint == endpoint }) else { return [] }
        if let seen { places[index].seenAs = seen }
        guard places[index].cookie != cookie else { return [] }
        let isFirst = places[index].cookie == nil
        places[index].cookie = cookie
        // Later ones are good for the next series, unless a translator has given us another endpoint since.
        guard isFirst || isWanted, let asked = places[index].asked, asked.cookiesFollowed < Retransmission.cookiesFollowedMax else { return [] }
        places[index].asked?.cookiesFollowed += 1
        return [.probe(endpoint, asked)]
    }

    /// What a series of probes asks.
    mutating func began(_ endpoint: Endpoint, _ asked: Asked) {
        if let index = places.firstIndex(where: { $0.endpoint == endpoint }) { places[index].asked = asked }
    }

    mutating func install(_ way: Way?, largest: UInt32 = Carriage.mtuAtFirst, needsSum: Bool = false, _ now: MonotonicTime) {
        if way != installed { signs = way.map { PathSigns(roundTrip: place($0.endpoint)?.roundTrip, now) } }
        (installed, installedLargest, installedNeedsSum) = (way, largest, needsSum)
    }

    /// What the peer had sent before it took another way may arrive when that way has shown itself already.
    mutating func linger(_ now: MonotonicTime) {
        let (before, sources) = (lastSources, sources)
        lastSources = sources
        lingering.remove(sources)
        // Without packets nothing is on its way.
        if isActive(now) { lingering.add(before.filter { !sources.contains($0) }, now) }
    }

    /// The kernel takes its packets from there.
    mutating func accept(from sources: [Endpoint]) { installedSources = sources }

    mutating func installedMoved(from: IPAddress, to: IPAddress) {
        if let way = installed, way.own == from { installed = Way(own: to, endpoint: way.endpoint) }
    }

    /// Whether its packets go in another way than these.
    mutating func setOtherWay(_ isThere: Bool) { hasOtherWay = isThere }

    // MARK: Signs

    /// What its way has carried was read.
    mutating func counted(_ use: PathUse, _ now: MonotonicTime) -> [Action] {
        guard installed?.endpoint == use.far, let action = signs?.counted(sent: use.sent, heard: use.heard, now) else { return suspicion(use, now) }
        return signAction(action, now) + suspicion(use, now)
    }

    private mutating func suspicion(_ use: PathUse, _ now: MonotonicTime) -> [Action] {
        defer { came = use.came }
        guard use.came == came ?? use.came else {
            (cameAt, activeAt) = (now, now)
            return []
        }
        guard let last = cameAt, now - last >= Self.lossSuspectedAfter else { return [] }
        cameAt = nil
        return [.suspectLoss]
    }

    private mutating func signAction(_ action: PathSigns.Action, _ now: MonotonicTime) -> [Action] {
        guard let endpoint = installed?.endpoint, let index = places.firstIndex(where: { $0.endpoint == endpoint }) else { return [] }
        switch action {
        case .probe:
            // The later probes of the series are the next ones.
            if !places[index].state.isProbing { places[index].state.beginAnew(keepsProof: true, now) }
            // A translator of ours may have forgotten what lets others in.
            return [.suspectLoss] + takeDue(now)
        case .leave:
            places[index].state.leave()
            return [.choose, .left(endpoint)]
        }
    }

    /// Somebody says that the peer does not hear us: it is asked at once, unless its way has just given a sign.
    mutating func doubt(_ now: MonotonicTime) -> [Action] {
        guard isActive(now), signs?.signAt.map({ now - $0 >= PathSigns.silenceMax }) ?? true else { return [] }
        for index in places.indices where !places[index].state.isProbing { places[index].state.beginAnew(keepsProof: true, now) }
        return takeDue(now)
    }

    /// The time of some endpoint has come.
    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        if let action = signs?.takeDue(now) { actions += signAction(action, now) }
        if lingering.takeDue(now) { actions.append(.choose) }
        let isActive = isActive(now)
        if !isActive, places.contains(where: { $0.state.isProven }) {
            for index in places.indices { places[index].state.end() }
            actions.append(.choose)
        }
        let isAlone = installed == nil && !hasOtherWay
        var isUnheard = false
        for index in places.indices {
            // Soon again where the peer has once been, and at two others at most: a record may list whom it likes.
            let isSoon = isAlone && (places[index].heardAt != nil || index < Self.courtesyEndpointsMax)
            switch places[index].state.takeDue(isUsed: isActive, isAlone: isSoon, now) {
            case .nothing: break
            case .probe:
                if places[index].state.isFirstOfSeries { places[index].asked = nil }
                isUnheard = isUnheard || places[index].state.isUnheard
                actions.append(.probe(places[index].endpoint, places[index].asked))
                // A relay may lead further than the address of before, whose proof holds.
                if places[index].state.isProven, places[index].state.isInVain { actions.append(.choose) }
            case .lost: actions.append(.choose)
            }
        }
        places.removeAll { !$0.isListed && !$0.state.isProven && !$0.state.isProbing }
        return actions + (isUnheard && isAlone && isActive ? [.unheard] : [])
    }
}
