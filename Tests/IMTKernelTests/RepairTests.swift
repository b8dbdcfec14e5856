import Foundation
import IMTPlan
import MATRuntime
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Other programs change what is ours, on purpose or not; see Topology for the drawing.
@Suite("Repairs", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct RepairTests {
    /// What is ours in the kernel, as people see it. Counters and the elements that packets bring are left out.
    private func picture(_ host: Host) throws -> String {
        let ruleset = try host.namespace.run("nft -s list ruleset | sed 's/counter packets [0-9]* bytes [0-9]*//g' | grep -v 'timeout 3m expires'")
        let rest = try [
            "ip rule", "ip -6 rule", "ip route show table all proto 162", "ip -6 route show table all proto 162", "ip -br addr show dev mat0",
        ]
        .map { line in try host.namespace.run(line).split(separator: "\n").sorted().joined(separator: "\n") }
        // Elements come in no order.
        return
            (ruleset.split(separator: "\n").map {
                $0.split(separator: ",").map { $0.trimmingCharacters(in: .whitespaces) }.sorted().joined(separator: ",")
            } + rest)
            .joined(separator: "\n")
    }

    struct Damage: CustomTestStringConvertible, Sendable {
        let name: String
        let command: String
        var testDescription: String { name }
    }
    static let damages = [
        Damage(name: "a flushed ruleset", command: "nft flush ruleset"),
        Damage(name: "one table deleted", command: "nft delete table ip6 mat"),
        Damage(name: "nftables restarted with an empty ruleset file", command: "sh -c 'echo flush ruleset | nft -f -'"),
        Damage(name: "all rules of the table flushed", command: "nft flush table ip mat"),
        Damage(name: "a chain flushed", command: "nft flush chain ip mat translate"),
        Damage(name: "a chain deleted", command: "nft flush chain ip mat deliver ';' delete chain ip mat deliver"),
        Damage(name: "a stray rule", command: "nft insert rule ip mat deliver counter drop"),
        Damage(name: "a stray chain", command: "nft add chain ip mat stray"),
        Damage(name: "a map flushed", command: "nft flush map ip mat out1"),
        Damage(name: "an entry deleted", command: "nft delete element ip mat out1 { 198.51.100.1 }"),
        Damage(name: "an own MoA deleted", command: "nft delete element ip mat own { 10.1.0.2 }"),
        Damage(name: "a stray entry", command: "nft add element ip mat in_192.0.2.1 { 10.9.0.9 : 203.0.113.7 }"),
        Damage(name: "a dormant table", command: "nft add table ip mat { flags dormant ';' }"),
        Damage(name: "our routes flushed", command: "ip route flush table 6288"),
        Damage(name: "the shared path deleted", command: "ip route flush table 8394896"),
        Damage(name: "a rule deleted", command: "ip rule del priority 6280"),
        Damage(name: "all IPv6 rules flushed", command: "ip -6 rule flush"),
        Damage(name: "a HoA taken off the device", command: "ip addr del 192.0.2.1/32 dev mat0"),
        Damage(name: "the device taken down", command: "ip link set mat0 down"),
        Damage(name: "the device deleted", command: "ip link del mat0"),
    ]

    @Test("What others took, broke or added is put right within a second, once, and told; connections go on", arguments: damages)
    func putRight(_ damage: Damage) throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6100)
        try client.send([1])
        #expect(try server.receive(1) == [1])
        let before = try picture(net.mn)
        #expect(net.mn.repaired.isEmpty, "\(net.mn.repaired)")
        // `ip rule flush` of IPv6 takes the system's own rules as well, which are not ours to put back.
        try net.mn.namespace.run(damage.command)
        if damage.command == "ip -6 rule flush" { try net.mn.namespace.run("ip -6 rule add lookup main priority 32766") }
        #expect(eventually(within: 1) { (try? picture(net.mn)) == before }, "\((try? picture(net.mn)) ?? "")\n--- before:\n\(before)")
        #expect(eventually(within: 1) { !net.mn.repaired.isEmpty })
        try server.send([2])
        #expect(try client.receive(1) == [2])
        usleep(100_000)
        // `ip route flush` asks for each route by itself, and its first may be back before its last is gone.
        #expect((1...(damage.command.hasPrefix("ip route flush") ? 5 : 1)).contains(net.mn.repaired.count), "\(net.mn.repaired)")
        #expect(net.mn.failures.isEmpty && net.mn.warnings.isEmpty, "\(net.mn.failures) \(net.mn.warnings)")
    }

    @Test("A network manager that restarts costs no connection, and nothing counts as a repair")
    func networkManager() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let (client, server, _) = try connectTCP(net, to: "198.51.100.1", port: 6101)
        let before = try picture(net.mn)
        // As networkd and NetworkManager do: addresses and default routes go and come back.
        try net.mn.namespace.run("ip addr flush dev wlan scope global")
        try net.mn.namespace.run("ip addr add 10.1.0.2/24 dev wlan")
        try net.mn.namespace.run("ip addr add 2001:db8:1::2/64 dev wlan nodad")
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        try net.mn.namespace.run("ip -6 route replace default via 2001:db8:1::1 dev wlan metric 100")
        #expect(eventually(within: 1) { (try? picture(net.mn)) == before }, "\((try? picture(net.mn)) ?? "")\n--- before:\n\(before)")
        try client.send([1])
        #expect(try server.receive(1) == [1])
        #expect(net.mn.repaired.isEmpty && net.mn.failures.isEmpty, "\(net.mn.repaired) \(net.mn.failures)")
    }

    @Test("Our own changes are no damage, not even 5,000 entries at once")
    func ownChanges() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let own = HomeAddress(try address("192.0.2.1"))
        let moa = MobileAddress(try address("10.1.0.2"))
        var changes: [IMTChange] = []
        for number in 0..<5_000 {
            let home = HomePair(own: own, peer: HomeAddress(IPAddress(ipv4: 0xC612_0000 + UInt32(number))))
            let peer = MobileAddress(IPAddress(ipv4: 0x0A09_1000 + UInt32(number)))
            changes += [.setOutbound(home, .rewritten(MobilePair(own: moa, peer: peer))), .setInbound(peer: peer, home)]
        }
        let batch = changes
        try net.mn.ask { try $0.commit(batch) }
        usleep(300_000)
        #expect(net.mn.repaired.isEmpty && net.mn.failures.isEmpty, "\(net.mn.repaired) \(net.mn.failures)")
        // It listens again.
        try net.mn.namespace.run("nft delete element ip mat out1 { 198.18.0.7 }")
        #expect(eventually(within: 1) { net.mn.repaired.count == 1 })
        #expect(try net.mn.namespace.run("nft get element ip mat out1 { 198.18.0.7 }").contains("10.9.16.7"))
        // Much at once, or events that the kernel had to drop: all is put back, in as many steps as the news came in.
        func entriesCount() -> Int? { try? net.mn.namespace.run("nft list map ip mat out1").split(separator: "198.18.").dropFirst().count }
        #expect(entriesCount() == 5_000)
        try net.mn.namespace.run("nft flush map ip mat out1")
        #expect(eventually(within: 2) { entriesCount() == 5_000 }, "\(net.mn.repaired)")
        #expect(try net.mn.namespace.run("nft list map ip mat out1").contains("198.18.19.31"))
        let repaired = net.mn.repaired.count
        #expect(repaired >= 2)
        try net.mn.ask { kernel in
            try net.mn.namespace.run("nft flush map ip mat in_192.0.2.1")
            kernel.rulesetMonitor?.assumeLoss()
        }
        #expect(eventually(within: 2) { net.mn.repaired.count > repaired }, "\(net.mn.repaired)")
    }

    @Test("In a fight the agent gives way ever longer, and says so")
    func contested() throws {
        let net = try Topology(protectsTables: false)
        try net.mapBoth()
        let fight = try Child(
            shell: "ip netns exec \(net.mn.namespace.name) sh -c 'while :; do nft delete table ip mat 2>/dev/null; sleep 0.02; done'")
        #expect(eventually(within: 5) { !net.mn.warnings.isEmpty })
        sleep(2)
        fight.end()
        #expect(net.mn.repaired.count <= RepairPace.promptMax + 2, "\(net.mn.repaired.count)")
        #expect(net.mn.warnings.count <= 3 && net.mn.warnings.allSatisfy { $0.contains("firewall") }, "\(net.mn.warnings)")
        // Once it is left alone, all is right again.
        #expect(eventually(within: 8) { net.mn.namespace.attempt("ping -n -c 1 -W 1 198.51.100.1").status == 0 })
    }

    @Test("Repairs are prompt at first, then ever rarer, and prompt again after quiet")
    func pace() {
        var pace = RepairPace()
        var now = SystemClock.now().monotonic
        for _ in 0..<RepairPace.promptMax {
            #expect(pace.next(now) == now)
            pace.made(now)
        }
        #expect(pace.next(now) == now + .seconds(1))
        for _ in 0..<20 {
            now = pace.next(now)
            pace.made(now)
        }
        #expect(pace.next(now) == now + RepairPace.delayMax)
        now = now + RepairPace.quiet
        #expect(pace.next(now) == now)
    }
}
