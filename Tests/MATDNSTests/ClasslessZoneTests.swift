import Foundation
import MATCore
import MATRuntime
import MATSignal
import Testing

@testable import MATDNS

private let hasServers = ["nsd", "nsd-checkzone", "kzonecheck", "knotd", "keymgr", "named", "unbound", "dig"].allSatisfy {
    ServerProcess.find($0) != nil
}

/// Zones of prefixes longer than /24 (RFC 2317), as a provider and its customers have them:
///
///     2.0.192.in-addr.arpa.          the provider's: NS of the customers' zones, aliases into them
///     64/26.2.0.192.in-addr.arpa.    192.0.2.64/26 by `mat zone --origin`, with a PTR at each address
///     rev.example.net.               192.0.2.128/26, not below the provider's zone, and with SRV and TXT alone
///     192-207.2.0.192.in-addr.arpa.  192.0.2.192/28 by a wildcard, with a PTR at .195
///     208-223.2.0.192.in-addr.arpa.  192.0.2.208/28, where nothing was written
///     240-255.2.0.192.in-addr.arpa.  192.0.2.240/28, which no server has
@Suite(
    "Zones of prefixes longer than /24", .enabled(if: hasServers, "needs nsd, knot, bind9, unbound, dig, and kzonecheck of knot-dnssecutils"),
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

    @Test("What a resolver passes on of servers that have only the zone above is no absence, by an alias or without one")
    func lame() throws {
        let place = try (upper: TemporaryDirectory(), lower: TemporaryDirectory(), resolver: TemporaryDirectory())
        let (lameBelow, lame) = ("224-239.\(Self.parent)", "113.0.203.in-addr.arpa")
        let parent = head(Self.parent) + "\(lameBelow). 300 IN NS ns.example.net.\n225.\(Self.parent). 300 IN CNAME 225.\(lameBelow).\n"
        let upper = try startNSD([(Self.parent, parent)], in: place.upper)
        // These answer for what is above with authority, and so that there is nothing below.
        let lower = try startNSD([(Self.parent, head(Self.parent)), ("0.203.in-addr.arpa", head("0.203.in-addr.arpa"))], in: place.lower)
        let unbound = try startUnbound(
            [Self.parent], at: upper.endpoint, in: place.resolver, elsewhere: [lameBelow, lame].map { ($0, lower.endpoint) })
        let loop = try EventLoop()
        func lookUp(_ address: String) throws -> IMSLookupResult {
            try lookup(loop, IMSLookup(resolver: Resolver(loop: loop, configuration: ResolverConfiguration(servers: [unbound.endpoint]))), address)
        }
        guard case .failed(let reason) = try lookUp("192.0.2.225") else { Issue.record("failed expected"); return }
        #expect(reason.hasPrefix("225.\(Self.parent). is an alias of 225.\(lameBelow)., and of that the DNS answer is an absence"), "\(reason)")
        guard case .failed = try lookUp("203.0.113.9") else { Issue.record("failed expected"); return }
        guard case .absent = try lookUp("192.0.2.1") else { Issue.record("the zone itself says that there is none"); return }
    }

    /// Zones of which some are signed, and a resolver with an anchor for each of these:
    ///
    ///     2.0.192.in-addr.arpa.          signed; the customers' have no DS in it, but for the last
    ///     64/26.2.0.192.in-addr.arpa.    signed, both forms
    ///     224/28.2.0.192.in-addr.arpa.   signed, SRV and TXT alone
    ///     128/26.2.0.192.in-addr.arpa.   not signed
    ///     rev.example.net.               not signed, SRV and TXT alone, for 192.0.2.208/28
    ///     192/28.2.0.192.in-addr.arpa.   not signed, though there is a DS for it
    @Test("DNSSEC vouches for what an alias leads to only if it does for the alias and for that; a zone that is not in order is named")
    func signatures() throws {
        let place = try TemporaryDirectory()
        let signed = [Self.parent, "example.net", "64/26.\(Self.parent)", "224/28.\(Self.parent)"]
        var parent = head(Self.parent)
        var zones = [
            ("example.net", head("example.net") + "ims1.example.net. 300 IN A 198.51.100.53\nrev.example.net. 300 IN NS ns.example.net.\n")
        ]
        for (prefix, origin, form) in [
            ("192.0.2.64/26", "64/26.\(Self.parent)", ZoneWriter.Form.both), ("192.0.2.224/28", "224/28.\(Self.parent)", .service),
            ("192.0.2.128/26", "128/26.\(Self.parent)", .both), ("192.0.2.208/28", "rev.example.net", .service),
            ("192.0.2.192/28", "192/28.\(Self.parent)", .both),
        ] {
            parent += try classless(origin).aliases(of: [#require(IPPrefix(prefix))], ttl: 90).joined(separator: "\n") + "\n"
            if origin.hasSuffix(Self.parent) { parent += "\(origin). 300 IN NS ns.example.net.\n" }
            zones.append((origin, head(origin) + (try written(prefix, in: origin, form)).joined(separator: "\n") + "\n"))
        }
        parent += "192/28.\(Self.parent). 300 IN DS 12345 13 2 \(String(repeating: "AB", count: 32))\n"
        let knot = try startKnot([(Self.parent, parent)] + zones, place, signed: signed)
        let anchors = try signed.map { zone in
            let keys = try ServerProcess.outcome("dig", ["+short", "-p", "\(knot.endpoint.port)", "@127.0.0.1", zone, "DNSKEY"]).text
            return "\(zone). DNSKEY " + (try #require(keys.split(separator: "\n").first { $0.hasPrefix("257 ") }))
        }
        let names = [Self.parent] + zones.map(\.0)
        let unbound = try startUnbound(names, at: knot.endpoint, in: place, anchors: anchors)
        let loop = try EventLoop()
        func lookUp(_ address: String, isRequired: Bool) throws -> IMSLookupResult {
            var configuration = ResolverConfiguration(servers: [unbound.endpoint])
            configuration.requireDNSSEC = isRequired
            return try lookup(loop, IMSLookup(resolver: Resolver(loop: loop, configuration: configuration)), address)
        }
        for (address, isVouchedFor) in [("192.0.2.65", true), ("192.0.2.225", true), ("192.0.2.129", false), ("192.0.2.209", false)] {
            guard case .found(let set) = try lookUp(address, isRequired: false) else { Issue.record("\(address) has no IMS"); continue }
            #expect(set.isAuthenticated == isVouchedFor, "\(address)")
            let strict = try lookUp(address, isRequired: true)
            if case .found = strict { #expect(isVouchedFor, "\(address)") } else { #expect(!isVouchedFor, "\(address): \(strict)") }
        }
        let alias = "129.2.0.192.in-addr.arpa. is an alias of 129.128/26.2.0.192.in-addr.arpa., and of that the DNS answer is"
        #expect(try lookUp("192.0.2.129", isRequired: true) == .unusable("\(alias) not authenticated, and DNSSEC is required"))
        for isRequired in [false, true] {
            guard case .unusable(let reason) = try lookUp("192.0.2.193", isRequired: isRequired) else { Issue.record("bogus expected"); continue }
            #expect(
                reason.hasPrefix("193.2.0.192.in-addr.arpa. is an alias of 193.192/28.2.0.192.in-addr.arpa., and of that the DNS answer is bogus"),
                "\(reason)")
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
