import MATSignal
import MATTesting
import Testing

@testable import IMSCore

func address(_ text: String) -> IPAddress { IPAddress(text) ?? .unspecifiedIPv6 }
func home(_ text: String) -> HomeAddress { HomeAddress(address(text)) }
func prefix(_ text: String) -> IPPrefix { IPPrefix(text) ?? IPPrefix(.unspecifiedIPv6) }
func node(_ text: String) -> Endpoint { Endpoint(address(text), port: SignalPort.node) }
func key(_ number: UInt8) throws -> SigningKey { try #require(SigningKey(seed: [UInt8](repeating: number, count: 32))) }

/// A node as the server's tests need it: a key, a certificate, and records signed with it.
struct TestNode {
    let hoa: HomeAddress
    let prefixLength: UInt8
    let key: SigningKey
    var certificate: Certificate

    init(_ hoa: String, prefixLength: UInt8 = 128, seed: UInt8, issuer: SigningKey, notBefore: UInt64, notAfter: UInt64? = nil) throws {
        self.hoa = home(hoa)
        self.prefixLength = prefixLength
        key = try IMSTests.key(seed)
        certificate = try #require(
            Certificate(
                issuing: self.hoa, prefixLength: prefixLength, nodeKey: key.publicKey, notBefore: notBefore,
                notAfter: notAfter ?? notBefore + 86_400_000,
                with: issuer))
    }

    func record(_ moas: [String], sequence: UInt64, lifetime: UInt32 = 600) throws -> CertifiedMapping {
        let locators = moas.enumerated().map { Locator(MobileAddress(address($1)), prefixLength: prefixLength, preference: UInt8($0)) }
        let record = MappingRecord(
            hoa: hoa, prefixLength: prefixLength, sequence: sequence, lifetime: lifetime, issued: sequence, locators: locators)
        return CertifiedMapping(mapping: try #require(record.signed(with: key)), certificate: certificate)
    }
}

/// One IMS core, with a clock and a store that takes everything, and what it sent and logged.
final class TestServer {
    static let local = address("203.0.113.1")
    static let start: UInt64 = 1_790_000_000_000

    var core: IMSCore
    var now = Now(monotonic: MonotonicTime(nanoseconds: 1_000_000_000), wallMilliseconds: start)
    var sent: [(to: Endpoint, message: SignalMessage)] = []
    var raw: [(to: Endpoint, octets: [UInt8])] = []
    /// Of the reachability test.
    var tested: [(to: Endpoint, octets: [UInt8])] = []
    var logs: [String] = []
    var lookUps: [IPPrefix] = []
    var bindingChanges: [BindingChange] = []
    var commits: [(ticket: StoreTicket, change: StoreChange)] = []
    var checks: [(ticket: VerificationTicket, job: VerificationJob)] = []
    var questions: [(ticket: AuthorisationTicket, question: Authorisation)] = []
    var accounts: [LeaseChange] = []
    /// Whether signatures are checked at once; otherwise the test decides with `finishChecks`.
    var verifiesAtOnce = true
    /// Whether writes succeed at once; otherwise the test decides with `finishCommits`.
    var storesAtOnce = true
    var nextSequence: UInt32 = 1

    let issuer: SigningKey

    init(
        served: [ServedPrefix] = [
            ServedPrefix(prefix: prefix("192.0.2.0/24")),
            ServedPrefix(prefix: prefix("2001:db8:10::/48"), mobilePrefixes: [prefix("2001:db8:aa::/48")]),
        ],
        limits: IMSLimits = IMSLimits(), draftSources: [IPPrefix] = [], seed: UInt64 = 1
    ) throws {
        issuer = try key(200)
        let configuration = IMSCoreConfiguration(served: served, signingKey: issuer, limits: limits, draftSources: draftSources)
        core = try #require(
            IMSCore(
                configuration, cookieSecrets: [[UInt8](repeating: 7, count: 16)], clientSecret: [UInt8](repeating: 8, count: 16),
                random: SeededGenerator(seed: seed)))
    }

    func makeNode(_ hoa: String, prefixLength: UInt8 = 128, seed: UInt8 = 1) throws -> TestNode {
        try TestNode(hoa, prefixLength: prefixLength, seed: seed, issuer: issuer, notBefore: Self.start - 1000)
    }

    // MARK: Driving

    func perform(_ actions: [IMSAction]) {
        for action in actions {
            switch action {
            case .send(let octets, _, let peer):
                raw.append((peer, octets))
                for case .message(let message, _) in SignalDatagram.decode(octets) { sent.append((peer, message)) }
            case .check(let octets, let target, _): tested.append((target, octets))
            case .lookUp(let name): lookUps.append(name)
            case .commit(let ticket, let change): commits.append((ticket, change))
            case .verify(let ticket, let job): checks.append((ticket, job))
            case .log(_, let line): logs.append(line)
            case .bindingChanged(let change): bindingChanges.append(change)
            case .authorise(let ticket, let question): questions.append((ticket, question))
            case .account(let change): accounts.append(change)
            }
        }
        if verifiesAtOnce { finishChecks() }
        if storesAtOnce { finishCommits() }
    }

    func finishChecks() {
        while !checks.isEmpty {
            let check = checks.removeFirst()
            perform(core.verified([VerificationResult(check.ticket, failure: check.job.run())], now: now))
        }
    }

    func finishCommits(failure: String? = nil) {
        while !commits.isEmpty {
            let commit = commits.removeFirst()
            perform(core.stored(commit.ticket, failure: failure, now: now))
        }
    }

    func advance(_ duration: Duration) {
        let end = now.monotonic + duration
        let startedAt = now
        while let next = core.nextDeadline, next <= end {
            if next > now.monotonic { setTime(next, startedAt) }
            perform(core.timerFired(now: now))
        }
        setTime(end, startedAt)
    }

    private func setTime(_ time: MonotonicTime, _ base: Now) {
        let passed = (time - base.monotonic).millisecondsSaturated
        now = Now(monotonic: time, wallMilliseconds: base.wallMilliseconds + UInt64(passed))
    }

    /// Whether anything waits to be found out about an HoA, or for its registration.
    var isFindingOut: Bool { !core.confirmations.isEmpty || !core.ownNotifies.isEmpty }

    func clear() { (sent, raw, logs, lookUps) = ([], [], [], []) }

    func receive(_ octets: [UInt8], from source: Endpoint) {
        perform(core.received(octets, from: source, to: Self.local, now: now))
    }

    /// Sends a body from a source and returns what came back to it, the first message of the response's type.
    @discardableResult
    func ask(_ body: SignalMessage.Body, from source: Endpoint) -> SignalMessage? {
        let message = SignalMessage(sequence: nextSequence, body)
        nextSequence += 1
        let before = sent.count
        receive(message.octets, from: source)
        return sent[before...].first {
            $0.to == source && $0.message.sequence == message.sequence && $0.message.type == message.type.response
        }?.message
    }

    func cookie(_ source: Endpoint, client: UInt64 = 0xC0FFEE, at time: Now? = nil) -> Cookie {
        core.freshCookie(source, client, time ?? now)
    }

    // MARK: Requests

    func update(
        _ certified: CertifiedMapping, from source: Endpoint, proofs: [LocatorProof] = [], byID: Bool = false, cookie: Cookie? = nil
    ) -> IMSUpdateReply? {
        let record = EnclosedRecord(
            mapping: certified.mapping, certificate: byID ? .id(certified.certificate.id) : .whole(certified.certificate))
        let answer = ask(.imsUpdate(IMSUpdate(cookie: cookie ?? self.cookie(source), record: record, proofs: proofs)), from: source)
        guard case .imsUpdateReply(let reply)? = answer?.body else { return nil }
        return reply
    }

    func query(
        _ hoa: String, from source: Endpoint, certID: CertificateID? = nil, subscribe: UInt32? = nil, cookie: Cookie? = nil,
        padding: Int? = nil
    ) -> MAAnswer? {
        let query = MAQuery(cookie: cookie ?? self.cookie(source), hoa: home(hoa), certID: certID, subscribe: subscribe, padding: padding)
        guard case .maAnswer(let answer)? = ask(.maQuery(query), from: source)?.body else { return nil }
        return answer
    }

    func whose(_ moa: String, from source: Endpoint) -> HAAnswer? {
        guard
            case .haAnswer(let answer)? = ask(.haQuery(HAQuery(cookie: cookie(source), moa: MobileAddress(address(moa)))), from: source)?
                .body
        else { return nil }
        return answer
    }

    func notify(_ hoa: String, about peer: String, _ certified: CertifiedMapping?, from source: Endpoint, cookie: Cookie? = nil)
        -> HANotifyAck?
    {
        let record = certified.map { EnclosedRecord(mapping: $0.mapping, certificate: .whole($0.certificate)) }
        let body = HANotify(cookie: cookie ?? self.cookie(source), hoa: home(hoa), peerHoA: home(peer), record: record)
        guard case .haNotifyAck(let ack)? = ask(.haNotify(body), from: source)?.body else { return nil }
        return ack
    }

    /// MA Notifies sent to a peer so far.
    func notified(_ peer: Endpoint) -> [(sequence: UInt32, notify: MANotify)] {
        sent.compactMap { entry in
            guard entry.to == peer, case .maNotify(let notify) = entry.message.body else { return nil }
            return (entry.message.sequence, notify)
        }
    }

    /// MA Queries of its own sent to a server so far.
    func queries(to server: Endpoint) -> [(sequence: UInt32, query: MAQuery)] {
        sent.compactMap { entry in
            guard entry.to == server, case .maQuery(let query) = entry.message.body else { return nil }
            return (entry.message.sequence, query)
        }
    }
}
