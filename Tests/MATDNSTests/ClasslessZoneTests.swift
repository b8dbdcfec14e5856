import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

private let hasServers = ["nsd", "nsd-checkzone", "kzonecheck", "knotd", "keymgr", "named", "unbound"].allSatisfy { ServerProcess.find($0) != nil }

/// Zones of prefixes longer than /24 (RFC 2317), as a provider and its customers have them:
///
///     2.0.192.in-addr.arpa.          the provider's: NS of the customers' zones, aliases into them
///     64/26.2.0.192.in-addr.arpa.    192.0.2.64/26 by `mat zone --origin`, with a PTR at each address
///     rev.example.net.               192.0.2.128/26, not below the provider's zone, and with SRV and TXT alone
///     192-207.2.0.192.in-addr.arpa.  192.0.2.192/28 by a wildcard, with a PTR at .195
///     208-223.2.0.192.in-addr.arpa.  192.0.2.208/28, where nothing was written
///     240-255.2.0.192.in-addr.arpa.  192.0.2.240/28, which no server has
@Suite(
    "Zones of prefixes longer than /24", .enabled(if: hasServers, "needs nsd, knot, bind9, unbound, and kzonecheck of knot-dnssecutils"),
    .timeLimit(.minutes(2)))
struct ClasslessZoneTests {
    private let key = [UInt8](repeating: 0xA7, count: 32)
    private static let parent = "2.0.192.in-addr.arpa"

    private func writer(_ form: ZoneWriter.Form) throws -> ZoneWriter {
        let record = IMSRecord(
            target: try #require(DomainName("ims1.example.net")), keys: [key], addresses: [try #require(IPAddress("198.51.100.53"))])
        return ZoneWriter(servers: [record], form: form, ttl: 120)
    }

    private func head(_ zone: String) -> String {
        "\(zone). 300 IN SOA ns.example.net. hostmaster.example.net. 1 3600 600 604800 60\n\(zone). 300 IN NS ns.example.net.\n"
    }

    private func classless(_ origin: String) throws -> ClasslessZone { ClasslessZone(origin: try #require(DomainName(origin))) }

    private func zones() throws -> [(name: String, text: String)] {
        var parent = head(Self.parent)
        var zones: [(name: String, text: String)] = [
            ("example.net", head("example.net") + "ns.example.net. 300 IN A 127.0.0.1\nims1.example.net. 300 IN A 198.51.100.53\n")
        ]
        for (prefix, origin, lines) in [
            ("192.0.2.64/26", "64/26.2.0.192.in-addr.arpa", try written("192.0.2.64/26", in: "64/26.2.0.192.in-addr.arpa", .both)),
            ("192.0.2.128/26", "rev.example.net", try written("192.0.2.128/26", in: "rev.example.net", .service)),
            (
                "192.0.2.192/28", "192-207.2.0.192.in-addr.arpa",
                try writer(.both).lines(at: #require(DomainName("*.192-207.2.0.192.in-addr.arpa")))
                    + ["195.192-207.2.0.192.in-addr.arpa. 300 IN PTR printer.example.net."]
            ),
            ("192.0.2.208/28", "208-223.2.0.192.in-addr.arpa", ["209.208-223.2.0.192.in-addr.arpa. 300 IN PTR host.example.net."]),
            ("192.0.2.240/28", "240-255.2.0.192.in-addr.arpa", []),
        ] {
            let zone = try classless(origin)
            let aliases = zone.aliases(of: [try #require(IPPrefix(prefix))], ttl: 90)
            #expect(aliases.allSatisfy { $0.contains(" 90 IN CNAME ") && $0.hasSuffix(".\(origin).") })
            parent += aliases.joined(separator: "\n") + "\n"
            if origin.hasSuffix(Self.parent) { parent += "\(origin). 300 IN NS ns.example.net.\n" }
            if !lines.isEmpty { zones.append((origin, head(origin) + lines.joined(separator: "\n") + "\n")) }
        }
        return zones + [(Self.parent, parent)]
    }

    private func written(_ prefix: String, in origin: String, _ form: ZoneWriter.Form) throws -> [String] {
        let lines = try writer(form).lines(prefixes: [#require(IPPrefix(prefix))], in: classless(origin))
        // As most such zones have: a wildcard would cover none of these.
        let names = (0..<256).compactMap { IPAddress(ipv4: 0xC000_0200 + $0) }
        let pointers = try names.filter { try #require(IPPrefix(prefix)).contains($0) }.compactMap { try classless(origin).name(of: $0) }
        return lines + pointers.map { "\($0) 300 IN PTR host.example.net." }
    }

    @Test("Each server takes what is written, and addresses are found by their aliases: asked directly and through a resolver, in both forms")
    func servers() throws {
        let zones = try zones()
        let directory = try TemporaryDirectory()
        for zone in zones {
            let file = try directory.write("zone", zone.text)
            let (nsd, knot) = (
                try ServerProcess.outcome("nsd-checkzone", [zone.name, file]), try ServerProcess.outcome("kzonecheck", ["-o", zone.name, file])
            )
            #expect(nsd.status == 0 && knot.status == 0, "\(nsd.text)\(knot.text)")
        }
        typealias Start = ([(name: String, text: String)], TemporaryDirectory) throws -> ServerProcess
        let starts: [Start] = [{ try startNSD($0, in: $1) }, { try startKnot($0, $1) }, { try startBIND($0, $1) }]
        for start in starts {
            let place = try TemporaryDirectory()
            let authority = try start(zones, place)
            let unbound = try startUnbound(
                zones.map(\.name) + ["240-255.2.0.192.in-addr.arpa"], at: authority.endpoint, in: place)
            for server in [authority, unbound] {
                let loop = try EventLoop()
                let ims = IMSLookup(resolver: Resolver(loop: loop, configuration: ResolverConfiguration(servers: [server.endpoint])))
                for address in ["192.0.2.64", "192.0.2.65", "192.0.2.127", "192.0.2.128", "192.0.2.191", "192.0.2.193"] {
                    guard case .found(let set) = try lookup(loop, ims, address) else {
                        Issue.record("\(address) has no IMS")
                        continue
                    }
                    #expect(set.keys == [key] && set.servers.map(\.target.description) == ["ims1.example.net."], "\(address)")
                    // The aliases' 90 s are shorter than the records' 120.
                    #expect((set.expires - SystemClock.now().monotonic) <= .seconds(90), "\(address)")
                }
                // No alias; a name that hides the wildcard; a zone without lines.
                for address in ["192.0.2.1", "192.0.2.195", "192.0.2.209", "192.0.2.210"] {
                    guard case .absent = try lookup(loop, ims, address) else { Issue.record("\(address) is not absent"); continue }
                }
                guard server.endpoint == authority.endpoint else { continue }
                guard case .failed(let reason) = try lookup(loop, ims, "192.0.2.241") else {
                    Issue.record("a zone that nobody has is no absence")
                    continue
                }
                #expect(
                    reason.hasPrefix("241.2.0.192.in-addr.arpa. is an alias of 241.240-255.2.0.192.in-addr.arpa., and of that the DNS "),
                    "\(reason)")
                #expect(
                    try aliases(loop, ims.resolver, "192.0.2.241") == "241.240-255.2.0.192.in-addr.arpa."
                        && aliases(loop, ims.resolver, "192.0.2.1") == nil)
            }
        }
    }

    private func aliases(_ loop: EventLoop, _ resolver: Resolver, _ address: String) throws -> String? {
        var end: String?
        let name = DomainName.reverse(try #require(IPPrefix(address)))
        try run(loop) { done in
            resolver.resolveAliases(of: name) {
                if case .end(let alias) = $0 { end = alias.name.description }
                done()
            }
        }
        return end
    }

    @Test("Names in such a zone are last octets, so it is for one /24 at most; of a server's prefixes those below the zone's own name are meant")
    func names() throws {
        let zone = try classless("64/26.2.0.192.in-addr.arpa")
        func prefixes(_ texts: String...) throws -> [IPPrefix] { try texts.map { try #require(IPPrefix($0)) } }
        #expect(
            zone.aliases(of: try prefixes("192.0.2.64/31"), ttl: 300) == [
                "64.2.0.192.in-addr.arpa. 300 IN CNAME 64.64/26.2.0.192.in-addr.arpa.",
                "65.2.0.192.in-addr.arpa. 300 IN CNAME 65.64/26.2.0.192.in-addr.arpa.",
            ])
        #expect(zone.aliases(of: try prefixes("192.0.2.0/24"), ttl: 300).count == 256)
        #expect(zone.canHold(try prefixes("192.0.2.64/27", "192.0.2.96/27")))
        for bad in [["192.0.2.64/26", "203.0.113.0/26"], ["192.0.2.0/23"], ["2001:db8::/120"], []] {
            #expect(!zone.canHold(try bad.map { try #require(IPPrefix($0)) }), "\(bad)")
        }
        #expect(zone.own(try prefixes("203.0.113.0/26", "192.0.2.64/26")).map(\.description) == ["192.0.2.64/26"])
        #expect(try classless("rev.example.net").own(prefixes("203.0.113.0/26")).count == 1)
    }
}
