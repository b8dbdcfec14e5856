import Namespaces

/// What the kernel is told to build a topology: `ip` commands by namespace, in order, and settings. Pure: tests read it.
struct NetworkPlan {
    /// In which host's namespace a command is given; `nil` for those that join two.
    struct Step: Equatable {
        var host: String?
        var lines: [String]
    }

    private let topology: Topology
    /// The namespace of a host.
    private let namespace: (String) -> String

    init(_ topology: Topology, namespace: @escaping (String) -> String) {
        self.topology = topology
        self.namespace = namespace
    }

    /// Of every host: addresses count at once, and routers are asked for without waiting.
    static let settings = [
        "net.ipv6.conf.all.disable_ipv6": "0", "net.ipv6.conf.default.dad_transmits": "0",
        "net.ipv6.conf.default.router_solicitation_delay": "0", "net.ipv6.conf.default.use_tempaddr": "0",
    ]

    /// Hosts that forward: the router, and those that others are behind.
    var routers: [String] {
        [topology.router]
            + topology.hosts.compactMap { host in
                if case .behind(let gateway, _, _) = host.link { gateway } else { nil }
            }
    }

    /// Bridges before links, links before addresses, addresses before routes.
    var steps: [Step] {
        var bridges: [String] = []
        var links: [String] = []
        var onRouter: [String] = []
        var onHosts: [Step] = []
        for network in topology.networks where network.gateway == nil {
            bridges.append(Self.bridge(network.name, of: network.name))
            bridges.append("link set \(network.name) up")
            bridges += network.router.map { "address add \($0) dev \(network.name)" }
        }
        for host in topology.hosts {
            switch host.link {
            case .none: break
            case .network(let name):
                links.append(link(host.name, "eth0", topology.router, host.name))
                onRouter += ["link set \(host.name) up", "link set \(host.name) master \(name)"]
                let gateway = topology.networks.first { $0.name == name }?.router ?? []
                onHosts.append(settle(host, gateway: gateway))
            case .point(let gateway):
                links.append(link(host.name, "eth0", topology.router, host.name))
                onRouter.append("link set \(host.name) up")
                onRouter += gateway.map { Self.address($0, host.name) }
                onHosts.append(settle(host, gateway: gateway))
            case .mobile:
                for (device, network) in topology.devices {
                    let port = topology.port(host.name, device: device)
                    links.append(link(host.name, device, topology.router, port))
                    onRouter.append("link set \(port) master \(network)")
                }
            case .behind(let other, let device, let gateway):
                links.append(link(other, device, host.name, "eth0"))
                onHosts.append(Step(host: other, lines: ["link set \(device) up"] + gateway.map { Self.address($0, device) }))
                onHosts.append(settle(host, gateway: gateway))
            }
        }
        let routes = topology.routes.map { "route add \($0)" }
        return [Step(host: topology.router, lines: bridges), Step(host: nil, lines: links), Step(host: topology.router, lines: onRouter + routes)]
            + onHosts
    }

    /// - Parameter network: whose bridge it is; its link address comes from this name. A bridge that is given none takes its lowest port's, so that
    ///   each host that came or went could change it, and its neighbours would send to the old one until they look for it anew, some 30 s later.
    static func bridge(_ name: String, of network: String) -> String {
        "link add \(name) address \(linkAddress(of: network)) type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
    }

    /// A locally administered address, another for each name (FNV-1a).
    private static func linkAddress(of network: String) -> String {
        let hash = network.utf8.reduce(0xcbf2_9ce4_8422_2325 as UInt64) { ($0 ^ UInt64($1)) &* 0x0000_0100_0000_01b3 }
        let octets = (0..<5).map { UInt8(truncatingIfNeeded: hash >> (8 * UInt64($0))) }
        return (["02"] + octets.map { String($0 >> 4, radix: 16) + String($0 & 15, radix: 16) }).joined(separator: ":")
    }

    private func link(_ host: String, _ device: String, _ other: String, _ otherDevice: String) -> String {
        "link add \(device) netns \(namespace(host)) type veth peer name \(otherDevice) netns \(namespace(other))"
    }

    /// Fixed addresses on eth0 and default routes.
    private func settle(_ host: Topology.Host, gateway: [String]) -> Step {
        Step(
            host: host.name,
            lines: ["link set eth0 up"] + host.addresses.map { Self.address($0, "eth0") }
                + gateway.map { "route add default via \($0.prefix { $0 != "/" })" })
    }

    static func address(_ text: String, _ device: String) -> String { Namespace.addressLine(text, dev: device) }
}
