import MATSignal

// Packets that arrive: for an own MoA, for one that went away and is back, or for an address that the agent has not decided about yet.
extension TranslationRuleset {
    // MARK: By which way a packet reaches an own HoA

    /// How packets reach an own HoA: at MoAs of its own, by `own`, or through a MoPre.
    struct Entrance {
        var home: HomeAddress
        var network: (moPre: IPPrefix, home: IPPrefix)?
    }

    var entrances: [Entrance] {
        homeAddresses.flatMap { home -> [Entrance] in
            guard let prefix = configuration.network(of: home) else { return [Entrance(home: home)] }
            return moPres(of: home).map { Entrance(home: home, network: ($0, prefix)) }
        }
    }

    /// The same by own MoAs that went away.
    var returning: [Entrance] {
        homeAddresses.filter { configuration.network(of: $0) == nil }.map { Entrance(home: $0) } + retiredMoPres
    }

    /// Errors come to both, and are few.
    var allEntrances: [(entrance: Entrance, set: String)] { entrances.map { ($0, Self.own) } + returning.map { ($0, Self.retired) } }

    /// The peer's MoA, at `theirs`, becomes its HoA in `first`, and the own MoA, at `ours`, the HoA in the registers after it.
    /// - Parameter set: the own MoAs that count.
    func arrive(
        at entrance: Entrance, ours: HeaderField, theirs: HeaderField, first: Register = Register(0), among set: String = Self.own
    ) -> [Expression] {
        let home = entrance.home
        let next = Register(first.index + words)
        if let network = entrance.network {
            return isWithin(network.moPre, ours, in: next) + [.load(theirs, into: first), .lookup(set: Self.into(home), key: first, into: first)]
                + load(ours, as: network.home.address, network.home.length, into: next)
        }
        let isOurs: [Expression] = homeAddresses.count > 1 ? [.compare(next, .equal, home.address.packetOctets)] : []
        return [.load(ours, into: next), .lookup(set: set, key: next, into: next)] + isOurs
            + [.load(theirs, into: first), .lookup(set: Self.into(home), key: first, into: first)]
    }

    // MARK: Chains

    var deliver: ChainDefinition {
        ChainDefinition(
            name: "deliver", hook: .init(type: "filter", number: KernelValues.hookPrerouting, priority: -310),
            rules: frequentIn + (needs.encapsulates ? [unwrapped] : []) + rewrittenByPrograms
                + arrivedAt.map { moa, home in isAddress(moa.address, destination) + [.verdict(.goTo(Self.arrived(home)))] }
                + [isSignalling + [.verdict(.accept)]] + isOtherPort(transport(2, 2)) + [isError + [.verdict(.jump("errors"))]]
                + entrances.filter { $0.network != nil || arrivedAt.isEmpty && !familyOwn.isEmpty }.map { delivered(at: $0) } + unwrappedByAgent
                + (arrivedAt.isEmpty || !homeNetworks.isEmpty ? flowsToAnswer : []) + [
                    [.load(destination, into: r0), .lookup(set: Self.own, key: r0, into: r1), .verdict(.goTo("stranger"))]
                ]
                // At home the prefix's packets need no translation, and plain ones no question.
                + homeAddresses.flatMap { moPres(of: $0) }.filter { !homeNetworks.contains($0) }.map {
                    isWithin($0, destination, in: r0) + [.verdict(.goTo("stranger"))]
                }
                + retiredMoPres.compactMap { $0.network?.moPre }.map { isWithin($0, destination, in: r0) + [.verdict(.goTo("returned"))] }
                + [
                    [.load(destination, into: r0), .lookup(set: Self.retired, key: r0, into: r1)] + (needs.asksRouting ? isLocal : []) + [
                        .verdict(.goTo("returned"))
                    ]
                ]
                // The rest is no peer's, or is meant as it is: for this host's other addresses, or to be forwarded.
                + (needs.asksRouting
                    ? [
                        [.load(destination, into: r0), .lookup(set: Self.known, key: r0, into: nil), .verdict(.accept)],
                        isLocal + [.verdict(.goTo("unseen"))],
                    ] : []))
    }

    /// Taken out of a datagram by the kernel's programs. The mark is for this rule alone: whoever marks packets on this host sees none of ours.
    var unwrapped: [Expression] {
        [
            .meta(.mark, into: r0), .compare(r0, .equal, nativeOctets(configuration.unwrappedMark)), .immediate(nativeOctets(UInt32(0)), into: r0),
            .setMeta(.mark, from: r0), .verdict(.accept),
        ]
    }

    /// Taken out of a datagram by the agent. What it held comes from our device too, and is between MoAs.
    var unwrappedByAgent: [[Expression]] {
        needs.encapsulates ? [isInterface(.inputName, configuration.deviceName) + isDecapsulated + [.verdict(.accept)]] : []
    }

    /// Own MoAs whose packets meet rules of their own, found by a compare: a look-up costs ten times as much, and each packet that arrives would
    /// pay for it twice. None if there are too many.
    var arrivedAt: [(MobileAddress, HomeAddress)] {
        let all = familyOwn.filter { configuration.network(of: $0.1) == nil }
        return all.count > Self.ownConstantsMax ? [] : all
    }

    /// For a MoA of this HoA: from a peer, or from nobody that is known. Of a node at home it is the HoA too.
    func arrived(_ home: HomeAddress) -> ChainDefinition {
        let isPeers: [Expression] = [
            .load(source, into: r0), .lookup(set: Self.into(home), key: r0, into: r0), .immediate(home.address.packetOctets, into: r1),
        ]
        return ChainDefinition(
            name: Self.arrived(home), hook: nil,
            rules: [isSignalling + [.verdict(.accept)]] + isOtherPort(transport(2, 2))
                + [isError + [.verdict(.jump("errors"))], isPeers + deliverAsHomes] + unwrappedByAgent + [flowsToAnswer(for: home)] + nothingStrange)
    }

    /// A peer's packet, translated. That is all, but for the few peers to whose MoA a plain flow began: for these the rule ends there.
    func delivered(at entrance: Entrance, among set: String = Self.own) -> [Expression] {
        arrive(at: entrance, ours: destination, theirs: source, among: set) + deliverAsHomes
    }

    /// The HoAs are in `r0` and `r1`.
    private var deliverAsHomes: [Expression] {
        [.write(pair, from: r0, checksum: arrivingChecksum), .load(source, into: r0), .absent(set: Self.plainPeers, key: r0)]
            + untracked + [.verdict(.accept)]
    }

    /// For an own MoA that went away and is back, or whose HoA stayed on our device (a stationary server's): the agent will hear of
    /// it in a moment, and peers' packets are here now.
    var returned: ChainDefinition {
        ChainDefinition(
            name: "returned", hook: nil,
            rules: returning.map { delivered(at: $0, among: Self.retired) } + flowsToAnswer
                + homeNetworks.map { isWithin($0, destination, in: r0) + [.verdict(.accept)] } + [[.verdict(.goTo("stranger"))]])
    }

    /// For an address that the agent has not seen yet, or not decided about. What comes from a peer's MoA was meant for another one: a
    /// conversation that this is part of is not found here, whatever the stack would find. But for neighbour discovery, which
    /// says nothing to any conversation.
    var unseen: ChainDefinition {
        ChainDefinition(
            name: "unseen", hook: nil,
            rules: [isProtocol(icmp) + isType(echoRequest, .notEqual) + isType(echoReply, .notEqual) + [.verdict(.accept)]]
                + homeAddresses.flatMap { home -> [[Expression]] in
                    let isPeer: [Expression] = [.load(source, into: r0), .lookup(set: Self.into(home), key: r0, into: r1)]
                    return [isPeer + copied(as: .held), isPeer + [.verdict(.drop)]]
                } + [[.verdict(.goTo("stranger"))]])
    }
}
