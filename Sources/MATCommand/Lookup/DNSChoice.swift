import MATDNS
import MATRuntime
import MATSignal

/// Which DNS servers a command asks: those that the daemon of this host asks, or what it finds says nothing of what that sees.
struct DNSChoice {
    /// The system's if empty.
    private(set) var servers: [Endpoint] = []
    /// Whether answers that nobody validated count for nothing.
    private(set) var requiresDNSSEC = false
    /// Who names them, for people.
    private(set) var origin = ResolverConfiguration.systemPath
    /// Why they are not the daemon's, though there may be such.
    private(set) var doubt: String?

    /// What a person names goes before.
    init(named: [Endpoint], configuration path: String = DaemonFile.nodeConfiguration.path) {
        self.init(configuration: named.isEmpty ? path : "")
        if !named.isEmpty { (servers, origin) = (named, "--resolver") }
    }

    /// - Parameter paths: daemons' configurations, of whose keys `dns` alone is looked at. The first that is there counts; there need be none.
    init(configuration paths: String...) {
        for path in paths {
            do throws(ConfigurationError) {
                guard let dns = try NodeNameServers(configuration: path) else { continue }
                (servers, requiresDNSSEC) = (dns.servers, dns.requiresDNSSEC)
                if !servers.isEmpty { origin = "`dns` in \(path)" }
            } catch {
                let reason = error.problems.first.map(\.reason) ?? "it can't be read"
                doubt = "\(path) may name others to ask (`dns`), and was not read: \(reason)"
            }
            return
        }
    }

    /// Whom they are, and who says so, for people.
    var asked: String { "\(configuration.servers.map(\.endpoint.description).joined(separator: ", ")) (\(origin))" }

    /// What they are asked with.
    var configuration: ResolverConfiguration { .named(servers, requireDNSSEC: requiresDNSSEC) }
}
