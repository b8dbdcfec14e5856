import MATCore
import MATSignal

/// What waits for a check.
enum VerificationUse: Sendable {
    case update(Request)
    case notify(NotifyKey)
    case ownNotify(NotifyKey)
    case offer(Request, isFromIMS: Bool)
    case truth(HomeAddress)
    indirect case bind(Binds.Pending)
    /// That the source of a HA Notify is its node's, where its record's signature is known to be good.
    indirect case notifyPath(NotifyKey, CertifiedMapping)
    case ownNotifyPath(NotifyKey)
    indirect case join(Joining.Pending)

    /// What others' nodes cause, or those who claim to be such: it must not keep own nodes from registering.
    var isForStrangers: Bool {
        switch self {
        case .update, .ownNotify, .ownNotifyPath, .bind: false
        case .join(let pending): pending.home != nil
        case .notify, .offer, .truth, .notifyPath: true
        }
    }
}

/// Why no check is made; all of them mean code 7.
struct VerificationRefusal: Error {
    var reason: String
    /// When to come again.
    var seconds: UInt32 { 1 }
}

/// Signature checks, off the core's thread: what costs 70 us must not hold up what costs one.
///
/// ```
///   message ──► cheap checks ──► room? ──► budget of the source ──► budget of strangers ──► under way ─ ... ─ ended ──► what the messages wanted
///                                  └ code 7         └ code 7               └ code 7           ▲
///                                            an equal one joins the check that is under way ──┘
/// ```
/// Equal checks are made once: a duplicate joins the one that is under way, and costs its source nothing.
struct Verifications: Sendable {
    /// A check under way and all that waits for it.
    struct Pending: Sendable {
        var job: VerificationJob
        var waiting: [VerificationUse]

        /// Duplicates that are answered together; more are told to try later.
        static let waitingMax = 8
    }

    private var pending: [VerificationTicket: Pending] = [:]
    /// By signature, which differs wherever the signed record does.
    private var tickets: [Signature: VerificationTicket] = [:]
    private var lastTicket: UInt64 = 0
    private var rates: RateTable<IPPrefix>
    private var strangers: RateLimit
    private var limits: IMSLimits
    /// Checks made so far.
    private(set) var begunCount: UInt64 = 0

    enum OnWanted: Sendable {
        case begin(VerificationTicket)
        /// The check that is under way answers it as well.
        case joined
    }

    init(_ limits: IMSLimits) {
        self.limits = limits
        rates = RateTable(perSecond: limits.verificationsPerSecond, keysMax: limits.ratesMax)
        strangers = RateLimit(perSecond: limits.strangerVerificationsPerSecond)
    }

    mutating func reconfigure(_ fresh: IMSLimits) {
        rates.reconfigure(perSecond: fresh.verificationsPerSecond, keysMax: fresh.ratesMax)
        strangers.reconfigure(perSecond: fresh.strangerVerificationsPerSecond)
        limits = fresh
    }

    var count: Int { pending.count }

    /// A check is wanted.
    ///
    /// - Parameters:
    ///   - source: whose budget pays for it; `nil` for what this server asked for itself.
    ///   - times: how many times of a budget the source has.
    mutating func wanted(_ job: VerificationJob, for use: VerificationUse, source: IPAddress?, times: Int = 1, _ now: Now)
        throws(VerificationRefusal) -> OnWanted
    {
        if let ticket = ticket(of: job) {
            guard let count = pending[ticket]?.waiting.count, count < Pending.waitingMax else {
                throw VerificationRefusal(reason: "this record is being checked for \(Pending.waitingMax) others")
            }
            pending[ticket]?.waiting.append(use)
            return .joined
        }
        // Half of the places are for the updates of own nodes, and strangers' checks never take more than their part of the machine.
        let placesMax = limits.verificationsPendingMax
        guard pending.count < (use.isForStrangers ? (placesMax + 1) / 2 : placesMax) else {
            throw VerificationRefusal(reason: "\(pending.count) signature checks are waiting")
        }
        if let source, !rates.take(source.sourceKey, at: now.monotonic, times: times) {
            throw VerificationRefusal(
                reason: "more than \(limits.verificationsPerSecond * times) signature checks in a second for this source")
        }
        guard !use.isForStrangers || strangers.take(at: now.monotonic) else {
            throw VerificationRefusal(
                reason: "more than \(limits.strangerVerificationsPerSecond) signature checks in a second for nodes of others")
        }
        begunCount += 1
        lastTicket &+= 1
        let ticket = VerificationTicket(number: lastTicket)
        pending[ticket] = Pending(job: job, waiting: [use])
        if let signature = job.signature { tickets[signature] = ticket }
        return .begin(ticket)
    }

    /// The check of exactly this that is under way.
    private func ticket(of job: VerificationJob) -> VerificationTicket? {
        guard let signature = job.signature, let ticket = tickets[signature], pending[ticket]?.job == job else { return nil }
        return ticket
    }

    /// The check has ended.
    ///
    /// - Returns: `nil` if there was none.
    mutating func ended(_ ticket: VerificationTicket) -> Pending? {
        guard let ended = pending.removeValue(forKey: ticket) else { return nil }
        if let signature = ended.job.signature, tickets[signature] == ticket { tickets[signature] = nil }
        return ended
    }

    var ratesCount: Int { rates.count }
    mutating func sweep(_ now: MonotonicTime) { rates.sweep(now) }
}
