import DequeModule
import MATCore
import MATSignal

/// A rate that several HoAs share, so that one can take it from another. The order is that in which a packet needs them.
enum SharedRate: Hashable, Sendable {
    /// What the HoA in this slot may receive.
    case destination(UInt32)
    case visitors
    case relay

    var dropReason: DropReason {
        switch self {
        case .destination: .destinationRate
        case .visitors: .visitorsRate
        case .relay: .relayRate
        }
    }
}

/// The packets that wait for shared rates, for each rate a `FairQueue` (protocol.md section 11.5: queues are fair among HoAs).
///
/// ```
///                   has room                    has room                   has room
///   packet ─► destination ─────► all visitors' ───────────► the relay's ───────────► forwarded
///                 │  ▲               │  ▲       if one end       │  ▲
///                 ▼  │ in turn       ▼  │ in turn  is one        ▼  │ in turn
///               FairQueue          FairQueue                   FairQueue        100 ms at most, else dropped
/// ```
/// As long as packets wait for a rate, others wait behind them, so that none overtakes one of its own source. The rate of a source is no
/// shared one: who exceeds it loses packets at once. A gateway's packets take the same way: those for plain hosts need the relay's rate alone, those
/// from there the destination's and the relay's.
struct FairQueues: Sendable {
    /// Only those in which something waits.
    private var destinations: [UInt32: FairQueue] = [:]
    /// In turn.
    private var waitingDestinations: Deque<UInt32> = []
    private var visitors: FairQueue
    private var relay: FairQueue
    private var destinationOctetsMax: Int
    private(set) var octets = 0

    /// How long a packet may wait for each rate.
    private static let waitMax = Duration.milliseconds(100)
    /// What all queues hold together, and how many HoAs may be waited for.
    private static let heldOctetsMax = 32 << 20
    private static let destinationsMax = 1024

    init(_ limits: RelayLimits) {
        destinationOctetsMax = Self.octetsMax(limits.octetsPerSecond)
        visitors = FairQueue(octetsMax: Self.octetsMax(limits.visitorsRate))
        relay = FairQueue(octetsMax: Self.octetsMax(limits.relayOctetsPerSecond))
    }

    /// Other bounds from now on. What waits goes on waiting.
    mutating func reconfigure(_ limits: RelayLimits) {
        destinationOctetsMax = Self.octetsMax(limits.octetsPerSecond)
        visitors.octetsMax = Self.octetsMax(limits.visitorsRate)
        relay.octetsMax = Self.octetsMax(limits.relayOctetsPerSecond)
    }

    /// As much as the rate lets through in a tenth of a second, within bounds.
    private static func octetsMax(_ octetsPerSecond: Int) -> Int { min(max(octetsPerSecond / 10, 16 << 10), 4 << 20) }

    var isEmpty: Bool { octets == 0 }

    func isWaiting(for rate: SharedRate) -> Bool {
        switch rate {
        case .destination(let slot): destinations[slot] != nil
        case .visitors: !visitors.isEmpty
        case .relay: !relay.isEmpty
        }
    }

    /// - Parameter packet: its octets are copied only if it may wait.
    /// - Returns: whether it waits.
    mutating func hold(
        _ payload: UnsafeRawBufferPointer, from source: Int, to destination: IPAddress, _ trafficClass: Int32,
        _ direction: FairQueue.Direction = .betweenNodes, for rate: SharedRate, _ now: MonotonicTime
    ) -> Bool {
        let source = UInt32(truncatingIfNeeded: source)
        guard hasRoom(for: payload.count, of: source, rate) else { return false }
        add(
            FairQueue.Packet(
                octets: unsafe Array(payload), source: source, destination: destination, trafficClass: trafficClass, direction: direction,
                until: now + Self.waitMax),
            for: rate)
        return true
    }

    /// What has waited for one rate already.
    mutating func hold(_ packet: FairQueue.Packet, for rate: SharedRate, _ now: MonotonicTime) -> Bool {
        guard hasRoom(for: packet.octets.count, of: packet.source, rate) else { return false }
        var packet = packet
        packet.until = now + Self.waitMax
        add(packet, for: rate)
        return true
    }

    private func hasRoom(for count: Int, of source: UInt32, _ rate: SharedRate) -> Bool {
        guard octets + count <= Self.heldOctetsMax else { return false }
        switch rate {
        case .destination(let slot):
            if let queue = destinations[slot] { return queue.hasRoom(for: count, of: source) }
            return destinations.count < Self.destinationsMax
        case .visitors: return visitors.hasRoom(for: count, of: source)
        case .relay: return relay.hasRoom(for: count, of: source)
        }
    }

    private mutating func add(_ packet: FairQueue.Packet, for rate: SharedRate) {
        octets += packet.octets.count
        switch rate {
        case .destination(let slot):
            if destinations[slot] == nil { waitingDestinations.append(slot) }
            destinations[slot, default: FairQueue(octetsMax: destinationOctetsMax)].add(packet)
        case .visitors: visitors.add(packet)
        case .relay: relay.add(packet)
        }
    }

    /// The next packet for which its rate has room, or that has waited too long. What was nearest to leaving comes first.
    ///
    /// - Parameters:
    ///   - rounds: counts the destinations that had no room; one call's worth of going round them ends with their number.
    ///   - take: takes so many octets of the rate if there are as many.
    mutating func next(_ now: MonotonicTime, rounds: inout Int, take: (SharedRate, Int) -> Bool) -> (rate: SharedRate, FairQueue.OnNext)? {
        if let next = counted(relay.next(now, take: { take(.relay, $0) })) { return (.relay, next) }
        if let next = counted(visitors.next(now, take: { take(.visitors, $0) })) { return (.visitors, next) }
        while rounds < waitingDestinations.count, let slot = waitingDestinations.first {
            if let next = counted(destinations[slot]?.next(now, take: { take(.destination(slot), $0) }) ?? .none) {
                if destinations[slot]?.isEmpty ?? true {
                    destinations[slot] = nil
                    waitingDestinations.removeFirst()
                }
                return (.destination(slot), next)
            }
            waitingDestinations.append(waitingDestinations.removeFirst())
            rounds += 1
        }
        return nil
    }

    private mutating func counted(_ next: FairQueue.OnNext) -> FairQueue.OnNext? {
        switch next {
        case .send(let packet), .tooOld(let packet):
            octets -= packet.octets.count
            return next
        case .none: return nil
        }
    }
}
