import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMSCore

@Suite("Pushes: MA Notify on its way")
struct PushesTests {
    private let peer = Endpoint(ip("198.51.100.50"), port: SignalPort.node)
    private let first = Sample.own.record([ip("198.51.100.1")], sequence: Sample.wall)
    private let second = Sample.own.record([ip("198.51.100.2")], sequence: Sample.wall + 1)

    private func sequences(_ actions: [Pushes.Action]) -> [UInt32] {
        actions.compactMap { if case .send(_, _, let sequence) = $0 { sequence } else { nil } }
    }

    private func push(
        _ pushes: inout Pushes, _ certified: CertifiedMapping, isSubscription: Bool = true, _ random: inout CoreRandom
    ) -> [UInt32] {
        sequences(pushes.push(certified, to: peer, from: Sample.local, isSubscription: isSubscription, &random, Sample.now()))
    }

    private func ack(_ code: ResponseCode, _ servers: KnownServers, server: ServerCookie? = nil) -> MANotifyAck {
        var cookie = servers.cookie(for: KnownServers.Peer(endpoint: peer, local: Sample.local))
        cookie.server = server
        return MANotifyAck(code: code, cookie: cookie, hoa: Sample.own.hoa)
    }

    @Test("The same record is owed to one receiver once; a newer one takes its place under another number")
    func once() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        let sent = push(&pushes, first, &random)
        #expect(sent.count == 1 && push(&pushes, first, &random).isEmpty && pushes.count == 1)
        let newer = push(&pushes, second, &random)
        #expect(newer.count == 1 && newer != sent && pushes.count == 1)
        #expect(
            pushes.acked(ack(.ok, Sample.servers()), sent[0], from: peer, Sample.servers()) == nil,
            "nobody waits for that any more")
    }

    @Test("An ack ends it if it comes from the receiver and repeats our cookie, and nothing else does")
    func acks() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        let servers = Sample.servers()
        let sequence = push(&pushes, first, &random)[0]
        var forged = ack(.ok, servers)
        forged.cookie.client ^= 1
        #expect(pushes.acked(forged, sequence, from: peer, servers) == nil)
        #expect(
            pushes.acked(ack(.ok, servers), sequence, from: Endpoint(ip("198.51.100.51"), port: SignalPort.node), servers) == nil)
        #expect(pushes.acked(ack(.ok, servers), sequence, from: peer, servers) != nil && pushes.count == 0)
        #expect(pushes.nextDeadline == nil)
    }

    @Test("Without an ack it is sent five times, and then the subscription that it was owed to ends")
    func unanswered() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        var sent = push(&pushes, first, isSubscription: false, &random).count
        #expect(push(&pushes, first, &random).isEmpty, "another reason for the same push")
        var ended: Bool?
        while let next = pushes.nextDeadline {
            guard case .done(let actions)? = pushes.due(Now(monotonic: next, wallMilliseconds: Sample.wall)) else { break }
            sent += sequences(actions).count
            for case .unanswered(_, let isSubscription) in actions { ended = isSubscription }
        }
        #expect(sent == Retransmission.triesMax && ended == true && pushes.count == 0)
    }

    @Test("What an own node has not acked where it was is handed back when it is elsewhere; a subscription there keeps its push")
    func moved() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        let node = IPPrefix(ip("198.51.100.77"))
        let elsewhere = Endpoint(ip("198.51.100.51"), port: 41_000)
        _ = pushes.push(first, to: peer, from: Sample.local, isSubscription: false, node: node, &random, Sample.now())
        #expect(pushes.isUnderWay(to: node) && pushes.takeBehind(node, at: peer).isEmpty)
        let behind = pushes.takeBehind(node, at: elsewhere)
        #expect(behind == [first] && pushes.count == 0 && pushes.nextDeadline == nil && !pushes.isUnderWay(to: node))
        _ = pushes.push(first, to: peer, from: Sample.local, isSubscription: true, &random, Sample.now())
        _ = pushes.push(first, to: peer, from: Sample.local, isSubscription: false, node: node, &random, Sample.now())
        let owed = pushes.takeBehind(node, at: elsewhere)
        #expect(owed == [first] && pushes.count == 1 && !pushes.isUnderWay(to: node))
    }

    @Test("What another instance serves from now on is repeated, but ends no subscription here")
    func left() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        _ = push(&pushes, first, &random)
        pushes.left(PushKey(peer: peer, local: Sample.local, prefix: first.record.prefix))
        var ended: Bool?
        while let next = pushes.nextDeadline,
            case .done(let actions)? = pushes.due(Now(monotonic: next, wallMilliseconds: Sample.wall))
        {
            for case .unanswered(_, let isSubscription) in actions { ended = isSubscription }
        }
        #expect(ended == false)
    }

    @Test("A cookie that a receiver wants is followed twice and not a third time")
    func cookies() {
        var (pushes, random) = (Pushes(pushesMax: 10), Sample.random())
        let servers = Sample.servers()
        let sequence = push(&pushes, first, &random)[0]
        let wanted = ack(.cookieRequired, servers, server: ServerCookie(head: 1, hash: 2))
        for _ in 0..<2 { #expect(sequences(pushes.acked(wanted, sequence, from: peer, servers) ?? []) == [sequence]) }
        #expect(sequences(pushes.acked(wanted, sequence, from: peer, servers) ?? []).isEmpty && pushes.count == 0)
    }

    @Test("A popular HoA's subscribers are told in parts, the sender of the update not at all; more than the bound are dropped")
    func parts() throws {
        var (pushes, random) = (Pushes(pushesMax: 400), Sample.random())
        let subscribers = (0..<600).map { number in
            SubscriptionTable.Subscriber(
                endpoint: Endpoint(ip("198.51.\(number / 250).\(number % 250 + 1)"), port: SignalPort.node), local: Sample.local,
                expires: .distantFuture)
        }
        let mapping = Sample.stored(first, from: "198.51.0.1")
        let told = pushes.changed(mapping, subscribers: subscribers[...], &random, Sample.now())
        #expect(sequences(told).count == Pushes.perTurnMax - 1)
        let due = pushes.due(Sample.now(Pushes.pause))
        guard case .tell(let prefix, let left)? = due else { throw UnexpectedEnd() }
        #expect(prefix == first.record.prefix && left.count == 600 - Pushes.perTurnMax)
        let rest = pushes.changed(mapping, subscribers: left, &random, Sample.now(Pushes.pause))
        let dropped = rest.count { if case .drop = $0 { true } else { false } }
        #expect(pushes.count == 400 && dropped == Pushes.perTurnMax - (400 - Pushes.perTurnMax + 1))
    }
}

struct UnexpectedEnd: Error {}
