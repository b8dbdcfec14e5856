import Foundation
import Glibc
import IMTPlan
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// Packets from addresses that cn does not know, on servers of every kind; see Topology for the drawing. cn is at home: its HoA is its MoA.
@Suite("Unknown sources", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct UnknownSourceTests {
    /// How a server's socket is bound. To a rule of nftables, one that is bound to its address looks like a connected one.
    enum Server: String, CaseIterable, CustomTestStringConvertible {
        case wildcard, bound
        var testDescription: String { rawValue }
        func address(_ family: Family) -> IPAddress { self == .bound ? family.far : family.unspecified }

        func listener(_ net: Topology, _ family: Family, port: UInt16) throws -> TestSocket {
            let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
            try listener.bind(address(family), port: port)
            try listener.listen()
            return listener
        }
    }

    /// cn at home, and mn, which may be no MAT node. cn begins nothing with peers: its answers to others leave as they are.
    private func net(mn: Bool) throws -> Topology {
        let net = try Topology()
        try net.startAtHome(traffic: .nothing)
        guard mn else { return net }
        try net.startMobile()
        for family in Family.both { try net.mapAtHome(family) }
        return net
    }

    private func receiver(_ net: Topology, _ family: Family, _ server: Server, port: UInt16) throws -> TestSocket {
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(server.address(family), port: port)
        return receiver
    }

    /// A TCP connection to such a server, from mn if no other host is named, to `target` if that is not the server's port. The server goes on
    /// listening.
    private final class Connection {
        let client: TestSocket, accepted: TestSocket
        private let listener: TestSocket

        init(_ net: Topology, _ family: Family, _ server: Server, from host: Namespace? = nil, port: UInt16, to target: UInt16? = nil) throws {
            listener = try server.listener(net, family, port: port)
            client = try TestSocket(host ?? net.mn.namespace, TestSocket.stream, family)
            try client.connect(family.far, port: target ?? port)
            accepted = try listener.accept()
        }
    }

    /// A datagram socket of mn's that speaks to such a server.
    private func sender(_ net: Topology, _ family: Family, port: UInt16) throws -> TestSocket {
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.connect(family.far, port: port)
        return sender
    }

    /// What a client has sent comes to a server from this address, and the server's answer comes to the client.
    private func answer(
        _ value: UInt8, of client: TestSocket, seenFrom expected: IPAddress, by server: TestSocket, before act: () throws -> Void = {}
    ) throws {
        let got = try server.receiveFrom()
        #expect(got.octets == [value] && got.source.address == expected)
        try act()
        try server.send([value, value], to: got.source.address, port: got.source.port)
        #expect(try client.receive(2) == [value, value])
    }

    private func held(_ host: Host, _ count: Int = 1) -> [HeldPacket] {
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += host.takeInbound()
                return held.count >= count
            }, "\(held.count) of \(count) held")
        return held
    }

    private func release(_ packets: [HeldPacket], on host: Host) throws {
        try host.ask { kernel in for packet in packets { kernel.releaseInbound(packet) } }
    }

    @Test(
        "The first packet of a stranger waits for its identification, whether the server's socket is bound to its address or to none",
        arguments: Family.both, Server.allCases)
    func firstWaits(_ family: Family, _ server: Server) throws {
        let net = try net(mn: false)
        let listener = try server.listener(net, family, port: 4800)
        let receiver = try receiver(net, family, server, port: 4800)
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        let connecting = BackgroundWork { try client.connect(family.far, port: 4800) }
        let syn = held(net.cn)
        #expect(syn.allSatisfy { $0.opensConnection && $0.protocolNumber == 6 })
        // Beside it, from the same source, a datagram waits for the same answer, and the next ones of its flow behind it, in order.
        let sender = try sender(net, family, port: 4800)
        for number in 1...20 { try sender.send([UInt8(number)]) }
        let datagrams = held(net.cn, 20)
        #expect(datagrams.allSatisfy { $0.opensConnection && $0.protocolNumber == 17 })
        try release(syn + datagrams, on: net.cn)
        try connecting.wait()
        let accepted = try listener.accept()
        try client.send([1])
        #expect(try accepted.receive(1) == [1])
        for number in 1...20 { #expect(try receiver.receiveFrom().octets == [UInt8(number)]) }
        #expect(net.cn.failures.isEmpty)
    }

    @Test(
        "A moved peer's segment for a server that is bound to its own address is not answered by a reset, and the connection goes on",
        arguments: Family.both, Server.allCases)
    func movedPeer(_ family: Family, _ server: Server) throws {
        let net = try net(mn: true)
        let talk = try Connection(net, family, server, port: 4801)
        try talk.client.send([1])
        #expect(try talk.accepted.receive(1) == [1])
        // mn moves; cn has not heard of it.
        try net.mn.map(family.own, family.far, over: family.cell, family.far)
        try talk.client.send([2])
        // Of a bound listener the agent hears when the stack wants to answer, of another before.
        var heard: [IPAddress] = []
        #expect(
            eventually {
                heard += net.cn.takeResets().map(\.from) + net.cn.takeInbound().map(\.source)
                return heard.contains(family.cell)
            })
        #expect(heard.allSatisfy { $0 == family.cell })
        try net.cn.map(family.far, family.own, over: family.far, family.cell)
        #expect(try talk.accepted.receive(1) == [2])
        try talk.accepted.send([3])
        #expect(try talk.client.receive(1) == [3])
        #expect(net.cn.failures.isEmpty && net.mn.failures.isEmpty)
    }

    @Test(
        "A server answers what a moved peer's datagram brought before anyone had heard of the move: the next ones are from the HoA again, and go on",
        arguments: Family.both)
    func movedPeersDatagrams(_ family: Family) throws {
        let net = try net(mn: true)
        let server = try receiver(net, family, .wildcard, port: 4811)
        let client = try sender(net, family, port: 4811)
        func exchange(_ value: UInt8, seenFrom expected: IPAddress, beforeAnswer act: () throws -> Void = {}) throws {
            try client.send([value])
            if expected != family.own { try release(held(net.cn), on: net.cn) }
            try answer(value, of: client, seenFrom: expected, by: server, before: act)
        }
        try exchange(1, seenFrom: family.own)
        try net.mn.map(family.own, family.far, over: family.cell, family.far)
        // It passed since an IMS knew nothing of it; the mapping comes while the server works on its answer.
        try exchange(2, seenFrom: family.cell) { try net.cn.map(family.far, family.own, over: family.far, family.cell) }
        for value in 3...5 { try exchange(UInt8(value), seenFrom: family.own) }
        try net.mn.map(family.own, family.far, over: family.wlan, family.far)
        try net.cn.map(family.far, family.own, over: family.far, family.wlan)
        for value in 6...8 { try exchange(UInt8(value), seenFrom: family.own) }
        #expect(net.cn.failures.isEmpty && net.mn.failures.isEmpty)
    }

    @Test("A moved peer's segments are not answered by a reset while the agent is dead", arguments: Family.both, Server.allCases)
    func movedPeerOfDeadAgent(_ family: Family, _ server: Server) throws {
        let net = try net(mn: true)
        let talk = try Connection(net, family, server, port: 4802)
        net.cn.finish(leaving: true)
        try net.mn.map(family.own, family.far, over: family.cell, family.far)
        try talk.client.send([2])
        // Sent again twice in that time.
        talk.client.setTimeout(seconds: 1)
        let silence = #expect(throws: ShellError.self) { try talk.client.receive(1) }
        #expect(silence?.description.contains("reset") == false, "\(silence?.description ?? "")")
        try net.startAtHome(traffic: .nothing)
        try net.cn.map(family.far, family.own, over: family.far, family.cell)
        #expect(try talk.accepted.receive(1) == [2])
    }

    @Test(
        "A plain client's connection that the server has closed is reset when it sends on, and one to a closed port is refused",
        arguments: Family.both, Server.allCases)
    func plainReset(_ family: Family, _ server: Server) throws {
        let net = try net(mn: true)
        try net.cn.ask { try $0.commit([.letOpen(family.farRouter, lifetime: .seconds(5))]) }
        let listener = try server.listener(net, family, port: 4803)
        let client = try TestSocket(net.router, TestSocket.stream, family)
        try client.connect(family.far, port: 4803)
        do {
            let accepted = try listener.accept()
            try client.send([1])
            #expect(try accepted.receive(1) == [1])
        }
        // The closed end's FIN is a plain connection's; the answer to what comes later may leave.
        client.setTimeout(seconds: 1)
        #expect(throws: ShellError.self) { try client.receive(1) }
        try client.send([2])
        let reset = #expect(throws: ShellError.self) {
            _ = try eventually {
                try client.send([2])
                return false
            }
        }
        #expect(reset?.description.contains("Broken pipe") == true || reset?.description.contains("reset") == true, "\(reset?.description ?? "")")
        let second = try TestSocket(net.router, TestSocket.stream, family)
        let refused = #expect(throws: ShellError.self) { try second.connect(family.far, port: 4899) }
        #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        #expect(net.cn.takeResets().isEmpty)
    }

    @Test(
        "A plain connection to a port that this host publishes by NAT is known as plain for as long as it speaks, not only for the minute after its SYN",
        arguments: Family.both)
    func published(_ family: Family) throws {
        let net = try net(mn: true)
        try net.cn.ask { try $0.commit([.letOpen(family.farRouter, lifetime: .seconds(5))]) }
        // No socket has the port that the client's packets name.
        for command in [
            "nft add table inet published", "nft add chain inet published pre '{ type nat hook prerouting priority dstnat; }'",
            "nft add rule inet published pre tcp dport 4891 redirect to :4804",
        ] { _ = try net.cn.namespace.run(command) }
        let talk = try Connection(net, family, .wildcard, from: net.router, port: 4804, to: 4891)
        for octet: UInt8 in 1...5 {
            try talk.client.send([octet])
            #expect(try talk.accepted.receive(1) == [octet])
            try talk.accepted.send([octet])
            #expect(try talk.client.receive(1) == [octet])
        }
        let notes = try net.cn.namespace.run("nft list set \(family.isIPv4 ? "ip" : "ip6") mat published")
        // Of the SYN's minute at most "59s" could be left.
        #expect(notes.contains(/4891[^,}]*expires \d+m/), "\(notes)")
        #expect(net.cn.failures.isEmpty)
    }

    @Test(
        "A flow that passed as plain stays plain when its source becomes a peer's, while the next flow is translated", arguments: Family.both,
        Server.allCases)
    func plainStaysPlain(_ family: Family, _ server: Server) throws {
        let net = try net(mn: false)
        let receiver = try receiver(net, family, server, port: 4804)
        let sender = try sender(net, family, port: 4804)
        try sender.send([1])
        try release(held(net.cn), on: net.cn)
        #expect(try receiver.receiveFrom().source.address == family.wlan)
        try net.cn.ask { try $0.commit([.letOpen(family.wlan, lifetime: .seconds(5))]) }
        let talk = try Connection(net, family, server, port: 4804)
        let name = net.mn.namespace.name
        let pinging = BackgroundWork { try shell("ip netns exec \(name) ping -n -c 10 -i 0.1 -W 1 \(family.far)") }
        try net.cn.map(family.far, family.own, over: family.far, family.wlan)
        // Who speaks first makes no difference.
        try talk.accepted.send([2])
        #expect(try talk.client.receive(1) == [2])
        for number in 3...5 {
            try sender.send([UInt8(number)])
            let got = try receiver.receiveFrom()
            #expect(got.octets == [UInt8(number)] && got.source.address == family.wlan)
            try receiver.send([9], to: got.source.address, port: got.source.port)
            #expect(try sender.receive(1) == [9])
            try talk.client.send([UInt8(number)])
            #expect(try talk.accepted.receive(1) == [UInt8(number)])
        }
        try self.sender(net, family, port: 4804).send([6])
        #expect(try receiver.receiveFrom().source.address == family.own)
        try pinging.wait()
        #expect(net.cn.failures.isEmpty)
    }

    @Test(
        "A moved peer's datagrams for an unconnected server, let by as plain before it was heard of, are its own again when it is",
        arguments: Family.both, Server.allCases)
    func movedPeersDatagrams(_ family: Family, _ server: Server) throws {
        let net = try net(mn: true)
        let receiver = try receiver(net, family, server, port: 4807)
        let sender = try sender(net, family, port: 4807)
        try sender.send([1])
        #expect(try receiver.receiveFrom().source.address == family.own)
        try net.mn.map(family.own, family.far, over: family.cell, family.far)
        try net.cn.ask { try $0.commit([.letOpen(family.cell, lifetime: .seconds(5))]) }
        for number in 2...3 {
            try sender.send([UInt8(number)])
            try answer(UInt8(number), of: sender, seenFrom: family.cell, by: receiver)
        }
        try net.cn.map(family.far, family.own, over: family.far, family.cell)
        try sender.send([4])
        try answer(4, of: sender, seenFrom: family.own, by: receiver)
        #expect(net.cn.failures.isEmpty && net.mn.failures.isEmpty)
    }

    @Test(
        "Likewise those of a peer that was reached in datagrams before: it comes from behind a translator into an open network",
        arguments: Family.both)
    func peersDatagramsFromBehindTranslator(_ family: Family) throws {
        let net = try net(mn: true)
        let receiver = try receiver(net, family, .bound, port: 4812)
        let sender = try sender(net, family, port: 4812)
        let home = HomePair(own: HomeAddress(family.far), peer: HomeAddress(family.own))
        let datagrams = Carriage(.encapsulated(own: Endpoint(family.far, port: 6289), peer: Endpoint(family.wlan, port: 6289)))
        try net.cn.ask { try $0.commit([.removeInbound(peer: MobileAddress(family.wlan), own: home.own), .setOutbound(home, datagrams)]) }
        try net.mn.map(family.own, family.far, over: family.cell, family.far)
        // Its record lists the endpoint of before no more, and its new place has yet to prove itself.
        try net.cn.ask { try $0.commit([.removeOutbound(home), .letOpen(family.cell, lifetime: .seconds(5))]) }
        try sender.send([1])
        try answer(1, of: sender, seenFrom: family.cell, by: receiver)
        try net.cn.map(family.far, family.own, over: family.far, family.cell)
        try sender.send([2])
        try answer(2, of: sender, seenFrom: family.own, by: receiver)
        #expect(net.cn.failures.isEmpty && net.mn.failures.isEmpty)
    }

    @Test(
        "What was found plain is asked about again at the agent's word, or when its time is over; what is being confirmed waits beyond the first second",
        arguments: Family.both)
    func askedAgain(_ family: Family) throws {
        let net = try net(mn: false)
        let receiver = try receiver(net, family, .bound, port: 4805)
        func send() throws { try sender(net, family, port: 4805).send([7]) }
        func commit(_ change: IMTChange) throws { try net.cn.ask { try $0.commit([change]) } }
        try commit(.letOpen(family.wlan, lifetime: .seconds(60)))
        try send()
        #expect(try receiver.receiveFrom().octets == [7])
        try commit(.askAgain(family.wlan))
        try send()
        _ = held(net.cn)
        try commit(.letOpen(family.wlan, lifetime: .milliseconds(300)))
        try send()
        #expect(try receiver.receiveFrom().octets == [7])
        #expect(
            try eventually {
                try send()
                return !net.cn.takeInbound().isEmpty
            }, "the memory of not found did not end")
        try commit(.holdOpeners(family.wlan, lifetime: .seconds(3)))
        usleep(1_200_000)
        while !net.cn.takeInbound().isEmpty {}
        try send()
        _ = held(net.cn)
        // A word that is said of what the kernel does not remember is no error.
        for change in [
            IMTChange.askAgain(family.cell), .askAgain(family.cell), .letOpen(family.cell, lifetime: .seconds(1)),
            .letOpen(family.cell, lifetime: .seconds(2)),
        ] { try commit(change) }
        #expect(net.cn.failures.isEmpty)
    }

    @Test(
        "If the agent says nothing, what opens a connection passes within a second, at its first repetition", arguments: Family.both, Server.allCases)
    func silentAgent(_ family: Family, _ server: Server) throws {
        let net = try net(mn: false)
        let listener = try server.listener(net, family, port: 4806)
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        let start = Date()
        try client.connect(family.far, port: 4806)
        let took = Date().timeIntervalSince(start)
        #expect(took > 0.9 && took < 2, "connected after \(took) s")
        _ = try listener.accept()
    }

    @Test("Packets sent to a peer are counted once, with source NAT active too", arguments: Family.both)
    func countedOnce(_ family: Family) throws {
        let net = try Topology()
        try net.mapBoth()
        let plain = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try plain.send([1], to: family.farRouter, port: 9)
        var asked: [HeldPacket] = []
        #expect(
            eventually {
                asked += net.mn.takeOutbound()
                return !asked.isEmpty
            })
        let packets = asked
        try net.mn.ask { kernel in
            try kernel.commit([.setPlain(family.farRouter, lifetime: .seconds(60))])
            for packet in packets { kernel.releaseOutbound(packet) }
        }
        #expect(try net.mn.namespace.run("nft list table \(family.isIPv4 ? "ip" : "ip6") mat").contains("masquerade"))
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        let before = try net.mn.ask { try $0.peerCounters()[pair]?.packetsOut ?? 0 }
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.connect(family.peer, port: 9)
        // Nobody listens there: an error that comes back ends one call, which sends nothing then.
        let sent = (0..<10).count { _ in (try? sender.send([1])) != nil }
        let after = try net.mn.ask { try $0.peerCounters()[pair]?.packetsOut ?? 0 }
        #expect(sent >= 5 && after - before == UInt64(sent), "\(sent) packets sent, \(after - before) counted")
    }
}
