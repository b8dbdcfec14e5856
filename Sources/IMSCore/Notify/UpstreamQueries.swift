import MATCore
import MATSignal

/// MA Queries to other IMSs, one for each HoA that is being found out about.
///
/// ```
///              begin                                           the answer is taken; 5 tries; end
///   (nothing) ───────► asked, sequence n, next try at t ─────────────────────────────────────────► (nothing)
///                        │ ▲  └─ due ─► one server, from the third try on two at a time
///                        │ │  └─ code 9 ─► the same server at once under the cookie that it brought, twice at most
///                        └─┘  └─ askAgain ─► after a pause, under another sequence number, with all tries
/// ```
/// A server that has never answered anything gets two tries, others all five (section 7).
struct UpstreamQueries: Sendable {
    private struct Query: Sendable {
        var sequence: UInt32
        /// In the order to try them.
        var servers: [Endpoint]
        var retransmission: Retransmission
        var tries: [Endpoint: Int] = [:]
        var cookiesFollowed = 0

        /// Whom to ask in the try that begins: one server at first, from the third try on the next one too.
        func targets(_ known: KnownServers) -> [Endpoint] {
            if retransmission.isExhausted { return [] }
            let askable = servers.filter {
                known.hasAnswered($0.address) || (tries[$0] ?? 0) < UpstreamQueries.triesToStrangerMax
            }
            let isLate = retransmission.tries + 1 >= Retransmission.failoverTry
            return Array(askable.prefix(isLate ? 2 : 1))
        }
    }

    private var queries: [HomeAddress: Query] = [:]
    private var hoas: [UInt32: HomeAddress] = [:]
    private var deadlines = DeadlineQueue<HomeAddress>()

    /// Tries to a server that has never answered (section 7).
    static let triesToStrangerMax = 2

    enum OnTry: Sendable {
        case ask([Endpoint], sequence: UInt32)
        /// All tries were made, or there is nobody to ask.
        case silent
    }

    /// What an answer is, which is one to a query of ours.
    struct OnAnswer: Sendable {
        var hoa: HomeAddress
        /// The cookie that the server wants; it is asked once more.
        var isCookieFollowed: Bool
    }

    /// Whether IMS_MN of the HoA is being asked.
    func isAsking(_ hoa: HomeAddress) -> Bool { queries[hoa] != nil }

    mutating func begin(_ hoa: HomeAddress, _ servers: [Endpoint], _ known: KnownServers, _ random: inout CoreRandom, _ now: Now)
        -> OnTry
    {
        let sequence = random.sequence { hoas[$0] != nil }
        queries[hoa] = Query(
            sequence: sequence, servers: servers, retransmission: Retransmission(type: .maQuery, now: now.monotonic))
        hoas[sequence] = hoa
        return tryNow(hoa, known, now)
    }

    /// The answer does not settle it: it is asked for again after a pause.
    mutating func askAgain(_ hoa: HomeAddress, after pause: Duration, _ random: inout CoreRandom, _ now: Now) {
        guard var query = queries[hoa] else { return }
        hoas[query.sequence] = nil
        query.sequence = random.sequence { hoas[$0] != nil }
        query.retransmission = Retransmission(type: .maQuery, now: now.monotonic)
        query.tries = [:]
        hoas[query.sequence] = hoa
        queries[hoa] = query
        deadlines.set(hoa, at: now.monotonic + pause)
    }

    mutating func end(_ hoa: HomeAddress) {
        if let query = queries.removeValue(forKey: hoa) { hoas[query.sequence] = nil }
        deadlines.cancel(hoa)
    }

    /// An MA Answer came.
    ///
    /// - Returns: `nil` if it answers no query of ours.
    mutating func answered(_ answer: MAAnswer, _ sequence: UInt32, from source: Endpoint, _ known: KnownServers) -> OnAnswer? {
        guard let hoa = hoas[sequence], let query = queries[hoa], query.tries[source] != nil,
            known.isOurs(answer.cookie, from: KnownServers.Peer(endpoint: source, local: nil))
        else { return nil }
        if let answered = answer.hoa, answered != hoa { return nil }
        let follows =
            answer.code == .cookieRequired && answer.cookie.server != nil && query.cookiesFollowed < Retransmission.cookiesFollowedMax
        if follows { queries[hoa]?.cookiesFollowed += 1 }
        return OnAnswer(hoa: hoa, isCookieFollowed: follows)
    }

    // MARK: Time

    var nextDeadline: MonotonicTime? { mutating get { deadlines.next } }

    /// - Returns: the HoA whose next try is due; `nil` if nothing is.
    mutating func due(_ known: KnownServers, _ now: Now) -> (hoa: HomeAddress, outcome: OnTry)? {
        guard let hoa = deadlines.takeDue(now.monotonic) else { return nil }
        return (hoa, tryNow(hoa, known, now))
    }

    private mutating func tryNow(_ hoa: HomeAddress, _ known: KnownServers, _ now: Now) -> OnTry {
        guard var query = queries[hoa] else { return .silent }
        let targets = query.targets(known)
        guard !targets.isEmpty else { return .silent }
        query.retransmission.tried(at: now.monotonic)
        for target in targets { query.tries[target, default: 0] += 1 }
        queries[hoa] = query
        deadlines.set(hoa, at: query.retransmission.due)
        return .ask(targets, sequence: query.sequence)
    }
}
