import MATCore
import MATSignal

// What people see of relays.

extension NodeCore {
    func relayStates() -> [NodeStatus.RelayState] {
        homes.keys.sorted().flatMap { hoa in
            let needed = neededRelays(of: hoa)
            return ownRelays(of: hoa).map { relay in
                let key = needed.first { $0.host == relay }.map { OwnBindings.Key(hoa: hoa, server: $0.server) }
                return NodeStatus.RelayState(
                    hoa: hoa, endpoints: relay.endpoints, server: key?.server, own: key.flatMap(bindings.source), standing: standing(key, relay, hoa),
                    observed: key.flatMap(bindings.observed), role: key.map(bindings.role) ?? [])
            }
        }
    }

    private func standing(_ key: OwnBindings.Key?, _ relay: RelayHost, _ hoa: HomeAddress) -> NodeStatus.RelayState.Standing {
        guard let key else { return needsRelays(hoa) || wantsGateways(hoa) ? .unreachable : .notNeeded }
        if let failure = bindings.failure(of: key) { return failure == .silent ? .silent : .refused(failure.text) }
        guard bindings.isGranted(key) else { return .asked }
        return homes[hoa]?.registration.relayPolicy.takesNone == true ? .unlisted : .bound
    }

    /// The relays by which a peer's packets go, or could.
    func relayCandidates(_ hoa: HomeAddress) -> [PathExplanation.Candidate] {
        guard let own = home(for: hoa), let known = peerRelays[hoa] else { return [] }
        return known.candidates.map { candidate in
            let (key, isUsed) = (OwnBindings.Key(hoa: own, server: candidate.relay), known.installed?.relay == candidate.relay)
            let (state, remedy) = text(candidate, known, key)
            return PathExplanation.Candidate(
                kind: .relayed, place: candidate.relay, own: bindings.holder(of: key)?.address, isUsed: isUsed, state: state, remedy: remedy)
        }
    }

    private func text(_ candidate: PeerRelays.Candidate, _ known: PeerRelays, _ key: OwnBindings.Key) -> (state: String, remedy: String?) {
        let whose = candidate.isPeers ? candidate.isOwn ? "of both records" : "of its record" : "of our record"
        switch bindings.failure(of: key) {
        case .silent?:
            return ("\(whose); it does not answer", "an answer of \(candidate.relay): is the relay up, and does UDP pass to it?")
        case .refused(let code)? where code == .notAuthoritative:
            return (
                "\(whose); it serves other home addresses only",
                "that \(candidate.relay) takes \(key.hoa): `residents`, or `visitors`, in its mat-relay.yaml"
            )
        case .refused?:
            return (
                "\(whose); \(bindings.failure(of: key)?.text ?? "it refuses")",
                "that \(candidate.relay) takes \(key.hoa): its log says why it does not"
            )
        case nil: break
        }
        guard bindings.holder(of: key) != nil else {
            return bindings.source(of: key) == nil
                ? ("\(whose); not asked: a better path is used, or there are no packets", nil) : ("\(whose); being asked", nil)
        }
        if known.isLeft(candidate.relay) {
            return ("\(whose); bound there, but nothing comes back by it", "that \(key.hoa) and its peer are both bound there")
        }
        if known.hasAnswered(candidate.relay) {
            let measured = known.quality(of: candidate.relay)?.text.map { ": \($0)" }
            return ("\(whose); bound there, and it has answered by it\(measured ?? "")", nil)
        }
        return candidate.isPeers
            ? ("\(whose); bound there", nil)
            : (
                "\(whose); bound there, it is not known whether the peer is as well",
                "that the peer binds there, which it does while it has no better path"
            )
    }
}
