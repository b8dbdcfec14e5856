import MATCore
import MATSignal

/// The IMS keys of visitors' homes, from the DNS, and the Joins that wait for them.
///
/// ```
///                 wanted, within the budget         found: keys; absent, failed: why
///   (nothing) ──────────────────────────────► asked ─────────────────────────────────► known ── its time is over ─► (nothing)
///                                             │ ▲  another Join of this home waits: 4 at most
///                                             └─┘
/// ```
/// A home is asked about only for who has signed with its certificate's key, at the address that he asks from.
struct VisitorHomes: Sendable {
    enum Answer: Sendable {
        case keys([PublicKey])
        /// The home can't be verified.
        case none(ResponseCode, String)
    }

    enum OnWanted: Sendable {
        case known(Answer)
        /// The Join waits, and `resolved` names it.
        case waits
        /// The same, and the DNS is to be asked.
        case ask(IPPrefix)
        /// Too much at a time.
        case refused(String)
    }

    /// Joins that wait for one home's keys, and for all homes'.
    static let waitingPerHomeMax = 4
    static let waitingMax = 1024

    private var lookUps = LookUps()
    /// By the name that is asked for, since that decides whose keys are meant.
    private var waiting: [IPPrefix: [Joining.Pending]] = [:]
    private var waitingCount = 0
    private var rate: RateLimit
    private var perSecond: Int

    init(perSecond: Int = VisitorPolicy.lookUpsDefault) {
        self.perSecond = perSecond
        rate = RateLimit(perSecond: perSecond)
    }

    mutating func reconfigure(perSecond: Int) {
        self.perSecond = perSecond
        rate.reconfigure(perSecond: perSecond)
    }

    /// The keys at the home's own name are wanted, for a Join whose node has signed.
    mutating func wanted(_ pending: Joining.Pending, of home: Certificate, _ limits: IMSLimits, _ now: Now) -> OnWanted {
        let (name, hoa) = (home.prefix, HomeAddress(home.prefix.address))
        guard waiting[name]?.count ?? 0 < Self.waitingPerHomeMax, waitingCount < Self.waitingMax else {
            return .refused("too many Joins wait for the keys of visitors' homes")
        }
        switch lookUps.wanted(name, for: hoa, limits, now.monotonic) {
        case .known(let result): return .known(Self.answer(result, name))
        case .waits:
            wait(pending, name)
            return .waits
        case .ask:
            guard rate.take(at: now.monotonic) else {
                let reason = "more than \(perSecond) look-ups for visitors in a second"
                _ = lookUps.ended(name, .failed(reason), now.monotonic)
                return .refused(reason)
            }
            wait(pending, name)
            return .ask(name)
        }
    }

    private mutating func wait(_ pending: Joining.Pending, _ name: IPPrefix) {
        waiting[name, default: []].append(pending)
        waitingCount += 1
    }

    /// The DNS has answered.
    ///
    /// - Returns: what, and the Joins that wait for it, in their order.
    mutating func resolved(_ name: IPPrefix, _ result: IMSLookupResult, _ now: Now) -> (answer: Answer, waiting: [Joining.Pending]) {
        _ = lookUps.ended(name, result, now.monotonic)
        let ready = waiting.removeValue(forKey: name) ?? []
        waitingCount -= ready.count
        return (Self.answer(result, name), ready)
    }

    private static func answer(_ result: IMSLookupResult, _ name: IPPrefix) -> Answer {
        switch result {
        case .found(let set): .keys(set.keys.compactMap(PublicKey.init))
        case .absent: .none(.authenticationFailed, "the home \(name.shortText) can't be verified: the DNS lists no IMS for it")
        case .unusable(let reason):
            .none(.authenticationFailed, "the home \(name.shortText) can't be verified: what the DNS says of its IMS can't be used: \(reason)")
        case .failed(let reason): .none(.tryLater, "the home \(name.shortText) can't be verified now: the look-up of its IMS failed: \(reason)")
        }
    }

    mutating func sweep(_ now: MonotonicTime) { lookUps.sweep(now) }
    var lookUpsCount: Int { lookUps.count }
}
