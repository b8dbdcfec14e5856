import Glibc
import IMTPlan
import MATSignal

/// The two nftables tables and this process's knowledge of what is in them.
final class TranslationTables {
    let socket: NetlinkSocket
    var port: UInt32 { socket.port }
    /// Hears what others do to the tables, once there is somebody to be told.
    weak var monitor: NetlinkMonitor<RulesetNews>?
    private(set) var configuration: IMTConfiguration
    /// What the kernel holds, as far as this process knows.
    private(set) var model = TranslationModel()
    var needs = TranslationNeeds()
    /// The ruleset's generation just before the tables were last installed as a whole.
    private(set) var installedAfter: UInt32?
    /// How often something was written.
    var transactionsCount = 0
    /// What the kernel can do for us, once asked.
    var protection = TableProtection.none
    /// Counts of entries that were replaced or removed meanwhile: an element's counter goes with it.
    private var carried: [HomePair: PeerCounters] = [:]
    /// Peers whose counts outlive their entries.
    static let carriedMax = 4096

    init(configuration: IMTConfiguration) throws(KernelError) {
        self.configuration = configuration
        socket = try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "nftables")
    }

    func ruleset(_ isIPv4: Bool, _ contents: TranslationModel = TranslationModel()) -> TranslationRuleset {
        TranslationRuleset(
            isIPv4: isIPv4, configuration: configuration, needs: needs, paths: contents.paths, own: contents.own, retired: contents.retiredByAddress)
    }
    /// Without what peers bring; enough to name the tables.
    var families: [TableDefinition] { [true, false].map { TableDefinition(isIPv4: $0, name: TranslationRuleset.tableName, sets: [], chains: []) } }

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
        model.dropIncomplete()
        needs.translatesSources = try translatesSourcesNow()
    }

    /// Reads what the kernel holds.
    func resynchronise() throws(KernelError) { model = try read() }

    private func read() throws(KernelError) -> TranslationModel {
        var found = TranslationModel()
        for table in families {
            for element in try socket.elements(of: TranslationRuleset.paths, in: table) {
                guard let number = TranslationModel.number(element.key), let path = DeparturePath(data: element.data) else { continue }
                found.note(path: number, path)
                for element in try socket.elements(of: TranslationRuleset.out(number), in: table) {
                    guard let peer = IPAddress(octets: element.key), let moa = IPAddress(octets: element.data) else { continue }
                    found.note(HomePair(own: path.own, peer: HomeAddress(peer)), Departure(path: number, peer: MobileAddress(moa)))
                }
            }
            for element in try socket.elements(of: TranslationRuleset.own, in: table) {
                if let moa = IPAddress(octets: element.key), let hoa = IPAddress(octets: element.data) {
                    found.note(own: MobileAddress(moa), HomeAddress(hoa))
                }
            }
            for element in try socket.elements(of: TranslationRuleset.retired, in: table) {
                if let moa = IPAddress(octets: element.key), let hoa = IPAddress(octets: element.data) {
                    found.note(retired: MobileAddress(moa), HomeAddress(hoa))
                }
            }
            for peer in try addresses(of: TranslationRuleset.forgotten, in: table) { found.note(forgotten: peer) }
            found.addresses.formUnion(try addresses(of: TranslationRuleset.known, in: table))
            for home in configuration.homeAddresses where home.isIPv4 == table.isIPv4 {
                for element in try socket.elements(of: TranslationRuleset.into(home), in: table) {
                    guard let moa = IPAddress(octets: element.key), let peer = IPAddress(octets: element.data) else { continue }
                    found.note(Arrival(peer: MobileAddress(moa), own: home), HomeAddress(peer))
                }
            }
            found.plain.formUnion(try addresses(of: TranslationRuleset.plainSources, in: table))
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
        let generation = try generation()
        var batch = NFTBatch(firstSequence: nextSequence)
        for var table in [true, false].map({ ruleset($0, contents).table }) {
            // Deleting what does not exist is an error. What does is another's (EPERM) or nobody's: its flags can't be changed in place.
            if try socket.exists(table) { batch.delete(table: table) }
            table.flags = protection.flags
            batch.add(table: table)
            for set in table.sets { batch.add(set: set, to: table) }
            for chain in table.chains { batch.add(chain: chain, to: table) }
            for chain in table.chains {
                for rule in chain.rules { batch.add(rule: rule, to: chain.name, of: table) }
            }
            Self.append(contents.differences(from: TranslationModel(), isIPv4: table.isIPv4), of: table, to: &batch)
        }
        try send(batch, operation: "install the address mapping tables")
        model = contents
        installedAfter = generation
    }

    func remove() throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families where try socket.exists(table) { batch.delete(table: table) }
        try send(batch, operation: "remove the address mapping tables")
        model = TranslationModel()
    }

    // MARK: Changes

    /// Makes the changes in one transaction.
    ///
    /// If the kernel refuses, somebody may have changed the tables: what they hold is read, and once more the difference to what is
    /// wanted is made. If they are gone they are installed again. If that is refused too, all is left as it was.
    /// - Parameter host: what this host has by now, whoever changed it.
    /// - Returns: what had been changed by others; `nil` for nothing.
    func commit(
        _ changes: [IMTChange], _ touched: TouchedKeys, host: (homes: Set<IPAddress>, addresses: Set<IPAddress>)? = nil
    ) throws(KernelError) -> String? {
        var touched = touched
        let tooMany = model.forgottenTooMany(adding: touched.homes.count)
        touched.addresses.formUnion(tooMany)
        let before = model.excerpt(touched)
        do throws(KernelError) {
            model.dropForgotten(tooMany)
            try model.apply(changes)
            if let host { (model.homes, model.addresses) = host }
        } catch {
            model.restore(before, touched)
            throw error
        }
        return try commit(from: before, touched, changes)
    }

    /// Likewise, for a change of anything.
    func commit(_ wanted: TranslationModel) throws(KernelError) -> String? {
        let before = model
        model = wanted
        return try commit(from: before, nil)
    }

    /// Tells what this host has by now, whoever changed it.
    func setHost(homes: Set<IPAddress>, addresses: Set<IPAddress>) throws(KernelError) {
        guard homes != model.homes || addresses != model.addresses else { return }
        try changeFew { $0.homes = homes; $0.addresses = addresses }
    }

    /// Own MoAs that went away are forgotten.
    func release(_ moas: Set<MobileAddress>) throws(KernelError) { try changeFew { $0.release(moas) } }

    /// A change of what is few: peers' entries are not looked at.
    private func changeFew(_ change: (inout TranslationModel) -> Void) throws(KernelError) {
        let nothing = TouchedKeys([])
        let before = model.excerpt(nothing)
        change(&model)
        _ = try commit(from: before, nothing)
    }

    private func commit(
        from before: TranslationModel, _ touched: TouchedKeys?, _ changes: [IMTChange] = [], isSecond: Bool = false
    ) throws(KernelError) -> String? {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families {
            let sets = model.differences(from: before, isIPv4: table.isIPv4, touched: touched)
            carryCounters(sets, before.paths, of: table)
            append(sets, before, of: table, to: &batch)
            Self.appendOpeners(changes, of: table, to: &batch)
        }
        do throws(KernelError) {
            try send(batch, operation: "commit the address mapping table")
        } catch {
            if (try? exist()) == false {
                try install(model)
                return "the nftables tables had been removed; installed again"
            }
            let wanted = model
            try resynchronise()
            // Out of memory, over a set's size: nothing to do with others.
            guard !isSecond, error.errno == ENOENT || error.errno == EEXIST || error.errno == EBUSY else { throw error }
            let found = model
            model = wanted
            _ = try commit(from: found, nil, changes, isSecond: true)
            return "entries of the nftables maps had been changed; put back"
        }
        return nil
    }

    /// New paths get their maps first, then elements move, then the rules name the paths that are, and the others' maps go.
    private func append(_ sets: [SetDifference], _ before: TranslationModel, of table: TableDefinition, to batch: inout NFTBatch) {
        let isSame = { (path: DeparturePath) in path.moa.isIPv4 == table.isIPv4 }
        let (old, new) = (before.paths.filter { isSame($0.value) }, model.paths.filter { isSame($0.value) })
        let rules = ruleset(table.isIPv4, model)
        let earlier = ruleset(table.isIPv4, before)
        appendBegun(from: earlier, to: rules, of: table, to: &batch)
        let isSameNetworks = rules.networks == earlier.networks && rules.retiredNetworks == earlier.retiredNetworks
        guard old != new || !isSameNetworks else {
            Self.append(sets, of: table, to: &batch)
            return
        }
        for number in new.keys.sorted() where old[number] == nil { batch.add(set: rules.out(number), to: table) }
        let gone = old.keys.filter { new[$0] == nil }.sorted()
        // The elements of a map that goes need no deletion of their own.
        Self.append(sets.filter { set in !gone.contains { TranslationRuleset.out($0) == set.set } }, of: table, to: &batch)
        for chain in rules.pathChains + (isSameNetworks ? [] : rules.networkChains) { Self.replace(chain, of: table, in: &batch) }
        for number in gone { batch.delete(set: rules.out(number), of: table) }
    }

    /// The chains of the own MoAs, when one comes or goes.
    private func appendBegun(
        from before: TranslationRuleset, to now: TranslationRuleset, of table: TableDefinition, to batch: inout NFTBatch
    ) {
        guard before.own != now.own, let started = now.startedChain else { return }
        let (old, new) = (before.begunChains, now.begunChains)
        for chain in new where !old.contains(chain) {
            batch.add(chain: chain, to: table)
            Self.replace(chain, of: table, in: &batch)
        }
        Self.replace(started, of: table, in: &batch)
        for chain in old where !new.contains(where: { $0.name == chain.name }) {
            batch.deleteRules(of: chain.name, in: table)
            batch.delete(chain: chain.name, of: table)
        }
    }

    private static func replace(_ chain: ChainDefinition, of table: TableDefinition, in batch: inout NFTBatch) {
        batch.deleteRules(of: chain.name, in: table)
        for rule in chain.rules { batch.add(rule: rule, to: chain.name, of: table) }
    }

    private static func append(_ sets: [SetDifference], of table: TableDefinition, to batch: inout NFTBatch) {
        for set in sets where !set.removed.isEmpty { batch.delete(set.removed, from: set.set, of: table) }
        for set in sets where !set.added.isEmpty { batch.add(set.added, to: set.set, of: table) }
    }

    /// What is said of openers lapses by itself, so whether an element is there is not known: each is added before it is deleted, and what
    /// shall be there is added anew, with all its time.
    private static func appendOpeners(_ changes: [IMTChange], of table: TableDefinition, to batch: inout NFTBatch) {
        // By address, the latest word: a batch adds and deletes an element in the order in which it says so, and once is enough.
        var said: [IPAddress: IMTChange] = [:]
        for change in changes {
            switch change {
            case .letOpen(let address, _), .holdOpeners(let address, _), .askAgain(let address): if address.isIPv4 == table.isIPv4 { said[address] = change }
            default: break
            }
        }
        guard !said.isEmpty else { return }
        let all = said.keys.sorted().map { SetElement(key: $0.packetOctets, timeoutMilliseconds: 1000) }
        func element(_ address: IPAddress, _ lifetime: Duration) -> SetElement {
            SetElement(key: address.packetOctets, timeoutMilliseconds: UInt64(max(1, lifetime.millisecondsSaturated)))
        }
        var passing: [SetElement] = [], waiting: [SetElement] = []
        for (address, change) in said.sorted(by: { $0.key < $1.key }) {
            switch change {
            case .letOpen(_, let lifetime): passing.append(element(address, lifetime))
            case .holdOpeners(_, let lifetime): waiting.append(element(address, lifetime))
            default: break
            }
        }
        for (set, wanted) in [(TranslationRuleset.notFound, passing), (TranslationRuleset.confirming, waiting), (TranslationRuleset.lately, [])] {
            batch.add(all, to: set, of: table)
            batch.delete(all, from: set, of: table)
            if !wanted.isEmpty { batch.add(wanted, to: set, of: table) }
        }
    }

    func setAlwaysPlain(_ prefixes: [IPPrefix]) throws(KernelError) {
        var batch = NFTBatch(firstSequence: nextSequence)
        for table in families {
            batch.deleteRules(of: TranslationRuleset.alwaysPlainChain, in: table)
            for rule in ruleset(table.isIPv4).alwaysPlainRules(prefixes) {
                batch.add(rule: rule, to: TranslationRuleset.alwaysPlainChain, of: table)
            }
        }
        try send(batch, operation: "set the addresses that are always plain")
        configuration.alwaysPlain = prefixes
    }

    var nextSequence: UInt32 { socket.writer().firstSequence }

    // MARK: Plain flows

    /// The untranslated flows with these addresses that packets have noted: those that this host began, and those that passed as plain. Of
    /// TCP most are known only by their sockets.
    func plainFlows(to peers: Set<IPAddress>) throws(KernelError) -> [PlainFlow] {
        var found: [PlainFlow] = []
        for table in families where peers.contains(where: { $0.isIPv4 == table.isIPv4 }) {
            for set in [TranslationRuleset.plainFlows, TranslationRuleset.plainConnections, TranslationRuleset.published] {
                for element in try socket.elements(of: set, in: table) {
                    guard let flow = PlainFlow(element: element.key, isIPv4: table.isIPv4), peers.contains(flow.peer.address) else { continue }
                    found.append(flow)
                }
            }
        }
        return found
    }

    /// Notes plain flows with MoAs that are about to be a peer's. One that a packet has noted meanwhile, and otherwise, stays so.
    func remember(_ flows: [PlainFlow]) throws(KernelError) {
        guard !flows.isEmpty, try exist() else { return }
        for table in families {
            let ours = flows.filter { $0.peer.isIPv4 == table.isIPv4 }
            // By key, as a batch with two data for one key would be refused.
            let elements = Dictionary(ours.map { ($0.element.key, $0.element) }) {
                ($0.timeoutMilliseconds ?? .max) < ($1.timeoutMilliseconds ?? .max) ? $1 : $0
            }
            let known = Set(try socket.elements(of: TranslationRuleset.peerFlows, in: table).map(\.key))
            let peers = Set(ours.map(\.peerHome.address.packetOctets)).map {
                SetElement(key: $0, timeoutMilliseconds: TranslationRuleset.plainPeerMilliseconds)
            }
            guard !peers.isEmpty else { continue }
            var batch = NFTBatch(firstSequence: nextSequence)
            batch.add(elements.filter { !known.contains($0.key) }.map(\.value), to: TranslationRuleset.peerFlows, of: table)
            batch.add(peers, to: TranslationRuleset.plainPeers, of: table)
            try batch.seal().commit(on: socket, operation: "remember plain flows with new peers")
        }
    }

    // MARK: Counters

    /// Counted by the kernel per element, whether or not an agent is there to look.
    func counters() throws(KernelError) -> [HomePair: PeerCounters] {
        var result = carried
        for table in families {
            for (number, path) in model.paths where path.moa.isIPv4 == table.isIPv4 {
                for element in try socket.elements(of: TranslationRuleset.out(number), in: table) { Self.add(out: element, path.own, to: &result) }
            }
            for home in configuration.homeAddresses where home.isIPv4 == table.isIPv4 {
                for element in try socket.elements(of: TranslationRuleset.into(home), in: table) { Self.add(into: element, home, to: &result) }
            }
        }
        return result.filter { entry in model.entries[entry.key] != nil || entry.value.packetsIn > 0 }
    }

    private func carryCounters(_ sets: [SetDifference], _ paths: [UInt32: DeparturePath], of table: TableDefinition) {
        guard carried.count < Self.carriedMax else { return }
        for set in sets where !set.removed.isEmpty {
            // An entry that can't be read has lost its counts, which is no reason to refuse the change.
            if let path = paths.first(where: { TranslationRuleset.out($0.key) == set.set })?.value {
                for element in (try? socket.elements(set.removed, of: set.set, in: table)) ?? [] { Self.add(out: element, path.own, to: &carried) }
            } else if let home = configuration.homeAddresses.first(where: { TranslationRuleset.into($0) == set.set }) {
                for element in (try? socket.elements(set.removed, of: set.set, in: table)) ?? [] { Self.add(into: element, home, to: &carried) }
            }
        }
    }

    private static func add(out element: KernelElement, _ own: HomeAddress, to result: inout [HomePair: PeerCounters]) {
        guard let peer = IPAddress(octets: element.key) else { return }
        let pair = HomePair(own: own, peer: HomeAddress(peer))
        result[pair, default: PeerCounters()].packetsOut &+= element.packets
        result[pair, default: PeerCounters()].octetsOut &+= element.octets
    }

    private static func add(into element: KernelElement, _ own: HomeAddress, to result: inout [HomePair: PeerCounters]) {
        guard let peer = IPAddress(octets: element.data) else { return }
        let pair = HomePair(own: own, peer: HomeAddress(peer))
        result[pair, default: PeerCounters()].packetsIn &+= element.packets
        result[pair, default: PeerCounters()].octetsIn &+= element.octets
    }
}
