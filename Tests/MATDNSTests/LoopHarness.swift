import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

/// Runs the loop until `body`'s callback has been called the given number of times, or a bound that fails the test.
func run(
    _ loop: EventLoop, until calls: Int = 1, atMost bound: Duration = .seconds(15), _ body: (_ done: @escaping () -> Void) -> Void
) throws {
    var left = calls
    body {
        left -= 1
        if left == 0 { loop.stop() }
    }
    // `run()` forgets a `stop()` that came before it, so it is not called when the result is there at once.
    guard left > 0 else { return }
    let watchdog = loop.schedule(after: bound) {
        Issue.record("\(left) of \(calls) callbacks missing after \(bound)")
        loop.stop()
    }
    try loop.run()
    loop.cancel(watchdog)
}

/// The answer to one question.
func resolve(_ loop: EventLoop, _ resolver: Resolver, _ name: String, _ type: DNSType) throws -> DNSResult {
    var result: DNSResult?
    let question = DNSQuestion(try #require(DomainName(name)), type)
    try run(loop) { done in
        resolver.resolve(question) {
            result = $0
            done()
        }
    }
    return try #require(result)
}

func lookup(_ loop: EventLoop, _ lookup: IMSLookup, _ address: String) throws -> IMSLookupResult {
    var result: IMSLookupResult?
    let name = DomainName.reverse(try #require(IPPrefix(address)))
    try run(loop) { done in
        lookup.lookup(at: name) {
            result = $0
            done()
        }
    }
    return try #require(result)
}

let loopback = IPAddress(ipv4: 0x7F00_0001)

/// A DNS server whose answers the test makes, in the test's own loop.
final class FakeServer {
    private(set) var queries: [[UInt8]] = []
    private(set) var endpoint = Endpoint(loopback, port: 0)
    private var socket: UDPSocket?
    private let loop: EventLoop

    /// - Parameter answer: from the query to the datagrams that answer it, with the delay of each.
    init(_ loop: EventLoop, answer: @escaping (_ query: [UInt8], _ number: Int) -> [[UInt8]]) throws {
        self.loop = loop
        for _ in 0..<50 where socket == nil {
            let port = UInt16.random(in: 20_000...60_000)
            socket = try? UDPSocket(loop: loop, port: port, address: loopback) { [unowned self] datagram, source, _ in
                let query = Array(datagram)
                queries.append(query)
                for reply in answer(query, queries.count) { socket?.send(reply, to: source) }
            }
            endpoint.port = port
        }
        _ = try #require(socket)
    }
}

/// Answers built by hand, octet by octet.
enum Answer {
    struct Record {
        var type: DNSType
        var ttl: UInt32 = 60
        var rdata: [UInt8]
        /// By default the name of the question.
        var name: [UInt8] = [0xC0, 0x0C]

        var octets: [UInt8] {
            name + put(type.rawValue) + [0, 1] + put(UInt16(ttl >> 16)) + put(UInt16(truncatingIfNeeded: ttl))
                + put(UInt16(rdata.count)) + rdata
        }
    }

    static func put(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(truncatingIfNeeded: number)] }

    /// The question as it stands in the query, without the EDNS0 record behind it.
    static func question(_ query: [UInt8]) -> [UInt8] {
        var rest = query.dropFirst(12)
        guard let name = try? DomainName.decode(&rest) else { return [] }
        return name.wire + rest.prefix(4)
    }

    static func type(_ query: [UInt8]) -> DNSType {
        let number = question(query).suffix(4).prefix(2).reduce(0) { $0 << 8 | UInt16($1) }
        return DNSType(rawValue: number)
    }

    static func make(
        _ query: [UInt8], code: UInt8 = 0, answer: [Record] = [], authority: [Record] = [], authenticated: Bool = false,
        truncated: Bool = false,
        question: [UInt8]? = nil
    ) -> [UInt8] {
        let header = Array(query.prefix(2)) + [truncated ? 0x83 : 0x81, 0x80 | (authenticated ? 0x20 : 0) | code]
        let counts = put(1) + put(UInt16(answer.count)) + put(UInt16(authority.count)) + put(0)
        return header + counts + (question ?? self.question(query)) + (answer + authority).flatMap(\.octets)
    }

    /// A SOA at the root, so that it covers every name.
    static func soa(ttl: UInt32 = 60, minimum: UInt16 = 30) -> Record {
        Record(type: .soa, ttl: ttl, rdata: [0, 0] + [UInt8](repeating: 0, count: 16) + [0, 0] + put(minimum), name: [0])
    }
}
