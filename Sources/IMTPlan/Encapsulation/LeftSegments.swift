import MATSignal

/// A packet of TCP whose cutting up was left to a network card which it never met, with its sum (`LeftSum`): between namespaces of one host a kernel
/// that encapsulates hands over 64 KiB in one datagram. Who reads the datagram and sends it on over a real link cuts it up.
///
///     datagram [ IP | TCP | data, up to 64 KiB ]   ──►   [ IP | TCP | data 1 ][ IP | TCP | data 2 ] ... of 1280 octets, with right sums
///
/// How long the sender's own segments would have been the datagram does not tell, and 1280 octets pass on every path (protocol.md section 11.2).
package enum LeftSegments {
    /// A longer packet than that of a usual link is one that was left uncut, if its sum is unfinished.
    package static let wholeOctetsMax = 1500
    /// Of the packets that it becomes.
    package static let octetsEach = 1280
    /// What they take in all: headers of 120 octets in front of each but the first.
    package static let roomOctets = 65_535 + piecesMax * 120
    package static let piecesMax = 64

    /// - Parameter packet: one whole IP packet.
    /// - Returns: `nil` if it is one that goes as it is.
    package static func cut(_ packet: UnsafeRawBufferPointer, into room: UnsafeMutableRawBufferPointer) -> PacketSegments.Outcome? {
        guard packet.count > wholeOctetsMax, let (start, field, number) = LeftSum.place(in: packet), number == LeftSum.tcp, packet.count >= start + 20
        else { return nil }
        let headers = start + Int(packet[start + 12] >> 4) * 4
        guard headers >= start + 20, headers <= octetsEach / 2 else { return nil }
        var offload = OffloadHeader()
        offload.segments = packet[0] >> 4 == 4 ? .tcpIPv4 : .tcpIPv6
        offload.segmentOctets = UInt16(truncatingIfNeeded: octetsEach - headers)
        offload.unfinished = (UInt16(truncatingIfNeeded: start), UInt16(truncatingIfNeeded: field - start))
        return PacketSegments.write(packet, offload, into: room)
    }
}
