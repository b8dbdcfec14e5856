import MATControl
import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// One registration and its parts, without a node around them.
@Suite("A registration by itself") struct RegistrationMachineTests {
    private static let authority = TestAuthority(seed: 201)
    private let identity = Self.authority.enrol(home("198.51.100.1"), seed: 11)
    private let first = moa("192.0.2.10")
    private let second = moa("192.0.2.11")
    private let server = Endpoint(ip("192.88.1.1"), port: SignalPort.ims)
    private var registration: Registration
    private var now = VirtualClock().now

    init() {
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        configuration.proofWaitMax = .milliseconds(400)
        registration = Registration(HomeIdentity(hoa: identity.hoa, key: identity.key, certificate: identity.certificate), configuration)
    }

    private func around(_ locators: [MobileAddress], dead: Set<MobileAddress> = [], isClockConfirmed: Bool = true) -> Registration.Surroundings {
        var clock = ConfirmedClock(isRightAtStart: isClockConfirmed)
        return Registration.Surroundings(
            locators: locators, dead: dead, refused: [], cookies: ServerTable(entriesMax: 8), clock: clock.outlook(now), networkKeys: nil,
            endpoints: OwnEndpoints())
    }

    private mutating func found(_ around: Registration.Surroundings) -> [Registration.Action] {
        let set = ServerSet(endpoints: [server], keys: [Self.authority.key.publicKey], expires: now.monotonic + .seconds(3600))
        return registration.lookedUp(.found(set), around, now)
    }

    private mutating func reply(_ code: ResponseCode, lifetime: UInt32? = nil, current: SignedMapping? = nil, _ around: Registration.Surroundings)
        -> [Registration.Action]
    {
        let observed = Endpoint(first.address, port: SignalPort.node)
        let reply = IMSUpdateReply(code: code, cookie: Cookie(client: 1), observed: observed, current: current, certificate: nil, lifetime: lifetime)
        return registration.answered(reply, from: server, owesPeers: false, around, now)
    }

    private func proofs(_ actions: [Registration.Action]) -> [MobileAddress] {
        actions.compactMap { if case .prove(let moa, _) = $0 { moa } else { nil } }
    }
    private func updates(_ actions: [Registration.Action]) -> [MobileAddress] {
        actions.compactMap { if case .update(_, let moa) = $0 { moa } else { nil } }
    }
    private func remembered(_ actions: [Registration.Action]) -> [UInt64] {
        actions.compactMap { if case .remember(let sequence) = $0 { sequence } else { nil } }
    }

    @Test("It waits for an address and for its IMS, proves further locators, updates and is registered")
    mutating func course() throws {
        #expect(registration.begin(around([]), now).contains { if case .stopUpdating = $0 { true } else { false } })
        #expect(registration.stage == .waiting)
        #expect(registration.begin(around([first, second]), now).contains { if case .lookUpServers = $0 { true } else { false } })
        let around = around([first, second])
        #expect(Set(proofs(found(around))) == [first, second], "the source's cookie is fetched along with the other's")
        #expect(registration.stage == .proving)
        #expect(registration.proofEnded(of: second, isAnswered: true, around, now).isEmpty)
        #expect(updates(registration.proofEnded(of: first, isAnswered: true, around, now)) == [first])
        #expect(registration.stage == .updating && registration.acked == nil)
        #expect(reply(.ok, around).contains { if case .registered = $0 { true } else { false } })
        #expect(registration.isRegistered && registration.acked?.places == [first, second])
        #expect(registration.nextDue == now.monotonic + .seconds(Int64(MappingRecord.lifetimeDefault / 2)))
    }

    @Test("A locator that gets no cookie in time, or whose link is dead, is left out of the record")
    mutating func unproven() throws {
        let around = around([first, second])
        _ = found(around)
        now.monotonic = try #require(registration.nextDue)
        #expect(registration.takeDue(now.monotonic) == .proofs)
        let actions = registration.proofsDue(around, now)
        #expect(updates(actions) == [first] && remembered(actions) == [registration.signer.sequence])
        #expect(registration.mapping?.record.locators.map(\.moa) == [first])
        let dead = self.around([first, second], dead: [second])
        #expect(updates(registration.begin(dead, now)) == [first], "it is not waited for")
    }

    @Test("Without a confirmed clock nothing is signed before the IMS's was read")
    mutating func clock() {
        let unconfirmed = around([first], isClockConfirmed: false)
        #expect(found(unconfirmed).contains { if case .readClock(_, first) = $0 { true } else { false } })
        #expect(registration.mapping == nil && registration.stage == .proving)
        #expect(updates(registration.clockRead(refusal: nil, silentOver: nil, around([first]), now)) == [first])
        _ = registration.begin(unconfirmed, now)
        _ = registration.clockRead(refusal: Problem(refusal: .refused, nil, of: identity.hoa), silentOver: first, unconfirmed, now)
        #expect(registration.stage == .pausing && registration.silentOver == first)
    }

    @Test("\"Try later\" is obeyed, up to a minute; a failed attempt is repeated after 2, 4, 8 ... 30 s")
    mutating func pauses() {
        let around = around([first])
        _ = found(around)
        _ = reply(.tryLater, lifetime: 600, around)
        #expect(registration.nextDue == now.monotonic + .seconds(60) && registration.stage == .pausing)
        registration.moved(isSound: true)
        for pause in [2, 4, 8, 16, 30, 30] {
            _ = registration.failed(Problem(.noAnswer, of: identity.hoa, "no answer"), around, now)
            #expect(registration.nextDue == now.monotonic + .seconds(pause))
        }
    }

    @Test("A newer record at the IMS is gone beyond if our key signed it, and reported if another key did")
    mutating func stale() throws {
        let around = around([first])
        _ = found(around)
        let ahead = now.wallMilliseconds + 10_000
        let actions = reply(.stale, current: identity.record([first.address], sequence: ahead).mapping, around)
        #expect(updates(actions) == [first] && registration.signer.sequence == ahead + 1)
        let stranger = Self.authority.enrol(identity.hoa, seed: 12).record([first.address], sequence: ahead + 5)
        _ = reply(.stale, current: stranger.mapping, around)
        #expect(registration.stage == .pausing && registration.problem(at: [first])?.text.contains("another key") == true)
    }

    @Test("An IMS that has only an older record, or none, has lost ours, and is given the certificate whole")
    mutating func lost() throws {
        let around = around([first])
        _ = found(around)
        _ = reply(.ok, around)
        #expect(registration.certificate.isAtServer)
        let own = try #require(registration.mapping)
        func answer(_ code: ResponseCode, _ mapping: SignedMapping? = nil) -> MAAnswer {
            MAAnswer(code: code, cookie: Cookie(client: 1), hoa: identity.hoa, mapping: mapping, certificate: nil)
        }
        #expect(registration.selfChecked(answer(.ok, own.mapping)) == nil)
        #expect(registration.selfChecked(answer(.tryLater)) == nil)
        let older = identity.record([first.address], sequence: own.record.sequence - 1)
        #expect(registration.selfChecked(answer(.ok, older.mapping))?.text.contains("only an older record") == true)
        #expect(!registration.certificate.isAtServer)
        // A newer one of another key is no one of ours: the address was revoked.
        let revocation = Self.authority.revoke(identity.hoa, at: own.record.sequence + 1)
        let other = MAAnswer(
            code: .ok, cookie: Cookie(client: 1), hoa: identity.hoa, mapping: revocation.mapping, certificate: revocation.certificate)
        #expect(registration.selfChecked(other)?.loss == .address)
    }

    // MARK: Its parts

    @Test("Sequences go up by time, or by one, never beyond what the clock allows; one from the future counts no more")
    func sequences() {
        var signer = RecordSigner(identity.key, lastSequence: now.wallMilliseconds + 5)
        func sign(_ most: UInt64?) -> RecordSigner.OnSign {
            signer.sign([first], of: identity.hoa, under: identity.certificate, lifetime: 600, sequenceMax: most, now)
        }
        #expect(sign(nil) == .notSigned && signer.mapping == nil)
        #expect(sign(now.wallMilliseconds + 5) == .notSigned)
        #expect(sign(now.wallMilliseconds + 300_000) == .signed && signer.sequence == now.wallMilliseconds + 6)
        signer.goBeyond(now.wallMilliseconds + 900_000)
        #expect(sign(now.wallMilliseconds + 300_000) == .signedAnew(leadSeconds: 900) && signer.sequence == now.wallMilliseconds)
        #expect(signer.mapping?.record.sequence == now.wallMilliseconds)
    }

    @Test("A DNS that gives no IMS is asked after 1, 2, 4, 8, 10 s; each problem is told once; a denial ends when one is found")
    func lookUps() {
        var servers = HomeServers()
        let time = now.monotonic
        for (index, pause) in [1, 2, 4, 8, 10, 10].enumerated() {
            #expect(servers.notFound(Problem(.noIMSRecord, of: identity.hoa, "none"), isDenied: true, time) == (index == 0))
            #expect(servers.retryAt == time + .seconds(pause))
        }
        let failure = Problem(.nameLookUp, of: identity.hoa, "SERVFAIL")
        #expect(servers.notFound(failure, isDenied: false, time) && servers.problem == failure)
        servers.startOver()
        #expect(servers.retryAt == nil)
        let set = ServerSet(endpoints: [server], keys: [], expires: time + .seconds(60))
        #expect(servers.found(set) == HomeServers.OnFound(isNews: true, endsDenial: true))
        #expect(servers.found(set) == HomeServers.OnFound(isNews: false, endsDenial: false) && servers.problem == nil)
        servers.leaveNetwork(time)
        #expect(servers.isExpired(time) && servers.set != nil, "it is used until there is something newer")
    }

    @Test("Of a certificate that ends people are told once a day until it is renewed, by a key of the DNS only")
    func certificates() {
        let key = identity.key.publicKey
        let end = now.wallMilliseconds + 3_600_000
        var certificate = HomeCertificate(Self.authority.certify(identity.hoa, key, notBefore: now.wallMilliseconds - 30 * 86_400_000, notAfter: end))
        var later = now
        #expect(certificate.warning(later) != nil && certificate.warning(later) == nil)
        later.monotonic = later.monotonic + .seconds(86_400)
        #expect(certificate.warning(later) != nil)
        let renewed = Self.authority.certify(identity.hoa, key, notBefore: now.wallMilliseconds)
        #expect(certificate.renew(renewed, keys: nil) == .keysNeeded)
        #expect(certificate.renew(renewed, keys: [TestAuthority(seed: 99).key.publicKey]) == .notIssued)
        #expect(certificate.renew(renewed, keys: [Self.authority.key.publicKey]) == .renewed && certificate.isAtServer)
        #expect(certificate.renew(renewed, keys: [Self.authority.key.publicKey]) == .none)
        #expect(certificate.warning(later) == nil)
    }
}
