import Glibc
import MATSignal
import Testing

@testable import IMTPlan

/// Protocols that translation knows nothing of, and those that it must mend; see Topology for the drawing.
@Suite("Protocols", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct ProtocolTests {
    /// Both ends' checksums are computed and checked in software, so that what is wrong is noticed.
    private func mapped(capture: Bool = true) throws -> Topology {
        let net = try Topology()
        try net.setOffloads(false)
        try net.mapBoth(capture: capture)
        return net
    }

    /// What a raw socket got, without IPv4's header.
    private func payload(_ octets: [UInt8], _ family: Family) -> [UInt8] {
        family.isIPv4 ? Array(octets.dropFirst(Int(octets[0] & 0xF) * 4)) : octets
    }

    /// SCTP's INIT (RFC 9260, 3.3.2) with its CRC32c, which covers no address.
    private static var sctp: [UInt8] {
        let chunk: [UInt8] = [1, 0, 0, 20, 0x4A, 0x4B, 0x4C, 0x4D, 0, 0, 0xFF, 0xFF, 0, 1, 0, 1, 0x51, 0x52, 0x53, 0x54]
        var packet = RawPacket.big(4200) + RawPacket.big(4201) + [0, 0, 0, 0, 0, 0, 0, 0] + chunk
        let crc = RawPacket.crc32c(packet)
        // Least significant octet first.
        packet.replaceSubrange(8..<12, with: (0..<4).map { UInt8(truncatingIfNeeded: crc >> (8 * $0)) })
        return packet
    }

    @Test("SCTP, GRE, ESP and a protocol nobody knows pass between HoAs in both directions, to the octet", arguments: Family.both)
    func opaque(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        // "123456789", the usual check of a CRC (RFC 3385).
        #expect(RawPacket.crc32c(Array("123456789".utf8)) == 0xE306_9283)
        let gre: [UInt8] = [0x20, 0, 0x08, 0, 0, 0, 0, 42] + pattern(60)
        let esp: [UInt8] = [0, 0, 0x12, 0x34, 0, 0, 0, 1] + pattern(72)
        for (number, packet) in [(Int32(132), Self.sctp), (47, gre), (50, esp), (253, pattern(33))] {
            for (from, to, own, peer) in [(net.mn, net.cn, family.own, family.peer), (net.cn, net.mn, family.peer, family.own)] {
                let receiver = try TestSocket(to.namespace, TestSocket.raw, family, protocolNumber: number)
                try receiver.bind(peer, port: 0)
                let sender = try TestSocket(from.namespace, TestSocket.raw, family, protocolNumber: number)
                try sender.send(packet, to: peer, port: 0)
                let got = try receiver.receiveFrom()
                #expect(got.source.address == own && payload(got.octets, family) == packet, "protocol \(number)")
            }
        }
        let wire = tap.take()
        #expect(
            wire.count { $0.suffix(Self.sctp.count).elementsEqual(Self.sctp) } == 4,
            "twice in each direction, in and out of the router")
        try net.expectClean(wire)
    }

    @Test("UDP-Lite's checksum of a part is mended, and nothing beyond it is touched", arguments: Family.both)
    func udpLite(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        for coverage in [Int32(8), 20, 0] {
            let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family, protocolNumber: 136)
            try receiver.bind(family.peer, port: 4202)
            let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family, protocolNumber: 136)
            // UDPLITE_SEND_CSCOV of SOL_UDPLITE; 0 covers all.
            try sender.set(136, 10, coverage)
            let data = pattern(500, seed: Int(coverage))
            try sender.send(data, to: family.peer, port: 4202)
            let got = try receiver.receiveFrom()
            #expect(got.octets == data && got.source.address == family.own)
            try receiver.send([1, 2], to: got.source.address, port: got.source.port)
            #expect(try sender.receiveFrom().octets == [1, 2])
        }
        try net.expectClean(tap.take())
    }

    @Test("UDP without a checksum stays without", arguments: Family.both)
    func noChecksum(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4203)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        if family.isIPv4 {
            try sender.set(SOL_SOCKET, SO_NO_CHECK, 1)
        } else {
            // UDP_NO_CHECK6_TX and _RX (RFC 6935).
            try sender.set(17, 101, 1)
            try receiver.set(17, 102, 1)
        }
        let data = pattern(100)
        try sender.send(data, to: family.peer, port: 4203)
        let got = try receiver.receiveFrom()
        #expect(got.octets == data && got.source.address == family.own)
        let wire = tap.take()
        let sent = wire.compactMap { packet in
            PacketLayout(packet).flatMap {
                $0.protocolNumber == 17 ? packet[$0.transportOffset + 6..<$0.transportOffset + 8] : nil
            }
        }
        #expect(sent.count == 2 && sent.allSatisfy { $0.elementsEqual([0, 0]) })
        try net.expectClean(wire)
    }

    @Test("Every checksum on the wire is right, also where the mended one is zero or all ones", arguments: Family.both)
    func checksumsOnTheWire(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4204)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.bind(family.own, port: 4205)
        // Payloads whose checksum is 0 between HoAs, or between MoAs: one that sums to 0 goes out as all ones (RFC 768).
        let addresses = [(family.own, family.peer), (family.wlan, family.far)]
        var payloads = addresses.map { from, to in
            let plain = RawPacket.udp(from: Endpoint(from, port: 4205), to: Endpoint(to, port: 4204), [0, 0])
            return Array(plain[6..<8])
        }
        payloads += (0..<200).map { pattern(2 + $0 % 7, seed: $0 * 13) }
        for data in payloads {
            try sender.send(data, to: family.peer, port: 4204)
            #expect(try receiver.receiveFrom().octets == data)
        }
        let wire = tap.take().filter { PacketLayout($0)?.protocolNumber == 17 }
        #expect(wire.count == 2 * payloads.count)
        for packet in wire { #expect(RawPacket.hasRightChecksum(packet) == true, "\(packet)") }
        try net.expectClean(wire)
    }
}
