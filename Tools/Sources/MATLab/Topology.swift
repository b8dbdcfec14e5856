import MATCore
import MATDNS
import MATSignal

/// A small internet, as a value: one router, networks on it, hosts with links to it, and what runs on them. `Lab` builds it of network
/// namespaces, one a host; networks behind gateways of their own when a host is first plugged in there.
///
/// Addresses stand with their lengths where an interface gets them (`203.0.113.1/26`), IPv4 first where both families are listed.
public struct Topology: Sendable {
    /// The host that routes. Networks without a gateway are bridges on it.
    public var router = "r"
    public var networks: [Network] = []
    /// Others than those that follow from its addresses, as `ip route` has them.
    public var routes: [String] = []
    public var hosts: [Host] = []
    /// The zone of the hosts' names.
    public var domain: DomainName
    public var reverseZones: [DomainName] = []
    /// Further names, with addresses that hosts have.
    public var furtherNames: [(name: String, address: String)] = []
    /// Of names: the zones' server, and whom everybody asks.
    public var nameServer = "ns"
    public var resolver = "resolver"

    public init(domain: DomainName) { self.domain = domain }

    public struct Network: Sendable {
        public var name: String
        /// The addresses in it of who routes for it: the router, or its gateway.
        public var router: [String]
        /// Of a network that nodes come to and go from.
        public var access: Access?
        /// Who routes for it in the router's place.
        public var gateway: Gateway?
        /// What a person needs to know before going there.
        public var summary: String

        public init(_ name: String, router: [String], access: Access? = nil, gateway: Gateway? = nil, summary: String = "") {
            self.name = name
            self.router = router
            self.access = access
            self.gateway = gateway
            self.summary = summary
        }
    }

    /// How nodes are linked to a network, and what they get there by DHCP and by router advertisements.
    public struct Access: Sendable {
        /// The node's interface.
        public var device: String
        /// Of its default route.
        public var metric: Int
        /// IPv4 addresses; `nil` where there are none.
        public var pool: Pool?
        /// The IPv6 prefix; `nil` where there is none.
        public var advertised: String?
        /// Whom hosts there ask for names, if not the topology's resolver.
        public var resolver: String?

        public init(device: String, metric: Int, pool: Pool? = nil, advertised: String? = nil, resolver: String? = nil) {
            self.device = device
            self.metric = metric
            self.pool = pool
            self.advertised = advertised
            self.resolver = resolver
        }

        /// The families that a host gets addresses of, as `ip` has them.
        var families: [String] { (pool == nil ? [] : ["inet"]) + (advertised == nil ? [] : ["inet6"]) }
    }

    /// What DHCP gives away.
    public struct Pool: Sendable {
        public var first: String
        public var last: String
        public var mask: String

        public init(_ first: String, _ last: String, mask: String) {
            self.first = first
            self.last = last
            self.mask = mask
        }
    }

    public struct Host: Sendable {
        public var name: String
        public var link: Link
        /// What its name stands for in DNS. On a fixed link these are its interface's addresses, with their lengths.
        public var addresses: [String]
        public var program: Program?

        public init(_ name: String, _ link: Link, _ addresses: [String] = [], _ program: Program? = nil) {
            self.name = name
            self.link = link
            self.addresses = addresses
            self.program = program
        }

        /// The addresses without lengths.
        var plainAddresses: [String] { addresses.map { String($0.prefix { $0 != "/" }) } }
    }

    public enum Link: Sendable {
        /// The router itself.
        case none
        /// `eth0`, in a network of the router's.
        case network(String)
        /// `eth0`, to the router alone, with the router's addresses on the link.
        case point(router: [String])
        /// An interface of each kind that access networks have (`devices`), unplugged at first. Addresses come by DHCP and from router
        /// advertisements, or are those that stand here by network's name.
        case mobile(fixed: [String: [String]])
        /// `eth0`, to another host, with that one's interface and addresses on the link.
        case behind(String, device: String, gateway: [String])
    }

    public enum Program: Sendable {
        case dnsmasq
        case nsd
        case unbound
        /// With the hosts of the relays that its prefixes' zones name, the preferred one first.
        case imsd([ServedPrefix], relays: [String] = [])
        case matd(Node)
        /// A relay, with the home prefixes of its residents.
        case relay([String])
    }

    /// A home prefix that an imsd serves, and where its mobile networks' prefixes may lie.
    public struct ServedPrefix: Sendable {
        public var prefix: String
        public var mobile: [String]

        public init(_ prefix: String, mobile: [String] = []) {
            self.prefix = prefix
            self.mobile = mobile
        }
    }

    /// A matd's part.
    public struct Node: Sendable {
        /// The host of its IMS.
        public var server: String
        /// What of its traffic is mapped, in matd.yaml's words.
        public var traffic: String
        /// Of a mobile router: home prefixes, and for each, by interface, the prefix that is routed to it there. A node that has none has
        /// its host's addresses as HoAs.
        public var networks: [MobileNetwork]

        public init(server: String, traffic: String = "everything", networks: [MobileNetwork] = []) {
            self.server = server
            self.traffic = traffic
            self.networks = networks
        }
    }

    public struct MobileNetwork: Sendable {
        public var home: String
        /// What networks route to it: at which interface, with addresses of which network.
        public var places: [(device: String, network: String, prefix: String)]

        public init(_ home: String, _ places: [(device: String, network: String, prefix: String)]) {
            self.home = home
            self.places = places
        }
    }
}

// MARK: Looking things up

extension Topology {
    public var names: [String] { hosts.map(\.name) }

    public func host(_ name: String) throws(LabError) -> Host {
        guard let host = hosts.first(where: { $0.name == name }) else {
            throw LabError("no host \"\(name)\"; there are: \(names.joined(separator: " "))")
        }
        return host
    }

    /// Hosts that are plugged in and out.
    public var mobile: [Host] { hosts.filter { if case .mobile = $0.link { true } else { false } } }

    public func mobile(_ name: String) throws(LabError) -> Host {
        guard let host = mobile.first(where: { $0.name == name }) else {
            throw LabError("\(name) is not mobile; these are: \(mobile.map(\.name).joined(separator: " "))")
        }
        return host
    }

    /// Networks that mobile hosts are plugged into.
    public var accessNetworks: [(network: Network, access: Access)] { networks.compactMap { network in network.access.map { (network, $0) } } }

    public func access(_ name: String) throws(LabError) -> (network: Network, access: Access) {
        guard let found = accessNetworks.first(where: { $0.network.name == name }) else {
            throw LabError("no network \"\(name)\"; there are: \(accessNetworks.map(\.network.name).joined(separator: " "))")
        }
        return found
    }

    /// The interfaces of a mobile host, each with the first network that is entered by it.
    public var devices: [(device: String, network: String)] {
        accessNetworks.reduce(into: []) { devices, next in
            if !devices.contains(where: { $0.device == next.access.device }) { devices.append((next.access.device, next.network.name)) }
        }
    }

    func device(_ name: String) throws(LabError) -> String {
        guard devices.contains(where: { $0.device == name }) else {
            throw LabError("no interface \"\(name)\"; mobile hosts have: \(devices.map(\.device).joined(separator: " "))")
        }
        return name
    }

    public var gateways: [(network: Network, gateway: Gateway)] { networks.compactMap { network in network.gateway.map { (network, $0) } } }

    /// The host that routes for a network: the router, or the gateway, which has the network's name.
    func router(of network: Network) -> String { network.gateway == nil ? router : network.name }

    /// Everything that has a namespace: the hosts, and the gateways once they are built.
    public func place(_ name: String) throws(LabError) -> String {
        if gateways.contains(where: { $0.network.name == name }) { return name }
        return try host(name).name
    }

    /// The other ends of a host's or gateway's links.
    func ports(_ name: String) throws(LabError) -> [String] {
        if let (network, gateway) = gateways.first(where: { $0.network.name == name }) {
            if case .router = gateway.upstream { return [network.name] }
            return []
        }
        let host = try host(name)
        switch host.link {
        case .network, .point: return [host.name]
        case .mobile: return devices.map { port(host.name, device: $0.device) }
        case .none, .behind: return []
        }
    }

    /// The other end of a mobile host's interface. It is named for the first network that is entered by the interface, wherever it is plugged in.
    func port(_ host: String, device: String) -> String { "\(host)-\(devices.first { $0.device == device }?.network ?? device)" }

    /// The addresses of a host that others send to, without lengths.
    func addresses(_ name: String) -> [String] { hosts.first { $0.name == name }?.plainAddresses ?? [] }

    /// Hosts with a name in DNS.
    var named: [Host] { hosts.filter { !$0.addresses.isEmpty } }
    func domainName(_ host: String) -> String { "\(host).\(domain)" }
}

extension Topology.Host {
    /// The MAT daemon that runs on it.
    public var daemon: String? {
        switch program {
        case .imsd: "imsd"
        case .matd: "matd"
        case .relay: "mat-relay"
        case .dnsmasq, .nsd, .unbound, nil: nil
        }
    }
}

/// Why the lab did not do what it was told to, for who told it.
public struct LabError: Error, CustomStringConvertible, Equatable {
    public var description: String
    public init(_ description: String) { self.description = description }
}
