import Glibc
import MATSignal
import Synchronization
import Testing

@testable import IMS
@testable import IMSCore

@Suite("Signature checks off the core's thread")
struct VerificationTests {
    let mn = node("198.51.100.7")
    let hoa = "192.0.2.1"

    private func replies(_ server: TestServer) -> [IMSUpdateReply] {
        server.sent.compactMap { entry in
            guard case .imsUpdateReply(let reply) = entry.message.body else { return nil }
            return reply
        }
    }

    @Test("Of two updates being checked the newer one wins, whichever check ends first")
    func order() throws {
        for newerFirst in [false, true] {
            let server = try TestServer()
            server.verifiesAtOnce = false
            let node = try server.makeNode(hoa)
            let time = server.now.wallMilliseconds
            let older = try node.record(["198.51.100.7"], sequence: time)
            let newer = try node.record(["198.51.100.7"], sequence: time + 1)
            #expect(server.update(older, from: mn) == nil && server.update(newer, from: mn) == nil)
            #expect(server.checks.count == 2 && server.core.verificationsPendingCount == 2)
            if newerFirst { server.checks.reverse() }
            server.finishChecks()
            let codes = replies(server).map(\.code)
            #expect(codes == (newerFirst ? [.ok, .stale] : [.ok, .ok]), "\(codes)")
            if newerFirst { #expect(replies(server).last?.current == newer.mapping) }
            #expect(server.core.mapping(of: home(hoa))?.certified == newer && server.core.verificationsPendingCount == 0)
        }
    }

    @Test("A duplicate joins the check under way, costs nothing, and both are answered")
    func duplicates() throws {
        var limits = IMSLimits()
        limits.verificationsPerSecond = 1
        let server = try TestServer(limits: limits)
        server.verifiesAtOnce = false
        let record = try server.makeNode(hoa).record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        for _ in 0..<3 { #expect(server.update(record, from: mn) == nil) }
        #expect(server.checks.count == 1 && server.core.counters.verifications == 1)
        server.finishChecks()
        #expect(replies(server).map(\.code) == [.ok, .ok, .ok])
        // And is not counted as an update either: the rate of five a second is for records.
        for number in 1...4 {
            server.advance(.milliseconds(1))
            let next = try server.makeNode(hoa).record(["198.51.100.7"], sequence: server.now.wallMilliseconds + UInt64(number))
            let limits = server.core.configuration.limits
            server.core.verifications = Verifications(limits)
            _ = server.update(next, from: mn)
            server.finishChecks()
        }
        #expect(replies(server).suffix(4).allSatisfy { $0.code == .ok })
    }

    @Test("Forged updates don't use up the HoA's rate; good ones that were checked at once do")
    func rate() throws {
        var limits = IMSLimits()
        limits.verificationsPerSecond = 100
        let server = try TestServer(limits: limits)
        server.verifiesAtOnce = false
        let time = server.now.wallMilliseconds
        let honest = try server.makeNode(hoa)
        let thief = try server.makeNode(hoa, seed: 66)
        for number in 0..<20 {
            let forged = try thief.record(["198.51.100.7"], sequence: time + UInt64(number)).mapping
            _ = server.update(CertifiedMapping(mapping: forged, certificate: honest.certificate), from: mn)
        }
        server.finishChecks()
        #expect(replies(server).allSatisfy { $0.code == .authenticationFailed } && replies(server).count == 20)
        server.clear()
        for number in 0..<8 { _ = server.update(try honest.record(["198.51.100.7"], sequence: time + UInt64(number)), from: mn) }
        server.finishChecks()
        let codes = replies(server).map(\.code)
        #expect(codes == [.ok, .ok, .ok, .ok, .ok, .tryLater, .tryLater, .tryLater], "\(codes)")
    }

    @Test("When too many checks wait, more are put off with code 7")
    func bound() throws {
        var limits = IMSLimits()
        limits.verificationsPendingMax = 2
        let server = try TestServer(limits: limits)
        server.verifiesAtOnce = false
        var codes: [ResponseCode?] = []
        for number in 1...3 {
            let node = try server.makeNode("192.0.2.\(number)")
            codes.append(server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)?.code)
        }
        #expect(codes == [nil, nil, .tryLater] && server.logs.contains { $0.contains("2 signature checks are waiting") })
    }

    @Test("What changed while a check was under way counts: a newer certificate, a store that can't write")
    func meanwhile() throws {
        let server = try TestServer()
        let nodeKey = try key(1)
        var node = try server.makeNode(hoa)
        let first = try server.core.enrol(home(hoa), key: nodeKey.publicKey, now: server.now)
        server.perform(first.actions)
        node.certificate = first.certificate
        server.verifiesAtOnce = false
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds), from: mn)
        let second = try server.core.enrol(home(hoa), key: nodeKey.publicKey, now: server.now)
        server.perform(second.actions)
        server.finishChecks()
        #expect(replies(server).last?.code == .authenticationFailed && replies(server).last?.certificate == second.certificate)

        node.certificate = second.certificate
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds + 1), from: mn)
        server.perform(server.core.store(.unavailable("the disk is full; make room"), now: server.now))
        server.finishChecks()
        #expect(replies(server).last?.code == .tryLater && replies(server).last?.text == StoreState.unavailableText)
        #expect(server.core.mapping(of: home(hoa)) == nil)
    }

    @Test("A HA Notify with the record of an update that is being checked waits for the same check")
    func shared() throws {
        let server = try TestServer()
        let cn = try server.makeNode("192.0.2.9", seed: 9)
        #expect(
            server.update(try cn.record(["198.51.100.9"], sequence: server.now.wallMilliseconds), from: IMSTests.node("198.51.100.9"))?.code == .ok)
        server.verifiesAtOnce = false
        let record = try server.makeNode(hoa).record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        let before = server.core.counters.verifications
        _ = server.update(record, from: mn)
        #expect(server.notify(hoa, about: "192.0.2.9", record, from: mn) == nil)
        #expect(server.checks.count == 1 && server.core.counters.verifications == before + 1)
        server.finishChecks()
        server.finishCommits()
        let acks = server.sent.compactMap { entry -> ResponseCode? in
            guard case .haNotifyAck(let ack) = entry.message.body else { return nil }
            return ack.code
        }
        #expect(replies(server).last?.code == .ok && acks == [.ok], "\(acks)")
        #expect(server.notified(IMSTests.node("198.51.100.9")).last?.notify.record.mapping == record.mapping)
    }

    @Test("The pool checks everything it is given, in all its threads, and tells good from bad")
    func pool() throws {
        let issuer = try key(200)
        let honest = try TestNode(hoa, seed: 1, issuer: issuer, notBefore: TestServer.start)
        let thief = try TestNode(hoa, seed: 2, issuer: issuer, notBefore: TestServer.start)
        let good = try honest.record(["198.51.100.7"], sequence: TestServer.start)
        let bad = CertifiedMapping(mapping: try thief.record(["198.51.100.7"], sequence: TestServer.start).mapping, certificate: honest.certificate)
        let results = Mutex<[UInt64: Bool]>([:])
        let pool = VerifierPool(threads: 3)
        pool.start { batch in
            results.withLock { results in for result in batch { results[result.ticket.number] = result.failure == nil } }
        }
        for number in 0..<300 {
            let job = VerificationJob(number % 3 == 0 ? bad : good, issuers: number % 2 == 0 ? [issuer.publicKey] : nil)
            pool.verify(VerificationTicket(number: UInt64(number)), job)
        }
        for _ in 0..<2000 where results.withLock({ $0.count }) < 300 { usleep(10_000) }
        pool.stop()
        let all = results.withLock { $0 }
        #expect(all.count == 300 && all.allSatisfy { $0.value == ($0.key % 3 != 0) })
    }
}
