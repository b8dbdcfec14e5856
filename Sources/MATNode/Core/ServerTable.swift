import MATSignal

/// What is known of the servers and nodes that requests go to: the cookie for each pair of server and own address, and
/// the round-trip time.
struct ServerTable: Sendable {
    struct Path: Hashable, Sendable {
        var server: IPAddress
        var own: IPAddress
    }

    struct HeldCookie: Hashable, Sendable {
        var server: ServerCookie
        var obtained: MonotonicTime
    }

    private var cookies: [Path: HeldCookie] = [:]
    private var roundTrips: [IPAddress: SmoothedRTT] = [:]
    /// Those that have ever answered: they get all tries of HA Notify, others two (section 7).
    private var answered: Set<IPAddress> = []
    private let entriesMax: Int

    init(entriesMax: Int) { self.entriesMax = entriesMax }

    /// A cookie that the server should still accept.
    func cookie(server: IPAddress, own: IPAddress, now: MonotonicTime) -> ServerCookie? {
        held(server: server, own: own, youngerThan: CookieAuthority.ageMax - .seconds(60), now: now)
    }

    /// A cookie recent enough to prove that we are at `own`.
    func proof(server: IPAddress, own: IPAddress, now: MonotonicTime) -> ServerCookie? {
        held(server: server, own: own, youngerThan: CookieAuthority.proofAgeMax - .seconds(30), now: now)
    }

    private func held(server: IPAddress, own: IPAddress, youngerThan age: Duration, now: MonotonicTime) -> ServerCookie? {
        guard let held = cookies[Path(server: server, own: own)], now - held.obtained < age else { return nil }
        return held.server
    }

    mutating func learn(_ cookie: ServerCookie, server: IPAddress, own: IPAddress, now: MonotonicTime) {
        let path = Path(server: server, own: own)
        // An echo of what we sent is as old as when we got it.
        if cookies[path]?.server == cookie { return }
        if cookies.count >= entriesMax, cookies[path] == nil { cookies.remove(at: cookies.startIndex) }
        cookies[path] = HeldCookie(server: cookie, obtained: now)
    }

    mutating func forget(server: IPAddress, own: IPAddress) {
        cookies[Path(server: server, own: own)] = nil
    }

    /// A recent cookie from one of these servers for `own`, with the server that gave it: the instances of one IMS share their
    /// secret, so one's cookie proves our location to all.
    func proof(servers: [Endpoint], own: IPAddress, now: MonotonicTime) -> (server: IPAddress, cookie: ServerCookie)? {
        for server in servers {
            if let cookie = proof(server: server.address, own: own, now: now) { return (server.address, cookie) }
        }
        return nil
    }

    func hasAnswered(_ server: IPAddress) -> Bool { answered.contains(server) }

    mutating func noteAnswer(_ server: IPAddress) {
        if answered.count >= entriesMax, !answered.contains(server) { answered.remove(at: answered.startIndex) }
        answered.insert(server)
    }

    func roundTrip(_ server: IPAddress) -> Duration? { roundTrips[server]?.value }

    mutating func learn(roundTrip: Duration, server: IPAddress) {
        if roundTrips.count >= entriesMax, roundTrips[server] == nil { roundTrips.remove(at: roundTrips.startIndex) }
        roundTrips[server, default: SmoothedRTT()].add(roundTrip)
    }
}
