import MATSignal

/// Cuts a packet up as its sender's stack would (RFC 791, section 3.2; RFC 8200, section 4.5).
///
/// A held packet was taken before the stack cut it up, or has a narrower way now than it had then; a raw socket that is given the header
/// refuses it whole (EMSGSIZE).
package enum PacketPieces {
    /// What every link carries in IPv6 (RFC 8200, section 5), and all but a few in IPv4.
    package static let octetsMax = 1280

    /// - Parameter identifier: what the pieces are known by; not 0, which an IPv4 stack would replace, in each piece by another.
    /// - Returns: `nil` if it may not be cut up or is cut up already, or has IPv4 options or IPv6 extension headers: no packet that is held
    ///   on its way out has them but by its application's wish.
    package static func cut(_ packet: [UInt8], identifier: UInt32) -> [[UInt8]]? {
        guard let layout = PacketLayout(packet), layout.end == packet.count else { return nil }
        return layout.source.family == .ipv4 ? cutIPv4(packet, UInt16(truncatingIfNeeded: identifier)) : cutIPv6(packet, identifier)
    }

    private static func cutIPv4(_ packet: [UInt8], _ identifier: UInt16) -> [[UInt8]]? {
        let header = Array(packet.prefix(20))
        let flagsAndOffset = UInt16(header[6]) << 8 | UInt16(header[7])
        // Don't fragment 0x4000, more fragments 0x2000, and the offset.
        guard header[0] == 0x45, flagsAndOffset & 0x7FFF == 0 else { return nil }
        let known = UInt16(header[4]) << 8 | UInt16(header[5])
        return pieces(of: packet[20...], most: octetsMax - 20).map { offset, piece, isLast in
            var made = header
            made.replaceSubrange(2..<4, with: octets(UInt16(20 + piece.count)))
            made.replaceSubrange(4..<6, with: octets(known == 0 ? max(identifier, 1) : known))
            made.replaceSubrange(6..<8, with: octets(UInt16(offset / 8) | (isLast ? 0 : 0x2000)))
            made.replaceSubrange(10..<12, with: [0, 0])
            made.replaceSubrange(10..<12, with: octets(~ChecksumCompletion.fold(ChecksumCompletion.sum(made))))
            return made + piece
        }
    }

    private static func cutIPv6(_ packet: [UInt8], _ identifier: UInt32) -> [[UInt8]]? {
        let header = Array(packet.prefix(40))
        // Hop-by-hop 0, routing 43, fragment 44, destination options 60.
        guard ![0, 43, 44, 60].contains(header[6]) else { return nil }
        return pieces(of: packet[40...], most: octetsMax - 48).map { offset, piece, isLast in
            var made = header
            made.replaceSubrange(4..<6, with: octets(UInt16(8 + piece.count)))
            made[6] = 44
            return made + [header[6], 0] + octets(UInt16(offset) | (isLast ? 0 : 1)) + octets(UInt16(identifier >> 16))
                + octets(UInt16(identifier & 0xFFFF)) + piece
        }
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
