import MATSignal
import MappingMemory
import Testing

@testable import IMSCore

@Suite("Several servers of one IMS")
struct SharingTests {
    private let peer = node("198.51.100.50")

    private func subscribe(_ server: TestServer) -> UInt32? { server.query("192.0.2.1", from: peer, subscribe: 300)?.subscribe }

    @Test("A subscription is told when it is granted, for half as long again, anew when it would outlast that, and when it ends")
    func subscriptionNews() throws {
        let server = try TestServer()
        let mover = try server.makeNode("192.0.2.1")
        #expect(
            server.update(try mover.record(["198.51.100.1"], sequence: TestServer.start), from: node("198.51.100.1"))?.code == .ok
        )
        #expect(subscribe(server) == 300)
        #expect(server.core.takeNews().isEmpty, "nobody shares")

        server.core.shareNews()
        #expect(subscribe(server) == 300)
        let told = SharedSubscription(
            prefix: IPPrefix(address("192.0.2.1")), endpoint: peer, local: TestServer.local, lasts: .seconds(450))
        #expect(server.core.takeNews() == [.subscribed(told)])
        var toldUntil = server.now.monotonic + .seconds(450)
        var tellings = 0
        for _ in 0..<15 {
            server.advance(.seconds(30))
            #expect(subscribe(server) == 300)
            for case .subscribed(let subscription) in server.core.takeNews() {
                tellings += 1
                toldUntil = server.now.monotonic + subscription.lasts
            }
            #expect(toldUntil >= server.now.monotonic + .seconds(300), "others would end it early")
        }
        #expect(tellings <= 3, "one write for five renewals: \(tellings)")
        // A shorter grant ends nothing early.
        #expect(server.query("192.0.2.1", from: peer, subscribe: 10)?.subscribe == 10)
        server.advance(.seconds(60))
        #expect(
            server.update(try mover.record(["198.51.100.3"], sequence: server.now.wallMilliseconds), from: node("198.51.100.3"))?
                .code == .ok)
        #expect(server.notified(peer).count == 1)
        // Five pushes without an ack end it.
        server.advance(.seconds(20))
        #expect(server.core.takeNews() == [.unsubscribed(IPPrefix(address("192.0.2.1")), peer)])
    }

    @Test("Who was handed to another server is that one's: a push that stays unanswered then ends nothing")
    func unansweredAfterHandingOver() throws {
        let server = try TestServer()
        server.core.shareNews()
        let mover = try server.makeNode("192.0.2.1")
        #expect(
            server.update(try mover.record(["198.51.100.1"], sequence: TestServer.start), from: node("198.51.100.1"))?.code == .ok)
        #expect(subscribe(server) == 300)
        #expect(
            server.update(try mover.record(["198.51.100.2"], sequence: TestServer.start + 1), from: node("198.51.100.2"))?.code == .ok)
        #expect(server.notified(peer).count == 1)
        _ = server.core.takeNews()
        let prefix = IPPrefix(address("192.0.2.1"))
        server.perform(server.core.store(.shared([.leave(prefix, peer)]), now: server.now))
        // It comes back while the push is still on its way.
        server.advance(.seconds(2))
        let again = SharedSubscription(prefix: prefix, endpoint: peer, local: TestServer.local, lasts: .seconds(300))
        server.perform(server.core.store(.shared([.serve(again, isBehind: false)]), now: server.now))
        server.advance(.seconds(20))
        #expect(server.core.takeNews().isEmpty)
        #expect(server.core.subscribers(of: home("192.0.2.1"), now: server.now) == [peer])
        server.perform(server.core.store(.shared([.leave(prefix, peer)]), now: server.now))
        server.clear()
        #expect(
            server.update(
                try mover.record(["198.51.100.3"], sequence: server.now.wallMilliseconds), from: node("198.51.100.3"))?.code == .ok)
        #expect(server.notified(peer).isEmpty)
    }

    @Test(
        "Each server pushes to its own subscribers what another took; who takes subscriptions over pushes what may have been missed"
    )
    func pushes() throws {
        let server = try TestServer()
        server.core.shareNews()
        let mover = try server.makeNode("192.0.2.1")
        let first = try mover.record(["198.51.100.1"], sequence: TestServer.start)
        #expect(server.update(first, from: node("198.51.100.1"))?.code == .ok)
        #expect(subscribe(server) == 300)
        _ = server.core.takeNews()
        server.clear()
        func stored(_ sequence: UInt64) throws -> StoredMapping {
            StoredMapping(
                certified: try mover.record(["198.51.100.2"], sequence: sequence), source: node("198.51.100.2"),
                local: address("203.0.113.2"),
                provenAt: server.now.wallMilliseconds)
        }
        let second = try stored(TestServer.start + 1)
        server.perform(server.core.store(.changed([StoreChange(mapping: second)]), now: server.now))
        #expect(server.notified(peer).map(\.notify.record.mapping) == [second.certified.mapping])
        // Older, and the same again: nothing.
        server.clear()
        server.perform(
            server.core.store(
                .changed([StoreChange(mapping: second), StoreChange(mapping: try stored(TestServer.start))]), now: server.now))
        #expect(server.notified(peer).isEmpty)
        #expect(server.query("192.0.2.1", from: peer)?.mapping == second.certified.mapping)

        let orphan = node("198.51.100.60")
        let left = SharedSubscription(
            prefix: IPPrefix(address("192.0.2.1")), endpoint: orphan, local: address("203.0.113.9"), lasts: .seconds(100))
        server.perform(server.core.store(.shared([.serve(left, isBehind: true)]), now: server.now))
        #expect(server.notified(orphan).map(\.notify.record.mapping) == [second.certified.mapping])
        #expect(server.core.takeNews().isEmpty, "what is taken over is known already")
        // Told again while the push is on its way: nothing is repeated.
        server.clear()
        server.perform(server.core.store(.shared([.serve(left, isBehind: true)]), now: server.now))
        #expect(server.notified(orphan).isEmpty)
        let late = node("198.51.100.61")
        server.advance(.seconds(60))
        var lateOne = left
        lateOne.endpoint = late
        server.perform(server.core.store(.shared([.serve(lateOne, isBehind: false)]), now: server.now))
        #expect(server.notified(late).isEmpty, "who served before has pushed it")
        server.perform(
            server.core.store(.changed([StoreChange(mapping: try stored(TestServer.start + 70_000))]), now: server.now))
        #expect(server.notified(late).count == 1)
    }

    @Test("What one server remembers of other IMSs' nodes, all answer HA Query with; own nodes' records are not taken that way")
    func remembered() throws {
        let server = try TestServer()
        server.core.shareNews()
        let own = try server.makeNode("192.0.2.1")
        #expect(
            server.update(try own.record(["198.51.100.1"], sequence: TestServer.start), from: node("198.51.100.1"))?.code == .ok)
        let stranger = try TestNode("203.0.114.7", seed: 9, issuer: try key(201), notBefore: TestServer.start - 1000)
        let record = try stranger.record(["198.51.100.77"], sequence: TestServer.start)
        server.perform(server.core.store(.shared([.remembered(record, isConfirmed: false)]), now: server.now))
        #expect(server.whose("198.51.100.77", from: node("198.51.100.1"))?.mapping == record.mapping)
        #expect(server.core.rememberedUnconfirmedCount == 1 && server.core.takeNews().isEmpty)
        server.perform(server.core.store(.shared([.remembered(record, isConfirmed: true)]), now: server.now))
        #expect(server.core.rememberedUnconfirmedCount == 0)
        let older = try stranger.record(["198.51.100.78"], sequence: TestServer.start - 1)
        server.perform(server.core.store(.shared([.remembered(older, isConfirmed: true)]), now: server.now))
        #expect(server.whose("198.51.100.78", from: node("198.51.100.1"))?.code == .notFound)
        let forged = try own.record(["198.51.100.99"], sequence: TestServer.start + 5)
        server.perform(server.core.store(.shared([.remembered(forged, isConfirmed: true)]), now: server.now))
        #expect(server.query("192.0.2.1", from: peer)?.mapping?.record.sequence == TestServer.start)
    }
}
