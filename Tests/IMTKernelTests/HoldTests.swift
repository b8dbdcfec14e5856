import Foundation
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// Packets that wait for the agent; see Topology for the drawing.
@Suite("Held packets", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct HoldTests {
    /// Both nodes up, nothing mapped.
    private func unmapped() throws -> Topology {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        try net.cn.start(Topology.cnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.cn.useLocators(on: "eth0")
        return net
    }

    struct Case: CustomTestStringConvertible, Sendable {
        let own: String, peer: String, ownMoA: String, newMoA: String, peerMoA: String
        var testDescription: String { own.contains(":") ? "IPv6" : "IPv4" }
    }
    static let cases = [
        Case(own: "192.0.2.1", peer: "198.51.100.1", ownMoA: "10.1.0.2", newMoA: "10.2.0.2", peerMoA: "10.9.0.2"),
        Case(
            own: "2001:db8:a::1", peer: "2001:db8:b::1", ownMoA: "2001:db8:1::2", newMoA: "2001:db8:2::2",
            peerMoA: "2001:db8:9::2"),
    ]

    @Test("The first packet to an unknown HoA waits for its mapping and then arrives", arguments: cases)
    func outboundReleased(_ c: Case) throws {
        let net = try unmapped()
        let peer = try address(c.peer)
        let receiver = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: peer.isIPv4)
        try receiver.bind(peer, port: 5000)
        let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: peer.isIPv4)
        try sender.send([1, 2], to: peer, port: 5000)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        let packet = try #require(held.first)
        #expect(packet.source.description == c.own && packet.destination == peer && packet.protocolNumber == 17)
        #expect(packet.destinationPort == 5000 && !packet.opensConnection)
        try net.cn.map(c.peer, c.own, over: c.peerMoA, c.ownMoA)
        try net.mn.map(c.own, c.peer, over: c.ownMoA, c.peerMoA)
        try net.mn.ask { $0.releaseOutbound(packet) }
        let got = try receiver.receiveFrom()
        #expect(got.octets == [1, 2] && got.source.address.description == c.own)
        #expect(try net.checksumErrors(net.cn) == 0)
    }

    @Test("A connection to a plain host waits once, then goes out from the MoA, and its answers come back", arguments: cases)
    func outboundPlain(_ c: Case) throws {
        let net = try unmapped()
        let isIPv4 = try address(c.own).isIPv4
        // The router itself is the plain host.
        let plain = isIPv4 ? "10.9.0.1" : "2001:db8:9::1"
        let listener = try TestSocket(net.router, type: TestSocket.stream, isIPv4: isIPv4)
        try listener.bind(try address(plain), port: 5001)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, type: TestSocket.stream, isIPv4: isIPv4)
        let connecting = BackgroundWork { try client.connect(try address(plain), port: 5001) }
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        let packet = try #require(held.first)
        #expect(packet.opensConnection && packet.source.description == c.own)
        try net.mn.ask { kernel in
            try kernel.commit([.setPlain(packet.destination, lifetime: .seconds(60))])
            kernel.releaseOutbound(packet)
        }
        try connecting.wait()
        let server = try listener.accept()
        try server.send([4])
        #expect(try client.receive(1) == [4])
        let peers = try net.router.run("ss -Htn state established")
        #expect(peers.contains(c.ownMoA), "\(peers)")
        // From now on new conversations don't even wait.
        let second = try TestSocket(net.mn.namespace, type: TestSocket.stream, isIPv4: isIPv4)
        try second.connect(try address(plain), port: 5001)
        #expect(net.mn.takeOutbound().isEmpty)
    }

    @Test("A peer that moves before it is known resets nothing: its segments wait and are then delivered", arguments: cases)
    func inboundReleasedTranslated(_ c: Case) throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        try net.cn.start(Topology.cnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.cn.useLocators(on: "eth0")
        try net.mn.map(c.own, c.peer, over: c.ownMoA, c.peerMoA, inbound: [(c.newMoA, c.peerMoA)])
        try net.cn.map(c.peer, c.own, over: c.peerMoA, c.ownMoA)
        let (client, server, _) = try connectTCP(net, to: c.peer, port: 5002)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        // mn moves; cn has not heard of it.
        try net.mn.map(c.own, c.peer, over: c.newMoA, c.peerMoA)
        try client.send([2])
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.cn.takeInbound()
                return !held.isEmpty
            })
        let packet = try #require(held.first)
        #expect(packet.source.description == c.newMoA && packet.protocolNumber == 6 && !packet.opensConnection)
        usleep(300_000)
        let waiting = net.cn.takeInbound()
        try net.cn.map(c.peer, c.own, over: c.peerMoA, c.newMoA)
        try net.cn.ask { kernel in for each in [packet] + waiting { kernel.releaseInbound(each) } }
        #expect(try server.receive(1) == [2])
        try server.send([3])
        #expect(try client.receive(1) == [3])
        #expect(try net.checksumErrors(net.cn) == 0)
    }

    @Test("A plain client's connection to the MoA waits, is released as it is, and works", arguments: cases)
    func inboundReleasedPlain(_ c: Case) throws {
        let net = try unmapped()
        let isIPv4 = try address(c.own).isIPv4
        let listener = try TestSocket(net.cn.namespace, type: TestSocket.stream, isIPv4: isIPv4)
        try listener.bind(isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, port: 5003)
        try listener.listen()
        let client = try TestSocket(net.router, type: TestSocket.stream, isIPv4: isIPv4)
        let connecting = BackgroundWork { try client.connect(try address(c.peerMoA), port: 5003) }
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.cn.takeInbound()
                return !held.isEmpty
            })
        let packet = try #require(held.first)
        #expect(packet.opensConnection && packet.destination.description == c.peerMoA)
        try net.cn.ask { kernel in
            try kernel.commit([.setPlain(packet.source, lifetime: .seconds(60))])
            kernel.releaseInbound(packet)
        }
        try connecting.wait()
        let server = try listener.accept()
        try server.send([4])
        #expect(try client.receive(1) == [4])
        #expect(try net.checksumErrors(net.cn) == 0)
    }

    @Test("A stranger's packet gets no answer of the stack: no reset, no port unreachable")
    func neverAnswered() throws {
        let net = try unmapped()
        let client = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: true)
        client.setTimeout(seconds: 0.5)
        try client.connect(try address("10.9.0.2"), port: 5999)
        try client.send([1])
        let silence = #expect(throws: ShellError.self) { try client.receive(1) }
        #expect(silence?.description.contains("refused") == false)
        #expect(net.cn.takeInbound().count == 1)
    }

    @Test("What the host itself began in the open is not held: answers to UDP and ping from a MoA")
    func ownPlainTraffic() throws {
        let net = try unmapped()
        for (from, to) in [("10.1.0.2", "10.1.0.1"), ("2001:db8:1::2", "2001:db8:1::1")] {
            let ping = net.mn.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 -I \(from) \(to)")
            #expect(ping.status == 0, "\(ping.output)")
            let target = try address(to)
            let server = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try server.bind(target, port: 5004)
            let client = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try client.bind(try address(from), port: 5005)
            try client.send([1], to: target, port: 5004)
            let asked = try server.receiveFrom()
            try server.send([2], to: asked.source.address, port: asked.source.port)
            #expect(try client.receiveFrom().octets == [2])
        }
        #expect(net.mn.takeInbound().isEmpty)
    }

    @Test("Always-plain prefixes are neither captured nor questioned, also when set later")
    func alwaysPlain() throws {
        let net = try unmapped()
        let prefixes = ["10.9.0.0/24", "2001:db8:9::/64"].compactMap { IPPrefix($0) }
        try net.mn.ask { try $0.commit([.setAlwaysPlain(prefixes)]) }
        for (to, moa) in [("10.9.0.1", "10.1.0.2"), ("2001:db8:9::1", "2001:db8:1::2")] {
            let target = try address(to)
            let client = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            let server = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try server.bind(target, port: 5006)
            try client.send([1], to: target, port: 5006)
            #expect(try server.receiveFrom().source.address.description == moa)
            let listener = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try listener.bind(target.isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6, port: 5007)
            try server.send([2], to: try address(moa), port: 5007)
            #expect(try listener.receiveFrom().octets == [2])
        }
        #expect(net.mn.takeOutbound().isEmpty && net.mn.takeInbound().isEmpty)
    }

    @Test("A plain destination is questioned again when its time is over")
    func plainExpires() throws {
        let net = try unmapped()
        let target = try address("10.9.0.1")
        try net.mn.ask { try $0.commit([.setPlain(target, lifetime: .milliseconds(200))]) }
        let client = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: true)
        try client.send([1], to: target, port: 5008)
        #expect(net.mn.takeOutbound().isEmpty)
        usleep(400_000)
        let later = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: true)
        try later.send([1], to: target, port: 5008)
        #expect(eventually { !net.mn.takeOutbound().isEmpty })
    }

    @Test("The agent's own marked sockets are never captured")
    func marked() throws {
        let net = try unmapped()
        for to in ["10.9.0.1", "2001:db8:9::1"] {
            let target = try address(to)
            let server = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: target.isIPv4)
            try server.bind(target, port: 5009)
            let agent = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: target.isIPv4)
            agent.mark(0x6288)
            try agent.send([1], to: target, port: 5009)
            #expect(try ["10.1.0.2", "2001:db8:1::2"].contains(server.receiveFrom().source.address.description))
        }
        #expect(net.mn.takeOutbound().isEmpty)
    }

    @Test("A host that filters reverse paths strictly still gets what was held for it")
    func strictReversePath() throws {
        let net = try Topology()
        for host in [net.mn, net.cn] {
            try host.namespace.run("sysctl -qw net.ipv4.conf.all.rp_filter=1 net.ipv4.conf.default.rp_filter=1")
        }
        try net.mapBoth()
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        let c = Self.cases[0]
        let (newMoA, hoa) = (MobileAddress(try address(c.newMoA)), HomeAddress(try address(c.peer)))
        try net.cn.ask { try $0.commit([.removeInbound(peer: newMoA, own: hoa)]) }
        let (client, server, _) = try connectTCP(net, to: c.peer, port: 5010)
        try net.mn.map(c.own, c.peer, over: c.newMoA, c.peerMoA)
        try client.send([2])
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.cn.takeInbound()
                return !held.isEmpty
            })
        try net.cn.map(c.peer, c.own, over: c.peerMoA, c.newMoA)
        let packets = held
        try net.cn.ask { kernel in for each in packets { kernel.releaseInbound(each) } }
        #expect(try server.receive(1) == [2])
    }

    @Test(
        "While peers are told of a move a connection that begins to one waits for the agent, and nothing else does; without an agent it goes as well",
        arguments: Family.both)
    func begunConnections(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let (client, server, listener) = try connectTCP(net, to: "\(family.peer)", port: 5010)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 5010)
        let home = HomeAddress(family.own)
        func begin() throws -> (socket: TestSocket, connecting: BackgroundWork) {
            let socket = try TestSocket(net.mn.namespace, TestSocket.stream, family)
            return (socket, BackgroundWork { try socket.connect(family.peer, port: 5010) })
        }
        try net.mn.ask { try $0.commit([.holdConnections(of: home, lifetime: .seconds(5))]) }
        let (begun, connecting) = try begin()
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        #expect(held.allSatisfy { $0.source == family.own && $0.destination == family.peer && $0.opensConnection })
        // A connection that is there, and datagrams, go on.
        try client.send([1])
        #expect(try server.receive(1) == [1])
        try server.send([2])
        #expect(try client.receive(1) == [2])
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.send([3], to: family.peer, port: 5010)
        #expect(try receiver.receiveFrom().source.address == family.own)
        let packets = held
        try net.mn.ask { kernel in for packet in packets { #expect(kernel.releaseOutbound(packet)) } }
        try connecting.wait()
        let accepted = try listener.accept()
        try begun.send([4])
        #expect(try accepted.receive(1) == [4])
        // The agent's word ends it, and so does its time.
        try net.mn.ask { try $0.commit([.letConnections(of: home)]) }
        _ = net.mn.takeOutbound()
        try begin().connecting.wait()
        try net.mn.ask { try $0.commit([.holdConnections(of: home, lifetime: .milliseconds(50))]) }
        usleep(100_000)
        try begin().connecting.wait()
        #expect(net.mn.takeOutbound().isEmpty)
        #expect(try net.checksumErrors(net.cn) == 0 && net.mn.failures.isEmpty)
    }
}
