import MATCore
import MATSignal

/// When peers are polled. The pushes of their IMSs make it a safety net: the more peers there are, the longer each waits for its turn.
struct PollTimes: Sendable {
    /// How long before a record expires its IMS is asked for the next.
    private static let margin: Duration = .seconds(10)
    private static let intervalMin: Duration = .seconds(5)
    /// Between polls of a node behind a translator (section 11.4): with the poll its IMS's way back to us stays open, by which pushes come.
    /// Many translators forget what was silent for 30 s.
    static let translatedMax: Duration = .seconds(25)

    /// Of so few peers, those that are to be polled so soon are polled when a binding is refreshed: half of an interval brings them together at once,
    /// and then both have about the same.
    static let togetherMax = 64
    static let togetherWithin: Duration = .milliseconds(12_500)

    private let interval: Duration
    private let perSecond: Int
    private var pace: Pace
    /// A translator or a firewall stands before an own address.
    var isTranslated = false

    init(_ configuration: NodeCoreConfiguration) {
        interval = configuration.pollInterval
        perSecond = max(1, configuration.pollsPerSecond)
        pace = Pace(perSecond: configuration.pollsPerSecond, burst: configuration.pollsPerSecond)
    }

    /// The next turn, which is given to nobody else.
    mutating func turn(_ now: MonotonicTime) -> MonotonicTime { pace.turn(now) }

    /// From now to a peer's next poll: the configured time, or as soon as all peers can be polled in turn, and before the record expires if that is
    /// sooner. With so many peers that they must wait, one without packets lately waits twice as long.
    func interval(for peer: Peer, among count: Int, _ now: Now) -> Duration {
        var interval = isTranslated ? min(interval, Self.translatedMax) : interval
        let turns = Duration.seconds(count / perSecond)
        if turns > interval { interval = now.monotonic - peer.lastTraffic > turns ? turns * 2 : turns }
        if peer.record.expires > now.wallMilliseconds {
            let left = Duration.milliseconds(Int64(clamping: peer.record.expires - now.wallMilliseconds))
            interval = min(interval, max(left - Self.margin, Self.intervalMin))
        }
        return peer.contradictedSince == nil ? interval : min(interval, .seconds(1))
    }
}
