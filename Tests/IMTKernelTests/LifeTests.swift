import Foundation
import MATSignal
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Start, stop, crash, refusal, and links that come and go; see Topology for the drawing.
@Suite(
    "Life of the kernel side", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct LifeTests {
    @Test("A clean stop leaves no trace, and touches nothing of others")
    func cleanStop() throws {
        let net = try Topology()
        try net.mn.namespace.run("nft add table ip other")
        try net.mn.namespace.run("ip rule add from 10.77.0.0/16 lookup 77 priority 6275")
        try net.mn.namespace.run("ip route add 10.77.0.0/16 via 10.1.0.1 table 6288")
        let before = try net.mn.picture()
        try net.mapBoth()
        try net.mn.ask { try $0.commit([.setPlain(try address("10.9.0.1"), lifetime: .seconds(60))]) }
        #expect(try net.mn.picture() != before)
        net.mn.finish(leaving: false)
        #expect(try net.mn.picture() == before)
    }

    @Test("A router that waits for an IPv6 address is told when it is there, and does not wait for its own next question")
    func newAddressIsAnnounced() throws {
        let net = try Topology()
        try net.start()
        // What a peer sends to the address that the node had here; nobody answers the router's question for it.
        nonisolated(unsafe) var output = ""
        let ping = BackgroundWork { output = try net.router.run("ping -n -c 1 -W 3 2001:db8:2::77") }
        #expect(eventually { (try? net.router.run("ip -6 neigh show 2001:db8:2::77"))?.contains("INCOMPLETE") == true })
        try net.mn.namespace.run("ip addr add 2001:db8:2::77/64 dev cell nodad")
        try net.mn.useLocators(on: ["wlan", "cell"])
        #expect(eventually { (try? net.router.run("ip -6 neigh show 2001:db8:2::77"))?.contains("lladdr") == true })
        try ping.wait()
        let time = try #require(output.firstMatch(of: /time=([0-9.]+) ms/).flatMap { Double($0.1) }, "\(output)")
        // Asked again after 1 s at the earliest.
        #expect(time < 900)
        #expect(net.mn.failures.isEmpty && net.mn.warnings.isEmpty, "\(net.mn.failures) \(net.mn.warnings)")
    }

    @Test("Without its agent a node goes on talking, and the next agent adopts and moves it")
    func crashAndAdopt() throws {
        let net = try Topology()
        try net.mapBoth()
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6000)
        let (client6, server6, _) = try connectTCP(net, to: "2001:db8:b::1", port: 6000)
        net.mn.finish(leaving: true)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        try server6.send([1])
        #expect(try client6.receive(1) == [1])

        let adopted = try net.mn.start(Topology.mnConfiguration)
        #expect(adopted.adopted && adopted.outbound.count == 2 && adopted.inbound.count == 2 && adopted.own.count == 4)
        let pair = HomePair(own: HomeAddress(try address("192.0.2.1")), peer: HomeAddress(try address("198.51.100.1")))
        #expect(adopted.outbound[pair]?.own.description == "10.1.0.2")
        try client.send([2])
        #expect(try server.receive(1) == [2])
        // The counts went on while nobody looked, and survive the adoption.
        #expect(try net.mn.ask { try $0.peerCounters() }[pair].map { $0.packetsOut >= 4 } == true)
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.2.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.2.0.2")
        try client.send([3])
        #expect(try server.receive(1) == [3])
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
        let before = net.mn
        before.finish(leaving: false)
        #expect(!(try before.picture().contains("mat")))
    }

    @Test("A change that meets what others did to the maps is made all the same, and one that can't be made changes nothing")
    func driftedBatch() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let plain = try address("203.0.113.9")
        let pair = HomePair(own: HomeAddress(try address("192.0.2.1")), peer: HomeAddress(try address("198.51.100.1")))
        let moved = MobilePair(own: MobileAddress(try address("10.1.0.2")), peer: MobileAddress(try address("10.9.0.3")))
        let namespace = net.mn.namespace
        try net.mn.ask { kernel in
            // Within one turn of the loop, before the notification is read: replacing is refused, for there is nothing to delete.
            try namespace.run("nft 'delete element ip mat out1 { 198.51.100.1 }'")
            try kernel.commit([.setPlain(plain, lifetime: .seconds(60)), .setOutbound(pair, .rewritten(moved))])
        }
        #expect(net.mn.repaired.contains { $0.contains("entries") }, "\(net.mn.repaired)")
        let listed = try net.mn.namespace.run("nft list ruleset")
        #expect(listed.contains(": 10.9.0.3") && listed.contains("203.0.113.9"), "\(listed)")
        let mixed = MobilePair(own: MobileAddress(try address("2001:db8:1::2")), peer: MobileAddress(try address("10.9.0.2")))
        let other = try address("203.0.113.10")
        #expect(throws: KernelError.self) {
            try net.mn.ask { try $0.commit([.setPlain(other, lifetime: .seconds(60)), .setOutbound(pair, .rewritten(mixed))]) }
        }
        #expect(!(try net.mn.namespace.run("nft list ruleset").contains("203.0.113.10")))
    }

    @Test("A flushed ruleset is put back by itself, and connections go on")
    func flushedRuleset() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6001)
        try net.mn.namespace.run("nft flush ruleset")
        #expect(eventually { !net.mn.repaired.isEmpty })
        try client.send([1])
        #expect(try server.receive(1) == [1])
    }

    @Test("A deleted device is made anew with its HoAs")
    func deletedDevice() throws {
        let net = try Topology()
        try net.mapBoth()
        try net.mn.namespace.run("ip link del mat0")
        #expect(eventually { !net.mn.repaired.isEmpty })
        #expect(eventually { net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0 })
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 2001:db8:b::1").status == 0)
    }

    @Test("What goes to an IPv6 group without naming a link leaves by the network's, also when our device was there first, and is made anew")
    func multicast() throws {
        let net = try Topology()
        try net.mapBoth()
        func groups() -> String { net.mn.namespace.attempt("ip -6 route show table local type multicast").output }
        #expect(eventually { groups().contains("ff00::/8") && !groups().contains("mat0") }, "\(groups())")
        // As a network that comes after the agent.
        try net.mn.namespace.run("ip link set wlan down")
        try net.mn.namespace.run("ip link set wlan up")
        #expect(eventually { net.mn.namespace.attempt("ip -6 route get ff05::99 oif wlan").status == 0 })
        #expect(!net.mn.namespace.attempt("ip -6 route get ff05::99").output.contains("mat0"))
        try net.mn.namespace.run("ip link del mat0")
        func isUp() -> Bool { net.mn.namespace.attempt("ip link show up dev mat0").output.contains("mat0") }
        #expect(eventually { isUp() && !groups().contains("mat0") }, "\(groups())")
    }

    @Test("A host without IPv6 works in IPv4 and says what it lacks")
    func withoutIPv6() throws {
        let net = try Topology()
        try net.mn.namespace.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1")
        try net.mn.start(Topology.mnConfiguration)
        try net.cn.start(Topology.cnConfiguration)
        #expect(net.mn.failures.contains { $0.contains("disable_ipv6") }, "\(net.mn.failures)")
        try net.mn.useLocators(on: "wlan")
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.1.0.2")
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
    }

    @Test("A node keeps its connections when it leaves home: the HoA moves from the link to the device")
    func leavingHome() throws {
        let net = try Topology()
        let configuration = IMTConfiguration(homeAddresses: ["10.1.0.2"].compactMap { HomeAddress($0) })
        try net.mn.start(configuration)
        try net.cn.start(Topology.cnConfiguration)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.cn.useLocators(on: "eth0")
        try net.mn.map("10.1.0.2", "198.51.100.1", over: "10.1.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "10.1.0.2", over: "10.9.0.2", "10.1.0.2")
        let (client, server, _) = try connectTCP(net, from: "10.1.0.2", to: "198.51.100.1", port: 6003)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        try net.mn.namespace.run("ip addr del 10.1.0.2/24 dev wlan")
        #expect(eventually { (try? net.mn.namespace.run("ip addr show dev mat0").contains("10.1.0.2")) == true })
        try net.mn.useLocators(on: "cell")
        try net.mn.map("10.1.0.2", "198.51.100.1", over: "10.2.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "10.1.0.2", over: "10.9.0.2", "10.2.0.2")
        try client.send([2])
        #expect(try server.receive(1) == [2])
        try server.send([3])
        #expect(try client.receive(1) == [3])
    }

    @Test("Drift is found and repaired in one step")
    func reconcile() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let (outbound, inbound) = try net.mn.ask { ($0.outbound, $0.inbound) }
        #expect(try net.mn.ask { try $0.reconcile(outbound: outbound, inbound: inbound) } == 0)
        let namespace = net.mn.namespace
        let drift = try net.mn.ask { kernel in
            try namespace.run("nft 'delete element ip mat out1 { 198.51.100.1 }'")
            try namespace.run("nft 'add element ip mat in_192.0.2.1 { 10.9.0.9 : 1.1.1.1 }'")
            return try kernel.reconcile(outbound: outbound, inbound: inbound)
        }
        #expect(drift == 2)
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
    }

    @Test("When its link goes down a peer's traffic is held, and flows again from another MoA")
    func linkDown() throws {
        let net = try Topology()
        try net.mapBoth()
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        try net.mn.namespace.run("ip link set wlan down")
        #expect(eventually { net.mn.lastLinks?.usable.contains { $0.interface == "wlan" } == false })
        _ = net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1")
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        // Between HoAs, though its entry is still there: translated, it would be released as plain traffic between MoAs.
        #expect(held.allSatisfy { $0.source.description == "192.0.2.1" && $0.destination.description == "198.51.100.1" }, "\(held)")
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.2.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.2.0.2")
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }

    @Test("Links, addresses and gateways are reported as they change")
    func links() throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        let now = try net.mn.ask { try $0.currentLinks() }
        #expect(now.usable.count == 4)
        let wlan = try #require(now.addresses.first { $0.address.description == "10.1.0.2" })
        #expect(
            wlan.interface == "wlan" && wlan.prefixLength == 24 && wlan.gateway?.description == "10.1.0.1" && wlan.hasDefaultRoute
        )
        #expect(!now.addresses.contains { $0.interface == "mat0" || $0.interface == "lo" })
        try net.mn.namespace.run("ip addr add 10.1.0.77/24 dev wlan")
        #expect(eventually { net.mn.lastLinks?.usable.contains { $0.address.description == "10.1.0.77" } == true })
        try net.mn.namespace.run("ip route del default via 10.2.0.1")
        #expect(
            eventually {
                net.mn.lastLinks?.addresses.first { $0.address.description == "10.2.0.2" }?.hasDefaultRoute == false
            })
        try net.mn.namespace.run("ip link set cell down")
        #expect(eventually { net.mn.lastLinks?.addresses.contains { $0.interface == "cell" && $0.linkUp } == false })
    }

    @Test("A stationary server's HoA stays on its link, and it answers plain and mapped clients from it")
    func stationary() throws {
        let net = try Topology()
        try net.startMobile()
        try net.startAtHome()
        #expect(try net.cn.namespace.run("ip addr show dev eth0").contains("10.9.0.2"))
        try net.mapAtHome(Family.both[0])
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 10.9.0.2").status == 0)
        #expect(net.cn.namespace.attempt("ping -n -c 1 -W 1 192.0.2.1").status == 0)
        let (client, server, _) = try connectTCP(net, to: "10.9.0.2", port: 6002)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        // Its own new conversations are captured like everybody's, though source and MoA are one.
        let sender = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: true)
        try sender.send([1], to: try address("203.0.113.5"), port: 1)
        #expect(eventually { net.cn.takeOutbound().contains { $0.destination.description == "203.0.113.5" } })
        // A plain client: known plain, it is answered directly.
        try net.cn.ask {
            try $0.commit([.setPlain(try address("10.9.0.1"), lifetime: .seconds(9)), .letOpen(try address("10.9.0.1"), lifetime: .seconds(5))])
        }
        #expect(net.router.attempt("ping -n -c 1 -W 1 10.9.0.2").status == 0)
    }

    @Test("Two agents can't share a device, and the second says so")
    func busy() throws {
        let net = try Topology()
        try net.mn.start(Topology.mnConfiguration)
        let second = Host(net.mn.namespace)
        let error = #expect(throws: KernelError.self) { try second.start(Topology.mnConfiguration) }
        #expect(error?.description.contains("another agent") == true, "\(error.map(\.description) ?? "")")
        #expect(try net.mn.namespace.run("nft list ruleset").contains("table ip mat"))
    }
}
