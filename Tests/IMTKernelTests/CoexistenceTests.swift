import Foundation
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Other packet filters and translators on the same host; see Topology for the drawing.
@Suite("Coexistence", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct CoexistenceTests {
    struct Firewall: CustomTestStringConvertible, Sendable {
        let name: String
        /// Everything is dropped but what was begun here, and the service's port.
        let commands: [String]
        var testDescription: String { name }
    }

    private static func iptables(_ variant: String) -> [String] {
        ["iptables-\(variant)", "ip6tables-\(variant)"].flatMap { tool in
            let neighbours = tool.hasPrefix("ip6") ? ["\(tool) -A INPUT -p icmpv6 -j ACCEPT", "\(tool) -A OUTPUT -p icmpv6 -j ACCEPT"] : []
            return neighbours + [
                "\(tool) -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "\(tool) -A INPUT -p tcp --dport 6200 -j ACCEPT",
                "\(tool) -A OUTPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "\(tool) -A OUTPUT -p tcp --dport 6200 -j ACCEPT",
                "\(tool) -P INPUT DROP", "\(tool) -P FORWARD DROP", "\(tool) -P OUTPUT DROP",
            ]
        }
    }

    static let firewalls = [
        Firewall(
            name: "nftables",
            commands: [
                "nft add table inet filter",
                "nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'",
                "nft add chain inet filter forward '{ type filter hook forward priority 0; policy drop; }'",
                "nft add chain inet filter output '{ type filter hook output priority 0; policy drop; }'",
                "nft add rule inet filter input ct state established,related accept",
                "nft add rule inet filter input ct state invalid drop",
                "nft add rule inet filter input meta l4proto icmpv6 accept",
                "nft add rule inet filter input tcp dport 6200 accept",
                "nft add rule inet filter output ct state established,related accept",
                "nft add rule inet filter output meta l4proto icmpv6 accept",
                "nft add rule inet filter output tcp dport 6200 accept",
            ]),
        Firewall(name: "iptables over nftables", commands: iptables("nft")),
        Firewall(name: "iptables of old", commands: iptables("legacy")),
    ]

    private static func canRun(_ commands: [String]) -> Bool {
        guard let program = commands.first?.split(separator: " ").first, shellStatus("command -v \(program)").status != 0 else { return true }
        print("skipped: \(program) is not installed; deploy/install-packages installs what the tests need")
        return false
    }

    @Test("With a stateful firewall that drops all else, connections begin, and survive a handover", arguments: firewalls)
    func firewall(_ firewall: Firewall) throws {
        guard Self.canRun(firewall.commands) else { return }
        let net = try Topology()
        for host in [net.mn, net.cn] { for command in firewall.commands { try host.namespace.run(command) } }
        try net.mapBoth()
        for (own, peer, newMoA, peerMoA) in [
            ("192.0.2.1", "198.51.100.1", "10.2.0.2", "10.9.0.2"), ("2001:db8:a::1", "2001:db8:b::1", "2001:db8:2::2", "2001:db8:9::2"),
        ] {
            let (client, server, _) = try connectTCP(net, to: peer, port: 6200)
            try client.send([1])
            #expect(try server.receive(1) == [1])
            try net.mn.map(own, peer, over: newMoA, peerMoA)
            try net.cn.map(peer, own, over: peerMoA, newMoA)
            try server.send([2])
            #expect(try client.receive(1) == [2])
            try client.send([3])
            #expect(try server.receive(1) == [3])
            let other = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: own.contains("."))
            #expect(throws: (any Error).self, "the firewall filters") { try other.send([1], to: try address(peer), port: 99) }
        }
        let tracked = try net.mn.namespace.run("cat /proc/net/nf_conntrack")
        #expect(tracked.contains("198.51.100.1") && !tracked.contains("dst=10.9.0.2"), "\(tracked)")
        #expect(net.mn.repaired.isEmpty && net.mn.failures.isEmpty, "\(net.mn.repaired) \(net.mn.failures)")
    }

    @Test("Nobody pays for connection tracking before it is needed, mapped packets only while there is a firewall")
    func tracking() throws {
        let net = try Topology()
        try net.mapBoth()
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6201)
        func talk() throws {
            try client.send([1])
            #expect(try server.receive(1) == [1])
            try server.send([2])
            #expect(try client.receive(1) == [2])
        }
        func tracks(_ text: String) -> Bool { net.mn.namespace.attempt("grep -q \(text) /proc/net/nf_conntrack").status == 0 }
        try talk()
        #expect(!tracks("198.51.100.1"))
        #expect(try !net.mn.namespace.run("nft list ruleset").contains("source_nat"))

        // A socket that is bound to the HoA talks to a plain host, the router: source NAT from the first packet on.
        let plain = try address("10.9.0.1")
        let listener = try TestSocket(net.router, type: TestSocket.datagram, isIPv4: true)
        try listener.bind(plain, port: 6202)
        try net.mn.ask { try $0.commit([.setPlain(plain, lifetime: .seconds(60))]) }
        let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: true)
        try sender.bind(try address("192.0.2.1"), port: 0)
        for octet in [UInt8(7), 8] {
            try sender.send([octet], to: plain, port: 6202)
            let got = try listener.receiveFrom()
            #expect(got.octets == [octet] && got.source.address.description == "10.1.0.2")
            try listener.send([octet], to: got.source.address, port: got.source.port)
            #expect(try sender.receive(1) == [octet])
        }
        try talk()
        #expect(tracks("10.9.0.1") && !tracks("198.51.100.1"))

        // A firewall appears: connections that began untracked are picked up in their middle, as soon as this end sends.
        try net.mn.namespace.run("nft add table inet filter")
        try net.mn.namespace.run("nft add chain inet filter input '{ type filter hook input priority 0; policy drop; }'")
        try net.mn.namespace.run("nft add rule inet filter input ct state established,related accept")
        #expect(eventually(within: 1) { (try? net.mn.ask { $0.tables.needs.sparesTracking }) == false })
        try talk()
        #expect(tracks("198.51.100.1"))
        try net.mn.namespace.run("nft delete table inet filter")
        #expect(eventually(within: 1) { (try? net.mn.ask { $0.tables.needs.sparesTracking }) == true })
        try talk()
        // The next agent finds source NAT in use and keeps it.
        net.mn.finish(leaving: true)
        try net.mn.start(Topology.mnConfiguration)
        #expect(try net.mn.namespace.run("nft list ruleset").contains("source_nat"))
        try sender.send([9], to: plain, port: 6202)
        #expect(try listener.receiveFrom().octets == [9])
    }

    @Test("A container behind docker's kind of NAT serves mobile clients at the host's HoA, through their handover")
    func container() throws {
        guard Self.canRun(["iptables-nft"]) else { return }
        let net = try Topology()
        let box = try Namespace.host("box")
        let host = net.cn.namespace
        try shell("ip -n \(host.name) link add docker0 type veth peer name eth0 netns \(box.name)")
        for (namespace, device, last) in [(host.name, "docker0", 1), (box.name, "eth0", 2)] {
            try shell("ip -n \(namespace) addr add 172.18.0.\(last)/16 dev \(device)")
            try shell("ip -n \(namespace) link set \(device) up")
        }
        try box.run("ip route add default via 172.18.0.1")
        try host.run("sysctl -qw net.ipv4.ip_forward=1")
        for rule in [
            "-t nat -A PREROUTING -m addrtype --dst-type LOCAL -p tcp --dport 8080 -j DNAT --to-destination 172.18.0.2:80",
            "-t nat -A POSTROUTING -s 172.18.0.0/16 ! -o docker0 -j MASQUERADE", "-P FORWARD DROP",
            "-A FORWARD -o docker0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
            "-A FORWARD -d 172.18.0.2 -o docker0 -p tcp --dport 80 -j ACCEPT",
            "-A FORWARD -i docker0 ! -o docker0 -j ACCEPT",
        ] { try host.run("iptables-nft \(rule)") }
        try net.mapBoth()
        let listener = try TestSocket(box, type: TestSocket.stream, isIPv4: true)
        try listener.bind(.unspecifiedIPv4, port: 80)
        try listener.listen()
        let client = try TestSocket(net.mn.namespace, type: TestSocket.stream, isIPv4: true)
        try client.connect(try address("198.51.100.1"), port: 8080)
        let server = try listener.accept()
        try client.send([1])
        #expect(try server.receive(1) == [1])
        #expect(try box.run("ss -Htn state established").contains("192.0.2.1"), "the container sees the client's HoA")
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.2.0.2", "10.9.0.2")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.2.0.2")
        try server.send([2])
        #expect(try client.receive(1) == [2])
        // The container reaches plain hosts, once they are known as such.
        try net.cn.ask { try $0.commit([.setPlain(try address("10.9.0.1"), lifetime: .seconds(60))]) }
        #expect(box.attempt("ping -n -c 1 -W 1 10.9.0.1").status == 0)
    }

    @Test("Strict reverse path filters do no harm on one link; on two they are warned of, or loosened and put back")
    func reversePath() throws {
        let net = try Topology()
        let strict = "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >$f; done"
        for host in [net.mn, net.cn] { try host.namespace.run("sh -c '\(strict)'") }
        try net.mapBoth()
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        #expect(
            net.cn.warnings.isEmpty && net.mn.warnings.count == 2 && net.mn.warnings.allSatisfy { $0.contains("rp_filter=2") }, "\(net.mn.warnings)")
        // In a handover with overlap: the peer sends to the new MoA already, this end still from the old one.
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.2.0.2")
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 0.3 198.51.100.1").status != 0)
        net.mn.finish(leaving: false)
        var loosening = Topology.mnConfiguration
        loosening.loosensReversePath = true
        try net.mn.start(loosening)
        try net.mn.useLocators(on: "wlan", "cell")
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2", "10.9.0.2", inbound: [("10.2.0.2", "10.9.0.2")])
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        net.mn.finish(leaving: false)
        #expect(try net.mn.namespace.run("cat /proc/sys/net/ipv4/conf/wlan/rp_filter /proc/sys/net/ipv4/conf/cell/rp_filter") == "1\n1\n")
    }

    @Test("While there are IPsec policies, and only then, packets that are still to be encrypted are left as they are")
    func ipsec() throws {
        let net = try Topology()
        try net.mapBoth()
        func exempts() throws -> Bool { try net.mn.namespace.run("nft list chain ip mat translate").contains("rt ipsec exists") }
        #expect(try !exempts())
        guard net.mn.namespace.attempt("ip xfrm policy add src 192.0.2.1 dst 203.0.113.1 dir out tmpl proto esp mode transport").status == 0 else {
            print("skipped: this kernel has no IPsec")
            return
        }
        #expect(try eventually(within: 1) { try exempts() })
        #expect(net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0)
        // A policy without an association lets nothing out in clear; but a held packet has been through it already.
        let (peer, receiver) = (try address("198.51.100.1"), try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: true))
        try receiver.bind(peer, port: 6203)
        let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: true)
        let pair = HomePair(own: HomeAddress(try address("192.0.2.1")), peer: HomeAddress(peer))
        let mobile = MobilePair(own: MobileAddress(try address("10.1.0.2")), peer: MobileAddress(try address("10.9.0.2")))
        try net.mn.ask { try $0.commit([.removeOutbound(pair)]) }
        try sender.send([1], to: peer, port: 6203)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        try net.mn.namespace.run("ip xfrm policy add src 192.0.2.1 dst 198.51.100.1 dir out tmpl proto esp mode transport")
        try net.mn.ask { try $0.commit([.setOutbound(pair, .rewritten(mobile))]) }
        try? sender.send([2], to: peer, port: 6203)
        let packet = try #require(held.first)
        try net.mn.ask { $0.releaseOutbound(packet) }
        #expect(try receiver.receiveFrom().octets == [1])
        receiver.setTimeout(seconds: 0.2)
        #expect(throws: (any Error).self) { try receiver.receiveFrom() }
        try net.mn.namespace.run("ip xfrm policy flush")
        #expect(try eventually(within: 1) { try !exempts() })
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }

    @Test("A held packet from a further HoA is not put through IPsec policies a second time either")
    func ipsecOfFurtherHome() throws {
        let net = try Topology()
        var configuration = Topology.mnConfiguration
        configuration.homeAddresses.insert(HomeAddress(try address("192.0.2.9")), at: 0)
        try net.mn.start(configuration)
        try net.mn.useLocators(on: "wlan")
        try net.cn.start(Topology.cnConfiguration)
        try net.cn.useLocators(on: "eth0")
        try net.cn.map("198.51.100.1", "192.0.2.1", over: "10.9.0.2", "10.1.0.2")
        let (own, peer) = (try address("192.0.2.1"), try address("198.51.100.1"))
        let receiver = try TestSocket(net.cn.namespace, type: TestSocket.datagram, isIPv4: true)
        try receiver.bind(peer, port: 6205)
        let sender = try TestSocket(net.mn.namespace, type: TestSocket.datagram, isIPv4: true)
        try sender.bind(own, port: 0)
        try sender.send([1], to: peer, port: 6205)
        var held: [HeldPacket] = []
        #expect(
            eventually {
                held += net.mn.takeOutbound()
                return !held.isEmpty
            })
        guard net.mn.namespace.attempt("ip xfrm policy add src 192.0.2.1 dst 198.51.100.1 dir out tmpl proto esp mode transport").status == 0 else {
            print("skipped: this kernel has no IPsec")
            return
        }
        try net.mn.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2", "10.9.0.2")
        let packet = try #require(held.first)
        try net.mn.ask { $0.releaseOutbound(packet) }
        #expect(try receiver.receiveFrom().octets == [1])
        #expect(net.mn.failures.isEmpty, "\(net.mn.failures)")
    }
}
