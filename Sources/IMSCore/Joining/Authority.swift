import MATSignal

/// Somebody else whose word counts for what tokens give (protocol.md section 12): asked before a lease is given, and told of it.
public struct Authority: Hashable, Sendable {
    /// What tells it from the others.
    public var name: String
    /// Of tokens' pools and addresses within these, or around them.
    public var prefixes: [IPPrefix]
    /// Whether it is told of leases.
    public var isToldOfLeases: Bool
    /// How often, of those that are in use.
    public var interim: Duration

    public init(name: String, prefixes: [IPPrefix], isToldOfLeases: Bool, interim: Duration) {
        self.name = name
        self.prefixes = prefixes
        self.isToldOfLeases = isToldOfLeases
        self.interim = interim
    }

    func covers(_ place: IPPrefix) -> Bool { prefixes.contains { $0.contains(place) || place.contains($0) } }
}

/// Names a question to an authority.
public struct AuthorisationTicket: Hashable, Sendable {
    public let number: UInt64
    public init(number: UInt64) { self.number = number }
}

/// May this node have an HoA of these?
public struct Authorisation: Hashable, Sendable {
    public var authority: String
    public var token: TokenID
    public var key: PublicKey
    public var places: [IPPrefix]
    public var source: Endpoint
}

public enum AuthorisationAnswer: Hashable, Sendable {
    /// - Parameter seconds: for so long; after that it has to be asked again.
    case granted(seconds: UInt32?)
    case refused(String)
    /// Nobody could be asked, or had room for the account: the node comes later.
    case unanswered(String)
}

/// Joins that wait for an authority's word.
///
/// ```
///   Join ─► an equal one waits? ─ yes: for the same answer
///                     └ no ─► asked ─► granted ─► as any Join        refused: code 6        unanswered: code 7
/// ```
struct Authorisations: Sendable {
    struct Waiting: Sendable {
        var candidate: JoinQueue.Candidate
        var queue: JoinQueue.Key
    }

    enum OnWanted: Sendable {
        case ask(AuthorisationTicket)
        case joined
        case full
    }

    static let waitingMax = 1024

    private var waiting: [AuthorisationTicket: Waiting] = [:]
    private var tickets: [PublicKey: [AuthorisationTicket]] = [:]
    private var lastTicket: UInt64 = 0

    var count: Int { waiting.count }

    mutating func wanted(_ candidate: JoinQueue.Candidate, _ queue: JoinQueue.Key) -> OnWanted {
        for ticket in tickets[candidate.key] ?? [] {
            guard let requests = waiting[ticket]?.candidate.requests, waiting[ticket]?.candidate.isRepeatedBy(candidate) == true else { continue }
            if requests.count < JoinQueue.requestsMax { waiting[ticket]?.candidate.requests += candidate.requests }
            return .joined
        }
        guard waiting.count < Self.waitingMax else { return .full }
        lastTicket &+= 1
        let ticket = AuthorisationTicket(number: lastTicket)
        waiting[ticket] = Waiting(candidate: candidate, queue: queue)
        tickets[candidate.key, default: []].append(ticket)
        return .ask(ticket)
    }

    /// - Returns: `nil` if nobody waits for it.
    mutating func ended(_ ticket: AuthorisationTicket) -> Waiting? {
        guard let ended = waiting.removeValue(forKey: ticket) else { return nil }
        tickets[ended.candidate.key]?.removeAll { $0 == ticket }
        if tickets[ended.candidate.key]?.isEmpty == true { tickets[ended.candidate.key] = nil }
        return ended
    }
}

extension IMSCoreConfiguration {
    /// Whether anybody is told of leases.
    var accounts: Bool { authorities.contains { $0.isToldOfLeases } }

    func authority(over place: IPPrefix) -> Authority? { authorities.first { $0.covers(place) } }
}
