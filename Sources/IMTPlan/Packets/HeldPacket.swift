import MATSignal

/// A packet that waits for a decision. Its octets came from the network or an application: nothing in them is believed.
public struct HeldPacket: Hashable, Sendable {
    /// The whole packet, IP header first.
    public let bytes: [UInt8]
    public let source: IPAddress
    public let destination: IPAddress
    /// The transport's, behind any IPv6 extension headers: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6.
    public let protocolNumber: UInt8
    /// A TCP SYN without ACK, an echo request, or a datagram for which the kernel found a listening socket: nothing exists yet that
    /// an answer of the stack could break. Of other datagrams nothing can be said.
    public let opensConnection: Bool
    /// TCP and UDP: the ports; `nil` otherwise, and in fragments but the first.
    public let sourcePort: UInt16?
    public let destinationPort: UInt16?

    /// IPv6 extension headers looked through.
    package static let extensionHeadersMax = 8

    /// - Parameter isOpener: what the kernel's rules found out about it, who know the sockets; `nil` to judge by the octets alone.
    /// - Returns: `nil` if it is no IP packet, or shorter than its header says.
    public init?(_ packet: some Collection<UInt8>, isOpener: Bool? = nil) {
        let bytes = Array(packet)
        guard let layout = PacketLayout(bytes) else { return nil }
        self.init(bytes, layout, isOpener: isOpener)
    }

    /// A copy by NFLOG, whose checksum may be for the network card to finish: it is finished here.
    package init?(copy bytes: [UInt8], isOpener: Bool?) {
        guard let layout = PacketLayout(bytes) else { return nil }
        self.init(ChecksumCompletion.complete(bytes, layout), layout, isOpener: isOpener)
    }

    private init(_ bytes: [UInt8], _ layout: PacketLayout, isOpener: Bool?) {
        self.bytes = bytes
        source = layout.source
        destination = layout.destination
        protocolNumber = layout.protocolNumber
        let transport = layout.isLaterFragment ? [] : bytes[min(layout.transportOffset, bytes.count)...]
        func octet(_ offset: Int) -> UInt8? { transport.count > offset ? transport[transport.startIndex + offset] : nil }
        func port(_ offset: Int) -> UInt16? {
            guard let high = octet(offset), let low = octet(offset + 1) else { return nil }
            return UInt16(high) << 8 | UInt16(low)
        }
        switch layout.protocolNumber {
        case _ where isOpener != nil: opensConnection = isOpener ?? false
        case 6:
            // Flags of RFC 9293: SYN 0x02, ACK 0x10.
            opensConnection = octet(13).map { $0 & 0x12 == 0x02 } ?? false
        case 1: opensConnection = octet(0) == 8
        case 58: opensConnection = octet(0) == 128
        default: opensConnection = false
        }
        let hasPorts = layout.protocolNumber == 6 || layout.protocolNumber == 17
        sourcePort = hasPorts ? port(0) : nil
        destinationPort = hasPorts ? port(2) : nil
    }
}

/// Where the parts of an IP packet lie.
package struct PacketLayout {
    package var source: IPAddress
    package var destination: IPAddress
    package var protocolNumber: UInt8
    package var transportOffset: Int
    package var isLaterFragment = false
    /// Where the packet ends by its own account; captures may be longer.
    package var end: Int

    package init?(_ bytes: [UInt8]) {
        guard let first = bytes.first else { return nil }
        switch first >> 4 {
        case 4:
            let header = Int(first & 0xF) * 4
            guard header >= 20, bytes.count >= header else { return nil }
            let total = Int(bytes[2]) << 8 | Int(bytes[3])
            // A segmented-later packet over 65535 octets says 0.
            end = total == 0 ? bytes.count : total
            guard end >= header, end <= bytes.count else { return nil }
            guard let source = IPAddress(octets: bytes[12..<16]), let destination = IPAddress(octets: bytes[16..<20]) else {
                return nil
            }
            self.source = source
            self.destination = destination
            protocolNumber = bytes[9]
            transportOffset = header
            isLaterFragment = (UInt16(bytes[6]) << 8 | UInt16(bytes[7])) & 0x1FFF != 0
        case 6:
            guard bytes.count >= 40 else { return nil }
            let payload = Int(bytes[4]) << 8 | Int(bytes[5])
            end = payload == 0 ? bytes.count : 40 + payload
            guard end <= bytes.count else { return nil }
            guard let source = IPAddress(octets: bytes[8..<24]), let destination = IPAddress(octets: bytes[24..<40]) else {
                return nil
            }
            self.source = source
            self.destination = destination
            protocolNumber = bytes[6]
            transportOffset = 40
            skipExtensionHeaders(bytes)
        default: return nil
        }
    }

    /// Hop-by-hop 0, routing 43, fragment 44, destination options 60 (RFC 8200): next header 1 octet, then the length beyond
    /// the first 8 octets, in units of 8.
    private mutating func skipExtensionHeaders(_ bytes: [UInt8]) {
        for _ in 0..<HeldPacket.extensionHeadersMax {
            guard [0, 43, 44, 60].contains(protocolNumber), transportOffset + 8 <= end else { return }
            let next = bytes[transportOffset]
            if protocolNumber == 44 {
                let offset = UInt16(bytes[transportOffset + 2]) << 8 | UInt16(bytes[transportOffset + 3])
                isLaterFragment = offset >> 3 != 0
                transportOffset += 8
            } else {
                transportOffset += 8 + Int(bytes[transportOffset + 1]) * 8
            }
            protocolNumber = next
            if isLaterFragment { return }
        }
    }
}
