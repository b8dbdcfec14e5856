import Glibc
import IMTPlan
import KernelPrograms
import MATSignal

/// What the programs at the links know of direct peers: the maps of Sources/KernelPrograms/Programs/rewriting.h, which follow the tables' model.
///
///     departures   own HoA, peer's HoA -> path, peer's MoA     arrivals   peer's MoA, own HoA -> peer's HoA
///     paths        number -> own MoA                           uses       what each pair's packets were, by slot
///
/// They never hold what nftables does not: what goes is taken away before its transaction, what comes is written after it.
final class KernelRewriting {
    /// As many as nftables' maps hold.
    static let pairsMax = 131_072, arrivalsMax = 262_144

    private let settings: KernelMap, paths: KernelMap, uses: KernelMap
    private let departures: FamilyPair<KernelMap>, arrivals: FamilyPair<KernelMap>
    /// Of `uses`.
    private let memory: KernelMemory
    /// By the names that the programs have for them.
    let maps: [String: KernelMap]

    private var known: RewritingEntries.Settings?
    private var knownPaths: [UInt32: (current: Int, addresses: [IPAddress])] = [:]
    /// Kept when a pair's entries go: its counts are asked for later too.
    private var slots: [HomePair: UInt32] = [:]
    private var slotsUsed: UInt32 = 0
    /// Of pairs that are no more.
    private var free: [UInt32] = []

    /// - Parameter map: makes a map, or takes over an earlier process's.
    init(_ map: (KernelMap.Shape) throws(ProgramError) -> KernelMap) throws(ProgramError) {
        settings = try map(.init(.array, "rewriting", keyOctets: 4, valueOctets: RewritingEntries.settingsOctets, entriesMax: 1))
        paths = try map(
            .init(.array, "paths", keyOctets: 4, valueOctets: RewritingEntries.pathOctets, entriesMax: RewritingEntries.pathsMax))
        uses = try map(.init(.array, "uses", keyOctets: 4, valueOctets: Self.words * 8, entriesMax: Self.pairsMax, isInMemory: true))
        memory = try KernelMemory(uses)
        func hash(_ name: String, _ family: AddressFamily, _ octets: Int, _ most: Int) throws(ProgramError) -> KernelMap {
            try map(
                .init(
                    .hash, "\(name)\(family == .ipv4 ? 4 : 6)", keyOctets: 2 * family.addressOctets, valueOctets: octets, entriesMax: most,
                    growsAsNeeded: true))
        }
        departures = FamilyPair(
            ipv4: try hash("departures", .ipv4, RewritingEntries.departureOctets, Self.pairsMax),
            ipv6: try hash("departures", .ipv6, RewritingEntries.departureOctets, Self.pairsMax))
        arrivals = FamilyPair(
            ipv4: try hash("arrivals", .ipv4, RewritingEntries.arrivalOctets, Self.arrivalsMax),
            ipv6: try hash("arrivals", .ipv6, RewritingEntries.arrivalOctets, Self.arrivalsMax))
        maps = [
            "rewriting": settings, "paths": paths, "uses": uses, "departures4": departures.ipv4, "departures6": departures.ipv6,
            "arrivals4": arrivals.ipv4, "arrivals6": arrivals.ipv6,
        ]
        try adopt()
    }

    /// Learns which counters an earlier process has given to whom.
    private func adopt() throws(ProgramError) {
        for family in AddressFamily.allCases {
            try departures[family].forEach { key, value in
                guard let (own, peer) = RewritingEntries.addresses(key), let slot = RewritingEntries.slot(value), slot < Self.pairsMax else { return }
                slots[HomePair(own: HomeAddress(own), peer: HomeAddress(peer))] = slot
            }
            try arrivals[family].forEach { key, value in
                guard let (_, own) = RewritingEntries.addresses(key), let slot = RewritingEntries.slot(value), slot < Self.pairsMax,
                    let peer = RewritingEntries.peer(ofArrival: value, family)
                else { return }
                slots[HomePair(own: HomeAddress(own), peer: peer)] = slot
            }
        }
        slotsUsed = slots.values.max().map { $0 + 1 } ?? 0
    }

    // MARK: Settings

    /// Packets from these HoAs are the programs' from now on, and others' no more.
    func set(_ wanted: RewritingEntries.Settings) throws(ProgramError) {
        guard wanted != known else { return }
        try settings.set(nativeOctets(UInt32(0)), wanted.encode())
        known = wanted
    }

    // MARK: Entries

    /// What these changes take away or replace, before nftables' transaction. Packets that arrive meet nftables' rules until `write`.
    func withdraw(_ changes: [IMTChange]) throws(ProgramError) {
        for change in changes {
            switch change {
            case .setOutbound(let pair, let carriage):
                if carriage.way.endpoints != nil { try departures[pair.own.family].remove(RewritingEntries.key(pair)) }
            case .removeOutbound(let pair): try departures[pair.own.family].remove(RewritingEntries.key(pair))
            case .setInbound(let moa, let pair): try withdraw(Arrival(peer: moa, own: pair.own))
            case .removeInbound(let moa, let own): try withdraw(Arrival(peer: moa, own: own))
            default: break
            }
        }
    }

    private func withdraw(_ arrival: Arrival) throws(ProgramError) {
        try arrivals[arrival.own.family].remove(RewritingEntries.key(arrival))
    }

    /// What the tables say of these, after their transaction.
    func write(_ model: TranslationModel, _ touched: TouchedKeys) throws(ProgramError) {
        if free.isEmpty, Int(slotsUsed) + touched.homes.count + touched.arrivals.count > Self.pairsMax { reclaimSlots(model) }
        try writePaths(model)
        for pair in touched.homes { if let departure = model.entries[pair] { try write(pair, departure) } }
        for arrival in touched.arrivals { if let peer = model.entries[arrival] { try write(arrival, peer) } }
    }

    /// Likewise of everything; nothing else is left.
    func writeAll(_ model: TranslationModel) throws(ProgramError) {
        for family in AddressFamily.allCases {
            let (out, into) = (departures[family], arrivals[family])
            for key in out.keys() {
                let pair = key.withUnsafeBytes { RewritingEntries.addresses($0) }
                if let (own, peer) = pair, model.entries[HomePair(own: HomeAddress(own), peer: HomeAddress(peer))] != nil { continue }
                try out.remove(key)
            }
            for key in into.keys() {
                let pair = key.withUnsafeBytes { RewritingEntries.addresses($0) }
                if let (moa, own) = pair, model.entries[Arrival(peer: MobileAddress(moa), own: HomeAddress(own))] != nil { continue }
                try into.remove(key)
            }
        }
        try writePaths(model)
        for (pair, departure) in model.entries.departures { try write(pair, departure) }
        for (arrival, peer) in model.entries.arrivals { try write(arrival, peer) }
    }

    private func writePaths(_ model: TranslationModel) throws(ProgramError) {
        for (number, path) in model.paths.sorted(by: { $0.key < $1.key }) where number < RewritingEntries.pathsMax {
            let moa = path.moa.address
            guard var entry = knownPaths[number] else {
                try setPath(number, 0, [moa, moa])
                continue
            }
            guard entry.addresses[entry.current] != moa else { continue }
            // First the address that no packet looks at, then which of them counts.
            entry.addresses[1 - entry.current] = moa
            try setPath(number, entry.current, entry.addresses)
            try setPath(number, 1 - entry.current, entry.addresses)
        }
    }

    private func setPath(_ number: UInt32, _ current: Int, _ addresses: [IPAddress]) throws(ProgramError) {
        try paths.set(nativeOctets(number), RewritingEntries.path(current: UInt32(current), addresses))
        knownPaths[number] = (current, addresses)
    }

    private func write(_ pair: HomePair, _ departure: Departure) throws(ProgramError) {
        try departures[pair.own.family].set(RewritingEntries.key(pair), RewritingEntries.departure(slot: slot(of: pair), departure))
    }

    private func write(_ arrival: Arrival, _ peer: HomeAddress) throws(ProgramError) {
        let slot = try slot(of: HomePair(own: arrival.own, peer: peer))
        try arrivals[arrival.own.family].set(RewritingEntries.key(arrival), RewritingEntries.arrival(slot: slot, peer))
    }

    /// Forgets the counts of those that are no peers any more.
    private func reclaimSlots(_ model: TranslationModel) {
        let accepted = Set(model.entries.arrivals.map { HomePair(own: $0.key.own, peer: $0.value) })
        for (pair, slot) in slots where model.entries[pair] == nil && !accepted.contains(pair) {
            slots[pair] = nil
            free.append(slot)
        }
    }

    private func slot(of pair: HomePair) throws(ProgramError) -> UInt32 {
        if let known = slots[pair] { return known }
        if free.isEmpty, slotsUsed >= Self.pairsMax { throw ProgramError("count for \(pair): more than \(Self.pairsMax) peers", errno: ENOSPC) }
        let slot = free.popLast() ?? slotsUsed
        if slot == slotsUsed { slotsUsed += 1 }
        for word in 0..<Self.words { memory[Int(slot), word] = 0 }
        slots[pair] = slot
        return slot
    }

    // MARK: Uses

    /// struct use, in words of eight octets; the last one says until when there is a plain flow.
    private static let plainWord = 4, words = 5

    /// As nftables counts them.
    func counts() -> [HomePair: PeerCounters] {
        slots.compactMapValues { slot in
            let counts = counts(slot)
            return counts.packetsOut == 0 && counts.packetsIn == 0 ? nil : counts
        }
    }

    func counts(of pair: HomePair) -> PeerCounters? { slots[pair].map { counts($0) } }

    private func counts(_ slot: UInt32) -> PeerCounters {
        let slot = Int(slot)
        return PeerCounters(packetsOut: memory[slot, 0], packetsIn: memory[slot, 2], octetsOut: memory[slot, 1], octetsIn: memory[slot, 3])
    }

    /// Peers of whom the programs take it that there is a plain flow with one of their MoAs.
    var withPlainFlows: [HomePair] { slots.filter { memory[Int($0.value), Self.plainWord] != 0 }.map(\.key) }

    func hasPlainFlows(_ pair: HomePair) -> Bool { slots[pair].map { memory[Int($0), Self.plainWord] != 0 } ?? false }

    /// Leaves what arrives from this peer to nftables, for as long as its set has it, or not.
    func set(_ pair: HomePair, plain: Bool) throws(ProgramError) {
        let slot = try slot(of: pair)
        guard plain != (memory[Int(slot), Self.plainWord] != 0) else { return }
        memory[Int(slot), Self.plainWord] = plain ? .max : 0
    }
}
