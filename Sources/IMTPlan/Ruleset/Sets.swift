import MATSignal

// The sets and maps of a family's table: their names, which the rules, the agent's elements and `nft list` share, and their bounds.
extension TranslationRuleset {
    package static let tableName = "mat"
    /// How the names of tables begin by which `mat capture` sees packets. They change nothing.
    package static let captureTables = "mat_capture_"

    /// Peers' entries; a node's own bound (`NodeCoreConfiguration.peersMax`) lies below it.
    static let peersMax: UInt32 = 131_072

    /// Peers whose packets are encapsulated.
    static let encapsulatedMax: UInt32 = peersMax

    /// A peer may have several MoAs, and packets from all of them are accepted.
    package static let arrivalsMax: UInt32 = 262_144

    static let pathsMax: UInt32 = 64

    /// Own MoAs that rules compare with one by one. More of them are looked up.
    static let ownConstantsMax = 8
    package static let plainSourcesMax: UInt32 = 16_384
    package static let locatorsMax: UInt32 = 256

    /// Own MoAs that went away.
    static let retiredMax: UInt32 = 64

    /// This host's addresses, of each family. Those beyond are questioned like MoAs.
    package static let knownMax: UInt32 = 4096

    static let forgottenMax: UInt32 = 16_384
    package static let plainFlowsMax: UInt32 = 32_768

    /// How long an untranslated flow that this host began may pause before its answers count as new.
    static let plainFlowMilliseconds: UInt64 = 180_000

    /// Likewise for a peer to whose MoA such a flow began, and for its TCP connections until they end. Longer than the usual
    /// keep-alive of two hours (RFC 5382, REQ-5), because what comes for a forgotten connection would be translated and reset it.
    package static let plainPeerMilliseconds: UInt64 = 7_440_000

    static let plainConnectionMilliseconds: UInt64 = 432_000_000

    /// From an end of a connection's FIN or RST on: it may speak on in the other direction. A connection that begins meanwhile with the same
    /// ports, between HoAs, ends it (`plain_ends`).
    static let plainEndMilliseconds: UInt64 = 600_000

    package static let paths = "paths", own = "own", homes = "homes", mapped = "mapped", encapsulated = "encapsulated", plainSources = "plain_sources"
    package static let retired = "retired", known = "known", forgotten = "forgotten"
    package static let plainPeers = "plain_peers", plainFlows = "plain_flows", peerFlows = "peer_flows", plainEnds = "plain_ends"
    package static let passedFlows = "passed_flows"
    package static let alwaysPlainChain = "always_plain", sourceNAT = "source_nat"
    package static func out(_ path: UInt32) -> String { "out\(path)" }

    /// nft's names have letters, digits, dots and underscores.
    package static func into(_ own: HomeAddress) -> String { name("in", own.address) }

    static func begun(_ own: HomeAddress) -> String { name("begun", own.address) }

    static func toPeer(_ own: MobileAddress) -> String { name("to_peer", own.address) }

    static func arrived(_ own: HomeAddress) -> String { name("arrived", own.address) }

    package static func name(_ prefix: String, _ address: IPAddress) -> String {
        prefix + "_" + address.description.split(separator: ":", omittingEmptySubsequences: false).joined(separator: "_")
    }

    /// Whether the agent decides what is in a set, rather than packets.
    package static func isDecided(_ set: String) -> Bool {
        ![plainPeers, plainFlows, passedFlows, peerFlows, plainEnds, plainConnections, published, waiting, lately, notFound, confirming].contains(set)
    }

    // MARK: Definitions

    // By which the steps that change a set name it, beside its name: the kernel wants both.
    static let plainPeersID: UInt32 = 6, plainFlowsID: UInt32 = 7, peerFlowsID: UInt32 = 9, plainEndsID: UInt32 = 103

    var width: UInt32 { UInt32(family.addressOctets) }

    /// nft's type numbers: ipv4_addr 7, ipv6_addr 8, inet_proto 12, inet_service 13, mark 19.
    var addressType: UInt32 { family == .ipv4 ? 7 : 8 }

    var markType: UInt32 { 19 }
    var pairType: UInt32 { addressType << 6 | addressType }

    var sets: [SetDefinition] {
        // What each path is. No packet looks here: it is what the next agent learns of them after a crash.
        let paths = SetDefinition(
            name: Self.paths, flags: SetDefinition.mapFlag, identifier: 8, keyType: markType, keyBytes: 4, dataType: pairType,
            dataBytes: 2 * width, size: Self.pathsMax)
        let own = SetDefinition(
            name: Self.own, flags: SetDefinition.mapFlag, identifier: 3, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.locatorsMax)
        let addresses = SetDefinition(
            name: Self.homes, flags: 0, identifier: 4, keyType: addressType, keyBytes: width, size: Self.locatorsMax)
        let homes = addresses
        // Own HoA and peer's of every entry, for rules that only want to know: a look-up in a path's map would count as a packet sent.
        let mapped = SetDefinition(
            name: Self.mapped, flags: 0, identifier: 15, keyType: pairType, keyBytes: 2 * width, size: Self.peersMax)
        // Likewise of the peers whose packets go into our device to be encapsulated. Dynamic, so that it takes room as it grows: most nodes
        // have none.
        let encapsulated = SetDefinition(
            name: Self.encapsulated, flags: SetDefinition.growingFlag, identifier: 105, keyType: pairType, keyBytes: 2 * width,
            size: Self.encapsulatedMax)
        var returning = own
        (returning.name, returning.identifier, returning.size) = (Self.retired, 100, Self.retiredMax)
        var known = addresses
        (known.name, known.identifier, known.size) = (Self.known, 101, Self.knownMax)
        var forgotten = addresses
        (forgotten.name, forgotten.identifier, forgotten.size) = (Self.forgotten, 102, Self.forgottenMax)
        var plain = addresses
        plain.name = Self.plainSources
        plain.identifier = 5
        plain.size = Self.plainSourcesMax
        // Flows that this host began untranslated, as their answers will look: those to others, by their addresses, ...
        let flows = flows(Self.plainFlows, identifier: Self.plainFlowsID, size: Self.plainFlowsMax)
        // ... and those to peers' MoAs, by the peers' HoA, with the MoAs that they began between: either side may move meanwhile,
        // and its answers come between other MoAs then.
        let peers = SetDefinition(
            name: Self.plainPeers, flags: SetDefinition.dynamicFlags, identifier: Self.plainPeersID, keyType: addressType, keyBytes: width,
            size: Self.plainFlowsMax)
        let peerFlows = SetDefinition(
            name: Self.peerFlows, flags: SetDefinition.dynamicMapFlags, identifier: Self.peerFlowsID,
            keyType: addressType << 18 | 12 << 12 | 13 << 6 | 13, keyBytes: width + 12, dataType: pairType, dataBytes: 2 * width,
            size: Self.plainFlowsMax)
        // Those of them that have seen a FIN or RST: their ports may be another connection's by now.
        let ends = SetDefinition(
            name: Self.plainEnds, flags: SetDefinition.dynamicFlags, identifier: Self.plainEndsID, keyType: peerFlows.keyType,
            keyBytes: peerFlows.keyBytes, size: Self.plainFlowsMax)
        return [paths, own, homes, mapped, encapsulated, returning, known, forgotten, plain, peers, flows, peerFlows, ends] + strangerSets
            + homeAddresses.enumerated().map { into($1, identifier: 16 + UInt32($0)) }
            + familyPaths.map { out($0.number) }
    }

    // Peers' maps are dynamic, so that they take room as they grow. Otherwise their tables would have all their places from the start, and the kernel
    // walks through all places of a map for each rule it is given that looks there (`nf_tables_bind_set`), in the middle of a move.

    /// The peers of one path.
    func out(_ path: UInt32) -> SetDefinition {
        SetDefinition(
            name: Self.out(path), flags: SetDefinition.growingMapFlags, identifier: 128 + path, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.peersMax, counts: true)
    }

    /// Who sends to this HoA.
    func into(_ own: HomeAddress, identifier: UInt32) -> SetDefinition {
        SetDefinition(
            name: Self.into(own), flags: SetDefinition.growingMapFlags, identifier: identifier, keyType: addressType, keyBytes: width,
            dataType: addressType, dataBytes: width, size: Self.arrivalsMax, counts: true)
    }
}
