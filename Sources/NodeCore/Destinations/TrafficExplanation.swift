import IMTPlan
import MATSignal

/// Whether packets between two addresses go by a mapping, why, and whether a conversation of theirs survives a move: what `mat explain` shows.
/// How a peer's packets go, and why not by a better path, is `PathExplanation`'s.
package struct TrafficExplanation: Hashable, Sendable {
    package enum Way: Hashable, Sendable {
        case mapped
        /// To a plain host, by an own relay that is a gateway.
        case gateway
        case plain
        /// Held until it is known which.
        case waits
        /// Never leaves this host or its link.
        case local
        /// It is found out with the next packet.
        case unknown
    }

    /// What decides the way.
    package enum Cause: Hashable, Sendable {
        case peer
        case gateway
        case gatewayAwaited
        case thisHost
        case link
        case ownNetwork
        case noHome
        case nameServer
        case exception(IPPrefix)
        case notSelected
        /// The socket is bound to an own address that is no HoA.
        case ownAddress
        /// The destination is where a peer is, not who it is.
        case peersAddress(HomeAddress)
        /// The DNS names no IMS for it.
        case noServers
        /// Its IMS has no mapping.
        case noMapping
        case silentNames(String)
        case lookedUp
        case asked
        case unseen
    }

    package enum Survival: Hashable, Sendable {
        case yes
        /// As far as this end can know it would not, or not now: why.
        case perhaps(String)
        case no
        case unknown
    }

    package var own: IPAddress?
    package var remote: IPAddress
    package var way: Way
    package var cause: Cause
    package var survival: Survival
    /// The own HoA, and how its packets go, of a peer.
    package var peer: NodeStatus.PeerState?
    /// One line: why.
    package var text: String
    /// What would make it survive; `nil` if it does, or nothing would.
    package var remedy: String?
}

extension NodeCore {
    /// - Parameter own: the address that a socket has; `nil`: as the kernel chooses it for who is bound to none.
    func explainTraffic(from own: IPAddress?, to remote: IPAddress, _ kernel: IMTConfiguration, _ now: Now) -> TrafficExplanation {
        func result(
            _ way: TrafficExplanation.Way, _ cause: TrafficExplanation.Cause, _ survival: TrafficExplanation.Survival, _ text: String,
            _ remedy: String?
        ) -> TrafficExplanation {
            TrafficExplanation(own: own, remote: remote, way: way, cause: cause, survival: survival, peer: nil, text: text, remedy: remedy)
        }
        let hoa = HomeAddress(remote)
        if kernel.homePrefixes.contains(where: { $0.contains(remote) && $0.address != remote }) { return explain(.ownNetwork, result) }
        if remote.isLoopback || own?.isLoopback == true || isOwn(remote) || kernel.isHome(remote) {
            return result(.local, .thisHost, .yes, "both ends are on this host", nil)
        }
        // A socket that is bound to a MoA follows that address, whoever the destination is.
        if let own, !own.isUnspecified, !kernel.isHome(own) {
            if own.isLinkLocal || remote.isLinkLocal { return result(.local, .link, .no, "it is of the link alone, and ends with it", nil) }
            let interface = addresses.interface(of: MobileAddress(own)).map { " of \($0)" } ?? ""
            let what = peers[hoa] == nil ? "" : "; \(remote) is a peer, but this conversation is not part of the mapping"
            return result(
                .plain, .ownAddress, .no, "its own address is \(own)\(interface), which is not a home address\(what)",
                "begin it anew, bound to no address or to a home address; what began before matd ran stays as it is")
        }
        if let peer = peers[hoa] { return explainPeer(peer, result, now) }
        if let way = gateways.way(to: hoa) {
            let seen = way.isTranslated ? "with source translation" : "as \(home(for: hoa).map(\.description) ?? "the home address")"
            return result(.gateway, .gateway, .yes, "it is a plain host, and the gateway \(way.relay) talks to it \(seen)", nil)
        }
        if gateways.contains(hoa) {
            return result(
                .waits, .gatewayAwaited, .perhaps("its gateway has no binding now"), "it is a plain host, and its packets wait for a gateway",
                "`mat status` says what each relay answers")
        }
        if let holder = peers.holder(of: MobileAddress(remote)) {
            return result(
                .plain, .peersAddress(holder), .no,
                "\(remote) is where the peer \(holder) is now, a mobile address; only what is addressed to \(holder) is mapped",
                "address it as \(holder), or by the name that has this address")
        }
        if let exemption = kernel.exemption(of: remote) { return explain(exemption, result) }
        switch destinations.fate(of: hoa, now: now.monotonic) {
        case .unmapped:
            return result(
                .plain, .noMapping, .no,
                "\(remote) is in a home prefix, but its mapping server has no mapping of it: its node is off, or never was one",
                "start matd there; `mat lookup \(remote)` shows what its mapping server says")
        case .absent:
            return result(.plain, .noServers, .no, "the DNS names no mapping server for \(remote): it is a plain host", plainRemedy(remote))
        case .doubtful(let isPlain, let reason):
            let text = "the DNS does not say whether \(remote) is a MAT node (\(reason))"
            let remedy = "`mat lookup \(remote)` shows where it fails, mostly at the servers of a reverse zone"
            return isPlain
                ? result(.plain, .silentNames(reason), .no, "\(text), so it is talked to plainly meanwhile", remedy)
                : result(.waits, .silentNames(reason), .perhaps("its packets wait"), "\(text), and it was one, so its packets wait", remedy)
        case .lookedUp(let failure):
            return result(
                .waits, .lookedUp, .unknown,
                "the DNS is being asked whether \(remote) is a MAT node\(failure.map { " (so far: \($0))" } ?? ""); its packets wait",
                "ask again in a moment")
        case .asked:
            let problem = ownLocators.isEmpty ? ", and this host has no address in any network" : ""
            return result(
                .waits, .asked, .unknown, "\(remote) is a MAT node's; its mapping server is being asked, its packets wait\(problem)",
                "ask again in a moment")
        case .unknown:
            return result(
                .unknown, .unseen, .unknown,
                "nothing was sent to \(remote) lately: the next packet waits until the DNS has said whether it is a MAT node",
                "`mat lookup \(remote)` says it now")
        }
    }

    private typealias Result = (TrafficExplanation.Way, TrafficExplanation.Cause, TrafficExplanation.Survival, String, String?) -> TrafficExplanation

    private func explainPeer(_ peer: Peer, _ result: Result, _ now: Now) -> TrafficExplanation {
        let state = state(of: peer, now)
        let standing = state?.standing ?? .mapped
        var explanation =
            switch standing {
            case .mapped: result(.mapped, .peer, .yes, "it is a MAT node, and each end knows where the other is", nil)
            case .oneSided(let reason):
                result(.mapped, .peer, .perhaps(reason), "it is a MAT node", "`mat status` and `mat why \(peer.hoa)` say more")
            case .unreachable(let reason):
                result(
                    .waits, .peer, .perhaps(reason), "it is a MAT node, and there is no path to it now",
                    "`mat why \(peer.hoa)` says what each path would need")
            }
        explanation.peer = state
        return explanation
    }

    private func explain(_ exemption: Exemption, _ result: Result) -> TrafficExplanation {
        switch exemption {
        case .link: result(.local, .link, .no, "it is of the link alone (loopback, link-local or multicast), and never mapped", nil)
        case .nameServer:
            result(
                .plain, .nameServer, .no, "it is a DNS server that matd asks; these are never mapped, since every look-up would wait for itself", nil)
        case .exception(let prefix): result(.plain, .exception(prefix), .no, "`except` in matd.yaml has \(prefix)", "take it out, and restart matd")
        case .ownNetwork: result(.local, .ownNetwork, .yes, "it is in this node's own mobile network", nil)
        case .notSelected:
            result(
                .plain, .notSelected, .no, "`traffic` in matd.yaml does not select it: only what is listed there is mapped, and who speaks first",
                "add its prefix to `traffic`, and restart matd")
        case .noHome:
            result(
                .plain, .noHome, .no, "this node has no home address of its family, so nothing of it is mapped",
                "have the operator of a mapping server enrol an address of that family: `mat join`, or `mat enrol` there")
        }
    }

    /// What would let a conversation with a plain host survive.
    private func plainRemedy(_ remote: IPAddress) -> String {
        configuration.plain.way(to: remote) == .none
            ? "a gateway carries plain hosts' conversations: `plain` in matd.yaml, and a relay that is one (matd.yaml(5)); if it should be a MAT node, `mat lookup \(remote)`"
            : "matd.yaml wants a gateway for it, and there was none: `mat status` says what each relay answers"
    }
}

extension IMTConfiguration {
    /// Whether it is a HoA of this node's, or in its mobile network.
    fileprivate func isHome(_ address: IPAddress) -> Bool {
        allHomes.contains { $0.address == address } || homePrefixes.contains { $0.contains(address) }
    }
}
