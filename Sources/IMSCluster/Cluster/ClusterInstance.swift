import IMSCore
import MATSignal

/// One imsd's part in a cluster on etcd: what it asks of etcd and when, and what that means for its IMS. No I/O, no clock: events
/// with `Now` in, actions out.
///
/// ```
///   EtcdStore ── tick, connected, answered, watched ──► MemberLink    the connection to one member after the other
///                                                       MemberProbe   whether that one answers at all; elections
///                                                       Heartbeat     own signs of life, sent and come back
///                                                       Availability  whether etcd takes writes
///                                                       Doubt         whether what is in memory may be told
///                                                       Feed          what is in etcd, read once and then followed
///                                                       LivingState   who lives, who serves which subscription
///                                                       ClusterBindings  who has which node's binding
///             ── commit, write, share ────────────────► ChangeQueue, ClusterSecrets, SharingState
/// ```
/// **Nothing goes back.** Every write is a comparison and a put in one transaction (`ClusterValue`), so etcd refuses what is older
/// than what it holds, from whichever instance. A write whose answer is lost is asked again: if it was done, it finds itself.
/// Memory is fed in the order of etcd's revisions, and the core takes only what is newer.
struct ClusterInstance: Sendable {
    static let beatInterval: Duration = .milliseconds(500)
    /// How long an answer to a sign of life may take: then another member is asked. One that is silent altogether is left sooner (`MemberProbe`).
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
    /// How soon it is asked again whether etcd takes writes, when it has said that it can't now.
    static let unavailablePause: Duration = .milliseconds(100)
    /// How soon another connection is tried when all members have been tried in vain; doubled each time.
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
    /// How long answers are held back at most when the connection was lost, or seems to be.
    static let lostDoubt = Doubt.Limit(alone: .seconds(10), inTouch: .seconds(2))
    /// When etcd has taken a write through another: the sign of life that ends the doubt is due.
    static let openedDoubt = Doubt.Limit(alone: .seconds(10), inTouch: .seconds(10))
    /// After this process was stopped: what it has may be of long ago, and other servers know better.
    static let sleptDoubt = Doubt.Limit(alone: doubtMax, inTouch: doubtMax, isAnew: true)
    /// In all, whatever happens: if all were stopped and etcd is not there, an old answer is better than none for good.
    static let doubtMax: Duration = .seconds(30)
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

    let settings: Settings
    var keys: ClusterKeys { settings.keys }
    var link: MemberLink
    var probe = MemberProbe()
    var availability: Availability
    var heartbeat: Heartbeat
    var doubt: Doubt
    var calls = PendingCalls()
    var secrets = ClusterSecrets()
    var changes = ChangeQueue()
    var conflicts = LateConflicts()
    var sharing = SharingState()
    var living: LivingState
    var bindings: ClusterBindings
    var feed: Feed
    var isClosing = false
    /// Whether there is a core that pushes.
    var serves = false
    var actions: [Action] = []

    init(_ settings: Settings, now: Now) {
        self.settings = settings
        link = MemberLink(membersCount: settings.membersCount, now.monotonic)
        availability = Availability(now.monotonic)
        heartbeat = Heartbeat(now.monotonic)
        doubt = Doubt(now.monotonic)
        living = LivingState(own: settings.id)
        bindings = ClusterBindings(own: settings.id)
        feed = Feed(settings.keys)
    }

    // MARK: Events

    /// Called at least every 100 ms.
    mutating func tick(_ now: Now) -> [Action] {
        noticeSleep(now)
        doubt.ticked(now.monotonic)
        if doubt.isOver(now.monotonic) { endDoubt(now) }
        if !doubt.isInDoubt { allowAnswers(now) }
        connectIfDue(now)
        probeIfDue(now)
        if link.isUp {
            beat(now)
            // While pages are read there is no watch yet.
            if feed.isFollowing, heartbeat.isWatchSilent(now.monotonic) { drop("the watch is silent", now) }
            tendSharing(now)
            deposeIfDue(now)
        }
        tell(availability.ticked(now.monotonic))
        failOverdueChanges(now)
        tellConflicts(now)
        return takeActions()
    }

    mutating func connected(_ now: Now) -> [Action] {
        guard link.isConnecting else { return takeActions() }
        doubt.inTouch(now.monotonic)
        if let login = settings.login {
            link.authenticate()
            call(.authenticate, .authenticate(user: login.user, password: login.password), within: Self.beatTimeMax)
        } else {
            open(now)
        }
        return takeActions()
    }

    /// - Parameter isInTouch: whether the member's machine said so, rather than nobody anything.
    mutating func disconnected(_ reason: String, isInTouch: Bool, _ now: Now) -> [Action] {
        lose(reason, now)
        if isInTouch { doubt.inTouch(now.monotonic) }
        return takeActions()
    }

    mutating func watchEnded(_ error: EtcdError, _ now: Now) -> [Action] {
        if feed.isFollowing, link.isUp { drop("the watch ended: \(error)", now) }
        return takeActions()
    }

    mutating func answered(_ id: UInt64, _ result: Result<EtcdResponse, EtcdError>, _ now: Now) -> [Action] {
        noticeSleep(now)
        guard let purpose = calls.ended(id) else { return takeActions() }
        switch result {
        case .success(let response):
            // What was written before the election and has no answer may never get one.
            if probe.told(term: response.term) { askAgain(now) }
            succeeded(purpose, id, response, now)
        case .failure(let error): failed(purpose, id, error, now)
        }
        return takeActions()
    }

    private mutating func succeeded(_ purpose: PendingCalls.Purpose, _ id: UInt64, _ response: EtcdResponse, _ now: Now) {
        switch purpose {
        case .authenticate:
            actions.append(.useToken(response.token))
            open(now)
        case .open: opened(response, now)
        case .page: pageRead(response, now)
        case .beat(let count):
            heartbeat.answered(count, now.monotonic)
            link.works()
            tell(availability.answered(now.monotonic))
            changes.canSend = true
            sendChanges(now)
        case .changes:
            tell(availability.answered(now.monotonic))
            finishChanges(id, response, now)
            sendChanges(now)
        case .secret:
            // The watch tells all instances of a new one; who was slower takes what is there.
            if !response.succeeded { secretsTold(response.responses.first?.pairs.first) }
        case .lease: leased(response.lease, now)
        case .news: newsSent(response, now)
        // What came of it is told by the watch, to all at the same place in the log.
        case .depose: living.depositionEnded()
        case .probe: probed(now)
        }
    }

    private mutating func failed(_ purpose: PendingCalls.Purpose, _ id: UInt64, _ error: EtcdError, _ now: Now) {
        if purpose == .probe, error.kind != .unreachable { return probed(now) }
        availability.failed(error.description)
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
            feed.readingCompacted()
            open(now)
        case .page: drop(error.description, now)
        case .beat:
            heartbeat.failed()
            if error.kind == .noSpace || error.kind == .refused { declareUnavailable(error.description) }
        case .changes: break
        case .secret: actions.append(.deliver(.failed("a cookie secret is not shared: \(error)")))
        case .lease: leaseFailed(error, now)
        case .news: newsFailed(error, now)
        case .depose: living.depositionFailed(now.monotonic)
        case .probe: break
        }
    }

    // MARK: Link

    private mutating func open(_ now: Now) {
        link.open()
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
        link.opened()
        heartbeat.hurry(now.monotonic)
        // Anew, if its time was over before etcd was back.
        beginDoubt(for: Self.openedDoubt, now)
        secretsTold(response.responses.dropFirst().first?.pairs.first)
        switch feed.opened(at: response.revision) {
        case .begin(let page):
            releaseHeldEvents(doubt.release(), now)
            living.beginReading(at: response.revision)
            bindings.beginReading()
            call(.page, .range(page))
        case .goOn(let page): call(.page, .range(page))
        case .follow(let watch): follow(watch)
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
        let wasUp = link.isUp
        guard link.lost(wait: wait, now.monotonic) else { return }
        availability.failed(reason)
        heartbeat.linkLost()
        probe.forget()
        living.depositionEnded()
        // Each goes to the front, so the oldest, which goes last, ends there.
        for call in calls.linkLost() { changes.putBack(call) }
        sharing.linkLost()
        // If its answer was late it is in doubt already; else it begins to be.
        if wasUp { beginDoubt(for: Self.lostDoubt, now) }
        connectIfDue(now)
    }

    private mutating func connectIfDue(_ now: Now) {
        if let member = link.connect(now.monotonic) { actions.append(.connect(member)) }
    }

    // MARK: Silence and elections

    private mutating func probeIfDue(_ now: Now) {
        switch probe.ticked(canAsk: link.isOpen, now.monotonic) {
        case .nothing: break
        case .ask: call(.probe, .range(EtcdRange(key: keys.octets(.format), isLocal: true)), within: Self.beatTimeMax)
        // In doubt already, a sign that is under way since then will do: of a member that is always slow, the next one would come after yet another
        // question had been late, and nothing would be answered for long.
        case .late(let asked): beginDoubt(for: Self.lostDoubt, awaiting: doubt.isInDoubt ? heartbeat.first(since: asked) : nil, now)
        case .silent: drop("the member of etcd that is asked is silent", now)
        }
    }

    private mutating func probed(_ now: Now) {
        probe.answered(now.monotonic)
        doubt.inTouch(now.monotonic)
    }

    /// Writes that have no answer are made once more: they are comparisons, so one that was done finds itself.
    private mutating func askAgain(_ now: Now) {
        let writes = calls.forgetWrites()
        // Each goes to the front, so the oldest, which goes last, ends there.
        for write in writes where write.purpose == .changes { changes.putBack(write.call) }
        for write in writes {
            switch write.purpose {
            case .open: open(now)
            case .beat:
                heartbeat.failed()
                heartbeat.hurry(now.monotonic)
            case .lease, .news: sharing.linkLost()
            case .depose: living.depositionEnded()
            case .changes, .authenticate, .page, .secret, .probe: break
            }
        }
        guard link.isUp else { return }
        changes.canSend = true
        beat(now)
        sendChanges(now)
        tendSharing(now)
    }

    mutating func call(_ purpose: PendingCalls.Purpose, _ request: EtcdRequest, within time: Duration = Self.callTimeMax) {
        _ = callID(purpose, request, within: time)
    }

    mutating func callID(_ purpose: PendingCalls.Purpose, _ request: EtcdRequest, within time: Duration = Self.callTimeMax) -> UInt64 {
        let call = calls.begin(purpose)
        actions.append(.call(call, request, within: time))
        return call
    }

    /// What the event that ends here wants done.
    mutating func takeActions() -> [Action] {
        defer { actions = [] }
        return actions
    }

    // MARK: Whether etcd takes writes

    mutating func beat(_ now: Now) {
        // After good-bye the same again and again, until `close`.
        guard heartbeat.isDue(now.monotonic), !isClosing || living.isFarewellDue else { return }
        let count = heartbeat.send(isFarewell: living.isLeaving, now.monotonic)
        let put = signOfLife()
        living.signed()
        call(.beat(count), .transaction(EtcdTransaction(success: [.put(put)])), within: Self.beatTimeMax)
    }

    mutating func declareUnavailable(_ reason: String) { tell(availability.refused(reason)) }

    private mutating func tell(_ event: StoreEvent?) {
        if let event { actions.append(.deliver(event)) }
    }

    // MARK: Whether answers may be given

    mutating func noticeSleep(_ now: Now) {
        guard doubt.hasSlept(now.monotonic) else { return }
        probe.forget()
        availability.slept(now.monotonic)
        beginDoubt(for: Self.sleptDoubt, now)
    }

    /// - Parameter count: the sign of life that ends it; `nil` for the next one.
    private mutating func beginDoubt(for limit: Doubt.Limit, awaiting count: UInt64? = nil, _ now: Now) {
        guard feed.hasLoaded else { return }
        // What was due while we were away is not late: it lies in the socket, to be read.
        heartbeat.forgetUnechoed()
        heartbeat.hurry(now.monotonic)
        actions.append(.withholdAnswers(doubt.begin(for: limit, awaiting: count ?? heartbeat.count + 1, now.monotonic)))
    }

    /// The core, which has still to take in what was handed to it, says when answers are given again.
    mutating func endDoubt(_ now: Now) {
        let held = doubt.release()
        let number = doubt.end()
        releaseHeldEvents(held, now)
        actions.append(.deliver(.caughtUp(number)))
        allowAnswers(now)
    }

    private mutating func allowAnswers(_ now: Now) { actions.append(.answer(until: now.monotonic + Self.answersAllowance)) }

    // MARK: Cookie secrets

    /// Asks to make cookies with this secret from now on.
    mutating func write(_ secret: CookieSecret, _ now: Now) -> [Action] {
        guard link.isUp else {
            actions.append(.deliver(.failed("a cookie secret is not shared: \(availability.trouble)")))
            return takeActions()
        }
        switch secrets.write(secret, key: keys.octets(.cookies), now) {
        case .put(let transaction): call(.secret, .transaction(transaction))
        case .keep(let newest): actions.append(.deliver(.secrets(newest)))
        }
        return takeActions()
    }

    mutating func secretsTold(_ pair: EtcdKeyValue?) { actions += secrets.told(pair).map { .deliver($0) } }
}
