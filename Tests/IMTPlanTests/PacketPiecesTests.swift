import MATSignal
import Testing

@testable import IMTPlan

@Suite("Packets that are cut up before they go") struct PacketPiecesTests {
    private static func octets(_ value: Int) -> [UInt8] { [UInt8(truncatingIfNeeded: value >> 8), UInt8(truncatingIfNeeded: value)] }

    private static func packet4(_ data: [UInt8], flagsAndOffset: Int = 0) -> [UInt8] {
        [0x45, 0] + octets(20 + data.count) + [0x12, 0x34] + octets(flagsAndOffset) + [64, 17, 0, 0, 192, 0, 2, 1, 198, 51, 100, 1] + data
    }

    private static func packet6(_ next: UInt8, _ data: [UInt8]) -> [UInt8] {
        let pair = GoldenScenario.own6
        return [0x60, 0, 0, 0] + octets(data.count) + [next, 64] + pair.own.address.packetOctets + pair.peer.address.packetOctets + data
    }

    private static func data(_ count: Int) -> [UInt8] { (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 31) } }

    /// Eight octets of options, in front of what has this number.
    private static func options(_ next: UInt8) -> [UInt8] { [next, 0, 1, 4, 0, 0, 0, 0] }

    /// What a receiver puts together of the pieces: all of them say the same in front, and their parts follow each other.
    private static func whole6(_ pieces: [[UInt8]], behind start: Int) throws
        -> (header: [UInt8], next: UInt8, part: [UInt8], goesOn: Bool, first: Int)
    {
        let first = try #require(pieces.first)
        var part: [UInt8] = []
        for (index, piece) in pieces.enumerated() {
            #expect(piece.count <= 1280 && Array(piece[4..<6]) == octets(piece.count - 40))
            for range in [6..<start + 1, start + 4..<start + 8] { #expect(piece[range].elementsEqual(first[range])) }
            let place = Int(piece[start + 2]) << 8 | Int(piece[start + 3])
            #expect(place & 0xFFF8 == (Int(first[start + 2]) << 8 | Int(first[start + 3])) & 0xFFF8 + part.count)
            #expect(index == pieces.count - 1 || place & 1 == 1)
            part += piece[(start + 8)...]
        }
        let last = try #require(pieces.last)
        return (Array(first[..<start]), first[start], part, last[start + 3] & 1 == 1, (Int(first[start + 2]) << 8 | Int(first[start + 3])) & 0xFFF8)
    }

    @Test("IPv6 options for each hop and before a routing header are in each piece, others behind the first one's header")
    func optionsOfWholePackets() throws {
        let data = Self.data(1400)
        let routing: [UInt8] = [17, 0, 0, 0, 0, 0, 0, 0]
        let cases: [(UInt8, [UInt8], start: Int)] = [
            (17, [], 40), (0, Self.options(17), 48), (60, Self.options(17), 40), (0, Self.options(60) + Self.options(17), 48),
            (60, Self.options(43) + routing, 56),
        ]
        for (next, headers, start) in cases {
            let packet = Self.packet6(next, headers + data)
            let pieces = try #require(PacketPieces.cut(packet, identifier: 7))
            let whole = try Self.whole6(pieces, behind: start)
            #expect(pieces.count == 2 && !whole.goesOn && whole.first == 0)
            #expect(whole.part == Array(packet[start...]))
            let field = start == 40 ? 6 : start - 8
            #expect(whole.header[field] == 44 && whole.next == packet[field] && pieces[0][start + 4..<start + 8].elementsEqual([0, 0, 0, 7]))
        }
    }

    @Test("A piece becomes pieces at its place, of the same datagram, with options in front of its header or behind it")
    func pieces() throws {
        for (isLast, hops) in [(false, false), (true, false), (false, true), (true, true)] {
            // The second piece of a datagram.
            let part = Self.data(1432)
            let fragment = [60, 0] + Self.octets(1432 | (isLast ? 0 : 1)) + [1, 2, 3, 4] + part
            let packet = hops ? Self.packet6(0, Self.options(44) + fragment) : Self.packet6(44, fragment)
            let start = hops ? 48 : 40
            let found = try #require(PacketPieces.cut(packet, identifier: 7))
            let whole = try Self.whole6(found, behind: start)
            #expect(found.count == 2 && whole.first == 1432 && whole.goesOn == !isLast && whole.next == 60 && whole.part == part)
            #expect(found.allSatisfy { $0[start + 4..<start + 8].elementsEqual([1, 2, 3, 4]) })
            let ipv4 = try #require(PacketPieces.cut(Self.packet4(part, flagsAndOffset: 179 | (isLast ? 0 : 0x2000)), identifier: 7))
            #expect(ipv4.count == 2 && ipv4.flatMap { $0[20...] } == part && ipv4.allSatisfy { Array($0[4..<6]) == [0x12, 0x34] })
            #expect(ipv4.map { Int($0[6]) << 8 | Int($0[7]) } == [179 | 0x2000, 179 + (ipv4[0].count - 20) / 8 | (isLast ? 0 : 0x2000)])
        }
    }

    @Test("What may not be cut up, or is damaged, is not")
    func refused() {
        let data = Self.data(1400)
        #expect(PacketPieces.cut(Self.packet4(data, flagsAndOffset: 0x4000), identifier: 7) == nil)
        #expect(PacketPieces.cut(Self.packet4(data, flagsAndOffset: 0x1FFF), identifier: 7) == nil)
        #expect(PacketPieces.cut(Self.packet6(44, [17, 0, 0xFF, 0xF8, 0, 0, 0, 1] + data), identifier: 7) == nil)
        // Options as long as the packet and longer.
        #expect(PacketPieces.cut(Self.packet6(0, [17, 175] + Self.data(1406)), identifier: 7) == nil)
        _ = PacketPieces.cut(Self.packet6(0, [17, 255] + data), identifier: 7)
        _ = PacketPieces.cut(Self.packet6(44, [17, 0, 0, 1]), identifier: 7)
    }
}
