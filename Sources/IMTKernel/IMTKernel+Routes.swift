import Glibc
import IMTPlan
import MATRuntime
import MATSignal

// What follows in the routing tables from the agent's plan and the links' state.
extension IMTKernel {
    /// - Parameter mainRoutes: whether the main table may have changed without a word about it.
    func readLinks(mainRoutes: Bool = true) throws(KernelError) {
        var fresh = LinkTables()
        fresh.links = try routes.links()
        fresh.addresses = try routes.addresses()
        fresh.main = mainRoutes ? try routes.mainTable() : linkTables.main
        fresh.silentRouters = linkTables.silentRouters
        fresh.prefersTemporary = Set(fresh.links.filter { Self.prefersTemporary($0.value.name) }.keys)
        fresh.pruneRouters()
        _ = fresh.apply(try routes.neighbours(among: fresh.contestedRouters))
        linkTables = fresh
        watchRouters()
    }

    // MARK: HoAs

    /// The configured HoAs that no real link carries: plain traffic from them needs source NAT.
    func unhomed() -> Set<IPAddress> {
        Set(configuration.homeAddresses.map(\.address).filter { !linkTables.carries($0, otherThan: configuration.deviceName) })
    }

    /// The addresses of this host, as far as there is room for them.
    func knownAddresses() -> Set<IPAddress> {
        // Those just put on our device as well.
        let all = Set(linkTables.addresses.map(\.address)).union(usableHomes)
        let most = Int(TranslationRuleset.knownMax)
        return all.count <= most ? all : Set([true, false].flatMap { isIPv4 in all.filter { $0.isIPv4 == isIPv4 }.sorted().prefix(most) })
    }

    /// Those of them that the agent has decided about, or need not: a new one is known with `setOwnLocators`.
    func decidedAddresses() -> Set<IPAddress> {
        let undecided = linkTables.realAddresses(without: configuration.deviceName).subtracting(usableHomes)
        let known = tables.model.addresses
        // Own MoAs are asked for before, so one that comes and goes makes no work here.
        return knownAddresses().subtracting(undecided.subtracting(known)).union(tables.model.own.keys.map(\.address).filter(known.contains))
    }

    /// Puts each HoA on our device, also one that another link carries: the stack drops packets that a device without an
    /// address delivers wherever reverse paths are filtered, and that would be every packet that was held (`fib_validate_source`).
    ///
    /// A HoA whose family is switched off is reported once and left out: the node then works in the other family.
    /// - Parameter retire: whether addresses of an earlier configuration are taken off.
    func placeHomes(retire: Bool) throws(KernelError) {
        guard let device else { return }
        let present = Set(linkTables.addresses.filter { $0.interfaceIndex == device.index }.map(\.address))
        let homes = configuration.homeAddresses.map(\.address) + configuration.mobilePrefixes.map(\.address)
        let missing = Set(homes).subtracting(present)
        let taken = missing.intersection(usableHomes)
        var changes: [RoutingChange] = missing.sorted().map { .addAddress($0, interfaceIndex: device.index) }
        if retire {
            changes += present.subtracting(homes).filter { !$0.isLinkLocal }.map {
                .deleteAddress($0, interfaceIndex: device.index)
            }
        }
        var refused: Set<IPAddress> = []
        for (change, error) in try routes.apply(changes) {
            guard case .addAddress(let address, _) = change else { continue }
            refused.insert(address)
            guard reportedHomes.insert(address).inserted else { continue }
            let hint = address.isIPv4 ? "" : " (is IPv6 disabled on this host? see net.ipv6.conf.all.disable_ipv6)"
            onEvent(
                .failed(
                    KernelError(
                        .unsupported, operation: "put the HoA on \(device.name)", object: "\(address)\(hint)", errno: error.errno,
                        sequence: error.sequence, kernelMessage: error.kernelMessage)))
        }
        usableHomes = Set(homes).subtracting(refused)
        if !retire, !taken.subtracting(refused).isEmpty {
            onEvent(.repaired("\(taken.sorted().map(\.description).joined(separator: ", ")) had been taken off \(device.name); put back"))
        }
    }

    // MARK: Routes

    /// Reads what is there and makes all routes and rules what they should be.
    /// - Parameter readBack: which routes the kernel may have withdrawn.
    /// - Returns: what had to be written.
    @discardableResult
    func synchroniseRoutes(readBack: ReadBack) throws(KernelError) -> [RoutingChange] {
        try readInstalled(readBack)
        if !choosePrimaries().isEmpty { try writePeersApart() }
        return try writeRoutes() + mirrorPeers(isCertain: readBack == .everything)
    }

    /// Reads what is there of our routes.
    private func readInstalled(_ readBack: ReadBack) throws(KernelError) {
        switch readBack {
        case .nothing: break
        case .links:
            // With a link go the routes over it. Those that name no link stay, and they may be a hundred thousand.
            installedRoutes = installedRoutes.filter { $0.value.kind == .throwing }
            waylessPeers.formUnion(wholeRoutes.keys)
            wholeRoutes = [:]
            try readRoutes(kind: .unicast)
        case .everything:
            installedRoutes = [:]
            wholeRoutes = [:]
            thrownPeers.removeAll()
            try readRoutes(kind: nil)
            installedRules = try routes.rules()
        }
    }

    enum ReadBack {
        case nothing, links, everything
    }

    private func readRoutes(kind: KernelRoute.Kind?) throws(KernelError) {
        for isIPv4 in [true, false] {
            for route in try routes.routes(isIPv4: isIPv4, kind: kind) {
                let peer = HomeAddress(route.destination.address)
                if route.table == configuration.routingTable, route.destination.length == 128, Self.pair(of: peer, in: tables.model, configuration) != nil {
                    notePeer(peer, route)
                } else {
                    installedRoutes[route.key] = route
                }
            }
        }
    }

    var plan: RoutePlan {
        RoutePlan(
            configuration: configuration, tables: linkTables, locators: locators, deviceIndex: device?.index ?? 0,
            plain: tables.model.plain, homes: usableHomes, primaries: Array(primaries.values), ruleBase: rulePlace.base)
    }

    /// Writes the difference between what should be and what is known to be.
    @discardableResult
    func writeRoutes() throws(KernelError) -> [RoutingChange] {
        guard device != nil else { return [] }
        let plan = plan
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        let routes = plan.linkRoutes() + plan.captureRoutes() + plan.pathRoutes() + plan.furtherRoutes() + furtherPeerRoutes(plan)
        for route in routes { wanted[route.key] = route }
        // A peer's route stands in place of one that says that the address is plain.
        for address in plan.plain where hasRoute(HomeAddress(address)) {
            wanted[KernelRoute(table: configuration.routingTable, destination: IPPrefix(address), kind: .throwing).key] = nil
        }
        let rules = plan.rules()
        var changes: [RoutingChange] = []
        for (key, route) in wanted where installedRoutes[key] != route { changes.append(.setRoute(route)) }
        // A gateway's route is refused until the route to the gateway is there: the shorter way first.
        changes.sort { Self.order($0) < Self.order($1) }
        changes += rules.subtracting(installedRules).map { .addRule($0) }
        changes += installedRules.subtracting(rules).map { .deleteRule($0) }
        for (key, route) in installedRoutes where wanted[key] == nil { changes.append(.deleteRoute(route)) }
        guard !changes.isEmpty else { return [] }
        try apply(changes, leading: wanted, rules)
        return changes
    }

    /// Likewise, but looks only at the host routes to these addresses.
    func writeRoutes(to addresses: Set<IPAddress>) throws(KernelError) {
        guard device != nil else { return }
        var narrow = plan
        narrow.plain.formIntersection(addresses)
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        for route in narrow.captureRoutes() + narrow.pathRoutes() { wanted[route.key] = route }
        var changes: [RoutingChange] = []
        for address in addresses {
            for table in [configuration.routingTable, RoutePlan.pathTable(configuration)] {
                let key = KernelRoute.Key(table: table, destination: IPPrefix(address), priority: KernelRoute.ownPriority)
                // A peer's route stands in place of one that says that the address is plain.
                if table == configuration.routingTable, hasRoute(HomeAddress(address)) { continue }
                note(wanted[key], at: key, &changes)
            }
        }
        try carryOut(changes)
    }

    /// Makes the path table what it should be.
    func writePath() throws(KernelError) {
        guard device != nil else { return }
        let table = RoutePlan.pathTable(configuration)
        var changes: [RoutingChange] = []
        var wanted: Set<KernelRoute.Key> = []
        for route in plan.pathRoutes() {
            wanted.insert(route.key)
            note(route, at: route.key, &changes)
        }
        for key in installedRoutes.keys where key.table == table && !wanted.contains(key) { note(nil, at: key, &changes) }
        try carryOut(changes)
    }


    /// Collects the change that makes the route of this key what is wanted, if it is not so already.
    private func note(_ wanted: KernelRoute?, at key: KernelRoute.Key, _ changes: inout [RoutingChange]) {
        let installed = installedRoutes[key]
        guard wanted != installed else { return }
        if let wanted {
            changes.append(.setRoute(wanted))
        } else if let installed {
            changes.append(.deleteRoute(installed))
        }
    }

    private func carryOut(_ changes: [RoutingChange]) throws(KernelError) {
        guard !changes.isEmpty else { return }
        for change in changes {
            switch change {
            case .setRoute(let route): installedRoutes[route.key] = route
            case .deleteRoute(let route): installedRoutes[route.key] = nil
            default: break
            }
        }
        report(try routes.apply(changes))
    }

    /// Makes the changes and notes what is there afterwards.
    private func apply(
        _ changes: [RoutingChange], leading wanted: [KernelRoute.Key: KernelRoute], _ rules: Set<KernelRule>
    ) throws(KernelError) {
        let refused = try routes.apply(changes)
        installedRoutes = wanted
        installedRules = rules
        report(refused)
    }

    func report(_ refused: [(change: RoutingChange, error: KernelError)]) {
        for (change, error) in refused {
            switch change {
            case .setRoute(let route):
                installedRoutes[route.key] = nil
                let peer = HomeAddress(route.destination.address)
                if route.table == configuration.routingTable, hasRoute(peer) { notePeer(peer, nil) }
                // The device is going down under us; the event that says so is on its way.
                if error.errno == ENETDOWN || error.errno == ENODEV || error.errno == ENETUNREACH { continue }
            case .addRule(let rule): installedRules.remove(rule)
            default: break
            }
            onEvent(.failed(error))
        }
    }

    private static func order(_ change: RoutingChange) -> Int {
        if case .setRoute(let route) = change, route.gateway != nil { return 1 }
        return 0
    }

    /// The entry by which packets to this HoA leave from the primary own HoA; further ones have tables of their own.
    static func pair(of peer: HomeAddress, in model: TranslationModel, _ configuration: IMTConfiguration) -> (
        HomePair, MobilePair
    )? {
        guard let own = configuration.primaryHome(isIPv4: peer.isIPv4) else { return nil }
        let pair = HomePair(own: own, peer: peer)
        return model.outbound(pair).map { (pair, $0) }
    }

    /// Whether the peer's route leads out of a link now.
    func hasWay(to peer: HomeAddress) -> Bool {
        if wholeRoutes[peer] != nil { return true }
        return thrownPeers.contains(peer.address) && primaries[peer.isIPv4].map { plan.defaultRoute(from: $0) != nil } ?? false
    }

    // MARK: The path that most peers share

    /// How much larger another own MoA's share must be before it becomes the shared path: those left behind get routes of their own.
    private static let majority = 8

    /// Makes the own MoA that most peers leave from the shared path, unless the present one is still used by many.
    /// - Returns: the families that got another one.
    @discardableResult
    func choosePrimaries() -> [Bool] {
        let counts = tables.model.departuresCount
        var changed: [Bool] = []
        for isIPv4 in [true, false] {
            // Of equal ones the same each time.
            guard let best = counts.filter({ $0.key.isIPv4 == isIPv4 }).max(by: { ($0.value, $1.key) < ($1.value, $0.key) }) else { continue }
            if let present = primaries[isIPv4] {
                if present == best.key || (counts[present] ?? 0) * Self.majority > best.value { continue }
            }
            primaries[isIPv4] = best.key
            changed.append(isIPv4)
        }
        return changed
    }

    /// Another own MoA has become the shared path, or the MoA of the shared path was exchanged.
    ///
    /// Three steps, none of which leaves a peer with a wrong way: peers that stay behind get their own routes, the shared route
    /// changes, and then those that now share it give up theirs. The last may be many and makes no difference to a packet, so
    /// it is done in portions.
    func pathsChanged() throws(KernelError) {
        try writePeersApart()
        try writePath()
        try leaveLateRoutes()
    }

    /// The last of these steps.
    func leaveLateRoutes() throws(KernelError) {
        lateRoutes = Array(wholeRoutes.keys)
        try writeLateRoutes()
    }

    // MARK: Events

    func linksChanged(mainRoutes: Bool = true) {
        do throws(KernelError) {
            try readLinks(mainRoutes: mainRoutes)
            if let device, linkTables.links[device.index] == nil {
                restoreDevice()
                return
            }
            if let device, let state = linkTables.links[device.index], state.flags & KernelValues.flagUp == 0 {
                try routes.configureDevice(index: device.index, name: device.name)
                // IPv6 addresses go when a device goes down, which is told as one repair.
                usableHomes = []
                onEvent(.repaired("\(device.name) had been taken down; brought up again"))
                try readLinks()
            }
            try placeHomes(retire: false)
            try readInstalled(.links)
        } catch {
            onEvent(.failed(error))
        }
        linksRead()
    }

    /// Tells the agent if anything that it sees of the links changed. What follows from them is written by what it commits to say which
    /// addresses are its MoAs now, or right after it, if there was nothing to say.
    func linksRead() {
        linkWritesPending = true
        let snapshot = linkTables.snapshot(without: configuration.deviceName)
        if snapshot != announcedLinks {
            announcedLinks = snapshot
            onEvent(.links(snapshot))
        }
        guard linkWritesPending else { return }
        linkWritesPending = false
        do throws(KernelError) {
            try tables.setHost(homes: unhomed(), addresses: decidedAddresses())
            try synchroniseRoutes(readBack: .nothing)
        } catch {
            onEvent(.failed(error))
        }
    }

    /// Somebody deleted our device under us, and the HoAs with it: makes it anew, so that sockets bound to them go on.
    func restoreDevice() {
        guard let lost = device else { return }
        loop.unwatch(lost.descriptor)
        device = nil
        do throws(KernelError) {
            let fresh = try TunnelDevice(name: configuration.deviceName)
            device = fresh
            // The HoAs went with the device, which is told as one repair.
            usableHomes = []
            try routes.configureDevice(index: fresh.index, name: fresh.name)
            try watchDevice(fresh)
            onEvent(.repaired("\(fresh.name) had been deleted; made anew"))
        } catch {
            onEvent(.failed(error))
        }
        linksChanged()
    }

    // MARK: Plain destinations

    /// The kernel's elements have no time-out of their own: one that lapsed just before it is replaced would make the kernel
    /// refuse the whole batch.
    func notePlain(_ changes: [IMTChange]) {
        let now = SystemClock.now().monotonic
        for change in changes {
            switch change {
            case .setPlain(let address, let lifetime): plainUntil[address] = now + lifetime
            case .removePlain(let address): plainUntil[address] = nil
            default: break
            }
        }
        armPlainTimer()
    }

    /// Plain addresses that go so that a set which is full refuses nothing: those whose time ends first. One that goes too early
    /// is questioned once more, which is all.
    func roomForPlain(_ changes: [IMTChange]) -> [IMTChange] {
        let added = changes.reduce(into: Set<IPAddress>()) { if case .setPlain(let address, _) = $1 { $0.insert(address) } }
        let excess = tables.model.plain.count + added.count - Int(TranslationRuleset.plainSourcesMax)
        guard !added.isEmpty, excess > 0 else { return [] }
        // A sixteenth more at once, so that a full set does not sort at each addition.
        return tables.model.plain.subtracting(added).sorted { (plainUntil[$0] ?? .distantFuture, $0) < (plainUntil[$1] ?? .distantFuture, $1) }
            .prefix(excess + Int(TranslationRuleset.plainSourcesMax) / 16).map { .removePlain($0) }
    }

    func armPlainTimer() {
        if let plainTimer { loop.cancel(plainTimer) }
        plainTimer = nil
        guard let next = plainUntil.values.min(), next < .distantFuture else { return }
        plainTimer = loop.schedule(at: next) { [weak self] in self?.expirePlain() }
    }

    // MARK: Own MoAs that went away

    /// Gives those that went just now their time.
    func noteRetired() {
        let now = SystemClock.now().monotonic
        let retired = Set(tables.model.retired.map(\.moa))
        retiredUntil = retiredUntil.filter { retired.contains($0.key) }
        for moa in retired where retiredUntil[moa] == nil { retiredUntil[moa] = now + Self.retiredLifetime }
        let next = retiredUntil.values.min()
        if let retiredTimer { loop.cancel(retiredTimer) }
        retiredTimer = next.map { time in
            loop.schedule(at: time) { [weak self] in
                guard let self else { return }
                retiredTimer = nil
                let now = SystemClock.now().monotonic
                let ended = Set(retiredUntil.filter { $0.value <= now }.keys)
                do throws(KernelError) {
                    try tables.release(ended)
                } catch {
                    for moa in ended { retiredUntil[moa] = now + .seconds(60) }
                    onEvent(.failed(error))
                }
                noteRetired()
            }
        }
    }

    private func expirePlain() {
        plainTimer = nil
        let now = SystemClock.now().monotonic
        let expired = plainUntil.filter { $0.value <= now }.keys
        do throws(KernelError) {
            try commit(expired.map { .removePlain($0) })
        } catch {
            // Not lost: the address stays plain a little longer.
            for address in expired { plainUntil[address] = now + .seconds(1) }
            armPlainTimer()
            onEvent(.failed(error))
        }
    }
}
