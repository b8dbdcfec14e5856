import IMTPlan
import MATSignal

/// A packet of an application, told by its number; the addresses on the way are those of its `SimulatedPacket`.
public struct UserPacket: Hashable, Sendable {
    public enum Kind: Hashable, Sendable {
        /// A SYN or an echo request.
        case opening
        /// Of a TCP connection that exists.
        case segment
        /// UDP, of which nothing can be said.
        case datagram
    }

    /// What one agent says to the other within a path, seen as a packet: it is for the agent's port, and for no application.
    static let message = UserPacket(Int(UInt32.max))

    public var number: Int
    public var kind: Kind

    public init(_ number: Int, _ kind: Kind = .segment) {
        self.number = number
        self.kind = kind
    }
}

// As octets, which is what agents hold: the headers that tell what it is, and the number at the end.
extension UserPacket {
    /// The packet as it would be on the wire between these addresses. A datagram is a later fragment: that shows no ports, so that nothing can be
    /// said of it.
    package func held(from source: IPAddress, to destination: IPAddress) -> HeldPacket {
        var transport: [UInt8] = []
        if kind != .datagram {
            // Ports 1000 and 2000, sequence and acknowledgement, 20 octets of header, SYN or ACK, window, checksum, urgent pointer.
            transport =
                [3, 232, 7, 208] + [UInt8](repeating: 0, count: 8) + [0x50, kind == .opening ? 0x02 : 0x10] + [UInt8](repeating: 0, count: 6)
        }
        transport += withUnsafeBytes(of: UInt64(number).bigEndian) { Array($0) }
        let protocolNumber: UInt8 = kind == .datagram ? 17 : 6
        let octets =
            source.family == .ipv4 ? ipv4(transport, protocolNumber, source, destination) : ipv6(transport, protocolNumber, source, destination)
        guard let packet = HeldPacket(octets) else { preconditionFailure("the header says what there is") }
        return packet
    }

    private func ipv4(_ transport: [UInt8], _ protocolNumber: UInt8, _ source: IPAddress, _ destination: IPAddress) -> [UInt8] {
        // Behind the first 64 octets, if it is a fragment.
        [0x45, 0, 0, UInt8(20 + transport.count), 0, 0, 0, kind == .datagram ? 8 : 0, 64, protocolNumber, 0, 0] + source.packetOctets
            + destination.packetOctets
            + transport
    }

    private func ipv6(_ transport: [UInt8], _ protocolNumber: UInt8, _ source: IPAddress, _ destination: IPAddress) -> [UInt8] {
        let fragment: [UInt8] = kind == .datagram ? [protocolNumber, 0, 0, 64, 0, 0, 0, 0] : []
        return [0x60, 0, 0, 0, 0, UInt8(fragment.count + transport.count), kind == .datagram ? 44 : protocolNumber, 64] + source.packetOctets
            + destination.packetOctets + fragment + transport
    }

    /// What was made into octets so.
    package init(_ packet: HeldPacket) {
        number = packet.bytes.suffix(8).reduce(0) { $0 << 8 | Int($1) }
        kind = packet.protocolNumber == 17 ? .datagram : packet.opensConnection ? .opening : .segment
    }
}
