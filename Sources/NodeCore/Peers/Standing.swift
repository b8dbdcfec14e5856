import MATSignal

/// Whether a conversation with a peer would survive a move of either end, as far as this end can know: what `mat peers` tells people.
public enum Standing: Hashable, Sendable {
    /// Each end knows where the other is.
    case mapped
    /// Packets go by the mapping, but the peer may not hear of where we are: a move of ours could end the conversation.
    case oneSided(String)
    /// Packets to it wait, or are lost.
    case unreachable(String)

    /// Why it is not mapped.
    public var reason: String? {
        switch self {
        case .mapped: nil
        case .oneSided(let reason), .unreachable(let reason): reason
        }
    }
}

extension NodeCore {
    /// - Parameter own: the own address that its packets leave from; `nil` without a path, as while there are no packets for a peer that is reached
    ///   in datagrams.
    func standing(of peer: Peer, from own: MobileAddress?) -> Standing {
        guard !ownLocators.isEmpty else { return .unreachable("this host has no address in any network: packets to it wait") }
        if let reason = peer.record.reasonNowhere(at: peer.listed) { return .unreachable(reason) }
        if let own {
            // Translated to and from an address that was ours: what leaves is lost, and nothing comes in.
            guard ownLocators.contains(where: { $0.moa == own }) else {
                return .unreachable("its path leaves from \(own), which this host has no longer")
            }
        } else if !(peerEndpoints[peer.hoa]?.isUntried ?? false) {
            if let problem = addresses.scopeProblem(of: peer) { return .unreachable(problem.text) }
            return .unreachable("no path to it has been found to work; `mat why \(peer.hoa)` says what was tried")
        }
        guard let hoa = home(for: peer.hoa), let home = homes[hoa] else { return .mapped }
        guard home.registration.isRegistered else {
            let problem = home.registration.problem(at: desiredLocators(of: hoa))
            return .oneSided("\(hoa) is not registered\(problem.map { ": \($0.text)" } ?? " yet"); it may not hear of our moves")
        }
        guard !peer.telling.isDoubtful || announcing(for: peer.hoa).map({ announcing.knows(peer, $0) }) ?? true else {
            return .oneSided("neither it nor its mapping server has acknowledged yet where this host is")
        }
        return .mapped
    }
}
