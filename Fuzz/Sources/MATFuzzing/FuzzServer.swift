import IMSCore
import MATCore
import MATSignal

/// An IMS core with everything that it asks for done at once, as the input says, and watched for what it must never do.
struct FuzzServer: Sendable {
    private(set) var core: IMSCore
    private let limits: IMSLimits
    private let population: FuzzPopulation
    private(set) var now = Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: FuzzPopulation.start)
    /// What came of the events since `takeOutcome`.
    private(set) var outcome = Outcome()
    private var choices: ArraySlice<UInt8> = []

    struct Outcome: Sendable {
        var sent: [(octets: [UInt8], to: Endpoint)] = []
        var lookUps = 0
        var commits = 0
        var checks = 0
        var logs = 0
    }

    /// Where DNS says that all foreign IMSs are.
    static let upstream = Endpoint(IPAddress(ipv4: 0xCB00_7132), port: SignalPort.ims)

    init(core: IMSCore, limits: IMSLimits, population: FuzzPopulation) {
        self.core = core
        self.limits = limits
        self.population = population
    }

    mutating func takeOutcome() -> Outcome {
        defer { outcome = Outcome() }
        return outcome
    }

    // MARK: Events

    /// - Parameter choices: how look-ups, writes and queries of its own end, one octet each.
    mutating func receive(_ datagram: [UInt8], from source: Endpoint, choices: [UInt8] = []) throws(BrokenProperty) {
        self.choices = choices[...]
        try perform(core.received(datagram, from: source, to: FuzzPopulation.local, now: now))
        try check()
    }

    mutating func advance(_ duration: Duration) throws(BrokenProperty) {
        let end = now.monotonic + duration
        for _ in 0..<1000 {
            guard let next = core.nextDeadline, next <= end else { break }
            set(max(next, now.monotonic))
            try perform(core.timerFired(now: now))
        }
        set(end)
        try check()
    }

    private mutating func set(_ time: MonotonicTime) {
        let passed = (time - now.monotonic).millisecondsSaturated
        now = Now(monotonic: time, wallMilliseconds: now.wallMilliseconds &+ UInt64(max(0, passed)))
    }

    private mutating func choice() -> UInt8 { choices.popFirst() ?? 0 }

    private mutating func perform(_ actions: [IMSAction]) throws(BrokenProperty) {
        for action in actions {
            switch action {
            case .send(let octets, _, let peer): try send(octets, peer)
            case .check(let octets, let target, _): try send(octets, target)
            case .lookUp(let name):
                outcome.lookUps += 1
                try perform(core.resolved(name, lookUpResult(), now: now))
            case .commit(let ticket, _):
                outcome.commits += 1
                try perform(core.stored(ticket, failure: choice() == 255 ? "the disk is full" : nil, now: now))
            case .bindingChanged: outcome.logs += 1
            // The server here has no authorities.
            case .authorise, .account: break
            case .verify(let ticket, let job):
                outcome.checks += 1
                try perform(core.verified([VerificationResult(ticket, failure: job.run())], now: now))
            case .log(_, let line):
                outcome.logs += 1
                try expect(line.utf8.allSatisfy { $0 >= 0x20 && $0 != 0x7F }, "a log line with control characters: \(line)")
            }
        }
    }

    private mutating func lookUpResult() -> IMSLookupResult {
        switch choice() {
        case 254: return .failed("SERVFAIL")
        case 253: return .absent(until: now.monotonic + .seconds(5))
        case let number:
            let server = IMSHost(
                priority: 0, weight: UInt16(number), addresses: [Self.upstream.address], port: Self.upstream.port, target: .root)
            return .found(IMSSet(servers: [server], keys: [population.imsKey.publicKey.octets], expires: now.monotonic + .seconds(300)))
        }
    }

    /// What leaves must be readable to others, whatever came in.
    private mutating func send(_ octets: [UInt8], _ peer: Endpoint) throws(BrokenProperty) {
        outcome.sent.append((octets, peer))
        try expect(octets.count <= SignalDatagram.octetsMax, "a datagram of \(octets.count) octets")
        try expect(peer.port != 0, "a datagram to port 0")
        for part in SignalDatagram.decode(octets) {
            switch part {
            case .rejected(let rejection): throw BrokenProperty("what is sent can't be read: \(rejection.error)")
            case .message(let message, _):
                if case .maQuery(let query) = message.body, peer == Self.upstream { try answer(query, message.sequence) }
            case .draft: break
            }
        }
    }

    /// IMS_MN's answer, if the input wants one.
    private mutating func answer(_ query: MAQuery, _ sequence: UInt32) throws(BrokenProperty) {
        let code = choice()
        guard code > 0, code <= 10 else { return }
        var answer = MAAnswer(
            code: ResponseCode(rawValue: code - 1), cookie: Cookie(client: query.cookie.client, server: ServerCookie.any), hoa: query.hoa)
        answer.lifetime = 5
        answer.text = "line\nfeed\u{1B}[2J"
        if answer.code == .ok {
            let record = MappingRecord(
                hoa: query.hoa, sequence: now.wallMilliseconds, lifetime: 600, issued: now.wallMilliseconds,
                locators: [Locator(MobileAddress(IPAddress(ipv4: 0xC633_6409)))])
            answer.mapping = record.signed(with: population.nodeKey)
            answer.certificate = Certificate(
                issuing: query.hoa, nodeKey: population.nodeKey.publicKey, notBefore: FuzzPopulation.start, notAfter: .max,
                with: population.imsKey)
        }
        try perform(
            core.received(SignalMessage(sequence: sequence, .maAnswer(answer)).octets, from: Self.upstream, to: FuzzPopulation.local, now: now))
    }

    // MARK: What must hold

    private func check() throws(BrokenProperty) {
        try expect(core.mappingsCount <= limits.mappingsMax + limits.writesMax, "\(core.mappingsCount) mappings")
        try expect(core.rememberedCount <= limits.rememberedMax, "\(core.rememberedCount) mappings remembered")
        try expect(core.subscriptionsCount <= limits.subscriptionsMax, "\(core.subscriptionsCount) subscriptions")
        try expect(core.notifiesPendingCount <= limits.notifiesPendingMax, "\(core.notifiesPendingCount) notifies pending")
        try expect(core.pushesPendingCount <= limits.pushesMax, "\(core.pushesPendingCount) pushes pending")
        try expect(core.rememberedUnconfirmedCount <= core.rememberedCount, "more hints than mappings remembered")
    }

    /// Registers a node as it would do it itself.
    mutating func register(_ hoa: IPAddress, at moa: IPAddress) throws(BrokenProperty) {
        let source = Endpoint(moa, port: SignalPort.node)
        let record = MappingRecord(
            hoa: HomeAddress(hoa), sequence: now.wallMilliseconds, lifetime: 600, issued: now.wallMilliseconds,
            locators: [Locator(MobileAddress(moa))])
        guard let signed = record.signed(with: population.nodeKey),
            let certificate = Certificate(
                issuing: HomeAddress(hoa), nodeKey: population.nodeKey.publicKey, notBefore: FuzzPopulation.start - 86_400_000,
                notAfter: FuzzPopulation.start + 864_000_000, with: population.imsKey)
        else { throw BrokenProperty("a record can't be signed") }
        let cookie = Cookie(client: 1, server: population.cookies.make(for: source, clientCookie: 1, now: now))
        let update = IMSUpdate(cookie: cookie, record: EnclosedRecord(mapping: signed, certificate: .whole(certificate)))
        let before = core.mappingsCount
        try receive(SignalMessage(sequence: 1, .imsUpdate(update)).octets, from: source)
        try expect(core.mappingsCount == before + 1, "a valid IMS Update was not accepted")
    }
}

extension ServerCookie {
    /// What some other server made: opaque to who got it.
    fileprivate static var any: ServerCookie? {
        FuzzTarget.population.cookies.make(
            for: FuzzServer.upstream, clientCookie: 1, now: Now(monotonic: .zero, wallMilliseconds: FuzzPopulation.start))
    }
}
