import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

@Suite("The resolver where names are hard to come by", .timeLimit(.minutes(2)))
struct NamesTests {
    private let address: [UInt8] = [192, 0, 2, 1]

    private func quick(_ servers: [Endpoint]) -> ResolverConfiguration {
        var configuration = ResolverConfiguration(servers: servers)
        configuration.tryTimeout = .milliseconds(100)
        configuration.totalTimeout = .seconds(2)
        return configuration
    }

    // MARK: SERVFAIL

    private func isUnchecked(_ query: [UInt8]) -> Bool { query[3] & 0x10 != 0 }

    @Test("A SERVFAIL that an unchecked question gets around is bogus, and no other server is believed instead")
    func bogus() throws {
        let loop = try EventLoop()
        let address = address
        let validating = try FakeServer(loop) { query, _ in
            [isUnchecked(query) ? Answer.make(query, answer: [.init(type: .a, rdata: [6, 6, 6, 6])]) : Answer.make(query, code: 2)]
        }
        let other = try FakeServer(loop) { query, _ in [Answer.make(query, answer: [.init(type: .a, rdata: address)])] }
        let resolver = Resolver(loop: loop, configuration: quick([validating.endpoint, other.endpoint]))
        #expect(try resolve(loop, resolver, "a.example", .a) == .failed(.bogus))
        #expect(validating.queries.map(isUnchecked) == [false, true, false])
        #expect(other.queries.isEmpty)
    }

    @Test("A SERVFAIL that has gone when the question is repeated was none, and one that stays leads to the next server")
    func passing() throws {
        let loop = try EventLoop()
        let address = address
        let recovering = try FakeServer(loop) { query, number in
            [number == 1 ? Answer.make(query, code: 2) : Answer.make(query, answer: [.init(type: .a, rdata: address)])]
        }
        let failing = try FakeServer(loop) { query, _ in [Answer.make(query, code: 2)] }
        for servers in [[recovering.endpoint], [failing.endpoint, recovering.endpoint]] {
            let result = try resolve(loop, Resolver(loop: loop, configuration: quick(servers)), "a.example", .a)
            guard case .records(let records) = result else { Issue.record("\(result)"); return }
            #expect(records.rdata == [address])
        }
        #expect(failing.queries.map(isUnchecked) == [false, true])
    }

    @Test(
        "With a real validator: a forged reverse zone is unusable, a lame one only fails, and an honest one is absent",
        .enabled(if: ServerProcess.find("nsd") != nil && ServerProcess.find("unbound") != nil, "needs nsd and unbound"))
    func validator() throws {
        let files = try TemporaryDirectory()
        func zone(_ name: String) -> (name: String, text: String) {
            (name, "$TTL 60\n\(name) SOA ns.example. host.example. 1 3600 600 86400 60\n\(name) NS ns.example.\n")
        }
        let nsd = try startNSD([zone("113.0.203.in-addr.arpa."), zone("100.51.198.in-addr.arpa.")], in: files)
        // The resolver has a trust anchor for the second zone, which is not signed. No server has the third.
        let anchor = "100.51.198.in-addr.arpa. DS 12345 8 2 " + String(repeating: "AB", count: 32)
        let unbound = try startUnbound(
            ["113.0.203.in-addr.arpa.", "100.51.198.in-addr.arpa.", "2.0.192.in-addr.arpa."], at: nsd.endpoint, in: files, anchors: [anchor])
        let loop = try EventLoop()
        func lookUp(_ address: String) throws -> IMSLookupResult {
            try lookup(loop, IMSLookup(resolver: Resolver(loop: loop, configuration: ResolverConfiguration(servers: [unbound.endpoint]))), address)
        }
        guard case .absent = try lookUp("203.0.113.9") else { Issue.record("absent expected"); return }
        guard case .unusable(let why) = try lookUp("198.51.100.9") else { Issue.record("unusable expected"); return }
        #expect(why.contains("bogus"))
        guard case .failed(let reason) = try lookUp("192.0.2.9") else { Issue.record("failed expected"); return }
        #expect(reason.contains("SERVFAIL"))
    }

    // MARK: Ways

    /// A server that answers only to what comes from one own address.
    private final class Picky {
        private(set) var sources: [IPAddress] = []
        private(set) var endpoint = Endpoint(loopback, port: 0)
        private var socket: UDPSocket?

        init(_ loop: EventLoop, _ answered: IPAddress, _ answer: @escaping ([UInt8]) -> [UInt8]) throws {
            for _ in 0..<50 where socket == nil {
                let port = UInt16.random(in: 20_000...60_000)
                socket = try? UDPSocket(loop: loop, port: port, address: loopback) { [unowned self] datagram, source, _ in
                    sources.append(source.address)
                    if source.address == answered { socket?.send(answer(Array(datagram)), to: source) }
                }
                endpoint.port = port
            }
            _ = try #require(socket)
        }
    }

    @Test("A question that stays unanswered over the first own address is asked over the next, all servers in each round")
    func ways() throws {
        let loop = try EventLoop()
        let address = address
        let (dead, alive) = (IPAddress(ipv4: 0x7F00_0005), IPAddress(ipv4: 0x7F00_0009))
        let servers = try (0..<2).map { _ in
            try Picky(loop, alive) { Answer.make($0, answer: [.init(type: .a, rdata: address)]) }
        }
        let resolver = Resolver(loop: loop, configuration: quick(servers.map(\.endpoint)))
        // No interface has the middle one: the kernel refuses to send from it.
        resolver.ways = { _ in [dead, IPAddress(ipv4: 0xC000_024D), alive] }
        let start = SystemClock.now().monotonic
        let result = try resolve(loop, resolver, "a.example", .a)
        guard case .records = result else { Issue.record("\(result)"); return }
        #expect(SystemClock.now().monotonic - start < .seconds(1))
        #expect(servers.map { $0.sources.first } == [dead, dead])
        #expect(servers.contains { $0.sources.contains(alive) })
        #expect(resolver.states[.init(servers[0].endpoint)]?.answered != nil || resolver.states[.init(servers[1].endpoint)]?.answered != nil)
    }

    @Test("A question that was on its way when the first own address died goes over the one that is first now, not once more over the dead one")
    func failover() throws {
        let loop = try EventLoop()
        let address = address
        let (dead, alive) = (IPAddress(ipv4: 0x7F00_0005), IPAddress(ipv4: 0x7F00_0009))
        let server = try Picky(loop, alive) { Answer.make($0, answer: [.init(type: .a, rdata: address)]) }
        let resolver = Resolver(loop: loop, configuration: quick([server.endpoint]))
        var order = [dead, alive]
        // Asked twice for each try: how many ways there are, and which.
        resolver.ways = { _ in
            if !server.sources.isEmpty { order = [alive, dead] }
            return order
        }
        guard case .records = try resolve(loop, resolver, "a.example", .a) else { Issue.record("no answer"); return }
        #expect(server.sources == [dead, alive])
    }

    @Test("A silent server is known as failing, with the reason and since when, until it answers")
    func states() throws {
        let loop = try EventLoop()
        let address = address
        var isSilent = true
        let server = try FakeServer(loop) { query, _ in isSilent ? [] : [Answer.make(query, answer: [.init(type: .a, rdata: address)])] }
        let resolver = Resolver(loop: loop, configuration: quick([server.endpoint]))
        _ = try resolve(loop, resolver, "a.example", .a)
        let failing = try #require(resolver.states[.init(server.endpoint)])
        #expect(failing.failure == .timeout && failing.failingSince != nil && failing.answered == nil)
        isSilent = false
        _ = try resolve(loop, resolver, "b.example", .a)
        let answering = try #require(resolver.states[.init(server.endpoint)])
        #expect(answering.failure == nil && answering.failingSince == nil && answering.answered != nil)
    }

    // MARK: Absence

    @Test("Absence is asked for again after as long as the configuration says, whatever the SOA does")
    func absenceKept() throws {
        let loop = try EventLoop()
        let address = address
        var isClosed = true
        let portal = try FakeServer(loop) { query, _ in
            [
                isClosed
                    ? Answer.make(query, code: 3, authority: [Answer.soa(ttl: 86_400, minimum: 3600)])
                    : Answer.make(query, answer: [.init(type: .a, rdata: address)])
            ]
        }
        var configuration = quick([portal.endpoint])
        configuration.absenceKeptMax = .milliseconds(200)
        let resolver = Resolver(loop: loop, configuration: configuration)
        for _ in 0..<3 { guard case .absent = try resolve(loop, resolver, "a.example", .a) else { Issue.record("absent expected"); return } }
        #expect(portal.queries.count == 1)
        isClosed = false
        try run(loop) { loop.schedule(after: .milliseconds(250), $0) }
        guard case .records = try resolve(loop, resolver, "a.example", .a) else { Issue.record("records expected"); return }
    }

    // MARK: The system's files

    @Test("resolv.conf: timeout and attempts make it more patient, use-vc asks over TCP, a zone may be a number, and no server is asked twice")
    func options() {
        let file = ResolverConfiguration.parse(
            resolvConf: """
                options timeout:10 attempts:9 use-vc ndots:3
                nameserver fe80::1%2
                nameserver 192.0.2.1
                nameserver 192.0.2.1
                nameserver 192.0.2.2
                nameserver 192.0.2.3
                nameserver 192.0.2.4
                """)
        #expect(file.servers.map(\.endpoint.address.description) == ["fe80::1", "192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"])
        #expect(file.servers.first?.interface == "2")
        #expect(file.attempts == 5 && file.patience == .seconds(30) && file.isOverTCP && !file.trustsAuthentication)
        #expect(ResolverConfiguration.parse(resolvConf: "options timeout:1 attempts:1").patience == .seconds(5))
        #expect(ResolverConfiguration.parse(resolvConf: "options timeout:x attempts:-1\nnameserver").patience == .seconds(5))
    }

    @Test("Whom a resolver on this host asks is asked when it fails, and never believed to have validated")
    func upstream() throws {
        let files = try TemporaryDirectory()
        let stub = try files.write("stub", "nameserver 127.0.0.53\noptions edns0 trust-ad\n")
        let upstreams = try files.write("upstreams", "nameserver 203.0.113.131\nnameserver 127.0.0.1\nnameserver 2001:db8:53::131\n")
        var configuration = ResolverConfiguration.system(path: stub, upstreamPath: upstreams)
        #expect(configuration.servers.map(\.endpoint.address.description) == ["127.0.0.53", "203.0.113.131", "2001:db8:53::131"])
        #expect(configuration.servers.map(\.isUpstream) == [false, true, true])
        // A file that names other hosts is complete: no upstream servers are added.
        let real = try files.write("real", "nameserver 198.51.100.53\n")
        configuration.readSystem(path: real, upstreamPath: upstreams)
        #expect(configuration.servers.map(\.endpoint.address.description) == ["198.51.100.53"])

        let loop = try EventLoop()
        let address = address
        let failing = try FakeServer(loop) { _, _ in [] }
        let asked = try FakeServer(loop) { query, _ in [Answer.make(query, answer: [.init(type: .a, rdata: address)], authenticated: true)] }
        var both = quick([failing.endpoint])
        both.servers.append(.init(asked.endpoint, isUpstream: true))
        both.trustsAuthentication = true
        let resolver = Resolver(loop: loop, configuration: both)
        for name in ["a.example", "b.example"] {
            let result = try resolve(loop, resolver, name, .a)
            guard case .records(let records) = result else { Issue.record("\(result)"); return }
            #expect(records.rdata == [address] && !records.isAuthenticated)
        }
        #expect(failing.queries.count == 2)
    }
}
