import Glibc
import MATSignal
import Namespaces
import Testing

/// Packets whose checksum or cutting up is left to the card; see Topology for the drawing.
@Suite("Offloads", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct OffloadTests {
    @Test(
        "Bulk TCP in both directions arrives intact with offloads on and off, and on the wire are whole segments only",
        arguments: Family.both, [true, false])
    func bulk(_ family: Family, offloads: Bool) throws {
        let net = try Topology()
        try net.setOffloads(offloads)
        try net.mapBoth()
        let tap = try WireTap(net.router)
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4500)
        let (up, down) = (pattern(500_000), pattern(500_000, seed: 7))
        let work = [BackgroundWork { try client.send(up) }, BackgroundWork { try server.send(down) }]
        let reader = BackgroundWork { try expect(client, toReceive: down) }
        #expect(try server.receive(up.count) == up)
        for each in work + [reader] { try each.wait() }
        let wire = tap.take()
        let largest = wire.map(\.count).max() ?? 0
        #expect(offloads ? largest > 1500 : largest <= 1500, "largest packet on the wire: \(largest)")
        if !offloads {
            for packet in wire { #expect(RawPacket.hasRightChecksum(packet) != false, "\(packet.prefix(80))") }
        }
        try net.expectClean(wire)
    }

    /// The sender's link keeps its offloads. Since 6.11 Linux takes such datagrams also for links that can't finish checksums,
    /// but marks them as if their checksum were finished already (udp_send_skb), so that nothing can change an address in them:
    /// source NAT damages them as well.
    @Test(
        "Datagrams sent as one and cut up below arrive one by one, with the others' offloads on and off",
        arguments: Family.both, [true, false])
    func segmentedUDP(_ family: Family, offloads: Bool) throws {
        let net = try Topology()
        try net.setOffloads(offloads, sender: true)
        try net.mapBoth()
        let tap = try WireTap(net.router)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4501)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        // UDP_SEGMENT of SOL_UDP
        try sender.set(17, 103, 1200)
        let data = pattern(1200 * 20 + 500)
        for _ in 0..<5 {
            try sender.send(data, to: family.peer, port: 4501)
            for start in stride(from: 0, to: data.count, by: 1200) {
                let got = try receiver.receiveFrom()
                #expect(got.octets == Array(data[start..<min(start + 1200, data.count)]) && got.source.address == family.own)
            }
        }
        try net.expectClean(tap.take())
    }

    @Test("Datagrams that the receiving end joins arrive as they were sent", arguments: Family.both)
    func joinedUDP(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        // UDP_GRO: the socket takes joined datagrams as one.
        try receiver.set(17, 104, 1)
        try receiver.bind(family.peer, port: 4502)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.set(17, 103, 1000)
        let data = pattern(20_000)
        try sender.send(data, to: family.peer, port: 4502)
        var got: [UInt8] = []
        while got.count < data.count { got += try receiver.receiveFrom().octets }
        #expect(got == data)
        try net.expectClean()
    }

    /// Of a tunnel that checks its own sum the kernel knows the sum of what was inside (CHECKSUM_COMPLETE), as from some cards;
    /// without connection tracking nothing corrects that sum.
    @Test("Packets whose sum was known before translation are not taken for damaged", arguments: Family.both, [true, false])
    func summedUp(_ family: Family, capture: Bool) throws {
        let net = try Topology()
        try net.setOffloads(false)
        for (namespace, own, remote, last) in [
            (net.router, "10.9.0.1", "10.9.0.2", 1), (net.cn.namespace, "10.9.0.2", "10.9.0.1", 2),
        ] {
            try namespace.run("ip link add tunnel type vxlan id 8 local \(own) remote \(remote) dstport 4789 udpcsum")
            try namespace.run("ip link set tunnel up")
            try namespace.run("ip addr add 10.8.0.\(last)/24 dev tunnel")
            try namespace.run("ip addr add 2001:db8:8::\(last)/64 dev tunnel nodad")
        }
        // So that nothing is lost while mn finds out what fits into the tunnel.
        try net.mn.namespace.run("ip link set wlan mtu 1400")
        try net.cn.namespace.run("ip route add default via 10.8.0.1 dev tunnel metric 50")
        try net.cn.namespace.run("ip -6 route add default via 2001:db8:8::1 dev tunnel metric 50")
        var (mn, cn) = (Topology.mnConfiguration, Topology.cnConfiguration)
        if !capture { (mn.traffic, cn.traffic) = (.nothing, .nothing) }
        // The tunnel's own packets.
        cn.alwaysPlain = ["10.9.0.0/24"].compactMap { IPPrefix($0) }
        try net.mn.start(mn)
        try net.cn.start(cn)
        try net.mn.useLocators(on: "wlan")
        try net.cn.useLocators(on: "tunnel")
        let far = try address(family.isIPv4 ? "10.8.0.2" : "2001:db8:8::2")
        try net.mn.map(family.own, family.peer, over: family.wlan, far)
        try net.cn.map(family.peer, family.own, over: far, family.wlan)

        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4503)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        for count in [5, 300, 1000, 5000] {
            let data = pattern(count)
            try sender.send(data, to: family.peer, port: 4503)
            #expect(try receiver.receiveFrom().octets == data)
        }
        let (client, server, _) = try connectTCP(net, to: "\(family.peer)", port: 4504)
        let data = pattern(100_000)
        try expect(server, toReceive: data, from: client)
        // An error that comes in by the tunnel.
        let asker = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try asker.connect(family.own, port: 4505)
        try asker.send(pattern(300))
        let refused = #expect(throws: ShellError.self) { try asker.receive(1) }
        #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        try net.expectClean()
    }
}
