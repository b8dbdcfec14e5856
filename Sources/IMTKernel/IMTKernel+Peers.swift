import IMTPlan
import MATRuntime
import MATSignal

// The routes to peers' HoAs. What a route should be follows from the entry and the links, and is worked out when it may have changed.
extension IMTKernel {
    private func needsSeparateRoute(_ peer: HomeAddress, _ plan: RoutePlan) -> Bool {
        guard let (home, carriage) = tables.model.entry(of: peer, configuration) else { return false }
        return plan.peerRoute(to: peer, own: home.own, over: carriage)?.kind == .unicast
    }

    /// Makes the routes to these peers what the main table says of the way to their MoAs.
    /// - Parameter leaving: their entries are about to go, and their routes go first.
    /// - Returns: what had to be written.
    @discardableResult
    func writePeers(_ peers: some Sequence<HomeAddress>, leaving: Bool = false) throws(KernelError) -> [RoutingChange] {
        guard device != nil else { return [] }
        let changes = installed.changes(of: peers, to: plan, tables.model, leaving: leaving)
        try carryOut(changes)
        if !leaving { linksKnown(of: peers) }
        return changes
    }

    /// Looks at all peers' routes again after links or own MoAs changed. Separate routes name a link and come first. The others change only
    /// if a special route leads to their MoA now; with many that takes its time, and until then they go by the shared route.
    ///
    /// - Parameters:
    ///   - touched: peers whose entries changed as well.
    ///   - isCertain: what is installed was just read, and may lack anything.
    ///   - sharing: peers that share the path from now on give up their separate routes later (`leaveSeparateRoutes`).
    /// - Returns: what had to be written at once.
    func mirrorPeers(_ touched: Set<HomeAddress> = [], isCertain: Bool, sharing: Bool = false) throws(KernelError) -> [RoutingChange] {
        // Made once, not for each peer.
        let plan = plan
        let separate = sharing ? installed.peers.separatePeers.filter { needsSeparateRoute($0, plan) } : installed.peers.separatePeers
        var changes = try writePeers(installed.peers.withoutWay.union(touched).union(separate).sorted())
        if isCertain || tables.model.entries.departuresCount <= PeerRouteSweep.portion {
            changes += try writePeers(tables.model.pairs.map(\.peer))
            changes += try writePeers(installed.peers.sharedPeers.filter { tables.model.entry(of: $0, configuration) == nil })
        } else {
            peerSweep.sweep()
            continueSweepLater()
        }
        return changes
    }

    /// Gives routes of their own to peers that leave by another path than the shared one, before that changes.
    func writePeersApart() throws(KernelError) {
        let shared = sharedPaths.all
        let others = Set(tables.model.paths.filter { !shared.contains($0.value.moa) }.keys)
        guard !others.isEmpty else { return }
        let apart = tables.model.entries.departures.compactMap { home, departure in
            others.contains(departure.path) && installed.peers.isShared(home.peer) ? home.peer : nil
        }
        try writePeers(apart)
    }

    /// Peers that shared another path give up their routes, or get others, in portions: to a packet it makes no difference.
    func leaveSeparateRoutes() throws(KernelError) {
        peerSweep.leave(installed.peers.separatePeers)
        try writePeers(peerSweep.next(of: installed.peers))
        if !peerSweep.isSettled { continueSweepLater() }
    }

    private func continueSweepLater() {
        guard deadlines[.peerRoutes] == nil else { return }
        wait(for: .peerRoutes, until: SystemClock.now().monotonic + PeerRouteSweep.pause)
    }

    func continueSweep() {
        do throws(KernelError) { try writePeers(peerSweep.next(of: installed.peers)) } catch { onEvent(.failed(error)) }
        if !peerSweep.isSettled { continueSweepLater() }
    }
}
