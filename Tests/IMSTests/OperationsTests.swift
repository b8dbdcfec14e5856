import MATSignal
import MappingMemory
import Testing

@testable import IMSCore

@Suite("Keys, quotas, surveys and lists") struct OperationsTests {
    private let hoa = "192.0.2.1"
    private let mn = node("198.51.100.7")

    // MARK: Keys

    @Test("While a key is rotated out, its certificates are accepted and replaced by ones of the new key")
    func rotation() throws {
        let server = try TestServer()
        var node = try server.makeNode(hoa)
        let old = server.issuer
        let new = try key(201)
        let served = [ServedPrefix(prefix: prefix("192.0.2.0/24"))]
        let time = server.now.wallMilliseconds
        #expect(server.update(try node.record(["198.51.100.7"], sequence: time), from: mn)?.certificate == nil)

        // The new key is published, and signs nothing yet: certificates that it signed elsewhere are accepted and left alone.
        server.core.reconfigure(IMSCoreConfiguration(served: served, publicKeys: [new.publicKey], signingKey: old))
        #expect(Set(server.core.publicKeys) == [old.publicKey, new.publicKey])
        let early = try TestNode("192.0.2.9", seed: 9, issuer: new, notBefore: time - 1000)
        let fromOther = try #require(server.update(try early.record(["198.51.100.7"], sequence: time), from: mn))
        #expect(fromOther.code == .ok && fromOther.certificate == nil)

        // The new key signs.
        server.core.reconfigure(IMSCoreConfiguration(served: served, previousKeys: [old.publicKey], signingKey: new))
        let reply = try #require(server.update(try node.record(["198.51.100.7"], sequence: time + 1), from: mn))
        let renewed = try #require(reply.certificate)
        #expect(reply.code == .ok && renewed.isIssued(by: new.publicKey) && renewed.nodeKey == node.key.publicKey)
        node.certificate = renewed
        let next = try #require(server.update(try node.record(["198.51.100.7"], sequence: time + 2), from: mn))
        #expect(next.code == .ok && next.certificate == nil)
        #expect(server.core.counters.certificatesRenewed == 1)

        // The old key is dropped.
        server.core.reconfigure(IMSCoreConfiguration(served: served, signingKey: new))
        let late = try server.makeNode("192.0.2.5", seed: 5)
        #expect(server.update(try late.record(["198.51.100.7"], sequence: time), from: mn)?.code == .authenticationFailed)
        #expect(server.update(try node.record(["198.51.100.7"], sequence: time + 3), from: mn)?.code == .ok)
    }

    @Test("The repetition of an update whose answer was lost gets that answer, renewed certificate included")
    func lostRenewal() throws {
        let server = try TestServer()
        let time = server.now.wallMilliseconds
        let node = try TestNode(hoa, seed: 1, issuer: server.issuer, notBefore: time - 900_000, notAfter: time + 100_000)
        let record = try node.record(["198.51.100.7"], sequence: time)
        let renewed = try #require(server.update(record, from: mn)?.certificate)
        for byID in [false, true] {
            let again = try #require(server.update(record, from: mn, byID: byID))
            #expect(again.code == .ok && again.certificate == renewed)
        }
        // Another record under the old certificate is refused, but brings the new one along.
        let other = try #require(server.update(try node.record(["198.51.100.7"], sequence: time + 1), from: mn))
        #expect(other.code == .authenticationFailed && other.certificate == renewed)
    }

    // MARK: Quotas

    @Test("A prefix has no more mappings than its quota, writes in flight included; those there are go on")
    func mappingQuota() throws {
        let small = ServedPrefix(prefix: prefix("192.0.2.0/25"), mappingsMax: 2)
        let server = try TestServer(served: [small, ServedPrefix(prefix: prefix("192.0.2.128/25"))])
        let time = server.now.wallMilliseconds
        func register(_ hoa: String, _ seed: UInt8, sequence: UInt64) throws -> IMSUpdateReply? {
            server.update(try server.makeNode(hoa, seed: seed).record(["198.51.100.7"], sequence: sequence), from: mn)
        }
        server.storesAtOnce = false
        _ = try register("192.0.2.1", 1, sequence: time)
        _ = try register("192.0.2.2", 2, sequence: time)
        let refused = try #require(try register("192.0.2.3", 3, sequence: time))
        #expect(refused.code == .refused && refused.text?.contains("quota of 2 mappings") == true)
        server.finishCommits()
        server.storesAtOnce = true
        #expect(try register("192.0.2.3", 3, sequence: time)?.code == .refused)
        #expect(try register("192.0.2.2", 2, sequence: time + 1)?.code == .ok)
        #expect(try register("192.0.2.200", 4, sequence: time)?.code == .ok)
        #expect(server.core.mappingsByPrefix.map(\.count) == [2, 1] && server.core.counters.quotaRefusals == 2)

        // More is allowed by a new configuration, and a restart counts right.
        let more = ServedPrefix(prefix: small.prefix, mappingsMax: 3)
        server.core.reconfigure(IMSCoreConfiguration(served: [more], signingKey: server.issuer))
        #expect(try register("192.0.2.3", 3, sequence: time)?.code == .ok)
        #expect(try register("192.0.2.4", 4, sequence: time)?.code == .refused)
        let restarted = try TestServer(served: [more])
        try restarted.core.load(mappings: server.core.mappingsInOrder(), issued: [])
        #expect(restarted.core.mappingsByPrefix.map(\.count) == [3])
    }

    @Test("A write that failed gives its place back")
    func failedWrite() throws {
        let server = try TestServer(served: [ServedPrefix(prefix: prefix("192.0.2.0/24"), mappingsMax: 1)])
        server.storesAtOnce = false
        let record = try server.makeNode(hoa).record(["198.51.100.7"], sequence: server.now.wallMilliseconds)
        _ = server.update(record, from: mn)
        server.finishCommits(failure: "the disk is full")
        _ = server.update(record, from: mn)
        server.finishCommits()
        #expect(server.core.mappingsByPrefix.map(\.count) == [1])
    }

    @Test("The nodes of a prefix together get no more updates a second than its quota")
    func updateQuota() throws {
        let server = try TestServer(served: [ServedPrefix(prefix: prefix("192.0.2.0/24"), updatesPerSecond: 2)])
        let time = server.now.wallMilliseconds
        var codes: [ResponseCode?] = []
        for number in UInt8(1)...3 {
            let record = try server.makeNode("192.0.2.\(number)", seed: number).record(["198.51.100.7"], sequence: time)
            codes.append(server.update(record, from: mn)?.code)
        }
        #expect(codes == [.ok, .ok, .tryLater])
        server.advance(.seconds(1))
        let record = try server.makeNode("192.0.2.3", seed: 3).record(["198.51.100.7"], sequence: time)
        #expect(server.update(record, from: mn)?.code == .ok)
    }

    // MARK: Survey

    private func surveyAll(_ server: TestServer) {
        while true {
            let step = server.core.survey(now: server.now)
            server.perform(step.actions)
            if !step.goesOn { return }
        }
    }

    @Test("Certificates that nobody renews are told of 30 days ahead, once a day")
    func endingCertificates() throws {
        let server = try TestServer()
        let day: UInt64 = 86_400_000
        let time = server.now.wallMilliseconds
        // 29 days left of a year; 31; and a short one in the first half of its life.
        let certificates = [
            try TestNode("192.0.2.1", seed: 1, issuer: server.issuer, notBefore: time - 336 * day, notAfter: time + 29 * day).certificate,
            try TestNode("192.0.2.2", seed: 1, issuer: server.issuer, notBefore: time - 334 * day, notAfter: time + 31 * day).certificate,
            try TestNode("192.0.2.3", seed: 1, issuer: server.issuer, notBefore: time - day, notAfter: time + 2 * day).certificate,
        ]
        try server.core.load(mappings: [], issued: certificates)
        surveyAll(server)
        #expect(server.core.surveyed.certificatesEnding == 1)
        #expect(server.core.surveyed.certificatesByKey == [server.issuer.publicKey.id: 3])
        #expect(server.logs.filter { $0.contains("192.0.2.1/32") && $0.contains("ends in 29 days") }.count == 1, "\(server.logs)")
        server.advance(.seconds(3600))
        surveyAll(server)
        #expect(server.logs.count == 1)
        server.advance(.seconds(86_400))
        surveyAll(server)
        #expect(server.logs.filter { $0.contains("192.0.2.1/32") }.count == 2)
    }

    @Test("A mapping that nobody renewed is reported as expired, once")
    func expiry() throws {
        let server = try TestServer()
        let node = try server.makeNode(hoa)
        _ = server.update(try node.record(["198.51.100.7"], sequence: server.now.wallMilliseconds, lifetime: 60), from: mn)
        surveyAll(server)
        server.advance(.seconds(61))
        surveyAll(server)
        server.advance(.seconds(60))
        surveyAll(server)
        #expect(server.bindingChanges.filter { $0.reason == .expired }.map(\.hoa) == [prefix(hoa)])
        #expect(server.core.surveyed.mappingsExpired == 1 && server.core.counters.bindingChanges[.expired] == 1)
    }

    // MARK: Changes

    @Test("Each change of a mapping is told once, with its reason and both places")
    func changes() throws {
        let server = try TestServer()
        let first = try server.makeNode(hoa)
        let second = try server.makeNode("192.0.2.2", seed: 2)
        let time = server.now.wallMilliseconds
        let elsewhere = node("198.51.100.8")
        _ = server.update(try first.record(["198.51.100.7"], sequence: time), from: mn)
        _ = server.update(try first.record(["198.51.100.7"], sequence: time + 1), from: mn)
        _ = server.update(try first.record(["198.51.100.8"], sequence: time + 2), from: elsewhere)
        _ = server.update(try second.record(["198.51.100.8"], sequence: time), from: elsewhere)
        _ = server.update(try first.record([], sequence: time + 3), from: elsewhere)
        let told = server.bindingChanges
        #expect(told.map(\.reason) == [.registered, .refreshed, .moved, .registered, .displaced, .withdrawn])
        #expect(told[2].before == [.network(prefix("198.51.100.7"))] && told[2].after == [.network(prefix("198.51.100.8"))])
        #expect(told[2].source == elsewhere && told[2].sequence == time + 2 && told[1].level == .debug)
        #expect(told[4].hoa == prefix(hoa) && told[4].by == prefix("192.0.2.2"))
    }

    @Test("Too many changes are counted instead of told")
    func suppression() throws {
        var limits = IMSLimits()
        limits.bindingLogsPerSecond = 2
        let server = try TestServer(limits: limits)
        let time = server.now.wallMilliseconds
        for number in UInt8(1)...5 {
            let record = try server.makeNode("192.0.2.\(number)", seed: number).record([], sequence: time)
            #expect(server.update(record, from: mn)?.code == .ok)
        }
        #expect(server.bindingChanges.count == 2 && server.core.counters.bindingChanges[.withdrawn] == 5)
        server.advance(.seconds(2))
        _ = server.update(try server.makeNode("192.0.2.6", seed: 6).record([], sequence: time), from: mn)
        #expect(server.bindingChanges.count == 3 && server.logs.contains { $0.contains("3 more changes of mappings were not logged") })
    }

    // MARK: Lists

    @Test("Pages are in order, complete, and without repetition")
    func pages() throws {
        let table = MappingTable()
        let issuer = try key(200)
        var numbers = Array(UInt64(1)...500)
        numbers.shuffle()
        for number in numbers {
            let text = "2001:db8:10::\(String(number, radix: 16))"
            let node = try TestNode(text, seed: 1, issuer: issuer, notBefore: TestServer.start)
            try table.set(
                StoredMapping(
                    certified: try node.record([], sequence: TestServer.start), source: mn, local: TestServer.local, provenAt: TestServer.start))
        }
        var seen: [IPPrefix] = []
        while true {
            let page = table.page(after: seen.last, count: 37)
            seen += page.map(\.record.prefix)
            if page.count < 37 { break }
        }
        #expect(seen == table.sorted().map(\.record.prefix) && seen.count == 500)
        let even = table.page(count: 1000) { $0.record.hoa.address.low % 2 == 0 }
        #expect(even.count == 250)
        #expect(table.page(count: 0).isEmpty)
    }
}
