import MATCore
import MATDNS
import MATRuntime
import MATSignal
import NodeCore

/// Which DNS servers a node uses and knows of: for its own look-ups, and to leave other processes' questions to them alone. Follows the
/// system's files.
final class NodeNames {
    let resolver: Resolver
    /// From the configuration; empty if the system's are used.
    private let configured: [Endpoint]
    /// The system's, which other processes ask, where the configuration names others.
    private var others: [ResolverConfiguration.Server]
    private var watch: PathWatch?

    /// - Parameter mark: of the agent's own sockets.
    init(loop: EventLoop, _ configuration: NodeConfiguration, mark: UInt32) {
        configured = configuration.resolvers
        let fromSystem = ResolverConfiguration.system()
        others = configured.isEmpty ? [] : fromSystem.servers
        var dns = configured.isEmpty ? fromSystem : ResolverConfiguration(servers: configured)
        dns.mark = mark
        dns.requireDNSSEC = configuration.requireDNSSEC
        // The core remembers absence where it acts on it. Here it would outlive a captive portal.
        dns.absenceKeptMax = Resolver.failureTTL
        resolver = Resolver(loop: loop, configuration: dns)
    }

    /// - Parameter changed: the servers are others than before.
    func follow(_ loop: EventLoop, changed: @escaping () -> Void) {
        watch = PathWatch(loop: loop, paths: [ResolverConfiguration.systemPath, ResolverConfiguration.upstreamPath]) { [unowned self] in
            if readAgain() { changed() }
        }
        // Whatever happened since they were first read.
        if readAgain() { changed() }
    }

    func stop() {
        watch?.stop()
        watch = nil
    }

    /// The network changed: what was learned in the other counts no more, and some hosts' files change without a word, by a new file that
    /// is mounted over the old one.
    ///
    /// - Returns: whether there is something new in the files.
    func networkChanged() -> Bool { resolver.flush() || readOthers() }

    /// - Returns: whether there is something new.
    private func readAgain() -> Bool { resolver.followSystem() || readOthers() }

    /// Where the configuration names none, the resolver has read the same files.
    private func readOthers() -> Bool {
        guard !configured.isEmpty else { return false }
        let before = others
        others = ResolverConfiguration.system().servers
        return others != before
    }

    /// All that are known.
    var servers: NameServers {
        let inUse = resolver.configuration.servers.map { NameServers.Server($0.endpoint.address, isLocal: $0.isLocal, isUpstream: $0.isUpstream) }
        return NameServers(origin: origin, inUse: inUse, others: others.map(\.endpoint.address))
    }

    /// Where they are listed, for people.
    var origin: String { configured.isEmpty ? ResolverConfiguration.systemPath : "`dns` in matd.yaml" }

    /// Whether an answer that is authenticated was validated on this host.
    var validatesHere: Bool { resolver.configuration.servers.allSatisfy { $0.isLocal || $0.isUpstream } }

    // MARK: NAT64

    /// Under way; the next one ends it.
    private var search: Resolver?

    /// Asks the system's resolvers, which are the network's own, for the name whose IPv4 addresses everybody knows (RFC 7050); the configured ones
    /// know nothing of this network.
    func findTranslator(
        _ loop: EventLoop, ways: @escaping (ResolverConfiguration.Server) -> [IPAddress?], _ completion: @escaping (NAT64Answer) -> Void
    ) {
        var configuration = ResolverConfiguration.system()
        configuration.mark = resolver.configuration.mark
        configuration.totalTimeout = .seconds(5)
        guard let name = DomainName("ipv4only.arpa") else { return completion(.none) }
        let resolver = Resolver(loop: loop, configuration: configuration)
        resolver.ways = ways
        search = resolver
        resolver.resolve(DNSQuestion(name, .aaaa)) { [weak self] result in
            guard self?.search === resolver else { return }
            self?.search = nil
            switch result {
            case .records(let records):
                completion(NAT64Prefix(wellKnownNameAt: records.rdata.compactMap { IPAddress(octets: $0) }).map { .prefix($0) } ?? .none)
            // Of this name, who says that there is nothing need not show by whose word.
            case .absent, .failed(.unproven): completion(.none)
            case .failed: completion(.silence)
            }
        }
    }

    /// The own addresses to ask a server from. A socket that is bound to one takes its link; the main table's default route may lead over
    /// a link that is up and dead, which only the node's own probes know.
    ///
    /// - Parameters:
    ///   - own: usable, the best first.
    ///   - hasOwnRoute: the main table knows where the server is, rather than sending it where everything goes.
    static func ways(to server: ResolverConfiguration.Server, own: [IPAddress], hasOwnRoute: (IPAddress) -> Bool) -> [IPAddress?] {
        let address = server.endpoint.address
        // A process of this host; or of a link, which it names itself.
        guard !address.isLoopback, !address.isLinkLocal, !own.contains(address) else { return [nil] }
        let usable: [IPAddress?] = own.filter { $0.family == address.family }.prefix(waysMax).map { $0 }
        return hasOwnRoute(address) ? [nil] + usable : usable + [nil]
    }

    /// More own addresses than these are not tried, besides the kernel's choice.
    static let waysMax = 4
}
