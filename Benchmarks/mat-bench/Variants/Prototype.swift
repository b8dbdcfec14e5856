import IMTKernel
import IMTPlan
import MATSignal

/// Translations that the product does not use, bare: hooks, look-ups and writes, no more, through the product's own nftables
/// writer. What they lack (ICMP errors, signalling, strangers) is the point: they show what each piece costs.
enum PrototypeKind: String, CaseIterable {
    /// Two base chains without a rule: what it costs to be called.
    case hooks
    /// Both addresses written from constants: no look-up.
    case fixed
    /// Maps of pairs, the first design: own HoA . peer HoA : own MoA . peer MoA.
    case pairs
    /// A map for the source and one for the destination.
    case split
    /// The peer's address from a map, the own one a constant.
    case bare
    /// `pairs` with a counter per element.
    case counted
    /// `pairs` without mending checksums: possible where HoA and MoA have equal one's-complement sums.
    case neutral
    /// `pairs` in the links' ingress and egress hooks.
    case netdev

    /// IPv6 interface identifiers can be chosen; IPv4 addresses can't.
    func works(isIPv4: Bool) -> Bool { self != .neutral || !isIPv4 }
}

final class Prototype: Installed {
    static let tableName = "mat_bench"

    let ends: Ends
    private let network: BenchNetwork
    private let homes: (mn: IPAddress, cn: IPAddress)

    init(_ network: BenchNetwork, _ kind: PrototypeKind, isIPv4: Bool) throws {
        self.network = network
        homes =
            kind == .neutral
            ? (Plan.address("2001:db8:a::6a"), Plan.address("2001:db8:b::6a")) : (Plan.mnHoA(isIPv4), Plan.cnHoA(isIPv4))
        ends = kind == .hooks ? .moas(isIPv4) : .between(homes.mn, homes.cn)
        let moas = (mn: Plan.mnMoA(isIPv4), cn: Plan.cnMoA(isIPv4))
        do {
            let mn = PrototypeTable(kind: kind, own: homes.mn, ownMoA: moas.mn, peer: homes.cn, peerMoA: moas.cn)
            let cn = PrototypeTable(kind: kind, own: homes.cn, ownMoA: moas.cn, peer: homes.mn, peerMoA: moas.mn)
            for (host, table, gateway) in [(network.mn, mn, 1), (network.cn, cn, 2)] {
                let via = isIPv4 ? "10.71.\(gateway).1" : "2001:db8:71:\(gateway)::1"
                try host.ip("addr add \(table.own) dev lo")
                try host.ip("route add \(table.peer) via \(via) src \(table.own)")
                if kind == .netdev { try host.run("nft -f -", input: PrototypeTable.netdevChains) }
                try onThread {
                    try host.enter()
                    try table.install()
                }
            }
        } catch {
            remove()
            throw error
        }
    }

    func remove() {
        let length = homes.mn.isIPv4 ? 32 : 128
        for (host, own, peer) in [(network.mn, homes.mn, homes.cn), (network.cn, homes.cn, homes.mn)] {
            for family in ["ip", "ip6", "netdev"] { _ = try? host.run("nft delete table \(family) \(Self.tableName)") }
            _ = try? host.ip("route del \(peer)/\(length)")
            _ = try? host.ip("addr del \(own)/\(length) dev lo")
        }
    }
}

/// One host's table.
struct PrototypeTable {
    var kind: PrototypeKind
    var own: IPAddress
    var ownMoA: IPAddress
    var peer: IPAddress
    var peerMoA: IPAddress

    static let entriesMax: UInt32 = 131_072
    /// The product's writer has no need of a device in a chain, so nft makes these two.
    static let netdevChains = """
        table netdev \(Prototype.tableName) {
            chain translate { type filter hook egress device eth0 priority 0; policy accept; }
            chain deliver { type filter hook ingress device eth0 priority 0; policy accept; }
        }

        """

    private var isIPv4: Bool { own.isIPv4 }
    private var width: UInt32 { isIPv4 ? 4 : 16 }
    private let r0 = Register(0)
    private var r1: Register { Register(width / 4) }
    private var source: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 12 : 8, length: width) }
    private var destination: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 16 : 24, length: width) }
    private var pair: HeaderField { HeaderField(base: .network, offset: isIPv4 ? 12 : 8, length: 2 * width) }

    private var checksum: ChecksumRepair {
        if kind == .neutral { return .none }
        return isIPv4 ? .internet(offset: 10, pseudoHeader: true) : .pseudoHeader
    }
    private var write: [Expression] { [.write(pair, from: r0, checksum: checksum), .verdict(.accept)] }

    init(kind: PrototypeKind, own: IPAddress, ownMoA: IPAddress, peer: IPAddress, peerMoA: IPAddress) {
        self.kind = kind
        self.own = own
        self.ownMoA = ownMoA
        self.peer = peer
        self.peerMoA = peerMoA
    }

    /// Rules of the way out and the way in, and the maps they use with their one entry each.
    private var program: (out: [[Expression]], into: [[Expression]], maps: [(name: String, key: [UInt8], data: [UInt8])]) {
        let home = (own: own.packetOctets, peer: peer.packetOctets)
        let mobile = (own: ownMoA.packetOctets, peer: peerMoA.packetOctets)
        switch kind {
        case .hooks: return ([], [], [])
        case .fixed:
            return (
                [
                    [.load(source, into: r0), .compare(r0, .equal, home.own), .immediate(mobile.own, into: r0), .immediate(mobile.peer, into: r1)]
                        + write
                ],
                [
                    [.load(source, into: r0), .compare(r0, .equal, mobile.peer), .immediate(home.peer, into: r0), .immediate(home.own, into: r1)]
                        + write
                ], []
            )
        case .pairs, .counted, .neutral, .netdev:
            return (
                [[.load(pair, into: r0), .lookup(set: "out", key: r0, into: r0)] + write],
                [[.load(pair, into: r0), .lookup(set: "in", key: r0, into: r0)] + write],
                [("out", home.own + home.peer, mobile.own + mobile.peer), ("in", mobile.peer + mobile.own, home.peer + home.own)]
            )
        case .split:
            func both(_ first: String, _ second: String) -> [[Expression]] {
                [
                    [
                        .load(source, into: r0), .lookup(set: first, key: r0, into: r0), .load(destination, into: r1),
                        .lookup(set: second, key: r1, into: r1),
                    ] + write
                ]
            }
            return (
                both("own_out", "peer_out"), both("peer_in", "own_in"),
                [
                    ("own_out", home.own, mobile.own), ("peer_out", home.peer, mobile.peer), ("peer_in", mobile.peer, home.peer),
                    ("own_in", mobile.own, home.own),
                ]
            )
        case .bare:
            return (
                [[.load(destination, into: r1), .lookup(set: "out", key: r1, into: r1), .immediate(mobile.own, into: r0)] + write],
                [[.load(source, into: r0), .lookup(set: "in", key: r0, into: r0), .immediate(home.own, into: r1)] + write],
                [("out", home.peer, mobile.peer), ("in", mobile.peer, home.peer)]
            )
        }
    }

    /// Puts the table into the calling thread's namespace.
    func install() throws {
        let (out, into, maps) = program
        let addressType: UInt32 = isIPv4 ? 7 : 8
        let sets = maps.enumerated().map { index, map in
            let isPair = map.key.count > Int(width)
            let type = isPair ? addressType << 6 | addressType : addressType
            return SetDefinition(
                name: map.name, flags: SetDefinition.mapFlag, identifier: UInt32(index + 1), keyType: type,
                keyBytes: UInt32(map.key.count), dataType: type, dataBytes: UInt32(map.data.count), size: Self.entriesMax,
                counts: kind == .counted)
        }
        let chains = [
            ChainDefinition(name: "translate", hook: .init(type: "filter", number: 4, priority: 310), rules: out),
            ChainDefinition(name: "deliver", hook: .init(type: "filter", number: 0, priority: -310), rules: into),
        ]
        var table = TableDefinition(family: isIPv4 ? .ipv4 : .ipv6, name: Prototype.tableName, sets: sets, chains: chains)
        if kind == .netdev { table.nfProtocol = 5 }
        let socket = try NetlinkSocket.nftables()
        var batch = NFTBatch(firstSequence: socket.nextSequence)
        if kind != .netdev { batch.add(table: table) }
        for set in sets { batch.add(set: set, to: table) }
        if kind != .netdev { for chain in chains { batch.add(chain: chain, to: table) } }
        for map in maps { batch.add([SetElement(key: map.key, data: map.data)], to: map.name, of: table) }
        for chain in chains {
            for rule in chain.rules { batch.add(rule: rule, to: chain.name, of: table) }
        }
        try batch.seal().commit(on: socket, operation: "install the prototype \(kind.rawValue)")
    }
}
