import MATSignal

/// The peers with the most packets lately: those to ask first when someone may have moved.
struct BusiestPeers: Sendable {
    /// So many are remembered. With no more peers than this all of them are asked.
    static let countMax = 64
    /// So many are asked because of one packet of an unknown source.
    static let askedMax = 8

    /// The busiest first, then those that came since the packets were counted.
    private(set) var peers: [HomeAddress] = []

    /// A new peer is as likely as any.
    mutating func entered(_ hoa: HomeAddress) {
        if peers.count < Self.countMax { peers.append(hoa) }
    }

    /// The packets of all peers were counted. While there were none, those of before count.
    mutating func replace(by count: Count) {
        guard !count.isEmpty else { return }
        peers = count.inOrder
    }

    /// A walk over all peers, of which only the busiest are kept.
    struct Count {
        private typealias Entry = (packets: UInt64, hoa: HomeAddress)
        private var entries: [Entry] = []

        var isEmpty: Bool { entries.isEmpty }
        var inOrder: [HomeAddress] { entries.sorted(by: Self.isBusier).map(\.hoa) }

        mutating func add(_ packets: UInt64, of hoa: HomeAddress) {
            let entry = (packets: packets, hoa: hoa)
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
