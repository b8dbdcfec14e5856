import FoundationEssentials
import MATCore
import MATDNS
import Namespaces

/// The lab's DNS: nsd for the zones, unbound for who asks.
struct NameServers {
    let lab: Lab
    private var topology: Topology { lab.topology }

    func start(_ servers: [ZoneFiles.Server]) throws {
        let zones = try writeZones(servers)
        let server = lab.directory(topology.nameServer)
        try nsd(zones).write(toFile: "\(server)/nsd.conf", atomically: false, encoding: .utf8)
        try lab.start(topology.nameServer, "nsd", ["nsd", "-d", "-c", "\(server)/nsd.conf"])
        let resolver = lab.directory(topology.resolver)
        try unbound(zones).write(toFile: "\(resolver)/unbound.conf", atomically: false, encoding: .utf8)
        try lab.start(topology.resolver, "unbound", ["unbound", "-d", "-c", "\(resolver)/unbound.conf"])
    }

    private var zonesDirectory: String { "\(lab.directory(topology.nameServer))/zones" }

    private func writeZones(_ servers: [ZoneFiles.Server]) throws -> [String] {
        try FileManager.default.createDirectory(atPath: zonesDirectory, withIntermediateDirectories: true)
        let texts = try ZoneFiles(topology: topology, servers: servers).texts()
        for (zone, text) in texts {
            try text.write(toFile: "\(zonesDirectory)/\(zone)", atomically: false, encoding: .utf8)
            let result = try runCommand(["nsd-checkzone", zone, "\(zonesDirectory)/\(zone)"], within: 10)
            guard result.status == 0 else { throw LabError("zone \(zone) is not valid: \(result.output)") }
        }
        return texts.map(\.name)
    }

    func nsd(_ zones: [String]) -> String {
        let directory = lab.directory(topology.nameServer)
        var lines = ["server:"]
        lines += topology.addresses(topology.nameServer).map { "  ip-address: \($0)" }
        lines += ["  username: \"\"", "  chroot: \"\"", "  zonesdir: \"\(zonesDirectory)\""]
        lines += [("pidfile", "nsd.own"), ("xfrdfile", "xfrd.state"), ("zonelistfile", "zone.list")].map { "  \($0.0): \"\(directory)/\($0.1)\"" }
        lines += ["  server-count: 1", "  database: \"\"", "remote-control:", "  control-enable: no"]
        for zone in zones { lines += ["zone:", "  name: \"\(zone)\"", "  zonefile: \"\(zone)\""] }
        return lines.joined(separator: "\n") + "\n"
    }

    func unbound(_ zones: [String]) -> String {
        let (own, server) = (topology.addresses(topology.resolver), topology.addresses(topology.nameServer).first ?? "")
        var lines = head(own, directory: lab.directory(topology.resolver), modules: "iterator", zones)
        for zone in zones { lines += ["stub-zone:", "  name: \"\(zone)\"", "  stub-addr: \(server)"] }
        return lines.joined(separator: "\n") + "\n"
    }

    /// The resolver of a network without IPv4: a name that has IPv4 addresses only gets addresses in the NAT64's prefix (RFC 6147), and
    /// ipv4only.arpa tells which prefix that is (RFC 7050).
    func dns64(at address: String, directory: String) -> String {
        let zones = ([topology.domain] + topology.reverseZones).map(ZoneFiles.fileName)
        var lines = head([address], directory: directory, modules: "dns64 iterator", zones)
        lines.insert("  dns64-prefix: \(GatewayPlan.prefix64)", at: 1)
        for (number, octets) in [(170, "c000:aa"), (171, "c000:ab")] {
            lines.insert("  local-data: \"ipv4only.arpa. A 192.0.0.\(number)\"", at: 1)
            lines.insert("  local-data: \"ipv4only.arpa. AAAA \(GatewayPlan.prefix64.prefix { $0 != "/" })\(octets)\"", at: 1)
        }
        let upstream = topology.addresses(topology.resolver).filter { $0.contains(":") }
        lines += ["forward-zone:", "  name: \".\""] + upstream.map { "  forward-addr: \($0)" }
        return lines.joined(separator: "\n") + "\n"
    }

    /// What both have in common.
    private func head(_ addresses: [String], directory: String, modules: String, _ zones: [String]) -> [String] {
        var lines = ["server:"] + addresses.map { "  interface: \($0)" }
        lines += ["  access-control: 0.0.0.0/0 allow", "  access-control: ::/0 allow", "  username: \"\"", "  chroot: \"\""]
        lines += ["  directory: \"\(directory)\"", "  pidfile: \"\"", "  use-syslog: no", "  do-daemonize: no"]
        lines += ["  module-config: \"\(modules)\"", "  num-threads: 1", "  hide-identity: yes", "  outgoing-range: 256"]
        lines += zones.map { "  local-zone: \"\($0)\" nodefault" }
        return lines + ["remote-control:", "  control-enable: no"]
    }
}
