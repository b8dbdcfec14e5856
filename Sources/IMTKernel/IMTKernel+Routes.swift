import MATRuntime
import MATSignal

// What follows in the routing tables from the agent's plan and the links' state.
extension IMTKernel {
    func readLinks() throws(KernelError) {
        var fresh = LinkTables()
        fresh.links = try routes.links()
        fresh.addresses = try routes.addresses()
        for isIPv4 in [true, false] { fresh.mainRoutes += try routes.routes(table: KernelValues.tableMain, isIPv4: isIPv4) }
        linkTables = fresh
    }

    // MARK: HoAs

    /// The configured HoAs that no real link carries: plain traffic from them needs source NAT.
    func unhomed() -> Set<IPAddress> {
        Set(configuration.homeAddresses.map(\.address).filter { !linkTables.carries($0, otherThan: configuration.deviceName) })
    }

    /// Puts each HoA on our device, also one that another link carries: the stack drops packets that a device without an
    /// address delivers wherever reverse paths are filtered, and that would be every packet that was held (`fib_validate_source`).
    ///
    /// A HoA whose family is switched off is reported once and left out: the node then works in the other family.
    /// - Parameter retire: whether addresses of an earlier configuration are taken off.
    func placeHomes(retire: Bool) throws(KernelError) {
        guard let device else { return }
        let present = Set(linkTables.addresses.filter { $0.interfaceIndex == device.index }.map(\.address))
        let homes = configuration.homeAddresses.map(\.address)
        let missing = Set(homes).subtracting(present)
        var changes: [RouteSocket.Change] = missing.sorted().map { .addAddress($0, interfaceIndex: device.index) }
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
    }

    // MARK: Routes

    /// Reads what is there and makes all routes and rules what they should be.
    /// - Parameter readBack: whether the kernel may have withdrawn some: it does when a link goes down.
    func synchroniseRoutes(readBack: Bool) throws(KernelError) {
        if readBack {
            installedRoutes = [:]
            for isIPv4 in [true, false] {
                for route in try routes.routes(table: nil, isIPv4: isIPv4) { installedRoutes[route.key] = route }
            }
        }
        // Link tables and rules first: the mirrored routes are looked up through them.
        try writeRoutes()
        mirrorPeers()
        try writeRoutes()
    }

    private var plan: RoutePlan {
        RoutePlan(
            configuration: configuration, tables: linkTables, locators: locators, deviceIndex: device?.index ?? 0,
            plain: tables.model.plain, homes: usableHomes)
    }

    /// Writes the difference between what should be and what is known to be.
    func writeRoutes() throws(KernelError) {
        guard device != nil else { return }
        let plan = plan
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        for route in plan.linkRoutes() + plan.captureRoutes() { wanted[route.key] = route }
        for route in peerRoutes.values { wanted[route.key] = route }
        let rules = plan.rules()
        var changes: [RouteSocket.Change] = []
        for (key, route) in wanted where installedRoutes[key] != route { changes.append(.setRoute(route)) }
        // A gateway's route is refused until the route to the gateway is there: the shorter way first.
        changes.sort { Self.order($0) < Self.order($1) }
        changes += rules.subtracting(installedRules).map { .addRule($0) }
        changes += installedRules.subtracting(rules).map { .deleteRule($0) }
        for (key, route) in installedRoutes where wanted[key] == nil { changes.append(.deleteRoute(route)) }
        guard !changes.isEmpty else { return }
        try apply(changes, leading: wanted, rules)
    }

    /// Likewise, but looks only at the capture table's host routes to these addresses.
    func writeRoutes(to addresses: Set<IPAddress>) throws(KernelError) {
        guard device != nil else { return }
        var narrow = plan
        narrow.plain.formIntersection(addresses)
        var wanted: [KernelRoute.Key: KernelRoute] = [:]
        for route in narrow.captureRoutes() { wanted[route.key] = route }
        var changes: [RouteSocket.Change] = []
        var installed = installedRoutes
        for address in addresses {
            let key = KernelRoute.Key(
                table: configuration.routingTable, destination: IPPrefix(address), priority: KernelRoute.ownPriority)
            let route = peerRoutes[HomeAddress(address)] ?? wanted[key]
            guard route != installedRoutes[key] else { continue }
            if let route {
                changes.append(.setRoute(route))
            } else if let old = installedRoutes[key] {
                changes.append(.deleteRoute(old))
            }
            installed[key] = route
        }
        guard !changes.isEmpty else { return }
        try apply(changes, leading: installed, installedRules)
    }

    /// Makes the changes and notes what is there afterwards.
    private func apply(
        _ changes: [RouteSocket.Change], leading wanted: [KernelRoute.Key: KernelRoute], _ rules: Set<KernelRule>
    ) throws(KernelError) {
        let refused = try routes.apply(changes)
        installedRoutes = wanted
        installedRules = rules
        for (change, error) in refused {
            switch change {
            case .setRoute(let route):
                installedRoutes[route.key] = nil
                // The device is going down under us; the event that says so is on its way.
                if error.errno == 100 || error.errno == 19 || error.errno == 101 { continue }
            case .addRule(let rule): installedRules.remove(rule)
            default: break
            }
            onEvent(.failed(error))
        }
    }

    private static func order(_ change: RouteSocket.Change) -> Int {
        if case .setRoute(let route) = change, route.gateway != nil { return 1 }
        return 0
    }

    /// The entry by which packets to this HoA leave: that of the primary own HoA if there are several.
    static func pair(of peer: HomeAddress, in model: TranslationModel, _ configuration: IMTConfiguration) -> (
        HomePair, MobilePair
    )? {
        for own in configuration.homeAddresses {
            let pair = HomePair(own: own, peer: peer)
            if let mobile = model.outbound[pair] { return (pair, mobile) }
        }
        return nil
    }

    /// Makes the route to a peer's HoA what the kernel would choose for its MoA.
    func mirror(_ peer: HomeAddress) {
        peerRoutes[peer] = nil
        guard let (home, mobile) = Self.pair(of: peer, in: tables.model, configuration), usableHomes.contains(home.own.address)
        else { return }
        guard
            let route = try? routes.lookUp(from: mobile.own.address, to: mobile.peer.address, mark: configuration.mark),
            route.interfaceIndex != device?.index, leavesByOwnLink(route, mobile.own.address)
        else { return }
        // A peer on the link itself has no gateway, but its neighbour entry is its MoA's: a released packet has its next hop
        // fixed before translation (FLOWI_FLAG_KNOWN_NH of raw sockets), and nobody answers for the HoA on that link.
        let neighbour = mobile.peer.address == peer.address ? nil : mobile.peer.address
        peerRoutes[peer] = KernelRoute(
            table: configuration.routingTable, destination: IPPrefix(peer.address), gateway: route.gateway ?? neighbour,
            interfaceIndex: route.interfaceIndex, source: home.own.address, mtu: route.mtu)
    }

    /// A MoA stays configured when its link goes down, and the look-up then falls through to another link, whose network has
    /// no way back to that MoA. Such a peer's packets are held instead. A MoA that is also a HoA belongs to the host rather
    /// than to a link: there the main table decides.
    private func leavesByOwnLink(_ route: KernelRoute, _ moa: IPAddress) -> Bool {
        if configuration.homeAddresses.contains(where: { $0.address == moa }) { return true }
        return linkTables.addresses.contains { state in
            state.address == moa && state.interfaceIndex == route.interfaceIndex
                && linkTables.links[state.interfaceIndex]?.isUp == true
        }
    }

    func mirrorPeers() {
        for peer in Set(tables.model.outbound.keys.map(\.peer)).union(peerRoutes.keys) { mirror(peer) }
    }

    // MARK: Events

    func linksChanged() {
        do throws(KernelError) {
            try readLinks()
            if let device, let state = linkTables.links[device.index], state.flags & KernelValues.flagUp == 0 {
                try routes.configureDevice(index: device.index, name: device.name)
                onEvent(.repaired("\(device.name) had been taken down; brought up again"))
                try readLinks()
            }
            let homesBefore = tables.model.homes
            try placeHomes(retire: false)
            let homes = unhomed()
            if homes != homesBefore {
                var wanted = tables.model
                wanted.homes = homes
                _ = try tables.commit(wanted)
            }
            try synchroniseRoutes(readBack: true)
        } catch {
            onEvent(.failed(error))
        }
        let snapshot = linkTables.snapshot(without: configuration.deviceName)
        guard snapshot != announcedLinks else { return }
        announcedLinks = snapshot
        onEvent(.links(snapshot))
    }

    /// Somebody deleted our device under us, and the HoAs with it: makes it anew, so that sockets bound to them go on.
    func restoreDevice() {
        guard let lost = device else { return }
        loop.unwatch(lost.descriptor)
        device = nil
        do throws(KernelError) {
            let fresh = try TunnelDevice(name: configuration.deviceName)
            device = fresh
            try routes.configureDevice(index: fresh.index, name: fresh.name)
            try watchDevice(fresh)
            onEvent(.repaired("\(fresh.name) had been deleted; made anew"))
        } catch {
            onEvent(.failed(error))
        }
        linksChanged()
    }

    func rulesetRemoved() {
        do throws(KernelError) {
            guard try !tables.exist() else { return }
            try tables.install(tables.model)
            onEvent(.repaired("the nftables tables had been removed; installed again"))
        } catch {
            onEvent(.failed(error))
        }
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

    func armPlainTimer() {
        if let plainTimer { loop.cancel(plainTimer) }
        plainTimer = nil
        guard let next = plainUntil.values.min(), next < .distantFuture else { return }
        plainTimer = loop.schedule(at: next) { [weak self] in self?.expirePlain() }
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
