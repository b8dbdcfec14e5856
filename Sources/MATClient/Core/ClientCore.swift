import MATCore
import MATSignal

/// All that a client follows, and who each datagram is for. Wiring: `Following` says what is done, `Inquiry` how servers are asked.
///
/// ```
///   MA Answer ── by its sequence number ──► a following
///   MA Notify ── without our cookie ──► code 9 and one      (protocol.md section 6: nothing is checked for who has not shown where it is)
///             └─ with it ── by the home address ──► each watch of it ──► MA Notify Ack; code 2 ends the subscription of nobody's watch
/// ```
struct ClientCore: Sendable {
    struct FollowingID: Hashable, Comparable, Sendable {
        fileprivate let number: UInt64
        static func < (a: FollowingID, b: FollowingID) -> Bool { a.number < b.number }
    }

    enum Action: Sendable {
        case lookUp(FollowingID, HomeAddress)
        case send([UInt8], to: Endpoint)
        case tell(FollowingID, WatchNews)
        case end(FollowingID)
    }

    /// Looked up and watched at a time.
    static let followingsMax = 4096
    /// Records in MA Notify that are checked in a second.
    static let pushesPerSecond = 100

    private var followings: [FollowingID: Following] = [:]
    private var questions: [UInt32: FollowingID] = [:]
    private var deadlines = DeadlineQueue<FollowingID>()
    private var began: UInt64 = 0
    private var random: any RandomNumberGenerator & Sendable
    private var cookies: CookieAuthority?
    private var pushes = RateLimit(perSecond: pushesPerSecond)

    init(random: any RandomNumberGenerator & Sendable) {
        self.random = random
        let secret = (0..<16).map { _ in UInt8(truncatingIfNeeded: self.random.next() as UInt64) }
        cookies = CookieAuthority(secret: secret)
    }

    var count: Int { followings.count }
    var nextDue: MonotonicTime? { mutating get { deadlines.next } }

    // MARK: Who wants to know

    /// - Returns: `nil` if there are too many already.
    mutating func begin(_ hoa: HomeAddress, _ purpose: Following.Purpose) -> (FollowingID, [Action])? {
        guard followings.count < Self.followingsMax else { return nil }
        began += 1
        let id = FollowingID(number: began)
        var following = Following(hoa, purpose)
        let actions = following.begin()
        followings[id] = following
        return (id, settle(id, following, actions))
    }

    /// Nobody wants to know any more.
    mutating func end(_ id: FollowingID) {
        if let sequence = followings[id]?.sequence { questions[sequence] = nil }
        followings[id] = nil
        deadlines.cancel(id)
    }

    // MARK: Events

    mutating func lookedUp(_ id: FollowingID, _ result: IMSLookupResult, _ now: Now) -> [Action] {
        change(id) { following, random in following.lookedUp(result, random: &random, now) }
    }

    mutating func due(_ now: Now) -> [Action] {
        var actions: [Action] = []
        while let id = deadlines.takeDue(now.monotonic) {
            actions += change(id) { following, random in following.due(random: &random, now) }
        }
        return actions
    }

    mutating func received(_ datagram: [UInt8], from source: Endpoint, _ now: Now) -> [Action] {
        var actions: [Action] = []
        for case .message(let message, _) in SignalDatagram.decode(datagram) {
            switch message.body {
            case .maAnswer(let answer):
                guard let id = questions[message.sequence] else { continue }
                actions += change(id) { following, random in
                    following.received(answer, message.sequence, from: source, random: &random, now) ?? []
                }
            case .maNotify(let notify): actions += pushed(notify, message.sequence, from: source, now)
            default: continue
            }
        }
        return actions
    }

    private mutating func pushed(_ notify: MANotify, _ sequence: UInt32, from source: Endpoint, _ now: Now) -> [Action] {
        guard let cookies else { return [] }
        let hoa = notify.record.mapping.record.hoa
        var ack = MANotifyAck(
            code: .notFound,
            cookie: Cookie(client: notify.cookie.client, server: cookies.make(for: source, clientCookie: notify.cookie.client, now: now)),
            hoa: hoa)
        var actions: [Action] = []
        if !cookies.isValid(notify.cookie, from: source, now: now) {
            ack.code = .cookieRequired
            ack.hoa = nil
        } else if !pushes.take(at: now.monotonic) {
            ack.code = .tryLater
            ack.lifetime = 1
        } else {
            for id in followings.keys.sorted() {
                guard let answer = followings[id]?.pushed(notify.record, now) else { continue }
                ack.code = answer.answer
                ack.current = answer.current
                actions += settle(id, followings[id], answer.actions)
            }
        }
        return actions + [.send(SignalMessage(sequence: sequence, .maNotifyAck(ack)).octets, to: source)]
    }

    // MARK: Bookkeeping

    private mutating func change(
        _ id: FollowingID, _ event: (inout Following, inout any RandomNumberGenerator & Sendable) -> [Following.Action]
    ) -> [Action] {
        guard var following = followings[id] else { return [] }
        if let sequence = following.sequence { questions[sequence] = nil }
        let actions = event(&following, &random)
        followings[id] = following
        return settle(id, following, actions)
    }

    private mutating func settle(_ id: FollowingID, _ following: Following?, _ actions: [Following.Action]) -> [Action] {
        if let sequence = following?.sequence { questions[sequence] = id }
        if let due = following?.due { deadlines.set(id, at: due) } else { deadlines.cancel(id) }
        return actions.map { action in
            switch action {
            case .lookUp(let hoa): return .lookUp(id, hoa)
            case .send(let octets, let server): return .send(octets, to: server)
            case .tell(let news): return .tell(id, news)
            case .end:
                end(id)
                return .end(id)
            }
        }
    }
}
