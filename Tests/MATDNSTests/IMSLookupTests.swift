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
