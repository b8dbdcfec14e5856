import MATControl
import MATSignal
import Testing

@testable import MATCommand

/// What `mat capture` writes, from packets that it is told of.
@Suite("mat capture") struct CaptureTests {
    private static func address(_ text: String) throws -> [UInt8] { try #require(IPAddress(text)).packetOctets }

    /// A UDP packet of IPv4, or IPv6.
    private static func udp(_ source: String, _ destination: String, _ ports: (UInt16, UInt16), _ payload: [UInt8], sum: UInt8 = 0) throws -> [UInt8]
    {
        func word(_ value: Int) -> [UInt8] { [UInt8(value >> 8 & 0xff), UInt8(value & 0xff)] }
        let udp = word(Int(ports.0)) + word(Int(ports.1)) + word(8 + payload.count) + [sum, sum] + payload
        let (from, to) = (try address(source), try address(destination))
        if from.count == 16 { return [0x60, 0, 0, 0] + word(udp.count) + [17, 64] + from + to + udp }
        return [0x45, 0] + word(20 + udp.count) + [0, 0, 0x40, 0, 64, 17, sum, sum] + from + to + udp
    }

    private static func sides(peer: String? = nil) throws -> CaptureSides {
        var sides = CaptureSides(peer: try peer.map { try #require(IPAddress($0)) })
        var findings = try TraceTests.good()
        var node = try findings.node.get()
        node.locators[0].address = "203.0.113.10"
        var peer = try #require(findings.traced?.traffic.peer)
        (peer.home, peer.locators, peer.locator) = ("198.51.100.20", ["203.0.113.20", "198.51.100.9:6289", "relay 203.0.113.53:6290"], nil)
        node.peers = [peer]
        sides.know(node)
        findings.node = .success(node)
        return sides
    }

    private static func seen(_ side: CaptureSides.Side, _ direction: PcapNG.Direction, _ time: UInt64, _ octets: [UInt8]) -> CaptureSides.Seen {
        CaptureSides.Seen(side: side, direction: direction, nanoseconds: time, octets: octets, length: octets.count)
    }

    private static let link = CaptureSides.Side.outside(link: "wlan0")

    @Test("A packet is written as a program sees it and as the link carries it, in the order in which it met them, each with a word on the other")
    func pairs() throws {
        var sides = try Self.sides()
        // What leaves is told of late by one socket, what comes by the other.
        sides.take(Self.seen(Self.link, .outbound, 1000, try Self.udp("203.0.113.10", "203.0.113.20", (7, 8), [1, 2], sum: 9)))
        sides.take(Self.seen(.inside, .outbound, 1500, try Self.udp("192.0.2.10", "198.51.100.20", (7, 8), [1, 2])))
        sides.take(Self.seen(.inside, .inbound, 1900, try Self.udp("198.51.100.20", "192.0.2.10", (8, 7), [3, 4])))
        sides.take(Self.seen(Self.link, .inbound, 2000, try Self.udp("203.0.113.20", "203.0.113.10", (8, 7), [3, 4], sum: 5)))
        #expect(sides.due(nanoseconds: 50_000_000).isEmpty)
        let written = sides.due(nanoseconds: 200_000_000)
        #expect(written.map(\.packet.side) == [.inside, Self.link, Self.link, .inside])
        #expect(
            written.map(\.comment) == [
                "inside, as programs see it; outside it is 203.0.113.10 -> 203.0.113.20 on wlan0",
                "outside, rewritten; inside it is 192.0.2.10 -> 198.51.100.20", "outside, rewritten; inside it is 198.51.100.20 -> 192.0.2.10",
                "inside, as programs see it; outside it is 203.0.113.20 -> 203.0.113.10 on wlan0",
            ])
        #expect(written.allSatisfy { !$0.isSignalling && $0.packet.length == 30 && $0.packet.nanoseconds <= 2000 })
    }

    @Test("What is in a datagram is found there, messages are named, and what is of nobody else's is left out")
    func kinds() throws {
        var sides = try Self.sides()
        let inner = try Self.udp("192.0.2.10", "198.51.100.20", (7, 8), [1, 2])
        sides.take(Self.seen(.inside, .outbound, 1, inner))
        sides.take(Self.seen(Self.link, .outbound, 2, try Self.udp("203.0.113.10", "198.51.100.9", (6289, 6289), inner)))
        let query = SignalMessage(
            sequence: 7, .maQuery(MAQuery(cookie: Cookie(client: 1), hoa: try #require(HomeAddress("198.51.100.20"))))
        ).octets
        sides.take(Self.seen(Self.link, .outbound, 3, try Self.udp("2001:db8::1", "2001:db8::2", (6289, 6288), query)))
        sides.take(Self.seen(Self.link, .outbound, 4, try Self.udp("203.0.113.10", "203.0.113.99", (5, 53), [1])))
        sides.take(Self.seen(Self.link, .inbound, 5, [0x45, 1, 2]))
        sides.take(Self.seen(Self.link, .inbound, 6, try Self.udp("203.0.113.20", "203.0.113.10", (8, 7), [3, 4])))
        let comments = sides.due(nanoseconds: 7, all: true).map(\.comment)
        #expect(comments.count == 4)
        #expect(comments[1] == "outside, in a datagram; inside it is 192.0.2.10 -> 198.51.100.20" && comments[2] == "signalling: MA Query")
        #expect(comments[3].hasPrefix("outside, rewritten; the peer is 198.51.100.20; nothing came to a program of it"))
    }

    @Test("With a peer, other peers' packets are left out")
    func onePeer() throws {
        var sides = try Self.sides(peer: "198.51.100.21")
        sides.take(Self.seen(.inside, .outbound, 1, try Self.udp("192.0.2.10", "198.51.100.20", (7, 8), [1])))
        sides.take(Self.seen(.inside, .outbound, 2, try Self.udp("192.0.2.10", "198.51.100.21", (7, 8), [1])))
        sides.take(Self.seen(Self.link, .outbound, 3, try Self.udp("203.0.113.10", "203.0.113.20", (7, 8), [9])))
        let written = sides.due(nanoseconds: 1, all: true)
        #expect(written.count == 1 && written[0].comment.contains("nothing left for it within 100 ms"))
        // Not where some came too fast to be seen.
        sides.isLossy = true
        sides.take(Self.seen(.inside, .outbound, 2, try Self.udp("192.0.2.10", "198.51.100.21", (7, 8), [1])))
        #expect(sides.due(nanoseconds: 1, all: true).first?.comment == "inside, as programs see it; its other side was not seen")
    }

    @Test("A capture file is blocks of 32 bits, each with its length at both ends")
    func blocks() {
        let packet = PcapNG.packet(interface: 3, nanoseconds: 0x1_0000_0002, [0x45, 1, 2, 3, 4], length: 9, .outbound, comment: "ab")
        #expect(
            packet == [
                6, 0, 0, 0, 60, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 9, 0, 0, 0, 0x45, 1, 2, 3, 4, 0, 0, 0,
                1, 0, 2, 0, 0x61, 0x62, 0, 0, 2, 0, 4, 0, 2, 0, 0, 0, 0, 0, 0, 0, 60, 0, 0, 0,
            ])
        for block in [packet, PcapNG.section(system: "Linux", application: "mat", comment: "c"), PcapNG.interface("inside", "all of it")] {
            #expect(block.count % 4 == 0 && block[4..<8] == block.suffix(4) && Int(block[4]) + Int(block[5]) * 256 == block.count)
        }
    }

    @Test("The rules see packets of the home addresses and prefixes, of both families, and are the table's of one process")
    func rules() throws {
        let text = InsideTap.rules([try #require(IPPrefix("192.0.2.10/32")), try #require(IPPrefix("2001:db8:10:7::/64"))], 6299)
        #expect(text.contains("add table inet mat_capture_6299 { flags owner; }") && !text.contains("\n"))
        #expect(text.contains("out ip saddr 192.0.2.10/32 log prefix \"mat out\" group 6299"))
        #expect(text.contains("through ip6 daddr 2001:db8:10:7::/64 log prefix \"mat in\""))
    }
}
