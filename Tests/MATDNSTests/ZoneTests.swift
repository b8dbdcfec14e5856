import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

private let hasServers = ["nsd", "nsd-checkzone", "kzonecheck", "unbound"].allSatisfy { ServerProcess.find($0) != nil }

/// The zones of an IMS as its operator would write them, served by nsd:
///
///     example.net.               ims1 (two addresses), ims2 (without hint), many (a TXT too long for UDP)
///     2.0.192.in-addr.arpa.      TYPE65400 for 192.0.2.0/24, a PTR at .7 beside it
///     16-31.51.198.in-addr.arpa. 198.51.16.0/20, which ends between two labels
///     8.b.d.0.1.0.0.2.ip6.arpa.  TYPE65400 for 2001:db8:a::/48, a PTR at 2001:db8:a::7
///     113.0.203.in-addr.arpa.    the SRV and TXT form only, with a PTR at .7
@Suite(
    "Zones in real name servers", .enabled(if: hasServers, "needs nsd, unbound, and kzonecheck of knot-dnssecutils"),
    .timeLimit(.minutes(2)))
struct ZoneTests {
    private let key = [UInt8](repeating: 0xA7, count: 32)
    private let otherKey = [UInt8](repeating: 0x11, count: 32)

    private func name(_ text: String) throws -> DomainName { try #require(DomainName(text)) }
    private func prefix(_ text: String) throws -> IPPrefix { try #require(IPPrefix(text)) }
    private func hoa(_ text: String) throws -> HomeAddress { try #require(HomeAddress(text)) }

    private func servers() throws -> [IMSRecord] {
        [
            IMSRecord(
                priority: 10, weight: 5, target: try name("ims1.example.net"), keys: [key],
                addresses: [try #require(IPAddress("198.51.100.53"))]),
            IMSRecord(priority: 20, weight: 0, port: 7288, target: try name("ims2.example.net"), keys: [key, otherKey]),
        ]
    }

    private func zone(_ apex: String, _ prefixes: [String], form: ZoneWriter.Form, existing: [String] = [], extra: String = "")
        throws -> (name: String, text: String)
    {
        let writer = ZoneWriter(servers: try servers(), form: form)
        let text = try writer.zone(
            name(apex), nameServers: [name("ns.example.net")], contact: name("hostmaster.example.net"), serial: 1,
            prefixes: prefixes.map(prefix), existing: existing.map(hoa))
        return (apex, text + extra)
    }

    private func zones() throws -> [(name: String, text: String)] {
        let ptr = { (address: String) in "\(DomainName.reverse(try prefix(address))) 300 IN PTR host.example.net.\n" }
        let long = (0..<30).map { "many 60 IN TXT \"\(String(repeating: "x", count: 100))\($0)\"\n" }.joined()
        let forward = """
            $ORIGIN example.net.
            @ 300 IN SOA ns hostmaster 1 3600 600 604800 60
            @ 300 IN NS ns
            ns 300 IN A 127.0.0.1
            ims1 300 IN A 198.51.100.53
            ims1 300 IN AAAA 2001:db8:53::1
            ims2 120 IN A 198.51.100.54
            ims2 120 IN AAAA 2001:db8:54::1
            alias 300 IN CNAME ims2

            """
        return [
            ("example.net", forward + long),
            try zone("2.0.192.in-addr.arpa", ["192.0.2.0/24"], form: .both, existing: ["192.0.2.7"], extra: ptr("192.0.2.7")),
            try zone("51.198.in-addr.arpa", ["198.51.16.0/20"], form: .generic),
            try zone(
                "8.b.d.0.1.0.0.2.ip6.arpa", ["2001:db8:a::/48"], form: .both, existing: ["2001:db8:a::7"],
                extra: ptr("2001:db8:a::7")),
            try zone(
                "113.0.203.in-addr.arpa", ["203.0.113.0/24"], form: .service, existing: ["203.0.113.7"], extra: ptr("203.0.113.7")
            ),
        ]
    }

    @Test("nsd-checkzone and kzonecheck accept every zone that is written")
    func accepted() throws {
        let directory = try TemporaryDirectory()
        for form in ZoneWriter.Form.allCases {
            for (apex, prefixes) in [
                ("in-addr.arpa", ["192.0.2.0/24", "198.51.16.0/20", "203.0.113.8/29", "192.0.2.9/32"]),
                ("ip6.arpa", ["2001:db8::/32", "2001:db9::/35", "2001:dba::1/128"]),
            ] {
                let file = try directory.write(
                    "zone", zone(apex, prefixes, form: form, existing: ["192.0.2.7", "2001:db8::7"]).text)
                let nsd = try ServerProcess.outcome("nsd-checkzone", [apex, file])
                #expect(nsd.status == 0, "\(nsd.text)")
                let knot = try ServerProcess.outcome("kzonecheck", ["-o", apex, file])
                #expect(knot.status == 0, "\(knot.text)")
            }
        }
        for zone in try zones() {
            let file = try directory.write("zone", zone.text)
            #expect(try ServerProcess.outcome("nsd-checkzone", [zone.name, file]).status == 0)
            let knot = try ServerProcess.outcome("kzonecheck", ["-o", zone.name, file])
            #expect(knot.status == 0, "\(knot.text)")
        }
    }

    @Test(
        "Through nsd alone and through unbound, every HoA of the prefixes has its IMSs, others have none, and a prefix has them at its own name"
    )
    func lookups() throws {
        let directory = try TemporaryDirectory()
        let zones = try zones()
        let nsd = try startNSD(zones, in: directory)
        let unbound = try startUnbound(zones.map(\.name), at: nsd.endpoint, in: directory)
        for server in [nsd, unbound] {
            let loop = try EventLoop()
            let ims = IMSLookup(resolver: Resolver(loop: loop, configuration: ResolverConfiguration(servers: [server.endpoint])))
            let covered = [
                "192.0.2.1", "192.0.2.7", "192.0.2.255", "198.51.16.1", "198.51.31.254", "203.0.113.1", "203.0.113.7",
                "2001:db8:a::1", "2001:db8:a::7", "2001:db8:a::8", "2001:db8:a:ffff::1", "2001:db8:a:0:1::",
                // Certificates of prefixes.
                "192.0.2.0/24", "192.0.2.16/28", "198.51.20.0/24", "198.51.16.0/20", "2001:db8:a::/48", "2001:db8:a:b::/64",
                "2001:db8:a::/112", "203.0.113.0/24",
            ]
            for address in covered {
                guard case .found(let set) = try lookup(loop, ims, address) else {
                    Issue.record("\(address) has no IMS"); continue
                }
                #expect(set.keys == [key, otherKey] || set.keys == [otherKey, key])
                let byPriority = set.servers.sorted { $0.priority < $1.priority }
                #expect(byPriority.map(\.port) == [6288, 7288])
                let isHinted = !address.hasPrefix("203.")
                #expect(
                    byPriority.first.map { Set($0.addresses.map(\.description)) }
                        == (isHinted ? ["198.51.100.53"] : ["198.51.100.53", "2001:db8:53::1"]))
                #expect(byPriority.last.map { Set($0.addresses.map(\.description)) } == ["198.51.100.54", "2001:db8:54::1"])
                // The addresses' 120 s are shorter than the record's 300.
                #expect((set.expires - SystemClock.now().monotonic) <= .seconds(120))
            }
            for address in ["198.51.32.1", "198.51.15.255", "2001:db8:b::1"] {
                guard case .absent = try lookup(loop, ims, address) else { Issue.record("\(address) is not absent"); continue }
            }
        }
    }

    @Test("An answer too long for UDP comes by TCP, and aliases are followed")
    func overTCP() throws {
        let directory = try TemporaryDirectory()
        let nsd = try startNSD(zones(), in: directory)
        let loop = try EventLoop()
        let resolver = Resolver(loop: loop, configuration: ResolverConfiguration(servers: [nsd.endpoint]))
        guard case .records(let records) = try resolve(loop, resolver, "many.example.net", .txt) else {
            Issue.record("no records"); return
        }
        #expect(records.rdata.count == 30)
        #expect(resolver.counters.overTCP == 1)
        guard case .records(let alias) = try resolve(loop, resolver, "alias.example.net", .a) else {
            Issue.record("no records"); return
        }
        #expect(alias.rdata == [[198, 51, 100, 54]])
        guard case .absent(let absence) = try resolve(loop, resolver, "nothing.example.net", .a) else {
            Issue.record("not absent"); return
        }
        #expect(absence.isNameAbsent)
        guard case .absent(let noData) = try resolve(loop, resolver, "ns.example.net", .txt) else {
            Issue.record("not absent"); return
        }
        #expect(!noData.isNameAbsent)
        // nsd refuses a question about a zone that it does not serve, which does not count as absence.
        #expect(try resolve(loop, resolver, "example.org", .a) == .failed(.refused(code: 5)))
    }

    @Test("When the name server behind the resolver dies, look-ups fail; nothing becomes absent")
    func deadServer() throws {
        let directory = try TemporaryDirectory()
        let zones = try zones()
        var nsd: ServerProcess? = try startNSD(zones, in: directory)
        let unbound = try startUnbound(zones.map(\.name), at: try #require(nsd).endpoint, in: directory)
        nsd = nil
        let loop = try EventLoop()
        let ims = IMSLookup(resolver: Resolver(loop: loop, configuration: ResolverConfiguration(servers: [unbound.endpoint])))
        guard case .failed = try lookup(loop, ims, "192.0.2.1") else { Issue.record("a dead server is no absence"); return }
    }
}
