import IMS
import IMSCore
import MATSignal

/// One imsd's part in a cluster on etcd: what it asks of etcd and when, and what that means for its IMS. No I/O, no clock: events
/// with `Now` in, actions out.
///
/// ```
///               connect            authenticate, open             beat unanswered, connection lost
///   link   down ───────► connecting ───────────────► up ──────────────────────────────────────────► down (next member)
///
///               open           last page                 answered, and each own sign of life comes back through it
///   feed   none ────► loading ───────────► following ◄──────────────────────────────────────────►
///                        ▲                     │ what follows is compacted
///                        └─────────────────────┘
/// ```
/// **Nothing goes back.** Every write is a comparison and a put in one transaction (`ClusterValue`), so etcd refuses what is older
/// than what it holds, from whichever instance. A write whose answer is lost is asked again: if it was done, it finds itself.
/// Memory is fed in the order of etcd's revisions, and the core takes only what is newer.
///
/// **Signs of life.** Each instance writes its own key every `beatInterval`. The answer shows that etcd has a quorum and takes
/// writes; that the write comes back through the watch shows that all that was written before has come, too. The others see it as
/// well (ClusterInstance+Living).
struct ClusterInstance: Sendable {
    static let beatInterval: Duration = .milliseconds(500)
    /// How long an answer to a sign of life may take: then another member is asked.
    static let beatTimeMax: Duration = .milliseconds(1000)
    /// How long a sign of life may take through the watch after it was answered.
    static let echoTimeMax: Duration = .seconds(2)
    /// Without an answer for so long, changes are refused until there is one.
    static let patience: Duration = .seconds(2)
    /// How long a change waits for etcd before it fails: an election takes one to two seconds.
    static let changeTimeMax: Duration = .seconds(3)
    /// How long while etcd answers, so that it is only slow: then nodes have given up asking.
    static let busyChangeTimeMax: Duration = .seconds(8)
    /// How long an instance may be silent before it is declared dead. Only time in which the one that judges hears itself counts: so many of
    /// its own signs of life must have come since the last one of the other.
    static let silenceMax: Duration = .seconds(3)
    static let silentSignsMax = 6
    /// How old the last own sign of life may be that came through the watch, for a judgement of others.
    static let echoAgeMax: Duration = .milliseconds(1500)
    /// How soon another attempt is made to declare an instance dead.
    static let deposePause: Duration = .seconds(1)
    /// A cookie secret younger than this is not replaced: every server's clock says at the same time that one is due.
    static let secretAgeMin: UInt64 = 3_600_000
    /// Unless it is from so far ahead that it would not be replaced for long.
    static let secretAheadMax: UInt64 = 300_000
    /// How soon another connection is tried; doubled each time that all members have been tried in vain.
    static let reconnectDelay: Duration = .milliseconds(100)
    static let reconnectDelayMax: Duration = .milliseconds(1600)
    /// How soon subscriptions and remembered mappings are written again after a failure; doubled each time.
    static let newsDelay: Duration = .milliseconds(200)
    static let newsDelayMax: Duration = .seconds(10)
    static let callTimeMax: Duration = .seconds(5)
    /// Between two ticks. After more, this process was stopped, and has to hear from etcd before it answers again.
    static let gapMax: Duration = .milliseconds(400)
    /// How long answers may be given without another tick.
    static let answersAllowance: Duration = .milliseconds(500)
    /// How long answers are held back at most when the connection was lost for longer than this: it answered all the while from what it had.
    static let doubtMax: Duration = .seconds(1)
    /// How long after this process was stopped: what it has may be of long ago, and other servers know better. But if all were stopped and
    /// etcd is not there, an old answer is better than none for good.
    static let sleptDoubtMax: Duration = .seconds(30)
    /// Keys in one page of a read.
    static let pageKeysMax: UInt64 = 2000
    /// Operations in one transaction; etcd takes 128 unless told otherwise.
    static let operationsMax = 100
    /// Transactions of changes on the way at once.
    static let batchesMax = 4
    /// News waiting to be shared: subscriptions and remembered mappings.
    static let newsMax = 65_536
    /// A new lease is asked for when the one in use has this age. What is left of it then outlasts the longest subscription that is told (450 s).
    static let leaseAge: Duration = .seconds(120)
    static let leaseSeconds: Int64 = 600
    /// Other instances that are known at most, dead ones among them.
    static let peersMax = 64
    /// Events that are held while in doubt; a bound for a watch that brings much and never what is waited for.
    static let heldEventsMax = 50_000
    /// Subscriptions that the core is told in one event to serve or to leave.
    static let ordersPerEventMax = 256

    struct Settings: Sendable {
        var keys: ClusterKeys
        var id: InstanceID
        var membersCount: Int
        var login: (user: String, password: String)?
    }

    // MARK: Actions

    enum Action: Sendable {
        /// Connect to the member with this index among the configured ones; `connected` or `disconnected` follows.
        case connect(Int)
        case disconnect
        /// Send this token with every call from now on.
        case useToken(String)
        case call(UInt64, EtcdRequest, within: Duration)
        case watch(EtcdWatch)
        /// What is in memory may be told until then; it is said again in time.
        case answer(until: MonotonicTime)
        /// Answers are held back until the event `caughtUp` with this number has got to the core.
        case withholdAnswers(UInt64)
        /// Tell the IMS.
        case deliver(StoreEvent)
    }

    // MARK: State

    enum Link: Equatable, Sendable {
        case down(until: MonotonicTime)
        case connecting
        case authenticating
        case opening
        case up
    }

    enum Feed: Equatable, Sendable {
        case none
        /// As of this revision.
        case loading(revision: Int64, PageCursor)
        /// All up to this revision has come.
        case following(revision: Int64)
    }

    /// What a call was made for.
    enum Purpose: Equatable, Sendable {
        case authenticate
        case open
        case page
        case beat(UInt64)
        case changes
        case secret
        case lease
        case news
        case depose(InstanceID)
    }

    let settings: Settings
    var keys: ClusterKeys { settings.keys }
    var link: Link
    var feed = Feed.none
    var hasLoaded = false
    var isClosing = false
    /// Whether there is a core that pushes.
    var serves = false
    var calls: [UInt64: Purpose] = [:]
    var actions: [Action] = []
    private var member = 0
    private var lastCall: UInt64 = 0

    // Whether etcd takes writes.
    var answeredAt: MonotonicTime
    var isUnavailable = false
    var trouble = "etcd was not reached yet"
    private(set) var beatCount: UInt64 = 0
    var nextBeat: MonotonicTime
    private var isBeating = false
    var echoedCount: UInt64 = 0
    /// When the signs of life were answered that have not come back through the watch.
    var beatsUnechoed: [(count: UInt64, at: MonotonicTime)] = []
    /// When the watch last brought our own sign of life.
    var echoedAt: MonotonicTime?

    private var tickedAt: MonotonicTime
    /// Answers are held back until this time, or until the sign of life with this count has come back.
    private(set) var doubt: (until: MonotonicTime, count: UInt64)?
    /// What the watch brought since then.
    var heldEvents: [EtcdWatchResponse.Event] = []
    private var doubtsCount: UInt64 = 0
    private var lostAt: MonotonicTime
    /// Connections lost or not made since etcd last took a sign of life.
    private var failedConnections = 0

    var changes = ChangeQueue()
    var sharing = SharingState()
    var living: LivingState
    /// The cookie secrets as of a revision of their key.
    private var secrets: [CookieSecret] = []
    private var secretsRevision: Int64 = 0

    init(_ settings: Settings, now: Now) {
        self.settings = settings
        living = LivingState(own: settings.id)
        link = .down(until: now.monotonic)
        answeredAt = now.monotonic
        nextBeat = now.monotonic
        tickedAt = now.monotonic
        lostAt = now.monotonic
    }

    // MARK: Events

    /// Called at least every 100 ms.
    mutating func tick(_ now: Now) -> [Action] {
        noticeSleep(now)
        tickedAt = now.monotonic
        if let until = doubt?.until, until <= now.monotonic { endDoubt(now) }
        if doubt == nil { allowAnswers(now) }
        if case .down(let until) = link, until <= now.monotonic {
            link = .connecting
            actions.append(.connect(member % max(1, settings.membersCount)))
        }
        if link == .up {
            beat(now)
            // While pages are read there is no watch yet.
            if case .following = feed, let first = beatsUnechoed.first, first.at + Self.echoTimeMax < now.monotonic {
                drop("the watch is silent", now)
            }
            tendSharing(now)
            deposeIfDue(now)
        }
        judge(now)
        failOverdueChanges(now)
        return take()
    }

    mutating func connected(_ now: Now) -> [Action] {
        guard link == .connecting else { return take() }
        if let login = settings.login {
            link = .authenticating
            call(.authenticate, .authenticate(user: login.user, password: login.password), within: Self.beatTimeMax)
        } else {
            open()
        }
        return take()
    }

    mutating func disconnected(_ reason: String, _ now: Now) -> [Action] {
        lose(reason, now)
        return take()
    }

    mutating func watchEnded(_ error: EtcdError, _ now: Now) -> [Action] {
        if case .following = feed, link == .up { drop("the watch ended: \(error)", now) }
        return take()
    }

    mutating func answered(_ id: UInt64, _ result: Result<EtcdResponse, EtcdError>, _ now: Now) -> [Action] {
        noticeSleep(now)
        guard let purpose = calls.removeValue(forKey: id) else { return take() }
        switch result {
        case .success(let response): succeeded(purpose, id, response, now)
        case .failure(let error): failed(purpose, id, error, now)
        }
        return take()
    }

    private mutating func succeeded(_ purpose: Purpose, _ id: UInt64, _ response: EtcdResponse, _ now: Now) {
        switch purpose {
        case .authenticate:
            actions.append(.useToken(response.token))
            open()
        case .open: opened(response, now)
        case .page: takePage(response, now)
        case .beat(let count):
            isBeating = false
            failedConnections = 0
            writesAgain(now)
            changes.canSend = true
            if count > echoedCount { beatsUnechoed.append((count, now.monotonic)) }
            sendChanges(now)
        case .changes:
            writesAgain(now)
            finishChanges(id, response, now)
            sendChanges(now)
        case .secret:
            // The watch tells all instances of a new one; who was slower takes what is there.
            if !response.succeeded { takeSecrets(response.responses.first?.pairs.first) }
        case .lease: takeLease(response.lease, now)
        case .news: newsSent(response, now)
        // What came of it is told by the watch, to all at the same place in the log.
        case .depose: living.isDeposing = false
        }
    }

    private mutating func failed(_ purpose: Purpose, _ id: UInt64, _ error: EtcdError, _ now: Now) {
        trouble = error.description
        if case .changes = purpose { batchFailed(id, error, now) }
        switch error.kind {
        case .unreachable, .unauthenticated: return drop(error.description, now)
        case .unavailable where purpose.isVital: return drop(error.description, now)
        default: break
        }
        switch purpose {
        case .authenticate, .open: drop(error.description, now)
        case .page where error.kind == .compacted:
            // It took longer than etcd keeps old revisions: read again from the start, as it is now.
            feed = .none
            open()
        case .page: drop(error.description, now)
        case .beat:
            isBeating = false
            if error.kind == .noSpace || error.kind == .refused { declareUnavailable(error.description) }
        case .changes: break
        case .secret: actions.append(.deliver(.failed("a cookie secret is not shared: \(error)")))
        case .lease: leaseFailed(error, now)
        case .news: newsFailed(error, now)
        case .depose: deposeFailed(now)
        }
    }

    // MARK: Link

    private mutating func open() {
        link = .opening
        let format = keys.octets(.format)
        let cookies = EtcdOperation.range(EtcdRange(key: keys.octets(.cookies)))
        call(
            .open,
            .transaction(
                EtcdTransaction(
                    compare: [.absent(format)],
                    success: [.put(EtcdPut(key: format, value: [UInt8(ascii: "1")])), cookies],
                    failure: [.range(EtcdRange(key: format)), cookies])),
            within: Self.beatTimeMax)
    }

    private mutating func opened(_ response: EtcdResponse, _ now: Now) {
        if !response.succeeded, response.responses.first?.pairs.first?.value != [UInt8(ascii: "1")] {
            declareUnavailable("what is in etcd was written by a newer imsd; install that one")
            return drop("the format is unknown", now, wait: .seconds(5))
        }
        link = .up
        nextBeat = now.monotonic
        beatsUnechoed = []
        isBeating = false
        // Others may have gone on for long.
        if lostAt + Self.doubtMax < now.monotonic { beginDoubt(for: Self.doubtMax, now) }
        takeSecrets(response.responses.dropFirst().first?.pairs.first)
        switch feed {
        case .none:
            takeHeldEvents(now)
            feed = .loading(revision: response.revision, PageCursor(keys))
            living.beginReading(at: response.revision)
            readPage()
        case .loading: readPage()
        case .following(let revision): follow(revision)
        }
        beat(now)
        sendChanges(now)
    }

    /// Gives the connection up and tries the next member.
    mutating func drop(_ reason: String, _ now: Now, wait: Duration? = nil) {
        actions.append(.disconnect)
        lose(reason, now, wait: wait)
    }

    private mutating func lose(_ reason: String, _ now: Now, wait: Duration? = nil) {
        if case .down = link { return }
        trouble = reason
        if link == .up { lostAt = now.monotonic }
        link = .down(until: now.monotonic + (wait ?? reconnectDelay))
        failedConnections += 1
        member &+= 1
        isBeating = false
        echoedAt = nil
        beatsUnechoed = []
        living.isDeposing = false
        // Each goes to the front, so the oldest, which goes last, ends there.
        for (id, _) in calls.filter({ $0.value == .changes }).sorted(by: { $0.key > $1.key }) { changes.putBack(id) }
        calls = [:]
        sharing.linkLost()
    }

    private var reconnectDelay: Duration {
        let rounds = min(failedConnections / max(1, settings.membersCount), 10)
        return min(Self.reconnectDelay * (1 << rounds), Self.reconnectDelayMax)
    }

    mutating func call(_ purpose: Purpose, _ request: EtcdRequest, within time: Duration = Self.callTimeMax) {
        _ = callID(purpose, request, within: time)
    }

    mutating func callID(_ purpose: Purpose, _ request: EtcdRequest, within time: Duration = Self.callTimeMax) -> UInt64 {
        lastCall &+= 1
        calls[lastCall] = purpose
        actions.append(.call(lastCall, request, within: time))
        return lastCall
    }

    private mutating func take() -> [Action] {
        defer { actions = [] }
        return actions
    }

    // MARK: Whether etcd takes writes

    mutating func beat(_ now: Now) {
        guard !isBeating, nextBeat <= now.monotonic else { return }
        // After good-bye the same again and again, so that nobody takes it for a return, until `close`.
        guard !isClosing || living.farewell == .due else { return }
        isBeating = true
        nextBeat = now.monotonic + Self.beatInterval
        if living.farewell == nil { beatCount += 1 }
        let put = signOfLife()
        if living.farewell == .due { living.farewell = .said }
        call(.beat(beatCount), .transaction(EtcdTransaction(success: [.put(put)])), within: Self.beatTimeMax)
    }

    private mutating func writesAgain(_ now: Now) {
        answeredAt = now.monotonic
        guard isUnavailable else { return }
        isUnavailable = false
        actions.append(.deliver(.available))
    }

    /// A single slow answer is no trouble yet.
    private mutating func judge(_ now: Now) {
        guard !isUnavailable, answeredAt + Self.patience < now.monotonic else { return }
        declareUnavailable(trouble)
    }

    mutating func declareUnavailable(_ reason: String) {
        guard !isUnavailable else { return }
        isUnavailable = true
        actions.append(.deliver(.unavailable(reason)))
    }

    /// Our own sign of life has come back through the watch, and all that was written before it.
    mutating func echoed(_ count: UInt64, _ now: Now) {
        echoedCount = max(echoedCount, count)
        beatsUnechoed.removeAll { $0.count <= count }
        echoedAt = now.monotonic
        if isAwaited(count) { endDoubt(now) }
    }

    // MARK: Whether answers may be given

    /// Whoever is called first after a stop finds out: the watch's socket may be read before the timer is seen to.
    mutating func noticeSleep(_ now: Now) {
        guard tickedAt + Self.gapMax < now.monotonic else { return }
        tickedAt = now.monotonic
        // Not etcd was silent.
        answeredAt = now.monotonic
        beginDoubt(for: Self.sleptDoubtMax, now)
    }

    /// What was written while we were away has come when a sign of life of now has.
    private mutating func beginDoubt(for time: Duration, _ now: Now) {
        guard hasLoaded else { return }
        // What was due while we were away is not late: it lies in the socket, to be read.
        beatsUnechoed = []
        doubtsCount += 1
        doubt = (max(now.monotonic + time, doubt?.until ?? .zero), beatCount + 1)
        nextBeat = now.monotonic
        actions.append(.withholdAnswers(doubtsCount))
    }

    /// The core, which has still to take in what was handed to it, says when answers are given again.
    private mutating func endDoubt(_ now: Now) {
        doubt = nil
        takeHeldEvents(now)
        actions.append(.deliver(.caughtUp(doubtsCount)))
        allowAnswers(now)
    }

    func isAwaited(_ count: UInt64) -> Bool { doubt.map { count >= $0.count } ?? false }

    private mutating func allowAnswers(_ now: Now) { actions.append(.answer(until: now.monotonic + Self.answersAllowance)) }

    // MARK: Cookie secrets

    /// Asks to make cookies with this secret from now on. One instance rotates: if another has just done so, it stays at that.
    mutating func write(_ secret: CookieSecret, _ now: Now) -> [Action] {
        guard link == .up else {
            actions.append(.deliver(.failed("a cookie secret is not shared: \(trouble)")))
            return take()
        }
        if let newest = secrets.first, secret.madeAt < newest.madeAt &+ Self.secretAgeMin,
            newest.madeAt < now.wallMilliseconds &+ Self.secretAheadMax
        {
            actions.append(.deliver(.secrets(secrets)))
            return take()
        }
        let put = EtcdPut(key: keys.octets(.cookies), value: ClusterValue.encode([secret] + secrets))
        call(
            .secret,
            .transaction(
                EtcdTransaction(
                    compare: [.modifiedAt(put.key, secretsRevision)], success: [.put(put)],
                    failure: [.range(EtcdRange(key: put.key))])))
        return take()
    }

    mutating func takeSecrets(_ pair: EtcdKeyValue?) {
        guard let pair else {
            if secretsRevision == 0 { actions.append(.deliver(.secrets([]))) }
            return
        }
        guard pair.modRevision > secretsRevision else { return }
        secretsRevision = pair.modRevision
        guard let secrets = ClusterValue.secrets(pair.value), !secrets.isEmpty else {
            // Nobody can use these; whoever is first makes new ones.
            actions.append(.deliver(.failed("the cookie secrets in etcd can't be read and are replaced")))
            actions.append(.deliver(.secrets([])))
            return
        }
        self.secrets = secrets
        actions.append(.deliver(.secrets(secrets)))
    }
}

extension ClusterInstance.Purpose {
    /// Whether nothing works without it, so that a refusal means to try another member.
    fileprivate var isVital: Bool {
        switch self {
        case .authenticate, .open, .page, .beat: true
        default: false
        }
    }
}
