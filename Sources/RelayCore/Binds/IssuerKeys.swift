import MATCore
import MATSignal

/// The IMS keys at certificates' own HoAs, from the DNS, and the Binds that wait for them.
///
/// ```
///               wanted, within the budget         found: keys for as long as DNS allows; absent, failed: why, for some seconds
///   (nothing) ─────────────────────────► asked ────────────────────────────────────────────► known ── its time is over ─► (nothing)
///                                        │ ▲  another Bind waits: 8 at most
///                                        └─┘
/// ```
/// What is known gives way when the table is full, that which was wanted longest ago first; what is being asked does not.
struct IssuerKeys: Sendable {
    enum Answer: Hashable, Sendable {
        case keys([PublicKey], until: MonotonicTime)
        case none(ResponseCode, String)
    }

    fileprivate enum LookUp: Sendable {
        case asked(waiting: [BindRequest])
        case known(Answer, until: MonotonicTime)
    }

    enum OnWanted: Hashable, Sendable {
        case known(Answer)
        /// The DNS is to be asked; the Bind waits.
        case ask
        case joined
        /// Too much at a time.
        case refused(String)
    }

    private var lookUps = RecencyTable<IPPrefix, LookUp>()
    private var visitorsRate: RateLimit
    private var max: Int
    private var perSecond: Int

    /// Binds that wait for one look-up.
    private static let waitingMax = 8
    /// How long it is remembered that nothing was found, so that a flood of Binds does not become one of questions.
    private static let failureAge = Duration.seconds(5)
    private static let absenceAgeMax = Duration.seconds(60)
    /// Section 8: what DNS says is believed for at most an hour.
    private static let ageMax = Duration.seconds(3600)
    /// Entries looked at to find one that can go.
    private static let stepsToRoomMax = 4

    init(_ limits: RelayLimits) {
        visitorsRate = RateLimit(perSecond: limits.lookUpsPerSecond)
        perSecond = limits.lookUpsPerSecond
        max = Swift.max(1, limits.lookUpsMax)
    }

    mutating func reconfigure(_ limits: RelayLimits) {
        visitorsRate.reconfigure(perSecond: limits.lookUpsPerSecond)
        perSecond = limits.lookUpsPerSecond
        max = Swift.max(1, limits.lookUpsMax)
    }

    /// - Parameter request: waits if the keys are not known. Residents' do not count as visitors' look-ups.
    mutating func wanted(_ request: BindRequest, _ now: MonotonicTime) -> OnWanted {
        let name = request.certificate.prefix
        switch lookUps[name] {
        case .known(let answer, let until) where now < until:
            lookUps.use(name)
            return .known(answer)
        case .asked(var waiting):
            guard waiting.count < Self.waitingMax else { return .refused("\(waiting.count) Binds wait for the keys of \(name)") }
            waiting.append(request)
            lookUps[name] = .asked(waiting: waiting)
            return .joined
        case .known, nil: break
        }
        if request.holder != .resident, !visitorsRate.take(at: now) {
            return .refused("more than \(perSecond) look-ups for visitors in a second")
        }
        let isInTable = lookUps[name] != nil
        guard isInTable || lookUps.count < max || lookUps.removeOldest(within: Self.stepsToRoomMax, where: { !$1.isAsked }) else {
            return .refused("\(lookUps.count) look-ups are under way")
        }
        lookUps.use(name, .asked(waiting: [request]))
        return .ask
    }

    /// The DNS has answered.
    ///
    /// - Returns: the answer, and who waits for it.
    mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, _ now: MonotonicTime) -> (answer: Answer, waiting: [BindRequest])? {
        guard case .asked(let waiting) = lookUps[name] else { return nil }
        let answer: Answer
        let until: MonotonicTime
        switch result {
        case .found(let set):
            until = min(set.expires, now + Self.ageMax)
            answer = .keys(set.keys.compactMap(PublicKey.init), until: until)
        case .absent(let end):
            until = min(Swift.max(end, now + Self.failureAge), now + Self.absenceAgeMax)
            answer = .none(.authenticationFailed, "DNS lists no IMS for \(name)\(name.keysNote)")
        case .unusable(let reason):
            until = now + Self.failureAge
            answer = .none(.authenticationFailed, "what DNS says of the IMS of \(name) can't be used: \(reason)")
        case .failed(let reason):
            until = now + Self.failureAge
            answer = .none(.tryLater, "the IMS keys of \(name) can't be looked up: \(reason)")
        }
        lookUps[name] = .known(answer, until: until)
        return (answer, waiting)
    }

    /// Another resolver is asked from now on, or other keys are configured.
    mutating func forgetKnown() {
        var known: [IPPrefix] = []
        lookUps.forEach { name, lookUp in if !lookUp.isAsked { known.append(name) } }
        for name in known { lookUps.remove(name) }
    }
}

extension IssuerKeys.LookUp {
    fileprivate var isAsked: Bool {
        if case .asked = self { return true }
        return false
    }
}
