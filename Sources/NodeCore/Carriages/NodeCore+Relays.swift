import MATCore
import MATSignal

// Relays: those of the own HoAs, at which a node behind translators is bound all the time so that peers reach it there (protocol.md sections 11.3
// and 11.5).

extension NodeCore {
    // MARK: Own relays

    /// The relays of an own HoA: those that the configuration names, then those that the DNS does.
    func ownRelays(of hoa: HomeAddress) -> [RelayHost] {
        // What a mobile network's hosts send is not encapsulated.
        guard let home = homes[hoa], !home.isNetwork else { return [] }
        var relays: [RelayHost] = []
        for relay in configuration.relays + (home.servers?.relays ?? []) where relays.count < OwnBindings.relaysMax {
            // One that is named twice is one.
            if !relays.contains(where: { !Set($0.endpoints).isDisjoint(with: relay.endpoints) }) { relays.append(relay) }
        }
        return relays
    }

    func isOwnRelay(_ endpoint: Endpoint) -> Bool { homes.keys.contains { ownRelays(of: $0).contains { $0.endpoints.contains(endpoint) } } }

    /// Whether others may not reach the HoA but by what it has opened: its first MoA is translated, filtered or not yet seen by anybody, or there
    /// is no address that IPv4 hosts reach.
    private func needsRelays(_ hoa: HomeAddress) -> Bool {
        guard let first = desiredLocators(of: hoa).first else { return false }
        if !addresses.ordered.contains(where: { $0.moa.family == .ipv4 }) { return true }
        return ownEndpoints.listing(of: first, for: hoa.family, servers: homes[hoa]?.servers?.endpoints ?? []) != .moa
    }

    /// The relays to be bound at, each at the address that the preferred MoA reaches.
    var neededRelays: [OwnBindings.Key: MobileAddress] {
        var needed: [OwnBindings.Key: MobileAddress] = [:]
        for hoa in homes.keys where needsRelays(hoa) || wantsGateways(hoa) {
            for relay in ownRelays(of: hoa) {
                guard let way = heldWay(to: relay, of: hoa) ?? way(to: relay.endpoints) else { continue }
                needed[OwnBindings.Key(hoa: hoa, server: way.server)] = way.moa
            }
        }
        return needed
    }

    /// The address of a relay at which there is a binding, if the preferred MoA's link has one of its family: at another address of the relay what
    /// comes and goes by this one would wait until that is granted.
    private func heldWay(to relay: RelayHost, of hoa: HomeAddress) -> (server: Endpoint, moa: MobileAddress)? {
        guard let server = relay.endpoints.first(where: { bindings.isGranted(OwnBindings.Key(hoa: hoa, server: $0)) }) else { return nil }
        let usable = addresses.ordered.filter { !uplinks.isDead($0.moa) }
        return usable.first { $0.moa.family == server.family && $0.interface == usable.first?.interface }.map { (server, $0.moa) }
    }

    /// The first of a server's addresses that the preferred MoA reaches.
    private func way(to server: [Endpoint]) -> (server: Endpoint, moa: MobileAddress)? {
        let usable = addresses.ordered.map(\.moa)
        for moa in usable.filter({ !uplinks.isDead($0) }) + usable.filter(uplinks.isDead) {
            if let endpoint = server.first(where: { $0.family == moa.family }) { return (endpoint, moa) }
        }
        return nil
    }

    /// The addresses of the relays at which a HoA is bound, for its record (protocol.md section 11.1, kind 2).
    func listedRelays(of hoa: HomeAddress) -> [Endpoint] {
        guard homes[hoa]?.registration.takesNoRelays == false else { return [] }
        let bound = ownRelays(of: hoa).filter { relay in
            relay.endpoints.contains { bindings.isGranted(OwnBindings.Key(hoa: hoa, server: $0)) }
        }
        // An IMS takes no others beside endpoints.
        return Array(bound.flatMap(\.endpoints).filter { $0.address.scope == .global }.prefix(MappingRecord.relaysMax))
    }

    /// A server has answered a Bind, or has not.
    mutating func relayBindingEnded(_ key: OwnBindings.Key, _ now: Now) {
        guard isOwnRelay(key.server) else { return }
        listRelays(of: key.hoa, now)
        gatewaysChanged(now)
    }

    // MARK: What people see

    func relayStates() -> [NodeStatus.RelayState] {
        let needed = neededRelays
        return homes.keys.sorted().flatMap { hoa in
            ownRelays(of: hoa).map { relay in
                let key = needed.keys.first { $0.hoa == hoa && relay.endpoints.contains($0.server) }
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
        return homes[hoa]?.registration.takesNoRelays == true ? .unlisted : .bound
    }

    /// Has the record say at which relays the HoA is bound, if that has changed. What is under way goes first.
    mutating func listRelays(of hoa: HomeAddress, _ now: Now) {
        guard let home = homes[hoa], home.registration.isRegistered, home.registration.signer.relays != listedRelays(of: hoa) else { return }
        let relays = listedRelays(of: hoa).map(\.description).joined(separator: ", ")
        log(.notice, relays.isEmpty ? "\(hoa) is bound at no relay any more" : "\(hoa) is bound at the relay \(relays)")
        homes[hoa]?.announcement.owe()
        register(hoa, now)
    }
}
