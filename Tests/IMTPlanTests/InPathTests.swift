import MATSignal
import Testing

@testable import IMTPlan

/// Signalling that travels inside encapsulated packets (protocol.md section 11, "in-path").
@Suite("Messages within a path") struct InPathTests {
    struct Family: Sendable, CustomTestStringConvertible {
        let pair: HomePair
        var testDescription: String { pair.own.isIPv4 ? "IPv4" : "IPv6" }
        /// As the other end sees it.
        var back: HomePair { HomePair(own: pair.peer, peer: pair.own) }
    }

    static let families = [("198.51.100.1", "203.0.113.1"), ("2001:db8::1", "2001:db8:9::1")].compactMap { own, peer in
        HomeAddress(own).flatMap { own in HomeAddress(peer).map { Family(pair: HomePair(own: own, peer: $0)) } }
    }
    private static let own = Endpoint(IPAddress(ipv4: 0x0A01_0203), port: 6289)
    private static let far = Endpoint(IPAddress(ipv4: 0xC000_0201), port: 40_001)

    private func probe(_ family: Family, octets: Int = 0) -> InPathMessage {
        let probe = PathProbe(cookie: Cookie(client: 7), hoa: family.pair.peer, peerHoA: family.pair.own)
        let message = SignalMessage(sequence: 1, .pathProbe(probe))
        let payload = max(0, octets - InPathMessage.headerOctets(family.pair.own.family))
        return InPathMessage(SignalDatagram.fill(payload, with: message), between: family.pair, from: Self.own, to: Self.far)
    }

    private func find(_ packet: [UInt8], isForHome: Bool = true) throws -> InPathMessage.Finding {
        try packet.withUnsafeBytes { octets in
            let header = try #require(InnerHeader(octets))
            return InPathMessage.find(in: octets, header, isForHome: isForHome, from: Self.own, to: Self.far)
        }
    }

    @Test("What one end sends the other finds, alone and filled up to any size, odd ones too", arguments: families, [0, 200, 201, 1280, 1472, 9000])
    func roundTrip(_ family: Family, octets: Int) throws {
        let sent = probe(family, octets: octets)
        let packet = try #require(sent.packet)
        #expect(octets == 0 ? packet.count < 120 : packet.count == octets)
        // The other end has the ends of datagram and packet the other way round.
        let found = InPathMessage(sent.octets, between: family.back, from: Self.far, to: Self.own)
        #expect(try find(packet) == .message(found))
        #expect(try find(packet, isForHome: false) == .message(found))
    }

    @Test("The sums are those of RFC 1071, and the packet may not be cut up on its way")
    func sums() throws {
        let packet = try #require(probe(Self.families[0], octets: 128).packet)
        #expect(ChecksumCompletion.fold(ChecksumCompletion.sum(packet[0..<20])) == 0xFFFF)
        let pseudo = ChecksumCompletion.sum(packet[12..<20]) + 17 + UInt64(packet.count - 20)
        #expect(ChecksumCompletion.fold(pseudo + ChecksumCompletion.sum(packet[20...])) == 0xFFFF)
        #expect(packet[6] == 0x40 && packet[7] == 0 && packet[9] == 17)
        // IP, UDP, header and options of a message: a PAD octet more or less would change this.
        #expect(
            packet.prefix(28).map { $0 } == [69, 0, 0, 128, 0, 0, 64, 0, 64, 17, packet[10], packet[11], 198, 51, 100, 1, 203, 0, 113, 1]
                + [0x18, 0x91, 0x18, 0x91, 0, 108, packet[26], packet[27]])
    }

    @Test("An octet that changed on the way is found out, wherever it is", arguments: families)
    func damaged(_ family: Family) throws {
        let packet = try #require(probe(family).packet)
        for place in (family.pair.own.isIPv4 ? 20 : 40)..<packet.count {
            var other = packet
            other[place] ^= 0x10
            let found = try find(other)
            // Other ports, or another length, are an application's affair.
            #expect(found == .damaged || found == .application, "octet \(place)")
        }
    }

    @Test("Other ports, other protocols and fragments are applications'", arguments: families)
    func applications(_ family: Family) throws {
        let packet = try #require(probe(family).packet)
        let header = family.pair.own.isIPv4 ? 20 : 40
        for (place, value) in [(header + 1, 0x90), (header + 3, 0x90), (family.pair.own.isIPv4 ? 9 : 6, 6)] as [(Int, UInt8)] {
            var other = packet
            other[place] = value
            #expect(try find(other) == .application)
        }
        guard family.pair.own.isIPv4 else { return }
        for (place, value) in [(6, 0x20), (7, 1)] as [(Int, UInt8)] {
            var fragment = packet
            fragment[place] = value
            #expect(try find(fragment) == .application)
        }
        #expect(try find(Array(packet[..<2]) + [0, 24] + packet[4..<24]) == .application)
    }

    @Test("What nodes behind this one say to others is passed on; for an own HoA it is damaged", arguments: families)
    func behind(_ family: Family) throws {
        // A probe from outside has a challenge; others are addressed to another HoA than the packet.
        let authority = try #require(CookieAuthority(secret: [UInt8](repeating: 1, count: 16)))
        let challenge = authority.challenge(for: Self.far, client: 1, now: Now(monotonic: .zero, wallMilliseconds: 0))
        let outside = PathProbe.padded(cookie: Cookie(client: 7), hoa: family.pair.peer, peerHoA: family.pair.own, challenge: challenge)
        let other = PathProbe(cookie: Cookie(client: 7), hoa: family.pair.own, peerHoA: family.pair.peer)
        for body in [SignalMessage.Body.pathProbe(outside), .pathProbe(other), .maQuery(MAQuery(cookie: Cookie(client: 7), hoa: family.pair.peer))] {
            let message = InPathMessage(SignalMessage(sequence: 1, body).octets, between: family.pair, from: Self.own, to: Self.far)
            let packet = try #require(message.packet)
            #expect(try find(packet, isForHome: false) == .application)
            #expect(try find(packet, isForHome: true) == .damaged)
        }
    }

    @Test("A packet can't be larger than a packet, nor of two families")
    func impossible() {
        let family = Self.families[0]
        #expect(InPathMessage([UInt8](repeating: 0, count: 65_508), between: family.pair, from: Self.own, to: Self.far).packet == nil)
        let mixed = HomePair(own: family.pair.own, peer: Self.families[1].pair.peer)
        #expect(InPathMessage([13], between: mixed, from: Self.own, to: Self.far).packet == nil)
    }
}
