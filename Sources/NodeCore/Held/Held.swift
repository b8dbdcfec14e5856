import IMTPlan
import MATCore
import MATSignal

/// Packets that wait. Outbound ones wait for a destination to be known and for the kernel to let them out:
///
/// ```
///               the core: release                       the kernel: out
///   waiting ───────────────────────────► offered ─────────────────────────────► gone
///    ▲ │  ▲                               │   │
///    │ │  │      no way, or no entry      │   │ refused: its route leads back to the agent, or a firewall is against it
///    │ │  └───────────────────────────────┘   ▼
///    │ │        (tried when something is    refused ── 50 ms, 100 ms … 1.6 s, and when something is routed ──► offered
///    │ │         routed)                      │
///    │ └── the core: drop; too old, or a bound of `HoldQueue` ──► gone ◄──────┘
///    └──── a packet
/// ```
/// What is offered belongs to the shell until it says what became of it: `exited`. Inbound ones wait for the core alone, which lets those of a
/// pair of outer addresses in, or only those that open connections; encapsulated ones those of a source from one endpoint.
///
/// While anything is refused, that is one episode: told once, and each round of tries comes twice as late as the one before.
struct Held {
    /// How long a packet may wait and still be of use: a TCP segment is sent again long before.
    static let ageMax: Duration = .seconds(10)
    /// How long packets wait that the kernel would not let out: twice as long with each try.
    static let retryDelays: ClosedRange<Duration> = .milliseconds(50) ... .milliseconds(1600)

    /// Encapsulated packets of a source that came from an endpoint that it is not known at, protocol.md section 11.2: of each so many, and of all.
    static let encapsulatedPerEndpointMax = 16
    static let encapsulatedMax = 1024

    private enum Retries {
        case none
        /// - Parameter delay: until the round after this one.
        case scheduled(at: MonotonicTime, delay: Duration)
        /// The packets of these destinations were offered again.
        case underWay(Set<HeldDestination>, delay: Duration)
    }

    private struct Sender: Hashable, Comparable {
        let core: Int
        let source: IPAddress
        let endpoint: Endpoint

        static func < (a: Sender, b: Sender) -> Bool { (a.core, a.source, a.endpoint) < (b.core, b.source, b.endpoint) }
    }

    private struct Arrival: Hashable, Comparable {
        let source: IPAddress
        let destination: IPAddress
        let opensConnection: Bool

        private var order: (IPAddress, IPAddress, Int) { (source, destination, opensConnection ? 0 : 1) }
        static func < (a: Arrival, b: Arrival) -> Bool { a.order < b.order }
    }

    private var outbound = HoldQueue<HeldDestination>(ageMax: ageMax)
    private var inbound = HoldQueue<Arrival>(ageMax: ageMax)
    private var encapsulated = HoldQueue<Sender>(ageMax: ageMax, perKeyMax: encapsulatedPerEndpointMax, allMax: encapsulatedMax)
    private var offered: [HeldDestination: [HoldQueue<HeldDestination>.Held]] = [:]
    private var refused: Set<HeldDestination> = []
    private var retries = Retries.none

    /// Packets of both directions.
    var count: Int { outbound.count + inbound.count + encapsulated.count + offered.values.reduce(0) { $0 + $1.count } }

    // MARK: Outbound

    mutating func hold(_ packet: HeldPacket, for destination: HeldDestination, now: MonotonicTime) {
        outbound.hold(packet, for: destination, now: now)
    }

    /// The destination is known. What the kernel has refused waits for its next try.
    ///
    /// - Parameter holding: whether connections that begin to the destination wait on, here and below.
    mutating func release(_ destination: HeldDestination, holding: Bool = false, now: MonotonicTime) -> HeldOffer? {
        refused.contains(destination) ? nil : offer(destination, needsEntry: false, holding: holding, now)
    }

    /// Routes may be there that were not, and another way may be open for what was refused.
    mutating func releaseRouted(holding: (HeldDestination) -> Bool = { _ in false }, now: MonotonicTime) -> [HeldOffer] {
        refused = []
        return outbound.keys.compactMap { offer($0, needsEntry: true, holding: holding($0), now) }
    }

    private mutating func offer(_ destination: HeldDestination, needsEntry: Bool, holding: Bool, _ now: MonotonicTime) -> HeldOffer? {
        var packets = outbound.lift(destination, now: now)
        if holding {
            outbound.putBack(packets.filter(\.packet.beginsConnection), for: destination)
            packets.removeAll(where: \.packet.beginsConnection)
        }
        guard !packets.isEmpty else { return nil }
        offered[destination, default: []] += packets
        return HeldOffer(destination: destination, needsEntry: needsEntry, packets: packets.map(\.packet))
    }

    /// What became of packets that were offered. They went in order, and what did not go waits on, before what came meanwhile.
    ///
    /// - Returns: whether this begins an episode of refusals, which is worth a line in the log.
    mutating func exited(_ destination: HeldDestination, _ exit: HeldExit, now: MonotonicTime) -> Bool {
        let packets = offered.removeValue(forKey: destination) ?? []
        var isNews = false
        switch exit {
        case .noEntry, .noWay:
            outbound.putBack(packets, for: destination)
        case .sent(let count):
            let rest = packets.dropFirst(count)
            outbound.putBack(rest, for: destination)
            if !rest.isEmpty { isNews = refuse(destination, now) }
        }
        endRound(destination, now)
        return isNews
    }

    private mutating func refuse(_ destination: HeldDestination, _ now: MonotonicTime) -> Bool {
        refused.insert(destination)
        guard case .none = retries else { return false }
        schedule(after: Self.retryDelays.lowerBound, now)
        return true
    }

    private mutating func schedule(after delay: Duration, _ now: MonotonicTime) {
        retries = .scheduled(at: now + delay, delay: min(delay * 2, Self.retryDelays.upperBound))
    }

    private mutating func endRound(_ destination: HeldDestination?, _ now: MonotonicTime) {
        guard case .underWay(var open, let delay) = retries else { return }
        // Given up for the moment: while it stands there too, changing it copies it.
        retries = .none
        if let destination { open.remove(destination) }
        if !open.isEmpty {
            retries = .underWay(open, delay: delay)
        } else if !refused.isEmpty {
            schedule(after: delay, now)
        }
    }

    /// When `retry` wants to be called.
    var nextDeadline: MonotonicTime? {
        if case .scheduled(let time, _) = retries { time } else { nil }
    }

    /// The next round of tries, if it is time.
    mutating func retry(holding: (HeldDestination) -> Bool = { _ in false }, now: MonotonicTime) -> [HeldOffer] {
        guard case .scheduled(let time, let delay) = retries, time <= now else { return [] }
        let destinations = refused.sorted()
        refused = []
        let offers = destinations.compactMap { offer($0, needsEntry: false, holding: holding($0), now) }
        retries = .underWay(Set(offers.map(\.destination)), delay: delay)
        endRound(nil, now)
        return offers
    }

    mutating func drop(_ destination: HeldDestination, now: MonotonicTime) { _ = outbound.take(destination, now: now) }

    /// Takes out the questions to a DNS server.
    mutating func removeNames(_ destination: HeldDestination, now: MonotonicTime) -> [HeldPacket] {
        outbound.take(destination, now: now, where: \.isName)
    }

    // MARK: Inbound

    mutating func hold(inbound packet: HeldPacket, now: MonotonicTime) {
        inbound.hold(packet, for: Arrival(source: packet.source, destination: packet.destination, opensConnection: packet.opensConnection), now: now)
    }

    /// Takes out what waits of this pair of outer addresses, to be let in or forgotten; what opens connections first.
    mutating func remove(from source: IPAddress, to own: IPAddress, openersOnly: Bool = false, now: MonotonicTime) -> [HeldPacket] {
        let openers = inbound.take(Arrival(source: source, destination: own, opensConnection: true), now: now)
        return openersOnly ? openers : openers + inbound.take(Arrival(source: source, destination: own, opensConnection: false), now: now)
    }

    /// An encapsulated packet came from where its source is not known to be.
    ///
    /// - Returns: the octets that are held of this source from there.
    @discardableResult
    mutating func hold(encapsulated packet: HeldPacket, from endpoint: Endpoint, core: Int, now: MonotonicTime) -> Int {
        let sender = Sender(core: core, source: packet.source, endpoint: endpoint)
        encapsulated.hold(packet, for: sender, now: now)
        return encapsulated.octetsCount(of: sender)
    }

    /// Takes out, in order, what a source sent from an endpoint that has turned out to be its own.
    mutating func removeEncapsulated(of source: IPAddress, from endpoint: Endpoint, core: Int, now: MonotonicTime) -> [HeldPacket] {
        encapsulated.take(Sender(core: core, source: source, endpoint: endpoint), now: now)
    }

    /// Outbound packets that went because they were too old or too many, by the core that they waited in.
    mutating func takeLost() -> [(core: Int, destination: IPAddress, count: Int)] {
        // What waits inbound is nobody's yet; its counts end here.
        _ = inbound.takeDiscarded()
        _ = encapsulated.takeDiscarded()
        return outbound.takeDiscarded().map { ($0.key.core, $0.key.address, $0.count) }
    }

    /// Forgets what is too old to be sent on.
    mutating func prune(now: MonotonicTime) {
        outbound.prune(now: now)
        inbound.prune(now: now)
        encapsulated.prune(now: now)
    }
}

/// For whom outbound packets wait: those of each core's HoAs for that core.
package struct HeldDestination: Hashable, Comparable, Sendable {
    package let core: Int
    package let address: IPAddress

    package static func < (a: HeldDestination, b: HeldDestination) -> Bool { (a.core, a.address) < (b.core, b.address) }
}

/// Packets that may leave now, if the kernel has a way for them.
package struct HeldOffer: Hashable, Sendable {
    package let destination: HeldDestination
    /// Only if the destination has an entry: whether it may be talked to plainly is not known.
    package let needsEntry: Bool
    /// In the order in which they are to go.
    package let packets: [HeldPacket]
}

/// What became of them.
package enum HeldExit: Hashable, Sendable {
    /// The destination has no entry, and needs one.
    case noEntry
    /// There is an entry and no route: its own MoA's link is down, or its gateway is not known.
    case noWay
    /// So many went; the kernel refused the next one, if there is one.
    case sent(Int)
}
