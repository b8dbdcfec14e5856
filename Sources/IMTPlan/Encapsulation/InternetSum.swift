import MATSignal

/// The Internet checksum (RFC 1071) of octets where they lie.
package struct InternetSum {
    /// Of native 32-bit words; the sum's order of octets does not matter until it is folded.
    private var total: UInt64 = 0

    package init() {}

    /// Adds octets that begin at an even place of what is summed up; only the last part may have an odd number of them.
    package mutating func add(_ octets: UnsafeRawBufferPointer) {
        let words = octets.count / 4
        // The compiler makes vectors of this loop, which it can't of one that carries.
        var sum: UInt64 = 0
        for index in 0..<words { sum &+= UInt64(octets.loadUnaligned(fromByteOffset: index &* 4, as: UInt32.self)) }
        var place = words * 4
        if octets.count - place >= 2 {
            sum &+= UInt64(octets.loadUnaligned(fromByteOffset: place, as: UInt16.self))
            place += 2
        }
        if place < octets.count { sum &+= UInt64(UInt16(bigEndian: UInt16(octets[place]) << 8)) }
        add(sum)
    }

    /// Adds a number of 16 bits.
    package mutating func add(_ number: UInt16) { add(UInt64(number.bigEndian)) }

    private mutating func add(_ sum: UInt64) {
        let (result, carries) = total.addingReportingOverflow(sum)
        total = result &+ (carries ? 1 : 0)
    }

    /// Adds the pseudo header that TCP and UDP sum up with their own part (RFC 9293 3.1, RFC 8200 8.1): the packet's addresses, the number of the
    /// protocol, and how long that part is. The caller has seen that the IP header is whole.
    package mutating func addPseudoHeader(of packet: UnsafeRawBufferPointer, _ protocolNumber: UInt8, octets: Int) {
        add(packet.part(packet[0] >> 4 == 4 ? 12..<20 : 8..<40))
        add(UInt16(protocolNumber))
        add(UInt16(truncatingIfNeeded: octets))
    }

    /// As it stands in a header of TCP or UDP.
    package func sent(_ protocolNumber: UInt8) -> UInt16 {
        let value = ~folded
        // UDP: a sum of zero is sent as all ones (RFC 768).
        return value == 0 && protocolNumber == 17 ? 0xFFFF : value
    }

    /// The sum, not inverted.
    package var folded: UInt16 {
        var sum = total
        while sum > 0xFFFF { sum = (sum & 0xFFFF) &+ sum >> 16 }
        return UInt16(bigEndian: UInt16(truncatingIfNeeded: sum))
    }
}

extension UnsafeMutableRawBufferPointer {
    /// Two octets in network order. The caller has seen that there is room.
    package func put(_ number: UInt16, at offset: Int) { storeBytes(of: number.bigEndian, toByteOffset: offset, as: UInt16.self) }

    package func put(_ number: UInt32, at offset: Int) { storeBytes(of: number.bigEndian, toByteOffset: offset, as: UInt32.self) }

    package func part(_ range: Range<Int>) -> UnsafeMutableRawBufferPointer { UnsafeMutableRawBufferPointer(rebasing: self[range]) }
}

extension UnsafeRawBufferPointer {
    package func part(_ range: Range<Int>) -> UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: self[range]) }
}
