import MATSignal
import Testing

@testable import MATCommand

/// What `mat doctor` makes of a host's firewall, sizes of packets and DNSSEC.
@Suite("Doctor, of the network") struct DoctorNetworkTests {
    private func wlan(mtu: Int = 1500) throws -> HostFacts.Interface {
        HostFacts.Interface(name: "wlan0", addresses: [try #require(IPAddress("203.0.113.10"))], hasDefaultRoute: [.ipv4], mtu: mtu)
    }

    private func nftables(_ policy: String, _ rules: String...) throws -> HostFirewall {
        let list = rules.enumerated().map {
            #"{"rule":{"family":"inet","table":"fw","chain":"input","handle":\#($0.offset + 3),"expr":[\#($0.element)]}}"#
        }
        let text =
            #"{"nftables":[{"chain":{"family":"inet","table":"fw","name":"input","type":"filter","hook":"input","prio":0,"policy":"\#(policy)"}},"#
            + #"{"set":{"family":"inet","table":"fw","name":"open","elem":[22,{"range":[6288,6290]}]}}"#
            + list.map { "," + $0 }.joined() + "]}"
        return try #require(
            NFTablesListing.parse(
                Array(text.utf8),
                texts: NFTablesListing.texts("table inet fw { # handle 1\n\tchain input { # handle 2\n\t\tudp dport 6289 drop # handle 3\n")))
    }

    private func findings(_ firewall: HostFirewall, relays: [UInt16] = [6290]) throws -> [DoctorFinding] {
        DoctorFindings.firewall(
            firewall, gaps: [], roles: [.node(homes: [try #require(IPAddress("192.0.2.10"))], relays: relays)], interfaces: [try wlan()],
            isRoot: true)
    }

    private let established = #"{"match":{"op":"in","left":{"ct":{"key":"state"}},"right":["established","related"]}},{"accept":null}"#

    private func dport(_ value: String) -> String {
        #"{"match":{"op":"==","left":{"payload":{"protocol":"udp","field":"dport"}},"right":\#(value)}}"#
    }

    @Test("Relays are asked about at their own ports")
    func relayPorts() throws {
        let text =
            #"{"nftables":[{"chain":{"family":"inet","table":"fw","name":"output","type":"filter","hook":"output","prio":0,"policy":"accept"}},"#
            + #"{"rule":{"family":"inet","table":"fw","chain":"output","handle":3,"expr":["# + dport("7290") + #",{"drop":null}]}}]}"#
        let firewall = try #require(NFTablesListing.parse(Array(text.utf8), texts: [:]))
        #expect(try findings(firewall).map(\.severity) == [.ok])
        let found = try findings(firewall, relays: [6290, 7290])
        #expect(found.count == 1 && found[0].text.contains("to relays (port 7290)") && found[0].text.contains("at that port"), "\(found)")
        #expect(DoctorFindings.endpoint("[2001:db8::1]:7290")?.port == 7290)
        for none in ["?", "192.0.2.1", "2001:db8::1", "2001:db8::1:7290", ""] { #expect(DoctorFindings.endpoint(none) == nil, "\(none)") }
    }

    @Test("nftables: the rule that drops is named with what is lost and what to do; accepted in time, nothing is said")
    func nftables() throws {
        let dropped = try findings(try nftables("accept", dport("6289") + #",{"drop":null}"#))
        #expect(dropped.count == 1 && dropped[0].severity == .problem)
        #expect(
            dropped[0].text.contains(
                "answers to UDP port 6289 over wlan0 are dropped by `udp dport 6289 drop` (nftables, table inet fw, chain input)"))
        #expect(dropped[0].remedy?.contains("nft insert rule inet fw input udp dport 6289 accept") == true)
        // As most hosts have it: answers pass, the rest does not.
        let closed = try findings(try nftables("drop", established))
        #expect(closed.map(\.severity) == [.warning] && closed[0].text.contains("what comes to UDP port 6289 unasked"))
        #expect(closed[0].text.contains("the policy of nftables"))
        for rule in [dport("6289"), dport(#""@open""#), dport(#"{"set":[53,6289]}"#)] {
            #expect(try findings(try nftables("drop", established, rule + #",{"accept":null}"#)).map(\.severity) == [.ok])
        }
        // A rule that can't be judged may let it pass.
        let doubtful = try findings(try nftables("drop", established, dport("6289") + #",{"limit":{"rate":5}},{"accept":null}"#))
        #expect(doubtful.map(\.severity) == [.warning] && doubtful[0].text.contains("unless an earlier rule"))
        let home = try findings(
            try nftables(
                "accept",
                #"{"match":{"op":"==","left":{"payload":{"protocol":"ip","field":"daddr"}},"right":{"prefix":{"addr":"192.0.2.0","len":24}}}},{"drop":null}"#
            ))
        #expect(home.map(\.severity) == [.problem] && home[0].text.contains("packets to 192.0.2.10"))
        #expect(NFTablesListing.parse(Array("no JSON".utf8)) == nil)
    }

    @Test("iptables: chains that are jumped to, negation, several ports; the tool that shows the rule is named")
    func iptables() throws {
        var firewall = HostFirewall()
        let text = """
            *filter
            :INPUT DROP [0:0]
            :OUTPUT ACCEPT [0:0]
            :mine - [0:0]
            -A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
            -A INPUT -p udp -m comment --comment "what nodes -j DROP" -j mine
            -A OUTPUT ! -o lo -p udp -m multiport --dports 53,6288:6290 -j REJECT --reject-with icmp-port-unreachable
            -A mine -p udp -m udp --dport 6289 -j ACCEPT
            COMMIT
            """
        for chain in IPTablesListing.parse(text, family: .ipv4, tool: .iptablesLegacy) { firewall.add(chain) }
        let found = try findings(firewall)
        #expect(found.count == 3 && found.allSatisfy { $0.text.contains("--dports 53,6288:6290") && $0.text.contains("iptables-legacy") })
        #expect(found.contains { $0.severity == .problem && $0.text.contains("this node can't register") })
        #expect(found.allSatisfy { $0.remedy?.contains("iptables-legacy -I OUTPUT -p udp --sport 6289 -j ACCEPT") == true })
    }

    @Test("Sizes: links too small for IPv6, one larger than its network, and a path that swallows large packets without a word")
    func sizes() throws {
        let (router, server) = (try #require(IPAddress("203.0.113.1")), try #require(IPAddress("198.51.100.2")))
        var host = HostFacts()
        host.interfaces = [try wlan(mtu: 1200)]
        #expect(DoctorFindings.sizes(host, [], homes: [.ipv4, .ipv6]).map(\.severity) == [.problem])
        host.interfaces = [try wlan(mtu: 9000)]
        var path = PathSize(target: .router, address: router, interface: "wlan0", mtu: 9000, answered: [576, 1280, 1500], told: 9000)
        let jumbo = DoctorFindings.sizes(host, [path], homes: [.ipv4])
        #expect(jumbo.map(\.severity) == [.problem] && jumbo[0].remedy?.contains("ip link set wlan0 mtu 1500") == true)
        path.answered.insert(9000)
        #expect(DoctorFindings.sizes(host, [path], homes: [.ipv4]).map(\.severity) == [.ok])
        path = PathSize(target: .mappingServer, address: server, interface: "wlan0", mtu: 1500, answered: [576, 1280], told: 1500)
        #expect(DoctorFindings.sizes(host, [path], homes: [.ipv4])[0].text.contains("no router says that they are too big"))
        path.told = 1400
        #expect(DoctorFindings.sizes(host, [path], homes: [.ipv4]).isEmpty)
        path.answered = []
        #expect(DoctorFindings.sizes(host, [path], homes: [.ipv4]).isEmpty)
    }

    @Test("DNSSEC: bogus, no DS, no validation and no signatures are told apart, and are problems where DNSSEC is required")
    func dnssec() throws {
        var facts = DNSSECFacts(
            name: "10.2.0.192.in-addr.arpa.", resolver: Endpoint(try #require(IPAddress("203.0.113.131")), port: 53), isRequired: false)
        #expect(DoctorFindings.dnssec(facts) == nil)
        facts.answer = .init(code: 2, reasons: ["DNSKEY missing"])
        facts.unchecked = .init(code: 0)
        let bogus = try #require(DoctorFindings.dnssec(facts))
        #expect(bogus.severity == .problem && bogus.text.contains("bogus (DNSKEY missing)") && bogus.remedy?.contains("delv @203.0.113.131") == true)
        // A server that fails altogether is another matter.
        facts.unchecked = .init(code: 2)
        #expect(DoctorFindings.dnssec(facts) == nil)
        facts.answer = .init(code: 0)
        #expect(DoctorFindings.dnssec(facts)?.severity == .note)
        facts.isRequired = true
        #expect(DoctorFindings.dnssec(facts)?.severity == .problem)
        facts.answer = .init(code: 0, hasSignatures: true)
        facts.validatesRoot = true
        #expect(DoctorFindings.dnssec(facts)?.text.contains("no DS leads to it") == true)
        facts.validatesRoot = false
        #expect(DoctorFindings.dnssec(facts)?.text.contains("does not validate") == true)
        facts.answer?.isAuthenticated = true
        #expect(DoctorFindings.dnssec(facts)?.severity == .ok)
    }
}
