import MATSignal
import MATTesting
import Testing

@testable import NodeCore

/// What the answers to MA Notify and HA Notify mean, without a node around it.
@Suite("Answers to notices") struct NoticesTests {
    private let hoa: HomeAddress = home("203.0.113.1")
    private let place: MobileAddress = moa("198.18.0.10")
    private let server = ip("192.88.2.1")
    private let identity = TestAuthority(seed: 201).enrol(home("198.51.100.1"), seed: 11)
    private var announcing = Announcing(NodeCoreConfiguration(homes: [], clientSecret: [], cookieSecret: []))
    private var peers = PeerTable()

    init() throws {
        peers.enter(try Peers.peer(hoa, at: [place.address]))
        peers.claim(place, for: hoa)
    }

    private var own: Announcing.Own {
        Announcing.Own(hoa: identity.hoa, announcement: Announcement(), certificate: identity.certificate, places: [moa("192.0.2.10")])
    }

    private var servers: ServerSet { ServerSet(endpoints: [Endpoint(server, port: SignalPort.ims)], keys: [], expires: .distantFuture) }

    private func ack(_ code: ResponseCode, current: SignedMapping? = nil) -> MANotifyAck {
        MANotifyAck(code: code, cookie: Cookie(client: 1), hoa: identity.hoa, current: current, text: nil)
    }

    private func withoutLogs(_ actions: [Announcing.Action]) -> [Announcing.Action] { actions.filter { if case .log = $0 { false } else { true } } }

    private mutating func acked(_ ack: MANotifyAck?, of move: UInt32 = 1, isBehind: Bool = false) -> [Announcing.Action] {
        withoutLogs(announcing.acked(hoa, ack, of: move, since: time(1000), isBehind: isBehind, in: &peers, own))
    }

    private var knows: Bool { peers[hoa].map { announcing.knows($0, own) } ?? false }

    @Test("A peer that acks knows us, and its traffic follows; whatever else it says, its traffic follows too")
    mutating func acks() {
        #expect(acked(ack(.ok), of: 0) == [] && acked(nil, of: 0) == [] && !knows, "it says so of where we were")
        #expect(acked(ack(.ok)) == [.follow(hoa)] && knows)
        #expect(acked(ack(.tryLater)) == [.follow(hoa)] && acked(ack(.notFound)) == [.suspectLoss(identity.hoa), .follow(hoa)])
        #expect(announcing.acked(home("203.0.113.9"), ack(.ok), of: 1, since: .zero, isBehind: false, in: &peers, own).isEmpty, "no peer")
    }

    @Test("A newer record of ours is gone beyond only if it bears our own signature")
    mutating func stale() {
        let newer = identity.record([ip("192.0.2.10")], sequence: 9).mapping
        #expect(acked(ack(.stale, current: newer)) == [.goBeyond(identity.hoa, sequence: 9), .follow(hoa)])
        let forged = TestAuthority(seed: 7).enrol(identity.hoa, seed: 99).record([ip("192.0.2.10")], sequence: 9).mapping
        #expect(acked(ack(.stale, current: forged)) == [.follow(hoa)] && acked(ack(.stale)) == [.follow(hoa)])
    }

    @Test("A silent peer keeps a path that works, unless its agent has shown since that it lives")
    mutating func silence() {
        #expect(acked(nil) == [.follow(hoa)] && acked(nil, isBehind: true) == [])
        let (before, after) = (time(500), time(1500))
        peers.update(hoa) { _ = $0.hear(.proved, at: moa("198.18.0.10"), now: before) }
        #expect(acked(nil, isBehind: true) == [], "it did so before it was asked")
        peers.update(hoa) { _ = $0.hear(.proved, at: moa("198.18.0.10"), now: after) }
        #expect(acked(nil, isBehind: true) == [.follow(hoa)])
    }

    @Test("Who kept the old path is told again at a sign of life, but not while it is about to be told anyway")
    mutating func toldAgain() throws {
        let peer = try #require(peers[hoa])
        #expect(announcing.isToldAgain(peer, isBehind: true, own) && !announcing.isToldAgain(peer, isBehind: false, own))
        #expect(announcing.isUntold(peer, own))
        var moving = Announcement()
        moving.moved()
        let next = Announcing.Own(hoa: own.hoa, announcement: moving, certificate: own.certificate, places: own.places)
        #expect(!announcing.isToldAgain(peer, isBehind: true, next) && !announcing.isUntold(peer, next))
        peers.update(hoa) { $0.tell { $0.owe(.tellPeer, of: 5) } }
        #expect(!announcing.isToldAgain(try #require(peers[hoa]), isBehind: true, own))
    }

    private mutating func answered(
        _ code: ResponseCode?, of move: UInt32 = 1, lifetime: UInt32? = nil, isAwaited: Bool = false
    ) -> [Announcing.Action] {
        withoutLogs(
            announcing.serverAnswered(hoa, code, nil, of: move, lifetime: lifetime, servers, isAwaited: isAwaited, in: &peers, own, now: .zero))
    }

    @Test("What a peer does not learn from its IMS it learns from us; what was in vain is repeated, by communication's begin if packets wait")
    mutating func serverAnswers() {
        #expect(answered(nil) == [.tell(hoa), .notifyAgain(hoa)])
        #expect(answered(nil, isAwaited: true) == [.notified(hoa, inVain: true), .tell(hoa)])
        #expect(answered(.upstreamFailed) == [.suspectLoss(identity.hoa), .tell(hoa), .notifyAgain(hoa)])
        #expect(answered(.refused, isAwaited: true) == [.notified(hoa, inVain: false), .tell(hoa)])
        #expect(answered(.ok, of: 0, isAwaited: true) == [.notified(hoa, inVain: false)] && !knows, "it holds the record of where we were")
        #expect(answered(.ok, isAwaited: true) == [.notified(hoa, inVain: false)] && knows)
        #expect(answered(.notFound) == [.suspectLoss(identity.hoa)], "who knows us is not told")
    }

    @Test("An IMS that says code 7 is left alone, and gets this peer's HA Notify then; one without an address of our family gets none")
    mutating func paused() throws {
        let source = try #require(own.places.first)
        #expect(announcing.notify(hoa, servers, from: source, now: .zero) == .go(to: servers.endpoints))
        #expect(answered(.tryLater, lifetime: 7).first == .wake(server, at: time(7000)))
        #expect(announcing.notify(home("203.0.113.2"), servers, from: source, now: .zero) == .later(server, at: time(7000)))
        #expect(announcing.next(for: server, now: time(6999)) == nil && announcing.due(server, now: time(6999)) == time(7000))
        #expect(announcing.next(for: server, now: time(7000)) == hoa)
        #expect(announcing.notify(hoa, servers, from: moa("2001:db8::10"), now: .zero) == .impossible("it has no IPv6 address"))
    }
}
