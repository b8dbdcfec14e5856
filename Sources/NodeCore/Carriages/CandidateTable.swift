import MATCore
import MATSignal

/// The peers that may be in the network that we are in. Few are, so they stand apart.
struct CandidateTable: Sendable {
    /// Of the whole node. Beyond them a peer is reached by the paths that it has.
    static let peersMax = 1024

    private let peersMax: Int
    private var peers: [HomeAddress: PeerCandidates] = [:]
    private var deadlines = DeadlineQueue<HomeAddress>()
    /// Whose probes have this sequence.
    private var sequences: [UInt32: HomeAddress] = [:]

    init(peersMax: Int) { self.peersMax = peersMax }

    subscript(hoa: HomeAddress) -> PeerCandidates? { peers[hoa] }

    var isEmpty: Bool { peers.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { peers.keys.sorted() }

    /// The other peer that packets from there are taken for already.
    func other(than hoa: HomeAddress, at moa: MobileAddress) -> HomeAddress? {
        peers.filter { $0.key != hoa && $0.value.installedSources.contains(moa) }.keys.min()
    }

    func peer(asked sequence: UInt32) -> HomeAddress? { sequences[sequence] }

    /// Tells a peer's candidates, and sets their clock.
    mutating func tell<Answer>(_ hoa: HomeAddress, enters: Bool = false, _ event: (inout PeerCandidates) -> Answer) -> Answer? {
        guard var candidates = peers[hoa] ?? (enters && peers.count < peersMax ? PeerCandidates() : nil) else { return nil }
        let before = candidates.sequences
        let answer = event(&candidates)
        for sequence in before { sequences[sequence] = nil }
        for sequence in candidates.sequences { sequences[sequence] = hoa }
        guard !candidates.isEmpty else {
            peers[hoa] = nil
            deadlines.cancel(hoa)
            return answer
        }
        peers[hoa] = candidates
        if let due = candidates.due { deadlines.set(hoa, at: due) } else { deadlines.cancel(hoa) }
        return answer
    }

    mutating func remove(_ hoa: HomeAddress) {
        for sequence in peers[hoa]?.sequences ?? [] { sequences[sequence] = nil }
        peers[hoa] = nil
        deadlines.cancel(hoa)
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) {
        for hoa in hoas { peers[hoa]?.installedMoved(from: from, to: to) }
    }

    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { deadlines.takeDue(now) }
}
