import FoundationEssentials
import Glibc
import Namespaces

/// The networks that mobile hosts are plugged into: their DHCP and router advertisements, and the plugs.
public struct AccessNetworks {
    private let lab: Lab
    private var topology: Topology { lab.topology }
    private var router: String { lab.namespace(topology.router) }

    public init(lab: Lab) { self.lab = lab }

    // MARK: Their server

    func start() throws {
        let file = "\(lab.directory(topology.router))/dnsmasq.conf"
        try Self.serverConfiguration(topology, leases: "\(lab.directory(topology.router))/leases").write(
            toFile: file, atomically: false, encoding: .utf8)
        try lab.start(topology.router, "dnsmasq", ["dnsmasq", "--keep-in-foreground", "--log-facility=-", "--conf-file=\(file)", "--pid-file="])
        try Self.clientScript(topology).write(toFile: clientScript, atomically: false, encoding: .utf8)
        chmod(clientScript, 0o755)
    }

    static func serverConfiguration(_ topology: Topology, leases: String) -> String {
        var lines = ["port=0", "no-hosts", "no-resolv", "no-ping", "user=root", "dhcp-authoritative", "dhcp-leasefile=\(leases)"]
        let networks = topology.accessNetworks
        lines += networks.map { "interface=\($0.network.name)" }
        lines += ["bind-interfaces", "except-interface=lo"]
        lines += networks.map { "dhcp-range=\($0.access.first),\($0.access.last),\($0.access.mask),1h" }
        lines.append("enable-ra")
        lines += networks.map { "dhcp-range=\($0.access.advertised),ra-only,64,1h" }
        return lines.joined(separator: "\n") + "\n"
    }

    private var clientScript: String { "\(lab.run)/udhcpc.script" }

    /// The client's script: address and default route, metric by interface; nothing else of the host is touched.
    static func clientScript(_ topology: Topology) -> String {
        let metrics = topology.accessNetworks.map { "\($0.access.device)) metric=\($0.access.metric);;" }.joined(separator: " ")
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

    /// Plugs a host in: link up, DHCP and router advertisements, or its fixed addresses.
    public func attach(_ host: String, _ network: String) throws {
        let access = try topology.access(network).access
        guard case .mobile(let fixed) = try topology.mobile(host).link else { return }
        let namespace = lab.namespace(host)
        let port = topology.port(host, network)
        if let addresses = fixed[network] {
            try Namespace.ipBatch(["link set \(port) up"], in: router)
            try Namespace.ipBatch(["link set \(access.device) up"], in: namespace)
            // The kernel takes a new carrier to its bridge later, and drops until then; DHCP would have waited for it, fixed addresses don't.
            try lab.wait("the link of \(host) to \(network) carries frames", seconds: 5) { try Interface.forwards(port, in: router) }
            let gateways = try topology.access(network).network.router.map { $0.prefix { $0 != "/" } }
            let lines =
                addresses.map { "address replace \($0) dev \(access.device)" + ($0.contains(":") ? " nodad" : "") }
                + gateways.map { "route replace default via \($0) dev \(access.device) metric \(access.metric)" }
            try Namespace.ipBatch(lines, in: namespace)
            return
        }
        RecordedProcess.end([client(host, access)])
        let settings = ["accept_ra": "1", "dad_transmits": "0"].map { ("net.ipv6.conf.\(access.device).\($0)", $1) }
        try Namespace.set(Dictionary(uniqueKeysWithValues: settings), in: namespace)
        try Namespace.ipBatch(["link set \(port) up"], in: router)
        try Namespace.ipBatch(["link set \(access.device) up"], in: namespace)
        let options = ["-f", "-i", access.device, "-s", clientScript, "-t", "10", "-T", "1", "-A", "1"]
        try lab.start(host, "dhcp-\(access.device)", ["udhcpc"] + options)
    }

    public func detach(_ host: String, _ network: String) throws {
        let access = try topology.access(network).access
        _ = try topology.mobile(host)
        // The signal goes first, as when one walks out of range; what the host knows of the network goes with the link.
        try Namespace.ipBatch(["link set \(topology.port(host, network)) down"], in: router)
        RecordedProcess.end([client(host, access)])
        try Namespace.ipBatch(["link set \(access.device) down", "address flush dev \(access.device)"], in: lab.namespace(host))
    }

    private func client(_ host: String, _ access: Topology.Access) -> RecordedProcess { lab.process(host, "dhcp-\(access.device)") }

    // MARK: Silence

    /// The router's bridge drops every frame from and to the host, whose link stays up all the same.
    public func block(_ host: String, _ network: String) throws {
        try unblock(host, network)
        let port = topology.port(host, network)
        let rules = """
            table bridge \(table(host, network)) {
                chain from { type filter hook prerouting priority 0; iifname "\(port)" drop; }
                chain to { type filter hook postrouting priority 0; oifname "\(port)" drop; }
            }
            """
        let result = try runCommand(["ip", "netns", "exec", router, "nft", "-f", "-"], input: rules)
        guard result.status == 0 else { throw LabError("nft: \(result.output)") }
    }

    public func unblock(_ host: String, _ network: String) throws {
        _ = try (topology.mobile(host), topology.access(network))
        _ = try runCommand(["ip", "netns", "exec", router, "nft", "delete", "table", "bridge", table(host, network)])
    }

    private func table(_ host: String, _ network: String) -> String { "block_\(host)_\(network)" }
}
