import IMTPlan
import MATRuntime
import MATSignal

// Others change what is ours: seen by notification, put back, and told.
extension IMTKernel {
    /// Routes are put back when no more of them has changed for so long,
    static let routeNewsQuiet: Duration = .milliseconds(30)
    /// or after so long at the latest.
    static let routeNewsWaitMax: Duration = .milliseconds(400)

    func beginWatching() throws(KernelError) {
        linkMonitor = try NetlinkMonitor(
            loop: loop, protocol: KernelValues.netlinkRoute, name: "rtnetlink events",
            groups: [
                KernelValues.groupLink, KernelValues.groupIPv4Address, KernelValues.groupIPv4Route, KernelValues.groupIPv6Address,
                KernelValues.groupIPv6Route, KernelValues.groupIPv4Rule, KernelValues.groupIPv6Rule, KernelValues.groupNeighbour,
                KernelValues.groupNextHop,
            ], ownPort: routes.port
        ) { [unowned self] in heard($0) }
        let ruleset = try NetlinkMonitor<RulesetNews>(
            loop: loop, protocol: KernelValues.netlinkNetfilter, name: "nftables events", groups: [KernelValues.groupTables],
            ownPort: tables.port
        ) { [unowned self] in heard($0) }
        rulesetMonitor = ruleset
        tables.monitor = ruleset
        // A kernel without IPsec has no such socket, and no policies.
        policies = try? PolicyMonitor(loop: loop) { [unowned self] in reviewTracking() }
    }

    func endWatching() {
        linkMonitor?.stop()
        linkMonitor = nil
        rulesetMonitor?.stop()
        rulesetMonitor = nil
        tables.monitor = nil
        policies?.stop()
        policies = nil
        for timer in [tableRepairTimer, routeRepairTimer, rulePlaceTimer, mirrorTimer, routerTimer].compactMap({ $0 }) { loop.cancel(timer) }
        tableRepairTimer = nil
        routeRepairTimer = nil
        rulePlaceTimer = nil
        mirrorTimer = nil
        routerTimer = nil
    }

    // MARK: Routing

    private func heard(_ news: LinkNews) {
        hear(news)
        if news.foreignRules || news.lost { reviewRules() }
        // What replaced a route in a table without routes of ours took none of them.
        let tookOurs = !news.replacedTables.isEmpty && installedRoutes.keys.contains { news.replacedTables.contains($0.table) }
            || news.replacedTables.contains(configuration.routingTable)
        if news.routes || tookOurs || news.lost {
            let now = SystemClock.now().monotonic
            routeNews = (routeRepairTimer == nil ? now : routeNews?.first ?? now, now)
            repairRoutes()
        }
    }

    /// Puts back routes and rules that another program took or replaced, when it has finished: `ip route flush` goes on as long as it
    /// finds a route, and would take what is put back meanwhile.
    private func repairRoutes() {
        guard routeRepairTimer == nil, device != nil, let news = routeNews else { return }
        let now = SystemClock.now().monotonic
        let quiet = min(news.last + Self.routeNewsQuiet, news.first + Self.routeNewsWaitMax)
        // Routes that are still being given up in portions would look like drift.
        let isSettled = lateRoutes.isEmpty && sweepFrom == nil
        let time = max(routePace.next(now), quiet, isSettled ? now : now + .milliseconds(100))
        guard time <= now else {
            if isSettled, time > quiet { contested("the routes or rules", until: time - now) }
            routeRepairTimer = loop.schedule(at: time) { [weak self] in
                self?.routeRepairTimer = nil
                self?.repairRoutes()
            }
            return
        }
        do throws(KernelError) {
            // What has to be written although nothing else changed is what others took or replaced.
            let changes = try synchroniseRoutes(readBack: .everything)
            guard !changes.isEmpty else { return }
            routePace.made(now)
            let first = changes.prefix(3).map(\.description).joined(separator: ", ")
            onEvent(.repaired("routing had been changed: \(first)\(changes.count > 3 ? " and \(changes.count - 3) more" : "")"))
        } catch {
            onEvent(.failed(error))
        }
    }

    // MARK: Tables

    private func heard(_ news: RulesetNews) {
        if news.concernsUs {
            tableDamage.add(news)
            repairTables()
        }
        if news.others || news.lost { reviewTracking() }
    }

    private func repairTables() {
        guard tableRepairTimer == nil else { return }
        let now = SystemClock.now().monotonic
        let time = tablePace.next(now)
        guard time <= now else {
            contested("the nftables tables", until: time - now)
            tableRepairTimer = loop.schedule(at: time) { [weak self] in
                self?.tableRepairTimer = nil
                self?.repairTables()
            }
            return
        }
        let damage = tableDamage
        tableDamage = RulesetNews()
        do throws(KernelError) {
            guard let what = try tables.repair(damage) else { return }
            tablePace.made(now)
            // Sets that packets fill are empty in tables that were installed anew.
            keepPlainFlowsOfAll()
            onEvent(.repaired(what))
        } catch {
            onEvent(.failed(error))
        }
    }

    func contested(_ what: String, until delay: Duration) {
        onEvent(
            .warning(
                "something keeps changing \(what) of this agent: the next repair waits \(max(1, delay.components.seconds)) s; "
                    + "find the program (a firewall script, a network manager) and let it leave alone what is not its own"))
    }
}
