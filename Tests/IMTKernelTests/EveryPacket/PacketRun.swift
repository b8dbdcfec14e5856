import Glibc
import IMTPlan
import MATSignal
import Namespaces

@testable import IMTPlan

/// A packet that met something else than the model says.
struct Violation: Hashable {
    var node: NodeState
    var isIPv4: Bool
    /// Of `SourceState` or `DestinationState`, `ArrivingKind` or `LeavingKind`, `SocketState`: their words.
    var party: String
    var kind: String
    var socket: String
    var isRepeated = false
    var seen: String
    var expected: String

    /// Whether the packet came out of the node, rather than being for it.
    var isLeaving: Bool { socket == "" }
}

/// One state of the node, and every combination of packet and party in it, in both families at once.
final class PacketRun {
    /// Local ports, by what waits there.
    private enum Port {
        static let nothing: UInt16 = 7000, wildcard: UInt16 = 7001, bound: UInt16 = 7002, homesBesideListener: UInt16 = 7003
        static let homes: UInt16 = 7100, plain: UInt16 = 7200, old: UInt16 = 7300, remote: UInt16 = 9000
    }

    private struct Arriving {
        var index: Int
        var packet: ArrivingPacket
        var isIPv4: Bool
        var socket: TestSocket?
    }

    private struct Departing {
        var index: Int
        var packet: LeavingPacket
        var isIPv4: Bool
        var socket: TestSocket?
    }

    private let state: NodeState
    private let net: PacketWorld
    private var arriving: [Arriving] = []
    private var departing: [Departing] = []
    private var listeners: [(socket: TestSocket, kind: SocketState, isStream: Bool)] = []
    private var violations: [Violation] = []
    private(set) var count = 0

    init(_ state: NodeState) throws {
        self.state = state
        net = try PacketWorld(state.place, capturesNothing: state.capturesNothing)
        var index = 0
        for isIPv4 in [true, false] {
            for packet in state.arrivals {
                arriving.append(Arriving(index: index, packet: packet, isIPv4: isIPv4))
                index += 1
            }
            for packet in LeavingPacket.all {
                departing.append(Departing(index: index, packet: packet, isIPv4: isIPv4))
                index += 1
            }
        }
    }

    func run() throws -> [Violation] {
        try prepare()
        let pause = try enterState()
        try net.fence()
        noteLeaks()
        discard()
        try arrive(isRepeated: false, pause: pause)
        if violations.contains(where: { $0.seen == PacketOutcome.dropped.rawValue }) { print("\(state): packets were dropped\n\(net.kernelsView())") }
        // Longer than an opener waits, and shorter than a connection's first retransmission.
        usleep(UInt32(TranslationRuleset.waitingMilliseconds + 30) * 1000)
        try arrive(isRepeated: true, pause: nil)
        try depart(pause: pause)
        try pause?.end()
        if state.agent != .dead { for text in net.host.failures { note(nil, true, text, "The kernel side does not fail") } }
        return violations
    }

    // MARK: Parties

    private func address(_ role: PacketWorld.Role, _ index: Int, _ isIPv4: Bool) -> IPAddress {
        PacketWorld.address(role, index, isIPv4)
    }

    private func map(_ role: PacketWorld.Role, _ index: Int, _ isIPv4: Bool, at locator: PacketWorld.Role) -> [IMTChange] {
        let home = HomePair(own: net.entry(isIPv4).home, peer: HomeAddress(address(role, index, isIPv4)))
        let mobile = MobilePair(own: net.entry(isIPv4).moa, peer: MobileAddress(address(locator, index, isIPv4)))
        return [.setOutbound(home, .rewritten(mobile)), .setInbound(peer: mobile.peer, home)]
    }

    /// Whose address is the peer's HoA.
    private func home(_ isAtHome: Bool) -> PacketWorld.Role { isAtHome ? .locator : .peer }

    private func forget(_ role: PacketWorld.Role, _ index: Int, _ isIPv4: Bool, keepingLocator: Bool) -> [IMTChange] {
        let own = net.entry(isIPv4).home
        let home = HomePair(own: own, peer: HomeAddress(address(role, index, isIPv4)))
        let locator = MobileAddress(address(.locator, index, isIPv4))
        return [.removeOutbound(home)] + (keepingLocator ? [] : [.removeInbound(peer: locator, own: own)])
    }

    /// Sockets and mappings, in the order in which they come about.
    private func prepare() throws {
        try beginPlainFlows(.plain)
        var maps: [IMTChange] = []
        var losses: [IMTChange] = []
        func lose(_ role: PacketWorld.Role, _ index: Int, _ isIPv4: Bool, toOther: Bool) {
            losses +=
                forget(role, index, isIPv4, keepingLocator: toOther) + (toOther ? map(.other, index, isIPv4, at: .locator) : [])
        }
        for each in arriving {
            let source = each.packet.source
            maps += map(home(source.isAtHome), each.index, each.isIPv4, at: source == .moved ? .formerLocator : .locator)
            if source.isForgotten || source == .taken {
                lose(home(source.isAtHome), each.index, each.isIPv4, toOther: source == .taken)
            }
        }
        for each in departing {
            let (destination, index, isIPv4) = (each.packet.destination, each.index, each.isIPv4)
            switch destination {
            case .unknown: break
            case .plain: maps.append(.setPlain(address(.peer, index, isIPv4), lifetime: .seconds(60)))
            case .known, .knownAtHome, .forgotten, .forgottenAtHome, .lost:
                maps += map(home(destination.isAtHome), index, isIPv4, at: .locator)
            }
            switch destination {
            case .forgotten, .forgottenAtHome, .lost:
                lose(home(destination.isAtHome), index, isIPv4, toOther: destination == .lost)
            case .unknown, .plain, .known, .knownAtHome: break
            }
        }
        try net.commit(maps)
        try connectArriving()
        try beginPlainFlows(.plainLater)
        // A connection may be beside a listener that comes later, not the other way round.
        for isIPv4 in [true, false] { try listen(isIPv4) }
        try connectDeparting()
        // By itself: a route that comes makes sockets look for theirs again, one that goes does not always.
        try net.commit(losses)
    }

    private func listen(_ isIPv4: Bool) throws {
        for (kind, port, at) in [
            (SocketState.wildcard, Port.wildcard, nil), (.homesBesideListener, Port.homesBesideListener, nil),
            (.bound, Port.bound, state.place == .network ? net.home(isIPv4) : target(isIPv4)),
        ] as [(SocketState, UInt16, IPAddress?)] {
            for type in [TestSocket.stream, TestSocket.datagram] {
                let listener = try TestSocket(net.stack, type: type, isIPv4: isIPv4)
                if !isIPv4 { try listener.set(41, 26, 1) }  // IPV6_V6ONLY
                // IP_FREEBIND, IPV6_FREEBIND: the address may come later.
                try listener.set(isIPv4 ? 0 : 41, isIPv4 ? 15 : 78, 1)
                try listener.bind(at ?? (isIPv4 ? .unspecifiedIPv4 : .unspecifiedIPv6), port: port)
                if type == TestSocket.stream { try listener.listen() }
                listeners.append((listener, kind, type == TestSocket.stream))
            }
        }
    }

    private func localPort(_ socket: SocketState) -> UInt16 {
        switch socket {
        case .homes: Port.homes
        case .homesBesideListener: Port.homesBesideListener
        case .plain, .plainLater: Port.plain
        case .bound: Port.bound
        case .wildcard: Port.wildcard
        case .none: Port.nothing
        }
    }

    private func socket(_ isStream: Bool, from local: Endpoint, to remote: Endpoint) throws -> TestSocket {
        if isStream { return try .connected(in: net.stack, from: local, to: remote) }
        let made = try TestSocket(net.stack, type: TestSocket.datagram, isIPv4: local.address.isIPv4)
        try made.bind(local.address, port: local.port)
        try made.connect(remote.address, port: remote.port)
        return made
    }

    /// What this host begins with these addresses: while they are nobody's, or when they are a peer's.
    private func beginPlainFlows(_ socketKind: SocketState) throws {
        let plain = arriving.indices.filter { arriving[$0].packet.socket == socketKind }
        let addresses = plain.map { address(.locator, arriving[$0].index, arriving[$0].isIPv4) }
        try net.commit(addresses.map { .setPlain($0, lifetime: .seconds(60)) })
        for place in plain {
            let (kind, isIPv4) = (arriving[place].packet.kind, arriving[place].isIPv4)
            let target = address(.locator, arriving[place].index, isIPv4)
            if kind == .echoReply {
                let asker = try TestSocket(net.stack, type: TestSocket.raw, isIPv4: isIPv4, protocolNumber: isIPv4 ? 1 : 58)
                try asker.bind(net.moa(isIPv4), port: 0)
                try asker.send(Packets.echo(isRequest: true, Port.plain, from: net.moa(isIPv4), to: target), to: target, port: 0)
                continue
            }
            let made = try socket(
                kind.isTCP, from: Endpoint(net.moa(isIPv4), port: Port.plain), to: Endpoint(target, port: Port.remote))
            // One that began just now is known by what it sent.
            if !kind.isTCP || socketKind == .plainLater {
                try made.send([0])
                try net.noteSent()
            }
            if kind.isTCP, socketKind == .plainLater {
                try acknowledge(at: Endpoint(net.moa(isIPv4), port: Port.plain), arriving[place].index)
            }
            arriving[place].socket = made
        }
        try net.fence()
        try net.commit(addresses.map { .removePlain($0) })
    }

    /// What a connection has sent so far. Unacknowledged, it would be repeated, and what is sent later would wait for that.
    private func acknowledge(at local: Endpoint, _ index: Int) throws {
        try net.send(
            Packets.tcp(
                from: Endpoint(address(.locator, index, local.address.isIPv4), port: Port.remote), to: local, 0x10,
                sequence: TestSocket.receiveSequence, acknowledging: TestSocket.sendSequence + 1, []))
    }

    private func connectArriving() throws {
        for place in arriving.indices where [.homes, .homesBesideListener].contains(arriving[place].packet.socket) {
            let each = arriving[place]
            arriving[place].socket = try socket(
                each.packet.kind.isTCP, from: Endpoint(net.home(each.isIPv4), port: localPort(each.packet.socket)),
                to: Endpoint(address(home(each.packet.source.isAtHome), each.index, each.isIPv4), port: Port.remote))
        }
    }

    /// Sockets that are older than what becomes of their destination have talked to it, so that they remember their route.
    private func connectDeparting() throws {
        for place in departing.indices where departing[place].packet.kind.isOfOldSocket {
            let each = departing[place]
            let target = Endpoint(address(home(each.packet.destination.isAtHome), each.index, each.isIPv4), port: Port.remote)
            let made: TestSocket
            if each.packet.kind == .connectedDatagram {
                made = try TestSocket(net.stack, type: TestSocket.datagram, isIPv4: each.isIPv4)
                try bindIfFurther(made, each.isIPv4)
                try made.connect(target.address, port: target.port)
            } else {
                made = try .connected(in: net.stack, from: Endpoint(net.home(each.isIPv4), port: Port.old), to: target)
            }
            departing[place].socket = made
            guard each.packet.destination != .plain, each.packet.destination != .unknown else { continue }
            try made.send([0])
            guard each.packet.kind != .connectedDatagram else { continue }
            try acknowledge(at: Endpoint(net.moa(each.isIPv4), port: Port.old), each.index)
        }
        try net.fence()
    }

    // MARK: The node's state

    private func enterState() throws -> StandStill? {
        func leaveAgent() throws -> StandStill? {
            switch state.agent {
            case .running: return nil
            case .stopped: return StandStill(net.host)
            case .flushed:
                let pause = StandStill(net.host)
                try net.node.run("nft flush ruleset")
                return pause
            case .dead:
                net.host.finish(leaving: true)
                return nil
            }
        }
        func hear(_ address: (Bool) -> IPAddress, present: Bool) throws {
            guard net.awaitLinks(address, present: present) else {
                throw ShellError(
                    "the kernel side does not see \(address(true)) and \(address(false)) \(present ? "come" : "go")")
            }
        }
        switch state.own {
        case .present: return try leaveAgent()
        case .goneUnheard, .bounced, .renumbered:
            let pause = try leaveAgent()
            try net.removeAddress()
            if state.own == .bounced { try net.addAddress(net.linkAddress) }
            if state.own == .renumbered { try net.addAddress(net.newAddress) }
            if state.agent == .running {
                try hear(state.own == .renumbered ? net.newAddress : net.linkAddress, present: state.own != .goneUnheard)
                guard try net.awaitAllSeen() else { throw ShellError("the kernel side does not see an address come and go") }
            }
            return pause
        case .gone, .backUnheard, .back:
            try net.removeAddress()
            try hear(net.linkAddress, present: false)
            try net.adoptLocators()
            if state.own == .gone { return try leaveAgent() }
            if state.own == .backUnheard {
                let pause = try leaveAgent()
                try net.addAddress(net.linkAddress)
                if state.agent == .running { try hear(net.linkAddress, present: true) }
                return pause
            }
            try net.addAddress(net.linkAddress)
            try hear(net.linkAddress, present: true)
            try net.adoptLocators()
            return try leaveAgent()
        }
    }

    /// The address that packets arrive at.
    private func target(_ isIPv4: Bool) -> IPAddress { state.own == .renumbered ? net.newAddress(isIPv4) : net.moa(isIPv4) }

    private func discard() {
        _ = net.takeSeen()
        _ = net.takeLeft()
        _ = net.host.takeInbound()
        _ = net.host.takeOutbound()
    }

    private func note(_ packet: ArrivingPacket, _ isIPv4: Bool, _ seen: String, _ expected: String, isRepeated: Bool = false) {
        violations.append(
            Violation(
                node: state, isIPv4: isIPv4, party: packet.source.rawValue, kind: packet.kind.rawValue,
                socket: packet.socket.rawValue,
                isRepeated: isRepeated, seen: seen, expected: expected))
    }

    private func note(_ packet: LeavingPacket?, _ isIPv4: Bool, _ seen: String, _ expected: String) {
        violations.append(
            Violation(
                node: state, isIPv4: isIPv4, party: packet?.destination.rawValue ?? "-", kind: packet?.kind.rawValue ?? "-",
                socket: "",
                seen: seen, expected: expected))
    }

    // MARK: Arriving

    private func packets(_ each: Arriving) -> [[UInt8]] {
        let (index, kind) = (each.index, each.packet.kind)
        let port = localPort(each.packet.socket)
        let from = Endpoint(address(.locator, index, each.isIPv4), port: Port.remote)
        let to = Endpoint(target(each.isIPv4), port: port)
        func segment(_ flags: UInt8, _ payload: [UInt8] = []) -> [[UInt8]] {
            [
                Packets.tcp(
                    from: from, to: to, flags, sequence: TestSocket.receiveSequence, acknowledging: TestSocket.sendSequence,
                    payload)
            ]
        }
        switch kind {
        case .segment: return segment(0x18, [1])
        case .synchronise: return segment(0x02)
        case .reset: return segment(0x04)
        case .datagram:
            return [RawPacket.ip(from: from.address, to: to.address, protocolNumber: 17, RawPacket.udp(from: from, to: to, [1]))]
        case .fragments, .reversedFragments:
            let pieces = Packets.fragments(from: from, to: to, identifier: UInt32(index))
            return kind == .fragments ? pieces : pieces.reversed()
        case .echoRequest, .echoReply:
            let message = Packets.echo(isRequest: kind == .echoRequest, port, from: from.address, to: to.address)
            return [RawPacket.ip(from: from.address, to: to.address, protocolNumber: each.isIPv4 ? 1 : 58, message)]
        case .routersError, .hostsError:
            let isElsewhere = each.packet.source == .moved && !each.packet.socket.isPlain
            let quoted = Endpoint(address(isElsewhere ? .formerLocator : .locator, index, each.isIPv4), port: Port.remote)
            let source = kind == .routersError ? address(.router, index, each.isIPv4) : from.address
            return [Packets.unreachable(from: source, about: RawPacket.udp(from: to, to: quoted, [1]), to, quoted)]
        }
    }

    /// What the stack saw of one party's packets.
    private struct Sight {
        var translatedAs: Set<PacketWorld.Role> = []
        var hasPassed = false
        /// One address was translated and the other not.
        var isHalf = false
        var answers: [String] = []
        var isCopied = false
        var listeners: Set<SocketState> = []
    }

    private func arrive(isRepeated: Bool, pause: StandStill?) throws {
        for each in arriving { for packet in packets(each) { try net.send(packet) } }
        try net.fence()
        var sights = [Int: Sight]()
        let atHome = Set(arriving.filter { $0.packet.source.isAtHome }.map(\.index))
        for seen in net.takeSeen() {
            // An error says by its quote whether it was translated: a packet of ours, so its ends are the other way round.
            let number: UInt8 = seen.source.isIPv4 ? 1 : 58
            let quote = seen.isICMP ? Packets.quote(seen.transport, isIPv4: seen.source.isIPv4, protocolNumber: number) : nil
            guard let party = PacketWorld.party(quote?.destination ?? seen.source), party.role != .router else { continue }
            let own = quote?.source ?? seen.destination
            let (isHome, isMoA) = (own == net.home(own.isIPv4), own == target(own.isIPv4))
            let isHomeOfPeer = party.role == .peer || party.role == .other || atHome.contains(party.index)
            let isLocator = party.role == .locator || party.role == .formerLocator
            if isHomeOfPeer, isHome { sights[party.index, default: Sight()].translatedAs.insert(party.role) }
            if isLocator, isMoA { sights[party.index, default: Sight()].hasPassed = true }
            if !(isHomeOfPeer && isHome || isLocator && isMoA) { sights[party.index, default: Sight()].isHalf = true }
        }
        for packet in net.takeLeft() {
            guard let layout = PacketLayout(packet) else { continue }
            noteLeak(packet, layout, isRepeated: isRepeated)
            if let party = PacketWorld.party(layout.destination) {
                sights[party.index, default: Sight()].answers.append(Packets.name(packet))
            }
        }
        for (socket, kind, isStream) in listeners where !isStream {
            for source in socket.waitingSources() {
                if let party = PacketWorld.party(source) { sights[party.index, default: Sight()].listeners.insert(kind) }
            }
        }
        for index in copies(isRepeated: isRepeated, sights) { sights[index, default: Sight()].isCopied = true }
        for each in arriving { judge(each, sights[each.index] ?? Sight(), isRepeated: isRepeated) }
    }

    /// Whose packets the agent has, if it can have any.
    private func copies(isRepeated: Bool, _ sights: [Int: Sight]) -> Set<Int> {
        guard state.agent == .running, !isRepeated else { return [] }
        let wanted = Set(
            arriving.filter { $0.packet.expectation(state, isRepeated: false).allowed == [.held] && sights[$0.index] == nil }.map(
                \.index))
        var got: Set<Int> = []
        _ = eventually(within: 1) {
            for packet in net.host.takeInbound() { if let party = PacketWorld.party(packet.source) { got.insert(party.index) } }
            return got.isSuperset(of: wanted)
        }
        return got
    }

    private func judge(_ each: Arriving, _ sight: Sight, isRepeated: Bool) {
        count += 1
        let packet = each.packet
        let expectation = packet.expectation(state, isRepeated: isRepeated)
        // With both ends at home it is all one.
        let isSame = sight.hasPassed && !sight.translatedAs.isEmpty && state.place == .atHome && packet.source.isAtHome
        let notice = each.socket?.notice() ?? .nothing
        let isSilent = sight.answers.isEmpty && notice == .nothing && sight.listeners.isEmpty
        let outcome: PacketOutcome =
            if isSame ? expectation.allowed.contains(.translated) : !sight.translatedAs.isEmpty {
                .translated
            } else if sight.hasPassed {
                isSilent && expectation.allowed.contains(.muted) ? .muted : .passed
            } else {
                sight.isCopied || (state.agent != .running && expectation.allowed.contains(.held)) ? .held : .dropped
            }
        let mine = packet.source == .taken ? .other : home(packet.source.isAtHome)
        var wrong: String?
        if !expectation.allowed.contains(outcome) {
            wrong = outcome.rawValue
        } else if sight.isHalf {
            wrong = "translated by half"
        } else if sight.hasPassed && !sight.translatedAs.isEmpty && !isSame {
            wrong = "translated and passed"
        } else if !sight.translatedAs.isSubset(of: [mine]) {
            wrong = "translated as another's"
        } else if outcome == .held || outcome == .dropped || outcome == .muted, !isSilent {
            wrong = "\(outcome.rawValue), yet the socket \(notice)"
        } else if outcome == .translated, packet.source == .taken, !packet.socket.isPlain, notice != .nothing {
            wrong = "given to the peer's socket that lost the locator: \(notice)"
        } else if packet.kind.carriesData, !isRepeated, notice != .data,
            (outcome == .translated && packet.source != .taken
                && (packet.socket == .homes || packet.socket == .homesBesideListener))
                || (outcome == .passed && packet.socket.isPlain)
        {
            wrong = "\(outcome.rawValue), yet the socket \(notice)"
        }
        guard let wrong else { return }
        let answers = sight.answers.isEmpty ? "" : ", answered by \(Set(sight.answers).sorted().joined(separator: ", "))"
        note(packet, each.isIPv4, wrong + answers, expectation.rule, isRepeated: isRepeated)
    }

    // MARK: Leaving

    private func send(_ each: Departing) throws {
        let target = address(home(each.packet.destination.isAtHome), each.index, each.isIPv4)
        switch each.packet.kind {
        case .segment, .connectedDatagram: try each.socket?.send([1])
        case .abort: try each.socket?.abort()
        case .synchronise:
            let client = try TestSocket(net.stack, type: TestSocket.stream | Int32(SOCK_NONBLOCK.rawValue), isIPv4: each.isIPv4)
            clients.append(client)
            try bindIfFurther(client, each.isIPv4)
            try client.connect(target, port: Port.remote)
        case .datagram, .largeDatagram:
            let sender = try TestSocket(net.stack, type: TestSocket.datagram, isIPv4: each.isIPv4)
            try bindIfFurther(sender, each.isIPv4)
            try sender.send([UInt8](repeating: 1, count: each.packet.kind == .datagram ? 1 : 3000), to: target, port: Port.remote)
        case .echoRequest:
            let asker = try TestSocket(net.stack, type: TestSocket.raw, isIPv4: each.isIPv4, protocolNumber: each.isIPv4 ? 1 : 58)
            try bindIfFurther(asker, each.isIPv4)
            try asker.send(Packets.echo(isRequest: true, 1, from: net.home(each.isIPv4), to: target), to: target, port: 0)
        }
    }
    private var clients: [TestSocket] = []

    /// Sockets that are bound to nothing talk as the first HoA, or as the MoA if nothing is captured.
    private func bindIfFurther(_ socket: TestSocket, _ isIPv4: Bool) throws {
        if state.place == .further || state.capturesNothing { try socket.bind(net.home(isIPv4), port: 0) }
    }

    private func depart(pause: StandStill?) throws {
        var refused: [Int: String] = [:]
        for each in departing {
            do { try send(each) } catch { refused[each.index] = "\(error)" }
            try net.noteSent()
        }
        try net.fence()
        let plain = Set(departing.filter { $0.packet.destination == .plain }.map(\.index))
        var (toLocator, toHome, held): (Set<Int>, Set<Int>, Set<Int>) = ([], [], [])
        func look() {
            for packet in net.takeLeft() {
                guard let layout = PacketLayout(packet) else { continue }
                noteLeak(packet, layout, isRepeated: false)
                guard let party = PacketWorld.party(layout.destination) else { continue }
                if party.role == .peer { toHome.insert(party.index) } else { toLocator.insert(party.index) }
            }
            for packet in net.host.takeOutbound() {
                guard let party = PacketWorld.party(packet.destination) else { continue }
                held.insert(party.index)
                // In place of the agent, which knows what is plain; refused, it is held.
                if plain.contains(party.index), state.agent == .running { _ = try? net.host.ask { $0.releaseOutbound(packet) } }
            }
        }
        look()
        if state.agent == .running {
            // What the agent is to have, or sends on.
            try _ = eventually(within: 1) {
                try net.fence()
                look()
                return departing.allSatisfy { each in
                    let allowed = each.packet.expectation(state).allowed
                    return allowed.count > 1 || toLocator.contains(each.index) || toHome.contains(each.index)
                        || held.contains(each.index) && !plain.contains(each.index)
                }
            }
        }
        for each in departing {
            count += 1
            let expectation = each.packet.expectation(state)
            let outcome: PacketOutcome =
                toLocator.contains(each.index)
                ? .translated : toHome.contains(each.index) ? .passed : held.contains(each.index) ? .held : .dropped
            guard !expectation.allowed.contains(outcome) else { continue }
            note(each.packet, each.isIPv4, outcome.rawValue + (refused[each.index].map { " (\($0))" } ?? ""), expectation.rule)
        }
    }

    private func noteLeaks() {
        for packet in net.takeLeft() { if let layout = PacketLayout(packet) { noteLeak(packet, layout, isRepeated: false) } }
    }

    /// Whether a HoA is on the wire that must not be: in the header, or in what an error quotes.
    private func noteLeak(_ packet: [UInt8], _ layout: PacketLayout, isRepeated: Bool) {
        let isIPv4 = layout.source.isIPv4
        let quote = Packets.quote(
            Array(packet.dropFirst(layout.transportOffset)), isIPv4: isIPv4, protocolNumber: layout.protocolNumber)
        let parties = [layout.destination, quote?.source, quote?.destination].compactMap { $0.flatMap(PacketWorld.party) }
        let arrived = arriving.first { each in parties.contains { $0.index == each.index } }
        let departed = departing.first { each in parties.contains { $0.index == each.index } }
        var leaks: [String] = []
        if net.hiddenHomes(isIPv4).contains(where: { names(packet, $0) }) { leaks.append("own HoA") }
        // A plain host is called by the address that it has.
        if departed?.packet.destination != .plain, parties.contains(where: { $0.role == .peer || $0.role == .other }) {
            leaks.append("peer's HoA")
        }
        guard !leaks.isEmpty else { return }
        let seen = "\(leaks.joined(separator: " and ")) on the wire: \(Packets.name(packet))"
        if let arrived {
            note(arrived.packet, isIPv4, seen, "No HoA leaves untranslated", isRepeated: isRepeated)
        } else {
            note(departed?.packet, isIPv4, seen, "No HoA leaves untranslated")
        }
    }
}

extension TestSocket {
    /// Ends a connection by a reset.
    func abort() throws {
        // SO_LINGER 13: on, 0 s; then connecting to nowhere (AF_UNSPEC) ends it at once.
        try set(SOL_SOCKET, 13, octets: nativeOctets(Int32(1)) + nativeOctets(Int32(0)))
        var nowhere = sockaddr()
        nowhere.sa_family = sa_family_t(AF_UNSPEC)
        guard Glibc.connect(descriptor, &nowhere, socklen_t(MemoryLayout<sockaddr>.size)) == 0 else {
            throw ShellError("abort: \(String(cString: strerror(errno)))")
        }
    }
}

/// Packets by hand.
enum Packets {
    static func tcp(from: Endpoint, to: Endpoint, _ flags: UInt8, sequence: UInt32, acknowledging: UInt32, _ payload: [UInt8])
        -> [UInt8]
    {
        func word(_ value: UInt32) -> [UInt8] { RawPacket.big(Int(value >> 16)) + RawPacket.big(Int(value & 0xFFFF)) }
        let acknowledged = flags & 0x10 != 0 ? acknowledging : 0
        let header =
            RawPacket.big(Int(from.port)) + RawPacket.big(Int(to.port)) + word(sequence) + word(acknowledged) + [
                0x50, flags, 0xFF, 0xFF, 0, 0, 0, 0,
            ]
        let segment = RawPacket.finish(header + payload, checksumAt: 16, protocolNumber: 6, from: from.address, to: to.address)
        return RawPacket.ip(from: from.address, to: to.address, protocolNumber: 6, segment)
    }

    static func echo(isRequest: Bool, _ identifier: UInt16, from: IPAddress, to: IPAddress) -> [UInt8] {
        let type: UInt8 = from.isIPv4 ? (isRequest ? 8 : 0) : (isRequest ? 128 : 129)
        return RawPacket.finish(
            [type, 0, 0, 0] + RawPacket.big(Int(identifier)) + [0, 1, 1, 2, 3, 4], checksumAt: 2,
            protocolNumber: from.isIPv4 ? 1 : 58, from: from, to: to)
    }

    static func unreachable(from: IPAddress, about datagram: [UInt8], _ sender: Endpoint, _ target: Endpoint) -> [UInt8] {
        let quote = RawPacket.ip(from: sender.address, to: target.address, protocolNumber: 17, datagram)
        let number: UInt8 = from.isIPv4 ? 1 : 58
        let message = RawPacket.finish(
            (from.isIPv4 ? [3, 3] : [1, 4]) + [0, 0, 0, 0, 0, 0] + quote, checksumAt: 2, protocolNumber: number, from: from,
            to: sender.address)
        return RawPacket.ip(from: from, to: sender.address, protocolNumber: number, message)
    }

    /// A datagram in two pieces.
    static func fragments(from: Endpoint, to: Endpoint, identifier: UInt32) -> [[UInt8]] {
        let datagram = RawPacket.udp(from: from, to: to, pattern(100))
        let cut = 48
        return [(0, Array(datagram[..<cut]), true), (cut, Array(datagram[cut...]), false)].map { offset, piece, isMore in
            if from.address.isIPv4 {
                var packet = RawPacket.ip(from: from.address, to: to.address, protocolNumber: 17, piece)
                packet.replaceSubrange(
                    4..<8, with: RawPacket.big(Int(identifier & 0xFFFF)) + RawPacket.big(offset / 8 | (isMore ? 0x2000 : 0)))
                packet.replaceSubrange(10..<12, with: [0, 0])
                packet.replaceSubrange(
                    10..<12, with: RawPacket.big(Int(~ChecksumCompletion.fold(ChecksumCompletion.sum(packet[..<20])))))
                return packet
            }
            let header: [UInt8] =
                [17, 0] + RawPacket.big(offset | (isMore ? 1 : 0)) + [0, 0] + RawPacket.big(Int(identifier & 0xFFFF))
            return RawPacket.ip(from: from.address, to: to.address, protocolNumber: 44, header + piece)
        }
    }

    /// Source and destination of the packet that an error quotes; `nil` if it is none.
    static func quote(_ transport: [UInt8], isIPv4: Bool, protocolNumber: UInt8) -> (source: IPAddress, destination: IPAddress)? {
        guard protocolNumber == (isIPv4 ? 1 : 58), let type = transport.first, isIPv4 ? [3, 11, 12].contains(type) : type < 128
        else { return nil }
        // After eight octets of ICMP and the quoted header's own first.
        let (place, width) = isIPv4 ? (8 + 12, 4) : (8 + 8, 16)
        guard transport.count >= place + 2 * width, let source = IPAddress(octets: transport[place..<place + width]),
            let destination = IPAddress(octets: transport[place + width..<place + 2 * width])
        else { return nil }
        return (source, destination)
    }

    /// What a packet is, for people.
    static func name(_ packet: [UInt8]) -> String {
        guard let layout = PacketLayout(packet), layout.transportOffset + (layout.protocolNumber == 6 ? 14 : 1) <= packet.count
        else { return "?" }
        let first = packet[layout.transportOffset]
        switch layout.protocolNumber {
        case 6:
            let flags = packet[layout.transportOffset + 13]
            return "TCP "
                + [(UInt8(2), "SYN"), (4, "RST"), (1, "FIN"), (8, "PSH"), (16, "ACK")].filter { flags & $0.0 != 0 }.map(\.1)
                .joined(separator: "-")
        case 17: return "UDP"
        case 1: return first == 8 ? "echo request" : first == 0 ? "echo reply" : "ICMP \(first)"
        case 58: return first == 128 ? "echo request" : first == 129 ? "echo reply" : "ICMPv6 \(first)"
        default: return "protocol \(layout.protocolNumber)"
        }
    }
}
