import MATCore
import MATDNS
import MATSignal
import Testing

@testable import MATLab

@Suite("The small internet as a value")
struct TopologyTests {
    private let internet = Topology.smallInternet

    private var plan: NetworkPlan { NetworkPlan(internet) { "lab-\($0)" } }

    @Test("Every address is one, in both families, and no two hosts share one")
    func addresses() throws {
        var seen: Set<IPAddress> = []
        for host in internet.hosts where !host.addresses.isEmpty {
            let parsed = try host.plainAddresses.map { try #require(IPAddress($0), "\($0)") }
            #expect(parsed.map(\.isIPv4) == [true, false], "\(host.name)")
            for address in parsed { #expect(seen.insert(address).inserted, "\(host.name): \(address)") }
        }
        for network in internet.networks {
            for address in network.router { #expect(IPPrefix(String(address)) != nil || IPAddress(String(address.prefix { $0 != "/" })) != nil) }
        }
    }

    @Test("Links are made before they are brought up, and addresses before routes over them")
    func order() throws {
        var made: Set<String> = ["lab-r/lo"]
        for step in plan.steps {
            for line in step.lines {
                let words = line.split(separator: " ").map(String.init)
                if line.hasPrefix("link add"), let type = words.firstIndex(of: "type") {
                    if words[type + 1] == "bridge" {
                        made.insert("lab-r/\(words[2])")
                    } else {
                        made.insert("\(words[4])/\(words[2])")
                        made.insert("\(words[11])/\(words[9])")
                        #expect(words[3] == "netns" && words[8] == "name" && words[10] == "netns")
                    }
                } else if line.hasPrefix("link set") {
                    #expect(made.contains("lab-\(step.host ?? "")/\(words[2])"), "\(line) on \(step.host ?? "")")
                } else if line.hasPrefix("address add") {
                    #expect(made.contains("lab-\(step.host ?? "")/\(words[4])"), "\(line) on \(step.host ?? "")")
                }
            }
        }
    }

    @Test("Hosts with fixed links have default routes in both families; the router and mr forward")
    func routes() {
        for name in ["ns", "resolver", "ims1", "ims2", "relay", "relay2", "cn", "plain", "plain2", "inner"] {
            let lines = plan.steps.filter { $0.host == name }.flatMap(\.lines)
            #expect(lines.filter { $0.hasPrefix("route add default") }.count == 2, "\(name)")
        }
        #expect(plan.routers == ["r", "mr"])
    }

    @Test("A host, network or mobile node that is not there is told with those that are")
    func unknown() {
        #expect(throws: LabError("no host \"x\"; there are: r ns resolver ims1 ims2 relay relay2 cn plain plain2 mn mn2 mr inner")) {
            try internet.host("x")
        }
        #expect(throws: LabError("cn is not mobile; these are: mn mn2 mr")) { try internet.mobile("cn") }
        let error = #expect(throws: LabError.self) { try internet.access("infra") }
        #expect(error?.description.hasPrefix("no network \"infra\"; there are: wlan cellular home ") == true)
    }

    @Test("The router's ends of links carry the names that blocks and delays go by")
    func ports() throws {
        #expect(try internet.ports("cn") == ["cn"])
        #expect(try internet.ports("mn") == ["mn-wlan", "mn-cellular"])
        #expect(try internet.ports("home") == ["home"])
        for name in ["inner", "r", "double"] { #expect(try internet.ports(name).isEmpty) }
    }

    @Test("Every gateway has numbers of its own outside, and a name that an interface can have")
    func gateways() {
        var seen: Set<String> = []
        for (network, gateway) in internet.gateways {
            #expect(network.name.utf8.count <= 15 && !network.summary.isEmpty, "\(network.name)")
            let addresses = gateway.outside + [gateway.nextAddress, gateway.transferAddress].compactMap { $0 }
            for address in addresses { #expect(seen.insert(address).inserted, "\(address)") }
            #expect(network.access?.pool != nil || network.access?.advertised != nil, "\(network.name)")
        }
    }

    @Test("A lab's name is lower-case letters and digits, a letter first, 16 at most", arguments: ["", "1a", "Lab", "a-b", "abcdefghijklmnopq"])
    func names(name: String) { #expect(throws: LabError.self) { try Lab(name: name, programs: nil) } }
}

@Suite("The lab's zones")
struct ZoneFilesTests {
    private func texts() throws -> [String: String] {
        let key = try #require(PublicKey([UInt8](repeating: 7, count: 32)))
        let prefixes = ["192.0.2.0/24", "2001:db8:10::/48"].compactMap { IPPrefix($0) }
        let zones = try ZoneFiles(topology: .smallInternet, servers: [.init(host: "ims1", prefixes: prefixes, keys: [key])]).texts()
        return Dictionary(uniqueKeysWithValues: zones.map { ($0.name, $0.text) })
    }

    @Test("Every named host is found by its name, and its addresses by theirs")
    func hosts() throws {
        let zones = try texts()
        let forward = try #require(zones["mat.example"])
        #expect(forward.contains("cn.mat.example. A 198.51.100.20\n") && forward.contains("cn.mat.example. AAAA 2001:db8:20::20\n"))
        #expect(zones["100.51.198.in-addr.arpa"]?.contains("\n20.100.51.198.in-addr.arpa. PTR cn.mat.example.\n") == true)
        #expect(
            zones["8.b.d.0.1.0.0.2.ip6.arpa"]?.contains("\n0.7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.f.f.0.1.0.0.8.b.d.0.1.0.0.2.ip6.arpa. PTR inner.")
                == true)
        #expect(!forward.contains("mr.mat.example"))
    }

    @Test("An IMS is found by a wildcard, and by each home address whose PTR would hide it")
    func servers() throws {
        let zone = try #require(try texts()["2.0.192.in-addr.arpa"])
        for owner in ["*.2.0.192.in-addr.arpa.", "10.2.0.192.in-addr.arpa.", "11.2.0.192.in-addr.arpa.", "70.2.0.192.in-addr.arpa."] {
            #expect(zone.contains("\n\(owner) 30 IN TYPE65400 "), "\(owner)")
        }
        #expect(zone.contains("_mat-ims._udp.10.2.0.192.in-addr.arpa. 30 IN SRV 10 5 6288 ims1.mat.example."))
    }

    @Test("The records of an IMS carry the relays of its prefixes")
    func relays() throws {
        let key = try #require(PublicKey([UInt8](repeating: 7, count: 32)))
        let relay = try RelayHost(["203.0.113.134", "2001:db8:53::134"].map { Endpoint(try #require(IPAddress($0)), port: SignalPort.relay) })
        let prefix = try #require(IPPrefix("192.0.2.0/24"))
        let zones = try ZoneFiles(topology: .smallInternet, servers: [.init(host: "ims1", prefixes: [prefix], keys: [key], relays: [relay])]).texts()
        let text = try #require(zones.first { $0.name == "2.0.192.in-addr.arpa" }?.text)
        // Address and port of the second, as octets of the record.
        let octets = "20010DB8005300000000000000000134" + "1892"
        let record = try #require(text.split(separator: "\n").first { $0.hasPrefix("*.2.0.192.in-addr.arpa. 30 IN TYPE65400 ") })
        #expect(record.uppercased().filter { $0 != " " }.contains(octets), "\(record)")
    }

    @Test("A line stands in its own zone only")
    func zones() throws {
        for (name, text) in try texts() {
            for line in text.split(separator: "\n").dropFirst() { #expect(line.split(separator: " ")[0].hasSuffix("\(name).")) }
        }
    }
}

@Suite("The daemons' configurations in the lab")
struct DaemonConfigurationTests {
    @Test("A mobile router's names its home prefixes, and a prefix for each interface")
    func router() throws {
        let host = try Topology.smallInternet.host("mr")
        guard case .matd(let node) = host.program else { return #expect(Bool(false)) }
        let text = Daemons.node(host, node, directory: "/run/x/mr", resolvers: ["203.0.113.131", "2001:db8:53::131"], devices: ["wlan0", "wwan0"])
        #expect(
            text.hasPrefix(
                """
                home-addresses:
                  - prefix: "192.0.2.64/28"
                    key: /run/x/mr/node.key
                    certificate: "/run/x/mr/192.0.2.64.certificate"
                    mobile-prefixes:
                      - interface: wlan0
                        network: "203.0.113.0/26"
                        prefix: "198.18.1.16/28"

                """))
        #expect(text.contains("prefer: [wlan0, wwan0]\n") && text.contains("traffic: everything\n"))
    }

    @Test("A server's names its prefixes, and those of its mobile networks")
    func server() {
        let served = [Topology.ServedPrefix("192.0.2.0/24", mobile: ["198.18.0.0/15"]), Topology.ServedPrefix("2001:db8::/48")]
        let text = Daemons.server(served, directory: "/run/x/ims1", resolvers: ["203.0.113.131", "2001:db8:53::131"])
        #expect(
            text.contains(
                """
                prefixes:
                  - prefix: "192.0.2.0/24"
                    mobile-prefixes: ["198.18.0.0/15"]
                  - prefix: "2001:db8::/48"
                dns:

                """))
    }

    @Test("A server's names its relays with all addresses of each, and a relay's its residents and the others")
    func relays() throws {
        let resolvers = ["203.0.113.131"]
        let server = Daemons.server(
            [], relays: [["203.0.113.134", "2001:db8:53::134"], ["203.0.113.135"]], directory: "/run/x/ims1", resolvers: resolvers)
        #expect(server.contains("relays: [\"203.0.113.134, 2001:db8:53::134\", \"203.0.113.135\"]\n"))
        let relay = Daemons.relay(["192.0.2.0/24"], others: ["203.0.113.135"], directory: "/run/x/relay", resolvers: resolvers)
        #expect(relay.hasPrefix("residents:\n  - prefix: \"192.0.2.0/24\"\nother-relays: [\"203.0.113.135\"]\nstate: /run/x/relay/state\n"))
    }

    @Test("The access networks' server and client know both networks")
    func access() {
        let server = AccessNetworks.serverConfiguration(Array(Topology.smallInternet.networks.prefix(2)), leases: "/run/x/leases")
        #expect(
            server.contains("dhcp-range=203.0.113.10,203.0.113.60,255.255.255.192,1h\n") && server.contains("dhcp-range=2001:db8:b::,ra-only,64,1h\n")
        )
        #expect(AccessNetworks.clientScript(.smallInternet).contains("case $interface in wlan0) metric=100;; wwan0) metric=200;; esac\n"))
    }
}
