import MATSignal

/// Makes whole packets of what a TUN device hands over: cut into segments as a network card would, each with a finished checksum. A packet
/// that leaves in a datagram is read by whoever receives it, and nobody on the way would finish it.
///
///     [ IP | TCP or UDP | data, up to 64 KiB ]   ──►   [ IP | TCP | data 1 ][ IP | TCP | data 2 ] ... [ IP | TCP | rest ]
///
/// The segments lie one after the other, all but the last of one length: as one system call sends them (UDP_SEGMENT).
package enum PacketSegments {
    /// What the segments of one packet may take: with the smallest data in each, headers are the larger part.
    package static func octetsMax(of packet: Int, _ header: OffloadHeader) -> Int {
        guard header.segments != .none, header.segmentOctets > 0 else { return packet }
        return packet + packet / Int(header.segmentOctets) * headersMax
    }

    /// IPv6 with extension headers, and TCP with options.
    private static let headersMax = 256

    package struct Outcome: Equatable {
        /// Octets written.
        package var octets: Int
        /// Of each packet but the last.
        package var each: Int
    }

    /// - Returns: `nil` if the packet is not what the header says, or there is no room.
    package static func write(
        _ packet: UnsafeRawBufferPointer, _ header: OffloadHeader, into room: UnsafeMutableRawBufferPointer
    ) -> Outcome? {
        guard header.segments != .none else { return writeWhole(packet, header, into: room) }
        guard let layout = Layout(packet, header) else { return nil }
        let (each, data) = (Int(header.segmentOctets), packet.count - layout.headers)
        let count = (data + each - 1) / each
        guard packet.count + (count - 1) * layout.headers <= room.count else { return nil }
        var place = 0
        for index in 0..<count {
            let start = layout.headers + index * each
            let part = packet.part(start..<min(start + each, packet.count))
            let segment = room.part(place..<place + layout.headers + part.count)
            segment.copyMemory(from: packet.part(0..<layout.headers))
            segment.part(layout.headers..<segment.count).copyMemory(from: part)
            layout.finish(segment, index: index, isLast: index == count - 1, each: each)
            place += segment.count
        }
        return Outcome(octets: place, each: count == 1 ? place : layout.headers + each)
    }

    private static func writeWhole(
        _ packet: UnsafeRawBufferPointer, _ header: OffloadHeader, into room: UnsafeMutableRawBufferPointer
    ) -> Outcome? {
        guard packet.count <= room.count else { return nil }
        let copy = room.part(0..<packet.count)
        copy.copyMemory(from: packet)
        if let (start, field) = header.unfinished {
            let (start, field) = (Int(start), Int(start) + Int(field))
            guard field + 2 <= packet.count, start <= field else { return nil }
            finishSum(copy, from: start, field: field, field - start == 6 ? 17 : 6)
        }
        return Outcome(octets: packet.count, each: packet.count)
    }

    /// The field holds the pseudo header's sum, so the sum from `start` on is the whole.
    fileprivate static func finishSum(_ packet: UnsafeMutableRawBufferPointer, from start: Int, field: Int, _ protocolNumber: UInt8) {
        var sum = InternetSum()
        sum.add(UnsafeRawBufferPointer(packet).part(start..<packet.count))
        packet.put(sum.sent(protocolNumber), at: field)
    }
}

/// Where the parts of a packet that is to be cut lie.
private struct Layout {
    let isIPv4: Bool
    let isTCP: Bool
    /// Where TCP or UDP begins, and where its header ends.
    let transport: Int
    let headers: Int
    let sequence: UInt32
    let identification: UInt16

    init?(_ packet: UnsafeRawBufferPointer, _ header: OffloadHeader) {
        // The sum begins where the transport's header does, behind any extension headers.
        guard let start = header.unfinished?.start, header.segmentOctets > 0, packet.count >= 20 else { return nil }
        transport = Int(start)
        isIPv4 = packet[0] >> 4 == 4
        isTCP = header.segments != .udp
        guard transport >= (isIPv4 ? max(20, Int(packet[0] & 0xF) * 4) : 40), transport + (isTCP ? 20 : 8) <= packet.count else { return nil }
        headers = transport + (isTCP ? Int(packet[transport + 12] >> 4) * 4 : 8)
        guard headers >= transport + (isTCP ? 20 : 8), headers < packet.count, headers + Int(header.segmentOctets) <= 0xFFFF else { return nil }
        sequence = isTCP ? packet.long(at: transport + 4) : 0
        identification = isIPv4 ? packet.number(at: 4) : 0
    }

    /// Makes a copy of the packet's headers those of one segment.
    func finish(_ segment: UnsafeMutableRawBufferPointer, index: Int, isLast: Bool, each: Int) {
        if isIPv4 {
            segment.put(UInt16(truncatingIfNeeded: segment.count), at: 2)
            segment.put(identification &+ UInt16(truncatingIfNeeded: index), at: 4)
            segment.put(0 as UInt16, at: 10)
            var sum = InternetSum()
            sum.add(UnsafeRawBufferPointer(segment).part(0..<Int(segment[0] & 0xF) * 4))
            segment.put(~sum.folded, at: 10)
        } else {
            segment.put(UInt16(truncatingIfNeeded: segment.count - 40), at: 4)
        }
        let length = segment.count - transport
        if isTCP {
            segment.put(sequence &+ UInt32(truncatingIfNeeded: index * each), at: transport + 4)
            // FIN and PSH belong to the last, CWR to the first (RFC 3168).
            if !isLast { segment[transport + 13] &= ~0x09 }
            if index > 0 { segment[transport + 13] &= ~0x80 }
        } else {
            segment.put(UInt16(truncatingIfNeeded: length), at: transport + 4)
        }
        let field = transport + (isTCP ? 16 : 6)
        var sum = InternetSum()
        sum.addPseudoHeader(of: UnsafeRawBufferPointer(segment), protocolNumber, octets: length)
        segment.put(sum.folded, at: field)
        PacketSegments.finishSum(segment, from: transport, field: field, protocolNumber)
    }

    private var protocolNumber: UInt8 { isTCP ? 6 : 17 }
}
