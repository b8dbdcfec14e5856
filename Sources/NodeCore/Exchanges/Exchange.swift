import MATCore
import MATSignal

/// A request under way: what it is for, whom it asks, and when it is tried again.
///
/// ```
///   begins ──► waits for the answer ◄──────────────── its turn has come ────┐
///                │   │  ▲   │                                               │
///                │   │  └───┤ "cookie required", at most twice: once more,  │
///                │   │      │ with the cookie that came                     │
///                │   │      └ any other answer ──► ended                    │
///                │   └ the next try is due, but others have their turn ──► queued
///                └ no try is left ──► given up
/// ```
struct Exchange: Sendable {
    /// What it is for. For each purpose there is at most one at a time.
    enum Purpose: Hashable, Sendable {
        /// IMS Update of the own HoA.
        case register(HomeAddress)
        /// MA Query for the own HoA, sent from one MoA to get a cookie as proof of that location.
        case prove(HomeAddress, MobileAddress)
        /// MA Query for the own HoA, for the time that the own IMS's cookie carries.
        case readClock(HomeAddress)
        /// MA Query for the own HoA: whether the own IMS still has our record.
        case checkSelf(HomeAddress)
        /// MA Query to a peer's IMS: start of communication, poll, and confirmation alike.
        case queryPeer(HomeAddress)
        /// HA Notify to the peer's IMS.
        case notifyServer(HomeAddress)
        /// MA Notify to the peer itself.
        case notifyPeer(HomeAddress)
        /// MA Notify to a new peer, for its cookie; see `introduce`.
        case introduce(HomeAddress)
        /// HA Query to the own IMS.
        case identify(MobileAddress)
        /// MA Query to a peer's locator.
        case checkLocator(HomeAddress, MobileAddress)
        /// IMS Update of the record that is registered, from an own address that was refused: does the IMS see that address now?
        case tryUplink(HomeAddress, MobileAddress)
        /// Bind without HoA: where does this server see this own MoA?
        case observe(OwnEndpoints.Question)
        /// Bind at an own server, signed; and its refresh.
        case bind(OwnBindings.Key)
        case refresh(OwnBindings.Key)
        /// Bind with a lifetime of 0.
        case endBinding(OwnBindings.Key)

        var type: MessageType {
            switch self {
            case .register, .tryUplink: .imsUpdate
            case .prove, .readClock, .checkSelf, .queryPeer, .checkLocator: .maQuery
            case .notifyServer: .haNotify
            case .notifyPeer, .introduce: .maNotify
            case .identify: .haQuery
            case .observe, .bind, .refresh, .endBinding: .bind
            }
        }

        /// Its message carries the cookie that its receiver gave, if there is one. Otherwise a fresh cookie is what it asks for, or its
        /// receiver needs none.
        var carriesCookie: Bool {
            switch self {
            case .prove, .readClock, .checkLocator, .observe: false
            case .register, .tryUplink, .checkSelf, .queryPeer, .notifyServer, .notifyPeer, .introduce, .identify, .bind, .refresh, .endBinding:
                true
            }
        }

        /// "Cookie required" is an answer to it: the cookie that comes along is what it asks for.
        var wantsCookieOnly: Bool {
            switch self {
            case .prove, .readClock: true
            case .register, .tryUplink, .checkSelf, .queryPeer, .notifyServer, .notifyPeer, .introduce, .identify, .checkLocator, .observe, .bind,
                .refresh, .endBinding:
                false
            }
        }

        /// It goes where a record says that its node is, which anybody can write.
        var isToUnproven: Bool {
            switch self {
            case .checkLocator, .notifyPeer, .introduce: true
            case .register, .prove, .queryPeer, .notifyServer, .identify, .tryUplink, .readClock, .checkSelf, .observe, .bind, .refresh, .endBinding:
                false
            }
        }

        /// Whether the rest of the peers' requests must leave room for it. Our own registration and what people wait for go at once.
        var isPaced: Bool {
            switch self {
            case .queryPeer, .notifyServer, .notifyPeer, .introduce, .checkLocator: true
            case .register, .prove, .identify, .tryUplink, .readClock, .checkSelf, .observe, .bind, .refresh, .endBinding:
                false
            }
        }

        /// Whether a response is about what was asked (section 6): its HOA or MOA, where it has one, is that of the request.
        ///
        /// - Parameter own: our own HoA of each family.
        func fits(_ body: SignalMessage.Body, own: FamilyPair<HomeAddress?>) -> Bool {
            switch (body, self) {
            case (.imsUpdateReply, .register), (.imsUpdateReply, .tryUplink): true
            case (.maAnswer(let answer), .prove(let hoa, _)), (.maAnswer(let answer), .queryPeer(let hoa)),
                (.maAnswer(let answer), .checkLocator(let hoa, _)),
                (.maAnswer(let answer), .readClock(let hoa)), (.maAnswer(let answer), .checkSelf(let hoa)):
                answer.hoa == nil || answer.hoa == hoa
            case (.haNotifyAck(let ack), .notifyServer(let peer)): ack.hoa == nil || ack.hoa == own[peer.family]
            case (.haAnswer(let answer), .identify(let moa)): answer.moa == nil || answer.moa == moa
            case (.maNotifyAck(let ack), .notifyPeer(let peer)), (.maNotifyAck(let ack), .introduce(let peer)):
                ack.hoa == nil || ack.hoa == own[peer.family]
            case (.bindAck(let ack), .observe): ack.granted == nil
            case (.bindAck(let ack), .bind(let key)), (.bindAck(let ack), .refresh(let key)), (.bindAck(let ack), .endBinding(let key)):
                ack.granted.map { $0.hoa == key.hoa } ?? true
            default: false
            }
        }
    }

    private enum State {
        /// For the answer, until `retransmission` says.
        case waiting
        /// The next try is due, and its turn comes; see `Pace`.
        case queued
    }

    let sequence: UInt32
    let purpose: Purpose
    /// In order of try.
    let targets: [Endpoint]
    /// The own address to send from; `nil`: the preferred one of the target's family at each try.
    let source: IPAddress?
    /// Which of our moves its answer shows to be known (`Announcement.toldNumber`); `nil` if it tells of none.
    let move: UInt32?
    /// When the first try was sent; after a move the first of those from there.
    private(set) var began: MonotonicTime
    /// Whether the last message carried a server cookie: without one the receiver does only what costs it nothing.
    private(set) var hadCookie = false
    private(set) var retransmission: Retransmission
    /// Fewer tries than usual, for requests that only improve matters.
    private let triesMax: Int
    private var state = State.waiting
    private var target = 0
    private var cookiesFollowed = 0
    /// The endpoints asked so far: only they may answer.
    private var asked: [Endpoint] = []

    /// - Parameter targets: at least one.
    init(
        _ purpose: Purpose, sequence: UInt32, to targets: [Endpoint], from source: IPAddress?, move: UInt32?, triesMax: Int,
        smoothedRTT: Duration?, now: MonotonicTime
    ) {
        self.sequence = sequence
        self.purpose = purpose
        self.targets = targets
        self.source = source
        self.move = move
        self.triesMax = triesMax
        began = now
        retransmission = Retransmission(type: purpose.type, smoothedRTT: smoothedRTT, now: now)
    }

    /// The next try is due.
    ///
    /// - Returns: whether it may go; otherwise it is due again at its turn.
    mutating func isTurn(_ pace: inout Pace, _ now: MonotonicTime) -> MonotonicTime? {
        guard purpose.isPaced, state == .waiting else {
            state = .waiting
            return nil
        }
        let turn = pace.turn(now)
        guard turn > now else { return nil }
        state = .queued
        return turn
    }

    /// Makes the next try.
    ///
    /// - Returns: whom to send it to; nobody if all tries are used up.
    mutating func attempt(_ servers: ServerTable, _ now: MonotonicTime) -> [Endpoint] {
        // Section 7: an IMS that has never answered gets two HA Notify, whatever else is asked of it.
        let isUnknown = purpose.type == .haNotify && !targets.contains { servers.hasAnswered($0.address) }
        guard retransmission.tries < (isUnknown ? min(triesMax, 2 * targets.count) : triesMax) else { return [] }
        retransmission.tried(at: now)
        if retransmission.tries == 1 { began = now }
        // From the third try on the next server is asked in parallel; where there is one only, it is just asked again.
        guard retransmission.tries >= Retransmission.failoverTry, targets.count > 1 else { return [targets[target]] }
        let first = targets[target]
        nextTarget()
        return [first, targets[target]]
    }

    private mutating func nextTarget() { target = (target + 1) % targets.count }

    /// There is no own address of a target's family to send from. The next target may be of one that we have.
    mutating func couldNotAsk() {
        if targets.count > 1 { nextTarget() }
    }

    mutating func didAsk(_ target: Endpoint, with cookie: Cookie) {
        if !asked.contains(target) { asked.append(target) }
        hadCookie = cookie.server != nil
    }

    func mayAnswer(_ endpoint: Endpoint) -> Bool { asked.contains(endpoint) }

    /// It begins anew from where we are now: after a move the old source is no use.
    mutating func startOver(_ now: MonotonicTime) {
        retransmission = Retransmission(type: purpose.type, now: now)
        cookiesFollowed = 0
        state = .waiting
    }

    /// The receiver wants its cookie, which came along.
    ///
    /// - Returns: whether to send it again with that.
    mutating func followsCookie() -> Bool {
        guard cookiesFollowed < Retransmission.cookiesFollowedMax else { return false }
        cookiesFollowed += 1
        return true
    }

    /// The round trip that an answer now shows, if it shows one.
    ///
    /// Which of two tries was answered can't be told; but on a path that takes longer than the first repetition every request would be
    /// repeated, and nothing ever learned. Too much is mended by the next sample, too little would be for ever.
    ///
    /// - Parameter isFirst: none is known yet.
    func roundTrip(isFirst: Bool, _ now: MonotonicTime) -> Duration? {
        cookiesFollowed == 0 && (isFirst ? 1...2 : 1...1).contains(retransmission.tries) ? now - began : nil
    }
}
