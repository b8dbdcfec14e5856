import MATCore
import MATSignal

/// How far one endpoint of a peer is believed: a place where it receives signalling and encapsulated packets (protocol.md section 11.4).
///
/// ```
///              packets for the peer, a move,                     PATH-SIGNATURE: its Answer to our
///              it probes us, a new record                        challenge, or a Probe under our cookie
///   unproven ─────────────────────────────► probing ─────────────────────────────────────────────► proven ◄─┐
///      ▲                                     ▲  │  the last probe stayed unanswered                  │  │   │ likewise
///      │ without packets            60, 120, │  │                                                    │  └───┘
///      │        ... 600 s (1, 2 ... 60 s if  │  │                                                    │
///      │              there is no other way) │  ▼                                                    │
///      └──────────────────────────────────── resting                                                 │
///      └─────────────────────────────────────────────────────────────────────────────────────────────┘
///                                          no proof for 120 s; it is renewed at half of that while packets go there
/// ```
/// No user data goes to an endpoint that is not proven.
enum EndpointState: Hashable, Sendable {
    /// Probes that belong together.
    struct Series: Hashable, Sendable {
        let began: MonotonicTime
        /// Probes so far.
        fileprivate(set) var sent = 0
        /// An earlier proof, which holds while it is renewed.
        fileprivate(set) var proof: MonotonicTime?
        /// Series in a row before this one that nobody answered.
        let failures: Int
        /// There are no packets for the peer: it has just told us where it is, and may wait for us to open a translator's way in.
        var isCourtesy = false
        /// It goes on with what the one before it asked, whose answers may still come.
        fileprivate(set) var isContinued = false

        /// When the next probe goes, or the series ends.
        var next: MonotonicTime {
            began + (sent < times.count ? times[sent] : isCourtesy ? EndpointState.courtesyMax : EndpointState.seriesMax)
        }

        fileprivate var times: [Duration] { isCourtesy ? EndpointState.courtesyTimes : EndpointState.probeTimes }
    }

    case unproven
    case probing(Series)
    /// - Parameter next: when it is to be renewed, or has run out.
    case proven(at: MonotonicTime, next: MonotonicTime)
    case resting(until: MonotonicTime, failures: Int)

    /// When the probes of a series go, after its beginning (section 11.4, "Both behind translators").
    static let probeTimes: [Duration] = [0, 50, 100, 200, 400, 800, 1600].map { .milliseconds($0) }
    /// When a series ends, if nothing is heard.
    static let seriesMax: Duration = .milliseconds(2600)
    /// Likewise, for who has no packets for the peer.
    static let courtesyTimes: [Duration] = [0, 100, 400].map { .milliseconds($0) }
    static let courtesyMax: Duration = .seconds(1)
    /// Of the probes of a series, the one by which an answer should have come on most paths: after 400 ms.
    static let answeredByMost = 5
    static let proofLifetime: Duration = .seconds(120)
    /// Between proofs while packets go there.
    static let renewalInterval: Duration = .seconds(60)
    static let restMin: Duration = .seconds(60)
    static let restMax: Duration = .seconds(600)
    /// Likewise, while the peer is reached in no way at all.
    static let aloneRestMin: Duration = .seconds(1)
    static let aloneRestMax: Duration = .seconds(60)

    var isProven: Bool {
        switch self {
        case .proven: true
        case .probing(let series): series.proof != nil
        case .unproven, .resting: false
        }
    }

    var isProbing: Bool { if case .probing = self { true } else { false } }

    /// The last probe began a series that asks something of its own.
    var isFirstOfSeries: Bool { if case .probing(let series) = self { series.sent == 1 && !series.isContinued } else { false } }

    /// So many probes have gone that an answer should have come.
    var isUnheard: Bool {
        if case .probing(let series) = self { series.sent == Self.answeredByMost && !series.isCourtesy && series.proof == nil } else { false }
    }

    /// Nothing answers: more probes have gone than most paths would have needed, or all of them. An earlier proof may hold.
    var isInVain: Bool {
        switch self {
        case .unproven, .resting: true
        case .probing(let series): series.sent > Self.answeredByMost
        case .proven: false
        }
    }

    /// When `takeDue` is to be told.
    var due: MonotonicTime? {
        switch self {
        case .unproven: nil
        case .probing(let series): series.next
        case .proven(_, let next): next
        case .resting(let until, _): until
        }
    }

    /// What has become due.
    enum OnDue: Hashable, Sendable {
        case nothing
        case probe
        /// It is not proven any more.
        case lost
    }

    /// There is a reason to find out now whether it can be reached, whatever was found before.
    ///
    /// - Parameter isCourtesy: there are no packets for the peer.
    mutating func begin(isCourtesy: Bool = false, _ now: MonotonicTime) {
        switch self {
        case .unproven, .resting: self = .probing(Series(began: now, proof: nil, failures: 0, isCourtesy: isCourtesy))
        case .probing(let series) where series.isCourtesy && !isCourtesy: self = .probing(Series(began: now, proof: nil, failures: 0))
        case .probing, .proven: break
        }
    }

    /// It is to be proven again: an own address changed, or nothing is heard from there.
    ///
    /// - Parameter keepsProof: packets go there meanwhile, if they did.
    mutating func beginAnew(keepsProof: Bool, _ now: MonotonicTime) {
        let proof: MonotonicTime? =
            switch self {
            case .proven(let at, _): at
            case .probing(let series): series.proof
            case .unproven, .resting: nil
            }
        self = .probing(Series(began: now, proof: keepsProof ? proof : nil, failures: 0))
    }

    /// It is to be asked again in quick succession: from where we are, it may be reached since just now.
    mutating func hurry(_ now: MonotonicTime) {
        guard case .probing(let series) = self else { return beginAnew(keepsProof: true, now) }
        self = .probing(Series(began: now, proof: series.proof, failures: 0, isContinued: series.sent > 0))
    }

    /// No proof holds any more.
    mutating func end() {
        if isProven { self = .unproven }
    }

    /// Probes stay unanswered while packets go there: they go elsewhere, and it is probed on.
    mutating func leave() {
        switch self {
        case .probing(var series):
            series.proof = nil
            self = .probing(series)
        case .proven: self = .unproven
        case .unproven, .resting: break
        }
    }

    /// What an answer at this time shows, if only one probe can be meant.
    func roundTrip(_ now: MonotonicTime) -> Duration? {
        if case .probing(let series) = self, series.sent == 1, !series.isContinued { now - series.began } else { nil }
    }

    /// What it was asked before was answered, while it is asked anew: the earlier proof holds on, and the series goes on.
    mutating func confirm(_ now: MonotonicTime) {
        guard case .probing(var series) = self, series.proof != nil else { return }
        series.proof = now
        self = .probing(series)
    }

    /// - Returns: whether it was not proven before.
    mutating func proved(_ now: MonotonicTime) -> Bool {
        let isNews = !isProven
        self = .proven(at: now, next: now + Self.renewalInterval)
        return isNews
    }

    /// - Parameters:
    ///   - isUsed: packets go there, or would.
    ///   - isAlone: packets for the peer wait, since no way to it is known.
    mutating func takeDue(isUsed: Bool, isAlone: Bool = false, _ now: MonotonicTime) -> OnDue {
        guard let due, due <= now else { return .nothing }
        switch self {
        case .unproven:
            return .nothing
        case .probing(var series):
            guard series.sent < series.times.count else {
                if series.isCourtesy {
                    self = .unproven
                    return .nothing
                }
                // What was asked from one own address in vain was shown to another meanwhile.
                if let proof = series.proof, proof > series.began {
                    self = .proven(at: proof, next: proof + Self.renewalInterval)
                    return .nothing
                }
                let doubled = 1 << min(series.failures, 6)
                let pause = isAlone ? min(Self.aloneRestMax, Self.aloneRestMin * doubled) : min(Self.restMax, Self.restMin * doubled)
                self = .resting(until: now + pause, failures: series.failures + 1)
                return series.proof == nil ? .nothing : .lost
            }
            series.sent += 1
            self = .probing(series)
            return .probe
        case .proven(let at, _):
            if isUsed {
                self = .probing(Series(began: now, proof: at, failures: 0))
                return takeDue(isUsed: true, now)
            }
            guard now - at < Self.proofLifetime else {
                self = .unproven
                return .lost
            }
            self = .proven(at: at, next: at + Self.proofLifetime)
            return .nothing
        case .resting(_, let failures):
            guard isUsed else {
                self = .unproven
                return .nothing
            }
            self = .probing(Series(began: now, proof: nil, failures: failures))
            return takeDue(isUsed: true, now)
        }
    }
}
