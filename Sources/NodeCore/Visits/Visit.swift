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
        case joining(VisitRequest)
        case verifying(JoinReply.Grant)
        case registering(until: MonotonicTime)
        case held(idleSince: MonotonicTime?)
        case leaving(VisitRequest?)
        case ended
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
    private static let withdrawalSeconds: UInt32 = 600

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
    private var prolonging: VisitRequest?
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
        _ purpose: VisitRequest.Purpose, from own: IPAddress, to servers: [Endpoint], random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action] {
        let request = VisitRequest(purpose, from: own, to: servers, random: &random, now.monotonic)
        switch purpose {
        case .join where certificate == nil: state = .joining(request)
        case .join: prolonging = request
        case .withdraw, .giveBack: state = .leaving(request)
        }
        return due(random: &random, now)
    }

    // MARK: Requests and their answers

    /// The request that is under way.
    private var request: VisitRequest? {
        switch state {
        case .joining(let request): request
        case .leaving(let request): request
        default: prolonging
        }
    }

    private mutating func set(_ request: VisitRequest) {
        switch state {
        case .joining: state = .joining(request)
        case .leaving: state = .leaving(request)
        default: if prolonging != nil { prolonging = request }
        }
    }

    /// - Returns: `nil` if the message is no answer to this visit.
    mutating func received(
        _ message: SignalMessage, from source: Endpoint, to local: IPAddress, random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action]? {
        guard var request, let event = request.received(message, from: source, to: local, now.monotonic) else { return nil }
        set(request)
        return happened(event, request.purpose, random: &random, now)
    }

    private mutating func happened(
        _ event: VisitRequest.OnEvent, _ purpose: VisitRequest.Purpose, random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action] {
        switch event {
        case .nothing: return []
        case .send(let octets, let own, let target): return [.send(octets, from: own, to: target)]
        case .say(let cookie):
            guard let body = body(purpose, cookie, now), var request else { return ended(purpose, nil, now) }
            request.say(body, random: &random, now.monotonic)
            set(request)
            return due(random: &random, now)
        case .silent: return ended(purpose, nil, now)
        case .answered(let message): return answered(message, purpose, random: &random, now)
        }
    }

    private func body(_ purpose: VisitRequest.Purpose, _ cookie: Cookie, _ now: Now) -> SignalMessage.Body? {
        switch purpose {
        case .join, .giveBack:
            guard let given = Challenge(cookie), let ims = servers?.keys.first else { return nil }
            let known = certificate?.hoa ?? takenOver?.hoa
            let wanted = known.map { IPPrefix($0.address) } ?? Self.everything(family)
            let lifetime = purpose == .giveBack ? 0 : Self.lifetimeSeconds
            let statement = JoinStatement(to: ims, cookie: given, key: key.publicKey, wanted: wanted, lifetime: lifetime)
            guard let signature = statement.signed(with: key) else { return nil }
            return .join(
                Join(
                    cookie: cookie, key: key.publicKey, .visitor(home.hoa, home.certificate), wanted: wanted, lifetime: lifetime, signature: signature
                ))
        case .withdraw:
            guard let certificate else { return nil }
            let record = MappingRecord(
                hoa: certificate.hoa, prefixLength: certificate.prefixLength, sequence: max(sequence &+ 1, now.wallMilliseconds),
                lifetime: Self.withdrawalSeconds, issued: now.wallMilliseconds, locators: [])
            return record.signed(with: key).map {
                .imsUpdate(IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: $0, certificate: .whole(certificate)), proofs: []))
            }
        }
    }

    /// WANTED for any address of a family.
    private static func everything(_ family: AddressFamily) -> IPPrefix? {
        family == .ipv4 ? IPPrefix(IPAddress(ipv4: 0), length: 96) : IPPrefix("2000::/3")
    }

    private mutating func answered(
        _ message: SignalMessage, _ purpose: VisitRequest.Purpose, random: inout some RandomNumberGenerator, _ now: Now
    ) -> [Action] {
        switch (message.body, purpose) {
        case (.joinReply(let reply), .join): return joined(reply, now)
        case (.joinReply(let reply), .giveBack): return ended(purpose, reply.code == .ok ? nil : Self.words(reply.code, reply.text), now)
        case (.imsUpdateReply(let reply), .withdraw):
            if reply.code == .stale, let newer = reply.current?.record.sequence, newer > sequence {
                sequence = newer
            } else if reply.code != .ok {
                return ended(purpose, Self.words(reply.code, reply.text), now)
            }
            guard let request, let servers else { return ended(purpose, nil, now) }
            let targets = servers.endpoints.filter { $0.family == request.own.family }
            return begin(reply.code == .ok ? .giveBack : .withdraw, from: request.own, to: targets, random: &random, now)
        default: return ended(purpose, "its answer fits no request", now)
        }
    }

    private static func words(_ code: ResponseCode, _ text: String?) -> String { text.map { "\(code) (\($0.printable))" } ?? "\(code)" }

    /// A request has ended without what it was for; one that gives the address back has done it if there is no reason why not.
    private mutating func ended(_ purpose: VisitRequest.Purpose, _ reason: String?, _ now: Now) -> [Action] {
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
        case .withdraw, .giveBack:
            let hoa = certificate.map { "\($0.hoa)" } ?? ""
            let isDone = purpose == .giveBack && reason == nil
            state = .ended
            return [
                isDone
                    ? .log(.notice, "the visited home \(hoa) is given back")
                    : .log(.warning, "the visited home \(hoa) could not be given back, and ends by itself: \(reason ?? "its IMS does not answer")")
            ]
        }
    }

    private mutating func end(_ reason: String) -> [Action] {
        let told = programs.sorted()
        state = .ended
        programs = []
        return [.log(.notice, "no visited home of \(family): \(reason)")] + (told.isEmpty ? [] : [.answer(told, .refused(reason))])
    }

    // MARK: What is granted

    private mutating func joined(_ reply: JoinReply, _ now: Now) -> [Action] {
        guard reply.code == .ok, let grant = reply.granted else { return ended(.join, Self.words(reply.code, reply.text), now) }
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
        if let (own, targets) = way(around) { return begin(.withdraw, from: own, to: targets, random: &random, now) }
        return ended(.withdraw, "no own address reaches its IMS", now)
    }

    // MARK: Time

    var nextDue: MonotonicTime? {
        let end: MonotonicTime?
        switch state {
        case .rejoining, .finding, .verifying, .ended: return nil
        case .waiting(let retry): return retry
        case .joining(let request): return request.due
        case .leaving(let request): return request?.due
        case .registering(let until): end = until
        case .held(let idle): end = idle.map { $0 + linger }
        }
        return (prolonging?.due ?? prolongAt).earlier(end)
    }

    mutating func due(random: inout some RandomNumberGenerator, _ now: Now) -> [Action] {
        if let hoa, let leaving = leaving(hoa, now) { return leaving }
        if case .waiting(let retry) = state, retry <= now.monotonic, let hoa {
            state = .rejoining
            return [.lookUp(hoa)]
        }
        guard var request, let due = request.due, due <= now.monotonic else { return [] }
        let event = request.takeDue(random: &random, now.monotonic)
        set(request)
        return happened(event, request.purpose, random: &random, now)
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
