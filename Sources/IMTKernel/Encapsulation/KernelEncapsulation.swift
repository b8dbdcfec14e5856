import Glibc
import IMTPlan
import KernelPrograms
import MATSignal

/// Packets in datagrams by the kernel alone: the programs on our device and on links, and the maps that tell them whose packets go where.
///
///     device, egress  ── depart ──► a link        what these do not take comes to `Encapsulator`, by the same ways as without them
///     links, ingress  ── arrive ──► device
///
/// Everything is pinned: a killed agent leaves it working, and the next one takes it over. Which packets are whose is the table's to say
/// (`EncapsulationTable`); here it is written down for the kernel.
final class KernelEncapsulation {
    /// Peers that the programs know; those beyond are the agent's.
    static let peersMax = 16_384
    /// Goes into the names of what is pinned: other versions' maps have another layout.
    private static let version = 2

    /// Of one direction's program on one interface.
    private struct Tie: Hashable {
        var interface: UInt32
        var direction: ProgramPlace.Direction
        /// As it was tied for.
        var hardware: UInt16
    }

    private let directory: ProgramDirectory
    private let ways: [ProgramPlace.Way]
    private let settings: KernelMap, peers4: KernelMap, peers6: KernelMap, counters: KernelMap, drops: KernelMap
    /// Of `counters`.
    private let memory: KernelMemory
    private let depart: KernelProgram, arrive: KernelProgram, arriveBare: KernelProgram
    /// What direct peers' packets are rewritten by, at the same links; `nil` if nftables does it.
    let rewriting: KernelRewriting?
    private let translate: KernelProgram?, translateBare: KernelProgram?
    private var places: [Tie: ProgramPlace] = [:]
    private var device: UInt32 = 0
    /// Of the agent's own datagrams, and of packets that programs have taken out of others.
    private let mark: UInt32, unwrappedMark: UInt32
    private var ports: Set<UInt16> = []
    /// What the maps hold.
    private var written: [HomePair: ForwardingEntry] = [:]
    /// Of each peer with a way: where that leads, and what was counted when it began.
    private var bases: [HomePair: (far: Endpoint, sent: UInt64, heard: UInt64)] = [:]
    private var free: [UInt32] = []
    private var slotsUsed: UInt32 = 0

    /// Of peers that are no more, as `Encapsulator` keeps those of its own.
    private var carried: [HomePair: PeerCounters] = [:]
    private static let carriedMax = 4096

    // MARK: Life

    static func directory(_ configuration: IMTConfiguration) -> String {
        "\(configuration.programDirectory)/\(ProgramDirectory.networkNamespace)-\(configuration.deviceName)"
    }

    /// Loads the programs, or the reason why this kernel, or this process, can't have them. Nothing is tied to a link yet.
    init(_ configuration: IMTConfiguration) throws(ProgramError) {
        (mark, unwrappedMark) = (configuration.mark, configuration.unwrappedMark)
        ways = configuration.usesClassifiers ? [.classifier] : [.link, .classifier]
        let directory = try ProgramDirectory(Self.directory(configuration))
        self.directory = directory
        func map(_ shape: KernelMap.Shape) throws(ProgramError) -> KernelMap {
            let name = "\(shape.name)-\(Self.version)"
            if let old = KernelMap(shape, pinnedAt: directory.path(of: name)) { return old }
            directory.remove(name)
            let map = try KernelMap(shape)
            try map.pin(at: directory.path(of: name))
            return map
        }
        settings = try map(.init(.array, "settings", keyOctets: 4, valueOctets: 16 + 8192, entriesMax: 1))
        peers4 = try map(
            .init(.hash, "peers4", keyOctets: 8, valueOctets: ForwardingEntry.octets, entriesMax: Self.peersMax, growsAsNeeded: true))
        peers6 = try map(
            .init(.hash, "peers6", keyOctets: 32, valueOctets: ForwardingEntry.octets, entriesMax: Self.peersMax, growsAsNeeded: true))
        counters = try map(.init(.array, "counters", keyOctets: 4, valueOctets: Self.words * 8, entriesMax: Self.peersMax, isInMemory: true))
        memory = try KernelMemory(counters)
        drops = try map(.init(.array, "drops", keyOctets: 4, valueOctets: 8, entriesMax: 1))
        rewriting = configuration.dataPlane == .bpf ? try KernelRewriting(map) : nil
        let maps = ["settings": settings, "peers4": peers4, "peers6": peers6, "counters": counters, "drops": drops]
            .merging(rewriting?.maps ?? [:], uniquingKeysWith: { first, _ in first })
        let rewrites = rewriting != nil
        depart = try KernelProgram(EncapsulationPrograms.depart, maps: maps)
        arrive = try KernelProgram(rewrites ? EncapsulationPrograms.deliver : EncapsulationPrograms.arrive, maps: maps)
        arriveBare = try KernelProgram(rewrites ? EncapsulationPrograms.deliverBare : EncapsulationPrograms.arriveBare, maps: maps)
        translate = rewrites ? try KernelProgram(EncapsulationPrograms.translate, maps: maps) : nil
        translateBare = rewrites ? try KernelProgram(EncapsulationPrograms.translateBare, maps: maps) : nil
        try adopt()
    }

    /// Reads what an earlier process had told the programs, and keeps it.
    private func adopt() throws(ProgramError) {
        for map in [peers4, peers6] {
            try map.forEach { key, value in
                guard let pair = ForwardingEntry.pair(key), let entry = ForwardingEntry(value) else { return }
                written[pair] = entry
            }
        }
        let taken = Set(written.values.map(\.slot))
        slotsUsed = min(taken.max().map { $0 &+ 1 } ?? 0, UInt32(Self.peersMax))
        free = (0..<slotsUsed).filter { !taken.contains($0) }
    }

    /// Ties the programs to our device and to those links, and takes them off others.
    /// - Returns: links that they can't be tied to, with the reasons: what comes by these is the agent's.
    func place(device: UInt32, links: [UInt32: LinkState]) throws(ProgramError) -> [ProgramError] {
        if device != self.device {
            self.device = device
            try writeSettings()
        }
        var wanted: [Tie] = [Tie(interface: device, direction: .egress, hardware: 0xFFFE)]
        for (index, link) in links.sorted(by: { $0.key < $1.key }) {
            guard link.hardware == KernelValues.hardwareEthernet || KernelValues.hardwareBare.contains(link.hardware) else { continue }
            wanted.append(Tie(interface: index, direction: .ingress, hardware: link.hardware))
            if rewriting != nil { wanted.append(Tie(interface: index, direction: .egress, hardware: link.hardware)) }
        }
        for tie in places.keys where !wanted.contains(tie) { places.removeValue(forKey: tie)?.detach() }
        var failures: [ProgramError] = []
        for tie in wanted {
            if let place = places[tie], place.isThere { continue }
            places[tie] = nil
            guard let program = program(tie) else { continue }
            do throws(ProgramError) {
                places[tie] = try ProgramPlace(
                    program, to: tie.interface, tie.direction, pinnedAt: directory.path(of: Self.pin(tie.interface, tie.direction)), ways: ways)
            } catch {
                if tie.interface == device { throw error }
                // A link that has just gone.
                if error.errno != ENODEV { failures.append(error) }
            }
        }
        return failures
    }

    func isTied(to interface: UInt32) -> Bool { places.keys.contains { $0.interface == interface } }

    private func program(_ tie: Tie) -> KernelProgram? {
        let isEthernet = tie.hardware == KernelValues.hardwareEthernet
        switch tie.direction {
        case .ingress: return isEthernet ? arrive : arriveBare
        case .egress: return tie.interface == device ? depart : isEthernet ? translate : translateBare
        }
    }

    /// Links, of these, at both ends of which direct peers' packets are rewritten.
    func rewritingLinks(among links: some Sequence<UInt32>) -> [UInt32] {
        guard rewriting != nil else { return [] }
        let tied = Dictionary(grouping: places.filter { $0.value.isThere }.keys, by: \.interface)
        return links.filter { tied[$0]?.count == 2 }.sorted()
    }

    /// How the programs are tied to our device; `nil` if they are not.
    var way: ProgramPlace.Way? { places.first { $0.key.direction == .egress && $0.key.interface == device }?.value.way }

    private static func pin(_ interface: UInt32, _ direction: ProgramPlace.Direction) -> String {
        "\(direction == .egress ? "depart" : "arrive")-\(interface)"
    }

    /// Takes everything away.
    func remove(links: some Collection<UInt32>) {
        for place in places.values { place.detach() }
        places = [:]
        Self.remove(directory.path, links: links)
    }

    /// Takes away what an earlier process has left.
    static func removeLeftovers(_ configuration: IMTConfiguration, links: some Collection<UInt32>) {
        remove(directory(configuration), links: links)
    }

    private static func remove(_ path: String, links: some Collection<UInt32>) {
        // Nothing was ever pinned here, and so nothing tied to links.
        guard access(path, F_OK) == 0, let directory = try? ProgramDirectory(path) else { return }
        for link in links {
            for direction in [ProgramPlace.Direction.ingress, .egress] {
                ProgramPlace.detachLeftovers(from: link, direction, pinnedAt: directory.path(of: pin(link, direction)))
            }
        }
        directory.removeAll()
    }

    // MARK: Settings

    func set(ports: Set<UInt16>) throws(ProgramError) {
        guard ports != self.ports else { return }
        self.ports = ports
        try writeSettings()
    }

    private func writeSettings() throws(ProgramError) {
        // Not before it is known where packets go.
        guard device != 0 else { return }
        var bits = [UInt64](repeating: 0, count: 1024)
        for port in ports { bits[Int(port >> 6)] |= 1 << UInt64(port & 63) }
        let numbers = [device, mark, unwrappedMark, 0].flatMap { nativeOctets($0) }
        try settings.set(nativeOctets(UInt32(0)), numbers + bits.flatMap { nativeOctets($0) })
    }

    // MARK: Peers

    private func map(_ pair: HomePair) -> KernelMap { pair.own.isIPv4 ? peers4 : peers6 }

    /// Pairs that the programs know.
    var pairs: some Collection<HomePair> { written.keys }

    func entry(of pair: HomePair) -> ForwardingEntry? { written[pair] }

    /// Tells the programs of a peer; they see the change as a whole.
    ///
    /// - Parameter asks: whether its next packet is to go to the agent, once for each change: one that has just begun learns of the peer by it.
    func set(_ pair: HomePair, _ way: ForwardingEntry.Way?, accepted: [Endpoint], asks: Bool = false) throws(ProgramError) {
        guard way != nil || !accepted.isEmpty else { return try remove(pair) }
        let old = written[pair]
        guard let slot = old?.slot ?? takeSlot() else { return }
        var entry = ForwardingEntry(slot: slot, way: way, accepted: accepted)
        entry.asks = asks && way != nil
        guard entry != old else { return }
        if let old {
            // Which endpoint is which in the counters is about to change.
            if old.accepted != accepted { renumber(slot, old.accepted, accepted) }
        } else {
            for word in 0..<Self.words { memory[Int(slot), word] = 0 }
            if let counts = carried.removeValue(forKey: pair) {
                let numbers = [counts.packetsOut, counts.octetsOut, counts.packetsIn, counts.octetsIn]
                for (word, number) in numbers.enumerated() { memory[Int(slot), word] = number }
            }
        }
        if let far = way?.far, far != bases[pair]?.far { bases[pair] = (far, memory[Int(slot), 0], heard(entry, far)) }
        do throws(ProgramError) {
            try map(pair).set(ForwardingEntry.key(pair), entry.encode())
            written[pair] = entry
        } catch {
            if old == nil { free.append(slot) } else { try? remove(pair) }
            throw error
        }
    }

    func remove(_ pair: HomePair) throws(ProgramError) {
        guard let old = written[pair] else { return }
        if carried.count < Self.carriedMax { carried[pair] = counts(slot: old.slot) }
        try map(pair).remove(ForwardingEntry.key(pair))
        (written[pair], bases[pair]) = (nil, nil)
        free.append(old.slot)
    }

    private func takeSlot() -> UInt32? {
        if let slot = free.popLast() { return slot }
        guard slotsUsed < Self.peersMax else { return nil }
        slotsUsed += 1
        return slotsUsed - 1
    }

    // MARK: Counters

    /// struct counters, in words of eight octets: packets and octets out, packets and octets in, and packets from each accepted endpoint.
    private static let firstHeard = 4, words = firstHeard + EncapsulationTable.endpointsMax

    /// Packets of the system's making, in octets of the packets: those that the hardware or another link cuts up are counted as they leave it.
    func counts() -> [HomePair: PeerCounters] {
        written.reduce(into: carried) { result, peer in result[peer.key] = counts(slot: peer.value.slot) }
    }

    func counts(of pair: HomePair) -> PeerCounters? { written[pair].map { counts(slot: $0.slot) } }

    private func counts(slot: UInt32) -> PeerCounters {
        let slot = Int(slot)
        return PeerCounters(packetsOut: memory[slot, 0], packetsIn: memory[slot, 2], octetsOut: memory[slot, 1], octetsIn: memory[slot, 3])
    }

    /// What a peer's present way, which leads there, has carried as far as the programs saw it: they take packets in also where the agent sends them
    /// out. `nil` for a peer that they don't know.
    func use(of pair: HomePair, to far: Endpoint) -> PathUse? {
        guard let entry = written[pair] else { return nil }
        let (sent, heard) = (memory[Int(entry.slot), 0], heard(entry, far))
        if bases[pair]?.far != far { bases[pair] = (far, sent, heard) }
        let base = bases[pair] ?? (far, 0, 0)
        return PathUse(pair, far: far, sent: sent &- base.sent, heard: heard &- base.heard, came: memory[Int(entry.slot), 2])
    }

    private func heard(_ entry: ForwardingEntry, _ far: Endpoint) -> UInt64 {
        entry.accepted.firstIndex(of: far).map { memory[Int(entry.slot), Self.firstHeard + $0] } ?? 0
    }

    /// Of packets that came with the network's mark of congestion for a sender that knows nothing of it.
    var congested: UInt64 {
        drops.value(of: nativeOctets(UInt32(0)))?.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) } ?? 0
    }

    /// Keeps what is known of endpoints that stay, at their new places. What comes in between is counted for another at worst.
    private func renumber(_ slot: UInt32, _ old: [Endpoint], _ new: [Endpoint]) {
        let before = old.indices.map { memory[Int(slot), Self.firstHeard + $0] }
        for place in 0..<EncapsulationTable.endpointsMax {
            let from = new.indices.contains(place) ? old.firstIndex(of: new[place]) : nil
            memory[Int(slot), Self.firstHeard + place] = from.map { before[$0] } ?? 0
        }
    }
}
