import Foundation
import IMTPlan
import MATSignal
import Namespaces
import Testing

@testable import IMTPlan

/// The topology's mn as a mobile router, with a host behind it that knows nothing of MAT:
///
///     inner  home prefix + 2  ---- lan (home prefix + 1)  mn  wlan, cell ----  the router routes a prefix over each  ---- cn
@Suite("Mobile networks", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct MobileNetworkTests {
    /// Prefix lengths as people write them: with and without a part of an octet, and an odd number of octets.
    static let lengths: [(UInt8, UInt8)] = [(24, 48), (27, 56), (29, 61), (30, 64)]

    @Test("Hosts behind the router talk to a peer from their home addresses, over one network's prefix and then the other's", arguments: lengths)
    func handover(lengths: (UInt8, UInt8)) throws {
        let net = try MobileTopology(lengths.0, lengths.1)
        for family in [net.v4, net.v6] {
            try net.map(family, over: 0)
            let target = family.peer
            let ping = net.inner.attempt("ping -n -c 2 -i 0.05 -W 1 \(target)")
            #expect(ping.status == 0, "\(ping.output)")
            let back = net.base.cn.namespace.attempt("ping -n -c 2 -i 0.05 -W 1 \(family.host)")
            #expect(back.status == 0, "\(back.output)")
            let listener = try TestSocket(net.base.cn.namespace, type: TestSocket.stream, isIPv4: target.isIPv4)
            try listener.bind(target, port: 4100)
            try listener.listen()
            let client = try TestSocket(net.inner, type: TestSocket.stream, isIPv4: target.isIPv4)
            try client.connect(target, port: 4100)
            let server = try listener.accept()
            for place in [1, 0, 1] {
                try net.map(family, over: place)
                // An odd number of octets: padded in the checksum.
                let data = (0..<20_001).map { UInt8(truncatingIfNeeded: $0 &* 13) }
                try client.send(data)
                #expect(try server.receive(data.count) == data)
                try server.send(data)
                #expect(try client.receive(data.count) == data)
            }
        }
        #expect(try net.checksumErrors() == 0)
        #expect(net.base.mn.failures.isEmpty && net.base.cn.failures.isEmpty, "\(net.base.mn.failures) \(net.base.cn.failures)")
    }

    @Test(
        "Errors reach the hosts behind the router, and those that they make the peer: a narrower path and closed ports",
        arguments: [(27, 61)] as [(UInt8, UInt8)])
    func errors(lengths: (UInt8, UInt8)) throws {
        let net = try MobileTopology(lengths.0, lengths.1)
        try shell("ip -n \(net.base.router.name) link set r9 mtu 1300")
        for family in [net.v4, net.v6] {
            try net.map(family, over: 0)
            let listener = try TestSocket(net.base.cn.namespace, type: TestSocket.stream, isIPv4: family.peer.isIPv4)
            try listener.bind(family.peer, port: 4101)
            try listener.listen()
            let client = try TestSocket(net.inner, type: TestSocket.stream, isIPv4: family.peer.isIPv4)
            try client.connect(family.peer, port: 4101)
            let server = try listener.accept()
            let data = [UInt8](repeating: 3, count: 100_000)
            try expect(server, toReceive: data, from: client)
            let route = try net.inner.run("ip route get \(family.peer)")
            #expect(route.contains("mtu 1300"), "\(route)")
            for (asked, namespace) in [(family.peer, net.inner), (family.host, net.base.cn.namespace)] {
                let asker = try TestSocket(namespace, type: TestSocket.datagram, isIPv4: asked.isIPv4)
                try asker.connect(asked, port: 4999)
                try asker.send([1])
                let refused = #expect(throws: ShellError.self) { try asker.receive(1) }
                #expect(refused?.description.contains("refused") == true, "\(asked): \(refused?.description ?? "")")
            }
        }
        #expect(try net.checksumErrors() == 0)
    }

    @Test("A host's first packet waits for the agent and goes on; to a plain destination it leaves from the router's address")
    func held() throws {
        let net = try MobileTopology(28, 56)
        for family in [net.v4, net.v6] {
            let asker = try TestSocket(net.inner, type: TestSocket.datagram, isIPv4: family.peer.isIPv4)
            try asker.send([1, 2, 3], to: family.peer, port: 4102)
            var packets: [HeldPacket] = []
            #expect(
                eventually {
                    packets += net.base.mn.takeOutbound(); return packets.contains { $0.source == family.host }
                })
            let receiver = try TestSocket(net.base.cn.namespace, type: TestSocket.datagram, isIPv4: family.peer.isIPv4)
            try receiver.bind(family.peer, port: 4102)
            try net.map(family, over: 0)
            let released = packets.filter { $0.source == family.host }
            try net.base.mn.ask { kernel in for packet in released { kernel.releaseOutbound(packet) } }
            let got = try receiver.receiveFrom()
            #expect(got.octets == [1, 2, 3] && got.source.address == family.host, "\(got)")
            // The router itself is plain.
            let plain = try address(family.peer.isIPv4 ? "10.9.0.1" : "2001:db8:9::1")
            let mine = try address(family.peer.isIPv4 ? "10.1.0.2" : "2001:db8:1::2")
            try net.base.mn.ask { try $0.commit([.setPlain(plain, lifetime: .seconds(60))]) }
            let far = try TestSocket(net.base.router, type: TestSocket.datagram, isIPv4: plain.isIPv4)
            try far.bind(plain, port: 4103)
            try asker.send([4], to: plain, port: 4103)
            let seen = try far.receiveFrom()
            #expect(seen.source.address == mine, "\(seen)")
            try far.send([5], to: seen.source.address, port: seen.source.port)
            #expect(try asker.receiveFrom().octets == [5])
        }
    }

    @Test("A stop takes everything away that a mobile network needed")
    func stop() throws {
        let net = try MobileTopology(28, 56)
        net.base.mn.finish(leaving: false)
        #expect(try !net.base.mn.namespace.run("ip rule; ip -6 rule; nft list ruleset; ip addr").contains("mat"))
        #expect(try !net.base.mn.namespace.run("ip rule; ip -6 rule").contains("\(net.v4.home)"))
    }
}

/// One family of a mobile network.
struct MobileFamily {
    let home: IPPrefix
    /// What the wlan and the cell network route to the router.
    let places: [IPPrefix]
    let lan: IPAddress
    let host: IPAddress
    let peer: IPAddress
    let peerMoA: IPAddress

    /// The third prefix of a block for home, the fifth and sixth of others for the places: bits are set in the last octet of the prefix.
    init(ipv4 length: UInt8) throws {
        let step: UInt32 = 1 << (32 - UInt32(length))
        func prefix(_ base: UInt32, _ number: UInt32) -> IPPrefix { IPPrefix(covering: IPAddress(ipv4: base + number * step), length: length + 96) }
        home = prefix(0xAC14_0000, 3)
        places = [prefix(0x0A65_0000, 5), prefix(0x0A66_0000, 6)]
        lan = IPAddress(ipv4: 0xAC14_0000 + 3 * step + 1)
        host = IPAddress(ipv4: 0xAC14_0000 + 3 * step + 2)
        (peer, peerMoA) = (try address("198.51.100.1"), try address("10.9.0.2"))
    }

    init(ipv6 length: UInt8) throws {
        let step: UInt64 = 1 << (64 - UInt64(length))
        func prefix(_ base: UInt64, _ number: UInt64) -> IPPrefix {
            IPPrefix(covering: IPAddress(high: base + number * step, low: 0), length: length)
        }
        home = prefix(0x2001_0db8_f000_0000, 3)
        places = [prefix(0x2001_0db8_f100_0000, 5), prefix(0x2001_0db8_f200_0000, 6)]
        lan = IPAddress(high: home.address.high, low: 0x1_0000_0000_0001)
        host = IPAddress(high: home.address.high, low: 0x1_0000_0000_0002)
        (peer, peerMoA) = (try address("2001:db8:b::1"), try address("2001:db8:9::2"))
    }
}

final class MobileTopology {
    let base: Topology
    let inner: Namespace
    let v4: MobileFamily
    let v6: MobileFamily

    init(_ length4: UInt8, _ length6: UInt8) throws {
        base = try Topology()
        inner = try Namespace.host("inner")
        v4 = try MobileFamily(ipv4: length4)
        v6 = try MobileFamily(ipv6: length6)
        let mn = base.mn.namespace
        try shell("ip -n \(mn.name) link add lan type veth peer name eth0 netns \(inner.name)")
        try shell("ip -n \(mn.name) link set lan up; ip -n \(inner.name) link set eth0 up")
        for (family, link) in [(v4, v4.home.familyLength), (v6, 64)] {
            try shell("ip -n \(mn.name) addr add \(family.lan)/\(link) dev lan \(family.lan.isIPv4 ? "" : "nodad")")
            try shell("ip -n \(inner.name) addr add \(family.host)/\(link) dev eth0 \(family.lan.isIPv4 ? "" : "nodad")")
            try shell("ip -n \(inner.name) \(family.lan.isIPv4 ? "" : "-6") route add default via \(family.lan)")
            for (place, gateway) in zip(family.places, family.lan.isIPv4 ? ["10.1.0.2", "10.2.0.2"] : ["2001:db8:1::2", "2001:db8:2::2"]) {
                try shell("ip -n \(base.router.name) route add \(place) via \(gateway)")
            }
        }
        try mn.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        var configuration = IMTConfiguration(homeAddresses: [v4, v6].map { HomeAddress($0.home.address) })
        configuration.homePrefixes = [v4.home, v6.home]
        configuration.mobilePrefixes = v4.places + v6.places
        try base.mn.start(configuration)
        try base.cn.start(Topology.cnConfiguration)
        try base.cn.useLocators(on: "eth0")
        try useLocators()
    }

    /// Each place's base address is a MoA over its link.
    private func useLocators() throws {
        let families = [v4, v6]
        try base.mn.ask { kernel in
            let usable = try kernel.currentLinks().usable
            var locators: [LocalAddress] = []
            var changes: [IMTChange] = []
            for family in families {
                for (place, name) in zip(family.places, ["wlan", "cell"]) {
                    guard var locator = usable.first(where: { $0.interface == name && $0.address.isIPv4 == place.isIPv4 }) else { continue }
                    locator.address = place.address
                    locators.append(locator)
                    changes.append(.setOwn(MobileAddress(place.address), HomeAddress(family.home.address)))
                }
            }
            try kernel.setOwnLocators(usable + locators)
            try kernel.commit(changes)
        }
    }

    /// The peer and the mobile network at one of its places; the other place's packets are accepted too.
    func map(_ family: MobileFamily, over place: Int) throws {
        func address(at number: Int) -> IPAddress { family.host.replacingPrefix(with: family.places[number].address, length: family.home.length) }
        try base.mn.map(
            "\(family.home.address)", "\(family.peer)", over: "\(family.places[place].address)", "\(family.peerMoA)")
        try base.cn.map(
            "\(family.peer)", "\(family.host)", over: "\(family.peerMoA)", "\(address(at: place))",
            inbound: [("\(family.peerMoA)", "\(address(at: 1 - place))")])
    }

    func checksumErrors() throws -> Int {
        try base.checksumErrors(base.mn) + base.checksumErrors(base.cn) + base.checksumErrors(Host(inner))
    }
}
