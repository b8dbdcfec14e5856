import Glibc
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Packets that travel in datagrams, through a translator; see TranslatedTopology for the drawing.
@Suite("Encapsulation", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct EncapsulationTests {
    typealias Places = TranslatedTopology.Places

    /// A family of HoAs in a family of endpoints.
    struct Nesting: CustomTestStringConvertible, Sendable {
        let inner: Family, outer: Family
        var places = Places.agents
        var testDescription: String { "\(inner.testDescription) in \(outer.testDescription), by \(places)" }

        /// One family in the other.
        var isCrossed: Bool { inner.isIPv4 != outer.isIPv4 }

        static func all(_ places: [Places]) -> [Nesting] {
            places.flatMap { places in Family.both.flatMap { inner in Family.both.map { Nesting(inner: inner, outer: $0, places: places) } } }
        }
    }
    static let nestings = Nesting.all(Places.both)
    /// One end's sums and cut-up packets are what the other's process reads.
    static let mixed = Nesting.all(Places.allCases)

    private func mapped(_ nesting: Nesting, largest: UInt32 = 1452, offloads: Bool = true) throws -> TranslatedTopology {
        let net = try TranslatedTopology(nesting.places)
        try net.net.setOffloads(offloads)
        try net.encapsulate(nesting.inner, in: nesting.outer, largest: largest)
        #expect(eventually { net.atCN.take().contains { $0.octets == [1, 2, 3] && $0.from == TranslatedTopology.endpoints(nesting.outer).seen } })
        return net
    }

    private func transfer(_ client: TestSocket, _ server: TestSocket, octets: Int) throws {
        let (up, down) = (pattern(octets), pattern(octets, seed: 99))
        let work = [
            BackgroundWork { try client.send(up) }, BackgroundWork { try server.send(down) },
            BackgroundWork { try expect(client, toReceive: down) },
        ]
        #expect(try server.receive(octets) == up)
        for each in work { try each.wait() }
    }

    // MARK: What passes

    @Test("Ping goes both ways, whole and in pieces, and no packet between HoAs is on a wire by itself", arguments: nestings)
    func ping(_ nesting: Nesting) throws {
        let net = try mapped(nesting)
        let tap = try WireTap(net.net.router)
        for (host, peer, own) in [(net.mn, nesting.inner.peer, nesting.inner.own), (net.cn, nesting.inner.own, nesting.inner.peer)] {
            for size in [56, 1400, 4000] {
                let result = host.namespace.attempt("ping -c 2 -i 0.1 -W 2 -s \(size) -I \(own) \(peer)")
                #expect(result.status == 0, "\(size) octets: \(result.output)")
            }
        }
        let homes = [nesting.inner.own, nesting.inner.peer]
        let packets = tap.take().compactMap { PacketLayout($0) }
        #expect(!packets.isEmpty && !packets.contains { homes.contains($0.source) || homes.contains($0.destination) })
        #expect(packets.allSatisfy { $0.protocolNumber == 17 || $0.protocolNumber == 58 })
        try net.net.expectClean()
    }

    @Test("TCP in both directions arrives intact, with offloads on and off", arguments: mixed, [true, false])
    func tcp(_ nesting: Nesting, offloads: Bool) throws {
        let net = try mapped(nesting, offloads: offloads)
        let tap = try WireTap(net.net.router)
        let (client, server, _) = try connectTCP(net.net, to: "\(nesting.inner.peer)", port: 4600)
        try transfer(client, server, octets: 1_000_000)
        for packet in tap.take() where !offloads {
            #expect(packet.count <= 1500 && RawPacket.hasRightChecksum(packet) != false, "\(packet.prefix(80))")
        }
        let counts = try net.mn.ask { try $0.peerCounters() }
        let pair = HomePair(own: HomeAddress(nesting.inner.own), peer: HomeAddress(nesting.inner.peer))
        let found = try #require(counts[pair])
        // What a kernel sends over a link that cuts nothing up, a process gets as it is.
        let least = net.places == .kernelOfCN && offloads ? 20 : 700
        #expect(found.octetsOut > 1_000_000 && found.octetsIn > 1_000_000 && found.packetsOut > 700 && found.packetsIn > least, "\(found)")
        // By the programs, if there are any.
        let byKernel = try net.mn.ask { $0.forwarding?.counts(of: pair) } ?? PeerCounters()
        #expect(net.places.ofMN ? byKernel.octetsOut > 1_000_000 : byKernel == PeerCounters(), "\(byKernel)")
        #expect(!net.places.ofMN || net.places == .kernelOfMN || nesting.isCrossed || byKernel.octetsIn > 1_000_000, "\(byKernel)")
        try net.net.expectClean()
    }

    @Test("Datagrams arrive one by one: small and large, in pieces, and those sent as one", arguments: mixed, [true, false])
    func udp(_ nesting: Nesting, offloads: Bool) throws {
        let net = try mapped(nesting, offloads: offloads)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, nesting.inner)
        try receiver.bind(nesting.inner.peer, port: 4601)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, nesting.inner)
        for count in [0, 1, 33, 1200, 8000, 60_000] {
            let data = pattern(count)
            try sender.send(data, to: nesting.inner.peer, port: 4601)
            let got = try receiver.receiveFrom()
            #expect(got.octets == data && got.source.address == nesting.inner.own)
            try receiver.send(data, to: got.source.address, port: got.source.port)
            #expect(try sender.receiveFrom().octets == data)
        }
        // UDP_SEGMENT of SOL_UDP: what QUIC does.
        let several = try TestSocket(net.mn.namespace, TestSocket.datagram, nesting.inner)
        try several.set(17, 103, 1100)
        let data = pattern(1100 * 20 + 500)
        for _ in 0..<5 {
            try several.send(data, to: nesting.inner.peer, port: 4601)
            for start in stride(from: 0, to: data.count, by: 1100) {
                #expect(try receiver.receiveFrom().octets == Array(data[start..<min(start + 1100, data.count)]))
            }
        }
        try net.net.expectClean()
    }

    /// Next header and length are filled in by the kernel; then PadN, four octets.
    private static let options: [UInt8] = [0, 0, 1, 4, 0, 0, 0, 0]

    @Test(
        "IPv6 hop-by-hop and destination options travel with UDP, TCP and fragments, and errors about such packets come back",
        arguments: mixed.filter { !$0.inner.isIPv4 }, [true, false])
    func extensionHeaders(_ nesting: Nesting, offloads: Bool) throws {
        let net = try mapped(nesting, offloads: offloads)
        let family = nesting.inner
        // IPV6_HOPOPTS and IPV6_DSTOPTS, each alone and both.
        for options in [[Int32(54)], [59], [54, 59]] {
            let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
            try receiver.bind(family.peer, port: 4611)
            for option in options { try receiver.set(41, option, octets: Self.options) }
            let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
            for option in options { try sender.set(41, option, octets: Self.options) }
            for count in [1, 300, 1300, 4000] {
                let data = pattern(count)
                try sender.send(data, to: family.peer, port: 4611)
                let got = try receiver.receiveFrom()
                #expect(got.octets == data && got.source.address == family.own, "\(options), \(count)")
                try receiver.send(data, to: got.source.address, port: got.source.port)
                #expect(try sender.receiveFrom().octets == data, "\(options), \(count)")
            }
            try sender.connect(family.peer, port: 4612)
            try sender.send([1])
            let refused = #expect(throws: ShellError.self) { try sender.receive(1) }
            #expect(refused?.description.contains("refused") == true, "\(refused?.description ?? "")")

            let client = try TestSocket(net.mn.namespace, TestSocket.stream, family)
            for option in options { try client.set(41, option, octets: Self.options) }
            let (server, _) = try connect(client, net.cn, family, port: 4613)
            try transfer(client, server, octets: 200_000)
        }
        try net.net.expectClean()
    }

    @Test("Marks of congestion get from the network to the receiver, and what the sender marked to the network", arguments: nestings)
    func congestion(_ nesting: Nesting) throws {
        let net = try mapped(nesting)
        let (table, field) = nesting.outer.isIPv4 ? ("ip", "ip ecn") : ("ip6", "ip6 ecn")
        try net.net.router.run(
            "nft -f -",
            input: """
                table \(table) congestion {
                    chain forward {
                        type filter hook forward priority -10;
                        udp dport 6289 \(field) ect0 \(field) set ce
                    }
                }
                """)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, nesting.inner)
        try receiver.bind(nesting.inner.peer, port: 4602)
        let tap = try WireTap(net.cn.namespace)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, nesting.inner)
        // IP_TOS, IPV6_TCLASS: DSCP AF11, ECT(0).
        try sender.set(nesting.inner.level, nesting.inner.isIPv4 ? 1 : 67, 0x2A)
        try sender.send([7], to: nesting.inner.peer, port: 4602)
        #expect(try receiver.receiveFrom().octets == [7])
        let came = tap.take().first { PacketLayout($0)?.destination == nesting.inner.peer }
        let packet = try #require(came)
        let trafficClass = packet.withUnsafeBytes { InnerHeader($0)?.trafficClass }
        #expect(trafficClass == 0x2B, "\(packet.prefix(40))")
        try net.net.expectClean()
    }

    // MARK: What does not fit

    @Test("A narrow link behind the translator is told of with the packet's HoAs, and TCP goes on once the route says so", arguments: nestings)
    func narrow(_ nesting: Nesting) throws {
        let net = try mapped(nesting)
        // Peers of both families travel directly in the one and in its datagrams in the other.
        if nesting.isCrossed { try net.mn.map(nesting.outer.own, nesting.outer.peer, over: nesting.outer.wlan, nesting.outer.far) }
        let (client, server, _) = try connectTCP(net.net, to: "\(nesting.inner.peer)", port: 4603)
        for link in [1, 9] {
            try net.net.router.run("ip route replace 10.\(link).0.0/24 dev r\(link) src 10.\(link).0.1 mtu lock 1400")
            try net.net.router.run("ip -6 route replace 2001:db8:\(link)::/64 dev r\(link) metric 10 mtu lock 1400")
        }
        let (own, seen, far) = TranslatedTopology.endpoints(nesting.outer)
        let ends = [(net.mn, nesting.inner.own, nesting.inner.peer, own, far), (net.cn, nesting.inner.peer, nesting.inner.own, far, seen)]
        let work = BackgroundWork { try self.transfer(client, server, octets: 300_000) }
        for (host, home, peer, from, to) in ends {
            let pair = HomePair(own: HomeAddress(home), peer: HomeAddress(peer))
            #expect(
                eventually(within: 5) {
                    host.datagramErrors.contains { $0.isTooLarge && $0.largest == 1400 && $0.far == to && $0.port == 6289 && $0.pair == pair }
                }, "\(host.datagramErrors.prefix(3))")
            try host.encapsulate(home, peer, from: from, to: to, largest: 1400 - (nesting.outer.isIPv4 ? 28 : 48))
        }
        try work.wait()
        try net.net.expectClean()
    }

    @Test("Where less passes than every path has to carry, the datagrams are cut up by their sender", arguments: Family.both)
    func cutUp(_ outer: Family) throws {
        let net = try TranslatedTopology()
        try net.mn.namespace.run("ip link set wlan mtu 1280")
        let inner = Family.both[0]
        try net.encapsulate(inner, in: outer, largest: 1200)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, inner)
        try receiver.bind(inner.peer, port: 4604)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, inner)
        let tap = try WireTap(net.mn.namespace)
        for count in [1252, 30] {
            let data = pattern(count)
            try sender.send(data, to: inner.peer, port: 4604)
            #expect(try receiver.receiveFrom().octets == data)
        }
        let pieces = tap.take().filter { PacketLayout($0)?.isLaterFragment == true }
        #expect(!pieces.isEmpty && pieces.allSatisfy { PacketLayout($0)?.destination == outer.far })
        try net.net.expectClean()
    }

    // MARK: What is not taken

    @Test(
        "A packet from elsewhere, from nobody, for nobody, or that is none is not taken; the agent hears of the first two",
        arguments: Family.both, Places.both)
    func elsewhere(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let other = try TestSocket(net.net.router, TestSocket.datagram, family)
        try other.bind(family.farRouter, port: 6000)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4605)
        receiver.setTimeout(seconds: 0.3)
        func packet(from source: IPAddress, to destination: IPAddress) -> [UInt8] {
            let datagram = RawPacket.udp(from: Endpoint(source, port: 4605), to: Endpoint(destination, port: 4605), [9, 9])
            return RawPacket.ip(from: source, to: destination, protocolNumber: 17, datagram)
        }
        let stranger = try address(family.isIPv4 ? "203.0.113.5" : "2001:db8:c::5")
        let fromPeer = packet(from: family.own, to: family.peer)
        let fromNobody = packet(from: stranger, to: family.peer)
        for octets in [fromPeer, fromNobody, packet(from: family.own, to: stranger), fromPeer + [0], [0x50, 1, 2, 3], Array(fromPeer.prefix(12))] {
            try other.send(octets, to: family.far, port: 6289)
        }
        var held: [(packet: HeldPacket, from: Endpoint, to: Endpoint)] = []
        #expect(
            eventually {
                held += net.cn.takeEncapsulated()
                return held.count >= 2
            })
        try #require(held.map(\.packet.bytes) == [fromPeer, fromNobody])
        #expect(held.allSatisfy { $0.from == Endpoint(family.farRouter, port: 6000) && $0.to == Endpoint(family.far, port: 6289) })
        #expect(eventually { (try? net.cn.ask { $0.encapsulationDrops })?.malformed == 3 })
        #expect(try net.cn.ask { $0.encapsulationDrops }.notOurs == 1)
        #expect(throws: ShellError.self) { try receiver.receiveFrom() }
        // Once its sender has proven the endpoint.
        try net.cn.ask { kernel in
            try kernel.commit([.accept(HomePair(own: HomeAddress(family.peer), peer: HomeAddress(family.own)), from: [held[0].from])])
            kernel.releaseInbound(held[0].packet)
        }
        #expect(try receiver.receiveFrom().octets == [9, 9])
        try other.send(fromPeer, to: family.far, port: 6289)
        let got = try receiver.receiveFrom()
        #expect(got.octets == [9, 9] && got.source == Endpoint(family.own, port: 4605))
        try net.net.expectClean()
    }

    // MARK: Messages within the path

    @Test(
        "A message within a path gets to the other agent whole and to no socket, over any path that is accepted, in use or not", arguments: nestings)
    func inPath(_ nesting: Nesting) throws {
        let net = try TranslatedTopology(nesting.places)
        let (own, seen, far) = TranslatedTopology.endpoints(nesting.outer)
        let pair = HomePair(own: HomeAddress(nesting.inner.own), peer: HomeAddress(nesting.inner.peer))
        let back = HomePair(own: pair.peer, peer: pair.own)
        try net.bind(nesting.outer)
        #expect(eventually { net.atCN.take().contains { $0.from == seen } })
        // Neither has an outbound path.
        try net.mn.ask { try $0.commit([.accept(pair, from: [far])]) }
        try net.cn.ask { try $0.commit([.accept(back, from: [seen])]) }
        let tap = try WireTap(net.net.router)
        let largest = 1500 - (nesting.outer.isIPv4 ? 28 : 48)
        for size in [0, 1280, largest, largest + 1] {
            let probe = SignalMessage(sequence: 5, .pathProbe(PathProbe(cookie: Cookie(client: 9), hoa: pair.peer, peerHoA: pair.own)))
            let octets = SignalDatagram.fill(size - InPathMessage.headerOctets(nesting.inner.isIPv4 ? .ipv4 : .ipv6), with: probe)
            let message = InPathMessage(octets, between: pair, from: own, to: far)
            let error = try net.mn.ask { $0.sendInPath(message) }
            guard size <= largest else {
                #expect(error != nil, "larger than the link")
                continue
            }
            #expect(error == nil)
            var came: [InPathMessage] = []
            #expect(
                eventually {
                    came += net.cn.takeInPath()
                    return !came.isEmpty
                }, "\(size)")
            #expect(came == [InPathMessage(octets, between: back, from: far, to: seen)], "\(size)")
            let answer = SignalMessage(sequence: 5, .pathAnswer(PathAnswer(code: .ok, cookie: Cookie(client: 9), hoa: pair.peer)))
            #expect(try net.cn.ask { $0.sendInPath(InPathMessage(answer.octets, between: back, from: far, to: seen)) } == nil)
            came = []
            #expect(
                eventually {
                    came += net.mn.takeInPath()
                    return !came.isEmpty
                })
            #expect(came == [InPathMessage(answer.octets, between: pair, from: own, to: far)])
        }
        #expect(net.atCN.take().isEmpty && net.atMN.take().isEmpty)
        #expect(!tap.take().contains { PacketLayout($0)?.isLaterFragment == true })
        // From elsewhere it is held like any packet; between rewritten packets it is none.
        try net.cn.ask { try $0.commit([.accept(back, from: [])]) }
        let stray = InPathMessage(
            SignalMessage(sequence: 5, .pathProbe(PathProbe(cookie: Cookie(client: 9), hoa: pair.peer, peerHoA: pair.own))).octets, between: pair,
            from: own, to: far)
        #expect(try net.mn.ask { $0.sendInPath(stray) } == nil)
        #expect(eventually { !net.cn.takeEncapsulated().isEmpty })
        #expect(net.cn.takeInPath().isEmpty)
        try net.net.expectClean()
    }

    // MARK: Before and after

    @Test("A first packet waits for its path and leaves by it, and a firewall that asks for states lets the answers in", arguments: nestings)
    func released(_ nesting: Nesting) throws {
        let net = try TranslatedTopology(nesting.places)
        try net.mn.namespace.run(
            "nft -f -",
            input: """
                table inet firewall {
                    chain in {
                        type filter hook input priority 0; policy drop;
                        ct state established,related accept
                        iifname lo accept
                        meta l4proto icmpv6 accept
                        udp dport 6289 accept
                    }
                }
                """)
        let listener = try TestSocket(net.cn.namespace, TestSocket.stream, nesting.inner)
        try listener.bind(nesting.inner.peer, port: 4606)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, TestSocket.stream, nesting.inner)
        let connecting = BackgroundWork { try client.connect(nesting.inner.peer, port: 4606) }
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return held.contains { $0.destination == nesting.inner.peer }
            })
        let first = try #require(held.first { $0.destination == nesting.inner.peer })
        #expect(first.opensConnection && RawPacket.hasRightChecksum(first.bytes) == true)
        try net.encapsulate(nesting.inner, in: nesting.outer)
        #expect(try net.mn.ask { $0.canLeave(to: nesting.inner.peer) && $0.hasEntry(for: nesting.inner.peer) && $0.releaseOutbound(first) })
        try connecting.wait()
        try transfer(client, try listener.accept(), octets: 100_000)
        try net.net.expectClean()
    }

    @Test("A first datagram that comes in pieces waits for its path, and arrives whole by it", arguments: nestings)
    func releasedInPieces(_ nesting: Nesting) throws {
        let net = try TranslatedTopology(nesting.places)
        let peer = nesting.inner.peer
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, nesting.inner)
        try receiver.bind(peer, port: 4609)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, nesting.inner)
        let data = pattern(4000)
        try sender.send(data, to: peer, port: 4609)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound().filter { $0.destination == peer }
                return held.reduce(0) { $0 + $1.bytes.count } > 4000
            })
        try net.encapsulate(nesting.inner, in: nesting.outer)
        for packet in held { #expect(try net.mn.ask { $0.releaseOutbound(packet) }) }
        #expect(try receiver.receiveFrom().octets == data)
        try net.net.expectClean()
    }

    @Test("A held packet that its path has no room for, and that may not be cut, is no error: its sender hears what fits", arguments: Places.both)
    func releasedTooLong(_ places: Places) throws {
        let family = Family.both[0]
        let net = try TranslatedTopology(places)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        // IP_PMTUDISC_DO
        try sender.set(family.level, family.mtuDiscoverOption, 2)
        try sender.connect(family.peer, port: 4610)
        try sender.send(pattern(1372))
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound().filter { $0.destination == family.peer }
                return !held.isEmpty
            })
        let packet = try #require(held.first)
        try net.encapsulate(family, in: family)
        #expect(try net.mn.ask { $0.releaseOutbound(packet) })
        #expect(eventually { (try? sender.get(SOL_SOCKET, SO_ERROR)) == EMSGSIZE })
        #expect(try sender.get(family.level, family.mtuOption) == Int32(Carriage.mtuAtFirst))
        try net.net.expectClean()
    }

    @Test("While the own link is down packets are held, and leave when it is back", arguments: Family.both, Places.both)
    func linkDown(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        try net.encapsulate(family, in: family)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4607)
        try net.net.router.run("ip link set r1 down")
        let peer = family.peer
        #expect(eventually { (try? net.mn.ask { $0.canLeave(to: peer) }) == false })
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        try sender.send([5], to: family.peer, port: 4607)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound().filter { $0.destination == family.peer }
                return !held.isEmpty
            })
        try net.net.router.run("ip link set r1 up")
        try net.net.router.add(["2001:db8:1::1/64"], dev: "r1")
        try? net.net.mn.namespace.addDefaultRoute(via: "10.1.0.1", dev: "wlan", metric: 100)
        try? net.net.mn.namespace.addDefaultRoute(via: "2001:db8:1::1", dev: "wlan", metric: 100)
        #expect(eventually(within: 5) { (try? net.mn.ask { $0.canLeave(to: peer) }) == true })
        let packet = try #require(held.first)
        #expect(try net.mn.ask { $0.releaseOutbound(packet) })
        #expect(try receiver.receiveFrom().octets == [5])
    }

    @Test("From rewriting to datagrams and back a connection goes on, and nothing leaves as it is", arguments: Family.both, Places.both)
    func switched(_ family: Family, _ places: Places) throws {
        let net = try TranslatedTopology(places)
        // The translator lets all through that is not of port 6289, so that both ways are there.
        for table in ["ip", "ip6"] { try net.net.router.run("nft flush chain \(table) translator forward") }
        for table in ["ip", "ip6"] { try net.net.router.run("nft chain \(table) translator forward { policy accept\\; }") }
        for table in ["ip", "ip6"] {
            try net.net.router.run("nft flush chain \(table) translator post")
            try net.net.router.run(
                "nft add rule \(table) translator post oifname r9 meta l4proto udp udp sport 6289 masquerade to :\(TranslatedTopology.port)")
        }
        let tap = try WireTap(net.net.router)
        try net.net.handOver(family, to: family.wlan)
        let (client, server, _) = try connectTCP(net.net, to: "\(family.peer)", port: 4608)
        try transfer(client, server, octets: 200_000)
        try net.encapsulate(family, in: family)
        try transfer(client, server, octets: 200_000)
        try net.net.handOver(family, to: family.wlan)
        try transfer(client, server, octets: 200_000)
        for packet in tap.take() {
            guard let layout = PacketLayout(packet) else { continue }
            #expect(![family.own, family.peer].contains(layout.source) && ![family.own, family.peer].contains(layout.destination))
        }
        let counts = try net.mn.ask { try $0.peerCounters() }
        let found = try #require(counts[HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))])
        #expect(found.octetsOut > 600_000 && found.octetsIn > 600_000, "\(found)")
        try net.net.expectClean()
    }

    @Test("The next run is told whose packets were encapsulated, and holds them until their way is known again", arguments: Family.both)
    func restart(_ family: Family) throws {
        let net = try TranslatedTopology()
        try net.encapsulate(family, in: family)
        let pair = HomePair(own: HomeAddress(family.own), peer: HomeAddress(family.peer))
        net.mn.finish(leaving: true)
        let adopted = try net.mn.start(Topology.mnConfiguration)
        #expect(adopted.adopted && adopted.encapsulated == [pair])
        try net.mn.useLocators(on: "wlan", "cell")
        try net.mn.open(net.atMN)
        let receiver = try TestSocket(net.cn.namespace, TestSocket.datagram, family)
        try receiver.bind(family.peer, port: 4609)
        let sender = try TestSocket(net.mn.namespace, TestSocket.datagram, family)
        let tap = try WireTap(net.net.router)
        try sender.send([1], to: family.peer, port: 4609)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound().filter { $0.destination == family.peer }
                return !held.isEmpty
            })
        #expect(!tap.take().contains { PacketLayout($0)?.destination == family.peer })
        try net.encapsulate(family, in: family)
        let packet = try #require(held.first)
        #expect(try net.mn.ask { $0.releaseOutbound(packet) })
        #expect(try receiver.receiveFrom().octets == [1])
        // What others take from the kernel is put back.
        try net.mn.namespace.run("\(family.ip) route del \(family.peer) table 6288")
        #expect(eventually { !net.mn.repaired.isEmpty })
        try sender.send([2], to: family.peer, port: 4609)
        #expect(try receiver.receiveFrom().octets == [2])
        try net.net.expectClean()
    }
}
