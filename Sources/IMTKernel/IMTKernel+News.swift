import IMTPlan
import MATRuntime
import MATSignal

// What rtnetlink tells, and how much has to be done about it.
extension IMTKernel {
    /// Changes of routes that are no default routes wait so long for more: a routing daemon makes many.
    static let mainRoutesPause: Duration = .milliseconds(250)

    func hear(_ news: LinkNews) {
        // With an address or link the kernel takes routes away without a word, in IPv4: then all is read.
        guard !news.lost, !news.nextHops, let routes = linkTables.apply(news.mainRoutes) else {
            linksChanged()
            return
        }
        if linkTables.isNews(news) {
            linksChanged(mainRoutes: !linkTables.isAdditionOnly(news))
            return
        }
        let routersChanged = linkTables.apply(news.neighbours)
        if routes.defaults || routersChanged {
            routesChanged()
        } else if routes.any, deadlines[.mainRoutes] == nil {
            wait(for: .mainRoutes, until: SystemClock.now().monotonic + Self.mainRoutesPause)
        }
    }

    /// Only the main table's routes, or which of them are of use, changed: nothing of ours has gone.
    func routesChanged() {
        wait(for: .mainRoutes, until: nil)
        linkTables.pruneRouters()
        watchRouters()
        linksRead()
    }

    // MARK: Routers

    /// Has the kernel look after the routers of links with several, for as long as there are any. It notices by itself that a router is
    /// gone, but only from traffic and after up to a minute; and nothing tells it that one is back which it does not use.
    func watchRouters() {
        guard deadlines[.routers] == nil, !linkTables.contestedRouters.isEmpty else { return }
        wait(for: .routers, until: SystemClock.now().monotonic + configuration.routerInterval)
    }

    func probeRouters() {
        let contested = linkTables.contestedRouters
        let silent = contested.intersection(linkTables.silentRouters)
        do throws(KernelError) {
            try routes.probe(silent.sorted(), confirm: false)
            try routes.probe(contested.subtracting(silent).sorted(), confirm: true)
        } catch {
            onEvent(.failed(error))
        }
        watchRouters()
    }

    /// Whether the system uses a link's temporary addresses before its stable ones (RFC 8981; `use_tempaddr` 2).
    static func prefersTemporary(_ interface: String) -> Bool {
        // -1 for links that have none.
        setting("ipv6", interface, "use_tempaddr").map { $0 >= 2 } ?? false
    }

    // MARK: Other programs' rules

    /// The place of our rules among others' as they are now.
    private func readRulePlace() throws(KernelError) -> RulePlace {
        RulePlace(standard: configuration.rulePriorityBase, among: try routes.foreignRules(), keepsFirst: configuration.keepsRulesFirst)
    }

    /// Finds the place of our rules; `synchroniseRoutes` then puts them there.
    func placeRules() throws(KernelError) {
        ruleOrder.begin(try readRulePlace())
        if rulePlace.base != configuration.rulePriorityBase || !rulePlace.before.isEmpty { onEvent(.warning(rulePlace.description)) }
    }

    /// Other programs' rules changed: ours may have to move.
    func reviewRules() {
        guard ruleOrder.isDue, device != nil else { return }
        do throws(KernelError) {
            let place = try readRulePlace()
            let now = SystemClock.now().monotonic
            switch ruleOrder.review(place, now: now) {
            case .unchanged: break
            case .contested(let time):
                contested("the order of routing rules", until: time - now)
                wait(for: .ruleOrder, until: time)
            case .moved(let place):
                onEvent(.warning(place.description))
                try synchroniseRoutes(readBack: .nothing)
            }
        } catch {
            onEvent(.failed(error))
        }
    }
}
