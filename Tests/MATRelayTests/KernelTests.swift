import CLinux
import Foundation
import Glibc
import KernelPrograms
import MATRuntime
import MATSignal
import MATTesting
import Namespaces
import Testing

@testable import MATRelay

/// Why these tests can't run here; `nil` if they can.
private let impossible: String? = {
    if let relayTestsImpossible { return relayTestsImpossible }
    return (try? KernelMap(KernelMap.Shape(.array, "probe", keyOctets: 4, valueOctets: 8, entriesMax: 1))) == nil ? "no bpf(2) here" : nil
}()

@Suite("Forwarding by the kernel", .serialized, .enabled(if: impossible == nil, "skipped: \(impossible ?? "")"), .timeLimit(.minutes(3)))
struct KernelTests {
    private let forwarded = "mat_relay_kernel_packets_forwarded_total"

    private struct Nodes {
        let a4: Client, b4: Client, a6: Client, b6: Client
    }

    /// Without it a virtual link leaves sums to a card that is not there, and nobody looks at them.
    private func wholeChecksums(_ host: Namespace) throws {
        let isDone: Bool = try host.inside {
            let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue), 0)
            defer { close(descriptor) }
            // linux/ethtool.h: ETHTOOL_STXCSUM; linux/sockios.h: SIOCETHTOOL. struct ifreq: name 16, then a pointer.
            var command: (UInt32, UInt32) = (0x17, 0)
            return withUnsafeMutablePointer(to: &command) { command in
                var request = [UInt8]("eth".utf8) + [UInt8](repeating: 0, count: 37)
                request.withUnsafeMutableBytes { $0.storeBytes(of: UInt(bitPattern: command), toByteOffset: 16, as: UInt.self) }
                return mat_ioctl(descriptor, 0x8946, &request) == 0
            }
        }
        #expect(isDone, "checksums are made by the host")
    }

    /// Four, at both sides in both families, all bound. Senders make whole checksums, which receivers verify.
    private func nodes(_ relay: Relay) throws -> Nodes {
        for host in [relay.a, relay.b] { try wholeChecksums(host) }
        let nodes = Nodes(
            a4: try Client(enrol(relay, "10.0.0.1", seed: 11), at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4),
            b4: try Client(enrol(relay, "10.0.0.2", seed: 12), at: ip("192.0.2.2"), in: relay.b, relay: Relay.ipv4AtB),
            a6: try Client(enrol(relay, "10.0.0.3", seed: 13), at: ip("2001:db8:8::2"), in: relay.a, relay: Relay.ipv6AtA),
            b6: try Client(enrol(relay, "10.0.0.4", seed: 14), at: ip("2001:db8:9::2"), in: relay.b, relay: Relay.ipv6))
        for node in [nodes.a4, nodes.b4, nodes.a6, nodes.b6] { #expect(try node.bind(lifetime: 600).code == .ok) }
        return nodes
    }

    @Test("Between nodes of one family the kernel forwards, what a link carries at most included; between families the process does")
    func families() throws {
        let relay = try Relay(["forwarding: kernel"])
        let nodes = try nodes(relay)
        var expected = 0.0
        for (from, to, largest) in [(nodes.a4, nodes.b4, 1472), (nodes.b4, nodes.a4, 1472), (nodes.a6, nodes.b6, 1452), (nodes.b6, nodes.a6, 1452)] {
            for octets in [20, 21, 100, 1280, largest] {
                let isThere = from.sends(packet(from.hoa, to.hoa, octets: octets), to: to)
                #expect(isThere, "\(octets) octets from \(from.address) to \(to.address)")
                expected += 1
            }
        }
        #expect(try relay.metric(forwarded) >= expected)
        let before = try relay.metric(forwarded)
        for (from, to) in [(nodes.a4, nodes.b6), (nodes.b6, nodes.a4), (nodes.b4, nodes.a6)] {
            let isThere = from.sends(packet(from.hoa, to.hoa), to: to)
            #expect(isThere, "from \(from.address) to \(to.address)")
        }
        #expect(try relay.metric(forwarded) == before && relay.metric("mat_relay_packets_forwarded_total") >= before + 3)
        #expect(try relay.metric("mat_relay_kernel_links") == 2)
    }

    @Test("What the process would not forward the kernel does not either: a stranger's, in another's name, for nobody, of a binding that has ended")
    func refused() throws {
        let relay = try Relay(["forwarding: kernel"])
        let nodes = try nodes(relay)
        #expect(nodes.a4.sends(packet(nodes.a4.hoa, nodes.b4.hoa), to: nodes.b4))
        let stranger = try Client(nodes.a4.node, at: ip("198.51.100.2"), in: relay.a, relay: Relay.ipv4, port: 7000)
        let forged = packet(nodes.a4.hoa, nodes.b4.hoa, filledWith: 0x66)
        stranger.send(forged)
        nodes.a4.send(packet(nodes.b4.hoa, nodes.b4.hoa, filledWith: 0x66))
        nodes.a4.send(packet(nodes.a4.hoa, home("10.0.0.9"), filledWith: 0x66))
        nodes.a4.send(Array(forged.dropLast()))
        nodes.a4.send(forged + [0x66])
        try eventually("the process has dropped them") {
            try ["unbound source", "foreign source", "unknown destination"].allSatisfy { try relay.dropped($0) == 1 }
                && relay.dropped("malformed") == 2
        }
        #expect(nodes.a4.sends(packet(nodes.a4.hoa, nodes.b4.hoa, filledWith: 0x77), to: nodes.b4))
        usleep(1_100_000)
        #expect(try nodes.b4.bind(lifetime: 0).granted?.lifetime == 0)
        nodes.a4.send(forged)
        try eventually("the process has dropped it") { try relay.dropped("unknown destination") == 2 }
        while let datagram = nodes.b4.receive(within: 0) { #expect(datagram.last != 0x66) }
    }

    @Test("A move takes the traffic along at once, and packets from the place before still pass")
    func move() throws {
        let relay = try Relay(["forwarding: kernel"])
        let nodes = try nodes(relay)
        #expect(nodes.b4.sends(packet(nodes.b4.hoa, nodes.a4.hoa), to: nodes.a4))
        usleep(1_100_000)
        let moved = try Client(nodes.a4.node, at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try moved.bind().code == .ok)
        let before = try relay.metric(forwarded)
        nodes.b4.send(packet(nodes.b4.hoa, nodes.a4.hoa, octets: 200))
        #expect(moved.receive()?.count == 200)
        #expect(moved.sends(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 300), to: nodes.b4))
        #expect(nodes.a4.sends(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 400), to: nodes.b4))
        #expect(try relay.metric(forwarded) >= before + 3)
    }

    @Test("A killed relay's packets go on, each of them, while there is none and while the next one starts; and it counts what it was not there for")
    func killed() throws {
        let relay = try Relay(["forwarding: kernel", "limits:", "  month: 1GiB"])
        let nodes = try nodes(relay)
        #expect(nodes.a4.sends(packet(nodes.a4.hoa, nodes.b4.hoa), to: nodes.b4))
        try eventually("the bindings are written") {
            ((try? String(contentsOfFile: relay.directory + "/state", encoding: .utf8)) ?? "").contains("10.0.0.4")
        }
        let used = try relay.usedOfMonth("10.0.0.1")
        func passes(_ count: Int, while what: String) {
            var arrived = 0
            for number in 0..<count {
                nodes.a4.send(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 1000, filledWith: UInt8(truncatingIfNeeded: number)))
                if nodes.b4.receive(within: 2000) != nil { arrived += 1 }
            }
            #expect(arrived == count, "\(what)")
        }
        while nodes.b4.receive(within: 100) != nil {}
        #expect(relay.stop(SIGKILL) == -SIGKILL)
        passes(200, while: "there is none")
        try relay.start()
        passes(200, while: "the next one runs")
        // Without a new Bind; the grant is known, and the cookie.
        #expect(nodes.a4.refresh()?.granted?.hoa == nodes.a4.hoa)
        #expect(try relay.metric(forwarded) == 200)
        #expect(relay.stop() == 0)
        passes(50, while: "it has ended to be started again")
        let counted = try relay.usedOfMonth("10.0.0.1") - used
        #expect((400_000...401_000).contains(counted), "\(counted) octets of 400,000")
        try relay.start()
        #expect(relay.stop() == 0)
        #expect((450_000...451_000).contains(try relay.usedOfMonth("10.0.0.1") - used))
        // Another run without it takes it away.
        let program = try #require(Relay.program)
        try relay.host.run("\(program) --config \(relay.directory)/configuration --remove")
        nodes.a4.send(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 1000))
        #expect(nodes.b4.receive(within: 300) == nil)
    }

    @Test("Rates hold in the kernel: who exceeds its own loses packets there; beyond those that many share, the process lets them take turns")
    func rates() throws {
        let relay = try Relay(["forwarding: kernel", "limits:", "  rate: 800kbit", "  burst: 20KiB"])
        let nodes = try nodes(relay)
        // 100,000 octets a second.
        for _ in 0..<100 { nodes.a4.send(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 1000)) }
        try eventually("the kernel has dropped some") { try relay.dropped("rate of the source") > 50 }
        #expect(try relay.metric(forwarded) >= 20)
        // Two for one: their own rates are free.
        usleep(300_000)
        let other = try Client(enrol(relay, "10.0.0.5", seed: 15), at: ip("198.51.100.3"), in: relay.a, relay: Relay.ipv4)
        #expect(try other.bind().code == .ok)
        for _ in 0..<20 {
            nodes.a4.send(packet(nodes.a4.hoa, nodes.b4.hoa, octets: 1000))
            other.send(packet(other.hoa, nodes.b4.hoa, octets: 1000))
        }
        try eventually("packets have waited their turn") { try relay.metric("mat_relay_packets_held_total") > 0 }
    }
}
