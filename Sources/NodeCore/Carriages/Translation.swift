import MATCore
import MATSignal

/// What people say about packets that nobody here asked for: matd.yaml, `inbound`.
public enum InboundSetting: String, Hashable, Sendable, CaseIterable {
    /// The IMS's locator checks tell.
    case auto
    /// They arrive, whatever the checks say: of an IMS that sends none.
    case open
    /// They do not.
    case filtered
}

/// What lies between one of the own MoAs and other networks, as the own servers see it (protocol.md sections 11.1 and 11.3, "Ask").
///
/// ```
///   unknown ──── an own server sees address and port as they are ────► open ────────────────────────┐
///      │                                                                ▲ │ no check of two records    │ a server sees
///      │ it sees another address or port                    the check   │ │ in a row came from the IMS │ others
///      ▼                                                    came late   │ ▼                            │
///   translated ◄── another server sees yet another: its                 filtered ─────────────────────┤
///      ▲           mapping depends on the destination                                                 │
///      └──────────────────────────────────────────────────────────────────────────────────────────────┘
/// ```
/// A MoA that is translated or filtered is no locator that others could send to out of the blue: its record lists an endpoint (kind 1), and
/// packets go encapsulated.
public struct Translation: Sendable {
    /// How the translator chooses the endpoint that others see.
    public enum Mapping: Hashable, Sendable {
        /// One server was asked.
        case unknown
        /// Two servers see the same endpoint.
        case endpointIndependent
        /// Two servers see different ones: only the IMS's is known, and others are reached when they are probed.
        case endpointDependent
    }

    enum Verdict: Hashable, Sendable {
        /// No own server has said anything; a global address is taken for open until one does.
        case unknown
        case open
        case translated(as: Endpoint, Mapping)
        case filtered
    }

    /// What one server saw. A server is known by its address and port.
    private struct Observation: Sendable {
        let server: Endpoint
        var seen: Endpoint
        /// By a relay: a second opinion, which shows whether the mapping depends on the destination. What a record lists is what an IMS saw, for
        /// it takes no other.
        let isRelays: Bool
    }

    /// Servers remembered: four targets of the IMS and four relays (section 11.3).
    static let serversMax = 8
    /// How long the IMS's locator check of a new record may take (section 11.1): its tries go at once, after half a second and after one and a half.
    static let checkMax: Duration = .seconds(3)
    /// Likewise of a record after which another one follows if it does not come.
    static let firstCheckMax: Duration = .seconds(2)
    /// Where packets arrive, the check's first try has come by then: it goes together with the IMS's answer.
    static let lateAfter: Duration = .milliseconds(250)

    /// Whether the locator check of the IMS reaches this MoA. What is found out holds until the network changes; so an IMS that is started anew, or has
    /// much to do, or a network that loses three in a row, must not make an address filtered: one more record is signed before that is believed.
    private enum Reach: Hashable, Sendable {
        case untested
        /// - Parameter lateAt: `nil`: the first try has not come.
        case awaited(until: MonotonicTime, lateAt: MonotonicTime?, isSecond: Bool)
        /// The first record's check did not come; the next one decides.
        case missed
        case reached
        case notReached
    }

    /// Where the own socket is bound.
    let local: Endpoint
    private let inbound: InboundSetting
    private var observations: [Observation] = []
    private var reach = Reach.untested
    /// The network was left not long ago, and was filtered: it is taken for that before any server has been asked.
    private let isKnownFiltered: Bool

    init(_ moa: MobileAddress, _ inbound: InboundSetting = .auto, isKnownFiltered: Bool = false) {
        local = Endpoint(moa.address, port: SignalPort.node)
        self.inbound = inbound
        self.isKnownFiltered = isKnownFiltered && inbound == .auto
        if self.isKnownFiltered { reach = .notReached }
    }

    // MARK: Questions

    var verdict: Verdict {
        guard let first = observations.first(where: { !$0.isRelays }) else {
            return isForced && local.address.scope == .global ? .filtered : .unknown
        }
        // Any server that sees another endpoint has a translator before it. Those that see the same one may stand inside.
        guard let other = observations.first(where: { $0.seen != local && !$0.isRelays }) ?? observations.first(where: { $0.seen != local }) else {
            return reach == .notReached || isForced ? .filtered : .open
        }
        let seen = first.seen != local ? first.seen : other.seen
        guard observations.count > 1 else { return .translated(as: seen, .unknown) }
        return .translated(as: seen, observations.allSatisfy { $0.seen == seen } ? .endpointIndependent : .endpointDependent)
    }

    /// People said that it is filtered, or it was not long ago. A private address is seen somewhere else all the same, which is found out first.
    private var isForced: Bool { inbound == .filtered || isKnownFiltered && reach == .notReached }

    /// The locator check of the own IMS, for what else depends on it.
    enum Check: Hashable, Sendable {
        /// None will tell.
        case none
        /// It is due when the IMS has taken the record, and if it is known to send any.
        case expected
        /// It is due.
        case awaited
        /// Its first try has not come.
        case late
        case came
    }

    var check: Check {
        switch reach {
        case .untested: inbound == .auto && isOpen ? .expected : .none
        case .awaited(_, let lateAt, _): !hasServersWord ? .expected : lateAt == nil ? .late : .awaited
        case .missed: .late
        case .reached: .came
        case .notReached: .none
        }
    }

    var isCheckAwaited: Bool {
        switch reach {
        case .awaited, .missed: true
        case .untested, .reached, .notReached: false
        }
    }

    /// A server of a version that checks also says where it sees us.
    private var hasServersWord: Bool { observations.contains { !$0.isRelays } }

    /// Whether packets from anywhere arrive, as far as is known.
    var isOpen: Bool {
        switch verdict {
        case .unknown: local.address.scope == .global
        case .open: true
        case .translated, .filtered: false
        }
    }

    /// Whether the IMS's checks have shown here that only answers arrive; `nil`: they have shown nothing.
    var wasFoundFiltered: Bool? {
        switch reach {
        case .untested, .awaited, .missed: nil
        case .reached: false
        case .notReached: isKnownFiltered || verdict != .filtered ? nil : true
        }
    }

    /// What the record lists in place of the MoA; `nil` if it lists the MoA itself, or if nothing is known yet.
    var endpoint: Endpoint? {
        switch verdict {
        case .unknown, .open: nil
        case .translated(let endpoint, _): endpoint
        case .filtered: local
        }
    }

    /// The endpoints at which a PATH-SIGNATURE for us may say that its datagram arrives (section 11).
    ///
    /// Unless the mapping is known not to depend on the destination, others may see other ports: only the address counts.
    func isOwn(_ endpoint: Endpoint) -> Bool {
        if endpoint == local { return true }
        switch verdict {
        case .translated(_, .endpointDependent), .translated(_, .unknown): return observations.contains { $0.seen.address == endpoint.address }
        case .translated(_, .endpointIndependent), .open, .filtered, .unknown: return observations.contains { $0.seen == endpoint }
        }
    }

    /// The servers that see it there.
    func observers(of endpoint: Endpoint) -> [Endpoint] { observations.filter { $0.seen == endpoint }.map(\.server) }

    var observationsCount: Int { observations.count }

    /// When `timeUp` is to be told.
    var due: MonotonicTime? { if case .awaited(let until, let lateAt, _) = reach { lateAt ?? until } else { nil } }

    // MARK: Events

    /// An own server said where it sees us.
    ///
    /// - Parameter isRelay: it is no IMS.
    /// - Returns: whether the verdict is another one.
    mutating func observed(_ seen: Endpoint, by server: Endpoint, isRelay: Bool = false) -> Bool {
        let before = verdict
        let observation = Observation(server: server, seen: seen, isRelays: isRelay)
        if let index = observations.firstIndex(where: { $0.server == server }) {
            if observations[index].seen != seen {
                // What others saw before the translator changed says nothing any more. Of a relay alone that is not certain: the IMSs are asked again.
                if !isRelay { observations.removeAll { $0.seen != seen } }
                observations.removeAll { $0.server == server }
                observations.append(observation)
            }
        } else if observations.count < Self.serversMax {
            observations.append(observation)
        }
        return verdict != before
    }

    /// The IMS took a record that lists this MoA, and checks whether it can be reached.
    mutating func awaitCheck(_ now: MonotonicTime) {
        guard inbound == .auto else { return }
        switch reach {
        case .untested: reach = .awaited(until: now + Self.firstCheckMax, lateAt: now + Self.lateAfter, isSecond: false)
        case .missed: reach = .awaited(until: now + Self.checkMax, lateAt: nil, isSecond: true)
        case .awaited, .reached, .notReached: break
        }
    }

    /// A locator check came from an own server, from an endpoint that nothing was sent to.
    ///
    /// - Returns: whether the verdict is another one.
    mutating func checked() -> Bool {
        let before = verdict
        reach = .reached
        return verdict != before
    }

    /// What follows when a check did not come.
    enum OnMissing: Hashable, Sendable {
        case nothing
        /// Its later tries may come. Whoever could wait for it need not any more.
        case late
        /// A new record is to be registered, whose check decides.
        case registerAgain
        /// It is filtered.
        case filtered
    }

    /// The check, or its first try, did not come. Of a server that has not said where it sees us nothing was to be expected, and the address stays
    /// what it was.
    mutating func timeUp(_ now: MonotonicTime) -> OnMissing {
        guard case .awaited(let until, let lateAt, let isSecond) = reach, lateAt ?? until <= now else { return .nothing }
        guard until <= now else {
            reach = .awaited(until: until, lateAt: nil, isSecond: isSecond)
            return check == .late ? .late : .nothing
        }
        guard hasServersWord else {
            reach = .untested
            return .nothing
        }
        let before = verdict
        reach = isSecond ? .notReached : .missed
        // Where a translator stands before it, nobody listed it as it is.
        guard before == .open else { return .nothing }
        return isSecond ? .filtered : .registerAgain
    }
}
