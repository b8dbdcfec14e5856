/// What the kernel and whoever has the other end of a TUN device leave to each other: a checksum to be finished, a packet to be cut into
/// segments (struct virtio_net_hdr, linux/virtio_net.h; ten octets, in the machine's order).
///
///     flags 1 | kind of segments 1 | octets of headers 2 | octets of data in a segment 2 | the sum begins at 2 | the field, from there 2
package struct OffloadHeader: Equatable {
    package static let octets = 10

    package enum Segments: UInt8 {
        case none = 0
        case tcpIPv4 = 1
        case tcpIPv6 = 4
        /// Datagrams that were sent as one.
        case udp = 5
    }

    // VIRTIO_NET_HDR_F_NEEDS_CSUM
    private static let unfinishedFlag: UInt8 = 1

    package var segments = Segments.none
    package var headerOctets: UInt16 = 0
    package var segmentOctets: UInt16 = 0
    /// Where the sum begins, and the field within what is summed up; `nil` if nothing is left to do. The field holds the pseudo header's sum.
    package var unfinished: (start: UInt16, field: UInt16)?

    package init() {}

    /// - Returns: `nil` for kinds of segments that nobody has asked for.
    package init?(_ octets: UnsafeRawBufferPointer) {
        guard octets.count >= Self.octets, let segments = Segments(rawValue: octets[1]) else { return nil }
        self.segments = segments
        headerOctets = octets.loadUnaligned(fromByteOffset: 2, as: UInt16.self)
        segmentOctets = octets.loadUnaligned(fromByteOffset: 4, as: UInt16.self)
        if octets[0] & Self.unfinishedFlag != 0 {
            unfinished = (octets.loadUnaligned(fromByteOffset: 6, as: UInt16.self), octets.loadUnaligned(fromByteOffset: 8, as: UInt16.self))
        }
    }

    package func encode(into octets: UnsafeMutableRawBufferPointer) {
        octets[0] = unfinished == nil ? 0 : Self.unfinishedFlag
        octets[1] = segments.rawValue
        octets.storeBytes(of: headerOctets, toByteOffset: 2, as: UInt16.self)
        octets.storeBytes(of: segmentOctets, toByteOffset: 4, as: UInt16.self)
        octets.storeBytes(of: unfinished?.start ?? 0, toByteOffset: 6, as: UInt16.self)
        octets.storeBytes(of: unfinished?.field ?? 0, toByteOffset: 8, as: UInt16.self)
    }

    package static func == (a: OffloadHeader, b: OffloadHeader) -> Bool {
        a.segments == b.segments && a.headerOctets == b.headerOctets && a.segmentOctets == b.segmentOctets
            && a.unfinished?.start == b.unfinished?.start && a.unfinished?.field == b.unfinished?.field
    }
}
