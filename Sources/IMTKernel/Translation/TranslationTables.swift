import Glibc
import IMTPlan
import MATSignal

/// The two nftables tables and this process's knowledge of what is in them.
final class TranslationTables {
    let socket: NetlinkSocket
    var port: UInt32 { socket.port }
    /// Hears what others do to the tables, once there is somebody to be told.
    weak var monitor: NetlinkMonitor<RulesetNews>?
    /// What the tables should be.
    private(set) var plan: TranslationPlan
    /// What the kernel holds, as far as this process knows.
    private(set) var model = TranslationModel()
    /// Whose packets an earlier run encapsulated.
    private(set) var encapsulatedBefore: Set<HomePair> = []
    var needs: TranslationNeeds {
        get { plan.needs }
        set { plan.needs = newValue }
    }
    var configuration: IMTConfiguration { plan.configuration }
    /// The ruleset's generation just before the tables were last installed as a whole.
    private(set) var installedAfter: UInt32?
    /// How often something was written.
    var transactionsCount = 0 { didSet { onTransaction?() } }
    /// For tests: something is about to be written.
    var onTransaction: (() -> Void)?
    /// What the kernel can do for us, once asked.
    var protection = TableProtection.none
    /// Counts of entries that were replaced or removed meanwhile: an element's counter goes with it.
    private var carried: [HomePair: PeerCounters] = [:]
    /// Peers whose counts outlive their entries.
    static let carriedMax = 4096
    /// Up to so many entries are asked for one by one. To tell all elements of a map the kernel walks through its places, hundreds of thousands
    /// of them however few are taken; that was what an idle agent spent its time on.
    static let countedSinglyMax = 256

    init(configuration: IMTConfiguration) throws(KernelError) {
        plan = TranslationPlan(configuration)
        socket = try NetlinkSocket(protocol: KernelValues.netlinkNetfilter, name: "nftables")
    }

    var families: [TableDefinition] { plan.families }

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
    ///
    /// - Parameter known: ways of encapsulated packets that the kernel knows by itself.
    func adopt(_ known: [HomePair: Carriage] = [:]) throws(KernelError) {
        try resynchronise()
        carried = try counters()
        model.dropIncomplete()
        encapsulatedBefore = model.forgetEncapsulated(but: known)
        needs.translatesSources = try translatesSourcesNow()
    }

    /// Reads what the kernel holds.
    ///
    /// - Parameter before: what the model held before a change that was refused.
    func resynchronise(before: TranslationModel? = nil) throws(KernelError) { model = try read(before) }

    private func read(_ before: TranslationModel?) throws(KernelError) -> TranslationModel {
        var found = TranslationModel()
        for table in families {
            for element in try socket.elements(of: TranslationRuleset.paths, in: table) {
                guard let number = TranslationModel.number(element.key), let path = DeparturePath(data: element.data) else { continue }
                found.insert(path: number, path)
                for element in try socket.elements(of: TranslationRuleset.out(number), in: table) {
                    guard let peer = IPAddress(octets: element.key), let moa = IPAddress(octets: element.data) else { continue }
                    found.insert(HomePair(own: path.own, peer: HomeAddress(peer)), Departure(path: number, peer: MobileAddress(moa)))
                }
            }
            for element in try socket.elements(of: TranslationRuleset.own, in: table) {
                if let moa = IPAddress(octets: element.key), let hoa = IPAddress(octets: element.data) {
                    found.insert(own: MobileAddress(moa), HomeAddress(hoa))
                }
            }
            for element in try socket.elements(of: TranslationRuleset.retired, in: table) {
                if let moa = IPAddress(octets: element.key), let hoa = IPAddress(octets: element.data) {
                    found.insert(retired: MobileAddress(moa), HomeAddress(hoa))
                }
            }
            for peer in try addresses(of: TranslationRuleset.forgotten, in: table) { found.insert(forgotten: peer) }
            for element in try socket.elements(of: TranslationRuleset.encapsulated, in: table) {
                guard let pair = TranslationModel.pair(element.key) else { continue }
                found.insert(encapsulated: pair, before?.encapsulated[pair] ?? model.encapsulated[pair])
            }
            found.addresses.formUnion(try addresses(of: TranslationRuleset.known, in: table))
            for home in configuration.homeAddresses where home.family == table.family {
                for element in try socket.elements(of: TranslationRuleset.into(home), in: table) {
                    guard let moa = IPAddress(octets: element.key), let peer = IPAddress(octets: element.data) else { continue }
                    found.insert(Arrival(peer: MobileAddress(moa), own: home), HomeAddress(peer))
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
        var replaced: Set<AddressFamily> = []
        for table in families where try socket.exists(table) { replaced.insert(table.family) }
        var batch = NFTBatch(firstSequence: nextSequence)
        for change in plan.installation(of: contents, replacing: replaced, flags: protection.flags) { batch.append(change) }
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
            try KernelError.planned { () throws(PlanError) in try model.apply(changes) }
            if let host { (model.homes, model.addresses) = host }
        } catch {
            model.restore(before, touched)
            throw error
        }
        let plainBefore = plan.configuration.alwaysPlain
        if let prefixes = changes.alwaysPlain { plan.configuration.alwaysPlain = prefixes }
        do throws(KernelError) {
            return try commit(from: before, touched, changes)
        } catch {
            plan.configuration.alwaysPlain = plainBefore
            throw error
        }
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
        try changeFew {
            $0.homes = homes; $0.addresses = addresses
        }
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
            let sets = model.differences(from: before, family: table.family, touched: touched)
            carryCounters(sets, before.paths, of: table)
            batch.append(plan.changes(from: before, to: model, sets, of: table, saying: changes))
        }
        do throws(KernelError) {
            try send(batch, operation: "commit the address mapping table")
        } catch {
            if (try? exist()) == false {
                try install(model)
                return "the nftables tables had been removed; installed again"
            }
            let wanted = model
            try resynchronise(before: before)
            // Out of memory, over a set's size: nothing to do with others.
            guard !isSecond, error.errno == ENOENT || error.errno == EEXIST || error.errno == EBUSY else { throw error }
            let found = model
            model = wanted
            _ = try commit(from: found, nil, changes, isSecond: true)
            return "entries of the nftables maps had been changed; put back"
        }
        return nil
    }

    var nextSequence: UInt32 { socket.writer().firstSequence }

    // MARK: Plain flows

    /// The untranslated flows with these addresses that packets have noted: those that this host began, and those that passed as plain. Of
    /// TCP most are known only by their sockets.
    func plainFlows(
        to peers: Set<IPAddress>,
        in sets: [String] = [TranslationRuleset.plainFlows, TranslationRuleset.plainConnections, TranslationRuleset.published]
    ) throws(KernelError) -> [PlainFlow] {
        var found: [PlainFlow] = []
        for table in families where peers.contains(where: { $0.family == table.family }) {
            for set in sets {
                for element in try socket.elements(of: set, in: table) {
                    guard let flow = PlainFlow(element: element.key, family: table.family), peers.contains(flow.peer.address) else { continue }
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
            let ours = flows.filter { $0.peer.family == table.family }
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
        let isFew = model.entries.departuresCount + model.entries.arrivalsCount <= Self.countedSinglyMax
        if isFew { try addSingly(to: &result) }
        for table in isFew ? [] : families {
            for (number, path) in model.paths where path.moa.family == table.family {
                for element in try socket.elements(of: TranslationRuleset.out(number), in: table) { Self.add(out: element, path.own, to: &result) }
            }
            for home in configuration.homeAddresses where home.family == table.family {
                for element in try socket.elements(of: TranslationRuleset.into(home), in: table) { Self.add(into: element, home, to: &result) }
            }
        }
        return result.filter { entry in model.entries[entry.key] != nil || entry.value.packetsIn > 0 }
    }

    /// Likewise, element by element.
    private func addSingly(to result: inout [HomePair: PeerCounters]) throws(KernelError) {
        var asked: [(place: ElementPlace, own: HomeAddress, isOut: Bool)] = []
        for table in families {
            func ask(_ set: String, _ key: IPAddress, _ own: HomeAddress, isOut: Bool) {
                asked.append((ElementPlace(table: table, set: set, key: key.packetOctets), own, isOut))
            }
            for (pair, departure) in model.entries.departures where pair.own.family == table.family && model.paths[departure.path] != nil {
                ask(TranslationRuleset.out(departure.path), pair.peer.address, pair.own, isOut: true)
            }
            for (arrival, _) in model.entries.arrivals where arrival.own.family == table.family {
                ask(TranslationRuleset.into(arrival.own), arrival.peer.address, arrival.own, isOut: false)
            }
        }
        for (index, element) in try socket.elements(asked.map(\.place), operation: "read the peers' counts") where asked.indices.contains(index) {
            let own = asked[index].own
            if asked[index].isOut { Self.add(out: element, own, to: &result) } else { Self.add(into: element, own, to: &result) }
        }
    }

    /// Of these peers alone, from the elements that they have now.
    func uses(of paths: [RewrittenPath]) throws(KernelError) -> [RewrittenUse] {
        var uses: [RewrittenUse] = []
        for path in paths {
            guard let departure = model.entries[path.pair], let table = families.first(where: { $0.family == path.pair.own.family }) else { continue }
            let out = SetElement(key: path.pair.peer.address.packetOctets)
            let sent = try socket.elements([out], of: TranslationRuleset.out(departure.path), in: table)
            let places = path.places.filter { model.inbound(Arrival(peer: $0, own: path.pair.own)) == path.pair.peer }
            let came = try socket.elements(
                places.map { SetElement(key: $0.address.packetOctets) }, of: TranslationRuleset.into(path.pair.own), in: table)
            uses.append(
                RewrittenUse(
                    path.pair, sent: sent.reduce(0) { $0 &+ $1.packets }, came: came.reduce(0) { $0 &+ $1.packets }))
        }
        return uses
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
