import Glibc
import MATRuntime
import MATSignal

/// One question on its way: tries over the servers in turn until an answer, the last try's end or the total time.
///
///     start --> try n over UDP --answer--> finished
///                 |  |  |  '--truncated--> the same server over TCP --answer--> finished
///                 |  |  '--FORMERR/NOTIMP--> the same server without EDNS0
///                 |  '--refused, SERVFAIL, malformed--> try n+1 at once
///                 '--time-out--> try n+1; the socket of try n stays open for a late answer
///
final class ResolverExchange {
    private let loop: EventLoop
    private let question: DNSQuestion
    private var configuration: ResolverConfiguration
    private var firstServer: Int
    private let count: (WritableKeyPath<Resolver.Counters, Int>) -> Void
    private let finished: (DNSResult, Int?) -> Void

    private var sockets: [ResolverSocket] = []
    private var tries = 0
    /// Counts queries sent. Only the latest one's failure moves on; an earlier one's comes too late to matter.
    private var queries = 0
    private var deadline = MonotonicTime.zero
    private var timer: TimerID?
    /// The best reason known for a failure: a server's own words are worth more than a time-out.
    private var failure: DNSFailure?
    private var isFinished = false

    init(
        loop: EventLoop, question: DNSQuestion, configuration: ResolverConfiguration, firstServer: Int,
        count: @escaping (WritableKeyPath<Resolver.Counters, Int>) -> Void, finished: @escaping (DNSResult, Int?) -> Void
    ) {
        self.loop = loop
        self.question = question
        self.configuration = configuration
        self.firstServer = firstServer
        self.count = count
        self.finished = finished
    }

    deinit { stop() }

    func start(_ now: MonotonicTime) {
        deadline = now + configuration.totalTimeout
        nextTry(now)
    }

    /// Begins anew after a change of network: the old sockets' answers would come to an address that is gone. The total time
    /// is not extended.
    func restart(_ configuration: ResolverConfiguration, _ now: MonotonicTime) {
        self.configuration = configuration
        stop()
        tries = 0
        firstServer = 0
        failure = nil
        nextTry(now)
    }

    private func stop() {
        if let timer { loop.cancel(timer) }
        timer = nil
        for socket in sockets { socket.close() }
        sockets = []
    }

    private func finish(_ result: DNSResult, _ server: Int?) {
        guard !isFinished else { return }
        isFinished = true
        stop()
        finished(result, server)
    }

    private func nextTry(_ now: MonotonicTime) {
        if let timer { loop.cancel(timer) }
        timer = nil
        let servers = configuration.servers.count
        guard servers > 0, tries < servers * max(1, configuration.triesPerServerMax), now < deadline else {
            // Never from within `start`: the caller has not finished its own bookkeeping then.
            timer = loop.schedule(after: .zero) { [weak self] in
                guard let self else { return }
                finish(.failed(servers == 0 ? .noServers : failure ?? .timeout), nil)
            }
            return
        }
        let server = (firstServer + tries) % servers
        let wait = configuration.tryTimeout * (1 << min(tries / servers, 8))
        tries += 1
        ask(server, stream: false, edns: true, wait: wait, now)
    }

    private func ask(_ server: Int, stream: Bool, edns: Bool, wait: Duration, _ now: MonotonicTime) {
        if let timer { loop.cancel(timer) }
        queries += 1
        let number = queries
        let id = UInt16.random(in: 0 ... .max)
        guard configuration.servers.indices.contains(server), let query = DNSMessage.encodeQuery(question, id: id, edns: edns)
        else {
            return giveUp(number, .bogus("the question can't be encoded"))
        }
        count(\.queriesSent)
        let target = configuration.servers[server]
        let socket = ResolverSocket(loop: loop, server: target, stream: stream, mark: configuration.mark, query: query) {
            [weak self] event in
            self?.handle(event, number, server: server, query: query, stream: stream, edns: edns)
        }
        guard let socket else { return giveUp(number, .unreachable) }
        sockets.append(socket)
        timer = loop.schedule(at: min(now + wait, deadline)) { [weak self] in self?.nextTry(SystemClock.now().monotonic) }
    }

    private func handle(_ event: ResolverSocket.Event, _ number: Int, server: Int, query: [UInt8], stream: Bool, edns: Bool) {
        guard !isFinished else { return }
        guard case .message(let octets) = event else { return giveUp(number, .unreachable) }
        let now = SystemClock.now().monotonic
        let isLocal = configuration.servers.indices.contains(server) && configuration.servers[server].endpoint.address.isLoopback
        let reading = DNSMessage.decodeAnswer(
            octets, to: question, query: query, now: now, trustsAuthentication: configuration.trustsAuthentication || isLocal)
        switch reading {
        case .notOurs:
            count(\.notOurs)
            // A stream has one answer to give; a datagram socket may still see the real one.
            if stream { giveUp(number, .bogus("it does not match the question")) }
        case .truncated:
            guard !stream else { return giveUp(number, .bogus("it is truncated even over TCP")) }
            count(\.overTCP)
            ask(server, stream: true, edns: edns, wait: configuration.tryTimeout * 4, now)
        case .result(let result):
            finish(result, server)
        case .serverFailed(.refused(let code)) where edns && (code == 1 || code == 4):
            ask(server, stream: stream, edns: false, wait: configuration.tryTimeout, now)
        case .serverFailed(let failure):
            giveUp(number, failure)
        }
    }

    /// Turns to the next server, in the loop's next turn: a server that refuses at once must not become a recursion.
    private func giveUp(_ number: Int, _ reason: DNSFailure) {
        if failure == nil || reason != .unreachable { failure = reason }
        guard number == queries else { return }
        if let timer { loop.cancel(timer) }
        timer = loop.schedule(after: .zero) { [weak self] in self?.nextTry(SystemClock.now().monotonic) }
    }
}
