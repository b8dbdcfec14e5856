import MATCore
import MATSignal

/// A home address of a network that this node visits (protocol.md section 12, "Visitors"): from the first program that wants one to its return.
///
/// ```
///   a program ─► finding ── the DNS names an IMS ─► joining ── granted ─► verifying ── the HoA's zone names it too ─► registering ─► held
///                   │ nobody serves this network       │ refused, silent     │ it does not                                │ refused    │ no program
///                   ▼                                  ▼                     ▼                                            │            ▼ for 30 s
///                 ended: the programs are told why ◄──────────────────────────                                            └─► leaving: withdraw
///                   ▲                                                                                                         │
///                   └──────────────────────────────── given back, or nobody answers ◄── give back ◄───────────────────────────┘
/// ```
/// One that programs of an earlier run start from is joined again at the IMS that its zone names, and then registered: waiting ─► rejoining ─► joining.
///
/// (30 s: as configured.) While it is held the lease is prolonged at half its time, from wherever the node is by then. A lease that could not be given back ends by itself.
package struct Visit: Sendable {
    /// What is known of the node around it.
    struct Surroundings {
        /// Usable own addresses, the best first, with the address that others see if a translator stands before it.
        var places: [Place]
        /// Who the node is at home; of the wanted family if it has one.
        var home: HomeIdentity?
        /// Addresses that are somebody already: own ones, peers', gateways', resolvers', servers'.
        var isTaken: (IPAddress) -> Bool
    }

    struct Place: Hashable, Sendable {
        var own: IPAddress
        var seen: IPAddress?

        /// Under which names the network's IMS may stand in the DNS.
        var names: [HomeAddress] { ([seen, own].compactMap { $0 }).map { HomeAddress($0) } }
    }

    enum Action: Sendable {
        /// Ask the DNS for the IMSs at this name; then `lookedUp`.
        case lookUp(HomeAddress)
        case send([UInt8], from: IPAddress, to: Endpoint)
        /// It is ours, as this.
        case enter(HomeIdentity)
        case prolonged(Certificate)
        /// It is to be ours no more: `left` is told the highest sequence that was signed for it.
        case leave(HomeAddress)
        case answer([VisitingProgram], VisitAnswer)
        case log(NodeLogLevel, String)
    }

    private enum State: Sendable {
        /// An earlier run's, which its IMS is asked for when it is time, for as long as it may be the node's.
        case waiting(retry: MonotonicTime)
        /// Likewise, its IMS is looked up.
        case rejoining
        /// The next of the names, and the own addresses that they belong to.
        case finding([(name: HomeAddress, own: IPAddress)])
        case joining(Asking)
        case verifying(JoinReply.Grant)
        case registering(until: MonotonicTime)
        case held(idleSince: MonotonicTime?)
        case leaving(Asking?)
        case ended
    }

    /// What the network's IMS is asked, and where that comes from: what it takes the node's place to be.
    private struct Asking: Sendable {
        var own: IPAddress
        var request: LeaseRequest
    }

    private enum Purpose {
        /// For a first address, or the one that is there for longer.
        case join
        case giveBack
    }

    /// How long a record may take to be registered.
    static let registrationMax: Duration = .seconds(10)
    /// How long an address is kept for the next program, unless the configuration says otherwise.
    package static let lingerDefault: Duration = .seconds(30)
    package static let lingerMax: Duration = .seconds(3600)
    /// Asked for, in seconds: what a crash leaves behind ends after so long.
    static let lifetimeSeconds: UInt32 = 3600
    private static let prolongingPause: Duration = .seconds(60)
    /// Between two attempts to have an earlier run's again, and how long that is tried.
    private static let takingOverPause: Duration = .seconds(2)
    private static let takingOverMax: Duration = .seconds(600)
    /// A program waits.
    private static let patience = LeaseRequest.Patience(latersMax: 2, laterSecondsMax: 5)

    let family: AddressFamily
    private let linger: Duration
    private let key: SigningKey
    private let home: HomeIdentity
    private(set) var programs: Set<VisitingProgram> = []
    private var state = State.finding([])
    private var servers: ServerSet?
    /// The own address that it was got at: as long as the node has that it is in this network.
    private(set) var place: IPAddress?
    private var certificate: Certificate?
    private var sequence: UInt64 = 0
    private var prolonging: Asking?
    private var prolongAt: MonotonicTime?
    /// An earlier run's, and until when it is tried to have it again.
    private var takenOver: (hoa: HomeAddress, until: MonotonicTime)?

    init(_ family: AddressFamily, _ home: HomeIdentity, linger: Duration) {
        self.family = family
        self.linger = linger
        self.home = home
        key = home.key
    }

    /// Programs of an earlier run start from this home.
    init(takingOver hoa: HomeAddress, _ home: HomeIdentity, linger: Duration, _ now: MonotonicTime) {
        self.init(hoa.family, home, linger: linger)
        programs = [.steered(hoa)]
        takenOver = (hoa, now + Self.takingOverMax)
        state = .waiting(retry: now)
    }

    // MARK: Questions

    var hasEnded: Bool { if case .ended = state { true } else { false } }
    /// What a new program could have.
    var isOpen: Bool {
        switch state {
        case .waiting, .rejoining, .finding, .joining, .verifying, .registering, .held: true
        case .leaving, .ended: false
        }
    }
    var isHeld: Bool { if case .held = state { true } else { false } }
    var isRegistering: Bool { if case .registering = state { true } else { false } }
    /// Ours, as far as it is: once it was entered, until it is left.
    var hoa: HomeAddress? {
        switch state {
        case .registering, .held, .leaving: certificate?.hoa
        case .waiting, .rejoining, .finding, .joining, .verifying: takenOver?.hoa
        case .ended: nil
        }
    }
    /// Whether it is an earlier run's that has not been registered yet.
    var isBeingTakenOver: Bool {
        switch state {
        case .waiting, .rejoining, .joining: takenOver != nil
        default: false
        }
    }
    /// What an IMS has given, until it is known whether that is taken.
    var granted: HomeAddress? { if case .verifying(let grant) = state { grant.hoa } else { nil } }

    /// Whether the network that it is of is the one with these places; not known of an earlier run's.
    func isFor(_ places: [Place]) -> Bool { place.map { own in places.contains { $0.own == own } } ?? (takenOver == nil) }

    private func answer() -> VisitAnswer? { certificate.map { .address($0.hoa) } }

    // MARK: Programs

    mutating func add(_ program: VisitingProgram) -> [Action] {
        programs.insert(program)
        guard isHeld, let answer = answer() else { return [] }
        state = .held(idleSince: nil)
        return [.answer([program], answer)]
    }

    mutating func remove(_ program: VisitingProgram, _ now: MonotonicTime) {
        guard programs.remove(program) != nil, programs.isEmpty, isHeld else { return }
        state = .held(idleSince: now)
    }

    /// For one that is told nothing: it has the address already.
    mutating func keep(for program: VisitingProgram) {
        programs.insert(program)
        if isHeld { state = .held(idleSince: nil) }
    }

    /// Goes on for another one, which was given the same address.
    mutating func take(over other: Visit) -> [Action] {
        place = other.place
        return other.programs.sorted().flatMap { add($0) }
    }

    /// Nothing follows from it any more.
    mutating func end() {
        state = .ended
        programs = []
    }

    // MARK: The network's IMS

    mutating func begin(_ around: Surroundings) -> [Action] {
        let places = around.places.filter { $0.own.family == family } + around.places.filter { $0.own.family != family }
        var names: [(name: HomeAddress, own: IPAddress)] = []
        for place in places {
            for name in place.names where !names.contains(where: { $0.name == name }) { names.append((name, place.own)) }
        }
        return find(names, failure: "this node has no usable address now")
    }

    /// - Parameter failure: why there is nothing, if no names are left.
    private mutating func find(_ names: [(name: HomeAddress, own: IPAddress)], failure: String) -> [Action] {
        guard let first = names.first else { return end(failure) }
        state = .finding(names)
        return [.lookUp(first.name)]
    }

    /// The DNS has answered for a name that was asked for.
    mutating func lookedUp(
        _ name: HomeAddress, _ result: ServerLookup, _ around: Surroundings, random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action] {
        switch state {
        case .finding(let names):
            guard let first = names.first, first.name == name else { return [] }
            switch result {
            case .found(let set):
                let reachable = set.endpoints.filter { $0.family == first.own.family }
                guard !reachable.isEmpty, !set.keys.isEmpty else {
                    return find(
                        Array(names.dropFirst()), failure: "the IMS of the network at \(name) has no key, or no address that \(first.own) reaches")
                }
                servers = set
                place = first.own
                return begin(.join, from: first.own, to: reachable, random: &random, now)
            case .absent: return find(Array(names.dropFirst()), failure: "the network at \(name) has no IMS: the DNS names none for it")
            case .failed(let reason), .unusable(let reason):
                return find(Array(names.dropFirst()), failure: "looking up the IMS of the network at \(name) failed: \(reason)")
            }
        case .verifying(let grant) where grant.hoa == name: return verify(grant, result, around, now)
        case .rejoining where takenOver?.hoa == name:
            guard case .found(let set) = result, !set.keys.isEmpty else { return rejoinLater(now) }
            servers = set
            guard let (own, targets) = way(around) else { return rejoinLater(now) }
            return begin(.join, from: own, to: targets, random: &random, now)
        default: return []
        }
    }

    private mutating func begin(
        _ purpose: Purpose, from own: IPAddress, to targets: [Endpoint], random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action] {
        guard let ims = servers?.keys.first else { return ended(purpose, "its IMS has no key", now) }
        let what: LeaseRequest.Purpose
        switch (purpose, certificate) {
        case (.giveBack, let certificate?): what = .giveBack(certificate, sequence: sequence)
        default:
            let known = (certificate?.hoa ?? takenOver?.hoa).map { IPPrefix($0.address) }
            what = .address(known ?? Self.everything(family), lifetime: Self.lifetimeSeconds)
        }
        let title = LeaseRequest.Title.visitor(home.hoa, home.certificate, of: ims)
        let request = LeaseRequest(what, by: title, at: targets, key: key, patience: Self.patience, random: &random, now.monotonic)
        let asking = Asking(own: own, request: request)
        switch purpose {
        case .join where certificate == nil: state = .joining(asking)
        case .join: prolonging = asking
        case .giveBack: state = .leaving(asking)
        }
        return due(random: &random, now)
    }

    /// WANTED for any address of a family.
    private static func everything(_ family: AddressFamily) -> IPPrefix? {
        family == .ipv4 ? IPPrefix(IPAddress(ipv4: 0), length: 96) : IPPrefix("2000::/3")
    }

    // MARK: Requests and their answers

    /// What is being asked.
    private var asking: Asking? {
        switch state {
        case .joining(let asking): asking
        case .leaving(let asking): asking
        default: prolonging
        }
    }

    private var purpose: Purpose { if case .leaving = state { .giveBack } else { .join } }

    private mutating func set(_ asking: Asking) {
        switch state {
        case .joining: state = .joining(asking)
        case .leaving: state = .leaving(asking)
        default: if prolonging != nil { prolonging = asking }
        }
    }

    /// - Returns: `nil` if the message is no answer to this visit.
    mutating func received(
        _ message: SignalMessage, from source: Endpoint, to local: IPAddress, random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action]? {
        guard var asking, asking.own == local, let event = asking.request.received(message, from: source, random: &random, now) else { return nil }
        set(asking)
        return happened(event, from: asking.own, now)
    }

    private mutating func happened(_ event: LeaseRequest.OnEvent, from own: IPAddress, _ now: Now) -> [Action] {
        switch event {
        case .nothing: []
        case .send(let octets, let target): [.send(octets, from: own, to: target)]
        case .ended(let outcome): answered(outcome, now)
        }
    }

    private mutating func answered(_ outcome: LeaseRequest.Outcome, _ now: Now) -> [Action] {
        switch (outcome, purpose) {
        case (.granted(let grant), .join): return joined(grant, now)
        case (.granted, .giveBack):
            let hoa = certificate.map { "\($0.hoa)" } ?? ""
            state = .ended
            return [.log(.notice, "the visited home \(hoa) is given back")]
        case (.refused(let code, let text), let purpose): return ended(purpose, Self.words(code, text), now)
        case (.silent, let purpose): return ended(purpose, nil, now)
        }
    }

    private static func words(_ code: ResponseCode, _ text: String?) -> String { text.map { "\(code) (\($0.printable))" } ?? "\(code)" }

    /// A request has ended without what it was for.
    ///
    /// - Parameter reason: `nil`: no server answers.
    private mutating func ended(_ purpose: Purpose, _ reason: String?, _ now: Now) -> [Action] {
        switch purpose {
        case .join where certificate == nil && takenOver != nil:
            return reason.map { giveUp("its IMS does not give it again: \($0)") } ?? rejoinLater(now)
        case .join where certificate == nil:
            return end(reason.map { "the IMS of this network gives no address: \($0)" } ?? "the IMS of this network does not answer")
        case .join:
            prolonging = nil
            prolongAt = now.monotonic + Self.prolongingPause
            let text = "its IMS does not prolong the visited home \(certificate.map { "\($0.hoa)" } ?? ""): \(reason ?? "it does not answer")"
            return [.log(.warning, text)]
        case .giveBack:
            let hoa = certificate.map { "\($0.hoa)" } ?? ""
            state = .ended
            return [.log(.warning, "the visited home \(hoa) could not be given back, and ends by itself: \(reason ?? "its IMS does not answer")")]
        }
    }

    private mutating func end(_ reason: String) -> [Action] {
        let told = programs.sorted()
        state = .ended
        programs = []
        return [.log(.notice, "no visited home of \(family): \(reason)")] + (told.isEmpty ? [] : [.answer(told, .refused(reason))])
    }

    // MARK: What is granted

    private mutating func joined(_ grant: JoinReply.Grant, _ now: Now) -> [Action] {
        let given = grant.certificate
        guard given.prefix == IPPrefix(grant.hoa.address), given.nodeKey == key.publicKey, grant.hoa.family == family,
            servers?.keys.contains(where: given.isIssued) == true, (certificate?.hoa ?? takenOver?.hoa).map({ $0 == grant.hoa }) ?? true
        else { return ended(.join, "it gave \(grant.hoa) under a certificate that is not of this address, for this node and by its key", now) }
        guard certificate == nil else {
            prolonging = nil
            certificate = given
            prolong(after: grant.lifetime, now.monotonic)
            return [.prolonged(given)]
        }
        // Who serves an earlier run's is what its zone said.
        guard takenOver == nil else { return enter(grant, now) }
        state = .verifying(grant)
        return [.lookUp(grant.hoa)]
    }

    private mutating func verify(_ grant: JoinReply.Grant, _ result: ServerLookup, _ around: Surroundings, _ now: Now) -> [Action] {
        guard case .found(let set) = result else {
            return end("the IMS of this network gave \(grant.hoa), for which the DNS names no IMS")
        }
        guard set.keys.contains(where: grant.certificate.isIssued) else {
            return end("the IMS of this network gave \(grant.hoa), for which the DNS names another IMS")
        }
        guard !around.isTaken(grant.hoa.address) else {
            return end("the IMS of this network gave \(grant.hoa), which is the address of somebody whom this node knows")
        }
        servers = set
        return enter(grant, now)
    }

    private mutating func enter(_ grant: JoinReply.Grant, _ now: Now) -> [Action] {
        certificate = grant.certificate
        state = .registering(until: now.monotonic + Self.registrationMax)
        prolong(after: grant.lifetime, now.monotonic)
        var identity = HomeIdentity(hoa: grant.hoa, key: key, certificate: grant.certificate)
        identity.isVisited = true
        return [.log(.notice, "visiting as \(grant.hoa)"), .enter(identity)]
    }

    private mutating func prolong(after seconds: UInt32, _ now: MonotonicTime) { prolongAt = now + .seconds(Int(seconds / 2)) }

    /// Its IMS holds its record: others find it from now on.
    mutating func registered(_ now: MonotonicTime) -> [Action] {
        guard isRegistering, let answer = answer() else { return [] }
        state = .held(idleSince: programs.isEmpty ? now : nil)
        return programs.isEmpty ? [] : [.answer(programs.sorted(), answer)]
    }

    /// It is ours no more.
    mutating func left(sequence: UInt64, _ around: Surroundings, random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        self.sequence = sequence
        prolonging = nil
        if let (own, targets) = way(around) { return begin(.giveBack, from: own, to: targets, random: &random, now) }
        return ended(.giveBack, "no own address reaches its IMS", now)
    }

    // MARK: Time

    var nextDue: MonotonicTime? {
        let end: MonotonicTime?
        switch state {
        case .rejoining, .finding, .verifying, .ended: return nil
        case .waiting(let retry): return retry
        case .joining(let asking): return asking.request.due
        case .leaving(let asking): return asking?.request.due
        case .registering(let until): end = until
        case .held(let idle): end = idle.map { $0 + linger }
        }
        return (prolonging?.request.due ?? prolongAt).earlier(end)
    }

    mutating func due(random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        if let hoa, let leaving = leaving(hoa, now) { return leaving }
        if case .waiting(let retry) = state, retry <= now.monotonic, let hoa {
            state = .rejoining
            return [.lookUp(hoa)]
        }
        guard var asking, let due = asking.request.due, due <= now.monotonic else { return [] }
        let event = asking.request.takeDue(random: &random, now)
        set(asking)
        return happened(event, from: asking.own, now)
    }

    /// Why the address is to go now, if it is.
    private mutating func leaving(_ hoa: HomeAddress, _ now: Now) -> [Action]? {
        switch state {
        case .registering(let until) where until <= now.monotonic:
            let told = programs.sorted()
            programs = []
            state = .leaving(nil)
            let reason = "the IMS of this network gave \(hoa), and does not take its record"
            return [.log(.warning, reason)] + (told.isEmpty ? [] : [.answer(told, .refused(reason))]) + [.leave(hoa)]
        case .held(let idle):
            let hasEnded = certificate?.hasEnded(now) ?? true
            guard hasEnded || idle.map({ $0 + linger <= now.monotonic }) ?? false else { return nil }
            state = .leaving(nil)
            return hasEnded
                ? [.log(.error, "the visited home \(hoa) has ended: its IMS did not prolong it; its programs' connections end"), .leave(hoa)]
                : [.leave(hoa)]
        default: return nil
        }
    }

    /// The lease is to be prolonged, from where the node is.
    mutating func prolongIfDue(_ around: Surroundings, random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        guard isHeld || isRegistering, prolonging == nil, let at = prolongAt, at <= now.monotonic else { return [] }
        prolongAt = now.monotonic + Self.prolongingPause
        return way(around).map { begin(.join, from: $0.own, to: $0.targets, random: &random, now) } ?? []
    }

    /// From where its IMS can be asked, and at which addresses.
    private func way(_ around: Surroundings) -> (own: IPAddress, targets: [Endpoint])? {
        for place in around.places {
            let targets = servers?.endpoints.filter { $0.family == place.own.family } ?? []
            if !targets.isEmpty { return (place.own, targets) }
        }
        return nil
    }

    // MARK: An earlier run's

    private mutating func rejoinLater(_ now: Now) -> [Action] {
        guard let takenOver, now.monotonic < takenOver.until else { return giveUp("its IMS does not answer, or can't be found") }
        state = .waiting(retry: now.monotonic + Self.takingOverPause)
        return []
    }

    /// What programs of an earlier run start from is not the node's any more.
    private mutating func giveUp(_ reason: String) -> [Action] {
        guard let hoa = takenOver?.hoa else { return [] }
        let told = programs.sorted()
        end()
        let text = "the visited home \(hoa) of an earlier run has ended: \(reason); its programs' connections end"
        return [.log(.error, text)] + (told.isEmpty ? [] : [.answer(told, .refused(reason))]) + [.leave(hoa)]
    }
}
