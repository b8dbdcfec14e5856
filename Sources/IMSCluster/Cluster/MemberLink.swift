import MATSignal

/// The connection to one member of etcd at a time.
///
/// ```
///           due              connected            the token came        the format is ours       lost
///   down ─────────► connecting ─────────► authenticating ─────────► opening ─────────────► up ─────────► down: the next member
///                        └───────────────────────────────────────────▲
///                                       without a login
/// ```
/// From each state it may go down. The next member is tried at once; after all have been tried in vain there is a pause, which doubles each time.
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
    /// Connections lost or not made since etcd last took a sign of life.
    private var failedConnections = 0

    init(membersCount: Int, _ now: MonotonicTime) {
        self.membersCount = max(1, membersCount)
        state = .down(until: now)
    }

    var isUp: Bool { state == .up }
    var isConnecting: Bool { state == .connecting }
    /// Whether the member may be asked for what is in etcd.
    var isOpen: Bool { state == .opening || state == .up }

    /// - Returns: the member to connect to now; `nil` if it is not time.
    mutating func connect(_ now: MonotonicTime) -> Int? {
        guard case .down(let until) = state, until <= now else { return nil }
        state = .connecting
        return member % membersCount
    }

    mutating func authenticate() { state = .authenticating }
    mutating func open() { state = .opening }

    mutating func opened() { state = .up }

    /// - Returns: whether there was something to lose.
    mutating func lost(wait: Duration?, _ now: MonotonicTime) -> Bool {
        if case .down = state { return false }
        failedConnections += 1
        state = .down(until: now + (wait ?? pause))
        member &+= 1
        return true
    }

    /// The member takes writes.
    mutating func works() { failedConnections = 0 }

    private var pause: Duration {
        let rounds = min(failedConnections / membersCount, 10)
        // That one was lost is no reason to wait for the others.
        return rounds == 0 ? .zero : min(ClusterInstance.reconnectDelay * (1 << (rounds - 1)), ClusterInstance.reconnectDelayMax)
    }
}
