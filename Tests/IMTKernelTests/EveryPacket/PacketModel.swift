// What a packet may meet, as a pure function: protocol.md sections 6 and 7, and nothing of how the rules do it.
//
// The property behind it: no packet that belongs to a mapped conversation is ever answered by, or delivered to, the wrong party, and
// none with a HoA leaves a link untranslated, whatever the agent does or does not know yet. `EveryPacketTests` sends each
// combination through the real kernel and compares; docs/architecture.md ("What a packet may meet") has this table in words.

/// Where the node's one MoA is, and whether the agent has decided about the latest change.
enum OwnAddress: String, CaseIterable, Sendable {
    case present
    case goneUnheard = "gone, unheard"
    case gone
    /// Away and back before the agent looked: a few milliseconds are enough.
    case bounced
    /// The agent knows that it went, and not yet that it is back.
    case backUnheard = "back, unheard"
    case back
    /// Another has come in its place, of which the agent knows nothing; packets are for that one.
    case renumbered

    /// Whether the node can be expected to work as ever.
    var isSettled: Bool { self == .present || self == .back }
}

enum Place: String, CaseIterable, Sendable {
    case away
    /// The MoA is the HoA.
    case atHome = "at home"
    /// The node has two HoAs of each family, each with a MoA on the one link; packets are for the further one.
    case further = "away, further HoA"
    /// The node is a mobile router, and packets are for a host behind it.
    case network = "mobile network"
}

enum AgentState: String, CaseIterable, Sendable {
    case running
    /// It stands still (SIGSTOP, a flood): copies and held packets are not read.
    case stopped
    /// Its process is gone: nobody listens for copies or reads `mat0`.
    case dead
    /// It stands still, and somebody has flushed the ruleset (`nft flush ruleset`).
    case flushed = "stopped and flushed"
}

/// What is the same for all packets that are sent in one go.
struct NodeState: Hashable, CaseIterable, CustomStringConvertible, Sendable {
    var own: OwnAddress
    var place: Place
    var agent: AgentState
    /// `traffic: nothing`: no destination is captured, and there is no source NAT.
    var capturesNothing = false

    static let allCases: [NodeState] =
        Place.allCases.flatMap { place in
            // What a router gets for its network comes to it by routes, whatever the link's address.
            OwnAddress.allCases.filter { place != .network || $0 != .renumbered }.flatMap { own in
                AgentState.allCases.filter { $0 != .flushed || own == .present }.map { NodeState(own: own, place: place, agent: $0) }
            }
        } + capturingNothing
    /// At home such a node talks to anybody as it is.
    private static let capturingNothing: [NodeState] = [Place.away, .further, .network].flatMap { place in
        [OwnAddress.present, .gone, .bounced, .back].flatMap { own in
            [AgentState.running, .stopped, .dead].map { NodeState(own: own, place: place, agent: $0, capturesNothing: true) }
        }
    }
    var description: String {
        "\(place.rawValue), address \(own.rawValue), agent \(agent.rawValue)" + (capturesNothing ? ", traffic nothing" : "")
    }
    /// What may arrive: to an address that is new there is no plain flow yet, and those of a mobile network come to the router's own.
    var arrivals: [ArrivingPacket] {
        ArrivingPacket.all.filter { packet in
            if packet.socket.isPlain, own == .renumbered || place == .network { return false }
            // With both ends at home there is no other flow.
            return packet.socket != .plainLater || place != .atHome || !packet.source.isAtHome
        }
    }
}

/// What became of a packet. The first three are what the stack saw of it.
enum PacketOutcome: String, CaseIterable, Sendable {
    /// Between HoAs.
    case translated
    /// As it was on the wire.
    case passed
    /// As it was, but no answer left the host.
    case muted
    /// Nothing, but the agent has it.
    case held
    /// Nothing at all.
    case dropped
}

struct Expectation: Equatable, Sendable {
    /// The rule's sentence.
    var rule: String
    var allowed: Set<PacketOutcome>

    init(_ rule: String, _ allowed: PacketOutcome...) {
        self.rule = rule
        self.allowed = Set(allowed)
    }
}

// MARK: - From the network

/// What the node knows of the host at the packet's source, which is the same true peer each time.
enum SourceState: String, CaseIterable, Sendable {
    case known
    /// A peer, but known to be elsewhere.
    case moved
    /// Was a peer from this very address, idle since, and is none any more.
    case forgotten
    /// The address was a peer's, and has since been proven to be another's.
    case taken
    /// As `known` and `forgotten`, but the peer is at home: its locator is its HoA.
    case knownAtHome = "known, at home"
    case forgottenAtHome = "forgotten, at home"

    var isAtHome: Bool { self == .knownAtHome || self == .forgottenAtHome }
    var isForgotten: Bool { self == .forgotten || self == .forgottenAtHome }
    /// Nothing is known of it now.
    var isStranger: Bool { self == .moved || isForgotten }
}

/// What on this host waits at the port that the packet is for.
enum SocketState: String, CaseIterable, Sendable {
    /// Connected to the peer, between HoAs.
    case homes
    /// Likewise, and a listener on the same port: an accepted connection.
    case homesBesideListener = "homes+listener"
    /// Connected to the packet's very source, between MoAs, before that was known as anybody's.
    case plain
    /// Likewise, but begun when it was a peer's already.
    case plainLater = "plain, later"
    /// Listening at the own MoA.
    case bound
    /// Listening at every address.
    case wildcard
    case none

    var isPlain: Bool { self == .plain || self == .plainLater }
    var listens: Bool { self == .bound || self == .wildcard || self == .homesBesideListener }
}

enum ArrivingKind: String, CaseIterable, Sendable {
    case segment, synchronise = "SYN", reset = "RST", datagram = "UDP"
    case echoRequest = "echo request", echoReply = "echo reply"
    /// Port unreachable about a datagram of ours to where the peer is known to be: from a router, and from the packet's source.
    case routersError = "router's error", hostsError = "host's error"
    /// A datagram in two pieces; and the second piece first.
    case fragments, reversedFragments = "fragments reversed"

    var isError: Bool { self == .routersError || self == .hostsError }
    var isEcho: Bool { self == .echoRequest || self == .echoReply }
    var isTCP: Bool { self == .segment || self == .synchronise || self == .reset }
    var isFragmented: Bool { self == .fragments || self == .reversedFragments }
    /// Whether a socket's owner would notice it.
    var carriesData: Bool { self == .segment || self == .datagram || isFragmented }

    /// The sockets that make a difference to such a packet.
    var sockets: [SocketState] {
        switch self {
        case .echoRequest: [.none]
        case .echoReply: [.plain, .plainLater, .none]
        case .routersError, .hostsError: [.homes, .plain, .plainLater, .none]
        default: SocketState.allCases
        }
    }
}

struct ArrivingPacket: Hashable, CustomStringConvertible, Sendable {
    var source: SourceState
    var socket: SocketState
    var kind: ArrivingKind

    static let all: [ArrivingPacket] = SourceState.allCases.flatMap { source in
        ArrivingKind.allCases.flatMap { kind in kind.sockets.map { ArrivingPacket(source: source, socket: $0, kind: kind) } }
    }
    var description: String { "\(kind.rawValue) from \(source.rawValue) to \(socket.rawValue)" }

    /// Something begins with it, so that no answer of the stack could end anything.
    var opens: Bool {
        switch kind {
        case .synchronise, .echoRequest: true
        case .datagram, .fragments, .reversedFragments: socket.listens
        default: false
        }
    }

    /// - Parameter isRepeated: the same packet came before, and the agent has had the time that an opener waits.
    func expectation(_ node: NodeState, isRepeated: Bool) -> Expectation {
        if let plain = ofPlainFlow(node, isRepeated) { return plain }
        if kind.isError { return ofError(node) }
        guard source.isStranger else {
            return node.own.isSettled
                ? Expectation("From a known locator: translated", .translated)
                : Expectation(
                    "From a known locator while the own address is in doubt: translated or held, never as it is", .translated,
                    .held, .dropped)
        }
        if opens, isRepeated { return Expectation("What opens may pass when its wait is over", .passed, .held, .dropped) }
        // With both ends at home nothing is rewritten, and the connection's own packets can't be told from plain ones.
        if node.place == .atHome, source.isAtHome, socket == .homes || socket == .homesBesideListener {
            return Expectation(
                "Of a connection with a forgotten peer, both at home: given to it, or held", .passed, .held, .dropped)
        }
        // A segment that finds a listener may end a handshake with SYN cookies: the stack may see it, and never answer.
        if kind.isTCP, kind != .synchronise, socket.listens {
            return Expectation("A stranger's segment for a listener: never answered", .muted, .held, .dropped)
        }
        // At its limit the agent may lack a copy; while the address is in doubt nobody could be asked.
        return node.own.isSettled && !isRepeated
            ? Expectation("From a stranger: waits for the agent", .held)
            : Expectation("From a stranger while the own address is in doubt, or again: not seen by the stack", .held, .dropped)
    }

    private func ofPlainFlow(_ node: NodeState, _ isRepeated: Bool) -> Expectation? {
        guard socket.isPlain, kind != .echoRequest else { return nil }
        if kind == .reset, isRepeated {
            return Expectation("Of a plain flow that has ended: never answered", .passed, .translated, .held, .dropped)
        }
        // Nor is an opening packet taken for a connection's before its source is known.
        if kind == .synchronise, source.isStranger {
            return Expectation("Opens anew what a plain flow has: as it is, or held", .passed, .held, .dropped)
        }
        // A piece without ports can't be told to belong to the flow before its source is known.
        if kind.isFragmented { return Expectation("Pieces of a plain flow: as it is, or held", .passed, .held, .dropped) }
        return node.own.isSettled || node.own == .bounced
            ? Expectation("Of a plain flow: as it is, for its life", .passed)
            : Expectation("Of a plain flow while the own address is in doubt: as it is or not at all", .passed, .held, .dropped)
    }

    private func ofError(_ node: NodeState) -> Expectation {
        // The stack answers no error, and one that quotes MoAs concerns no conversation between HoAs.
        if source.isForgotten {
            return Expectation("An error about nobody known: never answered", .passed, .muted, .held, .dropped)
        }
        return node.own.isSettled
            ? Expectation("An error about a mapped packet: translated with its quote", .translated)
            : Expectation(
                "An error about a mapped packet while the own address is in doubt: not answered", .translated, .passed, .muted,
                .held, .dropped)
    }
}

// MARK: - From a local socket

/// What the node knows of the destination, a HoA each time.
enum DestinationState: String, CaseIterable, Sendable {
    case known
    /// Was a peer, its route in the sockets' caches, and is none any more.
    case forgotten
    /// A peer whose only locator has been proven to be another's.
    case lost
    /// Never heard of.
    case unknown
    /// Found to be no MAT node's.
    case plain
    /// As `known` and `forgotten`, but the peer is at home: its locator is its HoA.
    case knownAtHome = "known, at home"
    case forgottenAtHome = "forgotten, at home"

    var isAtHome: Bool { self == .knownAtHome || self == .forgottenAtHome }
}

enum LeavingKind: String, CaseIterable, Sendable {
    case segment, synchronise = "SYN", abort = "RST"
    case connectedDatagram = "connected UDP", datagram = "UDP", largeDatagram = "large UDP", echoRequest = "echo request"

    /// Whether the socket is older than what became of its destination.
    var isOfOldSocket: Bool { self == .segment || self == .abort || self == .connectedDatagram }
}

struct LeavingPacket: Hashable, CustomStringConvertible, Sendable {
    var destination: DestinationState
    var kind: LeavingKind

    static let all: [LeavingPacket] = DestinationState.allCases.flatMap { destination in
        LeavingKind.allCases.map { LeavingPacket(destination: destination, kind: $0) }
    }
    var description: String { "\(kind.rawValue) to \(destination.rawValue)" }

    /// `passed`: between the own MoA and the destination as it is.
    func expectation(_ node: NodeState) -> Expectation {
        switch destination {
        case .known, .knownAtHome:
            node.own.isSettled
                ? Expectation("To a peer: translated", .translated)
                : Expectation("To a peer while the own address is in doubt: translated or held", .translated, .held, .dropped)
        case .plain where node.capturesNothing:
            Expectation("To a plain host without source NAT: never sent", .held, .dropped)
        case .plain:
            // A reset of a connection that connection tracking does not know can't be given its address.
            node.own.isSettled && (node.agent == .running && kind != .abort || node.place == .atHome)
                ? Expectation("To a plain host: from the own MoA", .passed)
                : Expectation(
                    "To a plain host, without address or agent: from the own MoA or not at all", .passed, .held, .dropped)
        case .forgotten, .forgottenAtHome, .lost, .unknown:
            node.own.isSettled && node.agent == .running
                ? Expectation("To a HoA without entry: waits for the agent", .held)
                : Expectation("To a HoA without entry: never sent", .held, .dropped)
        }
    }
}
