import CLinux
import Glibc
import MATCore
import MATRuntime
import MATSignal

/// The memory into which one call takes many datagrams, each of which may be several that the kernel has joined; used again for each call.
///
/// Room is for the largest that there can be, and is the system's until it is written: a node that gets nothing but signalling pays for a page
/// a message.
final class ArrivalBatch {
    /// Datagrams taken by one call; of each, 64 that were joined.
    static let messagesMax = 32
    private static let octetsEach = 65_536

    /// One datagram, as it was sent.
    struct Datagram {
        var octets: UnsafeMutableRawBufferPointer
        var source: Endpoint
        /// The own address that it was sent to.
        var local: IPAddress
        /// DSCP and ECN of its header.
        var trafficClass: UInt8
    }

    private let messages: UnsafeMutablePointer<mat_message>
    private let slots: UnsafeMutablePointer<mat_carrier_slot>
    private let octets: UnsafeMutableRawPointer
    /// Messages before this one were used by the last call, which left its lengths in them.
    private var usedCount = ArrivalBatch.messagesMax

    init() {
        messages = .allocate(capacity: Self.messagesMax)
        messages.initialize(repeating: mat_message(), count: Self.messagesMax)
        slots = .allocate(capacity: Self.messagesMax)
        slots.initialize(repeating: mat_carrier_slot(), count: Self.messagesMax)
        octets = .allocate(byteCount: Self.messagesMax * Self.octetsEach, alignment: 64)
    }

    deinit {
        messages.deallocate()
        slots.deallocate()
        octets.deallocate()
    }

    /// Takes what is there, without waiting, and calls `body` for each datagram, in order.
    /// - Returns: how many messages there were; below 0 for an error, of which `errno` says more.
    func receive(_ descriptor: Int32, _ body: (Datagram) -> Void) -> Int {
        for index in 0..<usedCount {
            mat_carrier_receives(messages + index, slots + index, octets + index * Self.octetsEach, Self.octetsEach)
        }
        let count = Int(mat_recvmmsg(descriptor, messages, UInt32(Self.messagesMax), Int32(MSG_DONTWAIT)))
        // The last one tried may have been written to as well.
        usedCount = min(Self.messagesMax, max(0, count) + 1)
        guard count > 0 else { return count }
        for index in 0..<count {
            var header = mat_carrier()
            mat_carrier_received(messages + index, slots + index, &header)
            let (source, local) = (Endpoint(IPAddress(header.far), port: header.far_port), IPAddress(header.local))
            let total = min(Int(messages[index].length), Self.octetsEach)
            let start = octets + index * Self.octetsEach
            // A sender's kernel on this host hands over what it left to a card as one packet, whose segments are not the datagram's (`LeftSegments`).
            let isOne = header.segment_octets == 0 || InnerPacket(UnsafeRawBufferPointer(start: start, count: total)) != nil
            let each = isOne ? total : Int(header.segment_octets)
            var place = 0
            // An empty datagram is one as well.
            repeat {
                let length = min(each, total - place)
                let part = UnsafeMutableRawBufferPointer(start: start + place, count: length)
                body(Datagram(octets: part, source: source, local: local, trafficClass: header.traffic_class))
                place += max(1, length)
            } while place < total
        }
        return count
    }
}
