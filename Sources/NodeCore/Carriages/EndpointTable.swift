import MATCore
import MATSignal

/// The peers to whom some way leads that rewriting can't take. Most peers have none, so they stand apart from `PeerTable`.
///
/// Deadlines of all of them stand in one queue.
struct EndpointTable: Sendable {
    /// Peers with endpoints, of the whole node. Beyond them a peer is reached by rewriting alone.
    static let peersMax = 16_384

    private let peersMax: Int
    private var peers: [HomeAddress: PeerEndpoints] = [:]
    private var deadlines = DeadlineQueue<HomeAddress>()
    /// Whose probes have this sequence.
    private var sequences: [UInt32: HomeAddress] = [:]
    /// Whose ways are in use.
    private(set) var watched: Set<HomeAddress> = []

    init(peersMax: Int) { self.peersMax = peersMax }

    subscript(hoa: HomeAddress) -> PeerEndpoints? { peers[hoa] }

    var isEmpty: Bool { peers.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { peers.keys.sorted() }

    /// Whether there is room for one more.
    func hasRoom(for hoa: HomeAddress) -> Bool { peers[hoa] != nil || peers.count < peersMax }

    /// Tells a peer's paths, and sets their clock.
    ///
    /// - Returns: what follows; nothing if the peer has no paths.
    mutating func tell(_ hoa: HomeAddress, _ event: (inout PeerEndpoints) -> [PeerEndpoints.Action]) -> [PeerEndpoints.Action] {
        guard let paths = peers[hoa] else { return [] }
        return change(paths, of: hoa, event)
    }

    /// Likewise, for a peer that may have had none.
    mutating func enter(_ hoa: HomeAddress, _ event: (inout PeerEndpoints) -> [PeerEndpoints.Action]) -> [PeerEndpoints.Action] {
        guard hasRoom(for: hoa) else { return [] }
        return change(peers[hoa] ?? PeerEndpoints(), of: hoa, event)
    }

    private mutating func change(
        _ paths: PeerEndpoints, of hoa: HomeAddress, _ event: (inout PeerEndpoints) -> [PeerEndpoints.Action]
    ) -> [PeerEndpoints.Action] {
        var paths = paths
        let before = paths.sequences
        peers[hoa] = nil
        let actions = event(&paths)
        let after = paths.sequences
        if after != before {
            for sequence in before { sequences[sequence] = nil }
            for sequence in after { sequences[sequence] = hoa }
        }
        if paths.isWatched { watched.insert(hoa) } else { watched.remove(hoa) }
        guard !paths.isEmpty else {
            deadlines.cancel(hoa)
            return actions
        }
        peers[hoa] = paths
        if let due = paths.due { deadlines.set(hoa, at: due) } else { deadlines.cancel(hoa) }
        return actions
    }

    mutating func remove(_ hoa: HomeAddress) {
        for sequence in peers[hoa]?.sequences ?? [] { sequences[sequence] = nil }
        peers[hoa] = nil
        watched.remove(hoa)
        deadlines.cancel(hoa)
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) {
        for hoa in hoas { peers[hoa]?.installedMoved(from: from.address, to: to.address) }
    }

    /// The peer that a probe of this sequence went to.
    func peer(asked sequence: UInt32) -> HomeAddress? { sequences[sequence] }

    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    /// The peer whose paths have something due.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { deadlines.takeDue(now) }
}
