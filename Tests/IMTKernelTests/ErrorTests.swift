import Glibc
import MATSignal
import Namespaces
import Testing

/// ICMP errors: who makes them, whom they reach, and whom they name; see Topology for the drawing.
@Suite("Errors", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct ErrorTests {
    private func mapped(capture: Bool = true) throws -> Topology {
        let net = try Topology()
        try net.setOffloads(false)
        try net.unlimitErrors()
        try net.mapBoth(capture: capture)
        return net
    }

    /// Makes the router answer packets to cn with this error.
    private func refuse(_ net: Topology, _ v4: String, _ v6: String) throws {
        try net.router.run(
            "nft 'table ip odd { chain f { type filter hook forward priority 0; ip daddr 10.9.0.2 reject with \(v4); }; }'")
        try net.router.run(
            "nft 'table ip6 odd { chain f { type filter hook forward priority 0; ip6 daddr 2001:db8:9::2 reject with \(v6); }; }'"
        )
    }

    @Test(
        "A host that can't be reached ends an attempt to connect, and is told to UDP sockets that want to know",
        arguments: Family.both)
    func hostUnreachable(_ family: Family) throws {
        let net = try mapped()
        try refuse(net, "icmp type host-unreachable", "icmpv6 type addr-unreachable")
        let tap = try WireTap(net.router)
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        // Takes a second: the first error arrives while the socket is still busy sending, between veth ends.
        let failed = #expect(throws: ShellError.self) { try client.connect(family.peer, port: 4000) }
        #expect(failed?.description.contains("No route to host") == true, "\(failed?.description ?? "")")
        let asker = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try asker.set(family.level, family.receiveErrorOption, 1)
        try asker.connect(family.peer, port: 4000)
        try asker.send([1])
        let told = #expect(throws: ShellError.self) { try asker.receive(1) }
        #expect(told?.description.contains("No route to host") == true, "\(told?.description ?? "")")
        try net.expectClean(tap.take())
    }

    @Test(
        "Port unreachable reaches the asker as ECONNREFUSED, from the peer in either direction and from a router",
        arguments: Family.both)
    func portUnreachable(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        func ask(_ host: Host, _ target: IPAddress, type: Int32) throws {
            let asker = try TestSocket(host.namespace, type, family)
            let refused = #expect(throws: ShellError.self) {
                try asker.connect(target, port: 4001)
                try asker.send([1])
                _ = try asker.receive(1)
            }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        }
        for type in [TestSocket.datagram, TestSocket.stream] {
            try ask(net.mn, family.peer, type: type)
            try ask(net.cn, family.own, type: type)
        }
        try refuse(net, "icmp type port-unreachable", "icmpv6 type port-unreachable")
        try ask(net.mn, family.peer, type: TestSocket.datagram)
        try net.expectClean(tap.take())
    }

    @Test("A trace of the route by UDP or echo shows each hop, and quotes HoAs to whoever asked", arguments: Family.both)
    func trace(_ family: Family) throws {
        let net = try mapped()
        let tap = try WireTap(net.router)
        for (host, own, peer, hop) in [
            (net.mn, family.own, family.peer, family.nearRouter), (net.cn, family.peer, family.own, family.farRouter),
        ] {
            let errors = try TestSocket(host.namespace, TestSocket.raw, family, protocolNumber: family.icmp)
            for hops in [Int32(1), 2] {
                let probe = try TestSocket(host.namespace, TestSocket.datagram, family)
                try probe.set(family.level, family.hopLimitOption, hops)
                try probe.send(pattern(40), to: peer, port: 33_434)
                let answer = try receiveError(errors, family)
                #expect(answer.quote.source == own && answer.quote.destination == peer && answer.quote.protocolNumber == 17)
                #expect(answer.from == (hops == 1 ? hop : peer))
                #expect(answer.type == (hops == 1 ? [family.timeExceeded, 0] : [family.unreachable, family.portUnreachable]))
            }
            let echo = RawPacket.finish(
                [family.echoRequest, 0, 0, 0, 0x12, 0x34, 0, 1] + pattern(32), checksumAt: 2, protocolNumber: UInt8(family.icmp),
                from: own, to: peer)
            try errors.set(family.level, family.hopLimitOption, 1)
            try errors.send(echo, to: peer, port: 0)
            let answer = try receiveError(errors, family)
            #expect(answer.from == hop && answer.quote.source == own && answer.quote.destination == peer)
            try errors.set(family.level, family.hopLimitOption, 2)
            try errors.send(echo, to: peer, port: 0)
            let reply = try errors.receiveFrom()
            #expect(reply.source.address == peer && reply.octets[family.isIPv4 ? 20 : 0] == family.echoReply)
        }
        try net.expectClean(tap.take())
    }

    @Test(
        "What the peer's own stack complains of comes back between HoAs: unknown protocol, fragments that never came",
        arguments: Family.both)
    func errorsOfThePeer(_ family: Family) throws {
        let net = try mapped(capture: false)
        try net.cn.namespace.run("sysctl -qw net.ipv4.ipfrag_time=1 net.ipv6.ip6frag_time=1")
        let tap = try WireTap(net.router)
        let errors = try TestSocket(net.mn.namespace, TestSocket.raw, family, protocolNumber: family.icmp)
        let unknown = try TestSocket(net.mn.namespace, TestSocket.raw, family, protocolNumber: 253)
        try unknown.send(pattern(64), to: family.peer, port: 0)
        let complaint = try receiveError(errors, family)
        #expect(complaint.type == (family.isIPv4 ? [3, 2] : [4, 1]))
        #expect(
            complaint.from == family.peer && complaint.quote.source == family.own && complaint.quote.destination == family.peer)

        // The first of two fragments, and never the second. As it is on the wire: a sender's own stack would put it together again.
        let datagram = RawPacket.udp(
            from: Endpoint(family.wlan, port: 4002), to: Endpoint(family.far, port: 4002), pattern(1200))
        var first: [UInt8]
        if family.isIPv4 {
            // Identification and the flag of more to come; the kernel makes the header's checksum anew for raw sockets.
            first = RawPacket.ip(from: family.wlan, to: family.far, protocolNumber: 17, Array(datagram.prefix(800)))
            first.replaceSubrange(4..<8, with: [0x77, 0x77, 0x20, 0])
        } else {
            first = RawPacket.ip(
                from: family.wlan, to: family.far, protocolNumber: 44, [17, 0, 0, 1, 0, 0, 0x77, 0x77] + datagram.prefix(800))
        }
        try RawPacket.inject(first, in: net.router)
        let late = try receiveError(errors, family)
        #expect(late.type == [family.timeExceeded, 1])
        #expect(late.from == family.peer && late.quote.source == family.own && late.quote.destination == family.peer)
        try net.expectClean(tap.take())
    }

    @Test("Errors about plain traffic between the same hosts stay plain: UDP, TCP and echo", arguments: Family.both)
    func plainErrors(_ family: Family) throws {
        let net = try mapped()
        for type in [TestSocket.datagram, TestSocket.stream] {
            let asker = try TestSocket(net.mn.namespace, type, family)
            try asker.bind(family.wlan, port: 4003)
            let refused = #expect(throws: ShellError.self) {
                try asker.connect(family.far, port: 4003)
                try asker.send([1])
                _ = try asker.receive(1)
            }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        }
        let errors = try TestSocket(net.mn.namespace, TestSocket.raw, family, protocolNumber: family.icmp)
        for protocolNumber in [UInt8(17), UInt8(family.icmp)] {
            let probe: [UInt8]
            if protocolNumber == 17 {
                probe = RawPacket.udp(from: Endpoint(family.wlan, port: 4004), to: Endpoint(family.far, port: 4004), pattern(20))
            } else {
                probe = RawPacket.finish(
                    [family.echoRequest, 0, 0, 0, 0x43, 0x21, 0, 1] + pattern(20), checksumAt: 2, protocolNumber: protocolNumber,
                    from: family.wlan, to: family.far)
            }
            try RawPacket.inject(
                RawPacket.ip(from: family.wlan, to: family.far, protocolNumber: protocolNumber, probe, hops: 1),
                in: net.mn.namespace, bound: true)
            let answer = try receiveError(errors, family)
            #expect(answer.from == family.nearRouter && answer.quote.protocolNumber == protocolNumber)
            #expect(answer.quote.source == family.wlan && answer.quote.destination == family.far)
        }
        try net.expectClean()
    }
}
