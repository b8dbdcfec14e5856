import IMTPlan
import MATCore
import MATSignal

/// Packets that wait for a decision, by whom they wait for. Bounded in number and age; beyond a bound the oldest goes, as
/// in any queue of a network, but of the flow that has the most: a stream of datagrams must not push out the one segment
/// whose retransmission brings a TCP connection back after a handover.
///
/// The same packets give the same drops in every process.
struct HoldQueue<Key: Hashable & Comparable & Sendable> {
    /// Of all keys together: protocol.md section 7 allows 4,096 held packets.
    static var packetsMax: Int { 4096 }
    /// Of one key, all flows together.
    static var packetsPerKeyMax: Int { 256 }
    /// Of one flow: a full initial window several times over.
    static var packetsPerFlowMax: Int { 64 }

    struct Held {
        let packet: HeldPacket
        fileprivate let since: MonotonicTime

        fileprivate var flow: Flow {
            Flow(protocolNumber: packet.protocolNumber, sourcePort: packet.sourcePort, destinationPort: packet.destinationPort)
        }
    }

    fileprivate struct Flow: Hashable {
        let protocolNumber: UInt8
        let sourcePort: UInt16?
        let destinationPort: UInt16?
    }

    private var packets: [Key: [Held]] = [:]
    /// Since when the oldest packet of each key has waited: found by a search, it would cost each packet of a flood a walk through all keys.
    private var ages = DeadlineQueue<Key>()
    private(set) var count = 0
    /// What was too old or too much since `takeDiscarded`, of so many keys at most: a flood to ever new ones is nobody's handover.
    private var discarded: [Key: Int] = [:]
    private static var discardedKeysMax: Int { 1024 }
    private let ageMax: Duration
    private let perKeyMax: Int
    private let allMax: Int

    init(ageMax: Duration, perKeyMax: Int = Self.packetsPerKeyMax, allMax: Int = Self.packetsMax) {
        self.ageMax = ageMax
        self.perKeyMax = perKeyMax
        self.allMax = allMax
    }

    /// In order.
    var keys: [Key] { packets.keys.sorted() }

    /// Of the packets of a key.
    func octetsCount(of key: Key) -> Int { packets[key]?.reduce(0) { $0 + $1.packet.bytes.count } ?? 0 }

    /// Packets that went because they were too old or too many, by whom they waited for.
    mutating func takeDiscarded() -> [(key: Key, count: Int)] {
        guard !discarded.isEmpty else { return [] }
        defer { discarded = [:] }
        return discarded.sorted { $0.key < $1.key }.map { (key: $0.key, count: $0.value) }
    }

    private mutating func noteDiscarded(_ count: Int, of key: Key) {
        if discarded[key] != nil || discarded.count < Self.discardedKeysMax { discarded[key, default: 0] += count }
    }

    mutating func hold(_ packet: HeldPacket, for key: Key, now: MonotonicTime) {
        let held = Held(packet: packet, since: now)
        guard packets[key] != nil else {
            // The first of its key, as nearly every packet of a flood is.
            if count >= allMax { dropOldestKey() }
            packets[key] = [held]
            ages.set(key, at: now)
            count += 1
            return
        }
        let ofFlow = packets[key]?.count { $0.flow == held.flow } ?? 0
        if ofFlow >= Self.packetsPerFlowMax {
            dropOldest(of: held.flow, key)
        } else if packets[key]?.count ?? 0 >= perKeyMax {
            if let largest = largestFlow(of: key) { dropOldest(of: largest, key) }
        } else if count >= allMax {
            dropOldestKey()
        }
        packets[key, default: []].append(held)
        setAge(of: key)
        count += 1
    }

    private mutating func setAge(of key: Key) {
        if let oldest = packets[key]?.first { ages.set(key, at: oldest.since) } else { ages.cancel(key) }
    }

    /// Of equal ones the one that has waited longest.
    private func largestFlow(of key: Key) -> Flow? {
        let held = packets[key] ?? []
        let counts = held.reduce(into: [Flow: Int]()) { $0[$1.flow, default: 0] += 1 }
        let most = counts.values.max()
        return held.first { counts[$0.flow] == most }?.flow
    }

    private mutating func dropOldest(of flow: Flow, _ key: Key) {
        guard let index = packets[key]?.firstIndex(where: { $0.flow == flow }) else { return }
        packets[key]?.remove(at: index)
        setAge(of: key)
        count -= 1
        noteDiscarded(1, of: key)
    }

    /// Takes out the packets of a key that are young enough to be of use.
    mutating func take(_ key: Key, now: MonotonicTime) -> [HeldPacket] { lift(key, now: now).map { $0.packet } }

    /// Likewise, in a form that can be put back.
    mutating func lift(_ key: Key, now: MonotonicTime) -> [Held] {
        guard let held = packets.removeValue(forKey: key) else { return [] }
        ages.cancel(key)
        count -= held.count
        let young = held.filter { now - $0.since <= ageMax }
        if young.count < held.count { noteDiscarded(held.count - young.count, of: key) }
        return young
    }

    /// Packets that were lifted and could not go: before those that came meanwhile, and as old as they are.
    mutating func putBack(_ held: some Collection<Held>, for key: Key) {
        guard !held.isEmpty else { return }
        packets[key, default: []].insert(contentsOf: held, at: 0)
        setAge(of: key)
        count += held.count
    }

    /// Takes out those of a key that fit, and leaves the others waiting.
    mutating func take(_ key: Key, now: MonotonicTime, where fits: (HeldPacket) -> Bool) -> [HeldPacket] {
        let taken = packets[key]?.filter { fits($0.packet) } ?? []
        guard !taken.isEmpty else { return [] }
        let left = packets[key]?.filter { !fits($0.packet) } ?? []
        packets[key] = left.isEmpty ? nil : left
        setAge(of: key)
        count -= taken.count
        return taken.filter { now - $0.since <= ageMax }.map(\.packet)
    }

    /// Forgets what is too old to be sent on.
    mutating func prune(now: MonotonicTime) {
        for key in keys {
            guard let held = packets[key] else { continue }
            let young = held.filter { now - $0.since <= ageMax }
            guard young.count < held.count else { continue }
            count -= held.count - young.count
            noteDiscarded(held.count - young.count, of: key)
            packets[key] = young.isEmpty ? nil : young
            setAge(of: key)
        }
    }

    private mutating func dropOldestKey() {
        guard let key = ages.takeDue(.distantFuture), let held = packets.removeValue(forKey: key) else { return }
        count -= held.count
        noteDiscarded(held.count, of: key)
    }
}
