import MATSignal

/// What a person or program is shown of a node's state.
public struct NodeStatus: Hashable, Sendable {
    public struct Registration: Hashable, Sendable {
        public var hoa: HomeAddress
        /// The home prefix; of the HoA alone unless it is a mobile network's.
        public var prefix: IPPrefix
        public var locators: [MobileAddress]
        public var servers: [Endpoint]
        /// One word: waiting, proving, updating, registered, pausing.
        public var phase: String
        /// Since the IMS last acked; `nil` if it never did.
        public var age: Duration?
        /// Until the acked record expires.
        public var expiresIn: Duration?
        public var certificateNotAfter: UInt64
        public var sequence: UInt64
        public var problem: String?
    }

    public struct PeerState: Hashable, Sendable {
        public var hoa: HomeAddress
        public var ownHoA: HomeAddress
        /// Where its packets go, and from where; `nil` without a path.
        public var moa: MobileAddress?
        public var ownMoA: MobileAddress?
        public var locators: [MobileAddress]
        public var isProvisional: Bool
        public var isProven: Bool
        /// Since the peer was entered.
        public var age: Duration
        /// Since its IMS last answered.
        public var refreshedAgo: Duration
        public var switches: Int
        /// For how long its traffic has gone by another path than the usual, because that was silent.
        public var detouredFor: Duration?
        /// The interface that a person chose for it.
        public var chosenInterface: String?
        public var packets: UInt64
    }

    /// An own address as a way out.
    public struct UplinkState: Hashable, Sendable {
        /// One word: sound, dead, returning, flapping.
        public var state: String
        /// Since when nothing answered over it, for `dead` and `returning`.
        public var silentFor: Duration?
        /// Until the next probe of a dead one.
        public var nextCheckIn: Duration?
        /// Until one that works again has its place in the order back.
        public var trustedIn: Duration?
        public var failures: Int
    }

    public var registrations: [Registration]
    public var locators: [OwnLocator]
    /// In the order of `locators`.
    public var uplinks: [UplinkState]
    public var pathsWatched: Int
    public var chosenInterface: String?
    public var peers: [PeerState]
    public var resolving: Int
    public var strangers: Int
    public var counters: NodeCounters
}

extension NodeCore {
    public func status(now: Now) -> NodeStatus {
        let registrations = homes.values.sorted { $0.hoa < $1.hoa }.map { home in
            NodeStatus.Registration(
                hoa: home.hoa, prefix: home.prefix, locators: home.mapping?.record.locators.map(\.moa) ?? [], servers: home.servers?.endpoints ?? [],
                phase: "\(home.phase)", age: home.registeredAt.map { now.monotonic - $0 },
                expiresIn: home.registered.flatMap { _ in home.mapping }.map { .milliseconds(Int64(clamping: $0.record.expires) - Int64(clamping: now.wallMilliseconds)) },
                certificateNotAfter: home.certificate.notAfter, sequence: home.lastSequence, problem: home.problem)
        }
        let states = peers.values.sorted { $0.hoa < $1.hoa }.compactMap { peer -> NodeStatus.PeerState? in
            guard let own = home(for: peer.hoa) else { return nil }
            let target = peer.installedOutbound?.peer
            return NodeStatus.PeerState(
                hoa: peer.hoa, ownHoA: own, moa: target, ownMoA: peer.installedOutbound?.own, locators: peer.listed,
                isProvisional: peer.isProvisional, isProven: target.flatMap { peer.locators[$0]?.isProven } ?? false, age: now.monotonic - peer.since,
                refreshedAgo: now.monotonic - peer.refreshed, switches: peer.switches,
                detouredFor: ways.detours[peer.hoa].flatMap { $0.isTaken ? now.monotonic - $0.since : nil }, chosenInterface: ways.chosen[peer.hoa], packets: peer.packets)
        }
        return NodeStatus(
            registrations: registrations, locators: ownLocators, uplinks: ownLocators.map { uplinkState($0.moa, now) }, pathsWatched: ways.monitor.paths.count, chosenInterface: chosenInterface, peers: states, resolving: destinations.count,
            strangers: strangers.count, counters: counters)
    }

    private func uplinkState(_ moa: MobileAddress, _ now: Now) -> NodeStatus.UplinkState {
        let uplink = ways.uplinks[moa] ?? Uplink()
        let failures = uplink.history.isForgotten(at: now.monotonic, configuration.paths) ? 0 : uplink.history.failures
        var state = NodeStatus.UplinkState(state: "sound", failures: failures)
        switch uplink.state {
        case .sound: break
        case .dead(let since):
            state.state = "dead"
            state.silentFor = now.monotonic - since
            state.nextCheckIn = ways.monitor.over(moa).filter { $0.value.watchedUntil > now.monotonic }.map { max(.zero, $0.value.next - now.monotonic) }.min()
        case .returning(let since, let until):
            state.state = "returning"
            state.silentFor = now.monotonic - since
            state.trustedIn = max(.zero, until - now.monotonic)
        case .flapping(let until):
            state.state = "flapping"
            state.trustedIn = max(.zero, until - now.monotonic)
        }
        return state
    }

    /// Whether every HoA is registered: what `mat status --wait` waits for.
    public var isRegistered: Bool { homes.values.allSatisfy { $0.phase == .registered } }
}
