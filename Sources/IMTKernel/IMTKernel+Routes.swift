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
        Set(configuration.allHomes.map(\.address).filter { !linkTables.carries($0, otherThan: configuration.deviceName) })
    }

    /// The addresses of this host, as far as there is room for them.
    func knownAddresses() -> Set<IPAddress> {
        // Those just put on our device as well.
        let all = Set(linkTables.addresses.map(\.address)).union(homes.usable)
        let most = Int(TranslationRuleset.knownMax)
        return all.count <= most ? all : Set(AddressFamily.allCases.flatMap { family in all.filter { $0.family == family }.sorted().prefix(most) })
    }

    /// Those of them that the agent has decided about, or need not: a new one is known with `commit(_:locators:)`.
    func decidedAddresses() -> Set<IPAddress> {
        let undecided = linkTables.realAddresses(without: configuration.deviceName).subtracting(homes.usable)
        let known = tables.model.addresses
        // Own MoAs are asked for before, so one that comes and goes makes no work here.
        return knownAddresses().subtracting(undecided.subtracting(known)).union(tables.model.own.keys.map(\.address).filter(known.contains))
    }

    /// Puts each HoA on our device (`OwnHomes`).
    /// - Parameter retire: whether addresses of an earlier configuration are taken off.
    func placeHomes(retire: Bool) throws(KernelError) {
        guard let device else { return }
        let present = Set(linkTables.addresses.filter { $0.interfaceIndex == device.index }.map(\.address))
        var refused: [IPAddress: KernelError] = [:]
        for (change, error) in try routes.apply(homes.changes(configuration, present: present, device: device.index, retire: retire)) {
            if case .addAddress(let address, _) = change { refused[address] = error }
        }
        // It comes with each address, and when the device is brought up.
        try routes.deleteMulticastRoute(device.index, device.name)
        let (newlyRefused, putBack) = homes.placed(configuration, present: present, refused: refused.keys.sorted())
        for address in newlyRefused {
            let hint = address.family == .ipv4 ? "" : " (is IPv6 disabled on this host? see net.ipv6.conf.all.disable_ipv6)"
            onEvent(
                .failed(
                    KernelError(
                        .unsupported, operation: "put the HoA on \(device.name)", object: "\(address)\(hint)", errno: refused[address]?.errno ?? 0,
                        sequence: refused[address]?.sequence, kernelMessage: refused[address]?.kernelMessage)))
        }
        if !retire, !putBack.isEmpty {
            onEvent(.repaired("\(putBack.map(\.description).joined(separator: ", ")) had been taken off \(device.name); put back"))
        }
    }

    // MARK: Routes

    /// Reads what is there and makes all routes and rules what they should be.
    /// - Parameter readBack: which routes the kernel may have withdrawn.
    /// - Returns: what had to be written.
    @discardableResult
    func synchroniseRoutes(readBack: ReadBack) throws(KernelError) -> [RoutingChange] {
        try readInstalled(readBack)
        if chooseSharedPaths() { try writePeersApart() }
        return try writeRoutes() + mirrorPeers(isCertain: readBack == .everything)
    }

    /// Reads what is there of our routes.
    private func readInstalled(_ readBack: ReadBack) throws(KernelError) {
        switch readBack {
        case .nothing: break
        case .links:
            installed.linksChanged()
            try readRoutes(kind: .unicast)
        case .everything:
            installed.removeAll()
            try readRoutes(kind: nil)
            installed.found(try routes.rules())
        }
    }

    enum ReadBack {
        case nothing, links, everything
    }

    private func readRoutes(kind: KernelRoute.Kind?) throws(KernelError) {
        let plan = plan
        for family in AddressFamily.allCases {
            for route in try routes.routes(family: family, kind: kind) { installed.found(route, in: plan, tables.model) }
        }
    }

    var plan: RoutePlan {
        RoutePlan(
            configuration: configuration, tables: linkTables, locators: locators, deviceIndex: device?.index ?? 0,
            plain: tables.model.plain, homes: homes.usable, primaries: sharedPaths.all, ruleBase: rulePlace.base, programs: programs.marks)
    }

    /// Writes the difference between what should be and what is known to be.
    @discardableResult
    func writeRoutes() throws(KernelError) -> [RoutingChange] {
        guard device != nil else { return [] }
        let plan = plan
        let before = installed
        let changes = installed.changes(to: plan, further: furtherPeerRoutes(plan))
        do throws(KernelError) {
            try carryOut(changes)
        } catch {
            installed = before
            throw error
        }
        linksKnownOfFurtherHomes()
        return changes
    }

    /// Likewise, but looks only at the host routes to these addresses.
    func writeRoutes(to addresses: Set<IPAddress>) throws(KernelError) {
        guard device != nil else { return }
        try carryOut(installed.changes(to: plan, of: addresses))
    }

    /// Makes the path table what it should be.
    func writePath() throws(KernelError) {
        guard device != nil else { return }
        try carryOut(installed.changesOfPath(to: plan))
    }

    /// Writes changes that are noted as made, and takes back what is refused.
    func carryOut(_ changes: [RoutingChange]) throws(KernelError) {
        guard !changes.isEmpty else { return }
        for (change, error) in try routes.apply(changes) {
            installed.refused(change, captureTable: configuration.routingTable)
            // The device is going down under us; the event that says so is on its way.
            if case .setRoute = change, [ENETDOWN, ENODEV, ENETUNREACH].contains(error.errno) { continue }
            onEvent(.failed(error))
        }
    }

    /// Whether the peer's route leads out of a link now.
    func hasWay(to peer: HomeAddress) -> Bool {
        if installed.peers.isSeparate(peer) { return true }
        return installed.peers.isShared(peer) && sharedPaths[peer.family].map { plan.defaultRoute(from: $0) != nil } ?? false
    }

    // MARK: The path that most peers share

    /// - Returns: whether a family got another one.
    func chooseSharedPaths() -> Bool { sharedPaths.choose(tables.model.departuresCount) }

    /// Another own MoA has become the shared path, or the MoA of the shared path was exchanged.
    ///
    /// Three steps, none of which leaves a peer with a wrong way: peers that stay behind get their own routes, the shared route
    /// changes, and then those that now share it give up theirs. The last may be many and makes no difference to a packet, so
    /// it is done in portions.
    func pathsChanged() throws(KernelError) {
        try writePeersApart()
        try writePath()
        try leaveSeparateRoutes()
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
                homes.deviceLost()
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
            // Not left to the agent's answer: until then packets of a HoA that lost its link would leave under its name.
            do throws(KernelError) {
                try setHost(homes: unhomed(), addresses: tables.model.addresses)
            } catch {
                onEvent(.failed(error))
            }
            onEvent(.links(snapshot))
        }
        defer { forwardingChanged() }
        guard linkWritesPending else { return }
        linkWritesPending = false
        do throws(KernelError) {
            try setHost(homes: unhomed(), addresses: decidedAddresses())
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
            homes.deviceLost()
            try routes.configureDevice(index: fresh.index, name: fresh.name)
            try watchDevice(fresh)
            onEvent(.repaired("\(fresh.name) had been deleted; made anew"))
        } catch {
            onEvent(.failed(error))
        }
        linksChanged()
    }

    // MARK: What lapses

    func awaitPlain() {
        wait(for: .plainDestinations, until: plainDestinations.nextDeadline)
    }

    func expirePlain(_ now: MonotonicTime) {
        let expired = plainDestinations.expired(now)
        do throws(KernelError) {
            try commit(expired.map { .removePlain($0) })
        } catch {
            plainDestinations.refused(expired, now: now)
            awaitPlain()
            onEvent(.failed(error))
        }
    }

    func awaitRetired() {
        retiredAddresses.update(tables.model.retired.map(\.moa), now: SystemClock.now().monotonic)
        wait(for: .retiredAddresses, until: retiredAddresses.nextDeadline)
    }

    func releaseRetired(_ now: MonotonicTime) {
        let ended = retiredAddresses.expired(now)
        // A HoA among them is rewritten by programs from now on, if such there are.
        prepareRewriting([], homes: tables.model.homes, isReleasing: true)
        defer { writeRewriting(TouchedKeys([])) }
        do throws(KernelError) {
            try tables.release(ended)
        } catch {
            retiredAddresses.refused(ended, now: now)
            onEvent(.failed(error))
        }
        awaitRetired()
    }
}
