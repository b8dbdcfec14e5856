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
    /// Of the program that translates, where nftables does not.
    static let tunnel = "nat0"
    /// The routing table of what is to go through that.
    private static let tunnelTable = 100
    /// Where IPv4 addresses lie for hosts that have IPv6 only (RFC 6052 section 2.1).
    static let prefix64 = "64:ff9b::/96"

    private let network: Topology.Network
    private let gateway: Gateway

    init(_ network: Topology.Network, _ gateway: Gateway) {
        self.network = network
        self.gateway = gateway
    }

    /// What is done to IPv4, if it is translated.
    private var translation: Translation? {
        switch gateway.ipv4 {
        case .guarded, .absent: nil
        case .translated(let translation), .translatedFromIPv6(let translation): translation
        }
    }

    private var isFromIPv6: Bool { if case .translatedFromIPv6 = gateway.ipv4 { true } else { false } }
    /// A program translates.
    private var hasTunnel: Bool { translation.map { isFromIPv6 || !$0.isLinux } ?? false }

    var settings: [String: String] {
        var settings = NetworkPlan.settings
        settings.merge(Namespace.forwarding) { $1 }
        if let translation {
            settings["net.netfilter.nf_conntrack_udp_timeout"] = "\(translation.unansweredSeconds)"
            settings["net.netfilter.nf_conntrack_udp_timeout_stream"] = "\(translation.answeredSeconds)"
        }
        if hasTunnel {
            // Out of the tunnel come packets from everywhere.
            for name in ["all", "default"] { settings["net.ipv4.conf.\(name).rp_filter"] = "0" }
        }
        return settings
    }

    /// When the link outwards is there: answers for an address that is another interface's would be late by 0.8 s.
    var linkSettings: [String: String] { hasTunnel ? ["net.ipv4.neigh.\(Self.outer).proxy_delay": "0"] : [:] }

    /// On the gateway, before its link is there.
    var inside: [String] {
        [NetworkPlan.bridge(Self.inner, of: network.name), "link set \(Self.inner) up"] + network.router.map { NetworkPlan.address($0, Self.inner) }
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
            if !isIPv6, translation != nil { return nil }
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

    /// The public IPv4 addresses, the one in use first.
    var publicAddresses: [String] { gateway.outside.filter { !$0.contains(":") } + (gateway.nextAddress.map { [$0] } ?? []) }

    /// On the gateway, when its link is there.
    func outwards(_ next: [String]) -> [String] {
        let hops = next.filter { hop in gateway.outside.contains { $0.contains(":") == hop.contains(":") } }
        let own = hasTunnel ? gateway.outside.filter { $0.contains(":") } + (gateway.transferAddress.map { [$0] } ?? []) : gateway.outside
        return ["link set \(Self.outer) up"] + own.map { NetworkPlan.address($0, Self.outer) }
            + hops.map { "route add default via \($0.prefix { $0 != "/" }) dev \(Self.outer)" } + (publicAddresses.first.map(through) ?? [])
    }

    /// The way through the program that translates: what comes from inside, and what comes to the public address.
    private func through(_ address: String) -> [String] {
        guard hasTunnel else { return [] }
        let inwards =
            isFromIPv6
            ? ["route add \(Self.prefix64) dev \(Self.tunnel)"]
            : ["rule add iif \(Self.inner) lookup \(Self.tunnelTable)", "route add default dev \(Self.tunnel) table \(Self.tunnelTable)"]
        return ["tuntap add dev \(Self.tunnel) mode tun", "link set \(Self.tunnel) up"] + inwards + answer("add", for: address)
    }

    private func answer(_ verb: String, for address: String) -> [String] {
        let address = address.prefix { $0 != "/" }
        return ["route \(verb) \(address)/32 dev \(Self.tunnel)", "neighbour \(verb) proxy \(address) dev \(Self.outer)"]
    }

    /// When another public address takes the place of one.
    func exchange(_ old: String, for new: String, _ next: [String]) -> [String] {
        if hasTunnel { return answer("delete", for: old) + answer("add", for: new) }
        // Without its last address a link loses its routes.
        let hop = next.first { !$0.contains(":") }?.prefix { $0 != "/" }
        return ["address delete \(old) dev \(Self.outer)", NetworkPlan.address(new, Self.outer)]
            + (hop.map { ["route replace default via \($0) dev \(Self.outer)"] } ?? [])
    }

    /// The arguments of `mat-lab nat`, if a program translates.
    func program(_ address: String) -> [String]? {
        guard hasTunnel, let translation, let inside = isFromIPv6 ? Self.prefix64 : network.router.first.flatMap(Self.prefix)?.description else {
            return nil
        }
        var arguments = ["nat", Self.tunnel, "--outer", String(address.prefix { $0 != "/" }), "--inside", inside]
        arguments += ["--mapping", translation.mapping.rawValue, "--filtering", translation.filtering.rawValue]
        arguments += ["--unanswered", "\(translation.unansweredSeconds)", "--answered", "\(translation.answeredSeconds)"]
        if translation.hairpins { arguments.append("--hairpins") }
        if let age = translation.ageSeconds { arguments += ["--age", "\(age)"] }
        if let block = translation.blockPorts { arguments += ["--block", "\(block)"] }
        return arguments
    }

    // MARK: Rules

    /// nftables' text. What is not wanted from outside is dropped without an answer, as home routers do.
    var rules: String {
        let (inner, outer) = (Self.inner, Self.outer)
        // The tracking that `ct` brings puts fragments together for the program that translates.
        let tunnel = hasTunnel ? ["iifname \"\(Self.tunnel)\" accept", "oifname \"\(Self.tunnel)\" accept"] : []
        let open = gateway.ipv6 == .open ? ["meta nfproto ipv6 accept"] : []
        let forward = tunnel + open + ["iifname \"\(inner)\" accept", "ct state established,related accept", "drop"]
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
        if gateway.dropsUDPWithoutSum {
            text += """
                table ip6 sums {
                    chain forward { type filter hook forward priority filter - 1; meta l4proto udp udp checksum 0 counter drop; }
                }

                """
        }
        if let translation, !hasTunnel {
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
            let ports = Self.block(number, size)
            return "ip saddr \(net)\(number) meta l4proto { tcp, udp } masquerade to :\(ports.lowerBound)-\(ports.upperBound)\(option)"
        }
        return blocks + ["masquerade"]
    }

    /// The ports of a subscriber; of one that has no block they are those below all blocks.
    private static func block(_ number: Int, _ size: Int) -> ClosedRange<UInt16> {
        let (first, overflow) = (number - subscribers.lowerBound).multipliedReportingOverflow(by: size)
        guard subscribers.contains(number), !overflow, size > 0, let lower = UInt16(exactly: first + firstBlockPort),
            let upper = UInt16(exactly: first + firstBlockPort + size - 1)
        else { return 1024...UInt16(firstBlockPort - 1) }
        return lower...upper
    }

    /// Of an inner address.
    static func ports(_ rules: Translation) -> @Sendable (IPAddress) -> ClosedRange<UInt16> {
        guard let size = rules.blockPorts else { return { _ in 1024...65_535 } }
        return { block(Int($0.low & 0xFF), size) }
    }
}
