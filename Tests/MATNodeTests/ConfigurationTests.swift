import Foundation
import IMTPlan
import MATSignal
import MATTesting
import NodeCore
import Testing

@testable import MATNode

/// What matd.yaml says, as the core is told of it.
@Suite("The agent's configuration") struct ConfigurationTests {
    @Test("`except` takes prefixes; listed traffic and peers name MAT addresses, a prefix of length 0 nobody")
    func listedTraffic() throws {
        let home = "home-addresses:\n  - {address: 192.0.2.10, key: /k, certificate: /c}\n"
        let listed = try NodeConfiguration(
            parsing: home
                + "traffic: [198.51.100.0/24]\nexcept: [203.0.113.0/24, '2001:db8:99::/64']\npeers:\n  - {address: 203.0.113.7, prefer: [wlan0]}\n  - {address: '::/0', prefer: [wlan0]}\n",
            file: "matd.yaml")
        #expect(listed.exceptions.map(\.description) == ["203.0.113.0/24", "2001:db8:99::/64"])
        #expect(Set(listed.namedPrefixes.map(\.description)) == ["198.51.100.0/24", "203.0.113.7/32"])
        #expect(try NodeConfiguration(parsing: home + "traffic: everything\n", file: "matd.yaml").namedPrefixes.isEmpty)
        #expect(throws: (any Error).self) { try NodeConfiguration(parsing: home + "except: [everywhere]\n", file: "matd.yaml") }
    }

    @Test("The words for paths and preferences are read, and what can't be meant is refused")
    func paths() throws {
        func read(_ text: String) throws -> NodeConfiguration {
            let file = FileManager.default.temporaryDirectory.appendingPathComponent("mat-paths-\(UUID().uuidString).yaml")
            defer { try? FileManager.default.removeItem(at: file) }
            try Data("home-addresses:\n  - {address: 192.0.2.10, key: /k, certificate: /c}\n\(text)".utf8).write(to: file)
            return try NodeConfiguration(path: file.path)
        }
        let configuration = try read(
            """
            peers:
              - {address: 198.51.100.0/24, prefer: [wwan0, wlan0]}
            paths: {interval: 500ms, idle-interval: 2m, hold-down: 5s, hold-down-max: 1m}
            """)
        #expect(configuration.peerPreferences == [PeerPreference(prefix("198.51.100.0/24"), interfaces: ["wwan0", "wlan0"])])
        #expect(configuration.paths.interval == .milliseconds(500) && configuration.paths.idleInterval == .seconds(120))
        #expect(configuration.paths.holdDown == .seconds(5) && configuration.paths.holdDownMax == .seconds(60) && configuration.paths.isProbing)
        for wrong in [
            "paths: {interval: 1ms}", "paths: {hold-down: 20s, hold-down-max: 10s}", "peers: [{address: 192.0.2.1, prefer: [docker0]}]",
            "peers: [{address: 192.0.2.1}]", "paths: relays", "paths: {use: nobody}",
        ] {
            #expect(throws: (any Error).self) { try read(wrong) }
        }
    }

    @Test("By what direct peers' packets are rewritten is nftables unless it says bpf; another word hears of both")
    func dataPlane() throws {
        let home = "home-addresses:\n  - {address: 192.0.2.10, key: /k, certificate: /c}\n"
        #expect(try NodeConfiguration(parsing: home, file: "matd.yaml").dataPlane == .nftables)
        #expect(try NodeConfiguration(parsing: home + "data-plane: bpf\n", file: "matd.yaml").dataPlane == .bpf)
        let error = #expect(throws: (any Error).self) { try NodeConfiguration(parsing: home + "data-plane: xdp\n", file: "matd.yaml") }
        let text = error.map { "\($0)" } ?? ""
        #expect(text.contains("matd.yaml:3") && text.contains("xdp") && text.contains("nftables") && text.contains("bpf"), "\(text)")
    }

    @Test("A mistake in an entry is told alone, and not that there is none; a wrong word for traffic hears of lists")
    func mistakes() throws {
        let error = try #require(throws: (any Error).self) {
            try NodeConfiguration(
                parsing: "home-addresses:\n  - {address: 192.0.2.311, key: /k, certificate: /c}\ntraffic: some\n", file: "matd.yaml")
        }
        #expect("\(error)".contains("192.0.2.311") && !"\(error)".contains("no home address"), "\(error)")
        #expect("\(error)".contains("list of prefixes"), "\(error)")
    }

    @Test("That peers are not to learn where the node is, is one word, alone or beside how paths are watched; a mobile network can't have it")
    func relayOnly() throws {
        func read(_ text: String, _ home: String = "{address: 192.0.2.10, key: /k, certificate: /c}") throws -> NodeConfiguration {
            try NodeConfiguration(parsing: "home-addresses:\n  - \(home)\n" + text, file: "matd.yaml")
        }
        for text in ["", "paths: all", "paths:\n", "paths: {probe: true}", "paths: {use: all}"] {
            #expect(try !read(text).paths.isRelayOnly, "\(text)")
        }
        #expect(try read("paths: relay-only").paths.isRelayOnly)
        let both = try read("paths: {use: relay-only, interval: 2s}")
        #expect(both.paths.isRelayOnly && both.paths.interval == .seconds(2))
        let network = "{prefix: 198.51.100.16/28, key: /k, certificate: /c, mobile-prefixes: [{interface: wlan0, prefix: 198.18.1.16/28}]}"
        _ = try read("paths: all", network)
        #expect(throws: (any Error).self) { try read("paths: relay-only", network) }
    }

    @Test("A reload takes what a running agent can change, and names every other key that differs")
    func reload() throws {
        func read(_ text: String) throws -> NodeConfiguration {
            try NodeConfiguration(parsing: "home-addresses:\n  - {address: 192.0.2.10, key: /k, certificate: /c}\n" + text, file: "matd.yaml")
        }
        let old = try read("")
        let live = try read(
            """
            interfaces: {prefer: [wlan0], ignore: [tun0], need-default-route: false}
            peers: [{address: 198.51.100.0/24, prefer: [wwan0]}]
            relays: [203.0.113.9]
            plain: gateway
            on-stop: remove
            log-level: debug
            metrics: {listen: 127.0.0.1}
            """)
        #expect(old.restartKeys(against: live).isEmpty)
        let taken = old.taking(live)
        #expect(taken.preferredInterfaces == ["wlan0"] && taken.ignoredInterfaces == ["tun0"] && !taken.needsDefaultRoute)
        #expect(taken.peerPreferences == live.peerPreferences && taken.relays == live.relays && taken.plain == live.plain)
        #expect(taken.onStop == .remove && taken.logLevel == "debug" && taken.metricsAddress == live.metricsAddress)
        #expect(taken.reconfiguration.namedPrefixes == live.namedPrefixes && live.namedPrefixes.count == 1)
        let restart = [
            "traffic: nothing", "except: [203.0.113.0/24]", "routed: [10.0.0.0/8]", "site: [192.0.2.0/24]", "mtu: 1400", "paths: relay-only",
            "inbound: filtered", "dns: {require-dnssec: true}", "nat64: none", "visited: yes", "visited-linger: 5s",
            "control: /c", "control-group: g", "state: /s", "lifetime: 900s", "poll-interval: 5s", "peer-idle: 20s", "messages-per-second: 20",
            "encapsulation: agent", "data-plane: bpf", "connection-tracking: always", "reverse-path: loosen", "routing-rules: fixed",
        ]
        for text in restart {
            let fresh = try read(text + "\n")
            #expect(old.restartKeys(against: fresh) == [String(text.prefix { $0 != ":" })], "\(text)")
            #expect(old.taking(fresh).restartKeys(against: fresh) == old.restartKeys(against: fresh), "named until it counts")
        }
        let moved = try NodeConfiguration(parsing: "home-addresses: [{address: 192.0.2.11, key: /k, certificate: /c}]\n", file: "matd.yaml")
        #expect(old.restartKeys(against: moved) == ["home-addresses"])
        // Each property is one or the other: `dns` has two, and `interfaces`, `metrics` and so on are nine.
        #expect(Mirror(reflecting: old).children.count == restart.count + 1 + 1 + 9, "a new key has to be taken by a reload, or named by it")
    }

    @Test("The size of packets in UDP and the site are read; what nobody can mean is refused")
    func datagrams() throws {
        func read(_ text: String) throws -> NodeConfiguration {
            try NodeConfiguration(parsing: "home-addresses:\n  - {address: 192.0.2.10, key: /k, certificate: /c}\n" + text, file: "matd.yaml")
        }
        let usual = try read("")
        #expect(usual.mtu == nil && usual.site.isEmpty)
        let configuration = try read("mtu: 1372\nsite: [192.0.2.0/24, '2001:db8:1::/48']\n")
        #expect(configuration.mtu == 1372 && configuration.site == [prefix("192.0.2.0/24"), prefix("2001:db8:1::/48")])
        for wrong in ["mtu: 1279", "mtu: 9001", "mtu: large", "site: [0.0.0.0/0]", "site: ['::/0']", "site: [home]"] {
            #expect(throws: (any Error).self, "\(wrong)") { try read(wrong) }
        }
    }

    @Test(
        "An interface stands for its MoPre as long as it is usable and in the network that routes it; for its addresses elsewhere, and if there is a single HoA too"
    )
    func places() throws {
        var configuration = NodeConfiguration()
        func homeEntry(_ prefix: String, _ places: [AddressRules.MobilePrefix]) -> NodeConfiguration.Home {
            let prefix = MATTesting.prefix(prefix)
            return NodeConfiguration.Home(
                hoa: HomeAddress(prefix.address), prefix: prefix, mobilePrefixes: places, keyPath: "/k", certificatePath: "/c")
        }
        func places(_ addresses: some Sequence<LocalAddress>) -> [IPAddress] {
            configuration.addressRules.places(of: Array(addresses)).map(\.address)
        }
        var place = AddressRules.MobilePrefix(interface: "wlan0", prefix: MATTesting.prefix("198.18.1.32/28"))
        configuration.homes = [homeEntry("198.51.100.16/28", [place])]
        let usable = [("192.0.2.10", "wlan0"), ("192.0.2.11", "wlan0"), ("192.0.2.12", "wwan0"), ("2001:db8::10", "wlan0")].map {
            LocalAddress(address: ip($0.0), interface: $0.1, interfaceIndex: 3, prefixLength: 24)
        }
        #expect(places(usable) == ["198.18.1.32", "192.0.2.12", "2001:db8::10"].map(ip))
        configuration.homes.append(homeEntry("203.0.113.5", []))
        #expect(places(usable.prefix(1)) == ["192.0.2.10", "198.18.1.32"].map(ip))
        #expect(places([]).isEmpty)
        for (network, there) in [("192.0.2.0/24", true), ("203.0.113.0/24", false)] {
            place.network = MATTesting.prefix(network)
            configuration.homes = [homeEntry("198.51.100.16/28", [place])]
            #expect(places(usable.prefix(1)) == [ip(there ? "198.18.1.32" : "192.0.2.10")])
            let routed = LocalAddress(address: ip("198.18.1.32"), interface: "wlan0", interfaceIndex: 3, prefixLength: 32)
            #expect(configuration.addressRules.isMobilePrefix(routed))
            #expect(!configuration.addressRules.isMobilePrefix(usable[0]))
        }
    }
}
