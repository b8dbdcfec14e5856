import Glibc
import IMS
import Testing

/// Members of an etcd cluster, on loopback addresses or in network namespaces. Their data is in a temporary directory, on tmpfs if
/// there is one, since these tests are about faults and not about disks.
final class EtcdMembers: @unchecked Sendable {
    struct TLS {
        var directory: String
        /// Which of the certificates there the members show.
        var name = "server"
        var authority: String { "\(directory)/ca.pem" }
        var certificate: String { "\(directory)/\(name).pem" }
        var key: String { "\(directory)/\(name).key" }
    }

    struct Member {
        var program: Program
        var host: String
        var clientPort: Int
    }

    static let program = Program.installed("etcd")
    static let obstacle: String? = program == nil ? "etcd is not installed; deploy/install-packages installs it" : nil

    let directory: TemporaryDirectory
    private(set) var members: [Member] = []

    /// - Parameter hosts: the members' addresses; with namespaces, those of their links.
    init(_ hosts: [String], namespaces: [String]? = nil, tls: TLS? = nil, in directory: TemporaryDirectory) throws {
        self.directory = directory
        let program = try #require(Self.program)
        // In a namespace of its own each member has all ports to itself.
        let ports = try hosts.map { host in namespaces == nil ? (try freePort(host), try freePort(host)) : (2379, 2380) }
        let names = zip(hosts, ports).enumerated().map { "m\($0.offset)=http://\($0.element.0):\($0.element.1.1)" }
        let cluster = names.joined(separator: ",")
        let scheme = tls == nil ? "http" : "https"
        for (index, host) in hosts.enumerated() {
            var arguments = [
                "--name", "m\(index)", "--data-dir", "\(directory.path)/m\(index)",
                "--listen-client-urls", "\(scheme)://\(host):\(ports[index].0)", "--advertise-client-urls",
                "\(scheme)://\(host):\(ports[index].0)",
                "--listen-peer-urls", "http://\(host):\(ports[index].1)", "--initial-advertise-peer-urls",
                "http://\(host):\(ports[index].1)",
                "--initial-cluster", cluster, "--initial-cluster-state", "new", "--logger", "zap", "--log-level", "error",
                // As docs/operations.md recommends for members that are near one another.
                "--heartbeat-interval", "50", "--election-timeout", "500", "--pre-vote",
            ]
            if let tls {
                arguments += [
                    "--cert-file", tls.certificate, "--key-file", tls.key, "--trusted-ca-file", tls.authority,
                    "--client-cert-auth",
                ]
            }
            members.append(
                Member(
                    program: Program(
                        program, arguments, log: "\(directory.path)/etcd\(index).log", namespace: namespaces?[index]),
                    host: host, clientPort: ports[index].0))
        }
        for member in members { try member.program.start() }
    }

    var endpoints: [EtcdConfiguration.Endpoint] { members.map { EtcdConfiguration.Endpoint(host: $0.host, port: $0.clientPort) } }

    /// Raises or lifts the alarm "no space" by etcd's gateway, as etcd does itself when its database reaches the quota.
    ///
    /// - Parameter action: ACTIVATE or DEACTIVATE.
    func alarm(_ action: String) -> Bool {
        guard let curl = Program.installed("curl"), let member = members.first else { return false }
        return Program.run(
            curl, "-sf", "-o", "/dev/null", "http://\(member.host):\(member.clientPort)/v3/maintenance/alarm", "-d",
            "{\"action\": \"\(action)\", \"memberID\": 0, \"alarm\": \"NOSPACE\"}") == 0
    }

    func configuration(startingAt first: Int = 0) -> EtcdConfiguration {
        var configuration = EtcdConfiguration()
        configuration.endpoints = (0..<members.count).map { endpoints[(first + $0) % members.count] }
        return configuration
    }
}
