import MATSignal

/// The connection to one member of etcd at a time.
///
/// ```
///           due              connected            the token came        the format is ours       lost
///   down ─────────► connecting ─────────► authenticating ─────────► opening ─────────────► up ─────────► down: the next member
///                        └───────────────────────────────────────────▲
///                                       without a login
/// ```
/// From each state it may go down. The pause before the next attempt doubles each time that all members have been tried in vain.
struct MemberLink: Sendable {
    enum State: Equatable, Sendable {
        case down(until: MonotonicTime)
        case connecting
        case authenticating
        case opening
        case up
    }

    private(set) var state: State
    private let membersCount: Int
    private var member = 0
    private var lostAt: MonotonicTime
    /// Connections lost or not made since etcd last took a sign of life.
    private var failedConnections = 0

    init(membersCount: Int, _ now: MonotonicTime) {
        self.membersCount = max(1, membersCount)
        state = .down(until: now)
        lostAt = now
    }

    var isUp: Bool { state == .up }
    var isConnecting: Bool { state == .connecting }

    /// - Returns: the member to connect to now; `nil` if it is not time.
    mutating func connect(_ now: MonotonicTime) -> Int? {
        guard case .down(let until) = state, until <= now else { return nil }
        state = .connecting
        return member % membersCount
    }

    mutating func authenticate() { state = .authenticating }
    mutating func open() { state = .opening }

    /// - Returns: whether it was lost for so long that others may have gone on.
    mutating func opened(_ now: MonotonicTime) -> Bool {
        state = .up
        return lostAt + ClusterInstance.doubtMax < now
    }

    /// - Returns: whether there was something to lose.
    mutating func lost(wait: Duration?, _ now: MonotonicTime) -> Bool {
        if case .down = state { return false }
        if isUp { lostAt = now }
        state = .down(until: now + (wait ?? pause))
        failedConnections += 1
        member &+= 1
        return true
    }

    /// The member takes writes.
    mutating func works() { failedConnections = 0 }

    private var pause: Duration {
        let rounds = min(failedConnections / membersCount, 10)
        return min(ClusterInstance.reconnectDelay * (1 << rounds), ClusterInstance.reconnectDelayMax)
    }
}
