import Foundation
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel

/// Real kernels in namespaces; see Topology for the drawing.
@Suite("Translation", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct TranslationTests {
    static let peers = [("192.0.2.1", "198.51.100.1"), ("2001:db8:a::1", "2001:db8:b::1")]

    @Test("Two nodes ping each other's HoA in both families, and nothing arrives damaged")
    func ping() throws {
        let net = try Topology()
        try net.mapBoth()
        for (own, peer) in Self.peers {
            let there = net.mn.namespace.attempt("ping -n -c 3 -i 0.05 -W 1 \(peer)")
            #expect(there.status == 0, "\(there.output)")
            let back = net.cn.namespace.attempt("ping -n -c 3 -i 0.05 -W 1 \(own)")
            #expect(back.status == 0, "\(back.output)")
        }
        #expect(try net.checksumErrors(net.mn) == 0)
        #expect(try net.checksumErrors(net.cn) == 0)
        #expect(net.mn.failures.isEmpty && net.cn.failures.isEmpty, "\(net.mn.failures) \(net.cn.failures)")
        let counters = try net.mn.ask { try $0.peerCounters() }
        #expect(counters.count == 2)
        // Where connections are tracked, source NAT looks up the first packet of each once more.
        for counter in counters.values { #expect((6...7).contains(counter.packetsOut) && counter.packetsIn == 6, "\(counter)") }
    }

    @Test("UDP and TCP between HoAs show only MoAs on the wire, and HoAs to the sockets")
    func onTheWire() throws {
        let net = try Topology()
        try net.mapBoth()
        let capture = "/tmp/\(net.router.name).txt"
        defer { try? FileManager.default.removeItem(atPath: capture) }
        let dump = try Child(
            shell: "ip netns exec \(net.router.name) tcpdump -n -l -i r9 'tcp or udp' > \(capture) 2>/dev/null")
        usleep(400_000)
        for (own, peer) in Self.peers {
            let (client, server, _) = try connectTCP(net, to: peer, port: 4000)
            let data = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
            try expect(server, toReceive: data, from: client)
            let receiver = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: try address(peer).isIPv4)
            try receiver.bind(try address(peer), port: 4001)
            let talker = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: try address(peer).isIPv4)
            try talker.send([1, 2, 3], to: try address(peer), port: 4001)
            let got = try receiver.receiveFrom()
            #expect(got.octets == [1, 2, 3])
            #expect(got.source.address.description == own)
            // Larger than a frame: fragments carry no ports, and are translated all the same.
            let large = [UInt8](repeating: 7, count: 5000)
            try talker.send(large, to: try address(peer), port: 4001)
            #expect(try receiver.receiveFrom().octets == large)
        }
        usleep(300_000)
        dump.end()
        let text = try String(contentsOfFile: capture, encoding: .utf8)
        #expect(text.contains("10.1.0.2.") && text.contains("2001:db8:1::2."))
        for (own, peer) in Self.peers { #expect(!text.contains(own) && !text.contains(peer)) }
        #expect(try net.checksumErrors(net.mn) == 0)
        #expect(try net.checksumErrors(net.cn) == 0)
    }

    @Test("An established connection follows its MoA to another link, in both families")
    func handover() throws {
        let net = try Topology()
        try net.mapBoth()
        for (own, peer) in Self.peers {
            let (client, server, _) = try connectTCP(net, to: peer, port: 4002)
            try client.send([1])
            #expect(try server.receive(1) == [1])
            let isIPv4 = try address(own).isIPv4
            let (new, old, far) =
                isIPv4 ? ("10.2.0.2", "10.1.0.2", "10.9.0.2") : ("2001:db8:2::2", "2001:db8:1::2", "2001:db8:9::2")
            for (ownMoA, step) in [(new, UInt8(2)), (old, 3), (new, 4)] {
                try net.mn.map(own, peer, over: ownMoA, far)
                try net.cn.map(peer, own, over: far, ownMoA)
                try client.send([step])
                #expect(try server.receive(1) == [step])
                try server.send([step])
                #expect(try client.receive(1) == [step])
            }
        }
        let counters = try net.mn.ask { try $0.peerCounters() }
        for counter in counters.values { #expect(counter.packetsOut >= 8 && counter.packetsIn >= 6) }
    }

    @Test("A host firewall that tracks connections sees one conversation through a handover")
    func connectionTracking() throws {
        let net = try Topology()
        try net.mapBoth()
        try net.mn.namespace.run(
            "nft 'table inet fw { chain i { type filter hook input priority 0; policy drop; iifname lo accept; "
                + "ct state established,related accept; icmpv6 type >= 133 accept; }; }'"
        )
        for (own, peer) in Self.peers {
            let (client, server, _) = try connectTCP(net, to: peer, port: 4003)
            try server.send([1])
            #expect(try client.receive(1) == [1])
            let isIPv4 = try address(own).isIPv4
            let (new, far) = isIPv4 ? ("10.2.0.2", "10.9.0.2") : ("2001:db8:2::2", "2001:db8:9::2")
            try net.mn.map(own, peer, over: new, far)
            try net.cn.map(peer, own, over: far, new)
            try server.send([2])
            #expect(try client.receive(1) == [2])
        }
    }

    @Test("A router's frag-needed reaches the HoA's route, and TCP goes on with smaller segments")
    func pathMTU() throws {
        let net = try Topology()
        try net.mapBoth()
        // The router's far link is the narrow one, so it is the router that must say so.
        try shell("ip -n \(net.router.name) link set r9 mtu 1300")
        for (_, peer) in Self.peers {
            let (client, server, _) = try connectTCP(net, to: peer, port: 4004)
            let data = (0..<200_000).map { UInt8(truncatingIfNeeded: $0 &* 7) }
            try expect(server, toReceive: data, from: client)
            let route = try net.mn.namespace.run("ip route get \(peer)")
            #expect(route.contains("mtu 1300"), "\(route)")
        }
        #expect(try net.checksumErrors(net.mn) == 0)
    }

    @Test("A peer's port unreachable reaches the socket that asked, translated at both ends")
    func portUnreachable() throws {
        let net = try Topology()
        try net.mapBoth()
        for (_, peer) in Self.peers {
            let target = try address(peer)
            let asker = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try asker.connect(target, port: 4999)
            try asker.send([1])
            let refused = #expect(throws: ShellError.self) { try asker.receive(1) }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        }
        #expect(try net.checksumErrors(net.mn) == 0)
    }

    @Test("Plain traffic between the two MoAs stays plain")
    func plainBetweenMoAs() throws {
        let net = try Topology()
        try net.mapBoth()
        // mn starts it from its MoA; cn knows the pair as mapped and answers from its HoA, which its own side makes a MoA again.
        for (from, to) in [("10.1.0.2", "10.9.0.2"), ("2001:db8:1::2", "2001:db8:9::2")] {
            let (client, server, _) = try connectTCP(net, from: from, to: to, port: 4005)
            try client.send([5])
            #expect(try server.receive(1) == [5])
            try server.send([6])
            #expect(try client.receive(1) == [6])
            let ping = net.mn.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 -I \(from) \(to)")
            #expect(ping.status == 0, "\(ping.output)")
        }
    }

    @Test("Signalling is never translated")
    func signalling() throws {
        let net = try Topology()
        try net.mapBoth()
        for (own, peer) in [("10.1.0.2", "10.9.0.2"), ("2001:db8:1::2", "2001:db8:9::2")] {
            let target = try address(peer)
            let receiver = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try receiver.bind(target.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, port: 6289)
            let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try sender.bind(try address(own), port: 6289)
            try sender.send([9], to: target, port: 6289)
            #expect(try receiver.receiveFrom().source == Endpoint(try address(own), port: 6289))
        }
    }

    @Test("nft lists both tables readably")
    func listing() throws {
        let net = try Topology()
        try net.mapBoth()
        let text = try net.mn.namespace.run("nft list ruleset")
        // Each path by its ends, each peer by its HoA and MoA, each own MoA by its HoA.
        for line in [
            "0x00000001 : 192.0.2.1 . 10.1.0.2", "10.1.0.2 : 192.0.2.1", "ip saddr 192.0.2.1 oifname != \"mat0\"",
            "0x00000002 : 2001:db8:a::1 . 2001:db8:1::2", "2001:db8:1::2 : 2001:db8:a::1", "map in_2001_db8_a__1", "map out2",
        ] { #expect(text.contains(line), "\(line) in \(text)") }
        #expect(text.contains("198.51.100.1 counter") && text.contains(": 10.9.0.2") && text.contains("2001:db8:b::1 counter"))
    }
}
