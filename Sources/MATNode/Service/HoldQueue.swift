import IMTKernel
import MATSignal

/// Packets that wait for a decision, by whom they wait for. Bounded in number and age; beyond a bound the oldest goes, as
/// in any queue of a network.
struct HoldQueue<Key: Hashable> {
    /// Of all keys together: protocol.md section 7 allows 4,096 held packets.
    static var packetsMax: Int { 4096 }
    /// Of one key: a full initial window several times over.
    static var packetsPerKeyMax: Int { 64 }

    private struct Held {
        let packet: HeldPacket
        let since: MonotonicTime
    }

    private var packets: [Key: [Held]] = [:]
    private(set) var count = 0
    /// Packets that went because of a bound.
    private(set) var dropped: UInt64 = 0
    private let ageMax: Duration

    init(ageMax: Duration) { self.ageMax = ageMax }

    var keys: [Key] { Array(packets.keys) }

    mutating func hold(_ packet: HeldPacket, for key: Key, now: MonotonicTime) {
        if packets[key]?.count ?? 0 >= Self.packetsPerKeyMax {
            packets[key]?.removeFirst()
            count -= 1
            dropped += 1
        } else if count >= Self.packetsMax {
            dropOldestKey()
        }
        packets[key, default: []].append(Held(packet: packet, since: now))
        count += 1
    }

    /// Takes out the packets of a key that are young enough to be of use.
    mutating func take(_ key: Key, now: MonotonicTime) -> [HeldPacket] {
        guard let held = packets.removeValue(forKey: key) else { return [] }
        count -= held.count
        return held.filter { now - $0.since <= ageMax }.map(\.packet)
    }

    /// Forgets what is too old to be sent on.
    mutating func prune(now: MonotonicTime) {
        for (key, held) in packets {
            let young = held.filter { now - $0.since <= ageMax }
            guard young.count < held.count else { continue }
            count -= held.count - young.count
            dropped += UInt64(held.count - young.count)
            packets[key] = young.isEmpty ? nil : young
        }
    }

    private mutating func dropOldestKey() {
        guard let (key, held) = packets.min(by: { ($0.value.first?.since ?? .distantFuture) < ($1.value.first?.since ?? .distantFuture) }) else { return }
        packets[key] = nil
        count -= held.count
        dropped += UInt64(held.count)
    }
}
