import MATCore
import MATSignal

/// Probes that travel within paths, as the packets of applications do (protocol.md section 11, "in-path"): which are under way, and which answers
/// are theirs. Each is sent once; whether it is sent again, and what silence means, decides who asked.
///
/// ```
///   begin ──► under way ── an answer with its number and its cookie, from the peer, over the same path ──► answered, after so long
///      │          └─────── its time is up ───────────────────────────────────────────────────────────────► silent
///      └──► (nothing: too many are under way, or were sent of late)
/// ```
/// The cookie is random, so that only who saw the probe can answer it. That is a sign that the path carries packets, and no proof of anything.
struct InPathProbes: Sendable {
    /// Who asks, and so who is told.
    enum Purpose: Hashable, Sendable {
        /// Whether a packet of so many octets passes; 0: a small one beside it.
        case size(UInt32)
        /// Whether a datagram without a sum passes; and whether one with a sum does beside it.
        case noSum
        case withSum
        /// It tells the peer our own candidates.
        case candidates
        /// Whether the peer is bound at a relay as well, and whether one that is used still carries packets.
        case relay
    }

    struct Probe: Hashable, Sendable {
        let hoa: HomeAddress
        /// The ends of the datagrams that it and its answer travel in.
        let own: Endpoint
        let far: Endpoint
        let purpose: Purpose
        let sentAt: MonotonicTime
    }

    struct Question: Hashable, Sendable {
        let sequence: UInt32
        let cookie: UInt64
    }

    private struct Entry: Sendable {
        let probe: Probe
        let cookie: UInt64
    }

    /// At a time, and a second, of the whole node.
    static let underWayMax = 4096
    static let perSecondMax = 500

    private let underWayMax: Int
    private var underWay: [UInt32: Entry] = [:]
    private var deadlines = DeadlineQueue<UInt32>()
    private var rate: RateLimit

    init(underWayMax: Int, perSecond: Int) {
        self.underWayMax = underWayMax
        rate = RateLimit(perSecond: perSecond)
    }

    // MARK: Questions

    var count: Int { underWay.count }

    /// When `takeDue` is to be told.
    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    // MARK: Events

    /// A probe is to go now.
    ///
    /// - Parameter wait: how long its answer is waited for.
    /// - Returns: `nil` if there are too many.
    mutating func begin(_ probe: Probe, for wait: Duration, random: inout any RandomNumberGenerator) -> Question? {
        guard underWay.count < underWayMax, rate.take(at: probe.sentAt) else { return nil }
        var sequence = UInt32.random(in: .min ... .max, using: &random)
        while underWay[sequence] != nil { sequence &+= 1 }
        let cookie = UInt64.random(in: .min ... .max, using: &random)
        underWay[sequence] = Entry(probe: probe, cookie: cookie)
        deadlines.set(sequence, at: probe.sentAt + wait)
        return Question(sequence: sequence, cookie: cookie)
    }

    /// An answer came from a peer.
    ///
    /// - Returns: the probe that it answers; `nil` if it answers none.
    mutating func answered(_ question: Question, by hoa: HomeAddress, from far: Endpoint, to own: Endpoint) -> Probe? {
        guard let entry = underWay[question.sequence], entry.cookie == question.cookie, entry.probe.hoa == hoa, entry.probe.far == far,
            entry.probe.own == own
        else { return nil }
        end(question.sequence)
        return entry.probe
    }

    /// A probe whose answer did not come in time.
    mutating func takeDue(_ now: MonotonicTime) -> Probe? {
        guard let sequence = deadlines.takeDue(now) else { return nil }
        return underWay.removeValue(forKey: sequence)?.probe
    }

    /// A peer is forgotten.
    mutating func remove(_ hoa: HomeAddress) {
        for (sequence, entry) in underWay where entry.probe.hoa == hoa { end(sequence) }
    }

    private mutating func end(_ sequence: UInt32) {
        underWay[sequence] = nil
        deadlines.cancel(sequence)
    }
}
