import MATSignal

/// Joins by one token, on their way to the store: one write at a time, with all that came meanwhile in the next.
///
/// ```
///                      nothing is written                  durable ──────────► their replies; the next
///   Join ─► waiting ─────────────────────► written (a few) ─┤
///             ▲                                             ├ other versions ─► looked at anew, with what the store has; five times, then code 7
///             │  full: code 7                               └ failed ─────────► code 7
/// ```
/// The token counts its uses, so each write needs the one before: who wrote two at once would have the second refused by the store.
struct JoinQueue: Sendable {
    enum Key: Hashable, Sendable {
        case token(TokenID)
        case visitor(HomeAddress)
    }

    /// One node that joins, and what waits for the same answer.
    struct Candidate: Sendable {
        var key: PublicKey
        var origin: Lease.Origin
        var wanted: IPPrefix?
        /// Seconds.
        var lifetime: UInt32?
        /// The server's address that it knows.
        var requests: [Request]
        var tries = 0
        /// Who said that it may, and for how long at most (seconds).
        var authority: String?
        var secondsMax: UInt32?

        func isRepeatedBy(_ other: Candidate) -> Bool {
            key == other.key && origin == other.origin && wanted == other.wanted && lifetime == other.lifetime
        }
    }

    /// What a write gives one of them.
    struct Given: Sendable {
        var candidate: Candidate
        var grant: JoinReply.Grant
        /// It had that before.
        var isAgain = false
        /// By it one visitor more is here.
        var isFurtherVisitor = false
    }

    static let waitingMax = 512
    /// Equal ones that wait for one answer; more are repetitions of a client that is being answered anyway.
    static let requestsMax = 4
    /// Joins in one write: two rows and a certificate each.
    static let batchMax = 30
    static let triesMax = 5

    private var waiting: [Candidate] = []
    private(set) var written: [Given] = []

    var isEmpty: Bool { waiting.isEmpty && written.isEmpty }
    var isWriting: Bool { !written.isEmpty }

    /// Whether an equal one waits for its answer.
    func contains(_ candidate: Candidate) -> Bool {
        written.contains { $0.candidate.isRepeatedBy(candidate) } || waiting.contains { $0.isRepeatedBy(candidate) }
    }

    /// - Parameter isShared: whether other servers write too: then what is being written may be old by the time that its answer comes, and who asked
    ///   since it began is not answered with it.
    /// - Returns: whether it waits.
    mutating func add(_ candidate: Candidate, isShared: Bool) -> Bool {
        if !isShared, let index = written.firstIndex(where: { $0.candidate.isRepeatedBy(candidate) }) {
            if written[index].candidate.requests.count < Self.requestsMax { written[index].candidate.requests += candidate.requests }
            return true
        }
        if let index = waiting.firstIndex(where: { $0.isRepeatedBy(candidate) }) {
            if waiting[index].requests.count < Self.requestsMax { waiting[index].requests += candidate.requests }
            return true
        }
        guard waiting.count < Self.waitingMax else { return false }
        waiting.append(candidate)
        return true
    }

    /// The next ones to be decided about; none while a write is on its way.
    mutating func take() -> [Candidate] {
        guard !isWriting else { return [] }
        defer { waiting.removeFirst(min(Self.batchMax, waiting.count)) }
        return Array(waiting.prefix(Self.batchMax))
    }

    mutating func begin(_ given: [Given]) { written = given }

    /// These have to wait for what is being written.
    mutating func putBack(_ candidates: [Candidate]) { waiting = candidates + waiting }

    /// The write has ended.
    mutating func end() -> [Given] {
        defer { written = [] }
        return written
    }

    /// Others were quicker: these are looked at again, first of all.
    ///
    /// - Returns: those that have been often enough.
    mutating func retry(_ given: [Given]) -> [Candidate] {
        var given = given.map(\.candidate)
        for index in given.indices { given[index].tries += 1 }
        waiting = given.filter { $0.tries < Self.triesMax } + waiting
        return given.filter { $0.tries >= Self.triesMax }
    }
}
