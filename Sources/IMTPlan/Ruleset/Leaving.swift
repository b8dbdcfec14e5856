import MATSignal

// Packets that leave: into our device and held, translated out of a link, or kept from going where nobody could answer them.
extension TranslationRuleset {
    /// There while connections are tracked. A held packet must not enter that: its entry would have no NAT, and the released packet would belong to it.
    var hold: ChainDefinition {
        ChainDefinition(
            name: "hold", hook: .init(type: "filter", number: KernelValues.hookOutput, priority: -310),
            rules: [isInterface(.outputName, configuration.deviceName) + [.verdict(.goTo("held"))]]
                + (needs.sparesTracking ? isMapped.map { $0 + [.noTracking, .verdict(.accept)] } : []))
    }

    /// One rule, but for mobile networks, whose hosts are no HoAs with entries of their own.
    var isMapped: [[Expression]] {
        [loadPair + [.lookup(set: Self.mapped, key: r0, into: nil)]]
            + familyPaths.filter { configuration.network(of: $0.path.own) != nil }
            .map { number, path in leave(by: number, path, ours: source, theirs: destination) }
    }

    /// A packet that the agent has released and that comes back would be released again, and again: the kernel's route leads to our device
    /// though the agent saw another (of two IPv6 routes the kernel leaves the one whose gateway does not answer). Here the agent
    /// is refused (EPERM), which tells it so.
    ///
    /// What is encapsulated goes into our device as well, and is not held there. It is tracked like anything that leaves: a firewall that asks
    /// for the state of its answers finds it.
    var heldHere: ChainDefinition {
        ChainDefinition(
            name: "held", hook: nil,
            rules: isEncapsulated.map { $0 + [.verdict(.accept)] } + [isReleased + [.verdict(.drop)], [.noTracking, .verdict(.accept)]])
    }

    /// Where nobody tracks connections there is nothing else to be done in the output hook, and it is spared: a released packet that comes back is
    /// refused one hook later. The mark settles it for all others.
    var comesBack: [[Expression]] {
        needs.isUntracked ? [isReleased + isInterface(.outputName, configuration.deviceName) + [.verdict(.drop)]] : []
    }

    /// One rule, but for mobile networks, of whose hosts each is the network to the set.
    var isEncapsulated: [[Expression]] {
        [loadPair + [.lookup(set: Self.encapsulated, key: r0, into: nil)]] + homeNetworks.map(isEncapsulated)
    }

    func isEncapsulated(from network: IPPrefix) -> [Expression] {
        isWithin(network, source, in: r0) + [.load(destination, into: r1), .lookup(set: Self.encapsulated, key: r0, into: nil)]
    }

    var translate: ChainDefinition {
        // A packet without a route falls into our device although it has an entry: a link went down, or the entry is newer
        // than the route. It is held as it is, and translated when it goes; held translated, it would go out as traffic
        // between MoAs, and its answers with it.
        let leaves = isInterface(.outputName, configuration.deviceName, .notEqual, in: second)
        return ChainDefinition(
            name: "translate", hook: .init(type: "filter", number: KernelValues.hookPostrouting, priority: 310),
            rules: (needs.exemptsIPsec ? [willBeEncrypted] : []) + frequentOut + isUnmapped + firstUse + heldConnections + leftToPrograms
                // Into our device as it is.
                + (needs.encapsulates ? isEncapsulated.map { isInterface(.outputName, configuration.deviceName) + $0 + [.verdict(.accept)] } : [])
                + [isSignalling + [.verdict(.accept)], isError + [.verdict(.jump("quoted_out"))]]
                + familyPaths.map { number, path in
                    leave(by: number, path, ours: source, theirs: destination) + leaves
                        + [.write(pair, from: r0, checksum: outerChecksum), .verdict(.accept)]
                } + comesBack + strays
                + [[.load(source, into: r0), .lookup(set: Self.own, key: r0, into: r1), .verdict(.jump("started"))]]
                + doubtfulResets
                + [[.load(source, into: r0), .lookup(set: Self.homes, key: r0, into: nil)] + isLeaving + [.verdict(.goTo("unhomed"))]]
                + homeNetworks.filter { !isAtHome($0) }.map { isWithin($0, source, in: r0) + isLeaving + [.verdict(.goTo("unhomed_network"))] })
    }

    /// There only while no peer is in use, so that hardly a packet passes it: the first to a peer is told of, and goes on. Its counts would say so too,
    /// but would have to be asked for all the time.
    var firstUse: [[Expression]] {
        guard needs.awaitsUse else { return [] }
        return ([Self.mapped] + (needs.encapsulates ? [Self.encapsulated] : [])).map { set in
            loadPair + [
                .lookup(set: set, key: r0, into: nil), .limit(packetsPerSecond: 1, burst: 1),
                .log(group: configuration.nflogGroup, prefix: CopyReason.used.rawValue),
            ]
        }
    }

    /// There only for a moment after a move: to a peer that has not heard of it, a SYN from the new MoA is a stranger's. The peer would have a
    /// connection with that MoA, this host one with the HoA, and both would be lost with the next move. So these few segments are the agent's to
    /// send. The set's element lapses by itself: with the agent dead they go, rather than never.
    var heldConnections: [[Expression]] { homeAddresses.filter(announcing.contains).flatMap(heldConnections) }

    private func heldConnections(of home: HomeAddress) -> [[Expression]] {
        var begins: [Expression] = [headersProtocol, .compare(r0, .equal, Self.tcp)]
        begins += flags(.equal, 0x02, of: 0x12)
        begins += isFrom(home)
        begins.append(.lookup(set: Self.confirming, key: r0, into: nil))
        var isMapped: [[Expression]] = [loadPair + [.lookup(set: Self.mapped, key: r0, into: nil)]]
        if configuration.network(of: home) != nil {
            isMapped = familyPaths.filter { $0.path.own == home }.map { leave(by: $0.number, $0.path, ours: source, theirs: destination) }
        }
        var goes: [Expression] = [.meta(.mark, into: r0), .compare(r0, .notEqual, nativeOctets(configuration.releaseMark))]
        goes += isLeaving
        goes.append(.verdict(.goTo("begins")))
        return isMapped.map { begins + $0 + goes }
    }

    var begins: ChainDefinition { ChainDefinition(name: "begins", hook: nil, rules: [copied(as: .begins), [.verdict(.drop)]]) }

    /// What is not from a HoA is nobody's but a plain flow's: it leaves at the first compare, since a server's every packet comes here. Four
    /// octets settle it, loaded without a call. An IPv6 address that ends as a HoA does goes on, and is found out below. A mobile network's
    /// hosts are told from others by their prefix alone.
    var isUnmapped: [[Expression]] {
        guard homeNetworks.isEmpty else { return [] }
        return [
            [.load(end(of: source), into: r0)]
                + homesOfPackets.map { .compare(r0, .notEqual, Array($0.packetOctets.suffix(4))) } + [.verdict(.goTo("unmapped"))]
        ]
    }

    /// From another address than a HoA.
    var unmapped: ChainDefinition {
        let own: [[Expression]] =
            familyOwn.count > Self.ownConstantsMax
            ? [[.load(source, into: r0), .lookup(set: Self.own, key: r0, into: r1), .verdict(.goTo("started"))]]
            : familyOwn.map { moa, home in isAddress(moa.address, source) + [.verdict(.goTo(Self.begun(home)))] }
        return ChainDefinition(
            name: "unmapped", hook: nil, rules: comesBack + own + [isError + [.verdict(.jump("quoted_out"))]] + doubtfulResets)
    }

    /// The peer's HoA, at `theirs`, becomes its MoA in `r1`, and `r0` the own MoA: adjacent, as in the header. Ends the rule if
    /// the packet is not from the path's HoA (at `ours`), or its peer not on this path.
    func leave(by number: UInt32, _ path: DeparturePath, ours: HeaderField, theirs: HeaderField) -> [Expression] {
        let peer: [Expression] = [.load(theirs, into: r1), .lookup(set: Self.out(number), key: r1, into: r1)]
        if let network = configuration.network(of: path.own) {
            return isWithin(network, ours, in: r0) + peer + load(ours, as: path.moa.address, network.length, into: r0)
        }
        return [.load(ours, into: r0), .compare(r0, .equal, path.own.address.packetOctets)] + peer
            + [.immediate(path.moa.address.packetOctets, into: r0)]
    }

    var isLeaving: [Expression] { isInterface(.outputName, configuration.deviceName, .notEqual) + isInterface(.outputName, "lo", .notEqual) }

    func isFrom(_ home: HomeAddress) -> [Expression] {
        if let network = configuration.network(of: home) { return isWithin(network, source, in: r0) }
        return [.load(source, into: r0), .compare(r0, .equal, home.address.packetOctets)]
    }

    // MARK: What nothing has taken

    var strays: [[Expression]] {
        homeAddresses.map { home in
            isFrom(home) + [.load(destination, into: r0), .lookup(set: Self.forgotten, key: r0, into: nil)] + isLeaving + [.verdict(.goTo("astray"))]
        }
    }

    /// For a HoA whose entry was given up, by a route that a socket has kept from before (IPv6 sockets ask again only when that very
    /// route changes): the agent finds the peer again and sends its copy. Dropped, which is an error to the sender (EPERM), since
    /// connection tracking must not confirm a flow that is to be translated. `InstalledRoutes.renewals` sees to it that such
    /// sockets ask again; this is for what nobody thought of.
    var astray: ChainDefinition {
        ChainDefinition(name: "astray", hook: nil, rules: [isReleased + [.verdict(.drop)], copied(as: .leaving), [.verdict(.drop)]])
    }

    /// A packet of a HoA that no network routes, which neither translation nor source NAT has taken. Mostly a socket that is bound to a HoA
    /// talks to somebody plain, and there is no source NAT yet: the agent gets a copy of the packet, installs it, and sends the copy.
    /// With `traffic: nothing` there never is: only a peer gets the copy.
    /// Dropped here, the packet would be an error (EPERM) to its sender; so it goes, between addresses that no host
    /// accepts from a network (RFC 1122, 3.2.1.3; RFC 4291, 2.5.3). What the agent itself sends is not copied again.
    var unhomed: ChainDefinition {
        let loopback: [UInt8] = family == .ipv4 ? [127, 0, 0, 1] : [UInt8](repeating: 0, count: 15) + [1]
        return ChainDefinition(
            name: "unhomed", hook: nil,
            rules: [
                isReleased + [.verdict(.drop)], copied(as: .leaving),
                [.immediate(loopback, into: r0), .immediate(loopback, into: r1), .write(pair, from: r0, checksum: outerChecksum)],
            ])
    }

    // MARK: Source NAT

    var snat: ChainDefinition {
        ChainDefinition(
            name: Self.sourceNAT, hook: .init(type: "nat", number: KernelValues.hookPostrouting, priority: 100),
            // Only a connection's first packet comes here, so the look-up hardly counts.
            rules: (needs.exemptsIPsec ? [willBeEncrypted] : [])
                + isMapped.map { $0 + [.verdict(.accept)] }
                // Not by its way, and not with another's name: see `astray`, which a packet must reach as it is.
                + strays
                // Between a mobile network's own links nothing changes, nor at home.
                + homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] }
                + homeNetworks.filter(isAtHome).map { isWithin($0, source, in: r0) + [.verdict(.accept)] }
                + [
                    isInterface(.outputName, configuration.deviceName, .notEqual) + [
                        .load(source, into: r0), .lookup(set: Self.homes, key: r0, into: nil), .masquerade,
                    ]
                ]
                + homeNetworks.map { prefix in
                    isInterface(.outputName, configuration.deviceName, .notEqual) + isWithin(prefix, source, in: r0) + [.masquerade]
                })
    }
}
