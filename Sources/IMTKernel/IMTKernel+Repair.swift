import IMTPlan
import MATRuntime
import MATSignal

// Others change what is ours: seen by notification, put back, and told.
extension IMTKernel {
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
        // Resolvers tell of NAT64s as well.
        advertisements = try? AdvertisementMonitor(loop: loop) { [unowned self] in onEvent(.translator($0, interfaceIndex: $1)) }
    }

    func endWatching() {
        linkMonitor?.stop()
        linkMonitor = nil
        rulesetMonitor?.stop()
        rulesetMonitor = nil
        tables.monitor = nil
        policies?.stop()
        policies = nil
        advertisements?.stop()
        advertisements = nil
        cancelDeadlines()
    }

    // MARK: Routing

    private func heard(_ news: LinkNews) {
        hear(news)
        if news.foreignRules || news.lost { reviewRules() }
        // What replaced a route in a table without routes of ours took none of them.
        let tookOurs =
            !news.replacedTables.isEmpty
            && (news.replacedTables.contains(configuration.routingTable) || installed.hasRoutes(in: news.replacedTables))
        if news.routes || tookOurs || news.lost {
            let now = SystemClock.now().monotonic
            repairRoutes(routeRepair.heard(isSettled: peerSweep.isSettled, now: now), now)
        }
    }

    /// Puts back routes and rules that another program took or replaced.
    func repairRoutes(_ decision: RouteRepair.OnDamage, _ now: MonotonicTime) {
        switch decision {
        case .nothing: return
        case .wait(let time, let isContested):
            if isContested { contested("the routes or rules", until: time - now) }
            wait(for: .routeRepair, until: time)
            return
        case .repair: break
        }
        guard device != nil else { return }
        do throws(KernelError) {
            // What has to be written although nothing else changed is what others took or replaced.
            let changes = try synchroniseRoutes(readBack: .everything)
            guard !changes.isEmpty else { return }
            routeRepair.repaired(now)
            let first = changes.prefix(3).map(\.description).joined(separator: ", ")
            onEvent(.repaired("routing had been changed: \(first)\(changes.count > 3 ? " and \(changes.count - 3) more" : "")"))
        } catch {
            onEvent(.failed(error))
        }
    }

    // MARK: Tables

    private func heard(_ news: RulesetNews) {
        if news.concernsUs {
            let now = SystemClock.now().monotonic
            repairTables(tableRepair.heard(news, now: now), now)
        }
        if news.others || news.lost { reviewTracking() }
    }

    func repairTables(_ decision: TableRepair.OnDamage, _ now: MonotonicTime) {
        switch decision {
        case .nothing: break
        case .contested(let time):
            contested("the nftables tables", until: time - now)
            wait(for: .tableRepair, until: time)
        case .repair(let damage):
            do throws(KernelError) {
                guard let what = try tables.repair(damage) else { return }
                tableRepair.repaired(now)
                // Sets that packets fill are empty in tables that were installed anew.
                keepPlainFlowsOfAll()
                writeRewriting()
                onEvent(.repaired(what))
            } catch {
                onEvent(.failed(error))
            }
        }
    }

    func contested(_ what: String, until delay: Duration) {
        onEvent(
            .warning(
                "something keeps changing \(what) of this agent: the next repair waits \(max(1, delay.components.seconds)) s; "
                    + "find the program (a firewall script, a network manager) and let it leave alone what is not its own"))
    }
}
