import MATSignal

/// Which routes and rules the node should have: a value computed from what is known, compared with what is there.
///
///     priority   (where they begin: `RulePlace`)
///     base       from MoA                  lookup T(link)   a socket bound to a MoA uses that MoA's link
///     base + 1   from MoA with mark        lookup T(link)   likewise the agent's own, where the MoA is a HoA as well
///     base + 2   mark                      lookup main      the agent's own sockets are never captured
///     base + 3   to base + 8                                programs that start from other addresses: see `RoutePlan+Programs`
///     base + 9   from a further HoA        lookup T(HoA)    see `RoutePlan+FurtherHomes`
///     base + 10  iif lo                    lookup capture   local sockets: peers' routes, exceptions, the rest to mat0
///     base + 11  iif lo                    lookup path      peers that capture let through: the way all but a few take
///     base + 12  from MoA that is a HoA    lookup T(link)   what both let through
///     base + 13  from home prefix          lookup capture   a mobile network's hosts, whose packets are forwarded: as if they
///     base + 14  from home prefix          lookup path      were sent here
///
/// Most peers are reached over one own MoA and its link's default route. For these the capture table says `throw`, which names no
/// link, and the path table has the one route: when the node moves, that route changes, not theirs, and when a link goes down
/// the kernel withdraws one route, not theirs. Others (on the link itself, over another own MoA, over a special route) have a
/// whole route in the capture table. Plain destinations are thrown by both and follow the main table.
package struct RoutePlan {
    package var configuration: IMTConfiguration
    package var tables: LinkTables
    package var locators: [LocalAddress]
    package var deviceIndex: UInt32
    /// Addresses that are known to be plain now.
    package var plain: Set<IPAddress>
    /// Families whose HoA can be used.
    package var homes: Set<IPAddress>
    /// The own MoA of each family that most peers are reached from.
    package var primaries: [MobileAddress] = []
    /// Where our rules begin, if not where the configuration says.
    package var ruleBase: UInt32?
    /// Programs that start from other addresses than the rest of the host, by their sockets' marks.
    package var programs: [UInt32: ProgramVia] = [:]

    package init(
        configuration: IMTConfiguration, tables: LinkTables, locators: [LocalAddress], deviceIndex: UInt32, plain: Set<IPAddress>,
        homes: Set<IPAddress>, primaries: [MobileAddress] = [], ruleBase: UInt32? = nil, programs: [UInt32: ProgramVia] = [:]
    ) {
        self.configuration = configuration
        self.tables = tables
        self.locators = locators
        self.deviceIndex = deviceIndex
        self.plain = plain
        self.homes = homes
        self.primaries = primaries
        self.ruleBase = ruleBase
        self.programs = programs
    }

    package static func pathTable(_ configuration: IMTConfiguration) -> UInt32 { configuration.routingTable &+ 1 << 23 }

    package static func linkTable(_ configuration: IMTConfiguration, _ interfaceIndex: UInt32) -> UInt32 {
        configuration.routingTable &+ interfaceIndex
    }

    package func rules() -> Set<KernelRule> {
        var rules: Set<KernelRule> = []
        let base = ruleBase ?? configuration.rulePriorityBase
        for family in AddressFamily.allCases {
            rules.insert(KernelRule(family: family, priority: base + 2, mark: configuration.mark, table: KernelValues.tableMain))
            rules.insert(KernelRule(family: family, priority: base + 10, fromHere: true, table: configuration.routingTable))
            rules.insert(KernelRule(family: family, priority: base + 11, fromHere: true, table: Self.pathTable(configuration)))
        }
        for prefix in configuration.homePrefixes {
            let further = Self.furtherHomes(configuration).first { $0.hoa.address == prefix.address }?.table
            rules.insert(KernelRule(family: prefix.family, priority: base + 13, source: prefix, table: further ?? configuration.routingTable))
            if further == nil {
                rules.insert(KernelRule(family: prefix.family, priority: base + 14, source: prefix, table: Self.pathTable(configuration)))
            }
        }
        let homeAddresses = Set(configuration.homeAddresses.map(\.address))
        for locator in locators {
            let table = Self.linkTable(configuration, locator.interfaceIndex)
            let rule = KernelRule(family: locator.address.family, priority: base, source: IPPrefix(locator.address), table: table)
            guard homeAddresses.contains(locator.address) else {
                rules.insert(rule)
                continue
            }
            var marked = rule
            marked.priority = base + 1
            marked.mark = configuration.mark
            var late = rule
            late.priority = base + 12
            rules.formUnion([marked, late])
        }
        return rules.union(furtherRules()).union(programRules())
    }

    /// The per-link tables: the main table's routes over that link, so that each MoA is used where it belongs.
    package func linkRoutes() -> [KernelRoute] {
        var result: [KernelRoute] = []
        var done: Set<UInt64> = []
        for locator in locators {
            let family = locator.address.family
            guard done.insert(UInt64(locator.interfaceIndex) << 1 | (family == .ipv4 ? 1 : 0)).inserted else { continue }
            for (destination, alternatives) in tables.main.byDestination where destination.family == family {
                // One of each destination: in a table of its own the kernel would weigh them without what it has learnt in the other.
                guard var route = tables.best(of: alternatives.filter { $0.interfaceIndex == locator.interfaceIndex }) else { continue }
                route.table = Self.linkTable(configuration, locator.interfaceIndex)
                // The source is what the rule matched on.
                route.source = nil
                route.preference = 0
                result.append(route)
            }
        }
        return result
    }

    /// The capture table but for the peers' routes.
    package func captureRoutes() -> [KernelRoute] {
        var result: [KernelRoute] = []
        for family in AddressFamily.allCases {
            guard let home = configuration.primaryHome(family: family), homes.contains(home.address) else { continue }
            for prefix in capturedPrefixes(family) {
                result.append(
                    KernelRoute(
                        table: configuration.routingTable, destination: prefix, interfaceIndex: deviceIndex, source: home.address)
                )
            }
        }
        return result + exceptions(table: configuration.routingTable)
    }

    /// Of the path table's routes that peers share: the way, and the device beneath it.
    package static let sharedPriorities = [KernelRoute.ownPriority, KernelRoute.ownPriority + 1]

    /// The path table: for each family the route that most peers share, and the device beneath it for when there is none.
    package func pathRoutes() -> [KernelRoute] {
        var result: [KernelRoute] = []
        let table = Self.pathTable(configuration)
        for family in AddressFamily.allCases {
            guard let home = configuration.primaryHome(family: family), homes.contains(home.address) else { continue }
            let way = primaries.first { $0.family == family }.flatMap { defaultRoute(from: $0) }
            for prefix in capturedPrefixes(family) {
                if let way {
                    result.append(
                        KernelRoute(
                            table: table, destination: prefix, gateway: way.gateway, interfaceIndex: way.interfaceIndex, source: home.address,
                            mtu: way.mtu))
                }
                result.append(
                    KernelRoute(
                        table: table, destination: prefix, interfaceIndex: deviceIndex, source: home.address,
                        priority: Self.sharedPriorities[1]))
            }
        }
        return result.isEmpty ? [] : result + exceptions(table: table)
    }

    /// What is never a peer, or not now.
    package func exceptions(table: UInt32) -> [KernelRoute] {
        // The last are behind this router itself.
        let named = configuration.alwaysPlain + configuration.exceptions + configuration.homePrefixes
        let never = AddressFamily.allCases.filter { family in configuration.primaryHome(family: family).map { homes.contains($0.address) } ?? false }
            .flatMap { family in Self.neverCaptured(family) + named.filter { $0.family == family } }
        return (never + plain.map { IPPrefix($0) }).map { KernelRoute(table: table, destination: $0, kind: .throwing) }
    }

    // MARK: The way to a peer

    /// The route to a peer's HoA: what the main table says of the way from the carriage's own address to its destination. What is
    /// encapsulated goes into the device instead, as far as there is that way.
    ///
    /// - Returns: `nil` without a way now; the peer's packets then fall into the device and wait.
    package func peerRoute(to peer: HomeAddress, own: HomeAddress, over carriage: Carriage) -> KernelRoute? {
        let (way, limit) = (carriage.way, carriage.mtu(over:))
        guard way.endpoints != nil else { return mirroredRoute(to: peer, own: own, over: way) }
        return self.way(from: way.own, to: way.destination).map { outer in
            KernelRoute(
                table: configuration.routingTable, destination: IPPrefix(peer.address), interfaceIndex: deviceIndex, source: own.address,
                mtu: limit(outer.mtu), segment: carriage.segment(of: own.family))
        }
    }

    /// Which link datagrams of an encapsulated carriage leave by, to which neighbour there, and the largest packet in them; `nil` without a way, and where
    /// they may have to be cut up or need a sum.
    package func forwardingWay(_ carriage: Carriage) -> ForwardingEntry.Way? {
        guard let (own, far) = carriage.way.endpoints, carriage.largest >= Carriage.mtuAtFirst, !carriage.needsSum,
            let outer = way(from: carriage.way.own, to: far.address)
        else { return nil }
        return ForwardingEntry.Way(
            own: own, far: far, link: outer.interfaceIndex, largest: UInt16(clamping: carriage.mtu(over: outer.mtu)),
            next: outer.gateway ?? far.address)
    }

    private func mirroredRoute(to peer: HomeAddress, own: HomeAddress, over carriage: Carriage.Way) -> KernelRoute? {
        let throwing = KernelRoute(table: configuration.routingTable, destination: IPPrefix(peer.address), kind: .throwing)
        var isShared: Bool {
            primaries.contains(carriage.own) && own == configuration.primaryHome(family: own.family)
                && capturedPrefixes(own.family).contains { $0.contains(peer.address) }
        }
        guard let way = way(from: carriage.own, to: carriage.destination) else {
            // Between two networks the shared route is gone, and the next one is for these again.
            return isShared ? throwing : nil
        }
        if way.destination.familyLength == 0, isWithoutNeighbours(way), isShared { return throwing }
        // A peer on the link itself has no gateway, but its neighbour entry is its MoA's: a released packet has its next hop
        // fixed before translation (FLOWI_FLAG_KNOWN_NH of raw sockets), and nobody answers for the HoA on that link.
        let neighbour = carriage.destination == peer.address ? nil : carriage.destination
        return KernelRoute(
            table: configuration.routingTable, destination: IPPrefix(peer.address), gateway: way.gateway ?? neighbour,
            interfaceIndex: way.interfaceIndex, source: own.address, mtu: way.mtu)
    }

    /// Whether the next hop is the same for every destination: a gateway, or a link without neighbours (a modem's).
    private func isWithoutNeighbours(_ route: KernelRoute) -> Bool {
        route.gateway != nil || (tables.links[route.interfaceIndex]?.flags ?? 0) & KernelValues.flagsWithoutNeighbours != 0
    }

    package func defaultRoute(from moa: MobileAddress) -> KernelRoute? {
        tables.best(of: tables.main.defaults(family: moa.family).filter(leads(from: moa)))
    }

    /// The main table's longest match over the own MoA's link, as the kernel would find it through that link's table.
    private func way(from moa: MobileAddress, to destination: IPAddress) -> KernelRoute? {
        moa.family == destination.family ? tables.best(of: tables.main.longestMatch(destination, where: leads(from: moa))) : nil
    }

    /// A MoA stays configured when its link goes down, and another link's network has no way back to it: only routes over its
    /// own link count. A MoA that is also a HoA belongs to the host rather than to a link: there the main table decides.
    private func leads(from moa: MobileAddress) -> (KernelRoute) -> Bool {
        let isHome = configuration.homeAddresses.contains { $0.address == moa.address }
        var links = Set(locators.filter { $0.address == moa.address }.map(\.interfaceIndex))
        links.formUnion(tables.addresses.filter { $0.address == moa.address }.map(\.interfaceIndex))
        return { route in
            tables.links[route.interfaceIndex]?.isUp == true && route.interfaceIndex != deviceIndex
                && (isHome || links.contains(route.interfaceIndex))
        }
    }

    /// The own MoA that an untranslated connection's packets show on the wire: its own address, or what source NAT makes of the HoA, which is
    /// the address of the link that the main table chooses.
    package func moa(of connection: TCPConnection, own: [MobileAddress: HomeAddress]) -> (MobileAddress, HomeAddress)? {
        let local = MobileAddress(connection.local.address)
        if let home = own[local] { return (local, home) }
        let home = HomeAddress(connection.local.address)
        guard configuration.homeAddresses.contains(home) else { return nil }
        let chosen = tables.best(of: tables.main.longestMatch(connection.remote.address) { _ in true })
        let candidates = locators.filter { $0.interfaceIndex == chosen?.interfaceIndex }.map { MobileAddress($0.address) }
        return candidates.first { own[$0] == home }.map { ($0, home) }
    }

    package func capturedPrefixes(_ family: AddressFamily) -> [IPPrefix] { configuration.capturedPrefixes(family) }

    /// Destinations of the link or the host itself.
    static func neverCaptured(_ family: AddressFamily) -> [IPPrefix] {
        let texts =
            family == .ipv4
            ? ["224.0.0.0/4", "169.254.0.0/16", "127.0.0.0/8", "255.255.255.255/32"] : ["ff00::/8", "fe80::/10", "::1/128"]
        return texts.compactMap { IPPrefix($0) }
    }
}
