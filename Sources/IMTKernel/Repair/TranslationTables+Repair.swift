import IMTPlan
import MATSignal

extension TranslationTables {
    /// Transactions of more objects and elements than this are made without listening: the kernel would tell of each.
    static let heardElementsMax = 512

    /// Sends a transaction. A large one is not listened to; whether anybody else changed something meanwhile shows in the ruleset's
    /// generation, which grows by one with each transaction.
    func send(_ batch: consuming NFTBatch, operation: String) throws(KernelError) {
        let sealed = batch.seal()
        if sealed.eventsCount > 0 { transactionsCount += 1 }
        guard sealed.eventsCount > Self.heardElementsMax, let monitor else {
            try sealed.commit(on: socket, operation: operation)
            return
        }
        let before = try generation()
        monitor.pause()
        defer { monitor.resume() }
        do throws(KernelError) {
            try sealed.commit(on: socket, operation: operation)
        } catch {
            monitor.assumeLoss()
            throw error
        }
        if try generation() &- before != 1 { monitor.assumeLoss() }
    }

    func generation() throws(KernelError) -> UInt32 {
        var result: UInt32?
        var request = socket.writer()
        request.append(type: KernelValues.subsystemTables | KernelValues.nftGetGeneration, flags: KernelValues.flagAck) {
            $0.putHeader([0, 0, 0, 0])
        }
        _ = try socket.exchange(request, operation: "read the ruleset's generation") { reply in
            result = reply.attributes(after: 4).first(KernelValues.generationNumber)?.u32BigEndian ?? result
        }
        guard let result else {
            throw KernelError(.garbled, operation: "read the ruleset's generation", object: "nftables gave no number")
        }
        return result
    }

    /// Looks where something changed, and puts back what was ours: as little as makes it right again, in one transaction.
    /// - Returns: what had been changed, in words; `nil` if nothing had.
    func repair(_ news: RulesetNews) throws(KernelError) -> String? {
        // What was installed after the last foreign change has nothing to do with it.
        if let generation = news.generation, let installedAt = installedAfter, !news.lost,
            Int32(bitPattern: generation &- installedAt) <= 0
        {
            return nil
        }
        guard try exist() else {
            try install(model)
            return "the nftables tables had been removed; installed again"
        }
        let isDamaged = if news.lost { try !isComplete() } else { false }
        if news.structure || isDamaged {
            try install(model)
            return "chains or maps of the nftables tables had been changed; installed again"
        }
        var done: [String] = []
        do throws(KernelError) {
            if news.rules {
                try rewriteRules()
                done.append("rules of the nftables tables had been changed; written again")
            }
            let drift = news.lost ? try repairAll(model) : try repair(news.elements)
            if drift > 0 { done.append("\(drift) \(drift == 1 ? "entry" : "entries") of the nftables maps had been changed; put back") }
        } catch {
            // It changes faster than it can be mended in parts.
            try install(model)
            done.append("the nftables tables had been changed; installed again")
        }
        return done.isEmpty ? nil : done.joined(separator: "; ")
    }

    /// Whether all sets and chains are there, and each chain has as many rules as it should.
    private func isComplete() throws(KernelError) -> Bool {
        for table in plan.tables(model) {
            var sets: Set<String> = []
            try socket.dump(
                type: KernelValues.subsystemTables | KernelValues.nftGetSet, operation: "list sets", header: [table.nfProtocol, 0, 0, 0],
                attributes: { $0.put(KernelValues.elementListTable, string: table.name) }, restart: { sets = [] }
            ) { incoming in
                let attributes = incoming.attributes(after: 4)
                guard attributes.first(KernelValues.elementListTable)?.string == table.name else { return }
                if let name = attributes.first(KernelValues.setName)?.string { sets.insert(name) }
            }
            guard sets == Set(table.sets.map(\.name)) else { return false }
            var rules: [String: Int] = [:]
            try socket.dump(
                type: KernelValues.subsystemTables | KernelValues.nftGetRule, operation: "list rules", header: [table.nfProtocol, 0, 0, 0],
                attributes: { $0.put(KernelValues.ruleTableName, string: table.name) }, restart: { rules = [:] }
            ) { incoming in
                let attributes = incoming.attributes(after: 4)
                guard attributes.first(KernelValues.ruleTableName)?.string == table.name else { return }
                if let chain = attributes.first(KernelValues.ruleChainName)?.string { rules[chain, default: 0] += 1 }
            }
            guard table.chains.allSatisfy({ (rules[$0.name] ?? 0) == $0.rules.count }), rules.count <= table.chains.count else { return false }
        }
        return true
    }

    /// Reads all maps and makes them what is wanted.
    /// - Returns: how many entries about peers had drifted.
    func repairAll(_ wanted: TranslationModel) throws(KernelError) -> Int {
        try resynchronise()
        // What follows from entries is not counted beside them.
        let drift = AddressFamily.allCases.flatMap { wanted.differences(from: model, family: $0) }.filter { $0.set != TranslationRuleset.mapped }
            .reduce(0) { sum, set in sum + Set(set.removed.map(\.key) + set.added.map(\.key)).count }
        guard drift > 0 else { return 0 }
        do throws(KernelError) {
            _ = try commit(wanted)
        } catch {
            try install(wanted)
        }
        return drift
    }

    /// Compares these elements alone: somebody else touched them.
    private func repair(_ touched: Set<RulesetNews.Element>) throws(KernelError) -> Int {
        var drift = 0
        var batch = NFTBatch(firstSequence: nextSequence)
        for (place, elements) in Dictionary(grouping: touched, by: { Place(family: $0.family, set: $0.set) }) {
            guard let table = families.first(where: { $0.family == place.family }) else { continue }
            var found: [[UInt8]: [UInt8]] = [:]
            let keys = elements.map { SetElement(key: $0.key) }
            for element in try socket.elements(keys, of: place.set, in: table) { found[element.key] = element.data }
            let (change, differing) = plan.correction(of: place.set, keys.map(\.key), found: found, to: model, family: place.family)
            drift += differing
            if !change.removed.isEmpty { batch.delete(change.removed, from: change.set, of: table) }
            if !change.added.isEmpty { batch.add(change.added, to: change.set, of: table) }
        }
        try send(batch, operation: "put back entries of the address mapping table")
        return drift
    }

    private struct Place: Hashable {
        var family: AddressFamily
        var set: String
    }
}
