import Foundation
import Glibc
import MATRuntime
import MATSignal
import Namespaces
import Testing

@testable import IMTKernel
@testable import IMTPlan

/// Routers, addresses and rules as other programs and the network make them, on the real kernel.
///
/// ```
///     mn wlan ------ sw (bridge) ------ r1  10.1.0.1, fe80::1      routers of one link; neither is told of any HoA
///        10.1.0.2/24         +--------- r2  10.1.0.3, fe80::3      each counts what mn sends to the peer's MoA
/// ```
@Suite("Routers, addresses and rules", .serialized, .enabled(if: kernelTestsImpossible == nil, "skipped: \(kernelTestsImpossible ?? "")"))
struct RouterTests {
    final class Net {
        let mn: Host
        let sw: Namespace
        let routers: [Namespace]

        init() throws {
            let mnNamespace = try Namespace.host("mn")
            mn = Host(mnNamespace)
            sw = try Namespace.host("sw")
            routers = [try Namespace.host("r1"), try Namespace.host("r2")]
            try sw.run("ip link add br0 type bridge forward_delay 0")
            try sw.run("ip link set br0 up")
            for (index, host) in ([mnNamespace] + routers).enumerated() {
                try shell("ip -n \(host.name) link add wlan type veth peer name p\(index) netns \(sw.name)")
                try sw.run("ip link set p\(index) master br0 up")
                if index > 0 { try host.run("ip link set wlan addrgenmode none") }
                try host.run("ip link set wlan up")
            }
            for (router, last) in zip(routers, [1, 3]) {
                try router.run("ip addr add 10.1.0.\(last)/24 dev wlan")
                try router.run("ip addr add fe80::\(last)/64 dev wlan nodad")
                try router.run("sysctl -qw net.ipv6.conf.all.forwarding=1")
                try router.run(
                    "nft 'add table inet c; add chain inet c p { type filter hook prerouting priority 0; }; add counter inet c peer; "
                        + "add rule inet c p ip daddr 10.9.0.2 counter name peer drop; add rule inet c p ip6 daddr 2001:db8:9::2 counter name peer drop'"
                )
            }
            try mnNamespace.run("ip addr add 10.1.0.2/24 dev wlan")
        }

        deinit { mn.finish(leaving: false) }

        /// With what mn has on the link as its MoAs.
        func start(_ adjust: (inout IMTConfiguration) -> Void = { _ in }) throws {
            var configuration = Topology.mnConfiguration
            adjust(&configuration)
            try mn.start(configuration)
            try mn.useLocators(on: "wlan")
        }

        func map(_ own: String, _ peer: String, over moa: String) throws {
            try mn.map(own, peer, over: moa, own.contains(":") ? "2001:db8:9::2" : "10.9.0.2")
        }

        /// A router advertisement (RFC 4861 4.2): a prefix for addresses, and what the router says of itself.
        func advertise(_ index: Int, preference: UInt8, prefix: [UInt8]? = nil, lifetime: UInt16 = 1800) throws {
            let mac = try routers[index].run("cat /sys/class/net/wlan/address").trimmingCharacters(in: .whitespacesAndNewlines)
                .split(separator: ":").compactMap { UInt8($0, radix: 16) }
            var packet: [UInt8] =
                [134, 0, 0, 0, 64, preference << 3, UInt8(lifetime >> 8), UInt8(lifetime & 255)] + [UInt8](repeating: 0, count: 8) + [1, 1] + mac
            if let prefix { packet += [3, 4, 64, 0xC0, 0, 0, 0x0E, 0x10, 0, 0, 0x07, 0x08, 0, 0, 0, 0] + prefix + [UInt8](repeating: 0, count: 8) }
            let advertisement = packet
            try routers[index].inside {
                let descriptor = socket(AF_INET6, Int32(SOCK_RAW.rawValue), 58)
                defer { close(descriptor) }
                var hops: Int32 = 255
                setsockopt(descriptor, 41, 18, &hops, 4)
                let scope = if_nametoindex("wlan")
                let source = try #require(IPAddress(index == 0 ? "fe80::1" : "fe80::3"))
                guard SocketName(Endpoint(source, port: 0), scope: scope).use({ Glibc.bind(descriptor, $0, $1) }) == 0 else {
                    throw ShellError("bind: \(errno)")
                }
                let all = try #require(IPAddress("ff02::1"))
                let sent = SocketName(Endpoint(all, port: 0), scope: scope).use { sendto(descriptor, advertisement, advertisement.count, 0, $0, $1) }
                guard sent == advertisement.count else { throw ShellError("send: \(errno)") }
            }
        }

        func packets(_ index: Int) throws -> Int {
            let text = try routers[index].run("nft list counter inet c peer")
            return Int(text.firstMatch(of: /packets (\d+)/)?.1 ?? "") ?? -1
        }

        /// Whether packets to the peer's HoA go by this router now, and by no other.
        func goesBy(_ index: Int, _ peer: String) throws -> Bool {
            let before = try [packets(0), packets(1)]
            _ = mn.namespace.attempt("ping -n -c 2 -i 0.02 -W 0.05 \(peer)")
            let after = try [packets(0), packets(1)]
            return after[index] > before[index] && after[1 - index] == before[1 - index]
        }
    }

    /// 2001:db8:1::/64, the first half.
    private static let prefix: [UInt8] = [0x20, 0x01, 0x0D, 0xB8, 0, 1, 0, 0]

    @Test("Of two IPv6 routers the one that says high is used; when it dies the other is, and when it is back it again (RFC 4191)")
    func advertisedRouters() throws {
        let net = try Net()
        try net.advertise(0, preference: 1, prefix: Self.prefix)
        try net.advertise(1, preference: 0, prefix: Self.prefix)
        #expect(try eventually(within: 5) { try net.mn.namespace.run("ip -6 route show default").contains("fe80::3") })
        try net.start { $0.routerInterval = .seconds(1) }
        let moa = try #require(try net.mn.ask { try $0.currentLinks().usable.first { !$0.address.isIPv4 } })
        #expect(moa.gateway == (try address("fe80::1")))
        try net.map("2001:db8:a::1", "2001:db8:b::1", over: moa.address.description)
        #expect(try eventually { try net.goesBy(0, "2001:db8:b::1") })

        try net.routers[0].run("ip link set wlan down")
        let died = Date()
        #expect(try eventually(within: 20) { try net.goesBy(1, "2001:db8:b::1") }, "\(net.mn.namespace.attempt("ip -6 neigh").output)")
        print("another router was used after \(Date().timeIntervalSince(died)) s")
        #expect(
            net.mn.lastLinks?.silentRouters == [SilentRouter(address: try address("fe80::1"), interface: "wlan", instead: try address("fe80::3"))])
        // Signalling is bound to the MoA: it goes the same way.
        #expect(try net.mn.namespace.run("ip -6 route get 2001:db8:77::1 from \(moa.address) mark 0x6288").contains("via fe80::3"))

        try net.routers[0].run("ip link set wlan up")
        try net.routers[0].run("ip addr replace fe80::1/64 dev wlan nodad")
        try net.advertise(0, preference: 1, prefix: Self.prefix)
        #expect(try eventually(within: 15) { try net.goesBy(0, "2001:db8:b::1") })
        #expect(net.mn.lastLinks?.silentRouters == [])
        #expect(net.mn.failures.isEmpty && net.mn.repaired.isEmpty, "\(net.mn.failures) \(net.mn.repaired)")
    }

    struct Pair: CustomTestStringConvertible, Sendable {
        let name: String
        let commands: [String]
        var testDescription: String { name }
    }
    static let pairs = [
        Pair(
            name: "two routes of equal metric",
            commands: ["ip route add default via 10.1.0.1 dev wlan metric 100", "ip route append default via 10.1.0.3 dev wlan metric 100"]),
        Pair(name: "one multipath route", commands: ["ip route add default metric 100 nexthop via 10.1.0.1 dev wlan nexthop via 10.1.0.3 dev wlan"]),
        Pair(
            name: "a group of nexthop objects, of which the route names only the number",
            commands: [
                "sysctl -qw net.ipv4.nexthop_compat_mode=0", "ip nexthop add id 1 via 10.1.0.1 dev wlan", "ip nexthop add id 2 via 10.1.0.3 dev wlan",
                "ip nexthop add id 3 group 1/2", "ip route add default nhid 3 metric 100",
            ]),
    ]

    @Test("Two IPv4 routers of equal metric are two: when one dies, the other is used", arguments: pairs)
    func equalMetric(_ pair: Pair) throws {
        let net = try Net()
        for command in pair.commands { try net.mn.namespace.run(command) }
        try net.start { $0.routerInterval = .seconds(1) }
        try net.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2")
        #expect(try eventually { try net.goesBy(0, "198.51.100.1") })
        try net.routers[0].run("ip link set wlan down")
        #expect(try eventually(within: 20) { try net.goesBy(1, "198.51.100.1") }, "\(net.mn.namespace.attempt("ip neigh").output)")
        try net.routers[0].run("ip link set wlan up")
        // IPv4 has no advertisements: it is asked now and then.
        #expect(try eventually(within: 10) { try net.goesBy(0, "198.51.100.1") })
        #expect(net.mn.failures.isEmpty && net.mn.repaired.isEmpty, "\(net.mn.failures) \(net.mn.repaired)")
    }

    @Test("A route that another program adds, replaces or deletes while the agent runs is followed without reading the table")
    func followed() throws {
        let net = try Net()
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        try net.start()
        try net.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2")
        func isInStep() throws -> Bool {
            try net.mn.ask { kernel in
                kernel.linkTables.main.byDestination.mapValues(Set.init) == (try kernel.routes.mainTable()).byDestination.mapValues(Set.init)
            }
        }
        for (command, router) in [
            ("ip route replace default via 10.1.0.3 dev wlan metric 100", 1), ("ip route add default via 10.1.0.1 dev wlan metric 50", 0),
            ("ip route del default metric 50", 1), ("ip route add 10.9.0.0/24 via 10.1.0.1 dev wlan", 0),
            ("ip route change 10.9.0.0/24 via 10.1.0.3 dev wlan", 1),
            ("ip route append 10.9.0.0/24 via 10.1.0.1 dev wlan", 0), ("ip route flush 10.9.0.0/24", 1),
        ] {
            try net.mn.namespace.run(command)
            #expect(try eventually { try net.goesBy(router, "198.51.100.1") }, "\(command)")
            #expect(try eventually { try isInStep() }, "\(command)")
        }
        #expect(net.mn.failures.isEmpty && net.mn.repaired.isEmpty, "\(net.mn.failures) \(net.mn.repaired)")
    }

    @Test("A private address added to a link, and nine deprecated ones, do not go before the one that the router's network gave")
    func addressOrder() throws {
        let net = try Net()
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        try net.mn.namespace.run("ip addr add 2001:db8:1::aaaa/64 dev wlan nodad")
        try net.mn.namespace.run("ip -6 route add default via fe80::1 dev wlan")
        try net.start()
        try net.mn.namespace.run("ip addr add 10.0.9.9/24 dev wlan")
        for number in 1...9 { try net.mn.namespace.run("ip addr add 2001:db8:1::\(number)/64 dev wlan nodad preferred_lft 0") }
        #expect(eventually { net.mn.lastLinks?.usable.count == 12 })
        let usable = net.mn.lastLinks?.usable ?? []
        #expect(usable.filter { $0.address.isIPv4 }.map(\.address.description) == ["10.1.0.2", "10.0.9.9"])
        #expect(usable.first { !$0.address.isIPv4 }?.address.description == "2001:db8:1::aaaa")
        #expect(usable.count { $0.isDeprecated } == 9)
    }

    @Test("Temporary addresses go first where the system prefers them (use_tempaddr 2), and last where it does not", arguments: [1, 2])
    func temporary(_ use: Int) throws {
        let net = try Net()
        try net.mn.namespace.run("sysctl -qw net.ipv6.conf.wlan.use_tempaddr=\(use)")
        try net.advertise(0, preference: 0, prefix: Self.prefix)
        #expect(try eventually(within: 5) { try net.mn.namespace.run("ip -6 addr show dev wlan temporary").contains("2001:db8:1:") })
        try net.mn.start(Topology.mnConfiguration)
        let usable = try net.mn.ask { try $0.currentLinks().usable.filter { !$0.address.isIPv4 }.map(\.address) }
        let listed = try net.mn.namespace.run("ip -6 addr show dev wlan temporary")
        #expect(usable.count == 2 && listed.contains(usable[use == 2 ? 0 : 1].description), "\(usable) \(listed)")
    }

    // MARK: Rules

    /// What `wg-quick up` does with the host's routing, for an interface that swallows all (a veth whose far end is nobody).
    private static let wgQuick = [
        "ip link add wg0 type veth peer name wg1", "ip link set wg0 up", "ip link set wg1 up", "ip addr add 10.64.0.2/32 dev wg0",
        "ip route add default dev wg0 table 51820",
        "ip -4 rule add not fwmark 51820 table 51820", "ip -4 rule add table main suppress_prefixlength 0",
    ]

    @Test(
        "Rules such as wg-quick's, added later, land before ours: ours step before them, plain traffic goes their way, and all is as before when they go"
    )
    func wireguardRules() throws {
        let net = try Net()
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        try net.start { $0.alwaysPlain = [IPPrefix("203.0.113.7")!] }
        try net.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2")
        #expect(try eventually { try net.goesBy(0, "198.51.100.1") })
        for command in Self.wgQuick { try net.mn.namespace.run(command) }
        #expect(try eventually { try net.mn.ask { $0.rulePlace.passed.count == 2 && $0.rulePlace.before.isEmpty } })
        #expect(try net.goesBy(0, "198.51.100.1"), "\(net.mn.namespace.attempt("ip rule").output)")
        // Signalling, and a plain destination.
        #expect(try net.mn.namespace.run("ip route get 203.0.113.99 mark 0x6288").contains("dev wlan"))
        #expect(try net.mn.namespace.run("ip route get 203.0.113.7").contains("dev wg0"))
        #expect(net.mn.warnings.contains { $0.contains("fwmark 51820") })

        try net.mn.namespace.run("ip -4 rule del table main suppress_prefixlength 0")
        try net.mn.namespace.run("ip -4 rule del not fwmark 51820 table 51820")
        #expect(try eventually { try net.mn.ask { $0.rulePlace == RulePlace(base: 6270) } })
        #expect(try net.mn.namespace.run("ip rule").contains("6280:"))
        #expect(net.mn.failures.isEmpty && net.mn.repaired.isEmpty, "\(net.mn.failures) \(net.mn.repaired)")
        net.mn.finish(leaving: false)
        #expect(try !net.mn.namespace.run("ip rule").contains("proto"), "a clean stop leaves none, wherever they stood")
    }

    @Test("An agent that starts after such a program finds its place; with routing-rules: fixed ours stay, and that is told")
    func startsLater() throws {
        for keepsFirst in [true, false] {
            let net = try Net()
            try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
            try net.mn.namespace.run("ip rule add priority 5270 lookup 51820")
            for command in Self.wgQuick.prefix(5) { try net.mn.namespace.run(command) }
            try net.start { $0.keepsRulesFirst = keepsFirst }
            try net.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2")
            #expect(try net.goesBy(0, "198.51.100.1") == keepsFirst)
            #expect(try net.mn.ask { keepsFirst ? $0.rulePlace.before.isEmpty : $0.rulePlace.before == ["5270: from all lookup 51820"] })
        }
    }

    @Test("With a program that always wants to be first there is no fight: ever later, and told")
    func fight() throws {
        let net = try Net()
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        try net.start()
        // Adds its rule anew, before whatever is first, as fast as it can.
        let fight = try Child(
            shell: "ip netns exec \(net.mn.namespace.name) sh -c 'while :; do ip rule add lookup 51820; sleep 0.05; done'")
        #expect(eventually(within: 10) { net.mn.warnings.contains { $0.contains("keeps changing the order of routing rules") } })
        let moved = net.mn.warnings.count { $0.contains("come before them now") }
        #expect(moved <= RepairPace.promptMax + 1, "\(moved)")
        #expect(try net.mn.ask { !$0.rulePlace.before.isEmpty })
        fight.end()
        // Left alone, ours come first once more.
        #expect(try eventually(within: 8) { try net.mn.ask { $0.rulePlace.before.isEmpty } })
    }

    // MARK: Load

    @Test("A hundred thousand routes of which twenty change each second cost next to nothing", .timeLimit(.minutes(3)))
    func manyRoutes() throws {
        let net = try Net()
        try net.mn.namespace.run("ip route add default via 10.1.0.1 dev wlan metric 100")
        func batch(_ verb: String, _ range: Range<Int>) throws {
            let path = FileManager.default.temporaryDirectory.appendingPathComponent("routes-\(getpid())-\(UUID().uuidString)").path
            try range.map { "route \(verb) 100.\(64 + $0 / 65536).\($0 / 256 % 256).\($0 % 256)/32 via 10.1.0.1 dev wlan\n" }.joined().write(
                toFile: path, atomically: true, encoding: .utf8)
            defer { unlink(path) }
            try net.mn.namespace.run("ip -batch \(path)")
        }
        try batch("add", 0..<100_000)
        try net.start()
        try net.map("192.0.2.1", "198.51.100.1", over: "10.1.0.2")
        usleep(500_000)
        func used() throws -> Double {
            try net.mn.ask { _ in
                var time = timespec()
                clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
                return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
            }
        }
        let (before, start) = (try used(), Date())
        for round in 0..<100 {
            try batch(round % 2 == 0 ? "del" : "add", 99_990..<99_991)
            usleep(50_000)
        }
        let share = (try used() - before) / Date().timeIntervalSince(start)
        print("100,000 routes, \(Int(100 / Date().timeIntervalSince(start))) changes a second: \(Int(share * 1000)) per mille of a core")
        #expect(share < 0.05, "\(share)")
        #expect(try net.goesBy(0, "198.51.100.1"))
    }
}
