import MATSignal

/// Finishes transport checksums that a network card would have finished.
///
/// A packet from a virtual link, or one put together by receive offload, is copied to us with only the pseudo header's sum in its
/// checksum field. Given back to the stack as it is, it would count as damaged. A packet whose field is anything else
/// is left alone: if it is damaged, the stack shall notice.
package enum ChecksumCompletion {
    package static func complete(_ packet: [UInt8]) -> [UInt8] {
        PacketLayout(packet).map { complete(packet, $0) } ?? packet
    }

    static func complete(_ packet: [UInt8], _ layout: PacketLayout) -> [UInt8] {
        guard !layout.isLaterFragment else { return packet }
        let fieldOffset: Int
        switch layout.protocolNumber {
        case 6: fieldOffset = layout.transportOffset + 16
        case 17: fieldOffset = layout.transportOffset + 6
        default: return packet
        }
        guard fieldOffset + 2 <= layout.end else { return packet }
        let length = layout.end - layout.transportOffset
        let pseudo = sum(layout.source) &+ sum(layout.destination) &+ UInt64(layout.protocolNumber) &+ UInt64(length)
        let field = UInt16(packet[fieldOffset]) << 8 | UInt16(packet[fieldOffset + 1])
        guard field == fold(pseudo), field != 0 else { return packet }
        var finished = packet
        // The field itself holds the pseudo header's sum, so the sum over the transport part is the whole.
        let value = ~fold(sum(packet[layout.transportOffset..<layout.end]))
        // UDP: a sum of zero is sent as all ones (RFC 768).
        let sent = value == 0 && layout.protocolNumber == 17 ? 0xFFFF : value
        finished[fieldOffset] = UInt8(sent >> 8)
        finished[fieldOffset + 1] = UInt8(sent & 0xFF)
        return finished
    }

    /// In words of 32 bits: folded, it comes to the same as in words of 16.
    private static func sum(_ address: IPAddress) -> UInt64 {
        if let word = address.ipv4 { return UInt64(word) }
        return address.high >> 32 &+ address.high & 0xFFFF_FFFF &+ address.low >> 32 &+ address.low & 0xFFFF_FFFF
    }

    package static func sum(_ octets: some Collection<UInt8>) -> UInt64 {
        var total: UInt64 = 0
        var isHigh = true
        for octet in octets {
            total &+= isHigh ? UInt64(octet) << 8 : UInt64(octet)
            isHigh.toggle()
        }
        return total
    }

    package static func fold(_ total: UInt64) -> UInt16 {
        var total = total
        while total > 0xFFFF { total = (total & 0xFFFF) &+ total >> 16 }
        return UInt16(total)
    }
}
