import Foundation
import Glibc
import MATRuntime
import MATSignal
import MATTesting
import Namespaces
import Testing

//   a node's place, 198.51.100.2 ── 198.51.100.1  mat-relay, gateway  203.0.113.1 ── 203.0.113.2    a plain host
//                                                                  2001:db8:9::1 ── 2001:db8:9::2
//   HoAs: 10.0.0.1 and 2001:db8:5::1, which are routed to the gateway; 10.0.0.129, which nobody routes

@Suite(
    "A running relay as gateway", .serialized, .enabled(if: relayTestsImpossible == nil, "skipped: \(relayTestsImpossible ?? "")"),
    .timeLimit(.minutes(3)))
struct GatewayTests {
    private static let plain = ip("203.0.113.2")
    private static let outside = ip("203.0.113.1")

    private func start() throws -> Relay {
        let relay = try Relay([
            "gateway:", "  forwarding: set", "  prefixes:", "    - prefix: 10.0.0.0/25", "    - prefix: 2001:db8:5::/64",
            "    - prefix: 10.0.0.128/25", "      service: source-nat",
        ])
        try relay.host.add(["203.0.113.1/24"], dev: "to-b")
        try relay.b.add(["203.0.113.2/24"], dev: "eth")
        try relay.b.addDefaultRoute(via: "203.0.113.1", dev: "eth")
        try relay.b.addDefaultRoute(via: "2001:db8:9::1", dev: "eth")
        return relay
    }

    private func node(_ relay: Relay, _ hoa: String, seed: UInt8, port: UInt16 = SignalPort.node) throws -> Client {
        let key = makeKey(seed)
        let now = SystemClock.now().wallMilliseconds
        let certificate = relay.authority.certify(home(hoa), key.publicKey, notBefore: now - 60_000, notAfter: now + 86_400_000)
        return try Client(
            TestIdentity(hoa: home(hoa), key: key, certificate: certificate), at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: port)
    }

    /// The next encapsulated packet that is from the source.
    private func packet(of source: IPAddress, at node: Client) -> [UInt8]? {
        while let datagram = node.receive() {
            if datagram.first.map({ $0 >= 0x40 }) ?? false, ends(datagram)?.source == source { return datagram }
        }
        return nil
    }

    private func ends(_ packet: [UInt8]) -> (source: IPAddress, destination: IPAddress)? {
        let (place, width) = packet.first.map { $0 >> 4 } == 4 ? (12, 4) : (8, 16)
        guard packet.count >= place + 2 * width, let source = IPAddress(octets: packet[place..<place + width]),
            let destination = IPAddress(octets: packet[place + width..<place + 2 * width])
        else { return nil }
        return (source, destination)
    }

    @Test("A plain host pings a HoA and hears it, in both families: each packet has met one router, and one that is too large hears of it")
    func pings() throws {
        let relay = try start()
        let node = try node(relay, "10.0.0.1", seed: 11)
        let nodeIPv6 = try self.node(relay, "2001:db8:5::1", seed: 12, port: 7001)
        #expect(try node.bind().granted?.role == [.relay, .gateway])
        #expect(try nodeIPv6.bind().granted?.role == [.relay, .gateway])
        for (client, source) in [(node, Self.plain), (nodeIPv6, ip("2001:db8:9::2"))] {
            let file = "\(relay.directory)/ping \(client.hoa)"
            let ping = try Child(
                ["ip", "netns", "exec", relay.b.name, "ping", "-c", "1", "-W", "10", client.hoa.description], output: .file(file))
            let echo = try #require(packet(of: source, at: client))
            let hops = echo[client.hoa.family == .ipv4 ? 8 : 7]
            #expect(hops == 63)
            client.send(PlainPackets.echoReply(to: echo))
            #expect(ping.wait(within: 15) == 0)
            let said = try String(contentsOfFile: file, encoding: .utf8)
            #expect(said.contains("ttl=63"), "\(said)")
        }
        let large = relay.b.attempt("ping -c 2 -i 0.3 -W 5 -M do -s 1400 10.0.0.1").output
        #expect(large.contains("mtu = 1280") || large.contains("mtu=1280"), "\(large)")
        let largeIPv6 = relay.b.attempt("ping -c 2 -i 0.3 -W 5 -M do -s 1400 2001:db8:5::1").output
        #expect(largeIPv6.contains("mtu = 1280") || largeIPv6.contains("mtu=1280"), "\(largeIPv6)")
    }

    @Test("A node talks to a plain host as its HoA, or where nobody routes that, as the gateway; and so it does after the relay was killed")
    func leaves() throws {
        let relay = try start()
        let server = try relay.b.inside { try BoundSocket(port: 5000, address: nil, options: BoundSocket.Options()) }
        let (routed, translated) = (try node(relay, "10.0.0.1", seed: 11), try node(relay, "10.0.0.129", seed: 13, port: 7001))
        #expect(try routed.bind().granted?.role == [.relay, .gateway])
        #expect(try translated.bind().granted?.role == [.relay, .translatingGateway])
        var outside: [Endpoint] = []
        for (client, address) in [(routed, routed.hoa.address), (translated, Self.outside)] {
            client.send(PlainPackets.udp(client.hoa.address, Self.plain, from: 4000, to: 5000, [1, 2, 3]))
            let (octets, source) = try #require(server.receiveNext())
            #expect(octets == [1, 2, 3] && source.address == address, "\(source)")
            outside.append(source)
            server.send([4, 5], to: source)
            let answer = try #require(packet(of: Self.plain, at: client))
            #expect(ends(answer)?.destination == client.hoa.address && answer[20..<24] == [0x13, 0x88, 0x0F, 0xA0] && answer.suffix(2) == [4, 5])
        }
        _ = relay.stop(SIGKILL)
        try relay.start()
        for (client, source) in zip([routed, translated], outside) {
            #expect(try client.bind().code == .ok)
            server.send([6], to: source)
            let answer = try #require(packet(of: Self.plain, at: client))
            #expect(ends(answer)?.destination == client.hoa.address && answer.last == 6)
        }
    }

    @Test("No stranger's packets leave, nobody speaks for a served node, no path nests, and the gateway itself is not reached")
    func abuse() throws {
        let relay = try start()
        let server = try relay.b.inside { try BoundSocket(port: 5000, address: nil, options: BoundSocket.Options()) }
        let here = try relay.host.inside { try BoundSocket(port: 5000, address: nil, options: BoundSocket.Options()) }
        let node = try node(relay, "10.0.0.1", seed: 11)
        let stranger = try self.node(relay, "10.0.0.1", seed: 11, port: 7001)
        #expect(try node.bind().code == .ok)
        let hoa = node.hoa.address
        stranger.send(PlainPackets.udp(hoa, Self.plain, from: 4000, to: 5000, [0x66]))
        for (source, destination, port) in [
            (ip("10.0.0.2"), Self.plain, 5000), (hoa, Relay.ipv4.address, 5000), (hoa, ip("10.0.0.2"), 5000), (hoa, Self.plain, 6289),
            (hoa, ip("224.0.0.1"), 5000), (hoa, ip("169.254.1.1"), 5000),
        ] {
            node.send(PlainPackets.udp(source, destination, from: 4000, to: UInt16(port), [0x66]))
        }
        try relay.b.add(["10.0.0.3/32"], dev: "eth")
        let spoofer = try relay.b.inside { try BoundSocket(port: 5001, address: ip("10.0.0.3"), options: BoundSocket.Options()) }
        spoofer.send([0x66], to: Endpoint(hoa, port: 4000))
        let nester = try relay.b.inside { try BoundSocket(port: 6289, address: nil, options: BoundSocket.Options()) }
        nester.send([0x66], to: Endpoint(hoa, port: 4000))
        try eventually("the relay has seen all of it") {
            try relay.dropped("unbound source") == 1 && relay.dropped("foreign source") == 1 && relay.dropped("unknown destination") == 1
                && relay.dropped("nested path") == 2 && relay.dropped("forbidden destination") == 3
                && relay.dropped("plain packet of a served node") == 1
        }
        // What is right goes on, and nothing else has come anywhere.
        node.send(PlainPackets.udp(hoa, Self.plain, from: 4000, to: 5000, [7]))
        #expect(server.receiveNext()?.octets == [7])
        #expect(here.receiveNext(within: 0) == nil)
        server.send([8], to: Endpoint(hoa, port: 4000))
        #expect(node.receive()?.last == 8)
    }

    @Test("--check says which prefix is wrong, and what the host has to be set to")
    func check() throws {
        let relay = try start()
        let before = try #require(Relay.program)
        func check(_ lines: [String]) throws -> String {
            try (["residents:", "  - prefix: 10.0.0.0/24"] + lines).joined(separator: "\n")
                .write(toFile: relay.directory + "/other", atomically: true, encoding: .utf8)
            let result = relay.a.attempt("\(before) --check --config \(relay.directory)/other")
            return "\(result.status) \(result.output)"
        }
        try relay.a.set(["net.ipv4.ip_forward": "0"])
        let off = try check(["gateway:", "  prefixes:", "    - prefix: 10.0.0.0/25"])
        #expect(off.hasPrefix("78 ") && off.contains("net.ipv4.ip_forward=1") && off.contains("forwarding: set"), "\(off)")
        #expect(try check(["gateway:", "  forwarding: set", "  prefixes:", "    - prefix: 10.0.0.0/25"]).hasPrefix("0 "))
        let foreign = try check(["gateway:", "  prefixes:", "    - prefix: 10.1.0.0/24"])
        #expect(foreign.hasPrefix("78 ") && foreign.contains("gateway.prefixes[0].prefix"), "\(foreign)")
        try relay.a.add(["10.0.0.5/32"], dev: "lo")
        let own = try check(["gateway:", "  forwarding: set", "  prefixes:", "    - prefix: 10.0.0.0/25"])
        #expect(own.hasPrefix("78 ") && own.contains("10.0.0.5"), "\(own)")
    }
}

extension BoundSocket {
    /// The next datagram; `nil` if none comes in time.
    fileprivate func receiveNext(within milliseconds: Int32 = 5000) -> (octets: [UInt8], source: Endpoint)? {
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, milliseconds) > 0 else { return nil }
        var buffer = [UInt8](repeating: 0, count: 2048)
        var name = sockaddr_in6()
        var length = socklen_t(MemoryLayout<sockaddr_in6>.size)
        let count = withUnsafeMutablePointer(to: &name) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { recvfrom(descriptor, &buffer, buffer.count, 0, $0, &length) }
        }
        guard count >= 0, let address = withUnsafeBytes(of: &name.sin6_addr, { IPAddress(octets: Array($0)) }) else { return nil }
        return (Array(buffer.prefix(count)), Endpoint(address, port: UInt16(bigEndian: name.sin6_port)))
    }
}

/// Packets as a node's stack makes them.
enum PlainPackets {
    /// IPv4, without a sum of its own.
    static func udp(_ source: IPAddress, _ destination: IPAddress, from sourcePort: UInt16, to destinationPort: UInt16, _ data: [UInt8]) -> [UInt8] {
        let body = [sourcePort, destinationPort, UInt16(8 + data.count), 0].flatMap(octets) + data
        return header(source, destination, 17, body.count) + body
    }

    /// The answer to an echo request of either family.
    static func echoReply(to packet: [UInt8]) -> [UInt8] {
        var reply = packet
        let isIPv4 = packet[0] >> 4 == 4
        let (place, width, transport) = isIPv4 ? (12, 4, 20) : (8, 16, 40)
        reply.replaceSubrange(place..<place + 2 * width, with: packet[place + width..<place + 2 * width] + packet[place..<place + width])
        // A router on the way takes one from each: it begins anew.
        reply[isIPv4 ? 8 : 7] = 64
        reply[transport] = isIPv4 ? 0 : 129
        reply.replaceSubrange(transport + 2..<transport + 4, with: [0, 0])
        let pseudo = isIPv4 ? [] : Array(reply[8..<40]) + octets(UInt16(reply.count - 40)) + [0, 58]
        reply.replaceSubrange(transport + 2..<transport + 4, with: octets(sum(pseudo + reply[transport...])))
        if isIPv4 {
            reply.replaceSubrange(10..<12, with: [0, 0])
            reply.replaceSubrange(10..<12, with: octets(sum(reply[..<20])))
        }
        return reply
    }

    private static func header(_ source: IPAddress, _ destination: IPAddress, _ transport: UInt8, _ count: Int) -> [UInt8] {
        var header: [UInt8] = [0x45, 0] + octets(UInt16(20 + count)) + [0, 0, 0, 0, 64, transport, 0, 0]
        header += source.packetOctets + destination.packetOctets
        header.replaceSubrange(10..<12, with: octets(sum(header[...])))
        return header
    }

    private static func octets(_ number: UInt16) -> [UInt8] { [UInt8(number >> 8), UInt8(number & 0xFF)] }

    private static func sum(_ octets: some Collection<UInt8>) -> UInt16 {
        let all = Array(octets) + (octets.count % 2 == 1 ? [0] : [])
        var sum = stride(from: 0, to: all.count, by: 2).reduce(UInt32(0)) { $0 + UInt32(all[$1]) << 8 + UInt32(all[$1 + 1]) }
        while sum >> 16 != 0 { sum = sum & 0xFFFF + sum >> 16 }
        return ~UInt16(sum)
    }
}
