import BenchSupport
import CLinux
import Glibc
import MATSignal

/// A flow of datagrams from one host to the other, both ends in hand.
struct DatagramFlow {
    var sender: BenchSocket
    var receiver: BenchSocket
    /// Destinations of an unconnected sender, in turn; none for a connected one.
    var destinations: [SocketAddress] = []
    /// Sources of an unconnected sender, in turn.
    var sources: [IPAddress] = []
}

/// Small datagrams as fast as one core carries them.
///
/// One thread sends a window of datagrams and then takes what has arrived at the other host: sender, both hosts' stacks, router
/// and receiver share the core, and no scheduler stands between. The next window waits for this one, so nothing is lost in
/// queues; a path through another process (wireguard-go) is waited for a moment.
struct DatagramTraffic {
    static let windowPackets = 64
    static let payloadOctets = 32
    /// Windows per slice: the unit of which the median is taken, about a millisecond.
    static let windowsPerSlice = 16
    static let patienceMilliseconds: Int32 = 20

    struct Outcome {
        var packetsPerSecond: Double
        /// Processor time of the thread, softirqs included, per packet delivered.
        var nanosecondsPerPacket: Double
        var lostFraction: Double
        var delivered: Int
    }

    static func run(_ flow: DatagramFlow, seconds: Double) throws -> Outcome {
        let out = MessageBatch(count: windowPackets, octetsEach: payloadOctets)
        out.spread(from: flow.sources, to: flow.destinations)
        let into = MessageBatch(count: windowPackets, octetsEach: payloadOctets)
        _ = try window(flow, out, into)
        let end = Ticks.wall() + UInt64(seconds * 1e9)
        var slices: [(wall: Double, processor: Double)] = []
        var sent = 0
        var delivered = 0
        while Ticks.wall() < end || slices.isEmpty {
            let wall = Ticks.wall()
            let processor = Ticks.thread()
            var got = 0
            for _ in 0..<windowsPerSlice { got += try window(flow, out, into) }
            sent += windowsPerSlice * windowPackets
            delivered += got
            guard got > 0 else { throw BenchError("no datagram arrived") }
            slices.append((Double(Ticks.wall() - wall) / Double(got), Double(Ticks.thread() - processor) / Double(got)))
        }
        // Medians of slices: a moment in which somebody else had the core counts as one slice, not as its length.
        return Outcome(
            packetsPerSecond: 1e9 / slices.map(\.wall).median, nanosecondsPerPacket: slices.map(\.processor).median,
            lostFraction: Double(sent - delivered) / Double(sent), delivered: delivered)
    }

    /// Sends one window and receives it.
    @inline(__always)
    private static func window(_ flow: DatagramFlow, _ out: MessageBatch, _ into: MessageBatch) throws -> Int {
        out.turn()
        let sent = mat_sendmmsg(flow.sender.descriptor, out.messages, UInt32(windowPackets), 0)
        guard sent > 0 || errno == ECONNREFUSED || errno == EAGAIN else { throw BenchError("send: errno \(errno)") }
        var received = 0
        while received < sent {
            let count = mat_recvmmsg(flow.receiver.descriptor, into.messages, UInt32(windowPackets), Int32(MSG_DONTWAIT))
            if count > 0 {
                received += Int(count)
                continue
            }
            var wait = pollfd(fd: flow.receiver.descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&wait, 1, patienceMilliseconds) == 0 { break }
        }
        return received
    }
}
