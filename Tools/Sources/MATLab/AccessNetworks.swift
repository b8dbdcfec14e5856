import FoundationEssentials
import Glibc
import Namespaces

/// The networks that mobile hosts are plugged into: their DHCP and router advertisements, and the plugs.
public struct AccessNetworks {
    private let lab: Lab
    private var topology: Topology { lab.topology }

    public init(lab: Lab) { self.lab = lab }

    // MARK: Their server

    /// Of those that the router itself has, and the client's script for all.
    func start() throws {
        try serve(topology.accessNetworks.map(\.network).filter { $0.gateway == nil }, at: topology.router)
        try Self.clientScript(topology).write(toFile: clientScript, atomically: false, encoding: .utf8)
        chmod(clientScript, 0o755)
    }

    func serve(_ networks: [Topology.Network], at host: String) throws {
        let directory = lab.directory(host)
        let file = "\(directory)/dnsmasq.conf"
        try Self.serverConfiguration(networks, leases: "\(directory)/leases").write(toFile: file, atomically: false, encoding: .utf8)
        try lab.start(host, "dnsmasq", ["dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=\(file)", "--pid-file="])
    }

    static func serverConfiguration(_ networks: [Topology.Network], leases: String) -> String {
        var lines = ["port=0", "no-hosts", "no-resolv", "no-ping", "user=root", "dhcp-authoritative", "dhcp-leasefile=\(leases)"]
        lines += networks.map { "interface=\($0.bridge)" }
        lines += ["bind-interfaces", "except-interface=lo"]
        lines += networks.compactMap { $0.access?.pool.map { "dhcp-range=\($0.first),\($0.last),\($0.mask),1h" } }
        let prefixes = networks.compactMap { $0.access?.advertised }
        if !prefixes.isEmpty { lines.append("enable-ra") }
        lines += prefixes.map { "dhcp-range=\($0),ra-only,64,1h" }
        lines += networks.compactMap { $0.access?.resolver }.map { "dhcp-option=option6:dns-server,[\($0)]" }
        return lines.joined(separator: "\n") + "\n"
    }

    private var clientScript: String { "\(lab.run)/udhcpc.script" }

    /// The client's script: address and default route, metric by interface; nothing else of the host is touched.
    static func clientScript(_ topology: Topology) -> String {
        let first = topology.devices.compactMap { device, _ in topology.accessNetworks.first { $0.access.device == device } }
        let metrics = first.map { "\($0.access.device)) metric=\($0.access.metric);;" }.joined(separator: " ")
        return """
            #!/bin/sh
            case $interface in \(metrics) esac
            case $1 in
            deconfig)
                ip -4 address flush dev "$interface" ;;
            bound|renew)
                ip -4 address replace "$ip/$mask" dev "$interface"
                for gateway in $router; do ip route replace default via "$gateway" dev "$interface" metric "$metric"; done ;;
            esac

            """
    }

    // MARK: Plugs

    /// Plugs a host in: link up, DHCP and router advertisements, or its fixed addresses. An interface that is in another network leaves that.
    ///
    /// - Parameter device: the host's interface, if not the one that the network is entered by.
    public func attach(_ host: String, _ network: String, over device: String? = nil) throws {
        let (network, access) = try topology.access(network)
        guard case .mobile(let fixed) = try topology.mobile(host).link else { return }
        let device = try device.map(topology.device) ?? access.device
        let namespace = lab.namespace(host)
        let port = topology.port(host, device: device)
        try Gateways(lab: lab).build(network)
        let router = try plug(host, device, into: network)
        if access.resolver != nil { try lab.writeResolvers(of: host, access.resolver) }
        if let addresses = fixed[network.name] {
            try Namespace.ipBatch(["link set dev \(port) up"], in: router)
            try Namespace.ipBatch(["link set \(device) up"], in: namespace)
            // The kernel takes a new carrier to its bridge later, and drops until then; DHCP would have waited for it, fixed addresses don't.
            try lab.wait("the link of \(host) to \(network.name) carries frames", seconds: 5) { try Interface.forwards(port, in: router) }
            let gateways = network.router.map { $0.prefix { $0 != "/" } }
            let lines =
                addresses.map { Namespace.addressLine($0, dev: device, replaces: true) }
                + gateways.map { "route replace default via \($0) dev \(device) metric \(access.metric)" }
            try Namespace.ipBatch(lines, in: namespace)
            return
        }
        RecordedProcess.end([client(host, device)])
        // Also while it forwards, as a mobile router does.
        let settings = ["accept_ra": "2", "dad_transmits": "0"].map { ("net.ipv6.conf.\(device).\($0)", $1) }
        try Namespace.set(Dictionary(uniqueKeysWithValues: settings), in: namespace)
        try Namespace.ipBatch(["link set dev \(port) up"], in: router)
        try Namespace.ipBatch(["link set \(device) up"], in: namespace)
        guard access.pool != nil else { return }
        let options = ["-f", "-i", device, "-s", clientScript, "-t", "10", "-T", "1", "-A", "1"]
        try lab.start(host, "dhcp-\(device)", ["udhcpc"] + options)
    }

    /// Whether a host's interface is in a network, with addresses by DHCP.
    package func isAttached(_ host: String, _ network: Topology.Network, over device: String) throws -> Bool {
        guard try self.network(host, device).name == network.name, client(host, device).pid != nil else { return false }
        return try Interface.isConfigured(device, network.access?.families ?? [], in: lab.namespace(host))
    }

    /// Whether an interface's link is up, in whatever network.
    package func isPlugged(_ host: String, over device: String) throws -> Bool {
        try Interface.named(device, in: lab.namespace(host)).isUp
    }

    public func detach(_ host: String, _ network: String) throws {
        _ = try topology.mobile(host)
        let network = try topology.access(network).network
        let devices = try topology.devices.map(\.device).filter { try self.network(host, $0).name == network.name }
        guard !devices.isEmpty else { throw LabError("\(host) is not in \(network.name)") }
        for device in devices { try detach(host, device: device) }
    }

    /// Unplugs one interface, wherever it is.
    package func detach(_ host: String, device: String) throws {
        // The signal goes first, as when one walks out of range; what the host knows of the network goes with the link.
        try Namespace.ipBatch(["link set \(topology.port(host, device: device)) down"], in: lab.namespace(topology.router(of: network(host, device))))
        RecordedProcess.end([client(host, device)])
        if try topology.access(network(host, device).name).access.resolver != nil { try lab.writeResolvers(of: host) }
        try Namespace.ipBatch(["link set \(device) down", "address flush dev \(device)"], in: lab.namespace(host))
    }

    private func client(_ host: String, _ device: String) -> RecordedProcess { lab.process(host, "dhcp-\(device)") }

    // MARK: Where plugs are

    private func record(_ host: String, _ device: String) -> String { "\(lab.directory(host))/\(device).network" }

    /// The network that an interface was plugged into last: at first the one that its port was built into.
    package func network(_ host: String, _ device: String) throws -> Topology.Network {
        let recorded = try? String(contentsOfFile: record(host, device), encoding: .utf8)
        let name = recorded.map { String($0.prefix { $0 != "\n" }) } ?? topology.devices.first { $0.device == device }?.network
        return try topology.access(name ?? "").network
    }

    /// Takes the port of an interface to the bridge of a network.
    ///
    /// - Returns: the namespace that it is in then.
    private func plug(_ host: String, _ device: String, into network: Topology.Network) throws -> String {
        let present = try self.network(host, device)
        let router = lab.namespace(topology.router(of: network))
        guard present.name != network.name else { return router }
        try detach(host, device: device)
        let port = topology.port(host, device: device)
        try Namespace.ipBatch(["link set dev \(port) netns \(router)"], in: lab.namespace(topology.router(of: present)))
        try Namespace.ipBatch(network.join(port), in: router)
        try "\(network.name)\n".write(toFile: record(host, device), atomically: false, encoding: .utf8)
        return router
    }

    // MARK: Silence

    /// The router's bridge drops every frame from and to the host, whose link stays up all the same.
    public func block(_ host: String, _ network: String) throws {
        try unblock(host, network)
        for (port, router) in try ports(host, network) {
            let rules = """
                table bridge \(table(port)) {
                    chain from { type filter hook prerouting priority 0; iifname "\(port)" drop; }
                    chain to { type filter hook postrouting priority 0; oifname "\(port)" drop; }
                }
                """
            let result = try runCommand(["ip", "netns", "exec", router, "nft", "-f", "-"], input: rules)
            guard result.status == 0 else { throw LabError("nft: \(result.output)") }
        }
    }

    public func unblock(_ host: String, _ network: String) throws {
        for (port, router) in try ports(host, network) {
            _ = try runCommand(["ip", "netns", "exec", router, "nft", "delete", "table", "bridge", table(port)])
        }
    }

    /// A host's ports in a network, each with its namespace.
    private func ports(_ host: String, _ network: String) throws -> [(port: String, router: String)] {
        _ = try topology.mobile(host)
        let network = try topology.access(network).network
        let devices = try topology.devices.map(\.device).filter { try self.network(host, $0).name == network.name }
        guard !devices.isEmpty else { throw LabError("\(host) is not in \(network.name)") }
        return devices.map { (topology.port(host, device: $0), lab.namespace(topology.router(of: network))) }
    }

    private func table(_ port: String) -> String { "block_" + port.map { $0 == "-" ? "_" : $0 } }
}

extension Topology.Network {
    /// The bridge that it is, at whose routes for it.
    var bridge: String { gateway == nil ? name : GatewayPlan.inner }

    /// Makes a link's end a port of it.
    func join(_ port: String) -> [String] {
        ["link set dev \(port) master \(bridge)"] + (gateway?.isolatesClients == true ? ["link set dev \(port) type bridge_slave isolated on"] : [])
    }
}
