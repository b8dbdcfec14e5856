import MATSignal
import MappingMemory
import Testing

@testable import IMS
@testable import IMSCore

/// What a server does when the system gives it no more memory for its table.
@Suite("Memory that ends")
struct MemoryTests {
    private let mn = node("198.51.100.7")

    private func stored(_ record: CertifiedMapping, _ server: TestServer) -> StoredMapping {
        StoredMapping(certified: record, source: mn, local: TestServer.local, provenAt: server.now.wallMilliseconds)
    }

    private func exhaust(_ server: TestServer) { server.core.mappings.memory.mayGrant = { _ in false } }
    private func relieve(_ server: TestServer) { server.core.mappings.memory.mayGrant = nil }

    @Test("What is durable and finds no memory is answered with code 7, kept, tried again, and told to nobody before it is held")
    func durableAndNotHeld() throws {
        let server = try TestServer()
        server.storesAtOnce = false
        let one = try server.makeNode("192.0.2.1")
        let record = try one.record(["198.51.100.7"], sequence: TestServer.start)
        #expect(server.update(record, from: mn) == nil)
        exhaust(server)
        server.clear()
        server.finishCommits()
        let reply = server.sent.compactMap { entry -> IMSUpdateReply? in
            if case .imsUpdateReply(let reply) = entry.message.body { return reply }
            return nil
        }.first
        #expect(reply?.code == .tryLater && reply?.text == StoreState.notHeldText)
        #expect(server.core.unheldCount == 1 && server.core.counters.memoryRefusals == 1)
        #expect(server.logs.contains { $0.contains("stored and not served, at present 1") && $0.contains("LimitAS=") })
        // It may be registered, so it is not "not found"; who else is served is.
        let early = server.query("192.0.2.1", from: mn)
        #expect(early?.code == .tryLater && early?.lifetime == 5)
        #expect(server.bindingChanges.isEmpty)
        for _ in 0..<30 { server.advance(.seconds(1)) }
        #expect(server.logs.count { $0.contains("stored and not served") } <= 4, "a line in ten seconds")
        relieve(server)
        server.advance(.seconds(1))
        #expect(server.core.unheldCount == 0 && server.query("192.0.2.1", from: mn)?.mapping == record.mapping)
        #expect(server.logs.contains { $0.contains("all mappings are served") } && server.bindingChanges.map(\.reason) == [.registered])
        #expect(server.query("192.0.2.2", from: mn)?.code == .notFound)
        #expect(server.update(record, from: mn)?.code == .ok, "a duplicate now")
    }

    @Test("Updates, imports and revocations are refused without memory, queries answered, and nothing is written")
    func everyWay() throws {
        let server = try TestServer()
        let held = try server.makeNode("192.0.2.1")
        let record = try held.record(["198.51.100.7"], sequence: TestServer.start)
        #expect(server.update(record, from: mn)?.code == .ok)
        // All that the table has taken from the system is used up by others.
        let memory = server.core.mappings.memory
        memory.mayGrant = { $0 < SlabArena.chunkOctets }
        var number = 0
        while (try? server.core.mappings.reserve(1, recordOctets: 60)) != nil, number < 20_000 {
            let hoa = IPAddress(high: 0x2001_0db8_0010_0005, low: UInt64(number))
            var octets = held.certificate.octets
            octets.replaceSubrange(0..<16, with: hoa.octets)
            let other = MappingRecord(hoa: HomeAddress(hoa), prefixLength: 128, sequence: 1, lifetime: 600, issued: 1, locators: [])
            let certified = CertifiedMapping(
                mapping: SignedMapping(record: other, signature: record.mapping.signature), certificate: try Certificate(octets: octets))
            try server.core.mappings.set(stored(certified, server))
            number += 1
        }
        #expect(number > 3000 && number < 20_000)
        let before = server.core.mappingsCount
        server.advance(.seconds(2))
        server.clear()
        for step in 0..<40 as Range<UInt64> {
            let source = node("198.51.100.\(step + 10)")
            let other = try server.makeNode("192.0.2.\(step + 10)")
            let reply = server.update(try other.record(["\(source.address)"], sequence: TestServer.start), from: source)
            #expect(reply?.code == .tryLater && reply?.text == StoreState.noMemoryText && reply?.lifetime == 5)
        }
        #expect(server.core.counters.memoryRefusals == 40)
        #expect(server.logs.count { $0.contains("no memory") } == IMSLimits().refusalLogsPerSecond)
        #expect(server.core.importing(stored(try server.makeNode("192.0.2.9").record([], sequence: 7), server), server.now).isRefused)
        #expect(throws: RevocationRefusal.self) { try server.core.revoke(prefix("192.0.2.1"), now: server.now) }
        #expect(server.commits.isEmpty && server.core.mappingsCount == before)
        #expect(server.query("192.0.2.1", from: mn)?.mapping == record.mapping)
        memory.mayGrant = nil
        let later = try server.makeNode("192.0.2.10")
        server.advance(.seconds(2))
        #expect(server.update(try later.record(["198.51.100.10"], sequence: server.now.wallMilliseconds), from: node("198.51.100.10"))?.code == .ok)
    }

    @Test("A store that holds more than there is memory for is served as far as it goes; the log says how much memory is wanted for how many")
    func firstLoad() throws {
        let server = try TestServer()
        server.core.loadBegins()
        var records: [CertifiedMapping] = []
        for number in 1...20 { records.append(try server.makeNode("192.0.2.\(number)").record(["198.51.100.\(number)"], sequence: TestServer.start)) }
        var left = 12
        // A piece for each mapping; not the chunk that they come from.
        server.core.mappings.memory.mayGrant = { octets in
            guard octets < SlabArena.chunkOctets else { return true }
            left -= 1
            return left >= 0
        }
        server.perform(server.core.store(.loaded(StoreContents(mappings: records.map { stored($0, server) })), now: server.now))
        server.perform(server.core.store(.loadEnded, now: server.now))
        #expect(server.core.mappingsCount == 12 && server.core.unheldCount == 8)
        #expect(server.logs.contains { $0.contains("no memory for 8 of the store's 20 mappings") && $0.contains("MB more") })
        #expect(server.query("192.0.2.3", from: mn)?.mapping == records[2].mapping)
        #expect(server.query("192.0.2.20", from: mn)?.code == .tryLater)
        // A worker says the same.
        relieve(server)
        let probe = QueryPathProbe(server.core)
        let query = SignalMessage(sequence: 5, .maQuery(MAQuery(cookie: server.cookie(mn), hoa: home("192.0.2.20"))))
        server.clear()
        server.receive(query.octets, from: mn)
        #expect(probe.take(query.octets, from: mn, now: server.now) == .answered(server.raw.map(\.octets)))
        server.advance(.seconds(2))
        #expect(server.core.mappingsCount == 20 && server.query("192.0.2.20", from: mn)?.mapping == records[19].mapping)
        #expect(server.query("192.0.2.30", from: mn)?.code == .notFound)
    }

    @Test("Rules for which there is no memory don't reach the workers; those before count on, and the next attempt brings them")
    func rules() throws {
        let server = try TestServer()
        let cell = try QueryRulesCell(server.core.queryRules, table: server.core.mappings)
        var rules = server.core.queryRules
        rules.isIncomplete = true
        exhaust(server)
        #expect(!cell.publish(rules) && !cell.view.snapshot.pointee.isIncomplete)
        relieve(server)
        #expect(cell.publish(rules) && cell.view.snapshot.pointee.isIncomplete)
    }
}

extension ImportStep {
    fileprivate var isRefused: Bool { if case .refused = self { true } else { false } }
}
