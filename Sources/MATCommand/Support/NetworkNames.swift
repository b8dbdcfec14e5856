import MATCore
import MATDNS
import MATRuntime
import MATSignal

/// What the DNS has of a network that is smaller than a zone of the reverse tree.
struct NetworkNames {
    /// Where the name of its first address leads, if that is an alias.
    var alias: DomainName?
    /// Those at the network's own name; `nil` if the DNS does not say.
    var keys: [PublicKey]?

    private static let patience: Duration = .seconds(3)

    /// `nil` if the DNS does not say.
    static func find(_ network: IPPrefix, by dns: DNSChoice) -> NetworkNames? {
        guard let loop = try? EventLoop() else { return nil }
        var configuration = dns.configuration
        configuration.usesSystemTimeouts = false
        configuration.totalTimeout = patience
        let resolver = Resolver(loop: loop, configuration: configuration)
        var names = NetworkNames()
        loop.schedule(after: .zero) {
            resolver.resolveAliases(of: .reverse(network.address)) { aliases in
                guard case .end(let alias) = aliases else { return loop.stop() }
                names.alias = alias.name
                IMSLookup(resolver: resolver).lookup(prefix: network) { result in
                    switch result {
                    case .found(let set): names.keys = set.keys.compactMap { PublicKey($0) }
                    case .absent: names.keys = []
                    case .failed, .unusable: break
                    }
                    loop.stop()
                }
            }
        }
        return (try? loop.run()).map { names }
    }
}
