import IMTPlan
import MATCore
import MATSignal

/// How packets to a peer go and why not otherwise: what `mat why` shows.
public struct PathExplanation: Hashable, Sendable {
    public enum Kind: String, Hashable, Sendable {
        /// Addresses are rewritten; nothing is added.
        case direct
        /// Packets travel whole, in datagrams between endpoints.
        case encapsulated
        /// Likewise, by a relay that forwards them.
        case relayed
    }

    /// A way that both ends allow, or would.
    public struct Candidate: Hashable, Sendable {
        public var kind: Kind
        public var place: Endpoint
        /// The own address that it leaves from.
        public var own: IPAddress?
        public var isUsed: Bool
        /// What was found out about it last, in words.
        public var state: String
        /// What would make it work; `nil` if it does, or if nobody knows.
        public var remedy: String?
    }

    public var peer: HomeAddress
    public var own: HomeAddress
    /// Best first.
    public var candidates: [Candidate]
    /// What stands before the own addresses, those where something does.
    public var translations: [OwnTranslation]
    /// What its record shows of what stands before the peer, in words; `nil`: nothing, or it is no peer.
    public var peerTranslation: String?
    /// Why there is none of the candidates, or nothing is known of the peer.
    public var problem: String?
}

/// An own MoA that others do not see as it is, or can't reach out of the blue.
public struct OwnTranslation: Hashable, Sendable {
    public var moa: MobileAddress
    /// Where others see it; `nil`: it is filtered, not translated.
    public var seen: Endpoint?
    public var mapping: Translation.Mapping?

    /// As people read it.
    public var text: String {
        guard let seen else { return "filtered: no packets from outside arrive" }
        switch mapping {
        case .endpointIndependent?: return "translated by \(seen.address), mapping endpoint-independent"
        case .endpointDependent?: return "translated by \(seen.address), mapping endpoint-dependent"
        case .unknown?, nil: return "translated by \(seen.address), mapping not known: one server was asked"
        }
    }
}

extension OwnEndpoints {
    /// What stands before the MoA; `nil` if nothing does, as far as is known.
    func translation(of moa: MobileAddress) -> OwnTranslation? {
        switch self[moa].verdict {
        case .unknown, .open: nil
        case .filtered: OwnTranslation(moa: moa, seen: nil, mapping: nil)
        case .translated(let seen, let mapping): OwnTranslation(moa: moa, seen: seen, mapping: mapping)
        }
    }
}

extension EndpointState {
    /// What was found out last.
    func text(_ now: MonotonicTime) -> String {
        switch self {
        case .unproven: "not tried: there are no packets for it"
        case .probing(let series): series.proof == nil ? "being probed, \(series.sent) without an answer so far" : "proven, being renewed"
        case .proven(let at, _): "proven \((now - at).components.seconds) s ago"
        case .resting(let until, let failures):
            "no answer to \(failures == 1 ? "a series" : "\(failures) series") of probes; tried again in \(max(0, (until - now).components.seconds)) s while there are packets"
        }
    }
}

extension LocatorState {
    fileprivate func text(_ now: MonotonicTime) -> String {
        switch self {
        case .unchecked: "not checked yet"
        case .checking, .noticed: "being checked"
        case .proven(let at, let unanswered):
            unanswered == 0 ? "answered \((now - at).components.seconds) s ago" : "silent for \(unanswered) checks, answered before"
        case .refused: "does not answer checks, or says that it is another"
        }
    }
}

extension PeerRecord {
    /// What the places that it lists say of where its node is.
    fileprivate func placesText(at listed: [Locator]) -> String? {
        let places = places(at: listed)
        guard !places.contains(where: \.isMoA) else { return nil }
        let endpoints = places.compactMap(\.endpoint)
        if let first = endpoints.first {
            return "it is behind a translator or firewall, or in a network of the other family: its record lists \(first)"
        }
        return places.contains { $0.relay != nil }
            ? "its record lists relays alone: it can't be reached otherwise, or does not want to be found" : nil
    }
}

extension NodeCore {
    /// Why packets to a peer go as they go.
    public func explain(_ peer: HomeAddress, now: Now) -> PathExplanation? {
        guard let own = home(for: peer) else { return nil }
        var result = PathExplanation(
            peer: peer, own: own, candidates: [], translations: desiredLocators(of: own).compactMap(ownEndpoints.translation), problem: nil)
        guard let known = peers[peer] else {
            let isAsked = destinations.contains(peer)
            result.problem =
                plainExplanation(peer)
                ?? (isAsked
                    ? "it is being looked up; its packets wait"
                    : "no conversation with it: packets to it have not been seen lately, or it is no MAT node")
            return result
        }
        result.peerTranslation = known.record.placesText(at: known.listed)
        let installed = peerEndpoints[peer]?.installed
        let ownMoA = desiredLocators(of: own).first
        for locator in known.locators.listed {
            let isInDatagrams = installed != nil || peerRelays[peer]?.installed != nil
            let isUsed = !isInDatagrams && candidates[peer]?.installed == nil && locator.roles.contains(.target)
            var candidate = PathExplanation.Candidate(
                kind: .direct, place: Endpoint(locator.moa.address, port: SignalPort.node), own: ownMoA?.address, isUsed: isUsed,
                state: locator.state.text(now.monotonic), remedy: nil)
            if isHidden {
                candidate.state = "not used: peers are not to learn where this node is (`paths: relay-only`)"
            } else if let ownMoA, ownMoA.family != own.family {
                candidate.state = OtherFamily.reason(own)
                candidate.remedy = "use a network that has \(own.family)"
            } else if let ownMoA, let translation = ownEndpoints.translation(of: ownMoA) {
                candidate.state = "our \(ownMoA) is \(translation.text); rewritten packets do not pass in the middle of a connection"
                candidate.remedy = "use a network that gives this host a global address"
            } else if let ownMoA, let until = trials.filteredUntil(MobilePair(own: ownMoA, peer: locator.moa)) {
                let left = max(0, (until - now.monotonic).components.seconds)
                candidate.state = "rewritten packets did not pass in the middle of connections; tried again in \(left) s"
                candidate.remedy = "have the firewall before one of both let in what belongs to no connection that it has seen beginning"
            }
            result.candidates.append(candidate)
        }
        for endpoint in candidates[peer]?.endpoints ?? [] {
            let state = candidates[peer]?.state(of: endpoint) ?? .unproven
            let way = candidates[peer]?.installed
            let isUsed = way?.peer.address == endpoint.address
            result.candidates.append(
                PathExplanation.Candidate(
                    kind: .direct, place: endpoint, own: isUsed ? way?.own.address : nil, isUsed: isUsed,
                    state: "in this network: \(state == .unproven ? "no answer; told again now and then" : state.text(now.monotonic))",
                    remedy: isUsed ? nil : "a network whose clients reach one another"))
        }
        let aRelay = peerRelays[peer]?.installed == nil ? "a relay, or " : ""
        for endpoint in peerEndpoints[peer]?.endpoints ?? [] {
            let state = peerEndpoints[peer]?.state(of: endpoint) ?? .unproven
            var (remedy, candidateText): (String?, String?)
            if !addresses.has(endpoint.family) {
                candidateText = "not tried: there is no \(endpoint.family) address here"
                remedy = endpoint.family == .ipv4 ? "\(aRelay)a network with IPv4 or a NAT64" : "\(aRelay)a network with IPv6"
            } else if case .resting = state {
                remedy = "\(aRelay)a rule in the router before one of both that forwards UDP port \(SignalPort.node)"
            }
            result.candidates.append(
                PathExplanation.Candidate(
                    kind: .encapsulated, place: endpoint, own: installed?.endpoint == endpoint ? installed?.own : nil,
                    isUsed: installed?.endpoint == endpoint,
                    state: (candidateText ?? state.text(now.monotonic)) + (installed?.endpoint == endpoint ? sizeText(of: peer) : ""), remedy: remedy)
            )
        }
        result.candidates += relayCandidates(peer)
        // Our own relays are candidates too.
        if let nowhere = known.record.reasonNowhere(at: known.listed) {
            result.problem = nowhere
        } else if result.candidates.isEmpty {
            result.problem = "its record lists no place that can be reached from here"
        } else if !result.candidates.contains(where: \.isUsed), !result.candidates.contains(where: { $0.kind == .relayed }) {
            result.problem = "neither its record nor ours lists a relay, by which its packets could go meanwhile"
        }
        return result
    }
}
