import IMTPlan
import MATSignal

// The routes to peers' HoAs. Most say just `throw` (see `RoutePlan`), so nothing is kept of them but that they are there; few have a
// whole route of their own. What a route should be follows from the entry and the links, and is worked out when it may have changed.
extension IMTKernel {
    /// How many peers' routes are looked at in one go, and how long other work has then.
    private static let peersAtOnce = 1024
    private static let peersPause: Duration = .milliseconds(5)

    func hasRoute(_ peer: HomeAddress) -> Bool { wholeRoutes[peer] != nil || thrownPeers.contains(peer.address) }

    /// Notes which route a peer has now.
    func notePeer(_ peer: HomeAddress, _ route: KernelRoute?) {
        if let route, route.kind == .throwing { thrownPeers.insert(peer.address) } else { thrownPeers.remove(peer.address) }
        wholeRoutes[peer] = route?.kind == .unicast ? route : nil
    }

    private func installedRoute(_ peer: HomeAddress) -> KernelRoute? {
        wholeRoutes[peer] ?? (thrownPeers.contains(peer.address) ? throwing(peer) : nil)
    }

    private func needsWholeRoute(_ peer: HomeAddress) -> Bool {
        guard let (home, mobile) = Self.pair(of: peer, in: tables.model, configuration) else { return false }
        return plan.peerRoute(to: peer, own: home.own, over: mobile)?.kind == .unicast
    }

    private func throwing(_ peer: HomeAddress) -> KernelRoute {
        KernelRoute(table: configuration.routingTable, destination: IPPrefix(peer.address), kind: .throwing)
    }

    /// Makes the routes to these peers what the main table says of the way to their MoAs.
    /// - Parameter leaving: their entries are about to go, and their routes go first.
    /// - Returns: what had to be written.
    @discardableResult
    func writePeers(_ peers: some Sequence<HomeAddress>, leaving: Bool = false) throws(KernelError) -> [RoutingChange] {
        guard device != nil else { return [] }
        let plan = plan
        var changes: [RoutingChange] = []
        var leavesShared = false
        for peer in peers {
            let entry = leaving ? nil : Self.pair(of: peer, in: tables.model, configuration).flatMap { usableHomes.contains($0.0.own.address) ? $0 : nil }
            var wanted = entry.flatMap { plan.peerRoute(to: peer, own: $0.0.own, over: $0.1) }
            if entry != nil, wanted == nil { waylessPeers.insert(peer) } else { waylessPeers.remove(peer) }
            let installed = installedRoute(peer)
            let key = throwing(peer).key
            if wanted == nil, tables.model.plain.contains(peer.address) {
                // Without an entry it may be plain, which has the same route; only then it is noted with the others.
                wanted = throwing(peer)
                if let installed, installed.kind == .throwing {
                    notePeer(peer, nil)
                    installedRoutes[key] = installed
                    continue
                }
                if installedRoutes[key] == wanted { continue }
                installedRoutes[key] = wanted
                notePeer(peer, nil)
                changes.append(.setRoute(throwing(peer)))
                continue
            }
            let before = installed ?? installedRoutes.removeValue(forKey: key)
            notePeer(peer, wanted)
            guard wanted != before else { continue }
            if before?.kind == .throwing, !peer.isIPv4 { leavesShared = true }
            if let wanted { changes.append(.setRoute(wanted)) } else if let before { changes.append(.deleteRoute(before)) }
        }
        guard !changes.isEmpty else { return [] }
        report(try routes.apply(changes + (leavesShared ? renewals() : [])))
        return changes
    }

    /// The shared IPv6 route once more. An IPv6 socket keeps the route that it found until that very route changes, and not until a
    /// better one comes or goes (IPv4's all ask again): sockets of a peer that shares it no more would go on by it, with a HoA
    /// as destination that nothing translates, or out of another link than the peer's source belongs to.
    private func renewals() -> [RoutingChange] {
        let table = RoutePlan.pathTable(configuration)
        let shared = plan.capturedPrefixes(false).flatMap { prefix in
            // With them come as many exceptions as there are plain destinations: those are not looked through for each peer.
            RoutePlan.sharedPriorities.compactMap { installedRoutes[KernelRoute.Key(table: table, destination: prefix, priority: $0)] }
        }
        return shared.filter { $0.kind == .unicast }
            .sorted { ($0.destination.length, $0.priority) < ($1.destination.length, $1.priority) }.map { .setRoute($0) }
    }

    /// Looks at all peers' routes again after links or own MoAs changed. Whole routes name a link and come first. The others change only
    /// if a special route leads to their MoA now; with many that takes its time, and until then they go by the shared route.
    ///
    /// - Parameters:
    ///   - touched: peers whose entries changed as well.
    ///   - isCertain: what is installed was just read, and may lack anything.
    ///   - sharing: peers that share the path from now on give up their whole routes later (`leaveLateRoutes`).
    /// - Returns: what had to be written at once.
    func mirrorPeers(_ touched: Set<HomeAddress> = [], isCertain: Bool, sharing: Bool = false) throws(KernelError) -> [RoutingChange] {
        let whole = sharing ? Set(wholeRoutes.keys.filter { needsWholeRoute($0) }) : Set(wholeRoutes.keys)
        var changes = try writePeers(whole.union(waylessPeers).union(touched))
        if isCertain || tables.model.entries.departuresCount <= Self.peersAtOnce {
            changes += try writePeers(Set(tables.model.entries.departures.map(\.key.peer)))
            let stale = thrownPeers.some(from: 0, .max / 2).members.map { HomeAddress($0) }
                .filter { Self.pair(of: $0, in: tables.model, configuration) == nil }
            changes += try writePeers(stale)
        } else {
            sweepFrom = 0
            lookAtPeersLater()
        }
        return changes
    }

    /// Gives routes of their own to peers that leave by another path than the shared one, before that changes.
    func writePeersApart() throws(KernelError) {
        let shared = Set(primaries.values)
        let others = Set(tables.model.paths.filter { !shared.contains($0.value.moa) }.keys)
        guard !others.isEmpty else { return }
        let apart = tables.model.entries.departures.compactMap { home, departure in
            others.contains(departure.path) && thrownPeers.contains(home.peer.address) ? home.peer : nil
        }
        try writePeers(apart)
    }

    /// Peers that shared another path give up their routes, or get others, in portions: to a packet it makes no difference.
    func writeLateRoutes() throws(KernelError) {
        let portion = lateRoutes.suffix(Self.peersAtOnce)
        lateRoutes.removeLast(portion.count)
        try writePeers(Array(portion))
        if lateRoutes.isEmpty { lateRoutes = [] } else { lookAtPeersLater() }
    }

    private func lookAtPeersLater() {
        guard lateRoutesTimer == nil else { return }
        lateRoutesTimer = loop.schedule(after: Self.peersPause) { [weak self] in
            guard let self else { return }
            lateRoutesTimer = nil
            do throws(KernelError) {
                if !lateRoutes.isEmpty {
                    try writeLateRoutes()
                } else if let place = sweepFrom {
                    let (some, next) = thrownPeers.some(from: place, Self.peersAtOnce)
                    sweepFrom = next
                    try writePeers(some.map { HomeAddress($0) })
                }
            } catch {
                onEvent(.failed(error))
            }
            if !lateRoutes.isEmpty || sweepFrom != nil { lookAtPeersLater() }
        }
    }
}
