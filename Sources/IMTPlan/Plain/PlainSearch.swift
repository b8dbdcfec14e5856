import MATSignal

/// A connection of this host as its socket has it.
package struct TCPConnection: Hashable {
    package var local: Endpoint
    package var remote: Endpoint

    package init(local: Endpoint, remote: Endpoint) {
        self.local = local
        self.remote = remote
    }
}

/// When this host's plain flows are searched for some that are older than the mapping of their peer: from then on their packets look like
/// mapped ones.
///
///                a new mapping, and searches took little time lately
///     idle ───────────────────────────────────────────────────────────► search ──► idle
///      │                                                                  ▲
///      └── a new mapping, too soon ──► waiting for its time ──────────────┘
///                                        (at once, if a MoA passes from one peer to another)
///
/// A search looks at all TCP sockets, for any number of peers at once. Where peers come faster than that, some wait for the next one; a
/// plain connection to them that speaks first itself is noted by its own packet.
///
/// A MoA that passes from one peer to another is never put off: its flows are known, by the HoA that it had, and would be taken for the
/// other's from now on. It costs the newcomer a locator check each time.
package struct PlainSearch {
    /// Share of time that searches may take: one part in this many.
    package static let timeShare = 20
    /// How far that may be run ahead of: several peers within a moment are each searched for at once.
    package static let advance: Duration = .seconds(2)
    /// A peer that has lost its entry is known for so long: its next place has yet to prove itself when the one of before is no longer listed.
    package static let leftFor: Duration = .seconds(10)
    /// Of more of them within that time, some count as new.
    package static let leftMax = 1024

    /// What is searched for.
    package struct Wanted {
        /// New mappings: the peers that are at these MoAs.
        package var peers: [Arrival: HomeAddress]
        /// Those of them whose peer was known already, by whatever path: it has moved there.
        package var moved: Set<Arrival>

        package var remotes: Set<IPAddress> { Set(peers.keys.map(\.peer.address)) }
    }

    package enum OnMappings: Equatable {
        case nothing
        case search
        case wait(until: MonotonicTime)
    }

    private var wanted = Wanted(peers: [:], moved: [])
    private var isWaiting = false
    /// Peers that lost their entries, and when.
    private var left: [HomePair: MonotonicTime] = [:]
    /// Until then no search begins, but for the advance.
    private var restsUntil = MonotonicTime.zero

    package init() {}

    /// Mappings are about to be committed.
    package mutating func mappings(_ changes: [IMTChange], before model: TranslationModel, now: MonotonicTime) -> OnMappings {
        for case .removeOutbound(let home) in changes where model.hasEntry(home) { leave(home, now) }
        var isTaken = false
        for case .setInbound(let moa, let home) in changes {
            let arrival = Arrival(peer: moa, own: home.own)
            let holder = model.inbound(arrival)
            guard holder != home.peer, wanted.peers.count < TranslationRuleset.arrivalsMax else { continue }
            if holder != nil { isTaken = true }
            wanted.peers[arrival] = home.peer
            if model.hasEntry(home) || left[home].map({ now - $0 < Self.leftFor }) ?? false { wanted.moved.insert(arrival) }
        }
        guard !wanted.peers.isEmpty, isTaken || !isWaiting else { return .nothing }
        guard isTaken || now + Self.advance >= restsUntil else {
            isWaiting = true
            return .wait(until: restsUntil)
        }
        return .search
    }

    private mutating func leave(_ home: HomePair, _ now: MonotonicTime) {
        if left.count >= Self.leftMax { left = left.filter { now - $0.value < Self.leftFor } }
        if left.count < Self.leftMax { left[home] = now }
    }

    /// The tables were made anew: all mappings count as new.
    package mutating func tablesAnew(_ model: TranslationModel) -> OnMappings {
        wanted.peers = model.inbound
        return wanted.peers.isEmpty ? .nothing : .search
    }

    package mutating func begin() -> Wanted {
        defer { (wanted, isWaiting) = (Wanted(peers: [:], moved: []), false) }
        return wanted
    }

    package mutating func ended(from start: MonotonicTime, to end: MonotonicTime) {
        restsUntil = max(restsUntil, start) + (end - start) * Self.timeShare
    }
}

extension PlainSearch.Wanted {
    /// The flows that are older than their peer's mapping.
    ///
    /// - Parameters:
    ///   - noted: flows that packets have noted.
    ///   - connections: this host's connections to the peers' MoAs.
    ///   - own: the own MoAs.
    ///   - moaOf: the own MoA that a connection's packets show on the wire, and its HoA.
    package func flows(
        noted: [PlainFlow], connections: [TCPConnection], own: [MobileAddress: HomeAddress], moaOf: (TCPConnection) -> (MobileAddress, HomeAddress)?
    ) -> [PlainFlow] {
        var flows: [PlainFlow] = noted.compactMap { flow in
            guard let home = own[flow.own] else { return nil }
            let arrival = Arrival(peer: flow.peer, own: home)
            // What comes for a listening socket from where a known peer has just moved is the middle of what was translated before,
            // however it passed meanwhile; where a new peer is, it began as it is.
            if flow.protocolNumber != 6, moved.contains(arrival) { return nil }
            return peers[arrival].map { PlainFlow(flow, of: $0) }
        }
        for each in connections {
            guard let (moa, home) = moaOf(each) else { continue }
            let peer = MobileAddress(each.remote.address)
            guard let peerHome = peers[Arrival(peer: peer, own: home)] else { continue }
            // Between HoAs, with a peer that is at home: mapped.
            if peerHome.address == peer.address, home.address == each.local.address { continue }
            flows.append(
                PlainFlow(peerHome: peerHome, peer: peer, own: moa, protocolNumber: 6, peerPort: each.remote.port, ownPort: each.local.port))
        }
        return flows
    }
}
