import Glibc

/// A long line between two interfaces of this namespace: what comes in at one leaves at the other, later. For kernels without netem.
///
/// Frames pass whole, with what the card (here: veth) still owes them: segments to be cut, checksums to be completed. The interfaces must
/// have no addresses, or the host would answer what is under way.
public final class DelayLine {
    /// Octets under way in one direction: 50 ms at 10 Gbit/s. Beyond, what comes is dropped, as in any queue.
    static let octetsMax = 64 << 20
    /// A virtio_net_hdr and the largest packet that a card may be given to cut (64 KiB and its headers).
    private static let frameMax = 10 + 65_536 + 256
    /// Frames that are taken from one end before the other has its turn.
    private static let atOnce = 256

    private struct Frame {
        let due: Nanoseconds
        let octets: [UInt8]
    }

    private struct End {
        let descriptor: Int32
        /// What came in at the other end.
        var frames: [Frame] = []
        var first = 0
        var octets = 0
        var dropped: UInt64 = 0
    }

    private var ends: [End] = []
    private let delay: Nanoseconds

    public init(between first: String, and second: String, delay: Nanoseconds) throws {
        self.delay = delay
        for name in [first, second] { ends.append(End(descriptor: try Self.open(name))) }
    }

    deinit { for end in ends { close(end.descriptor) } }

    /// A packet socket that gets all frames coming in at an interface, and sends at it. Numbers of linux/if_packet.h and if_ether.h.
    private static func open(_ name: String) throws -> Int32 {
        let index = if_nametoindex(name)
        guard index > 0 else { throw ProbeError("there is no interface \(name) in this network namespace") }
        let all: UInt16 = 0x0003  // ETH_P_ALL
        let descriptor = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_NONBLOCK.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw ProbeError.system("open a packet socket") }
        var failure: ProbeError?
        func set(_ level: Int32, _ option: Int32, _ value: Int32, _ what: String) {
            var value = value
            if setsockopt(descriptor, level, option, &value, 4) != 0, failure == nil { failure = ProbeError.system("\(what) of \(name)") }
        }
        set(263, 15, 1, "PACKET_VNET_HDR")
        set(263, 23, 1, "PACKET_IGNORE_OUTGOING")
        set(SOL_SOCKET, 33, 8 << 20, "SO_RCVBUFFORCE")
        // sockaddr_ll: family 2, protocol 2 in network order, interface 4, then what only senders of single frames need; 20 in all.
        var address = [UInt8](repeating: 0, count: 20)
        withUnsafeBytes(of: UInt16(AF_PACKET)) { address.replaceSubrange(0..<2, with: $0) }
        withUnsafeBytes(of: all.bigEndian) { address.replaceSubrange(2..<4, with: $0) }
        withUnsafeBytes(of: Int32(bitPattern: index)) { address.replaceSubrange(4..<8, with: $0) }
        let bound = address.withUnsafeBytes { raw in
            raw.baseAddress.map { bind(descriptor, $0.assumingMemoryBound(to: sockaddr.self), socklen_t(raw.count)) } ?? -1
        }
        if bound != 0, failure == nil { failure = ProbeError.system("bind to \(name)") }
        if let failure {
            close(descriptor)
            throw failure
        }
        return descriptor
    }

    /// Until ended by a signal.
    public func run() {
        PreciseThread.preferCurrent()
        var buffer = [UInt8](repeating: 0, count: Self.frameMax)
        while !Interruption.isRequested {
            var watched = ends.map { pollfd(fd: $0.descriptor, events: Int16(POLLIN), revents: 0) }
            let next = ends.compactMap { $0.first < $0.frames.count ? $0.frames[$0.first].due : nil }.min()
            // A signal ends the wait; without anything under way a look now and then does no harm.
            let wait = next.map { max(0, ($0 - ProbeClock.now() + ProbeClock.perMillisecond - 1) / ProbeClock.perMillisecond) } ?? 500
            poll(&watched, nfds_t(watched.count), Int32(min(wait, 500)))
            for index in ends.indices where watched[index].revents != 0 { take(from: index, &buffer) }
            for index in ends.indices { send(at: index) }
        }
    }

    private func take(from index: Int, _ buffer: inout [UInt8]) {
        let other = 1 - index
        for _ in 0..<Self.atOnce {
            let count = recv(ends[index].descriptor, &buffer, buffer.count, 0)
            // A link that went down says so once (ENETDOWN); it may come back.
            guard count > 0 else { return }
            guard ends[other].octets + count <= Self.octetsMax else {
                ends[other].dropped += 1
                continue
            }
            ends[other].frames.append(Frame(due: ProbeClock.now() + delay, octets: Array(buffer[0..<count])))
            ends[other].octets += count
        }
    }

    private func send(at index: Int) {
        let now = ProbeClock.now()
        while ends[index].first < ends[index].frames.count, ends[index].frames[ends[index].first].due <= now {
            let octets = ends[index].frames[ends[index].first].octets
            ends[index].first += 1
            ends[index].octets -= octets.count
            // What the link does not take is lost, as on any.
            if Glibc.send(ends[index].descriptor, octets, octets.count, 0) < 0 { ends[index].dropped += 1 }
        }
        // Given up in portions, so that a long queue is not moved for each frame.
        if ends[index].first == ends[index].frames.count {
            ends[index].frames.removeAll(keepingCapacity: ends[index].first < 4096)
            ends[index].first = 0
        } else if ends[index].first >= 4096 {
            ends[index].frames.removeFirst(ends[index].first)
            ends[index].first = 0
        }
    }

    /// Frames that were too many or that a link did not take.
    public var dropped: UInt64 { ends.reduce(0) { $0 + $1.dropped } }
}
