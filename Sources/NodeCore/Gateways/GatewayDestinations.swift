import IMTPlan
import MATCore
import MATSignal

/// Plain hosts whose packets go by a gateway, so that they see this node at one place wherever it is (protocol.md section 11.5).
///
/// ```
///                found to be plain, and the configuration wants a gateway for it;
///                or its packet came from an own gateway
///   (unknown) ──────────────────────────────────────────────► waiting ◄───────── the way is gone: a move, the gateway is silent ──┐
///       ▲                                                       │  │                                                              │
///       │                       no gateway within 2 s: plain ◄──┘  └──► a gateway has a binding: carried, its packets go on ───────┤
///       │                                                                                   │                                     │
///       └───────────── its time is up, and it was not used; it is found to be a MAT node ◄──┘ in use: looked up again, goes on ───┘
/// ```
/// The relay stays the same as long as it has a binding: with another one a translated connection would have another address.
struct GatewayDestinations: Sendable {
    struct Way: Hashable, Sendable {
        var own: Endpoint
        var relay: Endpoint
        /// The plain host sees an address of the gateway.
        var isTranslated: Bool
    }

    /// What the own relays offer to a destination.
    enum Offer: Hashable, Sendable {
        /// One holds a binding; without a way while that is from an address that is gone.
        case granted(relay: Endpoint, Way?)
        /// One may be granted in a moment.
        case expected
        case none
    }

    enum Action: Hashable, Sendable {
        /// Its packets go so, and are taken from the gateways.
        case set(HomePair, Way)
        /// They are held.
        case hold(HomePair)
        /// No gateway has to do with it any more.
        case remove(HomePair)
        case release(HomeAddress)
        /// It is talked to as if there were no gateways.
        case goPlain(HomeAddress, lifetime: Duration)
        /// Whether it is a MAT node by now.
        case lookUp(HomeAddress)
    }

    private struct Destination: Sendable {
        let own: HomeAddress
        let wish: PlainPolicy.Way
        /// It spoke first.
        let hasArrived: Bool
        var relay: Endpoint?
        var way: Way?
        /// It has never had a way: then it is talked to plainly when there is none in time, for so long.
        var plainLifetime: Duration?
        var until: MonotonicTime
        var packets: UInt64?
        var isUsed = true
    }

    /// In all; of them those that spoke first may be half.
    static let countMax = 4096
    /// How long the first packets wait for a binding that is being made.
    static let expectedMax: Duration = .seconds(2)
    /// How long a destination whose gateway is lost waits for it.
    static let lostMax: Duration = .seconds(10)
    /// How long one that spoke first is kept without packets, and how long an unused one.
    static let idleMax: Duration = .seconds(300)

    private let countMax: Int
    private var destinations: [HomeAddress: Destination] = [:]
    private var arrivedCount = 0

    init(countMax: Int) { self.countMax = countMax }

    // MARK: Questions

    var isEmpty: Bool { destinations.isEmpty }
    var count: Int { destinations.count }
    func contains(_ hoa: HomeAddress) -> Bool { destinations[hoa] != nil }
    func way(to hoa: HomeAddress) -> Way? { destinations[hoa]?.way }
    func hasArrived(_ hoa: HomeAddress) -> Bool { destinations[hoa]?.hasArrived ?? false }

    /// In order.
    var all: [(hoa: HomeAddress, own: HomeAddress, way: Way?)] {
        destinations.sorted { $0.key < $1.key }.map { ($0.key, $0.value.own, $0.value.way) }
    }

    /// Pairs whose packets are taken from gateways, in order.
    func pairs(of own: HomeAddress) -> [HomePair] {
        destinations.filter { $0.value.own == own }.keys.sorted().map { HomePair(own: own, peer: $0) }
    }

    var due: MonotonicTime? { destinations.values.reduce(nil) { $0.earlier($1.until) } }

    // MARK: Events

    /// A destination is plain, for so long as far as is known, and a gateway is wanted for it.
    mutating func enter(
        _ hoa: HomeAddress, own: HomeAddress, _ wish: PlainPolicy.Way, hasArrived: Bool = false, lifetime: Duration, _ offer: Offer,
        _ now: MonotonicTime
    ) -> [Action] {
        guard destinations[hoa] == nil else {
            destinations[hoa]?.until = now + lifetime
            return []
        }
        var actions = makeRoom(hasArrived)
        destinations[hoa] = Destination(
            own: own, wish: wish, hasArrived: hasArrived, plainLifetime: lifetime, until: now + max(lifetime, hasArrived ? Self.idleMax : lifetime))
        if hasArrived { arrivedCount += 1 }
        actions += take(offer, hoa, now)
        return actions
    }

    /// What the own relays offer has changed.
    ///
    /// - Parameter offer: what they offer to who wants it so, and has this relay.
    mutating func offered(_ offer: (HomeAddress, PlainPolicy.Way, Endpoint?) -> Offer, _ now: MonotonicTime) -> [Action] {
        destinations.keys.sorted().flatMap { hoa -> [Action] in
            guard let destination = destinations[hoa] else { return [] }
            return take(offer(destination.own, destination.wish, destination.relay), hoa, now)
        }
    }

    private mutating func take(_ offer: Offer, _ hoa: HomeAddress, _ now: MonotonicTime) -> [Action] {
        guard let destination = destinations[hoa] else { return [] }
        let pair = HomePair(own: destination.own, peer: hoa)
        switch offer {
        case .granted(let relay, let way):
            destinations[hoa]?.relay = relay
            guard way != destination.way else { return [] }
            destinations[hoa]?.way = way
            guard let way else { return [.hold(pair)] }
            if let lifetime = destination.plainLifetime {
                destinations[hoa]?.plainLifetime = nil
                destinations[hoa]?.until = max(destination.until, now + lifetime)
            }
            return [.set(pair, way)] + (destination.way == nil ? [.release(hoa)] : [])
        case .expected:
            if destination.plainLifetime != nil { destinations[hoa]?.until = min(destination.until, now + Self.expectedMax) }
            return lose(hoa, pair)
        case .none:
            if let lifetime = destination.plainLifetime { return forget(hoa) + [.goPlain(hoa, lifetime: lifetime)] }
            destinations[hoa]?.until = min(destination.until, now + Self.lostMax)
            return lose(hoa, pair)
        }
    }

    private mutating func lose(_ hoa: HomeAddress, _ pair: HomePair) -> [Action] {
        guard destinations[hoa]?.way != nil else { return [] }
        destinations[hoa]?.way = nil
        return [.hold(pair)]
    }

    /// Whatever left from one own address leaves from the other, as the kernel has been told.
    mutating func installedMoved(from: MobileAddress, to: MobileAddress) {
        for hoa in destinations.keys where destinations[hoa]?.way?.own.address == from.address { destinations[hoa]?.way?.own.address = to.address }
    }

    /// Its packets were counted, both directions, from the beginning.
    mutating func counted(_ hoa: HomeAddress, _ packets: UInt64) {
        guard let known = destinations[hoa], known.packets != packets else { return }
        destinations[hoa]?.packets = packets
        destinations[hoa]?.isUsed = true
    }

    mutating func takeDue(_ now: MonotonicTime) -> [Action] {
        var actions: [Action] = []
        for (hoa, destination) in destinations.sorted(by: { $0.key < $1.key }) where destination.until <= now {
            if let lifetime = destination.plainLifetime {
                actions += forget(hoa) + [.goPlain(hoa, lifetime: lifetime)]
            } else if destination.way != nil, destination.isUsed {
                destinations[hoa]?.until = now + Self.idleMax
                destinations[hoa]?.isUsed = false
                actions.append(.lookUp(hoa))
            } else {
                actions += forget(hoa)
            }
        }
        return actions
    }

    /// It is a MAT node, or is to be forgotten for another reason.
    mutating func forget(_ hoa: HomeAddress) -> [Action] {
        guard let destination = destinations.removeValue(forKey: hoa) else { return [] }
        if destination.hasArrived { arrivedCount -= 1 }
        return [.remove(HomePair(own: destination.own, peer: hoa))]
    }

    /// Those whose time ends first go. Who speaks first pushes out only his like, so that nobody outside ends what this node began.
    private mutating func makeRoom(_ hasArrived: Bool) -> [Action] {
        let isFull = hasArrived ? arrivedCount >= max(1, countMax / 2) : destinations.count >= countMax
        guard isFull else { return [] }
        let candidates = destinations.filter { !hasArrived || $0.value.hasArrived }
        guard let first = candidates.min(by: { ($0.value.until, $0.key) < ($1.value.until, $1.key) })?.key else { return [] }
        return forget(first)
    }
}
