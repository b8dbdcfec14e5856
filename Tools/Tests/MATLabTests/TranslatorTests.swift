import MATSignal
import Testing

@testable import MATLab

/// Numbers that are the same in each run.
private struct Counter: RandomNumberGenerator {
    private var state: UInt64 = 7

    mutating func next() -> UInt64 {
        state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
        return state ^ state >> 29
    }
}

private func endpoint(_ address: String, _ port: UInt16) throws -> Endpoint { Endpoint(try #require(IPAddress(address)), port: port) }

@Suite("The mappings of a translator")
struct PortMappingsTests {
    private let inner: Endpoint
    private let (one, other): (Endpoint, Endpoint)
    private let elsewhere: Endpoint

    init() throws {
        inner = try endpoint("192.168.1.10", 6289)
        one = try endpoint("203.0.113.1", 5000)
        other = try endpoint("203.0.113.1", 5001)
        elsewhere = try endpoint("198.51.100.1", 5000)
    }

    @Test("Who may send in is decided by filtering, whatever the mapping", arguments: Translation.Mapping.allCases, Translation.Filtering.allCases)
    func filtering(mapping: Translation.Mapping, filtering: Translation.Filtering) throws {
        var random = Counter()
        var mappings = PortMappings(Translation(mapping: mapping, filtering: filtering))
        let made = mappings.out(.udp, from: inner, to: one, now: 0, using: &random)
        let port = try #require(made)
        let passed = [one, other, elsewhere].map { mappings.come(.udp, to: port, from: $0, now: 1) == inner }
        #expect(passed == [true, filtering != .addressAndPortDependent, filtering == .endpointIndependent])
        #expect(mappings.come(.tcp, to: port, from: one, now: 1) == nil)
    }

    @Test("A mapping is one for all destinations, or one for each", arguments: Translation.Mapping.allCases)
    func mapping(mapping: Translation.Mapping) {
        var random = Counter()
        var mappings = PortMappings(Translation(mapping: mapping))
        var ports: [UInt16?] = []
        for remote in [one, other, elsewhere, one] { ports.append(mappings.out(.udp, from: inner, to: remote, now: 0, using: &random)) }
        #expect(ports[0] == ports[3] && Set(ports).count == (mapping == .endpointIndependent ? 1 : 3))
    }

    @Test("The inner port is kept while nobody else has it")
    func keptPort() throws {
        var random = Counter()
        var mappings = PortMappings(Translation())
        let neighbour = try endpoint("192.168.1.11", 6289)
        let first = mappings.out(.udp, from: inner, to: one, now: 0, using: &random)
        let second = mappings.out(.udp, from: neighbour, to: one, now: 0, using: &random)
        #expect(first == 6289 && second != nil && second != 6289)
        // Nobody has it any more after 30 s.
        let third = try mappings.out(.udp, from: endpoint("192.168.1.12", 6289), to: one, now: 30_000, using: &random)
        #expect(third == 6289)
        #expect(mappings.inner(.udp, at: 6289)?.address == IPAddress("192.168.1.12"))
    }

    @Test("A flow that was answered lives longer, and packets of both ways prolong it")
    func times() throws {
        var random = Counter()
        var mappings = PortMappings(Translation(unansweredSeconds: 30, answeredSeconds: 120))
        let made = mappings.out(.udp, from: inner, to: one, now: 0, using: &random)
        let port = try #require(made)
        var passed: [Bool] = []
        for now: Int64 in [29_000, 148_000, 268_001] { passed.append(mappings.come(.udp, to: port, from: one, now: now) != nil) }
        #expect(passed == [true, true, false])
        _ = mappings.out(.udp, from: inner, to: one, now: 300_000, using: &random)
        #expect(mappings.come(.udp, to: 6289, from: one, now: 330_000) == nil)
    }

    @Test("A mapping ends at its age, whatever traffic it has, and its successor has its port")
    func age() {
        var random = Counter()
        var mappings = PortMappings(Translation(filtering: .endpointIndependent, ageSeconds: 60))
        var lives: [Bool] = []
        for second: Int64 in 0..<61 {
            if second < 60 { _ = mappings.out(.udp, from: inner, to: one, now: second * 1000, using: &random) }
            lives.append(mappings.come(.udp, to: 6289, from: elsewhere, now: second * 1000) != nil)
        }
        #expect(lives == [Bool](repeating: true, count: 60) + [false])
        #expect(mappings.out(.udp, from: inner, to: one, now: 61_000, using: &random) == 6289)
    }

    @Test("When all ports of a block are taken there is no mapping, until one has died")
    func block() throws {
        var random = Counter()
        var mappings = PortMappings(
            Translation(mapping: .addressAndPortDependent, blockPorts: 4), ports: GatewayPlan.ports(Translation(blockPorts: 4)))
        var ports: [UInt16?] = []
        for number: UInt16 in 0..<5 { try ports.append(mappings.out(.udp, from: inner, to: endpoint("203.0.113.1", number), now: 0, using: &random)) }
        // Host 10 has the ninth block.
        #expect(Set(ports.compactMap { $0 }) == [16_416, 16_417, 16_418, 16_419] && ports[4] == nil)
        let later = try mappings.out(.udp, from: inner, to: endpoint("203.0.113.1", 9), now: 30_000, using: &random)
        #expect(later != nil)
    }
}

@Suite("Packets through a translator")
struct PacketTranslatorTests {
    private static let outer = "198.19.1.2"

    private func translator(_ rules: Translation = Translation(), inside: String = "192.168.1.0/24") throws -> PacketTranslator {
        let prefix = try #require(IPPrefix(inside))
        return PacketTranslator(
            outer: try #require(IPAddress(Self.outer)), inside: prefix.isIPv4 ? .ipv4(prefix) : .ipv6(prefix), rules, ports: { _ in 1024...65_535 })
    }

    // MARK: Packets

    /// An IP header before a payload, both with right sums. `number` is the protocol.
    private func packet(_ source: String, _ destination: String, _ number: UInt8, _ payload: [UInt8], checksumAt index: Int?) throws -> [UInt8] {
        let (from, to) = (try #require(IPAddress(source)).packetOctets, try #require(IPAddress(destination)).packetOctets)
        let count = [UInt8(payload.count >> 8), UInt8(payload.count & 0xFF)]
        var payload = payload
        if let index {
            var sum = Checksum()
            if number != 1 {
                sum.add(from + to + count)
                sum.add([0, number])
            }
            sum.add(payload)
            payload.replaceSubrange(index..<index + 2, with: [UInt8(sum.field >> 8), UInt8(sum.field & 0xFF)])
        }
        if from.count == 16 { return [0x60, 0, 0, 0] + count + [number, 64] + from + to + payload }
        let total = payload.count + 20
        var header: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 0xFF), 0, 0, 0x40, 0, 64, number, 0, 0] + from + to
        var sum = Checksum()
        sum.add(header)
        header.replaceSubrange(10..<12, with: [UInt8(sum.field >> 8), UInt8(sum.field & 0xFF)])
        return header + payload
    }

    private func udp(_ from: Endpoint, _ to: Endpoint, sum: Bool = true, _ text: String = "hello") throws -> [UInt8] {
        let data = Array(text.utf8)
        let header = [from.port, to.port, UInt16(8 + data.count), 0].flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
        return try packet(from.address.description, to.address.description, 17, header + data, checksumAt: sum ? 6 : nil)
    }

    /// Header and payload sum up to zero, as a receiver wants it.
    private func isSound(_ octets: [UInt8]) throws -> Bool {
        let packet = try #require(IPPacket(octets))
        var header = Checksum()
        header.add(octets[..<packet.transportStart])
        if packet.family == .ipv4, header.field != 0 { return false }
        var sum = Checksum()
        let number = packet.family == .ipv4 ? octets[9] : octets[6]
        if number != 1 {
            sum.add(packet.source.packetOctets + packet.destination.packetOctets)
            sum.add(UInt16(octets.count - packet.transportStart))
            sum.add(UInt16(number))
        }
        sum.add(octets[packet.transportStart...])
        return sum.field == 0
    }

    private func pass(_ translator: inout PacketTranslator, _ octets: [UInt8], now: Int64 = 0) -> [UInt8]? {
        var random = Counter()
        return translator.translate(octets, now: now, using: &random)
    }

    // MARK: Within IPv4

    @Test("A datagram goes out from the outer endpoint and its answer comes back to the inner one, with sums that hold")
    func thereAndBack() throws {
        var translator = try translator()
        let (inner, remote) = (try endpoint("192.168.1.10", 6289), try endpoint("203.0.113.1", 5000))
        let out = try #require(pass(&translator, try udp(inner, remote)))
        #expect(try isSound(out))
        let outer = try #require(IPPacket(out)).sourceEndpoint
        #expect(outer == (try endpoint(Self.outer, 6289)))
        let back = try #require(pass(&translator, try udp(remote, outer)))
        #expect(try isSound(back))
        #expect(IPPacket(back)?.destinationEndpoint == inner)
        #expect(pass(&translator, try udp(endpoint("203.0.113.1", 5001), outer)) == nil)
        #expect(pass(&translator, try udp(remote, endpoint("198.19.1.9", 6289))) == nil)
    }

    @Test("A sum that is wrong stays wrong, and none stays none")
    func wrongSum() throws {
        var translator = try translator()
        let (inner, remote) = (try endpoint("192.168.1.10", 6289), try endpoint("203.0.113.1", 5000))
        var broken = try udp(inner, remote)
        broken[30] ^= 1
        #expect(try !isSound(#require(pass(&translator, broken))))
        let without = try #require(pass(&translator, try udp(inner, remote, sum: false)))
        #expect(IPPacket.word(without, 26) == 0)
    }

    @Test("Inner hosts reach one another at their outer endpoints only where hairpins are wanted", arguments: [true, false])
    func hairpin(wanted: Bool) throws {
        var translator = try translator(Translation(filtering: .endpointIndependent, hairpins: wanted))
        let (one, other) = (try endpoint("192.168.1.10", 6289), try endpoint("192.168.1.11", 7000))
        _ = pass(&translator, try udp(other, endpoint("203.0.113.1", 5000)))
        let passed = pass(&translator, try udp(one, endpoint(Self.outer, 7000)))
        guard wanted else {
            #expect(passed == nil)
            return
        }
        let octets = try #require(passed)
        #expect(try isSound(octets))
        #expect(IPPacket(octets)?.sourceEndpoint == (try endpoint(Self.outer, 6289)) && IPPacket(octets)?.destinationEndpoint == other)
    }

    @Test("An ICMP error comes in to whom its quote is from, and the quote is as that one sent it")
    func errorIn() throws {
        var translator = try translator()
        let (inner, remote) = (try endpoint("192.168.1.10", 6289), try endpoint("203.0.113.1", 5000))
        let out = try #require(pass(&translator, try udp(inner, remote)))
        let error = try packet("203.0.113.7", Self.outer, 1, [3, 4, 0, 0, 0, 0, 5, 0] + out.prefix(28), checksumAt: 2)
        let back = try #require(pass(&translator, error))
        #expect(try isSound(back))
        let quoted = try #require(IPPacket(back)?.quoted)
        #expect(quoted.sourceEndpoint == inner && quoted.destinationEndpoint == remote)
        #expect(IPPacket(back)?.destination == inner.address && IPPacket(back)?.source == IPAddress("203.0.113.7"))
        #expect(
            pass(&translator, try packet("203.0.113.7", Self.outer, 1, [3, 4, 0, 0, 0, 0, 5, 0] + udp(remote, inner).prefix(28), checksumAt: 2))
                == nil)
    }

    @Test("Echo requests go out and their replies come back; a host outside is not answered")
    func echo() throws {
        var translator = try translator()
        let out = try #require(pass(&translator, try packet("192.168.1.10", "203.0.113.1", 1, [8, 0, 0, 0, 0x12, 0x34, 0, 1, 9], checksumAt: 2)))
        #expect(try isSound(out) && IPPacket.word(out, 24) == 0x1234)
        let back = try #require(pass(&translator, try packet("203.0.113.1", Self.outer, 1, [0, 0, 0, 0, 0x12, 0x34, 0, 1, 9], checksumAt: 2)))
        #expect(try isSound(back) && IPPacket(back)?.destination == IPAddress("192.168.1.10"))
        #expect(pass(&translator, try packet("203.0.113.1", Self.outer, 1, [8, 0, 0, 0, 0x12, 0x34, 0, 1, 9], checksumAt: 2)) == nil)
    }

    @Test("Of packets that are cut short, anywhere, none is translated wrongly, and none ends the program")
    func cut() throws {
        var translator = try translator()
        let whole = try udp(endpoint("192.168.1.10", 6289), endpoint("203.0.113.1", 5000))
        for count in 0..<28 { #expect(pass(&translator, Array(whole.prefix(count))) == nil) }
        let out = try #require(pass(&translator, whole))
        let error = try packet("203.0.113.7", Self.outer, 1, [3, 4, 0, 0, 0, 0, 5, 0] + out.prefix(28), checksumAt: 2)
        for count in 0..<56 { #expect(pass(&translator, Array(error.prefix(count))) == nil) }
    }

    // MARK: From IPv6

    private static let prefix = "64:ff9b::/96"
    private static let host = "2001:db8:c1:19::10"

    @Test("An IPv6 host's datagram to an address in the prefix comes out as IPv4, and the answer as IPv6", arguments: [true, false])
    func families(sum: Bool) throws {
        var translator = try translator(inside: Self.prefix)
        let (inner, remote) = (try endpoint(Self.host, 6289), try endpoint("64:ff9b::203.0.113.1", 5000))
        let out = try #require(pass(&translator, try udp(inner, remote)))
        #expect(try isSound(out))
        #expect(IPPacket(out)?.sourceEndpoint == (try endpoint(Self.outer, 6289)))
        #expect(IPPacket(out)?.destinationEndpoint == (try endpoint("203.0.113.1", 5000)))
        // A sum that is missing in IPv4 is made.
        let back = try #require(pass(&translator, try udp(endpoint("203.0.113.1", 5000), endpoint(Self.outer, 6289), sum: sum)))
        #expect(try isSound(back))
        #expect(IPPacket(back)?.sourceEndpoint == remote && IPPacket(back)?.destinationEndpoint == inner)
        #expect(back.suffix(5) == Array("hello".utf8)[...])
    }

    @Test("Echo requests and replies change their types and keep sums that hold")
    func echoFamilies() throws {
        var translator = try translator(inside: Self.prefix)
        let request: [UInt8] = [128, 0, 0, 0, 0x12, 0x34, 0, 1, 9]
        let out = try #require(pass(&translator, try packet(Self.host, "64:ff9b::203.0.113.1", 58, request, checksumAt: 2)))
        #expect(try isSound(out) && out[9] == 1 && out[20] == 8)
        let back = try #require(pass(&translator, try packet("203.0.113.1", Self.outer, 1, [0, 0, 0, 0, 0x12, 0x34, 0, 1, 9], checksumAt: 2)))
        #expect(try isSound(back) && back[6] == 58 && back[40] == 129 && IPPacket(back)?.destination == IPAddress(Self.host))
    }

    @Test("A router's \"too big\" comes in as ICMPv6 with 20 octets more, and quotes what the host sent")
    func tooBig() throws {
        var translator = try translator(inside: Self.prefix)
        let (inner, remote) = (try endpoint(Self.host, 6289), try endpoint("64:ff9b::203.0.113.1", 5000))
        let out = try #require(pass(&translator, try udp(inner, remote)))
        let error = try packet("203.0.113.7", Self.outer, 1, [3, 4, 0, 0, 0, 0, 5, 0x78] + out, checksumAt: 2)
        let back = try #require(pass(&translator, error))
        #expect(try isSound(back) && back[40] == 2 && IPPacket.word(back, 46) == 1420)
        let quoted = try #require(IPPacket(back)?.quoted)
        #expect(quoted.sourceEndpoint == inner && quoted.destinationEndpoint == remote)
        #expect(IPPacket(back)?.source == IPAddress("64:ff9b::203.0.113.7") && IPPacket(back)?.destination == inner.address)
    }
}
