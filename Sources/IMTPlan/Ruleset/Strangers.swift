import MATSignal

// What meets packets that are for a MoA of ours, and whose source no peer is known to use.
//
//     stranger ── TCP ──► segments ── claimed by a connection of this host ──► passes
//        │                   ├── SYN ──────────────────────────────────────► opening
//        │                   ├── for which a socket listens ──► a copy to the agent; passes, but no reset leaves (`edges`)
//        │                   └── all else: a copy to the agent, held; over the limit dropped
//        ├── of a flow that is known as plain, ICMP error, link-local, DHCP ──► passes
//        ├── datagram for which there is a socket, echo request ──► opening
//        └── all else: a copy to the agent, held; over the limit dropped
//
//     opening ── our IMS has just said that it knows no HoA for the source (`not_found`) ──► passing
//        ├── whose it is, is being asked or confirmed (`waiting`, `confirming`) ──► held; over the limit dropped
//        ├── asked about lately, and the agent has not said anything: it stands still ──► passing
//        └── first of its source: held, and asked about; over the limit ──► passing
//     passing ── the flow is noted as plain, and stays so whatever is learned of its source ──► passes
//
// **No socket claims what could begin something.** A socket that is bound to an own address looks the same to a rule whether it is
// connected (its owner talks to just this source) or only bound (nginx, named and sshd with a listen address): `socket wildcard` is 0 for
// both. So a SYN is judged before any socket is looked for, and a datagram is claimed by the note of its flow, never by a socket.
//
// **No reset leaves that nobody has allowed.** Of a later segment a bound listener can't be told from a connection, and a look at either
// must cost the fast path nothing. So the segment passes, and what is judged is the stack's answer: a reset that answers a segment has no
// ACK (RFC 9293, 3.5.2), while one that refuses a connection or that a connection of this host sends has. Without ACK it leaves only if
// its flow is known as plain (begun here, ended here by a FIN, or passed as plain) or the agent has said so of its destination. Everything
// else is dropped, and the agent gets a copy: it asks whose the address is, and the segment's repetition is translated.
//
// Why the agent's pause harms nobody: the sets are the kernel's own. While it stands still, segments of moved peers are dropped or
// their resets are; openers pass when they are repeated, one repetition of a SYN (1 s) later.
//
// What bounds it: copies per second, each kind by itself, and the sets' sizes. A flood of openers fills their limit, and further
// ones pass at once: a public server serves on. A flood of anything else is dropped without an answer.
extension TranslationRuleset {
    /// Copies of openers to the agent. Beyond it they pass: the agent could not ask about more (HA Query is granted 100/s), and would
    /// let them pass likewise.
    static let openersPerSecondMax: UInt64 = 100
    static let openersBurstMax: UInt32 = 200
    /// Copies of packets that only the agent lets in, and of openers beside one that waits. Beyond it they are dropped.
    static let heldPerSecondMax: UInt64 = 1000
    static let heldBurstMax: UInt32 = 500
    /// Copies of resets that were not let out.
    static let resetsPerSecondMax: UInt64 = 50
    static let resetsBurstMax: UInt32 = 50
    /// Notes of flows that passed as plain: half of what the sets hold at a time, so that a flood leaves room for flows that begin here.
    /// A flow without a note is asked about again when its source is.
    static let passedFlowsPerSecondMax: UInt64 = 90
    static let passedConnectionsPerSecondMax: UInt64 = 500
    static let passedBurstMax: UInt32 = 500

    /// A little more than the agent lets openers wait, and less than what a SYN waits for its repetition (1 s): if the agent stands still
    /// by then, that passes.
    static let waitingMilliseconds: UInt64 = 980
    /// For so long the openers of a source pass of which the agent, having been asked, has said nothing.
    static let latelyMilliseconds: UInt64 = 5000
    /// A plain connection of TCP that this host has begun; longer than the usual keep-alive of two hours (RFC 5382, REQ-5).
    static let plainBegunMilliseconds: UInt64 = 7_440_000
    /// One that it has ended, or whose SYN passed: a socket is there meanwhile, or lingers for as long (TIME-WAIT).
    static let plainEdgeMilliseconds: UInt64 = 60_000
    /// One to a port that this host publishes by NAT, from its last segment on. Shorter than connection tracking's own time, since a busy
    /// host's notes must have room; one that is silent for longer needs a keep-alive while there are peers.
    static let publishedMilliseconds: UInt64 = 600_000

    // The kernel counts lapsed elements until it collects them, once a second: each bound is what the limits let in until then.
    static let waitingMax: UInt32 = 4096
    static let latelyMax: UInt32 = 16_384
    /// What the agent says of openers: for at most 5 s each, and no more than it may ask about.
    static let saidMax: UInt32 = 16_384
    static let plainConnectionsMax: UInt32 = 65_536
    /// A set of its own, so that whoever fills it (SYNs to closed ports look the same) takes no room from flows that begin here.
    static let publishedMax: UInt32 = 262_144

    package static let waiting = "waiting", lately = "asked_lately", notFound = "not_found", confirming = "confirming"
    package static let plainConnections = "plain_connections", published = "published"
    private static let latelyID: UInt32 = 10, notFoundID: UInt32 = 11, plainConnectionsID: UInt32 = 12, waitingID: UInt32 = 13,
        confirmingID: UInt32 = 14, publishedID: UInt32 = 104
    private static let passedFlowsID: UInt32 = 106

    var strangerSets: [SetDefinition] {
        let dynamic = SetDefinition.dynamicFlags
        let timed = SetDefinition.timedFlag
        let addresses: [(String, UInt32, UInt32, UInt32)] = [
            (Self.waiting, dynamic, Self.waitingID, Self.waitingMax), (Self.lately, dynamic, Self.latelyID, Self.latelyMax),
            (Self.notFound, timed, Self.notFoundID, Self.saidMax), (Self.confirming, timed, Self.confirmingID, Self.saidMax),
        ]
        return addresses.map { name, flags, identifier, size in
            SetDefinition(name: name, flags: flags, identifier: identifier, keyType: addressType, keyBytes: width, size: size)
        } + [
            flows(Self.plainConnections, identifier: Self.plainConnectionsID, size: Self.plainConnectionsMax),
            flows(Self.published, identifier: Self.publishedID, size: Self.publishedMax),
            // Datagrams' flows that passed, of those in `plain_flows`: another end began them, or is in their middle.
            flows(Self.passedFlows, identifier: Self.passedFlowsID, size: Self.plainFlowsMax),
        ]
    }

    /// A set of untranslated flows, as their packets come in: addresses, protocol and ports.
    func flows(_ name: String, identifier: UInt32, size: UInt32) -> SetDefinition {
        SetDefinition(
            name: name, flags: SetDefinition.dynamicFlags, identifier: identifier, keyType: pairType << 18 | 12 << 12 | 13 << 6 | 13,
            keyBytes: 2 * width + 12, size: size)
    }

    var strangerChains: [ChainDefinition] { [stranger, segments, opening, beside, passing, edges] }

    // TCP's flags (RFC 9293): FIN 1, SYN 2, RST 4, ACK 16; those of ECN do not matter.
    func isTCP(withAny flags: UInt8) -> [Expression] { isProtocol(Self.tcp) + self.flags(.notEqual, 0, of: flags) }
    func flags(_ comparison: Comparison, _ value: UInt8, of mask: UInt8) -> [Expression] {
        [.load(transport(13, 1), into: r0), .mask(r0, [mask]), .compare(r0, comparison, [value])]
    }
    private var loadSource: [Expression] { [.load(source, into: r0)] }
    private var accept: [Expression] { [.verdict(.accept)] }
    private func goTo(_ chain: String) -> [Expression] { [.verdict(.goTo(chain))] }
    private func isIn(_ set: String) -> [Expression] { loadSource + [.lookup(set: set, key: r0, into: nil)] }
    /// A later fragment has no ports, and what lies in their place must find no socket.
    private var hasPorts: [Expression] { [.load(transport(0, 4), into: r0)] }
    private var isLinkLocal: [Expression] { isLinkLocal(source) }
    func isLinkLocal(_ address: HeaderField) -> [Expression] {
        let start = HeaderField(base: .network, offset: address.offset, length: 2)
        return family == .ipv4
            ? [.load(start, into: r0), .compare(r0, .equal, [169, 254])]
            : [
                .load(start, into: r0), .mask(r0, [0xFF, 0xC0]), .compare(r0, .equal, [0xFE, 0x80]),
            ]
    }
    /// From a peer, in a datagram: taken out of it by who knows whose it is. Asked for first by hosts with such peers, and else at home, where the HoA
    /// is a MoA too.
    var isDecapsulated: [Expression] {
        [.load(destination, into: r0), .load(source, into: r1), .lookup(set: Self.encapsulated, key: r0, into: nil)]
    }
    /// The key of the flow that a packet belongs to: as it comes in, and as its answers come in.
    private var flowIn: [Expression] { loadPair + flowKey(2 * words, portsSent) }
    private var echoIn: [Expression] { loadPair + flowKey(2 * words, identifier) }
    /// By the key of either way in.
    var notePassedFlow: Expression {
        .update(
            .renew, set: Self.passedFlows, setID: Self.passedFlowsID, key: r0, data: nil, timeoutMilliseconds: Self.plainFlowMilliseconds)
    }
    private var isPlainFlow: [Expression] { [.lookup(set: Self.plainFlows, key: r0, into: nil)] + accept }
    /// A segment of a connection of this host's.
    private var isOfConnection: [Expression] { flags(.notEqual, 0x02, of: 0x16) + [.socketIsWildcard(into: r0), .compare(r0, .equal, [0])] + accept }
    /// Signalling, and packets in datagrams, of a node behind a translator, which gives it another port.
    private var isToNodePort: [Expression] { isNodePort(transport(2, 2)) + accept }

    /// What nearly all packets are that nobody has to be asked about: these rules of `stranger` and `segments` come in front.
    var nothingStrange: [[Expression]] {
        [isProtocol(Self.tcp) + isOfConnection, isToNodePort, isProtocol(Self.udp) + flowIn + isPlainFlow, [.verdict(.goTo("stranger"))]]
    }

    /// For a MoA of ours, and not mapped. The stack never answers such a packet unless it is known to be meant as it is.
    private var stranger: ChainDefinition {
        let dhcp: [UInt8] = family == .ipv4 ? [0, 67, 0, 68] : [0x02, 0x23, 0x02, 0x22]
        return ChainDefinition(
            name: "stranger", hook: nil,
            rules: [
                isProtocol(Self.tcp) + goTo("segments"),
                isToNodePort,
                // Of a flow that began here, or that passed as plain.
                flowIn + isPlainFlow,
                isProtocol(icmp) + echoIn + isPlainFlow,
                // Released by the agent, or from this host to itself.
                isInterface(.inputName, configuration.deviceName) + isDecapsulated + accept,
                isInterface(.inputName, configuration.deviceName) + goTo("passing"),
                isInterface(.inputName, "lo") + accept,
                // Errors, neighbour and router discovery: all ICMP but echo.
                isProtocol(icmp) + isType(echoRequest, .notEqual) + isType(echoReply, .notEqual) + accept,
                isLinkLocal + accept,
                isProtocol(Self.udp) + [.load(transport(0, 4), into: r0), .compare(r0, .equal, dhcp)] + accept,
                [.verdict(.jump(Self.alwaysPlainChain))],
                // Of use because it ends the rule only if there is no socket at all.
                isProtocol(Self.udp) + hasPorts + [.socketIsTransparent(into: r0)] + goTo("opening"),
                isProtocol(icmp) + isType(echoRequest) + goTo("opening"),
                // From where this host's own plain traffic goes, and strangers found plain while there is no peer that any of them could be.
                isIn(Self.plainSources) + goTo("passing"),
                copied(as: .held),
                [.verdict(.drop)],
            ])
    }

    /// TCP. Of nearly all packets the first rule decides.
    private var segments: ChainDefinition {
        ChainDefinition(
            name: "segments", hook: nil,
            rules: [
                isOfConnection,
                isInterface(.inputName, configuration.deviceName) + isDecapsulated + accept,
                isInterface(.inputName, configuration.deviceName) + goTo("passing"),
                isInterface(.inputName, "lo") + accept,
                isLinkLocal + accept,
                [.verdict(.jump(Self.alwaysPlainChain))],
                flags(.equal, 0x02, of: 0x16) + goTo("opening"),
                // Without a socket that the kernel could find: the answers to what left by source NAT.
                flowIn + [.lookup(set: Self.plainConnections, key: r0, into: nil)] + accept,
                // Likewise a connection to what this host publishes by destination NAT (a container's port). No socket takes the place of its
                // SYN's note, so each segment renews it.
                flowIn + [
                    .lookup(set: Self.published, key: r0, into: nil),
                    .update(
                        .renew, set: Self.published, setID: Self.publishedID, key: r0, data: nil, timeoutMilliseconds: Self.publishedMilliseconds),
                ] + accept,
                isIn(Self.plainSources) + accept,
                // A socket listens: a moved peer's segment, or the end of a plain client's handshake while the listener remembers no
                // handshakes (SYN cookies, when it is flooded). The stack can tell and we can't, so it may see it.
                hasPorts + [.socketIsWildcard(into: r0)] + copied(as: .held) + accept,
                // Likewise over the limit; and a half-open or lingering connection between just these addresses and ports.
                hasPorts + [.socketIsTransparent(into: r0)] + accept,
                copied(as: .held),
                [.verdict(.drop)],
            ])
    }

    /// What could begin something. It can't end a conversation that exists: a SYN between MoAs belongs to no connection between HoAs, a
    /// datagram that finds a socket is not answered with unreachable, an echo is answered with an echo. It is held only so that a new
    /// conversation begins between HoAs if it can.
    private var opening: ChainDefinition {
        func note(_ set: String, _ identifier: UInt32, _ milliseconds: UInt64) -> Expression {
            .update(.add, set: set, setID: identifier, key: r0, data: nil, timeoutMilliseconds: milliseconds)
        }
        return ChainDefinition(
            name: "opening", hook: nil,
            rules: [
                isIn(Self.notFound) + goTo("passing"),
                // Beside one that waits: all wait for the same answer, in order, or some of a flow would overtake it untranslated.
                isIn(Self.confirming) + goTo("beside"),
                isIn(Self.waiting) + goTo("beside"),
                isIn(Self.lately) + goTo("passing"),
                // The first. Over the limit, or when a set is full, the rule ends and it passes below.
                loadSource + [
                    .limit(packetsPerSecond: Self.openersPerSecondMax, burst: Self.openersBurstMax),
                    note(Self.waiting, Self.waitingID, Self.waitingMilliseconds), note(Self.lately, Self.latelyID, Self.latelyMilliseconds),
                    .log(group: configuration.nflogGroup, prefix: CopyReason.opener.rawValue), .verdict(.drop),
                ],
                goTo("passing"),
            ])
    }

    private var beside: ChainDefinition {
        ChainDefinition(name: "beside", hook: nil, rules: [copied(as: .opener), [.verdict(.drop)]])
    }

    /// The flow is plain from here on: when its source turns out to be a peer's, the notes become `peer_flows`, and what comes for them is
    /// not translated (`PlainSearch`). Flows are noted, not addresses: the peer's next one is translated.
    private var passing: ChainDefinition {
        func note(_ set: String, _ identifier: UInt32, perSecond: UInt64, _ milliseconds: UInt64) -> [Expression] {
            [
                .limit(packetsPerSecond: perSecond, burst: Self.passedBurstMax),
                .update(.renew, set: set, setID: identifier, key: r0, data: nil, timeoutMilliseconds: milliseconds), .verdict(.accept),
            ]
        }
        func connection(_ set: String, _ identifier: UInt32) -> [Expression] {
            note(set, identifier, perSecond: Self.passedConnectionsPerSecondMax, Self.plainEdgeMilliseconds)
        }
        let flow = note(Self.plainFlows, Self.plainFlowsID, perSecond: Self.passedFlowsPerSecondMax, Self.plainFlowMilliseconds)
        return ChainDefinition(
            name: "passing", hook: nil,
            rules: [
                // For which a socket listens, or for which none does: a NAT's, or soon refused.
                isProtocol(Self.tcp) + hasPorts + [.socketIsTransparent(into: r0)] + flowIn
                    + connection(Self.plainConnections, Self.plainConnectionsID),
                isProtocol(Self.tcp) + hasPorts + [.socketIsTransparent(into: r0)] + accept,
                isProtocol(Self.tcp) + flowIn + connection(Self.published, Self.publishedID),
                isProtocol(Self.tcp) + accept,
                isProtocol(icmp) + echoIn + flow,
                isProtocol(icmp) + accept,
                isProtocol(Self.udp) + flowIn + [
                    .limit(packetsPerSecond: Self.passedFlowsPerSecondMax, burst: Self.passedBurstMax),
                    notePlainFlow, notePassedFlow, .verdict(.accept),
                ],
                flowIn + flow,
                accept,
            ])
    }

    // MARK: On the way out

    /// The few segments of TCP that begin or end something, on their way out untranslated from an own MoA.
    var isEdge: [Expression] { isTCP(withAny: 7) + [.verdict(.jump("edges"))] }

    /// Resets from an address that may be an own MoA, though the agent has not said so: one that went and is back, or is new.
    var doubtfulResets: [[Expression]] {
        let isReset = isProtocol(Self.tcp) + flags(.equal, 0x04, of: 0x14)
        let judge: [Expression] = [.verdict(.jump("edges"))]
        return [isReset + [.load(source, into: r0), .lookup(set: Self.retired, key: r0, into: r1)] + judge]
            + (needs.asksRouting ? [isReset + [.load(source, into: r0), .absent(set: Self.known, key: r0)] + isFromLocal + judge] : [])
    }

    private var edges: ChainDefinition {
        let isReset = flags(.equal, 0x04, of: 0x14)
        let flow: [Expression] = [.load(destination, into: r0), .load(source, into: r1)] + flowKey(2 * words, portsAnswered)
        func note(_ milliseconds: UInt64) -> [Expression] {
            flow + [
                .update(.renew, set: Self.plainConnections, setID: Self.plainConnectionsID, key: r0, data: nil, timeoutMilliseconds: milliseconds)
            ]
        }
        let leave: [Expression] = [.verdict(.leave)]
        return ChainDefinition(
            name: "edges", hook: nil,
            rules: [
                isReset + flow + [.lookup(set: Self.plainConnections, key: r0, into: nil)] + leave,
                isReset + flow + [.lookup(set: Self.published, key: r0, into: nil)] + leave,
                isReset + isInterface(.outputName, "lo") + leave,
                isReset + [.load(destination, into: r0), .lookup(set: Self.plainSources, key: r0, into: nil)] + leave,
                isReset + [
                    .limit(packetsPerSecond: Self.resetsPerSecondMax, burst: Self.resetsBurstMax),
                    .log(group: configuration.nflogGroup, prefix: CopyReason.reset.rawValue), .verdict(.drop),
                ],
                isReset + [.verdict(.drop)],
                // What this host begins, and the end of whatever its sockets had: an end that leaves untranslated is a plain connection's.
                flags(.equal, 0x02, of: 0x12) + note(Self.plainBegunMilliseconds),
                flags(.notEqual, 0, of: 0x05) + note(Self.plainEdgeMilliseconds),
            ])
    }
}
