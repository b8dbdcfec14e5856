import MATSignal

/// When a request is sent again (section 7): after 250 ms, or 2 x the smoothed RTT if known (at least 50 ms, HA Notify never
/// under 250 ms), doubled each time, 5 tries; from the third on the next server is asked in parallel.
public struct Retransmission: Hashable, Sendable {
    public static let triesMax = 5
    package static let intervalDefault: Duration = .milliseconds(250)
    package static let intervalMin: Duration = .milliseconds(50)
    /// The try from which the next IMS of the DNS set is asked too.
    public static let failoverTry = 3
    /// How often a request is sent again at once with the cookie of an answer of code 9 (protocol.md section 2).
    package static let cookiesFollowedMax = 2

    /// Tries made so far.
    public private(set) var tries = 0
    /// When the next try, or giving up, is due.
    public private(set) var due: MonotonicTime
    private var interval: Duration

    /// - Parameter smoothedRTT: to this server, if known.
    public init(type: MessageType, smoothedRTT: Duration? = nil, now: MonotonicTime) {
        var interval = smoothedRTT.map { max($0 * 2, Self.intervalMin) } ?? Self.intervalDefault
        if type == .haNotify { interval = max(interval, Self.intervalDefault) }
        self.interval = interval
        due = now
    }

    public var isExhausted: Bool { tries >= Self.triesMax }

    /// Counts a try made now and sets when the next is due.
    public mutating func tried(at now: MonotonicTime) {
        tries += 1
        due = now + interval
        interval *= 2
    }
}

/// A smoothed round-trip time (RFC 6298's gain of 1/8); samples of retransmitted requests must not be fed in (Karn).
public struct SmoothedRTT: Hashable, Sendable {
    public private(set) var value: Duration?

    public init() {}

    public mutating func add(_ sample: Duration) {
        value = value.map { $0 * 7 / 8 + sample / 8 } ?? sample
    }
}
