import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What becomes of requests of others, without a node around them.
@Suite("Requests of others") struct RequestsTests {
    private let authority = TestAuthority(seed: 202)
    private let identity: TestIdentity
    private let local = ip("192.0.2.10")
    private let source = Endpoint(ip("198.18.0.10"), port: SignalPort.node)
    private let secret = [UInt8](repeating: 2, count: 16)
    private var requests: Requests
    private let now = VirtualClock().now
    private let wall = VirtualClock.wallAtStart

    init() throws {
        identity = authority.enrol(home("203.0.113.1"), seed: 12)
        var configuration = NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: [])
        configuration.uncookiedChecksPerSecond = 3
        configuration.checksPerSecondPerSource = 2
        requests = Requests(cookies: try #require(CookieAuthority(secret: secret)), configuration)
    }

    private func notify(_ mapping: CertifiedMapping, withCookie: Bool = false) throws -> (MANotify, PendingAck) {
        let server = try #require(CookieAuthority(secret: secret)).make(for: source, clientCookie: 5, now: now)
        let record = EnclosedRecord(mapping: mapping.mapping, certificate: .whole(mapping.certificate))
        let notify = MANotify(cookie: Cookie(client: 5, server: withCookie ? server : nil), record: record)
        return (notify, requests.sender(of: notify, 7, 340, from: source, to: local, now))
    }

    private func subject(_ peer: CertifiedMapping? = nil, isBeingResolved: Bool = false, isFromItsServer: Bool = false) -> Requests.Subject {
        let peer = peer.map { Peer(OfferedRecord($0.mapping, under: $0.certificate), hoa: identity.hoa, isConfirmed: true, now: now.monotonic) }
        return Requests.Subject(
            hoa: identity.hoa, peer: peer, isNoPeer: false, isBeingResolved: isBeingResolved, isFromItsServer: isFromItsServer, isFromOwnServer: false
        )
    }

    private mutating func code(_ mapping: CertifiedMapping, withCookie: Bool = false, _ subject: Requests.Subject) throws -> ResponseCode? {
        let (notify, ack) = try notify(mapping, withCookie: withCookie)
        return if case .answer(let code, _, _) = requests.judge(notify, ack, about: subject, now) { code } else { nil }
    }

    @Test("A record of nobody whom this node talks to is not looked at")
    mutating func nobody() throws {
        #expect(try code(identity.record([source.address], sequence: wall), subject()) == .notFound)
    }

    @Test("The record in force is acknowledged and, from the peer's IMS, confirmed; an older one is answered with the newer")
    mutating func known() throws {
        let present = identity.record([source.address], sequence: wall)
        let (notify, ack) = try notify(present, withCookie: true)
        guard case .inForce(_, let confirms) = requests.judge(notify, ack, about: subject(present, isFromItsServer: true), now) else {
            Issue.record("it is in force")
            return
        }
        #expect(confirms)
        #expect(try code(identity.record([source.address], sequence: wall - 5), subject(present)) == .stale)
    }

    @Test("An expired record is refused before its signature is looked at")
    mutating func expired() throws {
        let old = identity.record([source.address], sequence: wall + 1, lifetime: 10, issued: wall - 600_000)
        let (notify, ack) = try notify(old)
        guard case .refuse = requests.judge(notify, ack, about: subject(identity.record([source.address], sequence: wall - 600_000)), now) else {
            Issue.record("it has expired")
            return
        }
    }

    @Test("Signature checks: a small budget for all without cookie, and only of interest; one for each source with it")
    mutating func budgets() throws {
        let present = identity.record([source.address], sequence: wall - 10)
        let newer = identity.record([source.address], sequence: wall)
        #expect(try code(newer, subject(isBeingResolved: true)) == .cookieRequired, "no peer yet")
        for count in 1...4 { #expect(try code(newer, subject(present)) == (count > 3 ? .cookieRequired : nil)) }
        for count in 1...3 { #expect(try code(newer, withCookie: true, subject(present)) == (count > 2 ? .tryLater : nil)) }
    }

    @Test("An answer to a sender without cookie is never longer than what he sent, and always brings ours")
    mutating func sizes() throws {
        let present = identity.record([source.address], sequence: wall)
        let (_, ack) = try notify(present)
        let short = PendingAck(
            sequence: 7, clientCookie: 5, source: source, local: local, hasCookie: false, provesPlace: false, octetsCount: 60)
        let full = try #require(requests.acknowledgement(ack, .stale, identity.hoa, current: present.mapping, text: "older", now))
        #expect(full.code == .stale && full.cookie.server != nil)
        let asked = try #require(requests.acknowledgement(short, .stale, identity.hoa, current: present.mapping, text: "older", now))
        #expect(asked.code == .cookieRequired && asked.octets.count <= 60 && asked.cookie.server != nil)
        var silent = ack
        silent.isSilent = true
        #expect(requests.acknowledgement(silent, .ok, identity.hoa, now) == nil)
    }

    @Test("Who announced a record under our cookie before we knew of it has shown its place, for 3 s")
    mutating func early() throws {
        let mapping = identity.record([source.address], sequence: wall)
        _ = try code(mapping, subject())
        #expect(!requests.hasEarlyNotices, "without a cookie it shows nothing")
        _ = try code(mapping, withCookie: true, subject())
        #expect(requests.earlySources(of: mapping.mapping, now.monotonic) == [source])
        #expect(requests.earlySources(of: mapping.mapping, now.monotonic + .seconds(4)).isEmpty)
    }
}
