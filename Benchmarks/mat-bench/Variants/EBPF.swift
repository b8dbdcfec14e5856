import Glibc
import MATSignal
import Namespaces

/// How the eBPF data plane hangs in the kernel, and what of nftables is there beside it.
enum EBPFKind: String, CaseIterable {
    /// Filters of a clsact qdisc, as every kernel from 4.5 has them.
    case clsact = "ebpf"
    /// BPF links of the tcx kind, from 6.6.
    case tcx = "ebpf-tcx"
    /// `clsact`, and the two hooks that nftables would need for everything the program leaves alone.
    case beside = "ebpf-hooks"
}

/// The product's translation of TCP and UDP by programs on the hosts' links.
final class EBPF: Installed {
    private static let link = "eth0"
    private static let pathsMax: UInt32 = 64, locatorsMax: UInt32 = 256

    let ends: Ends
    private let network: BenchNetwork
    private let isIPv4: Bool
    private var attachments: [Int32] = []

    /// - Parameter peers: entries on each host, the other host among them.
    init(_ network: BenchNetwork, _ kind: EBPFKind, peers: Int, isIPv4: Bool) throws {
        self.network = network
        self.isIPv4 = isIPv4
        ends = .hoas(isIPv4)
        do {
            for (host, own, ownMoA, peer, peerMoA, number) in hosts {
                // A route may name the address at once only if nothing looks for duplicates of it first.
                try host.ip("addr add \(own) dev lo\(isIPv4 ? "" : " nodad")")
                let gateway = isIPv4 ? "10.71.\(number).1" : "2001:db8:71:\(number)::1"
                try host.ip("route add \(peer) via \(gateway) src \(own)")
                attachments += try onThread {
                    try host.enter()
                    if kind == .beside {
                        try PrototypeTable(kind: .hooks, own: own, ownMoA: ownMoA, peer: peer, peerMoA: peerMoA).install()
                    }
                    return try Self.attach(kind, own: own, ownMoA: ownMoA, peer: peer, peerMoA: peerMoA, peers: peers)
                }
            }
        } catch {
            remove()
            throw error
        }
    }

    func remove() {
        for attachment in attachments { close(attachment) }
        attachments = []
        for (host, own, _, peer, _, _) in hosts {
            _ = try? host.run("tc qdisc del dev \(Self.link) clsact")
            for family in ["ip", "ip6"] { _ = try? host.run("nft delete table \(family) \(Prototype.tableName)") }
            _ = try? host.ip("route del \(peer)/\(isIPv4 ? 32 : 128)")
            _ = try? host.ip("addr del \(own)/\(isIPv4 ? 32 : 128) dev lo")
        }
    }

    private var hosts: [(Namespace, IPAddress, IPAddress, IPAddress, IPAddress, Int)] {
        let mn = (home: Plan.mnHoA(isIPv4), mobile: Plan.mnMoA(isIPv4))
        let cn = (home: Plan.cnHoA(isIPv4), mobile: Plan.cnMoA(isIPv4))
        return [
            (network.mn, mn.home, mn.mobile, cn.home, cn.mobile, 1), (network.cn, cn.home, cn.mobile, mn.home, mn.mobile, 2),
        ]
    }

    /// Maps, programs and their attachment in the calling thread's namespace. The kernel keeps what a filter uses, and with tcx
    /// what the returned descriptors hold.
    private static func attach(
        _ kind: EBPFKind, own: IPAddress, ownMoA: IPAddress, peer: IPAddress, peerMoA: IPAddress, peers: Int
    ) throws -> [Int32] {
        let width = own.packetOctets.count
        let out = try BPFMap(.hash, keyOctets: 2 * width, valueOctets: 4 + width, entriesMax: PrototypeTable.entriesMax)
        let into = try BPFMap(.hash, keyOctets: 2 * width, valueOctets: width, entriesMax: PrototypeTable.entriesMax)
        let owns = try BPFMap(.hash, keyOctets: width, valueOctets: width, entriesMax: locatorsMax)
        let paths = try BPFMap(.array, keyOctets: 4, valueOctets: width, entriesMax: pathsMax)
        let path: [UInt8] = [0, 0, 0, 0]
        try paths.set(path, ownMoA.packetOctets)
        try owns.set(ownMoA.packetOctets, own.packetOctets)
        func add(_ home: IPAddress, _ mobile: IPAddress) throws {
            try out.set(own.packetOctets + home.packetOctets, path + mobile.packetOctets)
            try into.set(mobile.packetOctets + own.packetOctets, home.packetOctets)
        }
        try add(peer, peerMoA)
        for number in 1..<max(1, peers) { try add(Plan.peerHoA(own.isIPv4, number), Plan.peerMoA(own.isIPv4, number)) }

        let maps = TranslationProgram.Maps(
            out: out.descriptor, paths: paths.descriptor, own: owns.descriptor, into: into.descriptor)
        let index = try ClassifierAttachment.index(of: link)
        if kind != .tcx { try ClassifierAttachment.addPlace(on: index) }
        var held: [Int32] = []
        for (direction, name) in [(TranslationProgram.Direction.egress, "mat_leave"), (.ingress, "mat_arrive")] {
            let code = TranslationProgram(direction: direction, isIPv4: own.isIPv4, maps: maps)
            let program = try BPFProgram(name, try code.assembled())
            if kind == .tcx {
                held.append(try ClassifierAttachment.attachTCX(program, to: index, direction))
            } else {
                try ClassifierAttachment.attach(program, to: index, direction, isIPv4: own.isIPv4)
            }
        }
        // The programs hold the maps from here on.
        withExtendedLifetime((out, into, owns, paths)) {}
        return held
    }
}
