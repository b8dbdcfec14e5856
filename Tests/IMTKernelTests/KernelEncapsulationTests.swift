import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Packets that the kernel itself puts into datagrams: how that begins, ends, and goes on without an agent. That it does what the agent does is in
/// EncapsulationTests; see TranslatedTopology for the drawing.
@Suite("Encapsulation in the kernel", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct KernelEncapsulationTests {
    typealias Places = TranslatedTopology.Places
    static let kernels = [Places.kernels, .classifiers]

    /// Sends numbered datagrams from mn until it is stopped, 5 ms apart, while cn takes them.
    private final class Stream {
        let sender: TestSocket, receiver: TestSocket
        let family: Family
        private(set) var sent: UInt32 = 0

        init(_ net: TranslatedTopology, _ family: Family, port: UInt16) throws {
            self.family = family
            sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
            try receiver.bind(family.peer, port: port)
            try sender.connect(family.peer, port: port)
        }

        /// - Returns: how many of these did not come.
        func lost(of count: Int) throws -> Int {
            var left: Set<UInt32> = []
            for _ in 0..<count {
                sent += 1
                left.insert(sent)
                try sender.send(nativeOctets(sent))
                usleep(5_000)
            }
            receiver.setTimeout(seconds: 1)
            while !left.isEmpty, let octets = try? receiver.receiveFrom().octets, octets.count == 4 {
                left.remove(octets.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) })
            }
            return left.count
        }
    }

    @Test("Without agents TCP and UDP go on, and their successors take over without a loss", arguments: Family.both, kernels)
    func adopted(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        let (client, server, _) = try connectTCP(net.net, to: "\(family.peer)", port: 4700)
        let stream = try Stream(net, family, port: 4701)
        #expect(try stream.lost(of: 20) == 0)
        var written: [ObjectIdentifier: ForwardingEntry.Way] = [:]
        for host in [net.mn, net.cn] {
            written[ObjectIdentifier(host)] = try host.ask { $0.forwarding.flatMap { $0.entry(of: $0.pairs.first ?? pair)?.way } }
        }
        net.mn.finish(leaving: true)
        net.cn.finish(leaving: true)
        #expect(try stream.lost(of: 50) == 0)
        let data = pattern(300_000)
        try expect(server, toReceive: data, from: client)
        // The successors, each of which is told by the first packet to its peer.
        for (host, made, links, received) in [
            (net.mn, Topology.mnConfiguration, ["wlan", "cell"], net.atMN), (net.cn, Topology.cnConfiguration, ["eth0"], net.atCN),
        ] {
            let before = try #require(written[ObjectIdentifier(host)])
            let adopted = try host.start(net.placed(made, true))
            let theirs = host === net.mn ? pair : HomePair(own: pair.peer, peer: pair.own)
            #expect(adopted.adopted && adopted.encapsulated == [theirs])
            // How these packets go, which lack a sum: as long as that arrives they need none.
            let way = Carriage(.encapsulated(own: before.own, peer: before.far), largest: UInt32(before.largest))
            #expect(adopted.forwarded == [theirs: way])
            #expect(try host.ask { $0.encapsulatesInKernel && $0.unconfirmedForwarding.count == 1 })
            try host.useLocators(on: links)
            try host.open(received)
        }
        let before = try net.mn.ask { try $0.peerCounters() }[pair]
        #expect((before?.octetsOut ?? 0) > 300_000, "\(String(describing: before))")
        try stream.sender.send(nativeOctets(stream.sent))
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound().filter { $0.destination == family.peer }
                return !held.isEmpty
            })
        #expect(held.count == 1)
        // While the agent finds out, the rest goes on.
        #expect(try stream.lost(of: 20) == 0)
        try net.encapsulate(family, in: family)
        let packet = try #require(held.first)
        #expect(try net.mn.ask { $0.releaseOutbound(packet) && $0.unconfirmedForwarding.isEmpty })
        #expect(try stream.lost(of: 20) == 0)
        try expect(client, toReceive: data, from: server)
        try net.net.expectClean()
    }

    @Test("Peers that were taken over and that nobody asks for are given up", arguments: [Places.kernels])
    func unconfirmed(_ places: Places) throws {
        let family = Family.both[0]
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        net.mn.finish(leaving: true)
        try net.mn.start(net.placed(Topology.mnConfiguration, true))
        try net.mn.useLocators(on: "wlan", "cell")
        try net.mn.ask { $0.endAdoptedForwarding() }
        #expect(try net.mn.ask { $0.forwarding?.pairs.isEmpty == true && !$0.hasEntry(for: family.peer) })
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.send([1], to: family.peer, port: 4702)
        #expect(eventually { net.mn.takeOutbound().contains { $0.destination == family.peer } })
        try net.net.expectClean()
    }

    @Test("A stop takes programs, maps and their places away, also those of an earlier run", arguments: kernels, [true, false])
    func removed(_ places: Places, byAnother: Bool) throws {
        let net = try TranslatedTopology(places)
        for family in Family.both { try net.encapsulate(family, in: family) }
        let configuration = net.placed(Topology.mnConfiguration, true)
        func left() throws -> String {
            var text = shellStatus("ls \(configuration.programDirectory)/").output
            for link in ["wlan", "cell"] {
                for command in ["filter show dev \(link) ingress", "qdisc show dev \(link)"] { text += try net.mn.namespace.run("tc \(command)") }
            }
            return text
        }
        let directory = try net.mn.ask { KernelEncapsulation.directory($0.configuration) }.split(separator: "/").last.map(String.init)
        let name = try #require(directory)
        #expect(try left().contains(name))
        if byAnother {
            net.mn.finish(leaving: true)
            // One that is not to use programs.
            try net.mn.start(net.placed(Topology.mnConfiguration, false))
        }
        net.mn.finish(leaving: false)
        let rest = try left()
        #expect(![name, "bpf", "clsact"].contains { rest.contains($0) }, "\(rest)")
    }

    @Test("Where the kernel can't be told, the agent does it, and says why once")
    func refused() throws {
        let net = try TranslatedTopology { configuration in
            configuration.encapsulation = .auto
            configuration.programDirectory = "/tmp/imtk-none"
        }
        let family = Family.both[0]
        try net.encapsulate(family, in: family)
        #expect(try net.mn.ask { !$0.encapsulatesInKernel })
        #expect(net.mn.warnings.filter { $0.contains("can't encapsulate") && $0.contains("mount -t bpf") }.count == 1, "\(net.mn.warnings)")
        #expect(try Stream(net, family, port: 4703).lost(of: 10) == 0)
    }

    @Test("A link that comes, goes and comes back has the program each time, and a device that somebody deleted as well", arguments: kernels)
    func links(_ places: Places) throws {
        let family = Family.both[0]
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        let stream = try Stream(net, family, port: 4704)
        #expect(try stream.lost(of: 10) == 0)
        try net.mn.namespace.run("ip link del mat0")
        #expect(eventually(within: 5) { net.mn.repaired.contains { $0.contains("made anew") } })
        func out() throws -> UInt64 { try net.mn.ask { $0.forwarding?.counts(of: pair)?.packetsOut } ?? 0 }
        let before = try out()
        #expect(try stream.lost(of: 10) == 0)
        #expect(try out() >= before + 10)
    }

    @Test("Packets for which the next hop's address has to be asked for first are not lost", arguments: Family.both, kernels)
    func neighbours(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        #expect(try net.mn.ask { $0.forwarding?.entry(of: pair)?.way?.next } != nil)
        let stream = try Stream(net, family, port: 4705)
        #expect(try stream.lost(of: 5) == 0)
        for _ in 0..<5 {
            for version in [4, 6] { try net.mn.namespace.run("ip -\(version) neigh flush dev wlan") }
            #expect(try stream.lost(of: 3) == 0)
        }
        let counts = try net.mn.ask { $0.forwarding?.counts(of: pair) } ?? PeerCounters()
        #expect(counts.packetsOut == 20, "\(counts)")
    }

    /// TCP repeats no segment that the host has not sent yet, so what waits there stands still for three seconds, and all behind it.
    @Test("What waits for the router of a link that has gone is dropped when the node leaves the link", arguments: Family.both, kernels)
    func gone(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let stream = try Stream(net, family, port: 4706)
        #expect(try stream.lost(of: 5) == 0)
        let (mn, router) = (net.mn.namespace, net.net.router)
        func waiting() -> String { mn.attempt("\(family.ip) neigh show dev wlan nud incomplete").output }
        // The agent hears of it when this is over.
        try net.mn.ask { kernel in
            try router.run("ip link set r1 down")
            // The kernel takes up to a second to see it, and forgets the router then.
            let hasWaited = try eventually {
                try stream.sender.send([1])
                return !waiting().isEmpty
            }
            #expect(hasWaited, "\(mn.attempt("ip neigh; ip link show wlan").output)")
            try kernel.commit([], locators: kernel.currentLinks().usable.filter { $0.interface == "cell" })
            #expect(waiting().isEmpty, "\(waiting())")
        }
    }

    /// No link of these cuts up what the peer's agent sends as one, and programs can't: it is refused by mn's kernel, where nobody listens any more.
    @Test("A host without its agent takes what the peer's agent sends in bursts", arguments: Family.both)
    func bursts(_ family: Family) throws {
        let net = try TranslatedTopology(.kernelOfMN)
        try net.encapsulate(family, in: family)
        let stream = try Stream(net, family, port: 4707)
        #expect(try stream.lost(of: 5) == 0)
        let (client, server, _) = try connectTCP(net.net, to: "\(family.peer)", port: 4708)
        let receiver = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.own, port: 4709)
        receiver.setTimeout(seconds: 1)
        // UDP_SEGMENT of SOL_UDP.
        let sender = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try sender.set(17, 103, 1000)
        try sender.connect(family.own, port: 4709)
        func burst() throws -> Int {
            // The error that another met is told first.
            if (try? sender.send(pattern(20_000))) == nil { try sender.send(pattern(20_000)) }
            var count = 0
            while count < 20, (try? receiver.receiveFrom()) != nil { count += 1 }
            return count
        }
        func longest() throws -> Int {
            let tap = try WireTap(net.net.router)
            #expect(try burst() == 20)
            return tap.take().map(\.count).max() ?? 0
        }
        #expect(try longest() > 10_000)
        net.mn.finish(leaving: true)
        // What was on its way when nobody knew is lost.
        _ = try burst()
        for _ in 0..<5 { #expect(try burst() == 20) }
        let data = pattern(2_000_000)
        try expect(client, toReceive: data, from: server)
        #expect(try longest() < 1500)

        try net.mn.start(net.placed(Topology.mnConfiguration, true))
        try net.mn.useLocators(on: "wlan", "cell")
        try net.mn.open(net.atMN)
        try net.encapsulate(family, in: family)
        #expect(eventually { net.atCN.take().contains { $0.octets == [1, 2, 3] } })
        #expect(try longest() > 10_000)
        try net.net.expectClean()
    }
}
