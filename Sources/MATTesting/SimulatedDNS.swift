import MATCore
import MATSignal
import NodeCore

/// The reverse zones, as both daemons' resolvers would tell of them.
public final class SimulatedDNS {
    public struct Zone {
        /// In the order to try them.
        public var servers: [IPAddress]
        public var keys: [PublicKey]
        public var relays: [RelayHost] = []

        public init(servers: [IPAddress], keys: [PublicKey]) {
            self.servers = servers
            self.keys = keys
        }
    }

    /// By prefix of HoAs; the longest that covers a name wins, as a wildcard would.
    public var zones: [IPPrefix: Zone] = [:]
    /// For how long an answer may be kept.
    public var lifetime: Duration = .seconds(3600)
    public var latency: Duration = .milliseconds(5)
    /// Each look-up fails with this probability.
    public var failure = 0.0
    public private(set) var lookUps = 0
    private let network: SimulatedNetwork

    public init(_ network: SimulatedNetwork) { self.network = network }

    private enum Outcome {
        case zone(Zone)
        case absent
        case failed
    }

    private func find(_ name: IPPrefix, _ completion: @escaping (Outcome) -> Void) {
        lookUps += 1
        let hasFailed = network.random.chance(failure)
        network.after(hasFailed ? .seconds(2) : latency) { [unowned self] in
            if hasFailed { return completion(.failed) }
            guard let zone = zones.filter({ $0.key.contains(name) }).max(by: { $0.key.length < $1.key.length })?.value else {
                return completion(.absent)
            }
            completion(.zone(zone))
        }
    }

    /// As `matd` is told.
    public func lookUp(_ hoa: HomeAddress, _ completion: @escaping (ServerLookup) -> Void) { lookUp(of: IPPrefix(hoa.address), completion) }

    /// Likewise at a prefix's own name.
    public func lookUp(of prefix: IPPrefix, _ completion: @escaping (ServerLookup) -> Void) {
        find(prefix) { [unowned self] outcome in
            switch outcome {
            case .zone(let zone):
                let endpoints = zone.servers.map { Endpoint($0, port: SignalPort.ims) }
                completion(.found(ServerSet(endpoints: endpoints, keys: zone.keys, relays: zone.relays, expires: network.time + lifetime)))
            case .absent: completion(.absent(lifetime: lifetime))
            case .failed: completion(.failed("time-out"))
            }
        }
    }

    /// As `imsd` is told.
    public func lookUp(_ name: IPPrefix, _ completion: @escaping (IMSLookupResult) -> Void) {
        find(name) { [unowned self] outcome in
            let expires = network.time + lifetime
            switch outcome {
            case .zone(let zone):
                // Each server has a priority of its own, so that the order given is the order of trying.
                let servers = zone.servers.enumerated().compactMap { index, address -> IMSHost? in
                    guard let target = DomainName("ims\(index).example.") else { return nil }
                    return IMSHost(priority: UInt16(clamping: index), weight: 0, addresses: [address], port: SignalPort.ims, target: target)
                }
                completion(.found(IMSSet(servers: servers, keys: zone.keys.map(\.octets), relays: zone.relays, expires: expires)))
            case .absent: completion(.absent(until: expires))
            case .failed: completion(.failed("time-out"))
            }
        }
    }
}
