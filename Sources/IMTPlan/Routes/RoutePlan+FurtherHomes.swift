import MATSignal

// Several HoAs of one family. Sockets that are bound to none start from the first (`IMTConfiguration.primaryHome`), and their
// routes are those of `RoutePlan`. Each further HoA has a capture table of its own, which its packets go to first:
//
//     base + 9   from a further HoA, iif lo    lookup T(HoA)    its peers, whole routes each; exceptions; the rest to mat0
//
// The same peer can so be reached from two HoAs by two ways.
extension RoutePlan {
    package static func homeTable(_ configuration: IMTConfiguration, _ index: Int) -> UInt32 {
        configuration.routingTable &+ 1 << 22 &+ UInt32(clamping: index)
    }

    /// The HoAs that are not the first of their family, visited ones among them, with their tables.
    package static func furtherHomes(_ configuration: IMTConfiguration) -> [(table: UInt32, hoa: HomeAddress)] {
        configuration.homeAddresses.enumerated().compactMap { index, hoa in
            hoa == configuration.primaryHome(family: hoa.family) ? nil : (homeTable(configuration, index), hoa)
        }
            + configuration.visitedHomes.enumerated().compactMap { place, hoa in
                hoa.map { (homeTable(configuration, IMTConfiguration.homeAddressesMax + place), $0) }
            }
    }

    package func furtherRules() -> Set<KernelRule> {
        Set(
            Self.furtherHomes(configuration).map { further in
                KernelRule(
                    family: further.hoa.family, priority: (ruleBase ?? configuration.rulePriorityBase) + 9,
                    source: configuration.network(of: further.hoa) ?? IPPrefix(further.hoa.address), fromHere: true, table: further.table)
            })
    }

    /// The tables of further HoAs but for the peers' routes.
    package func furtherRoutes() -> [KernelRoute] {
        Self.furtherHomes(configuration).filter { homes.contains($0.hoa.address) }.flatMap { further in
            capturedPrefixes(further.hoa.family).map {
                KernelRoute(table: further.table, destination: $0, interfaceIndex: deviceIndex, source: further.hoa.address)
            } + exceptions(table: further.table).filter { $0.family == further.hoa.family }
        }
    }

    /// The way from a further HoA to a peer: never the shared path, which is the first HoA's.
    package func furtherRoute(to peer: HomeAddress, own: HomeAddress, over carriage: Carriage) -> KernelRoute? {
        guard let further = Self.furtherHomes(configuration).first(where: { $0.hoa == own }), homes.contains(own.address),
            var route = peerRoute(to: peer, own: own, over: carriage)
        else { return nil }
        route.table = further.table
        return route
    }
}
