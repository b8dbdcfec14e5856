import IMTPlan
import MATCore
import MATSignal

// Gateways: own relays that forward to and from plain hosts (protocol.md section 11.5). Which destinations go there, and what the kernel gets.

extension NodeCore {
    /// An own relay that is a gateway for a HoA, and holds a binding.
    private struct OwnGateway {
        var relay: RelayHost
        var key: OwnBindings.Key
        var role: ServerRole
    }

    private func ownGateways(of own: HomeAddress) -> [OwnGateway] {
        ownRelays(of: own).compactMap { relay in
            let key = relay.endpoints.map { OwnBindings.Key(hoa: own, server: $0) }.first(where: bindings.isGranted)
            guard let key, !bindings.role(of: key).isDisjoint(with: [.gateway, .translatingGateway]) else { return nil }
            return OwnGateway(relay: relay, key: key, role: bindings.role(of: key))
        }
    }

    /// Whether bindings at own relays are wanted from every network: plain hosts' packets come and go by these.
    func wantsGateways(_ own: HomeAddress) -> Bool { configuration.plain.usesGateways && mayUseGateways(own) }

    /// What a mobile network's hosts send to plain hosts leaves from the router's own address.
    private func mayUseGateways(_ own: HomeAddress) -> Bool { !isAtHome(own) && homes[own]?.isNetwork == false }

    /// At home plain hosts see the HoA as it is.
    private func isAtHome(_ own: HomeAddress) -> Bool { addresses.ordered.contains { $0.moa.address == own.address } }

    private func offer(_ own: HomeAddress, _ wish: PlainPolicy.Way, _ former: Endpoint?) -> GatewayDestinations.Offer {
        guard mayUseGateways(own) else { return .none }
        let all = ownGateways(of: own)
        let routed = wish == .sourceNAT ? [] : all.filter { $0.role.contains(.gateway) }
        let fitting = routed + all.filter { $0.role.contains(.translatingGateway) && !$0.role.contains(.gateway) }
        if let chosen = fitting.first(where: { gateway in former.map(gateway.relay.endpoints.contains) ?? false }) ?? fitting.first {
            let holder = bindings.holder(of: chosen.key).flatMap { holder in addresses.ordered.contains { $0.moa == holder } ? holder : nil }
            return .granted(
                relay: chosen.key.server,
                holder.map {
                    GatewayDestinations.Way(
                        own: Endpoint($0.address, port: SignalPort.node), relay: chosen.key.server, isTranslated: !chosen.role.contains(.gateway))
                })
        }
        let isUnderWay = neededRelays.keys.contains { $0.hoa == own && !bindings.isGranted($0) && bindings.failure(of: $0) == nil }
        return isUnderWay || homes[own]?.servers == nil && wantsGateways(own) ? .expected : .none
    }

    // MARK: Destinations

    /// What `Destinations` says of plain ones, where a gateway carries them.
    ///
    /// - Returns: whether the kernel is to be told nothing else.
    mutating func isGateways(_ change: IMTChange, _ now: Now) -> Bool {
        switch change {
        case .setPlain(let address, let lifetime):
            let hoa = HomeAddress(address)
            guard let own = home(for: hoa) else { return false }
            let wish = configuration.plain.way(to: address)
            // The relay itself is reached as it is.
            guard gateways.contains(hoa) || wish != .none && !ownRelays(of: own).contains(where: { $0.endpoints.contains { $0.address == address } })
            else { return false }
            let offered = offer(own, wish, nil)
            guard gateways.contains(hoa) || offered != .none else { return false }
            perform(gateways.enter(hoa, own: own, wish, lifetime: lifetime, offered, now.monotonic), now)
            return true
        // Another network changes nothing in how it is reached.
        case .removePlain(let address): return gateways.contains(HomeAddress(address))
        default: return false
        }
    }

    /// It is carried by a gateway, and waits for that.
    func waitsForGateway(_ hoa: HomeAddress) -> Bool { gateways.contains(hoa) && gateways.way(to: hoa) == nil }

    /// A packet came from an own gateway, of a source that has no entry (section 11.2, "What a receiver takes").
    public mutating func arrivedFromGateway(_ pair: HomePair, by gateway: Endpoint, now: Now) -> [NodeAction] {
        let hoa = pair.peer
        if peers[hoa] == nil, hoa.address.isUsableUnicast, !isOwn(hoa.address), homes[pair.own] != nil, !gateways.contains(hoa),
            ownGateways(of: pair.own).contains(where: { $0.key.server == gateway })
        {
            perform(
                gateways.enter(
                    hoa, own: pair.own, .gateway, hasArrived: true, lifetime: GatewayDestinations.idleMax, offer(pair.own, .gateway, gateway),
                    now.monotonic), now)
        }
        return endEvent()
    }

    /// It is a MAT node: no gateway's any more.
    mutating func leaveGateway(_ hoa: HomeAddress, _ now: Now) {
        if gateways.contains(hoa) { perform(gateways.forget(hoa), now) }
    }

    // MARK: What changes

    /// Bindings, own addresses or servers are others.
    mutating func gatewaysChanged(_ now: Now) {
        for own in homes.keys.sorted() {
            let endpoints = isAtHome(own) ? [] : ownGateways(of: own).map(\.key.server)
            guard endpoints != gatewaysAccepted[own, default: []] else { continue }
            gatewaysAccepted[own] = endpoints
            change(.acceptGateways(own, from: endpoints))
            for pair in gateways.pairs(of: own) where gateways.way(to: pair.peer) != nil { change(.accept(pair, from: endpoints)) }
            let text = endpoints.map(\.description).joined(separator: ", ")
            log(.notice, endpoints.isEmpty ? "\(own) has no gateway to plain hosts any more" : "gateway of \(own) to plain hosts: \(text)")
        }
        guard !gateways.isEmpty else { return }
        // An offer depends on nothing that changes here.
        let core = self
        perform(gateways.offered({ core.offer($0, $1, $2) }, now.monotonic), now)
    }

    mutating func gatewaysDue(_ now: Now) { perform(gateways.takeDue(now.monotonic), now) }

    private mutating func perform(_ actions: [GatewayDestinations.Action], _ now: Now) {
        for action in actions {
            switch action {
            case .set(let pair, let way):
                change(.accept(pair, from: gatewaysAccepted[pair.own, default: []]))
                change(.setOutbound(pair, Carriage(.relayed(own: way.own, relay: way.relay))))
            case .hold(let pair): change(.removeOutbound(pair))
            case .remove(let pair):
                change(.removeOutbound(pair))
                change(.accept(pair, from: []))
            case .release(let hoa):
                flushChanges()
                emit(.releaseOutbound(to: hoa.address))
            case .goPlain(let hoa, let lifetime):
                log(.info, "there is no gateway for \(hoa): it is talked to plainly, and would not survive a move")
                change(.setPlain(hoa.address, lifetime: lifetime))
                flushChanges()
                emit(.releaseOutbound(to: hoa.address))
            case .lookUp(let hoa): lookUp(hoa, for: .destination, now)
            }
        }
        if let due = gateways.due { deadlines.set(.gateways, at: due) } else { deadlines.cancel(.gateways) }
    }

    // MARK: What people see

    /// How a plain host is reached, in words; `nil` if a gateway has nothing to do with it.
    func plainExplanation(_ hoa: HomeAddress) -> String? {
        if let way = gateways.way(to: hoa) {
            let seen = way.isTranslated ? "with source translation" : "as \(home(for: hoa).map(\.description) ?? "the home address")"
            return "it is a plain host, talked to by the gateway \(way.relay) \(seen): it goes on when this node moves"
        }
        if gateways.contains(hoa) { return "it is a plain host, and its packets wait for a gateway" }
        guard destinations.isPlain(hoa) else { return nil }
        switch configuration.plain.way(to: hoa.address) {
        case .none: return "it is a plain host, talked to without a gateway (plain: none): it would not survive a move"
        case .gateway, .sourceNAT: return "it is a plain host, and there was no gateway for it: it would not survive a move"
        }
    }
}
