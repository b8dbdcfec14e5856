import MATCore
import MATDNS
import MATSignal

/// The zones of a topology: a forward zone of the hosts' names, and reverse zones with their PTRs and the records that make each IMS
/// findable. Pure: tests read it.
struct ZoneFiles {
    /// What the zones say of an IMS.
    struct Server {
        var host: String
        var prefixes: [IPPrefix]
        var keys: [PublicKey]
        /// That serve its prefixes.
        var relays: [RelayHost] = []
    }

    private static let ttlSeconds: UInt32 = 30

    let topology: Topology
    let servers: [Server]

    /// The zones' texts by their names, without final dots.
    func texts() throws(LabError) -> [(name: String, text: String)] {
        var forward = head(topology.domain)
        let names =
            topology.named.flatMap { host in host.plainAddresses.map { (host.name, $0) } } + topology.furtherNames.map { ($0.name, $0.address) }
        for (name, address) in names { forward.append("\(topology.domainName(name)) \(address.contains(":") ? "AAAA" : "A") \(address)") }
        let lines = try reverseLines()
        let reverse = topology.reverseZones.map { zone in
            (Self.fileName(zone), Self.text(head(zone) + lines.filter { $0.owner.isWithin(zone) }.map(\.line)))
        }
        return [(Self.fileName(topology.domain), Self.text(forward))] + reverse
    }

    private func head(_ zone: DomainName) -> [String] {
        [
            "$TTL \(Self.ttlSeconds)",
            "\(zone) SOA \(topology.domainName(topology.nameServer)) hostmaster.\(topology.domain) 1 3600 600 86400 5",
            "\(zone) NS \(topology.domainName(topology.nameServer))",
        ]
    }

    /// PTRs of all names, and every IMS's lines. Since each home address has a PTR, no wildcard covers it: it gets the records itself.
    private func reverseLines() throws(LabError) -> [(owner: DomainName, line: String)] {
        var lines: [(DomainName, String)] = []
        var addresses: [IPAddress] = []
        for host in topology.named {
            for text in host.plainAddresses {
                guard let address = IPAddress(text) else { throw LabError("\(text) of \(host.name) is no address") }
                let owner = DomainName.reverse(address)
                lines.append((owner, "\(owner) PTR \(topology.domainName(host.name))"))
                addresses.append(address)
            }
        }
        for server in servers {
            guard let target = DomainName(topology.domainName(server.host)) else { throw LabError("\(server.host) is no name") }
            let record = IMSRecord(target: target, keys: server.keys.map(\.octets), relays: server.relays)
            let writer = ZoneWriter(servers: [record], ttl: Self.ttlSeconds)
            let homes = addresses.filter { address in server.prefixes.contains { $0.contains(address) } }.compactMap { HomeAddress($0) }
            for line in writer.lines(prefixes: server.prefixes, existing: homes) {
                guard let owner = DomainName(String(line.prefix { $0 != " " })) else { throw LabError("no owner in \(line)") }
                lines.append((owner, line))
            }
        }
        return lines
    }

    private static func text(_ lines: [String]) -> String { lines.joined(separator: "\n") + "\n" }
    static func fileName(_ zone: DomainName) -> String { String(zone.description.dropLast()) }
}
