import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel

/// Two hosts that talk between their HoAs and between their MoAs at the same time; see Topology for the drawing.
///
/// On the wire both look the same. The host that began a plain flow remembers it; the other takes its packets for mapped ones
/// and answers from its HoA, which its own side makes a MoA again.
@Suite("Plain beside mapped", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct PlainBesideMappedTests {
    enum Starter: CaseIterable { case mn, cn }

    private func net(mapped: Bool = true) throws -> Topology {
        let net = try Topology()
        try net.setOffloads(false)
        try net.start()
        if mapped { try net.mapEachOther() }
        return net
    }

    /// Who begins, who answers, and their MoAs and HoAs; mn's MoA is the one on `wlan`.
    private func roles(_ net: Topology, _ family: Family, _ starter: Starter) -> (
        from: Host, to: Host, moas: (from: IPAddress, to: IPAddress), homes: (from: IPAddress, to: IPAddress)
    ) {
        switch starter {
        case .mn: (net.mn, net.cn, (family.wlan, family.far), (family.own, family.peer))
        case .cn: (net.cn, net.mn, (family.far, family.wlan), (family.peer, family.own))
        }
    }

    private func connect(
        _ listener: TestSocket, from host: Host, _ source: IPAddress, to target: IPAddress, port: UInt16, _ family: Family
    ) throws -> (client: TestSocket, server: TestSocket) {
        let client = try TestSocket(host.namespace, TestSocket.stream, family)
        try client.bind(source, port: 0)
        try client.connect(target, port: port)
        return (client, try listener.accept())
    }

    /// Both ends send and hear each other, a large part and a small one.
    private func talk(_ ends: (client: TestSocket, server: TestSocket), serverFirst: Bool = false) throws {
        let (first, second) = serverFirst ? (ends.server, ends.client) : (ends.client, ends.server)
        try first.send([1, 2, 3])
        #expect(try second.receive(3) == [1, 2, 3])
        let data = pattern(30_000)
        let work = BackgroundWork { try second.send(data) }
        #expect(try first.receive(data.count) == data)
        try work.wait()
    }

    private func ping(_ host: Host, from source: IPAddress, to target: IPAddress) {
        let ping = host.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 -I \(source) \(target)")
        #expect(ping.status == 0, "\(ping.output)")
    }

    @Test(
        "Connections to the same port of MoA and HoA live side by side and both outlive handovers, whoever began them",
        arguments: Family.both, Starter.allCases)
    func tcp(_ family: Family, _ starter: Starter) throws {
        let net = try net()
        let (from, to, moas, homes) = roles(net, family, starter)
        let listener = try TestSocket(to.namespace, TestSocket.stream, family)
        try listener.bind(family.unspecified, port: 4700)
        try listener.listen()
        let mapped = try connect(listener, from: from, homes.from, to: homes.to, port: 4700, family)
        let plain = try connect(listener, from: from, moas.from, to: moas.to, port: 4700, family)
        for serverFirst in [false, true] {
            try talk(mapped, serverFirst: serverFirst)
            try talk(plain, serverFirst: serverFirst)
        }
        for moa in [family.cell, family.wlan, family.cell] {
            try net.handOver(family, to: moa)
            try talk(plain, serverFirst: true)
            try talk(mapped, serverFirst: true)
            try talk(plain)
            try talk(mapped)
        }
        let later = try connect(listener, from: from, moas.from, to: moas.to, port: 4700, family)
        try talk(later, serverFirst: true)
        try net.expectClean()
    }

    @Test(
        "UDP and ping between MoAs go on beside those between HoAs through a handover, whoever began them",
        arguments: Family.both, Starter.allCases)
    func udpAndPing(_ family: Family, _ starter: Starter) throws {
        let net = try net()
        let (from, to, moas, homes) = roles(net, family, starter)
        let server = try TestSocket(to.namespace, TestSocket.datagram, family)
        try server.bind(family.unspecified, port: 4701)
        // Answers must go out from the address that was asked; a server on all addresses has one socket for each.
        let homeServer = try TestSocket(to.namespace, TestSocket.datagram, family)
        try homeServer.bind(homes.to, port: 4702)
        let mapped = try TestSocket(from.namespace, TestSocket.datagram, family)
        try mapped.bind(homes.from, port: 4703)
        try mapped.connect(homes.to, port: 4702)
        let plain = try TestSocket(from.namespace, TestSocket.datagram, family)
        try plain.bind(moas.from, port: 4704)
        try plain.connect(moas.to, port: 4701)
        func exchange(_ client: TestSocket, _ server: TestSocket, _ value: UInt8) throws {
            try client.send([value])
            let got = try server.receiveFrom()
            #expect(got.octets == [value])
            try server.send([value, value], to: got.source.address, port: got.source.port)
            #expect(try client.receive(2) == [value, value])
        }
        try exchange(mapped, homeServer, 1)
        try exchange(plain, server, 2)
        ping(from, from: homes.from, to: homes.to)
        ping(from, from: moas.from, to: moas.to)
        try net.handOver(family, to: family.cell)
        try exchange(plain, server, 3)
        try exchange(mapped, homeServer, 4)
        ping(from, from: homes.from, to: homes.to)
        ping(from, from: moas.from, to: moas.to)
        // A closed port is refused to the plain one as well.
        let asker = try TestSocket(from.namespace, TestSocket.datagram, family)
        try asker.bind(moas.from, port: 0)
        try asker.connect(moas.to, port: 4799)
        try asker.send([1])
        let refused = #expect(throws: ShellError.self) { try asker.receive(1) }
        #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")
        try net.expectClean()
    }

    @Test(
        "Connections between MoAs that are older than the mapping go on when it comes and when it moves, whoever speaks first",
        arguments: Family.both, [false, true])
    func olderThanTheMapping(_ family: Family, serverFirst: Bool) throws {
        let net = try net(mapped: false)
        try net.mn.ask { try $0.commit([.setPlain(family.far, lifetime: .seconds(60)), .letOpen(family.far, lifetime: .seconds(5))]) }
        try net.cn.ask { try $0.commit([.setPlain(family.wlan, lifetime: .seconds(60)), .letOpen(family.wlan, lifetime: .seconds(5))]) }
        // One socket for both families, as most servers have it.
        let listener = try TestSocket(net.cn.namespace, type: TestSocket.stream, isIPv4: false)
        try listener.bind(.unspecifiedIPv6, port: 4705)
        try listener.listen()
        let plain = try connect(listener, from: net.mn, family.wlan, to: family.far, port: 4705, family)
        try talk(plain)
        let (near, far) = (
            try TestSocket(net.mn.namespace, TestSocket.datagram, family),
            try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        )
        try near.bind(family.wlan, port: 4706)
        try far.bind(family.far, port: 4707)
        try near.connect(family.far, port: 4707)
        try far.connect(family.wlan, port: 4706)
        func exchange() throws {
            let (first, second) = serverFirst ? (far, near) : (near, far)
            for (one, other) in [(first, second), (second, first)] {
                try one.send([7, 8])
                #expect(try other.receive(2) == [7, 8])
            }
        }
        try exchange()
        try net.mapEachOther()
        try talk(plain, serverFirst: serverFirst)
        try exchange()
        let mapped = try connect(listener, from: net.mn, family.own, to: family.peer, port: 4705, family)
        try talk(mapped)
        try net.handOver(family, to: family.cell)
        try talk(plain, serverFirst: serverFirst)
        try exchange()
        try talk(mapped)
        try net.expectClean()
    }

    @Test(
        "A connection between HoAs may have the ports of one between MoAs that has just ended, whoever begins it",
        arguments: Family.both.flatMap { family in End.allCases.map { (family, $0) } }, [false, true])
    func endedPorts(_ which: (Family, End), isPeers: Bool) throws {
        let (family, end) = which
        let net = try net()
        // At the peer a connection from MoA to MoA arrives between HoAs, as all that comes from where a peer is.
        var listener: TestSocket? = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener?.bind(family.peer, port: 4710)
        try listener?.listen()
        var client: TestSocket? = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        try client?.bind(family.wlan, port: 4711)
        try client?.connect(family.far, port: 4710)
        var server = try listener?.accept()
        if let client, let server { try talk((client, server)) }
        func has(_ host: Host, _ state: String) -> Bool {
            eventually { (try? host.namespace.run("ss -Htan state \(state)").contains(host === net.mn ? ":4711" : ":4710")) ?? false }
        }
        switch end {
        case .closed:
            client = nil
            #expect(has(net.cn, "close-wait"))
            server = nil
            #expect(has(net.mn, "time-wait"))
        case .aborted:
            try client?.abort()
            #expect(eventually { server?.notice() == .failure(ECONNRESET) })
        case .abortedByPeer:
            try server?.abort()
            #expect(eventually { client?.notice() == .failure(ECONNRESET) })
        }
        (client, server) = (nil, nil)
        let newListener: TestSocket
        if isPeers {
            listener = nil
            newListener = try TestSocket(net.mn.namespace, TestSocket.stream, family)
            try newListener.bind(family.own, port: 4711)
            try newListener.listen()
        } else {
            newListener = try #require(listener)
        }
        let begins = try TestSocket(isPeers ? net.cn.namespace : net.mn.namespace, TestSocket.stream, family)
        try begins.bind(isPeers ? family.peer : family.own, port: isPeers ? 4710 : 4711)
        try begins.connect(isPeers ? family.own : family.peer, port: isPeers ? 4711 : 4710)
        try talk((begins, newListener.accept()))
        try net.expectClean()
    }

    enum End: CaseIterable { case closed, aborted, abortedByPeer }

    /// Such a socket is bound to the HoA by its route, and source NAT makes that the MoA.
    @Test(
        "A connection to the peer's MoA from a socket bound to nothing, older than the mapping or not, outlives a handover",
        arguments: Family.both, [false, true])
    func unbound(_ family: Family, older: Bool) throws {
        let net = try net(mapped: !older)
        try net.mn.ask { try $0.commit([.setPlain(family.far, lifetime: .seconds(60)), .letOpen(family.far, lifetime: .seconds(5))]) }
        try net.cn.ask { try $0.commit([.setPlain(family.wlan, lifetime: .seconds(60)), .letOpen(family.wlan, lifetime: .seconds(5))]) }
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener.bind(family.unspecified, port: 4708)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
        try client.bind(family.own, port: 0)
        try client.connect(family.far, port: 4708)
        let server = try listener.accept()
        try talk((client, server))
        if older {
            try net.mapEachOther()
            try talk((client, server), serverFirst: true)
        }
        try net.handOver(family, to: family.cell)
        try talk((client, server), serverFirst: true)
        try talk((client, server))
        try net.expectClean()
    }

    @Test("Plain connections outlive a crash of the agent, and somebody who flushes the ruleset", arguments: Family.both)
    func madeAnew(_ family: Family) throws {
        let net = try net()
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, family)
        try listener.bind(family.unspecified, port: 4709)
        try listener.listen()
        let plain = try connect(listener, from: net.mn, family.wlan, to: family.far, port: 4709, family)
        let mapped = try connect(listener, from: net.mn, family.own, to: family.peer, port: 4709, family)
        try talk(plain)
        net.mn.finish(leaving: true)
        var configuration = Topology.mnConfiguration
        configuration.protectsTables = false
        try net.mn.start(configuration)
        try talk(plain, serverFirst: true)
        try talk(mapped, serverFirst: true)
        // Without rules the host answers a packet for a mapped connection by a reset, as nothing of ours is left to prevent it. The last
        // acknowledgement of what was just said may take 200 ms: what this is about is what the rules know when they are back.
        usleep(300_000)
        try net.mn.namespace.run("nft flush ruleset")
        #expect(eventually { !net.mn.repaired.isEmpty })
        try talk(plain, serverFirst: true)
        try talk(mapped, serverFirst: true)
        try net.expectClean()
    }
}
