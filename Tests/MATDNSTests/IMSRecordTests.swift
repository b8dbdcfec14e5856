import Foundation
import MATCore
import MATSignal
import Testing

@testable import MATDNS

@Suite("The IMS record")
struct IMSRecordTests {
    private static func vector(_ name: String) throws -> [UInt8] {
        let file = URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../MATSignalTests/Vectors/protocol-vectors.json")
        let root = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: file)) as? [String: Any])
        let vectors = try #require(root["vectors"] as? [String: Any])
        let hex = try #require(vectors[name] as? String)
        return stride(from: 0, to: hex.count, by: 2).compactMap { UInt8(hex.dropFirst($0).prefix(2), radix: 16) }
    }

    @Test("The published vectors decode to their fields and encode back to the same octets")
    func vectors() throws {
        let rdata = try Self.vector("dns.ims.rdata")
        let record = try IMSRecord.decode(rdata)
        #expect(record.priority == 10 && record.weight == 5 && record.port == 6288)
        #expect(record.target.description == "ims1.example.net.")
        #expect(record.keys.count == 1 && record.keys.first?.prefix(4) == [0x29, 0xAC, 0xBA, 0xE1])
        #expect(record.addresses.isEmpty)
        #expect(record.encode() == rdata)

        let longer = try Self.vector("dns.ims.rdata.withAddresses")
        let hinted = try IMSRecord.decode(longer)
        #expect(hinted.addresses.map(\.description) == ["198.51.100.53", "2001:db8:53::1"])
        #expect(hinted.keys == record.keys)
        #expect(hinted.encode() == longer)

        let relayed = try Self.vector("dns.ims.rdata.withRelay")
        let withRelay = try IMSRecord.decode(relayed)
        #expect(withRelay.relays.map { $0.endpoints.map(\.description) } == [["203.0.113.53:6290"]])
        #expect(withRelay.keys == record.keys && withRelay.addresses.isEmpty)
        #expect(withRelay.encode() == relayed)
    }

    @Test("Every truncation is rejected, except between two parameters, where a shorter record ends")
    func truncations() throws {
        for name in ["dns.ims.rdata.withAddresses", "dns.ims.rdata.withRelay"] {
            let rdata = try Self.vector(name)
            let boundaries = [24, 60, rdata.count]
            for count in 0..<rdata.count {
                let record = try? IMSRecord.decode(Array(rdata.prefix(count)))
                #expect((record != nil) == boundaries.contains(count), "\(name): \(count) octets")
            }
        }
    }

    @Test("Any single corrupted octet decodes to something or is refused, but never traps")
    func corruptions() throws {
        var decoded = 0
        for name in ["dns.ims.rdata", "dns.ims.rdata.withAddresses", "dns.ims.rdata.withRelay"] {
            let rdata = try Self.vector(name)
            for index in rdata.indices {
                for value in UInt8.min...UInt8.max {
                    var bad = rdata
                    bad[index] = value
                    guard let record = try? IMSRecord.decode(bad) else { continue }
                    decoded += 1
                    if record.keys.count == 1 { #expect(try IMSRecord.decode(record.encode()) == record) }
                }
            }
        }
        #expect(decoded > 1000)
    }

    @Test("Unknown parameters are skipped, and wrong lengths or endless lists of known ones are refused")
    func parameters() throws {
        let rdata = try Self.vector("dns.ims.rdata")
        #expect(try IMSRecord.decode(rdata + [0x77, 0x77, 0, 3, 1, 2, 3]) == IMSRecord.decode(rdata))
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + [0, 1, 0, 31] + [UInt8](repeating: 0, count: 31)) }
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + [0, 2, 0, 15] + [UInt8](repeating: 0, count: 15)) }
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + [0, 2, 0, 0]) }
        let key: [UInt8] = [0, 1, 0, 32] + [UInt8](repeating: 7, count: 32)
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + (0..<IMSRecord.keysMax).flatMap { _ in key }) }
        #expect(try IMSRecord.decode(rdata + key).keys.count == 2)
    }

    @Test("Each parameter 3 is one relay with all its addresses; wrong lengths and endless lists are refused")
    func relays() throws {
        let rdata = try Self.vector("dns.ims.rdata")
        func endpoint(_ text: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(text)), port: port) }
        var record = try IMSRecord.decode(rdata)
        record.relays = [
            RelayHost([try endpoint("203.0.113.53", 6290), try endpoint("2001:db8:53::53", 6290)]), RelayHost([try endpoint("203.0.113.54", 7000)]),
        ]
        let octets = record.encode()
        #expect(octets.count == rdata.count + 4 + 36 + 4 + 18)
        #expect(Array(octets[rdata.count..<rdata.count + 4]) == [0, 3, 0, 36])
        #expect(try IMSRecord.decode(octets) == record)
        func parameter(octets count: Int) -> [UInt8] { [0, 3, UInt8(count >> 8), UInt8(count & 0xFF)] + [UInt8](repeating: 1, count: count) }
        for count in [0, 16, 17, 19, 20, 35] {
            #expect(throws: DNSError.self, "\(count) octets") { try IMSRecord.decode(rdata + parameter(octets: count)) }
        }
        let most = 18 * RelayHost.endpointsMax
        #expect(try IMSRecord.decode(rdata + parameter(octets: most)).relays.first?.endpoints.count == RelayHost.endpointsMax)
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + parameter(octets: most + 18)) }
        let many = (0..<IMSRecord.relaysMax).flatMap { _ in parameter(octets: 18) }
        #expect(try IMSRecord.decode(rdata + many).relays.count == IMSRecord.relaysMax)
        #expect(throws: DNSError.self) { try IMSRecord.decode(rdata + many + parameter(octets: 18)) }
    }
}

@Suite("Domain names")
struct DomainNameTests {
    @Test("Text and wire form lead to each other, escapes included")
    func text() throws {
        for (text, wire) in [
            (".", [0]), ("a.b.", [1, 97, 1, 98, 0]), ("a\\.b.", [3, 97, 46, 98, 0]), ("\\000\\255.", [2, 0, 255, 0]),
            ("*.x.", [1, 42, 1, 120, 0]), ("_mat-ims._udp.", [8] + Array("_mat-ims".utf8) + [4] + Array("_udp".utf8) + [0]),
        ] as [(String, [UInt8])] {
            let name = try #require(DomainName(text))
            #expect(name.wire == wire)
            #expect(name.description == text)
            var rest = (wire + [9])[...]
            #expect(try DomainName.decode(&rest).wire == wire)
            #expect(rest == [9])
            for count in 0..<wire.count {
                var cut = wire.prefix(count)
                #expect(throws: DNSError.self) { try DomainName.decode(&cut) }
            }
        }
        #expect(DomainName("a.b")?.description == "a.b.")
    }

    @Test("Names beyond the bounds, empty labels, and compressed names are refused")
    func bounds() {
        #expect(DomainName(String(repeating: "a", count: 63)) != nil)
        #expect(DomainName(String(repeating: "a", count: 64)) == nil)
        let label = String(repeating: "a", count: 49)
        #expect(DomainName([label, label, label, label, label].joined(separator: ".")) != nil)
        #expect(DomainName([label, label, label, label, label, "abcd"].joined(separator: ".")) == nil)
        for text in ["", "a..b", ".a", "a\\", "a\\25", "a\\256"] { #expect(DomainName(text) == nil, "\(text)") }
        var pointer: ArraySlice<UInt8> = [0xC0, 0x0C]
        #expect(throws: DNSError.self) { try DomainName.decode(&pointer) }
        var endless = [UInt8](repeating: 1, count: 600)[...]
        #expect(throws: DNSError.self) { try DomainName.decode(&endless) }
    }

    @Test("Case doesn't count in comparison, and is kept")
    func letterCase() throws {
        let name = try #require(DomainName("IMS1.Example.net"))
        #expect(name == DomainName("ims1.example.NET"))
        #expect(name.hashValue == DomainName("ims1.example.net")?.hashValue)
        #expect(name.description == "IMS1.Example.net.")
        #expect(name.isWithin(try #require(DomainName("example.net"))))
        #expect(!name.isWithin(try #require(DomainName("ample.net"))))
    }

    @Test("Reverse names of addresses, and of prefixes rounded down")
    func reverse() throws {
        func name(_ text: String) throws -> String { DomainName.reverse(try #require(IPPrefix(text))).description }
        #expect(try name("192.0.2.1") == "1.2.0.192.in-addr.arpa.")
        #expect(try name("192.0.2.0/24") == "2.0.192.in-addr.arpa.")
        #expect(try name("192.0.16.0/20") == "0.192.in-addr.arpa.")
        #expect(try name("192.0.2.16/28") == "2.0.192.in-addr.arpa.")
        #expect(try name("0.0.0.0/0") == "in-addr.arpa.")
        #expect(try name("2001:db8::/32") == "8.b.d.0.1.0.0.2.ip6.arpa.")
        #expect(try name("2001:db8:8000::/35") == "8.b.d.0.1.0.0.2.ip6.arpa.")
        #expect(try name("2001:db8::1") == "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa.")
        #expect(try name("::/0") == "ip6.arpa.")
    }
}

@Suite("Keys as text")
struct KeyTextTests {
    @Test("base64 leads back to the octets for every length, and nothing else is taken")
    func base64() {
        for count in 0...40 {
            let octets = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37 &+ 251) }
            #expect(Base64.write(octets) == Data(octets).base64EncodedString())
            #expect(Base64.parse(Base64.write(octets).utf8) == octets)
        }
        for text in ["A", "AA", "AAA", "A===", "AB==", "AA=A", "A A=", "AA-_", "====", "AAAA===="] {
            #expect(Base64.parse(text.utf8) == nil, "\(text)")
        }
    }

    @Test("A TXT record gives its key whole or in pieces, and anything else gives none")
    func txt() {
        let key = [UInt8](repeating: 0xA5, count: 32)
        let text = Array("ed25519=\(Base64.write(key))".utf8)
        #expect(KeyText.parse([UInt8(text.count)] + text) == key)
        #expect(KeyText.parse([10] + text.prefix(10) + [UInt8(text.count - 10)] + text.dropFirst(10)) == key)
        for count in 0...text.count {
            #expect(KeyText.parse([UInt8(text.count)] + text.prefix(count)) == (count == text.count ? key : nil))
        }
        #expect(KeyText.parse([5] + Array("v=spf".utf8)) == nil)
    }
}

@Suite("The order of servers")
struct IMSSetTests {
    private struct Sequence: RandomNumberGenerator {
        var state: UInt64
        mutating func next() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state ^ state >> 29
        }
    }

    private func server(_ priority: UInt16, _ weight: UInt16, _ last: UInt32) -> IMSHost {
        IMSHost(priority: priority, weight: weight, addresses: [IPAddress(ipv4: 0xC000_0200 + last)], port: 6288, target: .root)
    }

    @Test("Lower priority comes first whatever the weights, and weights set the share among equals")
    func order() {
        let set = IMSSet(
            servers: [server(20, 65535, 1), server(10, 30, 2), server(10, 10, 3), server(10, 0, 4)], keys: [],
            expires: .distantFuture)
        var generator = Sequence(state: 42)
        var first: [IMSHost: Int] = [:]
        let rounds = 4000
        for _ in 0..<rounds {
            let order = set.ordered(using: &generator)
            #expect(Set(order) == Set(set.servers))
            #expect(order.last == set.servers[0])
            first[order[0], default: 0] += 1
        }
        let share = { (index: Int) in Double(first[set.servers[index]] ?? 0) / Double(rounds) }
        #expect(abs(share(1) - 0.73) < 0.05)
        #expect(abs(share(2) - 0.24) < 0.05)
        #expect(share(3) > 0 && share(3) < 0.06)
    }

    @Test("All weights zero, one server, and no server are fine")
    func edges() {
        var generator = Sequence(state: 1)
        #expect(IMSSet(servers: [], keys: [], expires: .zero).ordered(using: &generator).isEmpty)
        let zeros = [server(0, 0, 1), server(0, 0, 2)]
        let order = IMSSet(servers: zeros, keys: [], expires: .zero).ordered(using: &generator)
        #expect(Set(order) == Set(zeros))
    }
}
