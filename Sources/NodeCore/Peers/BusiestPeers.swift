import IMTPlan
import MATSignal

/// The peers with the most packets lately: those to ask first when someone may have moved.
struct BusiestPeers: Sendable {
    /// So many are remembered. With no more peers than this all of them are asked.
    static let countMax = 64
    /// So many are asked because of one packet of an unknown source.
    static let askedMax = 8

    /// The busiest first, then those that came since the packets were counted.
    private(set) var peers: [HomeAddress] = []
    /// Of these, and, while there is room, of those that were among them.
    private var answers: [HomeAddress: RecentAnswers] = [:]

    /// `nil` if it is none of the busiest, or its packets have not been counted yet.
    func answers(of hoa: HomeAddress) -> RecentAnswers? { answers[hoa].flatMap { $0.isEmpty ? nil : $0 } }

    /// A new peer is as likely as any.
    mutating func entered(_ hoa: HomeAddress) {
        if peers.count < Self.countMax { peers.append(hoa) }
    }

    /// The kernel counted the packets of all peers.
    ///
    /// - Returns: those with packets since.
    mutating func counted(
        _ packets: some Sequence<(key: HomeAddress, value: PeerPackets)>, in peers: inout PeerTable, now: MonotonicTime
    ) -> [HomeAddress] {
        var busy = Count()
        var used: [HomeAddress] = []
        for (hoa, count) in packets {
            guard case let new?? = peers.update(hoa, { $0.counted(count.sum, now: now) }) else { continue }
            used.append(hoa)
            busy.add(new, of: hoa, counted: count)
        }
        replace(by: busy)
        return used
    }

    /// The packets of all peers were counted. While there were none, those of before count.
    mutating func replace(by count: Count) {
        guard !count.isEmpty else { return }
        let order = count.inOrder
        peers = order.map(\.hoa)
        for entry in order {
            // A peer that has just begun is known as a whole.
            let before = entry.packets == entry.counted.sum ? PeerPackets() : entry.counted
            answers[entry.hoa, default: RecentAnswers(after: before)].counted(entry.counted)
        }
        if answers.count > Self.countMax {
            let busy = Set(peers)
            answers = answers.filter { busy.contains($0.key) }
        }
    }

    /// The peers that may have moved to a stranger's address, the likeliest first: those whose IMS has not answered within the last second.
    func suspects(for moa: MobileAddress, in table: PeerTable, now: MonotonicTime) -> [HomeAddress] {
        let some = table.count <= Self.countMax ? table.slots.compactMap { table[$0] } : peers.compactMap { table[$0] }
        return some.filter { $0.hoa.family == moa.family && now - $0.refreshed > .seconds(1) }
            .sorted { ($1.lastTraffic, $0.hoa) < ($0.lastTraffic, $1.hoa) }.prefix(Self.askedMax).map(\.hoa)
    }

    /// A walk over all peers, of which only the busiest are kept.
    struct Count {
        fileprivate typealias Entry = (packets: UInt64, hoa: HomeAddress, counted: PeerPackets)
        private var entries: [Entry] = []

        var isEmpty: Bool { entries.isEmpty }
        fileprivate var inOrder: [Entry] { entries.sorted(by: Self.isBusier) }

        /// - Parameters:
        ///   - packets: since the last count.
        ///   - counted: so far.
        mutating func add(_ packets: UInt64, of hoa: HomeAddress, counted: PeerPackets = PeerPackets()) {
            let entry = (packets: packets, hoa: hoa, counted: counted)
            guard entries.count >= BusiestPeers.countMax else {
                entries.append(entry)
                return
            }
            guard let least = entries.indices.max(by: { Self.isBusier(entries[$0], entries[$1]) }), Self.isBusier(entry, entries[least]) else {
                return
            }
            entries[least] = entry
        }

        /// The order does not depend on the one in which the kernel counts.
        private static func isBusier(_ a: Entry, _ b: Entry) -> Bool { (b.packets, a.hoa) < (a.packets, b.hoa) }
    }
}
