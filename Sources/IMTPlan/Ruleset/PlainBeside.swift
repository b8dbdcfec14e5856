import MATSignal

// Untranslated flows with addresses that are, or become, a peer's MoA: noted when they begin, so that their answers stay as they are.
extension TranslationRuleset {
    /// What is untranslated and from an own MoA.
    var started: ChainDefinition {
        ChainDefinition(
            name: "started", hook: nil,
            rules: homeAddresses.map { home in
                let isOurs: [Expression] = homeAddresses.count > 1 ? [.compare(r1, .equal, home.address.packetOctets)] : []
                return [.load(source, into: r0), .lookup(set: Self.own, key: r0, into: r1)] + isOurs + [.verdict(.goTo(Self.begun(home)))]
            })
    }

    /// Untranslated, from a MoA of this HoA: flows that begin here are noted, so that their answers are neither translated nor held. TCP needs
    /// that only towards a peer's MoA; otherwise its connected socket claims the answers. UDP and echo have no such socket.
    func begun(_ home: HomeAddress) -> ChainDefinition {
        let moas = familyOwn.filter { $0.1 == home }.map(\.0)
        let homes = moas.map { HomeAddress($0.address) }.filter(homeAddresses.contains)
        let key: [Expression] = [.load(destination, into: r0), .load(source, into: r1)]
        // What is asked after this chain concerns HoAs, and addresses that are no MoAs.
        let ends: [Expression] = [.verdict(.accept)]
        let isNoHome: [Expression] = [.load(source, into: r0)] + homes.map { .compare(r0, .notEqual, $0.address.packetOctets) }
        return ChainDefinition(
            name: Self.begun(home), hook: nil,
            rules: isOtherPort(transport(0, 2)) + [
                isEdge, mayBeOurPort(0) + [.verdict(.jump("our_port"))],
            ] + moas.map { goesToPeer(of: home, from: $0) } + [
                isProtocol(Self.udp) + key + flowKey(2 * words, portsAnswered) + [notePlainFlow] + (homes.isEmpty ? ends : [])
            ] + (homes.isEmpty ? [] : [isProtocol(Self.udp) + isNoHome + ends]) + [
                // An error that this host makes may quote a mapped packet all the same.
                isError + [.verdict(.jump("quoted_out"))],
                isProtocol(icmp) + isType(echoRequest) + key + flowKey(2 * words, identifier) + [notePlainFlow],
            ])
    }

    /// By the key of the flow as its answers come in.
    var notePlainFlow: Expression {
        .update(.renew, set: Self.plainFlows, setID: Self.plainFlowsID, key: r0, data: nil, timeoutMilliseconds: Self.plainFlowMilliseconds)
    }

    /// Signalling, and the agent's own datagrams, to whatever port: no flow that an application began.
    var ourPort: ChainDefinition {
        ChainDefinition(
            name: "our_port", hook: nil,
            rules: [isSignalling + [.verdict(.accept)], isNodePort(transport(0, 2)) + [.verdict(.accept)]])
    }

    /// From this MoA to a peer's. The flow's key wants the peer's HoA, and a look-up's result can't be a key for `nft list`: so the HoA is
    /// written over the own MoA for a moment, which the chain that this leads to knows without the header. Checksums need no mending meanwhile.
    private func goesToPeer(of home: HomeAddress, from moa: MobileAddress) -> [Expression] {
        isAddress(moa.address, source) + [
            .load(destination, into: r0), .lookup(set: Self.into(home), key: r0, into: r0), .write(source, from: r0, checksum: .none),
            .verdict(.jump(Self.toPeer(moa))),
        ]
    }

    /// Flows to peers' MoAs, where the peer's HoA stands in place of this MoA, which is put back in any case.
    func toPeer(_ moa: MobileAddress) -> ChainDefinition {
        let octets = moa.address.packetOctets
        let data = Register(words + 3)
        let isPeer: [Expression] = [.load(source, into: r0)]
        let mobile: [Expression] = [.load(destination, into: data), .immediate(octets, into: Register(data.index + words))]
        func note(_ change: ElementChange, _ milliseconds: UInt64) -> [Expression] {
            mobile + [
                .update(change, set: Self.peerFlows, setID: Self.peerFlowsID, key: r0, data: data, timeoutMilliseconds: milliseconds),
                .update(
                    .renew, set: Self.plainPeers, setID: Self.plainPeersID, key: r0, data: nil, timeoutMilliseconds: Self.plainPeerMilliseconds),
            ]
        }
        let ports = flowKey(words, portsAnswered)
        let restore: [Expression] = [.immediate(octets, into: r0), .write(source, from: r0, checksum: .none)]
        // As it passed when it came in.
        let passed: [Expression] =
            [.load(destination, into: r0), .immediate(octets, into: Register(words))] + flowKey(2 * words, portsAnswered)
        return ChainDefinition(
            name: Self.toPeer(moa), hook: nil,
            rules: [
                // A datagram of a flow that is noted.
                isProtocol(Self.udp) + isPeer + ports + [.lookup(set: Self.peerFlows, key: r0, into: data)] + note(.renew, Self.plainFlowMilliseconds)
                    + restore + [.verdict(.leave)],
                // It answers what passed before anyone had heard that a peer is there, and that was not carried over: the middle of a mapped
                // conversation (`PlainSearch`). Noted, all that follows would come in as this did, and be lost with the peer's next move.
                isProtocol(Self.udp) + passed + [
                    .lookup(set: Self.passedFlows, key: r0, into: nil),
                    notePassedFlow,
                ] + restore + [.verdict(.leave)],
                isProtocol(Self.udp) + isPeer + ports + note(.renew, Self.plainFlowMilliseconds),
                isProtocol(icmp) + isType(echoRequest) + isPeer + flowKey(words, identifier)
                    + note(.renew, Self.plainFlowMilliseconds),
                // A new connection may have an old one's ports, and begin elsewhere.
                isTCP(withAny: 2) + isPeer + ports + mobile
                    + [
                        .update(.remove, set: Self.peerFlows, setID: Self.peerFlowsID, key: r0, data: data, timeoutMilliseconds: 0),
                        .update(.remove, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: 0),
                    ],
                isTCP(withAny: 2) + isPeer + ports + note(.renew, Self.plainConnectionMilliseconds),
                isTCP(withAny: 5) + isPeer + ports + note(.renew, Self.plainEndMilliseconds) + [noteEnd(Self.plainEndMilliseconds)],
                isProtocol(Self.tcp) + isPeer + ports + note(.add, Self.plainConnectionMilliseconds),
                restore,
            ])
    }

    /// - Parameter milliseconds: as long as the flow is noted, at least.
    func noteEnd(_ milliseconds: UInt64) -> Expression {
        .update(.renew, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: milliseconds)
    }

    // MARK: Answers

    /// Translated already, and from a peer to whose MoA a plain flow began.
    var flowsToAnswer: [[Expression]] { homeAddresses.map(flowsToAnswer) }

    func flowsToAnswer(for home: HomeAddress) -> [Expression] {
        isAddress(home.address, destination) + [
            .load(source, into: r0), .lookup(set: Self.plainPeers, key: r0, into: nil), .verdict(.goTo("answers")),
        ]
    }

    /// From a peer that has a plain flow too, and translated already: if it belongs to that flow, back to the MoAs it began
    /// between.
    var answers: ChainDefinition {
        let restore: [Expression] = [
            .lookup(set: Self.peerFlows, key: r0, into: r0), .write(pair, from: r0, checksum: arrivingChecksum), .verdict(.accept),
        ]
        let key = [.load(source, into: r0)] + flowKey(words, portsSent)
        let data = Register(words + 3)
        return ChainDefinition(
            name: "answers", hook: nil,
            rules: [
                // A connection that begins, begun by either end, is another than the one that had these
                // ports and ended: between HoAs, since a new one between MoAs would have said so (`begun`). Only of an ended one: a SYN is
                // no proof of anything, and must end nothing that lives.
                isTCP(withAny: 2) + key + [
                    .lookup(set: Self.plainEnds, key: r0, into: nil), .load(pair, into: data),
                    .update(.remove, set: Self.plainEnds, setID: Self.plainEndsID, key: r0, data: nil, timeoutMilliseconds: 0),
                    .update(.remove, set: Self.peerFlows, setID: Self.peerFlowsID, key: r0, data: data, timeoutMilliseconds: 0),
                ],
                isTCP(withAny: 4) + key + [
                    .lookup(set: Self.peerFlows, key: r0, into: data), noteEnd(Self.plainConnectionMilliseconds),
                ],
                isProtocol(icmp) + isType(echoReply) + [.load(source, into: r0)] + flowKey(words, identifier) + restore,
                key + restore,
                untracked + [.verdict(.accept)],
            ])
    }

    // MARK: Never questioned

    /// Rules, not set elements: prefixes overlap and are few.
    var alwaysPlain: ChainDefinition {
        ChainDefinition(
            name: Self.alwaysPlainChain, hook: nil,
            rules: configuration.alwaysPlain.filter { $0.family == family }.map { prefix in
                let mask = IPAddress(high: .max, low: .max).masked(to: prefix.length).octets.suffix(Int(width))
                let partial: [Expression] = prefix.length == 128 ? [] : [.mask(r0, Array(mask))]
                return [.load(source, into: r0)] + partial + [.compare(r0, .equal, prefix.address.packetOctets), .verdict(.accept)]
            })
    }
}
