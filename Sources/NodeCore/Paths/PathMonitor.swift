import MATCore
import MATSignal

/// Which paths answer: a value that says when to probe what, and what follows from answers and their absence. Why a path is
/// watched and what to do about a dead one is `NodeCore+Paths`.
///
/// ```
///                 interval               quick repeats               1.25 s or more since the first unanswered probe
///   resting ------------------> asked --------------------> missed -------------------------> silent
///      ^                          |                           |                                  |  asked again at growing
///      +---------- answer --------+---------- answer ---------+------------- answer -------------+  intervals
/// ```
///
/// A probe is the protocol's locator check, MA Query {COOKIE, HOA}: 40 octets, the answer no more. Only watched paths are probed:
/// those in use for as long as they are, and a few that stand for whether the node can be reached at all.
struct PathMonitor: Sendable {
    enum Target: Hashable, Comparable, Sendable {
        /// An IMS of ours.
        case server(IPAddress)
        /// A peer at one of its locators.
        case peer(HomeAddress, MobileAddress)

        var isServer: Bool { if case .server = self { true } else { false } }
    }

    struct Path: Hashable, Comparable, Sendable {
        var own: MobileAddress
        var target: Target

        init(_ own: MobileAddress, _ target: Target) {
            self.own = own
            self.target = target
        }

        static func < (a: Path, b: Path) -> Bool { (a.own, a.target) < (b.own, b.target) }
    }

    struct State: Hashable, Sendable {
        /// Probed at the usual interval until then.
        var watchedUntil: MonotonicTime
        /// Probed at the idle interval, for ever.
        var isStanding = false
        /// The first probe that has had no answer; `nil` while there is none.
        var askedSince: MonotonicTime?
        /// Its answer is overdue.
        var isMissed = false
        var silentSince: MonotonicTime?
        /// The begin of an unbroken row of answers.
        var answeringSince: MonotonicTime?
        var lastAnswer: MonotonicTime?
        var roundTrip = SmoothedRTT()
        /// Probes since it fell silent: the more, the rarer.
        var silentProbes = 0
        var next: MonotonicTime
        var lastProbe: MonotonicTime?

        /// A repeat comes when an answer is overdue; a far peer's takes longer.
        var repeatAfter: Duration { min(max((roundTrip.value ?? .zero) * 2, repeatMin), repeatMax) }
        /// From the first unanswered probe to the verdict: four or five probes; the first of them may take all this time to be answered.
        var silence: Duration { silenceMin - repeatMin + repeatAfter }
        var isSilent: Bool { silentSince != nil }
        func answered(within time: Duration, at now: MonotonicTime) -> Bool { lastAnswer.map { now - $0 <= time } ?? false }
    }

    /// What came of a look at the clock.
    enum Event: Hashable, Sendable {
        case probe(Path, sequence: UInt32)
        /// An answer is overdue: time to ask elsewhere too.
        case missed(Path)
        /// Every repeat stayed unanswered.
        case silent(Path)
    }

    static let repeatMin: Duration = .milliseconds(250)
    static let repeatMax: Duration = .milliseconds(500)
    /// With the shortest repeats, five probes; with the longest, three and 250 ms more.
    static let silenceMin: Duration = .milliseconds(1250)
    /// When a probe without a token is tried again.
    private static let postponement: Duration = .milliseconds(100)
    /// For how long an answer is waited for, and how many probes may be out.
    private static let outstandingMax: Duration = .seconds(5)
    private static let outstandingCountMax = 4096

    private let configuration: PathConfiguration
    private(set) var paths: [Path: State] = [:]
    private var queue = DeadlineQueue<Path>()
    private var outstanding: [UInt32: (path: Path, sentAt: MonotonicTime)] = [:]
    private var tokens: RateLimit

    /// Between the last two looks at which peers are in use, which is longer the more peers there are.
    private var lookInterval: Duration = .zero
    private var lastLook: MonotonicTime?
    private static let lookIntervalMax: Duration = .seconds(60)

    init(_ configuration: PathConfiguration) {
        self.configuration = configuration
        tokens = RateLimit(perSecond: configuration.probesPerSecond)
    }

    subscript(path: Path) -> State? { paths[path] }

    var next: MonotonicTime? { mutating get { queue.next } }

    /// In no order.
    func over(_ own: MobileAddress) -> [(key: Path, value: State)] { paths.filter { $0.key.own == own } }

    // MARK: What to watch

    /// All peers' packets were counted.
    mutating func trafficCounted(now: MonotonicTime) {
        if let lastLook { lookInterval = min(now - lastLook, Self.lookIntervalMax) }
        lastLook = now
    }

    /// Until when a peer that is in use now is watched: until the next look at least, or a rarely looked at peer would not be for most of the time.
    func useEnd(now: MonotonicTime) -> MonotonicTime { now + max(configuration.useMax, lookInterval * 2) }

    /// Probes a path at the usual interval until then, beginning now.
    ///
    /// - Parameter atOnce: also if it was probed a moment ago, because something else went silent.
    mutating func watch(_ path: Path, until: MonotonicTime, atOnce: Bool = false, now: MonotonicTime) {
        guard configuration.isProbing else { return }
        guard var state = paths[path] else {
            guard paths.count < configuration.pathsMax || path.target.isServer else { return }
            paths[path] = State(watchedUntil: until, next: now)
            queue.set(path, at: now)
            return
        }
        let wasWatched = state.watchedUntil > now
        state.watchedUntil = max(state.watchedUntil, until)
        // What was probed at a slow interval is due at the usual one.
        if state.askedSince == nil, atOnce || !wasWatched {
            let earliest = state.lastProbe.map { $0 + Self.repeatMin } ?? now
            state.next = min(state.next, max(now, earliest))
            // Whether it is still silent is to be found out anew, as thoroughly as the first time: the answer may be on its way.
            if atOnce, state.isSilent { state.silentSince = nil }
        }
        paths[path] = state
        queue.set(path, at: state.next)
    }

    /// Stops an open-ended watch; what still wants the path says so anew.
    mutating func unwatch(_ path: Path, now: MonotonicTime) {
        guard paths[path] != nil else { return }
        paths[path]?.watchedUntil = now
    }

    /// Probes exactly these at the idle interval; the first time only after it.
    mutating func stand(_ standing: Set<Path>, now: MonotonicTime) {
        for path in paths.keys where paths[path]?.isStanding == true && !standing.contains(path) { paths[path]?.isStanding = false }
        guard configuration.isProbing else { return }
        for path in standing.sorted() where paths[path]?.isStanding != true {
            if paths[path] == nil {
                let first = now + configuration.idleInterval
                paths[path] = State(watchedUntil: now, next: first)
                queue.set(path, at: first)
            }
            paths[path]?.isStanding = true
        }
    }

    mutating func forget(where isGone: (Path) -> Bool) {
        for path in paths.keys where isGone(path) {
            paths[path] = nil
            queue.cancel(path)
        }
    }

    // MARK: Time and answers

    /// What is due now. `sequence` makes numbers for probes that are sent.
    mutating func due(now: MonotonicTime, sequence: () -> UInt32) -> [Event] {
        var events: [Event] = []
        while let path = queue.takeDue(now) {
            guard var state = paths[path] else { continue }
            guard state.watchedUntil > now || state.isStanding else {
                paths[path] = nil
                continue
            }
            if let since = state.askedSince, now - since >= state.silence {
                state.askedSince = nil
                state.answeringSince = nil
                state.silentSince = since
                state.silentProbes = 0
                state.next = now + configuration.interval
                events.append(.silent(path))
            } else if !path.target.isServer, !tokens.take(at: now) {
                state.next = now + Self.postponement
            } else {
                if state.askedSince != nil {
                    if !state.isMissed { events.append(.missed(path)) }
                    state.isMissed = true
                } else if !state.isSilent {
                    state.askedSince = now
                    state.isMissed = false
                }
                let number = sequence()
                note(number, path, now)
                state.lastProbe = now
                events.append(.probe(path, sequence: number))
                state.next = now + pause(&state, now)
            }
            paths[path] = state
            queue.set(path, at: state.next)
        }
        return events
    }

    private func pause(_ state: inout State, _ now: MonotonicTime) -> Duration {
        if let since = state.askedSince { return min(state.repeatAfter, max(since + state.silence - now, .milliseconds(1))) }
        state.silentProbes = min(state.silentProbes + 1, 16)
        return min(configuration.interval * (1 << state.silentProbes), configuration.silentIntervalMax)
    }

    private mutating func note(_ sequence: UInt32, _ path: Path, _ now: MonotonicTime) {
        if outstanding.count >= Self.outstandingCountMax || outstanding.count >= 2 * paths.count + 64 {
            outstanding = outstanding.filter { now - $0.value.sentAt < Self.outstandingMax }
            if outstanding.count >= Self.outstandingCountMax,
                let victim = outstanding.min(by: { ($0.value.sentAt, $0.key) < ($1.value.sentAt, $1.key) })?.key
            {
                outstanding[victim] = nil
            }
        }
        outstanding[sequence] = (path, now)
    }

    /// Whose probe this number is, if it is one's.
    func probed(_ sequence: UInt32) -> Path? { outstanding[sequence]?.path }

    /// A probe was answered by its target.
    mutating func answered(_ sequence: UInt32, now: MonotonicTime) {
        guard let probe = outstanding.removeValue(forKey: sequence) else { return }
        paths[probe.path]?.roundTrip.add(now - probe.sentAt)
        heard(probe.path, now: now)
    }

    /// Something else showed that the path works both ways: an answer of any kind that could not have been made up.
    mutating func heard(_ path: Path, now: MonotonicTime) {
        guard var state = paths[path] else { return }
        state.askedSince = nil
        state.silentSince = nil
        state.silentProbes = 0
        state.lastAnswer = now
        state.answeringSince = state.answeringSince ?? now
        state.next = now + (state.watchedUntil > now ? usualInterval : configuration.idleInterval)
        paths[path] = state
        queue.set(path, at: state.next)
    }

    /// With more paths than probes a second allow for, each waits its turn. Half of the rate is left for repeats.
    private var usualInterval: Duration {
        max(configuration.interval, .milliseconds(Int64(paths.count) * 2000 / Int64(max(1, configuration.probesPerSecond))))
    }
}
