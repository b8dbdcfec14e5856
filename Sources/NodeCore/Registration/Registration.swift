import MATControl
import MATCore
import MATSignal

/// One of our own HoAs and its mapping at its IMS (section 7, "Registration and handover"; paper 4.3 (1)).
///
/// ```
///            locators, servers known          all proven or waited long enough        ok
///   waiting -------------------------> proving -----------------------------> updating --> registered
///      ^                                  ^                                      |             |
///      |  no locator or no server         |   half the lifetime, a new locator   |  refused:   |
///      +----------------------------------+--------------------------------------+-- pausing --+
/// ```
/// The datagram's source proves itself; each further locator needs a cookie that was fetched from there. Before anything is signed, a clock must
/// be confirmed (`ConfirmedClock`): the IMS's is read beside the proofs.
struct Registration: Sendable {
    /// The phase that people are shown.
    enum Stage: String, Hashable, Sendable { case waiting, proving, updating, registered, pausing }

    private enum Phase: Sendable {
        /// No usable locator, or the own IMS is not known yet.
        case waiting
        /// Cookies are being fetched from the locators that the record is to list, others are seen first, and the IMS's clock is read.
        case proving(awaited: Set<MobileAddress>, unseen: Set<MobileAddress>, readsClock: Bool)
        case updating
        case registered
        /// The last attempt failed; the next comes by timer. The IMS answered no try of it from `silentOver`, and nothing has shown yet that it
        /// lives.
        case pausing(silentOver: MobileAddress?)

        var stage: Stage {
            switch self {
            case .waiting: .waiting
            case .proving: .proving
            case .updating: .updating
            case .registered: .registered
            case .pausing: .pausing
            }
        }
    }

    /// What the IMS acked last.
    struct Acked: Hashable, Sendable {
        let at: MonotonicTime
        /// The locators of that record.
        let places: Set<MobileAddress>
    }

    /// What it sees of the rest of the node.
    struct Surroundings {
        /// The own addresses that a record is to list, in order of preference.
        let locators: [MobileAddress]
        /// Those over which nothing answers, and those that the IMS does not take.
        let dead: Set<MobileAddress>
        let refused: Set<MobileAddress>
        let cookies: ServerTable
        let clock: ConfirmedClock.Outlook
        /// The IMS keys at a network's own name, if they are known.
        let networkKeys: [PublicKey]?
        /// What lies before the own addresses.
        let endpoints: OwnEndpoints
        /// Those of them that stand for prefixes which are routed to the HoA's mobile network.
        var routed: Set<MobileAddress> = []
        /// The addresses of relays at which the HoA is bound.
        var relays: [Endpoint] = []
    }

    enum Action: Sendable {
        /// The DNS is to be asked for the IMSs, or for the keys at a network's name.
        case lookUpServers
        case lookUpKeys(IPPrefix)
        /// A cookie is to be fetched from this locator; likewise the IMS's time. Unless that is under way.
        case prove(MobileAddress, at: Endpoint)
        /// The IMSs are to say where they see these addresses.
        case observe([MobileAddress], at: [Endpoint])
        case readClock(at: [Endpoint], from: MobileAddress)
        case stopProving(MobileAddress)
        /// The newest record is to be sent.
        case update(at: [Endpoint], from: MobileAddress)
        /// An answer to an earlier update would end this attempt.
        case stopUpdating
        /// The IMS refused the record (code 6): an own address may be at fault. If none is, `failed` is to be told.
        case refused([MobileAddress], IMSUpdateReply, Problem)
        /// The IMS acked the newest record.
        case registered
        /// Peers can believe the record without our IMS; the IMSs follow when it is through.
        case tellPeers
        /// Something disagrees with the clock.
        case doubtClock
        case forgetCookies([Endpoint], at: [MobileAddress])
        /// A network that denied what is has opened: what else it denied counts no more.
        case forgetAbsence
        case remember(sequence: UInt64)
        case keep(Certificate)
        case log(NodeLogLevel, String)
    }

    let hoa: HomeAddress
    /// Seconds, away and at home.
    private let awayLifetime: UInt32
    private let homeLifetime: UInt32
    /// How long further locators may delay a registration while they are being proven.
    private let proofWaitMax: Duration
    /// Prefixes of other than global scope that are routed from here without translation.
    private let routedPrefixes: [IPPrefix]
    private(set) var signer: RecordSigner
    private(set) var certificate: HomeCertificate
    private(set) var servers = HomeServers()
    private(set) var selfCheck: SelfCheck
    private var phase = Phase.waiting
    private(set) var acked: Acked?
    /// Locators that could not be proven in time, and are left out of this record.
    private(set) var unproven: Set<MobileAddress> = []
    private(set) var failures = 0
    private var failure: Problem?
    private(set) var relayPolicy = RelayPolicy()
    /// While proving: when that has taken too long. Otherwise: when to register again.
    private var due: MonotonicTime?

    init(_ identity: HomeIdentity, _ configuration: NodeCoreConfiguration) {
        awayLifetime = min(configuration.lifetime, MappingRecord.lifetimeMax)
        homeLifetime = configuration.homeLifetime
        proofWaitMax = configuration.proofWaitMax
        routedPrefixes = configuration.routedPrefixes
        hoa = identity.certificate.hoa
        signer = RecordSigner(identity.key, lastSequence: identity.lastSequence)
        certificate = HomeCertificate(identity.certificate)
        selfCheck = SelfCheck(interval: configuration.selfCheckInterval)
    }

    // MARK: Questions

    /// What it speaks for: its address, or a mobile network's home prefix.
    var prefix: IPPrefix { certificate.current.prefix }
    var isNetwork: Bool { prefix.length < 128 }
    var stage: Stage { phase.stage }
    var isRegistered: Bool { stage == .registered }
    private var isProving: Bool { stage == .proving }
    /// The newest record that was signed.
    var mapping: CertifiedMapping? { signer.mapping }

    /// The IMS was silent over this address, and nothing has shown yet that it lives.
    var silentOver: MobileAddress? { if case .pausing(let moa) = phase { moa } else { nil } }

    /// The usable addresses without those that the IMS would not take; the first is listed all the same.
    func listed(_ around: Surroundings) -> [MobileAddress] {
        around.locators.filter { $0 == around.locators.first || !unproven.contains($0) && !around.refused.contains($0) }
    }

    /// How a record lists an own address.
    ///
    /// - Parameter isRouted: it stands for a prefix that is routed to the mobile network, whatever its scope: its operator says so, and nobody can be
    ///   asked.
    func listing(of moa: MobileAddress, _ endpoints: OwnEndpoints, isRouted: Bool) -> OwnEndpoints.Listing {
        isRouted ? .moa : endpoints.listing(of: moa, for: hoa.family, servers: servers.set?.endpoints ?? [], isShared: isNetwork)
    }

    private func listing(of moa: MobileAddress, _ around: Surroundings) -> OwnEndpoints.Listing {
        listing(of: moa, around.endpoints, isRouted: around.routed.contains(moa))
    }

    /// What is wrong.
    ///
    /// - Parameter locators: those that a record is to list.
    func problem(at locators: [MobileAddress]) -> Problem? {
        // Before its IMS has answered, a node does not know whether it is translated, and so reached after all.
        failure ?? servers.problem ?? (acked == nil ? nil : scopeProblem(at: locators))
    }

    /// Why peers elsewhere can't reach it: all its addresses are private, its IMS's are not (section 6).
    private func scopeProblem(at locators: [MobileAddress]) -> Problem? {
        // What lists endpoints is reached there.
        if mapping?.record.hasKinds == true { return nil }
        guard let first = locators.first, let servers = servers.set?.endpoints.filter({ $0.family == first.family }), !servers.isEmpty else {
            return nil
        }
        let isPrivate = locators.allSatisfy { moa in moa.address.scope != .global && !routedPrefixes.contains { $0.contains(moa.address) } }
        guard isPrivate, servers.allSatisfy({ $0.address.scope == .global }) else { return nil }
        let text = "\(first) is \(first.address.scope) and not of global scope: peers outside of it do not take it for a locator"
        return Problem(.notGlobal, of: hoa, text)
    }

    /// When it goes on by itself: with the next attempt after one that failed, or the next question for its servers.
    var nextTry: MonotonicTime? {
        switch phase {
        case .pausing: due
        case .waiting: servers.set == nil ? servers.retryAt : nil
        case .proving, .updating, .registered: nil
        }
    }

    // MARK: An attempt

    /// Registers the present locators: at start, when they change, and at half the lifetime.
    mutating func begin(_ around: Surroundings, _ now: Now) -> [Action] {
        due = nil
        guard let first = around.locators.first else {
            phase = .waiting
            return [.stopUpdating]
        }
        guard let set = servers.set else {
            phase = .waiting
            return [.lookUpServers]
        }
        // What the DNS said last is used while it is asked again: right after a move it may not be reachable yet.
        var actions: [Action] = servers.isExpired(now.monotonic) ? [.lookUpServers] : []
        // Beside the proofs, so that a start takes no round trip more.
        let reading = readClock(from: first, set, around)
        actions += reading
        var missing: [(moa: MobileAddress, server: Endpoint)] = []
        // A whole prefix nobody can prove; its IMS's operator vouches.
        for moa in listed(around).dropFirst() where !around.routed.contains(moa) {
            guard let server = set.endpoints.first(where: { $0.family == moa.family }) else {
                unproven.insert(moa)
                continue
            }
            guard around.cookies.proof(servers: set.endpoints, own: moa.address, now: now.monotonic) == nil else { continue }
            // Over a dead link no proof will come: it is not waited for.
            if around.dead.contains(moa) { unproven.insert(moa) } else { missing.append((moa, server)) }
        }
        // An address that others don't know is listed as they see it. Those that must be seen first are waited for.
        // What a NAT64 shows of us is listed when it is known, and waited for only where there is nothing else.
        let unseen = listed(around).filter { moa in
            listing(of: moa, around) == .awaited && (moa == first || !StandIns.isStandIn(moa.address))
        }
        let seen = listed(around).filter { !around.routed.contains($0) }
        if !seen.isEmpty { actions.append(.observe(seen, at: set.endpoints)) }
        guard !missing.isEmpty || !unseen.isEmpty else { return actions + update(around, now) }
        // The source's cookie is fetched along with the others: it would be asked for anyway.
        if let server = set.endpoints.first(where: { $0.family == first.family }), reading.isEmpty,
            around.cookies.cookie(server: server, own: first.address, now: now.monotonic) == nil
        {
            missing.append((first, server))
        }
        phase = .proving(awaited: Set(missing.map(\.moa)), unseen: Set(unseen), readsClock: !reading.isEmpty)
        due = now.monotonic + proofWaitMax
        return actions + [.stopUpdating] + missing.map { .prove($0.moa, at: $0.server) }
    }

    /// What reads the IMS's clock, if no clock is confirmed.
    private func readClock(from source: MobileAddress, _ set: ServerSet, _ around: Surroundings) -> [Action] {
        guard around.clock.needsReading else { return [] }
        let targets = set.endpoints.filter { $0.family == source.family }
        return targets.isEmpty ? [] : [.readClock(at: targets, from: source)]
    }

    /// A cookie came from one of the own addresses, or did not.
    mutating func proofEnded(of moa: MobileAddress, isAnswered: Bool, _ around: Surroundings, _ now: Now) -> [Action] {
        guard case .proving(var awaited, let unseen, let readsClock) = phase else { return [] }
        awaited.remove(moa)
        phase = .proving(awaited: awaited, unseen: unseen, readsClock: readsClock)
        guard !isAnswered, moa != around.locators.first else { return updateWhenProven(around, now) }
        unproven.insert(moa)
        return [.log(.info, "\(hoa): \(moa) gets no answer from the IMS; registering without it")] + updateWhenProven(around, now)
    }

    /// The servers said where they see an own address, or did not.
    mutating func observationEnded(of moa: MobileAddress, _ around: Surroundings, _ now: Now) -> [Action] {
        guard case .proving(let awaited, var unseen, let readsClock) = phase, unseen.remove(moa) != nil else { return [] }
        phase = .proving(awaited: awaited, unseen: unseen, readsClock: readsClock)
        return updateWhenProven(around, now)
    }

    /// The IMS's clock was read, or it did not answer.
    ///
    /// - Parameter silentOver: it answered no try from there.
    mutating func clockRead(refusal: Problem?, silentOver: MobileAddress?, _ around: Surroundings, _ now: Now) -> [Action] {
        guard case .proving(let awaited, let unseen, _) = phase else { return [] }
        guard !around.clock.needsReading else {
            // Another home may have found this host's clock wrong by the same answer, and wants it read anew.
            let isWrong = around.clock.problem(lifetime: lifetime(at: around.locators)).map { Problem(.clockWrong, of: hoa, $0) }
            let problem =
                refusal ?? isWrong ?? Problem(.other, of: hoa, "the IMS's answer has no cookie of version 1, by which it tells the time")
            return failed(problem, silentOver: silentOver, around, now)
        }
        phase = .proving(awaited: awaited, unseen: unseen, readsClock: false)
        return updateWhenProven(around, now)
    }

    /// Whichever of the proofs and the reading of the clock ends last signs.
    private mutating func updateWhenProven(_ around: Surroundings, _ now: Now) -> [Action] {
        guard case .proving(let awaited, let unseen, false) = phase, awaited.isDisjoint(with: around.locators),
            unseen.isDisjoint(with: around.locators)
        else { return [] }
        due = nil
        // Asks for nothing again: what is still missing was found unprovable.
        return update(around, now) + remember(around)
    }

    /// The proofs took too long: registering the locator that works matters more than listing all.
    mutating func proofsDue(_ around: Surroundings, _ now: Now) -> [Action] {
        guard case .proving(let awaited, _, _) = phase else { return [] }
        let late = around.locators.filter(awaited.contains)
        unproven.formUnion(late)
        return late.map { .stopProving($0) } + update(around, now) + remember(around)
    }

    /// Signs the present locators and sends the record to the own IMS.
    private mutating func update(_ around: Surroundings, _ now: Now) -> [Action] {
        let locators = listed(around)
        guard let set = servers.set, let first = locators.first else { return [] }
        if around.endpoints.areHidden, around.relays.isEmpty || relayPolicy.takesNone {
            let reason = relayPolicy.takesNone ? "its IMS takes no record that lists relays" : "no relay has granted it a binding"
            return failed(Problem(.noRelay, of: hoa, "it is to be reached by relays alone, and \(reason)"), around, now)
        }
        if around.relays.isEmpty, locators.allSatisfy({ listing(of: $0, around) == .never }) {
            let text = "it has no \(hoa.family) address here, and no IMS says where it sees \(first); the IMS needs an \(first.family) address"
            return failed(Problem(.serverLacksFamily, of: hoa, text), around, now)
        }
        let reading = readClock(from: first, set, around)
        guard reading.isEmpty else {
            phase = .proving(awaited: [], unseen: [], readsClock: true)
            return reading + [.stopUpdating]
        }
        if let problem = around.clock.problem(lifetime: lifetime(at: locators)) {
            // The next attempt reads the IMS's clock anew: it may be that one that was wrong.
            return [.doubtClock] + failed(Problem(.clockWrong, of: hoa, problem), around, now)
        }
        // The answer may bring the renewed one; of one that nobody renews, people are told after it.
        let isHopeless = failures > 0 || certificate.current.hasEnded(now)
        var actions = isHopeless ? certificateWarning(now) : []
        // The primary locator must be the datagram's source, so only servers of its family can be asked. A server of the
        // other family alone can't check it.
        let targets = set.endpoints.filter { $0.family == first.family }
        let signing = sign(locators, around, now)
        actions += signing.actions
        // Without one there may be no clock to sign by either, and nothing that the key has to do with.
        guard signing.isDone || targets.isEmpty else {
            failure = Problem(.notSigned, of: hoa, "the record could not be signed")
            return actions + [.log(.error, "\(hoa): signing failed; is the key file intact?")]
        }
        phase = .updating
        guard !targets.isEmpty else {
            let problem = Problem(.serverLacksFamily, of: hoa, "the IMS has no \(first.family) address, which proving \(first) needs")
            return actions + failed(problem, around, now)
        }
        return actions + [.update(at: targets, from: first)]
    }

    private mutating func sign(_ locators: [MobileAddress], _ around: Surroundings, _ now: Now) -> (isDone: Bool, actions: [Action]) {
        // The signer is part of what is asked.
        let listings = Dictionary(locators.map { ($0, listing(of: $0, around)) }, uniquingKeysWith: { first, _ in first })
        let outcome = signer.sign(
            locators, listing: { listings[$0] ?? .never }, relays: relayPolicy.takesNone ? [] : around.relays,
            of: hoa, under: certificate.current,
            lifetime: lifetime(at: locators), sequenceMax: around.clock.sequenceMax, now)
        switch outcome {
        case .signed: return (true, [])
        case .notSigned: return (false, [])
        case .signedAnew(let lead):
            return (
                true,
                [
                    .log(
                        .notice,
                        "\(hoa): the sequence kept from before lies \(lead) s in the future, from a time when a clock was wrong; it counts no more")
                ]
            )
        }
    }

    /// Seconds.
    private func lifetime(at locators: [MobileAddress]) -> UInt32 {
        let own = locators.filter { $0.family == hoa.family }
        let isAtHome = !own.isEmpty && own.allSatisfy { $0.address == hoa.address }
        return max(1, isAtHome ? homeLifetime : awayLifetime)
    }

    /// Keeps the highest sequence across restarts. What was kept before a clock was confirmed is looked at when the next record is signed.
    private func remember(_ around: Surroundings) -> [Action] {
        guard signer.sequence > 0, let most = around.clock.sequenceMax, signer.sequence <= most else { return [] }
        return [.remember(sequence: signer.sequence)]
    }

    // MARK: Our own moves

    /// There is no address to be reached at.
    mutating func stranded() {
        phase = .waiting
        due = nil
    }

    /// The own addresses changed: what could not be proven then may be provable now.
    ///
    /// - Parameter isSound: nothing is known against the one that comes first.
    mutating func moved(isSound: Bool) {
        unproven = []
        if isSound { failures = 0 }
    }

    /// Why the IMS was silent is known.
    mutating func silenceIsExplained() { if case .pausing = phase { phase = .pausing(silentOver: nil) } }

    /// The lease of a visited home was prolonged: the next record is under this certificate.
    mutating func prolong(_ given: Certificate) { certificate.prolong(given) }

    // MARK: Time

    /// What a time is for.
    enum Due: Hashable, Sendable {
        /// The proofs have taken too long.
        case proofs
        /// The time to register again has come.
        case attempt
        /// The DNS is asked again.
        case lookUp
        /// The IMS is asked whether it still has our record.
        case selfCheck
    }

    var nextDue: MonotonicTime? { due.earlier(servers.retryAt).earlier(selfCheck.due) }

    /// What is due, the earliest first.
    mutating func takeDue(_ now: MonotonicTime) -> Due? {
        guard let next = nextDue, next <= now else { return nil }
        if due == next {
            due = nil
            if isProving { return .proofs }
            // What could not be proven then may be provable now.
            unproven = []
            return .attempt
        }
        if servers.retryAt == next {
            servers.retries()
            return .lookUp
        }
        selfCheck.isDue()
        return .selfCheck
    }

    /// A record of this moment is wanted, before the IMS has it: peers are to believe it as it is.
    ///
    /// - Returns: `nil` if it could not be signed.
    mutating func signAtOnce(_ around: Surroundings, _ now: Now) -> [Action]? {
        let signing = sign(listed(around), around, now)
        return signing.isDone ? signing.actions + [.remember(sequence: signer.sequence)] : nil
    }

    /// Somebody has a record of ours that is newer than ours.
    ///
    /// - Returns: whether one beyond it can be signed.
    mutating func goBeyond(_ sequence: UInt64, _ around: Surroundings) -> Bool {
        guard sequence >= signer.sequence, let most = around.clock.sequenceMax, sequence < most else { return false }
        signer.goBeyond(sequence)
        return true
    }

    // MARK: Answers of the DNS

    mutating func lookedUp(_ result: ServerLookup, _ around: Surroundings, _ now: Now) -> [Action] {
        switch result {
        case .found(let set):
            let found = servers.found(set)
            let opened: [Action] = found.endsDenial ? [.forgetAbsence] : []
            if found.isNews {
                certificate.serverHasIt(false)
                relayPolicy.serversChanged()
            }
            guard found.isNews || stage == .waiting || stage == .pausing else { return opened }
            return opened + begin(around, now) + remember(around)
        case .absent:
            let text = "the DNS has no IMS record for \(hoa); its operator must add the lines that `mat zone` writes"
            return notFound(Problem(.noIMSRecord, of: hoa, text), isDenied: true, now)
        case .failed(let reason), .unusable(let reason):
            return notFound(Problem(.nameLookUp, of: hoa, "looking up the IMS of \(hoa) failed: \(reason)"), isDenied: false, now)
        }
    }

    private mutating func notFound(_ problem: Problem, isDenied: Bool, _ now: Now) -> [Action] {
        servers.notFound(problem, isDenied: isDenied, now.monotonic) ? [.log(.warning, problem.text)] : []
    }

    /// The network or the resolvers changed.
    mutating func leaveNetwork(_ now: MonotonicTime) { servers.leaveNetwork(now) }

    /// The DNS of another network can be asked: what is not known, or not any more, is asked for at once.
    mutating func namesChanged(_ now: MonotonicTime) -> [Action] {
        guard servers.isExpired(now) else { return [] }
        servers.startOver()
        return [.lookUpServers]
    }

    // MARK: Answers of the IMS

    /// - Parameter owesPeers: peers are to be told when it is through.
    mutating func answered(_ reply: IMSUpdateReply, from server: Endpoint, owesPeers: Bool, _ around: Surroundings, _ now: Now) -> [Action] {
        servers.prefer(server)
        guard let mapping else { return [] }
        switch reply.code {
        case .ok:
            return accepted(mapping, reply, owesPeers: owesPeers, around, now)
        case .stale:
            return outrun(by: reply.current, around, now)
        case .authenticationFailed:
            let renewal = renew(reply.certificate, around, now)
            // The answer that brought it was lost; it is the one that counts, so the record is signed again under it.
            if renewal.isNew { return renewal.actions + update(around, now) + remember(around) }
            guard certificate.isAtServer else { return renewal.actions + [.doubtClock] + refused(mapping, reply, around, now) }
            // The server knows no such CERT-ID: give it the certificate.
            certificate.serverHasIt(false)
            return renewal.actions + update(around, now)
        case .tryLater:
            pause(Problem(.tryLater, of: hoa, "the IMS asks to try later\(reply.text.map { ": \($0.printable)" } ?? "")"))
            due = now.monotonic + .seconds(Int64(min(60, max(1, reply.lifetime ?? 1))))
            return []
        default:
            return refused(mapping, reply, around, now)
        }
    }

    private mutating func accepted(_ mapping: CertifiedMapping, _ reply: IMSUpdateReply, owesPeers: Bool, _ around: Surroundings, _ now: Now)
        -> [Action]
    {
        let isNews = acked == nil || failure != nil && stage != .registered || owesPeers
        let warnsOfScope = acked == nil || owesPeers
        phase = .registered
        relayPolicy.accepted(mapping.record)
        acked = Acked(at: now.monotonic, places: Set(signer.places))
        certificate.serverHasIt(true)
        failures = 0
        failure = nil
        var actions = renew(reply.certificate, around, now).actions
        if actions.isEmpty { actions = certificateWarning(now) }
        if warnsOfScope, let problem = scopeProblem(at: around.locators) { actions.append(.log(.warning, "\(hoa) is registered, but \(problem)")) }
        let places = mapping.record.places.map(\.named).joined(separator: ", ")
        actions.append(.log(isNews ? .notice : .debug, "\(hoa) is registered at \(places)"))
        due = now.monotonic + refreshInterval(of: mapping, now)
        return actions + [.registered]
    }

    /// Another instance of us, or a clock that went back: go past what the server has.
    private mutating func outrun(by current: SignedMapping?, _ around: Surroundings, _ now: Now) -> [Action] {
        guard let current, (try? CertifiedMapping(mapping: current, certificate: certificate.current).verifySignature()) != nil else {
            let text = "the IMS holds a record of \(hoa) that another key signed: the address was enrolled for another node"
            return failed(Problem(.otherKey, of: hoa, text), around, now)
        }
        guard let most = around.clock.sequenceMax, current.record.sequence < most else {
            let text = "the IMS has a record of sequence \(current.record.sequence), which lies in the future: it was taken while a clock was wrong"
            return [.doubtClock] + failed(Problem(.recordFromWrongClock, of: hoa, text), around, now)
        }
        // Section 4: max(enclosed, own, now) + 1.
        signer.goBeyond(max(current.record.sequence, min(now.wallMilliseconds, most)))
        return [.log(.notice, "\(hoa): the IMS has a newer record; signing one beyond it")] + update(around, now) + remember(around)
    }

    private mutating func refused(_ mapping: CertifiedMapping, _ reply: IMSUpdateReply, _ around: Surroundings, _ now: Now) -> [Action] {
        if relayPolicy.refused(mapping.record, reply.code) {
            let relays = mapping.record.relays.map(\.description).joined(separator: ", ")
            let reason = reply.text.map { ": \($0.printable)" } ?? ""
            let log = Action.log(
                .warning, "\(hoa): its IMS does not take a record that lists the relay \(relays)\(reason); registering without, so peers can't use it"
            )
            return [log] + update(around, now) + remember(around)
        }
        let problem = Problem(refusal: reply.code, reply.text, of: hoa)
        let aged = Action.forgetCookies(servers.set?.endpoints ?? [], at: signer.places)
        return [aged] + (reply.code == .refused ? [.refused(signer.places, reply, problem)] : failed(problem, around, now))
    }

    /// The attempt failed; the next one comes by timer.
    ///
    /// - Parameter silentOver: the IMS answered no try of it from there.
    mutating func failed(_ problem: Problem, silentOver: MobileAddress? = nil, _ around: Surroundings, _ now: Now) -> [Action] {
        let isNews = failure != problem
        pause(problem, silentOver: silentOver)
        let told = Action.log(.warning, "\(hoa) could not be registered: \(problem); trying again in \(retryPause.components.seconds) s")
        unproven = []
        due = now.monotonic + retryPause
        // Not of where we were before, which is all there is while no clock is confirmed.
        let isOfHere = signer.places.first.map { $0 == around.locators.first } ?? false
        return (isNews ? [told] : []) + (isOfHere ? [.tellPeers] : [])
    }

    private mutating func pause(_ problem: Problem, silentOver: MobileAddress? = nil) {
        phase = .pausing(silentOver: silentOver)
        failure = problem
        failures += 1
    }

    /// 2, 4, 8 ... 30 s between failed attempts.
    private var retryPause: Duration { .seconds(min(30, 1 << min(failures, 5))) }

    /// When to register again: at half the record's lifetime, and when the last third of a short certificate's life begins, so that the IMS
    /// renews it before it ends.
    private func refreshInterval(of mapping: CertifiedMapping, _ now: Now) -> Duration {
        let half = Duration.seconds(Int64(mapping.record.lifetime / 2))
        let current = certificate.current
        let life = current.notAfter - min(current.notAfter, current.notBefore)
        let renewal = current.notAfter - life / 3
        guard renewal > now.wallMilliseconds else { return half }
        return min(half, .milliseconds(Int64(clamping: renewal - now.wallMilliseconds)) + .seconds(1))
    }

    // MARK: The certificate

    private mutating func certificateWarning(_ now: Now) -> [Action] { certificate.warning(now).map { [.log($0, $1)] } ?? [] }

    private mutating func renew(_ renewed: Certificate?, _ around: Surroundings, _ now: Now) -> (isNew: Bool, actions: [Action]) {
        let keys: [Action] = isNetwork ? [.lookUpKeys(prefix)] : []
        switch certificate.renew(renewed, keys: isNetwork ? around.networkKeys : servers.set?.keys ?? []) {
        case .none: return (false, [])
        case .keysNeeded: return (false, keys)
        case .notIssued:
            let told = Action.log(.warning, "\(hoa): the IMS sent a renewed certificate that no key in the DNS has signed; looking the keys up anew")
            return (false, [told] + keys + [.lookUpServers])
        case .renewed:
            let current = certificate.current
            let days = (current.notAfter - min(current.notAfter, now.wallMilliseconds)) / 86_400_000
            return (true, [.keep(current), .log(.notice, "\(hoa): the IMS renewed the certificate; it is good for \(days) days")])
        }
    }

    // MARK: Whether the IMS still knows us

    /// The time to ask has come.
    ///
    /// - Parameters:
    ///   - isBusy: it is being asked, or an update is under way, which will tell by itself.
    ///   - first: the server to ask first.
    /// - Returns: whom to ask, and from where; `nil` if there is nothing to ask.
    mutating func checkSelf(at locators: [MobileAddress], isBusy: Bool, first: Endpoint? = nil, _ now: MonotonicTime) -> (
        servers: [Endpoint], source: MobileAddress
    )? {
        guard isRegistered, !isBusy, let set = servers.set, let source = locators.first else { return nil }
        let targets = set.endpoints.filter { $0.family == source.family }
        guard !targets.isEmpty else { return nil }
        selfCheck.asked(now)
        return (targets.filter { $0 == first } + targets.filter { $0 != first }, source)
    }

    mutating func followsPush(isBusy: Bool, _ now: MonotonicTime) -> Bool { selfCheck.followsPush(isBusy: isBusy, now) }

    mutating func scheduleSelfCheck(random: inout any RandomNumberGenerator, _ now: MonotonicTime) { selfCheck.schedule(random: &random, now) }

    /// The IMS answered whether it still has our record.
    ///
    /// - Returns: what it has not, so that it is to be registered again, and what to tell people.
    mutating func selfChecked(_ answer: MAAnswer) -> (loss: SelfCheck.Loss, text: String)? {
        guard isRegistered, let mapping, let loss = SelfCheck.loss(answer, own: mapping) else { return nil }
        // What it does not know it has to be given whole.
        certificate.serverHasIt(false)
        let text =
            switch loss {
            case .record: "its IMS has no record of it, though it acked one; registering again"
            case .newestRecord: "its IMS has only an older record of it, though it acked one; registering again"
            case .address: "its IMS has a record of it by another key: the address was revoked, or given to another node; asking which"
            }
        return (loss, "\(hoa): \(text)")
    }
}
