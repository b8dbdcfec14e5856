import IMTPlan
import MATRuntime
import MATSignal

// Plain flows that are older than the mapping of their peer: from then on their packets look like mapped ones.
extension IMTKernel {
    /// Share of time that looking for such flows may take: one part in this many.
    static let plainSearchShare = 20
    /// How far that may be run ahead of: several peers within a moment are each looked for at once.
    static let plainSearchAdvance: Duration = .seconds(2)

    /// Remembers the flows to MoAs that these changes make a peer's, before they do.
    ///
    /// It takes a look at all TCP sockets, for any number of peers at once. Where peers come faster than that, some wait for the
    /// next look; a plain connection to them that speaks first itself is noted by its own packet.
    ///
    /// A MoA that passes from one peer to another is never put off: its flows are known, by the HoA that it had, and would be taken for the
    /// other's from now on. It costs the newcomer a locator check each time.
    func keepPlainFlows(_ changes: [IMTChange]) {
        var isTaken = false
        for case .setInbound(let moa, let home) in changes {
            let holder = tables.model.inbound(Arrival(peer: moa, own: home.own))
            guard holder != home.peer, freshPeers.count < TranslationRuleset.arrivalsMax else { continue }
            if holder != nil { isTaken = true }
            freshPeers[Arrival(peer: moa, own: home.own)] = home.peer
            if tables.model.entries[home] != nil { movedPeers.insert(Arrival(peer: moa, own: home.own)) }
        }
        guard !freshPeers.isEmpty, isTaken || plainSearchTimer == nil else { return }
        let now = SystemClock.now().monotonic
        if isTaken || now + Self.plainSearchAdvance >= plainSearchAfter {
            if let plainSearchTimer { loop.cancel(plainSearchTimer) }
            plainSearchTimer = nil
            searchPlainFlows()
        } else {
            plainSearchTimer = loop.schedule(at: plainSearchAfter) { [weak self] in
                self?.plainSearchTimer = nil
                self?.searchPlainFlows()
            }
        }
    }

    /// Likewise for all peers, after the tables were made anew.
    func keepPlainFlowsOfAll() {
        freshPeers = tables.model.inbound
        if !freshPeers.isEmpty { searchPlainFlows() }
    }

    private func searchPlainFlows() {
        let start = SystemClock.now().monotonic
        let fresh = freshPeers
        let moved = movedPeers
        freshPeers = [:]
        movedPeers = []
        // If sock_diag is missing or refused, such connections are lost when the peer speaks first: no reason not to map.
        do throws(KernelError) {
            let remotes = Set(fresh.keys.map(\.peer.address))
            let connections = try socketSearch?.connections(to: remotes) ?? []
            var flows: [PlainFlow] = try tables.plainFlows(to: remotes).compactMap { flow in
                guard let home = tables.model.own[flow.own] else { return nil }
                // What comes for a listening socket from where a known peer has just moved is the middle of what was translated before,
                // however it passed meanwhile; where a new peer is, it began as it is.
                if flow.protocolNumber != 6, moved.contains(Arrival(peer: flow.peer, own: home)) { return nil }
                return fresh[Arrival(peer: flow.peer, own: home)].map { PlainFlow(flow, of: $0) }
            }
            for each in connections {
                guard let (moa, home) = moaOfPlain(each) else { continue }
                let peer = MobileAddress(each.remote.address)
                guard let peerHome = fresh[Arrival(peer: peer, own: home)] else { continue }
                // Between HoAs, with a peer that is at home: mapped.
                if peerHome.address == peer.address, home.address == each.local.address { continue }
                flows.append(
                    PlainFlow(
                        peerHome: peerHome, peer: peer, own: moa, protocolNumber: 6, peerPort: each.remote.port,
                        ownPort: each.local.port))
            }
            try tables.remember(flows)
        } catch {
            if !reportedSearchFailure { onEvent(.failed(error)) }
            reportedSearchFailure = true
        }
        let end = SystemClock.now().monotonic
        plainSearchAfter = max(plainSearchAfter, start) + (end - start) * Self.plainSearchShare
    }

    /// The own MoA that a connection's packets show on the wire: its own address, or what source NAT makes of the HoA, which is
    /// the address of the link that the main table chooses.
    private func moaOfPlain(_ connection: TCPConnection) -> (MobileAddress, HomeAddress)? {
        let local = MobileAddress(connection.local.address)
        if let home = tables.model.own[local] { return (local, home) }
        let home = HomeAddress(connection.local.address)
        guard configuration.homeAddresses.contains(home) else { return nil }
        let chosen = linkTables.best(of: linkTables.main.longestMatch(connection.remote.address) { _ in true })
        let candidates = locators.filter { $0.interfaceIndex == chosen?.interfaceIndex }.map { MobileAddress($0.address) }
        return candidates.first { tables.model.own[$0] == home }.map { ($0, home) }
    }
}
