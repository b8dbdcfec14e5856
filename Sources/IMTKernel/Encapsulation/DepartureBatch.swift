import CLinux
import Glibc
import IMTPlan
import MATRuntime
import MATSignal

/// Packets that are about to leave in datagrams, in the memory that they are sent from.
///
///     | packet | packet | packet | shorter | packet | packet |        |
///      `------- one message: segments ----'  `- the next -'    `room
///
/// Packets that follow each other to one endpoint, with one traffic class and of one length but for a shorter last, are one message, which the
/// kernel, or the network card, cuts into datagrams (UDP_SEGMENT).
struct DepartureBatch: ~Copyable {
    /// Messages sent by one call.
    static let messagesMax = 64
    /// Datagrams in a message (UDP_MAX_SEGMENTS of kernels before 6.9), and octets: a UDP payload's most, less room for a header.
    static let segmentsMax = 64
    static let messageOctetsMax = 65_000
    private static let octetsMax = 512 << 10

    /// What packets of one message have in common.
    struct Way: Equatable {
        /// The peer's number in `EncapsulationTable`; those of one peer go to one endpoint.
        var slot: Int
        var own: Endpoint
        var far: Endpoint
        var trafficClass: UInt8
        var isCutUp: Bool
        /// Nobody cuts messages up for whoever takes datagrams there.
        var isApart: Bool
    }

    struct Message {
        var way: Way
        var start: Int
        var octets: Int
        /// Of each segment but the last.
        var each: Int
        var segments: Int
        var isComplete: Bool
    }

    private let octets = UnsafeMutableRawBufferPointer.allocate(byteCount: DepartureBatch.octetsMax, alignment: 64)
    private var used = 0
    private var messages: ContiguousArray<Message> = []
    private let headers: UnsafeMutablePointer<mat_message>
    private let slots: UnsafeMutablePointer<mat_carrier_slot>
    /// Messages before this one are sent.
    private var sentCount = 0

    init() {
        headers = .allocate(capacity: Self.messagesMax)
        headers.initialize(repeating: mat_message(), count: Self.messagesMax)
        slots = .allocate(capacity: Self.messagesMax)
        slots.initialize(repeating: mat_carrier_slot(), count: Self.messagesMax)
        messages.reserveCapacity(Self.messagesMax)
    }

    deinit {
        octets.deallocate()
        headers.deallocate()
        slots.deallocate()
    }

    var isEmpty: Bool { messages.isEmpty }
    /// Where the next packets are written.
    var room: UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: octets[used...]) }

    /// Whether what becomes of any packet has room, in octets and messages.
    var hasRoom: Bool { octets.count - used >= 2 * TunnelDevice.packetBytesMax && messages.count + 4 <= Self.messagesMax }

    /// Takes over what was written at `room`.
    mutating func add(_ written: PacketSegments.Outcome, _ way: Way) {
        var left = written.octets
        while left > 0 {
            let length = min(left, written.each)
            add(length, way)
            left -= length
        }
    }

    private mutating func add(_ length: Int, _ way: Way) {
        let last = messages.count - 1
        if last >= 0, !messages[last].isComplete, length <= messages[last].each, messages[last].segments < Self.segmentsMax,
            messages[last].octets + length <= Self.messageOctetsMax, messages[last].way == way
        {
            messages[last].octets += length
            messages[last].segments += 1
            messages[last].isComplete = length < messages[last].each
        } else {
            messages.append(Message(way: way, start: used, octets: length, each: length, segments: 1, isComplete: false))
        }
        used += length
    }

    /// Datagrams that are not sent yet.
    var waitingCount: Int { messages[min(sentCount, messages.count)...].reduce(0) { $0 + $1.segments } }

    mutating func removeAll() {
        messages.removeAll(keepingCapacity: true)
        (used, sentCount) = (0, 0)
    }

    // MARK: Sending

    enum Outcome {
        case done
        /// The socket, whose buffer is full, takes no more now.
        case full(EndpointSocket)
    }

    /// What did not leave, and why.
    struct Failure {
        var way: Way
        /// Packets of `each` octets, but for the last.
        var octets: UnsafeRawBufferPointer
        var each: Int
        var segments: Int
        var errno: Int32
    }

    /// Sends what is not sent yet.
    ///
    /// - Parameters:
    ///   - socket: of an own port; `nil` if there is none.
    ///   - failed: called for what is given up.
    mutating func send(by socket: (UInt16) -> EndpointSocket?, failed: (Failure) -> Void) -> Outcome {
        while sentCount < messages.count {
            let way = messages[sentCount].way
            guard let endpoint = socket(way.own.port) else {
                giveUp(EADDRNOTAVAIL, failed)
                continue
            }
            if isApart(sentCount) {
                if sendApart(messages[sentCount], by: endpoint) {
                    sentCount += 1
                } else if errno == EAGAIN {
                    return .full(endpoint)
                } else {
                    giveUp(errno, failed)
                }
                continue
            }
            var end = sentCount
            while end < messages.count, messages[end].way.own.port == way.own.port, messages[end].way.isCutUp == way.isCutUp, !isApart(end) {
                let message = messages[end]
                prepare(end - sentCount, message, message.start, message.octets, segment: message.segments > 1 ? message.each : 0)
                end += 1
            }
            let count = endpoint.send(headers, end - sentCount, cutUp: way.isCutUp)
            if count > 0 {
                sentCount += count
            } else if errno == EAGAIN {
                return .full(endpoint)
            } else {
                let reason = errno
                // The link's queue has dropped it (ENOBUFS): its sender hears of that as of any loss.
                guard reason != ENOBUFS, messages[sentCount].segments > 1, sendApart(messages[sentCount], by: endpoint) else {
                    giveUp(reason, failed)
                    continue
                }
                sentCount += 1
            }
        }
        removeAll()
        return .done
    }

    private func isApart(_ index: Int) -> Bool { messages[index].way.isApart && messages[index].segments > 1 }

    /// A link that can't finish checksums takes no segments on kernels before 6.11 (EIO), and there may be one so narrow that only some pass.
    /// - Returns: whether any was sent.
    private mutating func sendApart(_ message: Message, by endpoint: EndpointSocket) -> Bool {
        var count = 0
        var place = 0
        while place < message.octets {
            let length = min(message.each, message.octets - place)
            prepare(count, message, message.start + place, length, segment: 0)
            count += 1
            place += length
        }
        var sent = 0
        var isAnySent = false
        while sent < count {
            let done = endpoint.send(headers + sent, count - sent, cutUp: message.way.isCutUp)
            if done > 0 { isAnySent = true } else if !isAnySent { return false }
            // One that fails is lost like any on the way.
            sent += max(1, done)
        }
        return true
    }

    private mutating func giveUp(_ reason: Int32, _ failed: (Failure) -> Void) {
        let message = messages[sentCount]
        let part = UnsafeRawBufferPointer(rebasing: octets[message.start..<message.start + message.octets])
        failed(Failure(way: message.way, octets: part, each: message.each, segments: message.segments, errno: reason))
        sentCount += 1
    }

    private func prepare(_ index: Int, _ message: Message, _ start: Int, _ length: Int, segment: Int) {
        var header = mat_carrier()
        header.far = message.way.far.address.in6
        header.far_port = message.way.far.port
        header.local = message.way.own.address.in6
        header.traffic_class = message.way.trafficClass
        header.segment_octets = UInt16(truncatingIfNeeded: segment)
        mat_carrier_sends(headers + index, slots + index, &header, message.way.far.address.isIPv4 ? 1 : 0)
        slots[index].iov.iov_base = octets.baseAddress.map { $0 + start }
        slots[index].iov.iov_len = length
    }
}
