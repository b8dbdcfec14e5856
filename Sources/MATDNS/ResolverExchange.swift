import Glibc
import MATRuntime
import MATSignal

/// One question on its way: tries over the servers in turn, and over the ways to them, until an answer, the last try's end or the total time.
///
///     start --> try n over UDP --answer--> finished
///                 |  |  |  '--truncated--> the same server over TCP --answer--> finished
///                 |  |  '--FORMERR/NOTIMP--> the same server without EDNS0
///                 |  |--the first SERVFAIL--> the same server without validation --answer--> once more with --SERVFAIL--> bogus
///                 |  '--refused, SERVFAIL, malformed, unproven--> try n+1 at once
///                 '--time-out--> try n+1; the socket of try n stays open for a late answer
///
/// Each round asks all servers, each from the first of the own addresses that `ways` gives for it among those that it was asked from least often:
/// the default route may lead over a dead link. From the third round on without EDNS0, which some boxes on the way swallow.
final class ResolverExchange {
    private let loop: EventLoop
    private let question: DNSQuestion
    private var configuration: ResolverConfiguration
    private var firstServer: Int
    private let ways: (ResolverConfiguration.Server) -> [IPAddress?]
    private let count: (WritableKeyPath<Resolver.Counters, Int>) -> Void
    private let heard: (ResolverConfiguration.Server, DNSFailure?) -> Void
    private let finished: (DNSResult, ResolverConfiguration.Server?) -> Void

    private var sockets: [ResolverSocket] = []
    private var tries = 0
    /// How often each server was asked over each way. At most servers x ways, both bounded.
    private var triedWays: [Way: Int] = [:]
    /// Counts queries sent. Only the latest one's failure moves on; an earlier one's comes too late to matter.
    private var queries = 0
    private var deadline = MonotonicTime.zero
    private var timer: TimerID?
    /// The best reason known for a failure: a server's own words are worth more than a time-out.
    private var failure: DNSFailure?
    private var suspicion = Suspicion.none
    private var isFinished = false

    /// What is known of a SERVFAIL's cause. "Bogus" and "the zone's servers fail" are one code; but bogus data is answered to a query
    /// that asks for it unchecked (the CD flag).
    private enum Suspicion {
        case none
        case askingUnchecked
        /// It came. The server may have recovered meanwhile, so it is asked once more as usual.
        case askingAgain
        case settled
    }

    /// By whom, and from which own address; `nil`: the kernel's choice.
    private struct Way: Hashable {
        var server: Int
        var own: IPAddress?
    }

    /// How a query is put.
    private struct Form {
        var stream: Bool
        var edns: Bool
        var isUnchecked = false
    }

    init(
        loop: EventLoop, question: DNSQuestion, configuration: ResolverConfiguration, firstServer: Int,
        ways: @escaping (ResolverConfiguration.Server) -> [IPAddress?], count: @escaping (WritableKeyPath<Resolver.Counters, Int>) -> Void,
        heard: @escaping (ResolverConfiguration.Server, DNSFailure?) -> Void, finished: @escaping (DNSResult, ResolverConfiguration.Server?) -> Void
    ) {
        self.loop = loop
        self.question = question
        self.configuration = configuration
        self.firstServer = firstServer
        self.ways = ways
        self.count = count
        self.heard = heard
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
        triedWays = [:]
        firstServer = 0
        failure = nil
        suspicion = .none
        nextTry(now)
    }

    private func stop() {
        if let timer { loop.cancel(timer) }
        timer = nil
        for socket in sockets { socket.close() }
        sockets = []
    }

    private func finish(_ result: DNSResult, _ server: ResolverConfiguration.Server?) {
        guard !isFinished else { return }
        isFinished = true
        stop()
        finished(result, server)
    }

    /// Servers are asked in the order of their list, and the upstream servers of a local one after those that are listed.
    private func server(_ turn: Int) -> Int {
        let listed = configuration.servers.prefix { !$0.isUpstream }.count
        guard listed > 0, turn < listed else { return turn }
        return (firstServer + turn) % listed
    }

    private func nextTry(_ now: MonotonicTime) {
        if let timer { loop.cancel(timer) }
        timer = nil
        let servers = configuration.servers.count
        let own = configuration.servers.map(ways)
        guard servers > 0, tries < servers * max(1, configuration.triesPerServerMax, own.map(\.count).max() ?? 1), now < deadline else {
            // Never from within `start`: the caller has not finished its own bookkeeping then.
            timer = loop.schedule(after: .zero) { [weak self] in
                guard let self else { return }
                finish(.failed(servers == 0 ? .noServers : failure ?? .timeout), nil)
            }
            return
        }
        let round = tries / servers
        let index = server(tries % servers)
        let wait = configuration.tryTimeout * (1 << min(round, 8))
        tries += 1
        ask(
            configuration.servers[index], from: leastTried(own[index], for: index), Form(stream: configuration.isOverTCP, edns: round < 2),
            wait: wait,
            now)
    }

    /// The best way to a server among those that it was asked over least often. By its place in the list it would be chosen wrongly when the order
    /// changes between tries: after a failover the dead way, which was first, is second, and it would have both turns.
    private func leastTried(_ ways: [IPAddress?], for server: Int) -> IPAddress? {
        var best: Way?
        for address in ways {
            let way = Way(server: server, own: address)
            if best.map({ triedWays[way, default: 0] < triedWays[$0, default: 0] }) ?? true { best = way }
        }
        let chosen = best ?? Way(server: server, own: nil)
        triedWays[chosen, default: 0] += 1
        return chosen.own
    }

    private func ask(_ target: ResolverConfiguration.Server, from own: IPAddress?, _ form: Form, wait: Duration, _ now: MonotonicTime) {
        if let timer { loop.cancel(timer) }
        queries += 1
        let number = queries
        let id = UInt16.random(in: 0 ... .max)
        guard let query = DNSMessage.encodeQuery(question, id: id, edns: form.edns, isUnchecked: form.isUnchecked) else {
            return giveUp(number, .malformed("the question can't be encoded"))
        }
        count(\.queriesSent)
        let socket = ResolverSocket(loop: loop, server: target, from: own, stream: form.stream, mark: configuration.mark, query: query) {
            [weak self] event in
            self?.handle(event, number, target, from: own, query: query, form)
        }
        guard let socket else {
            heard(target, .unreachable)
            return giveUp(number, .unreachable)
        }
        sockets.append(socket)
        timer = loop.schedule(at: min(now + wait, deadline)) { [weak self] in
            guard let self else { return }
            heard(target, .timeout)
            nextTry(SystemClock.now().monotonic)
        }
    }

    private func handle(
        _ event: ResolverSocket.Event, _ number: Int, _ target: ResolverConfiguration.Server, from own: IPAddress?, query: [UInt8], _ form: Form
    ) {
        guard !isFinished else { return }
        guard case .message(let octets) = event else {
            heard(target, .unreachable)
            return giveUp(number, .unreachable)
        }
        let now = SystemClock.now().monotonic
        let reading = DNSMessage.decodeAnswer(
            octets, to: question, query: query, now: now,
            trustsAuthentication: target.isLocal || configuration.trustsAuthentication && !target.isUpstream)
        func again(_ change: (inout Form) -> Void, wait: Duration) {
            var changed = form
            change(&changed)
            ask(target, from: own, changed, wait: wait, now)
        }
        switch reading {
        case .notOurs:
            count(\.notOurs)
            // A stream has one answer to give; a datagram socket may still see the real one.
            if form.stream { giveUp(number, .malformed("it does not match the question")) }
        case .truncated:
            guard !form.stream else { return giveUp(number, .malformed("it is truncated even over TCP")) }
            count(\.overTCP)
            again({ $0.stream = true }, wait: configuration.tryTimeout * 4)
        case .result where form.isUnchecked:
            suspicion = .askingAgain
            again({ $0.isUnchecked = false }, wait: configuration.tryTimeout * 4)
        case .result(let result):
            heard(target, nil)
            finish(result, target)
        case .serverFailed(.refused(let code)) where form.edns && (code == 1 || code == 4):
            again({ $0.edns = false }, wait: configuration.tryTimeout)
        case .serverFailed(let failure):
            // A resolver that passes on what a lame server says works, and so does one that leaves out the SOA.
            heard(target, failure == .unproven ? nil : failure)
            // The cause of a failure that came too late does not matter any more.
            guard number == queries else { return giveUp(number, failure) }
            switch suspicion {
            case .none where failure == .refused(code: 2):
                suspicion = .askingUnchecked
                self.failure = failure
                again({ $0.isUnchecked = true }, wait: configuration.tryTimeout * 2)
            case .askingAgain where failure == .refused(code: 2):
                // Another server that does not validate would give what this one warns of.
                finish(.failed(.bogus), target)
            case .none, .askingUnchecked, .askingAgain, .settled:
                suspicion = .settled
                giveUp(number, failure)
            }
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
