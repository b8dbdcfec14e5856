import MATCore
import MATSignal

/// How many Path Probes may go (protocol.md section 11.4): a record can list whom it likes, so whoever is listed must not suffer from it.
///
/// One that may not go is not made up for: the next of its series comes anyway.
struct ProbeRates: Sendable {
    /// To a peer, and to an address, in a second.
    static let perSecond = 20
    /// To all peers together that have never answered, of the whole node.
    static let toSilentPerSecond = 100
    /// Peers and addresses with a rate of their own, of the whole node. Beyond them nobody is probed who is not among them.
    static let keysMax = 4096

    private var peers: RateTable<HomeAddress>
    private var addresses: RateTable<IPAddress>
    private var silent: RateLimit

    init(_ configuration: NodeCoreConfiguration) {
        peers = RateTable(perSecond: Self.perSecond, keysMax: configuration.share(of: Self.keysMax))
        addresses = RateTable(perSecond: Self.perSecond, keysMax: configuration.share(of: Self.keysMax))
        silent = RateLimit(perSecond: configuration.share(of: Self.toSilentPerSecond))
    }

    /// - Parameter hasAnswered: the peer has proven some endpoint.
    mutating func allows(_ peer: HomeAddress, at address: IPAddress, hasAnswered: Bool, _ now: MonotonicTime) -> Bool {
        // What is refused by one takes nothing of the others.
        guard peers.allows(peer, at: now), addresses.allows(address, at: now), hasAnswered || silent.take(at: now) else { return false }
        return peers.take(peer, at: now) && addresses.take(address, at: now)
    }
}
