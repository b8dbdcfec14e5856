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
/// Payloads are sent from where they were received, so nothing is copied. What follows one another to the same place, in equal sizes, as a
/// download does, goes through the kernel as one (UDP_SEGMENT) and leaves it, or the network card, as the datagrams that it was. Whoever
/// has a batch calls `deallocate` last.
package struct ForwardBatch {
    /// Datagrams received by one call.
    @inlinable package static var datagramsMax: Int { 64 }
    /// The longest payload that there can be: no link carries it, but between namespaces of one host a kernel hands it over. The memory is the system's
    /// until it is written.
    package static let payloadOctetsMax = 65_536
    /// An odd number of cache lines, so that the beginnings of the payloads do not all fall into the same few places of the cache.
    private static let stride = 65_600

    private let received: UnsafeMutablePointer<mat_message>
    private let receivedSlots: UnsafeMutablePointer<mat_slot>
    private let octets: UnsafeMutableRawPointer
    /// For each socket as many as a batch has.
    private let sent: UnsafeMutablePointer<mat_message>
    private let sentSlots: UnsafeMutablePointer<mat_sent_slot>
    private let sentVectors: UnsafeMutablePointer<iovec>
    private let outgoing: UnsafeMutablePointer<Outgoing>
    private let socketsCount: Int
    /// Payloads that were not received in this batch, and stand where received ones would.
    private var copiedCount = 0

    /// What is to be sent by one socket.
    private struct Outgoing {
        var messagesCount = 0
        var vectorsCount = 0
        /// Of the last message: where it goes, and whether more can follow in it.
        var peer = Endpoint(.unspecifiedIPv6, port: 0)
        var local = IPAddress.unspecifiedIPv6
        var trafficClass: Int32 = 0
        var segmentOctets = 0
        var octetsCount = 0
        var takesMore = false
        /// Whether the kernel takes messages of several datagrams for this socket: where the link can't make checksums it does not (EIO).
        var canSegment = true
    }

    /// What one message of several datagrams may hold: a packet's length has 16 bits.
    private static let messageOctetsMax = 65_000

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
        sentSlots.initialize(repeating: mat_sent_slot(), count: sentMax)
        sentVectors = .allocate(capacity: sentMax)
        sentVectors.initialize(repeating: iovec(), count: sentMax)
        outgoing = .allocate(capacity: self.socketsCount)
        outgoing.initialize(repeating: Outgoing(), count: self.socketsCount)
    }

    package func deallocate() {
        received.deallocate()
        receivedSlots.deallocate()
        octets.deallocate()
        sent.deallocate()
        sentSlots.deallocate()
        sentVectors.deallocate()
        outgoing.deallocate()
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

    /// Takes what `read` puts into the room that it is given, until that is nothing: packets of another kind than a socket's.
    ///
    /// - Returns: how many.
    package func fill(_ read: (UnsafeMutableRawBufferPointer) -> Int) -> Int {
        for index in 0..<Self.datagramsMax {
            let count = read(UnsafeMutableRawBufferPointer(start: octets + index * Self.stride, count: Self.payloadOctetsMax))
            guard count > 0 else { return index }
            received[index].length = UInt32(truncatingIfNeeded: min(count, Self.payloadOctetsMax))
        }
        return Self.datagramsMax
    }

    /// The payload of one that was received, or taken, to be changed where it lies.
    package func payload(_ index: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(start: octets + index * Self.stride, count: min(Int(received[index].length), Self.payloadOctetsMax))
    }

    /// One received datagram.
    package func datagram(_ index: Int) -> (octets: UnsafeRawBufferPointer, source: Endpoint, local: IPAddress) {
        var header = mat_datagram()
        mat_batch_received(received + index, receivedSlots + index, &header)
        let payload = UnsafeRawBufferPointer(
            start: octets + index * Self.stride, count: min(Int(received[index].length), Self.payloadOctetsMax))
        return (payload, Endpoint(IPAddress(ofMessage: header.peer), port: header.peer_port), IPAddress(ofMessage: header.local))
    }

    /// The DSCP and ECN that a received datagram came with.
    package func trafficClass(_ index: Int) -> Int32 { mat_batch_traffic_class(received + index) }

    /// Has a received datagram's payload sent by the next `send`, under the traffic class that it came with (RFC 6040: what a router on the way
    /// marked must arrive).
    ///
    /// - Parameter socket: the number of the one to send by.
    package func forward(_ index: Int, from local: IPAddress, to peer: Endpoint, by socket: Int) {
        forward(index, from: local, to: peer, by: socket, trafficClass: trafficClass(index))
    }

    /// Likewise under another traffic class: that of a packet that was in no datagram before.
    package func forward(_ index: Int, from local: IPAddress, to peer: Endpoint, by socket: Int, trafficClass: Int32) {
        let length = min(Int(received[index].length), Self.payloadOctetsMax)
        add(octets + index * Self.stride, length, trafficClass, from: local, to: peer, by: socket)
    }

    /// Has a payload sent by the next `send` that was received before, and kept. For batches into which nothing is received.
    ///
    /// - Returns: whether there was room; if not, `send` makes it.
    package mutating func forward(
        _ payload: [UInt8], _ trafficClass: Int32, from local: IPAddress, to peer: Endpoint, by socket: Int
    ) -> Bool {
        payload.withUnsafeBytes { forward($0, trafficClass, from: local, to: peer, by: socket) }
    }

    package mutating func forward(
        _ payload: UnsafeRawBufferPointer, _ trafficClass: Int32, from local: IPAddress, to peer: Endpoint, by socket: Int
    ) -> Bool {
        guard copiedCount < Self.datagramsMax else { return false }
        let place = octets + copiedCount * Self.stride
        let length = min(payload.count, Self.payloadOctetsMax)
        place.copyMemory(from: payload.baseAddress ?? UnsafeRawPointer(place), byteCount: length)
        copiedCount += 1
        add(place, length, trafficClass, from: local, to: peer, by: socket)
        return true
    }

    private func add(
        _ payload: UnsafeMutableRawPointer, _ length: Int, _ trafficClass: Int32, from local: IPAddress, to peer: Endpoint, by socket: Int
    ) {
        guard socket < socketsCount, outgoing[socket].vectorsCount < Self.datagramsMax else { return }
        let first = socket * Self.datagramsMax
        let vector = sentVectors + first + outgoing[socket].vectorsCount
        vector.pointee = iovec(iov_base: payload, iov_len: length)
        outgoing[socket].vectorsCount += 1
        let last = outgoing[socket]
        // An empty datagram would be no segment at all.
        if last.takesMore, last.peer == peer, last.local == local, last.trafficClass == trafficClass, length > 0, length <= last.segmentOctets,
            last.octetsCount + length <= Self.messageOctetsMax
        {
            let message = sent + first + last.messagesCount - 1
            if message.pointee.header.msg_iovlen == 1 { mat_batch_segments(message, UInt16(truncatingIfNeeded: last.segmentOctets)) }
            message.pointee.header.msg_iovlen += 1
            outgoing[socket].octetsCount += length
            outgoing[socket].takesMore = length == last.segmentOctets
            return
        }
        var header = mat_datagram()
        header.peer = Self.in6(peer.address)
        header.peer_port = peer.port
        header.local = Self.in6(local)
        mat_batch_forwards(sent + first + last.messagesCount, sentSlots + first + last.messagesCount, vector, &header, trafficClass)
        outgoing[socket].messagesCount += 1
        outgoing[socket].peer = peer
        outgoing[socket].local = local
        outgoing[socket].trafficClass = trafficClass
        outgoing[socket].segmentOctets = length
        outgoing[socket].octetsCount = length
        outgoing[socket].takesMore = last.canSegment && length > 0
    }

    /// What `send` could not send.
    package struct Unsent: Hashable, Sendable {
        /// Datagrams.
        package var count = 0
        /// Whether it was for want of room before the link.
        package var isFull = false
    }

    /// Sends by each socket what is for it. What a full socket does not take is lost, as in any router.
    package mutating func send(_ descriptors: [Int32]) -> Unsent {
        var unsent = Unsent()
        copiedCount = 0
        for socket in 0..<min(socketsCount, descriptors.count) where outgoing[socket].messagesCount > 0 {
            let messages = sent + socket * Self.datagramsMax
            let count = outgoing[socket].messagesCount
            var done = 0
            while done < count {
                let taken = Int(mat_sendmmsg(descriptors[socket], messages + done, UInt32(count - done), Int32(MSG_NOSIGNAL | MSG_DONTWAIT)))
                if taken > 0 {
                    done += taken
                } else if errno != EINTR {
                    // The first can't be sent; the others may.
                    if errno == EAGAIN || errno == ENOBUFS { unsent.isFull = true }
                    unsent.count += failed(messages + done, socket, descriptors[socket])
                    done += 1
                }
            }
            outgoing[socket].messagesCount = 0
            outgoing[socket].vectorsCount = 0
            outgoing[socket].takesMore = false
        }
        return unsent
    }

    /// The kernel has refused a message, for the reason in `errno`. If it is because of its segments they are sent one by one, from now on.
    ///
    /// - Returns: how many datagrams are lost.
    private func failed(_ message: UnsafeMutablePointer<mat_message>, _ socket: Int, _ descriptor: Int32) -> Int {
        let segmentsCount = Int(message.pointee.header.msg_iovlen)
        guard segmentsCount > 1, errno == EIO || errno == EINVAL else { return segmentsCount }
        // EINVAL: they are larger than the link takes, so each will say so; other sizes may pass.
        if errno == EIO { outgoing[socket].canSegment = false }
        var failures = 0
        for number in 0..<segmentsCount {
            var one = mat_batch_segment(message, number)
            if mat_sendmmsg(descriptor, &one, 1, Int32(MSG_NOSIGNAL | MSG_DONTWAIT)) != 1 { failures += 1 }
        }
        return failures
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
