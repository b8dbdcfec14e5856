import IMTPlan
import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// Goes the way that a node goes to a new destination: DNS, then the IMSs in order, with cookies. A shell around `LookupFindings`.
final class LookupWalk {
    /// Tries per server: as many as a node makes before it asks the next one too.
    static let triesMax = Retransmission.failoverTry

    private let loop: EventLoop
    private var findings: LookupFindings
    private var resolver: Resolver
    private var socket: UDPSocket?

    private var servers: ArraySlice<Endpoint> = []
    private var keys: [PublicKey] = []
    private var comparesForms = false
    /// The query in progress.
    private var query: MAQuery?
    private var retransmission = Retransmission(type: .maQuery, now: .zero)
    private var cookiesFollowed = 0
    private var sequence: UInt32 = 0
    private var sentAt = MonotonicTime.zero
    private var timer: TimerID?

    /// - Parameter comparesForms: whether the DNS is asked for the form that a node does not need as well.
    static func run(_ hoa: HomeAddress, by dns: DNSChoice, comparesForms: Bool = false) throws(CommandFailure) -> LookupFindings {
        do throws(SystemError) {
            let loop = try EventLoop()
            let walk = try LookupWalk(hoa, by: dns, loop: loop)
            walk.comparesForms = comparesForms
            // From within the loop: stopping before it runs would be forgotten.
            loop.schedule(after: .zero) { walk.start() }
            try loop.run()
            return walk.findings
        } catch {
            throw CommandFailure("\(error)")
        }
    }

    private init(_ hoa: HomeAddress, by dns: DNSChoice, loop: EventLoop) throws(SystemError) {
        self.loop = loop
        var configuration = dns.configuration
        findings = LookupFindings(hoa: hoa, resolvers: configuration.servers.map(\.endpoint), now: SystemClock.now())
        (findings.resolversFrom, findings.resolversDoubt) = (dns.origin, dns.doubt)
        // On a node, questions of the agent's kind go out beside the translation. Only root may mark them so; without it they go
        // like any other program's.
        let mark = IMTConfiguration().mark
        var marked = UDPSocket.Options()
        marked.mark = mark
        resolver = Resolver(loop: loop, configuration: configuration)
        let received: (UnsafeRawBufferPointer, Endpoint, IPAddress) -> Void = { [unowned self] octets, source, _ in
            receive(Array(octets), source)
        }
        if let socket = try? UDPSocket(loop: loop, port: 0, options: marked, received: received) {
            self.socket = socket
            configuration.mark = mark
            resolver = Resolver(loop: loop, configuration: configuration)
        } else {
            socket = try UDPSocket(loop: loop, port: 0, received: received)
        }
    }

    // MARK: DNS

    private func start() {
        let began = SystemClock.now().monotonic
        // Asked for itself first, to know which form there is; the look-up then finds the answer in the cache.
        resolver.resolve(DNSQuestion(findings.name, .ims)) { [self] result in
            IMSLookup(resolver: resolver).lookup(findings.hoa) { [self] found in
                findings.dnsTook = SystemClock.now().monotonic - began
                // Of a name whose servers are silent nothing more comes.
                if case .failed(let failure) = result, failure == .timeout || failure == .unreachable || failure == .noServers {
                    return lookedUp(found, .service)
                }
                resolver.resolveAliases(of: findings.name) { [self] in
                    if case .end(let alias) = $0 { (findings.alias, findings.isAliasAuthenticated) = (alias.name, alias.isAuthenticated) }
                    if case .records = result { return lookedUp(found, .record) }
                    guard let alias = findings.alias else { return lookedUp(found, .service) }
                    // Of a resolver that follows no aliases.
                    resolver.resolve(DNSQuestion(alias, .ims)) { [self] result in
                        let form: LookupFindings.Form = if case .records = result { .record } else { .service }
                        lookedUp(found, form)
                    }
                }
            }
        }
    }

    private func lookedUp(_ result: IMSLookupResult, _ form: LookupFindings.Form) {
        switch result {
        case .absent:
            findings.dns = .absent
            resolver.resolve(DNSQuestion(findings.alias ?? findings.name, .ptr)) { [self] result in
                if case .records = result { findings.isNameTaken = true }
                finish()
            }
        case .failed(let reason):
            findings.dns = .failed(reason)
            finish()
        case .unusable(let reason):
            findings.dns = .unusable(reason)
            finish()
        case .found(let set):
            var generator = SystemRandomNumberGenerator()
            let found = Self.servers(set, form, set.ordered(using: &generator))
            keys = found.keys
            findings.dns = .found(found)
            servers = found.ordered.flatMap(\.endpoints)[...]
            guard comparesForms, form == .record else { return askNext() }
            IMSLookup(resolver: resolver).lookupService(at: findings.alias ?? findings.name) { [self] in
                findings.otherForm = Self.otherForm($0)
                askNext()
            }
        }
    }

    private static func servers(_ set: IMSSet, _ form: LookupFindings.Form, _ ordered: [IMSHost]) -> LookupFindings.Servers {
        LookupFindings.Servers(
            form: form, ordered: ordered, keys: set.keys.compactMap { PublicKey($0) }, relays: set.relays, isAuthenticated: set.isAuthenticated,
            lifetime: set.expires - SystemClock.now().monotonic)
    }

    private static func otherForm(_ result: IMSLookupResult) -> LookupFindings.DNS {
        switch result {
        case .absent: .absent
        case .failed(let reason): .failed(reason)
        case .unusable(let reason): .unusable(reason)
        case .found(let set): .found(servers(set, .service, set.servers))
        }
    }

    // MARK: Servers

    private func askNext() {
        guard !servers.isEmpty else { return finish() }
        cookiesFollowed = 0
        ask(with: Cookie(client: .random(in: 0 ... .max)))
    }

    private func ask(with cookie: Cookie) {
        query = MAQuery(cookie: cookie, hoa: findings.hoa)
        sequence = .random(in: 0 ... .max)
        retransmission = Retransmission(type: .maQuery, now: SystemClock.now().monotonic)
        send()
    }

    private func send() {
        guard let query, let server = servers.first else { return }
        guard retransmission.tries < Self.triesMax else { return giveUp(.silent) }
        sentAt = SystemClock.now().monotonic
        retransmission.tried(at: sentAt)
        if let error = socket?.send(SignalMessage(sequence: sequence, .maQuery(query)).octets, to: server) {
            return giveUp(.unsendable("\(error)"))
        }
        timer = loop.schedule(at: retransmission.due) { [self] in send() }
    }

    private func giveUp(_ outcome: LookupFindings.Query.Outcome) {
        end(outcome)
        servers = servers.dropFirst()
        askNext()
    }

    /// The query in progress is over.
    private func end(_ outcome: LookupFindings.Query.Outcome) {
        guard let server = servers.first else { return }
        findings.queries.append(.init(server: server, sequence: sequence, tries: retransmission.tries, outcome: outcome))
        if let timer { loop.cancel(timer) }
        timer = nil
        query = nil
    }

    // MARK: Answers

    private func receive(_ octets: [UInt8], _ source: Endpoint) {
        guard source == servers.first, let query else { return }
        for case .message(let message, _) in SignalDatagram.decode(octets) {
            guard case .maAnswer(let answer) = message.body, message.sequence == sequence,
                answer.cookie.client == query.cookie.client,
                answer.hoa == nil || answer.hoa == findings.hoa
            else { continue }
            return answered(answer)
        }
    }

    private func answered(_ answer: MAAnswer) {
        let now = SystemClock.now()
        if let server = servers.first, let time = answer.cookie.server?.madeAt, !findings.clocks.contains(where: { $0.server == server }) {
            findings.clocks.append((server, Int64(clamping: time / 1000) - Int64(clamping: now.wallMilliseconds / 1000)))
        }
        end(.answered(answer.code, rtt: now.monotonic - sentAt, text: answer.text))
        switch answer.code {
        case .cookieRequired where cookiesFollowed < Retransmission.cookiesFollowedMax && answer.cookie.server != nil:
            cookiesFollowed += 1
            ask(with: answer.cookie)
        case .ok:
            guard let mapping = answer.mapping, let certificate = answer.certificate else { return finish() }
            let certified = CertifiedMapping(mapping: mapping, certificate: certificate)
            findings.mapping = certified
            findings.checks = LookupFindings.check(certified, asked: findings.hoa, keys: keys, now: now)
            finish()
        case .notFound:
            finish()
        default:
            // Another server of the set may do better.
            servers = servers.dropFirst()
            askNext()
        }
    }

    private func finish() {
        findings.now = SystemClock.now()
        loop.stop()
    }
}
