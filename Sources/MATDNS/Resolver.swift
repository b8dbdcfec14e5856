import MATRuntime
import MATSignal

/// A stub resolver that never blocks: questions go to the configured recursive servers, answers come by callback in the
/// loop's thread.
///
/// Equal questions in flight are asked once. Answers are kept as long as their TTL says (within bounds), absence as long as
/// the SOA says, failures for a second, so that a burst of packets to one destination does not become a burst of queries.
public final class Resolver {
    /// RFC 9520: a failure is not asked again at once.
    public static let failureTTL = Duration.seconds(1)

    /// What happened so far, for `status` and tests.
    public struct Counters: Sendable, Hashable {
        public var asked = 0
        public var cached = 0
        public var coalesced = 0
        public var queriesSent = 0
        public var overTCP = 0
        /// Datagrams that did not answer the question: late, forged or garbage.
        public var notOurs = 0
        public var failed = 0
    }

    public private(set) var configuration: ResolverConfiguration
    public private(set) var counters = Counters()
    /// What was heard of each server in use; at most `ResolverConfiguration.serversMax`.
    public private(set) var states: [ResolverConfiguration.Server: ServerState] = [:]
    /// The own addresses to ask a server from, the best first; `nil` among them leaves it to the kernel. Asked at each try, since links die
    /// while a question is out.
    public var ways: (ResolverConfiguration.Server) -> [IPAddress?] = { _ in [nil] }
    private let loop: EventLoop
    private var cache: ResolverCache
    private var exchanges: [DNSQuestion: (exchange: ResolverExchange, waiters: [(DNSResult) -> Void])] = [:]
    /// Where the next question starts: the server that answered last.
    private var preferredServer = 0

    public struct ServerState: Sendable, Hashable {
        /// When it last gave a usable answer.
        public var answered: MonotonicTime?
        /// Since when it has given none though it was asked.
        public var failingSince: MonotonicTime?
        public var failure: DNSFailure?
    }

    public init(loop: EventLoop, configuration: ResolverConfiguration = .system()) {
        self.loop = loop
        self.configuration = configuration
        cache = ResolverCache(entriesMax: configuration.cacheEntriesMax)
    }

    public var inFlight: Int { exchanges.count }

    /// Asks, and calls back once. A cached answer comes before this returns; anything else later.
    public func resolve(_ question: DNSQuestion, completion: @escaping (DNSResult) -> Void) {
        counters.asked += 1
        let now = SystemClock.now().monotonic
        if let known = cache.find(question, now: now) {
            counters.cached += 1
            return completion(known)
        }
        if let running = exchanges[question] {
            guard running.waiters.count < configuration.waitersMax else { return later(.overloaded, completion) }
            counters.coalesced += 1
            exchanges[question]?.waiters.append(completion)
            return
        }
        guard !configuration.servers.isEmpty else { return later(.noServers, completion) }
        guard exchanges.count < configuration.inFlightMax else { return later(.overloaded, completion) }
        let exchange = ResolverExchange(
            loop: loop, question: question, configuration: configuration, firstServer: preferredServer,
            ways: { [unowned self] in ways($0) }, count: { [unowned self] in counters[keyPath: $0] += 1 },
            heard: { [unowned self] in updateState(of: $0, $1) }, finished: { [unowned self] in finish(question, $0, server: $1) })
        exchanges[question] = (exchange, [completion])
        exchange.start(now)
    }

    /// Forgets what was not validated on this host, reads the system's servers again if they are used, and sends the questions
    /// in flight anew: to be called when the network changes (protocol.md section 8).
    /// - Returns: whether the system's files say something else than before.
    @discardableResult
    public func flush() -> Bool {
        let isNews = readSystem()
        forget()
        return isNews
    }

    /// Reads the system's files again, if they are used.
    /// - Returns: whether they say something else than before; then everything is as after `flush`.
    public func followSystem() -> Bool {
        guard readSystem() else { return false }
        forget()
        return true
    }

    private func readSystem() -> Bool {
        guard configuration.followsSystem else { return false }
        let before = configuration
        configuration.readSystem()
        return configuration != before
    }

    private func forget() {
        cache.removeUnvalidated()
        preferredServer = 0
        states = states.filter { configuration.servers.contains($0.key) }
        let now = SystemClock.now().monotonic
        for running in exchanges.values { running.exchange.restart(configuration, now) }
    }

    /// - Parameter failure: `nil` for a usable answer.
    private func updateState(of server: ResolverConfiguration.Server, _ failure: DNSFailure?) {
        guard configuration.servers.contains(server) else { return }
        let now = SystemClock.now().monotonic
        var state = states[server] ?? ServerState()
        if let failure {
            state.failingSince = state.failingSince ?? now
            state.failure = failure
        } else {
            state = ServerState(answered: now)
        }
        states[server] = state
    }

    /// Uses other servers from now on.
    public func replaceServers(_ servers: [ResolverConfiguration.Server]) {
        configuration.servers = Array(servers.prefix(ResolverConfiguration.serversMax))
        configuration.followsSystem = false
        flush()
    }

    private func later(_ failure: DNSFailure, _ completion: @escaping (DNSResult) -> Void) {
        counters.failed += 1
        loop.schedule(after: .zero) { completion(.failed(failure)) }
    }

    /// - Parameter server: which one the result came from; `nil` for a time-out and its like.
    private func finish(_ question: DNSQuestion, _ outcome: DNSResult, server: ResolverConfiguration.Server?) {
        guard let ended = exchanges.removeValue(forKey: question) else { return }
        var result = outcome
        let (expires, isAuthenticated): (MonotonicTime?, Bool) =
            switch result {
            case .records(let records): (records.expires, records.isAuthenticated)
            case .absent(let absence): (absence.expires, absence.isAuthenticated)
            case .failed: (nil, false)
            }
        if expires != nil, configuration.requireDNSSEC, !isAuthenticated { result = .failed(.notAuthenticated) }
        if case .failed = result {
            counters.failed += 1
        } else if let server, !server.isUpstream, let index = configuration.servers.firstIndex(of: server) {
            preferredServer = index
        }
        let now = SystemClock.now().monotonic
        let isLocal = isAuthenticated && server?.isLocal ?? false
        if case .failed = result {
            cache.add(result, for: question, until: now + Self.failureTTL, isLocal: false, now: now)
        } else if var expires {
            if case .absent = result { expires = min(expires, now + configuration.absenceKeptMax) }
            cache.add(result, for: question, until: expires, isLocal: isLocal, now: now)
        }
        for waiter in ended.waiters { waiter(result) }
    }
}
