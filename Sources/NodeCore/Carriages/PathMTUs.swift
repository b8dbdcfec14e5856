import IMTPlan
import MATCore
import MATSignal

/// The sizes of the paths that packets travel in datagrams over. Peers behind one endpoint, as the hosts of a mobile network are, share one; behind a
/// relay each has a path of its own, whose other half nobody else's packets take.
struct PathMTUs: Sendable {
    struct Key: Hashable, Sendable {
        let own: Endpoint
        let far: Endpoint
        /// Of a relayed path.
        let peer: HomeAddress?
    }

    enum Action: Hashable, Sendable {
        /// A probe of that size is to go to this peer over the path, and a small one behind it.
        case ask(HomeAddress, Key, UInt32)
        /// These peers' packets may have another size than before.
        case changed([HomeAddress])
    }

    private struct Path: Sendable {
        var mtu = PathMTU()
        var peers: Set<HomeAddress> = []
    }

    /// Of the whole node; packets on others are as large as every path carries.
    static let pathsMax = 16_384

    private let pathsMax: Int
    private var paths: [Key: Path] = [:]
    private var keys: [HomeAddress: Key] = [:]
    /// Packets of each peer so far, when its use was last told.
    private var counts: [HomeAddress: UInt64] = [:]
    private var deadlines = DeadlineQueue<Key>()

    init(pathsMax: Int) { self.pathsMax = pathsMax }

    // MARK: Questions

    subscript(key: Key) -> PathMTU? { paths[key]?.mtu }

    /// The path that a peer's packets take.
    func key(of hoa: HomeAddress) -> Key? { keys[hoa] }

    var count: Int { paths.count }

    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    // MARK: Events

    /// A peer's packets take this path.
    ///
    /// - Parameter packets: to and from it so far.
    mutating func use(_ key: Key, by hoa: HomeAddress, packets: UInt64 = 0, _ now: MonotonicTime) -> [Action] {
        if keys[hoa] != key { remove(hoa) }
        guard paths[key] != nil || paths.count < pathsMax else { return [] }
        keys[hoa] = key
        paths[key, default: Path()].peers.insert(hoa)
        let before = counts.updateValue(packets, forKey: hoa) ?? packets
        return tell(key) { $0.use(packets: packets < before ? packets : packets - before, now) }
    }

    /// Something says that full packets to a peer are lost.
    mutating func doubt(_ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] { keys[hoa].map { tell($0) { $0.doubt(now) } } ?? [] }

    /// A probe was answered that went to a peer between these endpoints.
    mutating func answered(_ size: UInt32, by hoa: HomeAddress, from own: Endpoint, to far: Endpoint, sentAt: MonotonicTime, _ now: MonotonicTime)
        -> [Action]
    {
        guard let key = keys[hoa], key.own == own, key.far == far else { return [] }
        return tell(key) { $0.answered(size, sentAt: sentAt, now) }
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        guard let key = deadlines.takeDue(now) else { return [] }
        return tell(key) { $0.takeDue(now) }
    }

    /// A peer's packets take no such path any more.
    mutating func remove(_ hoa: HomeAddress) {
        counts[hoa] = nil
        guard let key = keys.removeValue(forKey: hoa) else { return }
        paths[key]?.peers.remove(hoa)
        guard paths[key]?.peers.isEmpty ?? true else { return }
        paths[key] = nil
        deadlines.cancel(key)
    }

    private mutating func tell(_ key: Key, _ event: (inout PathMTU) -> [PathMTU.Action]) -> [Action] {
        guard var path = paths[key] else { return [] }
        let actions = event(&path.mtu)
        paths[key] = path
        if let due = path.mtu.due { deadlines.set(key, at: due) } else { deadlines.cancel(key) }
        return actions.compactMap { action in
            switch action {
            case .ask(let size): path.peers.min().map { .ask($0, key, size) }
            case .changed: .changed(path.peers.sorted())
            }
        }
    }
}
