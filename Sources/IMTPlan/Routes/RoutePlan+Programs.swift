import MATSignal

// Programs whose sockets start from other addresses than those of the rest of the host (`SteeredPrograms`): their sockets have a mark, which these
// rules ask for. None of them is there while there is no such program.
//
//     base + 3  from own HoA, iif lo      lookup its capture table    a socket that its program has bound to a HoA uses that HoA's peers, whatever
//     base + 4  from first HoA, iif lo    lookup path                 its mark; as base + 9 to base + 11 say for sockets without one
//     base + 5  mark of HoA, iif lo       lookup its capture table    peers, by the ways that they have
//     base + 6  mark of first HoA, iif lo lookup path                 peers that share the path
//     base + 7  mark of HoA, iif lo       lookup T(programs of HoA)   what nobody has decided about goes to mat0, from that HoA
//               mark of plain, iif lo     lookup main                 as if there were no agent
//     base + 8  mark of plain, iif lo     lookup T(plain programs)    never as a HoA, not even while there is no way
//
// The route is found before a socket has a source, by its mark; from then on by both. What is known as plain is thrown by all these tables, and goes on
// to the main one. Rules that would say the same as those for all sockets are left out.
extension RoutePlan {
    /// A table for the programs of each HoA, visited ones among them, and one for plain ones.
    package static func programTable(_ configuration: IMTConfiguration, _ home: HomeAddress) -> UInt32? {
        if let index = configuration.homeAddresses.firstIndex(of: home) { return homeTable(configuration, index &+ 128) }
        return configuration.visitedHomes.firstIndex(of: home).map { homeTable(configuration, $0 &+ 128 &+ IMTConfiguration.homeAddressesMax) }
    }
    package static func plainProgramTable(_ configuration: IMTConfiguration) -> UInt32 { homeTable(configuration, 127) }

    /// The tables that may have exceptions for programs now.
    package var programTables: [UInt32] {
        Set(programs.values.flatMap(\.homes)).compactMap { needsTable($0) ? Self.programTable(configuration, $0) : nil }.sorted()
    }

    /// What all sockets do anyway needs no rule.
    private func capturesEverything(_ family: AddressFamily) -> Bool { capturedPrefixes(family).contains { $0.familyLength == 0 } }
    private func needsTable(_ home: HomeAddress) -> Bool { homes.contains(home.address) && !capturesEverything(home.family) }
    private func captureTable(of home: HomeAddress) -> UInt32 {
        Self.furtherHomes(configuration).first { $0.hoa == home }?.table ?? configuration.routingTable
    }

    package func programRules() -> Set<KernelRule> {
        let base = ruleBase ?? configuration.rulePriorityBase
        var rules: Set<KernelRule> = []
        for family in AddressFamily.allCases {
            // Without a HoA nothing is captured, and there is nothing to be kept from.
            guard let first = configuration.primaryHome(family: family), homes.contains(first.address) else { continue }
            var marked: Set<KernelRule> = []
            for (mark, via) in programs {
                func add(_ place: UInt32, _ table: UInt32) {
                    marked.insert(KernelRule(family: family, priority: base + place, mark: mark, fromHere: true, table: table))
                }
                if via == .plain {
                    add(7, KernelValues.tableMain)
                    add(8, Self.plainProgramTable(configuration))
                }
                guard let home = via.home(family), homes.contains(home.address), let table = Self.programTable(configuration, home) else { continue }
                if home == first, capturesEverything(family) { continue }
                add(5, captureTable(of: home))
                if home == first { add(6, Self.pathTable(configuration)) }
                if needsTable(home) { add(7, table) }
            }
            guard !marked.isEmpty else { continue }
            for home in configuration.allHomes where home.family == family && homes.contains(home.address) {
                let source = configuration.network(of: home) ?? IPPrefix(home.address)
                marked.insert(KernelRule(family: family, priority: base + 3, source: source, fromHere: true, table: captureTable(of: home)))
                guard home == first else { continue }
                marked.insert(
                    KernelRule(family: family, priority: base + 4, source: source, fromHere: true, table: Self.pathTable(configuration)))
            }
            rules.formUnion(marked)
        }
        return rules
    }

    package func programRoutes() -> [KernelRoute] {
        var result = programDefaults()
        for table in programTables {
            let family = result.first { $0.table == table }?.family
            result += exceptions(table: table).filter { $0.family == family }
        }
        guard programs.values.contains(.plain) else { return result }
        let families = AddressFamily.allCases.filter { family in
            configuration.homeAddresses.contains { $0.family == family && homes.contains($0.address) }
        }
        return result
            + families.map {
                KernelRoute(table: Self.plainProgramTable(configuration), destination: KernelRoute.everything(family: $0), kind: .unreachable)
            }
    }

    /// Of each HoA with such programs, the route of what nobody has decided about.
    ///
    /// An IPv6 socket keeps it until that very route changes: it is written once more when a peer gets a route in another table.
    package func programDefaults() -> [KernelRoute] {
        Set(programs.values.flatMap(\.homes)).sorted().compactMap { home in
            guard needsTable(home), let table = Self.programTable(configuration, home) else { return nil }
            return KernelRoute(
                table: table, destination: KernelRoute.everything(family: home.family), interfaceIndex: deviceIndex, source: home.address)
        }
    }

    /// Likewise, what has to be written once more after these changes.
    package func programRenewals(after changes: some Sequence<RoutingChange>) -> [RoutingChange] {
        guard programs.values.contains(where: { $0.home(.ipv6) != nil }) else { return [] }
        let tables = Set([configuration.routingTable] + Self.furtherHomes(configuration).map(\.table))
        let isOther = changes.contains { change in
            guard case .setRoute(let route) = change else { return false }
            return route.family == .ipv6 && tables.contains(route.table) && route.destination.length == 128
        }
        return isOther ? programDefaults().filter { $0.family == .ipv6 }.map { .setRoute($0) } : []
    }
}
