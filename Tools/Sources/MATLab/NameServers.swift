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
        var lines = ["server:"]
        lines += topology.addresses(topology.resolver).map { "  interface: \($0)" }
        lines += ["  access-control: 0.0.0.0/0 allow", "  access-control: ::/0 allow", "  username: \"\"", "  chroot: \"\""]
        lines += ["  directory: \"\(lab.directory(topology.resolver))\"", "  pidfile: \"\"", "  use-syslog: no", "  do-daemonize: no"]
        lines += ["  module-config: \"iterator\"", "  num-threads: 1", "  hide-identity: yes", "  outgoing-range: 256"]
        lines += zones.map { "  local-zone: \"\($0)\" nodefault" }
        lines += ["remote-control:", "  control-enable: no"]
        let server = topology.addresses(topology.nameServer).first ?? ""
        for zone in zones { lines += ["stub-zone:", "  name: \"\(zone)\"", "  stub-addr: \(server)"] }
        return lines.joined(separator: "\n") + "\n"
    }
}
