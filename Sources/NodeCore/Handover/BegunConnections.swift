import MATSignal

/// Connections that begin in the moment of a move. To a peer that has not heard of it their SYN is a stranger's, which it may let pass as plain
/// (protocol.md section 7): the peer would have a connection with our MoA, we one with its HoA, and the next move ends it. TCP can't change its
/// addresses, so it must not begin like that.
///
/// ```
///   a move without overlap, or from an address that stood in for those of the HoA's family, to one of which peers have not heard
///     ──► held, of an own HoA ── after 1 s ──► go by themselves
///           │
///           └── the peer, or its IMS for it, acks ──► those to this peer go
/// ```
/// What is on its way already goes on: it finds its connection at the peer, or waits there for an answer (`Strangers`).
struct BegunConnections: Sendable {
    /// As long as TCP waits for the first repetition of a SYN, and longer than three tries of MA Notify to a peer that is there. A peer that says
    /// nothing till then has no agent that would take them for its own.
    static let holdMax: Duration = .seconds(1)

    private var homes: Set<HomeAddress> = []

    /// Whether this own HoA's wait for their peers.
    func areHeld(of home: HomeAddress) -> Bool { homes.contains(home) }

    mutating func hold(of home: HomeAddress) { homes.insert(home) }

    mutating func letGo(of home: HomeAddress) { homes.remove(home) }
}
