import MATSignal

/// Which routes and rules the node should have: a value computed from what is known, compared with what is there.
///
///     priority
///     base       from MoA                  lookup T(link)   a socket bound to a MoA uses that MoA's link
///     base + 1   from MoA with mark        lookup T(link)   likewise the agent's own, where the MoA is a HoA as well
///     base + 2   mark                      lookup main      the agent's own sockets are never captured
///     base + 10  iif lo                    lookup capture   local sockets: peers' routes, exceptions, the rest to mat0
///     base + 11  from MoA that is a HoA    lookup T(link)   what capture let through
struct RoutePlan {
    /// Routes of the main table copied for one link. A host with more is a router, where the rest follows the main table.
    static let routesPerLinkMax = 1024

    var configuration: IMTConfiguration
    var tables: LinkTables
    var locators: [LocalAddress]
    var deviceIndex: UInt32
    /// Addresses that are known to be plain now.
    var plain: Set<IPAddress>
    /// Families whose HoA can be used.
    var homes: Set<IPAddress>

    static func linkTable(_ configuration: IMTConfiguration, _ interfaceIndex: UInt32) -> UInt32 {
        configuration.routingTable &+ interfaceIndex
    }

    func rules() -> Set<KernelRule> {
        var rules: Set<KernelRule> = []
        let base = configuration.rulePriorityBase
        for isIPv4 in [true, false] {
            rules.insert(KernelRule(isIPv4: isIPv4, priority: base + 2, mark: configuration.mark, table: KernelValues.tableMain))
            rules.insert(KernelRule(isIPv4: isIPv4, priority: base + 10, fromHere: true, table: configuration.routingTable))
        }
        let homeAddresses = Set(configuration.homeAddresses.map(\.address))
        for locator in locators {
            let table = Self.linkTable(configuration, locator.interfaceIndex)
            let rule = KernelRule(isIPv4: locator.address.isIPv4, priority: base, source: locator.address, table: table)
            guard homeAddresses.contains(locator.address) else {
                rules.insert(rule)
                continue
            }
            var marked = rule
            marked.priority = base + 1
            marked.mark = configuration.mark
            var late = rule
            late.priority = base + 11
            rules.formUnion([marked, late])
        }
        return rules
    }

    /// The per-link tables: the main table's routes over that link, so that each MoA is used where it belongs.
    func linkRoutes() -> [KernelRoute] {
        var result: [KernelRoute] = []
        var done: Set<UInt64> = []
        for locator in locators {
            let isIPv4 = locator.address.isIPv4
            guard done.insert(UInt64(locator.interfaceIndex) << 1 | (isIPv4 ? 1 : 0)).inserted else { continue }
            let over = tables.mainRoutes.filter {
                $0.isIPv4 == isIPv4 && $0.interfaceIndex == locator.interfaceIndex && $0.kind == .unicast
                    && !$0.destination.address.isLinkLocal && !$0.destination.address.isMulticast
            }
            for var route in over.sorted(by: { $0.destination.length < $1.destination.length }).prefix(Self.routesPerLinkMax) {
                route.table = Self.linkTable(configuration, locator.interfaceIndex)
                // The source is what the rule matched on.
                route.source = nil
                result.append(route)
            }
        }
        return result
    }

    /// The capture table but for the peers' routes.
    func captureRoutes() -> [KernelRoute] {
        var result: [KernelRoute] = []
        for isIPv4 in [true, false] {
            guard let home = configuration.primaryHome(isIPv4: isIPv4), homes.contains(home.address) else { continue }
            for prefix in capturedPrefixes(isIPv4) {
                result.append(
                    KernelRoute(
                        table: configuration.routingTable, destination: prefix, interfaceIndex: deviceIndex, source: home.address)
                )
            }
            for prefix in Self.neverCaptured(isIPv4) + configuration.alwaysPlain.filter({ $0.isIPv4 == isIPv4 }) {
                result.append(throwing(prefix))
            }
        }
        for address in plain { result.append(throwing(IPPrefix(address))) }
        return result
    }

    private func throwing(_ prefix: IPPrefix) -> KernelRoute {
        KernelRoute(table: configuration.routingTable, destination: prefix, kind: .throwing)
    }

    private func capturedPrefixes(_ isIPv4: Bool) -> [IPPrefix] {
        switch configuration.traffic {
        case .everything: [KernelRoute.everything(isIPv4: isIPv4)]
        case .prefixes(let prefixes): prefixes.filter { $0.isIPv4 == isIPv4 }
        case .nothing: []
        }
    }

    /// Destinations of the link or the host itself.
    private static func neverCaptured(_ isIPv4: Bool) -> [IPPrefix] {
        let texts =
            isIPv4
            ? ["224.0.0.0/4", "169.254.0.0/16", "127.0.0.0/8", "255.255.255.255/32"] : ["ff00::/8", "fe80::/10", "::1/128"]
        return texts.compactMap { IPPrefix($0) }
    }
}
