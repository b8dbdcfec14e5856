import Glibc
import MATRuntime
import MATSignal

/// The DNS servers that a daemon of this host asks, as its configuration names them.
package struct NodeNameServers: Hashable, Sendable {
    /// The system's if empty.
    package var servers: [Endpoint]
    /// Whether answers that nobody validated count for nothing.
    package var requiresDNSSEC: Bool

    /// Of a daemon's configuration `dns` alone is looked at. `nil` if there is no such file.
    package init?(configuration path: String) throws(ConfigurationError) {
        var status = stat()
        if stat(path, &status) != 0, errno == ENOENT || errno == ENOTDIR { return nil }
        let dns = try ConfigurationFile.read(path: path).section("dns")
        servers = dns.list("resolvers", .endpoint(defaultPort: 53))
        requiresDNSSEC = dns.value("require-dnssec", .bool, default: false)
        try dns.finish()
    }
}
