import MATSignal

/// The routes and rules of ours that the kernel has, as far as this process knows, and what has to be written so that they are what a plan
/// says.
package struct InstalledRoutes {
    /// All but the peers' routes in the capture table.
    private var routes: [KernelRoute.Key: KernelRoute] = [:]
    private var rules: Set<KernelRule> = []
    package private(set) var peers = PeerRoutes()

    package init() {}

    package func hasRoutes(in tables: Set<UInt32>) -> Bool { routes.keys.contains { tables.contains($0.table) } }

    // MARK: Reading

    /// With a link go the routes over it. Those that name no link stay, and they may be a hundred thousand.
    package mutating func linksChanged() {
        routes = routes.filter { $0.value.kind != .unicast }
        peers.linksChanged()
    }

    package mutating func removeAll() {
        routes = [:]
        peers.removeAll()
    }

    package mutating func found(_ route: KernelRoute, in plan: RoutePlan, _ model: TranslationModel) {
        let peer = HomeAddress(route.destination.address)
        if route.table == plan.configuration.routingTable, route.destination.length == 128, model.entry(of: peer, plan.configuration) != nil {
            peers.set(peer, route)
        } else {
            routes[route.key] = route
        }
    }

    package mutating func found(_ rules: Set<KernelRule>) { self.rules = rules }

    /// A change that the kernel did not make.
    package mutating func refused(_ change: RoutingChange, captureTable: UInt32) {
        switch change {
        case .setRoute(let route):
            routes[route.key] = nil
            let peer = HomeAddress(route.destination.address)
            if route.table == captureTable, peers.contains(peer) { peers.set(peer, nil) }
        case .addRule(let rule): rules.remove(rule)
        default: break
        }
    }

    // MARK: All but the peers'

    /// The difference between what should be and what is known to be; noted as made.
    ///
    /// - Parameter further: the routes of further HoAs' peers.
    package mutating func changes(to plan: RoutePlan, further: [KernelRoute]) -> [RoutingChange] {
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        let all = plan.linkRoutes() + plan.captureRoutes() + plan.pathRoutes() + plan.furtherRoutes() + plan.programRoutes() + further
        for route in all { wanted[route.key] = route }
        // A peer's route stands in place of one that says that the address is plain.
        for address in plan.plain where peers.contains(HomeAddress(address)) {
            wanted[KernelRoute(table: plan.configuration.routingTable, destination: IPPrefix(address), kind: .throwing).key] = nil
        }
        let wantedRules = plan.rules()
        let set = wanted.values.filter { routes[$0.key] != $0 }.sorted(by: KernelRoute.isWrittenBefore)
        let gone = routes.values.filter { wanted[$0.key] == nil }.sorted(by: KernelRoute.isWrittenBefore)
        let changes: [RoutingChange] =
            set.map { .setRoute($0) } + plan.programRenewals(after: set.map { .setRoute($0) })
            + wantedRules.subtracting(rules).sorted().map { .addRule($0) }
            + rules.subtracting(wantedRules).sorted().map { .deleteRule($0) } + gone.map { .deleteRoute($0) }
        (routes, rules) = (wanted, wantedRules)
        return changes
    }

    /// Likewise, but looks only at the host routes to these addresses.
    package mutating func changes(to plan: RoutePlan, of addresses: Set<IPAddress>) -> [RoutingChange] {
        // As with each answer about an unknown source.
        guard !addresses.isEmpty else { return [] }
        var narrow = plan
        narrow.plain.formIntersection(addresses)
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        for route in narrow.captureRoutes() + narrow.pathRoutes() + narrow.programRoutes() { wanted[route.key] = route }
        var changes: [RoutingChange] = []
        let captureTable = plan.configuration.routingTable
        for address in addresses.sorted() {
            for table in [captureTable, RoutePlan.pathTable(plan.configuration)] + plan.programTables {
                let key = KernelRoute.Key(table: table, destination: IPPrefix(address), priority: KernelRoute.ownPriority)
                // A peer's route stands in place of one that says that the address is plain.
                if table == captureTable, peers.contains(HomeAddress(address)) { continue }
                replace(key, by: wanted[key], &changes)
            }
        }
        return changes
    }

    /// Likewise, but looks only at the path table.
    package mutating func changesOfPath(to plan: RoutePlan) -> [RoutingChange] {
        let table = RoutePlan.pathTable(plan.configuration)
        var changes: [RoutingChange] = []
        var wanted: Set<KernelRoute.Key> = []
        for route in plan.pathRoutes() {
            wanted.insert(route.key)
            replace(route.key, by: route, &changes)
        }
        let gone = routes.values.filter { $0.table == table && !wanted.contains($0.key) }.sorted(by: KernelRoute.isWrittenBefore)
        for route in gone { replace(route.key, by: nil, &changes) }
        return changes
    }

    private mutating func replace(_ key: KernelRoute.Key, by wanted: KernelRoute?, _ changes: inout [RoutingChange]) {
        let installed = routes[key]
        guard wanted != installed else { return }
        routes[key] = wanted
        if let wanted { changes.append(.setRoute(wanted)) } else if let installed { changes.append(.deleteRoute(installed)) }
    }

    // MARK: The peers'

    /// Makes the routes to these peers what the main table says of the way to their MoAs.
    ///
    /// - Parameter leaving: their entries are about to go, and their routes go first.
    package mutating func changes(
        of wantedPeers: some Sequence<HomeAddress>, to plan: RoutePlan, _ model: TranslationModel, leaving: Bool = false
    ) -> [RoutingChange] {
        let table = plan.configuration.routingTable
        var changes: [RoutingChange] = []
        var leavesShared = false
        for peer in wantedPeers {
            let entry = leaving ? nil : model.entry(of: peer, plan.configuration).flatMap { plan.homes.contains($0.home.own.address) ? $0 : nil }
            var wanted = entry.flatMap { plan.peerRoute(to: peer, own: $0.home.own, over: $0.carriage) }
            peers.setWithoutWay(peer, entry != nil && wanted == nil)
            let installed = peers.route(to: peer, table: table)
            let throwing = KernelRoute(table: table, destination: IPPrefix(peer.address), kind: .throwing)
            if wanted == nil, model.plain.contains(peer.address) {
                // Without an entry it may be plain, which has the same route; only then it is noted with the others.
                wanted = throwing
                if let installed, installed.kind == .throwing {
                    peers.set(peer, nil)
                    routes[throwing.key] = installed
                    continue
                }
                if routes[throwing.key] == wanted { continue }
                routes[throwing.key] = wanted
                peers.set(peer, nil)
                changes.append(.setRoute(throwing))
                continue
            }
            let before = installed ?? routes.removeValue(forKey: throwing.key)
            peers.set(peer, wanted)
            guard wanted != before else { continue }
            if before?.kind == .throwing, peer.family == .ipv6 { leavesShared = true }
            if let wanted { changes.append(.setRoute(wanted)) } else if let before { changes.append(.deleteRoute(before)) }
        }
        return changes + (leavesShared ? renewals(plan) : []) + plan.programRenewals(after: changes)
    }

    /// The shared IPv6 route once more. An IPv6 socket keeps the route that it found until that very route changes, and not until a
    /// better one comes or goes (IPv4's all ask again): sockets of a peer that shares it no more would go on by it, with a HoA
    /// as destination that nothing translates, or out of another link than the peer's source belongs to.
    private func renewals(_ plan: RoutePlan) -> [RoutingChange] {
        let table = RoutePlan.pathTable(plan.configuration)
        let shared = plan.capturedPrefixes(.ipv6).flatMap { prefix in
            // With them come as many exceptions as there are plain destinations: those are not looked through for each peer.
            RoutePlan.sharedPriorities.compactMap { routes[KernelRoute.Key(table: table, destination: prefix, priority: $0)] }
        }
        return shared.filter { $0.kind == .unicast }
            .sorted { ($0.destination.length, $0.priority) < ($1.destination.length, $1.priority) }.map { .setRoute($0) }
    }
}

extension KernelRoute {
    /// In which order routes are written: a gateway's route is refused until the route to the gateway is there. The rest only makes it the
    /// same each time.
    static func isWrittenBefore(_ a: KernelRoute, _ b: KernelRoute) -> Bool {
        let (isFarA, isFarB) = (a.gateway != nil, b.gateway != nil)
        if isFarA != isFarB { return isFarB }
        return (a.table, a.destination.length, a.destination.address, a.priority) < (b.table, b.destination.length, b.destination.address, b.priority)
    }
}

extension KernelRule: Comparable {
    package static func < (a: KernelRule, b: KernelRule) -> Bool {
        let (sourceA, sourceB) = (a.source?.address ?? .unspecifiedIPv6, b.source?.address ?? .unspecifiedIPv6)
        let (familyA, familyB) = (a.family == .ipv4 ? 0 : 1, b.family == .ipv4 ? 0 : 1)
        return (a.priority, familyA, a.table, sourceA, a.mark ?? 0) < (b.priority, familyB, b.table, sourceB, b.mark ?? 0)
    }
}

extension TranslationModel {
    /// The entry by which packets to this HoA leave from the primary own HoA; further ones have tables of their own.
    package func entry(of peer: HomeAddress, _ configuration: IMTConfiguration) -> (home: HomePair, carriage: Carriage)? {
        guard let own = configuration.primaryHome(family: peer.family) else { return nil }
        let pair = HomePair(own: own, peer: peer)
        return carriage(pair).map { (pair, $0) }
    }
}
