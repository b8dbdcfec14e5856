import IMTPlan
import MATCore
import MATSignal

/// What a running node takes of a changed configuration; the rest of `NodeCoreConfiguration` stays as at its start.
public struct NodeReconfiguration: Hashable, Sendable {
    public var preferredInterfaces: [String]
    public var peerPreferences: [PeerPreference]
    public var namedPrefixes: [IPPrefix]
    public var relays: [RelayHost]
    public var plain: PlainPolicy

    public init(
        preferredInterfaces: [String], peerPreferences: [PeerPreference], namedPrefixes: [IPPrefix], relays: [RelayHost], plain: PlainPolicy
    ) {
        self.preferredInterfaces = preferredInterfaces
        self.peerPreferences = peerPreferences
        self.namedPrefixes = namedPrefixes
        self.relays = relays
        self.plain = plain
    }
}

extension NodeCoreConfiguration {
    mutating func take(_ fresh: NodeReconfiguration) {
        preferredInterfaces = fresh.preferredInterfaces
        peerPreferences = fresh.peerPreferences
        namedPrefixes = fresh.namedPrefixes
        relays = fresh.relays
        plain = fresh.plain
    }
}

extension NodeCore {
    /// The configuration is another. What follows is what would follow if links or a person had changed the same: handovers with overlap, peers'
    /// traffic by other own addresses, bindings at other relays. Plain hosts that are talked to stay on their way; a new one goes as is said now.
    public mutating func reconfigure(_ fresh: NodeReconfiguration, now: Now) -> [NodeAction] {
        let (before, relaysBefore) = (preferences, configuration.relays)
        configuration.take(fresh)
        addresses.order(by: fresh.preferredInterfaces)
        preferences.configure(fresh.peerPreferences)
        destinations.name(fresh.namedPrefixes)
        arrangeAgain(now)
        if configuration.peerPreferences != before.configured {
            let others = peers.slots.compactMap { peers[$0]?.hoa }.filter { before.interfaces(for: $0) != preferences.interfaces(for: $0) }
            for peer in others {
                paths.endDetour(of: peer)
                switchPeer(peer, now)
            }
        }
        holdBindings(now)
        if fresh.relays != relaysBefore {
            carryAnew(Set(homes.keys.map(\.family)), now)
            for hoa in homes.keys.sorted() { listRelays(of: hoa, now) }
        }
        gatewaysChanged(now)
        runPaths(now)
        return endEvent()
    }
}

extension NodeCores {
    mutating func reconfigure(_ fresh: NodeReconfiguration, now: Now) -> [Step] {
        take(fresh)
        return decideAll { core, _ in core.reconfigure(fresh, now: now) }
    }
}

extension Node {
    /// - Parameter rules: which of this host's addresses are used.
    package mutating func reconfigure(_ fresh: NodeReconfiguration, _ rules: AddressRules, now: Now) -> [ShellAction] {
        let steps = actions(cores.reconfigure(fresh, now: now), now)
        guard let links = addresses.change(rules) else { return steps }
        return steps + linksChanged(links, now: now)
    }
}
