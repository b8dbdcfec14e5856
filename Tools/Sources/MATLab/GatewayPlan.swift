import MATSignal
import Namespaces

/// What the kernel of a gateway is told: `ip` commands, settings, rules. Pure: tests read it.
struct GatewayPlan {
    /// Host numbers that have a block of ports, where a translator gives blocks: some for fixed addresses, such as those of gateways behind it,
    /// and those that DHCP gives away.
    static let subscribers = 2...41
    static let firstByDHCP = 10
    /// Where the first one's block begins. Ports below are the gateway's own.
    private static let firstBlockPort = 16_384

    /// The bridge that hosts are plugged into, and the interface outwards.
    static let inner = "lan"
    static let outer = "eth0"

    private let network: Topology.Network
    private let gateway: Gateway

    init(_ network: Topology.Network, _ gateway: Gateway) {
        self.network = network
        self.gateway = gateway
    }

    var settings: [String: String] {
        var settings = NetworkPlan.settings
        settings.merge(Namespace.forwarding) { $1 }
        if case .translated(let translation) = gateway.ipv4 {
            settings["net.netfilter.nf_conntrack_udp_timeout"] = "\(translation.unansweredSeconds)"
            settings["net.netfilter.nf_conntrack_udp_timeout_stream"] = "\(translation.answeredSeconds)"
        }
        return settings
    }

    /// On the gateway, before its link is there.
    var inside: [String] {
        [NetworkPlan.bridge(Self.inner), "link set \(Self.inner) up"] + network.router.map { NetworkPlan.address($0, Self.inner) }
    }

    /// The link outwards, in no namespace.
    func link(own: String, upstream: String) -> String {
        "link add \(Self.outer) netns \(own) type veth peer name \(network.name) netns \(upstream)"
    }

    /// On the host that the link leads to.
    var atUpstream: [String] {
        switch gateway.upstream {
        case .network: ["link set dev \(network.name) master \(Self.inner)", "link set dev \(network.name) up"]
        case .router(let addresses):
            ["link set dev \(network.name) up"] + addresses.map { NetworkPlan.address($0, network.name) } + routesInwards
        }
    }

    /// To global addresses inside; nobody outside knows the others.
    private var routesInwards: [String] {
        network.router.compactMap { text in
            let isIPv6 = text.contains(":")
            if !isIPv6, case .translated = gateway.ipv4 { return nil }
            guard let prefix = Self.prefix(text), let next = gateway.outside.first(where: { $0.contains(":") == isIPv6 }) else { return nil }
            return "route add \(prefix) via \(next.prefix { $0 != "/" })"
        }
    }

    /// The prefix that an address with its length lies in.
    private static func prefix(_ text: String) -> IPPrefix? {
        let parts = text.split(separator: "/")
        guard parts.count == 2, let address = IPAddress(String(parts[0])), let length = UInt8(parts[1]) else { return nil }
        return IPPrefix(covering: address, length: length + address.family.leadingBits)
    }

    /// On the gateway, when its link is there.
    func outwards(_ next: [String]) -> [String] {
        ["link set \(Self.outer) up"] + gateway.outside.map { NetworkPlan.address($0, Self.outer) }
            + next.filter { hop in gateway.outside.contains { $0.contains(":") == hop.contains(":") } }
            .map { "route add default via \($0.prefix { $0 != "/" }) dev \(Self.outer)" }
    }

    // MARK: Rules

    /// nftables' text. What is not wanted from outside is dropped without an answer, as home routers do.
    var rules: String {
        let (inner, outer) = (Self.inner, Self.outer)
        let forward = ["iifname \"\(inner)\" accept", "ct state established,related accept", "drop"]
        let input = [
            "iifname != \"\(outer)\" accept", "ct state established,related accept", "icmp type echo-request accept",
            "icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-advert } accept", "drop",
        ]
        var text = """
            table inet guard {
                chain forward { type filter hook forward priority filter; \(forward.joined(separator: "; ")); }
                chain input { type filter hook input priority filter; \(input.joined(separator: "; ")); }
            }

            """
        if gateway.dropsUDP {
            text += """
                table inet narrow {
                    chain forward { type filter hook forward priority filter - 1; udp dport 53 accept; udp sport 53 accept; meta l4proto udp drop; }
                }

                """
        }
        if case .translated(let translation) = gateway.ipv4 {
            text += """
                table ip translate {
                    chain out { type nat hook postrouting priority srcnat; oifname != "\(outer)" accept; \(masquerade(translation).joined(separator: "; ")); }
                }

                """
        }
        return text
    }

    /// The kernel keeps a flow's port where it can, and gives another flow of the same inner endpoint the same outer one; unless told
    /// to take any.
    private func masquerade(_ translation: Translation) -> [String] {
        let option = translation.mapping == .endpointIndependent ? "" : " fully-random"
        guard let size = translation.blockPorts else { return ["masquerade\(option)"] }
        let blocks = Self.subscribers.compactMap { number -> String? in
            guard let net = network.router.first.flatMap({ text in text.lastIndex(of: ".").map { text[...$0] } }) else { return nil }
            let first = Self.firstBlockPort + (number - Self.subscribers.lowerBound) * size
            return "ip saddr \(net)\(number) meta l4proto { tcp, udp } masquerade to :\(first)-\(first + size - 1)\(option)"
        }
        return blocks + ["masquerade"]
    }
}
