import CLinux
import Glibc
import MATSignal

/// The memory with which one worker passes on what it receives, many datagrams by one system call; used again for each batch.
///
/// ```
///   receive ──► datagram 0 ... 63, each with its source and the address it was sent to
///                    │ forward(index, from, to, by: one of the worker's sockets)
///                    └─► ... ──► send
/// ```
/// Payloads are sent from where they were received, so nothing is copied. Whoever has a batch calls `deallocate` last.
package struct ForwardBatch {
    /// Datagrams received by one call.
    @inlinable package static var datagramsMax: Int { 64 }
    /// The longest payload: that of a jumbo frame. A longer one is cut off, and recognised by that.
    package static let payloadOctetsMax = 9216
    /// An odd number of cache lines, so that the beginnings of the payloads do not all fall into the same few places of the cache.
    private static let stride = 9280

    private let received: UnsafeMutablePointer<mat_message>
    private let receivedSlots: UnsafeMutablePointer<mat_slot>
    private let octets: UnsafeMutableRawPointer
    /// For each socket as many as a batch has.
    private let sent: UnsafeMutablePointer<mat_message>
    private let sentSlots: UnsafeMutablePointer<mat_slot>
    private let counts: UnsafeMutablePointer<Int>
    private let socketsCount: Int

    package init(socketsCount: Int) {
        self.socketsCount = max(1, socketsCount)
        let sentMax = Self.datagramsMax * self.socketsCount
        received = .allocate(capacity: Self.datagramsMax)
        received.initialize(repeating: mat_message(), count: Self.datagramsMax)
        receivedSlots = .allocate(capacity: Self.datagramsMax)
        receivedSlots.initialize(repeating: mat_slot(), count: Self.datagramsMax)
        octets = .allocate(byteCount: Self.datagramsMax * Self.stride, alignment: 64)
        sent = .allocate(capacity: sentMax)
        sent.initialize(repeating: mat_message(), count: sentMax)
        sentSlots = .allocate(capacity: sentMax)
        sentSlots.initialize(repeating: mat_slot(), count: sentMax)
        counts = .allocate(capacity: self.socketsCount)
        counts.initialize(repeating: 0, count: self.socketsCount)
    }

    package func deallocate() {
        received.deallocate()
        receivedSlots.deallocate()
        octets.deallocate()
        sent.deallocate()
        sentSlots.deallocate()
        counts.deallocate()
    }

    /// Receives what is there, without waiting.
    ///
    /// - Returns: how many datagrams.
    package func receive(_ descriptor: Int32) -> Int {
        for index in 0..<Self.datagramsMax {
            mat_batch_receives(received + index, receivedSlots + index, octets + index * Self.stride, Self.payloadOctetsMax)
        }
        return max(0, Int(mat_recvmmsg(descriptor, received, UInt32(Self.datagramsMax), Int32(MSG_DONTWAIT))))
    }

    /// One received datagram.
    package func datagram(_ index: Int) -> (octets: UnsafeRawBufferPointer, source: Endpoint, local: IPAddress) {
        var header = mat_datagram()
        mat_batch_received(received + index, receivedSlots + index, &header)
        let payload = UnsafeRawBufferPointer(
            start: octets + index * Self.stride, count: min(Int(received[index].length), Self.payloadOctetsMax))
        return (payload, Endpoint(Self.address(header.peer), port: header.peer_port), Self.address(header.local))
    }

    /// Has a received datagram's payload sent by the next `send`, under the traffic class that it came with (RFC 6040: what a router on the way
    /// marked must arrive).
    ///
    /// - Parameter socket: the number of the one to send by.
    package func forward(_ index: Int, from local: IPAddress, to peer: Endpoint, by socket: Int) {
        guard socket < socketsCount, counts[socket] < Self.datagramsMax else { return }
        var header = mat_datagram()
        header.peer = Self.in6(peer.address)
        header.peer_port = peer.port
        header.local = Self.in6(local)
        let place = socket * Self.datagramsMax + counts[socket]
        mat_batch_forwards(
            sent + place, sentSlots + place, octets + index * Self.stride, min(Int(received[index].length), Self.payloadOctetsMax), &header,
            mat_batch_traffic_class(received + index))
        counts[socket] += 1
    }

    /// Sends by each socket what is for it. What a full socket does not take is lost, as in any router.
    ///
    /// - Returns: how many could not be sent.
    package func send(_ descriptors: [Int32]) -> Int {
        var failures = 0
        for socket in 0..<min(socketsCount, descriptors.count) where counts[socket] > 0 {
            let messages = sent + socket * Self.datagramsMax
            var done = 0
            while done < counts[socket] {
                let left = UInt32(counts[socket] - done)
                let count = Int(mat_sendmmsg(descriptors[socket], messages + done, left, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)))
                if count > 0 {
                    done += count
                } else if errno != EINTR {
                    // The first can't be sent; the others may.
                    failures += 1
                    done += 1
                }
            }
            counts[socket] = 0
        }
        return failures
    }

    @inline(__always)
    private static func address(_ address: in6_addr) -> IPAddress {
        withUnsafeBytes(of: address) {
            IPAddress(
                high: UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
                low: UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self)))
        }
    }

    @inline(__always)
    private static func in6(_ address: IPAddress) -> in6_addr {
        var result = in6_addr()
        withUnsafeMutableBytes(of: &result) {
            $0.storeBytes(of: address.high.bigEndian, as: UInt64.self)
            $0.storeBytes(of: address.low.bigEndian, toByteOffset: 8, as: UInt64.self)
        }
        return result
    }
}
