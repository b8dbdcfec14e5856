import MATCore
import MATSignal

// Signature checks, off the core's thread: what costs 70 us must not hold up what costs one.
//
//   message ──► cheap checks ──► budget of the source ──► room? ──► verify ─ ... ─ verified ──► what the message wanted
//                                      └ code 7              └ code 7
//
// Equal checks are made once: a duplicate joins the one that is under way, and costs its source nothing. What was true when a
// check began (the newest version, the newest certificate, whether the store writes) is looked at again when it ends.

/// What waits for a check.
enum VerificationUse: Sendable {
    case update(Request)
    case notify(NotifyKey)
    case ownNotify(NotifyKey)
    case offer(Request, isFromIMS: Bool)
    case truth(HomeAddress)

    /// What others' nodes cause, or those who claim to be such: it must not keep own nodes from registering.
    var isForStrangers: Bool {
        switch self {
        case .update, .ownNotify: false
        case .notify, .offer, .truth: true
        }
    }
}

struct PendingVerification: Sendable {
    var job: VerificationJob
    var waiting: [VerificationUse]

    /// Duplicates that are answered together; more are told to try later.
    static let waitingMax = 8
}

/// The checks under way.
struct VerificationTable: Sendable {
    private var pending: [VerificationTicket: PendingVerification] = [:]
    /// By signature, which differs wherever the signed record does.
    private var tickets: [Signature: VerificationTicket] = [:]
    private var lastTicket: UInt64 = 0

    var count: Int { pending.count }

    /// The check of exactly this that is under way.
    func ticket(of job: VerificationJob) -> VerificationTicket? {
        guard let ticket = tickets[job.certified.mapping.signature], pending[ticket]?.job == job else { return nil }
        return ticket
    }

    mutating func begin(_ job: VerificationJob, for use: VerificationUse) -> VerificationTicket {
        lastTicket &+= 1
        let ticket = VerificationTicket(number: lastTicket)
        pending[ticket] = PendingVerification(job: job, waiting: [use])
        tickets[job.certified.mapping.signature] = ticket
        return ticket
    }

    /// - Returns: whether there was room.
    mutating func join(_ ticket: VerificationTicket, for use: VerificationUse) -> Bool {
        guard let count = pending[ticket]?.waiting.count, count < PendingVerification.waitingMax else { return false }
        pending[ticket]?.waiting.append(use)
        return true
    }

    mutating func end(_ ticket: VerificationTicket) -> PendingVerification? {
        guard let ended = pending.removeValue(forKey: ticket) else { return nil }
        let signature = ended.job.certified.mapping.signature
        if tickets[signature] == ticket { tickets[signature] = nil }
        return ended
    }
}

/// Why no check is made; all of them mean code 7.
struct VerificationRefusal: Error {
    var reason: String
    var seconds: UInt32 { 1 }
}

extension IMSCore {
    /// The checks asked for with `IMSAction.verify` have ended.
    public mutating func verified(_ results: [VerificationResult], now: Now) -> [IMSAction] {
        for result in results { finishVerification(result, now) }
        return takeActions(now)
    }

    public var verificationsPendingCount: Int { verifications.count }

    /// Begins a check, or joins one that is under way.
    ///
    /// - Parameter source: whose budget pays for it; `nil` for what this server asked for itself.
    mutating func verify(_ job: VerificationJob, for use: VerificationUse, source: IPAddress?, _ now: Now) throws(VerificationRefusal) {
        if let ticket = verifications.ticket(of: job) {
            guard verifications.join(ticket, for: use) else {
                throw VerificationRefusal(reason: "this record is being checked for \(PendingVerification.waitingMax) others")
            }
            return
        }
        // Half of the places are for the updates of own nodes, and strangers' checks never take more than their part of the machine.
        let placesMax = configuration.limits.verificationsPendingMax
        guard verifications.count < (use.isForStrangers ? (placesMax + 1) / 2 : placesMax) else {
            throw VerificationRefusal(reason: "\(verifications.count) signature checks are waiting")
        }
        if let source, !verificationRates.take(source.sourceKey, at: now.monotonic) {
            throw VerificationRefusal(
                reason: "more than \(configuration.limits.verificationsPerSecond) signature checks in a second for this source")
        }
        guard !use.isForStrangers || strangerVerifications.take(at: now.monotonic) else {
            throw VerificationRefusal(
                reason: "more than \(configuration.limits.strangerVerificationsPerSecond) signature checks in a second for nodes of others")
        }
        counters.verifications += 1
        actions.append(.verify(verifications.begin(job, for: use), job))
    }

    private mutating func finishVerification(_ result: VerificationResult, _ now: Now) {
        guard let ended = verifications.end(result.ticket) else { return }
        let certified = ended.job.certified
        for use in ended.waiting {
            switch use {
            case .update(let request): finishUpdate(certified, request, result.failure, now)
            case .notify(let key): finishNotify(key, result.failure, now)
            case .ownNotify(let key): finishOwnNotify(key, result.failure, now)
            case .offer(let request, let isFromIMS): finishOffer(certified, request, isFromIMS: isFromIMS, result.failure, now)
            case .truth(let hoa): finishTruth(certified, hoa, result.failure, now)
            }
        }
    }

    /// The keys that an own node's certificate has to be checked with; `nil` if it has been, as that of an accepted record.
    func issuersToCheck(_ certificate: Certificate) -> [PublicKey]? {
        let prefix = certificate.prefix
        let isBelieved = issued[prefix] == certificate || mappings[prefix]?.certified.certificate == certificate
        // A key may have been taken from the configuration since.
        return isBelieved && configuration.issuerIDs.contains(certificate.issuerID) ? nil : configuration.publicKeys
    }
}
