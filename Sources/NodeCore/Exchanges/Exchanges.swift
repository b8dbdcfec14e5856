import MATCore
import MATSignal

/// All requests under way, and what is known of whom they go to: cookies, round trips, who has ever answered. `Exchange` draws what
/// becomes of one.
///
/// What a request says is made anew for each try, by whoever owns what it is about: cookie and record may have changed since the last one.
struct Exchanges: Sendable {
    /// One message to be made and sent.
    struct Transmission: Hashable, Sendable {
        let purpose: Exchange.Purpose
        let sequence: UInt32
        /// In order of try: the instances of one IMS share their secret, so that one's cookie proves our location to all.
        let targets: [Endpoint]
        let target: Endpoint
        let own: IPAddress
        let cookie: Cookie
    }

    /// What a try comes to.
    enum OnTry: Sendable {
        case send(Transmission)
        /// All tries are used up, and it is forgotten.
        case giveUp(Exchange)
        case count(WritableKeyPath<NodeCounters, UInt64> & Sendable)
    }

    /// What a response is.
    enum OnResponse: Sendable {
        /// Nobody asked for it: dropped.
        case unmatched
        /// The IMS or node wants its cookie, which came along.
        case sendAgain([OnTry])
        /// The request's answer; it is forgotten. Its subject and body fit.
        case ended(Exchange)
    }

    private var exchanges: [UInt32: Exchange] = [:]
    private var sequences: [Exchange.Purpose: UInt32] = [:]
    private var deadlines = DeadlineQueue<UInt32>()
    /// What goes to peers and their IMSs, all in all; see `Backlog`.
    private var pace: Pace
    private let clientCookies: ClientCookies
    private(set) var servers: ServerTable
    /// When a response last came from anybody.
    private var heardAt = FamilyPair<MonotonicTime?>(both: nil)

    init(clientCookies: ClientCookies, serversMax: Int, pace: Pace) {
        self.clientCookies = clientCookies
        self.pace = pace
        servers = ServerTable(entriesMax: serversMax)
    }

    var count: Int { exchanges.count }

    func isUnderWay(_ purpose: Exchange.Purpose) -> Bool { sequences[purpose] != nil }

    // MARK: Beginning and ending

    /// Starts a request, or restarts it if one for the same purpose is under way.
    ///
    /// - Parameters:
    ///   - source: the own address to send from; `nil`: the preferred one, of `preferred`.
    ///   - move: as `Exchange.move`.
    ///   - preferred: the own address that comes first, of each family.
    mutating func start(
        _ purpose: Exchange.Purpose, to targets: [Endpoint], source: IPAddress?, move: UInt32?, triesMax: Int?, preferred: FamilyPair<IPAddress?>,
        random: inout any RandomNumberGenerator, _ now: MonotonicTime
    ) -> [OnTry] {
        cancel(purpose)
        guard let first = targets.first else { return [] }
        var sequence = UInt32.random(in: .min ... .max, using: &random)
        while exchanges[sequence] != nil { sequence &+= 1 }
        exchanges[sequence] = Exchange(
            purpose, sequence: sequence, to: targets, from: source, move: move, triesMax: triesMax ?? Retransmission.triesMax,
            smoothedRTT: servers.roundTrip(first.address), now: now)
        sequences[purpose] = sequence
        // Whoever starts many looks at the pace before; a single one goes, and counts.
        if purpose.isPaced { pace.charge(now) }
        return attempt(sequence, preferred, now)
    }

    mutating func cancel(_ purpose: Exchange.Purpose) {
        guard let sequence = sequences.removeValue(forKey: purpose) else { return }
        exchanges[sequence] = nil
        deadlines.cancel(sequence)
    }

    /// Own addresses are gone, and with them what was sent from them alone.
    mutating func cancel(from gone: Set<MobileAddress>) {
        let lost = exchanges.values.filter { $0.source.map { gone.contains(MobileAddress($0)) } ?? false }
        for exchange in lost.sorted(by: { $0.sequence < $1.sequence }) { cancel(exchange.purpose) }
    }

    // MARK: Tries

    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    /// The try that is due, if there is one: the next one, or giving up. Many may be due at the same time, which must not become a burst.
    mutating func due(preferred: FamilyPair<IPAddress?>, _ now: MonotonicTime) -> [OnTry] {
        guard let sequence = deadlines.takeDue(now) else { return [] }
        return due(sequence, preferred, now)
    }

    private mutating func due(_ sequence: UInt32, _ preferred: FamilyPair<IPAddress?>, _ now: MonotonicTime) -> [OnTry] {
        if let turn = exchanges[sequence]?.isTurn(&pace, now) {
            deadlines.set(sequence, at: turn)
            return []
        }
        return attempt(sequence, preferred, now)
    }

    /// Repeats everything under way from the addresses that we have now: after a move the old source is no use.
    mutating func startOver(preferred: FamilyPair<IPAddress?>, _ now: MonotonicTime) -> [OnTry] {
        exchanges.keys.sorted().flatMap { sequence -> [OnTry] in
            guard exchanges[sequence]?.source == nil else { return [] }
            exchanges[sequence]?.startOver(now)
            return due(sequence, preferred, now)
        }
    }

    private mutating func attempt(_ sequence: UInt32, _ preferred: FamilyPair<IPAddress?>, _ now: MonotonicTime) -> [OnTry] {
        guard var exchange = exchanges[sequence] else { return [] }
        let targets = exchange.attempt(servers, now)
        guard !targets.isEmpty else {
            cancel(exchange.purpose)
            return [.giveUp(exchange)]
        }
        exchanges[sequence] = exchange
        deadlines.set(sequence, at: exchange.retransmission.due)
        let repeats: [OnTry] = exchange.retransmission.tries > 1 ? [.count(\.retransmissions)] : []
        return repeats + targets.compactMap { transmit(sequence, to: $0, preferred, now) }
    }

    /// Sends a request to one target, with the cookie that is known for it. Without an own address of the target's family
    /// nothing is sent; the try counts all the same, so that a request can't wait for ever.
    private mutating func transmit(_ sequence: UInt32, to target: Endpoint, _ preferred: FamilyPair<IPAddress?>, _ now: MonotonicTime) -> OnTry? {
        guard let exchange = exchanges[sequence] else { return nil }
        guard let own = exchange.source ?? preferred[target.family], own.family == target.family else {
            exchanges[sequence]?.couldNotAsk()
            return nil
        }
        let server = exchange.purpose.carriesCookie ? servers.cookie(server: target, own: own, now: now) : nil
        let cookie = Cookie(client: clientCookie(of: target.address, at: own), server: server)
        exchanges[sequence]?.didAsk(target, with: cookie)
        return .send(Transmission(purpose: exchange.purpose, sequence: sequence, targets: exchange.targets, target: target, own: own, cookie: cookie))
    }

    // MARK: Responses

    /// A response arrived. Section 6: dropped unless source, type, sequence, client cookie and HOA or MOA match.
    ///
    /// - Parameter own: our own HoA of each family.
    mutating func received(
        _ message: SignalMessage, from source: Endpoint, to local: IPAddress, own: FamilyPair<HomeAddress?>, preferred: FamilyPair<IPAddress?>,
        _ now: MonotonicTime
    ) -> OnResponse {
        guard var exchange = exchanges[message.sequence], exchange.purpose.type.response == message.type, exchange.mayAnswer(source),
            message.cookie.client == clientCookie(of: source.address, at: local), exchange.purpose.fits(message.body, own: own)
        else { return .unmatched }
        heardAt[source.family] = now
        learn(message.cookie.server, from: source, at: local, now)
        if let sample = exchange.roundTrip(isFirst: servers.roundTrip(source.address) == nil, now) {
            servers.learn(roundTrip: sample, server: source.address)
        }
        guard message.code == .cookieRequired, !exchange.purpose.wantsCookieOnly else {
            cancel(exchange.purpose)
            return .ended(exchange)
        }
        guard exchange.followsCookie() else { return .sendAgain([]) }
        exchanges[message.sequence] = exchange
        return .sendAgain(transmit(message.sequence, to: source, preferred, now).map { [$0] } ?? [])
    }

    /// Somebody whom we asked has answered, with his cookie for our address.
    mutating func learn(_ cookie: ServerCookie?, from server: Endpoint, at own: IPAddress, _ now: MonotonicTime) {
        servers.answered(server.address)
        if let cookie { servers.learn(cookie, server: server, own: own, now: now) }
    }

    /// Proofs of these addresses may have aged on the way: they are fetched anew.
    mutating func forgetCookies(of endpoints: [Endpoint], at moas: [MobileAddress]) {
        for moa in moas { for endpoint in endpoints { servers.forget(server: endpoint, own: moa.address) } }
    }

    // MARK: Questions

    /// The cookie by which we know that a response is to us.
    func clientCookie(of server: IPAddress, at own: IPAddress) -> UInt64 { clientCookies.cookie(server: server, own: own) }

    /// Whether a server's cookie is news, and not an echo of what we sent.
    func isFresh(_ cookie: ServerCookie, from server: Endpoint, at own: IPAddress, _ now: MonotonicTime) -> Bool {
        servers.cookie(server: server, own: own, now: now) != cookie
    }

    /// Whether anybody has answered of late.
    func hasHeard(_ family: AddressFamily, within time: Duration, _ now: MonotonicTime) -> Bool { heardAt[family].map { now - $0 < time } ?? false }

    // MARK: The pace of what goes to peers

    /// When the next request to a peer may go.
    func opens(_ now: MonotonicTime) -> MonotonicTime { pace.opens(now) }

    func isOpen(_ now: MonotonicTime) -> Bool { pace.isOpen(now) }

    /// The next turn, which is given to nobody else.
    mutating func turn(_ now: MonotonicTime) -> MonotonicTime { pace.turn(now) }
}
