import MATSignal

// What meets packets that are for a MoA of ours, and whose source no peer is known to use.
//
//     stranger ── claimed by a connection of this host, ICMP error, link-local, DHCP, known plain ──► passes
//        │
//        ├── UDP and SYN for which a socket listens, SYN to a closed port, echo request ──► opening
//        │        opening    first of its source: a copy to the agent, held; again within 150 ms: likewise
//        │                   again later, from a source asked about lately, or over the limits ────────────────► passes
//        ├── other TCP for which a socket listens ──► listening: a copy to the agent; passes, but resets are muted
//        └── all else: a copy to the agent, held; over the limit dropped
//
// Why each is safe for a peer that has moved before this host heard of it. What would harm it is an answer of the stack that ends
// its connection: a reset, or ICMP port unreachable.
// - An *opener* can't cause either in a conversation that exists. A SYN between MoAs belongs to no connection between HoAs; a
//   datagram that finds a listening socket is not answered with unreachable; an echo is answered with an echo. So an opener may
//   pass without an answer of the IMS, and it is held only so that a new conversation begins between HoAs if it can.
// - A TCP segment that finds only a listening socket is a moved peer's, or the end of a plain client's handshake while the
//   listener remembers no handshakes (SYN cookies, when it is flooded). The stack can tell and we can't, so it may see it; the
//   reset that it makes of the former never leaves (`resetOfStranger`). The agent has a copy, which it lets in once translated.
// - Anything else waits for the agent, and is never shown to the stack before.
// - Datagrams that answer such a source are not noted as a flow begun here (`strangersAnswers`): when it turns out to be a peer,
//   its conversation is translated from then on.
//
// Why the agent's pause harms nobody: the sets are the kernel's own. While it stands still, segments of moved peers are dropped or
// muted and sent again; openers pass when they are repeated, as after the 100 ms that the agent would let them wait.
//
// What bounds it: copies per second, each kind by itself, and the sets' sizes. A flood of openers fills their limit, and further
// ones pass at once: a public server serves on. A flood of anything else is dropped without an answer.
extension TranslationRuleset {
    /// Copies of openers to the agent. Beyond it they pass: the agent could not ask about more (HA Query is granted 100/s), and would
    /// let them pass likewise.
    static let openersPerSecondMax: UInt64 = 100
    static let openersBurstMax: UInt32 = 200
    /// Copies of packets that only the agent lets in. Beyond it they are dropped.
    static let heldPerSecondMax: UInt64 = 1000
    static let heldBurstMax: UInt32 = 500
    /// Copies of what has passed, so that the agent learns of a peer that moved to where a plain client was.
    static let passedPerSecondMax: UInt64 = 50
    static let passedBurstMax: UInt32 = 50
    /// Segments per second that a listening socket may look at.
    static let listeningPerSecondMax: UInt64 = 2000
    static let listeningBurstMax: UInt32 = 1000

    /// A little more than the agent lets openers wait: the repetition of one that it has not decided by then passes.
    static let waitingMilliseconds: UInt64 = 150
    /// A source is asked about at most this often (protocol.md section 7: not found is remembered 5 s at most).
    static let latelyMilliseconds: UInt64 = 5000
    /// For so long a source that opened something before is asked about without its openers' waiting again.
    static let servedMilliseconds: UInt64 = 300_000
    /// Longer than a round trip of a muted segment and its reset, and than what a loaded host puts between them.
    static let mutedMilliseconds: UInt64 = 2000

    // The kernel counts lapsed elements until it collects them, once a second: each bound is what the limits let in until then.
    static let waitingMax: UInt32 = 4096
    static let latelyMax: UInt32 = 16_384
    static let servedMax: UInt32 = 65_536
    static let mutedMax: UInt32 = 16_384

    static let waiting = "waiting", lately = "asked_lately", served = "served", muted = "muted"

    var strangerSets: [SetDefinition] {
        [(Self.waiting, 13, Self.waitingMax), (Self.lately, 10, Self.latelyMax), (Self.served, 11, Self.servedMax)].map { name, identifier, size in
            SetDefinition(
                name: name, flags: SetDefinition.dynamicFlags, identifier: identifier, keyType: addressType, keyBytes: width, size: size)
        } + [
            SetDefinition(
                name: Self.muted, flags: SetDefinition.dynamicFlags, identifier: 12, keyType: pairType, keyBytes: 2 * width, size: Self.mutedMax)
        ]
    }

    var strangerChains: [ChainDefinition] { [stranger, opening, listening] }

    // TCP's flags (RFC 9293): FIN 1, SYN 2, RST 4, ACK 16; those of ECN do not matter.
    private func hasFlags(_ value: UInt8, of mask: UInt8) -> [Expression] {
        isProtocol(Self.tcp) + [.load(transport(13, 1), into: r0), .mask(r0, [mask]), .compare(r0, .equal, [value])]
    }
    private var isSYN: [Expression] { hasFlags(0x02, of: 0x16) }
    private var loadSource: [Expression] { [.load(source, into: r0)] }

    /// For a MoA of ours, and not mapped. The stack never answers such a packet unless it is known to be meant as it is.
    private var stranger: ChainDefinition {
        let dhcp: [UInt8] = isIPv4 ? [0, 67, 0, 68] : [0x02, 0x23, 0x02, 0x22]
        let linkLocal: [Expression] =
            isIPv4
            ? [.load(HeaderField(base: .network, offset: 12, length: 2), into: r0), .compare(r0, .equal, [169, 254])]
            : [
                .load(HeaderField(base: .network, offset: 8, length: 2), into: r0), .mask(r0, [0xFF, 0xC0]),
                .compare(r0, .equal, [0xFE, 0x80]),
            ]
        let accept: [Expression] = [.verdict(.accept)]
        let isPlain: [Expression] = [.lookup(set: Self.plainFlows, key: r0, into: nil), .verdict(.accept)]
        // A later fragment has no ports, and what lies in their place must find no socket.
        let hasPorts: [Expression] = [.load(transport(0, 4), into: r0)]
        return ChainDefinition(
            name: "stranger", hook: nil,
            rules: [
                // The answer to an untranslated flow that began here.
                [.load(pair, into: r0)] + flowKey(2 * words, portsSent) + isPlain,
                isProtocol(icmp) + isType(echoReply) + [.load(pair, into: r0)] + flowKey(2 * words, identifier) + isPlain,
                // Released by the agent, or from this host to itself.
                isInterface(.inputName, configuration.deviceName) + accept,
                isInterface(.inputName, "lo") + accept,
                // Where this host's own plain traffic goes (the answers to what left by source NAT find no socket yet), and strangers
                // found plain while there is no peer that any of them could be.
                loadSource + [.lookup(set: Self.plainSources, key: r0, into: nil)] + accept,
                // A socket connected or bound to an address of its own claims it. A listening one is bound to none, mostly, and
                // must not: it would reset a moved peer's connection.
                [.socketIsWildcard(into: r0), .compare(r0, .equal, [0])] + accept,
                // Errors, neighbour and router discovery: all ICMP but echo.
                isProtocol(icmp) + isType(echoRequest, .notEqual) + isType(echoReply, .notEqual) + accept,
                linkLocal + accept,
                isProtocol(Self.udp) + [.load(transport(0, 4), into: r0), .compare(r0, .equal, dhcp)] + accept,
                [.verdict(.jump(Self.alwaysPlainChain))],
                isSYN + [.verdict(.goTo("opening"))],
                hasPorts + [.socketIsWildcard(into: r0), .verdict(.goTo("listening"))],
                // Not looked at by the rules above: a half-open or lingering connection between just these addresses and ports.
                hasPorts + [.socketIsTransparent(into: r0)] + accept,
                isProtocol(icmp) + isType(echoRequest) + [.verdict(.goTo("opening"))],
                held(.drop),
                [.verdict(.drop)],
            ])
    }

    private func held(_ verdict: Verdict) -> [Expression] {
        [
            .limit(packetsPerSecond: Self.heldPerSecondMax, burst: Self.heldBurstMax),
            .log(group: configuration.nflogGroup, prefix: HoldListener.Kind.held.rawValue), .verdict(verdict),
        ]
    }

    private var opening: ChainDefinition {
        let limit = Expression.limit(packetsPerSecond: Self.openersPerSecondMax, burst: Self.openersBurstMax)
        let hold: [Expression] = [.log(group: configuration.nflogGroup, prefix: HoldListener.Kind.opener.rawValue), .verdict(.drop)]
        func isIn(_ set: String) -> [Expression] { loadSource + [.lookup(set: set, key: r0, into: nil)] }
        func note(_ set: String, _ identifier: UInt32, _ milliseconds: UInt64) -> Expression {
            .update(.add, set: set, setID: identifier, key: r0, data: nil, timeoutMilliseconds: milliseconds)
        }
        let noteLately = note(Self.lately, 10, Self.latelyMilliseconds)
        return ChainDefinition(
            name: "opening", hook: nil,
            rules: [
                // Beside one that waits: they wait for the same answer.
                isIn(Self.waiting) + [limit] + hold,
                // Asked about, and either found plain or not answered in time.
                isIn(Self.lately) + [.verdict(.accept)],
                // It was served before: asked about again, but not held up again.
                isIn(Self.served) + [
                    .limit(packetsPerSecond: Self.passedPerSecondMax, burst: Self.passedBurstMax), noteLately,
                    .log(group: configuration.nflogGroup, prefix: HoldListener.Kind.passed.rawValue),
                ],
                isIn(Self.served) + [.verdict(.accept)],
                // The first. Over the limit, or when a set is full, the rule ends and it passes below.
                loadSource + [limit, note(Self.waiting, 13, Self.waitingMilliseconds), noteLately],
                isIn(Self.waiting) + [note(Self.served, 11, Self.servedMilliseconds)],
                isIn(Self.waiting) + hold,
                [.verdict(.accept)],
            ])
    }

    /// A socket listens for it. Over a limit the rule ends, and a segment is dropped: unmuted it must not reach the stack.
    private var listening: ChainDefinition {
        let mute = Expression.update(
            .renew, set: Self.muted, setID: 12, key: r0, data: nil, timeoutMilliseconds: Self.mutedMilliseconds)
        let loadPair: [Expression] = [.load(pair, into: r0)]
        return ChainDefinition(
            name: "listening", hook: nil,
            rules: [
                isProtocol(Self.udp) + [.verdict(.goTo("opening"))],
                loadPair + [.limit(packetsPerSecond: Self.listeningPerSecondMax, burst: Self.listeningBurstMax), mute],
                loadPair + [.lookup(set: Self.muted, key: r0, into: nil)] + held(.accept),
                loadPair + [.lookup(set: Self.muted, key: r0, into: nil), .verdict(.accept)],
                [.verdict(.drop)],
            ])
    }

    /// The stack's answer to a segment of a stranger that found a listening socket. A reset that answers a segment has no ACK
    /// (RFC 9293, 3.5.2: the segment had one); one that refuses a connection, or that a connection of this host sends, has.
    private var resetOfStranger: [Expression] {
        hasFlags(0x04, of: 0x14) + [
            .load(destination, into: r0), .load(source, into: r1), .lookup(set: Self.muted, key: r0, into: nil), .verdict(.drop),
        ]
    }

    /// What this host sends untranslated to a source that opened something. Noted as flows begun here, datagrams would keep a moved
    /// peer's conversation untranslated when the peer is known; a plain client's next ones pass without a note.
    var strangersAnswers: [[Expression]] {
        [
            resetOfStranger,
            isProtocol(Self.udp) + [.load(destination, into: r0), .lookup(set: Self.served, key: r0, into: nil), .verdict(.accept)],
        ]
    }
}
