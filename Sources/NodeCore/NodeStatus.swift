import MATControl
import MATSignal

/// What a person or program is shown of a node's state.
public struct NodeStatus: Hashable, Sendable {
    public struct Registration: Hashable, Sendable {
        public var hoa: HomeAddress
        /// The home prefix; of the HoA alone unless it is a mobile network's.
        public var prefix: IPPrefix
        /// What its record lists, as people know it.
        public var locators: [String]
        public var servers: [Endpoint]
        /// One word: waiting, proving, updating, registered, pausing.
        public var phase: String
        /// Until the next attempt, or the next question for its servers, where it waits for that.
        public var nextTryIn: Duration?
        /// Since the IMS last acked; `nil` if it never did.
        public var age: Duration?
        /// Until the acked record expires.
        public var expiresIn: Duration?
        public var certificateNotAfter: UInt64
        /// It ends soon, or has ended, and the IMS has not renewed it.
        public var certificateEndsSoon: Bool
        public var sequence: UInt64
        public var problem: Problem?
    }

    public struct PeerState: Hashable, Sendable {
        public var hoa: HomeAddress
        public var ownHoA: HomeAddress
        /// Where its packets go, and from where; `nil` without a path.
        public var moa: MobileAddress?
        public var ownMoA: MobileAddress?
        /// Where encapsulated packets go; `nil` if they are rewritten.
        public var endpoint: Endpoint?
        /// The relay that they go by.
        public var relay: Endpoint?
        /// What its record lists, as people know it.
        public var locators: [String]
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
        /// Why it has no path, if that is for a person to mend.
        public var problem: Problem?
        public var standing: Standing
    }

    /// A person can't read more, and a program has no use for them all.
    public static let peersMax = 1000
    /// An own address as a way out.
    public struct UplinkState: Hashable, Sendable {
        /// One word: sound, dead, returning, flapping, refused.
        public var state: String
        /// Why it is not used, or not listed, though the link works.
        public var reason: String?
        /// Since when nothing answered over it, for `dead` and `returning`.
        public var silentFor: Duration?
        /// Until the next probe of a dead one.
        public var nextCheckIn: Duration?
        /// Until one that works again has its place in the order back.
        public var trustedIn: Duration?
        public var failures: Int
        /// What stands before it.
        public var translation: OwnTranslation?
    }

    /// A relay of an own HoA.
    public struct RelayState: Hashable, Sendable {
        public enum Standing: Hashable, Sendable {
            /// Peers everywhere reach the node as it is.
            case notNeeded
            case asked
            /// The record lists it, or will.
            case bound
            /// Bound, but the IMS takes no record that says so.
            case unlisted
            case silent
            case refused(String)
            /// It has no address of a family that this host has.
            case unreachable
        }

        public var hoa: HomeAddress
        public var endpoints: [Endpoint]
        /// The one of them that is used.
        public var server: Endpoint?
        /// The own address that it is bound from.
        public var own: MobileAddress?
        public var standing: Standing
        /// Where the relay sees the node.
        public var observed: Endpoint?
        /// What it is to the HoA, once it has granted a binding.
        public var role: ServerRole
    }

    /// A destination about which the DNS gives no answer.
    public struct UndecidedState: Hashable, Sendable {
        public var hoa: HomeAddress
        /// Talked to plainly meanwhile; otherwise its packets wait.
        public var isPlain: Bool
        public var reason: String
        /// Since its first packet came, and since the DNS was last asked.
        public var age: Duration
        public var askedAgo: Duration
    }

    /// Of those, the ones that a person is shown: the latest used.
    public static let undecidedMax = 20

    public var registrations: [Registration]
    public var locators: [OwnLocator]
    /// In the order of `locators`.
    public var uplinks: [UplinkState]
    public var relays: [RelayState]
    /// Peers do not learn where the node is.
    public var isRelayOnly: Bool
    public var pathsWatched: Int
    public var chosenInterface: String?
    /// At most `peersMax`: those that a person should look at, then those with the latest traffic.
    public var peers: [PeerState]
    public var peersCount: Int
    /// Of all, those that a person should look at; `nil` if each is told of.
    public var peersTroubled: Int?
    /// Of all, those that are `oneSided` and those that are `unreachable`.
    public var peersOneSided: Int
    public var peersUnreachable: Int
    public var resolving: Int
    /// At most `undecidedMax`.
    public var undecided: [UndecidedState]
    public var undecidedCount: Int
    public var strangers: Int
    public var counters: NodeCounters
}

extension NodeStatus {
    /// Of those that it tells of.
    var troubledToldOf: Int { peers.count { $0.standing != .mapped || $0.detouredFor != nil } }
}

extension NodeCore {
    public var peersCount: Int { peers.count }

    public func status(now: Now) -> NodeStatus {
        let registrations = homes.values.sorted { $0.hoa < $1.hoa }.map { home in
            NodeStatus.Registration(
                hoa: home.hoa, prefix: home.prefix, locators: home.mapping?.record.places.map(\.named) ?? [], servers: home.servers?.endpoints ?? [],
                phase: home.registration.stage.rawValue, nextTryIn: home.registration.nextTry.map { max(.zero, $0 - now.monotonic) },
                age: (home.registration.acked?.at).map { now.monotonic - $0 },
                expiresIn: home.registration.acked.flatMap { _ in home.mapping }.map {
                    .milliseconds(Int64(clamping: $0.record.expires) - Int64(clamping: now.wallMilliseconds))
                },
                certificateNotAfter: home.registration.certificate.current.notAfter,
                certificateEndsSoon: home.registration.certificate.current.endsSoon(now),
                sequence: home.registration.signer.sequence,
                problem: home.registration.problem(at: desiredLocators(of: home.hoa)))
        }
        let (told, troubled, count) = statePeers()
        let states = told.compactMap { state(of: $0, now) }
        let undecided = destinations.undecided(now: now.monotonic)
        return NodeStatus(
            registrations: registrations, locators: ownLocators, uplinks: ownLocators.map { uplinkState($0.moa, now) }, relays: relayStates(),
            isRelayOnly: isHidden, pathsWatched: monitor.paths.count,
            chosenInterface: addresses.chosenInterface, peers: states, peersCount: peers.count, peersTroubled: troubled,
            peersOneSided: count.oneSided, peersUnreachable: count.unreachable, resolving: destinations.count,
            undecided: undecided.prefix(NodeStatus.undecidedMax).map { hoa, doubt in
                NodeStatus.UndecidedState(
                    hoa: hoa, isPlain: doubt.isPlain, reason: doubt.reason, age: max(.zero, now.monotonic - doubt.since),
                    askedAgo: max(.zero, now.monotonic - doubt.asked))
            }, undecidedCount: undecided.count, strangers: strangers.count, counters: counters)
    }

    /// `nil` if there is no own HoA of its family.
    func state(of peer: Peer, _ now: Now) -> NodeStatus.PeerState? {
        guard let own = home(for: peer.hoa) else { return nil }
        let inNetwork = candidates[peer.hoa]?.installed
        let outbound = paths.installed(of: peer) ?? inNetwork
        let target = outbound?.peer
        let way = outbound == nil ? peerEndpoints[peer.hoa]?.installed : nil
        let relayed = outbound == nil ? peerRelays[peer.hoa]?.installed : nil
        let ownMoA = outbound?.own ?? (way?.own ?? relayed?.own).map { MobileAddress($0) }
        return NodeStatus.PeerState(
            hoa: peer.hoa, ownHoA: own, moa: target, ownMoA: ownMoA, endpoint: way?.endpoint, relay: relayed?.relay,
            locators: peer.record.places(at: peer.listed).map(\.named), isProvisional: peer.isProvisional,
            isProven: way != nil || relayed != nil || inNetwork != nil || target.flatMap { peer.locators[$0]?.state.isProven } ?? false,
            age: max(.zero, now.monotonic - peer.since),
            refreshedAgo: max(.zero, now.monotonic - peer.refreshed), switches: paths.switches(of: peer),
            detouredFor: paths.detourSince(peer.hoa).map { now.monotonic - $0 },
            chosenInterface: preferences.chosenInterface(for: peer.hoa), packets: peer.packets, problem: addresses.scopeProblem(of: peer),
            standing: standing(of: peer, from: ownMoA))
    }

    /// All peers in order; if they are too many to tell of each, those that a person should look at, then those with the latest traffic.
    private func statePeers() -> (peers: [Peer], troubled: Int?, count: (oneSided: Int, unreachable: Int)) {
        let places = Set(ownLocators.map(\.moa))
        let announced = homes.mapValues { $0.registration.isRegistered ? $0.announcement.number : nil }
        var (troubled, oneSided, unreachable) = (0, 0, 0)
        var ranked = peers.slots.compactMap { slot in
            peers[slot].map { peer in
                let (isFirst, trouble) = trouble(of: peer, from: places, announced)
                if isFirst || trouble != nil { troubled += 1 }
                if trouble == .oneSided { oneSided += 1 }
                if trouble == .unreachable { unreachable += 1 }
                return (isFirst: isFirst, traffic: peer.lastTraffic, hoa: peer.hoa, slot: slot)
            }
        }
        let count = (oneSided: oneSided, unreachable: unreachable)
        guard ranked.count > NodeStatus.peersMax else { return (ranked.compactMap { peers[$0.slot] }.sorted { $0.hoa < $1.hoa }, nil, count) }
        ranked.sort { $0.isFirst == $1.isFirst ? ($1.traffic, $0.hoa) < ($0.traffic, $1.hoa) : $0.isFirst }
        return (ranked.prefix(NodeStatus.peersMax).compactMap { peers[$0.slot] }.sorted { $0.hoa < $1.hoa }, troubled, count)
    }

    private enum Trouble { case oneSided, unreachable }

    /// As `standing`, without words, since it is asked of each of very many; and whether `mat peers` puts the peer first: what all have in common
    /// sets none apart.
    private func trouble(
        of peer: Peer, from places: Set<MobileAddress>, _ announced: [HomeAddress: UInt32?]
    ) -> (isSetApart: Bool, trouble: Trouble?) {
        if peer.record.reasonNowhere(at: peer.listed) != nil { return (true, .unreachable) }
        let own =
            (paths.installed(of: peer) ?? candidates[peer.hoa]?.installed)?.own
            ?? (peerEndpoints[peer.hoa]?.installed?.own ?? peerRelays[peer.hoa]?.installed?.own).map { MobileAddress($0) }
        if let own {
            if !places.isEmpty, !places.contains(own) { return (true, .unreachable) }
        } else if peerEndpoints[peer.hoa]?.isUntried != true {
            return (true, .unreachable)
        }
        let isDetoured = paths.detourSince(peer.hoa) != nil
        guard !places.isEmpty else { return (isDetoured, .unreachable) }
        guard let home = home(for: peer.hoa), let registered = announced[home] else { return (isDetoured, nil) }
        guard let number = registered else { return (isDetoured, .oneSided) }
        let isDoubtful = peer.telling.isDoubtful && !peer.telling.knows(number)
        return (isDetoured || isDoubtful, isDoubtful ? .oneSided : nil)
    }

    private func uplinkState(_ moa: MobileAddress, _ now: Now) -> NodeStatus.UplinkState {
        var state = NodeStatus.UplinkState(
            state: "sound", failures: uplinks.failures(of: moa, now: now.monotonic), translation: ownEndpoints.translation(of: moa))
        switch uplinks[moa].state {
        case .sound: break
        case .dead(let since):
            state.state = "dead"
            state.silentFor = now.monotonic - since
            state.nextCheckIn = monitor.over(moa).filter { $0.value.watchedUntil > now.monotonic }.map { max(.zero, $0.value.next - now.monotonic) }
                .min()
        case .returning(let since, let until):
            state.state = "returning"
            state.silentFor = now.monotonic - since
            state.trustedIn = max(.zero, until - now.monotonic)
        case .flapping(let until):
            state.state = "flapping"
            state.trustedIn = max(.zero, until - now.monotonic)
        case .refused(_, let until, let reason):
            state.state = "refused"
            state.reason = reason
            state.trustedIn = max(.zero, until - now.monotonic)
        }
        if state.reason == nil { state.reason = reasonUnlisted(moa) }
        return state
    }

    /// Why a usable address is in no record.
    private func reasonUnlisted(_ moa: MobileAddress) -> String? {
        if isHidden { return "not in the record: by relays alone (`paths: relay-only`)" }
        let others = homesReached(by: moa).filter { $0.family != moa.family }.map(\.description)
        if !others.isEmpty { return "\(others.joined(separator: ", ")) is reached by it, encapsulated" }
        let family = homes.values.filter { $0.hoa.family == moa.family }
        if family.isEmpty { return "there is no home address of its family; it serves for signalling only" }
        guard !family.contains(where: { desiredLocators(of: $0.hoa).contains(moa) }) else {
            return family.contains { $0.registration.unproven.contains(moa) && desiredLocators(of: $0.hoa).first != moa }
                ? "not in the record: the IMS did not answer over it" : nil
        }
        if let chosen = addresses.chosenInterface, let left = family.first(where: { addresses.left(by: $0.hoa).contains(moa) }) {
            return "not in the record: \(chosen) was chosen, by which \(left.hoa) is reached, encapsulated"
        }
        if family.contains(where: { home in ownLocators.contains { $0.moa.address == home.hoa.address } }) {
            return "the node is at home, where its home address is enough"
        }
        return "not in the record, which has room for \(MappingRecord.locatorsMax)"
    }

    /// Whether every HoA is registered: what `mat status --wait` waits for.
    public var isRegistered: Bool { homes.values.allSatisfy(\.registration.isRegistered) }
}
