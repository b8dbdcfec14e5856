import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// Packets in pieces, and IPv6 headers between the header and what it carries; see Topology for the drawing.
@Suite(
    "Fragments and extension headers", .serialized,
    .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct FragmentTests {
    private func mapped(capture: Bool) throws -> Topology {
        let net = try Topology()
        try net.setOffloads(false)
        try net.unlimitErrors()
        try net.mapBoth(capture: capture)
        return net
    }

    /// With connection tracking a host puts fragments together before they are translated; without, each is translated by itself.
    @Test(
        "Datagrams larger than a frame arrive whole in both directions, with and without connection tracking",
        arguments: Family.both, [true, false])
    func largeDatagrams(_ family: Family, capture: Bool) throws {
        let net = try mapped(capture: capture)
        let tap = try WireTap(net.router)
        for (from, to, own, peer) in [(net.mn, net.cn, family.own, family.peer), (net.cn, net.mn, family.peer, family.own)] {
            let receiver = try TestSocket(to.namespace, TestSocket.datagram, family)
            try receiver.bind(peer, port: 4300)
            let sender = try TestSocket(from.namespace, TestSocket.datagram, family)
            for count in [1473, 5000, 60_000] {
                let data = pattern(count, seed: count)
                try sender.send(data, to: peer, port: 4300)
                let got = try receiver.receiveFrom()
                #expect(got.octets == data && got.source.address == own)
            }
            let ping = from.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 -s 4000 \(peer)")
            #expect(ping.status == 0, "\(ping.output)")
        }
        let wire = tap.take()
        #expect(wire.contains { PacketLayout($0)?.isLaterFragment == true })
        try net.expectClean(wire)
    }

    @Test("A router that cuts packets up breaks nothing")
    func fragmentedOnTheWay() throws {
        let family = Family.both[0]
        for capture in [true, false] {
            let net = try mapped(capture: capture)
            try net.router.run("ip route replace 10.9.0.0/24 dev r9 src 10.9.0.1 mtu lock 700")
            let tap = try WireTap(net.router)
            let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
            try receiver.bind(family.peer, port: 4301)
            let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            // IP_PMTUDISC_DONT: routers may fragment.
            try sender.set(family.level, family.mtuDiscoverOption, 0)
            for count in [1400, 4000] {
                let data = pattern(count)
                try sender.send(data, to: family.peer, port: 4301)
                #expect(try receiver.receiveFrom().octets == data)
            }
            let wire = tap.take()
            #expect(wire.contains { $0.count <= 700 && $0[6] & 0x20 != 0 })
            try net.expectClean(wire)
        }
    }

    /// Next header and length are filled in by the kernel; then PadN, four octets.
    private static let options: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]

    @Test(
        "IPv6 hop-by-hop and destination options travel with UDP and TCP, and errors about such packets come back",
        arguments: [true, false])
    func extensionHeaders(capture: Bool) throws {
        let family = Family.both[1]
        let net = try mapped(capture: capture)
        let tap = try WireTap(net.router)
        // IPV6_HOPOPTS and IPV6_DSTOPTS, each alone and both.
        for options in [[Int32(54)], [59], [54, 59]] {
            let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
            try receiver.bind(family.peer, port: 4302)
            let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            for option in options { try sender.set(41, option, octets: Self.options) }
            let data = pattern(300)
            try sender.send(data, to: family.peer, port: 4302)
            let got = try receiver.receiveFrom()
            #expect(got.octets == data && got.source.address == family.own)
            // Fragments of such a packet. Hop-by-hop options stand before the fragment header, destination options behind it,
            // and with these the kernel's connection tracking can't put a packet together (nf_conntrack_reasm drops it as
            // having a bad header), also where there is no MAT.
            if options == [54] || !capture {
                let large = pattern(4000)
                try sender.send(large, to: family.peer, port: 4302)
                #expect(try receiver.receiveFrom().octets == large)
            }
            try sender.connect(family.peer, port: 4303)
            try sender.send([1])
            let refused = #expect(throws: ShellError.self) { try sender.receive(1) }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")

            let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
            for option in options { try client.set(41, option, octets: Self.options) }
            let (server, _) = try connect(client, net.cn, family, port: 4304)
            try expect(server, toReceive: pattern(50_000), from: client)
        }
        let wire = tap.take()
        #expect(wire.contains { $0[6] == 0 } && wire.contains { $0[6] == 60 })
        for packet in wire { #expect(RawPacket.hasRightChecksum(packet) != false, "\(packet.prefix(100))") }
        try net.expectClean(wire)
    }

    @Test("An ICMPv6 error behind extension headers reaches the socket that it is about")
    func errorBehindExtensionHeaders() throws {
        let family = Family.both[1]
        let net = try mapped(capture: true)
        let asker = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try asker.bind(family.own, port: 4305)
        try asker.connect(family.peer, port: 4306)
        for (next, header) in [(UInt8(0), [UInt8(60), 0, 1, 4, 0, 0, 0, 0]), (60, [])] {
            let quote = RawPacket.ip(
                from: family.wlan, to: family.far, protocolNumber: 17,
                RawPacket.udp(from: Endpoint(family.wlan, port: 4305), to: Endpoint(family.far, port: 4306), pattern(20)))
            let error = RawPacket.finish(
                [1, 4, 0, 0, 0, 0, 0, 0] + quote, checksumAt: 2, protocolNumber: 58, from: family.nearRouter, to: family.wlan)
            let packet = RawPacket.ip(
                from: family.nearRouter, to: family.wlan, protocolNumber: next, header + [58, 0, 1, 4, 0, 0, 0, 0] + error)
            try RawPacket.inject(packet, in: net.router)
            let refused = #expect(throws: ShellError.self) { try asker.receive(1) }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        }
        try net.expectClean()
    }
}
