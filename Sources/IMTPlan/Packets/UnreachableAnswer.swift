import MATSignal

/// The error that tells the sender of a packet that it does not leave: as of a router that does not let it pass, so that programs are told at once
/// (RFC 1812, section 5.2.7.1; RFC 4443, section 3.1).
package enum UnreachableAnswer {
    private static let icmp: UInt8 = 1, icmp6: UInt8 = 58
    /// Of the whole: what every host takes.
    private static let octetsMax4 = 576, octetsMax6 = 1280

    /// - Returns: an error from the packet's destination to its source; `nil` for what gets none: errors themselves, and pieces but the first.
    package static func answer(to packet: HeldPacket) -> [UInt8]? {
        guard let layout = PacketLayout(packet.bytes), !layout.isLaterFragment else { return nil }
        let isIPv4 = packet.source.isIPv4
        guard packet.protocolNumber != (isIPv4 ? icmp : icmp6) || packet.opensConnection else { return nil }
        let (source, destination) = (packet.source.packetOctets, packet.destination.packetOctets)
        guard isIPv4 else {
            // To TCP "prohibited" would be a lack of permission (EACCES); a connected datagram socket hears of nothing else.
            let code: UInt8 = packet.protocolNumber == 6 ? 3 : 1
            var message = [1, code, 0, 0, 0, 0, 0, 0] + packet.bytes.prefix(octetsMax6 - 48)
            put(sum: ChecksumCompletion.sum(destination + source) + UInt64(icmp6) + UInt64(message.count), of: &message)
            return [0x60, 0, 0, 0, UInt8(message.count >> 8), UInt8(message.count & 0xFF), icmp6, 64] + destination + source + message
        }
        var message = [3, 13, 0, 0, 0, 0, 0, 0] + packet.bytes.prefix(octetsMax4 - 28)
        put(sum: 0, of: &message)
        let total = 20 + message.count
        var header: [UInt8] = [0x45, 0, UInt8(total >> 8), UInt8(total & 0xFF), 0, 0, 0, 0, 64, icmp, 0, 0] + destination + source
        let sum = ~ChecksumCompletion.fold(ChecksumCompletion.sum(header))
        header.replaceSubrange(10..<12, with: [UInt8(sum >> 8), UInt8(sum & 0xFF)])
        return header + message
    }

    /// - Parameter sum: of the pseudo header.
    private static func put(sum: UInt64, of message: inout [UInt8]) {
        let sum = ~ChecksumCompletion.fold(sum + ChecksumCompletion.sum(message))
        message.replaceSubrange(2..<4, with: [UInt8(sum >> 8), UInt8(sum & 0xFF)])
    }
}
