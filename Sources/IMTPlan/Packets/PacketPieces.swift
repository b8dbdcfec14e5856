import MATSignal

/// Cuts a packet up as its sender's stack would (RFC 791, section 3.2; RFC 8200, section 4.5).
///
/// A held packet was taken before the stack cut it up, or has a narrower way now than it had then; a raw socket that is given the header
/// refuses it whole (EMSGSIZE).
package enum PacketPieces {
    /// What every link carries in IPv6 (RFC 8200, section 5), and all but a few in IPv4.
    package static let octetsMax = 1280

    /// A piece is cut up further where it is too large: it is of a datagram that the stack cut up for a wider way.
    ///
    /// - Parameter identifier: what the pieces are known by; not 0, which an IPv4 stack would replace, in each piece by another.
    /// - Returns: `nil` if it may not be cut up, or has IPv4 options.
    package static func cut(_ packet: [UInt8], identifier: UInt32) -> [[UInt8]]? {
        guard let layout = PacketLayout(packet), layout.end == packet.count else { return nil }
        return layout.source.family == .ipv4 ? cutIPv4(packet, UInt16(truncatingIfNeeded: identifier)) : cutIPv6(packet, identifier)
    }

    private static func cutIPv4(_ packet: [UInt8], _ identifier: UInt16) -> [[UInt8]]? {
        let header = Array(packet.prefix(20))
        let flagsAndOffset = UInt16(header[6]) << 8 | UInt16(header[7])
        // Don't fragment 0x4000, more fragments 0x2000, and the offset in units of eight octets.
        let (goesOn, before) = (flagsAndOffset & 0x2000, Int(flagsAndOffset & 0x1FFF))
        guard header[0] == 0x45, flagsAndOffset & 0x4000 == 0, before * 8 + packet.count <= 0xFFFF else { return nil }
        let known = UInt16(header[4]) << 8 | UInt16(header[5])
        return pieces(of: packet[20...], most: octetsMax - 20).map { offset, piece, isLast in
            var made = header
            made.replaceSubrange(2..<4, with: octets(UInt16(20 + piece.count)))
            made.replaceSubrange(4..<6, with: octets(known == 0 ? max(identifier, 1) : known))
            made.replaceSubrange(6..<8, with: octets(UInt16(before + offset / 8) | (isLast ? goesOn : 0x2000)))
            made.replaceSubrange(10..<12, with: [0, 0])
            made.replaceSubrange(10..<12, with: octets(~ChecksumCompletion.fold(ChecksumCompletion.sum(made))))
            return made + piece
        }
    }

    /// The fragment header: next header 1, zero 1, offset in units of eight octets and, in the last bit, whether more follow 2, identifier 4.
    private static func cutIPv6(_ packet: [UInt8], _ identifier: UInt32) -> [[UInt8]]? {
        let (start, field) = perPiece(packet)
        let isPiece = packet[field] == 44
        guard start + 8 <= min(packet.count, octetsMax - 8) else { return nil }
        let next = isPiece ? packet[start] : packet[field]
        let known = isPiece ? Array(packet[start + 4..<start + 8]) : octets(UInt16(identifier >> 16)) + octets(UInt16(identifier & 0xFFFF))
        let flagsAndOffset = isPiece ? UInt16(packet[start + 2]) << 8 | UInt16(packet[start + 3]) : 0
        let (goesOn, before) = (flagsAndOffset & 1, Int(flagsAndOffset & 0xFFF8))
        guard before + packet.count <= 0xFFFF else { return nil }
        return pieces(of: packet[(isPiece ? start + 8 : start)...], most: octetsMax - start - 8).map { offset, piece, isLast in
            var made = Array(packet.prefix(start))
            made.replaceSubrange(4..<6, with: octets(UInt16(start - 40 + 8 + piece.count)))
            made[field] = 44
            return made + [next, 0] + octets(UInt16(before + offset) | (isLast ? goesOn : 1)) + known + piece
        }
    }

    /// Where the part ends that each piece has: behind hop-by-hop options (0), and behind a routing header (43) and the options (60) in front of it
    /// (RFC 8200, section 4.5). `field`: the place of the octet that says what follows.
    private static func perPiece(_ packet: [UInt8]) -> (start: Int, field: Int) {
        var (start, field) = (40, 6)
        var found = (start: start, field: field)
        for _ in 0..<HeldPacket.extensionHeadersMax {
            let number = packet[field]
            guard [0, 43, 60].contains(number), start + 8 <= packet.count else { break }
            (start, field) = (start + 8 + Int(packet[start + 1]) * 8, start)
            guard start <= packet.count else { break }
            if number != 60 { found = (start, field) }
        }
        // Options behind a piece's header are of the whole; those in front of it without a routing header are nobody's doing.
        return found
    }

    /// All but the last in units of eight octets.
    private static func pieces(of payload: ArraySlice<UInt8>, most: Int) -> [(offset: Int, octets: ArraySlice<UInt8>, isLast: Bool)] {
        let step = most / 8 * 8
        return stride(from: 0, to: payload.count, by: step).map { offset in
            (offset, payload.dropFirst(offset).prefix(step), offset + step >= payload.count)
        }
    }

    private static func octets(_ value: UInt16) -> [UInt8] { [UInt8(value >> 8), UInt8(value & 0xFF)] }
}
