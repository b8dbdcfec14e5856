import IMTPlan
import MATCore
import MATSignal

/// What the paths that packets travel in datagrams over carry: how large ones, and whether ones without a UDP sum. Peers behind one endpoint, as the hosts of a mobile network are, share one; behind a
/// relay each has a path of its own, whose other half nobody else's packets take.
struct PathMTUs: Sendable {
    struct Key: Hashable, Sendable {
        let own: Endpoint
        let far: Endpoint
        /// Of a relayed path.
        let peer: HomeAddress?

        /// Datagrams are of IPv6, or become so before they leave: there a UDP sum may be missed.
        var isOverIPv6: Bool { own.family == .ipv6 || StandIns.isStandIn(own.address) }
    }

    enum Action: Hashable, Sendable {
        /// A probe of that size is to go to this peer over the path, and a small one behind it.
        case ask(HomeAddress, Key, UInt32)
        /// A probe is to go to this peer over the path in a datagram without a sum.
        case askWithoutSum(HomeAddress, Key)
        /// These peers' packets may have another size than before.
        case changed([HomeAddress])
        /// These peers' datagrams need a sum now, or need none any more.
        case sumsChanged([HomeAddress], Key, isNeeded: Bool)
    }

    private struct Path: Sendable {
        var mtu: PathMTU
        var sum: OuterSum
        var peers: Set<HomeAddress> = []

        init(_ former: Former?, _ now: MonotonicTime) {
            mtu = former.map { PathMTU(adopted: $0.largest, now) } ?? PathMTU()
            sum = OuterSum(isNeeded: former == nil)
        }

        /// What its machines say.
        enum Saying {
            case size(PathMTU.Action)
            case sum(OuterSum.Action)
        }
    }

    /// A way by which the kernel's programs go on sending a peer's packets for an earlier run, without sums.
    private struct Former: Sendable {
        let own: Endpoint
        let far: Endpoint
        let largest: UInt32
        /// When the kernel gives it up, if nobody has claimed it.
        let end: MonotonicTime
    }

    /// Of the whole node; packets on others are as large as every path carries.
    static let pathsMax = 16_384

    private let pathsMax: Int
    /// Sizes are looked for.
    private let asksSizes: Bool
    private var paths: [Key: Path] = [:]
    private var keys: [HomeAddress: Key] = [:]
    /// Packets of each peer so far, when its use was last told.
    private var counts: [HomeAddress: UInt64] = [:]
    private var deadlines = DeadlineQueue<Key>()
    /// Of peers whose packets have taken no path of this run yet.
    private var formerWays: [HomeAddress: Former] = [:]

    init(pathsMax: Int, asksSizes: Bool = true) { (self.pathsMax, self.asksSizes) = (pathsMax, asksSizes) }

    // MARK: Questions

    subscript(key: Key) -> PathMTU? { paths[key]?.mtu }

    /// The largest packet of a peer's for a path; `nil` if nothing is known of it.
    func largest(_ key: Key, of hoa: HomeAddress, _ now: MonotonicTime) -> UInt32? {
        paths[key]?.mtu.largest ?? formerWay(key, of: hoa, now).map { PathMTU(adopted: $0.largest, now).largest }
    }

    /// Whether a peer's datagrams on a path have to have a sum: over IPv6, where none has been seen to arrive without, by this run or an earlier one.
    func needsSum(_ key: Key, of hoa: HomeAddress, _ now: MonotonicTime) -> Bool {
        key.isOverIPv6 && paths[key]?.sum.isNeeded ?? (formerWay(key, of: hoa, now) == nil)
    }

    private func formerWay(_ key: Key, of hoa: HomeAddress, _ now: MonotonicTime) -> Former? {
        formerWays[hoa].flatMap { $0.own == key.own && $0.far == key.far && now < $0.end ? $0 : nil }
    }

    /// Likewise, and it was found out that those without do not arrive.
    func losesWithoutSum(_ key: Key) -> Bool { key.isOverIPv6 && paths[key]?.sum.isMissed ?? false }

    /// The path that a peer's packets take.
    func key(of hoa: HomeAddress) -> Key? { keys[hoa] }

    var count: Int { paths.count }

    var nextDue: MonotonicTime? {
        mutating get { deadlines.next }
    }

    // MARK: Events

    /// These ways of an earlier run go on in the kernel.
    mutating func adopt(_ ways: [HomePair: Carriage], _ now: MonotonicTime) {
        for (pair, carriage) in ways.sorted(by: { $0.key < $1.key }).prefix(pathsMax) {
            guard let (own, far) = carriage.way.endpoints, !carriage.needsSum else { continue }
            formerWays[pair.peer] = Former(own: own, far: far, largest: carriage.largest, end: now + AdoptedState.forwardedMax)
        }
    }

    /// A peer's packets take this path.
    ///
    /// - Parameter packets: to and from it so far.
    mutating func use(_ key: Key, by hoa: HomeAddress, packets: UInt64 = 0, _ now: MonotonicTime) -> [Action] {
        if keys[hoa] != key { remove(hoa) }
        guard paths[key] != nil || paths.count < pathsMax else { return [] }
        keys[hoa] = key
        let known = formerWay(key, of: hoa, now)
        formerWays[hoa] = nil
        paths[key, default: Path(known, now)].peers.insert(hoa)
        let before = counts.updateValue(packets, forKey: hoa) ?? packets
        let fresh = packets < before ? packets : packets - before
        let asksSizes = asksSizes
        return tell(key) { path in
            (asksSizes ? Self.sizes(path.mtu.use(packets: fresh, now)) : [])
                + (key.isOverIPv6 ? Self.sums(path.sum.use(packets: fresh, now)) : [])
        }
    }

    /// Something says that full packets to a peer are lost.
    mutating func doubt(_ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] {
        keys[hoa].map { tell($0) { Self.sizes($0.mtu.doubt(now)) + Self.sums($0.sum.doubt(now)) } } ?? []
    }

    /// A probe was answered that went to a peer between these endpoints.
    mutating func answered(_ size: UInt32, by hoa: HomeAddress, from own: Endpoint, to far: Endpoint, sentAt: MonotonicTime, _ now: MonotonicTime)
        -> [Action]
    {
        guard let key = keys[hoa], key.own == own, key.far == far else { return [] }
        return tell(key) { Self.sizes($0.mtu.answered(size, sentAt: sentAt, now)) }
    }

    /// Likewise, one that went in a datagram without a sum, or the one beside it.
    mutating func sumAnswered(hadSum: Bool, by hoa: HomeAddress, from own: Endpoint, to far: Endpoint, _ now: MonotonicTime) -> [Action] {
        guard let key = keys[hoa], key.own == own, key.far == far else { return [] }
        return tell(key) { path in
            guard hadSum else { return Self.sums(path.sum.answered(now)) }
            path.sum.answeredWithSum()
            return []
        }
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        guard let key = deadlines.takeDue(now) else { return [] }
        return tell(key) { Self.sizes($0.mtu.takeDue(now)) + Self.sums($0.sum.takeDue(now)) }
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

    private static func sizes(_ actions: [PathMTU.Action]) -> [Path.Saying] { actions.map { .size($0) } }
    private static func sums(_ actions: [OuterSum.Action]) -> [Path.Saying] { actions.map { .sum($0) } }

    private mutating func tell(_ key: Key, _ event: (inout Path) -> [Path.Saying]) -> [Action] {
        guard var path = paths[key] else { return [] }
        let actions = event(&path)
        paths[key] = path
        if let due = path.mtu.due.earlier(path.sum.due) { deadlines.set(key, at: due) } else { deadlines.cancel(key) }
        return actions.compactMap { action in
            switch action {
            case .size(.ask(let size)): path.peers.min().map { .ask($0, key, size) }
            case .size(.changed): .changed(path.peers.sorted())
            case .sum(.ask): path.peers.min().map { .askWithoutSum($0, key) }
            case .sum(.changed): .sumsChanged(path.peers.sorted(), key, isNeeded: path.sum.isNeeded)
            }
        }
    }
}
