import IMTPlan
import MATRuntime
import MATSignal

// What rtnetlink tells, and how much has to be done about it.
extension IMTKernel {
    /// Changes of routes that are no default routes wait so long for more: a routing daemon makes many.
    static let mirrorPause: Duration = .milliseconds(250)

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
        } else if routes.any, mirrorTimer == nil {
            mirrorTimer = loop.schedule(after: Self.mirrorPause) { [weak self] in self?.routesChanged() }
        }
    }

    /// Only the main table's routes, or which of them are of use, changed: nothing of ours has gone.
    private func routesChanged() {
        if let mirrorTimer { loop.cancel(mirrorTimer) }
        mirrorTimer = nil
        linkTables.pruneRouters()
        watchRouters()
        linksRead()
    }

    // MARK: Routers

    /// Has the kernel look after the routers of links with several, for as long as there are any. It notices by itself that a router is
    /// gone, but only from traffic and after up to a minute; and nothing tells it that one is back which it does not use.
    func watchRouters() {
        guard routerTimer == nil, !linkTables.contestedRouters.isEmpty else { return }
        routerTimer = loop.schedule(after: configuration.routerInterval) { [weak self] in
            guard let self else { return }
            routerTimer = nil
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
    }

    /// Whether the system uses a link's temporary addresses before its stable ones (RFC 8981; `use_tempaddr` 2).
    static func prefersTemporary(_ interface: String) -> Bool {
        // -1 for links that have none.
        setting("ipv6", interface, "use_tempaddr").map { $0 >= 2 } ?? false
    }

    // MARK: Other programs' rules

    /// Finds the place of our rules among others'; `synchroniseRoutes` then puts them there.
    func placeRules() throws(KernelError) {
        let rules = try routes.foreignRules()
        rulePlace = RulePlace(standard: configuration.rulePriorityBase, among: rules, keepsFirst: configuration.keepsRulesFirst)
        if rulePlace.base != configuration.rulePriorityBase || !rulePlace.before.isEmpty { onEvent(.warning(rulePlace.description)) }
    }

    /// Other programs' rules changed: ours may have to move. Each time later, if somebody else wants to be first as well.
    func reviewRules() {
        guard rulePlaceTimer == nil, device != nil else { return }
        do throws(KernelError) {
            let rules = try routes.foreignRules()
            var place = RulePlace(standard: configuration.rulePriorityBase, among: rules, keepsFirst: configuration.keepsRulesFirst)
            guard place != rulePlace else { return }
            if place.base != rulePlace.base {
                let now = SystemClock.now().monotonic
                let time = rulePace.next(now)
                guard time <= now else {
                    // Until then what stands before ours takes what is ours.
                    place.before = (place.before + place.passed).sorted()
                    (place.passed, place.base) = ([], rulePlace.base)
                    rulePlace = place
                    contested("the order of routing rules", until: time - now)
                    rulePlaceTimer = loop.schedule(at: time) { [weak self] in
                        self?.rulePlaceTimer = nil
                        self?.reviewRules()
                    }
                    return
                }
                rulePace.made(now)
            }
            rulePlace = place
            onEvent(.warning(place.description))
            try synchroniseRoutes(readBack: .nothing)
        } catch {
            onEvent(.failed(error))
        }
    }
}
