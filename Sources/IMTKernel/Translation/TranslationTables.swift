import MATSignal

/// The two nftables tables and this process's knowledge of what is in them.
final class TranslationTables {
    private let socket: NetlinkSocket
    private(set) var configuration: IMTConfiguration
    /// What the kernel holds, as far as this process knows.
    private(set) var model = TranslationModel()
    /// Counts of entries that were replaced or removed meanwhile: an element's counter goes with it.
    private var carried: [HomePair: PeerCounters] = [:]
    /// Peers whose counts outlive their entries.
    static let carriedMax = 4096

    init(configuration: IMTConfiguration) throws(KernelError) {
        self.configuration = configuration
        socket = try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "nftables")
    }

    private func ruleset(_ isIPv4: Bool) -> TranslationRuleset {
        TranslationRuleset(isIPv4: isIPv4, configuration: configuration)
    }
    private var families: [TableDefinition] { [ruleset(true).table, ruleset(false).table] }

    // MARK: Start and stop

    func exist() throws(KernelError) -> Bool {
        for table in families where try !socket.exists(table) { return false }
        return true
    }

    /// Whether one of the tables is there.
    func existPartly() throws(KernelError) -> Bool {
        for table in families where try socket.exists(table) { return true }
        return false
    }

    /// Reads what an earlier run left, counts included: installing makes the elements anew.
    func adopt() throws(KernelError) {
        try resynchronise()
        carried = try counters()
    }

    /// Reads what the kernel holds.
    func resynchronise() throws(KernelError) { model = try read() }

    private func read() throws(KernelError) -> TranslationModel {
        var found = TranslationModel()
        for table in families {
            for element in try socket.elements(of: TranslationRuleset.out, in: table) {
                if let home = HomePair(key: element.key), let mobile = MobilePair(data: element.data) {
                    found.outbound[home] = mobile
                }
            }
            for element in try socket.elements(of: TranslationRuleset.mapped, in: table) {
                if let home = HomePair(key: element.key) { found.mapped.insert(home) }
            }
            for element in try socket.elements(of: TranslationRuleset.into, in: table) {
                if let mobile = MobilePair(key: element.key), let home = HomePair(data: element.data) {
                    found.inbound[mobile] = home
                }
            }
            found.plain.formUnion(try addresses(of: TranslationRuleset.plainSources, in: table))
            found.locators.formUnion(try addresses(of: TranslationRuleset.moas, in: table))
            found.homes.formUnion(try addresses(of: TranslationRuleset.homes, in: table))
        }
        return found
    }

    private func addresses(of set: String, in table: TableDefinition) throws(KernelError) -> [IPAddress] {
        try socket.elements(of: set, in: table).compactMap { IPAddress(octets: $0.key) }
    }

    /// Puts both tables in place with the given contents, in one transaction that first takes away whatever an earlier run,
    /// an earlier version or a careless hand left there. Packets see the old tables or the new ones, never neither.
    func install(_ contents: TranslationModel) throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families {
            // Deleting what does not exist is an error, creating what exists is not.
            batch.add(table: table)
            batch.delete(table: table)
            batch.add(table: table)
            for set in table.sets { batch.add(set: set, to: table) }
            for chain in table.chains { batch.add(chain: chain, to: table) }
            for chain in table.chains {
                for rule in chain.rules { batch.add(rule: rule, to: chain.name, of: table) }
            }
            Self.append(contents.differences(from: TranslationModel(), isIPv4: table.isIPv4), of: table, to: &batch)
        }
        try batch.seal().commit(on: socket, operation: "install the address mapping tables")
        model = contents
    }

    func remove() throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families where try socket.exists(table) { batch.delete(table: table) }
        try batch.seal().commit(on: socket, operation: "remove the address mapping tables")
        model = TranslationModel()
    }

    // MARK: Changes

    /// Brings the kernel to `wanted` in one transaction.
    ///
    /// If the kernel refuses, the whole is left as it was, and what is known of it is read anew so that the next try starts from
    /// the truth. If the tables are gone, somebody flushed the ruleset: they are installed again with what was wanted.
    /// - Parameter touched: the only keys of which `wanted` differs from the model, if the caller knows.
    /// - Returns: whether they had to be.
    func commit(_ wanted: TranslationModel, touched: TouchedKeys? = nil) throws(KernelError) -> Bool {
        let tables = families
        let differences = tables.map { wanted.differences(from: model, isIPv4: $0.isIPv4, touched: touched) }
        for (table, sets) in zip(tables, differences) { carryCounters(sets, of: table) }
        var batch = NFTBatch(firstSequence: nextSequence)
        for (table, sets) in zip(tables, differences) { Self.append(sets, of: table, to: &batch) }
        do throws(KernelError) {
            try batch.seal().commit(on: socket, operation: "commit the address mapping table")
        } catch {
            if (try? exist()) == false {
                try install(wanted)
                return true
            }
            try resynchronise()
            throw error
        }
        model = wanted
        return false
    }

    private static func append(_ sets: [SetDifference], of table: TableDefinition, to batch: inout NFTBatch) {
        for set in sets where !set.removed.isEmpty { batch.delete(set.removed, from: set.set, of: table) }
        for set in sets where !set.added.isEmpty { batch.add(set.added, to: set.set, of: table) }
    }

    func setAlwaysPlain(_ prefixes: [IPPrefix]) throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families {
            batch.deleteRules(of: TranslationRuleset.alwaysPlainChain, in: table)
            for rule in ruleset(table.isIPv4).alwaysPlainRules(prefixes) {
                batch.add(rule: rule, to: TranslationRuleset.alwaysPlainChain, of: table)
            }
        }
        try batch.seal().commit(on: socket, operation: "set the addresses that are always plain")
        configuration.alwaysPlain = prefixes
    }

    private var nextSequence: UInt32 { socket.writer().firstSequence }

    // MARK: Counters

    /// Counted by the kernel per element, whether or not an agent is there to look.
    func counters() throws(KernelError) -> [HomePair: PeerCounters] {
        var result = carried
        for table in families {
            for element in try socket.elements(of: TranslationRuleset.out, in: table) { Self.add(out: element, to: &result) }
            for element in try socket.elements(of: TranslationRuleset.into, in: table) { Self.add(into: element, to: &result) }
        }
        return result.filter { entry in model.outbound[entry.key] != nil || entry.value.packetsIn > 0 }
    }

    private func carryCounters(_ sets: [SetDifference], of table: TableDefinition) {
        guard carried.count < Self.carriedMax else { return }
        for set in sets where !set.removed.isEmpty {
            // An entry that can't be read has lost its counts, which is no reason to refuse the change.
            switch set.set {
            case TranslationRuleset.out:
                for element in (try? socket.elements(set.removed, of: set.set, in: table)) ?? [] {
                    Self.add(out: element, to: &carried)
                }
            case TranslationRuleset.into:
                for element in (try? socket.elements(set.removed, of: set.set, in: table)) ?? [] {
                    Self.add(into: element, to: &carried)
                }
            default: break
            }
        }
    }

    private static func add(out element: KernelElement, to result: inout [HomePair: PeerCounters]) {
        guard let pair = HomePair(key: element.key) else { return }
        result[pair, default: PeerCounters()].packetsOut &+= element.packets
        result[pair, default: PeerCounters()].octetsOut &+= element.octets
    }

    private static func add(into element: KernelElement, to result: inout [HomePair: PeerCounters]) {
        guard let pair = HomePair(data: element.data) else { return }
        result[pair, default: PeerCounters()].packetsIn &+= element.packets
        result[pair, default: PeerCounters()].octetsIn &+= element.octets
    }
}
