import MATSignal

/// How paths are watched. matd.yaml(5), `paths`, describes the first six to people.
public struct PathConfiguration: Hashable, Sendable {
    /// Where this node is, only its servers and relays learn, and no peer: no record lists its addresses, and peers' packets go by relays alone.
    public var isRelayOnly = false
    /// Whether paths are probed at all.
    public var isProbing = true
    /// Between two probes of a path that is in use. Silence is told from loss by quick repeats, `PathMonitor.silenceMin` in all, so
    /// that with a second here a dead path is left within 3 s.
    public var interval: Duration = .seconds(1)
    /// Between two probes of the preferred uplink while nothing is in use: the node must be reachable all the same. A minute is the
    /// longest that a caller should find nobody; it costs 76 octets, which no data plan and hardly a radio notices.
    public var idleInterval: Duration = .seconds(60)
    /// For how long a path must have answered steadily before it is gone back to.
    public var holdDown: Duration = .seconds(10)
    /// The hold-down doubles with each failure, up to this.
    public var holdDownMax: Duration = .seconds(300)
    /// After so long without a failure the earlier ones are forgotten.
    public var forgetAfter: Duration = .seconds(600)

    /// Probes per second in all. With more paths in use than that each is probed the less often.
    public var probesPerSecond = 100
    /// Paths watched at once; beyond it peers in use are not looked at one by one. What their common uplink does is seen all the same.
    public var pathsMax = 1024
    /// Peers with a path of their own, or with a memory of its failures.
    public var detoursMax = 1024
    /// A peer is in use for so long after its last packet: longer than silence takes to be found, for what stops when a path dies.
    public var useMax: Duration = .seconds(5)

    public init() {}

    /// A silent path is asked at least this often whether it is back.
    var silentIntervalMax: Duration { min(.seconds(30), max(holdDown, interval)) }
}

/// Which of the own interfaces to use towards some peers.
public struct PeerPreference: Hashable, Sendable {
    public var prefix: IPPrefix
    /// The best first; others follow in the node's order.
    public var interfaces: [String]

    public init(_ prefix: IPPrefix, interfaces: [String]) {
        self.prefix = prefix
        self.interfaces = interfaces
    }
}
