import MATCore
import MATSignal
import MATTesting
import RelayCore
import Testing

@Suite("A relay as gateway") struct GatewayTests {
    private let place = at("198.51.100.1")
    private let own = ip("192.0.2.1")
    private let plain = home("203.0.113.200")
    private let plainIPv6 = home("2001:db8:99::200")

    /// A relay that is a gateway for 10.0.0.0/25 (routed) and 2001:db8:5::/64 (translated), and a bound node of each family.
    private func gateway(allowed: [String] = [], _ limits: RelayLimits = RelayLimits()) -> (relay: Fixture, node: HomeAddress, nodeIPv6: HomeAddress)
    {
        var relay = Fixture(limits)
        var configuration = relay.core.configuration
        configuration.gateway = GatewayConfiguration(
            prefixes: [.init(prefix("10.0.0.0/25"), .routed), .init(prefix("2001:db8:5::/64"), .translated)], allowed: allowed.map { prefix($0) })
        _ = relay.core.reconfigure(configuration, now: relay.now)
        relay.core.ownAddresses = [own, ip("2001:db8::1")]
        let (first, second) = (relay.authority.enrol(home("10.0.0.1"), seed: 11), relay.authority.enrol(home("2001:db8:5::1"), seed: 12))
        relay.bind(first, from: place)
        relay.bind(second, from: at("198.51.100.2"))
        return (relay, first.hoa, second.hoa)
    }

    @Test("A Bind Ack says what the relay is for this HoA: a gateway that it is routed to, one that translates, or a relay alone")
    func roles() {
        var (relay, _, _) = gateway()
        #expect(relay.bind(relay.authority.enrol(home("10.0.0.2"), seed: 13), from: at("198.51.100.3"))?.granted?.role == [.relay, .gateway])
        #expect(
            relay.bind(relay.authority.enrol(home("2001:db8:5::2"), seed: 14), from: at("198.51.100.4"))?.granted?.role
                == [.relay, .translatingGateway])
        // A resident of which the gateway's section says nothing.
        #expect(relay.bind(relay.authority.enrol(home("10.0.0.200"), seed: 15), from: at("198.51.100.5"))?.granted?.role == .relay)
        let cookie = relay.cookie(at("198.51.100.6"))
        let node = relay.authority.enrol(home("10.0.0.3"), seed: 16)
        #expect(relay.ack(Fixture.bind(node, cookie: cookie), from: at("198.51.100.6"))?.granted?.role == [.relay, .gateway])
        relay.wait(25_000)
        let refreshed = relay.ack(
            .padded(cookie: relay.cookie(at("198.51.100.6"), client: cookie.client), .refresh(node.hoa)), from: at("198.51.100.6"))
        #expect(refreshed?.granted?.role == [.relay, .gateway])
    }

    @Test("A node's packet to a plain host leaves, and what comes for the HoA goes to where its node is bound, in both families and after a move")
    func bothWays() {
        var (relay, node, nodeIPv6) = gateway()
        #expect(relay.forward(udp(node, plain), from: place) == .leave)
        #expect(relay.forward(udp(nodeIPv6, plainIPv6), from: at("198.51.100.2")) == .leave)
        #expect(relay.arrive(udp(plain, node)) == .forward(from: Fixture.relay, to: place))
        #expect(relay.arrive(udp(plainIPv6, nodeIPv6)) == .forward(from: Fixture.relay, to: at("198.51.100.2")))
        relay.wait(1500)
        relay.bind(relay.authority.enrol(node, seed: 11), from: at("2001:db8:9::9", 1234), to: Fixture.relayIPv6)
        #expect(relay.arrive(udp(plain, node)) == .forward(from: Fixture.relayIPv6, to: at("2001:db8:9::9", 1234)))
        #expect(relay.core.counters.packetsToPlain == 2 && relay.core.counters.packetsFromPlain == 3)
    }

    @Test("Without a gateway, for a HoA that it is not for, and for visitors, nothing leaves and nothing arrives")
    func notServed() {
        var relay = Fixture()
        let node = relay.authority.enrol(home("10.0.0.1"), seed: 11)
        relay.bind(node, from: place)
        #expect(relay.forward(udp(node.hoa, plain), from: place) == .drop(.unknownDestination))
        #expect(relay.arrive(udp(plain, node.hoa)) == .drop(.malformed))
        (relay, _, _) = gateway()
        let other = relay.authority.enrol(home("10.0.0.200"), seed: 15)
        relay.bind(other, from: at("198.51.100.5"))
        #expect(relay.forward(udp(other.hoa, plain), from: at("198.51.100.5")) == .drop(.unknownDestination))
        #expect(relay.arrive(udp(plain, other.hoa)) == .drop(.unknownDestination))
        // Served, and not bound.
        #expect(relay.arrive(udp(plain, home("10.0.0.77"))) == .drop(.unknownDestination))
    }

    @Test("Nobody else's packets leave: not an unbound host's, and not a bound node's in another's name")
    func openProxy() {
        var (relay, node, _) = gateway()
        #expect(relay.forward(udp(node, plain), from: at("203.0.113.66")) == .drop(.unboundSource))
        #expect(relay.forward(udp(home("10.0.0.2"), plain), from: place) == .drop(.foreignSource))
        #expect(relay.forward(udp(plain, home("203.0.113.201")), from: place) == .drop(.foreignSource))
    }

    @Test("A plain packet in the name of a node that is served, or bound, is dropped")
    func servedSource() {
        var (relay, node, _) = gateway()
        for source in ["10.0.0.2", "10.0.0.1", "10.0.0.200"] {
            #expect(relay.arrive(udp(home(source), node)) == .drop(.servedSource), "\(source)")
        }
    }

    @Test("Paths do not nest: UDP from or to ports 6288 to 6290 passes neither way, whatever stands before it")
    func nestedPaths() {
        var (relay, node, nodeIPv6) = gateway()
        for port: UInt16 in 6288...6290 {
            #expect(relay.forward(udp(node, plain, 5000, port), from: place) == .drop(.nestedPath))
            #expect(relay.forward(udp(node, plain, port, 5000), from: place) == .drop(.nestedPath))
            #expect(relay.arrive(udp(plain, node, port, 5000)) == .drop(.nestedPath))
            #expect(relay.arrive(udp(plain, node, 5000, port)) == .drop(.nestedPath))
            for headers in [[0], [60, 43], [44], [51]] as [[UInt8]] {
                let packet = udp(nodeIPv6, plainIPv6, 5000, port, extensions: headers)
                #expect(relay.forward(packet, from: at("198.51.100.2")) == .drop(.nestedPath), "\(headers)")
            }
        }
        #expect(relay.forward(udp(node, plain, 6287, 6291), from: place) == .leave)
        // TCP to these ports is no path.
        var tcp = udp(node, plain, 5000, 6289)
        tcp[9] = 6
        #expect(relay.forward(tcp, from: place) == .leave)
        // A later fragment has no ports; a first one that ends before them is nobody's.
        var later = udp(node, plain, 5000, 6289)
        later[7] = 1
        #expect(relay.forward(later, from: place) == .leave)
        #expect(relay.forward(Array(Fixture.packet(node, plain, octets: 26)), from: place) == .drop(.malformed))
        #expect(
            relay.forward(udp(nodeIPv6, plainIPv6, extensions: Array(repeating: 60, count: 9)), from: at("198.51.100.2")) == .drop(.malformed))
    }

    @Test("What would leave for the gateway's own, private, link-local, multicast or reserved addresses is dropped, but for what is allowed")
    func forbidden() {
        var (relay, node, nodeIPv6) = gateway(allowed: ["10.20.0.0/16", "fd00:1::/32", "224.0.0.0/4"])
        for destination in [
            "192.0.2.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "224.0.0.251", "255.255.255.255", "127.0.0.1",
            "0.1.2.3", "240.0.0.1",
        ] {
            #expect(relay.forward(udp(node, home(destination)), from: place) == .drop(.forbiddenDestination), "\(destination)")
        }
        for destination in [
            "2001:db8::1", "fe80::1", "ff02::1", "::1", "fc00::1", "fd00:2::1", "64:ff9b::192.168.1.1", "64:ff9b::192.0.2.1", "2002:a01:203::1",
            "::10.1.2.3", "4000::1",
        ] {
            #expect(
                relay.forward(udp(nodeIPv6, home(destination)), from: at("198.51.100.2")) == .drop(.forbiddenDestination), "\(destination)")
        }
        #expect(relay.forward(udp(node, home("10.20.30.40")), from: place) == .leave)
        #expect(relay.forward(udp(nodeIPv6, home("fd00:1::1")), from: at("198.51.100.2")) == .leave)
        // A served HoA that is not bound would come back at once.
        #expect(relay.forward(udp(node, home("10.0.0.77")), from: place) == .drop(.unknownDestination))
        // IPv4 addresses in IPv6's header.
        #expect(relay.forward(mappedIPv4(node, plain), from: place) == .drop(.malformed))
    }

    @Test("Rates and the month's quota hold for plain traffic as for any other, each direction for itself")
    func rates() {
        var limits = RelayLimits()
        limits.octetsPerSecond = 100_000
        limits.burstOctets = 20_000
        var (relay, node, _) = gateway(limits)
        var (left, arrived) = (0, 0)
        while relay.forward(udp(node, plain, octets: 1000), from: place) == .leave { left += 1 }
        #expect(left == 20 && relay.forward(udp(node, plain, octets: 1000), from: place) == .drop(.sourceRate))
        while case .forward = relay.arrive(udp(plain, node, octets: 1000)) { arrived += 1 }
        #expect(arrived == 20 && relay.arrive(udp(plain, node, octets: 1000)) == .held)
        relay.wait(10)
        #expect(relay.core.release(max: 10, now: relay.now.monotonic).map(\.way) == [ForwardWay(from: Fixture.relay, to: place)])
        limits.octetsPerMonth = 5000
        (relay, node, _) = gateway(limits)
        for _ in 0..<3 { #expect(relay.forward(udp(node, plain, octets: 1000), from: place) == .leave) }
        for _ in 0..<2 { #expect(relay.arrive(udp(plain, node, octets: 1000)) == .forward(from: Fixture.relay, to: place)) }
        #expect(relay.arrive(udp(plain, node, octets: 1000)) == .drop(.quota))
        #expect(relay.forward(udp(node, plain, octets: 1000), from: place) == .drop(.quota))
    }

    @Test("A download from a plain host leaves what another node sends to its receiver whole, and has the rest of its rate")
    func fairDownload() {
        var limits = RelayLimits()
        (limits.octetsPerSecond, limits.burstOctets) = (250_000, 20_000)
        var (relay, node, _) = gateway(limits)
        let speaker = relay.authority.enrol(home("10.0.0.9"), seed: 19)
        relay.bind(speaker, from: at("198.51.100.9"))
        var (arrived, of, downloaded, dropped) = (0, 0, 0, 0)
        for millisecond in 0..<5000 {
            // Four times the rate.
            switch relay.arrive(udp(plain, node, octets: 1000)) {
            case .forward: downloaded += 1000
            case .drop(let reason):
                #expect(reason == .destinationRate)
                dropped += 1
            case .held, .leave: break
            }
            if millisecond % 20 == 10, millisecond < 4900 {
                of += 1
                switch relay.forward(Fixture.packet(speaker.hoa, node, octets: 200), from: at("198.51.100.9")) {
                case .forward: arrived += 1
                case .held, .leave: break
                case .drop(let reason): Issue.record("\(reason) at \(millisecond)")
                }
            }
            relay.wait(1)
            for packet in relay.core.release(max: 10_000, now: relay.now.monotonic) {
                #expect(packet.way?.to == place)
                if packet.octets.count == 200 { arrived += 1 } else { downloaded += packet.octets.count }
            }
        }
        #expect(arrived == of && of == 245, "\(arrived) of \(of)")
        #expect(downloaded > 1_000_000 && dropped > 1000, "\(downloaded) octets, \(dropped) packets dropped")
    }

    @Test("Uploads to plain hosts that exceed the relay's rate share it by turns with what nodes send each other, and leave when their turn comes")
    func fairUpload() {
        var limits = RelayLimits()
        limits.relayOctetsPerSecond = 500_000
        var (relay, node, _) = gateway(limits)
        let (a, b) = (relay.authority.enrol(home("10.0.0.7"), seed: 17), relay.authority.enrol(home("10.0.0.8"), seed: 18))
        relay.bind(a, from: at("198.51.100.7"))
        relay.bind(b, from: at("198.51.100.8"))
        var (arrived, of, leftOctets) = (0, 0, 0)
        for millisecond in 0..<3000 {
            for _ in 0..<2 where relay.forward(udp(node, plain, octets: 1000), from: place) == .leave { leftOctets += 1000 }
            if millisecond % 20 == 10, millisecond < 2900 {
                of += 1
                switch relay.forward(Fixture.packet(a.hoa, b.hoa, octets: 200), from: at("198.51.100.7")) {
                case .forward: arrived += 1
                case .held, .leave: break
                case .drop(let reason): Issue.record("\(reason) at \(millisecond)")
                }
            }
            relay.wait(1)
            for packet in relay.core.release(max: 10_000, now: relay.now.monotonic) {
                if packet.way == nil { leftOctets += packet.octets.count } else { arrived += 1 }
            }
        }
        #expect(arrived == of && of == 145, "\(arrived) of \(of)")
        // All that the stream does not use, and the burst at the beginning.
        #expect((1_500_000...1_800_000).contains(leftOctets), "\(leftOctets) octets")
        #expect(relay.core.counters.octetsToPlain == UInt64(leftOctets))
    }

    private func gateway(_ limits: RelayLimits) -> (relay: Fixture, node: HomeAddress, nodeIPv6: HomeAddress) { gateway(allowed: [], limits) }

    // MARK: Packets

    /// A packet of UDP. IPv6 extension headers stand before it, by their numbers.
    private func udp(
        _ source: HomeAddress, _ destination: HomeAddress, _ sourcePort: UInt16 = 5000, _ destinationPort: UInt16 = 5001,
        extensions: [UInt8] = [], octets: Int = 0
    ) -> [UInt8] {
        let ports = [sourcePort, destinationPort].flatMap { [UInt8($0 >> 8), UInt8($0 & 0xFF)] }
        let transport = ports + [0, 12, 0, 0, 1, 2, 3, 4]
        if source.family == .ipv4 {
            var packet = Fixture.packet(source, destination, octets: max(octets, 20 + transport.count))
            packet.replaceSubrange(20..<20 + transport.count, with: transport)
            return packet
        }
        var body: [UInt8] = []
        for (number, next) in zip(extensions, extensions.dropFirst() + [17]) {
            // An authentication header's length is in units of 4 octets, less 2; a fragment header has none.
            body += [next, number == 51 ? 1 : 0, 0, 0, 0, 0, 0, 0] + (number == 51 ? [0, 0, 0, 0] : [])
        }
        body += transport
        var packet = Fixture.packet(source, destination, octets: max(octets, 40 + body.count))
        packet[6] = extensions.first ?? 17
        packet.replaceSubrange(40..<40 + body.count, with: body)
        return packet
    }

    /// An IPv6 header with the 16-octet forms of IPv4 addresses.
    private func mappedIPv4(_ source: HomeAddress, _ destination: HomeAddress) -> [UInt8] {
        [0x60, 0, 0, 0, 0, 8, 6, 64] + source.address.octets + destination.address.octets + Array(repeating: 0, count: 8)
    }
}

extension Fixture {
    mutating func arrive(_ packet: [UInt8]) -> Forwarding { packet.withUnsafeBytes { core.arrive($0, now: now.monotonic) } }
}
