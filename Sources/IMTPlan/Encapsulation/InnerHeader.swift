import MATSignal

/// What is looked at of a packet that travels in a datagram, read where it lies: its octets came from the network or an application, and
/// nothing in them is believed.
package struct InnerHeader: Equatable {
    package var source: IPAddress
    package var destination: IPAddress
    /// DSCP and ECN.
    package var trafficClass: UInt8
    package var family: AddressFamily

    /// - Returns: `nil` unless the octets are exactly one IP packet (protocol.md section 11.2).
    package init?(_ packet: UnsafeRawBufferPointer) {
        guard packet.count >= 20 else { return nil }
        switch packet[0] >> 4 {
        case 4:
            let header = Int(packet[0] & 0xF) * 4
            guard header >= 20, header <= packet.count, Int(packet.number(at: 2)) == packet.count else { return nil }
            family = .ipv4
            source = IPAddress(ipv4: packet.long(at: 12))
            destination = IPAddress(ipv4: packet.long(at: 16))
            trafficClass = packet[1]
        case 6:
            guard packet.count >= 40, Int(packet.number(at: 4)) + 40 == packet.count else { return nil }
            family = .ipv6
            source = packet.address(at: 8)
            destination = packet.address(at: 24)
            trafficClass = UInt8(truncatingIfNeeded: packet.number(at: 0) >> 4)
        default: return nil
        }
        // An address of one family in the other's header would be taken for it.
        guard family == .ipv4 || (source.family == .ipv6 && destination.family == .ipv6) else { return nil }
    }

    /// Gives a packet another traffic class. An IPv4 header's sum changes with it and is not made anew: a wrong one stays wrong.
    package static func setTrafficClass(_ new: UInt8, in packet: UnsafeMutableRawBufferPointer) {
        let old = UnsafeRawBufferPointer(packet).number(at: 0)
        guard old >> 12 == 4 else {
            packet.put(old & 0xF00F | UInt16(new) << 4, at: 0)
            return
        }
        packet[1] = new
        // RFC 1624: the inverted sum, less the old word, more the new one.
        var sum = InternetSum()
        for word in [~UnsafeRawBufferPointer(packet).number(at: 10), ~old, old & 0xFF00 | UInt16(new)] { sum.add(word) }
        packet.put(~sum.folded, at: 10)
    }
}

extension UnsafeRawBufferPointer {
    /// Two octets in network order. The caller has seen that they are there.
    package func number(at offset: Int) -> UInt16 { UInt16(self[offset]) << 8 | UInt16(self[offset + 1]) }

    package func long(at offset: Int) -> UInt32 { UInt32(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }

    package func address(at offset: Int) -> IPAddress {
        IPAddress(
            high: UInt64(bigEndian: loadUnaligned(fromByteOffset: offset, as: UInt64.self)),
            low: UInt64(bigEndian: loadUnaligned(fromByteOffset: offset + 8, as: UInt64.self)))
    }
}
