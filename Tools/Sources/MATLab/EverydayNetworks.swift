extension Topology {
    /// Networks as most people have them. Each is behind a gateway of its own, which is built when a host first comes there:
    ///
    /// ```
    ///   mn --- wlan0 --- lan  home     eth0 --- 198.19.1.2/25 --- r         NAT: Linux masquerade
    ///   mn --- wlan0 --- lan  twin     eth0 --- 198.19.3.2/25 --- r         the same, with the same addresses inside
    ///   mn --- wwan0 --- lan  carrier  eth0 --- 198.19.4.2/25 --- r         NAT of RFC 6598 addresses, 512 ports for each
    ///   mn --- wlan0 --- lan  double   eth0 --- lan  carrier                a home's NAT behind the carrier's
    ///   mn --- wlan0 --- lan  firewall eth0 --- r                           global addresses, only what is asked for comes in
    ///   mn --- wwan0 --- lan  ipv6     eth0 --- r                           IPv6 only; NAT64 for IPv4, and a resolver that makes use of it
    /// ```
    ///
    /// Network n has 198.19.n.0/25 and 2001:db8:c0:n::/64 between router and gateway, and inside 192.168.n.0/24, or, where its addresses are
    /// global, 198.19.n.128/25 and 2001:db8:c1:n::/64.
    static let everydayNetworks: [Network] = [
        translated("home", 1, "NAT of a home: Linux masquerade"),
        translated("home2", 2, "NAT of another home"),
        translated("twin", 3, "NAT of another home, with the addresses of home inside", inside: "192.168.1"),
        translated(
            "carrier", 4, "NAT of a carrier: 512 ports for each subscriber (RFC 7422)", inside: "100.64.0", device: wwan,
            Translation(blockPorts: 512)),
        translated("double", 5, "NAT of a home behind the carrier's", upstream: .network("carrier"), outside: "100.64.0.5/24"),
        translated(
            "symmetric", 6, "NAT with another port for each destination: masquerade random", Translation(mapping: .addressAndPortDependent)),
        translated("short", 7, "NAT that forgets after 30 s", Translation(answeredSeconds: 30)),
        guarded("firewall", 8, "global addresses behind a stateful firewall"),
        guarded("firewall2", 9, "another one like it"),
        translated("cafe", 10, "NAT whose clients do not reach one another", isolatesClients: true),
        translated("narrow", 11, "NAT that lets no UDP pass but DNS", dropsUDP: true),
        translated("cone", 12, "NAT that takes packets from anywhere (full cone)", Translation(filtering: .endpointIndependent)),
        translated("restricted", 13, "NAT that takes packets from any port of a host that was sent to", Translation(filtering: .addressDependent)),
        translated(
            "symmetric-cone", 14, "NAT with another port for each destination, that takes packets from anywhere",
            Translation(mapping: .addressAndPortDependent, filtering: .endpointIndependent)),
        translated(
            "symmetric-host", 15, "NAT with another port for each destination, that takes packets from its host",
            Translation(mapping: .addressAndPortDependent, filtering: .addressDependent)),
        translated("hairpin", 16, "NAT whose hosts reach one another at their outer endpoints", Translation(hairpins: true)),
        translated(
            "cafe-hairpin", 17, "such a one, whose clients do not reach one another otherwise", isolatesClients: true, Translation(hairpins: true)),
        translated("aging", 18, "NAT whose mappings end after 60 s whatever their traffic", Translation(ageSeconds: 60)),
        onlyIPv6("ipv6", 19, "global IPv6 addresses only, with NAT64 and DNS64", .open),
        onlyIPv6("ipv6-firewall", 20, "such a one, behind a stateful firewall", .guarded),
        withoutIPv4("ipv6-bare", 21, "global IPv6 addresses only, and no way to IPv4"),
        guarded("sums", 22, "as firewall, and lets no UDP over IPv6 pass that has no sum", dropsUDPWithoutSum: true),
    ]

    private static let wlan = (device: "wlan0", metric: 100)
    private static let wwan = (device: "wwan0", metric: 200)

    /// A network whose gateway translates IPv4, and knows no IPv6.
    private static func translated(
        _ name: String, _ number: Int, _ summary: String, inside: String? = nil, device: (device: String, metric: Int) = wlan,
        upstream: Gateway.Upstream? = nil, outside: String? = nil, isolatesClients: Bool = false, dropsUDP: Bool = false,
        _ translation: Translation = Translation()
    ) -> Network {
        let net = inside ?? "192.168.\(number)"
        let link = "198.19.\(number)"
        var gateway = Gateway(
            outside: [outside ?? "\(link).2/25"], upstream: upstream ?? .router(["\(link).1/25"]), ipv4: .translated(translation))
        if outside == nil { (gateway.nextAddress, gateway.transferAddress) = ("\(link).3/25", "\(link).4/25") }
        gateway.isolatesClients = isolatesClients
        gateway.dropsUDP = dropsUDP
        let pool = Pool("\(net).\(GatewayPlan.firstByDHCP)", "\(net).\(GatewayPlan.subscribers.upperBound)", mask: "255.255.255.0")
        return Network(
            name, router: ["\(net).1/24"], access: Access(device: device.device, metric: device.metric, pool: pool), gateway: gateway,
            summary: summary)
    }

    /// A network of global addresses in both families, with a stateful firewall.
    private static func guarded(_ name: String, _ number: Int, _ summary: String, dropsUDPWithoutSum: Bool = false) -> Network {
        let (link, net) = ("198.19.\(number)", "2001:db8:c0:\(number)::")
        var gateway = Gateway(
            outside: ["\(link).2/25", "\(net)2/64"], upstream: .router(["\(link).1/25", "\(net)1/64"]), ipv4: .guarded, ipv6: .guarded)
        gateway.dropsUDPWithoutSum = dropsUDPWithoutSum
        return Network(
            name, router: ["\(link).129/25", "2001:db8:c1:\(number)::1/64"],
            access: Access(
                device: wlan.device, metric: wlan.metric, pool: Pool("\(link).140", "\(link).250", mask: "255.255.255.128"),
                advertised: "2001:db8:c1:\(number)::"),
            gateway: gateway, summary: summary)
    }

    /// A network that has left IPv4 behind.
    private static func withoutIPv4(_ name: String, _ number: Int, _ summary: String) -> Network {
        let (net, inside) = ("2001:db8:c0:\(number)::", "2001:db8:c1:\(number)::")
        return Network(
            name, router: ["\(inside)1/64"], access: Access(device: wwan.device, metric: wwan.metric, advertised: inside),
            gateway: Gateway(outside: ["\(net)2/64"], upstream: .router(["\(net)1/64"]), ipv4: .absent, ipv6: .open), summary: summary)
    }

    /// A network as many carriers have it: IPv4 is reached by addresses in a prefix of IPv6.
    private static func onlyIPv6(_ name: String, _ number: Int, _ summary: String, _ ipv6: Gateway.IPv6) -> Network {
        let (link, net, inside) = ("198.19.\(number)", "2001:db8:c0:\(number)::", "2001:db8:c1:\(number)::")
        var gateway = Gateway(
            outside: ["\(link).2/25", "\(net)2/64"], upstream: .router(["\(link).1/25", "\(net)1/64"]), ipv4: .translatedFromIPv6(Translation()),
            ipv6: ipv6)
        (gateway.nextAddress, gateway.transferAddress) = ("\(link).3/25", "\(link).4/25")
        return Network(
            name, router: ["\(inside)1/64"],
            access: Access(device: wwan.device, metric: wwan.metric, advertised: inside, resolver: "\(inside)1"), gateway: gateway, summary: summary)
    }
}
