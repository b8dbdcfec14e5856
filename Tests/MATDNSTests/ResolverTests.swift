import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

@Suite("The resolver, against servers that misbehave", .timeLimit(.minutes(2)))
struct ResolverTests {
    private let address: [UInt8] = [192, 0, 2, 1]

    private func quick(_ servers: FakeServer...) -> ResolverConfiguration {
        var configuration = ResolverConfiguration(servers: servers.map(\.endpoint))
        configuration.tryTimeout = .milliseconds(60)
        configuration.totalTimeout = .milliseconds(800)
        return configuration
    }

    private func rdata(_ result: DNSResult) -> [[UInt8]]? {
        guard case .records(let records) = result else { return nil }
        return records.rdata
    }

    private func isAbsent(_ result: DNSResult) -> Bool {
        if case .absent = result { true } else { false }
    }

    @Test("An answer is delivered, kept, and asked for again when it has run out")
    func cache() throws {
        let loop = try EventLoop()
        let server = try FakeServer(loop) { query, number in
            [Answer.make(query, answer: [.init(type: .a, ttl: number == 1 ? 1 : 60, rdata: [192, 0, 2, UInt8(number)])])]
        }
        let resolver = Resolver(loop: loop, configuration: quick(server))
        #expect(try rdata(resolve(loop, resolver, "a.example", .a)) == [[192, 0, 2, 1]])
        #expect(try rdata(resolve(loop, resolver, "A.EXAMPLE", .a)) == [[192, 0, 2, 1]])
        #expect(server.queries.count == 1)
        try run(loop) { loop.schedule(after: .milliseconds(1100), $0) }
        #expect(try rdata(resolve(loop, resolver, "a.example", .a)) == [[192, 0, 2, 2]])
        resolver.flush()
        #expect(try rdata(resolve(loop, resolver, "a.example", .a)) == [[192, 0, 2, 3]])
    }

    @Test("Absence is remembered as long as the SOA says, at most 300 s, and a TTL at most an hour")
    func lifetimes() throws {
        let loop = try EventLoop()
        let server = try FakeServer(loop) { query, number in
            switch number {
            case 1: [Answer.make(query, code: 3, authority: [Answer.soa(ttl: 60, minimum: 30)])]
            case 2: [Answer.make(query, authority: [Answer.soa(ttl: 86_400, minimum: 65_535)])]
            default: [Answer.make(query, answer: [.init(type: .a, ttl: 1_000_000, rdata: [192, 0, 2, 1])])]
            }
        }
        let resolver = Resolver(loop: loop, configuration: quick(server))
        let now = SystemClock.now().monotonic
        guard case .absent(let first) = try resolve(loop, resolver, "a.example", .a),
            case .absent(let second) = try resolve(loop, resolver, "b.example", .a),
            case .records(let third) = try resolve(loop, resolver, "c.example", .a)
        else { Issue.record("absent, absent, records expected"); return }
        #expect(first.isNameAbsent && !second.isNameAbsent)
        #expect(abs((first.expires - now).millisecondsSaturated - 30_000) < 1000)
        #expect(abs((second.expires - now).millisecondsSaturated - 300_000) < 1000)
        #expect(abs((third.expires - now).millisecondsSaturated - 3_600_000) < 1000)
        _ = try resolve(loop, resolver, "a.example", .a)
        #expect(server.queries.count == 3)
    }

    @Test(
        "Answers with wrong identifier, wrong question, no question, garbage and cut-off ones are ignored until the right one comes"
    )
    func forged() throws {
        let address = address
        let loop = try EventLoop()
        let server = try FakeServer(loop) { query, _ in
            let forged = Answer.Record(type: .a, rdata: [6, 6, 6, 6])
            var wrongID = Answer.make(query, answer: [forged])
            wrongID[0] ^= 1
            let wrongName = Answer.make(query, answer: [forged], question: [1, 98, 0] + Answer.question(query).suffix(4))
            let wrongType = Answer.make(query, answer: [forged], question: Answer.question(query).dropLast(3) + [28, 0, 1])
            var notAnAnswer = Answer.make(query, answer: [forged])
            notAnAnswer[2] &= 0x7F
            let oversized = Answer.make(query, answer: [forged]) + [UInt8](repeating: 0, count: 8000)
            return [
                wrongID, wrongName, wrongType, notAnAnswer, oversized, [], [0], Array("garbage garbage garbage garbage".utf8),
                Array(query.prefix(12)),
                Answer.make(query, answer: [.init(type: .a, rdata: address)]),
            ]
        }
        let resolver = Resolver(loop: loop, configuration: quick(server))
        #expect(try rdata(resolve(loop, resolver, "a.example", .a)) == [address])
        #expect(resolver.counters.notOurs == 8)
    }

    @Test("Nothing but forged answers is a time-out, not absence")
    func onlyForged() throws {
        let loop = try EventLoop()
        let server = try FakeServer(loop) { query, _ in
            var wrong = Answer.make(query, code: 3, authority: [Answer.soa()])
            wrong[1] ^= 0xFF
            return [wrong]
        }
        let resolver = Resolver(loop: loop, configuration: quick(server))
        #expect(try resolve(loop, resolver, "a.example", .a) == .failed(.timeout))
    }

    @Test("Answers that contradict themselves or end in a referral are failures, not absence")
    func bogus() throws {
        let loop = try EventLoop()
        let address = address
        let bad: [([UInt8]) -> [UInt8]] = [
            { Answer.make($0, code: 3, answer: [.init(type: .a, rdata: address)]) },  // absent, but here it is
            { Answer.make($0, authority: [.init(type: .ns, rdata: [0])]) },  // a referral
            { Answer.make($0, answer: [.init(type: .cname, rdata: [1, 99, 0])]) },  // an alias that leads nowhere
            { Answer.make($0, answer: [.init(type: .cname, rdata: [0xC0, 0x0C])]) },  // an alias of itself
            { Array(Answer.make($0, answer: [.init(type: .a, rdata: address)]).dropLast(2)) },  // cut off
            {
                var octets = Answer.make($0); octets[7] = 200; return octets
            },  // 200 records that aren't there
        ]
        let server = try FakeServer(loop) { query, _ in
            let index = Int(query[13] &- 97)
            return [bad[min(index, bad.count - 1)](query)]
        }
        let resolver = Resolver(loop: loop, configuration: quick(server))
        for index in bad.indices {
            let result = try resolve(loop, resolver, "\(Character(UnicodeScalar(UInt8(97 + index)))).example", .a)
            guard case .failed(.malformed) = result else { Issue.record("answer \(index): \(result)"); continue }
        }
    }

    @Test("There is nothing only if a zone that the name is in says so by its SOA, or the answer is validated; then the next server is asked at once")
    func unproven() throws {
        let soa = Answer.soa()
        let other = Answer.Record(type: .soa, rdata: soa.rdata, name: [3] + Array("net".utf8) + [0])
        for (code, authority) in [(UInt8(3), []), (0, []), (3, [other]), (0, [other])] {
            let loop = try EventLoop()
            let lame = try FakeServer(loop) { query, _ in [Answer.make(query, code: code, authority: authority)] }
            let alone = Resolver(loop: loop, configuration: quick(lame))
            #expect(try resolve(loop, alone, "a.example", .a) == .failed(.unproven))
            // What it says is no fault of the server that passes it on.
            #expect(alone.states.values.allSatisfy { $0.failingSince == nil })
            let good = try FakeServer(loop) { query, _ in [Answer.make(query, code: 3, authority: [soa])] }
            let both = Resolver(loop: loop, configuration: quick(lame, good))
            guard case .absent(let absence) = try resolve(loop, both, "a.example", .a) else { Issue.record("the second server proves it"); return }
            #expect(absence.isNameAbsent && good.queries.count == 1)
            let validating = try FakeServer(loop) { query, _ in [Answer.make(query, code: code, authority: authority, authenticated: true)] }
            #expect(try isAbsent(resolve(loop, Resolver(loop: loop, configuration: quick(validating)), "a.example", .a)))
        }
    }

    @Test("Every truncation and every corrupted octet of an answer gives some result and never traps")
    func fuzzed() throws {
        let question = DNSQuestion(try #require(DomainName("a.example")), .a)
        let query = try #require(DNSMessage.encodeQuery(question, id: 7))
        let good = Answer.make(
            query, answer: [.init(type: .cname, rdata: [1, 98, 0]), .init(type: .a, rdata: address, name: [1, 98, 0])],
            authority: [Answer.soa()])
        let read = { (octets: [UInt8]) in
            DNSMessage.decodeAnswer(octets, to: question, query: query, now: .zero, trustsAuthentication: false)
        }
        guard case .result(.records) = read(good) else { Issue.record("the good answer gives records"); return }
        for count in 0..<good.count {
            if case .result = read(Array(good.prefix(count))) { Issue.record("\(count) octets pass for an answer") }
        }
        for index in good.indices {
            for value in UInt8.min...UInt8.max {
                var bad = good
                bad[index] = value
                _ = read(bad)
            }
        }
    }

    @Test("SERVFAIL and a dead server lead to the next one at once, and the one that works is asked first from then on")
    func rotation() throws {
        let loop = try EventLoop()
        let address = address
        let failing = try FakeServer(loop) { query, _ in [Answer.make(query, code: 2)] }
        let working = try FakeServer(loop) { query, _ in [Answer.make(query, answer: [.init(type: .a, rdata: address)])] }
        var configuration = quick(failing, working)
        // Nothing listens there: the kernel's ICMP error comes back at once.
        configuration.servers.insert(.init(Endpoint(loopback, port: 1)), at: 0)
        configuration.tryTimeout = .seconds(5)
        let resolver = Resolver(loop: loop, configuration: configuration)
        let start = SystemClock.now().monotonic
        #expect(try rdata(resolve(loop, resolver, "a.example", .a)) == [address])
        #expect(SystemClock.now().monotonic - start < .seconds(2))
        #expect(try rdata(resolve(loop, resolver, "b.example", .a)) == [address])
        // Once as usual, and once to find out whether it is bogus.
        #expect(failing.queries.count == 2 && working.queries.count == 2)
    }

    @Test("Only failing servers give their failure, only silent ones a time-out within the bound, only dead ones say so")
    func allFail() throws {
        let loop = try EventLoop()
        let failing = try FakeServer(loop) { query, _ in [Answer.make(query, code: 2)] }
        #expect(
            try resolve(loop, Resolver(loop: loop, configuration: quick(failing)), "a.example", .a) == .failed(.refused(code: 2)))
        let silent = try FakeServer(loop) { _, _ in [] }
        let start = SystemClock.now().monotonic
        let resolver = Resolver(loop: loop, configuration: quick(silent))
        #expect(try resolve(loop, resolver, "a.example", .a) == .failed(.timeout))
        #expect(SystemClock.now().monotonic - start < .milliseconds(1200))
        #expect(silent.queries.count == 3)
        // Remembered for a moment, then asked again.
        #expect(try resolve(loop, resolver, "a.example", .a) == .failed(.timeout))
        #expect(silent.queries.count == 3)
        var dead = quick()
        dead.servers = [.init(Endpoint(loopback, port: 1))]
        #expect(try resolve(loop, Resolver(loop: loop, configuration: dead), "a.example", .a) == .failed(.unreachable))
        #expect(try resolve(loop, Resolver(loop: loop, configuration: quick()), "a.example", .a) == .failed(.noServers))
    }

    @Test("A server that doesn't know EDNS0 is asked without it")
    func withoutEDNS() throws {
        let loop = try EventLoop()
        let address = address
        let server = try FakeServer(loop) { query, _ in
            query.count > Answer.question(query).count + 12
                ? [Answer.make(query, code: 1)] : [Answer.make(query, answer: [.init(type: .a, rdata: address)])]
        }
        #expect(try rdata(resolve(loop, Resolver(loop: loop, configuration: quick(server)), "a.example", .a)) == [address])
        #expect(server.queries.count == 2)
    }

    @Test("A hundred callers with one question cost one query; too many questions at once are refused")
    func coalescing() throws {
        let loop = try EventLoop()
        let address = address
        let server = try FakeServer(loop) { query, _ in [Answer.make(query, answer: [.init(type: .a, rdata: address)])] }
        var configuration = quick(server)
        configuration.inFlightMax = 2
        let resolver = Resolver(loop: loop, configuration: configuration)
        var results: [DNSResult] = []
        try run(loop, until: 103) { done in
            for index in 0..<103 {
                guard let name = DomainName(index < 100 ? "a.example" : "b\(index).example") else { continue }
                resolver.resolve(DNSQuestion(name, .a)) {
                    results.append($0); done()
                }
            }
        }
        #expect(results.filter { rdata($0) == [address] }.count == 101)
        #expect(results.filter { $0 == .failed(.overloaded) }.count == 2)
        #expect(server.queries.count == 2)
    }

    @Test("The AD flag counts only from a resolver that is trusted, and can be required, for absence too")
    func authentication() throws {
        let loop = try EventLoop()
        let address = address
        let server = try FakeServer(loop) { query, _ in
            let isSigned = query[13] == UInt8(ascii: "s")
            return Answer.type(query) == .a
                ? [Answer.make(query, answer: [.init(type: .a, rdata: address)], authenticated: isSigned)]
                : [Answer.make(query, authority: [Answer.soa()], authenticated: isSigned)]
        }
        var configuration = quick(server)
        configuration.requireDNSSEC = true
        let strict = Resolver(loop: loop, configuration: configuration)
        #expect(try rdata(resolve(loop, strict, "signed.example", .a)) == [address])
        #expect(try isAbsent(resolve(loop, strict, "signed.example", .aaaa)))
        #expect(try resolve(loop, strict, "plain.example", .a) == .failed(.notAuthenticated))
        #expect(try resolve(loop, strict, "plain.example", .aaaa) == .failed(.notAuthenticated))
        // What a resolver on this host has validated stays true in another network; the rest has to go.
        let queries = server.queries.count
        strict.flush()
        _ = try resolve(loop, strict, "signed.example", .a)
        #expect(server.queries.count == queries)
        let question = DNSQuestion(try #require(DomainName("signed.example")), .a)
        let query = try #require(DNSMessage.encodeQuery(question, id: 1))
        let answer = Answer.make(query, answer: [.init(type: .a, rdata: address)], authenticated: true)
        for trusts in [false, true] {
            guard
                case .result(.records(let records)) = DNSMessage.decodeAnswer(
                    answer, to: question, query: query, now: .zero, trustsAuthentication: trusts)
            else { Issue.record("records expected"); return }
            #expect(records.isAuthenticated == trusts)
        }
    }

    @Test("A change of network sends what is in flight again, to the new servers")
    func flushInFlight() throws {
        let loop = try EventLoop()
        let address = address
        let gone = try FakeServer(loop) { _, _ in [] }
        let here = try FakeServer(loop) { query, _ in [Answer.make(query, answer: [.init(type: .a, rdata: address)])] }
        var configuration = quick(gone)
        configuration.tryTimeout = .seconds(10)
        configuration.totalTimeout = .seconds(10)
        let resolver = Resolver(loop: loop, configuration: configuration)
        var result: DNSResult?
        let name = try #require(DomainName("a.example"))
        try run(loop, atMost: .seconds(3)) { done in
            resolver.resolve(DNSQuestion(name, .a)) {
                result = $0; done()
            }
            loop.schedule(after: .milliseconds(50)) { resolver.replaceServers([.init(here.endpoint)]) }
        }
        #expect(result.flatMap(rdata) == [address])
    }

    @Test("The cache is bounded and lets go what was not used for longest")
    func cacheBound() throws {
        var cache = ResolverCache(entriesMax: 64)
        let now = MonotonicTime.zero
        let kept = DNSQuestion(try #require(DomainName("kept.example")), .a)
        cache.add(.failed(.timeout), for: kept, until: now + .seconds(60), isLocal: false, now: now)
        for index in 0..<1000 {
            let question = DNSQuestion(try #require(DomainName("n\(index).example")), .a)
            cache.add(.failed(.timeout), for: question, until: now + .seconds(60), isLocal: false, now: now)
            #expect(cache.find(kept, now: now) != nil)
            #expect(cache.count <= 64)
        }
        #expect(cache.find(kept, now: now + .seconds(61)) == nil)
    }

    @Test("resolv.conf gives servers, zones of link-local ones, and trust; without any, this host is asked")
    func resolvConf() {
        let file = ResolverConfiguration.parse(
            resolvConf: """
                # generated
                search example.net
                nameserver 192.0.2.53  ; the first
                nameserver fe80::1%wlan0
                nameserver nonsense
                options edns0 trust-ad
                """)
        #expect(file.servers.map(\.endpoint.description) == ["192.0.2.53:53", "[fe80::1]:53"])
        #expect(file.servers.map(\.interface) == [nil, "wlan0"])
        #expect(file.trustsAuthentication)
        #expect(ResolverConfiguration.parse(resolvConf: "").servers.map(\.endpoint.address) == [loopback])
        #expect(!ResolverConfiguration.system(path: "/nonexistent").servers.isEmpty)
    }
}
