import MATCore
import MATSignal

/// The peers to whom some way leads that rewriting can't take.
struct EndpointTable: Sendable {
    /// Peers with endpoints, of the whole node. Beyond them a peer is reached by rewriting alone.
    static let peersMax = 16_384

    private var peers: PeerMachines<PeerEndpoints>
    private var asked = AskedPeers()
    /// Whose ways are in use.
    private(set) var watched: Set<HomeAddress> = []

    init(peersMax: Int) { peers = PeerMachines(peersMax: peersMax) }

    subscript(hoa: HomeAddress) -> PeerEndpoints? { peers[hoa] }

    var isEmpty: Bool { peers.isEmpty }
    /// In order.
    var hoas: [HomeAddress] { peers.hoas }

    /// Tells a peer's paths.
    ///
    /// - Returns: what follows; nothing if the peer has no paths.
    mutating func tell(_ hoa: HomeAddress, _ event: (inout PeerEndpoints) -> [PeerEndpoints.Action]) -> [PeerEndpoints.Action] {
        change(hoa, event) ?? []
    }

    /// Likewise, for a peer that may have had none.
    mutating func enter(_ hoa: HomeAddress, _ event: (inout PeerEndpoints) -> [PeerEndpoints.Action]) -> [PeerEndpoints.Action] {
        change(hoa, enters: true, event) ?? []
    }

    /// Tells a peer's paths something that nothing follows from.
    mutating func update(_ hoa: HomeAddress, _ event: (inout PeerEndpoints) -> Void) { _ = change(hoa, event) }

    private mutating func change<Answer>(_ hoa: HomeAddress, enters: Bool = false, _ event: (inout PeerEndpoints) -> Answer) -> Answer? {
        let before = peers[hoa]?.sequences ?? []
        let answer = peers.tell(hoa, enters: enters, event)
        asked.replace(before, by: peers[hoa]?.sequences ?? [], of: hoa)
        if peers[hoa]?.isWatched ?? false { watched.insert(hoa) } else { watched.remove(hoa) }
        return answer
    }

    mutating func remove(_ hoa: HomeAddress) {
        asked.replace(peers[hoa]?.sequences ?? [], by: [], of: hoa)
        watched.remove(hoa)
        peers.remove(hoa)
    }

    /// What the kernel sends from one own MoA it sends from another now.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) { peers.tellAll { $0.installedMoved(from: from.address, to: to.address) } }

    /// The peer that a probe of this sequence went to.
    func peer(asked sequence: UInt32) -> HomeAddress? { asked[sequence] }

    var nextDue: MonotonicTime? {
        mutating get { peers.nextDue }
    }

    /// The peer whose paths have something due.
    mutating func takeDue(_ now: MonotonicTime) -> HomeAddress? { peers.takeDue(now) }
}
