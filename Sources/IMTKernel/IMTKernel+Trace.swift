import Glibc
import IMTPlan
import MATSignal

// What the kernel has for one peer, looked up when somebody asks (`mat trace`): not what this process believes.

/// An element that the kernel should have.
public struct TracedEntry: Hashable, Sendable {
    /// What it does, in words.
    public var purpose: String
    /// Where it stands: "ip mat out_3".
    public var place: String
    public var isThere: Bool
}

/// What the kernel does with a packet, as `ip route get` says.
public struct TracedRoute: Hashable, Sendable {
    public var table: UInt32 = 0
    public var interface: String?
    public var gateway: IPAddress?
    /// Why there is none.
    public var failure: String?
}

extension IMTKernel {
    /// How packets between the pair are carried, as the kernel was told; `nil` if it was told nothing.
    public func carriage(of pair: HomePair) -> Carriage? { tables.model.carriage(pair) }

    /// - Parameter locators: where the peer sends from, as its record says.
    public func traceEntries(of pair: HomePair, locators: [MobileAddress]) throws(KernelError) -> [TracedEntry] {
        guard let table = tables.families.first(where: { $0.family == pair.own.family }) else { return [] }
        let model = tables.model
        var wanted: [(purpose: String, set: String, key: [UInt8])] = []
        let both = pair.own.address.packetOctets + pair.peer.address.packetOctets
        if let departure = model.entries[pair] {
            let path = model.paths[departure.path]
            let from = path.map { "\($0.moa)" } ?? "?"
            wanted.append(("packets leave as \(from) -> \(departure.peer)", TranslationRuleset.out(departure.path), pair.peer.address.packetOctets))
            wanted.append(("by the path from \(from)", TranslationRuleset.paths, TranslationModel.octets(departure.path)))
        }
        if model.encapsulated[pair] != nil { wanted.append(("packets go into datagrams", TranslationRuleset.encapsulated, both)) }
        for locator in locators where model.inbound(Arrival(peer: locator, own: pair.own)) == pair.peer {
            wanted.append(("packets from \(locator) are its", TranslationRuleset.into(pair.own), locator.address.packetOctets))
        }
        let places = wanted.map { ElementPlace(table: table, set: $0.set, key: $0.key) }
        let found = Dictionary(
            try tables.socket.elements(places, operation: "look up the entries of \(pair.peer)").map { ($0.index, $0.element) },
            uniquingKeysWith: { first, _ in first })
        var result = wanted.enumerated().map { index, entry in
            let expected = model.element(entry.key, of: entry.set, family: pair.own.family, homes: configuration.homeAddresses)
            let isThere = found[index].map { expected == nil || $0.data == expected?.data || expected?.data.isEmpty == true } ?? false
            return TracedEntry(purpose: entry.purpose, place: "\(table.title) \(entry.set)", isThere: isThere)
        }
        if model.encapsulated[pair] != nil, let forwarding, let entry = forwarding.entry(of: pair), let way = entry.way {
            result.append(TracedEntry(purpose: "the kernel sends them from \(way.own) to \(way.far)", place: "program peers", isThere: true))
        }
        return result
    }

    /// Asks the kernel where a packet of this host's would go.
    ///
    /// - Parameter source: of a socket that is bound to it; `nil` of one that is not.
    /// - Parameter isOwn: whether the agent sends it, which the routes never capture.
    public func traceRoute(to destination: IPAddress, from source: IPAddress?, isOwn: Bool) throws(KernelError) -> TracedRoute {
        try routes.lookUp(destination, from: source, mark: isOwn ? configuration.mark : 0, names: linkTables.links.mapValues(\.name))
    }

    /// Whether a table is one of this agent's.
    public func isOwn(table: UInt32) -> Bool { table == configuration.routingTable || installed.hasRoutes(in: [table]) }
}
