import FoundationEssentials
import Glibc
import Namespaces

/// A mapping server as three instances that share an etcd, on the host that ran one:
///
/// ```
///   ims1   203.0.113.132, 2001:db8:53::132    imsd      ─┐
///          203.0.113.136, 2001:db8:53::136    imsd-2    ─┼─ etcd, on 127.0.0.1
///          203.0.113.137, 2001:db8:53::137    imsd-3    ─┘
/// ```
/// The name ims1 stands for all their addresses meanwhile. One member is no cluster for life, but shows what instances do.
public struct Instances {
    private static let host = "ims1"
    private static let device = "eth0"
    /// Of the further instances' addresses, in the place of the first one's last digit.
    private static let digits = ["6", "7"]
    private static let etcd = "etcd"

    private let lab: Lab
    private var topology: Topology { lab.topology }
    private var daemons: Daemons { Daemons(lab: lab) }
    private var directory: String { lab.directory(Self.host) }
    private var configuration: String { "\(directory)/imsd.yaml" }
    private var zone: String { "\(lab.directory(topology.nameServer))/zones/\(ZoneFiles.fileName(topology.domain))" }

    public init(lab: Lab) { self.lab = lab }

    /// The addresses of each instance, without lengths.
    private var addresses: [[String]] {
        let own = topology.addresses(Self.host)
        return [own] + Self.digits.map { digit in own.map { $0.dropLast() + digit } }
    }

    private func label(_ index: Int) -> String { index == 0 ? "imsd" : "imsd-\(index + 1)" }
    private static func kept(_ file: String) -> String { "\(file).before" }

    public func begin() throws {
        guard Lab.installed(Self.etcd) != nil else { throw LabError("\(Self.etcd) is missing; deploy/install-packages installs what the lab needs") }
        for file in [configuration, zone] {
            try String(contentsOfFile: file, encoding: .utf8).write(toFile: Self.kept(file), atomically: false, encoding: .utf8)
        }
        let further = addresses.dropFirst().flatMap { $0 }
        try Namespace.ipBatch(
            further.map { NetworkPlan.address($0.contains(":") ? "\($0)/64" : "\($0)/26", Self.device) }, in: lab.namespace(Self.host))
        let url = "http://127.0.0.1:2379"
        try lab.start(
            Self.host, Self.etcd,
            [
                Self.etcd, "--data-dir", "\(directory)/etcd", "--listen-client-urls", url, "--advertise-client-urls", url, "--listen-peer-urls",
                "http://127.0.0.1:2380", "--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster",
                "default=http://127.0.0.1:2380", "--logger", "zap", "--log-level", "error",
            ])
        RecordedProcess.end([lab.process(Self.host, label(0))])
        let text = try String(contentsOfFile: Self.kept(configuration), encoding: .utf8)
        for (index, own) in addresses.enumerated() {
            let file = index == 0 ? configuration : "\(directory)/\(label(index)).yaml"
            try shared(text, index, own).write(toFile: file, atomically: false, encoding: .utf8)
            try lab.start(Self.host, label(index), [try lab.program("imsd"), "--config", file])
        }
        let names = further.map { "\(topology.domainName(Self.host)) \($0.contains(":") ? "AAAA" : "A") \($0)" }
        let records = try String(contentsOfFile: Self.kept(zone), encoding: .utf8) + names.joined(separator: "\n") + "\n"
        try records.write(toFile: zone, atomically: false, encoding: .utf8)
        try restartNames()
        try restartNodes()
    }

    public func end() throws {
        RecordedProcess.end(addresses.indices.dropFirst().map { lab.process(Self.host, label($0)) })
        for file in [configuration, zone] {
            guard let text = try? String(contentsOfFile: Self.kept(file), encoding: .utf8) else { continue }
            try text.write(toFile: file, atomically: false, encoding: .utf8)
            try FileManager.default.removeItem(atPath: Self.kept(file))
        }
        try daemons.restart(Self.host)
        RecordedProcess.end([lab.process(Self.host, Self.etcd)])
        for address in addresses.dropFirst().flatMap({ $0 }) {
            let length = address.contains(":") ? 64 : 26
            _ = try runCommand(["ip", "-n", lab.namespace(Self.host), "address", "delete", "\(address)/\(length)", "dev", Self.device])
        }
        try restartNames()
        try restartNodes()
    }

    /// One instance's configuration: its own addresses and socket, and the common store.
    private func shared(_ text: String, _ index: Int, _ own: [String]) -> String {
        let lines = text.split(separator: "\n", omittingEmptySubsequences: false).compactMap { line -> String? in
            if line.hasPrefix("store:") { return "store: etcd" }
            if line.hasPrefix("control:"), index > 0 { return "control: \(directory)/control-\(index + 1).sock" }
            return String(line)
        }
        let quoted = own.map { "\"\($0)\"" }.joined(separator: ", ")
        return (["etcd: {endpoints: [127.0.0.1]}", "listen: {addresses: [\(quoted)]}"] + lines).joined(separator: "\n")
    }

    /// What was answered before counts no more.
    private func restartNames() throws {
        for (host, program) in [(topology.nameServer, "nsd"), (topology.resolver, "unbound")] {
            RecordedProcess.end([lab.process(host, program)])
            try lab.start(host, program, [program, "-d", "-c", "\(lab.directory(host))/\(program).conf"])
        }
    }

    /// Nodes keep what the DNS said, and are to be registered in the store that counts now.
    private func restartNodes() throws {
        let nodes = topology.mobile.filter { $0.daemon == "matd" && lab.process($0.name, "matd").pid != nil }
        for node in nodes { try daemons.restart(node.name) }
        for node in nodes {
            try lab.wait("\(node.name) is registered", seconds: 20) { try daemons.report(node)?.registered == true }
        }
    }
}
