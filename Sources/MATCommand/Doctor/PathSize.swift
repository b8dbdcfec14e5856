import MATSignal

/// Which sizes of packets get to a place and back, of one link: to its router, and to the mapping servers.
struct PathSize: Hashable, Sendable {
    enum Target: Hashable, Sendable {
        case router
        case mappingServer
    }

    var target: Target
    var address: IPAddress
    var interface: String
    /// Of the link.
    var mtu: Int
    /// Sizes of packets that were answered, of those that were sent; none if nothing is known.
    var answered: Set<Int>
    /// What routers have told of the path: its MTU by the kernel.
    var told: Int?

    /// Without fragmentation, and with room for what packets between home addresses get in front of them (protocol.md section 11.2).
    static func needed(_ family: AddressFamily) -> Int { ipv6Min + (family == .ipv4 ? 28 : 48) }
    /// The least MTU of a link that is to carry IPv6 (RFC 8200 section 5).
    static let ipv6Min = 1280

    /// Sizes to try: the usual ones of links and tunnels, and what the link itself takes.
    static func tried(_ mtu: Int, _ family: AddressFamily) -> [Int] {
        let usual = [576, 1280, 1308, 1328, 1400, 1420, 1452, 1472, 1492, 1500, 4000, 9000].filter { $0 < mtu && ($0 >= ipv6Min || family == .ipv4) }
        // The smallest is what is answered wherever anything is.
        return (usual.isEmpty ? [min(mtu, 128)] : usual) + (mtu <= 65_535 ? [mtu] : [])
    }
}

extension DoctorFindings {
    /// Links whose packets are too small for what MAT sends, or too large for the network that they are in.
    static func sizes(_ host: HostFacts, _ paths: [PathSize], homes: [AddressFamily]) -> [DoctorFinding] {
        var findings: [DoctorFinding] = []
        for interface in host.interfaces {
            if interface.mtu < PathSize.ipv6Min, homes.contains(.ipv6) || interface.addresses.contains(where: { !$0.isIPv4 }) {
                findings.append(
                    DoctorFinding(
                        homes.contains(.ipv6) ? .problem : .warning, "MTU",
                        "\(interface.name) has an MTU of \(interface.mtu) octets; IPv6 needs 1280 (RFC 8200), and the kernel has none on such a link",
                        remedy: "`ip link set \(interface.name) mtu 1500`, or what that network takes; make it last where the link is configured"))
            } else if interface.mtu < PathSize.needed(.ipv4) {
                findings.append(
                    DoctorFinding(
                        .warning, "MTU",
                        "\(interface.name) has an MTU of \(interface.mtu) octets: packets of home addresses that travel in UDP are cut up, which many networks lose",
                        remedy: "`ip link set \(interface.name) mtu 1500`, or what that network takes: at least 1328"))
            }
        }
        for route in host.defaultRoutes {
            guard let mtu = route.mtu, mtu < PathSize.needed(.ipv4) else { continue }
            findings.append(
                DoctorFinding(
                    .warning, "MTU",
                    "the \(route.family) default route over \(route.interface) has an MTU of \(mtu) octets of its own: packets of home addresses are cut up, or refused",
                    remedy: "`ip \(route.family == .ipv6 ? "-6 " : "")route show default` shows it; take it out where the route is configured"))
        }
        return findings + paths.compactMap(size)
    }

    private static func size(_ path: PathSize) -> DoctorFinding? {
        guard let largest = path.answered.max(), path.answered.contains(where: { $0 < path.mtu }) else { return nil }
        let place = "\(path.target == .router ? "the router" : "the mapping server") \(path.address)"
        guard largest < path.mtu else {
            return path.target == .router
                ? DoctorFinding(.ok, "MTU", "packets of \(path.mtu) octets get to \(place) over \(path.interface)") : nil
        }
        let needed = PathSize.needed(path.address.family)
        if let told = path.told, told < path.mtu {
            return told < needed
                ? DoctorFinding(
                    .warning, "MTU",
                    "the path to \(place) over \(path.interface) takes \(told) octets: packets of home addresses that travel in UDP are cut up there",
                    remedy: "a tunnel or VPN on the way is narrow; let it take at least \(needed) octets")
                : nil
        }
        switch path.target {
        case .router:
            return DoctorFinding(
                .problem, "MTU",
                "packets of \(path.mtu) octets to \(place) vanish on \(path.interface), \(largest) get there: the link's MTU is larger than that of its network, and nobody says so",
                remedy: "`ip link set \(path.interface) mtu \(largest)`, or give all hosts and switches of that network the larger one")
        case .mappingServer:
            return DoctorFinding(
                .warning, "MTU",
                "packets of \(path.mtu) octets to \(place) over \(path.interface) vanish, \(largest) get there, and no router says that they are too big",
                remedy:
                    "somebody on the way drops ICMP \(path.address.isIPv4 ? "\"fragmentation needed\" (type 3, code 4)" : "\"packet too big\" (type 2)"); let it through, or `ip link set \(path.interface) mtu \(largest)`"
            )
        }
    }
}
