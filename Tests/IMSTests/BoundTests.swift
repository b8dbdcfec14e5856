import MATCore
import MATSignal
import MATTesting
import Testing

@testable import IMS
@testable import IMSCore

/// ```
///   MN 192.0.2.1 behind a translator at 198.51.100.200       CN 192.0.2.2, likewise at 198.51.100.201
///            |                                                    |
///            +---------- the server under test: of both ----------+
/// ```
@Suite("Pushes and requests of bound nodes")
struct BoundTests {
    private let mn = Endpoint(address("198.51.100.200"), port: 40_001)
    private let cn = Endpoint(address("198.51.100.201"), port: 40_002)
    private let moved = Endpoint(address("198.51.100.202"), port: 40_003)

    private func make() throws -> (TestServer, TestNode, TestNode) {
        let server = try TestServer()
        let nodes = (try server.makeNode("192.0.2.1"), try server.makeNode("192.0.2.2", seed: 2))
        for (node, source) in [(nodes.0, mn), (nodes.1, cn)] {
            #expect(server.update(try node.record(endpoints: [source], sequence: server.now.wallMilliseconds), from: source)?.code == .ok)
        }
        server.clear()
        return (server, nodes.0, nodes.1)
    }

    private func notify(
        _ server: TestServer, _ node: TestNode, from source: Endpoint, record: CertifiedMapping? = nil, signature: Signature? = nil,
        cookie: Cookie? = nil
    ) -> HANotifyAck? {
        let enclosed = record.map { EnclosedRecord(mapping: $0.mapping, certificate: .whole($0.certificate)) }
        let body = HANotify(
            cookie: cookie ?? server.cookie(source), hoa: node.hoa, peerHoA: home("192.0.2.2"), record: enclosed, signature: signature)
        guard case .haNotifyAck(let ack)? = server.ask(.haNotify(body), from: source)?.body else { return nil }
        return ack
    }

    // MARK: Where pushes go

    @Test("A push goes over the binding; without one to the source of the last accepted update, if the record lists it")
    func pushed() throws {
        let (server, node, peer) = try make()
        #expect(notify(server, node, from: mn)?.code == .ok)
        #expect(server.notified(cn).count == 1)
        // The node moved, and bound before it has registered anew: what it has not acked follows it, and is not said twice.
        server.clear()
        #expect(try server.bind(peer, from: moved)?.code == .ok)
        #expect(notify(server, node, from: mn)?.code == .ok)
        #expect(server.notified(moved).count == 1 && server.notified(cn).isEmpty)
        // The binding is over.
        server.advance(.seconds(130))
        server.clear()
        #expect(notify(server, node, from: mn)?.code == .ok)
        #expect(server.notified(cn).count == 1 && server.notified(moved).isEmpty)
    }

    @Test("A source that the record does not list is pushed nothing")
    func unlisted() throws {
        let (server, node, peer) = try make()
        let proof = EndpointProof(endpoint: cn, client: 9, server: try #require(server.cookie(cn, client: 9).server))
        let record = try peer.record(endpoints: [cn], sequence: server.now.wallMilliseconds + 1)
        let enclosed = EnclosedRecord(mapping: record.mapping, certificate: .whole(record.certificate))
        let update = IMSUpdate(cookie: server.cookie(moved), record: enclosed, endpointProofs: [proof])
        #expect(server.ask(.imsUpdate(update), from: moved)?.code == .ok)
        server.clear()
        #expect(notify(server, node, from: mn)?.code == .ok)
        #expect(server.notified(cn).isEmpty && server.notified(moved).isEmpty)
        #expect(try server.bind(peer, from: cn)?.code == .ok)
        #expect(notify(server, node, from: mn)?.code == .ok && server.notified(cn).count == 1)
    }

    @Test("A duplicate of an update, which anybody can send, moves no push")
    func duplicate() throws {
        let (server, node, peer) = try make()
        let held = try #require(server.core.mapping(of: peer.hoa)?.certified)
        #expect(server.update(held, from: moved)?.code == .ok)
        #expect(server.core.mapping(of: peer.hoa)?.source == cn)
        #expect(notify(server, node, from: mn)?.code == .ok && server.notified(cn).count == 1 && server.notified(moved).isEmpty)
    }

    @Test("Of a cluster, who has no binding of a node with endpoints hands the push over, once; who was handed it tells the node")
    func handedOver() throws {
        let (server, node, peer) = try make()
        server.core.shareNews()
        _ = server.core.takeNews()
        #expect(notify(server, node, from: mn)?.code == .ok)
        let record = try #require(server.core.mapping(of: node.hoa)?.certified)
        let prefix = IPPrefix(peer.hoa.address)
        #expect(server.core.takeNews() == [.handOver(to: prefix, record)] && server.notified(cn).isEmpty)
        // Nobody else has one.
        server.perform(server.core.store(.shared([.handedOver(to: prefix, record)]), now: server.now))
        #expect(server.notified(cn).count == 1 && server.core.takeNews().isEmpty)
        // The other instance, at which the node is bound.
        let (other, _, bound) = try make()
        other.core.shareNews()
        #expect(try other.bind(bound, from: moved)?.code == .ok)
        guard case .bound(prefix, let lasts)? = other.core.takeNews().last else { return #expect(Bool(false), "not told of the binding") }
        #expect(lasts == .seconds(600))
        other.clear()
        other.perform(other.core.store(.shared([.handedOver(to: prefix, record)]), now: other.now))
        #expect(other.notified(moved).count == 1)
        other.advance(.seconds(2))
        #expect(try other.bind(bound, from: moved, lifetime: 0)?.code == .ok)
        #expect(other.core.takeNews() == [.unbound(prefix)])
    }

    // MARK: Who is heard

    @Test("HA Notify from a source that no record lists is heard if its node is bound there, and not when another's is")
    func notifyFromBound() throws {
        let (server, node, peer) = try make()
        #expect(notify(server, node, from: moved)?.code == .upstreamFailed)
        #expect(try server.bind(peer, from: moved)?.code == .ok)
        #expect(notify(server, node, from: moved)?.code == .upstreamFailed, "that is another node's endpoint")
        server.advance(.seconds(2))
        #expect(try server.bind(node, from: moved)?.code == .ok)
        #expect(notify(server, node, from: moved)?.code == .ok)
        let record = try #require(server.core.mapping(of: node.hoa)?.certified)
        #expect(notify(server, node, from: moved, record: record)?.code == .ok)
    }

    @Test("HA Notify from anywhere is heard with a PATH-SIGNATURE of its node, with a record or without")
    func signedNotify() throws {
        let (server, node, _) = try make()
        let cookie = server.cookie(moved)
        let good = try server.pathSignature(node, cookie, as: .haNotify)
        #expect(notify(server, node, from: moved, signature: good, cookie: cookie)?.code == .ok)
        let newer = try node.record(endpoints: [mn], sequence: server.now.wallMilliseconds + 5)
        #expect(notify(server, node, from: moved, record: newer, signature: good, cookie: cookie)?.code == .ok)
        for (what, signature) in [
            ("another key", try server.pathSignature(node, cookie, as: .haNotify, key: try key(66))),
            ("a Bind's", try server.pathSignature(node, cookie, as: .bind)),
            ("for another server", try server.pathSignature(node, cookie, as: .haNotify, to: Endpoint(address("203.0.113.9"), port: 6288))),
        ] {
            #expect(notify(server, node, from: moved, signature: signature, cookie: cookie)?.code == .authenticationFailed, "\(what)")
        }
        server.advance(.seconds(301))
        #expect(notify(server, node, from: moved, signature: good, cookie: cookie)?.code == .cookieRequired)
    }

    @Test("A foreign node is heard with its signature as well, against the record that it encloses or that its IMS gives")
    func signedForeigner() throws {
        let upstream = Endpoint(address("203.0.113.50"), port: SignalPort.ims)
        for enclosesRecord in [true, false] {
            let (server, _, _) = try make()
            let foreignKey = try key(150)
            let node = try TestNode("10.1.0.1", seed: 9, issuer: foreignKey, notBefore: TestServer.start - 1000)
            let record = try node.record(endpoints: [mn], sequence: server.now.wallMilliseconds)
            let cookie = server.cookie(moved)
            for isGood in [false, true] {
                let signature = try server.pathSignature(node, cookie, as: .haNotify, key: isGood ? nil : try key(66))
                server.clear()
                _ = notify(server, node, from: moved, record: enclosesRecord ? record : nil, signature: signature, cookie: cookie)
                let host = IMSHost(priority: 0, weight: 0, addresses: [upstream.address], port: upstream.port, target: .root)
                let found = IMSLookupResult.found(
                    IMSSet(servers: [host], keys: [foreignKey.publicKey.octets], expires: server.now.monotonic + .seconds(300)))
                for name in server.lookUps { server.perform(server.core.resolved(name, found, now: server.now)) }
                if let query = server.queries(to: upstream).last {
                    let answer = MAAnswer(
                        code: .ok, cookie: Cookie(client: query.query.cookie.client), hoa: node.hoa, mapping: record.mapping,
                        certificate: record.certificate)
                    server.receive(SignalMessage(sequence: query.sequence, .maAnswer(answer)).octets, from: upstream)
                }
                let codes = server.sent.filter { $0.to == moved && $0.message.type == .haNotifyAck }.map(\.message.code)
                #expect(codes == [isGood ? .ok : .authenticationFailed], "encloses \(enclosesRecord)")
                #expect(server.notified(cn).count == (isGood ? 1 : 0))
            }
        }
    }

    @Test("HA Query is answered at a bound endpoint, and for 30 s at the one before; elsewhere a stranger gets a cookie, and then a no")
    func query() throws {
        let (server, node, _) = try make()
        let registered = try server.makeNode("192.0.2.9", seed: 9)
        let record = try registered.record(["198.51.100.77"], sequence: server.now.wallMilliseconds)
        #expect(server.update(record, from: IMSTests.node("198.51.100.77"))?.code == .ok)
        #expect(server.whose("198.51.100.77", from: mn)?.code == .refused)
        #expect(try server.bind(node, from: mn)?.code == .ok)
        #expect(server.whose("198.51.100.77", from: mn)?.mapping == record.mapping)
        #expect(server.whose("198.51.100.77", from: moved)?.code == .refused)
        let bare = server.ask(.haQuery(HAQuery(cookie: Cookie(client: 3), moa: MobileAddress(address("198.51.100.77")))), from: moved)
        #expect(bare?.code == .cookieRequired)
        server.advance(.seconds(2))
        #expect(try server.bind(node, from: moved)?.code == .ok)
        #expect(server.whose("198.51.100.77", from: mn)?.code == .ok)
        server.advance(.seconds(31))
        #expect(server.whose("198.51.100.77", from: mn)?.code == .refused && server.whose("198.51.100.77", from: moved)?.code == .ok)
        // A locator from another port than a node's is none.
        #expect(server.whose("198.51.100.77", from: Endpoint(address("198.51.100.77"), port: 6290))?.code == .refused)
    }
}
