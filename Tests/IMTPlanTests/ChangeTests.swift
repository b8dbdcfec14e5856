import MATSignal
import Testing

@testable import IMTPlan

/// What the kernel makes of steps.
private struct KernelChains {
    private(set) var rules: [String: [[Expression]]] = [:]

    /// - Returns: chains that were deleted though a rule still led to them, which the kernel refuses.
    mutating func apply(_ steps: [TableStep]) -> [String] {
        var refused: [String] = []
        for step in steps {
            switch step {
            case .addChain(let chain): rules[chain.name, default: []] += []
            case .deleteChain(let name):
                rules[name] = nil
                let leading: Set<Expression> = [.verdict(.goTo(name)), .verdict(.jump(name))]
                if rules.values.joined().joined().contains(where: leading.contains) { refused.append(name) }
            case .deleteRules(let name): rules[name] = []
            case .addRule(let rule, let name): rules[name, default: []].append(rule)
            default: break
            }
        }
        return refused
    }
}

@Suite("Changes of the rules") struct ChangeTests {
    private typealias G = GoldenScenario

    private func expectRules(
        _ configuration: IMTConfiguration, _ needs: TranslationNeeds, from before: TranslationModel, to after: TranslationModel,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        var plan = TranslationPlan(configuration)
        plan.needs = needs
        for (family, table) in zip(AddressFamily.allCases, plan.families) {
            func installed(_ contents: TranslationModel) -> KernelChains {
                var chains = KernelChains()
                for change in plan.installation(of: contents, replacing: [], flags: 0) where change.table.family == family {
                    _ = chains.apply(change.steps)
                }
                return chains
            }
            let wanted = installed(after)
            var changed = installed(before)
            let sets = after.differences(from: before, family: family)
            #expect(changed.apply(plan.changes(from: before, to: after, sets, of: table).steps).isEmpty, sourceLocation: sourceLocation)
            for name in Set(changed.rules.keys).union(wanted.rules.keys).sorted() {
                #expect(changed.rules[name] == wanted.rules[name], "\(family), \(name)", sourceLocation: sourceLocation)
            }
        }
    }

    @Test("Peers' MoAs stand in the rules as long as they are few, though a change sees only the entries that it touches")
    func constants() throws {
        func change(_ number: Int, isThere: Bool) -> [IMTChange] {
            let pair = HomePair(own: G.own.own, peer: HomeAddress(IPAddress(ipv4: 0xC633_6400 + UInt32(number))))
            let moa = MobileAddress(IPAddress(ipv4: 0x0A09_0000 + UInt32(number)))
            return isThere
                ? [.setOutbound(pair, .rewritten(MobilePair(own: G.wlan, peer: moa))), .setInbound(peer: moa, pair)]
                : [.removeOutbound(pair), .removeInbound(peer: moa, own: pair.own)]
        }
        var plan = TranslationPlan(G.node)
        plan.needs = G.today
        let table = try #require(plan.families.first { $0.family == .ipv4 })
        var model = TranslationModel()
        try model.apply([.setOwn(G.wlan, G.own.own)])
        var kernel = KernelChains()
        for change in plan.installation(of: model, replacing: [], flags: 0) where change.table.family == .ipv4 { _ = kernel.apply(change.steps) }
        let most = TranslationRuleset.peerConstantsMax
        let steps = (0...most).map { ($0, true) } + (0...most).map { ($0, false) }
        for (number, isThere) in steps {
            let changes = change(number, isThere: isThere)
            let touched = TouchedKeys(changes)
            let before = model.excerpt(touched)
            try model.apply(changes)
            let sets = model.differences(from: before, family: .ipv4, touched: touched)
            _ = kernel.apply(plan.changes(from: before, to: model, sets, of: table).steps)
            let wanted = plan.ruleset(.ipv4, model)
            #expect(kernel.rules["translate"] == wanted.translate.rules && kernel.rules["deliver"] == wanted.deliver.rules, "\(number), \(isThere)")
            let named = kernel.rules["deliver"]?.joined().filter {
                if case .compare(_, .notEqual, let value) = $0 { value.first == 10 } else { false }
            }
            let count = model.entries.arrivalsCount
            #expect(named?.count == (count > most ? 0 : 2 * count), "\(number), \(isThere)")
        }
    }

    @Test("After a change the rules are those of an installation, and no chain goes that a rule leads to", arguments: G.changes)
    func asInstalled(_ scenario: GoldenScenario) throws {
        let before = try scenario.model()
        var after = before
        try after.apply(scenario.changes?.filter { if case .setAlwaysPlain = $0 { false } else { true } } ?? [])
        expectRules(scenario.configuration, scenario.needs, from: before, to: after)
        expectRules(scenario.configuration, scenario.needs, from: after, to: before)
    }

    @Test("Where the host asks for something else the rules become those of an installation, and few are written")
    func otherNeeds() throws {
        let model = try #require(G.changes.first).model()
        let all: [TranslationNeeds] = [
            G.today, TranslationNeeds(asksRouting: true, isUntracked: true),
            TranslationNeeds(asksRouting: true, encapsulates: true, isUntracked: true),
            TranslationNeeds(translatesSources: true, sparesTracking: true, exemptsIPsec: true, asksRouting: true),
        ]
        func plan(_ needs: TranslationNeeds) -> TranslationPlan {
            var plan = TranslationPlan(G.node)
            plan.needs = needs
            return plan
        }
        func installed(_ plan: TranslationPlan, _ family: AddressFamily) -> KernelChains {
            var chains = KernelChains()
            for change in plan.installation(of: model, replacing: [], flags: 0) where change.table.family == family { _ = chains.apply(change.steps) }
            return chains
        }
        for before in all {
            for after in all {
                for change in plan(after).changes(from: before, model) {
                    let wanted = installed(plan(after), change.table.family)
                    var kernel = installed(plan(before), change.table.family)
                    #expect(kernel.apply(change.steps).isEmpty)
                    #expect(kernel.rules == wanted.rules)
                    if before == after { #expect(change.steps.isEmpty) }
                }
            }
        }
        // That peers' packets travel in datagrams is a matter of the chains that they meet, and a move may be waiting for it.
        let written = plan(all[2]).changes(from: all[1], model).flatMap(\.steps).count
        let whole = plan(all[2]).rulesAnew(model).flatMap(\.steps).count
        #expect(written * 3 < whole, "\(written) of \(whole)")
    }

    @Test("A node may get more own MoAs than rules compare with one by one, and lose them again")
    func manyOwn() throws {
        var models = [TranslationModel()]
        for number in 0...TranslationRuleset.ownConstantsMax + 1 {
            var next = models[number]
            try next.apply([.setOwn(G.moa("10.1.\(number).2"), G.own.own), .setOwn(G.moa("2001:db8:1:\(number)::2"), G.own6.own)])
            models.append(next)
        }
        for (before, after) in zip(models, models.dropFirst()) {
            expectRules(G.node, G.today, from: before, to: after)
            expectRules(G.node, G.today, from: after, to: before)
        }
    }

    @Test("Peers' maps take room as they grow, so that a move's new rules do not make the kernel walk through places where nobody is")
    func growing() throws {
        var plan = TranslationPlan(G.node)
        plan.needs = G.today
        let model = try #require(G.changes.first).model()
        for table in plan.tables(model) {
            let lookedUp = Set(table.chains.flatMap { $0.rules.joined() }.compactMap { if case .lookup(let set, _, _) = $0 { set } else { nil } })
            let peers = table.sets.filter { ($0.name.hasPrefix("in_") || $0.name.hasPrefix("out")) && lookedUp.contains($0.name) }
            #expect(peers.count >= 2)
            for map in peers { #expect(map.flags & SetDefinition.growingFlag != 0, "\(map.name) of \(table.title)") }
        }
    }

    @Test("Packets for a mobile prefix that a router has given up are no longer questioned")
    func released() throws {
        var before = TranslationModel()
        try before.apply(G.away + [.setOwn(G.moa("10.20.40.0"), G.network.own), .removeOwn(G.moa("10.20.30.0"))])
        var after = before
        after.release([G.moa("10.20.30.0")])
        expectRules(G.router, G.routing, from: before, to: after)
    }
}
