import FoundationEssentials
import Namespaces

/// A relay as the gateway between a node and hosts without MAT, to which the router sends what is for the node's home addresses:
///
/// ```
///   mn ---- any network ---- r ---- plain            packets for 192.0.2.0/24 and 2001:db8:10::/48: r -> relay -> mn, in datagrams
///                            +----- relay
/// ```
/// The configurations and routes of before come back with `end`.
public struct PlainGateway {
    private static let node = "mn"
    private static let relay = "relay"

    private let lab: Lab
    private var topology: Topology { lab.topology }
    private var daemons: Daemons { Daemons(lab: lab) }

    public init(lab: Lab) { self.lab = lab }

    private var files: [String] { ["\(lab.directory(Self.relay))/mat-relay.yaml", "\(lab.directory(Self.node))/matd.yaml"] }
    private static func kept(_ file: String) -> String { "\(file).before" }

    /// The home prefixes of the relay's residents, each with the relay's address of its family.
    private func routes() throws -> [(prefix: String, next: String)] {
        let host = try topology.host(Self.relay)
        guard case .relay(let prefixes) = host.program else { throw LabError("\(Self.relay) is no relay") }
        return prefixes.compactMap { prefix in
            host.plainAddresses.first { $0.contains(":") == prefix.contains(":") }.map { (prefix, $0) }
        }
    }

    public func begin() throws {
        let routes = try routes()
        let prefixes = routes.flatMap { ["    - prefix: \"\($0.prefix)\"", "      service: routed"] }
        let lines = ["gateway:", "  forwarding: set", "  prefixes:"] + prefixes
        for (file, lines) in zip(files, [lines, ["plain: gateway"]]) {
            let text = try String(contentsOfFile: file, encoding: .utf8)
            try text.write(toFile: Self.kept(file), atomically: false, encoding: .utf8)
            try (text + lines.joined(separator: "\n") + "\n").write(toFile: file, atomically: false, encoding: .utf8)
        }
        for (prefix, next) in routes { try route("replace", prefix, ["via", next]) }
        try restart()
        let node = try topology.host(Self.node)
        try lab.wait("\(Self.node) has its gateway", seconds: 15) {
            guard let report = try daemons.report(node) else { return false }
            return report.registered
                && node.plainAddresses.allSatisfy { home in report.relays?.contains { $0.home == home && $0.gateway != nil } == true }
        }
    }

    public func end() throws {
        for file in files {
            guard let text = try? String(contentsOfFile: Self.kept(file), encoding: .utf8) else { continue }
            try text.write(toFile: file, atomically: false, encoding: .utf8)
            try FileManager.default.removeItem(atPath: Self.kept(file))
        }
        for (prefix, _) in try routes() { try route("flush", prefix, []) }
        try restart()
    }

    private func restart() throws { for host in [Self.relay, Self.node] { try daemons.restart(host) } }

    private func route(_ verb: String, _ prefix: String, _ way: [String]) throws {
        let family = prefix.contains(":") ? "-6" : "-4"
        let result = try runCommand(["ip", family, "-n", lab.namespace(topology.router), "route", verb, prefix] + way)
        guard result.status == 0 else { throw LabError("ip route \(verb) \(prefix): \(result.output)") }
    }
}
