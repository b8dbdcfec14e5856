import MATSignal

/// Which transactions bring the kernel's two tables from one model to another: the steps, table by table.
///
///     nothing, or an earlier run's tables  ── installation ──►  all sets, chains, rules and elements, in one transaction
///     a model, and one with a few changes  ── changes ───────►  the elements that differ; the chains whose rules name what changed
///     other needs of the host              ── changes ───────►  the chains whose rules are others for them
///     somebody else's doing                ── rulesAnew ─────►  the rules of all chains; sets and what they hold stay
///
/// It knows nothing of sockets: IMTKernel's `TranslationTables` sends what it says, and tells what the kernel refused.
package struct TranslationPlan {
    package var configuration: IMTConfiguration
    package var needs = TranslationNeeds()

    package init(_ configuration: IMTConfiguration) { self.configuration = configuration }

    package func ruleset(_ family: AddressFamily, _ contents: TranslationModel = TranslationModel()) -> TranslationRuleset {
        TranslationRuleset(
            family: family, configuration: configuration, needs: needs, paths: contents.paths, own: contents.own, retired: contents.retiredByAddress,
            homesAway: contents.homesAway, visited: contents.homes.subtracting(configuration.homeAddresses.map(\.address)),
            announcing: contents.announcing, arrivals: contents.fewArrivals)
    }

    /// Both tables as they are with these contents.
    package func tables(_ contents: TranslationModel) -> [TableDefinition] { AddressFamily.allCases.map { ruleset($0, contents).table } }

    /// Without what peers bring; enough to name the tables.
    package var families: [TableDefinition] {
        AddressFamily.allCases.map { TableDefinition(family: $0, name: TranslationRuleset.tableName, sets: [], chains: []) }
    }

    // MARK: All of it

    /// Both tables with all that is in them.
    ///
    /// - Parameters:
    ///   - replacing: the families whose table is there already. Deleting what does not exist is an error; what does is another's (EPERM) or
    ///     nobody's: its flags can't be changed in place.
    ///   - flags: see `TableProtection`.
    package func installation(of contents: TranslationModel, replacing: Set<AddressFamily>, flags: UInt32) -> [TableChange] {
        tables(contents).map { table in
            var change = TableChange(table)
            change.table.flags = flags
            if replacing.contains(table.family) { change.steps.append(.deleteTable) }
            change.steps.append(.addTable)
            change.steps += table.sets.map { .addSet($0) } + table.chains.map { .addChain($0) }
            for chain in table.chains { change.addRules(of: chain) }
            change.apply(contents.differences(from: TranslationModel(), family: table.family))
            return change
        }
    }

    /// The rules of all chains, and chains that are missing.
    package func rulesAnew(_ contents: TranslationModel) -> [TableChange] {
        tables(contents).map { table in
            var change = TableChange(table)
            change.steps += table.chains.map { .addChain($0) }
            for chain in table.chains { change.replaceRules(of: chain) }
            return change
        }
    }

    /// From what other needs asked for to what these do. All chains together take the kernel ten milliseconds, and a move may wait for it.
    package func changes(from before: TranslationNeeds, _ contents: TranslationModel) -> [TableChange] {
        var earlier = self
        earlier.needs = before
        let superfluous = TranslationRuleset.superfluous(before: before, now: needs)
        return zip(earlier.tables(contents), tables(contents)).map { earlier, table in
            var change = TableChange(table)
            let written = table.chains.filter { !earlier.chains.contains($0) }
            change.steps += written.filter { chain in !earlier.chains.contains { $0.name == chain.name } }.map { .addChain($0) }
            for chain in written { change.replaceRules(of: chain) }
            if !ruleset(table.family).isWithoutHome {
                for chain in superfluous { change.steps += [.deleteRules(of: chain), .deleteChain(chain)] }
            }
            return change
        }
    }

    /// The rules of the chain that what leaves meets first.
    package func leavingAnew(_ contents: TranslationModel) -> [TableChange] {
        chainsAnew(contents) { [$0.translate] }
    }

    /// The chains whose rules name the links that have programs.
    package func rewritingAnew(_ contents: TranslationModel) -> [TableChange] {
        chainsAnew(contents) { [$0.translate, $0.deliver] }
    }

    private func chainsAnew(_ contents: TranslationModel, _ chains: (TranslationRuleset) -> [ChainDefinition]) -> [TableChange] {
        AddressFamily.allCases.map { ruleset($0, contents) }.filter { !$0.isWithoutHome }.map { rules in
            var change = TableChange(rules.table)
            for chain in chains(rules) { change.replaceRules(of: chain) }
            return change
        }
    }

    // MARK: Changes

    /// From a kernel that holds `before` to one that holds `now`, in a family.
    ///
    /// - Parameters:
    ///   - sets: `now.differences(from: before)` of this family.
    ///   - changes: what is said of openers, which no model knows, since it lapses by itself, and what is always plain.
    package func changes(
        from before: TranslationModel, to now: TranslationModel, _ sets: [SetDifference], of table: TableDefinition, saying changes: [IMTChange] = []
    ) -> TableChange {
        var change = TableChange(table)
        let isSame = { (path: DeparturePath) in path.moa.family == table.family }
        let (old, new) = (before.paths.filter { isSame($0.value) }, now.paths.filter { isSame($0.value) })
        let (earlier, rules) = (ruleset(table.family, before), ruleset(table.family, now))
        var written = replaceOwn(from: earlier, to: rules, &change)
        func write(_ chains: [ChainDefinition]) {
            for chain in chains where written.insert(chain.name).inserted { change.replaceRules(of: chain) }
        }
        let isSameNetworks = rules.networks == earlier.networks && rules.retiredNetworks == earlier.retiredNetworks
        if old == new, isSameNetworks {
            change.apply(sets)
            if rules.homesOfPackets != earlier.homesOfPackets || rules.rewrittenHomes != earlier.rewrittenHomes
                || rules.announcing != earlier.announcing
            {
                write([rules.translate])
            }
        } else {
            // New paths get their maps first, then elements move, then the rules name the paths that are, and the others' maps go.
            for number in new.keys.sorted() where old[number] == nil { change.steps.append(.addSet(rules.out(number))) }
            let gone = old.keys.filter { new[$0] == nil }.sorted()
            change.apply(sets.filter { set in !gone.contains { TranslationRuleset.out($0) == set.set } })
            // What leads to own MoAs has been written already, if one came or went.
            write(rules.pathChains + (isSameNetworks ? [] : rules.networkChains))
            change.steps += gone.map { .deleteSet(rules.out($0)) }
        }
        if rules.rewrittenHomes != earlier.rewrittenHomes { write([rules.deliver]) }
        write(rules.chains(withFrequentOtherThan: earlier))
        if let prefixes = changes.alwaysPlain {
            var later = self
            later.configuration.alwaysPlain = prefixes
            change.replaceRules(of: later.ruleset(table.family).alwaysPlain)
        }
        sayOpeners(changes, &change)
        return change
    }

    /// The chains of the own MoAs, when one comes or goes.
    /// - Returns: the chains that lead to them, which have been written.
    private func replaceOwn(from before: TranslationRuleset, to now: TranslationRuleset, _ change: inout TableChange) -> Set<String> {
        guard before.own != now.own else { return [] }
        let (old, new) = (before.ownChains, now.ownChains)
        for chain in new where !old.contains(chain) { change.steps.append(.addChain(chain)) }
        for chain in new where !old.contains(chain) { change.replaceRules(of: chain) }
        for chain in now.chainsToOwn { change.replaceRules(of: chain) }
        let gone = old.filter { chain in !new.contains { $0.name == chain.name } }.map(\.name)
        change.steps += gone.map { .deleteRules(of: $0) } + gone.map { .deleteChain($0) }
        return Set(now.chainsToOwn.map(\.name))
    }

    /// What is said of openers lapses by itself, so whether an element is there is not known: each is added before it is deleted, and what
    /// shall be there is added anew, with all its time.
    private func sayOpeners(_ changes: [IMTChange], _ change: inout TableChange) {
        // By address, the latest word: a batch adds and deletes an element in the order in which it says so, and once is enough.
        var said: [IPAddress: IMTChange] = [:]
        func say(_ address: IPAddress, _ each: IMTChange) { if address.family == change.table.family { said[address] = each } }
        for each in changes {
            switch each {
            case .letOpen(let address, _), .holdOpeners(let address, _), .askAgain(let address): say(address, each)
            // What opens a connection from an own HoA waits in the same way, and lapses as well if the agent dies meanwhile.
            case .holdConnections(let home, let lifetime): say(home.address, .holdOpeners(home.address, lifetime: lifetime))
            case .letConnections(let home): say(home.address, .askAgain(home.address))
            default: break
            }
        }
        guard !said.isEmpty else { return }
        let all = said.keys.sorted().map { SetElement(key: $0.packetOctets, timeoutMilliseconds: 1000) }
        func element(_ address: IPAddress, _ lifetime: Duration) -> SetElement {
            SetElement(key: address.packetOctets, timeoutMilliseconds: UInt64(max(1, lifetime.millisecondsSaturated)))
        }
        var passing: [SetElement] = []
        var waiting: [SetElement] = []
        for (address, each) in said.sorted(by: { $0.key < $1.key }) {
            switch each {
            case .letOpen(_, let lifetime): passing.append(element(address, lifetime))
            case .holdOpeners(_, let lifetime): waiting.append(element(address, lifetime))
            default: break
            }
        }
        for (set, wanted) in [(TranslationRuleset.notFound, passing), (TranslationRuleset.confirming, waiting), (TranslationRuleset.lately, [])] {
            change.steps += [.addElements(all, to: set), .deleteElements(all, from: set)]
            if !wanted.isEmpty { change.steps.append(.addElements(wanted, to: set)) }
        }
    }

    // MARK: Repair

    /// Compares elements that somebody else touched with what the model wants.
    ///
    /// - Parameter found: the elements that are there now, by key.
    /// - Returns: the correction, and how many elements differed.
    package func correction(
        of set: String, _ keys: [[UInt8]], found: [[UInt8]: [UInt8]], to wanted: TranslationModel, family: AddressFamily
    ) -> (difference: SetDifference, drift: Int) {
        var result = (difference: SetDifference(set: set), drift: 0)
        for key in keys {
            let wanted = wanted.element(key, of: set, family: family, homes: configuration.homeAddresses)
            guard found[key] != wanted?.data else { continue }
            if found[key] != nil { result.difference.removed.append(SetElement(key: key)) }
            if let wanted { result.difference.added.append(wanted) }
            result.drift += 1
        }
        return result
    }
}
