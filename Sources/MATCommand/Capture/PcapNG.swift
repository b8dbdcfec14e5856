/// A capture file in pcapng (draft-ietf-opsawg-pcapng), as blocks: little-endian, times in nanoseconds, packets that begin with their IP header.
///
/// ```
///   type 4 | length 4 | body, padded to 4 | length 4        option: code 2 | length 2 | value, padded to 4
/// ```
enum PcapNG {
    enum Direction: UInt32 {
        case inbound = 1
        case outbound = 2
    }

    /// LINKTYPE_RAW: IPv4 or IPv6, by the first four bits.
    private static let rawPackets: UInt16 = 101
    static let octetsMax: UInt32 = 262_144

    private enum Option {
        static let end: UInt16 = 0, comment: UInt16 = 1
        static let hardware: UInt16 = 2, system: UInt16 = 3, application: UInt16 = 4
        static let name: UInt16 = 2, description: UInt16 = 3, resolution: UInt16 = 9
        static let flags: UInt16 = 2
    }

    /// The section that all others are in.
    static func section(system: String, application: String, comment: String) -> [UInt8] {
        let options = text(Option.comment, comment) + text(Option.system, system) + text(Option.application, application) + end
        return block(0x0A0D_0D0A, little(0x1A2B_3C4D) + little16(1) + little16(0) + [UInt8](repeating: 0xFF, count: 8) + options)
    }

    /// Interfaces are numbered by their order.
    static func interface(_ name: String, _ description: String) -> [UInt8] {
        let options = text(Option.name, name) + text(Option.description, description) + option(Option.resolution, [9]) + end
        return block(1, little16(rawPackets) + little16(0) + little(octetsMax) + options)
    }

    /// - Parameters:
    ///   - octets: as much of the packet as was kept.
    ///   - length: of the whole packet.
    static func packet(
        interface: UInt32, nanoseconds: UInt64, _ octets: [UInt8], length: Int, _ direction: Direction, comment: String
    ) -> [UInt8] {
        let head =
            little(interface) + little(UInt32(truncatingIfNeeded: nanoseconds >> 32)) + little(UInt32(truncatingIfNeeded: nanoseconds))
            + little(UInt32(clamping: octets.count)) + little(UInt32(clamping: length))
        return block(6, head + padded(octets) + text(Option.comment, comment) + option(Option.flags, little(direction.rawValue)) + end)
    }

    private static var end: [UInt8] { little16(Option.end) + little16(0) }

    private static func block(_ type: UInt32, _ body: [UInt8]) -> [UInt8] {
        let length = little(UInt32(clamping: body.count + 12))
        return little(type) + length + body + length
    }

    private static func text(_ code: UInt16, _ text: String) -> [UInt8] { option(code, Array(text.utf8.prefix(Int(UInt16.max)))) }
    private static func option(_ code: UInt16, _ value: [UInt8]) -> [UInt8] {
        little16(code) + little16(UInt16(clamping: value.count)) + padded(value)
    }
    private static func padded(_ octets: [UInt8]) -> [UInt8] { octets + [UInt8](repeating: 0, count: (4 - octets.count % 4) % 4) }
    private static func little(_ value: UInt32) -> [UInt8] { (0..<4).map { UInt8(truncatingIfNeeded: value >> (8 * $0)) } }
    private static func little16(_ value: UInt16) -> [UInt8] { [UInt8(truncatingIfNeeded: value), UInt8(truncatingIfNeeded: value >> 8)] }
}
