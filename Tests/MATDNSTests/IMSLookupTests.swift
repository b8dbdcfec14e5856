import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

@Suite("The look-up of an IMS, against odd zones", .timeLimit(.minutes(2)))
struct IMSLookupTests {
    private let key = [UInt8](repeating: 7, count: 32)
    private let target = DomainName("ims.example") ?? .root

    private func outcome(_ answer: @escaping (_ type: DNSType, _ query: [UInt8]) -> [UInt8]) throws -> (
        IMSLookupResult, queries: Int
    ) {
        let loop = try EventLoop()
        let server = try FakeServer(loop) { query, _ in [answer(Answer.type(query), query)] }
        var configuration = ResolverConfiguration(servers: [server.endpoint])
        configuration.tryTimeout = .milliseconds(60)
        let ims = IMSLookup(resolver: Resolver(loop: loop, configuration: configuration))
        return (try lookup(loop, ims, "192.0.2.1"), server.queries.count)
    }

    private var record: IMSRecord { IMSRecord(target: target, keys: [key], addresses: [IPAddress(ipv4: 0xC633_6435)]) }
    private var service: [UInt8] { [0, 10, 0, 5, 0x18, 0x90] + target.wire }
    private func text(_ text: String) -> [UInt8] { [UInt8(text.utf8.count)] + Array(text.utf8) }
    private func absent(_ query: [UInt8], name: Bool = false) -> [UInt8] {
        Answer.make(query, code: name ? 3 : 0, authority: [Answer.soa()])
    }

    private func isFailure(_ result: IMSLookupResult) -> Bool {
        switch result {
        case .failed, .unusable: true
        case .found, .absent: false
        }
    }

    @Test("A hinted record costs no address look-up")
    func hinted() throws {
        let (result, _) = try outcome { type, query in
            #expect(type == .ims || type == .srv)
            return type == .ims ? Answer.make(query, answer: [.init(type: .ims, rdata: record.encode())]) : absent(query)
        }
        guard case .found(let set) = result else { Issue.record("\(result)"); return }
        #expect(set.servers.map(\.endpoints) == [[Endpoint(IPAddress(ipv4: 0xC633_6435), port: 6288)]])
        #expect(set.keys == [key])
        #expect(!set.isAuthenticated)
    }

    @Test("A zone that names very many servers without addresses makes no flood of questions of one, and the preferred are asked for")
    func manyTargets() throws {
        var asked: Set<[UInt8]> = []
        let (result, _) = try outcome { type, query in
            switch type {
            case .ims:
                return Answer.make(
                    query,
                    answer: (0..<16).map { number in
                        let target = DomainName("ims\(number).elsewhere.example") ?? .root
                        return .init(type: .ims, rdata: IMSRecord(priority: UInt16(100 - number), target: target, keys: [key]).encode())
                    })
            case .a:
                asked.insert(Answer.question(query))
                return Answer.make(query, answer: [.init(type: .a, rdata: [198, 51, 100, 53])])
            default: return absent(query)
            }
        }
        guard case .found(let set) = result else { Issue.record("\(result)"); return }
        #expect(asked.count == 4 && Set(set.servers.map(\.priority)) == [85, 86, 87, 88])
    }

    @Test("Absence needs both forms absent; a failure of either is a failure")
    func absence() throws {
        guard case .absent = try outcome({ absent($1) }).0, case .absent = try outcome({ absent($1, name: true) }).0 else {
            Issue.record("absent expected"); return
        }
        #expect(try isFailure(outcome { type, query in type == .srv ? Answer.make(query, code: 2) : absent(query) }.0))
        #expect(try isFailure(outcome { type, query in type == .ims ? Answer.make(query, code: 2) : absent(query) }.0))
        #expect(try isFailure(outcome { Answer.make($1, code: 2) }.0))
        // Without the SOA of a zone neither form is absent; where it came with the one, the other's absence is believed for a moment.
        #expect(try isFailure(outcome { Answer.make($1, code: 3) }.0))
        #expect(try isFailure(outcome { type, query in type == .srv ? absent(query, name: true) : Answer.make(query) }.0))
        let forgetful = try outcome { type, query in type == .srv ? Answer.make(query, code: 3) : absent(query) }.0
        guard case .absent(let until) = forgetful else { Issue.record("\(forgetful)"); return }
        #expect(until - SystemClock.now().monotonic <= .seconds(5))
    }

    @Test("SRV and TXT serve where the name server fails on the unknown type; without a key they don't")
    func serviceForm() throws {
        let good = "ed25519=" + Base64.write(key)
        for (text, isGood) in [(good, true), ("ed25519=AAAA", false), ("v=spf1", false)] {
            let (result, _) = try outcome { type, query in
                switch type {
                case .srv: Answer.make(query, answer: [.init(type: .srv, rdata: service)])
                case .txt:
                    Answer.make(
                        query, answer: [.init(type: .txt, rdata: self.text(text)), .init(type: .txt, rdata: self.text("other"))])
                case .a: Answer.make(query, answer: [.init(type: .a, rdata: [198, 51, 100, 53])])
                case .aaaa: absent(query)
                default: Answer.make(query, code: 4)
                }
            }
            guard isGood else { #expect(isFailure(result), "\(text)"); continue }
            guard case .found(let set) = result else { Issue.record("\(result)"); continue }
            #expect(
                set.servers == [
                    IMSHost(priority: 10, weight: 5, addresses: [IPAddress(ipv4: 0xC633_6435)], port: 6288, target: target)
                ])
            #expect(set.keys == [key])
        }
        let refusal: [UInt8] = [0, 0, 0, 0, 0, 0, 0]
        guard
            case .absent = try outcome({ $0 == .srv ? Answer.make($1, answer: [.init(type: .srv, rdata: refusal)]) : absent($1) })
                .0
        else {
            Issue.record("the target . means that there is no service")
            return
        }
    }

    /// The name that a query is about.
    private func asked(_ query: [UInt8]) -> String {
        var name = Answer.question(query)[...]
        return (try? DomainName.decode(&name))?.description ?? ""
    }
    private func alias(to target: String, ttl: UInt32 = 60) throws -> Answer.Record {
        .init(type: .cname, ttl: ttl, rdata: try #require(DomainName(target)).wire)
    }
    private static let reverse = "1.2.0.192.in-addr.arpa."

    @Test("An alias speaks for the name alone, so SRV and TXT are asked for below its end too, and count no longer than it")
    func aliasOfService() throws {
        let end = "1.0/26.2.0.192.in-addr.arpa."
        let alias = try alias(to: end, ttl: 20)
        let (result, queries) = try outcome { type, query in
            switch (type, asked(query)) {
            case (.ims, Self.reverse): Answer.make(query, answer: [alias], authority: [Answer.soa()])
            case (.srv, "_mat-ims._udp.\(end)"): Answer.make(query, answer: [.init(type: .srv, rdata: service)])
            case (.txt, "_mat-ims._udp.\(end)"): Answer.make(query, answer: [.init(type: .txt, rdata: text("ed25519=" + Base64.write(key)))])
            case (.a, _): Answer.make(query, answer: [.init(type: .a, rdata: [198, 51, 100, 53])])
            default: absent(query, name: true)
            }
        }
        guard case .found(let set) = result else { Issue.record("\(result)"); return }
        #expect(set.keys == [key] && set.expires - SystemClock.now().monotonic <= .seconds(20))
        // Type IMS and two SRV, TXT, A and AAAA.
        #expect(queries == 6)
        // Where there is nothing at the end, nothing is below it, and nobody is asked.
        let none = try outcome { type, query in
            type == .ims ? Answer.make(query, code: 3, answer: [alias], authority: [Answer.soa()]) : absent(query, name: true)
        }
        guard case .absent = none.0 else { Issue.record("\(none.0)"); return }
        #expect(none.queries == 2)
    }

    @Test(
        "Where type IMS can't be had of a name, its aliases are asked for by themselves and both forms at their end; without end they are a failure")
    func aliasAlone() throws {
        // A resolver that follows no aliases, then a server that chokes on unknown types.
        for isFollowing in [false, true] {
            let (first, second) = (try alias(to: "first.example"), try alias(to: "second.example"))
            let (result, _) = try outcome { type, query in
                switch (type, asked(query)) {
                case (.cname, Self.reverse): return Answer.make(query, answer: [first])
                case (.cname, "first.example."): return Answer.make(query, answer: [second])
                case (.ims, Self.reverse) where !isFollowing: return Answer.make(query, answer: [first])
                case (.ims, "second.example.") where !isFollowing:
                    return Answer.make(query, answer: [.init(type: .ims, rdata: record.encode())])
                case (.ims, _): return Answer.make(query, code: 2)
                case (.srv, "_mat-ims._udp.second.example."): return Answer.make(query, answer: [.init(type: .srv, rdata: service)])
                case (.txt, _): return Answer.make(query, answer: [.init(type: .txt, rdata: text("ed25519=" + Base64.write(key)))])
                case (.a, _): return Answer.make(query, answer: [.init(type: .a, rdata: [198, 51, 100, 53])])
                default: return absent(query)
                }
            }
            guard case .found(let set) = result else { Issue.record("\(result)"); continue }
            #expect(set.keys == [key])
        }
        // Round and round, and on and on.
        let (round, on) = (try alias(to: Self.reverse), { (query: [UInt8]) in try? alias(to: "x" + asked(query)) })
        for next: ([UInt8]) -> Answer.Record? in [{ _ in round }, on] {
            let (result, queries) = try outcome { type, query in
                type == .cname ? Answer.make(query, answer: next(query).map { [$0] } ?? []) : Answer.make(query, code: 5)
            }
            guard case .failed = result else { Issue.record("\(result)"); continue }
            #expect(queries < 30, "\(queries)")
        }
        // What the end's servers fail at is told with its name.
        let first = try alias(to: "first.example")
        let (lame, _) = try outcome { type, query in
            switch (type, asked(query)) {
            case (.cname, Self.reverse): Answer.make(query, answer: [first])
            case (.srv, "_mat-ims._udp.\(Self.reverse)"): absent(query, name: true)
            default: Answer.make(query, code: 5)
            }
        }
        #expect(lame == .failed("1.2.0.192.in-addr.arpa. is an alias of first.example., and of that the DNS server refused (code 5)"))
    }

    @Test("Malformed records beside a good one are left out; alone they are a failure, and so is an IMS without address or key")
    func malformed() throws {
        let cut = Array(record.encode().dropLast(3))
        let both = try outcome { type, query in
            type == .ims
                ? Answer.make(query, answer: [.init(type: .ims, rdata: cut), .init(type: .ims, rdata: record.encode())])
                : absent(query)
        }.0
        guard case .found(let set) = both else { Issue.record("\(both)"); return }
        #expect(set.servers.count == 1)
        #expect(try isFailure(outcome { $0 == .ims ? Answer.make($1, answer: [.init(type: .ims, rdata: cut)]) : absent($1) }.0))
        let bare = IMSRecord(target: target, keys: [key])
        #expect(
            try isFailure(
                outcome { $0 == .ims ? Answer.make($1, answer: [.init(type: .ims, rdata: bare.encode())]) : absent($1) }.0))
        let keyless = IMSRecord(target: target, keys: [], addresses: [IPAddress(ipv4: 0xC633_6435)])
        #expect(
            try isFailure(
                outcome { $0 == .ims ? Answer.make($1, answer: [.init(type: .ims, rdata: keyless.encode())]) : absent($1) }.0))
    }
}
