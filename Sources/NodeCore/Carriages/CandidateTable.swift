import MATCore
import MATSignal

/// The peers that may be in the network that we are in.
struct CandidateTable: Sendable {
    /// Of the whole node. Beyond them a peer is reached by the paths that it has.
    static let peersMax = 1024

    private var peers: PeerMachines<PeerCandidates>
    private var asked = AskedPeers()

    init(peersMax: Int) { peers = PeerMachines(peersMax: peersMax) }

    subscript(hoa: HomeAddress) -> PeerCandidates? { peers[hoa] }

    var isEmpty: Bool { peers.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { peers.hoas }

    /// The other peer that packets from there are taken for already.
    func other(than hoa: HomeAddress, at moa: MobileAddress) -> HomeAddress? {
        peers.hoas { $0.installedSources.contains(moa) }.first { $0 != hoa }
    }

    /// The peer that a probe of this sequence went to.
    func peer(asked sequence: UInt32) -> HomeAddress? { asked[sequence] }

    /// Tells a peer's candidates.
    ///
    /// - Parameter enters: it may have had none.
    /// - Returns: `nil` if it has none.
    mutating func tell<Answer>(_ hoa: HomeAddress, enters: Bool = false, _ event: (inout PeerCandidates) -> Answer) -> Answer? {
        let before = peers[hoa]?.sequences ?? []
        let answer = peers.tell(hoa, enters: enters, event)
        asked.replace(before, by: peers[hoa]?.sequences ?? [], of: hoa)
        return answer
    }

    mutating func remove(_ hoa: HomeAddress) {
        asked.replace(peers[hoa]?.sequences ?? [], by: [], of: hoa)
        peers.remove(hoa)
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) { peers.tellAll { $0.installedMoved(from: from, to: to) } }

    var nextDue: MonotonicTime? {
        mutating get { peers.nextDue }
    }

    /// The peer whose candidates have something due.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { peers.takeDue(now) }
}
