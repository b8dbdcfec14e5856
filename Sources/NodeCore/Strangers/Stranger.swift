import MATSignal

/// A source that the IMT does not know, whose packets are held while it is found out whose it is (paper 4.2 (6), (7)).
///
/// ```
///              our IMS names an HoA                that HoA's IMS confirms it
///   unknown ──────────────────────────► named ──────────────────────────────────► a peer's place: its packets are let in
///    │ │ │                                │ that HoA's IMS does not
///    │ │ │     our IMS knows no HoA       ▼        no peer can have moved there
///    │ │ └───────────────────────────► notFound ────────────────────────────────► plain: its packets pass
///    │ │                                  │ what it sends fits no socket here, while there are peers that may have moved
///    │ │ our IMS says nothing of it;      └────────────────────────────────┐
///    │ └─ all that came opens connections ─► plain                         ▼
///    └─── anything else did, until the time is up ──────────────────────► dropped unanswered
/// ```
/// Packets that open connections are another matter than the rest, in any of these states: see `Openers`.
struct Stranger: Hashable, Sendable {
    /// What our IMS says of it.
    enum Answer: Hashable, Sendable {
        /// Nothing yet; or nobody can be asked, and a MA Notify may come.
        case unknown
        /// It is this HoA; to be confirmed by that HoA's IMS.
        case named(HomeAddress)
        /// No HoA is there, which may be remembered until then. One of our peers may have moved there all the same, just now.
        case notFound(plainUntil: MonotonicTime)
    }

    /// Packets that could be a plain stranger's first, whom waiting would hurt. They pass before it is known what the rest is.
    enum Openers: Hashable, Sendable {
        /// None waits, or they wait with all others.
        case none
        /// Some wait for our IMS, but no longer than this.
        case waiting(until: MonotonicTime)
        /// They have waited for our IMS long enough: others pass as they come, until it answers.
        case passing
    }

    let started: MonotonicTime
    var answer = Answer.unknown
    var openers: Openers
    /// When what has not been let in by then is dropped, or judged anew.
    var due: MonotonicTime
    /// The own addresses that it sent to.
    private(set) var owns: Set<IPAddress>
    /// Every packet of it so far opens a connection.
    private(set) var sendsOpenersOnly: Bool
    /// A packet of it would be answered with a reset, or port unreachable, if it passed as plain.
    private(set) var mayBeReset: Bool
    /// Peers whose IMSs' answers its fate waits for: one of them may have moved there.
    var suspects: [HomeAddress] = []
    /// The kernel lets what opens a connection pass by itself.
    var isLetOpen = false

    static let ownsMax = 8

    init(_ packet: Strangers.Packet, openersWait: Duration, holdMax: Duration, now: MonotonicTime) {
        started = now
        due = now + holdMax
        owns = [packet.own]
        sendsOpenersOnly = packet.opensConnection
        openers = packet.opensConnection ? .waiting(until: now + openersWait) : .none
        mayBeReset = packet.isSegment
    }

    /// When something is to be done about it.
    var nextDue: MonotonicTime {
        guard case .waiting(let until) = openers else { return due }
        return min(due, until)
    }

    var candidate: HomeAddress? { if case .named(let hoa) = answer { hoa } else { nil } }

    /// Another packet of it.
    ///
    /// - Returns: whether it passes at once, because it opens a connection and need not wait any more.
    mutating func hold(_ packet: Strangers.Packet, openersWait: Duration, now: MonotonicTime) -> Bool {
        if owns.count < Self.ownsMax { owns.insert(packet.own) }
        mayBeReset = mayBeReset || packet.isSegment
        sendsOpenersOnly = sendsOpenersOnly && packet.opensConnection
        guard packet.opensConnection else { return false }
        switch (answer, openers) {
        case (.notFound, _), (.unknown, .passing): return true
        case (.unknown, .none):
            // A segment was first, and our IMS is being asked because of it.
            openers = .waiting(until: now + openersWait)
            return false
        case (.unknown, .waiting), (.named, _): return false
        }
    }

    /// What opens a connection waits with the rest from now on; what has passed has passed.
    mutating func endOpenersWait() {
        if case .waiting = openers { openers = .none }
    }
}
