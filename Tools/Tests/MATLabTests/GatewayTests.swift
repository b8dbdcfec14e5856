import Glibc
import MATSignal
import Namespaces
import Testing

@testable import MATLab

/// A lab without daemons for one suite.
struct LabTrait: SuiteTrait, TestScoping {
    @TaskLocal static var current: Lab?

    static let obstacle: String? = {
        if getuid() != 0 { return "network namespaces need root" }
        for program in ["ip", "nft", "nsd", "unbound", "dnsmasq", "udhcpc", "conntrack"] where Lab.installed(program) == nil {
            return "\(program) is not installed; deploy/install-packages installs what the lab needs"
        }
        return nil
    }()

    func provideScope(for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void) async throws {
        let lab = try Lab(name: "gw\(getpid() % 100_000)", topology: Self.topology, programs: nil)
        try lab.up(startsDaemons: false)
        do { try await Self.$current.withValue(lab) { try await function() } } catch {
            lab.down()
            throw error
        }
        lab.down()
        #expect(!Namespace.names().contains { $0.hasPrefix("\(lab.name)-") })
    }

    /// The lab's own, and some whose flows end within a test.
    private static var topology: Topology {
        var topology = Topology.smallInternet
        let quick = ["quick": Translation(unansweredSeconds: 1, answeredSeconds: 2), "ageing": Translation(ageSeconds: 2)]
        for (number, (name, rules)) in quick.sorted(by: { $0.key < $1.key }).enumerated() {
            guard var network = topology.networks.first(where: { $0.name == "home" }) else { continue }
            let link = "198.19.\(200 + number)"
            network.name = name
            network.gateway?.ipv4 = .translated(rules)
            network.gateway?.outside = ["\(link).2/25"]
            network.gateway?.transferAddress = "\(link).4/25"
            network.gateway?.upstream = .router(["\(link).1/25"])
            topology.networks.append(network)
        }
        return topology
    }
}

@Suite("Networks as most people have them", .serialized, .enabled(if: LabTrait.obstacle == nil, "\(LabTrait.obstacle ?? "")"), LabTrait())
struct GatewayTests {
    private var lab: Lab { get throws { try #require(LabTrait.current) } }

    /// Takes a host to a network, and to no other.
    private func settle(_ host: String, in network: String) throws { try Daemons(lab: lab).move(host, to: network, withOverlap: false) }

    @Test(
        "A translator maps and filters as its name says",
        arguments: [
            ("home", Translation.Mapping.endpointIndependent, Translation.Filtering.addressAndPortDependent),
            ("carrier", .endpointIndependent, .addressAndPortDependent), ("double", .endpointIndependent, .addressAndPortDependent),
            ("symmetric", .addressAndPortDependent, .addressAndPortDependent), ("cone", .endpointIndependent, .endpointIndependent),
            ("restricted", .endpointIndependent, .addressDependent), ("hairpin", .endpointIndependent, .addressAndPortDependent),
            ("symmetric-cone", .addressAndPortDependent, .endpointIndependent), ("symmetric-host", .addressAndPortDependent, .addressDependent),
        ])
    func translators(network: String, mapping: Translation.Mapping, filtering: Translation.Filtering) throws {
        try settle("mn", in: network)
        let behaviour = try TranslatorBehaviour(lab, host: "mn")
        #expect(try behaviour.filtering() == filtering)
        #expect(try behaviour.mapping() == mapping)
        let gateways = try lab.topology.gateways
        let outside = try #require(gateways.first { $0.network.name == (network == "double" ? "carrier" : network) }?.gateway.outside.first)
        #expect(try behaviour.outer()?.address.description == String(outside.prefix { $0 != "/" }))
    }

    @Test("Behind Linux two hosts with the same port are one endpoint to different servers, and two to the same")
    func samePort() throws {
        try settle("mn", in: "home")
        try settle("mn2", in: "home")
        let (first, second) = (try TranslatorBehaviour(lab, host: "mn", port: 6289), try TranslatorBehaviour(lab, host: "mn2", port: 6289))
        let one = try #require(try first.outer())
        #expect(one.port == 6289)
        let other = try #require(try second.outer(at: first))
        #expect(other.address == one.address && other.port != 6289)
        // A flow that is there keeps its endpoint, also towards others.
        #expect(try second.outer() == other)
        #expect(try first.outerAtAnotherHost() == one)
        #expect(try TranslatorBehaviour(lab, host: "mn", port: 6290).outer()?.port == 6290)
        #expect(try TranslatorBehaviour(lab, host: "mn2", port: 6290).outer()?.port == 6290)
    }

    @Test("A carrier gives each subscriber ports of its own block, a home behind it as well")
    func blocks() throws {
        try settle("mn", in: "carrier")
        try settle("mn2", in: "double")
        let blocks = try ["mn", "mn2"].map { host in
            let ports = try (0..<8).map { _ in Int(try #require(try TranslatorBehaviour(lab, host: host).outer()).port) }
            let block = Set(ports.map { ($0 - 16_384) / 512 })
            #expect(block.count == 1 && ports.allSatisfy { $0 >= 16_384 }, "\(ports)")
            return block
        }
        #expect(blocks[0] != blocks[1])
    }

    @Test("Homes have the same addresses inside, and others outside")
    func twins() throws {
        try settle("mn", in: "home")
        try settle("mn2", in: "twin")
        let inner = try ["mn", "mn2"].map { try #require(try Interface.named("wlan0", in: lab.namespace($0)).globalAddresses.first) }
        #expect(inner.allSatisfy { $0.hasPrefix("192.168.1.") })
        #expect(try TranslatorBehaviour(lab, host: "mn").outer()?.address != TranslatorBehaviour(lab, host: "mn2").outer()?.address)
    }

    @Test("A firewall lets in what was asked for, in both families", arguments: [AddressFamily.ipv4, .ipv6])
    func firewall(family: AddressFamily) throws {
        try settle("mn", in: "firewall")
        let behaviour = try TranslatorBehaviour(lab, host: "mn", family: family)
        #expect(try behaviour.filtering() == .addressAndPortDependent)
        let own = try Interface.named("wlan0", in: lab.namespace("mn")).global.map(\.local)
        #expect(own.contains(try #require(try behaviour.outer()).address.description))
    }

    @Test(
        "Hosts behind one translator reach one another at their outer endpoints where it hairpins, also if they are isolated",
        arguments: [("home", false), ("cone", false), ("hairpin", true), ("cafe-hairpin", true)])
    func hairpin(network: String, reach: Bool) throws {
        for host in ["mn", "mn2"] { try settle(host, in: network) }
        let (one, other) = (try TranslatorBehaviour(lab, host: "mn"), try TranslatorBehaviour(lab, host: "mn2"))
        let (first, second) = (try #require(try one.outer()), try #require(try other.outer()))
        // Each has sent to the other before the other's is let in.
        one.inner.send("open", to: second)
        #expect(TranslatorBehaviour.passes(from: other.inner, to: first, one.inner) == reach)
    }

    @Test("A mapping that ages ends, whatever traffic it has, and another begins with the next packet")
    func aging() throws {
        try settle("mn", in: "ageing")
        let behaviour = try TranslatorBehaviour(lab, host: "mn")
        let outer = try #require(try behaviour.outer())
        let begin = monotonicSeconds()
        var reached = 0
        while behaviour.isReached(at: outer), monotonicSeconds() < begin + 10 {
            reached += 1
            usleep(100_000)
        }
        let age = monotonicSeconds() - begin
        #expect(reached > 5 && age > 1.5 && age < 4, "\(age) s")
        #expect(try behaviour.outer() == outer)
        #expect(behaviour.isReached(at: outer))
    }

    @Test(
        "A gateway that was rebooted knows no flow, and may have another address; both ends are there again with the next packet",
        arguments: ["home", "cone"], [false, true])
    func reboot(network: String, newAddress: Bool) throws {
        try settle("mn", in: network)
        let behaviour = try TranslatorBehaviour(lab, host: "mn")
        let before = try #require(try behaviour.outer())
        #expect(behaviour.isReached(at: before))
        try Gateways(lab: lab).reboot(network, newAddress: newAddress)
        #expect(!behaviour.isReached(at: before))
        let after = try #require(try behaviour.outer())
        #expect((after.address == before.address) == !newAddress)
        #expect(behaviour.isReached(at: after))
    }

    @Test("A firewall that was rebooted lets nothing in that it did, in both families", arguments: [AddressFamily.ipv4, .ipv6])
    func rebootedFirewall(family: AddressFamily) throws {
        try settle("mn", in: "firewall")
        let behaviour = try TranslatorBehaviour(lab, host: "mn", family: family)
        let outer = try #require(try behaviour.outer())
        #expect(behaviour.isReached(at: outer))
        try Gateways(lab: lab).reboot("firewall", newAddress: false)
        #expect(!behaviour.isReached(at: outer))
        #expect(throws: LabError("firewall has no other public address")) { try Gateways(lab: lab).reboot("firewall", newAddress: true) }
    }

    @Test("Clients of one network reach one another, but not where they are isolated", arguments: [("home", true), ("cafe", false)])
    func isolation(network: String, reach: Bool) throws {
        for host in ["mn", "mn2"] { try settle(host, in: network) }
        let (one, other) = (try DatagramSocket(in: lab.namespace("mn")), try DatagramSocket(in: lab.namespace("mn2")))
        let address = try Interface.named("wlan0", in: lab.namespace("mn2")).global.compactMap { IPAddress($0.local) }.first
        #expect(TranslatorBehaviour.passes(from: one, to: Endpoint(try #require(address), port: other.port), other) == reach)
        #expect(try TranslatorBehaviour(lab, host: "mn").outer() != nil)
    }

    @Test("A flow is forgotten after its time without packets: sooner if it was never answered")
    func timeouts() throws {
        try settle("mn", in: "quick")
        let answered = try TranslatorBehaviour(lab, host: "mn")
        let one = try #require(try answered.outer())
        // Linux takes a flow for a stream only 2 s after it began.
        let begin = monotonicSeconds()
        while monotonicSeconds() < begin + 2.3 {
            #expect(answered.isReached(at: one))
            #expect(try answered.outer() == one)
            usleep(200_000)
        }
        let unanswered = try TranslatorBehaviour(lab, host: "mn")
        let other = try #require(try unanswered.outer())
        let silent = monotonicSeconds()
        sleepUntil(silent + 1.3)
        #expect(answered.isReached(at: one))
        #expect(!unanswered.isReached(at: other))
        sleepUntil(monotonicSeconds() + 2.3)
        #expect(!answered.isReached(at: one))
    }

    /// The time itself is what is tried.
    private func sleepUntil(_ time: Double) { usleep(UInt32(max(0, time - monotonicSeconds()) * 1e6)) }

    @Test("Where UDP is not let through, names and TCP still work")
    func noUDP() throws {
        try settle("mn", in: "narrow")
        #expect(try TranslatorBehaviour(lab, host: "mn").outer() == nil)
        let lab = try lab
        let host = lab.namespace("mn")
        #expect(shellStatus("ip netns exec \(host) dig +short +time=2 plain.mat.example A").output == "203.0.113.200\n")
        let listener = try Child(["ip", "netns", "exec", lab.namespace("plain"), "socat", "-u", "OPEN:/etc/hostname", "TCP-LISTEN:7000,reuseaddr"])
        defer { listener.end() }
        let connected = shellStatus("ip netns exec \(host) socat -u TCP:203.0.113.200:7000,retry=20,interval=0.1,connect-timeout=5 -")
        #expect(connected.status == 0 && !connected.output.isEmpty)
    }

    // MARK: IPv6 only

    private static let prefix = IPAddress("64:ff9b::")

    @Test("A host that has IPv6 only reaches IPv4 servers by a NAT64, which maps and filters as a NAT does", arguments: ["ipv6", "ipv6-firewall"])
    func nat64(network: String) throws {
        try settle("mn", in: network)
        let behaviour = try TranslatorBehaviour(lab, host: "mn", through: Self.prefix)
        #expect(try behaviour.filtering() == .addressAndPortDependent)
        #expect(try behaviour.mapping() == .endpointIndependent)
        #expect(try behaviour.outer()?.address.description.hasPrefix("198.19.") == true)
        #expect(try Interface.named("wwan0", in: lab.namespace("mn")).global.allSatisfy { $0.family == "inet6" })
    }

    @Test(
        "Its own addresses are reached by anybody where the network is open, and not where it has a firewall",
        arguments: [("ipv6", true), ("ipv6-firewall", false)])
    func openIPv6(network: String, reach: Bool) throws {
        try settle("mn", in: network)
        let (inner, stranger) = (try DatagramSocket(in: lab.namespace("mn")), try DatagramSocket(in: lab.namespace("cn")))
        let address = try #require(try Interface.named("wwan0", in: lab.namespace("mn")).global.compactMap { IPAddress($0.local) }.first)
        #expect(TranslatorBehaviour.passes(from: stranger, to: Endpoint(address, port: inner.port), inner) == reach)
        #expect(try TranslatorBehaviour(lab, host: "mn", family: .ipv6).outer()?.address == address)
    }

    @Test("There a name with IPv4 addresses only leads into the NAT64's prefix, others lead where they did, and the prefix can be found")
    func dns64() throws {
        let lab = try lab
        try settle("mn", in: "ipv6")
        let host = lab.namespace("mn")
        func addresses(_ name: String) throws -> Set<String> {
            Set(try shell("ip netns exec \(host) dig +short +time=2 +tries=5 \(name) AAAA").split(separator: "\n").map(String.init))
        }
        try lab.wait("the network's resolver answers", seconds: 5) { try !addresses("plain4.mat.example").isEmpty }
        #expect(try addresses("plain4.mat.example") == ["64:ff9b::cb00:71c8"])
        #expect(try addresses("plain.mat.example") == ["2001:db8:99::200"])
        #expect(try addresses("ipv4only.arpa") == ["64:ff9b::c000:aa", "64:ff9b::c000:ab"])
        let listener = try Child(["ip", "netns", "exec", lab.namespace("plain"), "socat", "-u", "OPEN:/etc/hostname", "TCP-LISTEN:7001,reuseaddr"])
        defer { listener.end() }
        let connected = shellStatus("ip netns exec \(host) socat -u TCP6:plain4.mat.example:7001,retry=20,interval=0.1,connect-timeout=5 -")
        #expect(connected.status == 0 && !connected.output.isEmpty, "\(connected.output)")
        try settle("mn", in: "wlan")
        #expect(try addresses("plain4.mat.example").isEmpty)
    }

    // MARK: Long paths

    @Test("With a long way in the middle each path takes the time it was given, in both families, and one within a network none of it")
    func longPaths() throws {
        let lab = try lab
        for host in ["mn", "mn2"] { try settle(host, in: "wlan") }
        let (inner, neighbour, outer) =
            (
                try DatagramSocket(in: lab.namespace("mn")), try DatagramSocket(in: lab.namespace("mn2")),
                try DatagramSocket(in: lab.namespace("plain"))
            )
        func milliseconds(to address: String, _ receiver: DatagramSocket) throws -> Double {
            let endpoint = Endpoint(try #require(IPAddress(address)), port: receiver.port)
            // The first packets may come before the router's advertisement, or wait for the neighbour's address.
            try lab.wait("a packet comes to \(address)", seconds: 10) {
                inner.send("x", to: endpoint)
                return receiver.receive(within: 0.2) != nil
            }
            while receiver.receive(within: 0.1) != nil {}
            let times = try (0..<15).map { _ in
                let begin = monotonicSeconds()
                inner.send("x", to: endpoint)
                _ = try #require(receiver.receive(within: 1))
                return (monotonicSeconds() - begin) * 1000
            }
            return times.sorted()[times.count / 2]
        }
        let own = try Interface.named("wlan0", in: lab.namespace("mn2")).global.map(\.local)
        let paths = LongPaths(lab: lab)
        try paths.delay(milliseconds: 20)
        defer { try? paths.undelay() }
        for address in lab.topology.addresses("plain") { #expect((20..<30).contains(try milliseconds(to: address, outer)), "\(address)") }
        for address in own { #expect(try milliseconds(to: address, neighbour) < 10, "\(address)") }
        // Segments pass uncut, and whole.
        let file = "/tmp/mat-lab-test-\(getpid())"
        defer { unlink(file) }
        try shell("head -c 3000000 /dev/urandom > \(file)")
        let listener = try Child(["ip", "netns", "exec", lab.namespace("plain"), "socat", "-u", "OPEN:\(file)", "TCP-LISTEN:7002,reuseaddr"])
        defer { listener.end() }
        let connect = "ip netns exec \(lab.namespace("mn")) socat -u TCP:203.0.113.200:7002,retry=20,interval=0.1,connect-timeout=5 - | cmp - \(file)"
        #expect(shellStatus(connect).status == 0)
        try paths.undelay()
        for address in lab.topology.addresses("plain") { #expect(try milliseconds(to: address, outer) < 10, "\(address)") }
    }

    @Test("A network's router keeps its link address whoever comes and goes, so that those who stay reach it")
    func linkAddresses() throws {
        let lab = try lab
        let router = lab.namespace(lab.topology.router)
        for host in ["mn", "mn2"] { try settle(host, in: "wlan") }
        // A bridge without an address of its own would take this one, the lowest, and leave it again.
        try Namespace.ipBatch(["link set dev \(lab.topology.port("mn2", device: "wlan0")) address 00:00:5e:00:53:01"], in: router)
        func sees() throws -> String { try shell("ip -n \(lab.namespace("mn")) neigh show 203.0.113.1 | grep -o 'lladdr [0-9a-f:]*'") }
        let ping = "ip netns exec \(lab.namespace("mn")) ping -q -c 1 -W 2 203.0.113.200"
        try lab.wait("mn reaches the router", seconds: 10) { shellStatus(ping).status == 0 }
        let before = try sees()
        for network in ["home", "wlan"] {
            try settle("mn2", in: network)
            #expect(shellStatus(ping).status == 0)
            try shell("ip -n \(lab.namespace("mn")) neigh flush all")
            #expect(shellStatus(ping).status == 0)
            #expect(try sees() == before, "mn2 in \(network)")
        }
    }

    @Test("An interface is in one network at a time, also by another than the usual one, and the host's other interfaces stay")
    func interfaces() throws {
        let lab = try lab
        let plugs = AccessNetworks(lab: lab)
        try settle("mn", in: "wlan")
        try plugs.attach("mn", "home", over: "wwan0")
        try lab.wait("mn has an address", seconds: 10) { try Interface.isConfigured("wwan0", ["inet"], in: lab.namespace("mn")) }
        #expect(try Interface.isConfigured("wlan0", ["inet", "inet6"], in: lab.namespace("mn")))
        try plugs.attach("mn", "home2")
        try lab.wait("mn has an address", seconds: 10) { try Interface.isConfigured("wlan0", ["inet"], in: lab.namespace("mn")) }
        let addresses = try Interface.all(in: lab.namespace("mn")).flatMap(\.globalAddresses)
        #expect(addresses.count == 2 && addresses.contains { $0.hasPrefix("192.168.1.") } && addresses.contains { $0.hasPrefix("192.168.2.") })
        #expect(throws: LabError("mn is not in wlan")) { try plugs.detach("mn", "wlan") }
        try settle("mn", in: "cellular")
        #expect(
            try Interface.all(in: lab.namespace("mn")).flatMap(\.globalAddresses).allSatisfy {
                $0.hasPrefix("203.0.113.") || $0.hasPrefix("2001:db8:b:")
            })
    }

    @Test("A gateway that does not come up leaves nothing, and says why")
    func halfBuilt() throws {
        let lab = try lab
        var topology = lab.topology
        topology.networks.append(
            Topology.Network(
                "broken", router: ["192.168.99.1/24"], access: Topology.Access(device: "wlan0", metric: 100),
                gateway: Gateway(outside: ["no address"], upstream: .router(["198.19.99.1/25"]), ipv4: .guarded)))
        let other = try Lab(name: lab.name, topology: topology, programs: nil)
        let network = try topology.access("broken").network
        let error = #expect(throws: LabError.self) { try Gateways(lab: other).build(network) }
        #expect(error?.description.contains("the network broken was taken down again") == true)
        #expect(!Namespace.exists(other.namespace("broken")))
        #expect(throws: LabError.self) { try Interface.named("broken", in: other.namespace("r")) }
    }
}
