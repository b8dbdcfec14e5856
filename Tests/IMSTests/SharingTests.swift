import MATDNS
import MATSignal
import Testing

@testable import IMS

@Suite("Several servers of one IMS")
struct SharingTests {
    private let peer = node("198.51.100.50")

    private func subscribe(_ server: TestServer) -> UInt32? { server.query("192.0.2.1", from: peer, subscribe: 300)?.subscribe }

    @Test("A subscription is told when it is granted, again when half of it has passed, and when it ends")
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
            prefix: IPPrefix(address("192.0.2.1")), endpoint: peer, local: TestServer.local,
            ends: server.now.wallMilliseconds + 300_000)
        #expect(server.core.takeNews() == [.subscribed(told)])
        server.advance(.seconds(30))
        #expect(subscribe(server) == 300)
        #expect(server.core.takeNews().isEmpty)
        server.advance(.seconds(150))
        #expect(subscribe(server) == 300)
        #expect(server.core.takeNews().count == 1)
        // Five pushes without an ack end it.
        #expect(
            server.update(try mover.record(["198.51.100.2"], sequence: server.now.wallMilliseconds), from: node("198.51.100.2"))?
                .code == .ok)
        server.advance(.seconds(20))
        #expect(server.core.takeNews() == [.unsubscribed(IPPrefix(address("192.0.2.1")), peer)])
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
            prefix: IPPrefix(address("192.0.2.1")), endpoint: orphan, local: address("203.0.113.9"),
            ends: server.now.wallMilliseconds + 100_000)
        server.perform(server.core.store(.shared([.subscribed(left)]), now: server.now))
        #expect(server.notified(orphan).map(\.notify.record.mapping) == [second.certified.mapping])
        #expect(server.core.takeNews().isEmpty, "what is taken over is known already")
        let late = node("198.51.100.61")
        server.advance(.seconds(60))
        server.perform(
            server.core.store(
                .shared([.subscribed(SharedSubscription(prefix: left.prefix, endpoint: late, local: left.local, ends: left.ends))]
                ), now: server.now))
        #expect(server.notified(late).isEmpty, "a change of a minute ago was pushed before")
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
