import MATCore
import MATSignal

/// What is known of the servers and nodes that requests go to: the cookie for each pair of server and own address, and
/// the round-trip time.
struct ServerTable: Sendable {
    /// Servers on one host, such as an IMS and a relay, have secrets of their own.
    struct Path: Hashable, Sendable {
        var server: Endpoint
        var own: IPAddress
    }

    struct HeldCookie: Hashable, Sendable {
        var server: ServerCookie
        var obtained: MonotonicTime
    }

    private var cookies: BoundedTable<Path, HeldCookie>
    private var roundTrips: BoundedTable<IPAddress, SmoothedRTT>
    /// Those that have ever answered: they get all tries of HA Notify, others two (section 7).
    private var answered: BoundedTable<IPAddress, Bool>

    /// - Parameter entriesMax: of each kind; the one that was entered first goes.
    init(entriesMax: Int) {
        cookies = BoundedTable(max: entriesMax)
        roundTrips = BoundedTable(max: entriesMax)
        answered = BoundedTable(max: entriesMax)
    }

    /// A cookie that the server should still accept.
    func cookie(server: Endpoint, own: IPAddress, now: MonotonicTime) -> ServerCookie? {
        held(server: server, own: own, youngerThan: CookieAuthority.ageMax - .seconds(60), now: now)
    }

    /// A cookie recent enough to prove that we are at `own`.
    func proof(server: Endpoint, own: IPAddress, now: MonotonicTime) -> ServerCookie? {
        held(server: server, own: own, youngerThan: CookieAuthority.proofAgeMax - .seconds(30), now: now)
    }

    private func held(server: Endpoint, own: IPAddress, youngerThan age: Duration, now: MonotonicTime) -> ServerCookie? {
        guard let held = cookies[Path(server: server, own: own)], now - held.obtained < age else { return nil }
        return held.server
    }

    mutating func learn(_ cookie: ServerCookie, server: Endpoint, own: IPAddress, now: MonotonicTime) {
        let path = Path(server: server, own: own)
        // An echo of what we sent is as old as when we got it.
        if cookies[path]?.server == cookie { return }
        cookies[path] = HeldCookie(server: cookie, obtained: now)
    }

    mutating func forget(server: Endpoint, own: IPAddress) {
        cookies[Path(server: server, own: own)] = nil
    }

    /// A recent cookie from one of these servers for `own`, with the server that gave it: the instances of one IMS share their
    /// secret, so one's cookie proves our location to all.
    func proof(servers: [Endpoint], own: IPAddress, now: MonotonicTime) -> (server: IPAddress, cookie: ServerCookie)? {
        for server in servers {
            if let cookie = proof(server: server, own: own, now: now) { return (server.address, cookie) }
        }
        return nil
    }

    func hasAnswered(_ server: IPAddress) -> Bool { answered[server] != nil }

    mutating func answered(_ server: IPAddress) {
        if answered[server] == nil { answered[server] = true }
    }

    func roundTrip(_ server: IPAddress) -> Duration? { roundTrips[server]?.value }

    mutating func learn(roundTrip: Duration, server: IPAddress) {
        var smoothed = roundTrips[server] ?? SmoothedRTT()
        smoothed.add(roundTrip)
        roundTrips[server] = smoothed
    }
}
