import Glibc
import Namespaces

/// A long way: what is routed into an interface comes out of it again, a time later. For kernels without netem.
///
/// Packets pass whole and in their order. `LongPaths` puts it into the middle of the topology.
public enum Distance {
    /// Octets under way: 50 ms at 10 Gbit/s. Beyond, what comes is dropped, as in any queue.
    private static let octetsMax = 64 << 20
    /// Packets that are taken before those whose time has come have their turn.
    private static let atOnce = 64
    private static let patienceNanoseconds: Int64 = 200_000_000

    /// Packets under way, the first of which is due first. Taken ones leave their places free until enough are.
    private struct Queue {
        private var packets: [(due: Int64, octets: [UInt8])] = []
        private var first = 0
        private(set) var octets = 0

        var nextDue: Int64? { first < packets.count ? packets[first].due : nil }

        mutating func append(_ packet: [UInt8], due: Int64) {
            octets += packet.count
            packets.append((due, packet))
        }

        mutating func take() -> [UInt8] {
            let packet = packets[first].octets
            packets[first].octets = []
            first += 1
            octets -= packet.count
            if first == packets.count || first >= 4096 {
                packets.removeFirst(first)
                first = 0
            }
            return packet
        }
    }

    /// Until a signal comes.
    public static func run(_ device: String, milliseconds: Int) throws {
        var tunnel = try Tunnel(device, whole: true)
        var queue = Queue()
        // An ordinary thread wakes up milliseconds late on a busy machine; without the permission it does so here as well.
        var parameters = sched_param()
        parameters.sched_priority = 20
        pthread_setschedparam(pthread_self(), SCHED_FIFO, &parameters)
        while Interruption.signal == nil {
            tunnel.wait(nanoseconds: min(queue.nextDue.map { $0 - now() } ?? patienceNanoseconds, patienceNanoseconds))
            let due = now() + Int64(milliseconds) * 1_000_000
            for _ in 0..<atOnce {
                guard let packet = tunnel.read() else { break }
                if queue.octets + packet.count <= octetsMax { queue.append(packet, due: due) }
            }
            while let due = queue.nextDue, due <= now() { tunnel.write(queue.take()) }
        }
    }

    private static func now() -> Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
    }
}
